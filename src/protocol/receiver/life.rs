//! The receiver's life as a whole: seeking, joining, reporting, the end.

use super::held::Held;
use super::{Receiver, State};
use crate::limits::{COMPLETIONS_PER_SECOND, LIFE_SIGN_INTERVAL, SENDER_SILENCE, report_interval};
use crate::protocol::Output;
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome};
use crate::protocol::job::{ReceiverDone, ReceiverJob};
use crate::time::Time;
use crate::wire::{Abort, AbortCode, Arrivals, Complete, Message, Progress};
use std::path::PathBuf;
use std::time::Duration;

/// While nothing is heard, group membership is renewed this often.
pub(super) const REJOIN: Duration = Duration::from_secs(5);
/// First distance of repeated receipts and aborts, and the longest.
const REPEAT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// How long the answer to a receipt may be under way after the sender's goodbye.
const LAST_WORD: Duration = Duration::from_millis(300);
/// Tries to tell the sender that we leave.
const LEAVE_TRIES: u32 = 6;
/// How long a device that could not make its part file tries to join, to say so.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(15);

/// Telling the sender that the file is in place.
#[derive(Debug)]
pub(super) struct Confirming {
    next: Time,
    distance: Duration,
    until: Time,
}

/// Going without the file.
#[derive(Debug)]
pub(super) struct Leaving {
    outcome: ReceiverOutcome,
    /// What the sender is told until it acknowledges, if it is told.
    farewell: Option<(AbortCode, String)>,
    tries: u32,
    next: Time,
    /// The part file is being removed, or left to the next run.
    discarding: bool,
    discarded: bool,
}

impl Leaving {
    /// Whether the part file can be of use to a later run.
    const fn keeps(&self) -> bool {
        match &self.outcome {
            ReceiverOutcome::SenderSilent | ReceiverOutcome::Refused | ReceiverOutcome::Interrupted => true,
            ReceiverOutcome::SenderAborted(code, _) => {
                !matches!(code, AbortCode::Source | AbortCode::Mismatch)
            }
            ReceiverOutcome::Failed(code, _) => matches!(code, AbortCode::Internal),
            _ => false,
        }
    }
}

impl Receiver {
    pub(super) fn next_due(&self) -> Time {
        let timers = &self.timers;
        let silence = self.session.as_ref().map_or(Time::NEVER, |s| s.last_heard + SENDER_SILENCE);
        match &self.state {
            State::Finished => Time::NEVER,
            State::Seeking => timers.seek_until.min(timers.rejoin),
            State::Opening | State::Committing => timers.report.min(timers.rejoin),
            State::Receiving => {
                let answer = self.answer.as_ref().map_or(Time::NEVER, |a| a.due);
                let refused = timers.refused_at + REFUSAL_PATIENCE;
                let other = timers.inquiry.due().min(answer).min(silence).min(refused);
                timers.join.min(timers.report).min(timers.rejoin).min(other)
            }
            State::Confirming(confirming) => confirming.next.min(confirming.until).min(timers.report),
            State::Leaving(leaving) if leaving.farewell.is_some() => leaving.next,
            State::Leaving(_) => Time::NEVER,
        }
    }

    /// Does what is due at `now`.
    pub(super) fn live(&mut self, now: Time) {
        if now >= self.timers.rejoin {
            self.rejoin(now);
        }
        self.report_if_due(now);
        match &mut self.state {
            State::Seeking if now >= self.timers.seek_until => {
                self.finish(ReceiverOutcome::NoSender);
            }
            State::Receiving => self.receiving(now),
            State::Confirming(confirming) => {
                if now >= confirming.until {
                    self.finish(ReceiverOutcome::Complete { acknowledged: false });
                } else if now >= confirming.next {
                    confirming.next = now + confirming.distance;
                    confirming.distance = (confirming.distance * 2).min(REPEAT.1);
                    self.send_receipt();
                }
            }
            State::Leaving(leaving) if leaving.farewell.is_some() && now >= leaving.next => {
                leaving.next = now + REPEAT.0;
                leaving.tries += 1;
                if leaving.tries > LEAVE_TRIES {
                    leaving.farewell = None;
                    self.finish_leaving();
                } else {
                    self.send_farewell();
                }
            }
            _ => {}
        }
    }

