//! Segments that the server's multicast does not reach: one device of the segment, its *handler*, loads the object by HTTP and
//! performs the session for the others there.
//!
//! ```text
//!  a device that serves others asks ──► loading ──others wait for it───► performing ──it says that it is done──► over
//!                                         │ gone, or too slow             │ somebody comes back
//!                                         └──────► another handler ◄──────┘
//! ```
//!
//! A device is known to be out of reach once it has said that it heard nobody in a session that it was told of. What it says
//! counts for itself alone. All this is in memory: after a restart, devices say it again.

use super::super::neighbours::Segment;
use super::NOTICE;
use crate::ddi::Session;
use crate::limits::MAX_COUNTED_DEVICES;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// How long a device counts as out of reach.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// How long devices of a segment wait for one that could be its handler.
const GRACE: Duration = Duration::from_secs(10);
/// A handler has this time, and as long as this many bytes a second take, to load the object. Then another one may.
const LOADING: (Duration, u64) = (Duration::from_secs(60), 1_000_000);
/// Most objects that are performed in segments at a time.
const MAX_CALLS: usize = 4096;

/// Who performs an object for a segment, and how far that is.
#[derive(Debug)]
enum State {
    /// Nobody yet, and devices wait for one until then.
    Wanted(Instant),
    /// This device loads it, or has it by now.
    Loading { handler: String, since: Instant, until: Instant, heard: Instant },
    /// This device performs this session, to which these devices were invited.
    Performing(String, Session, BTreeSet<String>),
}

#[derive(Debug)]
struct Call {
    state: State,
    /// Handlers that have failed.
    failed: BTreeSet<String>,
    /// When anything last happened.
    touched: Instant,
}

/// What a device of a segment is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// To join this session.
    Join(Session),
    /// To ask again.
    Again,
    /// To load the object by HTTP.
    Alone,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Devices that are out of reach: where they are, and since when that is known.
    away: HashMap<String, (Segment, Instant)>,
    calls: HashMap<(blake3::Hash, Segment), Call>,
}

impl Segments {
    /// A device has heard nobody in a session. Beyond a bound, it is not remembered.
    pub(super) fn note_away(&mut self, device: &str, segment: Segment, now: Instant) {
        if self.away.len() >= MAX_COUNTED_DEVICES && !self.away.contains_key(device) {
            self.away.retain(|_, (_, since)| now.saturating_duration_since(*since) < REMEMBERED);
            if self.away.len() >= MAX_COUNTED_DEVICES {
                return;
            }
        }
        self.away.insert(device.to_owned(), (segment, now));
    }

    /// The segment of a device that the server's multicast does not reach.
    pub(super) fn away(&self, device: &str, now: Instant) -> Option<&Segment> {
        let (segment, since) = self.away.get(device)?;
        (now.saturating_duration_since(*since) < REMEMBERED).then_some(segment)
    }

    /// What a device is to do that lacks an object of `size` bytes. One that serves others (`serves`) may become the handler.
    pub(super) fn ask(
        &mut self,
        (object, segment): (blake3::Hash, Segment),
        (device, serves): (&str, bool),
        size: u64,
        now: Instant,
    ) -> Told {
        let key = (object, segment);
        if self.calls.len() >= MAX_CALLS && !self.calls.contains_key(&key) {
            self.calls.retain(|_, call| now.saturating_duration_since(call.touched) < REMEMBERED);
            if self.calls.len() >= MAX_CALLS {
                return Told::Alone;
            }
        }
        let new = || Call { state: State::Wanted(now + GRACE), failed: BTreeSet::new(), touched: now };
        let call = self.calls.entry(key).or_insert_with(new);
        // A call for which nobody has asked for a while begins anew.
        if now.saturating_duration_since(call.touched) > GRACE * 6 && matches!(call.state, State::Wanted(_)) {
            *call = new();
        }
        call.touched = now;
        match &mut call.state {
            State::Performing(handler, session, invited) => {
                if handler != device && invited.insert(device.to_owned()) {
                    return Told::Join(session.clone());
                }
                // It comes back from the session, which did not bring it all; or it performs it no longer.
                call.failed.insert(handler.clone());
                // The others notice it at their own time.
                call.state = State::Wanted(now + NOTICE);
            }
            State::Loading { handler, until, .. } if now >= *until && handler != device => {
                call.failed.insert(handler.clone());
                call.state = State::Wanted(now + GRACE);
            }
            State::Loading { handler, .. } => {
                // It asks once more before it begins to load.
                return if handler == device { Told::Alone } else { Told::Again };
            }
            State::Wanted(_) => {}
        }
        if serves && !call.failed.contains(device) {
            let time = LOADING.0 + Duration::from_secs(size / LOADING.1);
            call.state =
                State::Loading { handler: device.to_owned(), since: now, until: now + time, heard: now };
            return Told::Alone;
        }
        match call.state {
            State::Wanted(until) if now < until => Told::Again,
            _ => Told::Alone,
        }
    }

