//! The incoming blocks of the object: the state of each, the bounded pool of buffers, the chaining values.
//!
//! ```text
//!  empty ──symbol──► partial ──enough──► job ──stored──► verified
//!                      │  ▲  ▲            │  └ without its page: waits with its value
//!                      ▼  │  │undecodable │
//!                    spilled └────────────┤
//!                         ▲               ▼ disagrees with its chaining value
//!                         └─ sifted ── suspect
//! ```
//! `resume` has the blocks that may be on the disk already. They are not requested until they are checked.

mod buffers;
mod codings;
mod missing;
mod order;
mod provisional;
mod suspects;
mod vouched;

use super::resume::{CandidateCheck, Candidates};
use crate::fec::{Added, BlockAssembly, Buffer, Memory, OwnMemory};
use crate::layout::Layout;
use crate::limits::{HASHES_PER_PAGE, MAX_BLOCK_BUFFERS};
use crate::protocol::job::ReceiverJob;
use crate::ranges::BitSet;
use crate::units::{BlockIndex, Digest, Esi};
use crate::wire::{BlockEntry, HashPage};
use codings::Codings;
pub(super) use missing::Missing;
use order::Order;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use suspects::Suspects;
use vouched::Vouched;

/// Fewest buffers, whatever their size.
const MIN_BUFFERS: usize = 4;
/// About this many bytes of buffers are used in rotation. Memory that a device has just read is slow to write at
/// first, above all in virtual machines.
const ROTATION_BYTES: usize = 16 << 20;
/// A block has next to nothing while it has at most one symbol for this many of its source symbols.
const NEXT_TO_NOTHING: u32 = 64;
/// After this many disagreements with its chaining value, a block was not damaged on the way.
const MAX_REJECTIONS: u32 = 16;

/// The result of adding a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was stored.
    New,
    /// It is not needed.
    Needless,
    /// It disagrees with its digest, or is a repair symbol of a block that accepts only symbols with digests.
    Forged,
    /// No buffer was free.
    Overrun,
}

/// The result of checking a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockCheck {
    Verified,
    /// Its page has not arrived.
    Waiting,
    /// It disagreed. The wrong part is fetched again.
    Rejected,
    /// It has disagreed too often.
    Hopeless,
}

#[derive(Debug)]
pub(super) struct Blocks {
    layout: Layout,
    /// Blocks that are with a worker, stored or verified. None of their symbols are requested.
    settled: BitSet,
    verified: BitSet,
    /// Blocks in the part file without their page.
    stored: BTreeMap<u32, Digest>,
    partial: BTreeMap<u32, BlockAssembly>,
    /// Partial blocks with a buffer, earliest begun first.
    buffered: VecDeque<u32>,
    /// The last begun of them when a search for one with next to nothing was in vain.
    searched: Option<u32>,
    /// Free buffers, longest unused first.
    free: VecDeque<Buffer>,
    /// Buffers in the pool, in partial blocks and with workers.
    buffers: usize,
    max_buffers: usize,
    /// Buffers to allocate before one is reused.
    rotation: usize,
    spilling: usize,
    pages: BTreeMap<u32, Vec<BlockEntry>>,
    rejections: BTreeMap<u32, u32>,
    verified_bytes: u64,
    received_symbols: u64,
    resume: Candidates,
    /// Bytes of verified blocks that were on the disk already.
    resumed_bytes: u64,
    memory: Arc<dyn Memory>,
    suspects: Suspects,
    /// Whether there is no part file yet. Then symbols stay in the buffers.
    provisional: bool,
    /// Of a destination that takes blocks in order.
    order: Option<Order>,
    codings: Codings,
    /// Of a session without feedback.
    vouched: Option<Vouched>,
}

