//! Liveness: the next timeout, renewed group memberships, reports, and the sender's silence.

use super::{Receiver, State};
use crate::limits::{KEEPALIVE_INTERVAL, SENDER_SILENCE, SMALL_GROUP};
use crate::protocol::Output;
use crate::protocol::event::ReceiverOutcome;
use crate::time::Time;
use crate::units::BlockIndex;
use crate::wire::{Arrivals, Message, Progress};
use std::time::Duration;

/// Interval of renewed group joins while nothing is heard.
pub(super) const REJOIN: Duration = Duration::from_secs(5);
/// Time to the first report of a stream, and until a device looks again whether enough has arrived for one. Only in a small
/// group: the share of the budget holds on average over a second, and such a group reports about once more in the first.
pub(super) const SOON: Duration = Duration::from_millis(8);
/// Additional patience with a silent sender while another session of it is being joined.
const FAILOVER_GRACE: Duration = Duration::from_secs(10);

impl Receiver {
    pub(super) fn next_due(&self) -> Time {
        let timers = &self.timers;
        let silence = self.silence_ends();
        let provisional = self.provisional.next_due();
        match &self.state {
            State::Finished => Time::NEVER,
            State::Seeking => timers.seek_until.min(timers.rejoin).min(provisional),
            State::Opening => timers.report.min(timers.rejoin).min(silence).min(self.last_words_due()),
            State::Committing | State::Hooking => timers.report.min(timers.rejoin),
            State::Receiving => {
                let answer = self.answer.as_ref().map_or(Time::NEVER, |a| a.due);
                let other = timers.inquiry.due().min(answer).min(silence).min(provisional);
                timers.report.min(timers.rejoin).min(other).min(self.last_words_due())
            }
            State::Confirming(confirming) => confirming.due().min(timers.report),
            State::Leaving(leaving) => leaving.due(),
        }
    }

    /// Does what is due at `now`.
    pub(super) fn run_due(&mut self, now: Time) {
        if now >= self.timers.rejoin {
            self.rejoin(now);
        }
        self.report_if_due(now);
        match &self.state {
            State::Seeking if now >= self.timers.seek_until => {
                let need = self.needs.first().map(|(_, need)| *need);
                self.finish(need.map_or(ReceiverOutcome::NoSender, ReceiverOutcome::SenderNeeds));
            }
            State::Seeking => self.tend_provisional(now),
            State::Opening | State::Receiving => self.receiving(now),
            State::Confirming(_) | State::Leaving(_) => self.shut_down(now),
            _ => {}
        }
    }

    /// Time in which the process was stopped, or could send nothing, does not count as silence.
    pub(super) fn absent(&mut self, now: Time, away: Duration) {
        self.timers.seek_until = self.timers.seek_until + away;
        self.provisional.absent(away);
        if let Some(session) = &mut self.session {
            session.last_heard = (session.last_heard + away).min(now);
        }
        if let State::Confirming(confirming) = &mut self.state {
            confirming.put_off(away);
        }
    }

    /// When the silent sender is given up.
    fn silence_ends(&self) -> Time {
        let patience = match self.provisional.current() {
            Some(_) => SENDER_SILENCE + FAILOVER_GRACE,
            None => SENDER_SILENCE,
        };
        self.session.as_ref().map_or(Time::NEVER, |session| session.last_heard + patience)
    }

    fn receiving(&mut self, now: Time) {
        if now >= self.silence_ends() {
            let outcome = if self.is_one_way() { self.lacking(None) } else { ReceiverOutcome::SenderSilent };
            self.leave(outcome, None, now);
            return;
        }
        self.leave_after_last_words(now);
        if matches!(self.state, State::Opening) {
            return;
        }
        self.tend_provisional(now);
        self.answer_if_due(now);
        self.inquire(now);
    }

    /// Joins the groups again: switches forget memberships, and a membership report may have been lost.
    fn rejoin(&mut self, now: Time) {
        self.timers.rejoin = now + REJOIN;
        match (&self.state, &self.session) {
            (State::Seeking, _) => {
                self.out.extend(self.config.groups.iter().map(|&group| Output::Listen(group)));
                let data = self.provisional.current().map(|current| current.session.data);
                self.out.extend(data.map(Output::Listen));
            }
            (_, Some(session)) if now >= session.last_group + REJOIN => {
                self.out.push_back(Output::Listen(session.data));
            }
            _ => {}
        }
    }

    fn report_if_due(&mut self, now: Time) {
        if now < self.timers.report {
            return;
        }
        let alive = matches!(
            self.state,
            State::Opening | State::Receiving | State::Committing | State::Hooking | State::Confirming(_)
        );
        let (Some(session), true) = (&mut self.session, alive) else {
            self.timers.report = Time::NEVER;
            return;
        };
        let interval = session.report_interval();
        self.timers.report = now + interval.mul_f64(0.75 + 0.5 * self.rng.f64());
        // A time drawn for a group that has since grown is too early: a crowd that has just joined would
        // report at the interval of a small group (I10).
        let drawn_for = std::mem::replace(&mut self.timers.report_interval, interval);
        if interval > drawn_for * 3 / 2 {
            return;
        }
        let arrivals = session.group.take_arrivals(false);
        if arrivals.is_none() && session.gsize <= SMALL_GROUP && session.group.is_arriving() {
            self.timers.report = now + SOON;
        }
        let news = self.has_more_room() || self.has_verified_more();
        if arrivals.is_some() || now >= self.timers.keepalive || news {
            self.timers.keepalive = now + KEEPALIVE_INTERVAL;
            self.report(arrivals);
        }
    }

    /// Whether there is room for blocks that the sender has reached, and believes that there is none for.
    pub(super) fn has_more_room(&self) -> bool {
        let (Some(session), Some(blocks)) = (&self.session, &self.blocks) else { return false };
        let told = self.timers.told_room;
        told <= session.position().0 && blocks.room() > told
    }

    /// Whether the sender of a stream, which may wait for it, does not know of a block that is verified.
    fn has_verified_more(&self) -> bool {
        let Some(blocks) = &self.blocks else { return false };
        !blocks.layout().is_sealed() && blocks.verified_below() > self.timers.told_below
    }

    /// Sends a report, with arrivals if there are any.
    pub(super) fn report(&mut self, arrivals: Option<Arrivals>) {
        let (Some(session), Some(blocks)) = (&self.session, &self.blocks) else { return };
        let storage = self.storage_delay.backlog(blocks.buffer_count());
        let block = blocks.usual_symbols();
        let report = Progress {
            verified: blocks.verified(),
            received: session.group.received,
            lost: session.group.lost(),
            kernel_drops: self.counters.kernel_drops,
            overrun_drops: self.counters.overrun_drops,
            storage_delay_us: storage.micros(),
            room: BlockIndex(blocks.room()),
            below: BlockIndex(blocks.verified_below()),
            ticket_kept: self.ticket_kept,
            arrivals: arrivals.map(|arrivals| storage.delayed(arrivals, block)),
        };
        (self.timers.told_room, self.timers.told_below) = (report.room.0, report.below.0);
        self.send(&Message::Progress(report));
    }
}
