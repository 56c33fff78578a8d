//! The rate of a unicast repair session.

use crate::pacing::TokenBucket;
use crate::time::Time;
use crate::units::Rate;

/// A device is served alone at no less than this.
const SLOWEST: Rate = Rate(64_000);
/// Fewer symbols than this say nothing of the rate: they fit any queue.
const FEWEST: u64 = 16;

/// The rate at which one device is served alone: what arrives of a round's symbols tells what the way
/// to it carries, and sending faster only loses more.
#[derive(Debug)]
pub(super) struct OwnRate {
    pub bucket: TokenBucket,
    rate: Rate,
    ceiling: Rate,
    datagram: u64,
    /// Symbols sent since the last answer, and what the device lacked then.
    pub sent: u64,
    lacked: u64,
    /// A summary has room for so many blocks: the last answer told of those below this.
    pub told: u32,
}

impl OwnRate {
    /// Starts at the sender's own rate.
    pub fn new(ceiling: Rate, datagram: u64, now: Time) -> Self {
        let bucket = TokenBucket::new(ceiling, datagram, now);
        Self { bucket, rate: ceiling, ceiling, datagram, sent: 0, lacked: 0, told: 0 }
    }

    /// The rate now.
    #[cfg(test)]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// The device has answered: it lacks `still` symbols of the blocks that its last answer told of,
    /// and `lacks` of those that this one does, which are below `told`.
    pub fn answered(&mut self, still: u64, lacks: u64, told: u32, now: Time) {
        let arrived = self.lacked.saturating_sub(still) as f64;
        let sent = std::mem::take(&mut self.sent);
        (self.lacked, self.told) = (lacks, told);
        if sent < FEWEST {
            return;
        }
        let share = arrived / sent as f64;
        let factor = match share {
            ..0.5 => share.max(0.25),
            0.8.. => 1.5,
            _ => return,
        };
        let rate =
            Rate(((self.rate.0 as f64 * factor) as u64).clamp(SLOWEST.0.min(self.ceiling.0), self.ceiling.0));
        if rate != self.rate {
            self.rate = rate;
            self.bucket = TokenBucket::new(rate, self.datagram, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A device behind a way that carries `carries` of every symbols sent at the full rate.
    #[test]
    fn settles_near_what_arrives_and_rises_again() {
        let (full, now) = (Rate(100_000_000), Time::ZERO + Duration::from_secs(1));
        let mut own = OwnRate::new(full, 1500, now);
        let mut lacks = 1_000_000;
        own.answered(lacks, lacks, 1, now);
        let mut round = |own: &mut OwnRate, line: f64| {
            own.sent = 1000;
            lacks -= (1000.0 * (line / own.rate.0 as f64).min(1.0)) as u64;
            own.answered(lacks, lacks, 1, now);
        };
        for _ in 0..20 {
            round(&mut own, 10_000_000.0);
        }
        assert!((5_000_000..=25_000_000).contains(&own.rate.0), "{:?}", own.rate);
        for _ in 0..20 {
            round(&mut own, 200_000_000.0);
        }
        assert_eq!(own.rate, full);
        own.sent = FEWEST - 1;
        own.answered(lacks, lacks, 1, now);
        assert_eq!(own.rate, full, "a handful of symbols says nothing");
    }
}
