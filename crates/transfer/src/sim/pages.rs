//! The bytes of a virtual file, page by page. A page that equals the object is a reference and not a
//! copy, so a thousand devices' copies take no memory. Every write can be undone.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page.
const PAGE: usize = 4_096;
/// Bytes that a disk writes at once. A crash tears writes at these boundaries.
const SECTOR: usize = 512;
/// Sectors of a page.
const SECTORS: usize = PAGE / SECTOR;

/// Where the bytes of a page are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Page {
    Zero,
    /// In the object, at the same position.
    Object,
    /// In the file's own pages.
    Own,
}

/// The previous content of consecutive pages, before a write.
struct Undo {
    first: usize,
    pages: Vec<Page>,
    own: Vec<(usize, Box<[u8]>)>,
}

/// A file of fixed length, initially zeros.
pub struct Pages {
    len: usize,
    object: Arc<Vec<u8>>,
    pages: Vec<Page>,
    own: BTreeMap<usize, Box<[u8]>>,
    /// The writes since the last sync.
    undo: Vec<Undo>,
}

impl Pages {
    /// A file of `len` zeros that is expected to become `object`.
    #[must_use]
    pub fn new(len: usize, object: Arc<Vec<u8>>) -> Self {
        let pages = vec![Page::Zero; len.div_ceil(PAGE)];
        Self { len, object, pages, own: BTreeMap::new(), undo: Vec::new() }
    }
    /// Bytes of the file.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }
    /// Whether the file is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The length of the page `index` in bytes.
    fn page_len(&self, index: usize) -> usize {
        PAGE.min(self.len - index * PAGE)
    }
    /// The object's bytes at the position of the page, if there are as many.
    fn original(&self, index: usize) -> Option<&[u8]> {
        self.object.get(index * PAGE..index * PAGE + self.page_len(index))
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Panics
    /// If the range exceeds the end.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len, "a write beyond the end of the file");
        let mut undo = Undo { first: offset / PAGE, pages: Vec::new(), own: Vec::new() };
        let (mut at, end) = (offset, offset + bytes.len());
        while at < end {
            let (index, start) = (at / PAGE, at % PAGE);
            let count = (PAGE - start).min(end - at);
            let new = &bytes[at - offset..at - offset + count];
            let own = if self.original(index) == Some(new) {
                None
            } else {
                let mut own = vec![0; self.page_len(index)];
                self.read_page(index, 0, &mut own);
                own[start..start + count].copy_from_slice(new);
                Some(own).filter(|own| self.original(index) != Some(own))
            };
            undo.pages.push(self.pages[index]);
            undo.own.extend(self.own.remove(&index).map(|page| (index, page)));
            self.pages[index] = if own.is_some() { Page::Own } else { Page::Object };
            self.own.extend(own.map(|page| (index, page.into())));
            at += count;
        }
        self.undo.push(undo);
    }

    fn read_page(&self, index: usize, start: usize, buf: &mut [u8]) {
        match self.pages[index] {
            Page::Zero => buf.fill(0),
            Page::Object => buf.copy_from_slice(&self.object[index * PAGE + start..][..buf.len()]),
            Page::Own => buf.copy_from_slice(&self.own[&index][start..start + buf.len()]),
        }
    }

