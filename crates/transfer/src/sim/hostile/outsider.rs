//! Hostile actors without keys: they hear everything, send from any address, and sign with another key.

use super::actors::Means;
use super::{Attack, Heard, group_key, nobody, other_key};
use crate::crypto::derive::Secret;
use crate::limits::{HEADER_LEN, MAX_DATAGRAM, SIGNATURE_RESERVE, TAG_RESERVE};
use crate::sim::actors::{DATA, NAME, RENDEZVOUS, random_bytes};
use crate::sim::fakes::{FakeDevice, FakeSender, any_admit, any_report, moved_to_group};
use crate::sim::network::address;
use crate::sim::sham;
use crate::units::{AgreementKey, BlockIndex, ChannelId, Cookie, Digest, Esi, SessionId};
use crate::wire::{
    Abort, AbortCode, Acknowledge, Admit, AdmitVerdict, Announce, Complete, HashPage, Header, Invitation,
    Message, MessageKind, Nak, Object, PacketNumber, Poll, Progress, Protection, Retry, Symbol, encode_plain,
    peek,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// The outsider's own state.
pub(super) struct Outsider {
    seed: u64,
    /// Its group key, which belongs to another group, if there are groups.
    group: Option<Secret>,
    /// Itself in the sender's place, in sessions that it has heard; and in its own.
    senders: BTreeMap<Option<SessionId>, FakeSender>,
    made: u64,
    /// Announces that it has relayed.
    passed: [Option<Rc<[u8]>>; 2],
    /// Sessions of the sender that are over, as they would be played back.
    past: Vec<FakeSender>,
}

/// How many of them were recorded.
const PAST: u64 = 12;

const SENDER: u32 = 0;

impl Outsider {
    pub fn new(seed: u64, grouped: bool) -> Self {
        Self {
            seed,
            group: grouped.then(other_key),
            senders: BTreeMap::new(),
            made: 0,
            passed: [None, None],
            past: Vec::new(),
        }
    }

    pub fn act(&mut self, means: &mut Means) {
        if means.attack == Attack::Past {
            return self.past(means);
        }
        let Some(session) = means.air.borrow().session else { return };
        match means.attack {
            Attack::Junk => junk(means),
            Attack::Headed => headed(means, session),
            Attack::Replay => replay(means),
            Attack::Altered => altered(means),
            Attack::Relay => self.relay(means),
            Attack::Announces => self.announce(means, session),
            Attack::Impostor => self.impostor(means, session),
            Attack::Mimic => self.mimic(means, session),
            Attack::Downgrade => downgrade(means),
            Attack::Regroup => self.regroup(means),
            Attack::Symbols => self.symbol(means, session),
            _ => {}
        }
    }

    /// As a sender of this session, or of its own.
    fn sender(&mut self, session: Option<SessionId>) -> &mut FakeSender {
        let (seed, group) = (self.seed, self.group.as_ref());
        self.senders.entry(session).or_insert_with(|| {
            let signing_key = sham::signing_key(seed | 1 << 63);
            let mut sender = FakeSender::of(seed, signing_key, random_bytes(seed), group);
            if let Some(session) = session {
                sender = sender.posing(session, group);
            }
            // Ahead of whatever the true one has said.
            sender.leap(ChannelId::GROUP, 1 << 20);
            sender
        })
    }

    fn relay(&mut self, means: &mut Means) {
        let both = {
            let air = means.air.borrow();
            [air.announce_before.clone(), air.announce.clone()]
        };
        for bytes in both.iter().flatten() {
            if self.passed.iter().flatten().all(|old| !Rc::ptr_eq(old, bytes)) {
                let spoofed = self.seed.is_multiple_of(2).then(|| nobody(self.seed as u16));
                means.send(spoofed, DATA, bytes.to_vec());
            }
        }
        self.passed = both;
    }

    /// Members can seal and open, but cannot sign. A message that the sender has signed for another group, or for
    /// none, must not become one of this group, and a sealed announcement must not become a plain one.
    fn regroup(&mut self, means: &mut Means) {
        let (group, bytes) = if means.grouped && means.rng.bool() {
            // It has heard a session of the sender that was not sealed, or sealed for another group.
            let of = means.rng.bool().then(other_key);
            let random = random_bytes(self.seed);
            let key = sham::signing_key(1);
            let mut sender = FakeSender::of(self.seed, key, random, of.as_ref());
            sender.leap(ChannelId::GROUP, means.rng.u64(..1 << 20));
            let announce = Announce { name: "another.img".into(), ..sender.any_announce() };
            let bytes = sender.to_all(ChannelId::GROUP, &announce.into(), |_| ());
            (of, Some(bytes))
        } else {
            let newest = means.air.borrow().announce.as_deref().map(<[u8]>::to_vec);
            (means.grouped.then(group_key), newest)
        };
        // Where there is no group key, devices hear what is plain; else what is sealed for theirs.
        let target = match (means.grouped, group.is_some()) {
            (true, true) if means.rng.bool() => None,
            (true, _) => Some(group_key()),
            (false, _) => Some(other_key()),
        };
        if let Some(forged) = bytes.and_then(|bytes| moved_to_group(&bytes, group.as_ref(), target.as_ref()))
        {
            let to = if means.rng.bool() { DATA } else { RENDEZVOUS };
            means.send(Some(address(SENDER)), to, forged);
        }
    }

    /// A symbol of some block. Whoever has the group's key can seal it as the sender does.
    fn symbol(&mut self, means: &mut Means, session: SessionId) {
        let layout = means.air.borrow().layout;
        if layout.block_count() == 0 {
            return;
        }
        let block = BlockIndex(means.rng.u32(..layout.block_count()));
        let k = layout.source_symbols(block);
        let id = Esi(means.rng.u32(..k + 8));
        let full = usize::from(layout.symbol_size());
        let len = if id.0 < k { layout.symbol_range(block, id).len() } else { full };
        let payload = vec![means.rng.u8(..); len];
        let symbol = Message::Symbol(Symbol { block, esi: id, payload: &payload });
        let newest = means.air.borrow().newest;
        let (random, group) = (random_bytes(self.seed), means.grouped.then(group_key));
        let mut sender =
            FakeSender::of(0, sham::signing_key(1), random, group.as_ref()).posing(session, group.as_ref());
        sender.leap(ChannelId::GROUP, newest + means.rng.u64(..4_000));
        let bytes = sender.to_all(ChannelId::GROUP, &symbol, |_| ());
        let to = if means.rng.bool() { DATA } else { means.any_device() };
        means.send(Some(address(SENDER)), to, bytes);
    }

    fn announce(&mut self, means: &mut Means, session: SessionId) {
        // The session's own identifier, or another one.
        let id = means.rng.bool().then_some(session);
        let honest = (means.air.borrow().announce.as_deref()).and_then(FakeSender::found);
        // What its own session is does not change.
        let size = if id.is_some() { means.rng.u64(..100_000) } else { self.seed % 100_000 };
        let sender = self.sender(id);
        let plain = sender.any_announce();
        let announce = Announce {
            objects: vec![Object { root: Some(Digest([7; 32])), ..Object::file(size, 20) }],
            position: BlockIndex(u32::MAX - 1),
            gsize: u32::MAX,
            name: "../object.img".into(),
            origin: None,
            ..honest.map_or(plain, |found| found.announce)
        };
        let announce = sender.announce(announce);
        let bytes = sender.to_all(ChannelId::GROUP, &Message::Announce(announce), |_| ());
        let spoofed = means.rng.bool().then(|| address(SENDER));
        let to = if means.rng.bool() { DATA } else { RENDEZVOUS };
        means.send(spoofed, to, bytes);
    }

    /// A device that takes its own session for one to be trusted is admitted.
    pub fn hear(&mut self, means: &mut Means, from: SocketAddr, bytes: &[u8]) {
        if let (Attack::Announces, Some(sender)) = (means.attack, self.senders.get_mut(&None))
            && sender.hear(from, bytes).is_some()
            && let Some(admit) = sender.to_one(ChannelId(1), &Message::Admit(any_admit(ChannelId(1))), |_| ())
        {
            means.send(None, from, admit);
        }
    }

    /// A datagram of a session that is over. It was the sender's, with its keys and under its name, of another
    /// version of the object.
    fn past(&mut self, means: &mut Means) {
        let layout = means.air.borrow().layout;
        if self.past.is_empty() {
            let group = means.grouped.then(group_key);
            self.past.extend((0..PAST).map(|n| {
                let random = random_bytes(self.seed ^ n);
                FakeSender::of(n, sham::signing_key(1), random, group.as_ref())
            }));
        }
        let (which, what) = (means.rng.usize(..PAST as usize), means.rng.u8(..10));
        let probability = if means.rng.bool() { u16::MAX } else { 0 };
        let invitation = Invitation { probability, window: Duration::ZERO };
        let block = BlockIndex(means.rng.u32(..layout.block_count().max(1)));
        let symbol = vec![7; layout.symbol_range(block, Esi(0)).len()];
        let sender = &mut self.past[which];
        let count = layout.block_count().min(32) as usize;
        let message = match what {
            0..5 => Message::Announce(sender.announce(Announce {
                objects: vec![Object {
                    root: Some(Digest([5; 32])),
                    ..Object::file(layout.object_size(), layout.block_log2())
                }],
                symbol_size: layout.symbol_size(),
                data: DATA,
                invitation,
                name: NAME.into(),
                ..sender.any_announce()
            })),
            5 | 6 if count > 0 => Symbol { block, esi: Esi(0), payload: &symbol }.into(),
            7 if count > 0 => {
                let values = (0..layout.block_count()).map(BlockIndex);
                let values = values.map(|block| (Digest([6; 32]), layout.source_symbols(block)));
                HashPage::raw(BlockIndex(0), values.take(32)).into()
            }
            8 => Message::Poll(Poll {
                round: 1,
                position: block,
                invitation,
                gsize: 1,
                want_esis: true,
                advertised: Vec::new(),
            }),
            _ => Message::Abort(Abort { code: AbortCode::Finished, reason: "all devices are served".into() }),
        };
        let bytes = sender.to_all(ChannelId::GROUP, &message, |_| ());
        let from = if means.rng.u8(..4) == 0 { nobody(self.seed as u16) } else { address(SENDER) };
        let to = if means.rng.bool() { DATA } else { RENDEZVOUS };
        means.send(Some(from), to, bytes);
    }

    fn impostor(&mut self, means: &mut Means, session: SessionId) {
        let which = means.rng.u8(..6);
        let to = if means.rng.bool() { DATA } else { means.any_device() };
        let channel = if to == DATA { ChannelId::GROUP } else { ChannelId(1 + means.rng.u16(..40)) };
        let key = (means.air.borrow().heard.iter().rev())
            .find_map(|heard| join_key(heard))
            .unwrap_or(AgreementKey([3; 32]));
        let everybody = Invitation { probability: u16::MAX, window: Duration::ZERO };
        let sender = self.sender(Some(session));
        let bytes = match which {
            0 => {
                let poll = Poll {
                    round: u32::MAX,
                    position: BlockIndex(u32::MAX - 1),
                    invitation: everybody,
                    gsize: 0,
                    want_esis: true,
                    advertised: Vec::new(),
                };
                sender.to_all(channel, &Message::Poll(poll), |_| ())
            }
            1 => {
                let abort = Abort { code: AbortCode::Finished, reason: "go home".into() };
                sender.to_all(channel, &Message::Abort(abort), |_| ())
            }
            2 => {
                let page = HashPage::raw(BlockIndex(0), [(Digest([1; 32]), 1); 32]);
                sender.to_all(channel, &Message::HashPage(page), |_| ())
            }
            3 => {
                let retry = Retry { agreement: key, cookie: Cookie([9; 16]) };
                sender.to_all(ChannelId::REPLIES, &Message::Retry(retry), |_| ())
            }
            4 => {
                let admit = Admit::turned_away(AdmitVerdict::AlreadyComplete);
                sender.to_all(ChannelId::REPLIES, &Message::Admit(admit), |_| ())
            }
            _ => sender.to_all(channel, &Message::Acknowledge(Acknowledge), |_| ()),
        };
        means.send(Some(address(SENDER)), to, bytes);
    }

    /// A fresh device, made from an announcement that it can read.
    fn device(&mut self, means: &Means, session: SessionId) -> Option<FakeDevice> {
        let honest = (means.air.borrow().announce.as_deref()).and_then(FakeSender::found);
        let announce =
            honest.map_or_else(|| self.sender(Some(session)).any_announce(), |found| found.announce);
        self.made += 1;
        let mut random = [0; 32];
        random[..8].copy_from_slice(&self.seed.to_be_bytes());
        random[8..16].copy_from_slice(&self.made.to_be_bytes());
        FakeDevice::of(session, &announce, self.group.as_ref(), random)
    }

    fn mimic(&mut self, means: &mut Means, session: SessionId) {
        let Some(mut device) = self.device(means, session) else { return };
        let honest = means.air.borrow().honest as u16;
        device.take_channel(ChannelId(means.rng.u16(1..=honest + 1)));
        let root = means.air.borrow().root;
        let message = match means.rng.u8(..4) {
            0 => Message::Nak(Nak {
                round: 1,
                largest_received: PacketNumber::new(ChannelId::GROUP, 0),
                ack_delay_us: 0,
                incomplete: u32::MAX,
                pages: Vec::new(),
                deficits: Vec::new(),
            }),
            1 => Message::Complete(Complete::named(root, 0, 0)),
            2 => Message::Abort(Abort { code: AbortCode::Disk, reason: "full".into() }),
            _ => Message::Progress(Progress { lost: u64::MAX, ..any_report(0) }),
        };
        let bytes = device.seal_message(&message, |_| ());
        let from = means.any_device();
        means.send(Some(from), address(SENDER), bytes);
    }
}

/// The sender's announce, saying something else: at versions, capabilities and algorithms, or with extensions behind
/// it. The signature is what it was.
fn downgrade(means: &mut Means) {
    let Some(newest) = means.air.borrow().announce.as_deref().map(<[u8]>::to_vec) else { return };
    let mut bytes = newest;
    let signature =
        bytes.len().saturating_sub(SIGNATURE_RESERVE + if means.grouped { TAG_RESERVE } else { 0 });
    match means.rng.u8(..6) {
        // Lowest and highest version.
        0 => bytes[HEADER_LEN..HEADER_LEN + 2].copy_from_slice(&[2, 9]),
        // Required capabilities.
        1 => bytes[HEADER_LEN + 2] ^= 1 << means.rng.u8(..8),
        // Optional ones.
        2 => bytes[HEADER_LEN + 9] ^= 1,
        // Algorithms and suite.
        3 => bytes[HEADER_LEN + 10 + means.rng.usize(..5)] ^= 1 << means.rng.u8(..3),
        // A critical extension that nobody knows, or a one-way session.
        4 => {
            let critical = if means.rng.bool() { [0x80, 0x63, 0, 0] } else { [0x80, 1, 0, 0] };
            bytes.splice(signature..signature, critical);
        }
        // Its last extension is gone.
        _ => drop(bytes.drain(signature.saturating_sub(100)..signature)),
    }
    let to = if means.rng.bool() { DATA } else { RENDEZVOUS };
    let from = means.rng.bool().then(|| address(SENDER));
    means.send(from, to, bytes);
}

/// The device's half of the agreement, from a join that was overheard.
fn join_key(heard: &Heard) -> Option<AgreementKey> {
    let (_, kind) = peek(&heard.bytes)?;
    let key = heard.bytes.get(HEADER_LEN..HEADER_LEN + 32).filter(|_| kind == MessageKind::Join)?;
    Some(AgreementKey(key.try_into().ok()?))
}

/// A victim: mostly the sender, which has to accept all datagrams.
fn somebody(means: &mut Means) -> SocketAddr {
    match means.rng.u8(..4) {
        0 => DATA,
        1 => means.any_device(),
        _ => address(SENDER),
    }
}

fn spoofed(means: &mut Means) -> Option<SocketAddr> {
    match means.rng.u8(..4) {
        0 => None,
        1 => Some(address(SENDER)),
        2 => Some(nobody(means.rng.u16(..))),
        _ => Some(means.any_device()),
    }
}

fn junk(means: &mut Means) {
    let len = if means.rng.bool() { means.rng.usize(1..120) } else { means.rng.usize(1..=MAX_DATAGRAM / 4) };
    let mut bytes = vec![0; len];
    means.rng.fill(&mut bytes);
    let (from, to) = (spoofed(means), somebody(means));
    means.send(from, to, bytes);
}

fn headed(means: &mut Means, session: SessionId) {
    let honest = means.air.borrow().honest as u16;
    let channel = match means.rng.u8(..4) {
        0 => 0,
        1 => u16::MAX,
        _ => means.rng.u16(..honest + 2),
    };
    let packet_number = PacketNumber::new(ChannelId(channel), means.rng.u64(..1 << 40));
    let mut bytes = encode_plain(Header { session, packet_number }, &Acknowledge.into());
    // All kinds but symbols: without a group key, a device accepts symbols from anybody.
    let kinds: Vec<MessageKind> =
        MessageKind::ALL.into_iter().filter(|kind| *kind != MessageKind::Symbol).collect();
    bytes[3] = kinds[means.rng.usize(..kinds.len())] as u8;
    // Mostly one that there is.
    bytes[4] = match means.rng.u8(..8) {
        0 => means.rng.u8(..),
        _ => Protection::ALL[means.rng.usize(..Protection::ALL.len())].number(),
    };
    let body = means.rng.usize(..200);
    bytes.extend((0..body).map(|_| means.rng.u8(..)));
    let to = if means.rng.u8(..8) == 0 { somebody(means) } else { address(SENDER) };
    let from = spoofed(means);
    means.send(from, to, bytes);
}

fn heard(means: &mut Means) -> Option<Rc<Heard>> {
    let air = means.air.borrow();
    let last = air.heard.len().checked_sub(1)?;
    // A recent datagram, or any.
    let back = if means.rng.bool() { means.rng.usize(..=last.min(3)) } else { means.rng.usize(..=last) };
    air.heard.get(last - back).cloned()
}

fn replay(means: &mut Means) {
    let Some(heard) = heard(means) else { return };
    let from = match means.rng.u8(..4) {
        0 => None,
        1 => Some(nobody(means.rng.u16(..))),
        _ => Some(heard.from),
    };
    let to = if means.rng.u8(..4) == 0 { somebody(means) } else { heard.to };
    means.send(from, to, heard.bytes.to_vec());
}

fn altered(means: &mut Means) {
    let Some(heard) = heard(means) else { return };
    let grouped = means.grouped;
    if !grouped && peek(&heard.bytes).is_some_and(|(_, kind)| kind == MessageKind::Symbol) {
        // Forged symbols are handled elsewhere.
        return;
    }
    let mut bytes = heard.bytes.to_vec();
    for _ in 0..means.rng.usize(1..=3) {
        let at = means.rng.usize(..bytes.len());
        bytes[at] ^= 1 << means.rng.u8(..8);
    }
    if !grouped && peek(&bytes).is_some_and(|(_, kind)| kind == MessageKind::Symbol) {
        return;
    }
    means.send(Some(heard.from), heard.to, bytes);
}
