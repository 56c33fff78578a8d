//! What one NAK summary costs the sender's thread, whatever it names: `cargo bench --bench planner`.

use divan::{Bencher, black_box};
use mcp::limits::{MAX_CONTROL, MAX_SOURCE_SYMBOLS};
use mcp::protocol::sender::planned_symbols;
use mcp::ranges::BitSet;
use mcp::units::{BlockIndex, ChannelId};
use mcp::wire::{Deficit, Nak, PacketNumber};

fn main() {
    divan::main();
}

/// Blocks of an object, and source symbols of each: the usual ones, and the largest there may be.
const OBJECTS: [(u32, u32); 2] = [(6_144, 745), (6_144, MAX_SOURCE_SYMBOLS)];
/// Blocks that one summary may name as wholly missing.
const WHOLE: u32 = 1024;

fn nak(deficits: Vec<Deficit>) -> Nak {
    let largest_received = PacketNumber::new(ChannelId::GROUP, 1_000_000);
    Nak { round: 1, largest_received, ack_delay_us: 300, incomplete: 1000, pages: Vec::new(), deficits }
}

/// Nothing of the object has arrived.
#[divan::bench(args = OBJECTS)]
fn nak_of_whole_blocks(bencher: Bencher<'_, '_>, (blocks, k): (u32, u32)) {
    let nak = nak(vec![Deficit::Whole { first: BlockIndex(0), count: blocks }]);
    bencher.bench(|| planned_symbols(black_box(std::slice::from_ref(&nak)), blocks, k));
}

/// As many blocks as fit in a datagram, each with nearly all of its symbols named in one run.
#[divan::bench(args = OBJECTS)]
fn nak_of_long_runs(bencher: Bencher<'_, '_>, (blocks, k): (u32, u32)) {
    let symbols = u16::try_from(k - 1).expect("a run");
    let mut nak = nak(Vec::new());
    for block in 0.. {
        let deficit = Deficit::Symbols { block: BlockIndex(block), symbols, missing: vec![(1, symbols)] };
        if nak.encoded_len() + deficit.encoded_len() > MAX_CONTROL {
            break;
        }
        nak.deficits.push(deficit);
    }
    bencher.bench(|| planned_symbols(black_box(std::slice::from_ref(&nak)), blocks, k));
}

/// For comparison: marking each symbol of so many blocks one by one.
#[divan::bench(args = OBJECTS)]
fn marking_each_symbol(bencher: Bencher<'_, '_>, (_, k): (u32, u32)) {
    bencher.bench(|| {
        (0..WHOLE)
            .map(|_| {
                let mut set = BitSet::new(black_box(k));
                (0..k).for_each(|id| {
                    set.insert(id);
                });
                set.count()
            })
            .max()
    });
}
