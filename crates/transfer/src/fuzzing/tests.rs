use super::corpus::{replay, write};
use super::play::World as _;
use super::*;
use crate::fuzzing::packet_protection::play;
use crate::limits::MAX_BLOCKS;
use crate::protocol::event::ReceiverOutcome;

#[test]
fn every_datagram_replays() {
    assert!(replay("datagram", fuzz_datagram) >= MessageKind::ALL.len());
}

#[test]
fn the_receivers_corpus_replays() {
    replay("receiver", fuzz_receiver);
}

#[test]
fn the_senders_corpus_replays() {
    replay("sender", fuzz_sender);
}

#[test]
fn the_corpora_of_announce_and_hash_page_replay() {
    replay("announce", fuzz_announce);
    replay("hash_page", fuzz_hash_page);
}

#[test]
fn the_corpus_of_packet_protection_replays() {
    replay("packet_protection", fuzz_packet_protection);
}

/// Start of an input: an object of 4290 bytes in five blocks of 1 KiB, symbols of 64 bytes.
const OBJECT: [u8; 2] = [130, 0];
/// Buffers for 15 blocks, and for four.
const ROOMY: u8 = 60;
const TIGHT: u8 = 0;
/// The operations up to the receiver's admission. It may take several announces before it joins.
const ADMITTED: [&[u8]; 15] = [
    &[1, 0, 255, 0],
    &[11, 0],
    &[1, 1, 255, 0],
    &[0, 9],
    &[1, 1, 255, 0],
    &[0, 9],
    &[1, 1, 255, 0],
    &[0, 9],
    &[1, 1, 255, 0],
    &[0, 9],
    &[2, 64],
    OPENED,
    &[1, 1, 255, 0],
    &[4, 255],
    &[0, 1],
];
/// Opens the part file.
const OPENED: &[u8] = &[11, 0];
/// Announces the root hash, then ends all jobs.
const ROOT: [&[u8]; 7] = [&[1, 2, 255, 1], &[11, 0], &[11, 0], &[11, 0], &[11, 0], &[11, 0], &[11, 0]];

fn receiver(buffers: u8, middle: &[&[u8]], end: &[&[u8]]) -> Vec<u8> {
    [&OBJECT[..], &[buffers], &ADMITTED.concat(), &middle.concat(), &end.concat()].concat()
}

/// Names and inputs of interesting transfers.
fn receiver_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let whole: Vec<[u8; 4]> = (0..5).map(|block| [3, block, 0, 15]).collect();
    let whole: Vec<&[u8]> = whole.iter().map(|op| &op[..]).collect();
    // Twelve source symbols of each block, a poll, and repair symbols from ESI 16 on.
    let lossy: Vec<[u8; 4]> = (0..5).map(|block| [3, block, 0, 11]).collect();
    let mend: Vec<[u8; 4]> = (0..5).map(|block| [3, block, 16, 5]).collect();
    let job: [&[u8]; 1] = [&[11, 0]];
    let poll: [&[u8]; 2] = [&[5, 1, 5, 255, 0, 1], &[0, 8]];
    let mut repaired: Vec<&[u8]> = Vec::new();
    for op in &lossy {
        repaired.extend([&op[..], job[0]]);
    }
    repaired.extend(poll);
    for op in &mend {
        repaired.extend([&op[..], job[0]]);
    }
    // A damaged block: its digests, a job that sifts it, and the symbol again.
    let damaged: [&[u8]; 6] =
        [&[10, 0, 40, 1], &[3, 0, 0, 15], &[11, 0], &[16, 0, 0, 255, 0], &[11, 0], &[3, 0, 0, 15]];
    let damaged = [&damaged[..], &whole].concat();
    let ack: [&[u8]; 2] = [&[0, 10], &[6]];
    // Three blocks, silence, a restart of the sender, absence, the rest.
    let mut restarted: Vec<&[u8]> = Vec::new();
    for op in &whole[..3] {
        restarted.extend([*op, job[0]]);
    }
    restarted.extend([&[0, 10][..], &[0, 10], &[14, 1], &[14, 130], &[1, 1, 255, 0]]);
    restarted.extend(&ADMITTED[2..]);
    for op in &whole[3..] {
        restarted.extend([*op, job[0]]);
    }
    let end = [&ROOT[..], &ack].concat();
    // Every second block is in the part file; the others are sent.
    let mut opened = ADMITTED;
    let at = opened.iter().rposition(|op| *op == OPENED).unwrap();
    opened[at] = &[13, 0, 200];
    let resumed = [&opened.concat()[..], &job.concat().repeat(6), whole[1], whole[3], &end.concat()];
    let resumed = [&OBJECT[..], &[ROOMY], &resumed.concat()].concat();
    let dead: [&[u8]; 2] = [&[14, 0], &[13, 0, 1]];
    vec![
        ("whole", receiver(ROOMY, &whole, &end)),
        ("repaired", receiver(ROOMY, &repaired, &end)),
        ("spilled", receiver(TIGHT, &repaired.repeat(2), &end)),
        ("damaged", receiver(ROOMY, &damaged, &end)),
        ("resumed", resumed),
        ("abort", receiver(ROOMY, &whole[..2], &[&[7, 0]])),
        ("worker_dies_while_leaving", receiver(ROOMY, &whole[..1], &dead)),
        ("restarted", receiver(ROOMY, &restarted, &end)),
    ]
}

