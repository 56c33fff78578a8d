//! The storage side of an assembly: spilling, reading back and decoding. The caller reads and writes the
//! file:
//!
//! ```text
//!  spill     for (offset, bytes) in spans_to_spill() { write }   buffer = mark_spilled()
//!  complete  attach(buffer) if there is none
//!            for (offset, len) in spilled_runs() { read into buffer_mut()[offset..offset + len] }
//!            mark_restored()   complete(plans)?   hash and write bytes()   buffer = take_buffer()
//! ```
//!
//! Offsets are within the block. A block may be spilled several times.

use super::assembly::BlockAssembly;
use super::codec;
use super::few::{Holes, MAX_MISSING};
use super::{Buffer, PlanCache};
use crate::units::BlockIndex;

/// The symbols held do not suffice to decode the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {} cannot be decoded yet: it needs {deficit} more symbols", block.0)]
pub struct Undecodable {
    /// The block.
    pub block: BlockIndex,
    /// The number of further symbols needed; at least 1.
    pub deficit: u32,
}

impl BlockAssembly {
    /// The bytes that are only in memory, as maximal `(offset, bytes)` runs, cut at the block's end. Free
    /// slots and earlier spilled slots are between the runs.
    pub fn spans_to_spill(&mut self) -> impl Iterator<Item = (usize, &[u8])> {
        self.gather();
        let (this, buffer) = (&*self, self.bytes());
        this.in_memory.runs(true).map(move |(first, count)| {
            let (offset, len) = this.byte_run(first, count);
            (offset, &buffer[offset..offset + len])
        })
    }

    /// Records that the file holds all of [`Self::spans_to_spill`], and returns the buffer (an empty one
    /// if there was none). The symbols stay held.
    #[must_use]
    pub fn mark_spilled(&mut self) -> Buffer {
        for (first, count) in self.in_memory.runs(true) {
            for slot in first..first + count {
                self.spilled.insert(slot);
            }
        }
        self.in_memory.clear();
        let mut buffer = self.buffer.take().unwrap_or_default();
        buffer.slots().release();
        buffer
    }

    /// The bytes that are only in the file, as maximal `(offset, length)` runs.
    #[must_use]
    pub fn spilled_runs(&self) -> Vec<(usize, usize)> {
        self.spilled.runs(true).map(|(first, count)| self.byte_run(first, count)).collect()
    }

    /// The block's bytes in the buffer, for reading [`Self::spilled_runs`] back. The caller must not
    /// change any other bytes. Empty without a buffer.
    #[must_use]
    pub fn buffer_mut(&mut self) -> &mut [u8] {
        self.gather();
        let len = self.block_len;
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer[..len])
    }

    /// Records that all of [`Self::spilled_runs`] is in the buffer again.
    ///
    /// # Panics
    /// If there are such runs but no buffer.
    pub fn mark_restored(&mut self) {
        assert!(self.has_buffer() || self.spilled.count() == 0, "spilled symbols are read into a buffer");
        for (first, count) in self.spilled.runs(true) {
            for slot in first..first + count {
                self.in_memory.insert(slot);
            }
        }
        self.spilled.clear();
    }

    /// Puts every source symbol into its slot, so that [`Self::bytes`] is the block, or [`Self::packed`] the coded one. Decodes if source
    /// symbols are missing, which takes up to two milliseconds a MiB; otherwise does nothing.
    ///
    /// # Errors
    /// If the symbols do not suffice. All of them are still held, and the deficit is at least 1.
    ///
    /// # Panics
    /// If some symbols are only in the file, or if there are symbols but no buffer.
    pub fn complete(&mut self, plans: &PlanCache) -> Result<(), Undecodable> {
        assert!(self.spilled.count() == 0, "what was spilled is read back before completing");
        self.gather();
        if self.source.is_full() {
            return Ok(());
        }
        let decoded = if self.deficit() == 0 { self.decode(plans) } else { None };
        let (Some(decoded), Some(buffer)) = (decoded, self.buffer.as_mut()) else {
            self.needed = self.needed.max(self.held().saturating_add(1));
            return Err(Undecodable { block: self.block, deficit: self.deficit() });
        };
        let size = usize::from(self.layout.symbol_size());
        let missing = self.source.runs(false).flat_map(|(first, count)| first..first + count);
        for (id, symbol) in missing.zip(decoded.chunks(size)) {
            let start = id as usize * size;
            let len = size.min(self.block_len - start);
            buffer[start..start + len].copy_from_slice(&symbol[..len]);
        }
        for slot in 0..self.k {
            self.source.insert(slot);
            self.in_memory.insert(slot);
        }
        self.repairs.clear();
        self.extras.clear();
        Ok(())
    }

    /// The block, after [`Self::complete`]. Empty without a buffer.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[..self.block_len])
    }

    /// The missing source symbols, concatenated.
    fn decode(&self, plans: &PlanCache) -> Option<Vec<u8>> {
        let buffer = self.buffer.as_ref().expect("symbols are in a buffer");
        let repair = self.repairs.iter().filter_map(|r| Some((r.id, &buffer[self.slot_range(r.slot?)])));
        let repair = repair.chain(self.extras.iter().map(|(id, payload)| (*id, &payload[..])));
        // The repair symbols of a coded block have the ids that those of the plain one would have.
        let beyond = self.plain_k - self.k;
        let repair = repair.map(|(id, payload)| (id - beyond, payload));
        let missing: Vec<u32> = (0..self.k).filter(|id| !self.source.contains(*id)).collect();
        // What is cached for a K pays only if many blocks have it, as those that are not coded.
        if missing.len() <= MAX_MISSING as usize && beyond == 0 {
            let (repair, symbol_size): (Vec<_>, _) = (repair.collect(), self.layout.symbol_size());
            return Holes { block: buffer, symbol_size, missing: &missing, repair: &repair }.decode(plans);
        }
        let source =
            (0..self.k).filter(|id| self.source.contains(*id)).map(|id| (id, &buffer[self.slot_range(id)]));
        let block = codec::decode(self.k, self.layout.symbol_size(), source.chain(repair))?;
        Some(missing.iter().flat_map(|id| &block[self.slot_range(*id)]).copied().collect())
    }

    /// Converts slots to an `(offset, length)` run of bytes of the block.
    fn byte_run(&self, first: u32, count: u32) -> (usize, usize) {
        let start = self.slot_range(first).start;
        let end = self.slot_range(first + count - 1).end.min(self.block_len);
        (start, end - start)
    }
}
