//! What comes in: announces, admissions, symbols, hash pages, polls, acknowledgements, aborts.

use super::answer::PendingAnswer;
use super::blocks::{Blocks, Taken};
use super::session::{Session, sound_group_size};
use super::{Receiver, State};
use crate::crypto::derive::Secret;
use crate::crypto::origin::Origin;
use crate::limits::{MAX_ESI, join_ceiling};
use crate::protocol::Output;
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome};
use crate::protocol::job::ReceiverJob;
use crate::protocol::need::Need;
use crate::protocol::packet_protection::{self, FindError, Found, ReceiverSide};
use crate::protocol::trust::TrustDecision;
use crate::time::Time;
use crate::units::{Arrival, ChannelId, Esi};
use crate::wire::{
    self, Admit, AdmitVerdict, Announce, DecodeError, Head, Invitation, Message, MessageKind, PacketNumber,
    Poll, Retry, Symbol,
};
use std::net::SocketAddr;

/// What a run's random bytes become in one session; used for nothing else.
const AGREEMENT: &str = "mcp 2026-11-20 device's half of an agreement v1";
/// Refused senders that are told of.
const MAX_REFUSED: usize = 16;

impl Receiver {
    pub(super) fn inbound(&mut self, now: Time, arrival: Arrival, bytes: &mut [u8]) {
        let known = match wire::head(bytes) {
            Ok(head) => {
                if head.kind == MessageKind::Announce {
                    match self.state {
                        State::Seeking => self.consider(now, arrival.from, &head, bytes),
                        _ => self.go_over(now, arrival.from, &head, bytes),
                    }
                }
                self.take(now, arrival, &head, bytes)
            }
            Err(error) => {
                self.not_understood(error, arrival.from);
                false
            }
        };
        if !known {
            self.counters.ignored += 1;
        }
    }

    /// Takes a datagram of the session in, if it is one; what costs least is checked first.
    fn take(&mut self, now: Time, arrival: Arrival, head: &Head, bytes: &mut [u8]) -> bool {
        let (from, number) = (arrival.from, head.header.packet_number);
        let Some(session) = self.session.as_mut().filter(|s| s.id == head.header.session) else {
            return false;
        };
        let home = session.came_from(from, head.kind == MessageKind::Announce, now);
        // Where no seal vouches for it, what comes from elsewhere must not take the time for what comes from
        // the sender: only that it has moved can be news.
        if !home
            && !session.side.is_sealed()
            && !matches!(head.kind, MessageKind::Announce | MessageKind::Retry)
            && !head.protection.is_device()
        {
            return false;
        }
        let rate_limit = if home { &mut self.rate_limit } else { &mut self.rate_limit_for_strangers };
        let Some(opened) = session.side.open(head, bytes, || rate_limit.allow(now)) else { return false };
        // What nothing vouches for must at least seem to come from the sender.
        if !opened.authentic && !home && head.kind != MessageKind::Retry {
            return false;
        }
        let group = number.channel() == ChannelId::GROUP;
        if opened.authentic {
            if head.protection.is_device() {
                session.spoken_to_from(from, home, now);
            }
            session.last_heard = now;
            if group {
                session.last_group = now;
            }
            if opened.newest && head.kind == MessageKind::Announce && !home {
                session.announced_elsewhere(from, now);
            }
        }
        if group {
            session.group.note(number, now - arrival.waited);
        } else if number.channel() == session.side.own_channel() {
            session.own.note(number, now - arrival.waited);
        }
        let message = match wire::decode_body(head.kind, opened.body) {
            Ok(message) => message,
            Err(error) => {
                self.not_understood(error, from);
                return false;
            }
        };
        if let (Message::Retry(retry), false) = (&message, home)
            && (self.admitted || !self.session.as_mut().is_some_and(|s| s.challenged_from(from, retry)))
        {
            return false;
        }
        self.heed(now, head, message)
    }

