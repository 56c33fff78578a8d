//! The fuzz target `packet_protection`: a sender, a device, and an attacker on the path that holds back, damages,
//! splices, repeats and invents datagrams. Every datagram accepted as authentic is, byte for byte, one that the other
//! side made. It is accepted once, except for symbols ahead of the window. Unchanged datagrams are accepted.
//! Signatures and seals are real.

use crate::crypto::derive::Secret;
use crate::crypto::primitives::REAL;
use crate::crypto::sign::SigningKey;
use crate::crypto::window::WINDOW;
use crate::limits::{HEADER_LEN, JOIN_CLEAR};
use crate::protocol::packet_protection::{DeviceKeys, ReceiverSide, SenderSide, find, is_signed};
use crate::sim::fakes::announce_of;
use crate::units::{AgreementKey, ChannelId, Cookie, Counter, Suite};
use crate::wire::{self, Head, Header, MessageKind, PacketNumber, Protection, encode_plain};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const COUNTER: Counter = Counter(0x6d63_f0e4);
const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), 40_000);
/// The device's own channel, once it is admitted.
const CHANNEL: ChannelId = ChannelId(1);
const MAX_OPERATIONS: usize = 64;

/// A datagram as the sender or the device made it.
struct Made {
    bytes: Vec<u8>,
    body: Vec<u8>,
    /// Made with the keys that sender and device share, not for the group.
    alone: bool,
}

struct World {
    sender: SenderSide,
    group: Option<Secret>,
    device: ReceiverSide,
    keys: DeviceKeys,
    /// Keys of another device.
    other: DeviceKeys,
    /// Group keys that the device tries.
    known: Vec<Secret>,
    admitted: bool,
    /// Whether both sides have the same group key, or both have none.
    together: bool,
    /// Datagrams made by the sender; below, by the device.
    down: Vec<Made>,
    up: Vec<Made>,
    /// Packet numbers that the device accepted as authentic.
    taken: BTreeSet<PacketNumber>,
    /// Number of datagrams that the device accepted, and the sender.
    passed: [u32; 2],
}

/// The body of the fuzz target `packet_protection`.
///
/// # Panics
/// If a forged datagram is accepted, or a genuine one is not.
pub fn fuzz_packet_protection(bytes: &[u8]) {
    play(bytes);
}

/// Plays an input. Returns the number of datagrams that the device accepted, and the sender.
pub(super) fn play(mut input: &[u8]) -> [u32; 2] {
    let Some(mut world) = World::new(&mut input) else { return [0; 2] };
    for _ in 0..MAX_OPERATIONS {
        if world.operate(&mut input).is_none() {
            break;
        }
    }
    world.passed
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*head)
}

/// Reads a length byte and that many bytes, or fewer at the end of the input.
fn run<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let [len] = take(input)?;
    let (head, rest) = input.split_at(usize::from(len).min(input.len()));
    *input = rest;
    Some(head)
}

impl World {
    fn new(input: &mut &[u8]) -> Option<Self> {
        let [choice] = take(input)?;
        let (a, b) = (Secret::new([0xa; 32]), Secret::new([0xb; 32]));
        let group =
            [None, Some(a.clone()), Some(b.clone()), Some(a.clone())][usize::from(choice & 3)].clone();
        let known = match choice >> 2 & 3 {
            0 => vec![],
            1 => vec![a],
            2 => vec![b],
            _ => vec![b, a],
        };
        let suite = if choice & 16 == 0 { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 };
        let signing_key = SigningKey::new(&Secret::new([5; 32]));
        let mut sender = SenderSide::new(COUNTER, signing_key, [1; 32], suite, group.as_ref());
        sender.announce(&announce_of(&sender));
        let own = known.iter().find(|own| group.as_ref().is_some_and(|g| g.expose() == own.expose()));
        let together = own.is_some() || group.is_none() && known.is_empty();
        let own = own.or(known.first());
        let mut device = ReceiverSide::new(REAL, sender.session(), &announce_of(&sender), own, [2; 32])?;
        let admitted = choice & 32 != 0;
        if admitted {
            device.admitted(CHANNEL);
        }
        let keys = sender.agree(&device.agreement())?;
        let other = sender.agree(&AgreementKey([9; 32]))?;
        let (down, up) = (Vec::new(), Vec::new());
        let taken = BTreeSet::new();
        Some(Self {
            sender,
            group,
            device,
            keys,
            other,
            known,
            admitted,
            together,
            down,
            up,
            taken,
            passed: [0; 2],
        })
    }

