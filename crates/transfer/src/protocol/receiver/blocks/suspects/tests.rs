use super::super::{Missing, Taken};
use super::*;
use crate::crypto::digest::symbol_digest;
use crate::fec::Buffer;
use crate::layout::Layout;
use crate::limits::RECEIVER_BUFFER_BYTES;
use crate::units::Digest;
use crate::wire::HashPage;

const K: u32 = 16;
const SIZE: usize = 64;

/// Blocks of 16 symbols whose page has come.
fn blocks(count: u32) -> Blocks {
    let layout = Layout::new(u64::from(count) << 10, 10, SIZE as u16).unwrap();
    let mut blocks = Blocks::new(layout, RECEIVER_BUFFER_BYTES);
    for first in (0..count).step_by(32) {
        let values = (first..count.min(first + 32)).map(|_| (Digest::default(), K));
        blocks.add_page(HashPage::raw(BlockIndex(first), values));
    }
    blocks
}

fn symbol(id: u32) -> [u8; SIZE] {
    [id as u8; SIZE]
}

fn digests(block: u32, first: u32, count: u32) -> SymbolDigests {
    let digests = (first..first + count).map(|id| symbol_digest(&symbol(id))).collect();
    SymbolDigests { block: BlockIndex(block), first_esi: Esi(first), digests }
}

fn bits(ids: impl IntoIterator<Item = u32>) -> BitSet {
    let mut bits = BitSet::new(K);
    ids.into_iter().for_each(|id| {
        bits.insert(id);
    });
    bits
}

/// A block comes in and turns out to be wrong.
fn spoil(blocks: &mut Blocks, block: u32) {
    let mut job = None;
    for id in 0..K {
        job = blocks.add(BlockIndex(block), Esi(id), &symbol(id)).1;
    }
    assert!(matches!(job, Some(ReceiverJob::Store { keep: true, .. })), "{job:?}");
    let verdict = blocks.mismatched(BlockIndex(block), Buffer::default(), Some(bits(0..K)));
    assert_eq!(verdict, BlockCheck::Rejected);
}

/// The blocks that something is missing of, and whether only source symbols count.
fn missing(blocks: &Blocks) -> Vec<(u32, bool)> {
    let mut all = Vec::new();
    blocks.each_missing(u32::MAX, |missing| {
        match missing {
            Missing::Whole { first, count } => all.extend((first..first + count).map(|b| (b, false))),
            Missing::Symbols(assembly) => all.push((assembly.block().0, false)),
            Missing::Sources(assembly) => all.push((assembly.block().0, true)),
        }
        true
    });
    all
}

#[test]
fn forged_symbols_are_found_and_nothing_forged_gets_in_again() {
    let mut blocks = blocks(2);
    spoil(&mut blocks, 1);
    // What may be right is not asked for, and not taken, until it is known.
    assert_eq!(missing(&blocks), [(0, false)]);
    assert_eq!(blocks.add(BlockIndex(1), Esi(3), &symbol(3)).0, Taken::Needless);
    assert_eq!(blocks.suspects(), [BlockIndex(1)]);
    assert!(blocks.add_digests(&digests(1, 0, 10)));
    assert!(!blocks.add_digests(&digests(1, 2, 8)), "nothing new");
    assert!(!blocks.add_digests(&digests(0, 0, 16)), "it is not suspect");
    assert!(!blocks.add_digests(&digests(1, 10, 7)), "there are no so many");
    assert!(blocks.next_sift().is_none());
    assert!(blocks.add_digests(&digests(1, 10, 6)));
    assert!(blocks.suspects().is_empty());
    let Some(ReceiverJob::Sift { block: BlockIndex(1), .. }) = blocks.next_sift() else { panic!() };
    assert!(blocks.next_sift().is_none());
    let verdict = blocks.sifted(BlockIndex(1), bits((0..K).filter(|id| ![3, 9].contains(id))), false, None);
    assert_eq!(verdict, (BlockCheck::Waiting, 2));
    assert_eq!(missing(&blocks), [(0, false), (1, true)]);
    // Forged ones and repair symbols are refused, however many come.
    for id in 0..200 {
        assert_eq!(blocks.add(BlockIndex(1), Esi(id), &[0xee; SIZE]).0, Taken::Forged);
    }
    assert_eq!(blocks.forged_symbols(), 2 + u64::from(K));
    assert!(matches!(blocks.add(BlockIndex(1), Esi(9), &symbol(9)), (Taken::New, None)));
    let (taken, job) = blocks.add(BlockIndex(1), Esi(3), &symbol(3));
    assert!(taken == Taken::New && matches!(job, Some(ReceiverJob::Store { .. })), "{job:?}");
    assert_eq!(blocks.stored(BlockIndex(1), Digest::default(), Buffer::default()), BlockCheck::Verified);
    assert!(blocks.suspects.open.is_empty() && blocks.suspects.symbols == 0);
}

