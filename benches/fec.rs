//! Encoding, decoding and hashing of blocks: `cargo bench --bench fec`.
//!
//! Throughput is that of the block's bytes, so that the figures compare with a line rate.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mcp::crypto::digest;
use mcp::fec::{Added, BlockAssembly, Buffer, Encoder, PlanCache};
use mcp::layout::Layout;
use mcp::limits::{DEFAULT_BLOCK_LOG2, DEFAULT_SYMBOL_SIZE};
use mcp::units::{BlockIndex, Esi};
use std::fmt;

/// Source symbols of a block: small, the usual 1 MiB, and the usual 16 MiB.
const KS: [u32; 3] = [64, 745, 11_916];
/// Those that are decoded. The last symbol of the largest would be one too many for 16 MiB.
const DECODED: [u32; 3] = [64, 745, 11_915];
/// Lost symbols per thousand.
const LOSSES: [u32; 6] = [0, 1, 10, 20, 50, 500];
/// Lost symbols, few of them.
const FEW: [u32; 8] = [1, 2, 4, 8, 16, 17, 32, 64];
/// Bytes that are hashed at a time: a datagram's, and longer runs.
const CHUNKS: [usize; 4] = [1400, 16 << 10, 64 << 10, 1 << 20];

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

/// Completing a block of `k` source symbols of which `lost` were lost.
fn complete(bencher: Bencher, k: u32, lost: u32) {
    let (block, plans) = (block(k), PlanCache::default());
    let layout = Layout::new(block.len() as u64, 24, DEFAULT_SYMBOL_SIZE).expect("a valid layout");
    // One symbol more than lost, as a try may fail without.
    let repair = Encoder::new(&block, DEFAULT_SYMBOL_SIZE, &plans).repair(k, lost + 1);
    let received = || {
        let mut rng = fastrand::Rng::with_seed(u64::from(lost));
        let mut ids: Vec<u32> = (0..k).collect();
        rng.shuffle(&mut ids);
        let mut assembly = BlockAssembly::new(&layout, BlockIndex(0));
        assembly.attach(Buffer::default());
        for &id in &ids[lost as usize..] {
            let symbol = &block[layout.symbol_range(BlockIndex(0), Esi(id))];
            assert_eq!(assembly.add(Esi(id), symbol), Added::New);
        }
        for (id, symbol) in (k..).zip(repair.chunks(usize::from(DEFAULT_SYMBOL_SIZE))) {
            assembly.add(Esi(id), symbol);
        }
        assembly
    };
    bencher.counter(BytesCount::of_slice(&block)).with_inputs(received).bench_local_values(|mut assembly| {
        // A failed try (one in hundreds) has cost as much as one that succeeds.
        let _ = black_box(assembly.complete(&plans));
        assembly
    });
}

/// Source symbols and how many of them a block loses.
struct Lost {
    k: u32,
    lost: u32,
    /// How many it is, for people.
    text: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.k, self.text)
    }
}

/// By share, where that makes a symbol.
fn shares() -> impl Iterator<Item = Lost> {
    let all = DECODED.iter().flat_map(|&k| LOSSES.map(|loss| (k, loss)));
    all.filter(|(k, loss)| *loss == 0 || k * loss >= 1000).map(|(k, loss)| Lost {
        k,
        lost: k * loss / 1000,
        text: format!("{:.1} %", f64::from(loss) / 10.0),
    })
}

/// By number.
fn few() -> impl Iterator<Item = Lost> {
    DECODED.iter().flat_map(|&k| FEW.map(|lost| Lost { k, lost, text: lost.to_string() }))
}

/// Completing a block, by K and the share of its symbols that were lost.
#[divan::bench(args = shares(), sample_count = 20)]
fn decode(bencher: Bencher, lost: &Lost) {
    complete(bencher, lost.k, lost.lost);
}

/// Completing a block that lost few symbols, by K and their number: up to 16 the syndromes are decoded
/// in the place of the whole block.
#[divan::bench(args = few(), sample_count = 20)]
fn decode_few(bencher: Bencher, lost: &Lost) {
    complete(bencher, lost.k, lost.lost);
}

/// Chaining values of eight blocks and their root, by the block's size.
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

/// Hashing 16 MiB a chunk at a time.
#[divan::bench(args = CHUNKS)]
fn hash_in_chunks(bencher: Bencher, chunk: usize) {
    let object = bytes(16 << 20);
    bencher.counter(BytesCount::of_slice(&object)).bench(|| {
        let mut hasher = blake3::Hasher::new();
        for chunk in black_box(&object).chunks(chunk) {
            hasher.update(chunk);
        }
        hasher.finalize()
    });
}
