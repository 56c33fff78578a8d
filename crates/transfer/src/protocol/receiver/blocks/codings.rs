//! Coded blocks: what their pages say of them, and the jobs that follow.
//!
//! A block whose page has not arrived counts as raw. When the page gives another coding, symbols that were taken for
//! others go, and the block may be complete at once. Of a block of zeros nothing arrives: a worker computes its hash, and
//! makes it a hole. And once the pages say what is not zeros, the space of that is reserved.
//!
//! ```text
//!  page ──zero──► settled, waiting ──job──► verified          (also after a job that was under way)
//!       ├─data──► its space is reserved
//!       └─short, zstd: symbols held are sorted out ──enough──► ready ──► stored
//! ```

use super::{BlockCheck, Blocks};
use crate::fec::BlockAssembly;
use crate::limits::{HASHES_PER_PAGE, MAX_ZERO_JOBS, ZEROS_A_JOB};
use crate::protocol::job::ReceiverJob;
use crate::ranges::BitSet;
use crate::units::{BlockIndex, Coded, Coding, Digest};
use crate::wire::BlockEntry;
use std::collections::VecDeque;
use std::ops::Range;

/// What waits for a job because of a page.
#[derive(Debug, Default)]
pub(super) struct Codings {
    /// Blocks of zeros that are to be verified. Candidates among them are checked first.
    zeros: BitSet,
    /// Jobs with zeros.
    zero_jobs: usize,
    /// Partial blocks that are complete since their page has arrived.
    ready: VecDeque<u32>,
    /// Runs of blocks whose space is to be reserved.
    reserve: VecDeque<Range<u32>>,
    reserving: bool,
    /// Bytes of blocks that were verified as zeros.
    zero_bytes: u64,
    /// The mean number of symbols of the blocks of the latest page that are not zeros, if it has such blocks.
    usual: Option<u32>,
}

impl Codings {
    pub fn resize(&mut self, blocks: u32) {
        self.zeros.resize(blocks);
    }

    pub const fn zero_bytes(&self) -> u64 {
        self.zero_bytes
    }

    /// Notes that a block is verified, or with a worker.
    pub fn is_no_more_waiting(&mut self, block: u32) {
        self.zeros.remove(block);
    }
}

impl Blocks {
    fn entry(&self, block: BlockIndex) -> Option<&BlockEntry> {
        self.pages.get(&(block.0 / HASHES_PER_PAGE))?.get((block.0 % HASHES_PER_PAGE) as usize)
    }

    pub(super) fn expected(&self, block: BlockIndex) -> Option<Digest> {
        self.entry(block).map(|entry| entry.value)
    }

    /// The coding of a block, as far as it is known; raw otherwise.
    pub fn coded(&self, block: BlockIndex) -> Coded {
        let raw = || Coded::raw(self.layout.source_symbols(block));
        self.entry(block).map_or_else(raw, BlockEntry::coded)
    }

    /// The number of symbols that make a block now.
    pub fn usual_symbols(&self) -> u32 {
        self.codings.usual.unwrap_or(self.layout.most_source_symbols())
    }

    /// Whether the page of a block says that it is zeros.
    pub(super) fn is_zero(&self, block: u32) -> bool {
        self.entry(BlockIndex(block)).is_some_and(|entry| entry.coding == Coding::Zero)
    }

    /// An assembly for a block of which nothing has arrived.
    pub(super) fn begin(&self, block: BlockIndex) -> BlockAssembly {
        BlockAssembly::coded(&self.layout, block, self.coded(block))
    }

    /// Whether a page fits the layout.
    pub(super) fn fit(&self, first: u32, entries: &[BlockEntry]) -> bool {
        (first..)
            .zip(entries)
            .all(|(block, entry)| entry.coded().fits(self.layout.source_symbols(BlockIndex(block))))
    }

    /// Takes the codings of blocks whose page has arrived, and whose values have been compared with what was held.
    pub(super) fn take_codings(&mut self, blocks: Range<u32>) {
        for block in blocks.clone() {
            match self.coded(BlockIndex(block)).coding {
                Coding::Raw => {}
                Coding::Zero => self.take_zeros(block),
                Coding::Short | Coding::Zstd => self.sort_out(block),
            }
        }
        let sizes = blocks.clone().map(|block| self.coded(BlockIndex(block)).k).filter(|&k| k > 0);
        let (count, sum) = sizes.fold((0_u32, 0_u32), |(count, sum), k| (count + 1, sum + k));
        self.codings.usual = sum.checked_div(count).or(self.codings.usual);
        let mut at = blocks.start;
        while at < blocks.end {
            let zero = self.is_zero(at);
            let end = (at..blocks.end).find(|&block| self.is_zero(block) != zero).unwrap_or(blocks.end);
            if !zero && !self.is_windowed() {
                match self.codings.reserve.back_mut().filter(|last| last.end == at) {
                    Some(last) => last.end = end,
                    None => self.codings.reserve.push_back(at..end),
                }
            }
            at = end;
        }
    }

