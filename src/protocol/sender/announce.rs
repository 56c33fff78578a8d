//! Announces: when the session is described, to whom, and what is said.

use super::Sender;
use crate::limits::ANNOUNCE_INTERVAL;
use crate::time::Time;
use crate::units::{BlockIndex, DeviceIndex};
use crate::wire::{Announce, Message, Phase};
use std::time::Duration;

/// Interval of the announces while gathering.
const GATHER_ANNOUNCES: Duration = Duration::from_millis(50);
/// Interval of the announces while streaming and later.
const LATER_ANNOUNCES: Duration = Duration::from_millis(250);

const _: () = assert!(LATER_ANNOUNCES.as_millis() <= ANNOUNCE_INTERVAL.as_millis());

/// When the session was last announced, and when it is announced next.
#[derive(Debug)]
pub(super) struct AnnounceTimer {
    last: Time,
    pub next: Time,
}

impl AnnounceTimer {
    pub const fn new(now: Time) -> Self {
        Self { last: now, next: now }
    }
}

impl Sender {
    /// Describes the session to the group and on the rendezvous groups.
    pub(super) fn announce(&mut self, now: Time) {
        let gathering = self.phase == Phase::Gathering;
        let interval = if gathering { GATHER_ANNOUNCES } else { LATER_ANNOUNCES };
        let since = now.since(self.announces.last).clamp(GATHER_ANNOUNCES / 2, interval);
        (self.announces.last, self.announces.next) = (now, now + interval);
        let invitation = self.gather.invite(since);
        let announce = self.announcement(invitation);
        let message = Message::Announce(announce);
        self.send_to_group(&message, now);
        for to in self.config.rendezvous.clone() {
            if to != self.config.data {
                let number = self.replies.take_numbers(1);
                self.message(to, number, &message);
            }
        }
    }

    /// The same to one device that is served alone, which may not hear the group.
    pub(super) fn announce_to(&mut self, index: DeviceIndex, now: Time) {
        let none = crate::wire::Invitation { probability: 0, window: Duration::ZERO };
        let announce = self.announcement(none);
        self.send_signed_to_device(index, &Message::Announce(announce), now);
    }

    fn announcement(&self, invitation: crate::wire::Invitation) -> Announce {
        Announce {
            sender: self.side.key(),
            agreement: self.side.agreement(),
            suite: self.side.suite(),
            task: self.config.task.id,
            phase: self.phase,
            object_size: self.config.layout.object_size(),
            block_log2: self.config.layout.block_log2(),
            symbol_size: self.config.layout.symbol_size(),
            data: self.config.data,
            position: BlockIndex(self.stream.position),
            invitation,
            gsize: self.devices.gsize(),
            rate: self.pace.rate(),
            root: self.root,
            name: self.config.task.name.clone(),
        }
    }
}
