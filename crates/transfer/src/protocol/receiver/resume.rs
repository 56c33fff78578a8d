//! *Candidates*: blocks that the device may hold already, from an interrupted run or in an earlier version of the
//! object. None is trusted. Each is read and hashed (or its value is known from an earlier session), and counts only
//! if it has the chaining value that the sender gives.
//!
//! ```text
//!  candidate ──its page arrives──► ready ──job──► checking ──agrees──► verified
//!      │ its place is overwritten     │                  │ disagrees
//!      └──────────────► lacking ◄─────┴──────────────────┘
//! ```
//! If many candidates in a row disagree, the rest is probably of something else: then one block of each page is read,
//! until one agrees. So a large disk is not read in vain.
//!
//! The device does not request a candidate, but accepts its symbols if they arrive: whichever is complete first
//! counts.

use crate::layout::Layout;
use crate::limits::{HASHES_PER_PAGE, MAX_BLOCKS};
use crate::ranges::BitSet;
use crate::units::{BlockIndex, Digest};
use std::collections::{BTreeMap, BTreeSet};

/// Most checks at a time, each with a block in memory; and most while block buffers are scarce.
const CHECKS: usize = 4;
const CHECKS_WHEN_PRESSED: usize = 1;
/// After so many candidates in a row that disagree, one of each page is checked.
const IN_VAIN: u32 = 64;

/// The candidates of a session. Of an object that grows, an earlier run may have had blocks that are not announced yet.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Candidates that are not checked yet.
    candidates: BitSet,
    /// Blocks of which the part file had something when it was opened.
    in_part: BitSet,
    /// Candidates whose expected value is known.
    ready: BTreeSet<u32>,
    checking: BTreeSet<u32>,
    /// Values of candidates that need not be read.
    known: BTreeMap<u32, Digest>,
    /// How many of the last checks in a row disagreed.
    in_vain: u32,
    /// From this block on, nothing is checked yet.
    withheld_from: Option<u32>,
}

/// The result of comparing a candidate with its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CandidateCheck {
    /// It is no candidate, or has to be read.
    NotYet,
    /// It agrees.
    Agrees,
    /// It disagrees.
    Disagrees,
}

impl Candidates {
    /// The candidates of a part file with something of the blocks `in_part`, and of an earlier version that
    /// has the first `earlier` blocks.
    pub fn new(mut in_part: BitSet, earlier: u32) -> Self {
        in_part.resize(in_part.capacity().max(earlier).min(MAX_BLOCKS));
        let mut candidates = in_part.clone();
        candidates.insert_range(0..earlier);
        Self { candidates, in_part, ..Self::default() }
    }

    /// Makes room for the blocks of the object, and drops candidates that it cannot have.
    pub fn fit(&mut self, layout: &Layout) {
        let (count, room) = (layout.block_count(), self.candidates.capacity());
        let room = if layout.is_sealed() { count } else { count.max(room) };
        self.candidates.resize(room);
        self.in_part.resize(room);
        self.ready.split_off(&room);
        self.known.split_off(&room);
    }

    /// The candidates for another session of the same object: those not checked yet, and the blocks of the
    /// part file with known values. No check may be in progress.
    pub fn carry_over(mut self, known: BTreeMap<u32, Digest>) -> Self {
        debug_assert!(self.checking.is_empty());
        let room = known.last_key_value().map_or(0, |(&block, _)| block + 1);
        self.candidates.resize(room.max(self.candidates.capacity()));
        self.in_part.resize(self.candidates.capacity());
        for &block in known.keys() {
            self.candidates.insert(block);
            self.in_part.insert(block);
        }
        self.ready.clear();
        self.known = known;
        self
    }

    /// Checks nothing from this block on before [`Candidates::release`].
    pub const fn withhold(&mut self, from: u32) {
        self.withheld_from = Some(from);
    }

    /// Checks the withheld candidates too, and gives up those that are not `there`.
    pub fn release(&mut self, there: &BitSet) {
        let Some(from) = self.withheld_from.take() else { return };
        let withheld = self.candidates.runs(true).flat_map(|(first, count)| first..first + count);
        let gone: Vec<u32> = withheld.filter(|&block| block >= from && !there.contains(block)).collect();
        gone.into_iter().for_each(|block| self.give_up(block));
    }

