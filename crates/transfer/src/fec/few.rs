//! Coding with few symbols, at a fraction of the cost of solving the whole block.
//!
//! A repair symbol is a sum of the source symbols with factors from GF(256) that depend only on its id. The factors are
//! the repair symbols of a block whose source symbols are the unit vectors. So a few repair symbols are sums over the
//! block ([`repair`]). And the differences between received repair symbols and their sums without the m missing source
//! symbols (the syndromes) are a system of m equations, which has a solution exactly if the general decoder has one.
//!
//! There are two ways to the solution. Directly: each missing symbol is a sum over the block and the repair symbols.
//! This takes vector instructions, and time in proportion to m. Or by syndromes: the block is encoded with zeros for the
//! missing symbols, which takes the same time for any m.

use super::codec::{Encoder, PlanCache};
use super::octets::{self, add, add_products, double, inverse, products};
use super::simd::Kernel;

/// Most missing symbols for which this is faster than the general decoder (`benches/fec.rs`). The last step takes some
/// 4 m * m additions of symbols.
pub(super) const MAX_MISSING: u32 = 64;
/// Most repair symbols that are made faster one by one than by encoding the block (`benches/fec.rs`).
const MAX_REPAIR: u32 = 48;

/// Size of the symbols that hold the unit vectors of the missing symbols, in bytes.
const UNIT_SIZE: u16 = 64;
const _: () = assert!(UNIT_SIZE as u32 >= MAX_MISSING && UNIT_SIZE.is_multiple_of(8));

/// An equation: the factors of the missing symbols, and the factors of the syndromes in the sum.
struct Row {
    factors: Vec<u8>,
    sums: Vec<u8>,
}

/// Repair symbols of a block, whose last symbol may be short: those with the ids `first..first + count`, concatenated.
/// `first` is at least K. The result ends at [`MAX_ESI`](crate::limits::MAX_ESI).
///
/// # Panics
/// As [`Encoder::new`] and [`Encoder::repair`].
#[must_use]
pub fn repair(block: &[u8], symbol_size: u16, first: u32, count: u32, plans: &PlanCache) -> Vec<u8> {
    let size = usize::from(symbol_size);
    if let Some(kernel) = octets::kernel()
        && (1..=MAX_REPAIR).contains(&count)
        && let Some(rows) = plans.rows(block.len().div_ceil(size), first..first.saturating_add(count))
    {
        let mut symbols: Vec<&[u8]> = block.chunks(size).collect();
        let mut last = symbols.pop().unwrap_or_default().to_vec();
        last.resize(size, 0);
        symbols.push(&last);
        return octets::sums(kernel, &symbols, size, &slices(&rows));
    }
    Encoder::new(block, symbol_size, plans).repair(first, count)
}

/// A block with missing symbols.
pub(super) struct Holes<'a> {
    /// K whole symbols. The content of the missing ones is ignored.
    pub block: &'a [u8],
    pub symbol_size: u16,
    /// The ids of the missing symbols, ascending; at most [`MAX_MISSING`].
    pub missing: &'a [u32],
    /// Repair symbols with their ids.
    pub repair: &'a [(u32, &'a [u8])],
}

impl Holes<'_> {
    /// The missing symbols, concatenated. `None` if the repair symbols do not suffice.
    pub fn decode(&self, plans: &PlanCache) -> Option<Vec<u8>> {
        let k = self.block.len() / self.size();
        let Some(rows) = plans.rows(k, self.repair.iter().map(|(id, _)| *id)) else {
            return Some(self.by_syndromes(&self.solve(self.factors(k, plans))?, plans));
        };
        let of_missing = |row: &Vec<u8>| self.missing.iter().map(|id| row[*id as usize]).collect();
        let solution = self.solve(rows.iter().map(of_missing).collect())?;
        Some(match octets::kernel() {
            Some(kernel) => self.directly(kernel, &rows, &solution),
            None => self.by_syndromes(&solution, plans),
        })
    }

    fn size(&self) -> usize {
        usize::from(self.symbol_size)
    }

    fn solve(&self, factors: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
        solve(factors, self.missing.len())
    }

    /// For each repair symbol, the factors of the missing symbols, of a block that is too large for the cache.
    fn factors(&self, k: usize, plans: &PlanCache) -> Vec<Vec<u8>> {
        let unit = usize::from(UNIT_SIZE);
        let mut units = vec![0; k * unit];
        for (i, id) in self.missing.iter().enumerate() {
            units[*id as usize * unit + i] = 1;
        }
        let units = Encoder::new(&units, UNIT_SIZE, plans);
        self.repair.iter().map(|(id, _)| units.repair(*id, 1)).collect()
    }

    /// Sums the received symbols. `rows` has the factors of the source symbols in each repair symbol.
    fn directly(&self, kernel: Kernel, rows: &[Vec<u8>], solution: &[Vec<u8>]) -> Vec<u8> {
        let symbols: Vec<&[u8]> = self.block.chunks_exact(self.size()).collect();
        let k = symbols.len();
        // The factors of the source symbols in each missing symbol.
        let factors = octets::sums(kernel, &slices(rows), k, &slices(solution));
        let is_received = |id: &usize| self.missing.binary_search(&(*id as u32)).is_err();
        let received: Vec<usize> = (0..k).filter(is_received).collect();
        let repair = self.repair.iter().map(|(_, symbol)| *symbol);
        let symbols: Vec<&[u8]> = received.iter().map(|id| symbols[*id]).chain(repair).collect();
        let rows = factors.chunks(k).zip(solution);
        let rows =
            rows.map(|(row, sums)| received.iter().map(|id| row[*id]).chain(sums.iter().copied()).collect());
        octets::sums(kernel, &symbols, self.size(), &slices(&rows.collect::<Vec<Vec<u8>>>()))
    }

    /// Encodes the block with zeros for the missing symbols.
    fn by_syndromes(&self, solution: &[Vec<u8>], plans: &PlanCache) -> Vec<u8> {
        let size = self.size();
        let mut block = self.block.to_vec();
        for id in self.missing.iter().map(|id| *id as usize) {
            block[id * size..(id + 1) * size].fill(0);
        }
        let zeroed = Encoder::new(&block, self.symbol_size, plans);
        let syndrome = |(i, (id, symbol)): (usize, &(u32, &[u8]))| {
            // A superfluous repair symbol contributes nothing.
            if solution.iter().all(|sums| sums[i] == 0) {
                return Vec::new();
            }
            let mut syndrome = zeroed.repair(*id, 1);
            add(&mut syndrome, symbol);
            syndrome
        };
        let syndromes: Vec<Vec<u8>> = self.repair.iter().enumerate().map(syndrome).collect();
        let mut found = vec![0; self.missing.len() * size];
        for (symbol, sums) in found.chunks_exact_mut(size).zip(solution) {
            combine(symbol, sums, &syndromes);
        }
        found
    }
}

