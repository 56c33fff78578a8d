//! Going over to another session of the same object: the sender was killed and started again.
//!
//! The part file stays open, and what is verified in it is a candidate of the new session whose value
//! is known: nothing is read again. Own packet numbers go on: an announcement may lead back to a session that
//! was left, whose keys are the same again, and no number may be used twice under them.

use super::{Receiver, State};
use crate::protocol::Output;
use crate::protocol::event::ReceiverEvent;
use crate::time::Time;
use crate::wire::Head;
use std::net::SocketAddr;
use std::time::Duration;

/// A sender announces itself four times in this time at the least: one that says nothing may be gone.
const SUSPICIOUS_SILENCE: Duration = Duration::from_secs(1);

impl Receiver {
    /// Leaves a session whose sender is silent for another one of the same sender, name and layout, if the
    /// announcement is of one. Workers must be idle: what they bring would be of the old session. The
    /// announcement comes again.
    pub(super) fn go_over(&mut self, now: Time, from: SocketAddr, head: &Head, bytes: &mut [u8]) {
        let (State::Receiving, Some(old)) = (&self.state, &self.session) else { return };
        let silent = now >= old.last_heard + SUSPICIOUS_SILENCE;
        if !silent || old.id == head.header.session || self.refusal.is_some() || self.jobs_in_flight > 0 {
            return;
        }
        let Some((next, _)) = self.meet(now, from, head, bytes) else { return };
        if self.session.as_ref().is_none_or(|old| !next.continues(old)) {
            return;
        }
        let Some(blocks) = self.blocks.take() else { return };
        self.blocks = Some(blocks.carry_over(next.layout, self.config.buffer_bytes));
        self.event(ReceiverEvent::Found {
            session: next.id,
            task: next.task,
            sender: from,
            name: next.name.clone(),
            size: next.layout.object_size(),
        });
        self.out.push_back(Output::Listen(next.data));
        self.session = Some(next);
        self.admitted = false;
        self.invitations = 0;
        self.answer = None;
        self.timers.session_changed(now);
    }
}
