use super::codec::decode;
use super::*;
use crate::layout::Layout;
use crate::limits::{MAX_ESI, MAX_EXTRA_SYMBOLS, MAX_PLANS};
use crate::units::{BlockIndex, Esi};
use fastrand::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

const T: u16 = 64;
const ONLY: BlockIndex = BlockIndex(0);

/// Runs `test` with each seed, and names the seed of a failure.
fn for_seeds(seeds: u64, test: impl Fn(&mut Rng)) {
    for seed in 0..seeds {
        let run = AssertUnwindSafe(|| test(&mut Rng::with_seed(seed)));
        if let Err(panic) = catch_unwind(run) {
            match panic.downcast_ref::<String>() {
                Some(text) => panic!("seed {seed}: {text}"),
                None => resume_unwind(panic),
            }
        }
    }
}

/// A block and its encoder.
struct Block {
    bytes: Vec<u8>,
    encoder: Encoder,
    layout: Layout,
    k: u32,
}

impl Block {
    fn new(len: usize, plans: &PlanCache, rng: &mut Rng) -> Self {
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes);
        let layout = Layout::new(len as u64, 20, T).unwrap();
        Self { encoder: Encoder::new(&bytes, T, plans), k: layout.source_symbols(ONLY), bytes, layout }
    }

    /// A block of K symbols; the last one may be short.
    fn of_symbols(k: u32, plans: &PlanCache, rng: &mut Rng) -> Self {
        let cut = if rng.bool() { 0 } else { rng.usize(1..usize::from(T)) };
        Self::new(k as usize * usize::from(T) - cut, plans, rng)
    }

    fn symbol(&self, id: u32) -> Vec<u8> {
        if id < self.k {
            self.bytes[self.layout.symbol_range(ONLY, Esi(id))].to_vec()
        } else {
            self.encoder.repair(id, 1)
        }
    }

    fn assembly(&self) -> BlockAssembly {
        BlockAssembly::new(&self.layout, ONLY)
    }

    fn add(&self, assembly: &mut BlockAssembly, id: u32) -> Added {
        assembly.add(Esi(id), &self.symbol(id))
    }
}

/// A buffer with contents from an earlier use.
fn dirty() -> Buffer {
    let mut buffer = Buffer::default();
    buffer.set_len(100_000);
    buffer.fill(0xaa);
    buffer
}

