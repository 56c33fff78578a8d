//! A part file: the received bytes of an object, and their commit under the final name.
//!
//! ```text
//! .NAME.<random>.mcp-part --write--> --fsync--> --rename--> NAME --fsync of the directory-->
//! ```
//!
//! Only a finished object ever gets the final name (I1). If the disk fails, the part file is removed. A
//! run that ends for another reason may keep it, and the next run of the same name takes it over
//! (`orphaned_part.rs`).

mod room;

use super::direct::Direct;
use super::names::{PART_SUFFIX, shorten};
use super::orphaned_part;
use super::refusal::{refused, shown};
use super::sink::{Target, require_free};
use super::{Attributes, Part, SinkError};
use crate::limits::MAX_NAME;
use crate::units::Extent;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Random names tried before giving up. With 64 random bits, a second attempt already means interference.
const NAME_TRIES: u32 = 8;

/// A part file beside its final path. Dropping it keeps the file, unless it was
/// discarded.
pub struct FilePart {
    file: File,
    direct: Direct,
    part_name: String,
    target: Target,
    /// Its final size, once that is known.
    size: OnceLock<u64>,
    force: bool,
    /// Whether an earlier run created the file.
    adopted: bool,
    /// Committed or discarded: there is no part file to write to or to remove any more.
    closed: AtomicBool,
    /// What it gets at the end.
    attributes: OnceLock<Attributes>,
}

impl FilePart {
    /// Takes over the part file that an earlier run left for `target`, or creates one, and gives it its final size if
    /// that is known.
    pub(super) fn create(target: Target, extent: Extent, force: bool) -> Result<Self, SinkError> {
        let stem = target.name.to_string_lossy();
        let orphan = orphaned_part::adopt(&target.dir, shorten(&stem, MAX_NAME - PART_AFFIXES));
        let adopted = orphan.is_some();
        let (file, part_name) = orphan.map_or_else(|| create_beside(&target), Ok)?;
        let direct = Direct::new(&target.dir, &part_name, &file, extent.total().unwrap_or(u64::MAX));
        let closed = AtomicBool::new(false);
        let part = Self {
            file,
            direct,
            part_name,
            target,
            size: extent.total().map_or_else(OnceLock::new, OnceLock::from),
            force,
            adopted,
            closed,
            attributes: OnceLock::new(),
        };
        let Some(size) = extent.total() else { return Ok(part) };
        // A file system without such large files says so here. One of an earlier run is cut, if it is longer.
        if let Err(errno) = room::set_size(&part.file, size) {
            let error = refused("reserve the space for", &part.target.path, &errno.into());
            if !adopted {
                part.discard();
            }
            return Err(error);
        }
        Ok(part)
    }

    fn refused(&self, what: &str, error: &io::Error) -> SinkError {
        refused(what, &self.target.path, error)
    }

