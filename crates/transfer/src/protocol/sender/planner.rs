//! The repair planner: the cheapest repair of each block for a round of NAK summaries.
//!
//! M is the largest deficit of any device, U the number of distinct missing source symbols. The channel pays for the
//! largest deficit, never the sum (I9). The plan is either to resend the U symbols, if U is not much larger than M (no
//! encoding, no decoding), or M fresh repair symbols, each of which repairs a different loss at every device.

use crate::limits::HASHES_PER_PAGE;
use crate::ranges::BitSet;
use crate::wire::{Deficit, Nak};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Most wholly missing blocks that the planner reads from one NAK summary, whether they count or not. The rest waits
/// for the next round, so that one datagram cannot make the sender plan for millions of blocks.
const MAX_WHOLE: u32 = 1024;
/// Most pages that one NAK summary may request: the pages of [`MAX_WHOLE`] blocks.
const MAX_PAGES: usize = (MAX_WHOLE / HASHES_PER_PAGE) as usize;

/// The needs of a set of devices.
#[derive(Debug, Default)]
pub(super) struct Needs {
    blocks: BTreeMap<u32, Need>,
    pages: BTreeSet<u32>,
}

/// The needs of a set of devices in one block.
#[derive(Debug)]
struct Need {
    /// K: the block's source symbols.
    k: u32,
    /// M: the largest deficit.
    max: u32,
    /// The missing source symbols of all devices, if every device named its own.
    union: Union,
    /// Source symbols that no repair symbol can replace.
    sources: Option<BitSet>,
}

/// The source symbols of a block that any device lacks.
#[derive(Debug)]
enum Union {
    /// None so far.
    Nothing,
    /// All of them. This needs no set, because one summary may name a thousand blocks.
    All,
    /// These.
    Some(BitSet),
    /// Unknown: a device has not named the symbols that it lacks.
    Untold,
}

impl Union {
    /// Adds runs of missing source symbols, in a block of `k`.
    fn add(&mut self, missing: impl Iterator<Item = Range<u32>>, k: u32) {
        if let Self::Nothing = self {
            *self = Self::Some(BitSet::new(k));
        }
        if let Self::Some(set) = self {
            missing.for_each(|ids| set.insert_range(ids));
        }
    }
}

/// A planned repair.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub block: u32,
    pub kind: PlanKind,
}

/// How a block is repaired.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PlanKind {
    /// Resends these source symbols, as `(first, count)` runs.
    Resend(Vec<(u32, u32)>),
    /// This many fresh repair symbols.
    Fresh(u32),
}

impl PlanKind {
    /// The same plan with at most `most` symbols.
    pub fn at_most(self, most: u32) -> Self {
        match self {
            Self::Fresh(count) => Self::Fresh(count.min(most)),
            Self::Resend(runs) => {
                let mut room = most;
                let cut = runs.into_iter().map_while(|(first, count)| {
                    let count = count.min(room);
                    room -= count;
                    (count > 0).then_some((first, count))
                });
                Self::Resend(cut.collect())
            }
        }
    }

    /// The number of symbols.
    pub fn symbols(&self) -> u32 {
        match self {
            Self::Resend(runs) => runs.iter().map(|run| run.1).sum(),
            Self::Fresh(count) => *count,
        }
    }
}

impl Needs {
    /// Adds a device's summary. `symbols_of` returns K of a block below the polled position, or `None` for a block
    /// that does not count. Clamps impossible claims.
    pub fn add(&mut self, nak: &Nak, page_count: u32, symbols_of: impl Fn(u32) -> Option<u32>) {
        let pages = nak
            .pages
            .iter()
            .flat_map(|range| range.first..range.first.saturating_add(range.count).min(page_count));
        self.pages.extend(pages.take(MAX_PAGES));
        let mut whole = MAX_WHOLE;
        for deficit in &nak.deficits {
            match deficit {
                Deficit::Whole { first, count } => {
                    let looked_at = (*count).min(whole);
                    whole -= looked_at;
                    for block in first.0..first.0.saturating_add(looked_at) {
                        if let Some(k) = symbols_of(block) {
                            self.need_all(block, k);
                        }
                    }
                }
                Deficit::Sources { block, missing } => {
                    if let Some(k) = symbols_of(block.0) {
                        let sources = self.entry(block.0, k).sources.get_or_insert_with(|| BitSet::new(k));
                        runs(missing).for_each(|ids| sources.insert_range(ids));
                    }
                }
                Deficit::Symbols { block, symbols, missing } => {
                    if let Some(k) = symbols_of(block.0) {
                        self.need(block.0, k, u32::from(*symbols).min(k), missing);
                    }
                }
            }
        }
    }