    /// Candidates that are not checked yet.
    pub const fn count(&self) -> u32 {
        self.candidates.count()
    }
    /// Candidates that may be in the part file.
    pub fn count_in_part(&self) -> u32 {
        let blocks = self.candidates.runs(true).flat_map(|(first, count)| first..first + count);
        blocks.filter(|&block| self.in_part.contains(block)).count() as u32
    }
    /// Whether the block is a candidate that is not checked yet.
    pub fn contains(&self, block: u32) -> bool {
        self.candidates.contains(block)
    }
    /// The next block from `from` on that is a candidate (`present`), or that is not.
    pub fn next(&self, from: u32, present: bool) -> Option<u32> {
        self.candidates.next(from, present)
    }
    /// Whether a worker is reading the block. Its place in the part file must stay unchanged.
    pub fn is_checking(&self, block: u32) -> bool {
        self.checking.contains(&block)
    }

    /// Takes the expected value of a block.
    pub fn expect(&mut self, block: u32, expected: Digest) -> CandidateCheck {
        if !self.candidates.contains(block) {
            return CandidateCheck::NotYet;
        }
        match self.known.remove(&block) {
            None => {
                self.ready.insert(block);
                CandidateCheck::NotYet
            }
            Some(value) => {
                self.candidates.remove(block);
                if value == expected { CandidateCheck::Agrees } else { CandidateCheck::Disagrees }
            }
        }
    }

    /// Removes a candidate because its place is overwritten. A candidate that a worker is reading stays.
    pub fn give_up(&mut self, block: u32) {
        if !self.is_checking(block) && self.candidates.remove(block) {
            self.ready.remove(&block);
            self.known.remove(&block);
        }
    }

    /// The next candidate to read, and whether the part file may have it. Gives up those that are not worth reading.
    pub fn next_check(&mut self, pressed: bool) -> Option<(BlockIndex, bool)> {
        if self.checking.len() >= if pressed { CHECKS_WHEN_PRESSED } else { CHECKS } {
            return None;
        }
        let withheld_from = self.withheld_from;
        let may_check = |block: &u32| withheld_from.is_none_or(|from| *block < from);
        while self.ready.first().is_some_and(may_check)
            && let Some(block) = self.ready.pop_first()
        {
            if self.in_vain < IN_VAIN || is_sample(block) {
                self.checking.insert(block);
                return Some((BlockIndex(block), self.in_part.contains(block)));
            }
            self.candidates.remove(block);
        }
        None
    }

    /// Ends a check.
    pub fn checked(&mut self, block: BlockIndex, agrees: bool) {
        self.in_vain = if agrees { 0 } else { self.in_vain.saturating_add(1) };
        self.needless(block);
    }

    /// Ends a check that was not made.
    pub fn needless(&mut self, block: BlockIndex) {
        self.checking.remove(&block.0);
        self.candidates.remove(block.0);
    }
}

