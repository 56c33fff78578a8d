//! The storage delay: the smoothed time from the request to store a block to its completion.

use crate::protocol::job::{ReceiverDone, ReceiverJob};
use crate::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Weight of the smoothed value against one new measurement.
const WEIGHT: u32 = 7;

/// The time that a block waits for its storage. The number of jobs bounds its size.
#[derive(Debug, Default)]
pub(super) struct StorageDelay {
    /// When blocks were handed to workers.
    begun: BTreeMap<u32, Time>,
    smoothed: Option<Duration>,
}

impl StorageDelay {
    /// A job is handed to the workers.
    pub fn begins(&mut self, job: &ReceiverJob, now: Time) {
        if let ReceiverJob::Store { assembly, .. } = job {
            self.begun.insert(assembly.block().0, now);
        }
    }

    /// A job has ended.
    pub fn ends(&mut self, done: &ReceiverDone, now: Time) {
        let (block, stored) = match done {
            ReceiverDone::Stored { block, .. } => (*block, true),
            ReceiverDone::Mismatched { block, .. } => (*block, false),
            ReceiverDone::Undecodable(assembly) => (assembly.block(), false),
            _ => return,
        };
        let begun = self.begun.remove(&block.0).filter(|_| stored);
        let Some(took) = begun.map(|begun| now.since(begun)) else { return };
        self.smoothed = Some(self.smoothed.map_or(took, |before| (before * WEIGHT + took) / (WEIGHT + 1)));
    }

    /// The delay in microseconds; 0 if it is not known.
    pub fn micros(&self) -> u32 {
        self.smoothed.map_or(0, |delay| u32::try_from(delay.as_micros().max(1)).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fec::{BlockAssembly, Buffer};
    use crate::layout::Layout;
    use crate::units::{BlockIndex, Digest};

    #[test]
    fn it_follows_how_long_blocks_wait() {
        let layout = Layout::new(64 << 10, 10, 1024).unwrap();
        let mut delay = StorageDelay::default();
        assert_eq!(delay.micros(), 0);
        let mut store = |block: u32, ms: u64| {
            let (assembly, block) = (BlockAssembly::new(&layout, BlockIndex(block)), BlockIndex(block));
            let job = ReceiverJob::Store { assembly, expected: None, keep: false, pressed: false };
            delay.begins(&job, Time::ZERO);
            let stored = ReceiverDone::Stored { block, value: Digest::default(), buffer: Buffer::default() };
            delay.ends(&stored, Time::ZERO + Duration::from_millis(ms));
            // Nobody has asked for it again.
            delay.ends(&stored, Time::ZERO + Duration::from_secs(99));
            delay.micros()
        };
        assert_eq!(store(0, 8), 8_000);
        assert_eq!(store(1, 16), 9_000);
        let last = (2..64).map(|block| store(block, 16)).last();
        assert!(last.is_some_and(|micros| (15_900..=16_000).contains(&micros)), "{last:?}");
    }
}