    /// Time in which we were not there, or could say nothing, is nobody's silence.
    pub(super) fn absent(&mut self, now: Time, away: Duration) {
        self.timers.seek_until = self.timers.seek_until + away;
        if let Some(session) = &mut self.session {
            session.last_heard = (session.last_heard + away).min(now);
        }
        if let State::Confirming(confirming) = &mut self.state {
            confirming.until = confirming.until + away;
        }
    }

    fn receiving(&mut self, now: Time) {
        let silent = self.session.as_ref().is_some_and(|s| now >= s.last_heard + SENDER_SILENCE);
        if silent {
            self.leave(ReceiverOutcome::SenderSilent, None, now);
            return;
        }
        if now >= self.timers.refused_at + REFUSAL_PATIENCE
            && let Some((code, reason)) = self.refusal.take()
        {
            self.fail(code, reason, now);
            return;
        }
        if now >= self.timers.join {
            self.timers.join = Time::NEVER;
            let again = self.timers.last_join.replace(now).is_some();
            if let Some(session) = self.session.as_mut().filter(|_| again) {
                session.try_elsewhere();
            }
            self.ask_to_join();
        }
        self.answer_if_due(now);
        self.inquire(now);
    }

    /// Renews group membership: switches forget, and a report may have been lost.
    fn rejoin(&mut self, now: Time) {
        self.timers.rejoin = now + REJOIN;
        match (&self.state, &self.session) {
            (State::Seeking, _) => {
                self.out.extend(self.config.groups.iter().map(|&group| Output::Listen(group)));
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
        let alive = matches!(self.state, State::Receiving | State::Committing | State::Confirming(_));
        let (Some(session), true) = (&mut self.session, alive) else {
            self.timers.report = Time::NEVER;
            return;
        };
        let interval = report_interval(session.group_size);
        self.timers.report = now + interval.mul_f64(0.75 + 0.5 * self.rng.f64());
        // A time drawn for a group that has grown since is too early: a crowd that has just joined
        // would report at the pace of a few (I10).
        let drawn_for = std::mem::replace(&mut self.timers.report_interval, interval);
        if interval > drawn_for * 3 / 2 {
            return;
        }
        let arrivals = session.group.take_arrivals(false);
        if arrivals.is_some() || now >= self.timers.life_sign {
            self.timers.life_sign = now + LIFE_SIGN_INTERVAL;
            self.report(arrivals);
        }
    }

    /// Reports on ourselves, and how datagrams have arrived.
    pub(super) fn report(&mut self, arrivals: Option<Arrivals>) {
        let (Some(session), Some(blocks)) = (&self.session, &self.blocks) else { return };
        let report = Progress {
            verified: blocks.verified(),
            received: session.group.received,
            lost: session.group.lost(),
            kernel_drops: self.counters.kernel_drops,
            overrun_drops: self.counters.overrun_drops,
            arrivals,
        };
        self.tell(&Message::Progress(report));
    }

    fn send_receipt(&mut self) {
        let (Some(session), Some(blocks)) = (&self.session, &self.blocks) else { return };
        let Some(root) = blocks.root() else { return };
        let receipt = Complete { root, received: session.group.received, lost: session.group.lost() };
        self.tell(&Message::Complete(receipt));
    }

    pub(super) fn send_farewell(&mut self) {
        if let State::Leaving(Leaving { farewell: Some((code, reason)), .. }) = &self.state {
            if self.admitted {
                self.tell(&Message::Abort(Abort { code: *code, reason: reason.clone() }));
            } else {
                // The answer to our join was lost: without it, we have no channel to say it on.
                self.ask_to_join();
            }
        }
    }

    /// A job has ended.
    pub(super) fn job_done(&mut self, now: Time, done: ReceiverDone) {
        if let ReceiverDone::WorkerDied(text) = done {
            self.fail(AbortCode::Internal, text, now);
            if let State::Leaving(leaving) = &mut self.state {
                // What could not be removed is taken over by the next run.
                leaving.discarded |= leaving.discarding && self.jobs_in_flight == 0;
            }
            self.discard_when_idle();
            self.finish_leaving();
            return;
        }
        if matches!(self.state, State::Leaving(_)) {
            if let (ReceiverDone::Discarded | ReceiverDone::Kept, State::Leaving(leaving)) =
                (&done, &mut self.state)
            {
                leaving.discarded = true;
            }
            match (done, &mut self.blocks) {
                (ReceiverDone::Kept, Some(blocks)) => self.kept = blocks.worth_keeping(),
                // What is good in the part file decides whether it is kept.
                (ReceiverDone::Opened { written, earlier }, Some(blocks)) => {
                    blocks.hold(Held::new(written, earlier, blocks.layout().block_count()));
                }
                (ReceiverDone::Checked { block, agrees }, Some(blocks)) => blocks.checked(block, agrees),
                (ReceiverDone::Stored { block, value, buffer }, Some(blocks)) => {
                    blocks.stored(block, value, buffer);
                }
                (ReceiverDone::Committed(path), _) => return self.confirm_and_leave(path, now),
                (ReceiverDone::Failed(..), _) => self.tell_interrupt(now),
                _ => {}
            }
            self.discard_when_idle();
            self.finish_leaving();
            return;
        }
        let Some(blocks) = &mut self.blocks else { return };
        match done {
            ReceiverDone::Opened { written, earlier } => {
                blocks.hold(Held::new(written, earlier, blocks.layout().block_count()));
                self.told_held = blocks.candidates() == 0;
                self.opened();
            }
            ReceiverDone::Checked { block, agrees } => blocks.checked(block, agrees),
            ReceiverDone::Stored { block, value, buffer } => {
                let verdict = blocks.stored(block, value, buffer);
                self.judge(block, verdict, now);
            }
            ReceiverDone::Mismatched { block, buffer, kept } => {
                let verdict = blocks.mismatched(block, buffer, kept);
                self.judge(block, verdict, now);
            }
            ReceiverDone::Sifted { block, right, agrees } => self.sifted(block, right, agrees, now),
            ReceiverDone::Undecodable(assembly) => blocks.undecodable(assembly),
            ReceiverDone::Spilled { assembly, buffer } => blocks.spilled(assembly, buffer),
            ReceiverDone::Committed(path) => self.confirm(path, now),
            ReceiverDone::Failed(code, reason) if matches!(self.state, State::Opening) => {
                // Join all the same: the sender's table is to say why this device fails.
                self.refusal = Some((code, reason));
                self.timers.refused_at = now;
                self.opened();
            }
            ReceiverDone::Failed(code, reason) => self.fail(code, reason, now),
            ReceiverDone::Discarded | ReceiverDone::Kept | ReceiverDone::WorkerDied(_) => {}
        }
    }

    /// The part file is there (or refused): the next announce that invites us is answered with a join.
    fn opened(&mut self) {
        self.state = State::Receiving;
    }

    fn confirm(&mut self, path: PathBuf, now: Time) {
        let (Some(blocks), Some(session)) = (&self.blocks, &self.session) else { return };
        let Some(root) = blocks.root() else { return };
        // Devices complete together; their receipts must not come together (I10).
        let spread = Duration::from_secs(1) * session.group_size.saturating_sub(1) / COMPLETIONS_PER_SECOND;
        let next = now + spread.mul_f64(self.rng.f64());
        self.state = State::Confirming(Confirming {
            next,
            distance: REPEAT.0.max(spread),
            until: next + SENDER_SILENCE.max(spread * 4),
        });
        self.committed = Some(path.clone());
        self.event(ReceiverEvent::Committed { path, root });
        self.live(now);
    }

    /// Too late to leave without the file; but who interrupted us does not want to wait for long.
    fn confirm_and_leave(&mut self, path: PathBuf, now: Time) {
        self.confirm(path, now);
        if let State::Confirming(confirming) = &mut self.state {
            confirming.next = now;
            confirming.until = confirming.until.min(now + REPEAT.1);
        }
        self.live(now);
    }

    /// The sender knows what we told it.
    pub(super) fn acknowledged(&mut self) {
        match &mut self.state {
            State::Confirming(_) => self.finish(ReceiverOutcome::Complete { acknowledged: true }),
            State::Leaving(leaving) => {
                leaving.farewell = None;
                self.finish_leaving();
            }
            _ => {}
        }
    }

    /// The sender stops, or turns us away.
    pub(super) fn sender_stopped(&mut self, now: Time, abort: Abort) {
        match &mut self.state {
            State::Finished | State::Seeking => {}
            // Its goodbye to the group may overtake the answer to our receipt: another socket.
            State::Confirming(confirming) => confirming.until = confirming.until.min(now + LAST_WORD),
            State::Leaving(leaving) => {
                leaving.farewell = None;
                self.finish_leaving();
            }
            State::Committing => {} // What is verified is worth keeping, whoever stops.
            State::Opening | State::Receiving => {
                self.leave(ReceiverOutcome::SenderAborted(abort.code, abort.reason), None, now);
            }
        }
    }

    /// Our own side fails: tell the sender, give up the part file, end.
    pub(super) fn fail(&mut self, code: AbortCode, reason: String, now: Time) {
        self.leave(ReceiverOutcome::Failed(code, reason.clone()), Some((code, reason)), now);
    }

    pub(super) fn interrupt(&mut self, now: Time) {
        match self.state {
            State::Seeking => self.finish(ReceiverOutcome::Interrupted),
            State::Confirming(_) => self.finish(ReceiverOutcome::Complete { acknowledged: false }),
            State::Leaving(_) | State::Finished => {}
            // Its job tells what came of it; then the sender is told.
            State::Committing => self.leave(ReceiverOutcome::Interrupted, None, now),
            State::Opening | State::Receiving => {
                self.leave(ReceiverOutcome::Interrupted, None, now);
                self.tell_interrupt(now);
            }
        }
    }

    /// Leaving because of an interrupt, has the sender be told so.
    fn tell_interrupt(&mut self, now: Time) {
        let reachable = self.may_be_known();
        if let State::Leaving(leaving) = &mut self.state
            && leaving.outcome == ReceiverOutcome::Interrupted
            && leaving.farewell.is_none()
            && leaving.tries == 0
            && reachable
        {
            leaving.farewell = Some((AbortCode::Interrupted, "interrupted at the device".to_owned()));
            leaving.next = now;
            self.live(now);
        }
    }

    pub(super) fn leave(
        &mut self,
        outcome: ReceiverOutcome,
        farewell: Option<(AbortCode, String)>,
        now: Time,
    ) {
        if matches!(self.state, State::Leaving(_) | State::Finished) {
            return;
        }
        let farewell = farewell.filter(|_| self.may_be_known());
        self.answer = None;
        self.state = State::Leaving(Leaving {
            outcome,
            farewell,
            tries: 0,
            next: now,
            discarding: false,
            discarded: false,
        });
        self.discard_when_idle();
        self.live(now);
    }

    /// Whether the sender may have a row for us: the answer to our join can have been lost.
    const fn may_be_known(&self) -> bool {
        self.admitted || self.timers.last_join.is_some()
    }

    /// Removes the part file once no worker is at it, or leaves it to the next run.
    fn discard_when_idle(&mut self) {
        let idle = self.jobs_in_flight == 0;
        if let State::Leaving(leaving) = &mut self.state
            && idle
            && !leaving.discarding
        {
            leaving.discarding = true;
            let keeps = leaving.keeps() && self.blocks.as_ref().is_some_and(|b| b.worth_keeping() > 0);
            self.job(if keeps { ReceiverJob::Keep } else { ReceiverJob::Discard });
        }
    }

    fn finish_leaving(&mut self) {
        if let State::Leaving(Leaving { outcome, farewell: None, discarded: true, .. }) = &self.state {
            self.finish(outcome.clone());
        }
    }

    fn finish(&mut self, outcome: ReceiverOutcome) {
        self.state = State::Finished;
        self.event(ReceiverEvent::Finished(outcome));
    }
}
