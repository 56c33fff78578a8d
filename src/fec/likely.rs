//! For simulation: buffers that record only where they differ from the expected object. With them ten
//! thousand simulated devices receive one object in the memory of a few.

use super::codec::{Encoder, PlanCache};
use super::syndrome::suffice;
use crate::ranges::BitSet;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Content of slots that were never written. No code may rely on it.
const JUNK: u8 = 0xa5;

/// The expected content of an object, in memory. A symbol that equals the expected bytes is recorded
/// without a copy. Any other symbol is copied.
///
/// If all source symbols held of a block are as expected, and all repair symbols equal the encoding of
/// the expected block, decoding has at most one result: the expected block. It has this result exactly if
/// the factors of the missing symbols are independent. The first few hundred blocks are decoded in full.
/// After that only one in 16 is decoded, to compare, and for the others only the independence is checked.
pub struct Likely {
    bytes: Arc<Vec<u8>>,
    /// Memory of unused buffers.
    spare: Mutex<Vec<Vec<u8>>>,
    known: Mutex<Known>,
}

/// Facts learnt from earlier decoding.
#[derive(Default)]
struct Known {
    decoded: u64,
    /// Expected repair symbols, by the offset of their block and their id.
    repairs: BTreeMap<usize, Block>,
}

struct Block {
    encoder: Encoder,
    symbols: BTreeMap<u32, Vec<u8>>,
}

/// The first `FULL_AT_FIRST` blocks are all decoded in full, and later one in `THEN_EACH`.
const FULL_AT_FIRST: u64 = 256;
const THEN_EACH: u64 = 16;
/// Number of blocks whose encoders are cached.
const MOST_BLOCKS: usize = 96;

/// Prediction of a block's decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreseen {
    /// No prediction: the block must be decoded.
    Nothing,
    /// It is known whether the symbols suffice. If they do, the missing symbols are as expected.
    Decodable {
        /// Whether the symbols suffice.
        is: bool,
        /// Whether the block is decoded all the same, to compare.
        compare: bool,
    },
}

impl Likely {
    /// `bytes` is the expected content of the object.
    #[must_use]
    pub fn new(bytes: Arc<Vec<u8>>) -> Self {
        Self { bytes, spare: Mutex::default(), known: Mutex::default() }
    }
    /// Predicts the decoding of a block of `len` bytes at `offset` with these missing symbols and these
    /// repair symbols.
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
    /// Takes memory for a buffer.
    pub(super) fn take_memory(&self) -> Vec<u8> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }
    /// Returns the memory of a buffer.
    pub(super) fn give_memory(&self, memory: Vec<u8>) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

impl fmt::Debug for Likely {
    /// Shows only numbers: the content is large.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Likely").field("len", &self.bytes.len()).finish()
    }
}

/// The content of a buffer, recorded slot by slot.
#[derive(Debug)]
pub(super) struct Notes {
    pub likely: Arc<Likely>,
    /// Offset of the buffer in the expected bytes.
    offset: usize,
    symbol_size: usize,
    written: BitSet,
    /// Slots that differ from the expected bytes.
    own: BTreeMap<u32, Box<[u8]>>,
}

impl Notes {
    pub fn new(likely: Arc<Likely>, offset: usize, symbol_size: usize) -> Self {
        Self { likely, offset, symbol_size, written: BitSet::new(0), own: BTreeMap::new() }
    }
    /// Forgets all slots. The new content has `len` bytes.
    pub fn clear(&mut self, len: usize) {
        self.written = BitSet::new((len / self.symbol_size) as u32);
        self.own.clear();
    }
    fn likely_bytes(&self, slot: u32, len: usize) -> Option<&[u8]> {
        let start = self.offset + slot as usize * self.symbol_size;
        self.likely.bytes.get(start..start + len)
    }
    /// Writes a slot. The bytes after `payload` in the slot are undefined.
    pub fn write(&mut self, slot: u32, payload: &[u8]) {
        if self.likely_bytes(slot, payload.len()) == Some(payload) {
            self.own.remove(&slot);
        } else {
            self.own.insert(slot, payload.into());
        }
        self.written.insert(slot);
    }
    /// Reads a slot that was written. A short slot is padded with zeros.
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
    /// Writes all slots to their places in a buffer.
    pub fn gather(&self, to: &mut [u8]) {
        for (slot, part) in (0..).zip(to.chunks_mut(self.symbol_size)) {
            self.read(slot, part);
        }
    }
    /// Predicts the decoding with these missing source symbols and these repair symbols. `block` holds
    /// the source symbols. Checks the bytes of `block` itself, because symbols that were spilled and read
    /// back are not recorded.
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
    /// The expected source symbols with these ids, concatenated and padded with zeros.
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
            // Some symbols are lost and a few damaged, and repair symbols arrive in between.
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