    fn require_open(&self, what: &str) -> Result<(), SinkError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.over(what));
        }
        Ok(())
    }

    /// Checks that `len` bytes may be written at `offset`.
    fn require_room(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        self.require_open("write")?;
        let size = self.size.get().copied().unwrap_or(u64::MAX);
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(SinkError::Disk(format!(
                "{len} bytes at {offset} do not fit {} of {size} bytes; please report this",
                shown(&self.target.path),
            )));
        }
        Ok(())
    }

    fn over(&self, what: &str) -> SinkError {
        SinkError::Disk(format!(
            "cannot {what} {}: its transfer is over; start another one",
            shown(&self.target.path)
        ))
    }

    /// Checks that the part file is still the same and whole: other programs can reach it too.
    fn require_intact(&self) -> Result<(), SinkError> {
        let ours = self.file.metadata().map_err(|e| self.refused("look up", &e))?;
        let named = retry_on_intr(|| {
            rustix::fs::statat(&self.target.dir, &self.part_name, AtFlags::SYMLINK_NOFOLLOW)
        })
        .map_err(|errno| self.refused("finish", &errno.into()))?;
        if self.size.get() != Some(&ours.len()) || (ours.dev(), ours.ino()) != (named.st_dev, named.st_ino) {
            return Err(SinkError::Disk(format!(
                "another program changed the unfinished copy of {}; keep it off and try again",
                shown(&self.target.path)
            )));
        }
        Ok(())
    }

    /// Syncs the file and gives it its final name. Returns whether that replaced a file.
    fn publish(&self) -> Result<bool, SinkError> {
        let Target { dir, name, path, .. } = &self.target;
        if let Some(attributes) = self.attributes.get() {
            attributes.apply(&self.file);
        }
        self.file.sync_all().map_err(|error| self.refused("write", &error))?;
        self.target.require_in_place()?;
        self.require_intact()?;
        let replaces = require_free(dir, name, path, self.force)?;
        let renamed = if replaces {
            retry_on_intr(|| rustix::fs::renameat(dir, &self.part_name, dir, name))
        } else {
            rename_without_replacing(dir, &self.part_name, name)
        };
        match renamed {
            Ok(()) => Ok(replaces),
            Err(Errno::EXIST) => Err(SinkError::Name(format!(
                "{} was made by another program meanwhile; move it away, or use --force to replace it",
                shown(path)
            ))),
            Err(errno) => Err(self.refused("rename the finished copy to", &errno.into())),
        }
    }

    /// Makes the new name survive a power cut.
    fn sync_directory(&self, replaced: bool) -> Result<(), SinkError> {
        match sync_directory(&self.target.dir) {
            Ok(()) => Ok(()),
            Err(errno) => {
                // The replaced file is already lost; its verified successor is better than no file.
                if !replaced {
                    remove(&self.target.dir, &self.target.name);
                }
                Err(self.refused("sync the directory of", &errno.into()))
            }
        }
    }
}

impl Part for FilePart {
    fn describe(&self, attributes: Attributes) {
        // The first word counts.
        let _ = self.attributes.set(attributes);
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.require_room(offset, bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset).map_err(|error| self.refused("write", &error))
    }

    fn write_through(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.require_room(offset, bytes.len() as u64)?;
        let written = self.direct.write_at(offset, bytes).map_err(|error| self.refused("write", &error))?;
        if written == bytes.len() {
            return Ok(());
        }
        self.write_at(offset + written as u64, &bytes[written..])
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        self.require_room(offset, len)?;
        self.zero_range(offset, len)
    }

    fn require_space(&self, bytes: u64) -> Result<(), SinkError> {
        self.require_room_for(bytes)
    }

    fn reserve(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        self.require_room(offset, len)?;
        self.reserve_range(offset, len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.file.read_exact_at(buf, offset).map_err(|error| self.refused("read back", &error))
    }

    fn read_back(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        let direct = self.direct.read_at(offset, buf).map_err(|error| self.refused("read back", &error))?;
        self.read_at(offset + direct as u64, &mut buf[direct..])
    }

    fn next_written(&self, from: u64) -> Option<Range<u64>> {
        let len = || self.file.metadata().map_or(0, |meta| meta.len());
        let end = self.size.get().copied().unwrap_or_else(len);
        if self.adopted && from < end { written(&self.file, from, end) } else { None }
    }

    fn seal(&self, size: u64) -> Result<(), SinkError> {
        self.require_open("finish")?;
        match self.size.set(size) {
            // An earlier run may have had more.
            Ok(()) => self.file.set_len(size).map_err(|error| self.refused("write", &error)),
            Err(_) if self.size.get() == Some(&size) => Ok(()),
            Err(_) => Err(SinkError::Disk(format!(
                "{} was begun with another size than the {size} bytes that it has now; start another transfer",
                shown(&self.target.path)
            ))),
        }
    }

    fn commit(&self) -> Result<PathBuf, SinkError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Err(self.over("finish"));
        }
        let replaced = self.publish().inspect_err(|_| remove(&self.target.dir, self.part_name.as_ref()))?;
        self.sync_directory(replaced)?;
        Ok(self.target.path.clone())
    }

    fn discard(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            remove(&self.target.dir, self.part_name.as_ref());
        }
    }
}

/// Makes the names in a directory survive a power cut.
pub(super) fn sync_directory(dir: &OwnedFd) -> Result<(), Errno> {
    match retry_on_intr(|| rustix::fs::fsync(dir)) {
        // Some network file systems cannot sync a directory; their servers do it unasked.
        Err(Errno::INVAL) => Ok(()),
        done => done,
    }
}

