//! The requests to the store: look-ups of devices that want to join, and records of assignments. Both are jobs, at
//! most one of each at a time. Everything that arrives meanwhile goes into the next job.
//!
//! A store that fails is tried again at growing intervals. When it has failed, or not answered, for
//! [`STORE_PATIENCE`], the sender gives it up. Then it still serves admitted devices, but admits no others and
//! acknowledges no receipts, and the session ends with [`SenderOutcome::StoreFailed`].

use super::Sender;
use super::devices::Devices;
use super::service::Service;
use crate::limits::{MAX_STORE_BATCH, STORE_PATIENCE};
use crate::protocol::event::{SenderEvent, SenderOutcome};
use crate::protocol::job::SenderJob;
use crate::protocol::statistics::DeviceRow;
use crate::task::{Assignment, Summary};
use crate::time::Time;
use crate::units::{DeviceId, DeviceIndex};
use crate::wire::{AbortCode, Acknowledge, Message, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Pauses after a failure: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// One kind of request to the store, and its state.
#[derive(Debug, Default)]
struct Line {
    /// When the job in progress was submitted.
    asked: Option<Time>,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    /// When the store began to fail.
    since: Time,
    /// When to try the store again.
    retry: Time,
    pause: Duration,
    /// The store's latest error.
    why: String,
}

impl Line {
    fn may_ask(&self, now: Time) -> bool {
        self.asked.is_none() && self.trouble.as_ref().is_none_or(|trouble| now >= trouble.retry)
    }
    fn failed(&mut self, why: &str, now: Time) {
        self.asked = None;
        let pause = self.trouble.as_ref().map_or(PAUSES.0, |trouble| (trouble.pause * 2).min(PAUSES.1));
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        self.trouble = Some(Trouble { since, retry: now + pause, pause, why: why.to_owned() });
    }
    fn succeeded(&mut self) {
        *self = Self::default();
    }
    /// Retries at `now`, because the store has answered the other kind of request.
    fn retry_at(&mut self, now: Time) {
        if let Some(trouble) = &mut self.trouble {
            trouble.retry = trouble.retry.min(now);
        }
    }
    /// When to give the store up; [`Time::NEVER`] if nothing is wrong.
    fn deadline(&self) -> Time {
        let failing = self.trouble.as_ref().map(|trouble| trouble.since);
        failing.or(self.asked).map_or(Time::NEVER, |since| since + STORE_PATIENCE)
    }
    /// When to act next, if there is something to request.
    fn next_timeout(&self, wanted: bool) -> Time {
        match &self.trouble {
            Some(trouble) if wanted && self.asked.is_none() => trouble.retry.min(self.deadline()),
            _ if wanted || self.asked.is_some() => self.deadline(),
            _ => Time::NEVER,
        }
    }
    /// Moves the deadlines by time in which the process was stopped: it does not count against the store.
    fn put_off(&mut self, away: Duration) {
        self.asked = self.asked.map(|since| since + away);
        if let Some(trouble) = &mut self.trouble {
            trouble.since = trouble.since + away;
        }
    }
}

/// The store's rows of listed devices that have not joined.
#[derive(Debug, Default)]
pub(super) struct Absent {
    rows: BTreeMap<DeviceId, Assignment>,
    summary: Summary,
}

impl Absent {
    /// Their number in each state.
    pub const fn summary(&self) -> Summary {
        self.summary
    }
    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = &Assignment> {
        self.rows.values()
    }
    fn insert(&mut self, assignment: Assignment) {
        self.remove(assignment.device);
        *self.summary.count(assignment.state()) += 1;
        self.rows.insert(assignment.device, assignment);
    }
    /// Removes a device that has joined.
    pub fn remove(&mut self, device: DeviceId) {
        if let Some(former) = self.rows.remove(&device) {
            *self.summary.count(former.state()) -= 1;
        }
    }
}

/// The requests of a session to its store.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Listed devices that have not joined.
    pub absent: Absent,
    /// Listed devices whose rows the store does not have yet.
    listed: BTreeSet<DeviceId>,
    /// Devices to be looked up.
    wanted: BTreeSet<DeviceId>,
    looking_up: Vec<DeviceId>,
    look_ups: Line,
    /// Devices whose current assignment the store does not have.
    changed: BTreeSet<DeviceIndex>,
    /// Assignments in the present record job. A listed device that had not joined has no index.
    recording: Vec<(Option<DeviceIndex>, Assignment)>,
    records: Line,
    /// Whether the user was told that the store fails.
    told: bool,
    given_up: Option<String>,
}

