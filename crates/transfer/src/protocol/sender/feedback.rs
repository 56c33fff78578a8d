//! Handles the messages of admitted devices: NAK summaries, reports, receipts, aborts.

use super::Sender;
use super::headway::Sent;
use super::service::{Service, Unlike};
use crate::protocol::packet_protection::SenderSide;
use crate::task::{State, Step};
use crate::time::Time;
use crate::units::DeviceIndex;
use crate::wire::{
    self, Abort, AbortCode, Complete, DecodeError, Deficit, Head, Message, MessageKind, Nak, Phase, Progress,
};
use std::net::SocketAddr;
use std::time::Duration;

impl Sender {
    /// Handles one datagram. A datagram that is no valid message of this session is counted and dropped.
    /// Cheap checks come first: the session, the channel, the replay window, the seal, the message.
    pub(super) fn feedback(&mut self, now: Time, from: SocketAddr, bytes: &mut [u8]) {
        let known = match wire::head(bytes) {
            Ok(head) if head.header.session != self.side.session() => false,
            Ok(head) if head.kind == MessageKind::Join => self.join(now, from, &head, bytes),
            Ok(head) => self.device_message(now, from, &head, bytes),
            Err(error) => {
                self.not_understood(error);
                false
            }
        };
        if !known {
            self.counters.ignored += 1;
        }
        self.drive_rounds(now);
    }

    /// Counts a datagram that only a later program may understand.
    pub(super) fn not_understood(&mut self, error: DecodeError) {
        match error {
            DecodeError::UnknownKind(_) => self.counters.unknown_kinds += 1,
            error if error.is_not_understood() => self.counters.not_understood += 1,
            _ => {}
        }
    }

    /// Handles a message of a device that has a channel.
    fn device_message(&mut self, now: Time, from: SocketAddr, head: &Head, bytes: &mut [u8]) -> bool {
        let (number, len) = (head.header.packet_number, bytes.len());
        let Some(index) = number.channel().device().filter(|index| index.position() < self.devices.len())
        else {
            return false;
        };
        let link = &mut self.devices.get_mut(index).link;
        if !link.window.is_new(number.counter()) {
            return false;
        }
        let Some(body) = SenderSide::from_one(&link.keys, head, bytes) else { return false };
        // A device that floods is heard no more often than one that does not. What it did not say is not
        // counted: strangers would silence it.
        if !link.rate_limit.allow(now) {
            return false;
        }
        let message = match wire::decode_body(head.kind, body) {
            Ok(message) => message,
            Err(error) => {
                self.not_understood(error);
                return false;
            }
        };
        self.counters.feedback += 1;
        self.devices.get_mut(index).link.window.note(number.counter());
        self.heard(index, now);
        if self.devices.get(index).address != from {
            self.moved(index, from, len, now);
        }
        match message {
            Message::Nak(nak) => self.nak(now, index, nak),
            Message::Suspect(suspect) => self.suspect(index, &suspect),
            Message::Progress(report) => self.progress(now, index, report),
            Message::Complete(receipt) => self.complete(now, index, receipt),
            Message::Abort(Abort { code, reason }) => self.device_aborted(now, index, code, &reason),
            _ => false,
        }
    }

    /// Notes a sign of life of a device.
    pub(super) fn heard(&mut self, index: DeviceIndex, now: Time) {
        let device = self.devices.get_mut(index);
        device.last_heard = now;
        if *device.assignment.state() == State::Lost {
            // It was only out of reach.
            self.take_up(index, now);
        }
    }

    fn nak(&mut self, now: Time, index: DeviceIndex, nak: Nak) -> bool {
        if self.devices.get(index).is_final() {
            return false;
        }
        let (deficit, sent) = (self.deficit(&nak, u32::MAX), self.sent_to(index));
        let device = self.devices.get_mut(index);
        device.reported.incomplete = Some(nak.incomplete.min(self.config.layout.block_count()));
        device.headway.lacks(deficit, sent, now);
        let of_group = self.group.has_sent(nak.largest_received);
        let channel = if of_group { &self.group } else { &*self.device_channel(index) };
        if !channel.has_sent(nak.largest_received) {
            return false;
        }
        let ack_delay = Duration::from_micros(nak.ack_delay_us.into());
        let sample = channel.poll_sent(nak.round).map(|sent| now.since(sent).saturating_sub(ack_delay));
        // Before its last symbols were sent, it could not count them: the next poll will tell.
        let current = of_group || (channel.is_open() && nak.largest_received >= channel.last_symbol);
        if let Some(sample) = sample.filter(|_| self.devices.get(index).service.shapes_group()) {
            let grtt = self.rounds.grtt;
            self.rounds.round_trips.answered(index, of_group, nak.round, sample, grtt);
        }
        if of_group {
            if self.devices.get(index).service.answers_group() {
                self.group.answer(index, nak);
            }
        } else if current {
            self.unicast_answer(index, &nak, now);
        }
        true
    }

    /// Symbols that were sent to a device, alone or with the group.
    pub(super) fn sent_to(&self, index: DeviceIndex) -> Sent {
        let device = self.devices.get(index);
        let at_all = device.unicast_symbols + self.counters.repair;
        let for_it = if device.service.is_group() { at_all } else { device.unicast_symbols };
        Sent { for_it, at_all }
    }

