//! A device that an object is being written to, in place.
//!
//! ```text
//! claim --> zero the ends --> write --> sync --> write the tail, the head --> sync --> its first page --> sync
//! ```
//!
//! The *ends* are the first and the last MiB of the object: partition tables, superblocks, the copy of a GPT. While the
//! object is incomplete they are zeros on the device, and in memory. So what has broken off neither boots nor mounts (I1).

use super::claim::{Claim, failed};
use super::zeros::Zeroing;
use super::{DeviceNote, DeviceNotes, ioctl, rest_stays, table};
use crate::pack::are_zero;
use crate::storage::direct::PageAligned;
use crate::storage::refusal::shown;
use crate::storage::{Part, SinkError};
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Length of each end; the tail may be almost a page longer.
const END: u64 = 1 << 20;
/// What is written last of all: the page with the first sectors.
const PAGE: u64 = 4096;
/// Bytes in the page cache after which they are synced: an error must show soon, and closing must not take minutes.
const SYNC_EVERY: u64 = 8 << 20;

/// The first and the last bytes of the object.
struct Ends {
    head: PageAligned,
    tail: PageAligned,
    /// Offset of the tail.
    tail_start: u64,
}

/// A claimed device. Dropping it releases the device as it is.
pub(super) struct DevicePart {
    claim: Claim,
    /// Size of the object; that of the device if the object may grow.
    size: u64,
    ends: Mutex<Ends>,
    /// Whether the ends are zeros on the device, because something was written or will be.
    begun: AtomicBool,
    /// Whether the device held nothing before.
    blank: bool,
    zeroing: Zeroing,
    /// Bytes written to the page cache since the last sync, about.
    unsynced: AtomicU64,
    closed: AtomicBool,
    notes: DeviceNotes,
}

impl DevicePart {
    pub fn new(claim: Claim, size: u64, blank: bool, notes: DeviceNotes) -> Result<Self, SinkError> {
        let head = size.min(END);
        let tail_start = size.saturating_sub(END);
        let tail_start = (tail_start - tail_start % PAGE).max(head);
        let ends = Ends {
            head: PageAligned::zeroed(head as usize),
            tail: PageAligned::zeroed((size - tail_start) as usize),
            tail_start,
        };
        let part = Self {
            claim,
            size,
            ends: Mutex::new(ends),
            begun: AtomicBool::new(false),
            blank,
            zeroing: Zeroing::default(),
            unsynced: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            notes,
        };
        let read = {
            let Ends { head, tail, tail_start } = &mut *part.ends();
            part.read(0, head).and_then(|()| part.read(*tail_start, tail))
        };
        if read.is_err() {
            // What is in memory is not what is on the device.
            part.begin()?;
        }
        Ok(part)
    }

    /// A panic leaves the ends consistent.
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &str, error: &io::Error) -> SinkError {
        failed(what, &self.claim.path, error)
    }

    /// Zeroes the ends on the device, once and before anything else is written.
    fn begin(&self) -> Result<(), SinkError> {
        if self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let ends = self.ends();
        if self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let zero = |offset, len| self.zero(offset, len);
        zero(0, ends.head.len() as u64)
            .and_then(|()| zero(ends.tail_start, ends.tail.len() as u64))
            .and_then(|()| self.claim.file.sync_data())
            .map_err(|error| self.failed("write to", &error))?;
        self.begun.store(true, Ordering::Release);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let Claim { file, direct, sector, .. } = &self.claim;
        self.zeroing.zero((file, direct), *sector, offset, len)
    }

    /// Checks that `len` bytes may be written at `offset`, and returns their end.
    fn require_range(&self, offset: u64, len: u64) -> Result<u64, SinkError> {
        let end = offset.checked_add(len).filter(|&end| end <= self.size);
        if end.is_none() && self.size == self.claim.size {
            return Err(SinkError::Disk(format!(
                "{} is too small: it has {} bytes, and the stream is longer; give a larger device with -o",
                shown(&self.claim.path),
                self.size
            )));
        }
        end.filter(|_| !self.closed.load(Ordering::Acquire)).ok_or_else(|| {
            SinkError::Disk(format!(
                "{len} bytes at {offset} do not fit {} bytes on {}; please report this",
                self.size,
                shown(&self.claim.path)
            ))
        })
    }

    /// Writes to the object, whose ends stay in memory.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let end = self.require_range(offset, bytes.len() as u64)?;
        self.begin()?;
        let middle = {
            let mut ends = self.ends();
            ends.put(offset, bytes);
            ends.between(offset, end)
        };
        if middle.start >= middle.end {
            return Ok(());
        }
        let bytes = &bytes[(middle.start - offset) as usize..(middle.end - offset) as usize];
        self.write_to_device(middle.start, bytes).map_err(|error| self.failed("write to", &error))
    }

    /// The same for zeros.
    fn write_zeros_around_ends(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        let end = self.require_range(offset, len)?;
        self.begin()?;
        let middle = {
            let mut ends = self.ends();
            ends.clear(offset, len as usize);
            ends.between(offset, end)
        };
        if middle.start >= middle.end {
            return Ok(());
        }
        self.zero(middle.start, middle.end - middle.start).map_err(|error| self.failed("write to", &error))
    }

    /// Writes past the page cache as far as possible. There, a device that is full or fails says so at once.
    fn write_to_device(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 >= PAGE && are_zero(bytes) {
            return self.zero(offset, bytes.len() as u64);
        }
        let direct = self.claim.direct.write_at(offset, bytes)?;
        let rest = &bytes[direct..];
        self.claim.file.write_all_at(rest, offset + direct as u64)?;
        let unsynced = self.unsynced.fetch_add(rest.len() as u64, Ordering::Relaxed);
        if unsynced + rest.len() as u64 >= SYNC_EVERY {
            self.unsynced.store(0, Ordering::Relaxed);
            self.claim.file.sync_data()?;
        }
        Ok(())
    }

    /// Reads from the device, past the page cache as far as possible.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let direct = self.claim.direct.read_at(offset, buf)?;
        self.claim.file.read_exact_at(&mut buf[direct..], offset + direct as u64)
    }

    /// Writes the ends, the first page last of all, and compares what the device then holds.
    fn finish(&self) -> io::Result<()> {
        let file = &self.claim.file;
        // Everything else is on the device before any of the ends.
        file.sync_all()?;
        let ends = self.ends();
        let first = ends.head.len().min(PAGE as usize);
        self.write_to_device(ends.tail_start, &ends.tail)?;
        self.write_to_device(first as u64, &ends.head[first..])?;
        file.sync_all()?;
        self.write_to_device(0, &ends.head[..first])?;
        file.sync_all()?;
        // The rest of a sector that was written through the cache.
        let _ = ioctl::flush(file);
        for (offset, end) in [(0, &ends.head), (ends.tail_start, &ends.tail)] {
            let mut held = PageAligned::zeroed(end.len());
            self.read(offset, &mut held)?;
            if *held != **end {
                return Err(io::Error::other("it does not hold what was written to it"));
            }
        }
        Ok(())
    }

    /// Tells the system of the new partitions, and the user of what does not fit the device.
    fn announce(&self) {
        let Claim { path, file, size, sector, is_disk, .. } = &self.claim;
        let device = shown(path);
        if *is_disk {
            // Devices without partitions refuse this.
            if let Err(errno) = ioctl::read_partitions(file)
                && errno != Errno::INVAL
            {
                self.notes.add(DeviceNote::Warning(format!(
                    "the system still uses the old partition table of {device} ({errno}); run partprobe, or restart \
                     the machine"
                )));
            }
            let remark = table::remark(&self.ends().head, *size, *sector, &device);
            remark.into_iter().for_each(|text| self.notes.add(DeviceNote::Warning(text)));
        }
    }
}

