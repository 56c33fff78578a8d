//! Replays the committed corpora of the fuzz targets, so that a bug found by fuzzing stays found without a fuzzer.
//! (The unit tests of `crates/transfer/src/fuzzing` replay those of the bodies there.)
//!
//! Files named after a message kind are golden datagrams of the wire format. `cargo test --test corpus -- --ignored`
//! writes them anew, which is right only together with a change of `docs/protocol.md`.

#[path = "../fuzz/src/lib.rs"]
mod bodies;
#[path = "support/samples.rs"]
mod samples;

use bodies::{fuzz_arguments, fuzz_keys, fuzz_manifest, fuzz_names, fuzz_state, fuzz_tree};
use mcp::crypto::derive::Secret;
use mcp::crypto::group::GroupKey;
use mcp::units::{
    AgreementKey, BlockIndex, ChannelId, Coding, Cookie, Counter, DeviceId, Digest, Esi, Rate, SenderKey,
    SessionId, Suite, TaskId,
};
use mcp::wire::{
    Abort, AbortCode, Acknowledge, Announce, BlockEntry, Capabilities, Deficit, HashPage, Header, Invitation,
    Message, MessageKind, Nak, Object, ObjectKind, OneWay, OriginProof, PacketNumber, PageRange, Phase, Poll,
    RepairAdvertisement, Retry, Suspect, Symbol, TaskKind, Versions, decode_plain, encode_plain,
};
use mcp_transfer::fuzzing::corpus::{folder, replay, write};
use std::fs;
use std::time::Duration;

const HEADER: Header =
    Header { session: SessionId(0x6d63_0001), packet_number: PacketNumber::new(ChannelId::GROUP, 42) };

fn invitation() -> Invitation {
    Invitation { probability: 65535, window: Duration::from_millis(250) }
}

/// One message of each kind.
fn goldens() -> Vec<Message<'static>> {
    let device = DeviceId(std::array::from_fn(|i| 0xd0 + i as u8));
    let root = Digest(std::array::from_fn(|i| i as u8));
    vec![
        Announce {
            versions: Versions { min: 1, max: 2 },
            required: Capabilities::default(),
            optional: Capabilities::CODED_BLOCKS,
            sender: SenderKey([0x51; 32]),
            agreement: AgreementKey([0x52; 32]),
            counter: Counter(1_763_740_800_000),
            suite: Suite::ChaCha20Poly1305,
            task: TaskId([0xa5; 16]),
            task_kind: TaskKind::UPDATE,
            phase: Phase::Repairing,
            symbol_size: 1408,
            data: "[ff15::4d43:7417]:7417".parse().unwrap(),
            position: BlockIndex(5),
            invitation: invitation(),
            gsize: 30,
            rate: Rate(900_000_000),
            feedback_budget: 1000,
            objects: vec![
                Object { kind: ObjectKind::Manifest, root: Some(root), ..Object::file(900, 10) },
                Object { kind: ObjectKind::Stream, sealed: false, ..Object::file(5 << 20, 20) },
            ],
            name: "image.iso".into(),
            manifest: Vec::new(),
            one_way: Some(OneWay { pass: 1, overhead_per_mille: 250 }),
            origin: Some(Box::new(OriginProof {
                key: SenderKey([0x56; 32]),
                counter: Counter(0x58),
                signature: [0x57; 64],
            })),
        }
        .into(),
        samples::join(device, root).into(),
        samples::admit().into(),
        Symbol { block: BlockIndex(2), esi: Esi(745), payload: b"some bytes of a symbol" }.into(),
        HashPage {
            first: BlockIndex(32),
            blocks: vec![
                BlockEntry { value: root, coding: Coding::Raw, coded_k: 745 },
                BlockEntry { value: root, coding: Coding::Zero, coded_k: 0 },
                BlockEntry { value: root, coding: Coding::Zstd, coded_k: 211 },
            ],
        }
        .into(),
        Poll {
            round: 3,
            position: BlockIndex(5),
            invitation: invitation(),
            gsize: 30,
            want_esis: true,
            advertised: vec![RepairAdvertisement { block: BlockIndex(1), symbols: 9 }],
        }
        .into(),
        Nak {
            round: 3,
            largest_received: PacketNumber::new(ChannelId::GROUP, 41),
            ack_delay_us: 300,
            incomplete: 4,
            pages: vec![PageRange { first: 0, count: 1 }],
            deficits: vec![
                Deficit::Symbols { block: BlockIndex(0), symbols: 2, missing: vec![] },
                Deficit::Symbols { block: BlockIndex(1), symbols: 4, missing: vec![(7, 3), (44, 1)] },
                Deficit::Whole { first: BlockIndex(3), count: 2 },
            ],
        }
        .into(),
        samples::progress().into(),
        samples::complete(root).into(),
        Acknowledge.into(),
        Abort { code: AbortCode::Disk, reason: "no space left".into() }.into(),
        Retry { agreement: AgreementKey([0x53; 32]), cookie: Cookie([0x54; 16]) }.into(),
        Suspect { blocks: vec![BlockIndex(3), BlockIndex(9)] }.into(),
        samples::symbol_digests().into(),
    ]
}

