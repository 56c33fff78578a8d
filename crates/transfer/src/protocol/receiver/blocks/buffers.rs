//! Block buffers: which block has one, and which block gives its up when all are taken.

use super::{Blocks, NEXT_TO_NOTHING};
use crate::fec::{BlockAssembly, Buffer};
use crate::protocol::job::ReceiverJob;

impl Blocks {
    pub(super) fn take_buffer(&mut self) -> Option<Buffer> {
        if self.buffers < self.rotation || (self.free.is_empty() && self.buffers < self.max_buffers) {
            self.buffers += 1;
            return Some(Buffer::default());
        }
        self.free.pop_front()
    }

    /// Whether the free buffers would run out before a spill is done.
    pub(super) fn is_short_of_buffers(&self) -> bool {
        self.free_buffers() + self.spilling < (self.max_buffers / 8).max(1)
    }

    /// Buffers for blocks that have none yet.
    pub fn free_buffers(&self) -> usize {
        self.free.len() + (self.max_buffers - self.buffers)
    }

    /// Drops the buffered block with the fewest symbols, if it has next to nothing. Of several such blocks, drops the
    /// earliest begun. Returns whether it dropped one. Otherwise, forged symbols of blocks far apart would push other
    /// blocks out to the part file and back.
    pub(super) fn forget_least(&mut self) -> bool {
        // Blocks only grow, so another search is in vain until another block begins.
        if self.searched == self.buffered.back().copied() {
            return false;
        }
        let older = self.buffered.len().saturating_sub(1);
        let held = |block| self.partial.get(block).map_or(u32::MAX, BlockAssembly::held);
        let least = self.buffered.iter().take(older).enumerate().map(|(at, block)| (held(block), at)).min();
        let next_to_nothing = (self.layout.most_source_symbols() / NEXT_TO_NOTHING).max(1);
        let Some((held, at)) = least.filter(|&(held, _)| held <= next_to_nothing) else {
            self.searched = self.buffered.back().copied();
            return false;
        };
        let block = self.buffered.remove(at);
        if let Some(mut assembly) = block.and_then(|block| self.partial.remove(&block)) {
            self.free.push_back(assembly.take_buffer());
        }
        self.received_symbols = self.received_symbols.saturating_sub(u64::from(held));
        true
    }

    /// Spills the earliest begun partial block to the part file.
    pub(super) fn spill_oldest(&mut self) -> Option<ReceiverJob> {
        if self.provisional || self.is_windowed() || self.spilling >= (self.max_buffers / 4).max(1) {
            return None;
        }
        // Keeps the block that is arriving now, and any block whose place in the file is being read.
        let older = self.buffered.len().saturating_sub(1);
        let at = self.buffered.iter().take(older).position(|&block| !self.resume.is_checking(block))?;
        let block = self.buffered.remove(at)?;
        self.resume.give_up(block);
        self.spilling += 1;
        // No symbol is added or requested until the spill is done.
        self.settled.insert(block);
        self.partial.remove(&block).map(ReceiverJob::Spill)
    }

    /// Takes a finished spill. The block accepts symbols again.
    pub fn spilled(&mut self, assembly: BlockAssembly, buffer: Buffer) {
        self.spilling = self.spilling.saturating_sub(1);
        self.free.push_back(buffer);
        self.put_back(assembly);
    }
}