fn sender_seeds() -> Vec<(&'static str, Vec<u8>)> {
    // The sender expects two devices, sends at 8 Mbit/s and lingers for seven seconds.
    let head: &[u8] = &[130, 0, 2, 3 + (7 << 5)];
    let start: [&[u8]; 6] = [&[1, 2, 0], &[1, 4, 0], &[13], &[0, 8], &[13], &[0, 8]];
    let start = [head, &start.concat()].concat();
    // The same two devices already hold some blocks.
    let holding: [&[u8]; 6] = [&[1, 2, 2], &[1, 4, 2], &[13], &[0, 8], &[13], &[0, 8]];
    let holding = [head, &holding.concat()].concat();
    let complete: [&[u8]; 3] = [&[4, 2, 0], &[4, 4, 0], &[0, 10]];
    // Repeated, because the time of the polls is not known.
    let nak: [&[u8]; 4] =
        [&[2, 2, 0, 0, 2, 0, 3, 4, 2, 1, 2, 0, 0], &[2, 4, 0, 0, 1, 0, 5, 9, 5], &[0, 5], &[13]];
    let nak = nak.concat().repeat(16);
    let late: [&[u8]; 3] = [&[2, 6, 3, 0, 1, 0, 0, 0, 4], &[0, 5], &[13]];
    let late = [&[1, 6, 0, 13][..], &late.concat().repeat(16)].concat();
    let lost: [&[u8]; 2] = [&[0, 13], &[0, 13]];
    vec![
        ("whole", [&start[..], &complete.concat()].concat()),
        ("skipped", [&holding[..], &complete.concat()].concat()),
        ("repaired", [&start[..], &nak, &complete.concat()].concat()),
        ("late", [&start[..], &late, &complete.concat()].concat()),
        ("lost", [&start[..], &lost.concat(), &complete.concat()].concat()),
        ("source_fails", [&start[..], &[0, 10, 11, 0, 40]].concat()),
    ]
}

/// First byte of an input of `packet_protection`: the sender's group key, the device's group keys, the suite, and the
/// flag for an admitted device.
const NO_KEY: u8 = 32;
const KEY: u8 = 32 | 1 | 1 << 2;
const OTHER_KEY: u8 = 32 | 1 | 2 << 2;
const SECOND_KEY: u8 = 32 | 1 | 3 << 2;
const CHACHA: u8 = 16;

