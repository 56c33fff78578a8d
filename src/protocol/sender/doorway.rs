//! Who is let in: joins, cookies, the status table's answer, devices that come back, and devices that
//! claim to be the same one.
//!
//! ```text
//!  JOIN ──► RETRY with a cookie            nothing is kept, nothing costly done, less sent than came
//!  JOIN with the cookie ──► agree, open ──► status table ──► ADMIT
//! ```

use super::devices::{Device, Hearing, Link};
use super::{Sender, SenderEvent};
use crate::crypto::window::ReplayWindow;
use crate::limits::{
    DEVICE_MESSAGES_PER_SECOND, LIFE_SIGN_INTERVAL, MAX_DEVICES, MAX_PENDING_JOINS, report_interval,
};
use crate::pacing::Path;
use crate::protocol::effort::Effort;
use crate::protocol::envelope::{DeviceKeys, SenderSide};
use crate::protocol::job::SenderJob;
use crate::status::DeviceStatus;
use crate::time::Time;
use crate::units::{AgreementKey, DeviceId};
use crate::wire::{self, Admit, Head, Join, Message, Phase, Retry, Verdict};
use std::net::SocketAddr;

/// A join whose answer waits for the status table.
#[derive(Debug)]
pub(super) struct PendingJoin {
    join: Join,
    address: SocketAddr,
    keys: DeviceKeys,
    /// Counter of the join.
    number: u64,
}

/// What a join of a device that is known by another run comes to.
enum Rival {
    /// It takes the place of the run before.
    Successor,
    /// Both are there: two devices with one identifier.
    Twin,
    /// Not clear yet; it will ask again.
    Unclear,
}

impl Sender {
    /// A join has come in; false if it is not a sound one.
    pub(super) fn knock(&mut self, now: Time, from: SocketAddr, head: &Head, bytes: &mut [u8]) -> bool {
        let Some(clear) = self.side.join_clear(from, bytes) else { return false };
        self.counters.feedback += 1;
        if !clear.reachable {
            self.retry(from, clear.agreement);
            return true;
        }
        if let Some(key) = self.devices.of_run(&clear.agreement) {
            let link = &self.devices.get(key).link;
            let number = head.header.packet_number.counter();
            // What anybody can say again is no sign of life.
            if number < link.joins || SenderSide::from_one(&link.keys, head, bytes).is_none() {
                return false;
            }
            self.devices.get_mut(key).link.joins = number + 1;
            // One that failed does not come back in the same run: it has left, or what it lacked still
            // holds. An overtaken join must not hide its reason.
            self.devices.get_mut(key).address = from;
            self.heard(key, now);
            self.admit(key);
            return true;
        }
        if self.devices.is_former(&clear.agreement, head.header.packet_number.counter()) {
            return false;
        }
        if self.pending_joins.contains_key(&clear.agreement) {
            return true;
        }
        if self.pending_joins.len() >= MAX_PENDING_JOINS || !self.effort.may(now) {
            return false;
        }
        let Some(keys) = self.side.agree(&clear.agreement) else { return false };
        let Some(body) = SenderSide::from_one(&keys, head, bytes) else { return false };
        let Ok(Message::Join(join)) = wire::decode_body(head.kind, body) else { return false };
        let (device, number) = (join.device, head.header.packet_number.counter());
        self.pending_joins.insert(clear.agreement, PendingJoin { join, address: from, keys, number });
        self.job(SenderJob::LookUp(device));
        true
    }

    /// Asks whoever is at an address to show that it receives there. It is shorter than what it answers.
    pub(super) fn retry(&mut self, to: SocketAddr, agreement: AgreementKey) {
        let retry = Retry { agreement, cookie: self.side.cookie(to, &agreement) };
        let number = self.replies.take_numbers(1);
        self.message(to, number, &Message::Retry(retry));
    }

    fn admit(&mut self, key: usize) {
        let admit = if self.devices.get(key).status == DeviceStatus::Complete {
            Admit { verdict: Verdict::AlreadyComplete, channel: 0 }
        } else {
            Admit { verdict: Verdict::Admitted, channel: key as u16 + 1 }
        };
        let number = self.replies.take_numbers(1);
        self.tell_device_as(key, number, &Message::Admit(admit));
    }

    /// Answers a join that gets no place.
    fn turn_away(&mut self, pending: &PendingJoin, verdict: Verdict) {
        let number = self.replies.take_numbers(1);
        let admit = Message::Admit(Admit { verdict, channel: 0 });
        let bytes = self.side.to_one(&pending.keys, self.header(number), &admit);
        let transmit = self.transmit(pending.address, bytes);
        self.out.push_back(super::Output::Transmit(transmit));
    }

    /// The status table has answered for a device that wants to join.
    pub(super) fn looked_up(&mut self, id: DeviceId, status: Option<&DeviceStatus>, now: Time) {
        let runs = self.pending_joins.iter().filter(|(_, pending)| pending.join.device == id);
        for agreement in runs.map(|(agreement, _)| *agreement).collect::<Vec<_>>() {
            if let Some(pending) = self.pending_joins.remove(&agreement) {
                self.let_in(agreement, pending, status, now);
            }
        }
        self.start_if_ready(now);
    }

