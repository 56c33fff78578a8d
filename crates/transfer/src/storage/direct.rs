//! Writing and reading past the page cache (`O_DIRECT`). A receiver does not read its writes again, so a copy in the
//! cache costs time and evicts other programs' pages. And what is read past the cache is what the disk holds. If the file system or the alignment of a piece
//! forbids direct writing, the piece goes through the cache.

use rustix::fs::OFlags;
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Alignment of offset, length and address of a direct write. No disk asks for more.
const ALIGN: usize = 4096;
/// Smallest object that is written directly. Smaller objects stay in the page cache: they evict little,
/// and may be read at once.
const SMALLEST: u64 = 16 << 20;

/// A second descriptor of a part file or a device, for direct writing and reading.
#[derive(Debug, Default)]
pub(super) struct Direct {
    file: Option<File>,
    /// Whether the file system refused a write after it had accepted the opening.
    refused: AtomicBool,
}

impl Direct {
    /// Opens the part file `name` in `dir` again, which is open as `file`, for an object of `size` bytes.
    pub fn new(dir: &OwnedFd, name: &str, file: &File, size: u64) -> Self {
        let opened = if size < SMALLEST { None } else { open(dir, name, file) };
        Self::of(opened)
    }

    /// Takes a descriptor that was opened so; without one, nothing is written directly.
    pub const fn of(file: Option<File>) -> Self {
        Self { file, refused: AtomicBool::new(false) }
    }

    /// Writes a prefix of `bytes` at `offset` directly, and returns its length. It is 0 if the file or
    /// the piece does not allow direct writing.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let aligned = offset.is_multiple_of(ALIGN as u64) && bytes.as_ptr().align_offset(ALIGN) == 0;
        let len = bytes.len() - bytes.len() % ALIGN;
        let Some(file) = self.file.as_ref().filter(|_| aligned && !self.refused.load(Ordering::Relaxed))
        else {
            return Ok(0);
        };
        let (written, wanted) =
            pages(len, |from| rustix::io::pwrite(file, &bytes[from..len], offset + from as u64))?;
        if !wanted {
            self.refused.store(true, Ordering::Relaxed);
        }
        Ok(written)
    }

    /// Reads a prefix of `buf` at `offset` from the disk, not from the cache, and returns its length. It is 0 if the
    /// file or the piece does not allow that.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let aligned = offset.is_multiple_of(ALIGN as u64) && buf.as_ptr().align_offset(ALIGN) == 0;
        let len = buf.len() - buf.len() % ALIGN;
        let Some(file) = self.file.as_ref().filter(|_| aligned) else { return Ok(0) };
        let read = pages(len, |from| rustix::io::pread(file, &mut buf[from..len], offset + from as u64))?;
        Ok(read.0)
    }
}

/// Bytes at a page boundary, as direct writing and reading need them.
#[derive(Debug)]
pub(super) struct PageAligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl PageAligned {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN];
        // The vector never grows, so its bytes stay where they are.
        let start = bytes.as_ptr().align_offset(ALIGN);
        Self { bytes, start, len }
    }
}

