//! The virtual source of a sender: an object that can change while it is sent, that may grow, and of which only the last
//! blocks may be kept.

use crate::pack::are_zero;
use crate::storage::{RawBytes, Source, SourceError};
use crate::units::Extent;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An object in memory that can change while the sender reads it, and that may grow.
#[derive(Clone)]
pub struct SimSource {
    bytes: Arc<Vec<u8>>,
    changed: Arc<AtomicBool>,
    growth: Option<Growth>,
}

/// How a stream is read.
#[derive(Clone)]
struct Growth {
    block_log2: u8,
    /// The producer dies when this many blocks were read.
    dies_after: Option<u32>,
    /// Most blocks that are kept; `None` for all.
    window: Option<u32>,
    read: Arc<Mutex<Read>>,
}

/// How far a stream has been read, and what of it is gone.
#[derive(Default)]
struct Read {
    extent: Extent,
    forgotten: u64,
}

impl Growth {
    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimSource {
    /// A source of `bytes`.
    #[must_use]
    pub fn new(bytes: Arc<Vec<u8>>) -> Self {
        Self { bytes, changed: Arc::new(AtomicBool::new(false)), growth: None }
    }
    /// The same bytes as a stream, read from its beginning. Its producer dies after so many blocks, if it does, and
    /// so many blocks are kept, if not all.
    #[must_use]
    pub fn growing(&self, block_log2: u8, dies_after: Option<u32>, window: Option<u32>) -> Self {
        let growth = Growth { block_log2, dies_after, window, read: Arc::default() };
        Self { growth: Some(growth), ..self.clone() }
    }
    /// All of its bytes.
    #[must_use]
    pub fn bytes(&self) -> Arc<Vec<u8>> {
        Arc::clone(&self.bytes)
    }
    /// Changes the file: from now on it cannot be read, checked or sent.
    pub fn change(&self) {
        self.changed.store(true, Ordering::SeqCst);
    }
    /// Bytes of a stream that are gone.
    fn forgotten(&self) -> u64 {
        self.growth.as_ref().map_or(0, |growth| growth.read().forgotten)
    }
    /// The bytes that `raw` stands for, as the kernel would read them; `None` if they no longer exist.
    ///
    /// # Panics
    /// If a window has let go of them: the kernel would read zeros.
    #[must_use]
    pub fn resolve(&self, raw: RawBytes) -> Option<&[u8]> {
        if self.changed.load(Ordering::SeqCst) {
            return None;
        }
        let start = (raw.address as usize).checked_sub(self.bytes.as_ptr() as usize)?;
        assert!(start as u64 >= self.forgotten(), "what is gone is sent: byte {start}");
        self.bytes.get(start..start.checked_add(raw.len)?)
    }
}

impl Source for SimSource {
    fn extent(&self) -> Extent {
        let growth = self.growth.as_ref().map(|growth| growth.read().extent);
        growth.unwrap_or_else(|| Extent::sealed(self.bytes.len() as u64))
    }
    fn read_on(&self) -> Result<Extent, SourceError> {
        let Some(growth) = &self.growth else { return Ok(self.extent()) };
        let mut read = growth.read();
        let (size, block) = (self.bytes.len() as u64, 1_u64 << growth.block_log2);
        if growth.dies_after.is_some_and(|blocks| read.extent.size >= u64::from(blocks) * block) {
            return Err(SourceError::Read("the producer died".to_owned()));
        }
        let next = read.extent.size + block;
        read.extent = if next < size { Extent { size: next, sealed: false } } else { Extent::sealed(size) };
        let kept = read.extent.size - read.forgotten;
        // Beside these, the beginning of the next block.
        let most = growth.window.map_or(u64::MAX, |blocks| u64::from(blocks - 1) * block);
        assert!(kept <= most, "I6: a window keeps {kept} bytes, more than {most}");
        Ok(read.extent)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.check()?;
        assert!(offset >= self.forgotten(), "what is gone is read: byte {offset}");
        let offset = offset as usize;
        let end = offset.checked_add(buf.len()).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| SourceError::Read("read beyond the end of the source".to_owned()))?;
        buf.copy_from_slice(&self.bytes[offset..end]);
        Ok(())
    }
    fn is_hole(&self, offset: u64, len: usize) -> bool {
        // Every second range of zeros was never written.
        let zeros = self.check().is_ok() && are_zero(&self.bytes[offset as usize..][..len]);
        zeros && (offset / len.max(1) as u64).is_multiple_of(2)
    }
    fn raw(&self, offset: u64, len: usize) -> Option<RawBytes> {
        assert!(offset + len as u64 <= self.extent().size, "what is sent was read before");
        let bytes = &self.bytes[offset as usize..][..len];
        Some(RawBytes { address: bytes.as_ptr(), len })
    }
    fn forget(&self, offset: u64) {
        if let Some(growth) = self.growth.as_ref().filter(|growth| growth.window.is_some()) {
            let mut read = growth.read();
            read.forgotten = read.forgotten.max(offset);
        }
    }
    fn check(&self) -> Result<(), SourceError> {
        if self.changed.load(Ordering::SeqCst) {
            return Err(SourceError::Changed("the source changed while it was being sent".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_source_cannot_be_used() {
        let source = SimSource::new(Arc::new((0..100).collect()));
        let raw = source.raw(10, 5).unwrap();
        assert_eq!(source.resolve(raw), Some(&[10, 11, 12, 13, 14][..]));
        source.change();
        assert!(source.resolve(raw).is_none() && source.check().is_err());
        assert!(source.read_at(0, &mut [0]).is_err());
    }

    #[test]
    #[should_panic(expected = "what is gone is read")]
    fn what_a_window_has_let_go_of_is_not_read() {
        let source = SimSource::new(Arc::new(vec![7; 4 << 10])).growing(10, None, Some(3));
        source.read_on().unwrap();
        source.read_on().unwrap();
        source.read_at(0, &mut [0]).unwrap();
        source.forget(1 << 10);
        source.read_on().unwrap();
        let _ = source.read_at(0, &mut [0]);
    }

    #[test]
    #[should_panic(expected = "I6")]
    fn a_window_keeps_no_more_than_it_may() {
        let source = SimSource::new(Arc::new(vec![7; 4 << 10])).growing(10, None, Some(2));
        (0..3).for_each(|_| drop(source.read_on()));
    }
}
