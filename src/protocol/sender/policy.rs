//! The repair policy: whether devices are polled, which ones unicast repair serves, and what is sent without being
//! requested. It is a value of the configuration; the rest of the sender does not know which policy it has.

use super::Sender;
use super::planner::PlanKind;
use crate::limits::{NAKS_PER_SECOND, RECEIVER_BUFFER_BYTES};
use crate::units::BlockIndex;
use std::time::Duration;

/// What becomes of a device that carries less than half of what the others do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// The group goes on at the rate the rest carry; the device is served alone, afterwards.
    #[default]
    Defer,
    /// Everybody waits for it.
    Keep,
    /// It fails.
    Drop,
}

/// How the group is polled while it is being streamed to. Once the stream is over it is polled as long as anybody
/// lacks anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollPolicy {
    /// Stream time between two polls, at least.
    pub every: Duration,
    /// Blocks between two polls, at least.
    pub blocks: u32,
    /// Bytes between two polls, at most: devices hold the blocks that wait for repair in memory.
    pub bytes: usize,
    /// Answers that one poll may invite.
    pub answers: u32,
}

impl PollPolicy {
    /// Devices need no more than half of their buffers while a round is under way, and a poll invites half a
    /// second's worth of answers.
    pub const USUAL: Self = Self {
        every: Duration::from_millis(50),
        blocks: 4,
        bytes: RECEIVER_BUFFER_BYTES / 4,
        answers: NAKS_PER_SECOND / 2,
    };

    /// Blocks between two polls at a rate of so many bits per second.
    pub(super) fn step(&self, rate: u64, block_log2: u8) -> u32 {
        let by_time = (u128::from(rate) * self.every.as_millis() / 8000) >> block_log2;
        let by_room = (self.bytes >> block_log2) as u32;
        u32::try_from(by_time).unwrap_or(u32::MAX).min(by_room).max(self.blocks)
    }
}

/// Repairs that nobody has asked for, sent when the stream is over: each pass goes through all blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// How many.
    pub count: u32,
    /// Fresh repair symbols of a block in each pass, per thousand of its source symbols; at least one symbol.
    pub per_mille: u16,
}

/// How the sender repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairPolicy {
    /// How devices are asked what they lack; none: they are not asked.
    pub polls: Option<PollPolicy>,
    /// Devices that are served by unicast at a time while the group has work, and four times as many after
    /// that; 0: nobody is served apart from the group.
    pub unicast_repairs: usize,
    /// What becomes of devices that are slower than the rest.
    pub slow: SlowPolicy,
    /// What is sent unasked.
    pub passes: Option<Passes>,
}

impl Default for RepairPolicy {
    fn default() -> Self {
        Self::interactive(SlowPolicy::default())
    }
}

impl RepairPolicy {
    /// Devices are asked, and get what they lack; those unlike the rest by unicast.
    #[must_use]
    pub const fn interactive(slow: SlowPolicy) -> Self {
        Self { polls: Some(PollPolicy::USUAL), unicast_repairs: 16, slow, passes: None }
    }

    /// Nobody is asked: the object goes by, and repair symbols for it in as many passes as are said.
    #[must_use]
    pub const fn carousel(passes: Passes) -> Self {
        Self { polls: None, unicast_repairs: 0, slow: SlowPolicy::Keep, passes: Some(passes) }
    }

    /// Whether a device may be taken out of the group for what it is like.
    pub(super) fn sets_apart(&self) -> bool {
        self.unicast_repairs > 0 && self.slow != SlowPolicy::Keep
    }
}

/// Blocks of a pass that are planned at a time.
const AHEAD: usize = 16;

/// Where the passes stand.
#[derive(Debug, Default)]
pub(super) struct PassState {
    over: u32,
    /// The next block of the present pass.
    next: u32,
}

impl Sender {
    /// Plans the next repairs that nobody has asked for, once those before have gone out.
    pub(super) fn plan_passes(&mut self) {
        let Some(passes) = self.config.repair.passes else { return };
        if !self.stream_done() || self.group.has_repairs() || self.passes.over >= passes.count {
            return;
        }
        let count = self.config.layout.block_count();
        for block in (self.passes.next..count).take(AHEAD) {
            let k = self.config.layout.source_symbols(BlockIndex(block));
            let fresh = (u64::from(k) * u64::from(passes.per_mille)).div_ceil(1000).max(1);
            let kind = PlanKind::Fresh(u32::try_from(fresh).unwrap_or(k));
            let (kind, first) = self.set_aside(block, kind);
            self.group.push(BlockIndex(block), kind, first);
            self.passes.next = block + 1;
        }
        if self.passes.next >= count {
            (self.passes.over, self.passes.next) = (self.passes.over + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_follow_the_rate_within_what_devices_can_hold() {
        let step = |rate| PollPolicy::USUAL.step(rate, 20);
        // 12 blocks of 1 MiB are a quarter of a device's buffers.
        assert_eq!([1_000_000, 800_000_000, 10_000_000_000].map(step), [4, 4, 12]);
        assert_eq!(PollPolicy::USUAL.step(100_000_000, 16), 9);
    }

    #[test]
    fn only_a_policy_with_unicast_sets_anybody_apart() {
        let apart = |slow| RepairPolicy::interactive(slow).sets_apart();
        assert_eq!([SlowPolicy::Defer, SlowPolicy::Keep, SlowPolicy::Drop].map(apart), [true, false, true]);
        assert!(!RepairPolicy::carousel(Passes { count: 1, per_mille: 100 }).sets_apart());
    }
}
