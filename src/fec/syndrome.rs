//! Decoding with few missing source symbols, at half the cost of solving the whole block.
//!
//! A repair symbol is a sum of the source symbols with factors from GF(256) that depend only on its id.
//! The decoder encodes the block with zeros for its m missing symbols. The differences between the
//! received and the encoded repair symbols (the syndromes) are the contributions of the missing symbols.
//! The factors come from encoding unit vectors: once for all source symbols of a small K, otherwise for
//! the missing symbols only. The result is a system of m unknowns, which has a solution exactly if the
//! general decoder has one.

use super::codec::{Encoder, PlanCache};

/// Most missing symbols for which this is faster (`benches/fec.rs`). The last step takes some 4 m * m
/// additions of symbols.
pub(super) const MAX_MISSING: u32 = 64;

/// Size of the symbols that hold the unit vectors of the missing symbols, in bytes.
const UNIT_SIZE: u16 = 64;
const _: () = assert!(UNIT_SIZE as u32 >= MAX_MISSING && UNIT_SIZE.is_multiple_of(8));

/// An equation: the factors of the missing symbols, and the factors of the syndromes in the sum.
struct Row {
    factors: Vec<u8>,
    sums: Vec<u8>,
}

/// Finds the symbols `missing` of a block (at most [`MAX_MISSING`] ids below K, ascending). Returns them
/// concatenated. `block` is K whole symbols; the content of the missing ones is ignored. `None` if the
/// repair symbols, given with their ids, do not suffice.
pub(super) fn decode(
    mut block: Vec<u8>,
    symbol_size: u16,
    missing: &[u32],
    repair: &[(u32, &[u8])],
    plans: &PlanCache,
) -> Option<Vec<u8>> {
    let size = usize::from(symbol_size);
    let factors = factors(block.len() / size, missing, repair, plans)?;
    let solution = solve(factors, missing.len())?;
    for id in missing.iter().map(|id| *id as usize) {
        block[id * size..(id + 1) * size].fill(0);
    }
    let zeroed = Encoder::new(&block, symbol_size, plans);
    let syndromes: Vec<Vec<u8>> = repair
        .iter()
        .enumerate()
        .map(|(i, (id, symbol))| {
            // A superfluous repair symbol contributes nothing.
            if solution.iter().all(|sums| sums[i] == 0) {
                return Vec::new();
            }
            let mut syndrome = zeroed.repair(*id, 1);
            add(&mut syndrome, symbol);
            syndrome
        })
        .collect();
    let mut found = vec![0; missing.len() * size];
    for (symbol, sums) in found.chunks_exact_mut(size).zip(&solution) {
        combine(symbol, sums, &syndromes);
    }
    Some(found)
}

/// For each repair symbol, the factors of the missing symbols.
fn factors(k: usize, missing: &[u32], repair: &[(u32, &[u8])], plans: &PlanCache) -> Option<Vec<Vec<u8>>> {
    if let Some(rows) = plans.rows(k) {
        let of_missing = |row: Vec<u8>| missing.iter().map(|id| row[*id as usize]).collect();
        return repair.iter().map(|(id, _)| rows.row(*id).map(of_missing)).collect();
    }
    let unit = usize::from(UNIT_SIZE);
    let mut units = vec![0; k * unit];
    for (i, id) in missing.iter().enumerate() {
        units[*id as usize * unit + i] = 1;
    }
    let units = Encoder::new(&units, UNIT_SIZE, plans);
    Some(repair.iter().map(|(id, _)| units.repair(*id, 1)).collect())
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
                add_products(&mut row.factors, &pivot.factors, &products);
                add_products(&mut row.sums, &pivot.sums, &products);
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

fn add(to: &mut [u8], from: &[u8]) {
    for (a, b) in to.iter_mut().zip(from) {
        *a ^= b;
    }
}

fn add_products(to: &mut [u8], from: &[u8], products: &[u8; 256]) {
    for (a, b) in to.iter_mut().zip(from) {
        *a ^= products[usize::from(*b)];
    }
}

/// All products with `factor`, built by doubling: the product of a sum is the sum of the products.
fn products(factor: u8) -> [u8; 256] {
    let mut products = [0; 256];
    let mut of_power = factor;
    for bit in 0..8 {
        for i in 0..1 << bit {
            products[(1 << bit) + i] = products[i] ^ of_power;
        }
        of_power = double(of_power);
    }
    products
}

/// Multiplies by x modulo x^8 + x^4 + x^3 + x^2 + 1 (RFC 6330, section 5.7.2).
const fn double(a: u8) -> u8 {
    // All ones if the highest bit is set.
    let carry = (a.cast_signed() >> 7).cast_unsigned();
    (a << 1) ^ (0x1d & carry)
}

/// The inverse of a non-zero octet: its 254th power, because its 255th power is 1.
fn inverse(a: u8) -> u8 {
    let table = products(a);
    (1..254).fold(a, |power, _| table[usize::from(power)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_a_field() {
        for a in 0..=255_u8 {
            let table = products(a);
            assert_eq!((table[0], table[1], table[2]), (0, a, double(a)));
            for b in 0..=255_u8 {
                assert_eq!(table[usize::from(b)], products(b)[usize::from(a)]);
            }
            assert!(a == 0 || table[usize::from(inverse(a))] == 1, "{a}");
        }
        // RFC 6330, section 5.7.3: 2 to the 8th is the remainder by the polynomial.
        assert_eq!(double(0x80), 29);
    }

    #[test]
    fn sums_are_those_of_the_tables() {
        let syndromes: Vec<Vec<u8>> =
            (1..=3_u8).map(|i| (0..=255).map(|b: u8| b ^ (i * 77)).collect()).collect();
        for factors in [[0, 1, 2], [255, 128, 29], [3, 0, 0x8e]] {
            let mut expected = vec![0; 256];
            for (factor, syndrome) in factors.iter().zip(&syndromes) {
                add_products(&mut expected, syndrome, &products(*factor));
            }
            let mut found = vec![0; 256];
            combine(&mut found, &factors, &syndromes);
            assert_eq!(found, expected);
        }
    }
}
