//! The repair policy: whether devices are polled, which ones unicast repair serves, and what is sent without being
//! requested. It is a value of the configuration; the rest of the sender does not know which policy it has.

use super::Sender;
use super::planner::PlanKind;
use crate::limits::RECEIVER_BUFFER_BYTES;
use crate::units::BlockIndex;
use std::time::Duration;

/// What happens to a device that carries less than half of the others' rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// The group keeps the rate of the others. The device is served alone, afterwards.
    #[default]
    Defer,
    /// All devices wait for it.
    Keep,
    /// It fails.
    Drop,
}

/// How the group is polled while the stream lasts. After the stream it is polled as long as a device lacks
/// anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollPolicy {
    /// Shortest stream time between two polls.
    pub every: Duration,
    /// Fewest blocks between two polls.
    pub blocks: u32,
    /// Most bytes between two polls. Devices hold the blocks that wait for repair in memory.
    pub bytes: usize,
}

impl PollPolicy {
    /// Devices need at most half of their buffers during a round.
    pub const USUAL: Self =
        Self { every: Duration::from_millis(50), blocks: 4, bytes: RECEIVER_BUFFER_BYTES / 4 };

    /// Blocks between two polls at this rate in bits per second.
    pub(super) fn step(&self, rate: u64, block_log2: u8) -> u32 {
        let by_time = (u128::from(rate) * self.every.as_millis() / 8000) >> block_log2;
        let by_room = (self.bytes >> block_log2) as u32;
        u32::try_from(by_time).unwrap_or(u32::MAX).min(by_room).max(self.blocks)
    }
}

/// Unsolicited repairs after the stream. Each pass goes through all blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// Number of passes.
    pub count: u32,
    /// Fresh repair symbols of a block in each pass, per thousand of its source symbols; at least one symbol.
    pub per_mille: u16,
}

/// How the sender repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairPolicy {
    /// How devices are polled; `None` if they are not.
    pub polls: Option<PollPolicy>,
    /// Most unicast repairs at a time while the group has work, and four times as many after that. With 0,
    /// there is no unicast repair.
    pub unicast_repairs: usize,
    /// What happens to devices that are slower than the rest.
    pub slow: SlowPolicy,
    /// Unsolicited repairs.
    pub passes: Option<Passes>,
}

impl Default for RepairPolicy {
    fn default() -> Self {
        Self::interactive(SlowPolicy::default())
    }
}

impl RepairPolicy {
    /// Devices are polled and get what they lack; those unlike the rest by unicast.
    #[must_use]
    pub const fn interactive(slow: SlowPolicy) -> Self {
        Self { polls: Some(PollPolicy::USUAL), unicast_repairs: 16, slow, passes: None }
    }

    /// No device is polled. The object is streamed once, followed by passes of repair symbols.
    #[must_use]
    pub const fn carousel(passes: Passes) -> Self {
        Self { polls: None, unicast_repairs: 0, slow: SlowPolicy::Keep, passes: Some(passes) }
    }

    /// Whether a device may be moved out of the group because it is unlike the rest.
    pub(super) fn sets_apart(&self) -> bool {
        self.unicast_repairs > 0 && self.slow != SlowPolicy::Keep
    }
}

/// Blocks of a pass that are planned ahead.
const AHEAD: usize = 16;

/// The progress of the passes.
#[derive(Debug, Default)]
pub(super) struct PassState {
    over: u32,
    /// The next block of the current pass.
    next: u32,
}

impl Sender {
    /// Plans the next unsolicited repairs once the earlier ones are sent.
    pub(super) fn plan_passes(&mut self) {
        let Some(passes) = self.config.repair.passes else { return };
        if !self.stream_done() || self.group.has_repairs() || self.passes.over >= passes.count {
            return;
        }
        let count = self.config.layout.block_count();
        for block in (self.passes.next..count).take(AHEAD) {
            self.passes.next = block + 1;
            let k = self.symbols_of(block);
            if k == 0 {
                continue;
            }
            let fresh = (u64::from(k) * u64::from(passes.per_mille)).div_ceil(1000).max(1);
            let kind = PlanKind::Fresh(u32::try_from(fresh).unwrap_or(k));
            let (kind, first, packed) = self.set_aside(block, kind);
            self.group.push(BlockIndex(block), kind, first, packed);
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
