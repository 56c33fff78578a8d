//! Gathering: how devices are invited without their answers flooding the sender, and when the
//! stream starts.
//!
//! The number of devices out there is unknown. So announces go round in steps which invite a rising
//! share of them (1/64, 1/16, 1/4, all). As soon as the joins that a step brought show a crowd,
//! one announce invites all of it over a window that keeps the joins within their share of the
//! feedback bound (I10), and the round of steps rests until that window is over.

use crate::limits::JOINS_PER_SECOND;
use crate::time::Time;
use crate::wire::Invitation;
use std::time::Duration;

/// Delay over which an uncrowded step spreads its answers.
const STEP_WINDOW: Duration = Duration::from_millis(20);
/// More joins than this may not be expected from one step.
const CROWD: u32 = 32;
/// log2 of the divisors of the steps' shares.
const STEPS: [u32; 4] = [6, 4, 2, 0];

/// Decides what each announce invites.
#[derive(Debug)]
pub(super) struct Gather {
    step: usize,
    /// Joins that came since the last announce.
    joins: u32,
    /// All may be asked to answer again only after this.
    draining_until: Time,
}

impl Gather {
    pub const fn new() -> Self {
        Self { step: 0, joins: 0, draining_until: Time::ZERO }
    }

    pub const fn joined(&mut self) {
        self.joins += 1;
    }

    /// The invitation of the announce that goes out now.
    pub fn invite(&mut self, now: Time) -> Invitation {
        let joins = std::mem::take(&mut self.joins);
        if now < self.draining_until {
            // Those whom the crowd's announce did not reach are invited too, over what is left.
            return Invitation { probability: u16::MAX, window: self.draining_until.since(now) };
        }
        let last = STEPS[(self.step + STEPS.len() - 1) % STEPS.len()];
        let next = STEPS[self.step];
        // Joins of the last step, scaled to what all would have brought and to what the next will.
        let crowd = joins << last;
        self.step = (self.step + 1) % STEPS.len();
        if self.step != 1 && (crowd >> next) > CROWD {
            let window = Duration::from_secs(1) * crowd / JOINS_PER_SECOND;
            self.draining_until = now + window;
            self.step = 0;
            return Invitation { probability: u16::MAX, window };
        }
        Invitation { probability: u16::MAX >> next, window: STEP_WINDOW }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FEEDBACK_PER_SECOND;

    /// Plays `devices` waiting devices against the invitations; returns the most joins in any
    /// second and the time until all had joined.
    fn crowd(devices: usize, step: Duration, seed: u64) -> (usize, Duration) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut gather, mut now) = (Gather::new(), Time::ZERO);
        let mut at: Vec<Option<Time>> = vec![None; devices];
        loop {
            let invitation = gather.invite(now);
            for slot in at.iter_mut().filter(|slot| slot.is_none()) {
                if rng.u16(..) <= invitation.probability {
                    *slot = Some(now + invitation.window.mul_f64(rng.f64()));
                }
            }
            let next = now + step;
            let came = at.iter().flatten().filter(|&&t| t >= now && t < next).count();
            (0..came).for_each(|_| gather.joined());
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
    fn a_few_devices_are_in_after_one_round_of_steps() {
        for seed in 0..50 {
            let (_, time) = crowd(4, Duration::from_millis(50), seed);
            assert!(time <= Duration::from_millis(250), "seed {seed}: {time:?}");
        }
    }

    #[test]
    fn crowds_of_any_size_stay_within_the_bound() {
        for devices in [50, 300, 1_000, 10_000] {
            for seed in 0..5 {
                let (most, time) = crowd(devices, Duration::from_millis(50), seed);
                assert!(most <= FEEDBACK_PER_SECOND as usize, "seed {seed}, {devices}: {most}/s");
                assert!(time <= Duration::from_secs(1 + devices as u64 / 50), "{devices}: {time:?}");
            }
        }
    }
}
