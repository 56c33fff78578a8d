//! A block buffer that begins at a page boundary.

use super::likely::{Likely, Notes};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// What a buffer's first byte is aligned to: a page, which files opened for direct writing ask for
/// at most, and a multiple of what vector instructions like.
const ALIGN: usize = 4096;

/// Bytes whose first one lies at a multiple of 4096. Its memory is kept when it shrinks.
#[derive(Default)]
pub struct Buffer {
    /// With room for the start to be moved.
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    /// Its content while it has no memory of its own.
    notes: Option<Box<Notes>>,
    /// It has memory for a while only.
    gathered: bool,
}

impl Buffer {
    /// An empty buffer for symbols of `symbol_size` bytes, which takes no memory for what is in
    /// `likely` from `offset` on. Its bytes can be looked at when they have been gathered.
    #[must_use]
    pub fn liken(likely: Arc<Likely>, offset: usize, symbol_size: usize) -> Self {
        let notes = Some(Box::new(Notes::new(likely, offset, symbol_size)));
        Self { notes, ..Self::default() }
    }
    /// Its notes, if its content is nowhere else.
    pub(super) fn notes(&mut self) -> Option<&mut Notes> {
        self.notes.as_deref_mut().filter(|_| !self.gathered)
    }
    /// The notes of what has been gathered in it.
    pub(super) fn gathered_notes(&self) -> Option<&Notes> {
        self.notes.as_deref().filter(|_| self.gathered)
    }
    /// Gives it memory, if it only has notes.
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
    /// Gives the memory of a gathered buffer back; its content is lost.
    pub(super) fn scatter(&mut self) {
        if let Some(notes) = self.notes.as_ref().filter(|_| self.gathered) {
            notes.likely.give_memory(std::mem::take(&mut self.bytes));
            self.gathered = false;
        }
    }

    /// Makes it `len` bytes long; what is in it is not defined.
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
            // Freed first: the two need not be held at the same time.
            self.bytes = Vec::new();
            self.bytes = vec![0; len + ALIGN - 1];
        }
        // The hint may fail in theory only; then the buffer is as good, but not aligned.
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
    /// Numbers only: it is large.
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
