//! Bodies of the fuzz targets. `receiver`, `sender` and `layouts` (for the targets `announce` and `hash_page`) read
//! their input as a list of operations: datagrams, steps of time, results of jobs, controls. They drive one machine
//! with these, and check its invariants after each operation. When the input ends, they stop interfering, and the
//! machine must finish by itself (I5).
//!
//! The bodies live here rather than in `fuzz/`, so that `cargo test` replays the committed corpus.

pub mod corpus;
mod layouts;
mod packet_protection;
mod play;
mod receiver;
mod sender;

pub use layouts::{fuzz_announce, fuzz_hash_page};
pub use packet_protection::fuzz_packet_protection;
pub use receiver::fuzz_receiver;
pub use sender::fuzz_sender;

use crate::crypto::digest;
use crate::fec::{self, PlanCache};
use crate::layout::Layout;
use crate::pack::{self, Recipe};
use crate::units::{BlockIndex, Coded, Coding, Digest, Esi, Extent, SessionId, SymbolDigest};
use crate::wire::{self, Header, MessageKind, PacketNumber, decode_plain, encode_plain, peek};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const COUNTER: u64 = 0x6d63_f022;
const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1)), 7417);

/// The body of the fuzz target `datagram`.
///
/// # Panics
/// If `bytes` decode to a message that does not encode to the same bytes.
pub fn fuzz_datagram(bytes: &[u8]) {
    let Ok((header, message)) = decode_plain(bytes) else { return };
    let encoded = encode_plain(header, &message);
    if encoded.len() == bytes.len() {
        assert_eq!(encoded, bytes, "not canonical: {message:?}");
    } else {
        // The decoder ignored unknown extensions; the rest is the same.
        assert!(encoded.len() < bytes.len(), "not canonical: {message:?}");
        assert_eq!(decode_plain(&encoded), Ok((header, message.clone())));
    }
    assert_eq!(peek(bytes), Some((header, message.kind())));
}

/// The unread part of the input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    /// Reads a length byte and that many bytes, or fewer at the end of the input.
    fn run(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.u8()?).min(self.0.len());
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(head)
    }
}

/// Damage to the next valid datagram. Bytes change before it is signed or sealed, so the damage passes these checks.
#[derive(Default)]
struct Damage(Vec<(u16, u8)>);

impl Damage {
    fn add(&mut self, input: &mut Input<'_>) -> Option<()> {
        let change = (input.u16()?, input.u8()?);
        self.0.push(change);
        Some(())
    }

    /// Applies the damage to an unprotected datagram.
    fn hit(&mut self, plain: &mut [u8]) {
        let len = plain.len();
        for (at, flip) in self.0.drain(..) {
            plain[usize::from(at) % len] ^= flip;
        }
    }
}

/// An unprotected datagram with a valid header and any body.
fn any_body(session: SessionId, kind: u8, packet_number: PacketNumber, body: &[u8]) -> (Header, Vec<u8>) {
    let header = Header { session, packet_number };
    let kind = MessageKind::ALL[usize::from(kind) % MessageKind::ALL.len()];
    let mut bytes = wire::encode_plain(header, &wire::Acknowledge.into());
    bytes[3] = kind as u8;
    bytes.extend_from_slice(body);
    (header, bytes)
}

/// A small object, with its chaining values and root hash.
struct Object {
    bytes: Vec<u8>,
    layout: Layout,
    values: Vec<Digest>,
    recipes: Vec<Recipe>,
    root: Digest,
    plans: PlanCache,
}

