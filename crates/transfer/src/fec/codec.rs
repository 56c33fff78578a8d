//! Encoder, decoder and the bounded cache of encoding plans.
//!
//! Each block is a source block by itself for `raptorq`: block number 0, with one sub-block. So a symbol
//! is a slice of the block (RFC 6330, section 4.4.1.2, with Z = N = 1).

use crate::limits::{MAX_ESI, MAX_PLANS, MAX_SOURCE_SYMBOLS};
use raptorq::{
    EncodingPacket, ObjectTransmissionInformation, PayloadId, SourceBlockDecoder, SourceBlockEncoder,
    SourceBlockEncodingPlan,
};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Cached data for blocks of one K. The first worker that needs a value makes it; other workers wait for
/// it.
#[derive(Default)]
struct Kept {
    plan: OnceLock<SourceBlockEncodingPlan>,
    /// The encoded unit vectors.
    units: OnceLock<Encoder>,
}
type Shared = Arc<Kept>;

/// Largest K whose encoded unit vectors are cached: 2 K * K bytes.
const MAX_ROWS: usize = 1024;

/// A bounded cache of encoding plans by K, shared by the worker threads. A new plan replaces the least
/// recently used one. Making a plan takes longer than encoding a block with it.
#[derive(Default)]
pub struct PlanCache {
    /// Ordered by last use, the most recent last.
    plans: Mutex<Vec<(u16, Shared)>>,
}

impl PlanCache {
    /// The cache entry for blocks of exactly `k` source symbols. The plan itself is made outside the
    /// lock, because other workers may need other plans meanwhile.
    fn entry(&self, k: u16) -> Shared {
        let mut plans = self.lock();
        let found = plans.iter().position(|(of, _)| *of == k).map(|i| plans.remove(i).1);
        let shared = found.unwrap_or_default();
        if plans.len() == MAX_PLANS {
            plans.remove(0);
        }
        plans.push((k, Arc::clone(&shared)));
        shared
    }

    /// For each of these repair symbols of a block of `k` symbols, the factors of the source symbols in it: the `i`th is
    /// that of source symbol `i`. The vectors may be longer. `None` if `k` is too large to cache them, or if there is no
    /// such repair symbol.
    pub(super) fn rows(&self, k: usize, repair: impl IntoIterator<Item = u32>) -> Option<Vec<Vec<u8>>> {
        if !(1..=MAX_ROWS).contains(&k) {
            return None;
        }
        let shared = self.entry(k as u16);
        let units = shared.units.get_or_init(|| {
            let width = k.next_multiple_of(8);
            let mut units = vec![0; k * width];
            units.iter_mut().step_by(width + 1).for_each(|byte| *byte = 1);
            Encoder::new(&units, width as u16, self)
        });
        let rows = repair.into_iter().map(|id| units.repair(id, 1));
        rows.map(|row| (!row.is_empty()).then_some(row)).collect()
    }

    /// A worker that panicked while it held the lock left the list consistent.
    fn lock(&self) -> MutexGuard<'_, Vec<(u16, Shared)>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> Vec<u16> {
        self.lock().iter().map(|(k, _)| *k).collect()
    }
}

impl fmt::Debug for PlanCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().iter().map(|(k, _)| k)).finish()
    }
}

/// Makes the repair symbols of one block.
pub struct Encoder {
    encoder: SourceBlockEncoder,
    k: u32,
    symbol_size: usize,
}

impl Encoder {
    /// An encoder for `block` (1 byte to K symbols; the last symbol is padded with zeros).
    ///
    /// # Panics
    /// If the block is empty or has more symbols than [`MAX_SOURCE_SYMBOLS`], or the symbol size is not a
    /// multiple of 8. No valid layout has such a block.
    #[must_use]
    pub fn new(block: &[u8], symbol_size: u16, plans: &PlanCache) -> Self {
        let size = usize::from(symbol_size);
        let k = block.len().div_ceil(size);
        assert!((1..=MAX_SOURCE_SYMBOLS as usize).contains(&k), "a block has 1 to 56403 symbols");
        let k = k as u32;
        let config = config(k, symbol_size);
        let shared = plans.entry(k as u16);
        let plan = shared.plan.get_or_init(|| SourceBlockEncodingPlan::generate(k as u16));
        let encoder = if block.len().is_multiple_of(size) {
            SourceBlockEncoder::with_encoding_plan(0, &config, block, plan)
        } else {
            let mut padded = Vec::with_capacity(k as usize * size);
            padded.extend_from_slice(block);
            padded.resize(k as usize * size, 0);
            SourceBlockEncoder::with_encoding_plan(0, &config, &padded, plan)
        };
        Self { encoder, k, symbol_size: size }
    }

    /// The repair symbols with the encoding symbol ids `first..first + count`, concatenated. `first` is
    /// at least K. The result ends at [`MAX_ESI`].
    ///
    /// # Panics
    /// If `first` is below K.
    #[must_use]
    pub fn repair(&self, first: u32, count: u32) -> Vec<u8> {
        assert!(first >= self.k, "repair symbols begin at K");
        let count = count.min((MAX_ESI + 1).saturating_sub(first));
        if count == 0 {
            return Vec::new();
        }
        let mut symbols = Vec::with_capacity(count as usize * self.symbol_size);
        // The crate counts repair symbols from 0; their ids begin at K (section 5.3.1).
        for packet in self.encoder.repair_packets(first - self.k, count) {
            symbols.extend_from_slice(packet.data());
        }
        symbols
    }
}

/// The repair symbols `first..first + count` of a block of whole symbols, as [`Encoder::repair`] makes them, without
/// plans: for a block of a K that hardly any other block has.
///
/// # Panics
/// As [`Encoder::new`] and [`Encoder::repair`].
#[must_use]
pub fn repair_once(block: &[u8], symbol_size: u16, first: u32, count: u32) -> Vec<u8> {
    let size = usize::from(symbol_size);
    let k = block.len() / size;
    assert!((1..=MAX_SOURCE_SYMBOLS as usize).contains(&k), "a block has 1 to 56403 symbols");
    let k = k as u32;
    let encoder = SourceBlockEncoder::new(0, &config(k, symbol_size), &block[..k as usize * size]);
    Encoder { encoder, k, symbol_size: size }.repair(first, count)
}

/// Decodes a block of `k` symbols from `symbols` with their ids. The result includes the padding of the
/// last symbol. `None` if the symbols do not suffice, or cannot be a block's symbols.
pub(super) fn decode<'a>(
    k: u32,
    symbol_size: u16,
    symbols: impl Iterator<Item = (u32, &'a [u8])>,
) -> Option<Vec<u8>> {
    if !(1..=MAX_SOURCE_SYMBOLS).contains(&k) {
        return None;
    }
    let packets: Vec<EncodingPacket> = symbols
        .filter(|(id, payload)| *id <= MAX_ESI && payload.len() == usize::from(symbol_size))
        .map(|(id, payload)| EncodingPacket::new(PayloadId::new(0, id), payload.to_vec()))
        .collect();
    let length = u64::from(k) * u64::from(symbol_size);
    SourceBlockDecoder::new(0, &config(k, symbol_size), length).decode(packets)
}

fn config(k: u32, symbol_size: u16) -> ObjectTransmissionInformation {
    ObjectTransmissionInformation::new(u64::from(k) * u64::from(symbol_size), symbol_size, 1, 1, 8)
}
