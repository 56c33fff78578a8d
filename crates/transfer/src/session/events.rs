//! The event stream of a session: a bounded queue between the session's thread, which never waits for it, and a
//! reader of any speed.
//!
//! Important events are kept. An event of which only the latest counts (the row of a device) replaces the one
//! before, so the queue grows with the number of devices and not with time. Other events are dropped and counted
//! once [`MAX_EVENTS`] wait.

use crate::protocol::event::{ReceiverEvent, SenderEvent};
use crate::time::Time;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// If this many events wait, passing ones are dropped.
pub const MAX_EVENTS: usize = 1024;

/// An event of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionEvent<E> {
    /// The time, by the session's clock.
    pub at: Time,
    /// The event itself.
    pub what: What<E>,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq)]
pub enum What<E> {
    /// A change of the session.
    Changed(E),
    /// Something that the user should know although the session goes on.
    Warning(String),
    /// A detail: interface chosen, buffer sizes, features.
    Note(String),
}

/// What happens to an event if the reader is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It is kept.
    Kept,
    /// It replaces an unread event with the same key.
    Latest(Key),
    /// It is dropped if many events wait.
    Passing,
}

/// Identifies events that replace one another: the kind, and whose they are.
pub type Key = (u8, [u8; 16]);

/// An event that can be weighed.
pub trait Weigh {
    /// What happens to the event if the reader is slow.
    fn weight(&self) -> Weight;
}

impl Weigh for SenderEvent {
    fn weight(&self) -> Weight {
        match self {
            Self::Phase(_) | Self::Hashed(_) | Self::Finished(_) => Weight::Kept,
            Self::Joined { device, .. } => Weight::Latest((1, device.0)),
            Self::Device(row) => Weight::Latest((2, row.assignment.device.0)),
            Self::StoreFails(_) | Self::StoreAnswers => Weight::Latest((4, [0; 16])),
            Self::DuplicateId { .. } | Self::DeviceKeyChanged { .. } | Self::NotListed { .. } => {
                Weight::Passing
            }
        }
    }
}

impl Weigh for ReceiverEvent {
    fn weight(&self) -> Weight {
        match self {
            Self::BlockRejected(_)
            | Self::ForgedSymbols { .. }
            | Self::SenderRefused { .. }
            | Self::SenderNeeds { .. }
            | Self::OtherName { .. } => Weight::Passing,
            _ => Weight::Kept,
        }
    }
}

impl<E: Weigh> Weigh for What<E> {
    fn weight(&self) -> Weight {
        match self {
            Self::Changed(event) => event.weight(),
            Self::Warning(_) | Self::Note(_) => Weight::Passing,
        }
    }
}

/// Called by the session's thread after an event was added.
pub type Notify = Box<dyn Fn() + Send>;

struct State<E> {
    /// The waiting events, in order.
    waiting: BTreeMap<u64, SessionEvent<E>>,
    latest: BTreeMap<Key, u64>,
    next: u64,
    missed: u64,
    closed: bool,
    notify: Option<Notify>,
}

struct Shared<E> {
    state: Mutex<State<E>>,
    changed: Condvar,
}

