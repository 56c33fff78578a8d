//! A file or a block device as the source of an object.
//!
//! The file stays open for the whole task, so another file under its name changes nothing. Its bytes are
//! read in two ways. The program itself reads with `pread` (to hash and encode), so a file that shrank is
//! an error. Only the kernel reads through the memory map.

use super::device;
use super::hashes::FileId;
use super::mmap::Mapping;
use super::names::{name_objection, shorten};
use super::{Attributes, RawBytes, Source, SourceError};
use crate::limits::{MAX_NAME, MAX_OBJECT_SIZE};
use crate::text::escape;
use crate::units::Extent;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

/// Longest run of bytes that the page cache keeps or releases as one.
const LONGEST_FOLIO: u64 = 4 << 20;

/// An open, mapped regular file or block device.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    map: Mapping,
    size: u64,
    /// Whether the file is too large to stay in memory beside other programs.
    large: bool,
    /// What a regular file has, and a device has not.
    of_file: Option<OfFile>,
    /// Where a file system on the device is mounted read-write.
    mounted: Option<String>,
    /// The path as given, escaped for messages.
    shown: String,
    name: String,
}

/// The metadata of a regular file when it was opened.
#[derive(Debug)]
struct OfFile {
    /// Modification time: seconds and nanoseconds.
    modified: (i64, i64),
    attributes: Attributes,
    file_id: FileId,
}

impl FileSource {
    /// Opens the regular file or block device (or symbolic link to one) at `path`. Its size is fixed from here on.
    ///
    /// # Errors
    /// If it is neither, cannot be read or mapped, or has a name that receivers refuse.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        Self::open_as(path, None)
    }

    /// The same, to be offered under `name`, which is safe [default: the file's own name].
    ///
    /// # Errors
    /// As for [`FileSource::open`].
    pub fn open_as(path: &Path, name: Option<&str>) -> Result<Self, SourceError> {
        let shown = escape(&path.to_string_lossy());
        let refuse = |error: io::Error| unreadable(&shown, &error);
        // Checked before opening, because opening alone can already affect a device.
        require_kind(fs::metadata(path).map_err(refuse)?.file_type(), &shown)?;
        // If a pipe has taken the file's place meanwhile, opening must not wait for its writer.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(refuse)?;
        let meta = file.metadata().map_err(refuse)?;
        require_kind(meta.file_type(), &shown)?;
        let is_device = meta.file_type().is_block_device();
        if is_device {
            // What was written to the device by other ways shows only after this. Others than root may not.
            let _ = device::flush(&file);
        }
        let size = if is_device { device::size(&file).map_err(refuse)? } else { meta.len() };
        if size > MAX_OBJECT_SIZE {
            return Err(SourceError::Read(format!("{shown} is larger than 2^63 bytes; split it")));
        }
        if size == 0 && file.read_at(&mut [0], 0).map_err(refuse)? != 0 {
            return Err(SourceError::Read(format!(
                "{shown} has content but no size, as kernel files do; copy it to a plain file and send that"
            )));
        }
        let name = sendable_name(path, name)?;
        let map = Mapping::new(&file, 0, size).map_err(|error| {
            SourceError::Read(format!("cannot map {shown} into memory ({error}); copy it to a local disk"))
        })?;
        // Only a hint, for reads that do not go through the map.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        let of_file = (!is_device).then(|| OfFile {
            modified: modified(&meta),
            attributes: Attributes::of(&meta),
            file_id: FileId::new(path, &meta, SystemTime::now()),
        });
        let mounted = if is_device { device::mounted_for_writing(&meta) } else { None };
        let large = size > kept_in_memory();
        Ok(Self { file, map, size, large, of_file, mounted, shown, name })
    }

    /// The name that is offered to receivers, 1 to 255 bytes: the file's own name, without directories, unless another
    /// was given. U+FFFD replaces bytes that are not UTF-8.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Identifies the file, for the cache of its hashes; none for a device.
    #[must_use]
    pub fn file_id(&self) -> Option<&FileId> {
        self.of_file.as_ref().map(|of_file| &of_file.file_id)
    }

    /// Whether it is a block device.
    #[must_use]
    pub const fn is_device(&self) -> bool {
        self.of_file.is_none()
    }

    /// What the user should know before it is sent.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let point = self.mounted.as_ref()?;
        Some(format!(
            "{} is mounted on {} and may change while it is sent; remount it read-only, freeze it with fsfreeze, or \
             send a snapshot",
            self.shown,
            escape(point)
        ))
    }

    fn shrunk(&self) -> SourceError {
        SourceError::Changed(format!("{} shrank while it was being sent; send it again", self.shown))
    }
}

impl Source for FileSource {
    fn attributes(&self) -> Option<Attributes> {
        self.of_file.as_ref().map(|of_file| of_file.attributes)
    }

    fn sees_changes(&self) -> bool {
        !self.is_device()
    }