#[test]
fn all_other_corpora_replay() {
    replay("names", fuzz_names);
    replay("state", fuzz_state);
    replay("keys", fuzz_keys);
    replay("manifest", fuzz_manifest);
    replay("arguments", fuzz_arguments);
    replay("tree", fuzz_tree);
}

/// The first files of the corpora: what is sound, and what is nearly so.
fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let line = GroupKey::new("lab", Secret::new([7; 32])).unwrap().line().to_string();
    let sender = SenderKey([7; 32]).line();
    // Whether files may be replaced; a name; what is there already.
    let names: [(u8, &[u8]); 16] = [
        (0, b"image.iso"),
        (0, b"image.iso\0other"),
        (0, b"image.iso\0image.iso"),
        (1, b"image.iso\0image.iso"),
        (2, b"image.iso\0.image.iso.0123456789abcdef.mcp-part"),
        (0, b"..\0.."),
        (0, b"a/../../outside"),
        (0, b"..\\outside"),
        (0, b"nul.txt"),
        (0, b"x::$DATA"),
        (0, b"a.mcp-part"),
        (0, "\u{202e}gpj.exe".as_bytes()),
        (0, "\u{1f469}\u{200d}\u{1f4bb}".as_bytes()),
        (0, &[b'x'; 255]),
        (0, &[b'x'; 256]),
        (0, b"\xff\xfe \x1b[2J"),
    ];
    let names = names.iter().map(|(choice, name)| [&[*choice], *name].concat());
    // Which file, and what the rest is: the file as it is, edits of a sound one, or what gets a check.
    let (damaged, checked) = (0x80, 0x40);
    let list = format!("mcp-known-senders 1\n10.0.0.5 {sender} 2026-11-20T09:30:00Z\n::1 {sender} \n");
    let list = list.as_bytes();
    let state: [(u8, &[u8]); 19] = [
        (0, b""),
        (0, b"# nothing\n"),
        (damaged, b""),
        (damaged, &[0, 0, 100, 1]),
        (1, line.as_bytes()),
        (1, b"mcp-key2-lab-aaaa"),
        (1 | damaged, b""),
        (1 | damaged, &[1, 0, 100, 0]),
        (2, list),
        (2 | checked, list),
        (2 | damaged, b""),
        (2 | damaged, &[0, 0, 30, 2]),
        (3, b"mcp-device-id 1\nabababababababababababababababab\n"),
        (3 | damaged, &[2, 0, 4, 9]),
        (4 | 2 << 3, b"mcp-hashes 1\n"),
        (4 | damaged | 2 << 3, b""),
        (4 | damaged | 2 << 3, &[0, 0, 40, 1]),
        (4 | damaged | 2 << 3, &[0, 0, 150, 1]),
        (4 | damaged | checked | 2 << 3, &[0, 0, 130, 1, 3, 0, 131, 0]),
    ];
    // Modulo five, the upper bits choose the file too.
    let state = state.iter().map(|(choice, rest)| {
        let (which, upper) = (choice & 7, choice & !7);
        let lower = (0..8).find(|lower| (upper | lower) % 5 == which).unwrap();
        [&[upper | lower], *rest].concat()
    });
    let (secret, name) = ([7; 32], &[3, b'l', b'a', b'b'][..]);
    let keys = [
        [&[0], line.as_bytes()].concat(),
        [&[0], sender.as_bytes()].concat(),
        [b"\0# the lab's\r\n\r\n  \n", line.as_bytes(), b"\r\n", line.as_bytes()].concat(),
        b"\0mcp-key1-lab-".to_vec(),
        b"\0mcp-sender2-x".to_vec(),
        [&[1], &secret[..], name].concat(),
        [&[1], &secret[..], name, &[0, 0, 20, 1]].concat(),
        [&[1], &secret[..], &[4, b'n', b'o', b'n', b'e']].concat(),
        [&[1], &secret[..], name, &[2, 0, 12, b'-', 2, 0, 0, b' ']].concat(),
        [&[2], &secret[..]].concat(),
        [&[2], &secret[..], &[3, 0, 30, 0]].concat(),
        [&[3], &[0, 5, 1, 6, 2, 0, 3, 0, 6, 9, 7, 1, 4, 0][..]].concat(),
        [&[3], &[[0, 1], [0, 2], [0, 3], [2, 0], [3, 0]].concat().repeat(6)[..]].concat(),
    ];
    let arguments: [&str; 22] = [
        "\0send\nimage.iso",
        "\x03send\nimage.iso\n239.1.1.1:7000\n-i\neth1\n-r\nauto:800M\n-n\n30\n-w\n1h 30m\n--slow\nkeep",
        "\0send\nf\n-r\n2.5G\n--ttl\n255\n--linger\n1e9\n--symbol-size\n1408\n--report\nr\n-k\nnone",
        "\0send\nf\n-r\n63999\n",
        "\0send\nf\n-r\n1.5.5k",
        "\0send\nf\n-w\n99999999999999999999",
        "\0send\nf\n--linger\n584554531y",
        "\0send\n--\n-odd-name",
        "\0send\nf\n[ff02::1%25]:1",
        "\0send\nf\nff02::1%eth0",
        "\0send\nf\n239.1.1.1:0",
        "\0send\nf\n--port=0",
        "\0send\nf\n--symbol-size=65",
        "\0send\nf\n-n0",
        "\x02recv\n-o\n/srv/images\n--timeout\n5m\n--force\n--from\nold\n--require-signed",
        "\x01recv\n--id\nlab-07\n--json\n-v",
        "\0recv\n-q\n--json",
        "\0recv\n--id\n\u{7f}",
        "\0key\nrotate\nlab",
        "\0key\nremove\nlab\n--older",
        "\0help\nsend",
        "\0--version",
    ];
    let mut arguments: Vec<Vec<u8>> = arguments.iter().map(|line| line.as_bytes().to_vec()).collect();
    arguments.push(format!("\0recv\n--sender\n{sender}\n--sender={sender}").into_bytes());
    arguments.push(b"\0send\n\xff\xfe\n\xff".to_vec());
    vec![
        ("names", names.collect()),
        ("state", state.collect()),
        ("keys", keys.to_vec()),
        ("arguments", arguments),
    ]
}

