//! Gathering: invites devices without being flooded by their answers.
//!
//! The number of devices is unknown. All of them may have been waiting for this sender, or start at the same moment.
//! So each device limits itself: it answers the first announcements that it hears with a low probability that rises
//! from one to the next ([`crate::limits::join_ceiling`]). When an announcement brings more joins than their share of
//! the feedback budget (I10), the sender lowers the probability for all devices.
//!
//! A host that invents devices must not keep the others out. So the joins of one place count for at most half of
//! that share, and the probability has a floor, at which the largest possible group keeps to its share.

use super::Sender;
use crate::limits::{ANNOUNCE_INTERVAL, FeedbackBudget, MAX_DEVICES, STORE_PATIENCE};
use crate::protocol::event::SenderOutcome;
use crate::task::State;
use crate::time::Time;
use crate::wire::{AbortCode, Invitation, Phase};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest delay over which the answers to one announcement are spread, unless a crowd answers. It is also at most two
/// thirds of the interval between announcements, so that the sender sees how many answered before it announces again.
const WINDOW: Duration = Duration::from_millis(20);

/// Chooses the invitation of each announcement.
#[derive(Debug)]
pub(super) struct Gather {
    probability: f64,
    /// Joins since the last announcement, by the place that they came from. Key agreements bound them.
    joins: BTreeMap<usize, u32>,
    /// When gathering ends at the latest.
    pub until: Time,
    /// When it ended and the transfer started.
    pub started: Option<Time>,
    last_join: Option<Time>,
    /// Whether a device is ready, or was.
    has_begun: bool,
}

impl Gather {
    pub const fn new(until: Time) -> Self {
        Self {
            probability: 1.0,
            joins: BTreeMap::new(),
            until,
            started: None,
            last_join: None,
            has_begun: false,
        }
    }

    /// A device at this place has joined.
    pub fn joined(&mut self, place: usize, now: Time) {
        *self.joins.entry(place).or_default() += 1;
        self.last_join = Some(now);
    }

    /// The invitation of an announcement that is sent `interval` after the one before.
    pub fn invite(&mut self, interval: Duration, feedback: FeedbackBudget) -> Invitation {
        let target = f64::from(feedback.joins()) * interval.as_secs_f64();
        let most = (target / 2.0).max(1.0);
        let joins: f64 = self.joins.values().map(|&joins| f64::from(joins).min(most)).sum();
        self.joins.clear();
        let factor = if joins > target { target / joins } else { 2.0 };
        let least = (target / MAX_DEVICES as f64).max(1.0 / f64::from(u16::MAX));
        self.probability = (self.probability * factor).clamp(least, 1.0);
        let probability = (self.probability * f64::from(u16::MAX)).ceil() as u16;
        // The answers of a crowd must not arrive at once.
        let crowd = probability < u16::MAX;
        let window =
            if crowd { interval.min(ANNOUNCE_INTERVAL) * 2 / 3 } else { WINDOW.min(interval * 2 / 3) };
        Invitation { probability, window }
    }
}

impl Sender {
    /// Starts the stream when enough devices are ready, when none has joined for a while, or when the time to
    /// gather is over. It does not wait for a device that has reported that it cannot take the object (I3). A sender that
    /// lingers for ever waits for its first device for as long.
    pub(super) fn start_if_ready(&mut self, now: Time) {
        if self.phase != Phase::Gathering || self.shutdown.is_closing() {
            return;
        }
        // An empty object is complete as soon as its device knows of it.
        let counts = self.devices.counts();
        let ready = counts.open + counts.complete;
        if ready > 0 && !self.gather.has_begun {
            self.gather.has_begun = true;
            if self.config.wait_first.is_some() {
                self.gather.until = now + self.config.wait;
            }
        }
        let over = now >= self.gather.until;
        let (expected, last_join) = (self.config.task.options.expected(), self.gather.last_join);
        let all = expected.is_some_and(|n| ready + counts.failed >= n as usize);
        let settled = expected.is_none() && last_join.is_some_and(|last| now >= last + self.config.settle);
        if ready > 0 && (all || (settled || over) && !self.waits_for_store(now)) {
            self.start(now);
        } else if ready == 0 && self.end_without_store(now) {
            // No device that joins can be looked up.
        } else if over && !self.config.lingers_forever() && !self.records.is_looking_up() {
            self.finish(SenderOutcome::Ended, AbortCode::Finished, "no device came in time", now);
        }
    }

