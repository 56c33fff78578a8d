//! What is counted: each workload is done a number of times.

use super::pair::transfer;
use mcp::fec::{self, BlockAssembly, Buffer, Encoder, PlanCache};
use mcp::layout::Layout;
use mcp::limits::DEFAULT_SYMBOL_SIZE;
use mcp::units::{BlockIndex, ChannelId, Esi, SessionId};
use mcp::wire::{Deficit, Header, Message, Nak, PacketNumber, decode_plain, encode_plain, symbol_head};
use std::hint::black_box;

/// Source symbols of a block of 1 MiB.
const K: u32 = 745;
const SYMBOL: usize = DEFAULT_SYMBOL_SIZE as usize;
const HEADER: Header =
    Header { session: SessionId(1), packet_number: PacketNumber::new(ChannelId::GROUP, 1) };

/// Work whose instructions are counted.
pub struct Workload {
    pub name: &'static str,
    pub run: fn(),
    /// The function below which callgrind counts.
    pub below: &'static str,
}

/// All of them.
pub static ALL: [Workload; 9] = [
    Workload { name: "encode-block", run: encode, below: COUNTED },
    Workload { name: "repair-8", run: repair_few, below: COUNTED },
    Workload { name: "decode-0-of-745", run: || decode(0), below: COUNTED },
    Workload { name: "decode-8-of-745", run: || decode(8), below: COUNTED },
    Workload { name: "decode-100-of-745", run: || decode(100), below: COUNTED },
    Workload { name: "wire-codec", run: codec, below: COUNTED },
    Workload { name: "send-4-mib", run: || _ = transfer(4096, 1, 0), below: "sender_step" },
    Workload { name: "receive-4-mib", run: || _ = transfer(4096, 1, 0), below: "device_step" },
    Workload { name: "receive-2-mib-at-3-1%-lost", run: || _ = transfer(2048, 3, 100), below: "device_step" },
];

/// What is counted of a workload that is prepared before.
const COUNTED: &str = "counted";

#[inline(never)]
fn counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

fn block() -> Vec<u8> {
    let mut bytes = vec![0; K as usize * SYMBOL];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

/// Intermediate symbols of a block, and 50 repair symbols from them.
fn encode() {
    let (block, plans) = (block(), PlanCache::default());
    let encode = || Encoder::new(&block, DEFAULT_SYMBOL_SIZE, &plans).repair(K, 50);
    // The first one makes the plan.
    encode();
    counted(encode);
}

/// 8 repair symbols of a block that was not encoded yet.
fn repair_few() {
    let (block, plans) = (block(), PlanCache::default());
    let repair = || fec::repair(&block, DEFAULT_SYMBOL_SIZE, K, 8, &plans);
    repair();
    counted(repair);
}

/// A block whose first symbols are lost, with as many repair symbols and two more.
fn decode(lost: u32) {
    let (block, plans) = (block(), PlanCache::default());
    let layout = Layout::new(block.len() as u64, 24, DEFAULT_SYMBOL_SIZE).expect("a valid layout");
    let repair = Encoder::new(&block, DEFAULT_SYMBOL_SIZE, &plans).repair(K, lost + 2);
    let count = if lost == 0 { 0 } else { lost as usize + 2 };
    let decode = || {
        let mut assembly = BlockAssembly::new(&layout, BlockIndex(0));
        assembly.attach(Buffer::default());
        for id in lost..K {
            assembly.add(Esi(id), &block[layout.symbol_range(BlockIndex(0), Esi(id))]);
        }
        for (id, symbol) in (K..).zip(repair.chunks(SYMBOL)).take(count) {
            assembly.add(Esi(id), symbol);
        }
        assert!(assembly.complete(&plans).is_ok(), "the block is decoded");
        assembly
    };
    decode();
    counted(decode);
}

/// A hundred symbols, and a NAK of twenty blocks, in both directions.
fn codec() {
    let payload = [0x5a; SYMBOL];
    let missing = (0..7).map(|i| (100 * i + 5, 1)).collect::<Vec<_>>();
    let deficit = |block| Deficit::Symbols { block: BlockIndex(block), symbols: 7, missing: missing.clone() };
    let nak = Message::Nak(Nak {
        round: 1,
        largest_received: PacketNumber::new(ChannelId::GROUP, 1_000_000),
        ack_delay_us: 300,
        incomplete: 1000,
        pages: Vec::new(),
        deficits: (0..20).map(deficit).collect(),
    });
    counted(|| {
        for id in 0..100 {
            let bytes = [&symbol_head(HEADER, BlockIndex(5), Esi(id))[..], &payload].concat();
            assert!(decode_plain(black_box(&bytes)).is_ok());
        }
        assert!(decode_plain(black_box(&encode_plain(HEADER, &nak))).is_ok());
    });
}
