//! Delta mode: sending only what is missing, if every device that has joined holds some of the object, from an
//! interrupted run or in an earlier version.
//!
//! The sender sends all chaining values first, already while gathering, and streams nothing. The position follows the
//! pages sent, and the rounds find the union of what the devices lack. Nobody has any symbol of those blocks, so they
//! are sent as source symbols.
//!
//! If one device at the start holds nothing, or the object still grows, everything is streamed to all.

use super::Sender;
use crate::units::BlockIndex;
use crate::wire::Phase;
use std::time::Duration;

/// Longest pause between polls: devices find out what they lack as fast as they can read.
const PAUSE: Duration = Duration::from_millis(100);
/// Most blocks checked for one range of a NAK summary: as many as are planned for at a time.
const MAX_LOOK: usize = 1024;

impl Sender {
    /// Whether the sender sends the values of all blocks before any symbol.
    pub(super) fn tells_values_first(&self) -> bool {
        self.stream.skipping || (self.phase == Phase::Gathering && self.all_hold_some())
    }

    fn all_hold_some(&self) -> bool {
        let counts = self.devices.counts();
        self.config.layout.is_sealed() && counts.open > 0 && counts.open == counts.holding
    }

    /// Decides at the start whether to send only what is missing.
    pub(super) fn decide_on_skipping(&mut self) {
        self.stream.skipping = self.all_hold_some();
        self.skip_ahead();
    }

    /// Advances the position to the end of the pages sent.
    pub(super) fn skip_ahead(&mut self) {
        if self.stream.skipping {
            self.stream.position = self.stream.position.max(self.stream.told);
        }
    }

    /// The pause after a poll that brought nothing to do.
    pub(super) fn quiet_pause(&self) -> Duration {
        let pause = self.rounds.pause();
        if self.stream.skipping { pause.min(PAUSE.max(self.rounds.grtt * 2)) } else { pause }
    }

    /// How many symbols of a range of blocks a device has lost, given that it has nothing of them. A block that was not
    /// sent to the group is not lost.
    pub(super) fn symbols_lost(&self, first: u32, end: u32) -> u64 {
        if !self.stream.skipping {
            return self.symbols_between(first, end);
        }
        let lost = (first..end).take(MAX_LOOK).filter(|&block| self.was_sent(block));
        lost.map(|block| u64::from(self.symbols_of(block))).sum()
    }

    /// Whether any symbol of a block was sent to the group.
    pub(super) fn was_sent(&self, block: u32) -> bool {
        self.blocks.get(block as usize).is_some_and(|info| info.streamed > 0)
    }

    /// Notes that source symbols of a block are sent to the group. True if this is the first time.
    pub(super) fn note_source(&mut self, block: BlockIndex, first: u32, end: u32) -> bool {
        let Some(info) = self.blocks.get_mut(block.0 as usize) else { return false };
        if first != info.streamed {
            return false;
        }
        self.stream.touched += u32::from(first == 0);
        info.streamed = end;
        true
    }

    /// Bytes of the object that were never sent to the group, because every device had them.
    pub(super) fn skipped(&self) -> u64 {
        if !self.stream.skipping {
            return 0;
        }
        let blocks = self.stream.position.saturating_sub(self.stream.touched);
        (u64::from(blocks) << self.config.layout.block_log2()).min(self.config.layout.object_size())
    }
}
