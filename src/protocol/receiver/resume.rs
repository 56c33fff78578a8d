//! *Candidates*: blocks that the device may hold already, from an interrupted run or in an earlier version of the
//! object. None is trusted. Each is read and hashed (or its value is known from an earlier session), and counts only
//! if it has the chaining value that the sender gives.
//!
//! ```text
//!  candidate ──its page arrives──► ready ──job──► checking ──agrees──► verified
//!      │ its place is overwritten     │                  │ disagrees
//!      └──────────────► lacking ◄─────┴──────────────────┘
//! ```
//! The device does not request a candidate, but accepts its symbols if they arrive: whichever is complete first
//! counts.

use crate::ranges::BitSet;
use crate::units::{BlockIndex, Digest};
use std::collections::{BTreeMap, BTreeSet};

/// Checks under way at a time, each with a block in memory; and while block buffers are scarce.
const CHECKS: usize = 4;
const CHECKS_WHEN_PRESSED: usize = 1;

/// The candidates of a session.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Those that are not checked yet.
    candidates: BitSet,
    /// Blocks of which the part file had something when it was opened.
    in_part: BitSet,
    /// Candidates whose expected value is there.
    ready: BTreeSet<u32>,
    checking: BTreeSet<u32>,
    /// What is known of candidates without reading them.
    known: BTreeMap<u32, Digest>,
}

/// What became of a candidate when its page came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CandidateCheck {
    /// It is none, or has to be read.
    NotYet,
    /// It agrees.
    Agrees,
    /// It does not.
    Disagrees,
}

impl Candidates {
    /// The candidates of a part file with something of the blocks `in_part`, and of an earlier version
    /// that has the first `earlier` blocks of `count`.
    pub fn new(in_part: BitSet, earlier: u32, count: u32) -> Self {
        let mut candidates = in_part.clone();
        (0..earlier.min(count)).for_each(|block| {
            candidates.insert(block);
        });
        Self { candidates, in_part, ..Self::default() }
    }

    /// The same for another session of the same object: what is not checked yet, and the values of what
    /// the part file holds for certain. No check may be under way.
    pub fn carry_over(mut self, known: BTreeMap<u32, Digest>) -> Self {
        debug_assert!(self.checking.is_empty());
        for &block in known.keys() {
            self.candidates.insert(block);
            self.in_part.insert(block);
        }
        self.ready.clear();
        self.known = known;
        self
    }

    /// Candidates that are not checked yet.
    pub const fn count(&self) -> u32 {
        self.candidates.count()
    }
    /// Those of them that the part file may have.
    pub fn count_in_part(&self) -> u32 {
        let blocks = self.candidates.runs(true).flat_map(|(first, count)| first..first + count);
        blocks.filter(|&block| self.in_part.contains(block)).count() as u32
    }
    /// Whether the block is a candidate that is not checked yet.
    pub fn contains(&self, block: u32) -> bool {
        self.candidates.contains(block)
    }
    /// The next block from `from` on that is a candidate (`present`), or that is none.
    pub fn next(&self, from: u32, present: bool) -> Option<u32> {
        self.candidates.next(from, present)
    }
    /// Whether a worker is reading it: its place in the part file must stay as it is.
    pub fn is_checking(&self, block: u32) -> bool {
        self.checking.contains(&block)
    }

    /// The value of a block is known now.
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

    /// Something else is written in the block's place: it is no candidate any more. One that a worker is
    /// reading is left to it.
    pub fn give_up(&mut self, block: u32) {
        if !self.is_checking(block) && self.candidates.remove(block) {
            self.ready.remove(&block);
            self.known.remove(&block);
        }
    }

    /// The next candidate to be read, and whether the part file may have it.
    pub fn next_check(&mut self, pressed: bool) -> Option<(BlockIndex, bool)> {
        if self.checking.len() >= if pressed { CHECKS_WHEN_PRESSED } else { CHECKS } {
            return None;
        }
        let block = self.ready.pop_first()?;
        self.checking.insert(block);
        Some((BlockIndex(block), self.in_part.contains(block)))
    }

    /// A check has ended, whatever came of it.
    pub fn checked(&mut self, block: BlockIndex) {
        self.checking.remove(&block.0);
        self.candidates.remove(block.0);
    }
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
        let mut candidates = Candidates::new(set(&[1, 50]), 40, 100);
        assert_eq!((candidates.count(), candidates.count_in_part()), (41, 2));
        assert_eq!(candidates.next_check(false), None);
        (0..100)
            .for_each(|block| assert_eq!(candidates.expect(block, Digest([0; 32])), CandidateCheck::NotYet));
        let started: Vec<_> = std::iter::from_fn(|| candidates.next_check(false)).collect();
        assert_eq!(started.len(), CHECKS);
        assert_eq!(started[..2], [(BlockIndex(0), false), (BlockIndex(1), true)]);
        candidates.checked(BlockIndex(0));
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
        (1..4).for_each(|block| candidates.checked(BlockIndex(block)));
        let rest = std::iter::from_fn(|| {
            let next = candidates.next_check(true)?;
            candidates.checked(next.0);
            Some(next)
        });
        assert_eq!(rest.collect::<Vec<_>>().len(), 36);
        assert_eq!(candidates.count(), 0);
    }

    #[test]
    fn what_is_known_of_a_session_before_is_not_read_again() {
        let candidates = Candidates::new(set(&[3]), 0, 100);
        let known = [(1, Digest([1; 32])), (2, Digest([2; 32]))];
        let mut candidates = candidates.carry_over(known.into_iter().collect());
        assert_eq!(candidates.count(), 3);
        assert_eq!(candidates.expect(1, Digest([1; 32])), CandidateCheck::Agrees);
        assert_eq!(candidates.expect(2, Digest([9; 32])), CandidateCheck::Disagrees);
        assert_eq!(candidates.expect(3, Digest([3; 32])), CandidateCheck::NotYet);
        assert_eq!(candidates.next_check(false), Some((BlockIndex(3), true)));
    }
}
