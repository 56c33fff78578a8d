//! Whose turn it is: one session at a time, by the order of the tasks. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a place is kept for devices that do not ask again.
const KEPT: Duration = Duration::from_secs(30);

/// The place of an object: tasks of higher weight first, then the older ones; the objects of a task in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    weight: Reverse<u16>,
    task: i64,
    position: usize,
}

impl Place {
    pub(super) const fn new(weight: u16, task: i64, position: usize) -> Self {
        Self { weight: Reverse(weight), task, position }
    }
}

/// The objects that devices ask for, and for how long each still counts.
#[derive(Debug, Default)]
pub(super) struct Queue(BTreeMap<Place, Instant>);

impl Queue {
    /// Takes or keeps a place. Returns whether it is the first.
    pub(super) fn is_first(&mut self, place: Place, now: Instant) -> bool {
        self.0.retain(|_, until| *until > now);
        self.0.insert(place, now + KEPT);
        self.0.first_key_value().is_some_and(|(first, _)| *first == place)
    }

    /// Gives a place up.
    pub(super) fn leave(&mut self, place: Place) {
        self.0.remove(&place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_come_by_weight_and_age_and_who_does_not_ask_is_passed_over() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let (older, newer) = (Place::new(1000, 1, 0), Place::new(1000, 2, 0));
        let (second, heavy) = (Place::new(1000, 1, 1), Place::new(2000, 3, 0));
        assert!(queue.is_first(newer, now));
        assert!(queue.is_first(older, now) && !queue.is_first(newer, now) && !queue.is_first(second, now));
        assert!(queue.is_first(heavy, now) && !queue.is_first(older, now));
        queue.leave(heavy);
        let later = now + KEPT;
        assert!(queue.is_first(newer, later), "nobody asked for the older one");
    }
}
