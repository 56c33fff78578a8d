//! The blocks of the object on their way in: which are empty, partial, with a worker, stored,
//! verified; the bounded pool of buffers; the chaining values.
//!
//! ```text
//!  empty ──symbol──► partial ──enough──► job ──stored──► verified
//!    ▲                 │  ▲               │  └ its page has not come: waits with its value
//!    │                 ▼  │ undecodable   │
//!    │              spilled ◄─────────────┤
//!    └──────── disagrees with its chaining value
//! ```

use crate::fec::{Added, BlockAssembly, Buffer, Likely};
use crate::layout::Layout;
use crate::limits::{HASHES_PER_PAGE, MAX_BLOCK_BUFFERS};
use crate::protocol::job::ReceiverJob;
use crate::ranges::BitSet;
use crate::units::{BlockIndex, Digest, SymbolId};
use crate::wire::HashPage;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Fewest buffers, whatever their size.
const MIN_BUFFERS: usize = 4;
/// Buffers are used in turn, about so many bytes of them. Memory that a device has just read is
/// slow to write to (in virtual machines above all), and is less so when it has rested.
const ROTATION_BYTES: usize = 16 << 20;
/// A block that disagreed with its chaining value so often is not damage on the way.
const MAX_REJECTIONS: u32 = 16;

/// What became of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is held.
    New,
    /// Not needed (any more).
    Needless,
    /// There was no buffer for it.
    Overrun,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Verified,
    /// Its page has not come.
    Waiting,
    /// It disagreed and is fetched again.
    Rejected,
    /// It disagrees time and again.
    Hopeless,
}

#[derive(Debug)]
pub(super) struct Blocks {
    layout: Layout,
    /// With a worker, stored or verified: nothing is to be asked for.
    settled: BitSet,
    verified: BitSet,
    /// In the part file, their page yet to come.
    stored: BTreeMap<u32, Digest>,
    partial: BTreeMap<u32, BlockAssembly>,
    /// Partial blocks that hold a buffer, the one begun first in front.
    buffered: VecDeque<u32>,
    /// The one that has rested longest in front.
    free: VecDeque<Buffer>,
    /// Buffers in the pool, in partial blocks and with workers.
    buffers: usize,
    max_buffers: usize,
    /// Buffers made before one is used again.
    rotation: usize,
    spilling: usize,
    pages: BTreeMap<u32, Vec<Digest>>,
    rejections: BTreeMap<u32, u32>,
    verified_bytes: u64,
    received_symbols: u64,
    likely: Option<Arc<Likely>>,
}

impl Blocks {
    pub fn new(layout: Layout, buffer_bytes: usize) -> Self {
        let count = layout.block_count();
        let first = BlockIndex(0);
        let size = layout.source_symbols(first) as usize * usize::from(layout.symbol_size());
        let max_buffers = buffer_bytes.checked_div(size).unwrap_or(0).clamp(MIN_BUFFERS, MAX_BLOCK_BUFFERS);
        Self {
            layout,
            settled: BitSet::new(count),
            verified: BitSet::new(count),
            stored: BTreeMap::new(),
            partial: BTreeMap::new(),
            buffered: VecDeque::new(),
            free: VecDeque::new(),
            buffers: 0,
            max_buffers,
            rotation: (ROTATION_BYTES / size.max(1)).min(max_buffers),
            spilling: 0,
            pages: BTreeMap::new(),
            rejections: BTreeMap::new(),
            verified_bytes: 0,
            received_symbols: 0,
            likely: None,
        }
    }

    /// From now on, buffers take no memory for symbols that are as in `likely`.
    pub fn liken(&mut self, likely: Option<Arc<Likely>>) {
        self.likely = likely;
    }

    pub const fn layout(&self) -> &Layout {
        &self.layout
    }
    pub const fn verified(&self) -> u32 {
        self.verified.count()
    }
    pub const fn verified_bytes(&self) -> u64 {
        self.verified_bytes
    }
    pub fn received_bytes(&self) -> u64 {
        let bytes = self.received_symbols * u64::from(self.layout.symbol_size());
        bytes.min(self.layout.object_size()).max(self.verified_bytes)
    }
    pub const fn all_verified(&self) -> bool {
        self.verified.is_full()
    }
    /// Bytes of block buffers held now, those with workers included.
    pub fn buffered_bytes(&self) -> usize {
        let size = self.layout.source_symbols(BlockIndex(0)) as usize;
        self.buffers * size * usize::from(self.layout.symbol_size())
    }

    /// The root hash that the chaining values give, once all pages are there.
    pub fn root(&self) -> Option<Digest> {
        let values: Vec<Digest> = self.pages.values().flatten().copied().collect();
        (values.len() == self.layout.block_count() as usize).then(|| crate::crypto::digest::root(&values))
    }

