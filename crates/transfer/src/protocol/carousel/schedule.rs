//! What a pass sends, and in which order: pure arithmetic.
//!
//! ```text
//!  pass 0      source 0 | source 1 | repair 0 | source 2 | repair 1 | ... | repair n
//!  pass 1 ...  repair i | repair i + 1 | ...                                  with ESIs that were not sent before
//! ```
//! The page of a window goes out before and after each of these steps: without it, nothing of the window counts.
//!
//! A *window* is a run of blocks whose symbols take turns, column by column: a burst of losses costs each block a
//! little, and no block much. Its repair symbols follow one window later, so that no burst takes both.

use crate::layout::Layout;
use crate::limits::{HASHES_PER_PAGE, MAX_ESI, MAX_WINDOW_BYTES, SENDER_REPAIR_BYTES};
use crate::units::BlockIndex;
use std::collections::VecDeque;
use std::ops::Range;

/// Symbols beyond K that a block gets at least: with two, it fails to decode about once in a million times.
const SPARE: u32 = 2;
/// Most bytes of the repair symbols of one step: one is sent while the next is encoded.
const STEP_BYTES: usize = SENDER_REPAIR_BYTES / 2;

/// How often a session without feedback sends its object, and with how many repair symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repetition {
    /// Repair symbols for each thousand source symbols.
    pub overhead_per_mille: u16,
    /// The number of passes, at least 1; `None` for no end.
    pub count: Option<u32>,
    /// The pause between two passes.
    pub pause: std::time::Duration,
}

/// A step of a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The pass begins: its first announcement.
    Begin,
    /// The page of these blocks.
    Page(Range<u32>),
    /// All source symbols of these blocks.
    Source(Range<u32>),
    /// The next repair symbols of each of these blocks that have so many: of each block, those of the pass from the
    /// column `columns.start` up to `columns.end`.
    Repair(Range<u32>, Range<u32>),
    /// The pass ends: its last announcement.
    End,
}

/// The steps of one pass.
#[derive(Debug)]
pub(super) struct Schedule {
    layout: Layout,
    overhead_per_mille: u16,
    pass: u32,
    /// Windows of the pass that were begun.
    turn: u32,
    next: VecDeque<Step>,
    over: bool,
}

impl Schedule {
    /// The steps of a pass.
    pub fn new(layout: Layout, overhead_per_mille: u16, pass: u32) -> Self {
        Self { layout, overhead_per_mille, pass, turn: 0, next: VecDeque::from([Step::Begin]), over: false }
    }

    /// The number of windows.
    fn windows(&self) -> u32 {
        self.layout.block_count().div_ceil(depth(&self.layout))
    }

    /// The blocks of the window that has this turn. The order rotates from pass to pass, so that a disturbance with the
    /// period of a pass does not always meet the same blocks.
    fn window(&self, turn: u32) -> Range<u32> {
        let (count, depth) = (u64::from(self.windows()), depth(&self.layout));
        // About five eighths of all, as the golden section.
        let shift = u64::from(self.pass) * (count * 5 / 8 + 1);
        let first = ((shift + u64::from(turn)) % count) as u32 * depth;
        first..(first + depth).min(self.layout.block_count())
    }

    /// Repair symbols that the pass sends of a block.
    pub fn repairs(&self, block: u32) -> u32 {
        let k = self.layout.source_symbols(BlockIndex(block));
        let share = (u64::from(k) * u64::from(self.overhead_per_mille)).div_ceil(1000) as u32;
        match (self.pass, self.overhead_per_mille) {
            (0, 0) => 0,
            (0, _) => share.max(SPARE),
            (_, _) => k + share.max(SPARE),
        }
    }

    /// The steps of the repair symbols of a window, and its page between them.
    fn repair(&mut self, window: &Range<u32>) {
        let columns = window.clone().map(|block| self.repairs(block)).max().unwrap_or(0);
        let bytes = window.len().max(1) * usize::from(self.layout.symbol_size());
        let width = (STEP_BYTES / bytes).max(1);
        for start in (0..columns).step_by(width) {
            let end = columns.min(start + width as u32);
            self.next.push_back(Step::Page(window.clone()));
            self.next.push_back(Step::Repair(window.clone(), start..end));
        }
        self.next.push_back(Step::Page(window.clone()));
    }

