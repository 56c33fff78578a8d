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

    /// Whether more blocks were handed over than the object has: it is not that of an earlier session.
    pub fn overshoots(&self) -> bool {
        let count = self.layout.block_count();
        self.layout.is_sealed() && self.order.as_ref().is_some_and(|order| order.taken() > count)
    }

    /// The job that writes the next block, if it is verified.
    pub fn next_write(&mut self) -> Option<ReceiverJob> {
        let block = self.order.as_ref().filter(|order| !order.writing)?.written;
        if !self.verified.contains(block) {
            return None;
        }
        let zeros = self.is_zero(block);
        let order = self.order.as_mut()?;
        let buffer = order.held.remove(&block);
        if order.windowed && buffer.is_none() && !zeros {
            return None;
        }
        order.writing = true;
        let zeros = zeros && buffer.is_none();
        Some(ReceiverJob::Write { block: BlockIndex(block), layout: self.layout, buffer, zeros })
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

    /// Whether a block is zeros that wait for their turn: they are kept nowhere, and verified anew in another session.
    pub(super) fn is_kept_nowhere(&self, block: u32) -> bool {
        self.order.as_ref().is_some_and(|order| block >= order.taken()) && self.is_zero(block)
    }

    /// Whether a block that was handed over disagrees with the object of the present session.
    pub(super) fn is_past(&self, block: u32) -> bool {
        self.order.as_ref().is_some_and(|order| block < order.taken())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BlockCheck, Taken};
    use super::*;
    use crate::layout::Layout;
    use crate::limits::HASHES_PER_PAGE;
    use crate::protocol::receiver::resume::Candidates;
    use crate::ranges::BitSet;
    use crate::units::{Esi, Extent};
    use crate::wire::HashPage;

    const BLOCKS: u32 = 12;

    /// Blocks of two symbols, and four buffers.
    fn blocks(intake: Intake) -> Blocks {
        let layout = Layout::new(u64::from(BLOCKS) << 10, 10, 512).unwrap();
        Blocks::new(layout, 4 << 10).for_intake(intake)
    }

    fn value(block: u32) -> Digest {
        Digest([block as u8 + 1; 32])
    }

    fn page(of: impl Fn(u32) -> Digest) -> HashPage {
        HashPage::raw(BlockIndex(0), (0..BLOCKS.min(HASHES_PER_PAGE)).map(|block| (of(block), 2)))
    }

    /// All of a block arrives, and is stored.
    fn arrives(blocks: &mut Blocks, block: u32) -> Taken {
        let (first, _) = blocks.add(BlockIndex(block), Esi(0), &[block as u8; 512]);
        if let (Taken::New, Some(ReceiverJob::Store { assembly, .. })) =
            blocks.add(BlockIndex(block), Esi(1), &[block as u8; 512])
        {
            blocks.stored(BlockIndex(block), value(block), assembly.into_block());
        }
        first
    }

    /// The next write begins and ends.
    fn writes(blocks: &mut Blocks) -> Option<u32> {
        let Some(ReceiverJob::Write { block, buffer, .. }) = blocks.next_write() else { return None };
        assert!(blocks.next_write().is_none(), "one at a time");
        assert!(buffer.iter().all(|buffer| buffer[..1024] == [block.0 as u8; 1024]));
        blocks.written(block, buffer);
        Some(block.0)
    }

    #[test]
    fn blocks_ahead_wait_in_the_window_and_no_further() {
        let mut blocks = blocks(Intake::InOrder);
        for block in [3, 1, 2] {
            assert_eq!(arrives(&mut blocks, block), Taken::New);
        }
        assert_eq!(arrives(&mut blocks, 4), Taken::Needless, "there is no room");
        assert_eq!((blocks.room(), blocks.free_buffers()), (4, 1));
        blocks.add_page(page(value));
        assert_eq!(writes(&mut blocks), None, "the first one is missing");
        arrives(&mut blocks, 0);
        let mut order = Vec::new();
        while let Some(block) = writes(&mut blocks) {
            order.push(block);
        }
        assert_eq!((order, blocks.room(), blocks.free_buffers()), (vec![0, 1, 2, 3], 8, 4));
        for block in [7, 6, 5, 4, 8, 9, 10, 11] {
            arrives(&mut blocks, block);
            while writes(&mut blocks).is_some() {}
        }
        assert!(blocks.all_written() && blocks.all_verified());
        assert!(blocks.buffered_bytes() <= 4 << 10);
    }

    #[test]
    fn nothing_is_written_before_its_page() {
        let mut blocks = blocks(Intake::InOrder);
        arrives(&mut blocks, 0);
        assert_eq!(writes(&mut blocks), None);
        blocks.add_page(page(|block| if block == 0 { value(7) } else { value(block) }));
        assert_eq!((writes(&mut blocks), blocks.verified()), (None, 0), "it disagrees");
    }

    #[test]
    fn a_forged_block_is_mended_in_its_buffer() {
        let mut blocks = blocks(Intake::InOrder);
        blocks.add_page(page(value));
        blocks.add(BlockIndex(0), Esi(0), &[0; 512]);
        let (_, job) = blocks.add(BlockIndex(0), Esi(1), &[9; 512]);
        let Some(ReceiverJob::Store { assembly, .. }) = job else { panic!("{job:?}") };
        let received = assembly.sources().clone();
        let verdict = blocks.mismatched(BlockIndex(0), assembly.into_block(), Some(received));
        assert_eq!(verdict, BlockCheck::Rejected);
        let digests = [[0; 512], [0; 512]].map(|symbol| crate::crypto::digest::symbol_digest(&symbol));
        let digests = digests.to_vec();
        blocks.add_digests(&crate::wire::SymbolDigests { block: BlockIndex(0), first_esi: Esi(0), digests });
        let Some(ReceiverJob::Sift { buffer, .. }) = blocks.next_sift() else { panic!() };
        assert!(buffer.is_some());
        let mut right = BitSet::new(2);
        right.insert(0);
        assert_eq!(blocks.sifted(BlockIndex(0), right, false, buffer), (BlockCheck::Waiting, 1));
        let (_, job) = blocks.add(BlockIndex(0), Esi(1), &[0; 512]);
        let Some(ReceiverJob::Store { assembly, .. }) = job else { panic!("{job:?}") };
        blocks.stored(BlockIndex(0), value(0), assembly.into_block());
        assert_eq!(writes(&mut blocks), Some(0));
        assert_eq!(blocks.free_buffers(), 4);
    }

    #[test]
    fn another_session_goes_on_where_the_pipe_is() {
        for changed in [false, true] {
            let mut old = blocks(Intake::InOrder);
            old.resume_from(Candidates::new(BitSet::new(BLOCKS), 0));
            old.add_page(page(value));
            for block in [0, 1, 3] {
                arrives(&mut old, block);
            }
            assert_eq!((writes(&mut old), writes(&mut old)), (Some(0), Some(1)));
            let layout = *old.layout();
            let mut next = old.carry_over(layout, 4 << 10);
            assert_eq!((next.room(), next.verified(), next.free_buffers()), (6, 0, 3));
            for block in [0, 3] {
                assert_eq!(arrives(&mut next, block), Taken::Needless, "it has {block}");
            }
            let checked =
                next.add_page(page(|block| if changed && block == 1 { value(99) } else { value(block) }));
            let hopeless = [(BlockIndex(1), BlockCheck::Hopeless)];
            assert_eq!(checked, if changed { &hopeless[..] } else { &[] });
            arrives(&mut next, 2);
            assert_eq!((writes(&mut next), writes(&mut next)), (Some(2), Some(3)));
        }
    }

    #[test]
    fn an_object_that_ends_before_what_was_passed_on_is_another() {
        let mut old = blocks(Intake::InOrder);
        old.add_page(page(value));
        for block in [0, 1] {
            arrives(&mut old, block);
        }
        assert_eq!((writes(&mut old), writes(&mut old)), (Some(0), Some(1)));
        let of = |size, sealed| Layout::of(Extent { size, sealed }, 10, 512).unwrap();
        let mut next = old.carry_over(of(0, false), 4 << 10);
        assert!(!next.overshoots() && !next.all_verified(), "it may still grow");
        next.grow(of(1 << 10, true));
        next.add_page(HashPage::raw(BlockIndex(0), [(value(0), 2)]));
        assert!(next.overshoots() && next.all_verified());
    }

    #[test]
    fn with_a_spool_there_is_room_for_all() {
        let mut blocks = blocks(Intake::Spooled);
        blocks.add_page(page(value));
        assert_eq!(arrives(&mut blocks, 11), Taken::New);
        assert_eq!((blocks.room(), writes(&mut blocks)), (u32::MAX, None));
        arrives(&mut blocks, 0);
        assert!(matches!(blocks.next_write(), Some(ReceiverJob::Write { buffer: None, .. })));
    }
}