    /// Reads `buf.len()` bytes from `offset` on.
    ///
    /// # Panics
    /// If the range exceeds the end.
    pub fn read(&self, offset: usize, buf: &mut [u8]) {
        assert!(offset + buf.len() <= self.len, "a read beyond the end of the file");
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done;
            let count = (PAGE - at % PAGE).min(buf.len() - done);
            self.read_page(at / PAGE, at % PAGE, &mut buf[done..done + count]);
            done += count;
        }
    }

    /// The first written range at or after `from`, in whole pages.
    #[must_use]
    pub fn next_written(&self, from: usize) -> Option<std::ops::Range<usize>> {
        let pages = self.pages.iter().skip(from / PAGE);
        let start = from / PAGE + pages.clone().position(|page| *page != Page::Zero)?;
        let rest = self.pages.iter().skip(start);
        let end = start + rest.take_while(|page| **page != Page::Zero).count();
        Some((start * PAGE).max(from)..(end * PAGE).min(self.len))
    }

    /// Makes all writes durable.
    pub fn sync(&mut self) {
        self.undo.clear();
    }

    /// Whether all writes are durable.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.undo.is_empty()
    }

    /// Keeps all, nothing, a prefix, or some sectors of each write since the last sync.
    pub fn crash(&mut self, rng: &mut fastrand::Rng) {
        for mut write in std::mem::take(&mut self.undo).into_iter().rev() {
            let sectors = write.pages.len() * SECTORS;
            let (fate, beginning) = (rng.u8(..8), rng.usize(..=sectors));
            let mut own: BTreeMap<usize, Box<[u8]>> = write.own.drain(..).collect();
            for (i, before) in write.pages.into_iter().enumerate() {
                let kept: [bool; SECTORS] = std::array::from_fn(|sector| match fate {
                    0..3 => true,
                    3..6 => false,
                    6 => i * SECTORS + sector < beginning,
                    _ => rng.bool(),
                });
                self.revert(write.first + i, before, own.remove(&(write.first + i)), &kept);
            }
        }
    }

    /// Restores the previous content of a page, except for the sectors in `kept`.
    fn revert(&mut self, index: usize, before: Page, own: Option<Box<[u8]>>, kept: &[bool; SECTORS]) {
        if kept.iter().all(|kept| *kept) {
            return;
        }
        let mut now = vec![0; self.page_len(index)];
        self.read_page(index, 0, &mut now);
        self.pages[index] = before;
        self.own.remove(&index);
        self.own.extend(own.map(|page| (index, page)));
        if kept.iter().any(|kept| *kept) {
            let mut mixed = vec![0; now.len()];
            self.read_page(index, 0, &mut mixed);
            let sectors = mixed.chunks_mut(SECTOR).zip(now.chunks(SECTOR)).zip(kept);
            for ((mixed, now), _) in sectors.filter(|(_, kept)| **kept) {
                mixed.copy_from_slice(now);
            }
            self.pages[index] = Page::Own;
            self.own.insert(index, mixed.into());
        }
    }

    /// The whole content; the object itself if they are equal.
    #[must_use]
    pub fn content(&self) -> Arc<Vec<u8>> {
        if self.len == self.object.len() && self.pages.iter().all(|p| *p == Page::Object) {
            return Arc::clone(&self.object);
        }
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        Arc::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_file() {
        let mut rng = fastrand::Rng::with_seed(5);
        let object: Arc<Vec<u8>> = Arc::new((0..20_000).map(|_| rng.u8(..)).collect());
        let mut pages = Pages::new(object.len(), Arc::clone(&object));
        let mut plain = vec![0; object.len()];
        for round in 0..200 {
            let start = rng.usize(..object.len());
            let end = rng.usize(start..=object.len());
            let mut bytes = object[start..end].to_vec();
            if round % 3 == 0 {
                bytes.fill(round as u8);
            }
            pages.write(start, &bytes);
            plain[start..end].copy_from_slice(&bytes);
            let mut read = vec![0; end - start];
            pages.read(start, &mut read);
            assert_eq!(read, bytes);
            assert!(*pages.content() == plain);
        }
        for (i, chunk) in object.chunks(64).enumerate() {
            pages.write(i * 64, chunk);
        }
        assert!(Arc::ptr_eq(&pages.content(), &object));
    }

    #[test]
    fn a_crash_undoes_only_what_was_not_synced() {
        let object = Arc::new(vec![7; 3 * PAGE]);
        let (mut kept, mut lost, mut begun, mut torn) = (0, 0, 0, 0);
        for seed in 0..200 {
            let mut pages = Pages::new(object.len(), Arc::clone(&object));
            pages.write(0, &[1; PAGE]);
            pages.sync();
            assert!(pages.is_synced());
            pages.write(0, &[2; 3 * PAGE]);
            assert!(!pages.is_synced());
            pages.crash(&mut fastrand::Rng::with_seed(seed));
            assert!(pages.is_synced());
            let content = pages.content();
            let sectors: Vec<bool> = content
                .chunks(SECTOR)
                .enumerate()
                .map(|(i, sector)| {
                    let before = u8::from(i < SECTORS);
                    assert!(sector.iter().all(|b| *b == sector[0]) && [before, 2].contains(&sector[0]));
                    sector[0] == 2
                })
                .collect();
            let first = sectors.iter().take_while(|kept| **kept).count();
            match sectors.iter().filter(|kept| **kept).count() {
                24 => kept += 1,
                0 => lost += 1,
                n if n == first => begun += 1,
                _ => torn += 1,
            }
        }
        assert!([kept, lost, begun, torn].iter().all(|n| *n > 10), "{kept} {lost} {begun} {torn}");
    }
}
