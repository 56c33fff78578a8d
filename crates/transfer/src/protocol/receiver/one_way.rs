//! Sessions without feedback: the device takes part as soon as it trusts the sender, sends nothing, and ends with the
//! sender.
//!
//! Nothing shows that such a session is live: a recording looks the same. So the session counter must be above that of
//! the last one that this device has completed from the sender, and within a run no signed datagram is taken twice.

use super::{Receiver, State};
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome};
use crate::protocol::need::Need;
use crate::time::Time;
use crate::units::{ChannelId, SenderKey};
use crate::wire::{AbortCode, Admit, AdmitVerdict, Announce, Capabilities, Versions};
use std::net::SocketAddr;
use std::time::Duration;

/// How long datagrams may still arrive after the sender's farewell has overtaken them.
const PATIENCE: Duration = Duration::from_millis(300);
/// Most senders of old sessions that the user is told about.
const MAX_TOLD: usize = 16;

/// The farewell of the sender.
#[derive(Debug)]
pub(super) struct LastWords {
    code: AbortCode,
    /// When the device leaves; never once it only waits for its workers.
    at: Time,
}

impl Receiver {
    /// Whether the device takes part in a session without feedback.
    pub(super) fn is_one_way(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.one_way)
    }

    /// Whether the device sends nothing.
    pub(super) fn is_quiet(&self) -> bool {
        self.config.quiet || self.is_one_way()
    }

    /// Whether a session goes with the way that the device is told to receive, and is not an old one.
    pub(super) fn suits(&mut self, announce: &Announce, from: SocketAddr) -> bool {
        if announce.one_way.is_none() {
            if self.config.quiet {
                self.tell_need(Some(Need::Answers), from);
            }
            return !self.config.quiet;
        }
        let key = announce.sender;
        let old = self.config.completed.get(&key).is_some_and(|last| announce.counter <= *last);
        if old && self.tells_of_old(key) {
            self.event(ReceiverEvent::OldSession { key, address: from });
        }
        !old
    }

    /// Whether to tell the user that an old object of this sender or origin is announced: once for each, while it matters.
    pub(super) fn tells_of_old(&mut self, key: SenderKey) -> bool {
        let tells =
            matches!(self.state, State::Seeking) && !self.old.contains(&key) && self.old.len() < MAX_TOLD;
        if tells {
            self.old.push(key);
        }
        tells
    }

    /// Takes part in the session that has its turn, if that takes no JOIN, and what the device holds is known.
    pub(super) fn take_part_unasked(&mut self, now: Time) {
        let Some(current) = self.provisional.current_mut() else { return };
        if !current.session.one_way || current.holding.is_none() {
            return;
        }
        let id = current.session.id;
        match self.state {
            State::Seeking => {
                let Some(decision) = self.decide_on_admission(now, id) else { return };
                let Some(provisional) = self.provisional.take(id) else { return };
                let admit = Admit {
                    verdict: AdmitVerdict::Admitted,
                    channel: ChannelId::GROUP,
                    version: Versions::OURS.max,
                    capabilities: Capabilities::default(),
                    ticket: None,
                };
                self.take_part(now, provisional, decision, &admit);
                self.known = false;
                self.timers.quiet();
            }
            State::Receiving => {
                current.admitted = true;
                self.go_over(now);
                self.timers.quiet();
            }
            _ => {}
        }
    }

    /// The sender says farewell. What has arrived may still be at the workers.
    pub(super) fn take_last_words(&mut self, code: AbortCode, now: Time) {
        match code {
            AbortCode::Finished | AbortCode::Interrupted => {
                self.last_words.get_or_insert(LastWords { code, at: now + PATIENCE });
            }
            _ => {
                let outcome = self.lacking(Some(code));
                self.leave(outcome, None, now);
            }
        }
    }

    /// When the device leaves after the sender's farewell.
    pub(super) fn last_words_due(&self) -> Time {
        self.last_words.as_ref().map_or(Time::NEVER, |words| words.at)
    }

    /// Leaves after the sender's farewell, once the workers are idle.
    pub(super) fn leave_after_last_words(&mut self, now: Time) {
        let Some(words) =
            self.last_words.as_mut().filter(|_| matches!(self.state, State::Opening | State::Receiving))
        else {
            return;
        };
        if words.at != Time::NEVER && now < words.at {
            return;
        }
        words.at = Time::NEVER;
        let code = words.code;
        if self.jobs_in_flight == 0 {
            let outcome = self.lacking(Some(code));
            self.leave(outcome, None, now);
        }
    }

    /// The outcome of a session that ends now.
    pub(super) fn lacking(&self, end: Option<AbortCode>) -> ReceiverOutcome {
        let of = self.session.as_ref().map_or(0, |session| session.layout.block_count());
        let verified = self.blocks.as_ref().map_or(0, super::Blocks::verified);
        ReceiverOutcome::Lacking { blocks: of.saturating_sub(verified), of, end }
    }

    /// The blocks that the device lacks, as ranges of first block and count.
    #[must_use]
    pub fn missing(&self) -> Vec<(u32, u32)> {
        self.blocks.as_ref().map_or_else(Vec::new, super::Blocks::unverified)
    }
}
