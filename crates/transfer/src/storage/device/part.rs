//! A device that an object is being written to, in place.
//!
//! ```text
//! claim --> zero the ends --> write --> sync --> write the tail, the head --> sync --> its first page --> sync
//! ```
//!
//! The *ends* are the first and the last MiB of the object: partition tables, superblocks, the copy of a GPT. While the
//! object is incomplete they are zeros on the device, and in memory. So what has broken off neither boots nor mounts (I1).
//! The last MiB of the device may be behind a stream, so it stays as it is until the stream has come so far.

use super::DeviceNotes;
use super::claim::failed;
use super::medium::Medium;
use crate::pack::are_zero;
use crate::storage::direct::PageAligned;
use crate::storage::refusal::shown;
use crate::storage::{Part, SinkError};
use crate::text::bytes;
use crate::units::Extent;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is written last of all: the page with the first sectors. The tail begins with a page.
pub(crate) const PAGE: u64 = 4096;

/// The first and the last bytes of the object.
struct Ends {
    head: PageAligned,
    tail: PageAligned,
    /// Offset of the tail.
    tail_start: u64,
    /// Whether they are zeros on the device, because something was written or will be.
    begun: Begun,
}

#[derive(Clone, Copy)]
struct Begun {
    head: bool,
    tail: bool,
}

/// A claimed device. Dropping it releases the device as it is.
pub(crate) struct DevicePart<M> {
    medium: M,
    /// Size of the object; that of the device if the object may grow.
    size: u64,
    /// Whether it still grows, so that its tail may not belong to it.
    grows: bool,
    ends: Mutex<Ends>,
    /// Whether the device held nothing before.
    blank: bool,
    closed: AtomicBool,
    notes: DeviceNotes,
}

impl<M: Medium> DevicePart<M> {
    /// An object of this extent on a device; one that still grows may take all of it.
    ///
    /// # Errors
    /// If the device is too small, or fails.
    pub fn new(medium: M, extent: Extent, blank: bool, notes: DeviceNotes) -> Result<Self, SinkError> {
        let (device, whole) = (shown(medium.path()), medium.size());
        if extent.size > whole {
            let size = extent.size;
            return Err(SinkError::Disk(format!(
                "{device} is too small: it has {whole} bytes and {size} are needed; give a larger device with -o"
            )));
        }
        let size = extent.total().unwrap_or(whole);
        let head = size.min(medium.end());
        let tail_start = size.saturating_sub(medium.end());
        let tail_start = (tail_start - tail_start % PAGE).max(head);
        let ends = Ends {
            head: PageAligned::zeroed(head as usize),
            tail: PageAligned::zeroed((size - tail_start) as usize),
            tail_start,
            begun: Begun { head: false, tail: false },
        };
        let (ends, closed) = (Mutex::new(ends), AtomicBool::new(false));
        let part = Self { medium, size, grows: !extent.sealed, ends, blank, closed, notes };
        part.say_what_stays(size);
        let read = {
            let Ends { head, tail, tail_start, .. } = &mut *part.ends();
            part.medium.read(0, head).and_then(|()| part.medium.read(*tail_start, tail))
        };
        if read.is_err() {
            // What is in memory is not what is on the device.
            part.begin(&mut part.ends(), 0)?;
        }
        Ok(part)
    }

    /// Tells the user what is behind an object of this size.
    fn say_what_stays(&self, size: u64) {
        let (device, whole) = (shown(self.medium.path()), self.medium.size());
        if size < whole {
            self.notes.note(format!(
                "{device} is larger than the image ({} and {}); what is behind the image stays as it is",
                bytes(whole),
                bytes(size)
            ));
        }
    }