    /// Whether devices that came in time wait for the store, and would miss the beginning of a stream of which only the last
    /// blocks are kept.
    fn waits_for_store(&self, now: Time) -> bool {
        self.window.blocks.is_some()
            && self.records.is_looking_up()
            && now < self.gather.until + STORE_PATIENCE
    }

    pub(super) fn start(&mut self, now: Time) {
        self.decide_on_skipping();
        self.gather.started = Some(now);
        self.set_phase(Phase::Streaming, now);
        for index in self.devices.indices() {
            if !self.devices.get(index).is_final() {
                self.devices.get_mut(index).headway.wait(now);
                self.set_state(index, State::Active, now);
            }
        }
        self.drive_rounds(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::join_ceiling;
    use crate::time::Time;

    /// Plays `devices` devices, which start within `spread`, against the invitations; returns the
    /// most joins in any second and the time until all had joined.
    fn crowd(devices: usize, spread: Duration, feedback: FeedbackBudget, seed: u64) -> (usize, Duration) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut gather, mut now) = (Gather::new(Time::NEVER), Time::ZERO);
        let starts: Vec<Time> = (0..devices).map(|_| Time::ZERO + spread.mul_f64(rng.f64())).collect();
        let mut heard = vec![0; devices];
        let mut at: Vec<Option<Time>> = vec![None; devices];
        for announcement in 0_u64.. {
            // The first ones follow one another more closely.
            let step = Duration::from_millis(if announcement < 30 { 10 } else { 50 });
            let invitation = gather.invite(step, feedback);
            for i in 0..devices {
                if at[i].is_none() && starts[i] <= now {
                    let probability = invitation.probability.min(join_ceiling(heard[i]));
                    heard[i] += 1;
                    if rng.u16(..) <= probability {
                        at[i] = Some(now + invitation.window.mul_f64(rng.f64()));
                    }
                }
            }
            let next = now + step;
            let came = at.iter().flatten().filter(|&&t| t >= now && t < next).count();
            // Each has an address of its own.
            (0..came).for_each(|place| gather.joined(place, now));
            now = next;
            if at.iter().all(|t| t.is_some_and(|t| t < now)) {
                break;
            }
            assert!(now < Time::ZERO + Duration::from_secs(600), "seed {seed}: {devices} never in");
        }
        let mut times: Vec<Time> = at.into_iter().flatten().collect();
        times.sort();
        let mut most = 0;
        for (i, &t) in times.iter().enumerate() {
            let end = times.partition_point(|&x| x < t + Duration::from_secs(1));
            most = most.max(end - i);
        }
        (most, now.since(Time::ZERO))
    }

    #[test]
    fn a_few_devices_are_in_at_once() {
        for seed in 0..50 {
            let (_, time) = crowd(4, Duration::ZERO, FeedbackBudget::DEFAULT, seed);
            assert!(time <= Duration::from_millis(50), "seed {seed}: {time:?}");
        }
    }

    #[test]
    fn one_host_that_invents_devices_does_not_keep_the_others_out() {
        let (mut gather, step) = (Gather::new(Time::NEVER), Duration::from_millis(50));
        for _ in 0..200 {
            (0..10).for_each(|_| gather.joined(7, Time::ZERO));
            assert_eq!(
                gather.invite(step, FeedbackBudget::DEFAULT).probability,
                u16::MAX,
                "200 a second from one host"
            );
        }
        // A hundred hosts that do so bring it down, but not to nothing.
        for _ in 0..200 {
            (0..1_000).for_each(|n| gather.joined(n % 100, Time::ZERO));
            assert!(
                u64::from(gather.invite(step, FeedbackBudget::DEFAULT).probability) * MAX_DEVICES as u64
                    >= 5 * 65_535
            );
        }
    }

    #[test]
    fn crowds_of_any_size_stay_within_the_bound() {
        for devices in [50, 300, 1_000, 10_000] {
            for (seed, spread) in [0, 1, 500, 3_000].into_iter().enumerate() {
                let spread = Duration::from_millis(spread);
                for budget in [1_000, 5_000, 10_000] {
                    let feedback = FeedbackBudget::announced(budget);
                    let (most, time) = crowd(devices, spread, feedback, seed as u64);
                    // Each device joins twice.
                    assert!(2 * most <= budget.into(), "{spread:?}, {devices}: {most}/s of {budget}");
                    let joins = u64::from(feedback.joins());
                    let most =
                        Duration::from_secs(4) + Duration::from_secs(2) * devices as u32 / joins as u32;
                    assert!(time <= most, "{devices}, {budget}: {time:?}");
                }
            }
        }
    }
}
