//! The cost of the wire codec: `cargo bench --bench codec`.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mcp::limits::{DEFAULT_SYMBOL_SIZE, MAX_CONTROL};
use mcp::units::{BlockIndex, ChannelId, Esi, SessionId};
use mcp::wire::{
    Deficit, Header, Message, Nak, PacketNumber, Symbol, decode_plain, encode_plain, symbol_head,
};

fn main() {
    divan::main();
}

const HEADER: Header =
    Header { session: SessionId(1), packet_number: PacketNumber::new(ChannelId::GROUP, 1) };

/// A NAK of maximal length, as a device under 1 % loss sends it.
fn full_nak() -> Message<'static> {
    let mut nak = Nak {
        round: 1,
        largest_received: PacketNumber::new(ChannelId::GROUP, 1_000_000),
        ack_delay_us: 300,
        incomplete: 1000,
        pages: Vec::new(),
        deficits: Vec::new(),
    };
    for block in 0.. {
        let missing = (0..7).map(|i| (100 * i + 5, 1)).collect();
        let deficit = Deficit::Symbols { block: BlockIndex(block), symbols: 7, missing };
        if nak.encoded_len() + deficit.encoded_len() > MAX_CONTROL {
            break;
        }
        nak.deficits.push(deficit);
    }
    nak.into()
}

#[divan::bench]
fn symbol_head_encode() -> [u8; 28] {
    symbol_head(black_box(HEADER), black_box(BlockIndex(5)), black_box(Esi(77)))
}

#[divan::bench]
fn symbol_encode(bencher: Bencher<'_, '_>) {
    let payload = vec![0x5a; DEFAULT_SYMBOL_SIZE.into()];
    let symbol = Symbol { block: BlockIndex(5), esi: Esi(77), payload: &payload };
    let message = symbol.into();
    bencher.counter(BytesCount::new(payload.len())).bench(|| encode_plain(HEADER, black_box(&message)));
}

#[divan::bench]
fn symbol_decode(bencher: Bencher<'_, '_>) {
    let payload = vec![0x5a; DEFAULT_SYMBOL_SIZE.into()];
    let bytes = [&symbol_head(HEADER, BlockIndex(5), Esi(77))[..], &payload].concat();
    bencher.counter(BytesCount::new(bytes.len())).bench(|| decode_plain(black_box(&bytes)).is_ok());
}

#[divan::bench]
fn full_nak_encode(bencher: Bencher<'_, '_>) {
    let nak = full_nak();
    bencher.bench(|| encode_plain(HEADER, black_box(&nak)));
}

#[divan::bench]
fn full_nak_decode(bencher: Bencher<'_, '_>) {
    let bytes = encode_plain(HEADER, &full_nak());
    bencher.counter(BytesCount::new(bytes.len())).bench(|| decode_plain(black_box(&bytes)).is_ok());
}
