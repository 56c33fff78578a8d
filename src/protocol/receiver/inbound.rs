//! What comes in: announces, admissions, symbols, hash pages, polls, acknowledgements, aborts.

use super::answer::PendingAnswer;
use super::blocks::{Blocks, Taken};
use super::session::{Session, sound_group_size};
use super::{Receiver, State};
use crate::limits::{MAX_SYMBOL_ID, join_ceiling, report_interval};
use crate::protocol::Output;
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome};
use crate::protocol::job::ReceiverJob;
use crate::time::Time;
use crate::units::{Arrival, SymbolId};
use crate::wire::{
    self, Abort, Admit, Announce, Header, Invitation, Message, PacketNumber, Poll, Symbol, Verdict,
};
use std::net::SocketAddr;

impl Receiver {
    pub(super) fn inbound(&mut self, now: Time, arrival: Arrival, bytes: &[u8]) {
        let from = arrival.from;
        let Ok((header, message)) = wire::decode(bytes) else {
            self.counters.ignored += 1;
            return;
        };
        if let (State::Seeking, Message::Announce(announce)) = (&self.state, &message) {
            self.consider(now, from, header, announce);
        }
        // The sender's own socket is the only one that speaks for the session.
        let ours = self.session.as_mut().filter(|s| {
            s.id == header.session && s.sender.ip() == from.ip() && s.sender.port() == from.port()
        });
        let Some(session) = ours else {
            self.counters.ignored += 1;
            return;
        };
        session.last_heard = now;
        let group = header.packet_number.channel() == 0;
        if group {
            session.last_group = now;
            session.group.note(header.packet_number, now - arrival.waited);
        } else if !matches!(message, Message::Admit(_)) {
            // Admissions come on a channel that all share.
            session.own.note(header.packet_number, now - arrival.waited);
        }
        let known = match message {
            Message::Symbol(symbol) => self.symbol(symbol),
            Message::Announce(announce) => self.announced(now, &announce),
            Message::Admit(admit) => self.admission(now, admit),
            Message::HashPage(page) => {
                let judged = self.blocks.as_mut().map_or_else(Vec::new, |blocks| blocks.add_page(page));
                for (block, verdict) in judged {
                    self.judge(block, verdict, now);
                }
                self.commit_if_whole(now);
                true
            }
            Message::Poll(poll) => {
                self.polled(now, header.packet_number, &poll);
                true
            }
            Message::Acknowledge(ack) if ack.device == self.config.device => {
                self.acknowledged();
                true
            }
            Message::Abort(abort) => self.aborted(now, abort),
            _ => false,
        };
        if !known {
            self.counters.ignored += 1;
        }
    }

    /// Takes part in a session if it is the kind looked for.
    fn consider(&mut self, now: Time, from: SocketAddr, header: Header, announce: &Announce) {
        if self.config.only.is_some_and(|ip| ip != announce.data.ip()) {
            return;
        }
        let Some(session) = Session::latch(header.session, from, announce, now) else { return };
        self.event(ReceiverEvent::Found {
            session: session.id,
            task: session.task,
            sender: from,
            name: session.name.clone(),
            size: session.layout.object_size(),
        });
        self.out.push_back(Output::Listen(session.data));
        let mut blocks = Blocks::new(session.layout, self.config.buffer_bytes);
        blocks.liken(self.likely.clone());
        self.blocks = Some(blocks);
        self.state = State::Opening;
        self.job(ReceiverJob::Open { name: session.name.clone(), layout: session.layout });
        self.session = Some(session);
        self.timers.session_found(now);
    }

    fn announced(&mut self, now: Time, announce: &Announce) -> bool {
        let Some(session) = self.session.as_mut().filter(|s| s.agrees(announce)) else { return false };
        session.update(announce);
        // In a group that has shrunk, a report drawn for a large one would come after we are given up.
        let interval = report_interval(session.group_size);
        if self.timers.report != Time::NEVER && self.timers.report > now + interval * 2 {
            self.timers.report = now + interval.mul_f64(0.5 + self.rng.f64());
        }
        if !self.admitted && matches!(self.state, State::Receiving) {
            self.invited(now, announce.invitation);
        }
        self.commit_if_whole(now);
        true
    }

