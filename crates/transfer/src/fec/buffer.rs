//! A block's buffer, and the memory behind it.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Alignment of a buffer's first byte: a page, enough for direct I/O and for vector instructions.
const ALIGN: usize = 4096;

/// The memory of a buffer. The program uses page-aligned memory. Simulations use a kind that thousands of devices
/// share.
pub trait Slots: fmt::Debug + Send {
    /// Sets the length to `len` bytes. The content is undefined.
    fn set_len(&mut self, len: usize);

    /// Writes a symbol to its slot at `at`. The last source symbol may be shorter than the slot.
    fn write(&mut self, at: usize, symbol: &[u8]);

    /// Copies the symbol at `at` into `to`.
    fn read(&self, at: usize, to: &mut [u8]);

    /// Makes the content available through [`Self::bytes`].
    fn gather(&mut self) {}

    /// The content, after [`Self::gather`].
    fn bytes(&self) -> &[u8];

    /// The content, after [`Self::gather`].
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Discards the content.
    fn release(&mut self) {}
}

/// Provides the memory of buffers.
pub trait Memory: fmt::Debug + Send + Sync {
    /// Turns a free buffer into one for the block at `offset` of the object.
    fn prepare(&self, free: Buffer, offset: u64, symbol_size: u16) -> Buffer;
}

/// The program's memory: each buffer keeps its own from block to block.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnMemory;

impl Memory for OwnMemory {
    fn prepare(&self, free: Buffer, _: u64, _: u16) -> Buffer {
        free
    }
}

/// A byte buffer, aligned to 4096 by default. It keeps its memory when it shrinks.
#[derive(Debug)]
pub struct Buffer(Box<dyn Slots>);

impl Buffer {
    /// A buffer with this memory.
    #[must_use]
    pub fn of(slots: Box<dyn Slots>) -> Self {
        Self(slots)
    }
    /// Sets the length to `len` bytes. The content is undefined.
    pub fn set_len(&mut self, len: usize) {
        self.0.set_len(len);
    }
    pub(super) fn slots(&mut self) -> &mut dyn Slots {
        &mut *self.0
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self(Box::<Aligned>::default())
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }
}

/// Memory that begins at a page.
#[derive(Default)]
struct Aligned {
    /// Longer than `len`, so that the start can be aligned.
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Slots for Aligned {
    fn set_len(&mut self, len: usize) {
        if len + ALIGN - 1 > self.bytes.len() {
            // Frees the old memory first, so that both are never held at once.
            self.bytes = Vec::new();
            self.bytes = vec![0; len + ALIGN - 1];
        }
        // The hint can fail only in theory. The buffer then works, but is not aligned.
        self.start = Some(self.bytes.as_ptr().align_offset(ALIGN)).filter(|&s| s < ALIGN).unwrap_or(0);
        self.len = len;
    }
    fn write(&mut self, at: usize, symbol: &[u8]) {
        self.bytes_mut()[at..at + symbol.len()].copy_from_slice(symbol);
    }
    fn read(&self, at: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.bytes()[at..at + to.len()]);
    }
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl fmt::Debug for Aligned {
    /// Shows only sizes, because the content is large.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aligned").field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_a_page_whatever_its_length() {
        let mut buffer = Buffer::default();
        assert!(buffer.is_empty());
        for len in [1, 4095, 4096, 100, 1 << 20, 0, 5000] {
            buffer.set_len(len);
            assert_eq!(buffer.len(), len);
            assert!(len == 0 || buffer.as_ptr().align_offset(ALIGN) == 0, "{len}");
            buffer.fill(7);
        }
    }
}
