//! Evaluates one device's reports on its path: whether the path is congested, and its capacity.
//!
//! Loss that does not depend on the rate is no reason to slow down. The loss at rates below the capacity
//! is the path's own loss. Congestion is loss beyond that together with a longer queue or a socket
//! overflow, or a long queue alone. The rate of arrival under congestion is the path's capacity. A sudden
//! heavy loss counts as congestion too, until it proves to stay at a lower rate.

use crate::time::Time;
use std::time::Duration;

/// Shortest time over which the lowest delay is remembered; the longest is twice as long.
const MEMORY: Duration = Duration::from_secs(5);
/// Loss beyond the path's own that is not yet congestion.
const LOSS_MARGIN: f64 = 0.01;
/// Standard deviations of a stretch's loss that are attributed to chance.
const SIGMAS: f64 = 3.5;
/// The same during a trial.
const SIGMAS_RAISING: f64 = 1.5;
/// A loss is the path's own if this share of it stays ...
const STAYS: f64 = 0.6;
/// ... when the rate falls to this share.
const SLOWER: f64 = 0.8;
/// A queue above this is congestion, with or without loss.
const QUEUE_LIMIT: Duration = Duration::from_millis(100);
/// A long queue that shrinks is no congestion: more than this share of the rate arrives.
const SHRINKS: f64 = 1.02;
/// A queue above this that still grows is congestion.
const QUEUE_GROWING: Duration = Duration::from_millis(15);
/// A queue above this that grows at all ends a probe.
const QUEUE_PROBE: Duration = Duration::from_millis(8);
/// A queue alone reduces the rate to no less than this share at a time.
const GENTLY: f64 = 0.85;
/// Share of the rate that arrives if no queue grows.
const KEEPS_UP: f64 = 0.95;
/// A queue above this is congestion together with loss.
const QUEUE_WITH_LOSS: Duration = Duration::from_millis(2);
/// Loss beyond the path's own that is suspected to be congestion even without a queue, and at a rate that
/// was clear before.
const LOSS_ALONE: f64 = 0.1;
/// Smallest weight of a stretch in the estimate of the path's own loss.
const LEARNING: f64 = 0.15;
/// A stretch with fewer datagrams is not evaluated.
const FEWEST: u64 = 24;

/// Whether the rate is a trial for more capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// No trial. A false alarm is expensive.
    None,
    /// Starting: the rate rises in large steps.
    Start,
    /// A probe: the rate rises in small steps from the known capacity. A short queue ends it, and a false
    /// alarm is cheap.
    Probe,
}

/// The sending and the arrival of a stretch of datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received of those sent.
    pub received: u64,
    /// Time from the sending of the first to the sending of the last.
    pub sent_in: Duration,
    /// Time from the arrival of the first to the arrival of the last.
    pub received_in: Duration,
    /// Arrival of the last datagram by the device's clock, less its sending by the sender's clock, in
    /// microseconds. Only differences between samples are meaningful.
    pub delay_us: i64,
    /// Whether the device dropped datagrams meanwhile because a buffer was full.
    pub overflowed: bool,
}

/// The result of evaluating a stretch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finding {
    /// The stretch is too short to evaluate.
    Nothing,
    /// The path carried the stretch, apart from its own loss.
    Clear(Clear),
    /// The path did not carry the stretch. The value is the capacity as a share of the sending rate (its
    /// own loss not counted), above 0 and at most 1.
    Congested(f64),
}

/// Details of a clear path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clear {
    /// A loss has just proved to be the path's own rather than congestion.
    pub random: bool,
    /// The present queue on the path.
    pub queue: Duration,
}

impl Clear {
    /// Combines the findings of two paths.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { random: self.random || other.random, queue: self.queue.max(other.queue) }
    }
}

/// The minimum of the recent values.
#[derive(Clone, Copy, Debug, Default)]
struct Least {
    since: Time,
    now: Option<f64>,
    before: Option<f64>,
}

impl Least {
    fn note(&mut self, now: Time, value: f64) {
        if self.now.is_none() || now >= self.since + MEMORY {
            // Values older than twice the memory are dropped.
            let recent = now < self.since + MEMORY * 2;
            (self.before, self.now, self.since) = (self.now.filter(|_| recent), None, now);
        }
        self.now = Some(self.now.map_or(value, |least| least.min(value)));
    }
    fn get(&self) -> Option<f64> {
        [self.now, self.before].into_iter().flatten().reduce(f64::min)
    }
}

/// What is known about one path.
#[derive(Debug, Default)]
pub struct Path {
    /// The path's own loss, and the number of stretches that it was estimated from.
    own: f64,
    looks: f64,
    /// The sending rate (datagrams a second) and the excess loss at which congestion was first suspected
    /// because of loss alone.
    suspicion: Option<(f64, f64)>,
    delay_us: Least,
    /// The best rate that the path carried since it was last congested, in datagrams a second.
    best: f64,
    carries: Option<f64>,
}

impl Path {
    /// The capacity that the last stretch showed, in datagrams sent a second. The real capacity may be
    /// higher.
    #[must_use]
    pub const fn carries(&self) -> Option<f64> {
        self.carries
    }

