//! Unicast repairs: polls, answers and repairs for one device at its own address, beside the group's rounds; and the
//! regrouping of the last devices.

use super::Sender;
use super::channel::Round;
use super::devices::Class;
use super::pace::Pace;
use super::planner::Needs;
use super::service::Unlike;
use crate::time::Time;
use crate::units::{BlockIndex, DeviceIndex};
use crate::wire::{Invitation, Message, Nak, ObjectKind, Poll};
use std::time::Duration;

/// After this many polls without an answer, unicast does not reach a device.
const UNREACHABLE_AFTER: u32 = 6;

impl Sender {
    pub(super) fn drive_unicast_repairs(&mut self, now: Time) {
        let most = self.config.repair.unicast_repairs;
        let room = if self.group_is_busy() { most } else { most * 4 };
        if self.unicast_repairs.len() < room {
            let free = room - self.unicast_repairs.len();
            let mut wanting = self.without_unicast(Class::Unicast, free);
            if self.stream_done() || self.window.waits() {
                wanting.extend(self.without_unicast(Class::SlowUnicast, free - wanting.len()));
            }
            for index in wanting {
                if self.unicast_scope(index) > 0 {
                    let pace = Pace::new(self.unicast_controller(index, now), self.datagram_on_wire(), now);
                    self.device_channel(index).pace.get_or_insert(pace);
                    self.unicast_repairs.push_back(index);
                }
            }
        }
        for index in self.unicast_repairs.clone() {
            let channel = self.device_channel(index);
            match channel.round {
                Round::Open { closes, .. } if now >= closes => {
                    channel.close(now);
                    channel.unanswered += 1;
                    if channel.unanswered >= UNREACHABLE_AFTER {
                        self.devices.get_mut(index).service.give_unicast_up();
                        self.end_unicast_repair(index);
                    } else {
                        self.poll_unicast(index, now);
                    }
                }
                Round::Idle { next } if now >= next && !channel.has_repairs() => {
                    self.poll_unicast(index, now);
                }
                _ => {}
            }
        }
    }

    /// Up to `most` devices of a class that have no active unicast repair.
    fn without_unicast(&mut self, class: Class, most: usize) -> Vec<DeviceIndex> {
        let under_way = &self.unicast_repairs;
        let without = self.devices.of(class).iter().filter(|index| !under_way.contains(index));
        without.take(most).copied().collect()
    }

    /// Unicast repairs blocks below this for the device.
    fn unicast_scope(&self, index: DeviceIndex) -> u32 {
        let busy = self.group_is_busy();
        self.devices.get(index).service.unicast_scope(self.stream.position, busy)
    }

    fn poll_unicast(&mut self, index: DeviceIndex, now: Time) {
        let round_trip = self.rounds.round_trips.of(index).unwrap_or_default().max(self.rounds.grtt);
        let patience = (round_trip * 3).max(Duration::from_millis(250));
        let patience = patience * (1 + self.device_channel(index).unanswered).min(2);
        let scope = self.unicast_scope(index);
        let gsize = self.devices.gsize();
        let round = self.device_channel(index).open(now, now + patience, Time::NEVER);
        if self.stream_rests() {
            self.announce_to(index, now);
        }
        let poll = Poll {
            round,
            position: BlockIndex(scope),
            invitation: Invitation { probability: u16::MAX, window: Duration::ZERO },
            gsize,
            want_esis: true,
            advertised: Vec::new(),
        };
        self.send_to_device(index, &Message::Poll(poll), now);
    }

    /// Handles the answer to a poll on the device's channel.
    pub(super) fn unicast_answer(&mut self, index: DeviceIndex, nak: &Nak, now: Time) {
        let scope = self.unicast_scope(index);
        let busy = self.group_is_busy();
        let pages = self.page_count();
        let mut needs = Needs::default();
        let kept = self.window.floor()..scope;
        needs.add(nak, pages, |block| {
            kept.contains(&block).then(|| self.symbols_of(block)).filter(|&k| k > 0)
        });
        let position = self.stream.position;
        let device = self.devices.get_mut(index);
        if let Some(channel) = &mut device.channel {
            channel.unanswered = 0;
        }
        // What grows may have more blocks than the device knows of.
        if self.config.kind != ObjectKind::Stream {
            let verified = self.config.layout.block_count().saturating_sub(nak.incomplete);
            device.reported.verified = device.reported.verified.max(verified);
        }
        let loss = if device.service.is_unicast_only() { 0.2 } else { self.rounds.loss };
        let plans = needs.plan(loss);
        let idle = plans.is_empty() && needs.pages().next().is_none();
        // The device does not request blocks that it still looks for in its own file.
        let looking = device.holds && nak.incomplete > self.config.layout.block_count() - scope;
        let unreachable = device.group.unreachable;
        if idle && device.reported.waits_for_reader() {
            // Its next report says when there is room again.
            self.end_unicast_repair(index);
            return;
        }
        let room = device.reported.room.below > position;
        if idle && busy && room && !looking && !unreachable {
            // The device has caught up: from now on the group's rounds are enough.
            device.return_to_group(self.rounds.everybody);
            self.end_unicast_repair(index);
            self.tell_if_changed(index, now);
            return;
        }
        let least = Duration::from_millis(if idle && unreachable { 250 } else { 20 });
        let pause = self.rounds.grtt.max(least);
        let channel = self.device_channel(index);
        channel.close(if idle { now + pause } else { now });
        for page in needs.pages() {
            channel.add_page(page);
        }
        let mut room = channel.pace.as_ref().map_or(u64::MAX, |pace| pace.symbols_a_round(pause));
        for plan in plans {
            if room == 0 {
                // The answer of the next round requests it again.
                break;
            }
            let kind = plan.kind.at_most(u32::try_from(room).unwrap_or(u32::MAX));
            room -= u64::from(kind.symbols());
            let (kind, first, packed) = self.set_aside(plan.block, kind);
            self.device_channel(index).push(BlockIndex(plan.block), kind, first, packed);
        }
    }

    /// Ends unicast repair and drops its planned repairs.
    pub(super) fn end_unicast_repair(&mut self, index: DeviceIndex) {
        self.unicast_repairs.retain(|&k| k != index);
        if let Some(channel) = &mut self.devices.get_mut(index).channel {
            let wasted = channel.clear();
            channel.close(Time::ZERO);
            if let Some(pace) = &mut channel.pace {
                pace.forget();
            }
            self.encoded_symbols = self.encoded_symbols.saturating_sub(wasted);
        }
    }

    /// Regroups the last devices once the stream is over and the group is served. Several form a new group,
    /// which costs the largest deficit and not the sum. A single one of several is served by unicast, so that
    /// the others do not get its repairs.
    pub(super) fn regroup(&mut self) {
        if self.config.repair.unicast_repairs == 0 {
            return;
        }
        let (several, group) = (self.devices.len() >= 2, self.devices.of(Class::Group));
        match (group.len(), group.first().copied()) {
            (0, _) => {
                let left = self.devices.of(Class::Leftover);
                let left: Vec<DeviceIndex> =
                    if left.len() >= 2 { left.iter().copied().collect() } else { Vec::new() };
                for index in left {
                    self.end_unicast_repair(index);
                    let device = self.devices.get_mut(index);
                    device.regrouped = true;
                    device.return_to_group(self.rounds.everybody);
                }
            }
            (1, Some(last)) if several && !self.group.has_repairs() && !self.group.is_open() => {
                self.devices.get_mut(last).service.move_to_unicast(Unlike::Last);
            }
            _ => {}
        }
    }
}
