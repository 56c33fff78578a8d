//! The storage delay: how long a block that arrives now would wait until the blocks before it are stored. For the
//! sender's rate, the disk is a queue at the end of the path.

use crate::protocol::job::{ReceiverDone, ReceiverJob};
use crate::time::Time;
use crate::wire::Arrivals;
use std::collections::VecDeque;
use std::time::Duration;

/// While at most this share of the buffers waits, the disk is not behind: blocks complete in bursts.
const SHARE: usize = 4;
/// The time for a block is the mean of at most so many, and at least so many. Workers end in bursts too.
const MOST: usize = 16;
const FEWEST: usize = 2;
/// Longest delay to report.
const LONGEST: Duration = Duration::from_secs(10);

/// The storage as a queue.
#[derive(Debug, Default)]
pub(super) struct StorageDelay {
    /// Blocks that wait, or are being stored.
    waiting: usize,
    /// When the last blocks were stored, and before them the moment since which there was always a block to store.
    stored: VecDeque<Time>,
    /// The time that the storage takes for a block.
    each: Option<Duration>,
}

/// The state of the storage at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backlog {
    delay: Duration,
    each: Duration,
}

impl StorageDelay {
    /// A job is handed to the workers.
    pub fn begins(&mut self, job: &ReceiverJob, now: Time) {
        if !matches!(job, ReceiverJob::Store { .. }) {
            return;
        }
        if self.waiting == 0 {
            self.stored.clear();
            self.stored.push_back(now);
        }
        self.waiting += 1;
    }

    /// A job has ended.
    pub fn ends(&mut self, done: &ReceiverDone, now: Time) {
        if !matches!(
            done,
            ReceiverDone::Stored { .. } | ReceiverDone::Mismatched { .. } | ReceiverDone::Undecodable(_)
        ) {
            return;
        }
        self.waiting = self.waiting.saturating_sub(1);
        self.stored.push_back(now);
        if self.stored.len() > MOST + 1 {
            self.stored.pop_front();
        }
        let count = self.stored.len() - 1;
        if let Some(first) = self.stored.front().filter(|_| count >= FEWEST) {
            self.each = Some(now.since(*first) / count as u32);
        }
    }

    /// The present state, on a device with so many buffers.
    pub fn backlog(&self, buffers: usize) -> Backlog {
        let blocks = if self.waiting > buffers / SHARE { self.waiting as u32 } else { 0 };
        let each = self.each.unwrap_or_default();
        Backlog { delay: each.saturating_mul(blocks).min(LONGEST), each }
    }
}

impl Backlog {
    /// The delay in microseconds; 0 if the storage keeps up.
    pub const fn micros(self) -> u32 {
        self.delay.as_micros() as u32
    }

    /// Arrivals as they look from behind the disk, while the storage does not keep up. `block` is the number of symbols
    /// of a block.
    pub fn delayed(self, arrivals: Arrivals, block: u32) -> Arrivals {
        if self.delay.is_zero() {
            return arrivals;
        }
        let stored = self.each.as_micros() * u128::from(arrivals.received) / u128::from(block.max(1));
        // The last of them waited for the delay, so they were not further apart than that.
        let most = arrivals.elapsed_us.saturating_add(self.micros());
        Arrivals {
            elapsed_us: u32::try_from(stored).unwrap_or(u32::MAX).min(most),
            last_at_us: arrivals.last_at_us.saturating_add(self.micros().into()),
            ..arrivals
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fec::{BlockAssembly, Buffer};
    use crate::layout::Layout;
    use crate::units::{BlockIndex, ChannelId, Digest};
    use crate::wire::PacketNumber;

    #[test]
    fn it_is_the_time_until_the_waiting_blocks_are_stored() {
        let layout = Layout::new(64 << 10, 10, 1024).unwrap();
        let mut delay = StorageDelay::default();
        let begin = |delay: &mut StorageDelay, ms: u64| {
            let assembly = BlockAssembly::new(&layout, BlockIndex(0));
            let job = ReceiverJob::Store { assembly, expected: None, keep: false, pressed: false };
            delay.begins(&job, Time::ZERO + Duration::from_millis(ms));
        };
        let end = |delay: &mut StorageDelay, ms: u64| {
            let (block, value, buffer) = (BlockIndex(0), Digest::default(), Buffer::default());
            delay
                .ends(&ReceiverDone::Stored { block, value, buffer }, Time::ZERO + Duration::from_millis(ms));
        };
        // The storage keeps up, however long it rests in between.
        for ms in [10, 500, 900] {
            begin(&mut delay, ms - 5);
            end(&mut delay, ms);
        }
        assert_eq!((delay.each, delay.backlog(16).micros()), (None, 0));
        // Two workers take 20 milliseconds each, and 30 blocks come at once.
        (0..30).for_each(|_| begin(&mut delay, 1000));
        (1..=5).for_each(|n| (0..2).for_each(|_| end(&mut delay, 1000 + 20 * n)));
        assert_eq!(delay.each, Some(Duration::from_millis(10)));
        // Twenty wait. A device with 80 buffers has room for three times as many.
        assert_eq!([16, 79, 80].map(|buffers| delay.backlog(buffers).micros()), [200_000, 200_000, 0]);
    }

    #[test]
    fn symbols_arrive_when_the_disk_has_room_for_them() {
        let number = |n| PacketNumber::new(ChannelId::GROUP, n);
        let arrivals = Arrivals {
            first: number(0),
            last: number(100),
            received: 100,
            elapsed_us: 1_000,
            last_at_us: 5_000_000,
        };
        let each = Duration::from_millis(10);
        let backlog = Backlog { delay: Duration::from_millis(40), each };
        // A tenth of a block takes a millisecond, half a block five. More than the delay has not been added.
        let seen = [1000, 200, 10].map(|block| backlog.delayed(arrivals, block));
        assert_eq!(seen.map(|seen| seen.elapsed_us), [1_000, 5_000, 41_000]);
        assert!(seen.iter().all(|seen| seen.last_at_us == 5_040_000));
        let keeps_up = Backlog { delay: Duration::ZERO, each };
        assert_eq!(keeps_up.delayed(arrivals, 200), arrivals);
    }
}
