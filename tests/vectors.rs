//! `docs/vectors.json`: for each message its fields, keys and bytes, for other implementations. The tests check it in
//! both directions: fields to bytes to protected bytes, and back.
//!
//! `cargo test --test vectors -- --ignored` writes the file anew, which is right only together with a change of
//! `docs/protocol.md`.

#[path = "vectors/fields.rs"]
mod fields;
#[path = "support/samples.rs"]
mod samples;

use data_encoding::HEXLOWER;
use fields::{fields, message};
use mcp::crypto::derive::Secret;
use mcp::crypto::device::Claim;
use mcp::crypto::origin::Origin;
use mcp::crypto::primitives::REAL;
use mcp::crypto::sign::SigningKey;
use mcp::limits::{HEADER_LEN, SIGNATURE_RESERVE};
use mcp::protocol::packet_protection::{ReceiverSide, SenderSide, examine};
use mcp::units::{
    AgreementKey, BlockIndex, ChannelId, Coding, Cookie, Counter, DeviceId, DeviceKey, Digest, Esi, Rate,
    Suite, TaskId,
};
use mcp::wire::{
    Abort, AbortCode, Acknowledge, Admit, AdmitVerdict, Announce, BlockEntry, Capabilities, Deficit,
    DeviceProof, HashPage, Header, Invitation, Join, Message, MessageKind, Nak, Object, OriginProof,
    PacketNumber, PageRange, Phase, Poll, Protection, RepairAdvertisement, Retry, Suspect, Symbol, TaskKind,
    Versions, decode_plain, encode_plain, grease_choice, head,
};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SEED: [u8; 32] = [0x11; 32];
const SESSION_SECRET: [u8; 32] = [0x22; 32];
const DEVICE_SECRET: [u8; 32] = [0x33; 32];
const DEVICE_SEED: [u8; 32] = [0x35; 32];
const GROUP: [u8; 32] = [0x44; 32];
const COUNTER: Counter = Counter(1_763_740_800_000);
const CHANNEL: ChannelId = ChannelId(7);
const FROM: &str = "192.0.2.9:40000";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/vectors.json")
}

fn hex(bytes: &[u8]) -> Value {
    HEXLOWER.encode(bytes).into()
}

fn unhex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().expect("a text").as_bytes()).expect("hex")
}

/// Both sides of a session.
struct Sides {
    sender: SenderSide,
    device: ReceiverSide,
}

fn suite(name: &str) -> Suite {
    if name == "chacha20_poly1305" { Suite::ChaCha20Poly1305 } else { Suite::Aes256Gcm }
}

/// The session as it is announced. Its key is that of the signature, and of the origin.
fn announce(sender: &SenderSide) -> Announce {
    let root = Digest([0x66; 32]);
    let (name, manifest) = ("image.iso", vec![0xa0]);
    let origin =
        Origin { counter: COUNTER, block_log2: 20, size: 5_000_000, root, name, manifest: &manifest };
    let key = SigningKey::new(&Secret::new(SEED));
    Announce {
        versions: Versions { min: 1, max: 2 },
        required: Capabilities::default(),
        optional: Capabilities::CODED_BLOCKS,
        suite: sender.suite(),
        sender: sender.key(),
        agreement: sender.agreement(),
        counter: COUNTER,
        task: TaskId([0xa5; 16]),
        task_kind: TaskKind::COPY,
        phase: Phase::Streaming,
        symbol_size: 1408,
        data: "239.255.74.17:7417".parse().expect("an address"),
        position: BlockIndex(3),
        invitation: Invitation { probability: 65535, window: Duration::from_millis(250) },
        gsize: 30,
        rate: Rate(900_000_000),
        feedback_budget: 1000,
        objects: vec![Object { root: Some(root), ..Object::file(5_000_000, 20) }],
        name: name.into(),
        manifest: manifest.clone(),
        one_way: None,
        origin: Some(Box::new(OriginProof {
            key: key.public(),
            counter: COUNTER,
            signature: origin.sign(&key),
        })),
    }
}