    /// Does what a message of the sender says.
    fn heed(&mut self, now: Time, head: &Head, message: Message<'_>) -> bool {
        match message {
            Message::Symbol(symbol) => self.symbol(symbol),
            Message::Announce(announce) => self.announced(now, &announce),
            Message::Retry(retry) => self.challenged(now, &retry),
            Message::Admit(admit) => self.admission(now, admit),
            Message::HashPage(page) => {
                let checked = self.blocks.as_mut().map_or_else(Vec::new, |blocks| blocks.add_page(page));
                for (block, verdict) in checked {
                    self.block_checked(block, verdict, now);
                }
                self.check_candidates();
                self.inquire(now);
                self.commit_if_whole(now);
                true
            }
            Message::SymbolDigests(digests) => {
                if self.blocks.as_mut().is_some_and(|blocks| blocks.add_digests(&digests)) {
                    self.timers.inquiry.answered(now);
                    self.sift();
                    self.inquire(now);
                }
                true
            }
            // The group's is for all and signed; our own is sealed.
            Message::Poll(poll)
                if head.protection.is_device()
                    == (head.header.packet_number.channel() != ChannelId::GROUP) =>
            {
                self.polled(now, head.header.packet_number, &poll);
                true
            }
            Message::Acknowledge(_) => {
                self.acknowledged();
                true
            }
            Message::Abort(abort) => {
                self.sender_stopped(now, abort);
                true
            }
            _ => false,
        }
    }

    /// A datagram is of a kind, a protection or a version that this program does not know.
    fn not_understood(&mut self, error: DecodeError, from: SocketAddr) {
        match error {
            DecodeError::UnknownKind(_) => self.counters.unknown_kinds += 1,
            error if error.is_not_understood() => self.counters.not_understood += 1,
            _ => {}
        }
        if matches!(error, DecodeError::UnsupportedVersion(_)) {
            self.tell_need(Need::of_error(error), from);
        }
    }

    /// Tells the user, once of each address, why the session that is announced there is none for us.
    fn tell_need(&mut self, need: Option<Need>, from: SocketAddr) {
        let Some(need) = need.filter(|_| matches!(self.state, State::Seeking)) else { return };
        if self.needs.len() < MAX_REFUSED && self.needs.iter().all(|(ip, _)| *ip != from.ip()) {
            self.needs.push((from.ip(), need));
            self.event(ReceiverEvent::SenderNeeds { need, address: from });
        }
    }

    /// The session that an announce is of, if it is the kind looked for and its sender one that is trusted.
    pub(super) fn meet(
        &mut self,
        now: Time,
        from: SocketAddr,
        head: &Head,
        bytes: &mut [u8],
    ) -> Option<(Session, TrustDecision)> {
        // What cannot count costs nothing.
        if head.protection.is_group() == self.config.group_keys.is_empty() || !self.rate_limit.allow(now) {
            return None;
        }
        let found = packet_protection::examine(&self.config.group_keys, head, bytes);
        let Found { announce, group_key } = match found {
            Ok(found) => found,
            Err(FindError::NotUnderstood(key, error)) => {
                self.counters.not_understood += 1;
                if self.config.trust.decide(&key, from.ip()).accepted() {
                    self.tell_need(Need::of_error(error), from);
                }
                return None;
            }
            Err(FindError::SignedOtherwise(error)) => {
                self.counters.not_understood += 1;
                self.tell_need(Need::of_error(error), from);
                return None;
            }
            Err(FindError::Ignored) => return None,
        };
        if self.config.only.is_some_and(|ip| ip != announce.data.ip()) {
            return None;
        }
        let (key, decision) = (announce.sender, self.config.trust.decide(&announce.sender, from.ip()));
        if !decision.accepted() {
            if !self.refused.contains(&key) && self.refused.len() < MAX_REFUSED {
                self.refused.push(key);
                self.event(ReceiverEvent::SenderRefused { key, address: from, decision });
            }
            return None;
        }
        if let Some(need) = Need::of_announce(&announce) {
            self.tell_need(Some(need), from);
            return None;
        }
        if !origin_is_sound(&announce) {
            return None;
        }
        let id = head.header.session;
        let random = Secret::new(self.config.agreement).derive(AGREEMENT, &[&id.0.to_be_bytes()]);
        let group = group_key.map(|i| &self.config.group_keys[i]);
        let side = ReceiverSide::new(id, &announce, group, *random.expose())?;
        Some((Session::latch(side, from, &announce, now)?, decision))
    }

