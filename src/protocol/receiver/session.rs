//! The session a receiver takes part in: what the sender announced, and how well it is heard.

use crate::layout::Layout;
use crate::limits::{COMFORTABLE_BLOCK_LOG2, MAX_BLOCKS, MAX_DEVICES};
use crate::time::Time;
use crate::units::{Digest, SessionId, TaskId};
use crate::wire::{Announce, PacketNumber, Phase};
use std::net::SocketAddr;

/// A packet number that leaps further than this is damage, not loss.
const MAX_LEAP: u64 = 1 << 22;

/// A session, latched from its first announce: later ones cannot change what it is.
#[derive(Debug)]
pub(super) struct Session {
    pub id: SessionId,
    pub sender: SocketAddr,
    pub task: TaskId,
    pub layout: Layout,
    pub name: String,
    pub data: SocketAddr,
    pub phase: Phase,
    pub root: Option<Digest>,
    /// Devices the sender serves, at most as many as one may: what is spread by it must end.
    pub group_size: u32,
    /// When the sender was last heard at all, and on the group's channel.
    pub last_heard: Time,
    pub last_group: Time,
    pub group: ChannelLoss,
}

impl Session {
    /// The session that `announce` describes, if it is one that can be received.
    pub fn latch(id: SessionId, from: SocketAddr, announce: &Announce, now: Time) -> Option<Self> {
        let layout = Layout::new(announce.object_size, announce.block_log2, announce.symbol_size).ok()?;
        // No sender of this program makes larger blocks of an object that it may send.
        let fits = layout.block_count() <= MAX_BLOCKS && layout.block_log2() <= COMFORTABLE_BLOCK_LOG2;
        fits.then(|| Self {
            id,
            sender: from,
            task: announce.task,
            layout,
            name: announce.name.clone(),
            data: announce.data,
            phase: announce.phase,
            root: announce.root,
            group_size: sound_group_size(announce.group_size),
            last_heard: now,
            last_group: now,
            group: ChannelLoss::default(),
        })
    }

    /// Whether `announce` is of this very session.
    pub fn agrees(&self, announce: &Announce) -> bool {
        self.task == announce.task
            && self.layout.object_size() == announce.object_size
            && self.layout.block_log2() == announce.block_log2
            && self.layout.symbol_size() == announce.symbol_size
    }

    /// Takes over what changes in the course of a session; the root hash only once.
    pub fn update(&mut self, announce: &Announce) {
        self.phase = announce.phase;
        self.group_size = sound_group_size(announce.group_size);
        self.root = self.root.or(announce.root);
    }
}

/// Devices spread their reports and receipts by the group's size: no more than a session serves.
pub(super) fn sound_group_size(told: u32) -> u32 {
    told.min(MAX_DEVICES as u32)
}

/// Losses of one channel, told by its packet numbers.
#[derive(Debug, Default)]
pub(super) struct ChannelLoss {
    first: Option<u64>,
    highest: u64,
    pub received: u64,
}

impl ChannelLoss {
    pub fn note(&mut self, number: PacketNumber) {
        let counter = number.counter();
        match self.first {
            None => (self.first, self.highest) = (Some(counter), counter),
            Some(_) if counter > self.highest.saturating_add(MAX_LEAP) => return,
            Some(_) => self.highest = self.highest.max(counter),
        }
        self.received += 1;
    }

    /// Datagrams that never came (a reordered one counts until it does).
    pub fn lost(&self) -> u64 {
        let sent = self.first.map_or(0, |first| self.highest - first.min(self.highest) + 1);
        sent.saturating_sub(self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_from_the_first_datagram_heard() {
        let mut loss = ChannelLoss::default();
        for counter in [100, 101, 103, 102, 106, u64::MAX >> 20] {
            loss.note(PacketNumber::new(0, counter));
        }
        assert_eq!((loss.received, loss.lost()), (5, 2));
    }

    #[test]
    fn a_group_is_no_larger_than_it_can_be() {
        let mut announce = Announce {
            task: TaskId([1; 16]),
            phase: Phase::Gathering,
            object_size: 1,
            block_log2: 20,
            symbol_size: 1408,
            data: "239.1.1.1:7417".parse().unwrap(),
            position: crate::units::BlockIndex(0),
            invitation: crate::wire::Invitation { probability: 0, window: std::time::Duration::ZERO },
            group_size: u32::MAX,
            rate: crate::units::Rate(1),
            root: None,
            name: "n".into(),
        };
        let from = "10.0.0.1:7418".parse().unwrap();
        let mut session = Session::latch(SessionId(1), from, &announce, Time::ZERO).unwrap();
        assert_eq!(session.group_size, MAX_DEVICES as u32);
        announce.group_size = 3;
        session.update(&announce);
        assert_eq!(session.group_size, 3);
    }
}
