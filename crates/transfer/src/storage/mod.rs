//! L3: files and block devices. The memory-mapped source (`source`, `mmap`), the spool of a stream (`spool`), the part
//! file and its commit (`sink`, `part`), devices written in place (`device`), trees of files (`tree`),
//! names from the network (`names`), the hash cache (`hashes`), resume tickets (`tickets`) and atomic writes of small files. It knows
//! nothing of the protocol. The traits are the ports of the engine; the simulated disk implements them
//! too.

mod atomic_write;
mod attributes;
mod device;
mod direct;
mod earlier;
mod existing;
mod hashes;
mod mmap;
mod names;
mod orphaned_part;
mod part;
mod pipe;
mod refusal;
#[cfg(test)]
mod scratch;
mod sink;
mod source;
mod spool;
mod tickets;
mod tree;

pub use atomic_write::{check_whole, make_private_dir, set_aside, write_private, write_whole};
pub use attributes::Attributes;
pub use device::{DeviceNote, DeviceNotes, DeviceSink};
#[cfg(any(test, feature = "sim"))]
pub(crate) use device::{DevicePart, Medium, PAGE as DEVICE_PAGE};
pub use earlier::EarlierFile;
pub use hashes::{FileId, HashCache, HashedBlock};
pub use names::{PART_SUFFIX, name_objection, safe_name};
pub use part::FilePart;
pub use pipe::{PipeSink, Reader};
pub use sink::FileSink;
pub use source::{FileSource, sendable_name};
pub use spool::{Input, Spool};
pub use tickets::FileTickets;
#[cfg(any(test, feature = "sim"))]
pub use tree::steps;
pub use tree::{TreeOptions, TreeShape, TreeSource, is_tree};

use crate::text::escape;
use crate::units::{Extent, Intake, SessionId, Ticket};
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Zeros that are written at a time, where they must be written.
const ZEROS_AT_ONCE: u64 = 1 << 20;

/// The reason why a source cannot be read any more: a lowercase clause for people.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file has changed since the task began.
    #[error("{0}")]
    Changed(String),
    /// The system failed to read the file.
    #[error("{0}")]
    Read(String),
}

/// The bytes of an object at the sender.
pub trait Source: Send + Sync {
    /// How long the object is, as far as it can be read now.
    fn extent(&self) -> Extent;
    /// Waits until more of an object can be read than before, or until it is sealed. Only a stream grows.
    ///
    /// # Errors
    /// If its input fails, or what was read cannot be kept.
    fn read_on(&self) -> Result<Extent, SourceError> {
        Ok(self.extent())
    }
    /// Mode and modification time, as they were when the task began; none if it has none.
    fn attributes(&self) -> Option<Attributes> {
        None
    }
    /// Copies `buf.len()` bytes from `offset` on.
    ///
    /// # Errors
    /// If the file has shrunk or cannot be read.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError>;
    /// Whether `offset..offset + len` is known to be zeros without reading it, because nothing is stored there.
    fn is_hole(&self, _offset: u64, _len: usize) -> bool {
        false
    }
    /// A few large holes, ascending, and the bytes of all holes.
    fn holes(&self) -> (Vec<Range<u64>>, u64) {
        (Vec::new(), 0)
    }
    /// The bytes `offset..offset + len`, to pass to the kernel, which returns EFAULT for a page that no
    /// longer exists. No other code may read them: a file that shrank would end the program. `None` if the source is not
    /// in one map: then [`Source::read_at`] is used.
    fn raw(&self, offset: u64, len: usize) -> Option<RawBytes>;
    /// Tells the source that `offset..offset + len` has been sent and will probably not be read again
    /// soon. A source too large for memory releases these pages. Reading them again still works, but is
    /// slower.
    fn leave_behind(&self, _offset: u64, _len: usize) {}
    /// Most bytes of a stream that are kept; `None` for all.
    fn keeps(&self) -> Option<u64> {
        None
    }
    /// Tells the source that nobody needs the bytes below `offset` any more. One that keeps only a part of a stream
    /// forgets them.
    fn forget(&self, _offset: u64) {}
    /// Ends what the object is read from, because nobody needs more of it.
    fn stop(&self) {}
    /// Checks that the size and modification time of the file are unchanged.
    ///
    /// # Errors
    /// If one of them has changed.
    fn check(&self) -> Result<(), SourceError>;
    /// Whether [`Source::check`] sees that the content has changed. A device has no modification time: what is read
    /// again from it must be hashed again.
    fn sees_changes(&self) -> bool {
        true
    }
}

