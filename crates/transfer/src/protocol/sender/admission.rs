//! Admission of devices: address validation (RETRY), key agreement, the status table's answer, returning devices
//! and duplicate identifiers.
//!
//! ```text
//!  JOIN ──► RETRY with a cookie            nothing stored, nothing costly, fewer bytes than received
//!  JOIN with the cookie ──► agree, open ──► store ──► ADMIT
//! ```

use super::devices::{Compared, Device, GroupReachability, Link};
use super::headway::Headway;
use super::reported::{Reported, Room};
use super::service::Service;
use super::{Sender, SenderEvent};
use crate::crypto::window::ReplayWindow;
use crate::limits::{
    DEVICE_MESSAGES_PER_SECOND, HEADER_LEN, KEEPALIVE_INTERVAL, MAX_QUEUED_OUTPUTS, TAG_RESERVE,
};
use crate::pacing::Path;
use crate::protocol::packet_protection::{DeviceKeys, SenderSide};
use crate::protocol::rate_limit::RateLimit;
use crate::task::{Assignment, State};
use crate::time::Time;
use crate::units::{AgreementKey, ChannelId, DeviceId, DeviceIndex, DeviceKey, TaskId};
use crate::wire::{self, Admit, AdmitVerdict, Capabilities, Head, Holdings, Join, Message, Phase, Retry};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Bytes of a RETRY that is not sealed: an agreement key and a cookie.
const RETRY_LEN: usize = HEADER_LEN + 32 + 16;

/// A join whose answer waits for the store.
#[derive(Debug)]
pub(super) struct PendingJoin {
    /// The join. Its proof is valid, if it has one.
    pub join: Join,
    pub address: SocketAddr,
    keys: DeviceKeys,
    /// Counter of the join.
    number: u64,
    /// Version and capabilities common to both sides.
    chosen: (u8, Capabilities),
}

impl PendingJoin {
    /// Whether the join came from this address.
    pub fn is_from(&self, ip: IpAddr) -> bool {
        self.address.ip() == ip
    }
    /// The device's proven key.
    pub fn key(&self) -> Option<DeviceKey> {
        self.join.proof.map(|proof| proof.key)
    }
}

/// The decision about a new run with the identifier of a known device.
enum Claim {
    /// The run replaces the device's earlier run.
    Successor,
    /// The run belongs to a second device with the same identifier.
    DuplicateId,
    /// Undecided. The run will send another join.
    Unclear,
}

impl Sender {
    /// Handles a join. Returns false if it is invalid or exceeds a limit.
    pub(super) fn join(&mut self, now: Time, from: SocketAddr, head: &Head, bytes: &mut [u8]) -> bool {
        let Some(clear) = self.side.join_clear(from, bytes) else { return false };
        self.counters.feedback += 1;
        if !clear.reachable {
            self.retry(from, clear.agreement, now);
            return true;
        }
        if let Some(index) = self.devices.of_run(&clear.agreement) {
            let link = &self.devices.get(index).link;
            let number = head.header.packet_number.counter();
            // Anybody can replay an earlier join, so it is no sign of life.
            if number < link.joins || SenderSide::from_one(&link.keys, head, bytes).is_none() {
                return false;
            }
            let link = &mut self.devices.get_mut(index).link;
            link.joins = number + 1;
            if !link.rate_limit.allow(now) {
                return false;
            }
            // A failed device does not return in the same run: it has left, or the cause persists. A reordered join
            // must not hide the reason.
            self.devices.get_mut(index).address = from;
            self.heard(index, now);
            self.admit(index);
            return true;
        }
        if self.devices.is_former(&clear.agreement, head.header.packet_number.counter()) {
            return false;
        }
        if self.records.given_up().is_some() || self.pending_joins.contains_key(&clear.agreement) {
            return true;
        }
        if !self.may_agree(from, now) {
            return false;
        }
        let Some(keys) = self.side.agree(&clear.agreement) else { return false };
        let Some(body) = SenderSide::from_one(&keys, head, bytes) else { return false };
        let join = match wire::decode_body(head.kind, body) {
            Ok(Message::Join(join)) => join,
            Ok(_) => return false,
            Err(error) => {
                self.not_understood(error);
                return false;
            }
        };
        if !self.proof_is_sound(&clear.agreement, &join) {
            return false;
        }
        let number = head.header.packet_number.counter();
        let announced = self.announced();
        let missing = announced.required.without(join.supported);
        let version = join.versions.common(announced.versions).filter(|_| missing.is_empty());
        let capabilities = announced.required.or(announced.optional).and(join.supported);
        let chosen = (version.unwrap_or(0), capabilities);
        let mut pending = PendingJoin { join, address: from, keys, number, chosen };
        if version.is_none() {
            self.turn_away(&pending, AdmitVerdict::Unsupported, now);
            return true;
        }
        if self.identify(&mut pending, now) {
            self.records.look_up(pending.join.device);
            self.pending_joins.insert(clear.agreement, pending);
        }
        true
    }

