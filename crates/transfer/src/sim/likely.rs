//! Buffers that record only where they differ from the expected object. With them ten thousand simulated
//! devices receive one object in the memory of a few.

use crate::fec::{Buffer, Memory, Slots};
use crate::ranges::BitSet;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Content of slots that were never written. No code may rely on it.
const JUNK: u8 = 0xa5;

/// The expected content of an object, in memory. A symbol that equals the expected bytes is recorded
/// without a copy. Any other symbol is copied.
#[derive(Clone)]
pub struct Likely(Arc<Expected>);

struct Expected {
    bytes: Arc<Vec<u8>>,
    /// Memory of unused buffers.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Likely {
    /// `bytes` is the expected content of the object.
    #[must_use]
    pub fn new(bytes: Arc<Vec<u8>>) -> Self {
        Self(Arc::new(Expected { bytes, spare: Mutex::default() }))
    }
}

impl Memory for Likely {
    fn prepare(&self, _: Buffer, offset: u64, symbol_size: u16) -> Buffer {
        Buffer::of(Box::new(Notes {
            likely: self.clone(),
            offset: offset as usize,
            symbol_size: symbol_size.into(),
            len: 0,
            written: BitSet::new(0),
            own: BTreeMap::new(),
            gathered: None,
        }))
    }
}

impl fmt::Debug for Likely {
    /// Shows only sizes, because the content is large.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Likely").field("len", &self.0.bytes.len()).finish()
    }
}

/// The content of a buffer, recorded slot by slot.
#[derive(Debug)]
struct Notes {
    likely: Likely,
    /// Offset of the buffer in the expected bytes.
    offset: usize,
    symbol_size: usize,
    len: usize,
    written: BitSet,
    /// Slots that differ from the expected bytes.
    own: BTreeMap<u32, Box<[u8]>>,
    /// The whole content, after [`Slots::gather`] and until the release. While it is set, `own` is stale.
    gathered: Option<Vec<u8>>,
}

impl Notes {
    fn slot(&self, at: usize) -> u32 {
        (at / self.symbol_size) as u32
    }
}

impl Slots for Notes {
    fn set_len(&mut self, len: usize) {
        self.release();
        self.len = len;
        self.written = BitSet::new(self.slot(len));
        self.own.clear();
    }
    fn write(&mut self, at: usize, symbol: &[u8]) {
        if let Some(bytes) = &mut self.gathered {
            bytes[at..at + symbol.len()].copy_from_slice(symbol);
            return;
        }
        let (slot, start) = (self.slot(at), self.offset + at);
        if self.likely.0.bytes.get(start..start + symbol.len()) == Some(symbol) {
            self.own.remove(&slot);
        } else {
            self.own.insert(slot, symbol.into());
        }
        self.written.insert(slot);
    }
    fn read(&self, at: usize, to: &mut [u8]) {
        if let Some(bytes) = &self.gathered {
            to.copy_from_slice(&bytes[at..at + to.len()]);
            return;
        }
        to.fill(0);
        let slot = self.slot(at);
        if let Some(own) = self.own.get(&slot) {
            to[..own.len()].copy_from_slice(own);
        } else if self.written.contains(slot) {
            let (expected, start) = (&self.likely.0.bytes, self.offset + at);
            let end = expected.len().min(start + to.len());
            to[..end - start].copy_from_slice(&expected[start..end]);
        } else {
            to.fill(JUNK);
        }
    }
    fn gather(&mut self) {
        if self.gathered.is_some() {
            return;
        }
        let mut bytes =
            self.likely.0.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        bytes.resize(self.len, 0);
        for (at, part) in (0..).step_by(self.symbol_size).zip(bytes.chunks_mut(self.symbol_size)) {
            self.read(at, part);
        }
        self.gathered = Some(bytes);
    }
    fn bytes(&self) -> &[u8] {
        self.gathered.as_deref().unwrap_or_default()
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.gathered.as_deref_mut().unwrap_or_default()
    }
    fn release(&mut self) {
        if let Some(bytes) = self.gathered.take() {
            self.likely.0.spare.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fec::{Added, BlockAssembly, Encoder, PlanCache};
    use crate::layout::Layout;
    use crate::units::{BlockIndex, Esi};

    #[test]
    fn buffers_with_notes_are_as_those_without() {
        const SIZE: u16 = 64;
        let mut rng = fastrand::Rng::with_seed(11);
        let object: Arc<Vec<u8>> = Arc::new((0..3_000).map(|_| rng.u8(..)).collect());
        let (layout, plans) = (Layout::new(3_000, 11, SIZE).unwrap(), PlanCache::default());
        let likely = Likely::new(Arc::clone(&object));
        let (mut decoded, mut failed) = (0, 0);
        for round in 0..1_500 {
            let block = BlockIndex(round % 2);
            let (offset, len) = (layout.block_offset(block) as usize, layout.block_len(block));
            let bytes = &object[offset..offset + len];
            let encoder = Encoder::new(bytes, SIZE, &plans);
            let k = layout.source_symbols(block);
            let mut noted = BlockAssembly::new(&layout, block);
            noted.attach(likely.prepare(Buffer::default(), offset as u64, SIZE));
            let mut plain = BlockAssembly::new(&layout, block);
            plain.attach(Buffer::default());
            // Some symbols are lost and a few damaged, and repair symbols arrive in between.
            let damaged = rng.u8(..8) == 0;
            let mut file = vec![0; len];
            while plain.deficit() > 0 {
                if rng.u8(..64) == 0 {
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
    }
}