    fn let_in(
        &mut self,
        agreement: AgreementKey,
        pending: PendingJoin,
        status: Option<&DeviceStatus>,
        now: Time,
    ) {
        let mut id = pending.join.device;
        let mut label = pending.join.label.clone();
        let key = match self.devices.key(id) {
            None if status == Some(&DeviceStatus::Complete) => {
                return self.turn_away(&pending, Verdict::AlreadyComplete);
            }
            None => None,
            Some(key) => match self.rival(key, agreement, &pending, now) {
                Rival::Unclear => return,
                Rival::Successor => Some(key),
                Rival::Twin => {
                    let first = self.devices.get(key);
                    self.event(SenderEvent::Twin {
                        device: id,
                        label: label.clone(),
                        addresses: [first.address, pending.address],
                    });
                    (id, label) = twin(id, &label, &agreement);
                    None
                }
            },
        };
        if key.is_none() && self.devices.len() >= MAX_DEVICES {
            return self.turn_away(&pending, Verdict::Full);
        }
        let link = Link {
            agreement,
            keys: pending.keys,
            window: ReplayWindow::default(),
            effort: Effort::new(DEVICE_MESSAGES_PER_SECOND),
            joins: pending.number + 1,
        };
        let key = match key {
            Some(key) => {
                self.devices.begin_run(key, link);
                key
            }
            None => self.devices.insert(newcomer(id, link, pending.address, now)),
        };
        let device = self.devices.get_mut(key);
        device.label = label;
        device.holds = pending.join.holds;
        device.address = pending.address;
        device.last_heard = now;
        device.rival = None;
        if device.status != DeviceStatus::Complete {
            device.verified = 0;
            device.incomplete = None;
            device.regrouped = false;
            device.status = DeviceStatus::Lost;
            let event = SenderEvent::Joined {
                device: id,
                label: device.label.clone(),
                address: device.address,
                late: self.phase != Phase::Gathering,
            };
            self.event(event);
            self.take_up(key, now);
            self.gather.joined();
            self.life.joined(now);
        }
        self.admit(key);
    }

    /// A run that is not the known one wants to be the device at `key`. A device that was started again has
    /// fallen silent in its former run; a machine with a cloned identifier has not.
    fn rival(&mut self, key: usize, agreement: AgreementKey, pending: &PendingJoin, now: Time) -> Rival {
        let group_size = self.devices.group_size();
        let device = self.devices.get_mut(key);
        if device.status == DeviceStatus::Complete {
            // What is complete is not heard from any more. Elsewhere, it is another machine.
            let moved = device.address.ip() != pending.address.ip();
            return if moved { Rival::Twin } else { Rival::Successor };
        }
        if device.is_final() {
            return Rival::Successor;
        }
        if now.since(device.last_heard) >= LIFE_SIGN_INTERVAL.max(report_interval(group_size)) * 2 {
            return Rival::Successor;
        }
        match device.rival {
            Some((run, since)) if run == agreement => {
                if device.last_heard > since {
                    device.rival = None;
                    Rival::Twin
                } else {
                    Rival::Unclear
                }
            }
            // Of several, the first one is looked at first.
            Some((_, since)) if now.since(since) < LIFE_SIGN_INTERVAL * 4 => Rival::Unclear,
            _ => {
                device.rival = Some((agreement, now));
                Rival::Unclear
            }
        }
    }

    /// The status of a device that is being served.
    fn active_status(&self, key: usize) -> DeviceStatus {
        let device = self.devices.get(key);
        match self.phase {
            Phase::Gathering => DeviceStatus::Waiting,
            _ if (device.apart || device.since > 0) && !device.unreachable() => {
                DeviceStatus::Repairing { deficit: 0 }
            }
            _ => DeviceStatus::Receiving { deficit: 0 },
        }
    }

    /// (Re)starts the service of a device: what has gone by is for a unicast repair session.
    pub(super) fn take_up(&mut self, key: usize, now: Time) {
        let started = self.phase != Phase::Gathering;
        let gone_by = if self.stream_done() { self.stream.position } else { self.stream.position + 1 };
        let device = self.devices.get_mut(key);
        device.ended = None;
        device.last_gain = now;
        device.least_deficit = u64::MAX;
        device.unanswered = 0;
        device.hearing = Hearing::new(now);
        (device.apart, device.slow) = (false, false);
        device.since = if started { gone_by } else { 0 };
        let status = self.active_status(key);
        self.set_status(key, status, now);
    }
}

fn newcomer(id: DeviceId, link: Link, address: SocketAddr, now: Time) -> Device {
    Device {
        id,
        link,
        rival: None,
        label: String::new(),
        address,
        status: DeviceStatus::Lost,
        joined: now,
        ended: None,
        last_heard: now,
        last_gain: now,
        least_deficit: u64::MAX,
        since: 0,
        holds: false,
        apart: false,
        slow: false,
        slow_looks: 0,
        cause: None,
        path: Path::default(),
        regrouped: false,
        unanswered: 0,
        silent_rounds: 0,
        lacks: None,
        channel: None,
        hearing: Hearing::new(now),
        verified: 0,
        incomplete: None,
        lost_datagrams: 0,
        kernel_drops: 0,
        overrun_drops: 0,
        unicast_symbols: 0,
    }
}

/// Identifier and label of a second device with the same ones: its own for as long as it runs.
fn twin(id: DeviceId, label: &str, agreement: &AgreementKey) -> (DeviceId, String) {
    let mut own = DeviceId::default();
    for (i, byte) in own.0.iter_mut().enumerate() {
        // The agreement's key is as good as random.
        *byte = id.0[i] ^ agreement.0[i] ^ agreement.0[16 + i];
    }
    (own, format!("{label} (twin {:02x}{:02x})", own.0[0], own.0[1]))
}
