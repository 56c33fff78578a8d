//! The sender's life as a whole: announces, the start, devices that fall silent, the source's
//! health, lingering, and the end.

use super::Sender;
use super::config::SenderConfig;
use super::devices::Device;
use crate::limits::{ANNOUNCE_INTERVAL, DEVICE_STALL, DEVICE_SYNC, device_silence};
use crate::protocol::event::{SenderEvent, SenderOutcome};
use crate::protocol::job::SenderJob;
use crate::status::DeviceStatus;
use crate::time::Time;
use crate::units::BlockIndex;
use crate::wire::{Abort, AbortCode, Announce, Message, Phase};
use std::time::Duration;

/// Announces follow each other so closely while gathering.
const GATHER_ANNOUNCES: Duration = Duration::from_millis(50);
/// And so while streaming and later.
const LATER_ANNOUNCES: Duration = Duration::from_millis(250);
/// How often devices are looked over.
const SWEEP: Duration = Duration::from_millis(500);
/// How often the source is checked.
const SOURCE_CHECK: Duration = Duration::from_secs(1);
/// How often devices that are deaf to the group are told that we are here.
const GREETING: Duration = Duration::from_secs(5);
const GREETED_AT_ONCE: usize = 64;
/// Goodbyes said at the end, and their distance.
const GOODBYES: u32 = 4;
const GOODBYE_EVERY: Duration = Duration::from_millis(25);
/// Devices that are told goodbye by unicast as well.
const GOODBYES_BY_UNICAST: usize = 64;

const _: () = assert!(LATER_ANNOUNCES.as_millis() <= ANNOUNCE_INTERVAL.as_millis());

#[derive(Debug)]
pub(super) struct Life {
    last_announce: Time,
    next_announce: Time,
    next_sweep: Time,
    next_check: Time,
    checking: bool,
    gather_until: Time,
    last_join: Option<Time>,
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
}

impl Life {
    pub fn new(now: Time, config: &SenderConfig) -> Self {
        Self {
            last_announce: now,
            next_announce: now,
            next_sweep: now + SWEEP,
            next_check: now + SOURCE_CHECK,
            checking: false,
            gather_until: now + config.wait,
            last_join: None,
            linger_until: None,
            closing: None,
            finished: false,
        }
    }
    pub fn is_closing(&self) -> bool {
        self.closing.is_some() || self.finished
    }
    pub const fn is_finished(&self) -> bool {
        self.finished
    }
    pub fn source_checked(&mut self, now: Time) {
        self.checking = false;
        self.next_check = now + SOURCE_CHECK;
    }
    pub fn joined(&mut self, now: Time) {
        self.last_join = Some(now);
    }
    /// A device has completed: lingering begins anew when no other is left. One that comes and fails,
    /// perhaps time and again, does not put the end off.
    pub fn stay(&mut self) {
        self.linger_until = None;
    }
    pub fn close(&mut self, outcome: SenderOutcome, code: AbortCode, reason: &str, now: Time) {
        if self.is_closing() {
            return;
        }
        let reason = reason.to_owned();
        self.closing = Some(Closing { outcome, code, reason, left: GOODBYES, next: now });
    }
    pub fn next_timeout(&self) -> Time {
        match &self.closing {
            Some(closing) => closing.next,
            None if self.finished => Time::NEVER,
            None => self.next_announce.min(self.next_sweep).min(if self.checking {
                Time::NEVER
            } else {
                self.next_check
            }),
        }
    }
}

impl Sender {
    /// Does what is due at `now`.
    pub(super) fn live(&mut self, now: Time) {
        if self.life.is_closing() {
            self.say_goodbye(now);
            return;
        }
        if now >= self.life.next_announce {
            self.announce(now);
        }
        if now >= self.life.next_sweep {
            self.life.next_sweep = now + SWEEP;
            self.sweep(now);
        }
        if now >= self.life.next_check && !self.life.checking {
            self.life.checking = true;
            self.job(SenderJob::CheckSource);
        }
        self.start_if_ready(now);
        self.end_if_done(now);
    }

    /// Describes the session to the group and on the rendezvous groups.
    pub(super) fn announce(&mut self, now: Time) {
        let gathering = self.phase == Phase::Gathering;
        let interval = if gathering { GATHER_ANNOUNCES } else { LATER_ANNOUNCES };
        let since = now.since(self.life.last_announce).clamp(GATHER_ANNOUNCES / 2, interval);
        (self.life.last_announce, self.life.next_announce) = (now, now + interval);
        let invitation = self.gather.invite(since);
        let announce = self.announcement(invitation);
        let message = Message::Announce(announce);
        self.tell_group(&message, now);
        for to in self.config.rendezvous.clone() {
            if to != self.config.data {
                let number = self.replies.take_numbers(1);
                self.message(to, number, &message);
            }
        }
    }

    /// The same to one device that is served alone, which may not hear the group.
    pub(super) fn announce_to(&mut self, key: usize, now: Time) {
        let none = crate::wire::Invitation { probability: 0, window: Duration::ZERO };
        let announce = self.announcement(none);
        self.show_device(key, &Message::Announce(announce), now);
    }

    fn announcement(&self, invitation: crate::wire::Invitation) -> Announce {
        Announce {
            sender: self.side.key(),
            agreement: self.side.agreement(),
            suite: self.side.suite(),
            task: self.config.task,
            phase: self.phase,
            object_size: self.config.layout.object_size(),
            block_log2: self.config.layout.block_log2(),
            symbol_size: self.config.layout.symbol_size(),
            data: self.config.data,
            position: BlockIndex(self.stream.position),
            invitation,
            group_size: self.devices.group_size(),
            rate: self.pace.rate(),
            root: self.root,
            name: self.config.name.clone(),
        }
    }

