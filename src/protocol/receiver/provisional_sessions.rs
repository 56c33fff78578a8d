//! *Provisional* sessions: they were announced and have not admitted this device.
//!
//! An announce proves nothing about the present: it may be a recording. What proves that a session is live is an
//! ADMIT, which is sealed to this run's fresh key. Until then nothing on the disk
//! changes for it, what it sends stays in the block buffers, and its end ends nothing but itself.
//!
//! One at a time has its *turn*: it is asked what the device holds, joined when it invites, and its
//! symbols are kept. Its turn ends a second after the first join, or two seconds after it began if there was no
//! invitation, but only if another one waits. Nothing that can be replayed keeps a session: it is dropped after
//! [`PATIENCE`], counted from its first announce or from what was last sealed to this device alone. A later
//! announce brings it back.

use super::blocks::Blocks;
use super::session::Session;
use crate::limits::{MAX_PROVISIONAL_SESSIONS, SENDER_SILENCE};
use crate::time::Time;
use crate::units::SessionId;
use crate::wire::Holdings;
use std::collections::VecDeque;
use std::time::Duration;

/// A turn lasts so long after its first join.
const TURN_AFTER_JOIN: Duration = Duration::from_secs(1);
/// A turn without a join lasts so long.
const TURN: Duration = Duration::from_secs(2);
/// A session that has not said anything to this device alone is dropped after this.
const PATIENCE: Duration = SENDER_SILENCE;
/// An unanswered join is not repeated sooner.
const JOIN_PATIENCE: Duration = Duration::from_millis(400);

/// A session that has not admitted this device.
#[derive(Debug)]
pub(super) struct ProvisionalSession {
    pub session: Session,
    /// What the device holds of its object, once that has been looked up.
    pub holding: Option<Holdings>,
    /// What has arrived of its object during its turn.
    pub blocks: Option<Blocks>,
    /// Announces heard during its turns.
    pub invitations: u32,
    /// When to send a join; never if none is due.
    pub join: Time,
    pub last_join: Option<Time>,
    /// It has admitted this device, which is still busy with another session.
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
            admitted: false,
            until: now + PATIENCE,
            turns: 0,
        }
    }

    /// It has said something that is sealed to this run's key.
    pub fn spoke(&mut self, now: Time) {
        self.until = now + PATIENCE;
    }

    /// Whether a join is under way or about to be sent.
    pub fn join_is_pending(&self, now: Time) -> bool {
        self.join != Time::NEVER || self.last_join.is_some_and(|at| now < at + JOIN_PATIENCE)
    }
}

/// The provisional sessions; the first has its turn.
#[derive(Debug)]
pub(super) struct ProvisionalSessions {
    list: VecDeque<ProvisionalSession>,
    /// When the turn began, and when the first join was sent in it.
    began: Time,
    joined: Option<Time>,
    /// The session whose holding is being looked up.
    pub probing: Option<SessionId>,
}

impl Default for ProvisionalSessions {
    fn default() -> Self {
        Self { list: VecDeque::new(), began: Time::ZERO, joined: None, probing: None }
    }
}

impl ProvisionalSessions {
    /// All of them.
    pub fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.list.iter().map(|provisional| provisional.session.id)
    }
    /// The one that has its turn.
    pub fn current(&self) -> Option<&ProvisionalSession> {
        self.list.front()
    }
    pub fn current_mut(&mut self) -> Option<&mut ProvisionalSession> {
        self.list.front_mut()
    }
    /// The place of a session among them; 0 has its turn.
    pub fn position(&self, session: SessionId) -> Option<usize> {
        self.list.iter().position(|provisional| provisional.session.id == session)
    }
    pub fn get_mut(&mut self, session: SessionId) -> Option<&mut ProvisionalSession> {
        self.list.iter_mut().find(|provisional| provisional.session.id == session)
    }

    /// Takes a session in. One with a higher counter than others of its sender comes before them: they are probably
    /// older. It is no more than an order, for a sender that lost its counter is not to be locked out. If there are
    /// too many, it takes the place of one that is older, or else of one that had its turn in vain; without one, it
    /// is not taken. True if its turn begins at once.
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

    /// Takes a session out. True if another one's turn begins.
    pub fn remove(&mut self, session: SessionId, now: Time) -> Option<(ProvisionalSession, bool)> {
        let at = self.position(session)?;
        let provisional = self.list.remove(at)?;
        Some((provisional, at == 0 && self.begin_turn(now)))
    }

    /// The one that has admitted this device, if there is one.
    pub fn admitted(&self) -> Option<SessionId> {
        self.list.iter().find(|provisional| provisional.admitted).map(|provisional| provisional.session.id)
    }

    /// Takes a session out to take part in it, or to leave it.
    pub fn take(&mut self, session: SessionId) -> Option<ProvisionalSession> {
        let at = self.position(session)?;
        self.list.remove(at)
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// A join was sent to the one that has its turn.
    pub fn joined(&mut self, now: Time) {
        self.joined.get_or_insert(now);
    }

    /// Drops those whose time is up, and goes on to the next one if the turn is over. True if a turn begins.
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
            // What it has sent would be the next one's memory.
            last.blocks = None;
            last.join = Time::NEVER;
            self.list.push_back(last);
        }
        self.begin_turn(now)
    }

    fn begin_turn(&mut self, now: Time) -> bool {
        (self.began, self.joined) = (now, None);
        let Some(provisional) = self.list.front_mut() else { return false };
        provisional.turns += 1;
        provisional.session.listen_anew();
        true
    }

    fn turn_ends(&self) -> Time {
        let without = self.began + TURN;
        self.joined.map_or(without, |at| at + TURN_AFTER_JOIN)
    }

    /// When [`ProvisionalSessions::tend`] or a join is due.
    pub fn next_due(&self) -> Time {
        let expiry = self.list.iter().map(|provisional| provisional.until).min().unwrap_or(Time::NEVER);
        let turn = if self.list.len() < 2 { Time::NEVER } else { self.turn_ends() };
        let join = self.current().map_or(Time::NEVER, |provisional| provisional.join);
        expiry.min(turn).min(join)
    }

    /// Time in which nobody listened counts for nothing.
    pub fn absent(&mut self, away: Duration) {
        self.began = self.began + away;
        self.joined = self.joined.map(|at| at + away);
        for provisional in &mut self.list {
            provisional.until = provisional.until + away;
        }
    }
}
