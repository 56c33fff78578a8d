//! What devices say: joins, NAK summaries, reports, receipts, aborts.

use super::devices::Device;
use super::{PendingJoin, Sender};
use crate::limits::{MAX_DEVICES, MAX_PENDING_JOINS};
use crate::pacing::Path;
use crate::protocol::job::SenderJob;
use crate::status::DeviceStatus;
use crate::time::Time;
use crate::units::{BlockIndex, DeviceId};
use crate::wire::{
    self, Abort, AbortCode, Acknowledge, Admit, Complete, Deficit, Join, Message, Nak, Phase, Progress,
    Verdict,
};
use std::net::SocketAddr;
use std::time::Duration;

impl Sender {
    /// Handles one datagram; whatever is not a sound message of this session is counted and dropped.
    pub(super) fn feedback(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        let message = match wire::decode(bytes) {
            Ok((header, message)) if header.session == self.config.session => message,
            _ => {
                self.counters.ignored += 1;
                return;
            }
        };
        self.counters.feedback += 1;
        let known = match message {
            Message::Join(join) => {
                self.join(now, from, join);
                true
            }
            Message::Nak(nak) => self.nak(now, from, nak),
            Message::Progress(report) => self.progress(now, from, report),
            Message::Complete(receipt) => self.complete(now, from, receipt),
            Message::Abort(Abort { device: Some(device), code, reason }) => {
                self.device_aborted(now, from, device, code, &reason)
            }
            _ => false,
        };
        if !known {
            self.counters.ignored += 1;
        }
        self.drive_rounds(now);
    }

