//! Progress of a device in proportion to what it is sent, and the limit on how long a device is served.

use crate::limits::{DEVICE_SERVICE, DEVICE_SERVICE_OF_STREAM};
use crate::time::Time;
use std::time::Duration;

/// A device makes progress if it gains at least one symbol for this many that it was sent since its last progress. A
/// path that loses more is useless.
const GAINED_OF_SENT: u64 = 32;

/// The progress of one device, in symbols.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headway {
    /// Time of the last progress, or of the start of service.
    last_gain: Time,
    /// The smallest deficit that a summary of this run has reported; below, its value at the last progress.
    least_deficit: u64,
    deficit_then: u64,
    /// Symbols verified at the last progress.
    verified_then: u64,
    /// Symbols sent to the device, or to the group on its behalf, up to the last progress.
    sent_then: u64,
    /// When service after the stream began. It continues across runs of the same device.
    served_since: Option<Time>,
}

/// Why a device is no longer served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// The device has made no progress for too long.
    Stalled,
    /// The device has been served for this time, the longest allowed.
    Served(Duration),
}

impl Headway {
    /// The progress of a device that joins now.
    pub const fn new(now: Time) -> Self {
        Self {
            last_gain: now,
            least_deficit: u64::MAX,
            deficit_then: u64::MAX,
            verified_then: 0,
            sent_then: 0,
            served_since: None,
        }
    }

    /// Restarts for a new run, after `sent` symbols. The time of service still counts.
    pub const fn begin(&mut self, sent: u64, now: Time) {
        *self = Self { served_since: self.served_since, sent_then: sent, ..Self::new(now) };
    }

    /// Restarts the time without progress: until now the device could make none.
    pub fn wait(&mut self, now: Time) {
        self.last_gain = now;
    }

    /// Excludes time in which this process was stopped.
    pub fn put_off(&mut self, away: Duration, now: Time) {
        self.last_gain = (self.last_gain + away).min(now);
        self.served_since = self.served_since.map(|since| (since + away).min(now));
    }

    /// Takes the deficit that a summary reports, after `sent` symbols in total.
    pub fn lacks(&mut self, deficit: u64, sent: u64, now: Time) {
        if deficit < self.least_deficit {
            self.least_deficit = deficit;
            let gained = self.deficit_then.saturating_sub(deficit);
            if self.deficit_then == u64::MAX || self.is_progress(gained, sent) {
                self.gains(sent, now);
            }
        }
    }

    /// Takes the number of verified symbols from a report, after `sent` symbols in total.
    pub fn verified(&mut self, symbols: u64, sent: u64, now: Time) {
        if symbols > self.verified_then && self.is_progress(symbols - self.verified_then, sent) {
            self.verified_then = symbols;
            self.gains(sent, now);
        }
    }

    const fn is_progress(&self, gained: u64, sent: u64) -> bool {
        gained.saturating_mul(GAINED_OF_SENT) >= sent.saturating_sub(self.sent_then)
    }

    const fn gains(&mut self, sent: u64, now: Time) {
        (self.last_gain, self.deficit_then, self.sent_then) = (now, self.least_deficit, sent);
    }

    /// Whether to give the device up, and why. The stream lasted until `streamed` and took `took`; before its end, no
    /// progress is required.
    pub fn halts(
        &mut self,
        patience: Duration,
        (streamed, took): (Time, Duration),
        done: bool,
        now: Time,
    ) -> Option<Halt> {
        if now.since(self.last_gain.max(streamed)) > patience {
            return Some(Halt::Stalled);
        }
        if !done {
            return None;
        }
        let since = *self.served_since.get_or_insert(now);
        let most = DEVICE_SERVICE + took.saturating_mul(DEVICE_SERVICE_OF_STREAM);
        (now.since(since) > most).then_some(Halt::Served(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DEVICE_STALL;

    const PATIENCE: Duration = DEVICE_STALL;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    /// The second at which a device fails that is sent `sent` symbols a second and gains `gained` of a million.
    fn halts(sent: u64, gained: u64) -> Option<u64> {
        let mut headway = Headway::new(at(0));
        (1..100_000).find(|&second| {
            headway.lacks(1_000_000_000 - second * gained, second * sent, at(second));
            headway.halts(PATIENCE, (at(0), Duration::from_secs(10)), true, at(second)).is_some()
        })
    }

    #[test]
    fn a_gain_is_measured_by_what_was_sent() {
        assert_eq!(halts(1_000, 31), Some(62));
        // A slow device is served up to the cap.
        let cap = 4 * 3600 + 640;
        for (sent, gained) in [(1_000, 32), (1_000, 900), (0, 1)] {
            assert!(halts(sent, gained).is_some_and(|at| at.abs_diff(cap) <= 2), "{sent} {gained}");
        }
        // A late gain is compared with everything that was sent until then.
        let mut headway = Headway::new(at(0));
        headway.verified(100, 3_201, at(50));
        assert_eq!(headway.halts(PATIENCE, (at(0), Duration::ZERO), true, at(61)), Some(Halt::Stalled));
        headway.verified(101, 3_201, at(51));
        assert_eq!(headway.halts(PATIENCE, (at(0), Duration::ZERO), true, at(61)), None);
    }

    #[test]
    fn another_run_goes_on_with_the_time_of_the_one_before() {
        let mut headway = Headway::new(at(0));
        let stream = (at(0), Duration::ZERO);
        let mut halt = None;
        for minute in 1..1_000 {
            headway.begin(0, at(minute * 60));
            halt = headway.halts(PATIENCE, stream, true, at(minute * 60));
            if halt.is_some() {
                assert_eq!(minute, 4 * 60 + 2);
                break;
            }
        }
        assert_eq!(halt, Some(Halt::Served(Duration::from_secs(4 * 3600))));
        // During the stream, no progress is required and no time counts.
        let mut headway = Headway::new(at(0));
        assert_eq!(headway.halts(PATIENCE, (at(90_000), Duration::ZERO), false, at(90_000)), None);
        assert_eq!(headway.halts(PATIENCE, (at(90_000), Duration::ZERO), true, at(90_001)), None);
    }
}