    fn entry(&mut self, block: u32, k: u32) -> &mut Need {
        self.blocks.entry(block).or_insert(Need { k, max: 0, union: Union::Nothing, sources: None })
    }

    fn need_all(&mut self, block: u32, k: u32) {
        let need = self.entry(block, k);
        need.max = k;
        if !matches!(need.union, Union::Untold) {
            need.union = Union::All;
        }
    }

    fn need(&mut self, block: u32, k: u32, deficit: u32, missing: &[(u16, u16)]) {
        let need = self.entry(block, k);
        need.max = need.max.max(deficit);
        // Ignores source symbols beyond the block's end: a resend would send nothing for them.
        let missing = runs(missing).map(|ids| ids.start..ids.end.min(k));
        let told: usize = missing.clone().map(|ids| ids.len()).sum();
        if told < deficit as usize {
            need.union = Union::Untold;
        }
        need.union.add(missing, k);
    }

    /// Pages of chaining values to resend.
    pub fn pages(&self) -> impl Iterator<Item = u32> + '_ {
        self.pages.iter().copied()
    }

    /// The largest deficits, by block: the repair advertisements of a poll.
    pub fn maxima(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.blocks.iter().filter(|(_, need)| need.max > 0).map(|(&block, need)| (block, need.max))
    }

    /// The cheapest repair of each block, lowest block first. `loss` is the channel's expected share of lost
    /// datagrams, 0 to 1. Fresh symbols cover the largest deficit after the expected losses, and one more guards
    /// against decoding failure.
    pub fn plan(&self, loss: f64) -> Vec<Plan> {
        let plans = |(&block, need): (&u32, &Need)| {
            need.plan(loss).into_iter().map(move |kind| Plan { block, kind }).collect::<Vec<_>>()
        };
        self.blocks.iter().flat_map(plans).collect()
    }
}

impl Need {
    /// Resends the symbols that no repair symbol can replace, and repairs the other deficits in the cheaper way.
    fn plan(&self, loss: f64) -> Vec<PlanKind> {
        let mut plans = Vec::new();
        let mut again = self.sources.clone();
        match &self.union {
            _ if self.max == 0 => {}
            Union::All => return vec![PlanKind::Resend(vec![(0, self.k)])],
            // U <= 1.5 M, in whole numbers.
            Union::Some(union) if union.count() * 2 <= self.max * 3 => match &mut again {
                Some(again) => again.insert_all(union),
                None => again = Some(union.clone()),
            },
            _ => {
                let expected_loss = (f64::from(self.max) * loss.clamp(0.0, 0.5)).ceil();
                plans.push(PlanKind::Fresh(self.max + expected_loss as u32 + 1));
            }
        }
        if let Some(again) = again.filter(|again| again.count() > 0) {
            plans.insert(0, PlanKind::Resend(again.runs(true).collect()));
        }
        plans
    }
}

/// Runs of source symbols, as a NAK summary names them.
fn runs(missing: &[(u16, u16)]) -> impl Iterator<Item = Range<u32>> + Clone + '_ {
    missing.iter().map(|&(first, count)| u32::from(first)..u32::from(first) + u32::from(count))
}

