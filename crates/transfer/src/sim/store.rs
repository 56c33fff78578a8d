//! A store that is slow, away for a while, or gone, as its plan says.

use super::scenario::{Draw, Expectation, Scenario};
use crate::store::{MemoryStore, StoreError, TaskStore};
use crate::task::Assignment;
use crate::time::Time;
use crate::units::{DeviceId, TaskId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is wrong with the sender's store.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorePlan {
    /// How long each request takes.
    pub slow: Duration,
    /// It fails from here to there.
    pub away: Option<(Time, Time)>,
    /// From then on it does not answer at all.
    pub silent: Option<Time>,
}

impl StorePlan {
    /// Whether it is sound again within the sender's patience.
    #[must_use]
    pub fn comes_back(&self) -> bool {
        self.silent.is_none() && self.away.is_none_or(|(_, end)| end < Time::NEVER)
    }

    /// How long a request at `now` takes.
    #[must_use]
    pub fn delay(&self, now: Time) -> Duration {
        const NEVER: Duration = Duration::from_secs(1 << 30);
        if self.silent.is_some_and(|from| now >= from) { NEVER } else { self.slow }
    }
}

/// What tells a [`SimStore`] the time.
#[derive(Clone, Debug, Default)]
pub struct StoreClock(Arc<AtomicU64>);

impl StoreClock {
    /// It is `now`.
    pub fn set(&self, now: Time) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

/// The store of a sender.
#[derive(Debug, Default)]
pub struct SimStore {
    inner: MemoryStore,
    plan: StorePlan,
    clock: StoreClock,
}

impl SimStore {
    /// An empty store that fares as `plan` says.
    #[must_use]
    pub fn new(plan: StorePlan, clock: StoreClock) -> Self {
        Self { inner: MemoryStore::new(), plan, clock }
    }

    fn answer<T>(
        &mut self,
        f: impl FnOnce(&mut MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let now = Time(self.clock.0.load(Ordering::Relaxed));
        if self.plan.away.is_some_and(|(from, to)| now >= from && now < to) {
            return Err(StoreError::Unavailable("the database is away".to_owned()));
        }
        f(&mut self.inner)
    }
}

impl TaskStore for SimStore {
    fn look_up(&mut self, task: TaskId, devices: &[DeviceId]) -> Result<Vec<Option<Assignment>>, StoreError> {
        self.answer(|store| store.look_up(task, devices))
    }
    fn record(&mut self, assignments: &[Assignment]) -> Result<Vec<Assignment>, StoreError> {
        self.answer(|store| store.record(assignments))
    }
    fn assignments(&mut self, task: TaskId) -> Result<Vec<Assignment>, StoreError> {
        self.answer(|store| store.assignments(task))
    }
}

impl Draw {
    /// Gives the sender of some scenarios a store that is slow, away for a while, or gone for good.
    pub(super) fn store_trouble(mut self, mut scenario: Scenario) -> Scenario {
        let horizon = scenario.wait.as_millis() as u64 + 5_000;
        let store = &mut scenario.sender.store;
        match self.rng.u32(..100) {
            0..5 => store.slow = self.between(1, 3_000),
            5..10 => {
                let from = Time::ZERO + self.between(0, horizon);
                store.away = Some((from, from + self.between(100, 12_000)));
            }
            10..12 => store.silent = Some(Time::ZERO + self.between(0, horizon)),
            _ => {}
        }
        if !store.comes_back() {
            // Who is not in by then is not let in, and who completes after it is not known to have.
            for plan in &mut scenario.devices {
                if plan.expectation == Expectation::Complete {
                    plan.expectation = Expectation::Any;
                }
            }
        }
        scenario
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Plain;
    use super::super::totals::Totals;
    use super::super::transfer;
    use super::*;

    const PLAIN: Plain =
        Plain { devices: 6, loss: 0.01, size: 2 << 20, symbol_size: 1408, rate: 10_000_000, disk: None };

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    fn run(store: StorePlan) -> Totals {
        let mut scenario = Scenario::plain(11, &PLAIN);
        scenario.sender.store = store;
        if !store.comes_back() {
            scenario.devices.iter_mut().for_each(|plan| plan.expectation = Expectation::Any);
        }
        transfer::run(&scenario, None)
    }

    fn struck(totals: &Totals, class: &str) -> u64 {
        totals.faults.classes().find(|(c, _)| *c == class).map_or(0, |(_, times)| times)
    }

    #[test]
    fn a_store_that_is_slow_by_seconds_slows_no_transfer() {
        let sound = run(StorePlan::default());
        let slow = run(StorePlan { slow: Duration::from_secs(3), ..StorePlan::default() });
        assert_eq!((sound.complete, slow.complete), (6, 6));
        assert!(slow.transfer_time < sound.transfer_time * 11 / 10, "{slow:?} {sound:?}");
        assert_eq!(struck(&slow, "store: failed"), 0, "slow is not away");
    }

    #[test]
    fn a_store_that_is_away_for_a_while_gets_everything_afterwards() {
        // From before anybody joins; while all join; over the end, for longer than devices repeat their receipts.
        for (from, to) in [(0, 5_000), (200, 1_000), (1_500, 40_000)] {
            let totals = run(StorePlan { away: Some((at(from), at(to))), ..StorePlan::default() });
            assert_eq!(totals.complete, 6, "{from} {to}");
            assert_eq!(struck(&totals, "store: failed"), 1, "{from} {to}: said once");
            assert_eq!(struck(&totals, "store: given up"), 0);
        }
    }

    #[test]
    fn without_a_store_those_who_are_in_are_served_and_the_run_says_what_happened() {
        let mid = at(1_200);
        let failing = StorePlan { away: Some((mid, Time::NEVER)), ..StorePlan::default() };
        let silent = StorePlan { silent: Some(mid), ..StorePlan::default() };
        for plan in [failing, silent] {
            let totals = run(plan);
            assert_eq!(totals.complete, 6, "the transfers go on");
            assert_eq!(struck(&totals, "store: given up"), 1);
        }
        let totals = run(StorePlan { silent: Some(Time::ZERO), ..StorePlan::default() });
        assert_eq!((totals.complete, struck(&totals, "store: given up")), (0, 1), "nobody is let in");
    }
}