    /// For how long this device has been the handler that has an object now; `None` if it is not. One that has performed it
    /// is done.
    pub(super) fn has_it(
        &mut self,
        key: &(blake3::Hash, Segment),
        device: &str,
        now: Instant,
    ) -> Option<Duration> {
        match self.calls.get_mut(key).map(|call| &mut call.state) {
            Some(State::Loading { handler, since, heard, .. }) if handler == device => {
                *heard = now;
                Some(now.saturating_duration_since(*since))
            }
            Some(State::Performing(handler, ..)) if handler == device => {
                self.calls.remove(key);
                None
            }
            _ => None,
        }
    }

    /// The handler that `device` waits for, if it has said nothing for a while.
    pub(super) fn doubtful(
        &self,
        key: &(blake3::Hash, Segment),
        device: &str,
        now: Instant,
    ) -> Option<String> {
        match &self.calls.get(key)?.state {
            State::Loading { handler, heard, .. }
                if handler != device && now.saturating_duration_since(*heard) >= NOTICE =>
            {
                Some(handler.clone())
            }
            _ => None,
        }
    }

    /// This device is found to load the object no longer.
    pub(super) fn note_gone(&mut self, key: &(blake3::Hash, Segment), device: &str, now: Instant) {
        if let Some(call) = self.calls.get_mut(key)
            && matches!(&call.state, State::Loading { handler, .. } if handler == device)
        {
            call.failed.insert(device.to_owned());
            call.state = State::Wanted(now + GRACE);
        }
    }

    /// The handler performs this session from now on.
    pub(super) fn perform(&mut self, key: &(blake3::Hash, Segment), device: &str, session: Session) {
        if let Some(call) = self.calls.get_mut(key) {
            call.state = State::Performing(device.to_owned(), session, BTreeSet::new());
        }
    }

