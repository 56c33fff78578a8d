//! Blocks for a destination that takes them in order (a pipe).
//!
//! Without a spool, a block that is complete before its turn stays in its buffer. So the device has *room* for as many
//! blocks as it has buffers, from the first one that is not written. Symbols of later blocks are dropped, and not
//! requested before there is room. Each block in the window has at most one buffer, so the next one always gets one.
//!
//! ```text
//!        written        room
//!  |########|=====.==..=..|             # written   = held, waits for its turn   . incomplete
//! ```

use super::{Blocks, ReceiverJob};
use crate::fec::Buffer;
use crate::units::{BlockIndex, Digest, Intake};
use std::collections::BTreeMap;

/// How far an ordered destination has come.
#[derive(Debug)]
pub(super) struct Order {
    /// Blocks below this are written.
    written: u32,
    /// Whether the block at `written` is being written.
    writing: bool,
    /// Whether blocks wait in their buffers, and not in a spool.
    windowed: bool,
    /// Blocks that wait in their buffers for their turn, their page or their digests.
    held: BTreeMap<u32, Buffer>,
}

impl Order {
    /// Blocks below this have been handed over.
    const fn taken(&self) -> u32 {
        self.written + self.writing as u32
    }
    /// Whether symbols of a block are of no use any more, because the destination or a buffer has it.
    fn has(&self, block: u32) -> bool {
        block < self.taken() || self.held.contains_key(&block)
    }
}

impl Blocks {
    /// For a destination that takes blocks like this.
    pub fn for_intake(mut self, intake: Intake) -> Self {
        let windowed = intake == Intake::InOrder;
        self.order = intake.is_ordered().then(|| Order {
            written: 0,
            writing: false,
            windowed,
            held: BTreeMap::new(),
        });
        self
    }

    /// Whether blocks wait in their buffers.
    pub(super) fn is_windowed(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.windowed)
    }

    /// There is room for the blocks below this.
    pub fn room(&self) -> u32 {
        let windowed = self.order.as_ref().filter(|order| order.windowed);
        windowed.map_or(u32::MAX, |order| order.written.saturating_add(self.max_buffers as u32))
    }

    /// Whether a symbol of the block cannot be kept, or is of no use.
    pub(super) fn is_out_of_turn(&self, block: u32) -> bool {
        block >= self.room() || self.order.as_ref().is_some_and(|order| order.has(block))
    }

    /// Whether a block is being written.
    pub fn is_writing(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.writing)
    }

    /// Whether all blocks have gone where they belong.
    pub fn all_written(&self) -> bool {
        self.order.as_ref().is_none_or(|order| order.written >= self.layout.block_count())
    }

    /// The job that writes the next block, if it is verified.
    pub fn next_write(&mut self) -> Option<ReceiverJob> {
        let order = self.order.as_mut().filter(|order| !order.writing)?;
        let block = order.written;
        if !self.verified.contains(block) {
            return None;
        }
        let buffer = if order.windowed { Some(order.held.remove(&block)?) } else { None };
        order.writing = true;
        Some(ReceiverJob::Write { block: BlockIndex(block), buffer })
    }

    /// Takes the end of a write.
    pub fn written(&mut self, block: BlockIndex, buffer: Option<Buffer>) {
        if let Some(order) = &mut self.order {
            order.writing = false;
            order.written = order.written.max(block.0 + 1);
        }
        self.free.extend(buffer);
    }

    /// Takes the buffer of a block that a worker has completed: back to the pool, or with the block in it.
    pub(super) fn keep_or_free(&mut self, block: BlockIndex, buffer: Buffer) {
        match self.order.as_mut().filter(|order| order.windowed) {
            Some(order) => drop(order.held.insert(block.0, buffer)),
            None => self.free.push_back(buffer),
        }
    }

    /// Frees the buffer of a block whose bytes are wrong.
    pub(super) fn drop_held(&mut self, block: u32) {
        let held = self.take_held(BlockIndex(block));
        self.free.extend(held);
    }

    /// Takes a block out of its buffer's waiting place.
    pub(super) fn take_held(&mut self, block: BlockIndex) -> Option<Buffer> {
        self.order.as_mut()?.held.remove(&block.0)
    }

    /// Goes on where another session's blocks were. The buffers of `known` blocks, and of the one that is being
    /// written, stay in use.
    pub(super) fn take_order_from(&mut self, order: Option<Order>, known: &BTreeMap<u32, Digest>) {
        self.order = order;
        if let Some(order) = &mut self.order {
            order.held.retain(|block, _| known.contains_key(block));
            self.buffers = order.held.len() + usize::from(order.windowed && order.writing);
        }
    }

    /// Whether a block that was handed over disagrees with the object of the present session.
    pub(super) fn is_past(&self, block: u32) -> bool {
        self.order.as_ref().is_some_and(|order| block < order.taken())
    }
}
