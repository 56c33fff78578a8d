//! Takes part in a session, and opens the destination.

use super::blocks::Blocks;
use super::provisional_sessions::ProvisionalSession;
use super::session::Session;
use super::{Receiver, State};
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome};
use crate::protocol::job::ReceiverJob;
use crate::protocol::need::Need;
use crate::protocol::trust::TrustDecision;
use crate::time::Time;
use crate::wire::{AbortCode, Admit, AdmitVerdict, Holdings};
use std::sync::Arc;

impl Receiver {
    /// Takes part in a session that has shown that it is live. Drops all others.
    pub(super) fn take_part(
        &mut self,
        now: Time,
        provisional: ProvisionalSession,
        decision: TrustDecision,
        admit: &Admit,
    ) {
        self.provisional.clear();
        let ProvisionalSession { mut session, holding, blocks, .. } = provisional;
        let (key, address, relayed) = (session.trusted(), session.sender, session.relayed);
        self.trusted = Some((key, decision));
        self.event(ReceiverEvent::SenderTrusted { key, address, decision, relayed });
        self.known = true;
        if admit.verdict == AdmitVerdict::Admitted {
            session.side.admitted(admit.channel);
            session.ticket = admit.ticket;
            self.admitted = true;
        }
        let (bytes, intake) = (self.config.buffer_bytes, self.config.intake);
        let blocks = blocks.unwrap_or_else(|| Blocks::provisional(session.layout, bytes).for_intake(intake));
        let blocks = blocks.for_session(&session);
        self.blocks = Some(blocks);
        if let Some(blocks) = &mut self.blocks {
            blocks.take_memory_from(Arc::clone(&self.config.memory));
        }
        self.session = Some(session);
        match admit.verdict {
            AdmitVerdict::Admitted => {
                self.timers.admitted(now);
                self.event(ReceiverEvent::Admitted);
                self.keep_ticket();
                self.state = State::Opening;
                if let Some(Holdings::All(root)) = holding {
                    self.adoptable = Some(root);
                }
                self.open_or_adopt();
            }
            // What an earlier run passed on is gone.
            AdmitVerdict::AlreadyComplete if self.config.intake.is_ordered() => {
                let why = "it serves each device of its list once, and has this one as complete";
                self.leave(ReceiverOutcome::SenderAborted(AbortCode::Finished, why.to_owned()), None, now);
            }
            AdmitVerdict::AlreadyComplete => self.leave(ReceiverOutcome::AlreadyComplete, None, now),
            AdmitVerdict::Unsupported => {
                let need = Need::Feature("a version or a capability");
                self.leave(ReceiverOutcome::SenderNeeds(need), None, now);
            }
            AdmitVerdict::TooLate => {
                let why = "came after the beginning of its stream was gone".to_owned();
                self.leave(ReceiverOutcome::SenderAborted(AbortCode::Behind, why), None, now);
            }
            AdmitVerdict::Full => self.leave(ReceiverOutcome::Refused, None, now),
            AdmitVerdict::NotListed => self.leave(ReceiverOutcome::NotListed, None, now),
        }
    }

    /// Keeps the ticket of the session for the next run, in case this one is killed. Until that is done, the sender
    /// tells a restart by its silence.
    pub(super) fn keep_ticket(&mut self) {
        self.ticket_kept = false;
        if let Some(Session { id: session, ticket: Some(ticket), .. }) = self.session {
            self.job(ReceiverJob::KeepTicket { session, ticket });
        }
    }

    /// Creates the part file. If a file with the object's hash is in place already, adopts that one. Waits
    /// while the object's hash is unknown.
    pub(super) fn open_or_adopt(&mut self) {
        let Some(session) = &self.session else { return };
        let (name, layout, open) = (session.name.clone(), session.layout, session.open_job());
        let (own, root) = (self.adoptable, session.root);
        if own.is_some() && root.is_none() {
            return;
        }
        self.adoptable = None;
        if own.is_some() && own == root {
            self.state = State::Committing;
            self.hook.adopted();
            self.event(ReceiverEvent::Resumed { bytes: layout.object_size() });
            self.event(ReceiverEvent::Committing);
            self.job(ReceiverJob::Adopt { name });
        } else {
            self.job(open);
        }
    }
}
