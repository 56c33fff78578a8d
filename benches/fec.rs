//! Encoding, decoding and hashing of blocks: `cargo bench --bench fec`.
//!
//! Throughput is that of the block's bytes, so that the figures compare with a line rate.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mcp::crypto::digest;
use mcp::fec::{Added, BlockAssembly, Buffer, Encoder, PlanCache};
use mcp::layout::Layout;
use mcp::limits::{DEFAULT_BLOCK_LOG2, DEFAULT_SYMBOL_SIZE};
use mcp::units::{BlockIndex, SymbolId};

/// Source symbols of a block: small, the usual 1 MiB, and the usual 16 MiB.
const KS: [u32; 3] = [64, 745, 11_916];
/// Lost symbols per thousand.
const LOSSES: [u32; 7] = [0, 1, 10, 20, 30, 50, 500];

fn main() {
    divan::main();
}

fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

fn block(k: u32) -> Vec<u8> {
    bytes(k as usize * usize::from(DEFAULT_SYMBOL_SIZE))
}

/// A new encoder, with the plan in the cache.
#[divan::bench(args = KS)]
fn encode(bencher: Bencher, k: u32) {
    let (block, plans) = (block(k), PlanCache::default());
    drop(Encoder::new(&block, DEFAULT_SYMBOL_SIZE, &plans));
    bencher
        .counter(BytesCount::of_slice(&block))
        .bench(|| Encoder::new(black_box(&block), DEFAULT_SYMBOL_SIZE, &plans));
}

/// A new encoder that has to make its plan.
#[divan::bench(args = [64, 745], sample_count = 20)]
fn encode_without_a_plan(bencher: Bencher, k: u32) {
    let block = block(k);
    bencher
        .counter(BytesCount::of_slice(&block))
        .bench(|| Encoder::new(black_box(&block), DEFAULT_SYMBOL_SIZE, &PlanCache::default()));
}

/// A hundred repair symbols; throughput is that of the symbols.
#[divan::bench(args = KS)]
fn repair(bencher: Bencher, k: u32) {
    let encoder = Encoder::new(&block(k), DEFAULT_SYMBOL_SIZE, &PlanCache::default());
    bencher
        .counter(BytesCount::new(100 * usize::from(DEFAULT_SYMBOL_SIZE)))
        .bench(|| encoder.repair(black_box(k + 1000), 100));
}

fn decode_block(bencher: Bencher, k: u32, loss: u32) {
    let (block, plans) = (block(k), PlanCache::default());
    let layout = Layout::new(block.len() as u64, 24, DEFAULT_SYMBOL_SIZE).expect("a valid layout");
    let lost = if loss == 0 { 0 } else { (k * loss / 1000).max(1) };
    // One symbol more than lost, as a try may fail without.
    let repair = Encoder::new(&block, DEFAULT_SYMBOL_SIZE, &plans).repair(k, lost + 1);
    let received = || {
        let mut rng = fastrand::Rng::with_seed(u64::from(loss));
        let mut ids: Vec<u32> = (0..k).collect();
        rng.shuffle(&mut ids);
        let mut assembly = BlockAssembly::new(&layout, BlockIndex(0));
        assembly.attach(Buffer::default());
        for &id in &ids[lost as usize..] {
            let symbol = &block[layout.symbol_range(BlockIndex(0), SymbolId(id))];
            assert_eq!(assembly.add(SymbolId(id), symbol), Added::New);
        }
        for (id, symbol) in (k..).zip(repair.chunks(usize::from(DEFAULT_SYMBOL_SIZE))) {
            assembly.add(SymbolId(id), symbol);
        }
        assembly
    };
    bencher.counter(BytesCount::of_slice(&block)).with_inputs(received).bench_local_values(|mut assembly| {
        // A failed try (one in hundreds) has cost as much as one that succeeds.
        let _ = black_box(assembly.complete(&plans));
        assembly
    });
}

/// Completing a block of 1 MiB, by symbols lost per thousand.
#[divan::bench(args = LOSSES)]
fn decode(bencher: Bencher, loss: u32) {
    decode_block(bencher, 745, loss);
}

/// Completing a small block with one symbol in a hundred lost.
#[divan::bench]
fn decode_small(bencher: Bencher) {
    decode_block(bencher, 64, 10);
}

/// Completing a block of 16 MiB with one symbol in a hundred lost.
#[divan::bench(sample_count = 10)]
fn decode_large(bencher: Bencher) {
    decode_block(bencher, 11_915, 10);
}

/// Chaining values of eight blocks and their root.
#[divan::bench(args = [16, DEFAULT_BLOCK_LOG2, 22])]
fn hash(bencher: Bencher, block_log2: u8) {
    let object = bytes(8 << block_log2);
    bencher.counter(BytesCount::of_slice(&object)).bench(|| {
        let values: Vec<_> = black_box(&object)
            .chunks(1 << block_log2)
            .enumerate()
            .map(|(i, block)| digest::chaining_value((i as u64) << block_log2, block, object.len() as u64))
            .collect();
        digest::root(&values)
    });
}
