//! Shutdown: lingering for late devices, and the last ABORTs.

use super::Sender;
use super::devices::Class;
use crate::protocol::event::{SenderEvent, SenderOutcome};
use crate::time::Time;
use crate::units::DeviceIndex;
use crate::wire::{Abort, AbortCode, Message, Phase};
use std::time::Duration;

/// Number of ABORTs at the end, and their interval.
const GOODBYES: u32 = 4;
const GOODBYE_EVERY: Duration = Duration::from_millis(25);
/// Time for the store to take the last records.
const LAST_RECORDS: Duration = Duration::from_secs(2);
/// Most devices that get the ABORT by unicast as well.
const GOODBYES_BY_UNICAST: usize = 64;

/// The state of the session's end.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
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
    /// How long to wait for the store.
    until: Time,
}

impl Shutdown {
    pub const fn is_closing(&self) -> bool {
        self.closing.is_some() || self.finished
    }
    pub const fn is_finished(&self) -> bool {
        self.finished
    }
    /// Restarts lingering after a device has completed. A device that joins and fails, even repeatedly, does
    /// not postpone the end.
    pub fn restart_linger(&mut self) {
        self.linger_until = None;
    }
    /// Moves the end of lingering by time in which no device could join.
    pub fn put_off(&mut self, away: Duration) {
        self.linger_until = self.linger_until.map(|until| until + away);
    }
    pub fn close(&mut self, outcome: SenderOutcome, code: AbortCode, reason: &str, now: Time) {
        if self.is_closing() {
            return;
        }
        let reason = reason.to_owned();
        self.closing =
            Some(Closing { outcome, code, reason, left: GOODBYES, next: now, until: now + LAST_RECORDS });
    }
    /// When the next ABORT is due; never if all are sent. `None` while the session goes on.
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
            // Hashing goes on: the report needs the root, and so would a device that comes back.
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

    fn end(&mut self, now: Time) {
        self.finish(SenderOutcome::Ended, AbortCode::Finished, "the sender is done", now);
    }

    /// Sends ABORT, several times because it may be lost.
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
        let abort = Abort { code: closing.code, reason: closing.reason.clone() };
        let message = Message::Abort(abort);
        self.send_to_group(&message, now);
        let open = self.devices.of(Class::Open).iter().copied();
        let open: Vec<DeviceIndex> = open.take(GOODBYES_BY_UNICAST).collect();
        for index in open {
            self.send_signed_to_device(index, &message, now);
        }
        self.finish_closing(now);
    }

    /// Finishes once all ABORTs are sent and the store has every record, or its time is over.
    pub(super) fn finish_closing(&mut self, now: Time) {
        let store = self.records.is_idle() || self.records.given_up().is_some();
        let over = |closing: &mut Closing| closing.left == 0 && (store || now >= closing.until);
        if let Some(closing) = self.shutdown.closing.take_if(over) {
            self.shutdown.finished = true;
            self.event(SenderEvent::Finished(closing.outcome));
        }
    }
}