    /// The device that speaks, if it does so from the address it joined from.
    fn heard(&mut self, id: DeviceId, from: SocketAddr, now: Time) -> Option<usize> {
        let key = self.devices.key(id)?;
        let device = self.devices.get_mut(key);
        if device.address != from {
            return None;
        }
        device.last_heard = now;
        if device.status == DeviceStatus::Lost {
            // It was only out of reach.
            self.take_up(key, now);
        }
        Some(key)
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

    fn join(&mut self, now: Time, from: SocketAddr, join: Join) {
        if let Some(key) = self.devices.key(join.device) {
            let device = self.devices.get(key);
            // One that failed does not come back in the same run: it has left, or what it lacked still
            // holds. An overtaken join must not hide its reason.
            if device.instance == join.instance && device.address == from {
                self.heard(join.device, from, now);
                self.admit(key, from);
                return;
            }
        }
        if self.pending_joins.len() < MAX_PENDING_JOINS {
            let device = join.device;
            let pending = PendingJoin { join, address: from };
            if self.pending_joins.insert(device, pending).is_none() {
                self.job(SenderJob::LookUp(device));
            }
        }
    }

    fn admit(&mut self, key: usize, to: SocketAddr) {
        let device = self.devices.get(key);
        let verdict = if device.status == DeviceStatus::Complete {
            Verdict::AlreadyComplete
        } else {
            Verdict::Admitted
        };
        let admit = Admit { device: device.id, instance: device.instance, verdict };
        self.reply(to, &Message::Admit(admit));
    }

    /// Answers an address that has no channel of its own (yet), on a channel kept for that.
    fn reply(&mut self, to: SocketAddr, message: &Message<'_>) {
        let number = self.replies.take_numbers(1);
        self.message(to, number, message);
    }

    /// The status table has answered for a device that wants to join.
    pub(super) fn looked_up(&mut self, id: DeviceId, status: Option<DeviceStatus>, now: Time) {
        let Some(PendingJoin { join, address }) = self.pending_joins.remove(&id) else { return };
        if status == Some(DeviceStatus::Complete) && self.devices.key(id).is_none() {
            let admit = Admit { device: id, instance: join.instance, verdict: Verdict::AlreadyComplete };
            self.reply(address, &Message::Admit(admit));
            return;
        }
        let key = match self.devices.key(id) {
            Some(key) => key,
            None if self.devices.len() >= MAX_DEVICES => {
                let admit = Admit { device: id, instance: join.instance, verdict: Verdict::Full };
                self.reply(address, &Message::Admit(admit));
                return;
            }
            None => self.devices.insert(Device {
                id,
                instance: join.instance,
                label: String::new(),
                address,
                status: DeviceStatus::Lost,
                joined: now,
                ended: None,
                last_heard: now,
                last_gain: now,
                least_deficit: u64::MAX,
                since: 0,
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
                verified: 0,
                incomplete: None,
                lost_datagrams: 0,
                kernel_drops: 0,
                overrun_drops: 0,
                unicast_symbols: 0,
            }),
        };
        let device = self.devices.get_mut(key);
        device.instance = join.instance;
        device.label = join.label;
        device.address = address;
        device.last_heard = now;
        if device.status != DeviceStatus::Complete {
            device.verified = 0;
            device.incomplete = None;
            device.regrouped = false;
            device.status = DeviceStatus::Lost;
            let event = super::SenderEvent::Joined {
                device: id,
                label: device.label.clone(),
                address,
                late: self.phase != Phase::Gathering,
            };
            self.event(event);
            self.take_up(key, now);
            self.gather.joined();
            self.life.joined(now);
        }
        self.admit(key, address);
        self.start_if_ready(now);
    }

    /// (Re)starts the service of a device: what has gone by is for a unicast repair session.
    fn take_up(&mut self, key: usize, now: Time) {
        let started = self.phase != Phase::Gathering;
        let gone_by = if self.stream_done() { self.stream.position } else { self.stream.position + 1 };
        let device = self.devices.get_mut(key);
        device.ended = None;
        device.last_gain = now;
        device.least_deficit = u64::MAX;
        device.unanswered = 0;
        (device.apart, device.slow) = (false, false);
        device.since = if started { gone_by } else { 0 };
        let status = self.active_status(key);
        self.set_status(key, status, now);
    }

    fn nak(&mut self, now: Time, from: SocketAddr, nak: Nak) -> bool {
        let Some(key) = self.heard(nak.device, from, now) else { return false };
        if self.devices.get(key).is_final() {
            return false;
        }
        let deficit = self.deficit(&nak, u32::MAX);
        let device = self.devices.get_mut(key);
        device.incomplete = Some(nak.incomplete.min(self.config.layout.block_count()));
        if deficit < device.least_deficit {
            device.least_deficit = deficit;
            device.last_gain = now;
        }
        let of_group = self.group.has_sent(nak.as_of);
        let channel = if of_group { &self.group } else { &*self.device_channel(key) };
        if !channel.has_sent(nak.as_of) {
            return false;
        }
        let held = Duration::from_micros(nak.held_us.into());
        let sample = channel.poll_sent(nak.round).map(|sent| now.since(sent).saturating_sub(held));
        // Before its last symbols were sent, it could not count them: the next poll will tell.
        let current = of_group || (channel.is_open() && nak.as_of >= channel.last_symbol);
        // One device may not slow the group's rounds down by what it claims.
        if let Some(sample) = sample.filter(|_| !self.devices.get(key).apart) {
            self.rounds.rtt_sample(sample);
        }
        if of_group {
            if !self.devices.get(key).apart || self.devices.get(key).unreachable() {
                self.group.answer(key, nak);
            }
        } else if current {
            self.session_answer(key, &nak, now);
        }
        true
    }

    /// Symbols that a summary names as lacking, in blocks there are below `below`.
    pub(super) fn deficit(&self, nak: &Nak, below: u32) -> u64 {
        let blocks = self.config.layout.block_count().min(below);
        let k = u64::from(self.config.layout.source_symbols(BlockIndex(0)));
        let deficits = nak.deficits.iter().map(|deficit| match deficit {
            Deficit::Whole { first, .. } => u64::from(deficit.end().min(blocks).saturating_sub(first.0)) * k,
            Deficit::Symbols { block, symbols, .. } if block.0 < below => u64::from(*symbols),
            Deficit::Symbols { .. } => 0,
        });
        deficits.sum()
    }

    fn progress(&mut self, now: Time, from: SocketAddr, report: Progress) -> bool {
        let Some(key) = self.heard(report.device, from, now) else { return false };
        let blocks = self.config.layout.block_count();
        let device = self.devices.get_mut(key);
        let verified = report.verified.min(blocks);
        if verified > device.verified {
            device.last_gain = now;
            // What is verified stays so: a lower figure is an older one, or a lie.
            device.verified = verified;
        }
        device.incomplete = Some(blocks - device.verified);
        let dropped = report.kernel_drops.saturating_add(report.overrun_drops);
        let overflowed = dropped > device.kernel_drops.saturating_add(device.overrun_drops);
        device.lost_datagrams = report.lost;
        device.kernel_drops = report.kernel_drops;
        device.overrun_drops = report.overrun_drops;
        if let Some(arrivals) = report.arrivals {
            self.arrivals(key, &arrivals, overflowed, now);
        }
        true
    }

    fn complete(&mut self, now: Time, from: SocketAddr, receipt: Complete) -> bool {
        let (Some(key), Some(root)) = (self.devices.key(receipt.device), self.root) else { return false };
        let device = self.devices.get_mut(key);
        if device.instance != receipt.instance {
            return false;
        }
        // Instance and hash speak for it even if its address has changed since it joined.
        if receipt.root == root {
            device.address = from;
        }
        self.heard(receipt.device, from, now);
        if receipt.root != root {
            let reason = "it committed bytes with another hash".to_owned();
            self.set_status(key, DeviceStatus::Failed(reason.clone()), now);
            let device = Some(receipt.device);
            self.tell_device(key, &Message::Abort(Abort { device, code: AbortCode::Mismatch, reason }), now);
            return true;
        }
        let blocks = self.config.layout.block_count();
        let device = self.devices.get_mut(key);
        device.verified = blocks;
        device.incomplete = Some(0);
        device.lost_datagrams = receipt.lost;
        if device.status != DeviceStatus::Complete {
            self.life.stay();
        }
        self.set_status(key, DeviceStatus::Complete, now);
        self.tell_device(key, &Message::Acknowledge(Acknowledge { device: receipt.device }), now);
        self.end_if_done(now);
        true
    }

    fn device_aborted(
        &mut self,
        now: Time,
        from: SocketAddr,
        id: DeviceId,
        code: AbortCode,
        reason: &str,
    ) -> bool {
        let Some(key) = self.heard(id, from, now) else { return false };
        if self.devices.get(key).status != DeviceStatus::Complete {
            let reason =
                if reason.is_empty() { format!("{code:?}").to_lowercase() } else { reason.to_owned() };
            self.set_status(key, DeviceStatus::Failed(reason), now);
        }
        self.tell_device(key, &Message::Acknowledge(Acknowledge { device: id }), now);
        self.end_if_done(now);
        true
    }
}