    /// Takes part in the session of an announce, if it is one to take part in.
    fn consider(&mut self, now: Time, from: SocketAddr, head: &Head, bytes: &mut [u8]) {
        let Some((session, decision)) = self.meet(now, from, head, bytes) else { return };
        let key = session.side.sender();
        self.trusted = Some((key, decision));
        self.event(ReceiverEvent::SenderTrusted { key, address: from, decision });
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

    /// The sender wants to see that we receive where it thinks we are.
    fn challenged(&mut self, now: Time, retry: &Retry) -> bool {
        let Some(session) = self.session.as_mut().filter(|s| s.side.agreement() == retry.agreement) else {
            return false;
        };
        session.cookie = retry.cookie;
        // A forged one must not make us talk more than we would.
        if self.timers.may_answer_retry(now) {
            self.ask_to_join();
        }
        true
    }

    fn announced(&mut self, now: Time, announce: &Announce) -> bool {
        let Some(session) = self.session.as_mut().filter(|s| s.agrees(announce)) else { return false };
        // What was checked before need not be again.
        if session.origin != announce.origin && !origin_is_sound(announce) {
            return false;
        }
        session.update(announce);
        // In a group that has shrunk, a report drawn for a large one would come after we are given up.
        let interval = session.report_interval();
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
        if self.admitted {
            return true;
        }
        // What was not announced, or we did not offer, cannot have been chosen.
        let possible = self.session.as_ref().is_some_and(|session| session.may_be_chosen(&admit));
        if admit.verdict == AdmitVerdict::Admitted && !possible {
            return false;
        }
        if let State::Leaving(_) = self.state {
            if let (AdmitVerdict::Admitted, Some(session)) = (admit.verdict, &mut self.session) {
                session.side.admitted(admit.channel);
                self.admitted = true;
                self.send_farewell();
            }
            return true;
        }
        if !matches!(self.state, State::Receiving) {
            return true;
        }
        match admit.verdict {
            AdmitVerdict::Admitted => {
                if let Some(session) = &mut self.session {
                    session.side.admitted(admit.channel);
                    session.ticket = admit.ticket;
                }
                self.admitted = true;
                self.timers.admitted(now);
                self.event(ReceiverEvent::Admitted);
                if let Some((code, reason)) = self.refusal.take() {
                    self.fail(code, reason, now);
                } else {
                    self.commit_if_whole(now);
                }
            }
            AdmitVerdict::AlreadyComplete => self.leave(ReceiverOutcome::AlreadyComplete, None, now),
            AdmitVerdict::Unsupported => {
                let need = Need::Feature("a version or a capability");
                self.leave(ReceiverOutcome::SenderNeeds(need), None, now);
            }
            AdmitVerdict::Full => self.leave(ReceiverOutcome::Refused, None, now),
        }
        true
    }

    fn symbol(&mut self, symbol: Symbol<'_>) -> bool {
        let (State::Receiving, Some(blocks)) = (&self.state, &mut self.blocks) else { return true };
        if self.refusal.is_some() || !is_sound(blocks, &symbol) {
            return self.refusal.is_some();
        }
        let (taken, job) = blocks.add(symbol.block, symbol.esi, symbol.payload);
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
        session.gsize = sound_group_size(poll.gsize);
        if !self.admitted || !matches!(self.state, State::Receiving) {
            return;
        }
        if number.channel() != ChannelId::GROUP {
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
                answer.note_advertised(poll.round, &poll.advertised);
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
        if let Some(nak) = answer.nak(blocks, now, always) {
            self.send(&Message::Nak(nak));
        }
    }
}

/// Whether an announce has a proof of its origin that holds, or none. A proof is of objects whose root is known.
fn origin_is_sound(announce: &Announce) -> bool {
    let Some(proof) = &announce.origin else { return true };
    let [object] = announce.objects[..] else { return false };
    object.root.is_some_and(|root| {
        let (name, manifest) = (&announce.name, &announce.manifest);
        let origin = Origin { block_log2: object.block_log2, size: object.size, root, name, manifest };
        origin.verify(&proof.key, &proof.signature)
    })
}

/// Whether a symbol fits its block: an id there can be, and the length that belongs to it.
fn is_sound(blocks: &Blocks, symbol: &Symbol<'_>) -> bool {
    let layout = blocks.layout();
    if symbol.block.0 >= layout.block_count() || symbol.esi.0 > MAX_ESI {
        return false;
    }
    let source = symbol.esi < Esi(layout.source_symbols(symbol.block));
    let expected = if source {
        layout.symbol_range(symbol.block, symbol.esi).len()
    } else {
        usize::from(layout.symbol_size())
    };
    symbol.payload.len() == expected
}