/// Address and length of bytes that only the kernel may read (see [`Source::raw`]). Valid as long as its
/// [`Source`] lives.
#[derive(Clone, Copy, Debug)]
pub struct RawBytes {
    /// Address of the first byte.
    pub address: *const u8,
    /// Number of bytes.
    pub len: usize,
}

/// The reason why a sink failed: a lowercase clause for people that names the path.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The name is invalid or taken.
    #[error("{0}")]
    Name(String),
    /// The disk is full, read-only or failing, or nobody reads the pipe any more.
    #[error("{0}")]
    Disk(String),
    /// The command that reads the object failed.
    #[error("{0}")]
    Command(String),
    /// The object is not what its kind promises.
    #[error("{0}")]
    Content(String),
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
    /// How it takes the blocks of an object.
    fn intake(&self) -> Intake {
        Intake::AnyOrder
    }
    /// Looks up what is there of an object called `name` (untrusted). Nothing on the disk changes; what cannot be
    /// looked up is not there.
    fn probe(&mut self, name: &str, extent: Extent) -> Found;
    /// Chooses and checks the final path for an object called `name` (untrusted), and takes over the
    /// part file that an earlier run has left beside it, or creates one. It has its size at once if the object is
    /// sealed, and grows with it otherwise.
    ///
    /// # Errors
    /// If the name is invalid or taken, or the disk fails.
    fn create(&mut self, name: &str, extent: Extent) -> Result<Box<dyn Part>, SinkError>;
    /// The same as [`Sink::probe`] for a tree.
    fn probe_tree(&mut self, _name: &str, _shape: &TreeShape) -> Found {
        Found::Nothing
    }
    /// The same as [`Sink::create`] for a tree. Once its manifest is verified, [`Part::arrange`] is called.
    ///
    /// # Errors
    /// If the place takes no trees, or as for [`Sink::create`].
    fn create_tree(&mut self, name: &str, _shape: &TreeShape) -> Result<Box<dyn Part>, SinkError> {
        Err(SinkError::Name(format!(
            "{} is a directory or several files, which need a directory; give one with -o",
            escape(name)
        )))
    }
}

impl<S: Sink + ?Sized> Sink for Box<S> {
    fn intake(&self) -> Intake {
        (**self).intake()
    }
    fn probe(&mut self, name: &str, extent: Extent) -> Found {
        (**self).probe(name, extent)
    }
    fn create(&mut self, name: &str, extent: Extent) -> Result<Box<dyn Part>, SinkError> {
        (**self).create(name, extent)
    }
    fn probe_tree(&mut self, name: &str, shape: &TreeShape) -> Found {
        (**self).probe_tree(name, shape)
    }
    fn create_tree(&mut self, name: &str, shape: &TreeShape) -> Result<Box<dyn Part>, SinkError> {
        (**self).create_tree(name, shape)
    }
}

