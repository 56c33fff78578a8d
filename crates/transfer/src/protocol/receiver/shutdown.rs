//! Shutdown: confirming that the file is in place, leaving without it, and interrupts.

use super::{Receiver, State};
use crate::limits::{COMPLETIONS_PER_SECOND, SENDER_SILENCE, SMALL_GROUP};
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome};
use crate::protocol::job::ReceiverJob;
use crate::time::Time;
use crate::wire::{Abort, AbortCode, Complete, Message};
use std::time::Duration;

/// First and longest interval of repeated receipts and ABORTs. The first is short, because the sender of a few devices
/// waits for the last receipt. It doubles with each one after the first [`HASTY_TRIES`].
const REPEAT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
const HASTY_TRIES: u32 = 4;
/// Mean distance between the receipts of a small group that completes at once.
const RECEIPT_EVERY: Duration = Duration::from_micros(500);
const _: () = assert!(SMALL_GROUP <= COMPLETIONS_PER_SECOND);
/// How long to wait for the acknowledgement of a receipt after the sender's last ABORT.
const LAST_WORD: Duration = Duration::from_millis(300);
/// Most ABORTs that a leaving device sends.
const LEAVE_TRIES: u32 = 8;

/// Repeating COMPLETE until it is acknowledged.
#[derive(Debug)]
pub(super) struct Confirming {
    next: Time,
    /// The first interval.
    distance: Duration,
    tries: u32,
    until: Time,
}

/// Leaving without the file.
#[derive(Debug)]
pub(super) struct Leaving {
    outcome: ReceiverOutcome,
    /// The ABORT to send until it is acknowledged, if there is one.
    farewell: Option<(AbortCode, String)>,
    tries: u32,
    next: Time,
    /// Whether the part file is being removed, or left to the next run.
    discarding: bool,
    discarded: bool,
}

/// The interval to the next try after `tries` others, the first of which was `first`.
fn interval(first: Duration, tries: u32) -> Duration {
    let doubled = tries.saturating_sub(HASTY_TRIES - 1).min(6);
    (first * (1 << doubled)).min(REPEAT.1).max(first)
}

impl Confirming {
    /// When the next receipt, or the end, is due.
    pub fn due(&self) -> Time {
        self.next.min(self.until)
    }
    /// Moves the end by time in which nothing could be heard.
    pub fn put_off(&mut self, away: Duration) {
        self.until = self.until + away;
    }
}

impl Leaving {
    /// When the next ABORT is due, if there is one.
    pub fn due(&self) -> Time {
        if self.farewell.is_some() { self.next } else { Time::NEVER }
    }
    /// The part file has been removed, or left to the next run.
    pub fn part_file_settled(&mut self) {
        self.discarded = true;
    }
    /// No worker can remove the part file any more. The next run takes over what is left.
    pub fn give_up_discarding(&mut self) {
        self.discarded |= self.discarding;
    }
    /// Whether the part file may be useful to a later run. A stream that broke off (`growing`) can be sent again.
    const fn keeps(&self, growing: bool) -> bool {
        match &self.outcome {
            ReceiverOutcome::SenderSilent
            | ReceiverOutcome::Refused
            | ReceiverOutcome::NotListed
            | ReceiverOutcome::Interrupted => true,
            ReceiverOutcome::Lacking { end, .. } => {
                !matches!(end, Some(AbortCode::Source | AbortCode::Mismatch))
            }
            ReceiverOutcome::SenderAborted(AbortCode::Source, _) => growing,
            ReceiverOutcome::SenderAborted(code, _) => !matches!(code, AbortCode::Mismatch),
            ReceiverOutcome::Failed(code, _) => matches!(code, AbortCode::Internal),
            _ => false,
        }
    }
}

