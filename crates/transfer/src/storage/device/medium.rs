//! What the order of writes needs of a device: the port that the simulated world implements too.

use super::claim::Claim;
use super::zeros::Zeroing;
use super::{DeviceNote, DeviceNotes, ioctl, table};
use crate::storage::refusal::shown;
use rustix::io::Errno;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in the page cache after which they are synced: an error must show soon, and closing must not take minutes.
const SYNC_EVERY: u64 = 8 << 20;

/// A device that nobody else uses. Dropping it releases the device as it is.
pub(crate) trait Medium: Send + Sync {
    /// Its path.
    fn path(&self) -> &Path;
    /// Its size in bytes.
    fn size(&self) -> u64;
    /// Length of each end of an object that is written last, in whole pages.
    fn end(&self) -> u64 {
        1 << 20
    }
    /// Writes all of `bytes`.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes `len` bytes zeros.
    fn zero(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Fills `buf` with what the device holds.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Makes all writes durable.
    fn sync(&self) -> io::Result<()>;
    /// Drops what the system's cache has of it: reading shows what it holds.
    fn forget(&self) {}
    /// Called when all of an object is on it, which begins with `head`.
    fn finished(&self, _head: &[u8], _notes: &DeviceNotes) {}
}

/// A device of the system.
pub(super) struct Claimed {
    claim: Claim,
    zeroing: Zeroing,
    /// Bytes written to the page cache since the last sync, about.
    unsynced: AtomicU64,
}

impl Claimed {
    pub fn new(claim: Claim) -> Self {
        Self { claim, zeroing: Zeroing::default(), unsynced: AtomicU64::new(0) }
    }
}

impl Medium for Claimed {
    fn path(&self) -> &Path {
        &self.claim.path
    }

    fn size(&self) -> u64 {
        self.claim.size
    }

    /// Writes past the page cache as far as possible. There, a device that is full or fails says so at once.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Claim { file, direct, .. } = &self.claim;
        let written = direct.write_at(offset, bytes)?;
        let rest = &bytes[written..];
        file.write_all_at(rest, offset + written as u64)?;
        let unsynced = self.unsynced.fetch_add(rest.len() as u64, Ordering::Relaxed);
        if unsynced + rest.len() as u64 >= SYNC_EVERY {
            self.unsynced.store(0, Ordering::Relaxed);
            file.sync_data()?;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let Claim { file, direct, sector, .. } = &self.claim;
        self.zeroing.zero((file, direct), *sector, offset, len)
    }

    /// Reads past the page cache as far as possible.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let read = self.claim.direct.read_at(offset, buf)?;
        self.claim.file.read_exact_at(&mut buf[read..], offset + read as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.claim.file.sync_all()
    }

    fn forget(&self) {
        // What was written is synced, and without this right, it is only read from the cache.
        let _ = ioctl::flush(&self.claim.file);
    }

    /// Tells the system of the new partitions, and the user of what does not fit the device.
    fn finished(&self, head: &[u8], notes: &DeviceNotes) {
        let Claim { path, file, size, sector, is_disk, .. } = &self.claim;
        let device = shown(path);
        if *is_disk {
            // Devices without partitions refuse this.
            if let Err(errno) = ioctl::read_partitions(file)
                && errno != Errno::INVAL
            {
                notes.add(DeviceNote::Warning(format!(
                    "the system still uses the old partition table of {device} ({errno}); run partprobe, or restart \
                     the machine"
                )));
            }
            let remark = table::remark(head, *size, *sector, &device);
            remark.into_iter().for_each(|text| notes.add(DeviceNote::Warning(text)));
        }
    }
}