impl Blocks {
    pub fn new(layout: Layout, buffer_bytes: usize) -> Self {
        let count = layout.block_count();
        let size = layout.most_source_symbols() as usize * usize::from(layout.symbol_size());
        let max_buffers = buffer_bytes.checked_div(size).unwrap_or(0).clamp(MIN_BUFFERS, MAX_BLOCK_BUFFERS);
        let mut blocks = Self {
            layout,
            settled: BitSet::new(count),
            verified: BitSet::new(count),
            stored: BTreeMap::new(),
            partial: BTreeMap::new(),
            buffered: VecDeque::new(),
            searched: None,
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
            order: None,
            codings: Codings::default(),
            vouched: None,
        };
        blocks.codings.resize(count);
        blocks
    }

    /// Adds the blocks that may be on the disk already. Blocks with known values count at once if their page has
    /// arrived.
    pub fn resume_from(&mut self, candidates: Candidates) {
        self.resume = candidates;
        self.resume.fit(&self.layout);
        self.judge_held(0..self.layout.block_count());
    }

    /// Checks no candidate from this block on before [`Blocks::release_candidates`].
    pub const fn withhold_candidates(&mut self, from: u32) {
        self.resume.withhold(from);
    }

    /// Checks the withheld candidates too, as far as they are `there`.
    pub fn release_candidates(&mut self, there: &BitSet) {
        self.resume.release(there);
    }

    /// Whether the first `count` blocks are verified.
    pub fn has_first(&self, count: u32) -> bool {
        self.verified.next(0, false).is_none_or(|missing| missing >= count)
    }

    /// Takes the layout of the object after it has grown.
    pub fn grow(&mut self, layout: Layout) {
        self.layout = layout;
        self.settled.resize(layout.block_count());
        self.verified.resize(layout.block_count());
        self.codings.resize(layout.block_count());
        self.resume.fit(&layout);
        if let Some(vouched) = &mut self.vouched {
            vouched.grow(&layout);
        }
    }

    /// Continues with the same part file in another session of the same object and block size. Verified and
    /// stored blocks become candidates with known values. No job may be in progress.
    pub fn carry_over(self, layout: Layout, buffer_bytes: usize) -> Self {
        let mut next = Self::new(layout, buffer_bytes);
        let verified = self.verified.runs(true).flat_map(|(first, count)| first..first + count);
        let verified = verified.filter_map(|block| Some((block, self.expected(BlockIndex(block))?)));
        let mut known = self.stored.clone();
        known.extend(verified);
        known.retain(|&block, _| !self.is_kept_nowhere(block));
        next.take_order_from(self.order, &known);
        next.resume = self.resume.carry_over(known);
        next.resume.fit(&layout);
        next.resumed_bytes = self.resumed_bytes;
        let received = self.received_symbols * u64::from(self.layout.symbol_size());
        next.received_symbols = received / u64::from(layout.symbol_size());
        next.memory = self.memory;
        next.suspects.forged = self.suspects.forged;
        next.vouched = self.vouched.map(|vouched| vouched.anew(&layout));
        next
    }

    /// Whether the device may hold some of the object. Then the sender need not stream all of it.
    pub const fn has_any(&self) -> bool {
        self.resume.count() > 0 || self.verified.count() > 0
    }
    /// Candidates that are not checked yet.
    pub const fn candidates(&self) -> u32 {
        self.resume.count()
    }
    /// Bytes in the part file that the next run would probably not need to fetch.
    pub fn worth_keeping(&self) -> u64 {
        let unjudged = u64::from(self.resume.count_in_part()) << self.layout.block_log2();
        let worth = self.verified_bytes + unjudged;
        // An earlier run may have known more of an object that still grows.
        self.layout.extent().total().map_or(worth, |size| worth.min(size))
    }
    /// Bytes of verified blocks that were on the disk already.
    pub const fn resumed_bytes(&self) -> u64 {
        self.resumed_bytes
    }

    /// From now on, buffers are prepared by `memory`.
    pub fn take_memory_from(&mut self, memory: Arc<dyn Memory>) {
        self.memory = memory;
    }

