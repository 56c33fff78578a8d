//! When the device asks about suspect blocks: at once in a small group, and so seldom in a large one that all
//! devices together stay within their share of the feedback (I10).

use crate::limits::FeedbackBudget;
use crate::time::Time;
use fastrand::Rng;
use std::time::Duration;

/// Groups up to this size need not spread their first questions.
const SMALL: u32 = 4;
/// Shortest and longest distance of repeated questions.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// The questions of one device.
#[derive(Debug)]
pub(super) struct Inquiry {
    /// When the next goes out; never if there is nothing to ask.
    due: Time,
    /// The next may not go out earlier.
    earliest: Time,
    patience: Duration,
}

impl Default for Inquiry {
    fn default() -> Self {
        Self { due: Time::NEVER, earliest: Time::ZERO, patience: PATIENCE.0 }
    }
}

impl Inquiry {
    pub const fn due(&self) -> Time {
        self.due
    }

    /// Digests have come: the sender is at it, and what is still missing was lost or is under way.
    pub fn answered(&mut self, now: Time) {
        self.patience = PATIENCE.0;
        if self.due != Time::NEVER {
            self.due = self.due.max(now + PATIENCE.0 / 2).max(self.earliest);
        }
    }

    /// Whether to ask now, in a group of so many devices; `any` says whether there is something to ask.
    pub fn is_due(&mut self, any: bool, group: (u32, FeedbackBudget), now: Time, rng: &mut Rng) -> bool {
        if !any {
            self.due = Time::NEVER;
            return false;
        }
        let (group, feedback) = group;
        let share = Duration::from_secs(1) * group / feedback.suspects();
        if self.due == Time::NEVER {
            let spread = if group <= SMALL { Duration::ZERO } else { share.mul_f64(rng.f64()) };
            self.due = (now + spread).max(self.earliest);
        }
        if now < self.due {
            return false;
        }
        self.earliest = now + share;
        self.due = (now + self.patience.mul_f64(0.75 + 0.5 * rng.f64())).max(self.earliest);
        self.patience = (self.patience * 2).min(PATIENCE.1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SUSPECTS_PER_SECOND;

    #[test]
    fn a_crowd_asks_within_its_share_and_a_few_at_once() {
        let mut rng = Rng::with_seed(4);
        let mut asked = |devices: u32, seconds: u64| {
            let mut inquiries: Vec<Inquiry> = (0..devices).map(|_| Inquiry::default()).collect();
            let mut times = Vec::new();
            for ms in 0..seconds * 1000 {
                let now = Time::ZERO + Duration::from_millis(ms);
                let due = inquiries
                    .iter_mut()
                    .map(|i| i.is_due(true, (devices, FeedbackBudget::default()), now, &mut rng));
                times.push(due.filter(|due| *due).count());
            }
            times
        };
        let few = asked(2, 10);
        assert_eq!(few[0], 2);
        // A quarter of a second, half of one, one, and then two.
        assert!((12..=20).contains(&few.iter().sum::<usize>()), "{few:?}");
        let crowd = asked(1_000, 60);
        let most = crowd.chunks(1000).map(|second| second.iter().sum::<usize>()).max();
        assert!(most.is_some_and(|most| most <= SUSPECTS_PER_SECOND as usize * 2), "{most:?}");
        let all: usize = crowd.iter().sum();
        assert!((2_000..=60 * SUSPECTS_PER_SECOND as usize).contains(&all), "{all}");
    }

    #[test]
    fn nothing_is_asked_for_nothing_and_an_answer_restores_the_patience() {
        const ONE: (u32, FeedbackBudget) = (1, FeedbackBudget::DEFAULT);
        let mut rng = Rng::with_seed(4);
        let mut inquiry = Inquiry::default();
        assert!(!inquiry.is_due(false, ONE, Time::ZERO, &mut rng));
        assert_eq!(inquiry.due(), Time::NEVER);
        assert!(inquiry.is_due(true, ONE, Time::ZERO, &mut rng));
        for _ in 0..5 {
            let now = inquiry.due();
            assert!(inquiry.is_due(true, ONE, now, &mut rng));
        }
        let now = inquiry.due();
        inquiry.answered(now);
        assert!(!inquiry.is_due(true, ONE, now, &mut rng) && inquiry.due() == now + PATIENCE.0 / 2);
        assert!(!inquiry.is_due(false, ONE, now, &mut rng) && inquiry.due() == Time::NEVER);
    }
}