    /// Takes a symbol in; its length has been checked. The job to be done if it made its block
    /// complete, or if room must be made.
    pub fn add(&mut self, block: BlockIndex, id: SymbolId, payload: &[u8]) -> (Taken, Option<ReceiverJob>) {
        if self.settled.contains(block.0) {
            return (Taken::Needless, None);
        }
        if !self.partial.get(&block.0).is_some_and(BlockAssembly::has_buffer) {
            let Some(buffer) = self.take_buffer() else {
                return (Taken::Overrun, self.spill_oldest());
            };
            let layout = &self.layout;
            let buffer = match &self.likely {
                Some(likely) => {
                    let offset = layout.block_offset(block) as usize;
                    Buffer::liken(Arc::clone(likely), offset, usize::from(layout.symbol_size()))
                }
                None => buffer,
            };
            let assembly = self.partial.entry(block.0).or_insert_with(|| BlockAssembly::new(layout, block));
            assembly.attach(buffer);
            self.buffered.push_back(block.0);
        }
        let Some(assembly) = self.partial.get_mut(&block.0) else { return (Taken::Overrun, None) };
        match assembly.add(id, payload) {
            Added::New => self.received_symbols += 1,
            // A source symbol in place of a spilled repair symbol may be the last one missing.
            Added::Duplicate if assembly.deficit() == 0 => {}
            Added::Duplicate => return (Taken::Needless, None),
            Added::NoRoom => return (Taken::Overrun, None),
        }
        if assembly.deficit() == 0 {
            return (Taken::New, self.store(block));
        }
        (Taken::New, if self.is_short_of_buffers() { self.spill_oldest() } else { None })
    }

    fn store(&mut self, block: BlockIndex) -> Option<ReceiverJob> {
        let assembly = self.partial.remove(&block.0)?;
        self.buffered.retain(|&b| b != block.0);
        self.settled.insert(block.0);
        let pressed = self.free_buffers() < self.max_buffers / 2;
        Some(ReceiverJob::Store { assembly, expected: self.expected(block), pressed })
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        if self.buffers < self.rotation || (self.free.is_empty() && self.buffers < self.max_buffers) {
            self.buffers += 1;
            return Some(Buffer::default());
        }
        self.free.pop_front()
    }

    /// Whether what is free would not last until a spill is done.
    fn is_short_of_buffers(&self) -> bool {
        self.free_buffers() + self.spilling < (self.max_buffers / 8).max(1)
    }

    fn free_buffers(&self) -> usize {
        self.free.len() + (self.max_buffers - self.buffers)
    }

    /// Moves the partial block begun first to the part file.
    fn spill_oldest(&mut self) -> Option<ReceiverJob> {
        if self.spilling >= (self.max_buffers / 4).max(1) {
            return None;
        }
        // The block that is arriving now stays.
        if self.buffered.len() < 2 {
            return None;
        }
        let block = self.buffered.pop_front()?;
        self.spilling += 1;
        // Nothing is taken or asked for until it is back.
        self.settled.insert(block);
        self.partial.remove(&block).map(ReceiverJob::Spill)
    }

    /// A spill is done; the block takes symbols again.
    pub fn spilled(&mut self, assembly: BlockAssembly, buffer: Buffer) {
        self.spilling = self.spilling.saturating_sub(1);
        self.free.push_back(buffer);
        let block = assembly.block().0;
        self.settled.remove(block);
        self.partial.insert(block, assembly);
    }

    /// The symbols of a block did not suffice.
    pub fn undecodable(&mut self, assembly: BlockAssembly) {
        let block = assembly.block().0;
        self.settled.remove(block);
        if assembly.has_buffer() {
            self.buffered.push_back(block);
        }
        self.partial.insert(block, assembly);
    }

    /// A block is in the part file.
    pub fn stored(&mut self, block: BlockIndex, value: Digest, buffer: Buffer) -> Verdict {
        self.free.push_back(buffer);
        match self.expected(block) {
            None => {
                self.stored.insert(block.0, value);
                Verdict::Waiting
            }
            Some(expected) => self.compare(block, value, expected),
        }
    }

    fn compare(&mut self, block: BlockIndex, value: Digest, expected: Digest) -> Verdict {
        if value != expected {
            return self.reject(block);
        }
        if self.verified.insert(block.0) {
            self.verified_bytes += self.layout.block_len(block) as u64;
        }
        self.rejections.remove(&block.0);
        Verdict::Verified
    }

    /// A block disagreed and was not written.
    pub fn mismatched(&mut self, block: BlockIndex, buffer: Buffer) -> Verdict {
        self.free.push_back(buffer);
        self.reject(block)
    }

    fn reject(&mut self, block: BlockIndex) -> Verdict {
        self.settled.remove(block.0);
        let k = u64::from(self.layout.source_symbols(block));
        self.received_symbols = self.received_symbols.saturating_sub(k);
        let rejections = self.rejections.entry(block.0).or_insert(0);
        *rejections += 1;
        if *rejections < MAX_REJECTIONS { Verdict::Rejected } else { Verdict::Hopeless }
    }