#[test]
fn all_seeds_keep_their_promises() {
    for (target, seeds) in seeds() {
        for seed in seeds {
            println!("{target}: {}", seed.escape_ascii());
            match target {
                "names" => fuzz_names(&seed),
                "state" => fuzz_state(&seed),
                "keys" => fuzz_keys(&seed),
                _ => fuzz_arguments(&seed),
            }
        }
    }
}

#[test]
#[ignore = "writes the first files of the corpora"]
fn write_seeds() {
    for (target, seeds) in seeds() {
        for (n, seed) in seeds.iter().enumerate() {
            write(target, &format!("seed_{n:02}"), seed);
        }
    }
}

#[test]
fn golden_datagrams_are_as_they_were() {
    let goldens = goldens();
    assert_eq!(goldens.iter().map(Message::kind).collect::<Vec<_>>(), MessageKind::ALL);
    for message in goldens {
        let bytes = fs::read(folder("datagram").join(message.kind().name())).unwrap();
        assert_eq!(encode_plain(HEADER, &message), bytes, "{}", message.kind());
        assert_eq!(decode_plain(&bytes), Ok((HEADER, message)));
    }
}

#[test]
#[ignore = "writes the golden datagrams; only for a new version of the wire format"]
fn write_golden_datagrams() {
    for message in goldens() {
        write("datagram", message.kind().name(), &encode_plain(HEADER, &message));
    }
}