    fn operate(&mut self, input: &mut &[u8]) -> Option<()> {
        match take::<1>(input)?[0] % 8 {
            op @ 0..4 => {
                let [kind, channel, high, low] = take(input)?;
                let kind = MessageKind::ALL[usize::from(kind) % MessageKind::ALL.len()];
                let channel =
                    [ChannelId::GROUP, CHANNEL, ChannelId::REPLIES, ChannelId(7)][usize::from(channel & 3)];
                // Counters may be far enough apart to leave the window.
                let counter = u64::from(u16::from_be_bytes([high, low]));
                let kind = if op == 2 { MessageKind::Join } else { kind };
                self.make(op, kind, PacketNumber::new(channel, counter), run(input)?);
            }
            4 => self.deliver(run(input)?),
            5 => {
                let [which, edits] = take(input)?;
                let mut bytes = self.made(which)?.clone();
                for _ in 0..=edits & 3 {
                    let [how, high, low, value] = take(input)?;
                    edit(&mut bytes, how, usize::from(u16::from_be_bytes([high, low])), value);
                }
                self.deliver(&bytes);
            }
            6 => {
                // Splices the beginning of one datagram and the end of another.
                let [one, other, at] = take(input)?;
                let (one, other) = (self.made(one)?, self.made(other)?);
                let (to, from) = (usize::from(at).min(one.len()), usize::from(at).min(other.len()));
                let bytes = [&one[..to], &other[from..]].concat();
                self.deliver(&bytes);
            }
            _ => {
                let [which] = take(input)?;
                let bytes = self.made(which)?.clone();
                self.deliver(&bytes);
            }
        }
        Some(())
    }

    /// One of the datagrams made so far: the device's for odd numbers, the sender's for even ones.
    fn made(&self, which: u8) -> Option<&Vec<u8>> {
        let list = if which & 1 == 0 { &self.down } else { &self.up };
        list.get(usize::from(which >> 1) % list.len().max(1)).map(|made| &made.bytes)
    }

    /// Makes a datagram of the sender or the device, with any body. Delivery is a separate operation.
    fn make(&mut self, how: u8, kind: MessageKind, packet_number: PacketNumber, body: &[u8]) {
        let header = Header { session: self.sender.session(), packet_number };
        let announce = announce_of(&self.sender).into();
        let mut plain = match kind {
            MessageKind::Announce if body.is_empty() => encode_plain(header, &announce),
            _ => [&encode_plain(header, &wire::Acknowledge.into())[..], body].concat(),
        };
        plain[3] = kind as u8;
        let body = plain[HEADER_LEN..].to_vec();
        match how {
            0 => {
                let bytes = self.sender.for_all(plain);
                self.down.push(Made { bytes, body, alone: false });
            }
            1 => {
                let bytes = self.sender.for_one(&self.keys, plain);
                self.down.push(Made { bytes, body, alone: true });
            }
            2 => {
                let known = packet_number.counter() & 1 == 1;
                let cookie = self.sender.cookie(FROM, &self.device.agreement());
                let cookie = if known { cookie } else { Cookie([9; 16]) };
                let bytes = self.device.join_of(header, cookie, &plain);
                self.up.push(Made { bytes, body, alone: true });
            }
            // A join has more fields in the clear than this builds.
            _ if kind == MessageKind::Join => {}
            _ => {
                let bytes = self.device.for_sender(plain);
                self.up.push(Made { bytes, body, alone: true });
            }
        }
    }

    fn deliver(&mut self, bytes: &[u8]) {
        let Ok(head) = wire::head(bytes) else { return };
        self.seek(&head, bytes);
        if head.header.session == self.sender.session() {
            self.reach_device(&head, bytes);
            self.reach_sender(&head, bytes);
        }
    }

    /// Delivers a datagram to a device without a session.
    fn seek(&self, head: &Head, bytes: &[u8]) {
        let found = find(REAL, &self.known, head, &mut bytes.to_vec());
        let genuine = self.down.iter().find(|made| made.bytes == bytes && !made.alone);
        let announce = announce_of(&self.sender);
        let sound = genuine.filter(|made| {
            head.kind == MessageKind::Announce
                && wire::decode_body(head.kind, &made.body) == Ok(announce.clone().into())
        });
        assert!(found.is_none() || genuine.is_some(), "a forged session is found: {found:?}");
        assert_eq!(found.is_some_and(|found| found.announce == announce), sound.is_some() && self.together);
    }