    /// The number of buffers.
    pub const fn buffer_count(&self) -> usize {
        self.max_buffers
    }
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }
    pub const fn verified(&self) -> u32 {
        self.verified.count()
    }
    /// The blocks below this are verified.
    pub fn verified_below(&self) -> u32 {
        self.verified.next(0, false).unwrap_or(self.verified.capacity())
    }
    pub const fn verified_bytes(&self) -> u64 {
        self.verified_bytes
    }
    pub fn received_bytes(&self) -> u64 {
        (self.carried_bytes() + self.codings.zero_bytes()).min(self.layout.object_size())
    }
    /// Bytes received of blocks that are not zeros.
    pub fn carried_bytes(&self) -> u64 {
        let bytes = self.received_symbols * u64::from(self.layout.symbol_size());
        let verified = self.verified_bytes.saturating_sub(self.resumed_bytes + self.codings.zero_bytes());
        bytes.min(self.layout.object_size()).max(verified)
    }
    /// Whether the object is whole.
    pub const fn all_verified(&self) -> bool {
        self.layout.is_sealed() && self.verified.is_full()
    }
    /// Bytes of block buffers at present, those with workers included.
    pub fn buffered_bytes(&self) -> usize {
        let size = self.layout.most_source_symbols() as usize;
        self.buffers * size * usize::from(self.layout.symbol_size())
    }

    /// The root hash of the chaining values, once all pages of the whole object have arrived.
    pub fn root(&self) -> Option<Digest> {
        let values: Vec<Digest> = self.pages.values().flatten().map(|entry| entry.value).collect();
        let all = self.layout.is_sealed() && values.len() == self.layout.block_count() as usize;
        all.then(|| crate::crypto::digest::root(&values))
    }

    /// Adds a symbol of valid length. Returns a job if the symbol completed its block, or if a block must be spilled.
    pub fn add(&mut self, block: BlockIndex, id: Esi, payload: &[u8]) -> (Taken, Option<ReceiverJob>) {
        if self.settled.contains(block.0) || self.is_out_of_turn(block.0) {
            return (Taken::Needless, None);
        }
        if !self.suspects.admits(block, id, payload) || !self.is_vouched_for(block, id, payload) {
            return (Taken::Forged, None);
        }
        let begun = self.partial.get(&block.0);
        if self.provisional && begun.is_some_and(|assembly| assembly.deficit() == 0) {
            return (Taken::Needless, None);
        }
        if !begun.is_some_and(BlockAssembly::has_buffer) {
            let free = self.take_buffer();
            let Some(buffer) = free.or_else(|| self.forget_least().then(|| self.take_buffer())?) else {
                return (Taken::Overrun, self.spill_oldest());
            };
            let layout = &self.layout;
            let buffer = self.memory.prepare(buffer, layout.block_offset(block), layout.symbol_size());
            let begun = self.partial.remove(&block.0).unwrap_or_else(|| self.begin(block));
            let assembly = self.partial.entry(block.0).or_insert(begun);
            assembly.attach(buffer);
            self.buffered.push_back(block.0);
        }
        let Some(assembly) = self.partial.get_mut(&block.0) else { return (Taken::Overrun, None) };
        match assembly.add(id, payload) {
            Added::New => self.received_symbols += 1,
            // A source symbol that replaces a spilled repair symbol may have been the last one missing.
            Added::Duplicate if assembly.deficit() == 0 => {}
            Added::Duplicate => return (Taken::Needless, None),
            // The coded block has no such symbol.
            Added::NoRoom if id.0 < self.layout.source_symbols(block) => return (Taken::Needless, None),
            Added::NoRoom => return (Taken::Overrun, None),
        }
        if self.provisional {
            return (Taken::New, None);
        }
        if assembly.deficit() == 0 {
            return (Taken::New, self.store(block));
        }
        let short = self.is_short_of_buffers() && !self.forget_least();
        (Taken::New, if short { self.spill_oldest() } else { None })
    }

    fn store(&mut self, block: BlockIndex) -> Option<ReceiverJob> {
        let assembly = self.partial.remove(&block.0)?;
        self.buffered.retain(|&b| b != block.0);
        self.settled.insert(block.0);
        self.resume.give_up(block.0);
        // While a worker reads a block, its place in the file stays unchanged.
        let keep = !self.resume.is_checking(block.0) && self.vouched.is_none();
        let (expected, pressed) = (self.expected(block), self.is_pressed());
        Some(ReceiverJob::Store { assembly, expected, keep, pressed })
    }

    /// Whether buffers are scarce.
    fn is_pressed(&self) -> bool {
        self.free_buffers() < self.max_buffers / 2
    }

    /// The job for the next candidate, if one is due.
    pub fn next_check(&mut self) -> Option<ReceiverJob> {
        let pressed = self.is_pressed();
        while let Some((block, in_part)) = self.resume.next_check(pressed) {
            match self.expected(block).filter(|_| !self.verified.contains(block.0)) {
                Some(expected) => {
                    return Some(ReceiverJob::Check { block, layout: self.layout, expected, in_part });
                }
                None => self.resume.needless(block),
            }
        }
        None
    }

    /// Takes the result of checking a candidate.
    pub fn checked(&mut self, block: BlockIndex, agrees: bool) {
        self.resume.checked(block, agrees);
        if agrees && self.verify(block) {
            self.resumed_bytes += self.layout.block_len(block) as u64;
        }
    }

    /// Marks a block as verified in the part file. Returns whether it was not verified before.
    fn verify(&mut self, block: BlockIndex) -> bool {
        self.settled.insert(block.0);
        self.rejections.remove(&block.0);
        self.suspects.clear(block.0);
        self.codings.is_no_more_waiting(block.0);
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

    /// Compares the candidates among blocks whose values have arrived. Returns those that were written already, and
    /// disagree.
    fn judge_held(&mut self, blocks: Range<u32>) -> Vec<(BlockIndex, BlockCheck)> {
        let mut hopeless = Vec::new();
        for block in blocks {
            let Some(expected) = self.expected(BlockIndex(block)) else { continue };
            match self.resume.expect(block, expected) {
                CandidateCheck::NotYet => {}
                CandidateCheck::Agrees => drop(self.verify(BlockIndex(block))),
                CandidateCheck::Disagrees if self.is_past(block) => {
                    hopeless.push((BlockIndex(block), BlockCheck::Hopeless));
                }
                CandidateCheck::Disagrees => self.drop_held(block),
            }
        }
        hopeless
    }

    /// Takes back a block whose symbols were not enough to decode it.
    pub fn undecodable(&mut self, mut assembly: BlockAssembly) {
        if self.verified.contains(assembly.block().0) {
            self.free.push_back(assembly.take_buffer());
            return;
        }
        self.put_back(assembly);
    }

    /// Takes a block that was stored in the part file.
    pub fn stored(&mut self, block: BlockIndex, value: Digest, buffer: Buffer) -> BlockCheck {
        self.keep_or_free(block, buffer);
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
            return self.reject(block, Some(BitSet::default()));
        }
        self.verify(block);
        BlockCheck::Verified
    }

    /// Takes a block that disagreed with its value. `kept` has its received symbols, if it is in the part file.
    pub fn mismatched(&mut self, block: BlockIndex, buffer: Buffer, kept: Option<BitSet>) -> BlockCheck {
        if kept.is_some() {
            self.keep_or_free(block, buffer);
        } else {
            self.free.push_back(buffer);
        }
        self.reject(block, kept)
    }

    fn reject(&mut self, block: BlockIndex, kept: Option<BitSet>) -> BlockCheck {
        if self.verified.contains(block.0) {
            // The block was already on the disk.
            return BlockCheck::Verified;
        }
        let k = self.coded(block).k;
        if k == 0 {
            return self.zero_after_all(block);
        }
        let (kept, hopeless) = self.begin_anew(block, kept);
        match kept {
            // No symbol is added or requested until the wrong symbols are known.
            Some(mut received) => {
                received.resize(k);
                self.suspects.suspect(block.0, received);
            }
            None => {
                self.settled.remove(block.0);
            }
        }
        self.received_symbols = self.received_symbols.saturating_sub(k.into());
        let rejections = self.rejections.entry(block.0).or_insert(0);
        *rejections += 1;
        if *rejections < MAX_REJECTIONS && !hopeless { BlockCheck::Rejected } else { BlockCheck::Hopeless }
    }

    /// Adds a page. Ignores values that have arrived before. Returns the results of the blocks that waited for it.
    ///
    /// The last page of an object that grows, or did, may come with its first blocks only. The values of blocks that are
    /// not known yet are told again once they are.
    pub fn add_page(&mut self, page: HashPage) -> Vec<(BlockIndex, BlockCheck)> {
        let (first, index) = (page.first.0, page.first.0 / HASHES_PER_PAGE);
        let known = self.layout.block_count().saturating_sub(first).min(HASHES_PER_PAGE) as usize;
        if page.blocks.len() > known && self.layout.is_sealed() {
            return Vec::new();
        }
        let told = &page.blocks[..page.blocks.len().min(known)];
        let held = self.pages.get(&index).map_or(0, Vec::len);
        if told.len() <= held || !self.fit(first, told) {
            return Vec::new();
        }
        self.pages.entry(index).or_default().extend(&told[held..]);
        let new = first + held as u32..first + told.len() as u32;
        let waiting: Vec<(u32, Digest)> =
            self.stored.range(new.clone()).map(|(&block, &value)| (block, value)).collect();
        let checked = waiting.into_iter().filter_map(|(block, value)| {
            self.stored.remove(&block);
            let expected = self.expected(BlockIndex(block))?;
            Some((BlockIndex(block), self.compare(BlockIndex(block), value, expected)))
        });
        let mut checked: Vec<_> = checked.collect();
        checked.extend(self.judge_held(new.clone()));
        self.take_codings(new);
        checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fec::PlanCache;
    use crate::limits::{MAX_JOBS, MAX_WINDOW_BYTES, RECEIVER_BUFFER_BYTES};

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
    fn forged_symbols_of_far_blocks_do_not_move_others_out_of_their_buffers() {
        let layout = Layout::new(1 << 30, 20, 1024).unwrap();
        let mut blocks = Blocks::new(layout, RECEIVER_BUFFER_BYTES);
        let symbol = [7; 1024];
        // Eight blocks wait for repairs, and one is arriving.
        let mut begun = |block, ids: std::ops::Range<u32>| {
            ids.filter_map(|id| blocks.add(BlockIndex(block), Esi(id), &symbol).1).count()
        };
        let mut jobs: usize = (0..8).map(|block| begun(block, 0..900)).sum();
        for n in 0..1_000 {
            // Ten forgeries for each symbol of the arriving block.
            jobs += (0..10).map(|i| begun(100 + (n * 10 + i) % 900, 1000..1001)).sum::<usize>();
            jobs += begun(8, n..n + 1);
        }
        assert_eq!(jobs, 0, "blocks were moved to the part file");
        for block in 0..8 {
            let deficit = blocks.partial[&block].deficit();
            assert!(deficit <= 124 && blocks.partial[&block].has_buffer(), "block {block} lacks {deficit}");
        }
        assert!(blocks.partial[&8].deficit() <= 24, "{}", blocks.partial[&8].deficit());
    }

    #[test]
    fn two_windows_of_a_session_without_feedback_fit_the_buffers() {
        let layout = Layout::new(1 << 30, 20, 1024).unwrap();
        let mut blocks = Blocks::new(layout, RECEIVER_BUFFER_BYTES);
        let (symbol, window) = ([7; 1024], (MAX_WINDOW_BYTES >> 20) as u32);
        // Each block of the first window lacks a symbol, and waits for its repair symbols while the second one arrives.
        for first in [0, window] {
            for id in 1..layout.most_source_symbols() {
                for block in first..first + window {
                    let (taken, job) = blocks.add(BlockIndex(block), Esi(id), &symbol);
                    assert!(
                        matches!(taken, Taken::New) && job.is_none(),
                        "{block}, {id}: {taken:?}, {job:?}"
                    );
                }
            }
        }
        assert!(blocks.partial.len() as u32 == 2 * window);
        assert!(blocks.partial.values().all(|assembly| assembly.deficit() == 1 && assembly.has_buffer()));
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