    /// Validates an address: sends it a RETRY with a cookie. The RETRY is shorter than the join, and counts towards the
    /// limit of answers.
    pub(super) fn retry(&mut self, to: SocketAddr, agreement: AgreementKey, now: Time) {
        if !self.may_answer_stranger(to, now) {
            return;
        }
        let retry = Retry { agreement, cookie: self.side.cookie(to, &agreement) };
        let number = self.replies.take_numbers(1);
        self.message(to, number, &Message::Retry(retry));
    }

    /// Handles `bytes` bytes of a device that came from another address than its own. The device may have moved, and
    /// shows that it receives there by returning a cookie. It gets no more bytes there than came from there: a short
    /// message is answered together with the next one.
    pub(super) fn moved(&mut self, index: DeviceIndex, to: SocketAddr, bytes: usize, now: Time) {
        let answer = RETRY_LEN + if self.config.group_key.is_some() { TAG_RESERVE } else { 0 };
        let device = self.devices.get_mut(index);
        let before = device.elsewhere.filter(|(at, _)| *at == to).map_or(0, |(_, bytes)| bytes);
        let (agreement, came) = (device.link.agreement, before + bytes);
        device.elsewhere = (came < answer).then_some((to, came));
        if came >= answer {
            self.retry(to, agreement, now);
        }
    }

    fn admit(&mut self, index: DeviceIndex) {
        let device = self.devices.get(index);
        if device.assignment.is_complete() && !device.is_recorded() || self.out.len() >= MAX_QUEUED_OUTPUTS {
            // The device sends another join.
            return;
        }
        let admit = if device.assignment.is_complete() {
            Admit::turned_away(AdmitVerdict::AlreadyComplete)
        } else {
            let link = &self.devices.get(index).link;
            let (version, capabilities) = link.chosen;
            Admit {
                verdict: AdmitVerdict::Admitted,
                channel: ChannelId::of_device(index),
                version,
                capabilities,
                ticket: Some(link.ticket),
            }
        };
        let number = self.replies.take_numbers(1);
        self.send_to_device_as(index, number, &Message::Admit(admit));
    }

    /// Answers a join that is not admitted with a verdict, within the limit of answers.
    pub(super) fn turn_away(&mut self, pending: &PendingJoin, verdict: AdmitVerdict, now: Time) {
        if !self.may_answer_stranger(pending.address, now) {
            return;
        }
        let number = self.replies.take_numbers(1);
        let admit = Message::Admit(Admit::turned_away(verdict));
        let bytes = self.side.to_one(&pending.keys, self.header(number), &admit);
        let transmit = self.transmit(pending.address, bytes);
        self.out.push_back(super::Output::Transmit(transmit));
    }

    /// Handles the store's answer for devices that want to join.
    pub(super) fn let_in_all(&mut self, found: Vec<(DeviceId, Option<Assignment>)>, now: Time) {
        let found: BTreeMap<DeviceId, Option<Assignment>> = found.into_iter().collect();
        let runs = self.pending_joins.iter().filter(|(_, pending)| found.contains_key(&pending.join.device));
        for agreement in runs.map(|(agreement, _)| *agreement).collect::<Vec<_>>() {
            if let Some(pending) = self.pending_joins.remove(&agreement) {
                let known = found.get(&pending.join.device).cloned().flatten();
                self.let_in(agreement, pending, known, now);
            }
        }
        self.start_if_ready(now);
    }

