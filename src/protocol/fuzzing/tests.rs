use super::*;
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
    random(0..200, fuzz_receiver);
}

#[test]
fn random_inputs_keep_the_senders_promises() {
    random(0..200, fuzz_sender);
}
