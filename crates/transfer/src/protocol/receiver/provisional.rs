//! Finds and joins sessions that have not yet admitted this device, and handles their messages.
//! `provisional_sessions` has the rules for their turns.

use super::blocks::Blocks;
use super::inbound::is_sound;
use super::provisional_sessions::ProvisionalSession;
use super::session::{Session, sound_group_size};
use super::{Receiver, State};
use crate::crypto::primitives::Primitives;
use crate::limits::join_ceiling;
use crate::protocol::Output;
use crate::protocol::event::ReceiverEvent;
use crate::protocol::need::Need;
use crate::protocol::packet_protection::{self, FindError, Found, ReceiverSide};
use crate::protocol::provenance::Provenance;
use crate::protocol::trust::TrustDecision;
use crate::time::Time;
use crate::units::{Arrival, SenderKey, SessionId, Ticket};
use crate::wire::{
    Admit, AdmitVerdict, Announce, DecodeError, HashPage, Head, Holdings, Invitation, Message, MessageKind,
    Retry, Symbol,
};
use std::net::SocketAddr;
use std::sync::Arc;

/// Context of the agreement key that a run derives for one session; used for nothing else.
const AGREEMENT: &str = "mcp 2026-11-20 device's half of an agreement v1";
/// Most refused senders that the user is told about.
const MAX_REFUSED: usize = 16;
/// Most sessions remembered so that the user is told about each only once.
const MAX_FOUND: usize = 64;

impl Receiver {
    /// Counts a datagram of a kind, a protection or a version that this program does not know.
    pub(super) fn not_understood(&mut self, error: DecodeError, from: SocketAddr) {
        match error {
            DecodeError::UnknownKind(_) => self.counters.unknown_kinds += 1,
            error if error.is_not_understood() => self.counters.not_understood += 1,
            _ => {}
        }
        if matches!(error, DecodeError::UnsupportedVersion(_)) {
            self.tell_need(Need::of_error(error), from);
        }
    }

    /// Tells the user, once for each address, about an unmet requirement of the session announced there.
    pub(super) fn tell_need(&mut self, need: Option<Need>, from: SocketAddr) {
        let Some(need) = need.filter(|_| matches!(self.state, State::Seeking)) else { return };
        if self.needs.len() < MAX_REFUSED && self.needs.iter().all(|(ip, _)| *ip != from.ip()) {
            self.needs.push((from.ip(), need));
            self.event(ReceiverEvent::SenderNeeds { need, address: from });
        }
    }

    /// Tells the user, once for each address, that the object announced there has another name.
    fn tell_other_name(&mut self, name: String, address: SocketAddr) {
        if self.other_names.len() < MAX_REFUSED && !self.other_names.contains(&address.ip()) {
            self.other_names.push(address.ip());
            self.event(ReceiverEvent::OtherName { name, address });
        }
    }

    /// The session of an announcement, if it is acceptable and its sender is trusted.
    fn meet(&mut self, now: Time, from: SocketAddr, head: &Head, bytes: &mut [u8]) -> Option<Session> {
        if self.config.source.is_some_and(|source| source != from.ip()) {
            return None;
        }
        // The free checks come first.
        if head.protection.is_group() == self.config.group_keys.is_empty() || !self.limits.home.allow(now) {
            return None;
        }
        let found = packet_protection::examine(self.config.primitives, &self.config.group_keys, head, bytes);
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
        let relayed = !decision.accepted();
        if relayed && !self.trusts_origin(&announce, from) {
            self.tell_refused(key, from, decision);
            return None;
        }
        if self.config.name.as_ref().is_some_and(|name| *name != announce.name) {
            self.tell_other_name(announce.name, from);
            return None;
        }
        if let Some(need) = Need::of_announce(&announce) {
            self.tell_need(Some(need), from);
            return None;
        }
        if !origin_is_sound(self.config.primitives, &announce) || !self.suits(&announce, from) {
            return None;
        }
        let id = head.header.session;
        let random = self.config.agreement.derive(AGREEMENT, &[&id.0.to_be_bytes()]);
        let group = group_key.map(|i| &self.config.group_keys[i]);
        let side = ReceiverSide::new(self.config.primitives, id, &announce, group, *random.expose())?;
        let mut session = Session::latch(side, from, &announce, now)?;
        session.relayed = relayed;
        Some(session)
    }

