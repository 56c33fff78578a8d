use super::play::World as _;
use super::*;
use crate::protocol::event::ReceiverOutcome;
use crate::status::DeviceStatus;
use std::fs;
use std::path::{Path, PathBuf};

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

#[track_caller]
fn replay(target: &str, body: fn(&[u8])) {
    let mut files = 0;
    for entry in fs::read_dir(folder(target)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        body(&fs::read(path).unwrap());
        files += 1;
    }
    assert!(files > 0);
}

#[test]
fn the_receivers_corpus_replays() {
    replay("receiver", fuzz_receiver);
}

#[test]
fn the_senders_corpus_replays() {
    replay("sender", fuzz_sender);
}

/// A header: 4290 bytes in five blocks of 1 KiB, symbols of 64 bytes.
const OBJECT: [u8; 2] = [130, 0];
/// Buffers for 15 blocks, and for four.
const ROOMY: u8 = 60;
const TIGHT: u8 = 0;
/// The receiver's operations up to its admission: the first announces may not make it join.
const ADMITTED: [&[u8]; 14] = [
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
    &[1, 1, 255, 0],
    &[4, 255],
    &[0, 1],
];
/// An announcement with the root hash; then all jobs there may be.
const ROOT: [&[u8]; 7] = [&[1, 2, 255, 1], &[11, 0], &[11, 0], &[11, 0], &[11, 0], &[11, 0], &[11, 0]];

fn receiver(buffers: u8, middle: &[&[u8]], end: &[&[u8]]) -> Vec<u8> {
    [&OBJECT[..], &[buffers], &ADMITTED.concat(), &middle.concat(), &end.concat()].concat()
}

/// Transfers of interest: name, input.
fn receiver_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let whole: Vec<[u8; 4]> = (0..5).map(|block| [3, block, 0, 15]).collect();
    let whole: Vec<&[u8]> = whole.iter().map(|op| &op[..]).collect();
    // Twelve source symbols of each, a poll, and repair symbols from 16 on.
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
    let damaged: [&[u8]; 3] = [&[10, 0, 40, 1], &[3, 0, 0, 15], &[11, 0]];
    let damaged = [&damaged[..], &whole].concat();
    let ack: [&[u8]; 2] = [&[0, 10], &[6]];
    let end = [&ROOT[..], &ack].concat();
    // Every second block is in the part file that is opened; the others are sent.
    let mut opened = ADMITTED;
    opened[1] = &[13, 0, 200];
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
    ]
}

fn sender_seeds() -> Vec<(&'static str, Vec<u8>)> {
    // Two devices are awaited, at 8 Mbit/s; it lingers for seven seconds.
    let head: &[u8] = &[130, 0, 2, 3 + (7 << 5)];
    let start: [&[u8]; 6] = [&[1, 2, 0], &[1, 4, 0], &[13], &[0, 8], &[13], &[0, 8]];
    let start = [head, &start.concat()].concat();
    // The same two hold something.
    let holding: [&[u8]; 6] = [&[1, 2, 2], &[1, 4, 2], &[13], &[0, 8], &[13], &[0, 8]];
    let holding = [head, &holding.concat()].concat();
    let complete: [&[u8]; 3] = [&[4, 2, 0], &[4, 4, 0], &[0, 10]];
    // Again and again, as the polls come when they come.
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
    }
}

#[test]
fn the_senders_seeds_reach_what_they_are_for() {
    for (name, input) in sender_seeds() {
        let world = sender::World::play(&input).unwrap();
        let seen = world.sender.snapshot(world.now);
        println!("{name}: {seen:?}");
        let complete = seen.count(|status| *status == DeviceStatus::Complete);
        assert_eq!(complete, if name == "source_fails" { 0 } else { 2 }, "{name}");
        assert_eq!(seen.skipped > 0, name == "skipped", "{name}");
        assert_eq!(world.fresh.is_empty(), name != "repaired", "{name}");
        assert_eq!(seen.unicast_symbols > 0, name == "late", "{name}");
    }
}

#[test]
#[ignore = "writes the first files of the corpora"]
fn write_seeds() {
    for (target, seeds) in [("receiver", receiver_seeds()), ("sender", sender_seeds())] {
        for (name, input) in seeds {
            fs::write(folder(target).join(name), input).unwrap();
        }
    }
}

/// Inputs of random bytes, for machines without a fuzzer.
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
