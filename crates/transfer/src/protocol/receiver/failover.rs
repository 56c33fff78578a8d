//! Failover to another session of the same object, after the sender was killed and started again.
//!
//! While its sender is silent, the receiver joins other sessions of that sender as provisional ones, without leaving
//! its own. The first session that admits it replaces the old one. The part file stays open. Verified blocks become
//! candidates of the new session with known values, so nothing is read again. The receiver's packet numbers
//! continue: it may come back to a session that it has left, with the same keys, and no number may be used
//! twice under one key.

use super::blocks::Blocks;
use super::{Receiver, State};
use crate::protocol::event::ReceiverEvent;
use crate::time::Time;
use crate::units::SessionId;
use std::time::Duration;

/// A sender announces itself at least four times in this time. A silent one may be gone.
const SUSPICIOUS_SILENCE: Duration = Duration::from_secs(1);

impl Receiver {
    /// Whether the session of an announcement would be useful: the receiver has none, or its sender is
    /// silent.
    pub(super) fn looks_for(&self, now: Time, session: SessionId) -> bool {
        match (&self.state, &self.session) {
            (State::Seeking, _) => true,
            (State::Receiving, Some(old)) => old.id != session && now >= old.last_heard + SUSPICIOUS_SILENCE,
            _ => false,
        }
    }

    /// Leaves the session for one that has admitted the device, if there is one. Workers must be idle: their
    /// results belong to the old session.
    pub(super) fn go_over(&mut self, now: Time) {
        // What is being written is the same in any session.
        let writing = u32::from(self.blocks.as_ref().is_some_and(Blocks::is_writing));
        if !matches!(self.state, State::Receiving) || self.jobs_in_flight > writing {
            return;
        }
        let Some(id) = self.provisional.admitted() else { return };
        let (Some(next), Some(blocks)) = (self.provisional.take(id), self.blocks.take()) else { return };
        self.provisional.clear();
        self.blocks = Some(blocks.carry_over(next.session.layout, self.config.buffer_bytes));
        self.event(next.session.found_event());
        self.event(ReceiverEvent::Admitted);
        self.session = Some(next.session);
        self.keep_ticket();
        self.answer = None;
        self.timers.admitted(now);
    }
}
