//! Encoding, decoding and hashing of blocks: `cargo bench --bench fec`.
//!
//! Throughput counts the block's bytes, so the figures compare with a line rate.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mcp::crypto::digest;
use mcp::fec::{self, Added, BlockAssembly, Buffer, Encoder, PlanCache};
use mcp::layout::Layout;
use mcp::limits::{DEFAULT_BLOCK_LOG2, DEFAULT_SYMBOL_SIZE};
use mcp::units::{BlockIndex, Esi, Extent};
use std::fmt;

/// Source symbols of a block: a small one, the usual one of 1 MiB, and one of 16 MiB.
const KS: [u32; 3] = [64, 745, 11_916];
/// Block sizes for decoding. In the largest block, the last symbol would exceed 16 MiB.
const DECODED: [u32; 3] = [64, 745, 11_915];
/// Lost symbols per thousand.
const LOSSES: [u32; 6] = [0, 1, 10, 20, 50, 500];
/// Small numbers of lost symbols.
const FEW: [u32; 9] = [1, 2, 4, 8, 16, 24, 32, 64, 65];
/// Sizes of hashed chunks in bytes: a datagram, and longer runs.
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

/// A hundred repair symbols. Throughput counts the symbols' bytes.
#[divan::bench(args = KS)]
fn repair(bencher: Bencher, k: u32) {
    let encoder = Encoder::new(&block(k), DEFAULT_SYMBOL_SIZE, &PlanCache::default());
    bencher
        .counter(BytesCount::new(100 * usize::from(DEFAULT_SYMBOL_SIZE)))
        .bench(|| encoder.repair(black_box(k + 1000), 100));
}

/// A few repair symbols of a block that was not encoded yet, with the plan in the cache.
#[divan::bench(args = [1, 4, 8, 16, 32, 48, 49])]
fn repair_few(bencher: Bencher, count: u32) {
    let (block, plans) = (block(745), PlanCache::default());
    drop(fec::repair(&block, DEFAULT_SYMBOL_SIZE, 745, 1, &plans));
    bencher
        .counter(BytesCount::of_slice(&block))
        .bench(|| fec::repair(black_box(&block), DEFAULT_SYMBOL_SIZE, 1000, count, &plans));
}

/// Completes a block of `k` source symbols with `lost` of them lost.
fn complete(bencher: Bencher, k: u32, lost: u32) {
    let (block, plans) = (block(k), PlanCache::default());
    let layout = Layout::new(block.len() as u64, 24, DEFAULT_SYMBOL_SIZE).expect("a valid layout");
    // One symbol more than lost, because an attempt without it may fail.
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
        // A failed attempt (one in hundreds) costs as much as a successful one.
        let _ = black_box(assembly.complete(&plans));
        assembly
    });
}

/// The numbers of source symbols and of lost symbols of a block.
struct Lost {
    k: u32,
    lost: u32,
    /// The loss, for people.
    text: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.k, self.text)
    }
}

/// Losses by share, if the share is at least one symbol.
fn shares() -> impl Iterator<Item = Lost> {
    let all = DECODED.iter().flat_map(|&k| LOSSES.map(|loss| (k, loss)));
    all.filter(|(k, loss)| *loss == 0 || k * loss >= 1000).map(|(k, loss)| Lost {
        k,
        lost: k * loss / 1000,
        text: format!("{:.1} %", f64::from(loss) / 10.0),
    })
}

/// Losses by number.
fn few() -> impl Iterator<Item = Lost> {
    DECODED.iter().flat_map(|&k| FEW.map(|lost| Lost { k, lost, text: lost.to_string() }))
}

/// Completes a block, by K and the share of lost symbols.
#[divan::bench(args = shares(), sample_count = 20)]
fn decode(bencher: Bencher, lost: &Lost) {
    complete(bencher, lost.k, lost.lost);
}

/// Completes a block with few lost symbols, by K and their number. With few losses the decoder solves the
/// syndromes instead of the whole block.
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
            .map(|(i, block)| {
                digest::chaining_value((i as u64) << block_log2, block, Extent::sealed(object.len() as u64))
            })
            .collect();
        digest::root(&values)
    });
}

/// Hashes 16 MiB in chunks of this size.
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