    /// Nobody waits for this object in the segment.
    pub(super) fn drop_call(&mut self, key: &(blake3::Hash, Segment)) {
        self.calls.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 30_000_000;

    fn session(n: u8) -> Session {
        let (group, text) = (([239, 1, 1, n], 7417).into(), n.to_string());
        Session { group, sender: text.clone(), seal: text, wait: 20 }
    }

    struct Bench {
        segments: Segments,
        now: Instant,
        key: (blake3::Hash, Segment),
    }

    impl Bench {
        fn new() -> Self {
            let key = (blake3::hash(b"object"), Segment::Named("far".into()));
            Self { segments: Segments::default(), now: Instant::now(), key }
        }
        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
        fn ask(&mut self, device: &str) -> Told {
            // Devices whose names begin with h serve others.
            self.segments.ask(self.key.clone(), (device, device.starts_with('h')), SIZE, self.now)
        }
        /// The handler has loaded the object.
        fn performs(&mut self, device: &str, n: u8) {
            assert!(self.segments.has_it(&self.key, device, self.now).is_some());
            self.segments.perform(&self.key, device, session(n));
        }
    }

    #[test]
    fn one_device_loads_an_object_and_the_others_get_it_from_there() {
        let mut bench = Bench::new();
        assert_eq!(bench.ask("a"), Told::Again, "a handler may come");
        assert_eq!(bench.ask("h1"), Told::Alone);
        assert_eq!(
            [bench.ask("h2"), bench.ask("a"), bench.ask("h1")],
            [Told::Again, Told::Again, Told::Alone]
        );
        assert_eq!(bench.segments.has_it(&bench.key, "h2", bench.now), None, "it is not its handler");
        bench.performs("h1", 1);
        assert_eq!([bench.ask("a"), bench.ask("h2")], [Told::Join(session(1)), Told::Join(session(1))]);
        assert_eq!(bench.segments.has_it(&bench.key, "h1", bench.now), None, "it is done");
        assert_eq!(bench.ask("b"), Told::Again);
        // Another object, and another segment, are other matters.
        let mut other = Bench::new();
        other.key.1 = Segment::Named("elsewhere".into());
        assert_eq!(other.ask("h1"), Told::Alone);
    }

    #[test]
    fn without_a_handler_nobody_waits_for_long() {
        let mut bench = Bench::new();
        assert_eq!(bench.ask("a"), Told::Again);
        bench.pass(9);
        assert_eq!(bench.ask("b"), Told::Again);
        bench.pass(2);
        assert_eq!([bench.ask("a"), bench.ask("b")], [Told::Alone, Told::Alone]);
        // The next day, a handler may be there.
        bench.pass(3600);
        assert_eq!(bench.ask("a"), Told::Again);
    }

    #[test]
    fn another_handler_takes_over_from_one_that_fails() {
        let mut bench = Bench::new();
        assert_eq!(bench.ask("h1"), Told::Alone);
        bench.pass(89);
        assert_eq!(bench.ask("h2"), Told::Again);
        bench.pass(2);
        assert_eq!(bench.ask("h2"), Told::Alone, "the first one was too slow");
        assert_eq!(bench.segments.has_it(&bench.key, "h1", bench.now), None, "its time is over");
        bench.performs("h2", 2);
        assert_eq!([bench.ask("a"), bench.ask("b")], [Told::Join(session(2)), Told::Join(session(2))]);
        // It dies: those who come back wait for another one, and not for the same.
        assert_eq!(bench.ask("a"), Told::Again);
        assert_eq!(bench.ask("h2"), Told::Again);
        bench.pass(29);
        assert_eq!(bench.ask("a"), Told::Again, "others take longer to notice it");
        assert_eq!(bench.ask("h3"), Told::Alone);
        bench.performs("h3", 3);
        assert_eq!([bench.ask("b"), bench.ask("a")], [Told::Join(session(3)), Told::Join(session(3))]);
    }

    #[test]
    fn a_handler_of_which_nothing_is_heard_is_doubted() {
        let mut bench = Bench::new();
        let doubtful = |bench: &Bench, device| bench.segments.doubtful(&bench.key, device, bench.now);
        assert_eq!(bench.ask("h1"), Told::Alone);
        bench.pass(29);
        assert_eq!(doubtful(&bench, "a"), None);
        bench.pass(1);
        assert_eq!([doubtful(&bench, "a"), doubtful(&bench, "h1")], [Some("h1".into()), None]);
        // It is there.
        assert!(bench.segments.has_it(&bench.key, "h1", bench.now).is_some());
        assert_eq!(doubtful(&bench, "a"), None);
        bench.pass(30);
        bench.segments.note_gone(&bench.key, "a", bench.now);
        assert_eq!([bench.ask("h2"), bench.ask("a")], [Told::Again, Told::Again], "it was not the handler");
        bench.segments.note_gone(&bench.key, "h1", bench.now);
        assert_eq!([bench.ask("h1"), bench.ask("a")], [Told::Again, Told::Again]);
        assert_eq!(bench.ask("h2"), Told::Alone);
        assert_eq!(bench.ask("h1"), Told::Again);
    }

    #[test]
    fn who_heard_nobody_is_away_for_a_day_and_what_is_remembered_is_bounded() {
        let (mut segments, now) = (Segments::default(), Instant::now());
        let far = Segment::Named("far".into());
        segments.note_away("a", far.clone(), now);
        assert_eq!(segments.away("a", now), Some(&far));
        assert_eq!(segments.away("b", now), None);
        assert_eq!(segments.away("a", now + REMEMBERED), None);
        for n in 0..MAX_COUNTED_DEVICES + 10 {
            segments.note_away(&n.to_string(), far.clone(), now);
        }
        assert_eq!(segments.away.len(), MAX_COUNTED_DEVICES);
        segments.note_away("later", far, now + REMEMBERED);
        assert_eq!(segments.away.len(), 1);
        for n in 0..MAX_CALLS as u64 + 10 {
            let key = (blake3::hash(&n.to_be_bytes()), Segment::Named("far".into()));
            segments.ask(key, ("h", true), SIZE, now);
        }
        assert_eq!(segments.calls.len(), MAX_CALLS);
    }
}