    fn let_in(
        &mut self,
        agreement: AgreementKey,
        pending: PendingJoin,
        known: Option<Assignment>,
        now: Time,
    ) {
        let mut id = pending.join.device;
        let mut label = pending.join.label.clone();
        let key = pending.key();
        let by_ticket = pending.join.ticket.and_then(|ticket| self.devices.of_ticket(&ticket, key));
        // A listed device has only its own row.
        let by_ticket = by_ticket
            .filter(|index| self.list().is_none() || self.devices.get(*index).assignment.device == id);
        let passing = pending.join.holdings == Holdings::Passing && self.list().is_none();
        let index = match by_ticket.or_else(|| self.devices.index_of(id)) {
            // What it passed on in an earlier run is gone: this run gets a row of its own.
            None if passing && known.as_ref().is_some_and(Assignment::is_complete) => {
                (id, label) = another_run(id, &label, "again", &agreement);
                None
            }
            Some(index) if passing && self.devices.get(index).assignment.is_complete() => {
                (id, label) = another_run(id, &label, "again", &agreement);
                None
            }
            None if known.as_ref().is_some_and(Assignment::is_complete) => {
                return self.turn_away(&pending, AdmitVerdict::AlreadyComplete, now);
            }
            None => None,
            // Only the device of this row knows the ticket.
            Some(index) if by_ticket.is_some() => Some(index),
            Some(index) => match self.claim(index, agreement, &pending, now) {
                Claim::Unclear => return,
                Claim::Successor => Some(index),
                Claim::DuplicateId => {
                    let first = self.devices.get(index);
                    self.event(SenderEvent::DuplicateId {
                        device: id,
                        label: label.clone(),
                        addresses: [first.address, pending.address],
                    });
                    if self.list().is_some() {
                        return self.turn_away(&pending, AdmitVerdict::NotListed, now);
                    }
                    (id, label) = another_run(id, &label, "duplicate", &agreement);
                    None
                }
            },
        };
        let complete = |index: DeviceIndex| self.devices.get(index).assignment.is_complete();
        if self.window.floor() > 0 && !index.is_some_and(complete) {
            // The new run has nothing, as far as anybody knows, and the earlier one has ended.
            if let Some(index) = index {
                self.leave_behind(index, now);
            }
            return self.turn_away(&pending, AdmitVerdict::TooLate, now);
        }
        self.window.joined();
        if index.is_none() && self.shutdown.lingered(now) {
            // After lingering, the sender serves only the devices that it has.
            return;
        }
        if index.is_none() && !self.has_row_for(pending.address) {
            return self.turn_away(&pending, AdmitVerdict::Full, now);
        }
        let place = self.place(pending.address.ip());
        let link = Link {
            agreement,
            key,
            ticket: self.side.ticket(&agreement),
            ticket_kept: false,
            keys: pending.keys,
            window: ReplayWindow::default(),
            rate_limit: RateLimit::new(DEVICE_MESSAGES_PER_SECOND),
            joins: pending.number + 1,
            chosen: pending.chosen,
        };
        let index = match index {
            Some(index) => {
                self.devices.begin_run(index, link);
                index
            }
            None => {
                self.records.absent.remove(id);
                let known = known.filter(|known| known.device == id);
                self.strangers.took_row(place);
                self.devices.insert(newcomer(self.config.task.id, id, known, link, pending.address, now))
            }
        };
        // A duplicate's key says nothing about the device with the same identifier.
        let own = self.devices.get(index).assignment.device == pending.join.device;
        let key = key.filter(|_| own);
        if own {
            self.compare_key(id, &label, key);
        }
        let device = self.devices.get_mut(index);
        if device.assignment.device == id {
            // A duplicate keeps the label that distinguishes it.
            device.assignment.label = label;
        }
        device.holds = !matches!(pending.join.holdings, Holdings::Nothing | Holdings::Passing);
        device.address = pending.address;
        device.last_heard = now;
        device.duplicate = None;
        if !device.assignment.is_complete() {
            device.reported.verified = 0;
            device.reported.below = 0;
            device.reported.incomplete = None;
            device.reported.room = Room::unreported(pending.join.holdings == Holdings::Passing);
            device.regrouped = false;
            let event = SenderEvent::Joined {
                device: device.assignment.device,
                label: device.assignment.label.clone(),
                address: device.address,
                key,
                late: self.phase != Phase::Gathering,
            };
            self.event(event);
            self.take_up(index, now);
            self.hold_stream();
            self.gather.joined(place, now);
        }
        self.admit(index);
    }

