//! L3: files: the memory-mapped source, the part file and its commit, names from the network.
//! Blind to the protocol. The traits are the ports of the engine; the simulated disk has its own
//! implementations.

mod atomic_write;
mod direct;
mod earlier;
mod existing;
mod hashes;
mod mmap;
mod names;
mod orphaned_part;
mod part;
mod refusal;
#[cfg(test)]
mod scratch;
mod sink;
mod source;

pub use atomic_write::{check_whole, make_private_dir, set_aside, write_private, write_whole};
pub use earlier::EarlierFile;
pub use hashes::{FileId, HashCache};
pub use names::{PART_SUFFIX, safe_name};
pub use part::FilePart;
pub use sink::FileSink;
pub use source::FileSource;

use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Why a source cannot be read on; lowercase clauses for people.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is not what it was when the task began.
    #[error("{0}")]
    Changed(String),
    /// The system refused to read it.
    #[error("{0}")]
    Read(String),
}

/// The bytes of an object on the sender's side.
pub trait Source: Send + Sync {
    /// Bytes of the object; fixed for the life of the task.
    fn size(&self) -> u64;
    /// Copies `buf.len()` bytes from `offset` on.
    ///
    /// # Errors
    /// When the file has shrunk or cannot be read.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError>;
    /// The bytes `offset..offset + len` for handing to the kernel, which answers a page that has
    /// gone with EFAULT. Nothing else may look at them: a file that shrank would end the program.
    fn raw(&self, offset: u64, len: usize) -> RawBytes;
    /// Says that `offset..offset + len` has been sent and will probably not be read again soon: a
    /// source too large to stay in memory gives it up. Reading it again is slower, and no more.
    fn leave_behind(&self, _offset: u64, _len: usize) {}
    /// Checks that the file still has the size and modification time it had.
    ///
    /// # Errors
    /// When it has changed.
    fn check(&self) -> Result<(), SourceError>;
}

/// Address and length of bytes that only the kernel may read (see [`Source::raw`]); valid for as
/// long as its [`Source`] lives.
#[derive(Clone, Copy, Debug)]
pub struct RawBytes {
    /// First byte.
    pub address: *const u8,
    /// How many.
    pub len: usize,
}

/// Why a sink refused; lowercase clauses for people, naming the path.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The name is unusable, or is taken.
    #[error("{0}")]
    Name(String),
    /// The disk is full, read-only or failing.
    #[error("{0}")]
    Disk(String),
}

/// What is there of an object before anything of it is received.
pub enum Found {
    /// Nothing.
    Nothing,
    /// A part file, perhaps of an earlier run.
    Part,
    /// A file of its size under its final name, which would not be replaced. Committing it changes nothing but
    /// makes it durable; nothing can be written to it.
    Whole(Box<dyn Part>),
}

/// A place where an object may be put on the receiver's side.
pub trait Sink: Send {
    /// Looks up what is there of an object called `name` (untrusted). Nothing on the disk changes; what cannot be
    /// looked up is not there.
    fn probe(&mut self, name: &str, size: u64) -> Found;
    /// Chooses and checks the final path for an object called `name` (untrusted), and takes over the
    /// part file that an earlier run has left beside it, or creates a preallocated one.
    ///
    /// # Errors
    /// When the name is unusable or taken, or the disk refuses.
    fn create(&mut self, name: &str, size: u64) -> Result<Box<dyn Part>, SinkError>;
}

/// An object on its way in. Dropping it neither committed nor discarded keeps the part file for the
/// next run (also when that is by a panic).
pub trait Part: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// When the disk refuses.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError>;
    /// Writes all of `bytes` at `offset` without leaving them in the page cache, where the system
    /// can do that: they are not read again here, and a large object must not push everything
    /// else out of memory. It waits for the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    fn write_through(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.write_at(offset, bytes)
    }
    /// Reads `buf.len()` bytes from `offset` on.
    ///
    /// # Errors
    /// When the disk refuses.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError>;
    /// The first range of bytes at or after `from` that an earlier run may have written; none where
    /// nothing was, and in a new part file. Whatever is in it may be torn, lost or stale.
    fn next_written(&self, _from: u64) -> Option<Range<u64>> {
        None
    }
    /// Syncs the file, gives it its final name and syncs the directory (I1). Returns the path.
    ///
    /// # Errors
    /// When the disk refuses or the name has been taken meanwhile; nothing is left behind.
    fn commit(&self) -> Result<PathBuf, SinkError>;
    /// Removes the part file.
    fn discard(&self);
}

/// An earlier version of an object, from which blocks that have not changed are taken.
pub trait Earlier: Send + Sync {
    /// Its bytes.
    fn size(&self) -> u64;
    /// Reads `buf.len()` bytes from `offset` on.
    ///
    /// # Errors
    /// When they are not there (any more), or the disk refuses.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}