fn packet_protection_seeds() -> Vec<(&'static str, Vec<u8>)> {
    // The messages of both sides. To the group: an announce, a poll, a page, a symbol, a retry. To the device: an
    // admit, a poll. To the sender: a join, a deficit.
    let kinds =
        [(0, 0, 0), (0, 5, 0), (0, 4, 0), (0, 3, 0), (0, 11, 2), (1, 2, 2), (1, 5, 1), (2, 1, 0), (3, 6, 1)];
    let mut made: Vec<u8> = Vec::new();
    for (n, (how, kind, channel)) in (1..).zip(kinds) {
        let body: &[u8] = if kind == 0 { &[0] } else { &[3, 1, 2, 3] };
        made.extend([&[how, kind, channel, 0, n], body].concat());
    }
    let down = |n: u8| n << 1;
    let up = |n: u8| n << 1 | 1;
    let all: Vec<u8> = (0..7).map(down).chain((0..2).map(up)).flat_map(|which| [7, which]).collect();
    // Flips a bit of the header, the body or the trailer; cuts, lengthens, removes bytes in the middle.
    let edits: [[u8; 4]; 7] = [
        [0, 0, 3, 64],
        [0, 0, 19, 1],
        [0, 0, 22, 1],
        [0, 0, 90, 128],
        [1, 0, 40, 0],
        [2, 0, 21, 7],
        [3, 0, 21, 0],
    ];
    let each = (0..7).map(down).chain((0..2).map(up));
    let damage: Vec<u8> =
        each.flat_map(|which| edits.iter().flat_map(move |e| [&[5, which, 0][..], e].concat())).collect();
    let spliced: Vec<u8> =
        [(0, 1), (1, 2), (5, 6), (3, 2)].iter().flat_map(|&(a, b)| [6, down(a), down(b), 20]).collect();
    let seed = |choice: u8, ops: &[&[u8]]| [&[choice], &made[..], &ops.concat()].concat();
    vec![
        ("plain", seed(NO_KEY, &[&all])),
        ("sealed", seed(KEY, &[&all])),
        ("sealed_with_chacha", seed(KEY | CHACHA, &[&all])),
        ("second_key", seed(SECOND_KEY, &[&all])),
        ("other_key", seed(OTHER_KEY, &[&all])),
        ("no_key", seed(32 | 1, &[&all])),
        ("needless_key", seed(32 | 1 << 2, &[&all])),
        ("not_admitted", seed(KEY & !32, &[&all])),
        ("replayed", seed(KEY, &[&all, &all])),
        ("damaged_plain", seed(NO_KEY, &[&damage[..350]])),
        ("damaged_sealed", seed(KEY, &[&damage[..350]])),
        ("damaged_chacha", seed(KEY | CHACHA, &[&damage[..350]])),
        ("spliced", seed(KEY, &[&spliced, &all])),
        ("made_up", seed(NO_KEY, &[&[4, 4, b'm', b'c', 1, 1], &[4, 0]])),
    ]
}

#[test]
fn the_packet_protection_seeds_reach_what_they_are_for() {
    for (name, input) in packet_protection_seeds() {
        let passed = play(&input);
        println!("{name}: {passed:?}");
        let want = match name {
            // The symbol and the retry are not authentic.
            "plain" => [5, 2],
            // The retry is not authentic.
            "sealed" | "sealed_with_chacha" | "second_key" | "spliced" => [6, 2],
            // The device has no channel yet.
            "not_admitted" => [5, 2],
            // This layer accepts a repeated sealed symbol and repeated joins; others reject them.
            "replayed" => [7, 4],
            _ => [0, 0],
        };
        assert_eq!(passed, want, "{name}");
    }
}

/// Objects of 4290 bytes in blocks of 1 KiB, of the most blocks allowed, of one block more, and of 2^63 bytes.
const SMALL: [u8; 8] = [0, 0, 10, 1, 0, 0, 16, 194];
const MOST: [u8; 8] = [0xc0, 0, 20, 22, 0, 0, 0, 0];
const ONE_MORE: [u8; 8] = [0xc0, 1, 20, 22, 0, 0, 0, 0];
const LARGEST: [u8; 8] = [0x40 | 63, 0, 24, 139, 0, 0, 0, 0];
const ANNOUNCED: &[u8] = &[1, 255, 3, 33];

