//! Unicast repair sessions: polls, answers and repairs for one device at its own address, beside
//! the group's rounds; and the regrouping of those left over.

use super::Sender;
use super::channel::Round;
use super::pace::Pace;
use super::planner::Needs;
use crate::status::DeviceStatus;
use crate::time::Time;
use crate::units::BlockIndex;
use crate::wire::{Invitation, Message, Nak, Poll};
use std::time::Duration;

/// Sessions at a time while the group has work.
const MAX_SESSIONS: usize = 16;

impl Sender {
    pub(super) fn drive_sessions(&mut self, now: Time) {
        let room = if self.group_is_busy() { MAX_SESSIONS } else { usize::MAX };
        if self.sessions.len() < room {
            let wanting: Vec<usize> = self
                .devices
                .iter()
                .filter(|(_, d)| d.wants_unicast() && (!d.slow || self.stream_done()))
                .filter(|(key, _)| !self.sessions.contains(key))
                .map(|(key, _)| key)
                .take(room.min(MAX_SESSIONS * 4) - self.sessions.len().min(MAX_SESSIONS * 4))
                .collect();
            for key in wanting {
                if self.session_scope(key) > 0 {
                    let pace = Pace::new(self.session_controller(key, now), self.datagram_on_wire(), now);
                    self.device_channel(key).pace.get_or_insert(pace);
                    self.sessions.push_back(key);
                }
            }
        }
        for key in self.sessions.clone() {
            let channel = self.device_channel(key);
            match channel.round {
                Round::Open { closes, .. } if now >= closes => {
                    channel.close(now);
                    self.devices.get_mut(key).unanswered += 1;
                    if self.devices.get(key).unreachable() {
                        self.end_session(key);
                    } else {
                        self.poll_session(key, now);
                    }
                }
                Round::Idle { next } if now >= next && !channel.has_repairs() => {
                    self.poll_session(key, now);
                }
                _ => {}
            }
        }
    }

    /// Blocks below this are repaired by unicast for the device.
    fn session_scope(&self, key: usize) -> u32 {
        let device = self.devices.get(key);
        let position = self.stream.position;
        if device.apart || !self.group_is_busy() { position } else { device.since.min(position) }
    }

    fn poll_session(&mut self, key: usize, now: Time) {
        let patience = (self.rounds.rtt * 3).max(Duration::from_millis(250));
        let patience = patience * (1 + self.devices.get(key).unanswered).min(2);
        let scope = self.session_scope(key);
        let group_size = self.devices.group_size();
        let round = self.device_channel(key).open(now, now + patience, Time::NEVER);
        if self.stream_done() {
            self.announce_to(key, now);
        }
        let poll = Poll {
            round,
            position: BlockIndex(scope),
            invitation: Invitation { probability: u16::MAX, window: Duration::ZERO },
            group_size,
            want_ids: true,
            planned: Vec::new(),
        };
        self.tell_device(key, &Message::Poll(poll), now);
    }

    /// A device has answered the poll of its own session.
    pub(super) fn session_answer(&mut self, key: usize, nak: &Nak, now: Time) {
        let scope = self.session_scope(key);
        let busy = self.group_is_busy();
        let pages = self.page_count();
        let mut needs = Needs::default();
        needs.add(nak, pages, |block| {
            (block < scope).then(|| self.config.layout.source_symbols(BlockIndex(block)))
        });
        let device = self.devices.get_mut(key);
        device.unanswered = 0;
        let loss = if device.apart { 0.2 } else { self.rounds.loss };
        let plans = needs.plan(loss);
        let idle = plans.is_empty() && needs.pages().next().is_none();
        // What it is still looking for in its own file it does not ask for yet.
        let looking = device.holds && nak.incomplete > self.config.layout.block_count() - scope;
        let deaf = device.hearing.deaf;
        if idle && busy && !looking && !deaf {
            // It has caught up: the group's rounds are enough for it from now on.
            device.since = 0;
            device.apart = false;
            self.end_session(key);
            self.set_status(key, DeviceStatus::Receiving { deficit: 0 }, now);
            return;
        }
        let least = Duration::from_millis(if idle && deaf { 250 } else { 20 });
        let pause = self.rounds.rtt.max(least);
        let channel = self.device_channel(key);
        channel.close(if idle { now + pause } else { now });
        for page in needs.pages() {
            channel.add_page(page);
        }
        let mut room = channel.pace.as_ref().map_or(u64::MAX, |pace| pace.symbols_a_round(pause));
        for plan in plans {
            if room == 0 {
                // The next round's answer asks for it again.
                break;
            }
            let kind = plan.kind.at_most(u32::try_from(room).unwrap_or(u32::MAX));
            room -= u64::from(kind.symbols());
            let (kind, first) = self.set_aside(plan.block, kind);
            self.device_channel(key).push(BlockIndex(plan.block), kind, first);
        }
    }

    /// Ends a unicast repair session and drops what was planned in it.
    pub(super) fn end_session(&mut self, key: usize) {
        self.sessions.retain(|&k| k != key);
        if let Some(channel) = &mut self.devices.get_mut(key).channel {
            let wasted = channel.clear();
            channel.close(Time::ZERO);
            if let Some(pace) = &mut channel.pace {
                pace.forget();
            }
            self.encoded_symbols = self.encoded_symbols.saturating_sub(wasted);
        }
    }

    /// When the stream is over and the group is served, the devices left over make a new group if
    /// there are several (they pay the maximum, not the sum); a last one of several is served alone,
    /// so that the others are not bothered.
    pub(super) fn regroup(&mut self) {
        let in_group: Vec<usize> =
            self.devices.iter().filter(|(_, d)| d.in_group()).map(|(key, _)| key).collect();
        match in_group.as_slice() {
            [] => {
                let left: Vec<usize> = self
                    .devices
                    .iter()
                    .filter(|(_, d)| !d.is_final() && !d.regrouped && !d.hearing.deaf)
                    .map(|(key, _)| key)
                    .collect();
                if left.len() >= 2 {
                    for key in left {
                        self.end_session(key);
                        let device = self.devices.get_mut(key);
                        device.regrouped = true;
                        device.apart = false;
                        device.since = 0;
                    }
                }
            }
            [last]
                if self.devices.len() >= 2
                    && !self.group.has_repairs()
                    && !self.group.is_open()
                    && !self.devices.get(*last).unreachable() =>
            {
                self.devices.get_mut(*last).apart = true;
            }
            _ => {}
        }
    }
}
