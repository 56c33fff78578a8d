//! The blocks of the object on their way in: which are empty, partial, with a worker, stored,
//! verified; the bounded pool of buffers; the chaining values.
//!
//! ```text
//!  empty ──symbol──► partial ──enough──► job ──stored──► verified
//!                      │  ▲  ▲            │  └ its page has not come: waits with its value
//!                      ▼  │  │undecodable │
//!                    spilled └────────────┤
//!                         ▲               ▼ disagrees with its chaining value
//!                         └─ sifted ── suspect
//! ```
//! Blocks that the device may hold already are in `resume`: they are not asked for until it is known.

mod missing;
mod provisional;
mod suspects;

use super::resume::{CandidateCheck, Candidates};
use crate::fec::{Added, BlockAssembly, Buffer, Memory, OwnMemory};
use crate::layout::Layout;
use crate::limits::{HASHES_PER_PAGE, MAX_BLOCK_BUFFERS};
use crate::protocol::job::ReceiverJob;
use crate::ranges::BitSet;
use crate::units::{BlockIndex, Digest, Esi};
use crate::wire::{Coding, HashPage};
pub(super) use missing::Missing;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use suspects::Suspects;

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
    /// It disagrees with its digest, or has none where only those that have count.
    Forged,
    /// There was no buffer for it.
    Overrun,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockCheck {
    Verified,
    /// Its page has not come.
    Waiting,
    /// It disagreed: what is wrong in it is fetched again.
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
    resume: Candidates,
    /// Bytes of verified blocks that were here already.
    resumed_bytes: u64,
    memory: Arc<dyn Memory>,
    suspects: Suspects,
    /// There is no part file yet: what arrives stays in the buffers.
    provisional: bool,
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
            resume: Candidates::default(),
            resumed_bytes: 0,
            memory: Arc::new(OwnMemory),
            suspects: Suspects::default(),
            provisional: false,
        }
    }

    /// Blocks that may be here already; of those whose page has come, those that are known for certain
    /// count at once.
    pub fn resume_from(&mut self, candidates: Candidates) {
        self.resume = candidates;
        for page in self.pages.keys().copied().collect::<Vec<_>>() {
            self.judge_held(page);
        }
    }

    /// Goes on with the same part file in another session of the same object and block size: what is
    /// verified or stored is a candidate there whose value is known. No job may be under way.
    pub fn carry_over(self, layout: Layout, buffer_bytes: usize) -> Self {
        let mut next = Self::new(layout, buffer_bytes);
        let verified = self.verified.runs(true).flat_map(|(first, count)| first..first + count);
        let verified = verified.filter_map(|block| Some((block, self.expected(BlockIndex(block))?)));
        let mut known = self.stored.clone();
        known.extend(verified);
        next.resume = self.resume.carry_over(known);
        next.resumed_bytes = self.resumed_bytes;
        let received = self.received_symbols * u64::from(self.layout.symbol_size());
        next.received_symbols = received / u64::from(layout.symbol_size());
        next.memory = self.memory;
        next.suspects.forged = self.suspects.forged;
        next
    }

    /// Whether the device may hold anything: then the sender need not stream all of it.
    pub const fn has_any(&self) -> bool {
        self.resume.count() > 0 || self.verified.count() > 0
    }
    /// Candidates that are not checked yet.
    pub const fn candidates(&self) -> u32 {
        self.resume.count()
    }
    /// Bytes in the part file that the next run would probably not have to fetch.
    pub fn worth_keeping(&self) -> u64 {
        let unjudged = u64::from(self.resume.count_in_part()) << self.layout.block_log2();
        (self.verified_bytes + unjudged).min(self.layout.object_size())
    }
    /// Bytes of verified blocks that were here already.
    pub const fn resumed_bytes(&self) -> u64 {
        self.resumed_bytes
    }

    /// From now on, buffers are prepared by `memory`.
    pub fn take_memory_from(&mut self, memory: Arc<dyn Memory>) {
        self.memory = memory;
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
        bytes.min(self.layout.object_size()).max(self.verified_bytes.saturating_sub(self.resumed_bytes))
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
    pub fn add(&mut self, block: BlockIndex, id: Esi, payload: &[u8]) -> (Taken, Option<ReceiverJob>) {
        if self.settled.contains(block.0) {
            return (Taken::Needless, None);
        }
        if !self.suspects.admits(block, id, payload) {
            return (Taken::Forged, None);
        }
        let begun = self.partial.get(&block.0);
        if self.provisional && begun.is_some_and(|assembly| assembly.deficit() == 0) {
            return (Taken::Needless, None);
        }
        if !begun.is_some_and(BlockAssembly::has_buffer) {
            let Some(buffer) = self.take_buffer() else {
                return (Taken::Overrun, if self.provisional { None } else { self.spill_oldest() });
            };
            let layout = &self.layout;
            let buffer = self.memory.prepare(buffer, layout.block_offset(block), layout.symbol_size());
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
        if self.provisional {
            return (Taken::New, None);
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
        self.resume.give_up(block.0);
        // What a worker is reading stays as it is.
        let keep = !self.resume.is_checking(block.0);
        let (expected, pressed) = (self.expected(block), self.is_pressed());
        Some(ReceiverJob::Store { assembly, expected, keep, pressed })
    }

    /// Whether buffers are scarce.
    fn is_pressed(&self) -> bool {
        self.free_buffers() < self.max_buffers / 2
    }

    /// The next candidate to be looked at, if it is time for one.
    pub fn next_check(&mut self) -> Option<ReceiverJob> {
        let pressed = self.is_pressed();
        while let Some((block, in_part)) = self.resume.next_check(pressed) {
            match self.expected(block).filter(|_| !self.verified.contains(block.0)) {
                Some(expected) => return Some(ReceiverJob::Check { block, expected, in_part }),
                None => self.resume.checked(block),
            }
        }
        None
    }

    /// A candidate was looked at.
    pub fn checked(&mut self, block: BlockIndex, agrees: bool) {
        self.resume.checked(block);
        if agrees && self.verify(block) {
            self.resumed_bytes += self.layout.block_len(block) as u64;
        }
    }

    /// The block is in the part file as it should be, however that came; true if that is new.
    fn verify(&mut self, block: BlockIndex) -> bool {
        self.settled.insert(block.0);
        self.rejections.remove(&block.0);
        self.suspects.clear(block.0);
        if let Some(mut assembly) = self.partial.remove(&block.0)
            && assembly.has_buffer()
        {
            self.buffered.retain(|&b| b != block.0);
            self.free.push_back(assembly.take_buffer());
        }
        let new = self.verified.insert(block.0);
        if new {
            self.verified_bytes += self.layout.block_len(block) as u64;
        }
        new
    }

    /// Judges the candidates of a page that is there now.
    fn judge_held(&mut self, page: u32) {
        let first = page * HASHES_PER_PAGE;
        let values = self.pages.get(&page).cloned().unwrap_or_default();
        for (block, expected) in (first..).zip(values) {
            if self.resume.expect(block, expected) == CandidateCheck::Agrees {
                self.verify(BlockIndex(block));
            }
        }
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
        // The block that is arriving now stays, and so does one whose place in the file is being read.
        let older = self.buffered.len().saturating_sub(1);
        let at = self.buffered.iter().take(older).position(|&block| !self.resume.is_checking(block))?;
        let block = self.buffered.remove(at)?;
        self.resume.give_up(block);
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
    pub fn undecodable(&mut self, mut assembly: BlockAssembly) {
        let block = assembly.block().0;
        if self.verified.contains(block) {
            self.free.push_back(assembly.take_buffer());
            return;
        }
        self.settled.remove(block);
        if assembly.has_buffer() {
            self.buffered.push_back(block);
        }
        self.partial.insert(block, assembly);
    }

    /// A block is in the part file.
    pub fn stored(&mut self, block: BlockIndex, value: Digest, buffer: Buffer) -> BlockCheck {
        self.free.push_back(buffer);
        match self.expected(block) {
            None => {
                self.stored.insert(block.0, value);
                BlockCheck::Waiting
            }
            Some(expected) => self.compare(block, value, expected),
        }
    }

    fn compare(&mut self, block: BlockIndex, value: Digest, expected: Digest) -> BlockCheck {
        if value != expected {
            // Which of its symbols were received is not known any more.
            return self.reject(block, Some(BitSet::new(self.layout.source_symbols(block))));
        }
        self.verify(block);
        BlockCheck::Verified
    }

    /// A block disagreed; `kept` says which of its symbols were received, if it is in the part file.
    pub fn mismatched(&mut self, block: BlockIndex, buffer: Buffer, kept: Option<BitSet>) -> BlockCheck {
        self.free.push_back(buffer);
        self.reject(block, kept)
    }

    fn reject(&mut self, block: BlockIndex, kept: Option<BitSet>) -> BlockCheck {
        if self.verified.contains(block.0) {
            // It was here already.
            return BlockCheck::Verified;
        }
        match kept {
            // Nothing is taken or asked for until it is known which of its symbols are right.
            Some(received) => self.suspects.suspect(block.0, received),
            None => {
                self.settled.remove(block.0);
            }
        }
        let k = u64::from(self.layout.source_symbols(block));
        self.received_symbols = self.received_symbols.saturating_sub(k);
        let rejections = self.rejections.entry(block.0).or_insert(0);
        *rejections += 1;
        if *rejections < MAX_REJECTIONS { BlockCheck::Rejected } else { BlockCheck::Hopeless }
    }

    fn expected(&self, block: BlockIndex) -> Option<Digest> {
        let page = self.pages.get(&(block.0 / HASHES_PER_PAGE))?;
        page.get((block.0 % HASHES_PER_PAGE) as usize).copied()
    }

    /// Takes a page in, the first of its kind; what became of the blocks that waited for it.
    pub fn add_page(&mut self, page: HashPage) -> Vec<(BlockIndex, BlockCheck)> {
        let count = self.layout.block_count();
        let end = page.first.0.saturating_add(HASHES_PER_PAGE).min(count);
        let whole = page.first.0 < count && page.blocks.len() == (end - page.first.0) as usize;
        // Other forms are for those who have the capability.
        let raw = (page.first.0..).zip(&page.blocks).all(|(block, entry)| {
            entry.coding == Coding::Raw
                && u32::from(entry.coded_k) == self.layout.source_symbols(BlockIndex(block))
        });
        let index = page.first.0 / HASHES_PER_PAGE;
        if !whole || !raw || self.pages.contains_key(&index) {
            return Vec::new();
        }
        self.pages.insert(index, page.blocks.iter().map(|entry| entry.value).collect());
        let waiting: Vec<(u32, Digest)> =
            self.stored.range(page.first.0..end).map(|(&block, &value)| (block, value)).collect();
        let checked = waiting.into_iter().filter_map(|(block, value)| {
            self.stored.remove(&block);
            let expected = self.expected(BlockIndex(block))?;
            Some((BlockIndex(block), self.compare(BlockIndex(block), value, expected)))
        });
        let checked = checked.collect();
        self.judge_held(index);
        checked
    }
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
            assembly.add(Esi(0), &symbol);
            assembly.add(Esi(repair), &symbol);
            assembly.complete(&plans).is_err().then_some(assembly)
        };
        let mut assembly = (2..10_000).find_map(undecodable).unwrap();
        let buffer = assembly.mark_spilled();
        let mut blocks = Blocks::new(layout, RECEIVER_BUFFER_BYTES);
        blocks.spilled(assembly, buffer);
        let (_, job) = blocks.add(BlockIndex(0), Esi(1), &symbol);
        assert!(matches!(job, Some(ReceiverJob::Store { .. })), "{job:?}");
    }

    #[test]
    fn jobs_are_bounded_however_small_the_blocks() {
        let layout = Layout::new(4 << 20, 10, 1024).unwrap();
        let mut blocks = Blocks::new(layout, RECEIVER_BUFFER_BYTES);
        // No job ever ends.
        let symbol = [7; 1024];
        let jobs = (0..4096).filter_map(|b| blocks.add(BlockIndex(b), Esi(0), &symbol).1);
        let jobs: Vec<ReceiverJob> = jobs.collect();
        assert_eq!(jobs.len(), MAX_BLOCK_BUFFERS);
        assert!(jobs.len() < MAX_JOBS);
        assert_eq!(blocks.buffered_bytes(), MAX_BLOCK_BUFFERS << 10);
    }
}
