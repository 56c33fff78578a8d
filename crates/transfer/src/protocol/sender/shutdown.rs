//! Shutdown: lingering for late devices, and the last ABORTs.

use super::Sender;
use super::devices::Class;
use crate::protocol::event::{SenderEvent, SenderOutcome};
use crate::task::State;
use crate::time::Time;
use crate::units::DeviceIndex;
use crate::wire::{Abort, AbortCode, Message, Phase};
use std::time::Duration;

/// Number of ABORTs at the end, and their interval.
const GOODBYES: u32 = 4;
const GOODBYE_EVERY: Duration = Duration::from_millis(5);
/// Time that the store gets for the last records; below, after an interrupt, because the user waits.
const LAST_RECORDS: Duration = Duration::from_secs(10);
const LAST_RECORDS_INTERRUPTED: Duration = Duration::from_secs(2);
/// Most devices that also get the ABORT by unicast.
const GOODBYES_BY_UNICAST: usize = 64;

/// The error of a store that does not record the end of the session in time.
const NOT_IN_TIME: &str = "it did not record the last states in time";

/// The reason for which devices fail when `--max-time` is over.
const TIME_IS_UP: &str = "the transfer's time was up";

fn goodbye(code: AbortCode, reason: &str) -> Message<'static> {
    Message::Abort(Abort { code, reason: reason.to_owned() })
}

/// The state of the session's end.
#[derive(Debug)]
pub(super) struct Shutdown {
    /// The session's deadline (`--max-time`).
    time_is_up: Time,
    /// The end of lingering. It is set once: devices that join later delay the end only while they are served.
    linger_until: Option<Time>,
    closing: Option<Closing>,
    finished: bool,
}

#[derive(Debug)]
struct Closing {
    outcome: SenderOutcome,
    code: AbortCode,
    reason: String,
    left: u32,
    next: Time,
    /// The deadline for the store's last records.
    until: Time,
}

impl Shutdown {
    /// The state of a session with this deadline.
    pub const fn new(time_is_up: Time) -> Self {
        Self { time_is_up, linger_until: None, closing: None, finished: false }
    }
    /// The deadline; [`Time::NEVER`] once the session is ending.
    pub const fn time_is_up_at(&self) -> Time {
        if self.is_closing() { Time::NEVER } else { self.time_is_up }
    }
    /// Whether the time of lingering is over.
    pub fn lingered(&self, now: Time) -> bool {
        self.linger_until.is_some_and(|until| now >= until)
    }
    pub const fn is_closing(&self) -> bool {
        self.closing.is_some() || self.finished
    }
    pub const fn is_finished(&self) -> bool {
        self.finished
    }
    /// Moves the end of lingering by time in which no device could join.
    pub fn put_off(&mut self, away: Duration) {
        self.linger_until = self.linger_until.map(|until| until + away);
    }
    pub fn close(&mut self, outcome: SenderOutcome, code: AbortCode, reason: &str, now: Time) {
        if self.is_closing() {
            return;
        }
        let patience =
            if outcome == SenderOutcome::Interrupted { LAST_RECORDS_INTERRUPTED } else { LAST_RECORDS };
        let (reason, until) = (reason.to_owned(), now + patience);
        self.closing = Some(Closing { outcome, code, reason, left: GOODBYES, next: now, until });
    }
    /// When the next ABORT is due; [`Time::NEVER`] if all are sent. `None` while the session continues.
    pub fn next_timeout(&self) -> Option<Time> {
        match &self.closing {
            Some(closing) => Some(closing.next),
            None => self.finished.then_some(Time::NEVER),
        }
    }
}

impl Sender {
    /// Ends the session, or lingers, if no known device is left to serve.
    pub(super) fn end_if_done(&mut self, now: Time) {
        if self.phase == Phase::Gathering || self.devices.open() > 0 || self.shutdown.is_closing() {
            return;
        }
        if !self.stream_done() {
            self.cut_stream();
        }
        if self.end_without_store(now) || !self.records.is_idle() || self.records.keeps_devices_waiting() {
            return;
        }
        if self.root.is_none() {
            // Hashing continues: the report and returning devices need the root.
            if self.config.linger.is_zero() {
                self.end(now);
            }
            return;
        }
        if self.config.linger.is_zero() {
            self.end(now);
            return;
        }
        self.set_phase(Phase::Lingering, now);
        let until = *self.shutdown.linger_until.get_or_insert(now + self.config.linger);
        if now >= until {
            self.end(now);
        }
    }

    /// Ends the session at its deadline. All unfinished devices fail.
    pub(super) fn time_is_up(&mut self, now: Time) {
        let open: Vec<DeviceIndex> = self.devices.of(Class::Open).iter().copied().collect();
        for (n, index) in open.into_iter().enumerate() {
            self.set_state(index, State::Failed(TIME_IS_UP.to_owned()), now);
            // Sent now, because the later ABORTs by unicast go only to unfinished devices.
            if n < GOODBYES_BY_UNICAST {
                self.send_signed_to_device(index, &goodbye(AbortCode::Finished, TIME_IS_UP), now);
            }
        }
        self.finish(SenderOutcome::Ended, AbortCode::Finished, TIME_IS_UP, now);
    }

    fn end(&mut self, now: Time) {
        self.finish(SenderOutcome::Ended, AbortCode::Finished, "the sender is done", now);
    }

    /// Sends the next of several ABORTs: one may be lost.
    pub(super) fn send_goodbye(&mut self, now: Time) {
        let Some(closing) = &mut self.shutdown.closing else { return };
        if now < closing.next {
            return;
        }
        closing.next = now + GOODBYE_EVERY;
        if closing.left == 0 {
            self.finish_closing(now);
            return;
        }
        closing.left -= 1;
        let message = goodbye(closing.code, &closing.reason);
        self.send_to_group(&message, now);
        let open = self.devices.of(Class::Open).iter().copied();
        let open: Vec<DeviceIndex> = open.take(GOODBYES_BY_UNICAST).collect();
        for index in open {
            self.send_signed_to_device(index, &message, now);
        }
        self.finish_closing(now);
    }

    /// Finishes once all ABORTs are sent and the store has every record, is given up or has run out of time. If the store
    /// lacks records then, the session has not ended as planned.
    pub(super) fn finish_closing(&mut self, now: Time) {
        let given_up = self.records.given_up();
        let store_is_done = self.records.is_idle() || given_up.is_some();
        let failure = given_up.or((!store_is_done).then_some(NOT_IN_TIME)).map(str::to_owned);
        let over = |closing: &mut Closing| closing.left == 0 && (store_is_done || now >= closing.until);
        if let Some(closing) = self.shutdown.closing.take_if(over) {
            self.shutdown.finished = true;
            let outcome = match (closing.outcome, failure) {
                (SenderOutcome::Ended, Some(why)) => SenderOutcome::StoreFailed(why),
                (outcome, _) => outcome,
            };
            self.event(SenderEvent::Finished(outcome));
        }
    }
}