fn spill(assembly: &mut BlockAssembly, file: &mut [u8]) -> Buffer {
    for (offset, bytes) in assembly.spans_to_spill() {
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    assembly.mark_spilled()
}

fn restore(assembly: &mut BlockAssembly, file: &[u8]) {
    if !assembly.has_buffer() {
        assembly.attach(dirty());
    }
    for (offset, len) in assembly.spilled_runs() {
        assembly.buffer_mut()[offset..offset + len].copy_from_slice(&file[offset..offset + len]);
    }
    assembly.mark_restored();
}

fn check_counts(assembly: &BlockAssembly, k: u32) {
    let missing: u32 = assembly.missing().iter().map(|run| run.1).sum();
    assert_eq!(assembly.held(), k - missing + assembly.held_repair());
    if assembly.held() < k {
        assert!(assembly.deficit() >= k - assembly.held());
    }
}

/// Adds symbols in this order until there are enough, then completes. Continues after a failed attempt.
fn fill(block: &Block, assembly: &mut BlockAssembly, ids: &[u32], plans: &PlanCache) -> bool {
    for &id in ids {
        let (held, deficit) = (assembly.held(), assembly.deficit());
        assert_eq!(block.add(assembly, id), Added::New, "id {id}");
        assert_eq!((assembly.held(), assembly.deficit()), (held + 1, deficit - 1));
        assert_eq!(block.add(assembly, id), Added::Duplicate);
        check_counts(assembly, block.k);
        if assembly.deficit() == 0 {
            let held = assembly.held();
            match assembly.complete(plans) {
                Ok(()) => return true,
                Err(error) => {
                    assert_eq!(error, Undecodable { block: ONLY, deficit: 1 });
                    assert_eq!((assembly.held(), assembly.deficit()), (held, 1));
                }
            }
        }
    }
    false
}

#[test]
fn any_loss_is_mended() {
    let plans = PlanCache::default();
    for_seeds(300, |rng| {
        let k = rng.choice([1, 2, 10, 64, 65]).unwrap();
        any_loss(k, rng, &plans);
    });
    for_seeds(15, |rng| any_loss(745, rng, &plans));
}

fn any_loss(k: u32, rng: &mut Rng, plans: &PlanCache) {
    let block = Block::of_symbols(k, plans, rng);
    let loss = rng.f64();
    let mut ids: Vec<u32> = (0..k).filter(|_| rng.f64() > loss).collect();
    let first = rng.u32(k..1000 + k);
    ids.extend(first..first + k + 10);
    if rng.bool() {
        rng.shuffle(&mut ids);
    }
    let mut assembly = block.assembly();
    assembly.attach(dirty());
    assert!(fill(&block, &mut assembly, &ids, plans));
    assert_eq!(assembly.bytes(), block.bytes);
    assert!(assembly.missing().is_empty());
    assert_eq!((assembly.deficit(), assembly.held_repair()), (0, 0));
    assert_eq!(assembly.take_buffer()[..block.bytes.len()], block.bytes);
}

#[test]
fn repair_symbols_alone_suffice() {
    let plans = PlanCache::default();
    for k in [1, 2, 10, 64, 745] {
        for cut in [0, 1, 63] {
            let block = Block::new(k as usize * 64 - cut, &plans, &mut Rng::with_seed(1));
            let mut assembly = block.assembly();
            assembly.attach(Buffer::default());
            let last = MAX_ESI - k - 5;
            let ids: Vec<u32> = (last..=MAX_ESI).rev().collect();
            assert!(fill(&block, &mut assembly, &ids, &plans), "k {k} cut {cut}");
            assert_eq!(assembly.bytes(), block.bytes, "k {k} cut {cut}");
        }
    }
}

#[test]
fn source_symbols_alone_need_no_decoding() {
    let plans = PlanCache::default();
    let block = Block::new(10 * 64 - 1, &plans, &mut Rng::with_seed(1));
    let mut assembly = block.assembly();
    assembly.attach(dirty());
    // A forged repair symbol would spoil the decoding.
    assert_eq!(assembly.add(Esi(99), &[7; 64]), Added::New);
    for id in 0..10 {
        assert_eq!(assembly.deficit(), 9 - id);
        assert_eq!(block.add(&mut assembly, id), if id < 9 { Added::New } else { Added::NoRoom });
    }
    assert_eq!(assembly.missing(), [(9, 1)]);
    assembly.reset();
    assert_eq!((assembly.held(), assembly.deficit(), assembly.missing()), (0, 10, vec![(0, 10)]));
    for id in (0..10).rev() {
        assert_eq!(block.add(&mut assembly, id), Added::New);
    }
    assert_eq!(assembly.complete(&plans), Ok(()));
    assert_eq!(assembly.bytes(), block.bytes);
}

#[test]
fn spills_lose_nothing() {
    let plans = PlanCache::default();
    for_seeds(500, |rng| {
        let k = rng.choice([1, 2, 3, 10, 64]).unwrap();
        spills(k, rng, &plans);
    });
    for_seeds(15, |rng| spills(745, rng, &plans));
}

fn spills(k: u32, rng: &mut Rng, plans: &PlanCache) {
    let block = Block::of_symbols(k, plans, rng);
    // The file is as long as the block: writing past its end would panic.
    let mut file = vec![0x55; block.bytes.len()];
    let mut assembly = block.assembly();
    let mut ids: Vec<u32> = (0..2 * k + 20).collect();
    rng.shuffle(&mut ids);
    let chance = rng.f64() * 5.0 / f64::from(k);
    for &id in &ids {
        if rng.f64() < chance {
            let held = assembly.held();
            let buffer = spill(&mut assembly, &mut file);
            assert!(!assembly.has_buffer());
            assert_eq!(assembly.held(), held);
            if rng.bool() {
                assembly.attach(buffer);
            }
        }
        if !assembly.has_buffer() {
            assert_ne!(block.add(&mut assembly, id), Added::New);
            assembly.attach(dirty());
        }
        let (held, deficit) = (assembly.held(), assembly.deficit());
        let added = block.add(&mut assembly, id);
        assert_eq!(assembly.held(), held + u32::from(added == Added::New));
        assert_ne!(added, Added::NoRoom);
        if added == Added::Duplicate {
            assert!(id < k && deficit == assembly.deficit());
            assert!(!assembly.missing().iter().any(|&(first, count)| (first..first + count).contains(&id)));
        }
        check_counts(&assembly, k);
        if assembly.deficit() == 0 {
            restore(&mut assembly, &file);
            if assembly.complete(plans).is_ok() {
                assert_eq!(assembly.bytes(), block.bytes);
                return;
            }
            assert_eq!(assembly.deficit(), 1);
        }
    }
    panic!("never complete: {assembly:?}");
}

#[test]
fn too_few_symbols_are_undecodable_and_stay() {
    let plans = PlanCache::default();
    let block = Block::new(640, &plans, &mut Rng::with_seed(1));
    let mut assembly = block.assembly();
    assert_eq!(assembly.complete(&plans), Err(Undecodable { block: ONLY, deficit: 10 }));
    assembly.attach(dirty());
    for id in 5..14 {
        assert_eq!(block.add(&mut assembly, id), Added::New);
    }
    for _ in 0..3 {
        let error = assembly.complete(&plans).unwrap_err();
        assert_eq!(error.deficit, 1);
        assert_eq!(error.to_string(), "block 0 cannot be decoded yet: it needs 1 more symbols");
        assert_eq!((assembly.held(), assembly.held_repair()), (9, 4));
    }
    assert_eq!(block.add(&mut assembly, 0), Added::New);
    assert_eq!(assembly.complete(&plans), Ok(()));
    assert_eq!(assembly.bytes(), block.bytes);
}

#[test]
fn a_failed_try_asks_for_one_more() {
    // At K = 10 about one set of K symbols in 250 cannot be decoded; search for one.
    let plans = PlanCache::default();
    let mut rng = Rng::with_seed(1);
    let block = Block::new(640 - 7, &plans, &mut rng);
    for _ in 0..5000 {
        let mut assembly = block.assembly();
        assembly.attach(Buffer::default());
        let first = rng.u32(10..MAX_ESI - 20);
        let symbols = block.encoder.repair(first, 12);
        let add = |assembly: &mut BlockAssembly, i: u32| {
            assembly.add(Esi(first + i), &symbols[i as usize * 64..][..64])
        };
        for i in 0..10 {
            assert_eq!(add(&mut assembly, i), Added::New);
        }
        assert_eq!(add(&mut assembly, 10), Added::NoRoom);
        if assembly.complete(&plans).is_ok() {
            continue;
        }
        assert_eq!((assembly.held(), assembly.deficit()), (10, 1));
        assert_eq!(add(&mut assembly, 10), Added::New);
        assert_eq!(add(&mut assembly, 11), Added::NoRoom);
        assert_eq!(assembly.complete(&plans), Ok(()));
        assert_eq!(assembly.bytes(), block.bytes);
        return;
    }
    panic!("no set of 10 symbols failed");
}

#[test]
fn a_source_symbol_moves_the_repair_symbol_in_its_slot() {
    let plans = PlanCache::default();
    let block = Block::new(4 * 64 - 1, &plans, &mut Rng::with_seed(1));
    let mut assembly = block.assembly();
    assembly.attach(dirty());
    // Repair symbols take slots 0 and 1. Source symbols 0 and 1 move them, to slot 2 and to the extras.
    for id in [20, 21, 0, 1] {
        assert_eq!(block.add(&mut assembly, id), Added::New);
    }
    assert_eq!((assembly.held(), assembly.held_repair(), assembly.extras.len()), (4, 2, 1));
    assert_eq!(assembly.missing(), [(2, 2)]);
    assert_eq!(assembly.complete(&plans), Ok(()));
    assert_eq!(assembly.bytes(), block.bytes);
}

#[test]
fn a_source_symbol_takes_the_place_of_a_spilled_repair_symbol() {
    let plans = PlanCache::default();
    let block = Block::new(256, &plans, &mut Rng::with_seed(1));
    let mut file = vec![0; 256];
    let mut assembly = block.assembly();
    assembly.attach(dirty());
    assert_eq!(block.add(&mut assembly, 21), Added::New);
    let buffer = spill(&mut assembly, &mut file);
    assert_eq!(assembly.spilled_runs(), [(0, 64)]);
    assembly.attach(buffer);
    assert_eq!(block.add(&mut assembly, 0), Added::Duplicate);
    assert_eq!((assembly.held(), assembly.held_repair()), (1, 0));
    assert_eq!(assembly.missing(), [(1, 3)]);
    assert!(assembly.spilled_runs().is_empty());
    // The forgotten symbol can be added again.
    assert_eq!(block.add(&mut assembly, 21), Added::New);
    assert_eq!(block.add(&mut assembly, 2), Added::New);
    let _ = spill(&mut assembly, &mut file);
    assert_eq!(assembly.spilled_runs(), [(0, 192)]);
    assembly.attach(Buffer::default());
    assert_eq!(block.add(&mut assembly, 3), Added::New);
    restore(&mut assembly, &file);
    assert_eq!(assembly.complete(&plans), Ok(()));
    assert_eq!(assembly.bytes(), block.bytes);
}

#[test]
fn extras_are_few_and_survive_a_spill() {
    let plans = PlanCache::default();
    let block = Block::new(2 * 64 - 1, &plans, &mut Rng::with_seed(1));
    let mut assembly = block.assembly();
    assembly.attach(dirty());
    assembly.needed = 1000;
    for id in 2..1000 {
        let room = id - 2 < 1 + MAX_EXTRA_SYMBOLS as u32;
        assert_eq!(block.add(&mut assembly, id), if room { Added::New } else { Added::NoRoom }, "{id}");
    }
    // There is no room to move the repair symbol either.
    assert_eq!(block.add(&mut assembly, 0), Added::NoRoom);
    assert_eq!(block.add(&mut assembly, 1), Added::New);
    let mut file = vec![0; 127];
    drop(spill(&mut assembly, &mut file));
    assert_eq!(assembly.held(), 18);
    assert_eq!(assembly.extras.len(), MAX_EXTRA_SYMBOLS);
    assembly.needed = 2;
    restore(&mut assembly, &file);
    assert_eq!(assembly.complete(&plans), Ok(()));
    assert_eq!(assembly.bytes(), block.bytes);
}

#[test]
fn taking_the_buffer_forgets_what_is_in_it() {
    let plans = PlanCache::default();
    let block = Block::new(640, &plans, &mut Rng::with_seed(1));
    let mut file = vec![0; 640];
    let mut assembly = block.assembly();
    assembly.attach(dirty());
    for id in [0, 30] {
        assert_eq!(block.add(&mut assembly, id), Added::New);
    }
    let buffer = spill(&mut assembly, &mut file);
    assembly.attach(buffer);
    for id in [5, 31] {
        assert_eq!(block.add(&mut assembly, id), Added::New);
    }
    assert_eq!(assembly.take_buffer().len(), 640);
    assert_eq!((assembly.held(), assembly.held_repair(), assembly.has_buffer()), (2, 1, false));
    assert_eq!(assembly.missing(), [(1, 9)]);
    assert!(assembly.take_buffer().is_empty() && assembly.bytes().is_empty());
    assert!(assembly.buffer_mut().is_empty() && assembly.mark_spilled().is_empty());
}

#[test]
fn nonsense_finds_no_room() {
    let plans = PlanCache::default();
    let block = Block::new(640 - 1, &plans, &mut Rng::with_seed(1));
    let mut assembly = block.assembly();
    assert_eq!(block.add(&mut assembly, 0), Added::NoRoom);
    assert_eq!(block.add(&mut assembly, MAX_ESI), Added::NoRoom);
    assembly.attach(Buffer::default());
    for (id, len) in [(0, 63), (0, 65), (0, 0), (9, 64), (9, 62), (10, 63), (MAX_ESI + 1, 64), (u32::MAX, 64)]
    {
        assert_eq!(assembly.add(Esi(id), &vec![0; len]), Added::NoRoom, "{id} {len}");
    }
    assert_eq!(assembly.held(), 0);
    // A block past the end of the object has no symbols.
    let mut none = BlockAssembly::new(&block.layout, BlockIndex(7));
    none.attach(dirty());
    assert_eq!(none.add(Esi(0), &[0; 64]), Added::NoRoom);
    assert_eq!((none.deficit(), none.complete(&plans), none.bytes().len()), (0, Ok(()), 0));
}

#[test]
fn both_ways_of_decoding_agree() {
    let plans = PlanCache::default();
    for_seeds(400, |rng| {
        let k = rng.choice([1, 2, 7, 30, 100]).unwrap();
        let block = Block::of_symbols(k, &plans, rng);
        let mut padded = block.bytes.clone();
        padded.resize(k as usize * 64, 0);
        let mut ids: Vec<u32> = (0..k).collect();
        rng.shuffle(&mut ids);
        let mut missing = ids.split_off((k - rng.u32(1..=k.min(few::MAX_MISSING))) as usize);
        missing.sort_unstable();
        // Sometimes too few symbols. At small K, the chance that exactly enough symbols fail is larger.
        let count = (missing.len() + rng.usize(0..3)).saturating_sub(1);
        let repair: Vec<(u32, Vec<u8>)> = (0..count)
            .map(|i| 100 + 1000 * i as u32 + rng.u32(0..1000))
            .map(|id| (id, block.symbol(id)))
            .collect();
        let repair: Vec<(u32, &[u8])> = repair.iter().map(|(id, symbol)| (*id, &symbol[..])).collect();
        let source = ids.iter().map(|id| (*id, &padded[*id as usize * 64..][..64]));
        let usual = decode(k, T, source.chain(repair.iter().copied()));
        let mut holes = padded.clone();
        missing.iter().for_each(|id| rng.fill(&mut holes[*id as usize * 64..][..64]));
        let quick = few::Holes { block: &holes, symbol_size: T, missing: &missing, repair: &repair };
        let quick = quick.decode(&plans);
        assert_eq!(quick.is_some(), usual.is_some());
        if let (Some(quick), Some(usual)) = (quick, usual) {
            assert_eq!(usual, padded);
            for (id, symbol) in missing.iter().zip(quick.chunks(64)) {
                assert_eq!(symbol, &padded[*id as usize * 64..][..64]);
            }
        }
    });
}

#[test]
fn forged_symbols_never_panic() {
    let plans = PlanCache::default();
    for_seeds(40, |rng| {
        let k = rng.u32(1..40);
        let block = Block::of_symbols(k, &plans, rng);
        let mut assembly = block.assembly();
        assembly.attach(dirty());
        for _ in 0..4 * k {
            let id = rng.u32(..) >> rng.u32(0..32);
            let mut payload = vec![0; if rng.bool() { 64 } else { rng.usize(0..80) }];
            rng.fill(&mut payload);
            let _ = assembly.add(Esi(id), &payload);
            let _ = assembly.complete(&plans);
        }
    });
    assert_eq!(decode(0, 64, std::iter::empty()), None);
    assert_eq!(decode(u32::MAX, 64, std::iter::empty()), None);
    assert_eq!(decode(1, 64, [(u32::MAX, &[0; 64][..]), (0, &[0; 63])].into_iter()), None);
}

#[test]
fn repair_ids_are_those_of_the_standard() {
    let plans = PlanCache::default();
    let block = Block::new(11 * 64, &plans, &mut Rng::with_seed(1));
    // The crate assigns encoding symbol ids to the packets; this code uses the same ids.
    let config = raptorq::ObjectTransmissionInformation::new(11 * 64, 64, 1, 1, 8);
    let theirs = raptorq::SourceBlockEncoder::new(0, &config, &block.bytes).repair_packets(3, 4);
    for (packet, ours) in theirs.iter().zip(block.encoder.repair(14, 4).chunks(64)) {
        assert_eq!(packet.data(), ours);
    }
    assert_eq!(theirs[0].payload_id().encoding_symbol_id(), 14);
    // Runs agree with single symbols, and end at the largest id.
    let run = block.encoder.repair(11, 20);
    for (id, symbol) in (11..).zip(run.chunks(64)) {
        assert_eq!(symbol, block.encoder.repair(id, 1));
    }
    assert_eq!(block.encoder.repair(MAX_ESI, 5).len(), 64);
    assert_eq!(block.encoder.repair(MAX_ESI + 1, u32::MAX).len(), 0);
    assert_eq!(block.encoder.repair(u32::MAX, 1).len(), 0);
    assert_eq!(block.encoder.repair(11, 0).len(), 0);
}

#[test]
fn plans_are_shared_and_bounded() {
    let plans = PlanCache::default();
    let most = MAX_PLANS as u32;
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let plans = &plans;
            scope.spawn(move || {
                for k in 1..=most {
                    let _ = Block::of_symbols(k, plans, &mut Rng::with_seed(seed));
                }
            });
        }
    });
    assert_eq!(plans.held().len(), MAX_PLANS);
    let mut rng = Rng::with_seed(9);
    for k in 1..=most {
        let _ = Block::of_symbols(k, &plans, &mut rng);
    }
    let _ = Block::of_symbols(1, &plans, &mut rng);
    let _ = Block::of_symbols(100, &plans, &mut rng);
    let mut expected: Vec<u16> = (3..=MAX_PLANS as u16).collect();
    expected.extend([1, 100]);
    assert_eq!(plans.held(), expected);
    assert_eq!(format!("{plans:?}"), format!("{expected:?}"));
}
