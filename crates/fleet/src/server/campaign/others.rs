//! The sessions of other servers that use the same database. Devices are told of them, and they are taken up when their
//! server is gone.
//!
//! A server counts up the beat of its sessions. Others look at the beat, and not at a time: no clocks are compared, and
//! while the database is away nobody seems to be gone.

use super::{MARGIN, SessionView};
use crate::ddi::{Session, SessionKeys};
use crate::store::StoredSession;
use mcp_transfer::crypto::derive::Secret;
use std::time::{Duration, Instant};

/// For how long a beat stands still until its server counts as gone.
const GONE: Duration = Duration::from_secs(5);
/// A look that comes so late says nothing about those who were looked at: this server or the database stood still.
const LATE: Duration = Duration::from_secs(3);

/// The sessions that other servers send.
#[derive(Debug, Default)]
pub(super) struct Others {
    sessions: Vec<Other>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Other {
    object: blake3::Hash,
    stored: StoredSession,
    /// Since when its beat stands still.
    since: Instant,
}

impl Others {
    /// Notes the sessions that other servers have open, with their objects, and returns those to be taken up: of servers
    /// that are gone.
    pub(super) fn note(
        &mut self,
        open: Vec<(blake3::Hash, StoredSession)>,
        now: Instant,
    ) -> Vec<StoredSession> {
        let late = self.looked.replace(now).is_some_and(|looked| now.duration_since(looked) > LATE);
        let known = std::mem::take(&mut self.sessions);
        let since = |new: &StoredSession| {
            let same = |old: &&Other| {
                (old.stored.id, old.stored.runs, old.stored.beat) == (new.id, new.runs, new.beat)
            };
            known.iter().find(same).filter(|_| !late).map_or(now, |old| old.since)
        };
        let all = open.into_iter().map(|(object, stored)| Other { object, since: since(&stored), stored });
        let is_gone = |other: &Other| {
            other.stored.server.is_none() || now.saturating_duration_since(other.since) >= GONE
        };
        let (gone, live) = all.partition(is_gone);
        self.sessions = live;
        let gone: Vec<Other> = gone;
        gone.into_iter().map(|other| other.stored).collect()
    }

    /// Whether there are any.
    pub(super) const fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The session for an object, if it is known where it is sent to.
    pub(super) fn invitation(&self, object: &blake3::Hash, now: u64) -> Option<Session> {
        let other = self.sessions.iter().find(|other| other.object == *object)?;
        let secret = other.stored.secret.as_ref()?;
        let keys = SessionKeys::of(&Secret::new(secret.as_slice().try_into().ok()?)).ok()?;
        let wait = Duration::from_secs(other.stored.begins.saturating_sub(now)) + MARGIN;
        Some(keys.session(other.stored.destination?, wait))
    }

    /// How they stand, with the numbers of their tasks.
    pub(super) fn views(&self) -> impl Iterator<Item = (i64, SessionView)> {
        self.sessions.iter().filter_map(|other| Some((other.stored.task, other.stored.view()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: i64, beat: u64, server: Option<&str>) -> (blake3::Hash, StoredSession) {
        let stored = StoredSession {
            id,
            task: 1,
            position: 0,
            called: 0,
            expected: 2,
            runs: 1,
            secret: Some(zeroize::Zeroizing::new(vec![7; 32])),
            ended: None,
            figures: String::new(),
            server: server.map(str::to_owned),
            beat,
            destination: Some(([239, 255, 74, 1], 7418).into()),
            begins: 100,
        };
        (blake3::hash(&id.to_le_bytes()), stored)
    }

    fn ids(gone: &[StoredSession]) -> Vec<i64> {
        gone.iter().map(|stored| stored.id).collect()
    }

    #[test]
    fn a_session_is_taken_up_when_its_beat_stands_still() {
        let (mut others, start) = (Others::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..5 {
            let open = vec![session(1, second, Some("a")), session(2, 9, Some("b"))];
            assert!(others.note(open, at(second)).is_empty());
        }
        let gone = others.note(vec![session(1, 5, Some("a")), session(2, 9, Some("b"))], at(5));
        assert_eq!(ids(&gone), [2]);
        assert_eq!(ids(&others.note(vec![session(1, 5, None)], at(6))), [1], "its server gave it up");
        assert!(others.is_empty());
    }

    #[test]
    fn a_look_that_comes_late_begins_anew() {
        let (mut others, start) = (Others::default(), Instant::now());
        assert!(others.note(vec![session(1, 0, Some("a"))], start).is_empty());
        // The database was away, for its server too.
        let back = start + Duration::from_secs(60);
        assert!(others.note(vec![session(1, 0, Some("a"))], back).is_empty());
        assert!(others.note(vec![session(1, 1, Some("a"))], back + Duration::from_secs(1)).is_empty());
    }

    #[test]
    fn devices_are_told_where_it_is_sent_to_and_how_long_to_wait() {
        let (mut others, object) = (Others::default(), session(1, 0, None).0);
        others.note(vec![session(1, 0, Some("a"))], Instant::now());
        let told = others.invitation(&object, 90).expect("a session");
        assert!(told.is_usable());
        assert_eq!((told.group, told.wait), (([239, 255, 74, 1], 7418).into(), 10 + MARGIN.as_secs()));
        assert_eq!(others.invitation(&object, 200).expect("a session").wait, MARGIN.as_secs());
        assert_eq!(others.invitation(&blake3::hash(b"another"), 90), None);
        let (object, mut unknown) = session(1, 1, Some("a"));
        unknown.destination = None;
        others.note(vec![(object, unknown)], Instant::now());
        assert_eq!(others.invitation(&object, 90), None);
        assert!(!others.is_empty(), "but there is one");
    }
}
