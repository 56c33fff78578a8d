//! Whether a device comes closer to completion, in proportion to what it is sent, and for how long it is served.

use crate::limits::DEVICE_STALL;
use crate::time::Time;
use std::time::Duration;

/// What a device gains is progress if it is at least this part of what it was sent since it last gained something,
/// as a divisor: a path that loses more than that is none.
const GAINED_OF_SENT: u64 = 32;
/// After the stream, a device is served for so long, and as many times the time that the stream took.
const SERVICE: (Duration, u32) = (Duration::from_secs(4 * 3600), 64);

/// The headway of one device. Symbols are what is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headway {
    /// When it last gained something (or was taken up).
    last_gain: Time,
    /// The fewest symbols that it ever lacked in this run, as far as its summaries told; and when it last gained.
    least_deficit: u64,
    deficit_then: u64,
    /// Symbols verified when it last gained.
    verified_then: u64,
    /// Symbols sent to it, or to the group on its behalf, when it last gained.
    sent_then: u64,
    /// When its service began: after the stream, or later. Other runs of the same device go on with it.
    served_since: Option<Time>,
}

/// Why a device is not served any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// It has gained nothing for too long.
    Stalled,
    /// It was served for so long.
    Served(Duration),
}

impl Headway {
    /// Of a device that joins now.
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

    /// It begins anew, having been sent so many symbols; how long it was served before still counts.
    pub const fn begin(&mut self, sent: u64, now: Time) {
        *self = Self { served_since: self.served_since, sent_then: sent, ..Self::new(now) };
    }

    /// Nothing was to be gained until now.
    pub fn wait(&mut self, now: Time) {
        self.last_gain = now;
    }

    /// Time that passed without us is not counted.
    pub fn put_off(&mut self, away: Duration, now: Time) {
        self.last_gain = (self.last_gain + away).min(now);
        self.served_since = self.served_since.map(|since| (since + away).min(now));
    }

    /// A summary says that it lacks so many symbols, of `sent` that it was sent in all.
    pub fn lacks(&mut self, deficit: u64, sent: u64, now: Time) {
        if deficit < self.least_deficit {
            self.least_deficit = deficit;
            let gained = self.deficit_then.saturating_sub(deficit);
            if self.deficit_then == u64::MAX || self.is_progress(gained, sent) {
                self.gains(sent, now);
            }
        }
    }

    /// A report says that so many symbols are verified.
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

    /// Whether it is to be given up, in a session whose stream was over at `streamed` (until then nothing need be
    /// gained) and took so long.
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
        let most = SERVICE.0 + took.saturating_mul(SERVICE.1);
        (now.since(since) > most).then_some(Halt::Served(most))
    }
}

const _: () = assert!(SERVICE.0.as_secs() > DEVICE_STALL.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = DEVICE_STALL;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    /// When a device is given up that is sent `sent` symbols and gains `gained` of a million each second.
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
        // Slow as it is, it is served, up to the cap.
        let cap = 4 * 3600 + 640;
        for (sent, gained) in [(1_000, 32), (1_000, 900), (0, 1)] {
            assert!(halts(sent, gained).is_some_and(|at| at.abs_diff(cap) <= 2), "{sent} {gained}");
        }
        // A gain that comes late is held against all that was sent until then.
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
        // While the stream goes on, nothing need be gained, and no time is counted.
        let mut headway = Headway::new(at(0));
        assert_eq!(headway.halts(PATIENCE, (at(90_000), Duration::ZERO), false, at(90_000)), None);
        assert_eq!(headway.halts(PATIENCE, (at(90_000), Duration::ZERO), true, at(90_001)), None);
    }
}
