use super::super::{Missing, Taken};
use super::*;
use crate::fec::{PlanCache, repair_once};
use crate::layout::Layout;
use crate::limits::RECEIVER_BUFFER_BYTES;
use crate::pack;
use crate::protocol::receiver::resume::Candidates;
use crate::units::{Esi, Intake};
use crate::wire::HashPage;

const K: u32 = 8;
const T: u16 = 256;
const BLOCKS: u32 = 40;

fn layout() -> Layout {
    Layout::new(u64::from(BLOCKS) << 11, 11, T).unwrap()
}

fn blocks() -> Blocks {
    Blocks::new(layout(), RECEIVER_BUFFER_BYTES)
}

fn value(block: u32) -> Digest {
    Digest([block as u8 + 1; 32])
}

/// The first page; all blocks that are not named are raw.
fn page(coded: &[(u32, Coding, u32)]) -> HashPage {
    let of = |block| {
        let named = coded.iter().find(|(named, ..)| *named == block);
        let coded = named.map_or(Coded::raw(K), |&(_, coding, k)| Coded { coding, k });
        (value(block), coded)
    };
    HashPage::of(BlockIndex(0), (0..32).map(of))
}

fn jobs(blocks: &mut Blocks) -> Vec<ReceiverJob> {
    std::iter::from_fn(|| blocks.next_coding_job()).collect()
}

fn missing(blocks: &Blocks, position: u32) -> Vec<(u32, u32)> {
    let mut all = Vec::new();
    blocks.each_missing(position, |missing| {
        all.push(match missing {
            Missing::Whole { first, count } => (first, count),
            Missing::Symbols(assembly) | Missing::Sources(assembly) => {
                (assembly.block().0, assembly.deficit())
            }
        });
        true
    });
    all
}

