//! The spool: a stream as the source of an object. What is read of the input is kept in a file without a name, so that
//! all of it can be repaired, and sent to devices that join late. A spool in memory keeps only the last part of it.
//!
//! A block counts as soon as something follows it: before, nobody knows whether it is the last one, and shorter.
//! [`Spool::read_on`] reads up to the next such block. Whoever calls it decides how far the input is read ahead.

use super::mmap::Mapping;
use super::source::{kept_in_memory, release};
use super::{RawBytes, Source, SourceError};
use crate::limits::{DEFAULT_BLOCK_LOG2, MAX_BLOCKS};
use crate::text::{bytes, escape};
use crate::units::Extent;
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{File, remove_file};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Length of a piece of the file that is mapped at a time. A symbol lies within one piece.
const PIECE: u64 = 1 << 30;
/// Most bytes of a stream.
const LONGEST: u64 = (MAX_BLOCKS as u64) << DEFAULT_BLOCK_LOG2;
/// Bytes that are read at a time.
const GULP: usize = 256 << 10;
/// What to do if a directory cannot keep a stream.
const ANOTHER_PLACE: &str = "name another place, with more room, with --spool";
/// What to do if the memory cannot.
const NO_WINDOW: &str = "give a smaller --window, or use --spool";

const _: () = assert!(LONGEST.is_multiple_of(PIECE) && PIECE.is_multiple_of(1 << DEFAULT_BLOCK_LOG2));

/// Where the bytes of a stream come from.
pub trait Input: Send + Sync {
    /// Reads some bytes, as [`io::Read`] does. Returns 0 at their end.
    ///
    /// # Errors
    /// If the system cannot read them.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;
    /// Waits until it is certain that these bytes were all there are. Called at their end.
    ///
    /// # Errors
    /// If they were not: one clause for people.
    fn finish(&self) -> Result<(), String>;
    /// Ends what the bytes come from. Nobody needs more of them.
    fn stop(&self);
}

/// How far the input was read.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes in the file. At least one of them is behind the last block that counts.
    read: u64,
    buffer: Vec<u8>,
}

/// An input and the file that keeps what was read of it.
pub struct Spool {
    input: Box<dyn Input>,
    file: File,
    /// Where the file is, for messages.
    place: String,
    /// What to do if the place fails.
    advice: &'static str,
    /// Most bytes that are kept of the stream.
    keeps: Option<u64>,
    /// The bytes below this are forgotten.
    forgotten: AtomicU64,
    pieces: Vec<OnceLock<Mapping>>,
    progress: Mutex<Progress>,
    extent: Mutex<Extent>,
    /// Above this size the pages of what was sent are released.
    large: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// A spool in the directory `dir` for `input`, of which nothing is read yet.
    ///
    /// # Errors
    /// If no file can be created there.
    pub fn new(input: Box<dyn Input>, dir: &Path) -> Result<Self, SourceError> {
        let shown = escape(&dir.to_string_lossy());
        let file = nameless(dir).map_err(|e| {
            SourceError::Read(format!("cannot create a spool in {shown} ({e}); {ANOTHER_PLACE}"))
        })?;
        Ok(Self::of(input, file, (shown, ANOTHER_PLACE), None))
    }

    /// A spool in memory for `input` that keeps the last `window` bytes, and what is being read.
    ///
    /// # Errors
    /// If the system has no such memory.
    pub fn in_memory(input: Box<dyn Input>, window: u64) -> Result<Self, SourceError> {
        let file = rustix::fs::memfd_create("mcp-window", MemfdFlags::CLOEXEC)
            .map_err(|e| SourceError::Read(format!("cannot keep a stream in memory ({e}); {NO_WINDOW}")))?;
        Ok(Self::of(input, File::from(file), ("memory".to_owned(), NO_WINDOW), Some(window)))
    }