impl Receiver {
    /// Repeats the receipt or the ABORT when it is due, and ends after the last try.
    pub(super) fn shut_down(&mut self, now: Time) {
        match &mut self.state {
            State::Confirming(confirming) => {
                if now >= confirming.until {
                    self.finish(self.hook.outcome(false));
                } else if now >= confirming.next {
                    confirming.next = now + interval(confirming.distance, confirming.tries);
                    confirming.tries += 1;
                    self.send_receipt();
                }
            }
            State::Leaving(leaving) if leaving.farewell.is_some() && now >= leaving.next => {
                leaving.next = now + interval(REPEAT.0, leaving.tries);
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

    pub(super) fn send_receipt(&mut self) {
        let Some(session) = &self.session else { return };
        let Some(root) = session.root else { return };
        let (received, lost) = (session.group.received, session.group.lost());
        let receipt = if self.config.intake.is_ordered() {
            Complete::piped(root, self.config.command.then_some(0), received, lost)
        } else {
            Complete { hook: self.hook.status(), ..Complete::named(root, received, lost) }
        };
        self.send(&Message::Complete(receipt));
    }

    pub(super) fn send_farewell(&mut self) {
        if let State::Leaving(Leaving { farewell: Some((code, reason)), .. }) = &self.state {
            if self.admitted {
                self.send(&Message::Abort(Abort { code: *code, reason: reason.clone() }));
            } else {
                // The ADMIT was lost. Without it, there is no channel for the ABORT.
                self.ask_to_join();
            }
        }
    }

    /// Tells the sender that the file is in place. A user who interrupts does not want to wait long (`hurried`).
    pub(super) fn confirm(&mut self, now: Time, hurried: bool) {
        let Some(session) = &self.session else { return };
        if session.one_way {
            self.finish(self.hook.outcome(false));
            return;
        }
        // Devices complete at the same time; their receipts must be spread (I10). A small group's are too few to exceed
        // their share, however soon they come.
        let others = session.gsize.saturating_sub(1);
        let spread = Duration::from_secs(1) * others / session.feedback.completions();
        let first = if session.gsize <= SMALL_GROUP { spread.min(RECEIPT_EVERY * others) } else { spread };
        let next = now + first.mul_f64(self.rng.f64());
        let until = next + SENDER_SILENCE.max(spread * 4);
        let (next, until) = if hurried { (now, until.min(now + REPEAT.1)) } else { (next, until) };
        self.state = State::Confirming(Confirming { next, distance: REPEAT.0.max(spread), tries: 0, until });
        self.run_due(now);
    }

    /// The sender has acknowledged the COMPLETE or ABORT.
    pub(super) fn acknowledged(&mut self) {
        self.settled |= matches!(self.state, State::Confirming(_) | State::Leaving(_));
        match &mut self.state {
            State::Confirming(_) => self.finish(self.hook.outcome(true)),
            State::Leaving(leaving) => {
                leaving.farewell = None;
                self.finish_leaving();
            }
            _ => {}
        }
    }

    /// Handles the sender's ABORT.
    pub(super) fn sender_stopped(&mut self, now: Time, abort: Abort) {
        let one_way = self.is_one_way();
        match &mut self.state {
            State::Finished | State::Seeking => {}
            // The sender's ABORT to the group may overtake the acknowledgement, which arrives at another
            // socket.
            State::Confirming(confirming) => confirming.until = confirming.until.min(now + LAST_WORD),
            State::Leaving(leaving) => {
                leaving.farewell = None;
                self.finish_leaving();
            }
            State::Committing | State::Hooking => {} // The file is verified: keep it.
            State::Opening | State::Receiving if one_way => self.take_last_words(abort.code, now),
            State::Opening | State::Receiving => {
                self.leave(ReceiverOutcome::SenderAborted(abort.code, abort.reason), None, now);
            }
        }
    }

    /// Fails for a reason on this device: tells the sender, removes the part file, ends.
    pub(super) fn fail(&mut self, code: AbortCode, reason: String, now: Time) {
        self.leave(ReceiverOutcome::Failed(code, reason.clone()), Some((code, reason)), now);
    }

    pub(super) fn interrupt(&mut self, now: Time) {
        match self.state {
            State::Seeking => match self.asked_session() {
                Some(provisional) => {
                    (self.session, self.known) = (Some(provisional.session), true);
                    self.leave(ReceiverOutcome::Interrupted, None, now);
                    self.report_interrupt(now);
                }
                None => self.finish(ReceiverOutcome::Interrupted),
            },
            State::Confirming(_) => self.finish(self.hook.outcome(false)),
            State::Hooking => self.interrupt_hook(),
            State::Leaving(_) | State::Finished => {}
            // The result of its job decides; then the sender is told.
            State::Committing => self.leave(ReceiverOutcome::Interrupted, None, now),
            State::Opening | State::Receiving => {
                self.leave(ReceiverOutcome::Interrupted, None, now);
                self.report_interrupt(now);
            }
        }
    }

    /// Tells the sender about an interrupt, if that is why the device leaves.
    pub(super) fn report_interrupt(&mut self, now: Time) {
        let reachable = self.known;
        if let State::Leaving(leaving) = &mut self.state
            && leaving.outcome == ReceiverOutcome::Interrupted
            && leaving.farewell.is_none()
            && leaving.tries == 0
            && reachable
        {
            leaving.farewell = Some((AbortCode::Interrupted, "interrupted at the device".to_owned()));
            leaving.next = now;
            self.run_due(now);
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
        let farewell = farewell.filter(|_| self.known);
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
        self.run_due(now);
    }

    /// Removes the part file once no worker uses it, or leaves it to the next run. A destination that takes blocks in
    /// order is given up at once: a worker may wait for its reader.
    pub(super) fn discard_when_idle(&mut self) {
        let ordered = self.config.intake.is_ordered();
        let idle = self.jobs_in_flight == 0 || ordered && self.is_open;
        if let State::Leaving(leaving) = &mut self.state
            && idle
            && !leaving.discarding
        {
            leaving.discarding = true;
            let keeps = !ordered
                && self.blocks.as_ref().is_some_and(|blocks| {
                    leaving.keeps(!blocks.layout().is_sealed()) && blocks.worth_keeping() > 0
                });
            self.job(if keeps { ReceiverJob::Keep } else { ReceiverJob::Discard });
        }
    }

    pub(super) fn finish_leaving(&mut self) {
        if let State::Leaving(Leaving { outcome, farewell: None, discarded: true, .. }) = &self.state {
            self.finish(outcome.clone());
        }
    }

    pub(super) fn finish(&mut self, outcome: ReceiverOutcome) {
        self.state = State::Finished;
        self.event(ReceiverEvent::Finished(outcome));
    }
}