    fn reach_device(&mut self, head: &Head, bytes: &[u8]) {
        let (kind, number) = (head.kind, head.header.packet_number);
        let known = matches!(number.channel(), ChannelId::GROUP | ChannelId::REPLIES)
            || self.admitted && number.channel() == CHANNEL;
        let channel = self.taken.range(PacketNumber::new(number.channel(), 0)..);
        let newest = channel.take_while(|n| n.channel() == number.channel()).last();
        let in_window = newest.is_none_or(|newest| number.counter() + WINDOW > newest.counter());
        let is_new = known && in_window && !self.taken.contains(&number);
        let sealed = self.device.is_sealed();
        let mut copy = bytes.to_vec();
        let opened = self.device.open(head, &mut copy, || true);
        let genuine = self.down.iter().find(|made| made.bytes == bytes).filter(|_| self.together);
        let authentic = opened.is_some_and(|opened| opened.authentic);
        if let Some(opened) = opened.filter(|opened| !opened.authentic) {
            // A RETRY proves nothing about its origin: any member can seal it for the group.
            let anybodys = match kind {
                MessageKind::Retry => head.protection.is_group() == sealed,
                MessageKind::Symbol => head.protection == Protection::Clear && !sealed,
                _ => false,
            };
            assert!(anybodys && !opened.newest, "{head:?}");
            assert!(sealed || opened.body == &bytes[HEADER_LEN..]);
        }
        let Some(made) = genuine else {
            assert!(!authentic, "a forged datagram counts as authentic: {head:?}");
            return;
        };
        let may_be = if made.alone {
            matches!(
                kind,
                MessageKind::Admit | MessageKind::Poll | MessageKind::Acknowledge | MessageKind::Abort
            )
        } else {
            is_signed(kind) || self.group.is_some() && kind == MessageKind::Symbol
        };
        assert_eq!(authentic, may_be && is_new, "{head:?}");
        if let Some(opened) = opened.filter(|opened| opened.authentic) {
            assert_eq!(opened.body, made.body);
            let ahead = newest.is_none_or(|newest| number > *newest);
            // A sealed symbol does not move the window: a member could forge one far ahead.
            let moves = kind != MessageKind::Symbol;
            assert_eq!(opened.newest, moves && ahead);
            if moves || !ahead {
                self.taken.insert(number);
            }
            self.passed[0] += 1;
        }
    }

    fn reach_sender(&mut self, head: &Head, bytes: &[u8]) {
        let genuine = self.up.iter().find(|made| made.bytes == bytes).filter(|_| self.together);
        if head.kind == MessageKind::Join {
            let clear = self.sender.join_clear(FROM, bytes);
            let shown = bytes.get(..HEADER_LEN + JOIN_CLEAR);
            let proven = shown.is_some_and(|shown| {
                self.together
                    && self.up.iter().any(|made| is_join(&made.bytes) && made.bytes.starts_with(shown))
            });
            assert_eq!(clear.is_some(), proven, "{clear:?}");
            let Some(clear) = clear else { return };
            assert_eq!(clear.agreement, self.device.agreement());
            assert_eq!(clear.reachable, head.header.packet_number.counter() & 1 == 1);
        }
        let mut copy = bytes.to_vec();
        let body = SenderSide::from_one(&self.keys, head, &mut copy);
        assert_eq!(body, genuine.map(|made| &made.body[..]), "{head:?}");
        self.passed[1] += u32::from(body.is_some());
        // The sender does not accept it as another device's.
        assert_eq!(SenderSide::from_one(&self.other, head, &mut bytes.to_vec()), None);
    }
}

fn is_join(bytes: &[u8]) -> bool {
    wire::peek(bytes).is_some_and(|(_, kind)| kind == MessageKind::Join)
}

/// Flips bits, cuts, lengthens, leaves out.
fn edit(bytes: &mut Vec<u8>, how: u8, at: usize, value: u8) {
    if bytes.is_empty() {
        return;
    }
    let at = at % bytes.len();
    match how & 3 {
        0 => bytes[at] ^= value,
        1 => bytes.truncate(at),
        2 => bytes.insert(at, value),
        _ => drop(bytes.remove(at)),
    }
}
