//! Objects of streams: how they grow.

use super::{DevicePlan, Draw, Expectation, Scenario, SenderPlan};
use crate::layout::Layout;
use crate::sim::disk_faults::DiskFaults;
use crate::sim::link::Quality;
use crate::time::Time;
use std::time::Duration;

/// Of the blocks of a stream with a window, so that there are many.
const LEAST_BLOCK_LOG2: u8 = 13;
/// Least blocks of a window.
const LEAST_WINDOW: u32 = 3;
/// Longest delay of a link over which windows are repaired in time.
const NEARBY: Duration = Duration::from_millis(50);
/// Time in which a device on a calm link has joined.
const JOINING: Duration = Duration::from_secs(6);

/// How a stream grows.
#[derive(Clone, Copy, Debug)]
pub struct GrowthPlan {
    /// Time that each block takes.
    pub each: Duration,
    /// The block before which the input pauses, and for how long.
    pub pause: (u32, Duration),
    /// The number of blocks after which its producer dies, if it does.
    pub dies_after: Option<u32>,
    /// The number of its last blocks that the sender keeps, if not all.
    pub window: Option<u32>,
}

impl GrowthPlan {
    /// Time that the block with this number takes.
    #[must_use]
    pub fn time_of(&self, block: u32) -> Duration {
        self.each + if block == self.pause.0 { self.pause.1 } else { Duration::ZERO }
    }
}

impl Draw {
    /// Makes the object of a few scenarios a stream.
    pub(super) fn streams(mut self, mut scenario: Scenario) -> Scenario {
        // A limit for all leaves no time for pauses.
        if scenario.max_time.is_some() || !self.chance(8) {
            return scenario;
        }
        let count = scenario.layout.block_count();
        // Now and then longer than anybody may be silent or make no progress.
        let pause = if self.chance(30) { self.between(10_000, 100_000) } else { self.between(0, 3_000) };
        let growth = GrowthPlan {
            each: if self.chance(50) { self.between(0, 5) } else { self.between(0, 300) },
            pause: (self.rng.u32(..=count), pause),
            dies_after: self.chance(15).then(|| self.rng.u32(..=count)),
            window: None,
        };
        scenario.sender.growth = Some(growth);
        // After its last block, the stream has ended before its producer can die.
        if growth.dies_after.is_some_and(|blocks| blocks < count.max(1)) {
            scenario.devices.iter_mut().for_each(DevicePlan::fail);
        }
        scenario
    }

    /// Lets half of the senders of streams keep only the last blocks.
    pub(super) fn windows(mut self, mut scenario: Scenario) -> Scenario {
        let before = scenario.layout.block_count();
        let Some(growth) = scenario.sender.growth.as_mut().filter(|_| self.chance(50)) else {
            return scenario;
        };
        growth.window = Some(self.rng.u32(LEAST_WINDOW..12));
        // Most objects are shorter than any window.
        let (size, symbol_size) = (self.rng.u64(1..=512 << 10), scenario.layout.symbol_size());
        let size = size.min(u64::from(symbol_size) * 2_000);
        scenario.layout = Layout::new(size, LEAST_BLOCK_LOG2, symbol_size).expect("a valid layout");
        let (before, count) = (before.max(1), scenario.layout.block_count());
        // A producer that was to die dies.
        growth.dies_after = growth.dies_after.filter(|&blocks| blocks < before);
        growth.dies_after = growth.dies_after.map(|blocks| blocks.min(count - 1));
        // Enemies can join in the place of others, or spoil blocks, which takes time to find out.
        let calm =
            scenario.hostile.is_empty() && scenario.forger == 0.0 && scenario.sender.start_now.is_none();
        let gathered = if calm && scenario.expected.is_some() { scenario.wait } else { Duration::ZERO };
        scenario.devices.iter_mut().filter(|plan| !plan.keeps_up(gathered)).for_each(DevicePlan::hope);
        // A disk that was too small for the object before may be large enough now.
        let by_disk = |plan: &&mut DevicePlan| {
            plan.expectation == Expectation::Fails && plan.faults != DiskFaults::default()
        };
        scenario.devices.iter_mut().filter(by_disk).for_each(|plan| plan.expectation = Expectation::Any);
        scenario
    }
}

impl SenderPlan {
    /// Whether it keeps only the last blocks of a stream.
    #[must_use]
    pub fn is_windowed(&self) -> bool {
        self.growth.is_some_and(|growth| growth.window.is_some())
    }
}

impl DevicePlan {
    /// Whether the device surely joins before gathering ends, and then lets nobody wait for long.
    fn keeps_up(&self, gathered: Duration) -> bool {
        let (down, up) = (&self.attachment.down, &self.attachment.up);
        let is_calm = |link: &Quality| {
            link.loss <= 0.05
                && link.corrupt == 0.0
                && link.burst.is_none()
                && link.partitions.is_empty()
                && link.delay + link.jitter <= NEARBY
        };
        let joined = self.start + JOINING <= Time::ZERO + gathered;
        // Whoever is started again has nothing that it could go on with.
        joined && !self.loses_power() && is_calm(down) && is_calm(up)
    }

    /// Whether the device loses power, at a time or at an operation of its disk, and may be started again.
    pub(in crate::sim) fn loses_power(&self) -> bool {
        let at_an_operation = self.back.is_some() || self.faults.power_cut.is_some();
        self.crash.is_some() || at_an_operation || self.block.is_some_and(|block| block.power_cut.is_some())
    }
}