    /// Tells the user, once for each sender, that it is refused.
    fn tell_refused(&mut self, key: SenderKey, address: SocketAddr, decision: TrustDecision) {
        if !self.refused.contains(&key) && self.refused.len() < MAX_REFUSED {
            self.refused.push(key);
            self.event(ReceiverEvent::SenderRefused { key, address, decision });
        }
    }

    /// Decides again whether to trust the sender of a session that has admitted the device: its address may now be
    /// proven. Drops the session of a refused sender. Remembers only a proven address.
    pub(super) fn decide_on_admission(&mut self, now: Time, id: SessionId) -> Option<TrustDecision> {
        let provisional = self.provisional.get_mut(id)?;
        let (key, address) = (provisional.session.side.sender(), provisional.session.sender);
        let proven = provisional.session.is_proven();
        let origin = provisional.session.trusted();
        let decision = match self.config.trust.decide(&key, address.ip()) {
            // The origin is trusted wherever its object comes from.
            decision if provisional.session.relayed => {
                self.config.trust.decide_origin(&origin).unwrap_or(decision)
            }
            TrustDecision::FirstUse if !proven => TrustDecision::Unverified,
            decision => decision,
        };
        if decision.accepted() {
            return Some(decision);
        }
        self.tell_refused(key, address, decision);
        self.drop_provisional(now, id);
        None
    }

    /// Adds the session of an announcement as a provisional one, if the receiver needs one and does not have
    /// it.
    pub(super) fn consider(&mut self, now: Time, from: SocketAddr, head: &Head, bytes: &mut [u8]) {
        let id = head.header.session;
        let other = |wanted: SessionId| self.session.is_none() && wanted != id;
        if self.config.wanted.is_some_and(other)
            || self.config.ignored.get(&id).is_some_and(|until| now < *until)
            || !self.looks_for(now, id)
            || self.provisional.position(id).is_some()
        {
            return;
        }
        let Some(session) = self.meet(now, from, head, bytes) else { return };
        if self.session.as_ref().is_some_and(|old| !session.continues(old)) {
            return;
        }
        // The verified blocks are known already.
        let passing = self.config.intake.is_ordered();
        let holding = self.session.as_ref().map(|_| if passing { Holdings::Passing } else { Holdings::Some });
        if self.provisional.add(ProvisionalSession::new(session, holding, now), now) {
            self.turn_begins(now);
        }
    }

    /// Begins the turn of a provisional session.
    fn turn_begins(&mut self, now: Time) {
        let Some(ProvisionalSession { session, .. }) = self.provisional.current() else { return };
        self.out.push_back(Output::Listen(session.data));
        if self.session.is_none() && !self.found.contains(&session.id) {
            self.found.push_back(session.id);
            let event = session.found_event();
            self.event(event);
            if self.found.len() > MAX_FOUND {
                self.found.pop_front();
            }
        }
        self.probe();
        self.take_part_unasked(now);
    }

    /// Requests a look-up of the object's blocks that the device holds. At most one look-up runs at a time.
    fn probe(&mut self) {
        let Some(ProvisionalSession { session, holding: None, .. }) = self.provisional.current() else {
            return;
        };
        if self.provisional.probing.is_none() {
            let (id, job) = (session.id, session.probe_job());
            self.provisional.probing = Some(id);
            self.job(job);
        }
    }

    /// Takes the result of a look-up.
    pub(super) fn probed(
        &mut self,
        now: Time,
        session: SessionId,
        holding: Holdings,
        ticket: Option<Ticket>,
    ) {
        self.provisional.probing = None;
        if let Some(provisional) = self.provisional.get_mut(session) {
            provisional.holding = Some(holding);
            provisional.session.ticket = ticket;
        }
        if matches!(self.state, State::Seeking) {
            self.probe();
            self.take_part_unasked(now);
        }
    }