    /// Drops what has arrived of a block of zeros, and lets it wait for a worker. What is with a worker waits for that.
    fn take_zeros(&mut self, block: u32) {
        let with_worker = self.settled.contains(block);
        self.settled.insert(block);
        self.drop_partial(block);
        if !with_worker {
            self.codings.zeros.insert(block);
        }
    }

    fn drop_partial(&mut self, block: u32) {
        if let Some(mut assembly) = self.partial.remove(&block) {
            self.received_symbols = self.received_symbols.saturating_sub(assembly.held().into());
            if assembly.has_buffer() {
                self.buffered.retain(|&b| b != block);
                self.free.push_back(assembly.take_buffer());
            }
        }
    }

    /// Takes the coding of a partial block. It may be complete after that.
    fn sort_out(&mut self, block: u32) {
        let coded = self.coded(BlockIndex(block));
        if let Some(assembly) = self.partial.get_mut(&block) {
            let lost = assembly.set_coding(coded);
            self.received_symbols = self.received_symbols.saturating_sub(lost.into());
            if assembly.deficit() == 0 {
                self.codings.ready.push_back(block);
            }
        }
    }

    /// Takes an assembly back from a worker. Meanwhile its page may have arrived.
    pub(super) fn put_back(&mut self, mut assembly: BlockAssembly) {
        let block = assembly.block().0;
        if self.is_zero(block) {
            if assembly.has_buffer() {
                self.free.push_back(assembly.take_buffer());
            }
            if !self.verified.contains(block) {
                self.codings.zeros.insert(block);
            }
            return;
        }
        self.settled.remove(block);
        if assembly.has_buffer() {
            self.buffered.push_back(block);
        }
        let changed = assembly.coding() != self.coded(BlockIndex(block)).coding;
        self.partial.insert(block, assembly);
        if changed {
            self.sort_out(block);
        }
    }

    /// Takes back a block of zeros that was something else while its page was missing.
    pub(super) fn zero_after_all(&mut self, block: BlockIndex) -> BlockCheck {
        self.drop_held(block.0);
        self.settled.insert(block.0);
        self.codings.zeros.insert(block.0);
        BlockCheck::Waiting
    }

    /// The next job that a page has brought about.
    pub fn next_coding_job(&mut self) -> Option<ReceiverJob> {
        if self.provisional {
            return None;
        }
        while let Some(block) = self.codings.ready.pop_front() {
            if self.partial.get(&block).is_some_and(|assembly| assembly.deficit() == 0) {
                return self.store(BlockIndex(block));
            }
        }
        if !self.codings.reserving
            && let Some(Range { start, end }) = self.codings.reserve.pop_front()
        {
            self.codings.reserving = true;
            let first = BlockIndex(start);
            return Some(ReceiverJob::Reserve { first, count: end - start, layout: self.layout });
        }
        self.next_zeros()
    }

    fn next_zeros(&mut self) -> Option<ReceiverJob> {
        let most = if self.is_pressed() { 1 } else { MAX_ZERO_JOBS };
        if self.codings.zero_jobs >= most {
            return None;
        }
        // What may be on the disk already is checked like any other block.
        let mut first = self.codings.zeros.next(0, true)?;
        while self.resume.contains(first) {
            first = self.codings.zeros.next(self.resume.next(first, false)?, true)?;
        }
        let most = (ZEROS_A_JOB >> self.layout.block_log2()).clamp(1, HASHES_PER_PAGE.into()) as u32;
        let is_next = |&block: &u32| self.codings.zeros.contains(block) && !self.resume.contains(block);
        let blocks: Vec<u32> = (first..first.saturating_add(most)).take_while(is_next).collect();
        let values = blocks.iter().map(|&block| self.expected(BlockIndex(block)));
        let values = values.collect::<Option<Vec<Digest>>>()?;
        blocks.into_iter().for_each(|block| self.codings.is_no_more_waiting(block));
        self.codings.zero_jobs += 1;
        Some(ReceiverJob::Zero { first: BlockIndex(first), values, layout: self.layout })
    }

    /// Takes the end of a job with zeros. Returns the block that is none, if there is one.
    pub fn zeroed(&mut self, first: BlockIndex, count: u32, wrong: Option<BlockIndex>) -> Option<BlockIndex> {
        self.codings.zero_jobs = self.codings.zero_jobs.saturating_sub(1);
        if wrong.is_none() {
            for block in first.0..first.0 + count {
                if self.verify(BlockIndex(block)) {
                    self.codings.zero_bytes += self.layout.block_len(BlockIndex(block)) as u64;
                }
            }
        }
        wrong
    }

    /// Takes the end of a reservation.
    pub fn reserved(&mut self) {
        self.codings.reserving = false;
    }
}

#[cfg(test)]
mod tests;