    fn of(
        input: Box<dyn Input>,
        file: File,
        (place, advice): (String, &'static str),
        keeps: Option<u64>,
    ) -> Self {
        Self {
            input,
            file,
            place,
            advice,
            keeps,
            forgotten: AtomicU64::new(0),
            pieces: (0..LONGEST / PIECE).map(|_| OnceLock::new()).collect(),
            progress: Mutex::default(),
            extent: Mutex::default(),
            large: kept_in_memory(),
        }
    }

    /// Reads once, and keeps what was read. Returns whether that was the end.
    fn gulp(&self, progress: &mut Progress) -> Result<bool, SourceError> {
        progress.buffer.resize(GULP, 0);
        let n = match self.input.read(&mut progress.buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(false),
            done => {
                done.map_err(|e| SourceError::Read(format!("cannot read the stream ({e}); send it again")))?
            }
        };
        if n == 0 {
            return Ok(true);
        }
        if progress.read + n as u64 > LONGEST {
            return Err(SourceError::Read(format!(
                "the stream is longer than {}; send it in parts",
                bytes(LONGEST)
            )));
        }
        self.file
            .write_all_at(&progress.buffer[..n], progress.read)
            .map_err(|e| self.no_room(progress.read, &e))?;
        progress.read += n as u64;
        Ok(false)
    }

    fn no_room(&self, read: u64, error: &io::Error) -> SourceError {
        let (place, advice, read) = (&self.place, self.advice, bytes(read));
        SourceError::Read(match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("the spool in {place} is full after {read} of the stream; {advice}")
            }
            _ => format!("cannot write the spool in {place} ({error}); {advice}"),
        })
    }

    /// Maps the pieces of the first `size` bytes.
    fn map(&self, size: u64) -> Result<(), SourceError> {
        for (start, piece) in (0..size).step_by(PIECE as usize).zip(&self.pieces) {
            if piece.get().is_none() {
                let map = Mapping::new(&self.file, start, PIECE).map_err(|e| {
                    let (place, advice) = (&self.place, self.advice);
                    SourceError::Read(format!("cannot map the spool in {place} ({e}); {advice}"))
                })?;
                // Only one job reads at a time.
                let _ = piece.set(map);
            }
        }
        Ok(())
    }

    /// The piece with this offset, and the offset within it.
    fn piece(&self, offset: u64) -> Option<(&Mapping, u64)> {
        let piece = self.pieces.get(usize::try_from(offset / PIECE).ok()?)?.get()?;
        Some((piece, offset % PIECE))
    }
}

impl Source for Spool {
    fn extent(&self) -> Extent {
        *lock(&self.extent)
    }

    fn read_on(&self) -> Result<Extent, SourceError> {
        let mut progress = lock(&self.progress);
        let before = self.extent();
        if before.sealed {
            return Ok(before);
        }
        let extent = loop {
            let followed = progress.read.saturating_sub(1) >> DEFAULT_BLOCK_LOG2 << DEFAULT_BLOCK_LOG2;
            if followed > before.size {
                break Extent { size: followed, sealed: false };
            }
            if self.gulp(&mut progress)? {
                self.input.finish().map_err(SourceError::Read)?;
                break Extent::sealed(progress.read);
            }
        };
        self.map(extent.size)?;
        *lock(&self.extent) = extent;
        Ok(extent)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.file.read_exact_at(buf, offset).map_err(|e| {
            SourceError::Read(format!(
                "cannot read the spool in {} ({e}); check the disk it is on",
                self.place
            ))
        })
    }

    fn raw(&self, offset: u64, len: usize) -> Option<RawBytes> {
        let end = offset.saturating_add(len as u64);
        let size = self.extent().size;
        assert!(end <= size, "bytes {offset}+{len} are outside a stream of {size}");
        match self.piece(offset) {
            Some((piece, within)) => Some(piece.raw(within, len)),
            None => unreachable!("all that was read is mapped"),
        }
    }

    fn leave_behind(&self, offset: u64, len: usize) {
        if self.extent().size > self.large
            && let Some((piece, within)) = self.piece(offset)
        {
            release(&self.file, (piece, within), offset, len);
        }
    }

    fn keeps(&self) -> Option<u64> {
        self.keeps
    }

    fn forget(&self, offset: u64) {
        let before = self.forgotten.load(Ordering::Relaxed);
        if self.keeps.is_none() || offset <= before {
            return;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // What cannot be forgotten now is forgotten with the next part.
        if retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, before, offset - before)).is_ok() {
            self.forgotten.store(offset, Ordering::Relaxed);
        }
    }

    fn check(&self) -> Result<(), SourceError> {
        // Nobody else has the file.
        Ok(())
    }

    fn stop(&self) {
        self.input.stop();
    }
}

/// A new file in `dir` that only this program can reach. It is gone when it is closed.
pub(super) fn nameless(dir: &Path) -> io::Result<File> {
    let mode = Mode::from_raw_mode(0o600);
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    match retry_on_intr(|| rustix::fs::open(dir, flags | OFlags::TMPFILE, mode)) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
        opened => return Ok(File::from(opened?)),
    }
    // A file system without nameless files.
    let random = getrandom::u64().map_err(io::Error::other)?;
    let path = dir.join(format!(".mcp-spool-{random:016x}"));
    let file = retry_on_intr(|| rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::NOFOLLOW, mode))?;
    remove_file(&path)?;
    Ok(File::from(file))
}

#[cfg(test)]
mod tests;
