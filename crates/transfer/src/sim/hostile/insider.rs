//! Hostile devices: admitted, with keys, and lying.

use super::actors::Means;
use super::{Attack, group_key};
use crate::protocol::packet_protection::find;
use crate::sim::actors::{device_id, device_key, device_label};
use crate::sim::fakes::{FakeDevice, any_join};
use crate::sim::network::{NodeId, address};
use crate::sim::sham;
use crate::time::Time;
use crate::units::{BlockIndex, ChannelId, DeviceId, DeviceKey, Digest, SessionId};
use crate::wire::{
    self, Abort, AbortCode, Announce, Arrivals, Capabilities, Complete, Deficit, DeviceProof, Holdings, Join,
    Message, MessageKind, Nak, PacketNumber, PageRange, Progress, Versions,
};
use std::time::Duration;

mod liar;

pub use liar::Lie;

use liar::Liar;

/// Time after which a join is repeated.
const PATIENCE: Duration = Duration::from_millis(250);
/// Number of identifiers that `Attack::Crowd` uses.
const CROWD: u32 = 12;

/// A hostile device.
pub(super) struct Insider {
    node: NodeId,
    session: Option<(SessionId, Announce)>,
    device: Option<FakeDevice>,
    /// Number of its runs.
    run: u32,
    joined: Option<Time>,
    /// The highest packet number of the group's channel.
    newest: PacketNumber,
    /// What it needs as a slow liar.
    liar: Liar,
}

impl Insider {
    pub fn new(node: NodeId) -> Self {
        let newest = PacketNumber::new(ChannelId::GROUP, 0);
        Self { node, session: None, device: None, run: 0, joined: None, newest, liar: Liar::default() }
    }

    /// Handles a datagram to it or to the group.
    pub fn hear(&mut self, means: &mut Means, now: Time, bytes: &[u8]) {
        let Ok(head) = wire::head(bytes) else { return };
        let (session, number) = (head.header.session, head.header.packet_number);
        if head.kind == MessageKind::Announce && self.session.as_ref().is_none_or(|(id, _)| *id != session) {
            let groups: Vec<_> = means.grouped.then(group_key).into_iter().collect();
            let found = find(sham::SHAM, &groups, &head, &mut bytes.to_vec());
            let Some(found) = found.filter(|f| f.announce.sender == sham::signing_key(1).public()) else {
                return;
            };
            self.session = Some((session, found.announce));
            self.begin(means);
        }
        let Some(device) = self.device.as_mut().filter(|device| device.session() == session) else { return };
        if number.channel() == ChannelId::GROUP && number > self.newest {
            self.newest = number;
        }
        if means.attack.lie().is_some() {
            self.liar.arrived(number, now);
        }
        if head.kind == MessageKind::Symbol {
            return;
        }
        match device.hear(bytes) {
            Some(MessageKind::Retry) => self.join(means),
            Some(MessageKind::Poll)
                if means.attack == Attack::Needs && device.channel() != ChannelId::GROUP =>
            {
                self.send(means)
            }
            Some(MessageKind::Poll) => self.answer_slowly(means, number.channel()),
            _ => {}
        }
    }

    /// Starts another run.
    fn begin(&mut self, means: &mut Means) {
        let Some((session, announce)) = &self.session else { return };
        self.run += 1;
        self.joined = None;
        let mut random = [0; 32];
        means.rng.fill(&mut random);
        let group = means.grouped.then(group_key);
        self.device = FakeDevice::of(*session, announce, group.as_ref(), random);
    }

    fn join(&mut self, means: &mut Means) {
        let id = match means.attack {
            Attack::DuplicateId(victim) => device_id(victim),
            Attack::Crowd => DeviceId([(self.run % CROWD) as u8 + 1; 16]),
            Attack::Sybil if means.rng.bool() => device_id(self.run % 8),
            Attack::Sybil => DeviceId([means.rng.u8(..); 16]),
            Attack::SlowLiar(lie) => lie.identifier(self.node, self.run),
            _ => DeviceId([0xee - self.node as u8; 16]),
        };
        let label = match means.attack {
            Attack::Sybil => device_label(self.run % 8),
            _ => "\u{1b}[2J\u{202e}hostile ".repeat(3),
        };
        if let Some(device) = &mut self.device {
            let holdings = if means.rng.bool() { Holdings::Some } else { Holdings::Nothing };
            // A crowd is of all versions.
            let versions = match means.attack {
                Attack::Crowd if self.run.is_multiple_of(4) => Versions { min: 2, max: 9 },
                _ => Versions::OURS,
            };
            let supported = Capabilities(means.rng.u32(..));
            // A key that nobody has listed, or one that is listed, with a proof of another one.
            let proof = (means.attack == Attack::Sybil).then(|| match means.rng.u8(..3) {
                0 => None,
                1 => Some(device.proof(&device_key(1_000 + self.run), id)),
                _ => {
                    let key = DeviceKey::of(&device_key(self.run % 8));
                    Some(DeviceProof { key, ..device.proof(&device_key(1_000 + self.run), id) })
                }
            });
            let proof = proof.flatten();
            let bytes = device.join(Join { label, versions, supported, proof, ..any_join(id, holdings) });
            means.send(None, address(0), bytes);
        }
    }

