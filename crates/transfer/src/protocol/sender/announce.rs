//! Announcements: when they are sent, to whom, and their fields.

use super::{Sender, SenderConfig};
use crate::crypto::origin::Origin;
use crate::limits::{ANNOUNCE_INTERVAL, FeedbackBudget, SMALL_GROUP};
use crate::protocol::Output;
use crate::protocol::packet_protection::SenderSide;
use crate::time::Time;
use crate::units::{BlockIndex, DeviceIndex, Digest, Extent};
use crate::wire::{
    Announce, Capabilities, Invitation, Message, Object, OriginProof, Phase, TaskKind, Versions,
};
use std::time::Duration;

/// Interval between announcements while gathering: of the first [`HASTY_ANNOUNCES`], and of the others. Devices that wait
/// already join within the first few ([`crate::limits::join_ceiling`]), and those whose JOIN is lost within the next.
const GATHER_ANNOUNCES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));
const HASTY_ANNOUNCES: u32 = 30;
/// Interval between announcements after gathering.
const LATER_ANNOUNCES: Duration = Duration::from_millis(250);

/// Why an object cannot be relayed.
pub(in crate::protocol) const NOT_AS_SIGNED: &str =
    "the file is not what its origin has signed; receive it again, and do not change it";

/// Interval to the announcement after one of growth, which may have been lost.
const NEWS_AGAIN: Duration = Duration::from_millis(25);

/// A grease datagram follows one announcement in this many.
const GREASE_EVERY: u32 = 64;

const _: () = assert!(LATER_ANNOUNCES.as_millis() <= ANNOUNCE_INTERVAL.as_millis());

/// The times of the last and the next announcement.
#[derive(Debug)]
pub(super) struct AnnounceTimer {
    /// The number of announcements so far.
    count: u32,
    pub last: Time,
    pub next: Time,
}

impl AnnounceTimer {
    pub const fn new(now: Time) -> Self {
        Self { count: 0, last: now, next: now }
    }
}

impl Sender {
    /// Announces the session to the group and on the rendezvous groups.
    pub(super) fn announce(&mut self, now: Time) {
        let interval = match self.phase {
            Phase::Gathering if self.announces.count < HASTY_ANNOUNCES => GATHER_ANNOUNCES.0,
            Phase::Gathering => GATHER_ANNOUNCES.1,
            _ => LATER_ANNOUNCES,
        };
        let since = now.since(self.announces.last).clamp(GATHER_ANNOUNCES.0, interval);
        if self.config.relayed.is_some() && self.root.is_none() {
            // Nobody trusts a relay before it shows the origin's proof.
            self.announces.next = now + interval;
            return;
        }
        let extent = self.config.layout.extent();
        let news = std::mem::replace(&mut self.stream.announced, extent) != extent;
        let next = if news { NEWS_AGAIN } else { interval };
        (self.announces.last, self.announces.next) = (now, now + next);
        let invitation = self.gather.invite(since, self.budget());
        let announce = self.announcement(invitation);
        let message = Message::Announce(announce);
        self.send_to_group(&message, now);
        self.grease();
        for to in self.config.rendezvous.clone() {
            if to != self.config.data {
                let number = self.replies.take_numbers(1);
                self.message(to, number, &message);
            }
        }
    }

    /// The session as it is announced now, with an invitation that selects no device.
    #[must_use]
    pub fn announced(&self) -> Announce {
        self.announcement(Invitation { probability: 0, window: Duration::ZERO })
    }

    /// Announces the session by unicast to one device, which may not hear the group.
    pub(super) fn announce_to(&mut self, index: DeviceIndex, now: Time) {
        let announce = self.announced();
        self.send_signed_to_device(index, &Message::Announce(announce), now);
    }

    /// Sends a grease datagram with every 64th announcement.
    fn grease(&mut self) {
        self.announces.count += 1;
        if self.announces.count.is_multiple_of(GREASE_EVERY) {
            let number = self.replies.take_numbers(1);
            let datagram = self.side.grease(self.header(number));
            let transmit = self.transmit(self.config.data, datagram);
            self.out.push_back(Output::Transmit(transmit));
        }
    }

    /// The feedback budget as it is announced now. It follows the rate, because feedback takes its way back over the same
    /// lines; while devices join, the rate is not known yet. A small group needs no more than the least, and the rate
    /// control gets as many reports as ever.
    pub(super) fn budget(&self) -> FeedbackBudget {
        let most = self.config.feedback;
        match self.phase {
            Phase::Gathering => most,
            _ if self.devices.gsize() <= SMALL_GROUP => most.min(FeedbackBudget::DEFAULT),
            _ => most.min(FeedbackBudget::of(self.pace.rate(), usize::MAX)),
        }
    }

    fn announcement(&self, invitation: Invitation) -> Announce {
        Announce {
            // Any block may turn out to be zeros.
            required: Capabilities::CODED_BLOCKS,
            optional: Capabilities::OURS.without(Capabilities::CODED_BLOCKS),
            phase: self.phase,
            position: BlockIndex(self.stream.position),
            invitation,
            gsize: self.devices.gsize(),
            rate: self.pace.rate(),
            feedback_budget: announced(self.budget()),
            origin: self.origin.clone(),
            ..self.config.announce(&self.side, self.root)
        }
    }
}

/// A budget as the announcement has it.
fn announced(feedback: FeedbackBudget) -> u16 {
    u16::try_from(feedback.per_second()).unwrap_or(u16::MAX)
}

impl SenderConfig {
    /// The announcement of a session with this configuration, and with the root hash as far as it is known. It invites
    /// nobody, and nothing has been sent.
    pub(in crate::protocol) fn announce(&self, side: &SenderSide, root: Option<Digest>) -> Announce {
        let layout = &self.layout;
        let rate = self.rate.most();
        let Extent { size, sealed } = layout.extent();
        let object = Object { kind: self.kind, block_log2: layout.block_log2(), size, sealed, root };
        Announce {
            versions: Versions::OURS,
            required: Capabilities::default(),
            optional: Capabilities::OURS,
            sender: side.key(),
            agreement: side.agreement(),
            counter: side.counter(),
            suite: side.suite(),
            task: self.task.id,
            task_kind: TaskKind(self.task.kind.code()),
            phase: Phase::Gathering,
            symbol_size: layout.symbol_size(),
            data: self.data,
            position: BlockIndex(0),
            invitation: Invitation { probability: 0, window: Duration::ZERO },
            gsize: 0,
            rate,
            feedback_budget: announced(self.feedback),
            objects: vec![object],
            name: self.task.name.clone(),
            manifest: self.manifest.clone(),
            one_way: None,
            origin: None,
        }
    }

    /// The proof of who made the object with this root hash: this sender, or the origin whose object it relays. `None` if
    /// that has signed another one.
    pub(in crate::protocol) fn origin(&self, root: Digest) -> Option<Box<OriginProof>> {
        if let Some(relayed) = &self.relayed {
            return (relayed.root == root).then(|| Box::new(relayed.proof));
        }
        let (layout, key, counter) = (&self.layout, &self.signing_key, self.counter);
        let origin = Origin {
            counter,
            block_log2: layout.block_log2(),
            size: layout.object_size(),
            root,
            name: &self.task.name,
            manifest: &self.manifest,
        };
        Some(Box::new(OriginProof { key: key.public(), counter, signature: origin.sign(key) }))
    }
}