impl<E> Shared<E> {
    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing end of the queue. Closes the queue when dropped.
pub(super) struct EventSender<E>(Arc<Shared<E>>);

/// The reading end of the queue. Clones read from the same queue.
pub struct Events<E>(Arc<Shared<E>>);

impl<E> Clone for Events<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Creates a queue.
pub(super) fn queue<E: Weigh>() -> (EventSender<E>, Events<E>) {
    let state = State {
        waiting: BTreeMap::new(),
        latest: BTreeMap::new(),
        next: 0,
        missed: 0,
        closed: false,
        notify: None,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    (EventSender(Arc::clone(&shared)), Events(shared))
}

impl<E: Weigh> EventSender<E> {
    /// Adds an event. Never waits for the reader.
    pub fn send(&self, at: Time, what: What<E>) {
        let mut state = self.0.lock();
        match what.weight() {
            Weight::Kept => {}
            Weight::Passing if state.waiting.len() >= MAX_EVENTS => {
                state.missed += 1;
                return;
            }
            Weight::Passing => {}
            Weight::Latest(key) => {
                let next = state.next;
                if let Some(before) = state.latest.insert(key, next) {
                    state.waiting.remove(&before);
                }
            }
        }
        let next = state.next;
        state.next += 1;
        state.waiting.insert(next, SessionEvent { at, what });
        if let Some(notify) = &state.notify {
            notify();
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

impl<E> Drop for EventSender<E> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        if let Some(notify) = state.notify.take() {
            notify();
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl<E: Weigh> State<E> {
    fn take(&mut self) -> Option<SessionEvent<E>> {
        let (number, event) = self.waiting.pop_first()?;
        if let Weight::Latest(key) = event.what.weight() {
            // An earlier event of this key would have been replaced.
            debug_assert_eq!(self.latest.get(&key), Some(&number));
            self.latest.remove(&key);
        }
        Some(event)
    }
}

impl<E: Weigh> Events<E> {
    /// Waits for the next event. `None` once the session has ended and every event has been read.
    pub fn next(&self) -> Option<SessionEvent<E>> {
        let mut state = self.0.lock();
        loop {
            match state.take() {
                None if !state.closed => {
                    state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                other => return other,
            }
        }
    }

    /// Waits up to `time` for the next event.
    pub fn next_within(&self, time: Duration) -> Option<SessionEvent<E>> {
        let end = Instant::now() + time;
        let mut state = self.0.lock();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match state.take() {
                None if !state.closed && !left.is_zero() => {
                    let waited = self.0.changed.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                other => return other,
            }
        }
    }

    /// The next event, if there is one.
    pub fn try_next(&self) -> Option<SessionEvent<E>> {
        self.0.lock().take()
    }

    /// Whether the session has ended and every event has been read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let state = self.0.lock();
        state.closed && state.waiting.is_empty()
    }

    /// The number of events that were dropped because the reader was slow.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.0.lock().missed
    }

    /// Registers a function that the session's thread calls after each event and once at the end. It must be
    /// quick. It serves callers that wait for other things too.
    pub fn notify(&self, notify: Notify) {
        let mut state = self.0.lock();
        if state.closed || !state.waiting.is_empty() {
            notify();
        }
        state.notify = Some(notify);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Toy {
        Kept(u32),
        Row(u8, u32),
        Passing(u32),
    }

    impl Weigh for Toy {
        fn weight(&self) -> Weight {
            match self {
                Self::Kept(_) => Weight::Kept,
                Self::Row(device, _) => Weight::Latest((0, [*device; 16])),
                Self::Passing(_) => Weight::Passing,
            }
        }
    }

    fn drain(events: &Events<Toy>) -> Vec<Toy> {
        std::iter::from_fn(|| events.try_next())
            .map(|event| match event.what {
                What::Changed(toy) => toy,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_slow_reader_loses_nothing_that_matters_and_the_queue_is_bounded() {
        let (sender, events) = queue();
        let send = |toy| sender.send(Time::ZERO, What::Changed(toy));
        for n in 0..100_000 {
            send(Toy::Row((n % 7) as u8, n));
            send(Toy::Passing(n));
            if n % 10_000 == 0 {
                send(Toy::Kept(n));
            }
        }
        assert!(events.0.lock().waiting.len() <= MAX_EVENTS + 10 + 7);
        let (missed, all) = (events.missed(), drain(&events));
        let kept: Vec<Toy> = all.iter().copied().filter(|t| matches!(t, Toy::Kept(_))).collect();
        assert_eq!(kept, (0..10).map(|n| Toy::Kept(n * 10_000)).collect::<Vec<_>>());
        let mut rows: Vec<Toy> = all.iter().copied().filter(|t| matches!(t, Toy::Row(..))).collect();
        rows.sort_by_key(|row| if let Toy::Row(_, n) = row { *n } else { 0 });
        let latest: Vec<Toy> = (99_993..100_000).map(|n| Toy::Row((n % 7) as u8, n)).collect();
        assert_eq!(rows, latest, "of each device the latest");
        let passing = all.iter().filter(|t| matches!(t, Toy::Passing(_))).count() as u64;
        assert_eq!(passing + missed, 100_000, "what was left out is counted");
        // Once it is read, rows are news again.
        send(Toy::Row(1, 1));
        send(Toy::Row(2, 2));
        send(Toy::Row(1, 3));
        assert_eq!(drain(&events), [Toy::Row(2, 2), Toy::Row(1, 3)]);
    }

    #[test]
    fn the_end_is_told_and_what_came_before_it_is_read_first() {
        let (sender, events) = queue();
        let told = Arc::new(Mutex::new(0));
        let count = Arc::clone(&told);
        events.notify(Box::new(move || *count.lock().unwrap() += 1));
        assert!(events.next_within(Duration::from_millis(1)).is_none() && !events.is_over());
        let reader = events.clone();
        let thread = std::thread::spawn(move || std::iter::from_fn(|| reader.next()).count());
        for n in 0..10 {
            sender.send(Time::ZERO, What::Changed(Toy::Kept(n)));
        }
        drop(sender);
        assert_eq!(thread.join().unwrap(), 10);
        assert!(events.is_over() && events.next().is_none());
        assert_eq!(*told.lock().unwrap(), 11);
    }
}