impl Ends {
    /// Copies what of `bytes` at `offset` is in the ends.
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        for (start, end) in [(0, &mut self.head), (self.tail_start, &mut self.tail)] {
            if let Some((here, there)) = overlap(start, end.len(), offset, bytes.len()) {
                end[here].copy_from_slice(&bytes[there]);
            }
        }
    }

    /// Zeroes what of `len` bytes at `offset` is in the ends.
    fn clear(&mut self, offset: u64, len: usize) {
        for (start, end) in [(0, &mut self.head), (self.tail_start, &mut self.tail)] {
            if let Some((here, _)) = overlap(start, end.len(), offset, len) {
                end[here].fill(0);
            }
        }
    }

    /// What of `offset..end` is in neither end; perhaps nothing.
    fn between(&self, offset: u64, end: u64) -> Range<u64> {
        let head = self.head.len() as u64;
        offset.max(head).min(end)..end.min(self.tail_start).max(offset)
    }

    /// Replaces what of `buf`, read at `offset`, is in the ends.
    fn get(&self, offset: u64, buf: &mut [u8]) {
        for (start, end) in [(0, &self.head), (self.tail_start, &self.tail)] {
            if let Some((here, there)) = overlap(start, end.len(), offset, buf.len()) {
                buf[there].copy_from_slice(&end[here]);
            }
        }
    }
}

/// Where two ranges of bytes, each given by its offset and length, overlap: as indices into each.
fn overlap(a: u64, a_len: usize, b: u64, b_len: usize) -> Option<(Range<usize>, Range<usize>)> {
    let (start, end) = (a.max(b), (a + a_len as u64).min(b + b_len as u64));
    let within = |from: u64| (start - from) as usize..(end - from) as usize;
    (start < end).then(|| (within(a), within(b)))
}

impl Part for DevicePart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.write(offset, bytes)
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        self.write_zeros_around_ends(offset, len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.read(offset, buf).map_err(|error| self.failed("read", &error))?;
        self.ends().get(offset, buf);
        Ok(())
    }

    fn next_written(&self, from: u64) -> Option<Range<u64>> {
        (!self.blank && from < self.size).then_some(from..self.size)
    }

    fn is_earlier(&self) -> bool {
        true
    }

    fn seal(&self, size: u64) -> Result<(), SinkError> {
        if size < self.size {
            self.notes.add(rest_stays(&self.claim, size));
        }
        Ok(())
    }

    fn commit(&self) -> Result<PathBuf, SinkError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            let path = shown(&self.claim.path);
            return Err(SinkError::Disk(format!(
                "cannot finish {path}: its transfer is over; start another one"
            )));
        }
        // A device that held all of the object already stays untouched.
        if self.begun.load(Ordering::Acquire) {
            self.finish().map_err(|error| {
                // What has failed must not look whole. If the device fails here too, there is nobody left to be told.
                let head = self.ends().head.len() as u64;
                let _ = self.zero(0, head).and_then(|()| self.claim.file.sync_all());
                self.failed("finish", &error)
            })?;
            self.announce();
        }
        Ok(self.claim.path.clone())
    }

    fn discard(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
