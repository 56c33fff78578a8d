//! *Provisional* sessions: they were announced and have not admitted this device.
//!
//! An announcement proves nothing about the present: it may be a recording. Only an ADMIT shows that a session is
//! live, because it is sealed to this run's fresh key. Until then the session changes nothing on the disk, its
//! symbols stay in the block buffers, and its end ends nothing else.
//!
//! One session at a time has its *turn*. During the turn the device looks up what it holds of the object, sends a
//! JOIN when an invitation selects it, and keeps the session's symbols. If another session waits, the turn ends a
//! second after the first JOIN, after two seconds without an invitation, or after a second in which the session was not
//! heard at all: it has probably ended, and each turn that it takes keeps the device from a live one. Messages that can be replayed do not
//! extend a session: it is dropped [`PATIENCE`] after its first announcement or its last datagram sealed for
//! this device. A later announcement adds it again.

use super::blocks::Blocks;
use super::session::Session;
use crate::limits::{ANNOUNCE_INTERVAL, MAX_PROVISIONAL_SESSIONS, SENDER_SILENCE};
use crate::time::Time;
use crate::units::SessionId;
use crate::wire::Holdings;
use std::collections::VecDeque;
use std::time::Duration;

/// Length of a turn after its first JOIN.
const TURN_AFTER_JOIN: Duration = Duration::from_secs(1);
/// Length of a turn without a JOIN.
const TURN: Duration = Duration::from_secs(2);
/// Length of a turn of a session that is not heard.
const SILENT_TURN: Duration = ANNOUNCE_INTERVAL;
/// A session without a datagram sealed for this device is dropped after this time.
const PATIENCE: Duration = SENDER_SILENCE;
/// Shortest interval between unanswered JOINs: at first below that of the announcements, and longer after
/// [`HASTY_JOINS`] of them.
const JOIN_PATIENCE: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(400));
/// Number of JOINs that may just have been lost. If more are unanswered, the sender is probably far away or busy.
const HASTY_JOINS: u32 = 6;

/// A session that has not admitted this device.
#[derive(Debug)]
pub(super) struct ProvisionalSession {
    pub session: Session,
    /// What the device holds of the object, once it has been looked up.
    pub holding: Option<Holdings>,
    /// The symbols that have arrived during its turns.
    pub blocks: Option<Blocks>,
    /// Announcements heard during its turns.
    pub invitations: u32,
    /// When to send a join; never if none is due.
    pub join: Time,
    pub last_join: Option<Time>,
    /// JOINs that nothing has answered.
    unanswered: u32,
    /// Whether the RETRY to the JOIN of its last turn may still be answered.
    pub may_answer_late: bool,
    /// Whether it has admitted this device, which is still busy with another session.
    pub admitted: bool,
    until: Time,
    turns: u32,
}

impl ProvisionalSession {
    pub fn new(session: Session, holding: Option<Holdings>, now: Time) -> Self {
        Self {
            session,
            holding,
            blocks: None,
            invitations: 0,
            join: Time::NEVER,
            last_join: None,
            unanswered: 0,
            may_answer_late: false,
            admitted: false,
            until: now + PATIENCE,
            turns: 0,
        }
    }

    /// Notes a datagram that is sealed to this run's key.
    pub fn spoke(&mut self, now: Time) {
        self.until = now + PATIENCE;
    }

    /// Whether a JOIN was sent recently, or is about to be sent.
    pub fn join_is_pending(&self, now: Time) -> bool {
        let patience = if self.unanswered < HASTY_JOINS { JOIN_PATIENCE.0 } else { JOIN_PATIENCE.1 };
        self.join != Time::NEVER || self.last_join.is_some_and(|at| now < at + patience)
    }

    /// Notes that an invitation selects the device, which will send a JOIN at `join`.
    pub fn join_at(&mut self, join: Time) {
        self.join = join;
        self.unanswered += u32::from(self.last_join.is_some());
    }
}

/// The provisional sessions. The first one has its turn.
#[derive(Debug)]
pub(super) struct ProvisionalSessions {
    list: VecDeque<ProvisionalSession>,
    /// When the turn began, whether its session has been heard since, and when its first JOIN was sent.
    began: Time,
    heard: bool,
    joined: Option<Time>,
    /// The session for which a look-up is in progress.
    pub probing: Option<SessionId>,
}

impl Default for ProvisionalSessions {
    fn default() -> Self {
        Self { list: VecDeque::new(), began: Time::ZERO, heard: false, joined: None, probing: None }
    }
}