fn slices(vectors: &[Vec<u8>]) -> Vec<&[u8]> {
    vectors.iter().map(|vector| &vector[..]).collect()
}

/// Gauss-Jordan elimination: for each unknown, the factors of the syndromes that yield it.
fn solve(factors: Vec<Vec<u8>>, unknowns: usize) -> Option<Vec<Vec<u8>>> {
    let count = factors.len();
    let unit = |i: usize| {
        let mut sums = vec![0; count];
        sums[i] = 1;
        sums
    };
    let rows = factors.into_iter().enumerate().map(|(i, factors)| Row { factors, sums: unit(i) });
    let mut rows: Vec<Row> = rows.collect();
    for column in 0..unknowns {
        let pivot = (column..count).find(|i| rows[*i].factors[column] != 0)?;
        rows.swap(column, pivot);
        let (above, rest) = rows.split_at_mut(column);
        let (pivot, below) = rest.split_first_mut()?;
        let inverse = products(inverse(pivot.factors[column]));
        for byte in pivot.factors.iter_mut().chain(&mut pivot.sums) {
            *byte = inverse[usize::from(*byte)];
        }
        for row in above.iter_mut().chain(below) {
            let factor = row.factors[column];
            if factor != 0 {
                let products = products(factor);
                add_products(&mut row.factors, &pivot.factors, products);
                add_products(&mut row.sums, &pivot.sums, products);
            }
        }
    }
    rows.truncate(unknowns);
    Some(rows.into_iter().map(|row| row.sums).collect())
}

/// Sums the syndromes, each multiplied by its factor, from the factors' highest bit down. It uses only
/// additions and doublings, which the compiler vectorises, unlike table look-ups.
fn combine(symbol: &mut [u8], factors: &[u8], syndromes: &[Vec<u8>]) {
    for bit in (0..8).rev() {
        for byte in symbol.iter_mut() {
            *byte = double(*byte);
        }
        for (factor, syndrome) in factors.iter().zip(syndromes) {
            if factor >> bit & 1 == 1 {
                add(symbol, syndrome);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_tables() {
        let syndromes: Vec<Vec<u8>> =
            (1..=3_u8).map(|i| (0..=255).map(|b: u8| b ^ (i * 77)).collect()).collect();
        for factors in [[0, 1, 2], [255, 128, 29], [3, 0, 0x8e]] {
            let mut expected = vec![0; 256];
            for (factor, syndrome) in factors.iter().zip(&syndromes) {
                add_products(&mut expected, syndrome, products(*factor));
            }
            let mut found = vec![0; 256];
            combine(&mut found, &factors, &syndromes);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn few_repair_symbols_are_those_of_the_encoder_and_both_ways_decode_them() {
        let (mut rng, plans) = (fastrand::Rng::with_seed(1), PlanCache::default());
        for _ in 0..100 {
            let (k, symbol_size) = (rng.usize(1..60), 8 * rng.u16(1..20));
            let size = usize::from(symbol_size);
            let mut block = vec![0; k * size];
            rng.fill(&mut block);
            let count = rng.u32(0..60);
            let symbols = repair(&block, symbol_size, k as u32, count, &plans);
            assert_eq!(symbols, Encoder::new(&block, symbol_size, &plans).repair(k as u32, count));
            let missing: Vec<u32> = (0..k as u32).filter(|_| rng.bool()).collect();
            let symbols: Vec<(u32, &[u8])> = (k as u32..).zip(symbols.chunks(size)).collect();
            let holes = Holes { block: &block, symbol_size, missing: &missing, repair: &symbols };
            let lost: Vec<u8> =
                missing.iter().flat_map(|id| &block[*id as usize * size..][..size]).copied().collect();
            let rows = plans.rows(k, symbols.iter().map(|(id, _)| *id)).unwrap();
            let factors = holes.factors(k, &plans);
            let Some(solution) = holes.solve(factors) else { continue };
            assert_eq!(holes.by_syndromes(&solution, &plans), lost);
            if let Some(kernel) = octets::kernel() {
                assert_eq!(holes.directly(kernel, &rows, &solution), lost);
            }
        }
    }

    #[test]
    fn a_short_last_symbol_is_padded() {
        let plans = PlanCache::default();
        let block: Vec<u8> = (0..200).collect();
        let expected = Encoder::new(&block, 64, &plans).repair(7, 3);
        assert_eq!(repair(&block, 64, 7, 3, &plans), expected);
    }
}