/// Whether a block is the one of its page that is checked if nothing else is. Its place changes from page to page, so
/// that it does not always meet the same structure of a file system.
const fn is_sample(block: u32) -> bool {
    let page = block / HASHES_PER_PAGE;
    block % HASHES_PER_PAGE == (page.wrapping_mul(0x9e37_79b1) >> 16) % HASHES_PER_PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(blocks: &[u32]) -> BitSet {
        let mut set = BitSet::new(100);
        blocks.iter().for_each(|&block| {
            set.insert(block);
        });
        set
    }

    #[test]
    fn candidates_are_checked_when_their_value_is_known_a_few_at_a_time() {
        let mut candidates = Candidates::new(set(&[1, 50]), 40);
        assert_eq!((candidates.count(), candidates.count_in_part()), (41, 2));
        assert_eq!(candidates.next_check(false), None);
        (0..100)
            .for_each(|block| assert_eq!(candidates.expect(block, Digest([0; 32])), CandidateCheck::NotYet));
        let started: Vec<_> = std::iter::from_fn(|| candidates.next_check(false)).collect();
        assert_eq!(started.len(), CHECKS);
        assert_eq!(started[..2], [(BlockIndex(0), false), (BlockIndex(1), true)]);
        candidates.checked(BlockIndex(0), true);
        assert_eq!(candidates.next_check(true), None);
        // What a worker is reading stays its business.
        candidates.give_up(1);
        candidates.give_up(50);
        assert!(
            candidates.is_checking(1)
                && candidates.contains(1)
                && !candidates.contains(50)
                && !candidates.contains(0)
        );
        (1..4).for_each(|block| candidates.checked(BlockIndex(block), false));
        let rest = std::iter::from_fn(|| {
            let next = candidates.next_check(true)?;
            candidates.checked(next.0, false);
            Some(next)
        });
        assert_eq!(rest.collect::<Vec<_>>().len(), 36);
        assert_eq!(candidates.count(), 0);
    }

    #[test]
    fn what_is_withheld_is_checked_when_it_is_released_if_it_is_there() {
        let mut candidates = Candidates::new(set(&[0, 1, 2, 3, 40, 41]), 0);
        candidates.withhold(2);
        (0..100).for_each(|block| {
            candidates.expect(block, Digest([0; 32]));
        });
        let next = |candidates: &mut Candidates| candidates.next_check(false).map(|(block, _)| block.0);
        assert_eq!(
            [next(&mut candidates), next(&mut candidates), next(&mut candidates)],
            [Some(0), Some(1), None]
        );
        candidates.checked(BlockIndex(0), true);
        candidates.checked(BlockIndex(1), true);
        assert_eq!((next(&mut candidates), candidates.count()), (None, 4));
        candidates.release(&set(&[0, 3, 41]));
        assert_eq!(candidates.count(), 2);
        assert_eq!(
            [next(&mut candidates), next(&mut candidates), next(&mut candidates)],
            [Some(3), Some(41), None]
        );
    }

    #[test]
    fn a_disk_of_something_else_is_not_read_as_a_whole() {
        const COUNT: u32 = 4096;
        let mut set = BitSet::new(COUNT);
        (0..COUNT).for_each(|block| {
            set.insert(block);
        });
        // Reads all; the blocks from `from` up to `to` agree.
        let play = |from: u32, to: u32| {
            let mut candidates = Candidates::new(set.clone(), 0);
            (0..COUNT).for_each(|block| {
                candidates.expect(block, Digest([0; 32]));
            });
            let (mut read, mut found) = (0, 0);
            while let Some((block, _)) = candidates.next_check(false) {
                let agrees = (from..to).contains(&block.0);
                (read, found) = (read + 1, found + u32::from(agrees));
                candidates.checked(block, agrees);
            }
            assert_eq!(candidates.count(), 0);
            (read, found)
        };
        let (read, found) = play(0, 0);
        assert!(found == 0 && read < IN_VAIN + COUNT / HASHES_PER_PAGE + 4, "{read}");
        // What an interrupted run has left, and a part in the middle that is the same.
        let (read, found) = play(0, 1000);
        assert!(found == 1000 && read < 1000 + IN_VAIN + COUNT / HASHES_PER_PAGE, "{read}");
        let (_, found) = play(2000, 3000);
        assert!(found > 1000 - 2 * HASHES_PER_PAGE, "{found}");
        assert_eq!(play(0, COUNT), (COUNT, COUNT));
    }

    #[test]
    fn what_is_known_of_a_session_before_is_not_read_again() {
        let candidates = Candidates::new(set(&[3]), 0);
        let known = [(1, Digest([1; 32])), (2, Digest([2; 32]))];
        let mut candidates = candidates.carry_over(known.into_iter().collect());
        assert_eq!(candidates.count(), 3);
        assert_eq!(candidates.expect(1, Digest([1; 32])), CandidateCheck::Agrees);
        assert_eq!(candidates.expect(2, Digest([9; 32])), CandidateCheck::Disagrees);
        assert_eq!(candidates.expect(3, Digest([3; 32])), CandidateCheck::NotYet);
        assert_eq!(candidates.next_check(false), Some((BlockIndex(3), true)));
    }
}
