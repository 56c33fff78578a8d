//! Buffers that take no memory for what their owner holds elsewhere: how ten thousand simulated
//! devices receive one object in the memory of a few.

use super::codec::{Encoder, PlanCache};
use super::syndrome::suffice;
use crate::ranges::BitSet;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What stands in slots that were never written: nothing may come to rely on it.
const JUNK: u8 = 0xa5;

/// Bytes that an object will probably consist of, in memory already. A symbol that equals them, byte
/// by byte, is noted instead of copied; any other is kept as it came.
///
/// Where all source symbols held of a block are as is likely, and all repair symbols are what
/// encoding the likely block gives, decoding has at most one answer: the likely block. It has that
/// exactly when the factors of the missing symbols are independent. After the first few hundred
/// blocks, only one in 16 is decoded in full, to compare; for the others that condition is
/// looked at.
pub struct Likely {
    bytes: Arc<Vec<u8>>,
    /// Memory of buffers that are not in use.
    spare: Mutex<Vec<Vec<u8>>>,
    known: Mutex<Known>,
}

/// What earlier decoding has taught.
#[derive(Default)]
struct Known {
    decoded: u64,
    /// Repair symbols as they must be, by where their block begins and their id.
    repairs: BTreeMap<usize, Block>,
}

struct Block {
    encoder: Encoder,
    symbols: BTreeMap<u32, Vec<u8>>,
}

/// Every block is decoded in full until so many have been, and then each so-manieth.
const FULL_AT_FIRST: u64 = 256;
const THEN_EACH: u64 = 16;
/// Blocks whose encoders are kept.
const MOST_BLOCKS: usize = 96;

/// What is known of a block without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreseen {
    /// Nothing: it is to be decoded.
    Nothing,
    /// Whether the symbols suffice; if they do, the missing ones are as is likely.
    Decodable {
        /// They do.
        is: bool,
        /// It is to be decoded all the same, to compare.
        compare: bool,
    },
}

impl Likely {
    /// `bytes` are what the object will probably be.
    #[must_use]
    pub fn new(bytes: Arc<Vec<u8>>) -> Self {
        Self { bytes, spare: Mutex::default(), known: Mutex::default() }
    }
    /// Foresees what decoding gives for a block of `len` bytes at `offset` with these symbols missing
    /// and these repair symbols held.
    fn foresee(
        &self,
        (offset, len, symbol_size): (usize, usize, usize),
        missing: &[u32],
        repair: &[(u32, &[u8])],
        plans: &PlanCache,
    ) -> Foreseen {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.decoded += 1;
        let Some(bytes) = self.bytes.get(offset..offset + len) else { return Foreseen::Nothing };
        if known.decoded <= FULL_AT_FIRST {
            return Foreseen::Nothing;
        }
        let compare = known.decoded.is_multiple_of(THEN_EACH);
        let repairs = &mut known.repairs;
        if repairs.len() == MOST_BLOCKS && !repairs.contains_key(&offset) {
            repairs.pop_first();
        }
        let block = repairs.entry(offset).or_insert_with(|| Block {
            encoder: Encoder::new(bytes, symbol_size as u16, plans),
            symbols: BTreeMap::new(),
        });
        for (id, symbol) in repair {
            let right = block.symbols.entry(*id).or_insert_with(|| block.encoder.repair(*id, 1));
            if right != symbol {
                return Foreseen::Nothing;
            }
        }
        Foreseen::Decodable { is: suffice(len.div_ceil(symbol_size), missing, repair, plans), compare }
    }
    /// Memory for a buffer.
    pub(super) fn take_memory(&self) -> Vec<u8> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }
    /// Memory that a buffer needs no more.
    pub(super) fn give_memory(&self, memory: Vec<u8>) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

impl fmt::Debug for Likely {
    /// Numbers only: it is large.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Likely").field("len", &self.bytes.len()).finish()
    }
}

/// The content of a buffer, noted slot by slot.
#[derive(Debug)]
pub(super) struct Notes {
    pub likely: Arc<Likely>,
    /// Where in the likely bytes the buffer begins.
    offset: usize,
    symbol_size: usize,
    written: BitSet,
    /// Slots that are not as was likely.
    own: BTreeMap<u32, Box<[u8]>>,
}

