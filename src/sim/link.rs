//! Links: what is lost, delayed, overtaken, doubled or damaged on the way.

use super::network::Counts;
use crate::time::Time;
use std::time::Duration;

/// A Gilbert-Elliott channel: two states, with loss in the bad one. The states last for times
/// and not for datagrams, so that a quiet link is not bad for minutes.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// Mean time between bad periods.
    pub good: Duration,
    /// Mean length of a bad period.
    pub bad: Duration,
    /// Chance a datagram to be lost while bad.
    pub loss: f64,
}

impl Burst {
    /// Whether the link is bad at `now`, by its state and the random lengths of its periods.
    fn is_bad(&self, link: &mut Link, rng: &mut fastrand::Rng, now: Time) -> bool {
        while link.state_until <= now {
            link.bad = !link.bad;
            let mean = if link.bad { self.bad } else { self.good };
            let length = mean.mul_f64(-(1.0 - rng.f64()).ln());
            link.state_until = link.state_until + length.max(Duration::from_micros(1));
        }
        link.bad
    }
}

/// What a link does to datagrams.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// Chance to be lost, each datagram for itself.
    pub loss: f64,
    /// Lossy periods.
    pub burst: Option<Burst>,
    /// Shortest delay.
    pub delay: Duration,
    /// Up to this much more.
    pub jitter: Duration,
    /// Chance to be overtaken.
    pub reorder: f64,
    /// Chance to come twice.
    pub duplicate: f64,
    /// Chance to be damaged: cut short, or with flipped bits.
    pub corrupt: f64,
    /// Nothing passes from the one time to the other.
    pub partitions: Vec<(Time, Time)>,
}

impl Quality {
    /// The share of datagrams that are lost in the long run, partitions aside.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        let burst = self.burst.map_or(0.0, |b| {
            let bad = b.bad.as_secs_f64();
            b.loss * bad / (bad + b.good.as_secs_f64())
        });
        1.0 - (1.0 - self.loss) * (1.0 - burst)
    }
}

/// State of one direction of a node's link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    bad: bool,
    state_until: Time,
    /// When the last datagram that was not overtaken arrives.
    last: Time,
}

impl Link {
    /// Its first period is a good one.
    pub const NEW: Self = Self { bad: true, state_until: Time::ZERO, last: Time::ZERO };
}

/// What a link made of a datagram.
pub(super) enum Fate {
    Lost,
    Passed { at: Time, again: Option<Time>, damaged: bool },
}

/// What a link does to a datagram sent at `now` that reaches it at `at`.
pub(super) fn traverse(
    rng: &mut fastrand::Rng,
    counts: &mut Counts,
    quality: &Quality,
    link: &mut Link,
    now: Time,
    at: Time,
) -> Fate {
    if quality.partitions.iter().any(|&(from, to)| from <= now && now < to) {
        counts.partitioned += 1;
        return Fate::Lost;
    }
    if let Some(burst) = &quality.burst
        && burst.is_bad(link, rng, now)
        && rng.f64() < burst.loss
    {
        counts.burst_lost += 1;
        return Fate::Lost;
    }
    if quality.loss > 0.0 && rng.f64() < quality.loss {
        counts.lost += 1;
        return Fate::Lost;
    }
    let mut arrives = at + quality.delay;
    if quality.jitter > Duration::ZERO {
        arrives = arrives + Duration::from_nanos(rng.u64(..=quality.jitter.as_nanos() as u64));
    }
    if quality.reorder > 0.0 && rng.f64() < quality.reorder {
        counts.reordered += 1;
        let late = (quality.jitter + Duration::from_millis(1)) * 3;
        arrives = arrives + Duration::from_nanos(rng.u64(..=late.as_nanos() as u64));
    } else {
        arrives = arrives.max(link.last);
        link.last = arrives;
    }
    let mut again = None;
    if quality.duplicate > 0.0 && rng.f64() < quality.duplicate {
        counts.duplicated += 1;
        again = Some(arrives + Duration::from_micros(rng.u64(..5_000)));
    }
    let damaged = quality.corrupt > 0.0 && rng.f64() < quality.corrupt;
    counts.corrupted += u64::from(damaged);
    Fate::Passed { at: arrives, again, damaged }
}