/// Number of symbols planned for summaries of an object of `blocks` blocks of `k` symbols. For benchmarks.
#[doc(hidden)]
#[must_use]
pub fn planned_symbols(naks: &[Nak], blocks: u32, k: u32) -> u64 {
    let mut needs = Needs::default();
    for nak in naks {
        needs.add(nak, blocks.div_ceil(HASHES_PER_PAGE), |block| (block < blocks).then_some(k));
    }
    needs.plan(0.01).iter().map(|plan| u64::from(plan.kind.symbols())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::BlockIndex;
    use crate::wire::{PacketNumber, PageRange};

    fn nak(deficits: Vec<Deficit>) -> Nak {
        Nak {
            round: 1,
            largest_received: PacketNumber(0),
            ack_delay_us: 0,
            incomplete: 0,
            pages: vec![],
            deficits,
        }
    }
    fn lacks(block: u32, symbols: u16, missing: &[(u16, u16)]) -> Deficit {
        Deficit::Symbols { block: BlockIndex(block), symbols, missing: missing.to_vec() }
    }
    fn plan(naks: &[Nak], loss: f64) -> Vec<Plan> {
        let mut needs = Needs::default();
        for n in naks {
            needs.add(n, 1, |b| (b < 10).then_some(100));
        }
        needs.plan(loss)
    }

    #[test]
    fn one_device_gets_its_own_source_symbols_again() {
        let plans = plan(&[nak(vec![lacks(3, 3, &[(4, 2), (90, 1)])])], 0.01);
        assert_eq!(plans, [Plan { block: 3, kind: PlanKind::Resend(vec![(4, 2), (90, 1)]) }]);
    }

    #[test]
    fn different_losses_are_mended_by_the_maximum_not_the_sum() {
        let plans = plan(
            &[
                nak(vec![lacks(0, 3, &[(0, 3)])]),
                nak(vec![lacks(0, 4, &[(10, 4)])]),
                nak(vec![lacks(0, 2, &[(20, 2)])]),
            ],
            0.0,
        );
        assert_eq!(plans, [Plan { block: 0, kind: PlanKind::Fresh(5) }]);
    }

    #[test]
    fn the_same_loss_everywhere_is_resent_once() {
        let one = nak(vec![lacks(0, 3, &[(7, 3)])]);
        let plans = plan(&[one.clone(), one.clone(), one], 0.5);
        assert_eq!(plans, [Plan { block: 0, kind: PlanKind::Resend(vec![(7, 3)]) }]);
    }

    #[test]
    fn a_device_that_names_no_ids_gets_fresh_symbols_with_room_for_loss() {
        let plans = plan(&[nak(vec![lacks(0, 40, &[])]), nak(vec![lacks(0, 2, &[(0, 2)])])], 0.05);
        assert_eq!(plans, [Plan { block: 0, kind: PlanKind::Fresh(43) }]);
    }

    #[test]
    fn where_only_source_symbols_help_they_are_what_is_sent() {
        let sources =
            |missing: &[(u16, u16)]| Deficit::Sources { block: BlockIndex(2), missing: missing.to_vec() };
        let resend = |runs: &[(u32, u32)]| Plan { block: 2, kind: PlanKind::Resend(runs.to_vec()) };
        let plans = plan(&[nak(vec![sources(&[(0, 30), (98, 9)])]), nak(vec![sources(&[(5, 40)])])], 0.1);
        assert_eq!(plans, [resend(&[(0, 45), (98, 2)])]);
        // Another device lacks symbols of any kind.
        let plans = plan(&[nak(vec![sources(&[(0, 3)])]), nak(vec![lacks(2, 4, &[(10, 4)])])], 0.0);
        assert_eq!(plans, [resend(&[(0, 3), (10, 4)])]);
        let plans = plan(&[nak(vec![lacks(2, 40, &[])]), nak(vec![sources(&[(0, 3)])])], 0.0);
        assert_eq!(plans, [resend(&[(0, 3)]), Plan { block: 2, kind: PlanKind::Fresh(41) }]);
        // The block has no such symbols.
        assert_eq!(plan(&[nak(vec![sources(&[(100, 7)])])], 0.0), []);
        let mut needs = Needs::default();
        needs.add(&nak(vec![sources(&[(0, 3)])]), 1, |_| Some(100));
        assert_eq!(needs.maxima().count(), 0, "a forger's work is not the path's loss");
    }

    #[test]
    fn up_to_half_more_symbols_are_resent_than_the_largest_deficit() {
        let two = |runs: &[(u16, u16)]| nak(vec![lacks(0, 2, runs)]);
        let plans = plan(&[two(&[(0, 2)]), two(&[(1, 2)])], 0.0);
        assert_eq!(plans, [Plan { block: 0, kind: PlanKind::Resend(vec![(0, 3)]) }]);
        let plans = plan(&[two(&[(0, 2)]), two(&[(2, 2)])], 0.0);
        assert_eq!(plans, [Plan { block: 0, kind: PlanKind::Fresh(3) }]);
    }

    /// A round that may send only so much begins with the lowest symbols.
    #[test]
    fn a_plan_is_cut_to_what_may_be_sent() {
        let resend = |runs: &[(u32, u32)]| PlanKind::Resend(runs.to_vec());
        let whole = || resend(&[(0, 3), (10, 4)]);
        for (most, cut) in [
            (0, resend(&[])),
            (2, resend(&[(0, 2)])),
            (3, resend(&[(0, 3)])),
            (5, resend(&[(0, 3), (10, 2)])),
            (7, whole()),
            (9, whole()),
        ] {
            let symbols = whole().at_most(most).symbols();
            assert_eq!((whole().at_most(most), symbols), (cut, most.min(7)), "{most}");
            assert_eq!(PlanKind::Fresh(7).at_most(most), PlanKind::Fresh(most.min(7)));
        }
    }

    #[test]
    fn a_poll_advertises_the_largest_deficit_of_each_block() {
        let mut needs = Needs::default();
        let whole = Deficit::Whole { first: BlockIndex(8), count: 1 };
        for nak in [nak(vec![lacks(3, 4, &[])]), nak(vec![lacks(3, 6, &[]), lacks(5, 1, &[]), whole])] {
            needs.add(&nak, 1, |_| Some(100));
        }
        assert_eq!(needs.maxima().collect::<Vec<_>>(), [(3, 6), (5, 1), (8, 100)]);
    }

    #[test]
    fn source_symbols_that_there_are_not_are_not_named() {
        for missing in [(100, 5), (255, 255), (99, 200)] {
            let plans = plan(&[nak(vec![lacks(0, 5, &[missing])])], 0.0);
            assert_eq!(plans, [Plan { block: 0, kind: PlanKind::Fresh(6) }], "{missing:?}");
        }
    }

    #[test]
    fn one_summary_makes_no_more_than_a_bounded_plan() {
        let whole = |i: u32| Deficit::Whole { first: BlockIndex(i * 5_000), count: 4_000 };
        let mut n = nak((0..100).map(whole).collect());
        n.pages = (0..60).map(|i| PageRange { first: i * 1_000, count: 900 }).collect();
        let mut needs = Needs::default();
        needs.add(&n, u32::MAX, |_| Some(16));
        assert_eq!(needs.plan(0.0).len(), MAX_WHOLE as usize);
        assert_eq!(needs.pages().count(), MAX_PAGES);
        assert_eq!(MAX_PAGES as u32 * HASHES_PER_PAGE, MAX_WHOLE, "the blocks of these pages");
    }

    #[test]
    fn one_summary_looks_at_a_bounded_number_of_blocks_and_marks_no_symbols_of_whole_ones() {
        let whole = |i: u32| Deficit::Whole { first: BlockIndex(i * 5_000), count: 4_000 };
        let n = nak((0..100).map(whole).collect());
        // Blocks that do not count are read too.
        let looked_at = std::cell::Cell::new(0);
        let mut needs = Needs::default();
        needs.add(&n, u32::MAX, |_| {
            looked_at.set(looked_at.get() + 1);
            None
        });
        assert!(looked_at.get() <= MAX_WHOLE, "{} blocks", looked_at.get());
        needs.add(&n, u32::MAX, |_| Some(56_403));
        assert_eq!(needs.blocks.len(), MAX_WHOLE as usize);
        let marked = needs.blocks.values().filter(|need| matches!(need.union, Union::Some(_)));
        assert_eq!(marked.count(), 0);
    }

    #[test]
    fn what_one_lacks_wholly_covers_what_others_name() {
        let whole = nak(vec![Deficit::Whole { first: BlockIndex(3), count: 1 }]);
        let (named, untold) = (nak(vec![lacks(3, 2, &[(7, 2)])]), nak(vec![lacks(3, 40, &[])]));
        let resend = [Plan { block: 3, kind: PlanKind::Resend(vec![(0, 100)]) }];
        for naks in [[&whole, &named], [&named, &whole]] {
            assert_eq!(plan(&naks.map(Clone::clone), 0.0), resend);
        }
        let fresh = [Plan { block: 3, kind: PlanKind::Fresh(101) }];
        for naks in [[&whole, &untold], [&untold, &whole]] {
            assert_eq!(plan(&naks.map(Clone::clone), 0.0), fresh);
        }
        let sources = nak(vec![Deficit::Sources { block: BlockIndex(3), missing: vec![(0, 30)] }]);
        assert_eq!(plan(&[sources, whole], 0.0), resend);
    }

    #[test]
    fn impossible_claims_are_clamped() {
        let mut n = nak(vec![
            lacks(0, u16::MAX, &[(90, 60000)]),
            lacks(11, 5, &[]),
            Deficit::Whole { first: BlockIndex(8), count: u32::MAX },
        ]);
        n.pages = vec![PageRange { first: 0, count: u32::MAX }];
        let mut needs = Needs::default();
        needs.add(&n, 1, |b| (b < 10).then_some(100));
        let plans = needs.plan(0.0);
        let blocks: Vec<u32> = plans.iter().map(|p| p.block).collect();
        assert_eq!(blocks, [0, 8, 9]);
        assert_eq!(plans[1].kind, PlanKind::Resend(vec![(0, 100)]));
        assert_eq!(needs.pages().collect::<Vec<_>>(), [0]);
        // A symbol beyond the block's end does not exist: the plan is fresh symbols, not an empty resend.
        let plans = plan(&[nak(vec![lacks(0, 1, &[(100, 1)])])], 0.0);
        assert_eq!(plans, [Plan { block: 0, kind: PlanKind::Fresh(2) }]);
    }
}