    fn go_on(&mut self) {
        let (turn, count) = (self.turn, self.windows());
        self.turn += 1;
        if turn < count {
            let window = self.window(turn);
            if self.pass == 0 {
                self.next.push_back(Step::Page(window.clone()));
                self.next.push_back(Step::Source(window.clone()));
                self.next.push_back(Step::Page(window));
            } else {
                self.repair(&window);
            }
        }
        if self.pass == 0 && (1..=count).contains(&turn) {
            let before = self.window(turn - 1);
            self.repair(&before);
        }
        if turn >= count {
            self.next.push_back(Step::End);
            self.over = true;
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        while self.next.is_empty() && !self.over {
            self.go_on();
        }
        self.next.pop_front()
    }
}

/// The number of blocks in a window: at most a page, and no more than receivers have buffers for.
pub(super) fn depth(layout: &Layout) -> u32 {
    (MAX_WINDOW_BYTES >> layout.block_log2()).clamp(1, u64::from(HASHES_PER_PAGE)) as u32
}

/// The ESI of the first of `count` fresh repair symbols of a block with `k` source symbols, of which those below `next`
/// were sent. After 2^24, they begin again: any device that still lacks the block has missed most of them.
pub(super) const fn fresh(next: u32, count: u32, k: u32) -> u32 {
    if next.saturating_add(count) > MAX_ESI + 1 { k } else { next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// 100 blocks of 64 KiB, and a short one.
    fn layout() -> Layout {
        Layout::new((100 << 16) + 5000, 16, 1024).unwrap()
    }

    fn steps(pass: u32) -> Vec<Step> {
        Schedule::new(layout(), 100, pass).collect()
    }

    #[test]
    fn the_first_pass_sends_all_source_symbols_and_repairs_one_window_later() {
        let windows = [0..32, 32..64, 64..96, 96..101];
        let page = |at: usize| Step::Page(windows[at].clone());
        let source = |at: usize| Step::Source(windows[at].clone());
        // Of 64 symbols, a tenth; of the last block's 5, two.
        let repair = |at: usize| Step::Repair(windows[at].clone(), 0..7);
        let order =
            [(0, true), (1, true), (0, false), (2, true), (1, false), (3, true), (2, false), (3, false)];
        let between =
            order.map(|(at, first)| [page(at), if first { source(at) } else { repair(at) }, page(at)]);
        let expected = [vec![Step::Begin], between.concat(), vec![Step::End]].concat();
        assert_eq!(steps(0), expected);
        let schedule = Schedule::new(layout(), 100, 0);
        assert_eq!([0, 99, 100].map(|block| schedule.repairs(block)), [7, 7, 2]);
        assert_eq!(Schedule::new(layout(), 0, 0).repairs(0), 0);
        assert_eq!(Schedule::new(layout(), 0, 1).repairs(0), 66);
    }

    #[test]
    fn later_passes_send_enough_of_each_block_in_another_order() {
        let order = |pass| -> Vec<u32> {
            let pages = steps(pass).into_iter();
            let window = |step| if let Step::Page(window) = step { Some(window.start) } else { None };
            let mut firsts: Vec<u32> = pages.filter_map(window).collect();
            let mut seen = BTreeSet::new();
            firsts.retain(|first| seen.insert(*first));
            firsts
        };
        assert_eq!(order(0), [0, 32, 64, 96]);
        assert_eq!(order(1), [96, 0, 32, 64]);
        let orders: BTreeSet<Vec<u32>> = (0..8).map(order).collect();
        assert_eq!(orders.len(), 4, "each window has its turn to be the first");
        for pass in 1..4 {
            let mut sent = [0; 101];
            for step in steps(pass) {
                assert!(!matches!(step, Step::Source(_)));
                let Step::Repair(window, columns) = step else { continue };
                let schedule = Schedule::new(layout(), 100, pass);
                for block in window {
                    let all = schedule.repairs(block);
                    sent[block as usize] += columns.end.min(all) - columns.start.min(all);
                }
            }
            assert!(sent[..100].iter().all(|&count| count == 64 + 7) && sent[100] == 5 + 2, "{sent:?}");
        }
    }

    #[test]
    fn a_step_fits_the_senders_memory_however_large_the_blocks() {
        for (log2, symbol, blocks, window) in
            [(20, 1408, 100, 16), (24, 1408, 10, 1), (16, 64, 80, 32), (10, 1024, 3, 3)]
        {
            let layout = Layout::new(blocks << log2, log2, symbol).unwrap();
            let mut widest = 0;
            for step in Schedule::new(layout, 200, 1) {
                if let Step::Repair(blocks, columns) = step {
                    widest = widest.max(blocks.len());
                    assert!(blocks.len() * columns.len() * usize::from(symbol) <= STEP_BYTES);
                }
            }
            assert_eq!(widest, window);
        }
    }

    #[test]
    fn an_empty_object_is_announced() {
        let layout = Layout::new(0, 20, 1408).unwrap();
        for pass in [0, 7] {
            assert_eq!(Schedule::new(layout, 100, pass).collect::<Vec<_>>(), [Step::Begin, Step::End]);
        }
    }

    #[test]
    fn ids_begin_again_only_when_they_run_out() {
        assert_eq!(fresh(745, 820, 745), 745);
        let last = MAX_ESI + 1 - 820;
        assert_eq!((fresh(last, 820, 745), fresh(last + 1, 820, 745)), (last, 745));
    }
}
