//! Ranges of zeros on a device: unmapped if the device can do that, zeroed by it, or written. They are never skipped:
//! what was there before is not zero.

use super::ioctl;
use crate::storage::direct::{Direct, PageAligned};
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of zeros written at a time, where they must be written.
const PIECE: usize = 1 << 20;

/// Zeroes ranges of one device, in the best way that it accepts.
#[derive(Debug, Default)]
pub(super) struct Zeroing {
    no_holes: AtomicBool,
    no_zeroing: AtomicBool,
    zeros: OnceLock<PageAligned>,
}

impl Zeroing {
    /// Zeroes `len` bytes at `offset`. The parts of sectors at its ends are written.
    pub fn zero(&self, to: (&File, &Direct), sector: u64, offset: u64, len: u64) -> io::Result<()> {
        let (end, start) = (offset + len, offset.next_multiple_of(sector));
        let stop = end - end % sector;
        if start >= stop {
            return self.write(to, offset, end);
        }
        self.write(to, offset, start)?;
        if !self.by_device(to.0, start, stop - start)? {
            self.write(to, start, stop)?;
        }
        self.write(to, stop, end)
    }

    /// Lets the device do it. Returns whether it can.
    fn by_device(&self, file: &File, offset: u64, len: u64) -> Result<bool, Errno> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punch = || rustix::fs::fallocate(file, hole, offset, len);
        Ok(accepted(&self.no_holes, punch)?
            || accepted(&self.no_zeroing, || ioctl::zero_out(file, offset, len))?)
    }

    fn write(&self, (file, direct): (&File, &Direct), mut offset: u64, end: u64) -> io::Result<()> {
        while offset < end {
            let zeros = self.zeros.get_or_init(|| PageAligned::zeroed(PIECE));
            let zeros = &zeros[..(end - offset).min(PIECE as u64) as usize];
            let written = direct.write_at(offset, zeros)?;
            file.write_all_at(&zeros[written..], offset + written as u64)?;
            offset += zeros.len() as u64;
        }
        Ok(())
    }
}

/// Tries a way to zero a range, unless it was `refused` before. Returns whether the device accepts it.
fn accepted(refused: &AtomicBool, zero: impl Fn() -> Result<(), Errno>) -> Result<bool, Errno> {
    if refused.load(Ordering::Relaxed) {
        return Ok(false);
    }
    match retry_on_intr(zero) {
        Ok(()) => Ok(true),
        // Another program uses the device, and the cache of the range cannot be dropped.
        Err(Errno::BUSY) => Ok(false),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NOTTY | Errno::NODEV) => {
            refused.store(true, Ordering::Relaxed);
            Ok(false)
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;
    use std::fs;

    #[test]
    fn exactly_the_range_becomes_zero_in_each_way() {
        let dir = Scratch::new();
        let path = dir.join("disk");
        for (no_holes, no_zeroing) in [(false, false), (true, false), (true, true)] {
            for (offset, len) in [(0, 4096), (512, 1024), (100, 5000), (5, 3), (511, 514), (4096, 3 << 20)] {
                fs::write(&path, vec![9; 4 << 20]).unwrap();
                let file = File::options().read(true).write(true).open(&path).unwrap();
                let (no_holes, no_zeroing) = (AtomicBool::new(no_holes), AtomicBool::new(no_zeroing));
                let zeroing = Zeroing { no_holes, no_zeroing, zeros: OnceLock::new() };
                zeroing.zero((&file, &Direct::default()), 512, offset, len).unwrap();
                let bytes = fs::read(&path).unwrap();
                assert_eq!(bytes.len(), 4 << 20);
                for (at, byte) in (0..).zip(&bytes) {
                    let zero = (offset..offset + len).contains(&at);
                    assert_eq!(*byte, if zero { 0 } else { 9 }, "{at} of {offset}+{len}");
                }
            }
        }
    }
}
