//! Blocks that are not sent as they are.

use super::*;
use crate::units::{Coded, Coding};
use std::sync::Arc;

/// Blocks 1 and 3 of 6 are zeros, block 2 is compressed to 2 symbols.
fn bench() -> Bench {
    let zstd = Recipe { coded: Coded { coding: Coding::Zstd, k: 2 }, level: 1 };
    let recipes =
        [(1, (Recipe::ZERO, None)), (2, (zstd, Some(Arc::new(vec![7; 128])))), (3, (Recipe::ZERO, None))];
    Bench::coded(6, recipes.into())
}

#[test]
fn nothing_is_sent_of_zeros_and_little_of_what_is_compressed() {
    let mut bench = bench();
    bench.join(1, 1);
    bench.pass(Duration::from_secs(1));
    assert!(bench.sender.stream_done());
    let seen = bench.sender.overview();
    assert_eq!((seen.source_symbols, seen.position), (3 * u64::from(K) + 2, 6));
    let sums =
        [(0, 6), (1, 4), (3, 4), (4, 100)].map(|(first, end)| bench.sender.symbols_between(first, end));
    assert_eq!(sums, [3 * u64::from(K) + 2, 2, 0, 2 * u64::from(K)]);
}

#[test]
fn a_coding_is_settled_once() {
    let mut bench = bench();
    bench.join(1, 1);
    bench.pass(Duration::from_secs(1));
    let before = bench.sender.recipe(2);
    bench.sender.choose_coding(BlockIndex(2), Recipe::raw(K), None);
    assert_eq!(bench.sender.recipe(2), before);
    // A coding that the block cannot have is none.
    let mut other = Bench::coded(1, [(0, (Recipe::raw(3), None))].into());
    other.join(1, 1);
    other.pass(Duration::from_secs(1));
    assert_eq!(other.sender.recipe(0), Some(Recipe::raw(K)));
}

/// Symbols of a compressed block are made again when a device lacks them and others have taken the room.
#[test]
fn packed_symbols_are_made_again() {
    let mut bench = bench();
    bench.join(1, 1);
    bench.pass(Duration::from_secs(1));
    let block = BlockIndex(2);
    let (kind, first, packed) = bench.sender.set_aside(2, planner::PlanKind::Resend(vec![(1, 1)]));
    assert_eq!((first, packed), (Esi(0), Some(2)));
    bench.sender.group.push(block, kind, first, packed);
    assert!(!bench.sender.group.is_ready());
    let before = bench.sent.len();
    bench.pass(Duration::from_millis(100));
    let resent = bench.sent[before..].iter().any(|sent| {
        matches!(&sent.payload, Payload::Repair { block: b, first: Esi(1), range, .. } if *b == block && *range == (64..128))
    });
    assert!(resent && bench.sender.encoded_symbols == 0);
}