    /// Symbols that a summary names as missing, in blocks below `below`.
    pub(super) fn deficit(&self, nak: &Nak, below: u32) -> u64 {
        let blocks = self.config.layout.block_count().min(below);
        let deficits = nak.deficits.iter().map(|deficit| match deficit {
            Deficit::Whole { first, .. } => self.symbols_between(first.0, deficit.end().min(blocks)),
            Deficit::Symbols { block, symbols, .. } if block.0 < below => u64::from(*symbols),
            Deficit::Sources { block, missing } if block.0 < below => {
                missing.iter().map(|run| u64::from(run.1)).sum()
            }
            Deficit::Symbols { .. } | Deficit::Sources { .. } => 0,
        });
        deficits.sum()
    }

    fn progress(&mut self, now: Time, index: DeviceIndex, report: Progress) -> bool {
        if !self.keeps_up(index, report.below, now) || self.fails_by_size(index, &report, now) {
            return true;
        }
        let (blocks, k) = (self.config.layout.block_count(), self.config.layout.most_source_symbols());
        let sent = self.sent_to(index);
        let device = self.devices.get_mut(index);
        device.link.ticket_kept |= report.ticket_kept;
        let verified = report.verified.min(blocks);
        if verified > device.reported.verified {
            device.headway.verified(u64::from(verified) * u64::from(k), sent, now);
            // What is verified stays so: a lower figure is an older one, or a lie.
            device.reported.verified = verified;
        }
        device.reported.incomplete = Some(blocks - device.reported.verified);
        let dropped = report.kernel_drops.saturating_add(report.overrun_drops);
        let overflowed = dropped > device.reported.kernel_drops.saturating_add(device.reported.overrun_drops);
        device.reported.lost_datagrams = report.lost;
        device.reported.kernel_drops = report.kernel_drops;
        device.reported.overrun_drops = report.overrun_drops;
        device.reported.storage_delay = Duration::from_micros(report.storage_delay_us.into());
        let unreachable = device.group.report(&report, now);
        self.room_reported(index, report.room, now);
        if unreachable {
            self.group_became_unreachable(index, now);
        }
        if let Some(arrivals) = report.arrivals {
            self.arrivals(index, &arrivals, overflowed, now);
        }
        true
    }

    /// Moves a device to unicast because it is out of the group's reach, if unicast repair is possible.
    fn group_became_unreachable(&mut self, index: DeviceIndex, now: Time) {
        let device = self.devices.get_mut(index);
        let none = self.config.repair.unicast_repairs == 0 || self.phase == Phase::Gathering;
        if none || device.is_final() || device.service.is_unicast_only() {
            return;
        }
        device.move_to_unicast(Unlike::GroupUnreachable);
        self.tell_if_changed(index, now);
    }

    fn complete(&mut self, now: Time, index: DeviceIndex, receipt: Complete) -> bool {
        let Some(root) = self.root else { return false };
        if receipt.root != root {
            let reason = "it committed bytes with another hash".to_owned();
            self.set_state(index, State::Failed(reason.clone()), now);
            self.send_to_device(index, &Message::Abort(Abort { code: AbortCode::Mismatch, reason }), now);
            return true;
        }
        let blocks = self.config.layout.block_count();
        let device = self.devices.get_mut(index);
        device.reported.verified = blocks;
        device.reported.incomplete = Some(0);
        device.reported.lost_datagrams = receipt.lost;
        if !device.assignment.is_complete() {
            self.completed(index, &receipt, now);
        }
        self.ended(index, now);
        true
    }

    /// Records that a device has verified and synced the object, and how its command and its hook ended.
    fn completed(&mut self, index: DeviceIndex, receipt: &Complete, now: Time) {
        let device = self.devices.get_mut(index);
        let steps = [Some(Step::Transfer), receipt.command.map(Step::Command), receipt.hook.map(Step::Hook)];
        let steps: Vec<Step> = steps.into_iter().flatten().collect();
        if device.is_final() {
            if device.assignment.steps() == steps {
                // The acknowledgement was lost.
                return;
            }
            // It was given up, and came through all the same.
            device.assignment.take_up();
        }
        device.service = Service::Ended { at: now };
        if device.assignment.end(steps) == Ok(true) {
            self.records.changed(index);
        }
        self.end_unicast_repair(index);
    }

    fn device_aborted(&mut self, now: Time, index: DeviceIndex, code: AbortCode, reason: &str) -> bool {
        let reason = if reason.is_empty() { format!("{code:?}").to_lowercase() } else { reason.to_owned() };
        self.set_state(index, State::Failed(reason), now);
        self.ended(index, now);
        true
    }

    /// Notes that a device has reported its end. It is acknowledged once the store has recorded that, which
    /// may be now.
    fn ended(&mut self, index: DeviceIndex, now: Time) {
        self.devices.get_mut(index).reported_end = true;
        self.acknowledge_if_recorded(index, now);
        self.end_if_done(now);
    }
}