    /// An announce invites those not admitted: draw, and join after a random delay.
    fn invited(&mut self, now: Time, invitation: Invitation) {
        let probability = invitation.probability.min(join_ceiling(self.invitations));
        self.invitations += 1;
        if self.timers.join_is_pending(now) || !self.draw(probability) {
            return;
        }
        self.timers.join = now + invitation.window.mul_f64(self.rng.f64());
    }

    /// True with the probability `numerator` / 65535.
    fn draw(&mut self, numerator: u16) -> bool {
        numerator > 0 && self.rng.u16(..) <= numerator
    }

    fn admission(&mut self, now: Time, admit: Admit) -> bool {
        if admit.device != self.config.device || admit.instance != self.config.instance {
            return false;
        }
        if self.admitted || !matches!(self.state, State::Receiving) {
            return true;
        }
        match admit.verdict {
            Verdict::Admitted => {
                self.admitted = true;
                self.timers.admitted(now);
                self.event(ReceiverEvent::Admitted);
                if let Some((code, reason)) = self.refusal.take() {
                    self.fail(code, reason, now);
                } else {
                    self.commit_if_whole(now);
                }
            }
            Verdict::AlreadyComplete => self.leave(ReceiverOutcome::AlreadyComplete, None, now),
            Verdict::Full => self.leave(ReceiverOutcome::Refused, None, now),
        }
        true
    }

    fn symbol(&mut self, symbol: Symbol<'_>) -> bool {
        let (State::Receiving, Some(blocks)) = (&self.state, &mut self.blocks) else { return true };
        if self.refusal.is_some() || !is_sound(blocks, &symbol) {
            return self.refusal.is_some();
        }
        let (taken, job) = blocks.add(symbol.block, symbol.id, symbol.payload);
        if taken == Taken::Overrun {
            self.counters.overrun_drops += 1;
        }
        if let Some(job) = job {
            self.job(job);
        }
        if !self.received_any {
            self.received_any = true;
            self.event(ReceiverEvent::Receiving);
        }
        true
    }

    fn polled(&mut self, now: Time, number: PacketNumber, poll: &Poll) {
        let Some(session) = &mut self.session else { return };
        session.group_size = sound_group_size(poll.group_size);
        if !self.admitted || !matches!(self.state, State::Receiving) {
            return;
        }
        if number.channel() != 0 {
            // A poll of our own repair session: answered at once, and always, after how its symbols
            // have arrived.
            let arrivals = session.own.take_arrivals(true);
            if arrivals.is_some() {
                self.report(arrivals);
            }
            let answer = PendingAnswer::new(poll, number, now, now);
            self.send_answer(now, &answer, true);
            return;
        }
        if poll.invitation.probability == 0 {
            if let Some(answer) = &mut self.answer {
                answer.note_planned(poll.round, &poll.planned);
            }
            return;
        }
        if self.draw(poll.invitation.probability) {
            let due = now + poll.invitation.window.mul_f64(self.rng.f64());
            self.answer = Some(PendingAnswer::new(poll, number, now, due));
            self.answer_if_due(now);
        }
    }

    pub(super) fn answer_if_due(&mut self, now: Time) {
        if let Some(answer) = self.answer.take_if(|answer| now >= answer.due)
            && matches!(self.state, State::Receiving)
        {
            self.send_answer(now, &answer, false);
        }
    }

    fn send_answer(&mut self, now: Time, answer: &PendingAnswer, always: bool) {
        let Some(blocks) = &self.blocks else { return };
        if let Some(nak) = answer.nak(self.config.device, blocks, now, always) {
            self.tell(&Message::Nak(nak));
        }
    }

    fn aborted(&mut self, now: Time, abort: Abort) -> bool {
        if abort.device.is_some_and(|device| device != self.config.device) {
            return false;
        }
        self.sender_stopped(now, abort);
        true
    }
}

/// Whether a symbol fits its block: an id there can be, and the length that belongs to it.
fn is_sound(blocks: &Blocks, symbol: &Symbol<'_>) -> bool {
    let layout = blocks.layout();
    if symbol.block.0 >= layout.block_count() || symbol.id.0 > MAX_SYMBOL_ID {
        return false;
    }
    let source = symbol.id < SymbolId(layout.source_symbols(symbol.block));
    let expected = if source {
        layout.symbol_range(symbol.block, symbol.id).len()
    } else {
        usize::from(layout.symbol_size())
    };
    symbol.payload.len() == expected
}