impl Deref for PageAligned {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for PageAligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// Transfers whole pages up to `len` with `write`, which writes or reads. It gets the number of bytes done so far and
/// returns the number of further bytes that it did. Returns the total, and whether the file system accepts such
/// transfers.
fn pages(len: usize, mut write: impl FnMut(usize) -> Result<usize, Errno>) -> io::Result<(usize, bool)> {
    let mut written = 0;
    while written < len {
        let n = match retry_on_intr(|| write(written)) {
            // A page that was written in part is written again as a whole.
            Ok(n) => n - n % ALIGN,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => 0,
            Err(errno) => return Err(errno.into()),
        };
        if n == 0 {
            return Ok((written, false));
        }
        written += n;
    }
    Ok((written, true))
}

fn open(dir: &OwnedFd, name: &str, file: &File) -> Option<File> {
    let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = retry_on_intr(|| rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty())).ok()?;
    let opened = File::from(opened);
    let (ours, theirs) = (file.metadata().ok()?, opened.metadata().ok()?);
    // Other programs can replace the file under this name.
    ((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())).then_some(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;
    use std::os::unix::fs::FileExt;

    /// `len` different bytes at a page boundary.
    fn aligned(len: usize) -> PageAligned {
        let mut bytes = PageAligned::zeroed(len);
        (0..).zip(&mut *bytes).for_each(|(i, byte)| *byte = (i % 251) as u8);
        bytes
    }

    #[test]
    fn what_it_writes_is_in_the_file_and_the_rest_is_left_to_others() {
        let dir = Scratch::new();
        let path = dir.join("x");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(64 << 10).unwrap();
        let fd = OwnedFd::from(File::open(path.parent().unwrap()).unwrap());
        let direct = Direct::new(&fd, "x", &file, SMALLEST);
        let bytes = aligned(20_000);
        let block = &*bytes;
        // Earlier spilled through the cache, as part of a block may be.
        file.write_all_at(&[9; 10_000], 4096).unwrap();
        let written = direct.write_at(4096, block).unwrap();
        assert!(written == 0 || written == 16_384, "{written}");
        file.write_all_at(&block[written..], 4096 + written as u64).unwrap();
        let mut back = vec![0; 20_000];
        file.read_exact_at(&mut back, 4096).unwrap();
        assert_eq!(back, block);
        let mut back = PageAligned::zeroed(20_000);
        let read = direct.read_at(4096, &mut back).unwrap();
        assert!(read == 0 || read == 16_384, "{read}");
        assert_eq!(back[..read], block[..read]);
        assert_eq!(direct.read_at(100, &mut back).unwrap(), 0);
        for (offset, piece) in [(100, block), (4096, &block[1..]), (0, &block[..100]), (0, &[])] {
            assert_eq!(direct.write_at(offset, piece).unwrap(), 0, "{offset} {}", piece.len());
        }
    }

    #[test]
    fn short_and_interrupted_writes_are_gone_on_with() {
        let play = |len: usize, answers: &[Result<usize, Errno>]| {
            let (mut answers, mut asked) = (answers.iter(), Vec::new());
            let done = pages(len, |from| {
                asked.push(from);
                answers.next().copied().unwrap_or(Ok(len - from))
            });
            (done.map_err(|error| Errno::from_io_error(&error)), asked)
        };
        const P: usize = ALIGN;
        assert_eq!(play(4 * P, &[]), (Ok((4 * P, true)), vec![0]));
        let short = [Ok(P), Err(Errno::INTR), Ok(2 * P + 100)];
        assert_eq!(play(4 * P, &short), (Ok((4 * P, true)), vec![0, P, P, 3 * P]));
        // Less than a page, nothing, or direct writes refused: the caller writes the rest.
        for answer in [Ok(P - 1), Ok(0), Err(Errno::INVAL), Err(Errno::OPNOTSUPP)] {
            assert_eq!(play(2 * P, &[Ok(P), answer]), (Ok((P, false)), vec![0, P]));
        }
        for errno in [Errno::IO, Errno::NOSPC, Errno::ROFS] {
            assert_eq!(play(2 * P, &[Ok(P), Err(errno)]), (Err(Some(errno)), vec![0, P]));
        }
        assert_eq!(play(0, &[]), (Ok((0, true)), vec![]));
    }

    #[test]
    fn small_objects_and_other_files_are_not_written_directly() {
        let dir = Scratch::new();
        let file = File::create_new(dir.join("x")).unwrap();
        File::create_new(dir.join("y")).unwrap();
        let fd = OwnedFd::from(File::open(dir.join("x").parent().unwrap()).unwrap());
        assert!(Direct::new(&fd, "x", &file, SMALLEST - 1).file.is_none());
        assert!(Direct::new(&fd, "y", &file, SMALLEST).file.is_none());
        assert!(Direct::new(&fd, "gone", &file, SMALLEST).file.is_none());
        assert_eq!(Direct::default().write_at(0, &aligned(4096)).unwrap(), 0);
    }
}