    fn expected(&self, block: BlockIndex) -> Option<Digest> {
        let page = self.pages.get(&(block.0 / HASHES_PER_PAGE))?;
        page.get((block.0 % HASHES_PER_PAGE) as usize).copied()
    }

    /// Takes a page in, the first of its kind; what became of the blocks that waited for it.
    pub fn add_page(&mut self, page: HashPage) -> Vec<(BlockIndex, Verdict)> {
        let count = self.layout.block_count();
        let end = page.first.0.saturating_add(HASHES_PER_PAGE).min(count);
        let whole = page.first.0 < count && page.values.len() == (end - page.first.0) as usize;
        let index = page.first.0 / HASHES_PER_PAGE;
        if !whole || self.pages.contains_key(&index) {
            return Vec::new();
        }
        self.pages.insert(index, page.values);
        let waiting: Vec<(u32, Digest)> =
            self.stored.range(page.first.0..end).map(|(&block, &value)| (block, value)).collect();
        let judged = waiting.into_iter().filter_map(|(block, value)| {
            self.stored.remove(&block);
            let expected = self.expected(BlockIndex(block))?;
            Some((BlockIndex(block), self.compare(BlockIndex(block), value, expected)))
        });
        judged.collect()
    }

    /// Missing pages of the blocks below `position`, as `(first, count)`.
    pub fn missing_pages(&self, position: u32) -> Vec<(u32, u32)> {
        let mut missing: Vec<(u32, u32)> = Vec::new();
        let mut next = 0;
        let end = position.min(self.layout.block_count()).div_ceil(HASHES_PER_PAGE);
        for &have in self.pages.keys().take_while(|&&page| page < end).chain([&end]) {
            if next < have {
                missing.push((next, have - next));
            }
            next = have + 1;
        }
        missing
    }

    /// What is missing of the blocks below `position`, lowest first, until `more` says no.
    pub fn each_missing(&self, position: u32, mut more: impl FnMut(Missing<'_>) -> bool) {
        let end = position.min(self.layout.block_count());
        let mut block = 0;
        while let Some(open) = self.settled.next(block, false).filter(|&b| b < end) {
            let next_settled = self.settled.next(open, true).unwrap_or(end).min(end);
            let next_partial = self.partial.range(open..next_settled).next();
            let go_on = match next_partial {
                Some((&at, assembly)) if at == open => {
                    block = open + 1;
                    more(Missing::Symbols(assembly))
                }
                other => {
                    block = other.map_or(next_settled, |(&at, _)| at);
                    more(Missing::Whole { first: open, count: block - open })
                }
            };
            if !go_on {
                return;
            }
        }
    }
}

/// Something missing.
#[derive(Debug)]
pub(super) enum Missing<'a> {
    /// Nothing has come of these blocks.
    Whole { first: u32, count: u32 },
    /// Some of this block has come.
    Symbols(&'a BlockAssembly),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fec::PlanCache;
    use crate::limits::{MAX_JOBS, RECEIVER_BUFFER_BYTES};

    #[test]
    fn a_block_is_stored_when_its_last_source_symbol_replaces_a_spilled_repair_symbol() {
        let layout = Layout::new(2048, 10, 512).unwrap();
        let (plans, symbol) = (PlanCache::default(), [7; 512]);
        let undecodable = |repair| {
            let mut assembly = BlockAssembly::new(&layout, BlockIndex(0));
            assembly.attach(Buffer::default());
            assembly.add(SymbolId(0), &symbol);
            assembly.add(SymbolId(repair), &symbol);
            assembly.complete(&plans).is_err().then_some(assembly)
        };
        let mut assembly = (2..10_000).find_map(undecodable).unwrap();
        let buffer = assembly.mark_spilled();
        let mut blocks = Blocks::new(layout, RECEIVER_BUFFER_BYTES);
        blocks.spilled(assembly, buffer);
        let (_, job) = blocks.add(BlockIndex(0), SymbolId(1), &symbol);
        assert!(matches!(job, Some(ReceiverJob::Store { .. })), "{job:?}");
    }

    #[test]
    fn jobs_are_bounded_however_small_the_blocks() {
        let layout = Layout::new(4 << 20, 10, 1024).unwrap();
        let mut blocks = Blocks::new(layout, RECEIVER_BUFFER_BYTES);
        // No job ever ends.
        let symbol = [7; 1024];
        let jobs = (0..4096).filter_map(|b| blocks.add(BlockIndex(b), SymbolId(0), &symbol).1);
        let jobs: Vec<ReceiverJob> = jobs.collect();
        assert_eq!(jobs.len(), MAX_BLOCK_BUFFERS);
        assert!(jobs.len() < MAX_JOBS);
        assert_eq!(blocks.buffered_bytes(), MAX_BLOCK_BUFFERS << 10);
    }
}