fn sides(group: bool, suite: Suite) -> Sides {
    let group = group.then(|| Secret::new(GROUP));
    let key = SigningKey::new(&Secret::new(SEED));
    let mut sender = SenderSide::new(COUNTER, key, SESSION_SECRET, suite, group.as_ref());
    let announce = announce(&sender);
    sender.announce(&announce);
    let device = ReceiverSide::new(REAL, sender.session(), &announce, group.as_ref(), DEVICE_SECRET);
    let mut device = device.expect("a sound announce");
    device.admitted(CHANNEL);
    Sides { sender, device }
}

/// Who says it, to whom: `group`, `down` (to one device) or `up`.
fn protect(sides: &Sides, way: &str, header: Header, message: Message<'static>) -> Vec<u8> {
    match (way, message) {
        ("group", message) => sides.sender.to_all(header, &message),
        ("down", message) => {
            let keys = sides.sender.agree(&sides.device.agreement()).expect("keys");
            sides.sender.to_one(&keys, header, &message)
        }
        (_, Message::Join(join)) => {
            let cookie = sides.sender.cookie(FROM.parse().expect("an address"), &sides.device.agreement());
            sides.device.join(header, cookie, join)
        }
        (_, message) => sides.device.message(header.packet_number.counter(), &message),
    }
}

/// The body of a datagram that the other side opens.
fn open(sides: &mut Sides, way: &str, datagram: &[u8]) -> Vec<u8> {
    let (mut bytes, head) = (datagram.to_vec(), head(datagram).expect("a header"));
    if way != "up" {
        return sides.device.open(&head, &mut bytes, || true).expect("it opens").body.to_vec();
    }
    if head.kind == MessageKind::Join {
        let from: SocketAddr = FROM.parse().expect("an address");
        let clear = sides.sender.join_clear(from, datagram).expect("a proof");
        assert!(clear.reachable && clear.agreement == sides.device.agreement());
    }
    let keys = sides.sender.agree(&sides.device.agreement()).expect("keys");
    SenderSide::from_one(&keys, &head, &mut bytes).expect("it opens").to_vec()
}

/// What a device shows of its key in this session.
fn proof(sides: &Sides, device: &DeviceId) -> DeviceProof {
    let key = SigningKey::new(&Secret::new(DEVICE_SEED));
    let signature = claim(sides, device, |claim| claim.sign(&key));
    DeviceProof { key: DeviceKey::of(&key), signature }
}