    /// Ends a turn that is over, and sends the JOIN that is due.
    pub(super) fn tend_provisional(&mut self, now: Time) {
        if self.provisional.tend(now) {
            self.turn_begins(now);
        }
        if let Some(provisional) = self.provisional.current_mut()
            && now >= provisional.join
        {
            provisional.join = Time::NEVER;
            if provisional.last_join.replace(now).is_some() {
                provisional.session.try_elsewhere();
            }
            let id = provisional.session.id;
            self.join_provisional(now, id);
        }
    }

    /// Sends a JOIN to a provisional session.
    fn join_provisional(&mut self, now: Time, id: SessionId) {
        let current = self.provisional.position(id) == Some(0);
        let Some(provisional) = self.provisional.get_mut(id) else { return };
        provisional.session.note_join();
        provisional.may_answer_late = current;
        let Some(ProvisionalSession { session, holding, .. }) = self.provisional.get(id) else { return };
        let join = self.join(session, holding.unwrap_or_default());
        let datagram = self.join_datagram(session, join);
        self.send_join(datagram);
        if current {
            self.provisional.joined(now);
        }
    }

    /// The provisional session that may have a row for this device.
    pub(super) fn asked_session(&mut self) -> Option<ProvisionalSession> {
        let id = self.provisional.current().filter(|provisional| provisional.last_join.is_some())?.session.id;
        self.provisional.take(id)
    }

    /// Takes a datagram of a provisional session. Returns false if it belongs to none.
    pub(super) fn take_provisional(
        &mut self,
        now: Time,
        arrival: Arrival,
        head: &Head,
        bytes: &mut [u8],
    ) -> bool {
        let id = head.header.session;
        let Some(at) = self.provisional.position(id) else { return false };
        // The buffers serve one provisional session, and none while the device is in another session.
        let keeps = at == 0 && matches!(self.state, State::Seeking);
        let is_kept = matches!(head.kind, MessageKind::Symbol | MessageKind::HashPage);
        if is_kept && !keeps {
            return true;
        }
        let Some(provisional) = self.provisional.get_mut(id) else { return false };
        let message = match provisional.session.open(now, &arrival, head, bytes, &mut self.limits) {
            Ok(Some(message)) => message,
            Ok(None) => return false,
            Err(error) => {
                self.not_understood(error, arrival.from);
                return false;
            }
        };
        if head.protection.is_device() {
            provisional.spoke(now);
        }
        self.provisional.heard(at);
        match message {
            Message::Symbol(symbol) => self.keep_symbol(&symbol),
            Message::HashPage(page) => self.keep_page(page),
            Message::Announce(announce) => self.provisional_announced(now, id, &announce),
            Message::Retry(retry) => self.provisional_challenged(now, id, &retry),
            Message::Admit(admit) => {
                self.provisional_admits(now, id, &admit);
                true
            }
            Message::Abort(_) => {
                self.drop_provisional(now, id);
                true
            }
            Message::Poll(poll) => {
                if let Some(provisional) = self.provisional.get_mut(id) {
                    provisional.session.gsize = sound_group_size(poll.gsize);
                    provisional.session.is_at(poll.position);
                }
                true
            }
            _ => true,
        }
    }

    pub(super) fn drop_provisional(&mut self, now: Time, id: SessionId) {
        if self.provisional.remove(id, now).is_some_and(|(_, begins)| begins) {
            self.turn_begins(now);
        }
    }

    /// The blocks of the provisional session that has its turn.
    fn kept(&mut self) -> Option<&mut Blocks> {
        let provisional = self.provisional.current_mut()?;
        Some(provisional.blocks.get_or_insert_with(|| {
            let blocks = Blocks::provisional(provisional.session.layout, self.config.buffer_bytes);
            let mut blocks = blocks.for_intake(self.config.intake).for_session(&provisional.session);
            blocks.take_memory_from(Arc::clone(&self.config.memory));
            blocks
        }))
    }