impl Object {
    /// An object of up to 8 KiB in blocks of 1 or 2 KiB and symbols of 64 to 256 bytes. One input in 256 has an empty
    /// object. Every second one has zeros, and blocks that can be compressed.
    fn new(input: &mut Input<'_>) -> Option<Self> {
        let [size, shape] = input.array()?;
        let size = usize::from(size) * 33;
        let symbol_size = [64, 128, 192, 256][usize::from(shape >> 1 & 3)];
        let layout = Layout::new(size as u64, 10 + (shape & 1), symbol_size).ok()?;
        let mut rng = fastrand::Rng::with_seed(shape.into());
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(size).collect();
        let level = (shape & 8 == 8).then_some(1);
        if level.is_some() {
            for (i, block) in bytes.chunks_mut(1 << layout.block_log2()).enumerate() {
                let len = block.len();
                match (i + usize::from(shape >> 4)) % 4 {
                    0 => block.fill(0),
                    1 => block.iter_mut().for_each(|byte| *byte &= 3),
                    2 => block[len / 3..].fill(0),
                    _ => {}
                }
            }
        }
        let recipe = |block| pack::choose(slice(&layout, &bytes, block), symbol_size, level).0;
        let recipes = (0..layout.block_count()).map(BlockIndex).map(recipe).collect();
        let blocks = (0..layout.block_count()).map(BlockIndex);
        let values: Vec<Digest> =
            blocks.map(|block| value(&layout, block, slice(&layout, &bytes, block))).collect();
        let root = digest::root(&values);
        Some(Self { bytes, layout, values, recipes, root, plans: PlanCache::default() })
    }

    /// Its layout as a stream of which so many blocks are known; sealed when that is all.
    fn grown(&self, blocks: u64) -> Layout {
        let (log2, symbol_size) = (self.layout.block_log2(), self.layout.symbol_size());
        let size = blocks << log2;
        let extent = match self.layout.object_size() {
            whole if whole <= size && blocks > 0 => Extent::sealed(whole),
            _ => Extent { size, sealed: false },
        };
        Layout::of(extent, log2, symbol_size).expect("a part of a valid one")
    }

    fn block(&self, block: BlockIndex) -> &[u8] {
        slice(&self.layout, &self.bytes, block)
    }

    fn recipe(&self, block: BlockIndex) -> Recipe {
        self.recipes[block.0 as usize]
    }

    /// The coded bytes of a block.
    fn coded(&self, block: BlockIndex) -> Cow<'_, [u8]> {
        let coded = pack::pack(self.block(block), self.layout.symbol_size(), self.recipe(block));
        coded.expect("it was packed before")
    }

    /// Symbols as the sender's workers make them. Of zeros there are none.
    fn encode(&self, block: BlockIndex, first: Esi, count: u32) -> Vec<u8> {
        let (size, coded) = (self.layout.symbol_size(), self.coded(block));
        let Coded { coding, k } = self.recipe(block).coded;
        match (coding, first.0) {
            (Coding::Zero, _) => vec![7; count as usize * usize::from(size)],
            (_, 0) => coded.into_owned(),
            (Coding::Raw, first) => fec::repair(&coded, size, first, count, &self.plans),
            (_, first) => {
                fec::repair_once(&coded, size, first - (self.layout.source_symbols(block) - k), count)
            }
        }
    }

    /// The digests of a block's source symbols.
    fn digests(&self, block: BlockIndex) -> Vec<SymbolDigest> {
        let coded = self.coded(block);
        coded.chunks(usize::from(self.layout.symbol_size())).map(digest::symbol_digest).collect()
    }

    /// The true payload of a symbol; junk if there is none. `block` must be a block of the object.
    fn symbol(&self, block: BlockIndex, id: Esi) -> Vec<u8> {
        let range = self.layout.symbol_range(block, id);
        if id.0 >= self.layout.source_symbols(block) {
            return self.encode(block, id, 1);
        }
        self.coded(block).get(range.clone()).map_or_else(|| vec![7; range.len()], <[u8]>::to_vec)
    }
}

fn slice<'a>(layout: &Layout, object: &'a [u8], block: BlockIndex) -> &'a [u8] {
    &object[layout.block_offset(block) as usize..][..layout.block_len(block)]
}

fn value(layout: &Layout, block: BlockIndex, bytes: &[u8]) -> Digest {
    digest::chaining_value(layout.block_offset(block), bytes, layout.extent())
}

#[cfg(test)]
mod tests;