impl ProvisionalSessions {
    /// The identifiers of all provisional sessions.
    pub fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.list.iter().map(|provisional| provisional.session.id)
    }
    /// The session that has its turn.
    pub fn current(&self) -> Option<&ProvisionalSession> {
        self.list.front()
    }
    pub fn current_mut(&mut self) -> Option<&mut ProvisionalSession> {
        self.list.front_mut()
    }
    /// The position of a session; 0 has its turn.
    pub fn position(&self, session: SessionId) -> Option<usize> {
        self.list.iter().position(|provisional| provisional.session.id == session)
    }
    pub fn get(&self, session: SessionId) -> Option<&ProvisionalSession> {
        self.list.iter().find(|provisional| provisional.session.id == session)
    }
    pub fn get_mut(&mut self, session: SessionId) -> Option<&mut ProvisionalSession> {
        self.list.iter_mut().find(|provisional| provisional.session.id == session)
    }

    /// Adds a session. A session with a higher counter comes before others of its sender, which are probably
    /// older. This only orders them, so that a sender that has lost its counter is not locked out. If there
    /// are too many sessions, the new one replaces an older one of its sender, or else one that had its turn
    /// in vain; if there is neither, it is not added. True if its turn begins at once.
    pub fn add(&mut self, provisional: ProvisionalSession, now: Time) -> bool {
        let session = &provisional.session;
        let older = |other: &ProvisionalSession| {
            other.session.side.sender() == session.side.sender() && other.session.counter < session.counter
        };
        if self.list.len() >= MAX_PROVISIONAL_SESSIONS {
            let waiting = || self.list.iter().enumerate().skip(1);
            let oldest = waiting().filter(|(_, other)| older(other)).min_by_key(|(_, o)| o.session.counter);
            let tried = waiting().filter(|(_, other)| other.turns > 0).max_by_key(|(_, other)| other.turns);
            let Some((place, _)) = oldest.or(tried) else { return false };
            self.list.remove(place);
        }
        let next = self.list.iter().skip(1).position(older).map_or(self.list.len(), |at| at + 1);
        self.list.insert(next, provisional);
        self.list.len() == 1 && self.begin_turn(now)
    }

    /// Removes a session. True if the turn of another one begins.
    pub fn remove(&mut self, session: SessionId, now: Time) -> Option<(ProvisionalSession, bool)> {
        let at = self.position(session)?;
        let provisional = self.list.remove(at)?;
        Some((provisional, at == 0 && self.begin_turn(now)))
    }

    /// The session that has admitted this device, if there is one.
    pub fn admitted(&self) -> Option<SessionId> {
        self.list.iter().find(|provisional| provisional.admitted).map(|provisional| provisional.session.id)
    }

    /// Removes a session to take part in it, or to leave it.
    pub fn take(&mut self, session: SessionId) -> Option<ProvisionalSession> {
        let at = self.position(session)?;
        self.list.remove(at)
    }

    /// Removes all sessions.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Notes a message of the session at this position.
    pub const fn heard(&mut self, position: usize) {
        self.heard |= position == 0;
    }

    /// Notes a JOIN to the session that has its turn.
    pub fn joined(&mut self, now: Time) {
        self.joined.get_or_insert(now);
    }

    /// Drops expired sessions, and begins the next turn if the current one is over. True if a turn begins.
    pub fn tend(&mut self, now: Time) -> bool {
        let first = self.current().map(|provisional| provisional.session.id);
        self.list.retain(|provisional| now < provisional.until);
        if self.current().map(|provisional| provisional.session.id) != first {
            return self.begin_turn(now);
        }
        if self.list.len() < 2 || now < self.turn_ends() {
            return false;
        }
        if let Some(mut last) = self.list.pop_front() {
            // The next session needs the memory.
            last.blocks = None;
            last.join = Time::NEVER;
            self.list.push_back(last);
        }
        self.begin_turn(now)
    }

    fn begin_turn(&mut self, now: Time) -> bool {
        (self.began, self.heard, self.joined) = (now, false, None);
        let Some(provisional) = self.list.front_mut() else { return false };
        provisional.turns += 1;
        provisional.session.listen_anew();
        true
    }

    fn turn_ends(&self) -> Time {
        let without = self.began + if self.heard { TURN } else { SILENT_TURN };
        self.joined.map_or(without, |at| at + TURN_AFTER_JOIN)
    }

    /// When [`ProvisionalSessions::tend`] or a JOIN is due.
    pub fn next_due(&self) -> Time {
        let expiry = self.list.iter().map(|provisional| provisional.until).min().unwrap_or(Time::NEVER);
        let turn = if self.list.len() < 2 { Time::NEVER } else { self.turn_ends() };
        let join = self.current().map_or(Time::NEVER, |provisional| provisional.join);
        expiry.min(turn).min(join)
    }

    /// Moves all deadlines by time in which the device did not listen.
    pub fn absent(&mut self, away: Duration) {
        self.began = self.began + away;
        self.joined = self.joined.map(|at| at + away);
        for provisional in &mut self.list {
            provisional.until = provisional.until + away;
        }
    }
}