impl Records {
    /// The records of a session with these assignments of listed devices.
    pub fn expecting(assignments: Vec<Assignment>) -> Self {
        let mut records = Self::default();
        for assignment in assignments {
            records.listed.insert(assignment.device);
            records.absent.insert(assignment);
        }
        records
    }
    /// Requests a look-up of a device that wants to join.
    pub fn look_up(&mut self, device: DeviceId) {
        self.wanted.insert(device);
    }
    /// Notes that the assignment of a device has changed.
    pub fn changed(&mut self, index: DeviceIndex) {
        self.changed.insert(index);
    }
    fn has_changes(&self) -> bool {
        !(self.changed.is_empty() && self.listed.is_empty())
    }
    /// Whether the store has every change.
    pub fn is_idle(&self) -> bool {
        !self.has_changes() && self.recording.is_empty()
    }
    /// Whether devices wait for the store's answer.
    pub fn is_looking_up(&self) -> bool {
        self.given_up.is_none() && !(self.wanted.is_empty() && self.looking_up.is_empty())
    }
    /// Whether devices wait for a store that has failed. This lasts at most until the store is given up.
    pub fn keeps_devices_waiting(&self) -> bool {
        self.is_looking_up() && self.look_ups.trouble.is_some()
    }
    /// The error for which the store was given up, if it was.
    pub fn given_up(&self) -> Option<&str> {
        self.given_up.as_deref()
    }
    /// When to try the store again, or give it up.
    pub fn next_timeout(&self) -> Time {
        if self.given_up.is_some() {
            return Time::NEVER;
        }
        let look_ups = self.look_ups.next_timeout(!self.wanted.is_empty());
        look_ups.min(self.records.next_timeout(self.has_changes()))
    }
    /// Moves the deadlines by time in which the process was stopped.
    pub fn put_off(&mut self, away: Duration) {
        self.look_ups.put_off(away);
        self.records.put_off(away);
    }

    fn next_look_up(&mut self, now: Time) -> Option<SenderJob> {
        if self.given_up.is_some() || self.wanted.is_empty() || !self.look_ups.may_ask(now) {
            return None;
        }
        self.look_ups.asked = Some(now);
        while self.looking_up.len() < MAX_STORE_BATCH
            && let Some(device) = self.wanted.pop_first()
        {
            self.looking_up.push(device);
        }
        Some(SenderJob::LookUp(self.looking_up.clone()))
    }

    fn next_record(&mut self, devices: &Devices, now: Time) -> Option<SenderJob> {
        if self.given_up.is_some() || !self.has_changes() || !self.records.may_ask(now) {
            return None;
        }
        self.records.asked = Some(now);
        while self.recording.len() < MAX_STORE_BATCH
            && let Some(device) = self.listed.pop_first()
        {
            // A device that has joined meanwhile is recorded below.
            self.recording.extend(self.absent.rows.get(&device).map(|absent| (None, absent.clone())));
        }
        // No request names a device twice: after rows of listed devices, joined devices wait for the next request.
        while self.recording.iter().all(|(index, _)| index.is_some())
            && self.recording.len() < MAX_STORE_BATCH
            && let Some(index) = self.changed.pop_first()
        {
            self.recording.push((Some(index), devices.get(index).assignment.clone()));
        }
        Some(SenderJob::Record(self.recording.iter().map(|(_, assignment)| assignment.clone()).collect()))
    }

    /// Puts the contents of a failed request back.
    fn failed(&mut self, look_up: bool, why: &str, now: Time) {
        if look_up {
            self.wanted.extend(self.looking_up.drain(..));
            self.look_ups.failed(why, now);
        } else {
            for (index, assignment) in self.recording.drain(..) {
                match index {
                    Some(index) => drop(self.changed.insert(index)),
                    None => drop(self.listed.insert(assignment.device)),
                }
            }
            self.records.failed(why, now);
        }
    }

    fn is_troubled(&self) -> bool {
        self.look_ups.trouble.is_some() || self.records.trouble.is_some()
    }
}

impl Sender {
    /// Submits the requests that are due.
    pub(super) fn ask_the_store(&mut self, now: Time) {
        if self.shutdown.is_finished() {
            return;
        }
        let look_up = if self.shutdown.is_closing() { None } else { self.records.next_look_up(now) };
        let record = self.records.next_record(&self.devices, now);
        [look_up, record].into_iter().flatten().for_each(|job| self.job(job));
    }

    /// Gives the store up if it has failed, or not answered, for too long.
    pub(super) fn watch_the_store(&mut self, now: Time) {
        let lines = [&self.records.look_ups, &self.records.records];
        let Some(line) = lines.into_iter().find(|line| now >= line.deadline()) else { return };
        let why = line.trouble.as_ref().map_or("it does not answer", |trouble| &trouble.why).to_owned();
        self.give_up_the_store(&why, now);
    }

    fn give_up_the_store(&mut self, why: &str, now: Time) {
        if self.records.given_up.is_some() {
            return;
        }
        self.tell_of_the_store(why);
        self.records.given_up = Some(why.to_owned());
        // No further device is admitted.
        self.pending_joins.clear();
        self.start_if_ready(now);
        self.end_if_done(now);
    }