/// The part file of an object that is being received, or the device or pipe that it is written to. If it is dropped
/// (even by a panic) before it is committed or discarded, the part file stays for the next run.
pub trait Part: Send + Sync {
    /// Says which mode and modification time the object gets together with its final name. Call before
    /// [`Part::commit`]; without it, the object is a new file like any other.
    fn describe(&self, _attributes: Attributes) {}
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// If the disk fails.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError>;
    /// Writes all of `bytes` at `offset` without leaving them in the page cache, if the system supports
    /// it. Use for verified blocks: they are not read again here, and a large object must not evict other
    /// programs' pages. Waits for the disk.
    ///
    /// # Errors
    /// If the disk fails.
    fn write_through(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.write_at(offset, bytes)
    }
    /// Makes `offset..offset + len` zeros, without storing them if the system can do that.
    ///
    /// # Errors
    /// If the disk fails.
    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        let zeros = vec![0; len.min(ZEROS_AT_ONCE) as usize];
        for at in (offset..offset + len).step_by(ZEROS_AT_ONCE as usize) {
            self.write_at(at, &zeros[..(offset + len - at).min(ZEROS_AT_ONCE) as usize])?;
        }
        Ok(())
    }
    /// Fails if the disk has no room for `bytes` more bytes, as far as that can be told.
    ///
    /// # Errors
    /// If it has not.
    fn require_space(&self, _bytes: u64) -> Result<(), SinkError> {
        Ok(())
    }
    /// Reserves the space of `offset..offset + len`, which is going to be written.
    ///
    /// # Errors
    /// If the disk is full.
    fn reserve(&self, _offset: u64, _len: u64) -> Result<(), SinkError> {
        Ok(())
    }
    /// Reads `buf.len()` bytes from `offset` on.
    ///
    /// # Errors
    /// If the disk fails.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError>;
    /// Writes the bytes of the next block, if blocks are taken in order ([`Sink::intake`]). Waits for the reader.
    ///
    /// # Errors
    /// If nobody reads any more, or after [`Part::discard`].
    fn write_next(&self, _bytes: &[u8]) -> Result<(), SinkError> {
        Err(SinkError::Disk("blocks are not taken in order here; please report this".to_owned()))
    }
    /// Reads like [`Part::read_at`], but what the disk holds and not what the page cache holds, if the system supports
    /// it.
    ///
    /// # Errors
    /// If the disk fails.
    fn read_back(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.read_at(offset, buf)
    }
    /// The first range of bytes at or after `from` that an earlier run may have written; `None` if there
    /// is none, and in a new part file. The bytes may be torn, lost or stale.
    fn next_written(&self, _from: u64) -> Option<Range<u64>> {
        None
    }
    /// Whether these bytes may be anything, as on a device, and not only what an interrupted run has written.
    fn is_earlier(&self) -> bool {
        false
    }
    /// Reads the manifest with which a tree begins, and lays out the rest by it. Called once the manifest's blocks are
    /// verified. Returns the ranges behind it that may be there already, in any order.
    ///
    /// # Errors
    /// If the manifest is refused, or the disk fails.
    fn arrange(&self) -> Result<Vec<Range<u64>>, SinkError> {
        Ok(Vec::new())
    }
    /// Whether [`Part::read_earlier`] may find something.
    fn has_earlier(&self) -> bool {
        false
    }
    /// Reads `buf.len()` bytes from `offset` on from an earlier version of the object that the sink was given.
    ///
    /// # Errors
    /// If they do not exist, or the disk fails.
    fn read_earlier(&self, _offset: u64, _buf: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
    /// Tells the final size of an object that was not sealed when its file was created. Called before [`Part::commit`].
    ///
    /// # Errors
    /// If the disk fails.
    fn seal(&self, _size: u64) -> Result<(), SinkError> {
        Ok(())
    }
    /// Syncs the file, gives it its final name and syncs the directory (I1); or syncs the device, and writes its first
    /// block last; or closes the pipe, whose path is `-`. Returns the path.
    ///
    /// # Errors
    /// If the disk fails or the name has been taken meanwhile; no part file is left behind.
    fn commit(&self) -> Result<PathBuf, SinkError>;
    /// Removes the part file. Of a pipe: the reader must not take its end for the end of the object.
    fn discard(&self);
}

/// Keeps the ticket of a session for the next run of the same device with the same destination.
pub trait Tickets: Send {
    /// The ticket that an earlier run has kept for this session, unless that run still lives.
    fn find(&mut self, session: SessionId) -> Option<Ticket>;
    /// Keeps the ticket of a session durably. Returns whether the next run will find it.
    fn keep(&mut self, session: SessionId, ticket: Ticket) -> bool;
    /// Removes the ticket that this run has kept, if there is one.
    fn forget(&mut self);
}

/// An earlier version of an object, to take unchanged blocks from.
pub trait Earlier: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> u64;
    /// Reads `buf.len()` bytes from `offset` on.
    ///
    /// # Errors
    /// If the bytes do not exist (any more), or the disk fails.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}