    /// A panic leaves the ends consistent.
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &str, error: &io::Error) -> SinkError {
        failed(what, self.medium.path(), error)
    }

    /// Zeroes the ends on the device, once and before anything else is written. The object reaches to `end` at least.
    fn begin(&self, ends: &mut Ends, end: u64) -> Result<(), SinkError> {
        let has_tail = !self.grows || end > ends.tail_start;
        let zero = |begun: bool, offset, len: usize| match begun {
            true => Ok(()),
            false => self.medium.zero(offset, len as u64),
        };
        let Begun { head, tail } = ends.begun;
        if head && (tail || !has_tail) {
            return Ok(());
        }
        zero(head, 0, ends.head.len())
            .and_then(|()| zero(tail || !has_tail, ends.tail_start, ends.tail.len()))
            .and_then(|()| self.medium.sync())
            .map_err(|error| self.failed("write to", &error))?;
        ends.begun = Begun { head: true, tail: tail || has_tail };
        Ok(())
    }

    /// Checks that `len` bytes may be written at `offset`, and returns their end.
    fn require_range(&self, offset: u64, len: u64) -> Result<u64, SinkError> {
        let end = offset.checked_add(len).filter(|&end| end <= self.size);
        if end.is_none() && self.size == self.medium.size() {
            return Err(SinkError::Disk(format!(
                "{} is too small: it has {} bytes, and the stream is longer; give a larger device with -o",
                shown(self.medium.path()),
                self.size
            )));
        }
        end.filter(|_| !self.closed.load(Ordering::Acquire)).ok_or_else(|| {
            SinkError::Disk(format!(
                "{len} bytes at {offset} do not fit {} bytes on {}; please report this",
                self.size,
                shown(self.medium.path())
            ))
        })
    }

    /// Writes to the object, whose ends stay in memory.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let end = self.require_range(offset, bytes.len() as u64)?;
        let middle = {
            let mut ends = self.ends();
            self.begin(&mut ends, end)?;
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
        let middle = {
            let mut ends = self.ends();
            self.begin(&mut ends, end)?;
            ends.clear(offset, len as usize);
            ends.between(offset, end)
        };
        if middle.start >= middle.end {
            return Ok(());
        }
        self.medium
            .zero(middle.start, middle.end - middle.start)
            .map_err(|error| self.failed("write to", &error))
    }

    fn write_to_device(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 >= PAGE && are_zero(bytes) {
            return self.medium.zero(offset, bytes.len() as u64);
        }
        self.medium.write(offset, bytes)
    }

    /// Writes the ends, the first page last of all, and compares what the device then holds.
    fn finish(&self) -> io::Result<()> {
        let medium = &self.medium;
        // Everything else is on the device before any of the ends.
        medium.sync()?;
        let ends = self.ends();
        let first = ends.head.len().min(PAGE as usize);
        if ends.begun.tail {
            self.write_to_device(ends.tail_start, &ends.tail)?;
        }
        self.write_to_device(first as u64, &ends.head[first..])?;
        medium.sync()?;
        self.write_to_device(0, &ends.head[..first])?;
        medium.sync()?;
        // The rest of a sector that was written through the cache.
        medium.forget();
        let tail = ends.begun.tail.then_some((ends.tail_start, &ends.tail));
        for (offset, end) in [(0, &ends.head)].into_iter().chain(tail) {
            let mut held = PageAligned::zeroed(end.len());
            medium.read(offset, &mut held)?;
            if *held != **end {
                return Err(io::Error::other("it does not hold what was written to it"));
            }
        }
        Ok(())
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

impl<M: Medium> Part for DevicePart<M> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.write(offset, bytes)
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        self.write_zeros_around_ends(offset, len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.medium.read(offset, buf).map_err(|error| self.failed("read", &error))?;
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
            self.say_what_stays(size);
        }
        Ok(())
    }

    fn commit(&self) -> Result<PathBuf, SinkError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            let path = shown(self.medium.path());
            return Err(SinkError::Disk(format!(
                "cannot finish {path}: its transfer is over; start another one"
            )));
        }
        // A device that held all of the object already stays untouched.
        if self.ends().begun.head {
            self.finish().map_err(|error| {
                // What has failed must not look whole. If the device fails here too, there is nobody left to be told.
                let head = self.ends().head.len() as u64;
                let _ = self.medium.zero(0, head).and_then(|()| self.medium.sync());
                self.failed("finish", &error)
            })?;
            self.medium.finished(&self.ends().head, &self.notes);
        }
        Ok(self.medium.path().to_owned())
    }

    fn discard(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
