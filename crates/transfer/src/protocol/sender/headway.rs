//! Progress of a device in proportion to what it is sent, and the limit on how long a device is served.

use crate::limits::{DEVICE_SERVICE, DEVICE_SERVICE_OF_STREAM};
use crate::time::Time;
use std::time::Duration;

/// A device makes progress if it gains at least one symbol for this many that it was sent since its last progress. A
/// path that loses more is useless.
const GAINED_OF_SENT: u64 = 32;

/// Symbols that were sent so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    /// To the device, or to the group on its behalf.
    pub for_it: u64,
    /// To the device, or to the group on whoever's behalf. All that it may have gained without its disk.
    pub at_all: u64,
}

/// The progress of one device, in symbols.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headway {
    /// Time of the last progress, or of the start of service.
    last_gain: Time,
    /// Time of the last progress that the symbols sent explain. The rest is on the device's disk.
    last_sent_gain: Time,
    /// The smallest deficit that a summary of this run has reported; below, its value at the last progress.
    least_deficit: u64,
    deficit_then: u64,
    /// Symbols verified at the last progress.
    verified_then: u64,
    /// What had been sent at the last progress.
    sent_then: Sent,
    /// When service after the stream began. It continues across runs of the same device.
    served_since: Option<Time>,
}

/// Why a device is no longer served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// The device has made no progress for too long.
    Stalled,
    /// For this time, the device has taken nothing of what was sent, whatever it found on its disk.
    Untouched(Duration),
    /// The device has been served for this time, the longest allowed.
    Served(Duration),
}

impl Headway {
    /// The progress of a device that joins now.
    pub const fn new(now: Time) -> Self {
        Self {
            last_gain: now,
            last_sent_gain: now,
            least_deficit: u64::MAX,
            deficit_then: u64::MAX,
            verified_then: 0,
            sent_then: Sent { for_it: 0, at_all: 0 },
            served_since: None,
        }
    }

    /// Restarts for a new run, when so much has been sent. The time of service still counts.
    pub const fn begin(&mut self, sent: Sent, now: Time) {
        *self = Self { served_since: self.served_since, sent_then: sent, ..Self::new(now) };
    }

    /// Restarts the time without progress: until now the device could make none.
    pub const fn wait(&mut self, now: Time) {
        (self.last_gain, self.last_sent_gain) = (now, now);
    }

    /// Excludes time in which this process was stopped.
    pub fn put_off(&mut self, away: Duration, now: Time) {
        self.last_gain = (self.last_gain + away).min(now);
        self.last_sent_gain = (self.last_sent_gain + away).min(now);
        self.served_since = self.served_since.map(|since| (since + away).min(now));
    }

    /// Takes the deficit that a summary reports, when so much has been sent.
    pub fn lacks(&mut self, deficit: u64, sent: Sent, now: Time) {
        if deficit < self.least_deficit {
            self.least_deficit = deficit;
            let gained = self.deficit_then.saturating_sub(deficit);
            if self.deficit_then == u64::MAX || self.is_progress(gained, sent) {
                self.gains(gained, sent, now);
            }
        }
    }

    /// Takes the number of verified symbols from a report, when so much has been sent.
    pub fn verified(&mut self, symbols: u64, sent: Sent, now: Time) {
        let gained = symbols.saturating_sub(self.verified_then);
        if gained > 0 && self.is_progress(gained, sent) {
            self.verified_then = symbols;
            self.gains(gained, sent, now);
        }
    }

    const fn is_progress(&self, gained: u64, sent: Sent) -> bool {
        gained.saturating_mul(GAINED_OF_SENT) >= sent.for_it.saturating_sub(self.sent_then.for_it)
    }

    const fn gains(&mut self, gained: u64, sent: Sent, now: Time) {
        if gained <= sent.at_all.saturating_sub(self.sent_then.at_all) {
            self.last_sent_gain = now;
        }
        (self.last_gain, self.deficit_then, self.sent_then) = (now, self.least_deficit, sent);
    }

    /// Whether to give the device up, and why. It may make no progress at all for `patience`, and for `of_disk` only such
    /// as must come from its disk. The stream lasted until `streamed` and took `took`; before its end, no progress is
    /// required.
    pub fn halts(
        &mut self,
        (patience, of_disk): (Duration, Duration),
        (streamed, took): (Time, Duration),
        done: bool,
        now: Time,
    ) -> Option<Halt> {
        let without = |gain: Time| now.since(gain.max(streamed));
        if without(self.last_gain) > patience {
            return Some(Halt::Stalled);
        }
        if without(self.last_sent_gain) > of_disk {
            return Some(Halt::Untouched(of_disk));
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
    use crate::limits::{DEVICE_STALL, DEVICE_SYNC};

    const PATIENCE: (Duration, Duration) = (DEVICE_STALL, DEVICE_SYNC);

    fn sent(symbols: u64) -> Sent {
        Sent { for_it: symbols, at_all: symbols }
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    /// The second at which a device fails that gains so many symbols a second of those sent.
    fn halts(sent_each: u64, gained: u64) -> Option<u64> {
        let mut headway = Headway::new(at(0));
        (1..100_000).find(|&second| {
            headway.lacks(1_000_000_000 - second * gained, sent(second * sent_each), at(second));
            headway.halts(PATIENCE, (at(0), Duration::from_secs(10)), true, at(second)).is_some()
        })
    }

    #[test]
    fn a_gain_is_measured_by_what_was_sent() {
        assert_eq!(halts(1_000, 31), Some(62));
        // A slow device is served up to the cap.
        let cap = 4 * 3600 + 640;
        for (sent, gained) in [(1_000, 32), (1_000, 900), (1, 1)] {
            assert!(halts(sent, gained).is_some_and(|at| at.abs_diff(cap) <= 2), "{sent} {gained}");
        }
        // What was never sent comes from its disk, whatever it says.
        for (sent, gained) in [(0, 1), (0, 5_000), (10, 11)] {
            assert_eq!(halts(sent, gained), Some(DEVICE_SYNC.as_secs() + 1), "{sent} {gained}");
        }
        // A late gain is compared with everything that was sent until then.
        let mut headway = Headway::new(at(0));
        headway.verified(100, sent(3_201), at(50));
        assert_eq!(headway.halts(PATIENCE, (at(0), Duration::ZERO), true, at(61)), Some(Halt::Stalled));
        headway.verified(101, sent(3_201), at(51));
        assert_eq!(headway.halts(PATIENCE, (at(0), Duration::ZERO), true, at(61)), None);
    }

    #[test]
    fn another_run_goes_on_with_the_time_of_the_one_before() {
        let mut headway = Headway::new(at(0));
        let stream = (at(0), Duration::ZERO);
        let mut halt = None;
        for minute in 1..1_000 {
            headway.begin(sent(0), at(minute * 60));
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