    pub fn act(&mut self, means: &mut Means, now: Time) {
        let Some(device) = &self.device else { return };
        if means.attack == Attack::Sybil && device.admit.is_some() {
            // Whether it has a place or not: another one.
            if device.channel() != ChannelId::GROUP {
                self.send(means);
            }
            self.begin(means);
            self.join(means);
            return;
        }
        if device.channel() == ChannelId::GROUP {
            if self.joined.is_none_or(|at| now >= at + PATIENCE) {
                self.joined = Some(now);
                self.join(means);
            }
            return;
        }
        match means.attack {
            Attack::Silent => {}
            Attack::SlowLiar(lie) => self.act_slowly(means, lie, now),
            Attack::Reruns => {
                self.begin(means);
                self.join(means);
            }
            Attack::Crowd if self.run < CROWD => {
                self.begin(means);
                self.join(means);
            }
            _ => self.send(means),
        }
    }

    fn send(&mut self, means: &mut Means) {
        let Some(device) = &self.device else { return };
        let message = self.lie(means, device);
        self.say(means, &message);
    }

    fn say(&mut self, means: &mut Means, message: &Message<'_>) {
        let Some(device) = &mut self.device else { return };
        let bytes = device.seal_message(message, |_| ());
        means.send(None, address(0), bytes);
    }

    fn lie(&self, means: &mut Means, device: &FakeDevice) -> Message<'static> {
        let (root, blocks) = {
            let air = means.air.borrow();
            (air.root, air.layout.block_count())
        };
        let rng = &mut means.rng;
        match means.attack {
            Attack::Needs => {
                let channel = if rng.bool() { ChannelId::GROUP } else { device.channel() };
                let round = device.rounds.get(&channel).copied().unwrap_or(rng.u32(..));
                let own = PacketNumber::new(device.channel(), rng.u64(..100));
                let largest_received =
                    [self.newest, self.newest, own, PacketNumber(rng.u64(..))][rng.usize(..4)];
                let (first, count) =
                    if rng.bool() { (0, blocks.max(1)) } else { (rng.u32(..1 << 31), 1 << 30) };
                let whole = Deficit::Whole { first: BlockIndex(first), count };
                let block = BlockIndex(rng.u32(..blocks * 2 + 1));
                let missing = if rng.bool() { vec![(0, 1), (5, 60), (50_000, 6_000)] } else { Vec::new() };
                let part = Deficit::Symbols { block, symbols: rng.u16(1..), missing };
                Message::Nak(Nak {
                    round,
                    largest_received,
                    ack_delay_us: rng.u32(..),
                    incomplete: rng.u32(..),
                    pages: vec![PageRange { first: rng.u32(..1 << 20), count: rng.u32(1..1 << 20) }],
                    deficits: if rng.bool() { vec![whole] } else { vec![part.clone(), part] },
                })
            }
            Attack::WrongReceipt => Message::Complete(Complete::named(Digest([5; 32]), 0, 0)),
            Attack::FalseReceipt | Attack::Crowd | Attack::Sybil => {
                Message::Complete(Complete::named(root, u64::MAX, 0))
            }
            Attack::Leaver => {
                Message::Abort(Abort { code: AbortCode::Disk, reason: "\r\n\u{7}\u{9b}2J ".repeat(20) })
            }
            _ => {
                let first = PacketNumber(self.newest.0.saturating_sub(rng.u64(1..200)));
                let arrivals = Arrivals {
                    first,
                    last: PacketNumber(first.0 + rng.u64(1..200)),
                    received: rng.u32(2..),
                    elapsed_us: rng.u32(..) >> rng.u8(..32),
                    last_at_us: rng.u64(..),
                };
                Message::Progress(Progress {
                    verified: rng.u32(..) >> rng.u8(..32),
                    received: rng.u64(..),
                    lost: rng.u64(..),
                    kernel_drops: rng.u64(..),
                    overrun_drops: rng.u64(..) >> rng.u8(..64),
                    storage_delay_us: rng.u32(..),
                    room: BlockIndex(rng.u32(..)),
                    below: BlockIndex(rng.u32(..)),
                    ticket_kept: rng.bool(),
                    arrivals: rng.bool().then_some(arrivals),
                })
            }
        }
    }
}
