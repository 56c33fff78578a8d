//! Handles the sender's messages: announcements, admissions, symbols, hash pages, polls, acknowledgements, aborts.

use super::answer::PendingAnswer;
use super::blocks::{Blocks, Taken};
use super::liveness::SOON;
use super::provisional::origin_is_sound;
use super::session::sound_group_size;
use super::{Receiver, State};
use crate::limits::{MAX_ESI, SMALL_GROUP};
use crate::protocol::event::ReceiverEvent;
use crate::time::Time;
use crate::units::{Arrival, ChannelId, Esi};
use crate::wire::{
    self, Admit, AdmitVerdict, Announce, Head, Message, MessageKind, PacketNumber, Phase, Poll, Retry, Symbol,
};

impl Receiver {
    pub(super) fn inbound(&mut self, now: Time, arrival: Arrival, bytes: &mut [u8]) {
        let known = match wire::head(bytes) {
            Ok(head) => {
                if head.kind == MessageKind::Announce {
                    self.consider(now, arrival.from, &head, bytes);
                }
                self.take(now, arrival, &head, bytes) || self.take_provisional(now, arrival, &head, bytes)
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

    /// Takes a datagram of the receiver's session. False if it is none.
    fn take(&mut self, now: Time, arrival: Arrival, head: &Head, bytes: &mut [u8]) -> bool {
        let Some(session) = self.session.as_mut().filter(|s| s.id == head.header.session) else {
            return false;
        };
        let opened = session.open(now, &arrival, head, bytes, &mut self.limits);
        if session.last_heard == now {
            // The sender is alive, so no other session is needed.
            self.provisional.clear();
        }
        let message = match opened {
            Ok(Some(message)) => message,
            Ok(None) => return false,
            Err(error) => {
                self.not_understood(error, arrival.from);
                return false;
            }
        };
        self.heed(now, head, message)
    }

    /// Handles a message of the sender.
    fn heed(&mut self, now: Time, head: &Head, message: Message<'_>) -> bool {
        match message {
            Message::Symbol(symbol) => self.symbol(symbol, head.header.packet_number.channel()),
            Message::Announce(announce) => self.announced(now, &announce),
            Message::Retry(retry) => self.challenged(now, &retry),
            Message::Admit(admit) => self.admission(admit),
            Message::HashPage(page) => {
                let checked = self.blocks.as_mut().map_or_else(Vec::new, |blocks| blocks.add_page(page));
                for (block, verdict) in checked {
                    self.block_checked(block, verdict, now);
                }
                self.check_candidates();
                self.do_what_pages_say();
                self.write_next();
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
            // The group's POLL is signed, the device's own is sealed.
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

    /// Handles RETRY: the sender validates this device's address.
    fn challenged(&mut self, now: Time, retry: &Retry) -> bool {
        let Some(session) = self.session.as_mut().filter(|s| s.is_challenged(retry)) else { return false };
        session.cookie = retry.cookie;
        // A forged RETRY must not make the device send more than usual.
        if session.may_answer_retry(now) {
            self.ask_to_join();
        }
        true
    }

    fn announced(&mut self, now: Time, announce: &Announce) -> bool {
        let Some(session) = self.session.as_mut().filter(|s| s.agrees(announce)) else { return false };
        // A proof that has been checked is not checked again.
        if !session.knows_proof_of(announce) && !origin_is_sound(self.config.primitives, announce) {
            return false;
        }
        let gathered = session.phase == Phase::Gathering;
        session.update(announce);
        if let Some(blocks) = &mut self.blocks {
            blocks.grow(session.layout);
        }
        let begins = gathered && session.phase == Phase::Streaming;
        // In a group that has shrunk, a report time drawn for a large group would come after the sender has
        // given the device up.
        let interval = session.report_interval();
        if self.timers.report != Time::NEVER && self.timers.report > now + interval * 2 {
            self.timers.report = now + interval.mul_f64(0.5 + self.rng.f64());
        }
        if begins && session.gsize <= SMALL_GROUP && self.timers.report != Time::NEVER {
            // The sender raises its rate as soon as it has heard of the first datagrams of the stream alone.
            session.group.begin_stretch();
            self.timers.report = now + SOON + (interval / 4).mul_f64(self.rng.f64());
        }
        if matches!(self.state, State::Opening) && self.adoptable.is_some() {
            self.open_or_adopt();
        }
        self.commit_if_whole(now);
        true
    }

    /// True with the probability `numerator` / 65535.
    pub(super) fn draw(&mut self, numerator: u16) -> bool {
        numerator > 0 && self.rng.u16(..) <= numerator
    }

    /// The session admits the device again, or only while it leaves: then it has a channel to say why.
    fn admission(&mut self, admit: Admit) -> bool {
        let Some(session) = &mut self.session else { return false };
        if admit.verdict != AdmitVerdict::Admitted || !session.may_be_chosen(&admit) {
            return self.admitted;
        }
        if let (State::Leaving(_), false) = (&self.state, self.admitted) {
            session.side.admitted(admit.channel);
            self.admitted = true;
            self.send_farewell();
        }
        true
    }

    fn symbol(&mut self, symbol: Symbol<'_>, channel: ChannelId) -> bool {
        let (State::Opening | State::Receiving, Some(blocks)) = (&self.state, &mut self.blocks) else {
            return true;
        };
        let reached = self.session.as_ref().is_some_and(|session| session.reaches(symbol.block));
        if !reached || !is_sound(blocks, &symbol) {
            return false;
        }
        let (taken, job) = blocks.add(symbol.block, symbol.esi, symbol.payload);
        // Without feedback, this is where forgeries show.
        let forged = if taken == Taken::Forged { blocks.forged_symbols() } else { 0 };
        if taken == Taken::Overrun {
            self.counters.overrun_drops += 1;
            if let Some(session) = &mut self.session {
                session.arrivals_of(channel).note_overrun();
            }
        }
        if let Some(job) = job {
            self.job(job);
        }
        if forged.is_power_of_two() && self.is_one_way() {
            self.event(ReceiverEvent::ForgedSymbols { block: symbol.block.0, symbols: 1 });
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
        session.is_at(poll.position);
        if number.channel() != ChannelId::GROUP && matches!(self.state, State::Confirming(_)) {
            // A sender that polls this device alone lacks its receipt. The next one may be a minute away.
            self.send_receipt();
            return;
        }
        if !self.admitted || !matches!(self.state, State::Receiving) {
            return;
        }
        if number.channel() != ChannelId::GROUP {
            // A poll on the device's own channel is answered at once and always, after a report of the
            // arrivals of that channel.
            let arrivals = session.own.take_arrivals(true);
            if arrivals.is_some() || self.has_more_room() {
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

    /// Requests the jobs that pages have brought about.
    pub(super) fn do_what_pages_say(&mut self) {
        if !matches!(self.state, State::Receiving) || self.provisional.admitted().is_some() {
            return;
        }
        while let Some(job) = self.blocks.as_mut().and_then(Blocks::next_coding_job) {
            self.job(job);
        }
    }
}

/// Whether a symbol fits its block: a valid ESI, and the right length for it.
pub(super) fn is_sound(blocks: &Blocks, symbol: &Symbol<'_>) -> bool {
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