#[test]
fn digests_that_do_not_give_the_value_are_the_senders_fault() {
    let mut blocks = blocks(1);
    spoil(&mut blocks, 0);
    blocks.add_digests(&digests(0, 0, K));
    assert!(blocks.next_sift().is_some());
    assert_eq!(blocks.sifted(BlockIndex(0), bits(0..K), false, None), (BlockCheck::Hopeless, 0));
}

#[test]
fn a_block_that_is_spoilt_again_on_the_disk_is_sifted_again_with_the_same_digests() {
    let mut blocks = blocks(1);
    spoil(&mut blocks, 0);
    blocks.add_digests(&digests(0, 0, K));
    for _ in 0..3 {
        assert!(blocks.next_sift().is_some());
        let (verdict, _) = blocks.sifted(BlockIndex(0), bits(1..K), false, None);
        assert_eq!(verdict, BlockCheck::Waiting);
        let (_, job) = blocks.add(BlockIndex(0), Esi(0), &symbol(0));
        assert!(matches!(job, Some(ReceiverJob::Store { .. })), "{job:?}");
        let verdict = blocks.mismatched(BlockIndex(0), Buffer::default(), Some(bits(0..K)));
        assert_eq!(verdict, BlockCheck::Rejected);
        assert!(blocks.suspects().is_empty());
    }
    // The last write was good after all.
    assert!(blocks.next_sift().is_some());
    assert_eq!(blocks.sifted(BlockIndex(0), bits(0..K), true, None), (BlockCheck::Verified, 0));
    assert!(blocks.all_verified());
}

#[test]
fn a_block_whose_page_comes_late_is_taken_apart_too() {
    let layout = Layout::new(1 << 10, 10, SIZE as u16).unwrap();
    let mut blocks = Blocks::new(layout, RECEIVER_BUFFER_BYTES);
    (0..K).for_each(|id| {
        blocks.add(BlockIndex(0), Esi(id), &symbol(id));
    });
    assert_eq!(blocks.stored(BlockIndex(0), Digest([7; 32]), Buffer::default()), BlockCheck::Waiting);
    let checked = blocks.add_page(HashPage::raw(BlockIndex(0), [(Digest::default(), K)]));
    assert_eq!(checked, [(BlockIndex(0), BlockCheck::Rejected)]);
    assert_eq!(blocks.suspects(), [BlockIndex(0)]);
    blocks.add_digests(&digests(0, 0, K));
    assert!(blocks.next_sift().is_some());
    // Nobody knows which of them were forged, and which were decoded from what was.
    assert_eq!(blocks.sifted(BlockIndex(0), bits(8..K), false, None), (BlockCheck::Waiting, 1));
}

#[test]
fn a_number_of_blocks_at_a_time_are_looked_into() {
    let count = 3 * MAX_SUSPECTS as u32;
    let mut blocks = blocks(count);
    (0..count).for_each(|block| spoil(&mut blocks, block));
    assert!(missing(&blocks).is_empty());
    let mut seen = 0;
    while let [first, ..] = blocks.suspects()[..] {
        assert!(blocks.suspects().len() <= MAX_SUSPECTS);
        blocks.add_digests(&digests(first.0, 0, K));
        assert!(blocks.next_sift().is_some());
        blocks.sifted(first, bits(0..K), true, None);
        seen += 1;
    }
    assert_eq!(seen, count);
    assert!(blocks.all_verified());
}

#[test]
fn what_is_held_of_large_blocks_is_bounded() {
    let mut suspects = Suspects::default();
    let k = MAX_SUSPECT_SYMBOLS as u32 / 4;
    (0..10).for_each(|block| suspects.suspect(block, BitSet::new(k)));
    assert_eq!((suspects.open.len(), suspects.waiting.len()), (4, 6));
    let mut suspects = Suspects::default();
    (0..10).for_each(|block| suspects.suspect(block, BitSet::new(2 * MAX_SUSPECT_SYMBOLS as u32)));
    assert_eq!(suspects.open.len(), 1, "one is always looked into");
    suspects.clear(0);
    assert_eq!((suspects.open.len(), suspects.waiting.len()), (1, 8));
}
