//! A page-aligned block buffer.

use super::likely::{Likely, Notes};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Alignment of a buffer's first byte. A page satisfies files opened for direct writing, and vector
/// instructions.
const ALIGN: usize = 4096;

/// A byte buffer aligned to 4096. It keeps its memory when it shrinks.
#[derive(Default)]
pub struct Buffer {
    /// Longer than `len`, so that the start can be aligned.
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    /// The content of a buffer that has no memory of its own.
    notes: Option<Box<Notes>>,
    /// Whether the buffer has memory temporarily.
    gathered: bool,
}

impl Buffer {
    /// An empty buffer for symbols of `symbol_size` bytes that records only where its content differs
    /// from `likely`, from `offset` on. Its bytes can be read after
    /// [`BlockAssembly::gather`](super::BlockAssembly::gather).
    #[must_use]
    pub fn liken(likely: Arc<Likely>, offset: usize, symbol_size: usize) -> Self {
        let notes = Some(Box::new(Notes::new(likely, offset, symbol_size)));
        Self { notes, ..Self::default() }
    }
    /// The notes, if they are the buffer's only content.
    pub(super) fn notes(&mut self) -> Option<&mut Notes> {
        self.notes.as_deref_mut().filter(|_| !self.gathered)
    }
    /// The notes that the present bytes were gathered from.
    pub(super) fn gathered_notes(&self) -> Option<&Notes> {
        self.notes.as_deref().filter(|_| self.gathered)
    }
    /// Allocates memory for a buffer of notes, and fills it.
    pub(super) fn gather(&mut self) {
        if self.gathered {
            return;
        }
        let Some(notes) = self.notes.take() else { return };
        self.bytes = notes.likely.take_memory();
        self.gathered = true;
        self.place(self.len);
        notes.gather(self);
        self.notes = Some(notes);
    }
    /// Returns the memory of a gathered buffer; its bytes are lost.
    pub(super) fn scatter(&mut self) {
        if let Some(notes) = self.notes.as_ref().filter(|_| self.gathered) {
            notes.likely.give_memory(std::mem::take(&mut self.bytes));
            self.gathered = false;
        }
    }

    /// Sets the length to `len` bytes. The content is undefined.
    pub fn set_len(&mut self, len: usize) {
        self.scatter();
        if let Some(notes) = &mut self.notes {
            notes.clear(len);
            self.len = len;
        } else {
            self.place(len);
        }
    }

    fn place(&mut self, len: usize) {
        if len + ALIGN - 1 > self.bytes.len() {
            // Freed first, so that both are not held at the same time.
            self.bytes = Vec::new();
            self.bytes = vec![0; len + ALIGN - 1];
        }
        // The hint can fail only in theory. The buffer then works, but is not aligned.
        self.start = Some(self.bytes.as_ptr().align_offset(ALIGN)).filter(|&s| s < ALIGN).unwrap_or(0);
        self.len = len;
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl fmt::Debug for Buffer {
    /// Shows only numbers: the buffer is large.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish()
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