impl Notes {
    pub fn new(likely: Arc<Likely>, offset: usize, symbol_size: usize) -> Self {
        Self { likely, offset, symbol_size, written: BitSet::new(0), own: BTreeMap::new() }
    }
    /// Forgets all; `len` bytes are to come.
    pub fn clear(&mut self, len: usize) {
        self.written = BitSet::new((len / self.symbol_size) as u32);
        self.own.clear();
    }
    fn likely_bytes(&self, slot: u32, len: usize) -> Option<&[u8]> {
        let start = self.offset + slot as usize * self.symbol_size;
        self.likely.bytes.get(start..start + len)
    }
    /// Writes a slot; what is behind `payload` in it is not defined.
    pub fn write(&mut self, slot: u32, payload: &[u8]) {
        if self.likely_bytes(slot, payload.len()) == Some(payload) {
            self.own.remove(&slot);
        } else {
            self.own.insert(slot, payload.into());
        }
        self.written.insert(slot);
    }
    /// Reads a slot that was written; one that is shorter than a symbol is filled up with zeros.
    pub fn read(&self, slot: u32, to: &mut [u8]) {
        to.fill(0);
        if let Some(own) = self.own.get(&slot) {
            to[..own.len()].copy_from_slice(own);
        } else if self.written.contains(slot) {
            let start = self.offset + slot as usize * self.symbol_size;
            let end = self.likely.bytes.len().min(start + to.len());
            to[..end - start].copy_from_slice(&self.likely.bytes[start..end]);
        } else {
            to.fill(JUNK);
        }
    }
    /// Writes all slots to where they belong in a buffer.
    pub fn gather(&self, to: &mut [u8]) {
        for (slot, part) in (0..).zip(to.chunks_mut(self.symbol_size)) {
            self.read(slot, part);
        }
    }
    /// Foresees what decoding gives with these source symbols missing and these repair symbols held;
    /// `block` has the source symbols held. They are looked at as they are there: what was spilled
    /// and read back is not noted.
    pub fn foresee(
        &self,
        block: &[u8],
        source: &BitSet,
        missing: &[u32],
        repair: &[(u32, &[u8])],
        plans: &PlanCache,
    ) -> Foreseen {
        let likely = |(slot, held): (u32, &[u8])| {
            !source.contains(slot) || self.likely_bytes(slot, held.len()) == Some(held)
        };
        if !(0..).zip(block.chunks(self.symbol_size)).all(likely) {
            return Foreseen::Nothing;
        }
        self.likely.foresee((self.offset, block.len(), self.symbol_size), missing, repair, plans)
    }
    /// The likely source symbols with these ids, one after the other, filled up with zeros.
    pub fn likely_symbols(&self, len: usize, ids: &[u32]) -> Vec<u8> {
        let mut symbols = vec![0; ids.len() * self.symbol_size];
        for (to, id) in symbols.chunks_mut(self.symbol_size).zip(ids) {
            let count = self.symbol_size.min(len - *id as usize * self.symbol_size);
            to[..count].copy_from_slice(self.likely_bytes(*id, count).unwrap_or_default());
        }
        symbols
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Added, BlockAssembly, Buffer};
    use super::*;
    use crate::layout::Layout;
    use crate::units::{BlockIndex, Esi};

    #[test]
    fn buffers_with_notes_are_as_those_without() {
        const SIZE: u16 = 64;
        let mut rng = fastrand::Rng::with_seed(11);
        let object: Arc<Vec<u8>> = Arc::new((0..3_000).map(|_| rng.u8(..)).collect());
        let (layout, plans) = (Layout::new(3_000, 11, SIZE).unwrap(), PlanCache::default());
        let likely = Arc::new(Likely::new(Arc::clone(&object)));
        let (mut decoded, mut failed) = (0, 0);
        for round in 0..1_500 {
            let block = BlockIndex(round % 2);
            let (offset, len) = (layout.block_offset(block) as usize, layout.block_len(block));
            let bytes = &object[offset..offset + len];
            let encoder = Encoder::new(bytes, SIZE, &plans);
            let k = layout.source_symbols(block);
            let mut noted = BlockAssembly::new(&layout, block);
            noted.attach(Buffer::liken(Arc::clone(&likely), offset, usize::from(SIZE)));
            let mut plain = BlockAssembly::new(&layout, block);
            plain.attach(Buffer::default());
            // Some are lost and a few damaged; repair symbols come in between.
            let damaged = rng.u8(..8) == 0;
            let mut file = vec![0; len];
            while plain.deficit() > 0 {
                if rng.u8(..64) == 0 {
                    noted.gather();
                    for assembly in [&mut noted, &mut plain] {
                        for (start, span) in assembly.spans_to_spill() {
                            file[start..start + span.len()].copy_from_slice(span);
                        }
                        let buffer = assembly.mark_spilled();
                        assembly.attach(buffer);
                    }
                }
                let id = if rng.u8(..4) == 0 { k + rng.u32(..20) } else { rng.u32(..k) };
                let mut symbol = if id < k {
                    bytes[layout.symbol_range(block, Esi(id))].to_vec()
                } else {
                    encoder.repair(id, 1)
                };
                if damaged && rng.u8(..20) == 0 {
                    symbol[0] ^= 1;
                }
                let added: [Added; 2] = [&mut noted, &mut plain].map(|a| a.add(Esi(id), &symbol));
                assert_eq!(added[0], added[1]);
            }
            noted.gather();
            for assembly in [&mut noted, &mut plain] {
                for (start, len) in assembly.spilled_runs() {
                    assembly.buffer_mut()[start..start + len].copy_from_slice(&file[start..start + len]);
                }
                assembly.mark_restored();
            }
            let done = [noted.complete(&plans).is_ok(), plain.complete(&plans).is_ok()];
            assert_eq!(done[0], done[1], "round {round}");
            if done[0] {
                assert_eq!(noted.bytes(), plain.bytes());
                assert!(damaged || plain.bytes() == bytes);
                decoded += 1;
            } else {
                failed += 1;
            }
        }
        assert!(decoded > 1_000 && failed > 0, "{decoded} {failed}");
        assert!(likely.known.lock().unwrap().decoded > FULL_AT_FIRST);
    }
}