    fn tell_of_the_store(&mut self, why: &str) {
        if !std::mem::replace(&mut self.records.told, true) {
            self.event(SenderEvent::StoreFails(why.to_owned()));
        }
    }

    fn store_failed(&mut self, look_up: bool, why: &str, now: Time) {
        self.records.failed(look_up, why, now);
        let line = if look_up { &self.records.look_ups } else { &self.records.records };
        if now >= line.deadline() {
            self.give_up_the_store(why, now);
        } else {
            self.tell_of_the_store(why);
        }
    }

    fn store_answered(&mut self) {
        if self.records.told && !self.records.is_troubled() {
            self.records.told = false;
            self.event(SenderEvent::StoreAnswers);
        }
    }

    /// Handles the result of a look-up.
    pub(super) fn looked_up(
        &mut self,
        found: Result<Vec<(DeviceId, Option<Assignment>)>, String>,
        now: Time,
    ) {
        if self.records.given_up.is_some() || self.shutdown.is_finished() {
            return;
        }
        let found = match found {
            Ok(found) => found,
            Err(why) => return self.store_failed(true, &why, now),
        };
        self.records.looking_up.clear();
        self.records.look_ups.succeeded();
        self.records.records.retry_at(now);
        self.store_answered();
        if !self.shutdown.is_closing() {
            self.let_in_all(found, now);
        }
    }

    /// Handles the result of a record: the assignments that the store now has, or an error. Acknowledges devices
    /// whose receipts waited for the record.
    pub(super) fn recorded(&mut self, kept: Result<Vec<Assignment>, String>, now: Time) {
        if self.records.given_up.is_some() || self.shutdown.is_finished() {
            return;
        }
        let kept = match kept {
            Ok(kept) => kept,
            Err(why) => return self.store_failed(false, &why, now),
        };
        self.records.records.succeeded();
        self.records.look_ups.retry_at(now);
        self.store_answered();
        for ((index, sent), kept) in std::mem::take(&mut self.records.recording).into_iter().zip(kept) {
            let Some(index) = index else {
                self.absent_recorded(kept);
                continue;
            };
            if kept != sent {
                self.overruled(index, &kept, now);
            }
            self.devices.get_mut(index).recorded = Some(kept);
            self.tell_if_changed(index, now);
            self.acknowledge_if_recorded(index, now);
        }
        self.end_if_done(now);
        self.finish_closing(now);
    }

    /// Handles the record of a listed device that has not joined.
    fn absent_recorded(&mut self, kept: Assignment) {
        if self.records.absent.rows.contains_key(&kept.device) {
            self.records.absent.insert(kept.clone());
            self.event(SenderEvent::Device(DeviceRow::of_absent(kept)));
        }
    }

    /// Adopts the store's newer row, which another session wrote: the device is complete, or has further
    /// attempts.
    fn overruled(&mut self, index: DeviceIndex, kept: &Assignment, now: Time) {
        let device = self.devices.get_mut(index);
        if kept.is_complete() {
            device.assignment = kept.clone();
            device.service = Service::Ended { at: now };
            self.end_unicast_repair(index);
        } else {
            device.assignment.attempts = device.assignment.attempts.max(kept.attempts.saturating_add(1));
            self.records.changed(index);
        }
    }

    /// Acknowledges a device's COMPLETE or ABORT once the store has recorded it.
    pub(super) fn acknowledge_if_recorded(&mut self, index: DeviceIndex, now: Time) {
        let device = self.devices.get(index);
        if device.reported_end && device.is_final() && device.is_recorded() {
            self.send_to_device(index, &Message::Acknowledge(Acknowledge), now);
        }
    }

    /// Whether the store has the current assignments of all devices.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.records.is_idle() && self.records.given_up.is_none()
    }

    /// The assignments of this session's devices that the store is known to have.
    #[must_use]
    pub fn recorded_assignments(&self) -> Vec<Assignment> {
        let recorded = self.devices.iter().filter_map(|(_, device)| device.recorded.clone());
        let Records { absent, listed, recording, .. } = &self.records;
        let is_recorded = |row: &&Assignment| {
            !listed.contains(&row.device) && recording.iter().all(|(_, sent)| sent.device != row.device)
        };
        let absent = absent.rows().filter(is_recorded).cloned();
        let mut recorded: Vec<Assignment> = recorded.chain(absent).collect();
        recorded.sort_by_key(|assignment| assignment.device);
        recorded
    }

    /// Ends the session if the store was given up and no device is being served. True if it ends.
    pub(super) fn end_without_store(&mut self, now: Time) -> bool {
        if self.records.given_up().is_none() || self.devices.open() > 0 {
            return false;
        }
        let reason = match self.phase {
            Phase::Gathering => "the sender cannot look devices up",
            _ => "the sender is done",
        };
        // That the store has failed makes another outcome of it.
        self.finish(SenderOutcome::Ended, AbortCode::Finished, reason, now);
        true
    }
}