fn claim<T>(sides: &Sides, device: &DeviceId, with: impl FnOnce(Claim<'_>) -> T) -> T {
    let (sender, agreement) = (sides.sender.key(), sides.device.agreement());
    with(Claim { session: sides.sender.session(), sender: &sender, agreement: &agreement, device })
}

/// All messages, with who says them.
fn messages(sides: &Sides) -> Vec<(&'static str, Message<'static>)> {
    let (root, device) = (Digest([0x66; 32]), DeviceId([0xd0; 16]));
    let entry = |coding, coded_k| BlockEntry { value: Digest([0x67; 32]), coding, coded_k };
    let invitation = Invitation { probability: 32768, window: Duration::from_millis(500) };
    let poll = Poll {
        round: 3,
        position: BlockIndex(5),
        invitation,
        gsize: 30,
        want_esis: true,
        advertised: vec![RepairAdvertisement { block: BlockIndex(1), symbols: 9 }],
    };
    let abort = |reason: &str| Abort { code: AbortCode::Disk, reason: reason.into() };
    vec![
        ("group", announce(&sides.sender).into()),
        ("up", Join { proof: Some(proof(sides, &device)), ..samples::join(device, root) }.into()),
        ("down", samples::admit().into()),
        ("down", Admit::turned_away(AdmitVerdict::NotListed).into()),
        ("group", Symbol { block: BlockIndex(2), esi: Esi(745), payload: b"some bytes of a symbol" }.into()),
        (
            "group",
            HashPage {
                first: BlockIndex(32),
                blocks: vec![entry(Coding::Raw, 745), entry(Coding::Zero, 0), entry(Coding::Zstd, 211)],
            }
            .into(),
        ),
        ("group", poll.clone().into()),
        ("down", poll.into()),
        (
            "up",
            Nak {
                round: 3,
                largest_received: PacketNumber::new(ChannelId::GROUP, 41),
                ack_delay_us: 300,
                incomplete: 4,
                pages: vec![PageRange { first: 0, count: 1 }],
                deficits: vec![
                    Deficit::Symbols { block: BlockIndex(0), symbols: 2, missing: vec![] },
                    Deficit::Symbols { block: BlockIndex(1), symbols: 4, missing: vec![(7, 3), (44, 1)] },
                    Deficit::Sources { block: BlockIndex(2), missing: vec![(0, 2)] },
                    Deficit::Whole { first: BlockIndex(3), count: 2 },
                ],
            }
            .into(),
        ),
        ("up", samples::progress().into()),
        ("up", samples::complete(root).into()),
        ("down", Acknowledge.into()),
        ("group", abort("done").into()),
        ("down", abort("another hash").into()),
        ("up", abort("no space left").into()),
        ("group", Retry { agreement: AgreementKey([0x53; 32]), cookie: Cookie([0x54; 16]) }.into()),
        ("up", Suspect { blocks: vec![BlockIndex(3), BlockIndex(9)] }.into()),
        ("group", samples::symbol_digests().into()),
    ]
}

/// The session is the same with and without a group key.
fn written() -> Value {
    let mut vectors = Vec::new();
    let plain = sides(false, Suite::Aes256Gcm);
    for (group, name) in [(false, "aes_256_gcm"), (true, "aes_256_gcm"), (true, "chacha20_poly1305")] {
        let sides = sides(group, suite(name));
        let mut counter = 0;
        for (way, message) in messages(&sides) {
            let channel = match (way, message.kind()) {
                (_, MessageKind::Admit | MessageKind::Retry) => ChannelId::REPLIES,
                ("group", _) | (_, MessageKind::Join) => ChannelId::GROUP,
                _ => CHANNEL,
            };
            // One that brings no grease: the bytes are the message's alone.
            let header = loop {
                counter += 1;
                let packet_number = PacketNumber::new(channel, counter);
                let header = Header { session: sides.sender.session(), packet_number };
                if grease_choice(header).is_none() {
                    break header;
                }
            };
            let plain = encode_plain(header, &message);
            let (kind, told) = (message.kind(), fields(&message));
            let protected = protect(&sides, way, header, message);
            vectors.push(json!({
                "message": kind.name(),
                "kind": kind as u8,
                "way": way,
                "group_key": group,
                "suite": name,
                "protection": head(&protected).expect("a header").protection.number(),
                "session": header.session.to_string(),
                "channel": channel.0,
                "counter": header.packet_number.counter(),
                "fields": told,
                "plain": hex(&plain),
                "protected": hex(&protected),
            }));
        }
    }
    json!({
        "about": "Vectors of the mcp protocol, version 1; docs/protocol.md explains them. Numbers are decimal, bytes \
                  hexadecimal. plain is the datagram before its protection, with protection byte 0.",
        "keys": {
            "sender_signing_seed": hex(&SEED),
            "sender_key": hex(&plain.sender.key().0),
            "session_secret": hex(&SESSION_SECRET),
            "session_agreement_key": hex(&plain.sender.agreement().0),
            "device_signing_seed": hex(&DEVICE_SEED),
            "device_agreement_secret": hex(&DEVICE_SECRET),
            "device_agreement_key": hex(&plain.device.agreement().0),
            "group_key": hex(&GROUP),
            "session_counter": COUNTER.0,
            "session": plain.sender.session().to_string(),
            "device_channel": CHANNEL.0,
            "device_address": FROM,
        },
        "vectors": vectors,
        "not_understood": not_understood(),
    })
}

/// Datagrams that a later program may send, and what this one makes of them.
fn not_understood() -> Value {
    let session = sides(false, Suite::Aes256Gcm).sender.session();
    let header = Header { session, packet_number: PacketNumber::new(ChannelId::GROUP, 1) };
    let plain = encode_plain(header, &Acknowledge.into());
    let patched = |at: usize, value: u8| {
        let mut bytes = plain.clone();
        bytes[at] = value;
        bytes
    };
    let critical = [&plain[..], &[0x80, 99, 0, 1, 7]].concat();
    let datagrams =
        [patched(2, 2), patched(3, 200), patched(3, 27), patched(4, 0x11), patched(4, 0x50), critical];
    let told = datagrams.map(|bytes| {
        let error = decode_plain(&bytes).expect_err("a later program's");
        assert!(error.is_not_understood(), "{error}");
        json!({ "plain": hex(&bytes), "error": error.to_string() })
    });
    told.to_vec().into()
}

#[test]
#[ignore = "writes docs/vectors.json; only with a change of the wire format"]
fn write_vectors() {
    let text = serde_json::to_string_pretty(&written()).expect("JSON");
    fs::write(path(), text + "\n").expect("docs can be written");
}

fn read() -> Value {
    serde_json::from_slice(&fs::read(path()).expect("docs/vectors.json")).expect("JSON")
}

#[test]
fn the_vectors_are_those_of_this_program() {
    assert!(read() == written(), "docs/vectors.json is not what this program would write");
}

/// From the file alone: its fields make its bytes, and its bytes its fields.
#[test]
fn each_vector_holds_both_ways() {
    let document = read();
    let vectors = document["vectors"].as_array().expect("vectors");
    let mut kinds = Vec::new();
    for vector in vectors {
        let name = vector["message"].as_str().expect("a name");
        let kind = *MessageKind::ALL.iter().find(|kind| kind.name() == name).expect("a kind");
        kinds.push(kind);
        assert_eq!(vector["kind"], kind as u8);
        let mut sides = sides(vector["group_key"] == true, suite(vector["suite"].as_str().expect("a suite")));
        assert_eq!(vector["session"], sides.sender.session().to_string());
        let number = |field: &str| vector[field].as_u64().expect("a number");
        let packet_number = PacketNumber::new(ChannelId(number("channel") as u16), number("counter"));
        let header = Header { session: sides.sender.session(), packet_number };
        let (plain, protected) = (unhex(&vector["plain"]), unhex(&vector["protected"]));
        // Fields to bytes.
        let made = message(kind, &vector["fields"]);
        assert_eq!(encode_plain(header, &made), plain, "{name}");
        let way = vector["way"].as_str().expect("a way");
        assert_eq!(protect(&sides, way, header, made), protected, "{name} {way}");
        // And back.
        let shown = head(&protected).expect("a header");
        assert_eq!((shown.header, shown.kind), (header, kind));
        assert_eq!(vector["protection"], shown.protection.number());
        let body = open(&mut sides, way, &protected);
        assert_eq!(body, plain[HEADER_LEN..], "{name} {way}");
        let (_, told) = decode_plain(&plain).expect("a message");
        assert_eq!(fields(&told), vector["fields"], "{name}");
        if shown.protection == Protection::Signed {
            assert_eq!(protected.len(), plain.len() + SIGNATURE_RESERVE);
        }
        if let Message::Join(join) = &told {
            let proof = join.proof.expect("a proof");
            assert!(claim(&sides, &join.device, |claim| claim.verify(REAL, &proof.key, &proof.signature)));
        }
        if let Message::Announce(announce) = told {
            let groups: Vec<Secret> =
                (vector["group_key"] == true).then(|| Secret::new(GROUP)).into_iter().collect();
            let found = examine(REAL, &groups, &shown, &mut protected.clone()).expect("a session");
            assert_eq!(found.announce, announce);
            let (object, proof) = (announce.objects[0], announce.origin.expect("a proof"));
            let origin = Origin {
                counter: proof.counter,
                block_log2: object.block_log2,
                size: object.size,
                root: object.root.expect("a root"),
                name: &announce.name,
                manifest: &announce.manifest,
            };
            assert!(origin.verify(REAL, &proof.key, &proof.signature));
        }
    }
    assert!(MessageKind::ALL.iter().all(|kind| kinds.contains(kind)));
    for vector in document["not_understood"].as_array().expect("vectors") {
        let error = decode_plain(&unhex(&vector["plain"])).map(|_| ()).expect_err("a later program's");
        assert!(error.is_not_understood());
        assert_eq!(vector["error"], error.to_string());
    }
}
