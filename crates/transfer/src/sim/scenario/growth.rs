//! Objects of streams: how they grow.

use super::{DevicePlan, Draw, Scenario};
use std::time::Duration;

/// How a stream grows.
#[derive(Clone, Copy, Debug)]
pub struct GrowthPlan {
    /// Time that each block takes.
    pub each: Duration,
    /// The block before which the input pauses, and for how long.
    pub pause: (u32, Duration),
    /// The number of blocks after which its producer dies, if it does.
    pub dies_after: Option<u32>,
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
        };
        scenario.sender.growth = Some(growth);
        // After its last block, the stream has ended before its producer can die.
        if growth.dies_after.is_some_and(|blocks| blocks < count.max(1)) {
            scenario.devices.iter_mut().for_each(DevicePlan::fail);
        }
        scenario
    }
}