    /// The highest rate that the path carried since it was last congested, in datagrams sent a second; 0 if it carried
    /// none. It is not forgotten with time: a device that holds the group's rate down would then become the measure of
    /// what the others carry, and could hold it down further.
    #[must_use]
    pub const fn best(&self) -> f64 {
        self.best
    }

    /// Evaluates a stretch. `trial` says whether its rate was a trial.
    pub fn observe(&mut self, now: Time, sample: &Sample, trial: Trial) -> Finding {
        let raising = trial != Trial::None;
        if sample.sent < FEWEST || sample.sent_in.is_zero() || sample.received_in.is_zero() {
            return Finding::Nothing;
        }
        let loss = 1.0 - (sample.received as f64 / sample.sent as f64).min(1.0);
        let rate = sample.sent as f64 / sample.sent_in.as_secs_f64();
        let delay = sample.delay_us as f64;
        let grown = sample.received_in.as_secs_f64() - sample.sent_in.as_secs_f64();
        // The first datagram of the stretch may have met a shorter queue.
        self.delay_us.note(now, delay - (grown * 1e6).max(0.0));
        let queue_us = delay - self.delay_us.get().unwrap_or(delay);
        let queue = Duration::from_micros(queue_us.max(0.0) as u64);
        let mut random = false;
        if let Some((suspect_rate, suspect_excess)) = self.suspicion
            && rate <= SLOWER * suspect_rate
            && loss - self.own >= STAYS * suspect_excess
            && queue <= QUEUE_GROWING
            && !sample.overflowed
        {
            // The loss stays at a lower rate, and nothing overflows: it is the path's own.
            (self.own, random) = (loss, true);
        }
        // A false alarm is cheap during a trial, and expensive otherwise.
        let sigmas = if raising { SIGMAS_RAISING } else { SIGMAS };
        let chance = sigmas * (2.0 * self.own.max(0.001) * (1.0 - self.own) / sample.sent as f64).sqrt();
        let excess = loss - self.own;
        let counts = excess > LOSS_MARGIN + chance;
        let received_rate = sample.received as f64 / sample.received_in.as_secs_f64();
        let carried = received_rate / (1.0 - self.own).max(0.05) / rate;
        let growing = match trial {
            Trial::Probe => queue > QUEUE_PROBE && carried < 1.0,
            Trial::None | Trial::Start => queue > QUEUE_GROWING && carried < KEEPS_UP,
        };
        let congested = queue > QUEUE_LIMIT && carried < SHRINKS
            || growing
            || counts && (queue > QUEUE_WITH_LOSS || sample.overflowed)
            || excess > LOSS_ALONE + chance;
        self.carries = Some(rate * carried.clamp(0.0, 1.0));
        if !congested {
            self.best = self.best.max(rate);
            self.suspicion = None;
            if !raising {
                // A plain mean at first, later a moving average.
                self.looks += 1.0;
                self.own += (loss - self.own) * LEARNING.max(1.0 / self.looks);
            }
            return Finding::Clear(Clear { random, queue });
        }
        // Earlier rates say nothing about the path any more.
        self.best = 0.0;
        let by_loss_alone = queue <= QUEUE_WITH_LOSS && !sample.overflowed;
        if by_loss_alone && self.suspicion.is_none_or(|(suspect_rate, _)| rate > suspect_rate) {
            self.suspicion = Some((rate, excess));
        }
        // Outside a trial, a queue without loss reduces the rate gently: it may come from the scheduling
        // of a busy machine.
        let least = if counts || raising { 0.01 } else { GENTLY };
        Finding::Congested(carried.clamp(least, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_late_is_forgotten_in_time() {
        let mut least = Least::default();
        let at = |s| Time::ZERO + Duration::from_secs(s);
        least.note(at(1), 3.0);
        least.note(at(2), 5.0);
        assert_eq!(least.get(), Some(3.0));
        least.note(at(7), 6.0);
        assert_eq!(least.get(), Some(3.0));
        least.note(at(12), 7.0);
        assert_eq!(least.get(), Some(6.0));
        least.note(at(100), 9.0);
        assert_eq!(least.get(), Some(9.0));
    }

    #[test]
    fn what_a_device_drops_itself_is_never_taken_for_the_way_of_its_own() {
        let (mut path, now) = (Path::default(), Time::ZERO);
        let second = Duration::from_secs(1);
        let sample = |sent: u64, received| Sample {
            sent,
            received,
            sent_in: second,
            received_in: second,
            delay_us: 100,
            overflowed: true,
        };
        assert_eq!(path.observe(now, &sample(1000, 700), Trial::None), Finding::Congested(0.7));
        assert_eq!(path.observe(now, &sample(700, 490), Trial::None), Finding::Congested(0.7));
        assert_eq!((path.carries().map(f64::round), path.best()), (Some(490.0), 0.0));
        assert_eq!(path.observe(now, &sample(400, 400), Trial::None), Finding::Clear(Clear::default()));
        assert_eq!((path.carries(), path.best()), (Some(400.0), 400.0));
    }
}