/// Whether an earlier run has left a part file for `target`, as far as that can be seen without touching it.
pub(super) fn has_orphan(target: &Target) -> bool {
    orphaned_part::exists(&target.dir, shorten(&target.name.to_string_lossy(), MAX_NAME - PART_AFFIXES))
}

/// Removes a file of ours; if even that fails there is nobody left to be told.
fn remove(dir: &OwnedFd, name: &OsStr) {
    let _ = retry_on_intr(|| rustix::fs::unlinkat(dir, name, AtFlags::empty()));
}

fn create_beside(target: &Target) -> Result<(File, String), SinkError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let stem = target.name.to_string_lossy();
    let mut last = io::Error::from(Errno::EXIST);
    for _ in 0..NAME_TRIES {
        let random = getrandom::u64()
            .map_err(|error| refused("draw a part name for", &target.path, &io::Error::other(error)))?;
        let name = part_name(&stem, random);
        // The user's umask applies to the mode.
        match retry_on_intr(|| rustix::fs::openat(&target.dir, &name, flags, Mode::from_raw_mode(0o666))) {
            // Another receiver may have taken it over already: then it is locked, or no longer there.
            Ok(fd) if !orphaned_part::lock(&fd) => last = Errno::EXIST.into(),
            Ok(fd) => match rustix::fs::statat(&target.dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => return Ok((File::from(fd), name)),
                Err(errno) => last = errno.into(),
            },
            Err(Errno::EXIST) => last = Errno::EXIST.into(),
            Err(errno) => return Err(refused("create", &target.path, &errno.into())),
        }
    }
    Err(refused("create", &target.path, &last))
}

/// Bytes of a part name beside its stem.
pub(super) const PART_AFFIXES: usize = 1 + 1 + 16 + PART_SUFFIX.len();

/// `.STEM.<16 hex digits>.mcp-part`, with the stem shortened if the whole would exceed [`MAX_NAME`]
/// bytes.
pub(super) fn part_name(stem: &str, random: u64) -> String {
    format!(".{}.{random:016x}{PART_SUFFIX}", shorten(stem, MAX_NAME - PART_AFFIXES))
}

/// The first range at or after `from` and before `end` that is not a hole. Space that was only reserved
/// is a hole. Without support for holes, the whole file counts as written.
fn written(file: &File, from: u64, end: u64) -> Option<Range<u64>> {
    use rustix::fs::{SeekFrom, seek};
    let start = match seek(file, SeekFrom::Data(from)) {
        Err(Errno::NXIO) => return None,
        start => start.unwrap_or(from),
    };
    let stop = seek(file, SeekFrom::Hole(start)).unwrap_or(end).min(end);
    (start < stop).then_some(start..stop)
}

/// Renames `from` to `to` within `dir`; fails with `EXIST` if `to` exists.
fn rename_without_replacing(dir: &OwnedFd, from: &str, to: &OsStr) -> Result<(), Errno> {
    match retry_on_intr(|| rustix::fs::renameat_with(dir, from, dir, to, rustix::fs::RenameFlags::NOREPLACE))
    {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        result => return result,
    }
    link_then_unlink(dir, from, to)
}

/// Like [`rename_without_replacing`], for file systems whose rename cannot refuse to replace (NFS): a
/// hard link never replaces.
fn link_then_unlink(dir: &OwnedFd, from: &str, to: &OsStr) -> Result<(), Errno> {
    match retry_on_intr(|| rustix::fs::linkat(dir, from, dir, to, AtFlags::empty())) {
        Ok(()) => {
            remove(dir, from.as_ref());
            Ok(())
        }
        Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP | Errno::MLINK) => look_then_rename(dir, from, to),
        Err(errno) => Err(errno),
    }
}

/// The same for file systems without hard links (some in user space). If another program creates the name
/// between the check and the rename, its file is lost.
fn look_then_rename(dir: impl AsFd, from: &str, to: &OsStr) -> Result<(), Errno> {
    match rustix::fs::statat(&dir, to, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => retry_on_intr(|| rustix::fs::renameat(&dir, from, &dir, to)),
        Err(errno) => Err(errno),
        Ok(_) => Err(Errno::EXIST),
    }
}

#[cfg(test)]
mod tests;
