//! What one device's reports say of the path to it: whether it is congested, and what it carries.
//!
//! Loss that does not depend on the rate is no reason to slow down. So the loss at rates that are known
//! to be carried is the path's own; what is lost beyond it together with a queue that has grown, or
//! with a socket that has overflowed, is congestion, and so is a long queue alone. Then what still arrives, per second, is what the path carries. A heavy loss out of the blue is
//! suspected to be congestion too, until it has stayed at a lower rate.

use crate::time::Time;
use std::time::Duration;

/// How far back the shortest delay and the best rate are looked for, at least; at most twice as far.
const MEMORY: Duration = Duration::from_secs(5);
/// Loss beyond the path's own that is not yet congestion.
const LOSS_MARGIN: f64 = 0.01;
/// Standard deviations of the loss of a stretch that are put down to chance.
const SIGMAS: f64 = 3.5;
/// The same for a try.
const SIGMAS_RAISING: f64 = 1.5;
/// A loss is the path's own if this share of it stays ...
const STAYS: f64 = 0.6;
/// ... at this share of the rate.
const SLOWER: f64 = 0.8;
/// A queue that has grown by so much is congestion, loss or not.
const QUEUE_LIMIT: Duration = Duration::from_millis(100);
/// A queue of so much that goes on growing is congestion.
const QUEUE_GROWING: Duration = Duration::from_millis(15);
/// So much, if it grows at all, ends a probe.
const QUEUE_PROBE: Duration = Duration::from_millis(8);
/// No more than this is taken off at a time for a queue alone.
const GENTLY: f64 = 0.85;
/// What arrives of what is sent when no queue grows.
const KEEPS_UP: f64 = 0.95;
/// A queue that has grown by so much is congestion together with loss.
const QUEUE_WITH_LOSS: Duration = Duration::from_millis(2);
/// Loss beyond the path's own that is suspected to be congestion even at a rate that was fine before,
/// and with no queue to be seen.
const LOSS_ALONE: f64 = 0.1;
/// What a stretch adds to what is known of the path's own loss, at least.
const LEARNING: f64 = 0.15;
/// Fewer datagrams in a stretch say nothing.
const FEWEST: u64 = 24;

/// Whether a rate is a try whether more is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It is not: a false alarm costs much.
    None,
    /// At the start: from here it goes up in great steps.
    Start,
    /// Now and then, in small steps from what is carried: the least queue ends it, at little cost.
    Probe,
}

/// How a stretch of datagrams was sent, and how it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams of them that came.
    pub received: u64,
    /// Time from sending the first to sending the last.
    pub sent_in: Duration,
    /// Time from the arrival of the first to that of the last.
    pub received_in: Duration,
    /// Arrival of the last by the device's clock, less its sending by ours, in microseconds; only
    /// differences mean anything.
    pub delay_us: i64,
    /// The device has dropped datagrams for want of room meanwhile.
    pub overflowed: bool,
}

/// What a stretch says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finding {
    /// Too short to say.
    Nothing,
    /// The path carried it, but for the losses it has at any rate.
    Clear(Clear),
    /// It did not: of every second's worth sent, this share of the sending rate is carried
    /// (losses of its own not counted), above 0 and at most 1.
    Congested(f64),
}

/// How well what was sent was carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clear {
    /// Losses that the path has at any rate have just been told from congestion.
    pub random: bool,
    /// The queue on the path, as far as it has grown of late.
    pub queue: Duration,
}

impl Clear {
    /// What two paths have in common.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { random: self.random || other.random, queue: self.queue.max(other.queue) }
    }
}

/// The least of the values of late.
#[derive(Clone, Copy, Debug, Default)]
struct Least {
    since: Time,
    now: Option<f64>,
    before: Option<f64>,
}

impl Least {
    fn note(&mut self, now: Time, value: f64) {
        if self.now.is_none() || now >= self.since + MEMORY {
            // What is older than twice the memory is forgotten.
            let recent = now < self.since + MEMORY * 2;
            (self.before, self.now, self.since) = (self.now.filter(|_| recent), None, now);
        }
        self.now = Some(self.now.map_or(value, |least| least.min(value)));
    }
    fn get(&self) -> Option<f64> {
        [self.now, self.before].into_iter().flatten().reduce(f64::min)
    }
}

/// The memory of one path.
#[derive(Debug, Default)]
pub struct Path {
    /// Loss at any rate, and how many stretches it was learnt from.
    own: f64,
    looks: f64,
    /// The sending rate (datagrams a second) at which congestion was suspected first, for no reason but
    /// a loss so much greater than the path's own.
    suspicion: Option<(f64, f64)>,
    delay_us: Least,
    /// What it has carried of late at its best, in datagrams a second, negated.
    best: Least,
    carries: Option<f64>,
}

impl Path {
    /// What it was last seen to carry, in datagrams a second sent; it may carry more.
    #[must_use]
    pub const fn carries(&self) -> Option<f64> {
        self.carries
    }

    /// The most that it has carried of late, since it was last congested, in datagrams a second sent.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.best.get().map_or(0.0, |best| -best)
    }

    /// Takes a stretch in and says what it means; `trial` whether the rate it was sent at was a try.
    pub fn observe(&mut self, now: Time, sample: &Sample, trial: Trial) -> Finding {
        let raising = trial != Trial::None;
        if sample.sent < FEWEST || sample.sent_in.is_zero() || sample.received_in.is_zero() {
            return Finding::Nothing;
        }
        let loss = 1.0 - (sample.received as f64 / sample.sent as f64).min(1.0);
        let rate = sample.sent as f64 / sample.sent_in.as_secs_f64();
        let delay = sample.delay_us as f64;
        let grown = sample.received_in.as_secs_f64() - sample.sent_in.as_secs_f64();
        // The first of the stretch may have met a shorter queue.
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
            // It stays when the rate falls, and nothing overflows: that is the path's own loss.
            (self.own, random) = (loss, true);
        }
        // A false alarm costs little while trying, and much otherwise.
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
        let congested = queue > QUEUE_LIMIT
            || growing
            || counts && (queue > QUEUE_WITH_LOSS || sample.overflowed)
            || excess > LOSS_ALONE + chance;
        self.carries = Some(rate * carried.clamp(0.0, 1.0));
        if !congested {
            self.best.note(now, -rate);
            self.suspicion = None;
            if !raising {
                // The mean at first, and then that of late.
                self.looks += 1.0;
                self.own += (loss - self.own) * LEARNING.max(1.0 / self.looks);
            }
            return Finding::Clear(Clear { random, queue });
        }
        // What it carried before says nothing any more.
        self.best = Least::default();
        let by_loss_alone = queue <= QUEUE_WITH_LOSS && !sample.overflowed;
        if by_loss_alone && self.suspicion.is_none_or(|(suspect_rate, _)| rate > suspect_rate) {
            self.suspicion = Some((rate, excess));
        }
        // A queue without loss is drained gently: it may be a busy machine's scheduling. Not so a try.
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
