//! Replays the committed corpus of the fuzz target `datagram`, so that what fuzzing once found
//! stays found without a fuzzer. (Those of whole machines are replayed by their unit tests.)
//!
//! Files named after a message kind are golden datagrams: they hold the wire format of this
//! version as it was released. `cargo test --test corpus -- --ignored` writes them anew, which is
//! right only together with a new `WIRE_VERSION`.

use mcp::units::{
    AgreementKey, BlockIndex, Cookie, DeviceId, Digest, Rate, SenderKey, SessionId, Suite, SymbolDigest,
    SymbolId, TaskId,
};
use mcp::wire::{
    Abort, AbortCode, Acknowledge, Admit, Announce, Arrivals, Complete, Deficit, HashPage, Header,
    Invitation, Join, Kind, Message, Nak, PacketNumber, PageRange, Phase, Planned, Poll, Progress, Retry,
    Suspect, Symbol, SymbolDigests, Verdict, decode_plain, encode_plain, fuzz_datagram,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/datagram")
}

const HEADER: Header = Header { session: SessionId(0x6d63_0001), packet_number: PacketNumber::new(0, 42) };

fn invitation() -> Invitation {
    Invitation { probability: 65535, window: Duration::from_millis(250) }
}

/// One message of each kind.
fn goldens() -> Vec<Message<'static>> {
    let device = DeviceId(std::array::from_fn(|i| 0xd0 + i as u8));
    let root = Digest(std::array::from_fn(|i| i as u8));
    vec![
        Announce {
            sender: SenderKey([0x51; 32]),
            agreement: AgreementKey([0x52; 32]),
            suite: Suite::ChaCha20Poly1305,
            task: TaskId([0xa5; 16]),
            phase: Phase::Repairing,
            object_size: 5_000_000,
            block_log2: 20,
            symbol_size: 1408,
            data: "[ff15::4d43:7417]:7417".parse().unwrap(),
            position: BlockIndex(5),
            invitation: invitation(),
            group_size: 30,
            rate: Rate(900_000_000),
            root: Some(root),
            name: "image.iso".into(),
        }
        .into(),
        Join { device, holds: true, label: "lab-07".into() }.into(),
        Admit { verdict: Verdict::Admitted, channel: 7 }.into(),
        Symbol { block: BlockIndex(2), id: SymbolId(745), payload: b"some bytes of a symbol" }.into(),
        HashPage { first: BlockIndex(32), values: vec![root; 2] }.into(),
        Poll {
            round: 3,
            position: BlockIndex(5),
            invitation: invitation(),
            group_size: 30,
            want_ids: true,
            planned: vec![Planned { block: BlockIndex(1), symbols: 9 }],
        }
        .into(),
        Nak {
            round: 3,
            as_of: PacketNumber::new(0, 41),
            held_us: 300,
            incomplete: 4,
            pages: vec![PageRange { first: 0, count: 1 }],
            deficits: vec![
                Deficit::Symbols { block: BlockIndex(0), symbols: 2, missing: vec![] },
                Deficit::Symbols { block: BlockIndex(1), symbols: 4, missing: vec![(7, 3), (44, 1)] },
                Deficit::Whole { first: BlockIndex(3), count: 2 },
            ],
        }
        .into(),
        Progress {
            verified: 1,
            received: 3000,
            lost: 30,
            kernel_drops: 2,
            overrun_drops: 1,
            arrivals: Some(Arrivals {
                first: PacketNumber::new(0, 40),
                last: PacketNumber::new(0, 140),
                received: 99,
                elapsed_us: 25_000,
                last_at_us: 3_000_000,
            }),
        }
        .into(),
        Complete { root, received: 3700, lost: 37 }.into(),
        Acknowledge.into(),
        Abort { code: AbortCode::Disk, reason: "no space left".into() }.into(),
        Retry { agreement: AgreementKey([0x53; 32]), cookie: Cookie([0x54; 16]) }.into(),
        Suspect { block: BlockIndex(3) }.into(),
        SymbolDigests {
            block: BlockIndex(3),
            first: SymbolId(64),
            digests: vec![SymbolDigest([0x55; 16]); 3],
        }
        .into(),
    ]
}

#[test]
fn every_file_of_the_corpus_replays() {
    let mut files = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        fuzz_datagram(&fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= Kind::ALL.len());
}

#[test]
fn golden_datagrams_are_as_they_were() {
    let goldens = goldens();
    assert_eq!(goldens.iter().map(Message::kind).collect::<Vec<_>>(), Kind::ALL);
    for message in goldens {
        let bytes = fs::read(folder().join(message.kind().name())).unwrap();
        assert_eq!(encode_plain(HEADER, &message), bytes, "{}", message.kind());
        assert_eq!(decode_plain(&bytes), Ok((HEADER, message)));
    }
}

#[test]
#[ignore = "writes the golden datagrams; only for a new version of the wire format"]
fn write_golden_datagrams() {
    for message in goldens() {
        fs::write(folder().join(message.kind().name()), encode_plain(HEADER, &message)).unwrap();
    }
}