    fn keep_symbol(&mut self, symbol: &Symbol<'_>) -> bool {
        let current = self.provisional.current();
        if !current.is_some_and(|provisional| provisional.session.reaches(symbol.block)) {
            return false;
        }
        let Some(blocks) = self.kept() else { return false };
        let sound = is_sound(blocks, symbol);
        if sound {
            // A symbol that gets no buffer is requested again later.
            blocks.add(symbol.block, symbol.esi, symbol.payload);
        }
        sound
    }

    fn keep_page(&mut self, page: HashPage) -> bool {
        if let Some(blocks) = self.kept() {
            blocks.add_page(page);
        }
        true
    }

    fn provisional_announced(&mut self, now: Time, id: SessionId, announce: &Announce) -> bool {
        let current = self.provisional.position(id) == Some(0);
        let Some(provisional) = self.provisional.get_mut(id).filter(|c| c.session.agrees(announce)) else {
            return false;
        };
        // A proof that has been checked is not checked again.
        if !provisional.session.knows_proof_of(announce) && !origin_is_sound(self.config.primitives, announce)
        {
            return false;
        }
        provisional.session.update(announce);
        if let Some(blocks) = &mut provisional.blocks {
            blocks.grow(provisional.session.layout);
        }
        if current && provisional.holding.is_some() {
            self.invited(now, announce.invitation);
        }
        true
    }

    /// Draws for an invitation. If it selects the device, sets the time of a JOIN.
    fn invited(&mut self, now: Time, invitation: Invitation) {
        let Some(provisional) = self.provisional.current_mut() else { return };
        let probability = invitation.probability.min(join_ceiling(provisional.invitations));
        provisional.invitations += 1;
        if provisional.session.one_way
            || provisional.admitted
            || provisional.join_is_pending(now)
            || !self.draw(probability)
        {
            return;
        }
        let join = now + invitation.window.mul_f64(self.rng.f64());
        if let Some(provisional) = self.provisional.current_mut() {
            provisional.join_at(join);
        }
    }

    /// Handles RETRY: the sender validates this device's address.
    fn provisional_challenged(&mut self, now: Time, id: SessionId, retry: &Retry) -> bool {
        let current = self.provisional.position(id) == Some(0);
        let provisional = self.provisional.get_mut(id);
        let Some(provisional) = provisional.filter(|p| p.session.is_challenged(retry)) else { return false };
        provisional.session.cookie = retry.cookie;
        // A forged RETRY must not make the device send more than usual. One that comes after the turn is answered once:
        // the way to the sender and back may take longer than a turn.
        let may = provisional.last_join.is_some() && (current || provisional.may_answer_late);
        if may && provisional.session.may_answer_retry(now) {
            provisional.last_join = Some(now);
            self.join_provisional(now, id);
        }
        true
    }

    /// Handles ADMIT. It proves that the session is live: only its sender can have sealed this for the device.
    fn provisional_admits(&mut self, now: Time, id: SessionId, admit: &Admit) {
        // A sender can only choose what it announced and the device offered.
        let possible = self.provisional.get_mut(id).is_some_and(|p| p.session.may_be_chosen(admit));
        if admit.verdict == AdmitVerdict::Admitted && !possible {
            return;
        }
        match (&self.state, admit.verdict) {
            (State::Seeking, _) => {
                if let Some(decision) = self.decide_on_admission(now, id)
                    && let Some(provisional) = self.provisional.take(id)
                {
                    self.take_part(now, provisional, decision, admit);
                }
            }
            (State::Receiving, AdmitVerdict::Admitted) => {
                if let Some(provisional) = self.provisional.get_mut(id) {
                    provisional.session.side.admitted(admit.channel);
                    provisional.session.ticket = admit.ticket;
                    provisional.admitted = true;
                }
                self.go_over(now);
            }
            _ => self.drop_provisional(now, id),
        }
    }
}

/// Whether an announcement has a valid proof of its origin, or none. A proof needs a known root.
pub(super) fn origin_is_sound(primitives: &dyn Primitives, announce: &Announce) -> bool {
    announce.origin.is_none() || Provenance::of(announce).is_some_and(|object| object.holds(primitives))
}