    /// Decides whether a new run without a valid ticket is the device at `index`. If that device keeps its ticket, the
    /// new run is another machine's, such as a clone's, however long the device is silent. If the device may have no
    /// ticket, it may have been restarted: then it is silent in its former run, and has the same address or the same
    /// key. A machine with a copied identifier has a different address or key, or the former run still speaks.
    fn claim(
        &mut self,
        index: DeviceIndex,
        agreement: AgreementKey,
        pending: &PendingJoin,
        now: Time,
    ) -> Claim {
        let interval = self.budget().report_interval(self.devices.gsize());
        // A listed device cannot get another row, so messages of its former run that are still on the way must not
        // make it a duplicate.
        let listed = self.list().is_some();
        let grace = if listed { KEEPALIVE_INTERVAL * 2 } else { Duration::ZERO };
        let device = self.devices.get_mut(index);
        let (former, key) = (device.link.key, pending.key());
        // A different key means a different device, while the first one is unfinished. A device with the same key may
        // have moved, unless it is complete: then the run is a clone's.
        let other = former.is_some() && former != key && !device.is_final();
        let moved = device.address.ip() != pending.address.ip();
        let same = former.is_some() && former == key && !device.assignment.is_complete();
        // A device that has told its end needs no ticket any more. A listed device has one row, with or without.
        let ticket_lacks = device.link.ticket_kept && !device.reported_end && !listed;
        if other || moved && !same || ticket_lacks {
            return Claim::DuplicateId;
        }
        let silence = KEEPALIVE_INTERVAL.max(interval) * 2;
        if device.is_final() || now.since(device.last_heard) >= silence {
            return Claim::Successor;
        }
        match device.duplicate {
            Some((run, since)) if run == agreement => {
                if device.last_heard > since + grace {
                    device.duplicate = None;
                    Claim::DuplicateId
                } else {
                    Claim::Unclear
                }
            }
            // Of several runs, the first one is decided first.
            Some((_, since)) if now.since(since) < KEEPALIVE_INTERVAL * 4 => Claim::Unclear,
            _ => {
                device.duplicate = Some((agreement, now));
                Claim::Unclear
            }
        }
    }

    /// Starts or restarts the service of a device. Unicast repair serves the blocks that were already streamed.
    pub(super) fn take_up(&mut self, index: DeviceIndex, now: Time) {
        let started = self.phase != Phase::Gathering;
        let gone_by = if self.stream_rests() { self.stream.position } else { self.stream.position + 1 };
        let sent = self.sent_to(index);
        let device = self.devices.get_mut(index);
        device.headway.begin(sent, now);
        if let Some(channel) = &mut device.channel {
            channel.unanswered = 0;
        }
        device.group = GroupReachability::new(now);
        device.compared = Compared::new(self.rounds.everybody);
        device.service = Service::of_newcomer(if started { gone_by } else { 0 });
        device.reported_end = false;
        device.assignment.take_up();
        self.records.changed(index);
        if started {
            self.set_state(index, State::Active, now);
        }
        self.tell_if_changed(index, now);
    }
}

fn newcomer(
    task: TaskId,
    id: DeviceId,
    known: Option<Assignment>,
    link: Link,
    address: SocketAddr,
    now: Time,
) -> Device {
    Device {
        assignment: known.clone().unwrap_or_else(|| Assignment::new(task, id, String::new())),
        recorded: known,
        told: None,
        reported_end: false,
        link,
        duplicate: None,
        address,
        elsewhere: None,
        last_heard: now,
        headway: Headway::new(now),
        service: Service::Group,
        holds: false,
        compared: Compared::default(),
        cause: None,
        path: Path::default(),
        regrouped: false,
        channel: None,
        group: GroupReachability::new(now),
        reported: Reported::default(),
        unicast_symbols: 0,
    }
}

/// A new identifier and label for a second device with the same identifier, or another run of the same device. They
/// last for its run.
fn another_run(id: DeviceId, label: &str, what: &str, agreement: &AgreementKey) -> (DeviceId, String) {
    let mut own = DeviceId::default();
    for (i, byte) in own.0.iter_mut().enumerate() {
        // The agreement key is indistinguishable from random bytes.
        *byte = id.0[i] ^ agreement.0[i] ^ agreement.0[16 + i];
    }
    (own, format!("{label} ({what} {:02x}{:02x})", own.0[0], own.0[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So no two duplicates of a device have the same identifier.
    #[test]
    fn every_bit_of_the_agreement_key_counts_in_a_duplicates_identifier() {
        for id in [DeviceId([0; 16]), DeviceId([0xff; 16])] {
            let key = AgreementKey([0x5a; 32]);
            let (own, label) = another_run(id, "lab", "duplicate", &key);
            assert_eq!(label, format!("lab (duplicate {:02x}{:02x})", own.0[0], own.0[1]));
            for bit in 0..256 {
                let mut other = key;
                other.0[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(another_run(id, "lab", "duplicate", &other).0, own, "{id} {bit}");
            }
        }
    }
}
