//! Links: they lose, delay, reorder, duplicate and damage datagrams.

use super::network::Counts;
use crate::time::Time;
use std::time::Duration;

/// A Gilbert-Elliott channel: two states, with loss in the bad one. The length of a state is a time and
/// not a number of datagrams; otherwise a quiet link would stay bad for minutes.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// Mean time between bad periods.
    pub good: Duration,
    /// Mean length of a bad period.
    pub bad: Duration,
    /// Probability of losing a datagram in the bad state.
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

/// The quality of a link.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// Probability of losing a datagram, independently.
    pub loss: f64,
    /// Lossy periods.
    pub burst: Option<Burst>,
    /// Shortest delay.
    pub delay: Duration,
    /// Most additional delay.
    pub jitter: Duration,
    /// Probability of being overtaken.
    pub reorder: f64,
    /// Probability of being duplicated.
    pub duplicate: f64,
    /// Probability of being damaged: cut short, or with flipped bits.
    pub corrupt: f64,
    /// Partitions: no datagram passes between the two times.
    pub partitions: Vec<(Time, Time)>,
}

impl Quality {
    /// The long-term share of lost datagrams, without partitions.
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
    /// Arrival time of the last datagram that was not overtaken.
    last: Time,
}

impl Link {
    /// The first period is a good one.
    pub const NEW: Self = Self { bad: true, state_until: Time::ZERO, last: Time::ZERO };
}

/// The fate of a datagram on a link.
pub(super) enum Fate {
    Lost,
    Passed { at: Time, again: Option<Time>, damaged: bool },
}

/// The fate of a datagram sent at `now` that would arrive at `at`.
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
