//! Rate limits for costly work on incoming datagrams, so that a flood of forgeries has a bounded cost.

use crate::time::Time;
use std::time::Duration;

/// Length of a burst, as time at the allowed rate.
const BURST: Duration = Duration::from_millis(100);

/// Allows an action at a rate (the generic cell rate algorithm of ITU-T I.371). It refills evenly. If it refilled all
/// at once, a flood could always be first, and datagrams in step with the refill would never be allowed.
#[derive(Debug)]
pub(super) struct RateLimit {
    each: Duration,
    /// The time at which all actions allowed so far would be done if done evenly at the rate.
    paid: Time,
}

/// The new `paid` after one more action now, at intervals of `each`. `None` if the action exceeds the rate.
fn paid_with_one_more(paid: Time, now: Time, each: Duration) -> Option<Time> {
    let begins = paid.max(now);
    (begins.since(now) + each <= BURST.max(each)).then(|| begins + each)
}

impl RateLimit {
    /// Allows `per_second` actions a second, in bursts of a tenth of that.
    pub(super) fn new(per_second: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second, paid: Time::ZERO }
    }

    /// Whether the action is allowed now. If so, counts it.
    pub(super) fn allow(&mut self, now: Time) -> bool {
        let paid = paid_with_one_more(self.paid, now, self.each);
        self.paid = paid.unwrap_or(self.paid);
        paid.is_some()
    }
}

/// Allows an action at a rate for all places together, and at a quarter of it for each place. So a flood from one
/// place leaves the others their share.
#[derive(Debug)]
pub(super) struct Quota {
    all: Time,
    places: Vec<Time>,
}

/// The share of one place, as a divisor of the whole rate.
const PLACE_SHARE: u32 = 4;

impl Quota {
    /// A quota for this many places.
    pub(super) fn new(places: usize) -> Self {
        Self { all: Time::ZERO, places: vec![Time::ZERO; places] }
    }

    /// Whether the action is allowed now for this place. If so, counts it. `per_second` is the rate for all places, at
    /// least 1. A refused action does not count.
    pub(super) fn allow(&mut self, place: usize, per_second: u32, now: Time) -> bool {
        let each = Duration::from_secs(1) / per_second.max(1);
        let count = self.places.len();
        let Some(own) = self.places.get_mut(place % count) else { return false };
        let Some(paid) = paid_with_one_more(*own, now, each * PLACE_SHARE) else { return false };
        let Some(all) = paid_with_one_more(self.all, now, each) else { return false };
        (*own, self.all) = (paid, all);
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
    fn one_place_takes_no_more_than_its_part() {
        let mut quota = Quota::new(8);
        let mut count =
            |place, from: u64| (0..10_000).filter(|i| quota.allow(place, 1_000, at(from + i * 100))).count();
        let flood = count(3, 0);
        assert!((250..=280).contains(&flood), "{flood}");
        let mut quota = Quota::new(8);
        let (mut flood, mut other) = (0, 0);
        for i in 0..10_000 {
            flood += u32::from(quota.allow(3, 1_000, at(i * 100)));
            other += u32::from(i % 50 == 0 && quota.allow(4, 1_000, at(i * 100)));
        }
        assert!((250..=280).contains(&flood) && other == 200, "{flood}, {other}");
        // All places together stay within the rate.
        let mut quota = Quota::new(8);
        let all = (0..10_000).filter(|&i| quota.allow(i as usize, 1_000, at(i * 100))).count();
        assert!((1_000..=1_100).contains(&all), "{all}");
        // A rate of one a second works too.
        let mut quota = Quota::new(1);
        assert!(
            quota.allow(0, 1, at(0)) && !quota.allow(0, 1, at(3_900_000)) && quota.allow(0, 1, at(4_000_000))
        );
    }

    #[test]
    fn in_a_flood_everybody_has_a_chance_whatever_the_pace() {
        let mut rng = fastrand::Rng::with_seed(1);
        for pace in [50_000, 100_000, 250_000] {
            let (mut rate_limit, mut own) = (RateLimit::new(2_000), 0);
            for i in 0..100 * pace / 100 {
                // A forgery every 100 us; every `pace` us, one of our datagrams takes its place.
                let now = at(i * 100 + rng.u64(..30));
                let allowed = rate_limit.allow(now);
                own += u32::from(allowed && i % (pace / 100) == 0);
            }
            assert!((5..60).contains(&own), "{own} of 100 at {pace}");
        }
    }
}
