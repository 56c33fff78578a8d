//! The space of a part file: its size, whether the disk has room for it, and what is reserved of it.
//!
//! What the sender says to be zeros takes no space, so space is reserved piece by piece, once it is known what is not.
//! Whether there is room for everything is estimated before the first byte.

use super::FilePart;
use crate::storage::refusal::{refused, shown};
use crate::storage::source::is_hole;
use crate::storage::{Part, SinkError};
use crate::text::bytes;
use rustix::fs::{FallocateFlags, fallocate, fstat, fstatvfs, ftruncate};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Unit in which the system counts the space of a file.
const UNIT: u64 = 512;
/// Zeros that are written at a time, where a file system has no holes.
const PIECE: usize = 256 << 10;

impl FilePart {
    /// Fails unless the disk has room for `needed` bytes, those that the file has already included. Removes a new file
    /// then; one of an earlier run keeps its bytes, whether or not there is room for the rest.
    pub(super) fn require_room_for(&self, needed: u64) -> Result<(), SinkError> {
        let has = self.file.metadata().map_or(0, |meta| meta.blocks().saturating_mul(UNIT));
        let missing = needed.saturating_sub(has);
        let Ok(disk) = fstatvfs(&self.file) else { return Ok(()) };
        // A file system that does not tell its size has room.
        if disk.f_blocks == 0 || missing <= disk.f_bavail.saturating_mul(disk.f_frsize) {
            return Ok(());
        }
        let error = self.no_room(needed, Errno::NOSPC);
        if !self.adopted {
            self.discard();
        }
        Err(error)
    }

    fn no_room(&self, needed: u64, errno: Errno) -> SinkError {
        let free = match (errno, fstatvfs(&self.file)) {
            (Errno::NOSPC, Ok(disk)) => disk.f_bavail.saturating_mul(disk.f_frsize),
            _ => return refused("reserve the space for", &self.target.path, &errno.into()),
        };
        SinkError::Disk(format!(
            "no room for {}: it needs {} and the disk has {} free; free some space or give another place with -o",
            shown(&self.target.path),
            bytes(needed),
            bytes(free),
        ))
    }

    /// Reserves the space of a range, if the file system can.
    pub(super) fn reserve_range(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        // A size that is not final yet stays as it is.
        let reserve = || fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, len);
        match retry_on_intr(reserve) {
            Err(Errno::NOSPC) => Err(self.no_room(len, Errno::NOSPC)),
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(errno) => Err(self.refused("write", &errno.into())),
        }
    }

    /// Makes a range a hole, or writes zeros where there are no holes.
    pub(super) fn zero_range(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        if is_hole(&self.file, offset, len) {
            return Ok(());
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if retry_on_intr(|| fallocate(&self.file, hole, offset, len)).is_ok() {
            return Ok(());
        }
        let zeros = vec![0; len.min(PIECE as u64) as usize];
        for at in (offset..offset + len).step_by(PIECE) {
            let piece = &zeros[..(offset + len - at).min(PIECE as u64) as usize];
            self.file.write_all_at(piece, at).map_err(|error| self.refused("write", &error))?;
        }
        Ok(())
    }
}

/// Sets the size of a new `file`. Nothing is stored of it yet.
pub(super) fn set_size(file: &File, size: u64) -> Result<(), Errno> {
    if i64::try_from(size).is_err() {
        return Err(Errno::FBIG);
    }
    if fstat(file)?.st_size as u64 == size {
        return Ok(());
    }
    retry_on_intr(|| ftruncate(file, size))
}
