//! The system calls of block devices that have no safe wrapper: four ioctls, and nothing else.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::ioctl::{Getter, NoArg, Opcode, Setter, ioctl, opcode};
use std::ffi::c_int;
use std::fs::File;

// Linux, include/uapi/linux/fs.h.
const BLKROGET: Opcode = opcode::none(0x12, 94);
const BLKRRPART: Opcode = opcode::none(0x12, 95);
const BLKFLSBUF: Opcode = opcode::none(0x12, 97);
const BLKZEROOUT: Opcode = opcode::none(0x12, 127);

/// Whether a block device refuses writes, although it can be opened for writing.
///
/// # Errors
/// If it is no block device.
pub(super) fn is_read_only(device: &File) -> Result<bool, Errno> {
    // SAFETY: BLKROGET writes one int to its argument, which is the type of the getter.
    let flag = unsafe { ioctl(device, Getter::<BLKROGET, c_int>::new())? };
    Ok(flag != 0)
}

/// Writes what the cache of a block device holds, and drops it.
///
/// # Errors
/// If it is no block device, or this user may not.
pub(in crate::storage) fn flush(device: &File) -> Result<(), Errno> {
    // SAFETY: BLKFLSBUF has no argument.
    unsafe { ioctl(device, NoArg::<BLKFLSBUF>::new()) }
}

/// Makes the system read the partition table of a whole disk again.
///
/// # Errors
/// If a partition is in use (`BUSY`), or the device has no partitions (`INVAL`).
pub(super) fn read_partitions(disk: &File) -> Result<(), Errno> {
    // SAFETY: BLKRRPART has no argument.
    unsafe { ioctl(disk, NoArg::<BLKRRPART>::new()) }
}

/// Zeroes `len` bytes at `offset`, both multiples of the sector size. The system writes zeros if the device cannot do
/// it by itself.
///
/// # Errors
/// If the device fails.
pub(super) fn zero_out(device: &File, offset: u64, len: u64) -> Result<(), Errno> {
    // SAFETY: BLKZEROOUT reads two 64-bit numbers at its argument, which is the type of the setter.
    unsafe { ioctl(device, Setter::<BLKZEROOUT, [u64; 2]>::new([offset, len])) }
}