#[test]
fn zeros_are_not_requested_and_verified_by_workers_in_runs() {
    let mut blocks = blocks();
    let zeros: Vec<_> = (3..20).chain([25]).map(|block| (block, Coding::Zero, 0)).collect();
    blocks.add_page(page(&zeros));
    assert_eq!(missing(&blocks, 32), [(0, 3), (20, 5), (26, 6)]);
    let all = jobs(&mut blocks);
    let reserved: Vec<_> = all
        .iter()
        .filter_map(|job| match job {
            ReceiverJob::Reserve { first, count, .. } => Some((first.0, *count)),
            _ => None,
        })
        .collect();
    assert_eq!(reserved, [(0, 3)], "one at a time");
    let runs: Vec<_> = all
        .iter()
        .filter_map(|job| match job {
            ReceiverJob::Zero { first, values, .. } => Some((first.0, values.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(runs, [(3, (3..20).map(value).collect()), (25, vec![value(25)])]);
    assert_eq!(blocks.zeroed(BlockIndex(3), 17, None), None);
    assert_eq!((blocks.verified(), blocks.verified_bytes()), (17, 17 << 11));
    // What the sender has signed is not so.
    assert_eq!(blocks.zeroed(BlockIndex(25), 1, Some(BlockIndex(25))), Some(BlockIndex(25)));
    assert_eq!(blocks.verified(), 17);
    blocks.reserved();
    assert!(matches!(jobs(&mut blocks)[..], [ReceiverJob::Reserve { first: BlockIndex(20), count: 5, .. }]));
}

#[test]
fn jobs_with_zeros_are_few_however_many_there_are() {
    let layout = Layout::new(1 << 40, 24, 1408).unwrap();
    let mut blocks = Blocks::new(layout, RECEIVER_BUFFER_BYTES);
    for first in (0..65_536).step_by(32) {
        let zero = |_| (value(0), Coded { coding: Coding::Zero, k: 0 });
        blocks.add_page(HashPage::of(BlockIndex(first), (0..32).map(zero)));
    }
    let mut verified = 0;
    while !blocks.all_verified() {
        let jobs = jobs(&mut blocks);
        assert!((1..=MAX_ZERO_JOBS).contains(&jobs.len()), "{}", jobs.len());
        for job in jobs {
            let ReceiverJob::Zero { first, values, .. } = job else { panic!("{job:?}") };
            assert_eq!((first.0, values.len()), (verified, 1), "16 MiB at a time");
            blocks.zeroed(first, 1, None);
            verified += 1;
        }
    }
}

#[test]
fn what_arrived_of_zeros_before_their_page_is_dropped() {
    let mut blocks = blocks();
    for id in 0..K - 1 {
        blocks.add(BlockIndex(1), Esi(id), &[1; T as usize]);
    }
    let free = blocks.free_buffers();
    // Another one is complete, and with a worker.
    let with_worker = (0..K).filter_map(|id| blocks.add(BlockIndex(2), Esi(id), &[1; T as usize]).1).next();
    let Some(ReceiverJob::Store { assembly, .. }) = with_worker else { panic!() };
    blocks.add_page(page(&[(1, Coding::Zero, 0), (2, Coding::Zero, 0)]));
    assert_eq!(blocks.free_buffers(), free, "one came back, one is with the worker");
    assert_eq!(blocks.add(BlockIndex(1), Esi(7), &[1; T as usize]).0, Taken::Needless);
    let firsts = |jobs: Vec<ReceiverJob>| {
        let zeros = jobs.into_iter().filter_map(|job| match job {
            ReceiverJob::Zero { first, values, .. } => Some((first.0, values.len())),
            _ => None,
        });
        zeros.collect::<Vec<_>>()
    };
    assert_eq!(firsts(jobs(&mut blocks)), [(1, 1)], "the other is still being written");
    // Whatever comes of it, it is made zeros.
    assert_eq!(blocks.stored(BlockIndex(2), value(9), assembly.into_block()), BlockCheck::Waiting);
    assert_eq!(firsts(jobs(&mut blocks)), [(2, 1)]);
    blocks.zeroed(BlockIndex(1), 1, None);
    blocks.zeroed(BlockIndex(2), 1, None);
    assert_eq!((blocks.verified(), blocks.free_buffers()), (2, free + 1));
}

#[test]
fn zeros_that_may_be_on_the_disk_are_looked_at_first() {
    let mut blocks = blocks();
    let mut held = BitSet::new(BLOCKS);
    held.insert_range(0..3);
    blocks.resume_from(Candidates::new(held, 0));
    blocks.add_page(page(&[(1, Coding::Zero, 0), (2, Coding::Zero, 0), (3, Coding::Zero, 0)]));
    let next = |blocks: &mut Blocks| match jobs(blocks).pop() {
        Some(ReceiverJob::Zero { first, .. }) => Some(first.0),
        _ => None,
    };
    assert_eq!(next(&mut blocks), Some(3));
    while blocks.next_check().is_some() {}
    blocks.checked(BlockIndex(1), true);
    assert_eq!((next(&mut blocks), blocks.verified()), (None, 1));
    blocks.checked(BlockIndex(2), false);
    assert_eq!(next(&mut blocks), Some(2));
}

/// Symbols may arrive before it is known how a block is coded, and after.
#[test]
fn a_compressed_block_is_whole_with_its_own_number_of_symbols() {
    let mut rng = fastrand::Rng::with_seed(3);
    let plain: Vec<u8> = (0..2048).map(|_| rng.u8(..) & 3).collect();
    let (recipe, packed) = pack::choose(&plain, T, Some(3));
    let (packed, k) = (packed.unwrap(), recipe.coded.k);
    assert!((2..K).contains(&k), "{k}");
    let symbol = |id: u32| match id {
        id if id < k => packed[id as usize * 256..][..256].to_vec(),
        id if id < K => vec![9; 256],
        id => repair_once(&packed, T, id - (K - k), 1),
    };
    for (before, after) in [
        ((0..k).collect::<Vec<u32>>(), vec![]),
        (vec![], (0..k).collect()),
        // One is lost, and a repair symbol comes for it, before and after the page.
        ((1..k).chain([K]).collect(), vec![]),
        ((1..k).collect(), vec![K + 5]),
        // Somebody forges what there is not.
        ((1..k).chain([K - 1]).collect(), vec![K - 1, 0]),
    ] {
        let mut blocks = blocks();
        let mut stored = None;
        for id in before {
            stored = stored.or(blocks.add(BlockIndex(0), Esi(id), &symbol(id)).1);
        }
        assert!(stored.is_none());
        blocks.add_page(page(&[(0, Coding::Zstd, k)]));
        stored = jobs(&mut blocks).into_iter().find(|job| matches!(job, ReceiverJob::Store { .. }));
        for id in after {
            stored = stored.or(blocks.add(BlockIndex(0), Esi(id), &symbol(id)).1);
        }
        let Some(ReceiverJob::Store { mut assembly, expected, .. }) = stored else { panic!("{stored:?}") };
        assert_eq!((expected, assembly.coding()), (Some(value(0)), Coding::Zstd));
        // A repair symbol instead of a source symbol may not suffice.
        if assembly.complete(&PlanCache::default()).is_ok() {
            let mut unpacked = vec![0; 2048];
            assert!(pack::unpack(assembly.packed(), &mut unpacked) && unpacked == plain);
        }
    }
}

#[test]
fn a_page_that_cannot_be_is_ignored() {
    for wrong in [
        (1, Coding::Raw, K - 1),
        (1, Coding::Short, K),
        (1, Coding::Zstd, K + 1),
        (1, Coding::Zstd, 0),
        (1, Coding::Zero, 1),
    ] {
        let mut blocks = blocks();
        blocks.add_page(page(&[wrong]));
        assert_eq!(blocks.missing_pages(32), [(0, 1)], "{wrong:?}");
        blocks.add_page(page(&[]));
        assert_eq!(blocks.missing_pages(32), []);
        // The first page counts.
        blocks.add_page(page(&[(1, Coding::Zero, 0)]));
        assert!(!blocks.is_zero(1));
    }
}

#[test]
fn zeros_have_their_turn_in_a_pipe_without_a_buffer() {
    let layout = Layout::new(u64::from(BLOCKS) << 11, 11, T).unwrap();
    let mut blocks = Blocks::new(layout, 4 << 11).for_intake(Intake::InOrder);
    blocks.add_page(page(&(1..32).map(|block| (block, Coding::Zero, 0)).collect::<Vec<_>>()));
    for job in jobs(&mut blocks) {
        let ReceiverJob::Zero { first, values, .. } = job else { panic!("{job:?}") };
        blocks.zeroed(first, values.len() as u32, None);
    }
    assert_eq!((blocks.verified(), blocks.next_write().is_none()), (31, true));
    let job = (0..K).filter_map(|id| blocks.add(BlockIndex(0), Esi(id), &[1; T as usize]).1).next();
    let Some(ReceiverJob::Store { assembly, .. }) = job else { panic!() };
    blocks.stored(BlockIndex(0), value(0), assembly.into_block());
    for block in 0..32 {
        let Some(ReceiverJob::Write { block: BlockIndex(b), buffer, zeros, .. }) = blocks.next_write() else {
            panic!("{block}")
        };
        assert_eq!((b, buffer.is_some(), zeros), (block, block == 0, block > 0));
        blocks.written(BlockIndex(b), buffer);
    }
    assert_eq!((blocks.room(), blocks.free_buffers()), (36, 4));
}
