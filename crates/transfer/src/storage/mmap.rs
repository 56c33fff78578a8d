//! The memory map of a source, which gives the kernel an address to send from.

#![allow(unsafe_code)]

use super::RawBytes;
use memmap2::{Advice, Mmap, UncheckedAdvice};
use std::fs::File;
use std::io;
use std::ptr;

/// A read-only map of a file, or of a piece of one. The program itself never reads its bytes.
#[derive(Debug)]
pub(super) struct Mapping {
    /// `None` for an empty file, which the system refuses to map.
    map: Option<Mmap>,
}

impl Mapping {
    /// Maps `size` bytes of `file` from `offset` on, a multiple of the page size, for sequential reading. The file may
    /// still grow to that size.
    ///
    /// # Errors
    /// If the system refuses, or the address space is too small.
    pub fn new(file: &File, offset: u64, size: u64) -> io::Result<Self> {
        if size == 0 {
            return Ok(Self { map: None });
        }
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the danger of a file mapping is that another program changes or shortens the file while
        // a `&[u8]` into it exists: undefined behaviour, or SIGBUS. No such slice is ever made. The map
        // is private to this type, which gives out only its address, as `RawBytes`. The users of
        // `RawBytes` (the scatter lists of net/sys.rs) pass it to the kernel. The kernel copies the bytes
        // of that moment, and returns EFAULT for a page that does not exist, or no longer. The program itself
        // reads with pread (`FileSource::read_at`, `Spool::read_at`). `Mmap` unmaps on drop, and outlives each `RawBytes` by the
        // contract of `Source::raw`.
        let map = unsafe { memmap2::MmapOptions::new().offset(offset).len(size).map(file)? };
        // Only a hint: sending works without it.
        let _ = map.advise(Advice::Sequential);
        Ok(Self { map: Some(map) })
    }

    /// Releases the pages of `offset..offset + len` (multiples of the page size, or up to the end).
    /// Sending them again loads them again.
    pub fn forget(&self, offset: u64, len: usize) {
        let Some(map) = &self.map else { return };
        let Ok(offset) = usize::try_from(offset) else { return };
        if offset.checked_add(len).is_none_or(|end| end > map.len()) {
            return;
        }
        // SAFETY: MADV_DONTNEED would lose writes to memory without a file. This map is of a file and
        // read-only, so its pages return from the file with the same content. No reference into the map
        // exists (see `new`). A concurrent send faults the page in again. Only a hint: its failure does
        // not matter.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) };
    }

    /// The address of the bytes `offset..offset + len`.
    ///
    /// # Panics
    /// If they are not all within the map: the kernel would send other memory of the program.
    pub fn raw(&self, offset: u64, len: usize) -> RawBytes {
        let (start, size) = self.map.as_ref().map_or((ptr::dangling(), 0), |m| (m.as_ptr(), m.len()));
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= size),
            "bytes {offset}+{len} are outside a source of {size}"
        );
        RawBytes { address: start.wrapping_add(offset), len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    fn send(socket: &UnixDatagram, bytes: RawBytes) -> io::Result<isize> {
        // SAFETY: a system call that reads `len` bytes at `address`, which the caller's live `Mapping`
        // covers. If the file no longer has these bytes, the kernel returns EFAULT.
        let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.address.cast(), bytes.len, 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent) }
    }

    /// Tests the claim of the SAFETY comment in [`Mapping::new`].
    #[test]
    fn the_kernel_sends_the_bytes_and_answers_efault_where_the_file_shrank() {
        let dir = Scratch::new();
        let bytes: Vec<u8> = (0..16_384u32).map(|i| (i % 253) as u8).collect();
        std::fs::write(dir.join("x"), &bytes).unwrap();
        let file = File::options().read(true).write(true).open(dir.join("x")).unwrap();
        let map = Mapping::new(&file, 0, 16_384).unwrap();
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut got = [0; 2_000];
        assert_eq!(send(&ours, map.raw(9_000, 1408)).unwrap(), 1408);
        assert_eq!(theirs.recv(&mut got).unwrap(), 1408);
        assert_eq!(got[..1408], bytes[9_000..][..1408]);
        file.set_len(4096).unwrap();
        let error = send(&ours, map.raw(9_000, 1408)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert_eq!(send(&ours, map.raw(0, 1408)).unwrap(), 1408);
    }
}