    /// Starts the stream when enough devices are ready, or none has joined for a while, or the time
    /// to gather is over. A device that came and said why it cannot take the object is not waited
    /// for: the others would pay for its trouble (I3).
    pub(super) fn start_if_ready(&mut self, now: Time) {
        if self.phase != Phase::Gathering || self.life.is_closing() {
            return;
        }
        // An empty object is complete as soon as its device knows of it.
        let counts = self.devices.counts();
        let ready = counts.open + counts.complete;
        let over = now >= self.life.gather_until;
        let enough = match (self.config.expected, self.life.last_join) {
            (Some(n), _) => ready + counts.failed >= n as usize,
            (None, Some(last)) => ready > 0 && now >= last + self.config.settle,
            (None, None) => false,
        };
        if ready > 0 && (enough || over) {
            self.start(now);
        } else if over {
            self.finish(SenderOutcome::Ended, AbortCode::Finished, "no device came in time", now);
        }
    }

    pub(super) fn start(&mut self, now: Time) {
        self.decide_on_skipping();
        self.set_phase(Phase::Streaming, now);
        for key in 0..self.devices.len() {
            if !self.devices.get(key).is_final() {
                self.devices.get_mut(key).last_gain = now;
                self.set_status(key, DeviceStatus::Receiving { deficit: 0 }, now);
            }
        }
        self.drive_rounds(now);
    }

    /// Time in which we were not there, or could send nothing, is nobody's silence; and whoever was to
    /// come in it could not.
    pub(super) fn absent(&mut self, now: Time, away: Duration) {
        for (_, device) in self.devices.iter_mut() {
            device.last_heard = (device.last_heard + away).min(now);
            device.last_gain = (device.last_gain + away).min(now);
            device.hearing.rose = (device.hearing.rose + away).min(now);
        }
        self.life.gather_until = self.life.gather_until + away;
        self.life.linger_until = self.life.linger_until.map(|until| until + away);
    }

    /// Looks for devices that fell silent or make no headway.
    fn sweep(&mut self, now: Time) {
        let open = self.devices.group_size();
        let (silence, done) = (device_silence(open), self.stream_done());
        let blocks = self.config.layout.block_count();
        let mut ended: Vec<(usize, DeviceStatus)> = Vec::new();
        for (key, device) in self.devices.iter_mut().filter(|(_, d)| !d.is_final()) {
            // Before the end of the stream, nothing need gain.
            if !done {
                device.last_gain = now;
            }
            // Syncing a large file may take its time, but a disk that hangs must not keep us for ever.
            let syncing = blocks > 0 && device.verified == blocks;
            let patience = if syncing { DEVICE_SYNC } else { DEVICE_STALL.max(silence) };
            if now.since(device.last_heard) > silence {
                ended.push((key, DeviceStatus::Lost));
            } else if now.since(device.last_gain) > patience {
                let what = if syncing { "did not finish syncing" } else { "came no closer to completion" };
                ended.push((key, DeviceStatus::Failed(format!("{what} for {} s", patience.as_secs()))));
            }
        }
        for (key, status) in ended {
            self.set_status(key, status, now);
        }
        self.greet_the_deaf(now);
    }

    /// Devices that do not hear the group, and wait for a unicast session, would take us for gone.
    fn greet_the_deaf(&mut self, now: Time) {
        let waiting = |d: &Device| !d.is_final() && d.hearing.deaf && now >= d.hearing.told + GREETING;
        let waiting = self.devices.iter().filter(|(_, d)| waiting(d)).map(|(key, _)| key);
        let keys: Vec<usize> = waiting.take(GREETED_AT_ONCE).collect();
        for key in keys {
            self.devices.get_mut(key).hearing.told = now;
            self.announce_to(key, now);
        }
    }

    /// Ends, or lingers, when no known device is left to be served.
    pub(super) fn end_if_done(&mut self, now: Time) {
        if self.phase == Phase::Gathering || self.devices.open() > 0 || self.life.is_closing() {
            return;
        }
        if !self.stream_done() {
            self.cut_stream();
        }
        if self.root.is_none() {
            // Still hashing; a device that comes back will need it, and so does the report.
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
        let until = *self.life.linger_until.get_or_insert(now + self.config.linger);
        if now >= until {
            self.end(now);
        }
    }

    fn end(&mut self, now: Time) {
        self.finish(SenderOutcome::Ended, AbortCode::Finished, "the sender is done", now);
    }

    /// Tells everybody that this is the end, a few times since it may be lost.
    pub(super) fn say_goodbye(&mut self, now: Time) {
        let Some(closing) = &mut self.life.closing else { return };
        if now < closing.next {
            return;
        }
        closing.left -= 1;
        let last = (closing.left == 0).then(|| closing.outcome.clone());
        closing.next = now + GOODBYE_EVERY;
        let abort = Abort { code: closing.code, reason: closing.reason.clone() };
        let message = Message::Abort(abort);
        self.tell_group(&message, now);
        let open: Vec<usize> = self
            .devices
            .iter()
            .filter(|(_, d)| !d.is_final())
            .map(|(key, _)| key)
            .take(GOODBYES_BY_UNICAST)
            .collect();
        for key in open {
            self.show_device(key, &message, now);
        }
        if let Some(outcome) = last {
            self.life.closing = None;
            self.life.finished = true;
            self.event(SenderEvent::Finished(outcome));
        }
    }
}
