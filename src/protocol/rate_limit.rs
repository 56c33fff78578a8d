//! Bounds how often something costly is done for incoming datagrams, so that a flood of forgeries costs no more.

use crate::time::Time;
use std::time::Duration;

/// Length of a burst, as time at the allowed rate.
const BURST: Duration = Duration::from_millis(100);

/// Allows an action at a rate (the generic cell rate algorithm of ITU-T I.371). Refills evenly: if it
/// refilled all at once, datagrams in step with the refill would never be allowed in a flood.
#[derive(Debug)]
pub(super) struct RateLimit {
    each: Duration,
    /// When the allowed actions so far would have been done at the rate.
    paid: Time,
}

impl RateLimit {
    /// Allows `per_second` actions a second, in bursts of a tenth of that.
    pub(super) fn new(per_second: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second, paid: Time::ZERO }
    }

    /// Whether the action is allowed now. If so, counts it.
    pub(super) fn allow(&mut self, now: Time) -> bool {
        let begins = self.paid.max(now);
        if begins.since(now) + self.each > BURST {
            return false;
        }
        self.paid = begins + self.each;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Time {
        Time::ZERO + Duration::from_micros(us)
    }

    #[test]
    fn no_more_than_so_often() {
        let mut rate_limit = RateLimit::new(50);
        assert_eq!((0..20).filter(|_| rate_limit.allow(at(0))).count(), 5);
        assert_eq!((0..20).filter(|_| rate_limit.allow(at(40_000))).count(), 2);
        assert_eq!((0..100_000).filter(|i| rate_limit.allow(at(1_000_000 + i * 10))).count(), 5 + 49);
    }

    #[test]
    fn in_a_flood_everybody_has_a_chance_whatever_the_pace() {
        let mut rng = fastrand::Rng::with_seed(1);
        for pace in [50_000, 100_000, 250_000] {
            let (mut rate_limit, mut own) = (RateLimit::new(2_000), 0);
            for i in 0..100 * pace / 100 {
                // Nine forgeries a millisecond, and one of ours at each pace.
                let now = at(i * 100 + rng.u64(..30));
                let allowed = rate_limit.allow(now);
                own += u32::from(allowed && i % (pace / 100) == 0);
            }
            assert!((5..60).contains(&own), "{own} of 100 at {pace}");
        }
    }
}