fn announce_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let seed = |shape: [u8; 8], ops: &[&[u8]]| [&[0, 60], &shape[..], ANNOUNCED, &ops.concat()].concat();
    let open: &[u8] = &[8, 0];
    let later = [&[2], &LARGEST[..], &ANNOUNCED[1..]].concat();
    vec![
        ("small", seed(SMALL, &[open, &[0, 10], ANNOUNCED, &[0, 10], ANNOUNCED])),
        ("most", seed(MOST, &[open, &[3, 3, 0, 1, 5, 3, 9, 1, 6, 5, 0, 15, 129]])),
        ("one_more", seed(ONE_MORE, &[open])),
        ("largest", seed(LARGEST, &[open])),
        ("another_size", seed(SMALL, &[open, &later, &[0, 10]])),
        ("odd_symbols", seed([0, 0, 10, 255, 0, 0, 0x20, 65], &[open])),
        ("tiny_blocks", seed([0, 0, 9, 1, 0, 0, 16, 194], &[open])),
        ("huge_blocks", seed([0x40 | 40, 255, 28, 139, 0, 0, 0, 0], &[open])),
        ("empty", seed([0, 0, 20, 22, 0, 0, 0, 0], &[open, &[7], ANNOUNCED])),
        ("one_byte", seed([0, 0, 20, 22, 0, 0, 0, 1], &[open, &[5, 32, 0, 0]])),
        ("restarted", seed(SMALL, &[open, &[0, 11], &[11, 255, 3, 33], &[0, 11]])),
    ]
}

fn hash_page_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let seed =
        |start: u8, shape: [u8; 8], ops: &[&[u8]]| [&[start | 1, 60], &shape[..], &ops.concat()].concat();
    // Pages at the beginning, at the end, beyond it, anywhere, short, false; then checks.
    let pages: [&[u8]; 9] = [
        &[3, 0, 0, 0],
        &[3, 0, 0, 1],
        &[3, 3, 0, 1],
        &[3, 5, 0, 7],
        &[3, 6, 0, 1, 2, 3, 4],
        &[3, 7, 0, 255, 255, 255, 255],
        &[3, 0, 130, 2],
        &[3, 8, 0, 3],
        &[3, 0, 0, 0],
    ];
    let jobs: [&[u8]; 1] = [&[8, 0]];
    let jobs = jobs.repeat(40);
    let symbols: [&[u8]; 4] =
        [&[5, 32, 63, 0], &[5, 32, 63, 4], &[5, 35, 15, 1], &[5, 63, 3, 0, 0, 0, 0, 255, 255, 255]];
    let polls: [&[u8]; 3] =
        [&[6, 0, 1, 0, 128, 9], &[6, 7, 2, 15, 193, 255, 255, 255, 255], &[6, 3, 3, 1, 1, 0]];
    let spare = [0, 10];
    let all = [&pages[..], &jobs, &symbols, &jobs, &polls, &[&spare]].concat();
    vec![
        ("pages", seed(0, SMALL, &all)),
        ("held", seed(1 << 4, SMALL, &all)),
        ("earlier", seed(3 << 6, SMALL, &all)),
        ("most", seed(0, MOST, &all)),
        ("most_held", seed(1 << 4, MOST, &all)),
        ("every_third", seed(2 << 4, MOST, &all)),
        ("the_last", seed(3 << 4 | 2 << 6, MOST, &all)),
        ("large_blocks", seed(0, [0x80 | 10, 3, 24, 139, 0, 9, 9, 9], &all)),
        ("restarted", seed(1 << 4, SMALL, &[&all.concat(), &[0, 11, 11, 255, 0, 33, 0, 11], &all.concat()])),
        ("one_block", seed(0, [0, 0, 20, 22, 0, 0, 0, 1], &all)),
    ]
}