    fn extent(&self) -> Extent {
        Extent::sealed(self.size)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.file.read_exact_at(buf, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.shrunk(),
            _ => unreadable(&self.shown, &error),
        })
    }

    fn is_hole(&self, offset: u64, len: usize) -> bool {
        // Behind the end of a file that has shrunk there are no holes.
        let whole = || self.file.metadata().is_ok_and(|meta| meta.len() >= self.size);
        !self.is_device() && is_hole(&self.file, offset, len as u64) && whole()
    }

    fn holes(&self) -> (Vec<Range<u64>>, u64) {
        if self.is_device() { (Vec::new(), 0) } else { holes(&self.file, self.size) }
    }

    fn raw(&self, offset: u64, len: usize) -> Option<RawBytes> {
        Some(self.map.raw(offset, len))
    }

    fn leave_behind(&self, offset: u64, len: usize) {
        if !self.large {
            return;
        }
        release(&self.file, (&self.map, offset), offset, len);
    }

    /// Some changes do not change the file's time: within one clock tick of the last change, or through
    /// another program's memory map before it is synced. The block hashes detect those.
    fn check(&self) -> Result<(), SourceError> {
        let Some(OfFile { modified: before, .. }) = &self.of_file else { return Ok(()) };
        let meta = self.file.metadata().map_err(|error| unreadable(&self.shown, &error))?;
        if meta.len() < self.size {
            return Err(self.shrunk());
        }
        if meta.len() != self.size || modified(&meta) != *before {
            return Err(SourceError::Changed(format!(
                "{} changed while it was being sent; send it again",
                self.shown
            )));
        }
        Ok(())
    }
}

/// Releases the pages of `len` bytes from `offset` on in a file, and from `mapped` on in its map.
pub(super) fn release(file: &File, (map, mapped): (&Mapping, u64), offset: u64, len: usize) {
    // The cache keeps mapped pages, so they are unmapped first.
    map.forget(mapped, len);
    // The cache releases whole folios only, and one may be longer than the piece released at a time.
    let from = offset.saturating_sub(LONGEST_FOLIO);
    let len = std::num::NonZeroU64::new(offset - from + len as u64);
    let _ = rustix::fs::fadvise(file, from, len, rustix::fs::Advice::DontNeed);
}

/// Most holes of a file that are told, and most that are looked at.
const HOLES: usize = 8;
const LOOKS: usize = 4096;

/// Holes of a file that are large in comparison with it, and the bytes of all that were looked at.
fn holes(file: &File, size: u64) -> (Vec<Range<u64>>, u64) {
    use rustix::fs::{SeekFrom, seek};
    let (mut holes, mut all, mut at) = (Vec::new(), 0, 0);
    for _ in 0..LOOKS {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(rustix::io::Errno::NXIO) => size,
            Err(_) => break,
        };
        all += data.saturating_sub(at);
        if data > at && data - at >= (size / 64).max(1 << 20) && holes.len() < HOLES {
            holes.push(at..data);
        }
        at = seek(file, SeekFrom::Hole(data)).unwrap_or(size);
        if at >= size || data >= size {
            break;
        }
    }
    (holes, all)
}

/// Whether nothing is stored of a range of a file. Where the file system cannot tell, something is.
pub(super) fn is_hole(file: &File, offset: u64, len: u64) -> bool {
    use rustix::fs::{SeekFrom, seek};
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data >= offset.saturating_add(len),
        // There is no more data up to the end of the file.
        Err(rustix::io::Errno::NXIO) => true,
        Err(_) => false,
    }
}

/// Size in bytes up to which a file stays in the page cache, for repairs and for the next transfer: half of the memory. A
/// larger file is released piece by piece after it was sent.
pub(super) fn kept_in_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) / 2
}

fn modified(meta: &Metadata) -> (i64, i64) {
    (meta.mtime(), meta.mtime_nsec())
}

/// The name under which the file at `path` is offered to receivers: `name`, or its own without directories.
///
/// # Errors
/// If receivers would refuse it.
pub fn sendable_name(path: &Path, name: Option<&str>) -> Result<String, SourceError> {
    let name = name.map_or_else(|| own_name(path), ToOwned::to_owned);
    name_objection(&name).map_or(Ok(name), |what| {
        let shown = escape(&path.to_string_lossy());
        Err(SourceError::Read(format!(
            "{shown} cannot be sent under its name, which {what}; give another with --name"
        )))
    })
}

fn own_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A replacement character may be longer than the bytes it replaces.
    shorten(&name, MAX_NAME).to_owned()
}

fn require_kind(kind: FileType, shown: &str) -> Result<(), SourceError> {
    let advice = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        "is a directory; its files can be sent together, but not one by one"
    } else if kind.is_fifo() {
        "is a pipe; redirect standard input from it and send -"
    } else {
        "cannot be sent; send a regular file, a directory or a block device"
    };
    Err(SourceError::Read(format!("{shown} {advice}")))
}

pub(super) fn unreadable(shown: &str, error: &io::Error) -> SourceError {
    SourceError::Read(match error.kind() {
        io::ErrorKind::NotFound => format!("{shown} does not exist; check the path"),
        io::ErrorKind::PermissionDenied => {
            format!("{shown} may not be read by this user; change its permissions")
        }
        _ => format!("cannot read {shown} ({error}); check the disk it is on"),
    })
}

#[cfg(test)]
mod tests;