#[test]
fn the_seeds_of_announce_and_hash_page_reach_what_they_are_for() {
    for (name, input) in announce_seeds() {
        let blocks = layouts::World::play(&input).unwrap().blocks;
        let want = match name {
            "small" | "another_size" | "restarted" => 5,
            "most" => MAX_BLOCKS,
            "one_byte" => 1,
            _ => 0,
        };
        assert_eq!(blocks, want, "{name}");
    }
    for (name, input) in hash_page_seeds() {
        let world = layouts::World::play(&input).unwrap();
        let seen = world.receiver.snapshot();
        println!("{name}: {} checks, {} told, {seen:?}", world.checks, world.told);
        assert!(seen.blocks > 0 && world.told > 1, "{name}");
        let holds =
            matches!(name, "held" | "earlier" | "most_held" | "every_third" | "the_last" | "restarted");
        assert_eq!(world.checks > 0, holds, "{name}");
        assert!(seen.verified > 0 || name == "large_blocks" || !holds, "{name}");
    }
}

#[test]
fn the_receivers_seeds_reach_what_they_are_for() {
    for (name, input) in receiver_seeds() {
        let world = receiver::World::play(&input).unwrap();
        let outcome = world.outcome.unwrap();
        println!(
            "{name}: {outcome:?}, {} told, {} spills, {} rejected",
            world.told, world.spills, world.rejected
        );
        match name {
            "abort" => assert!(matches!(outcome, ReceiverOutcome::SenderAborted(..))),
            "worker_dies_while_leaving" => assert_eq!(outcome, ReceiverOutcome::Interrupted),
            _ => assert_eq!(outcome, ReceiverOutcome::Complete { acknowledged: true }, "{name}"),
        }
        assert_eq!(world.held > 0, name == "resumed");
        assert_eq!(world.spills > 0, name == "spilled");
        assert_eq!(world.rejected > 0, name == "damaged");
        assert_eq!(world.sifted > 0, name == "damaged");
    }
}

#[test]
fn the_senders_seeds_reach_what_they_are_for() {
    for (name, input) in sender_seeds() {
        let world = sender::World::play(&input).unwrap();
        let seen = world.sender.overview();
        println!("{name}: {seen:?}");
        let complete = seen.devices.complete;
        assert_eq!(complete, if name == "source_fails" { 0 } else { 2 }, "{name}");
        assert_eq!(seen.skipped > 0, name == "skipped", "{name}");
        assert_eq!(world.fresh.is_empty(), name != "repaired", "{name}");
        assert_eq!(seen.unicast_symbols > 0, name == "late", "{name}");
    }
}

#[test]
#[ignore = "writes the first files of the corpora"]
fn write_seeds() {
    let all = [
        ("receiver", receiver_seeds()),
        ("sender", sender_seeds()),
        ("packet_protection", packet_protection_seeds()),
        ("announce", announce_seeds()),
        ("hash_page", hash_page_seeds()),
    ];
    for (target, seeds) in all {
        for (name, input) in seeds {
            write(target, name, input.as_ref());
        }
    }
}

#[test]
fn random_inputs_keep_all_other_promises() {
    random(0..200, fuzz_packet_protection);
    random(0..100, fuzz_announce);
    random(0..100, fuzz_hash_page);
}

/// Plays random inputs, for machines without a fuzzer.
#[track_caller]
fn random(seeds: std::ops::Range<u64>, body: fn(&[u8])) {
    for seed in seeds {
        let mut rng = fastrand::Rng::with_seed(seed);
        let len = rng.usize(0..1500);
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
        println!("seed {seed}");
        body(&bytes);
    }
}

#[test]
fn random_inputs_keep_the_receivers_promises() {
    random(0..1000, fuzz_receiver);
}

#[test]
fn random_inputs_keep_the_senders_promises() {
    random(0..1000, fuzz_sender);
}
