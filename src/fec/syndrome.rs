//! Decoding when few source symbols are missing: half the work of solving the block anew.
//!
//! A repair symbol is a sum of the source symbols with factors from GF(256) that depend on its id
//! alone. So the block is encoded with zeros for its m missing symbols; what the received repair
//! symbols differ from the encoded ones (the syndromes) is the missing symbols' share of them. The
//! factors come from encoding a block of zeros whose missing symbols are unit vectors. What is
//! left is a system of m unknowns, which has an answer exactly when the usual decoder has one.

use super::codec::{Encoder, PlanCache};

/// Most missing symbols for which this is the quicker way (`benches/fec.rs`). The last step takes
/// m * m multiplications of symbols, which are plain table look-ups here.
pub(super) const MAX_MISSING: u32 = 16;

/// Bytes of the symbols that carry the unit vectors.
pub(super) const UNIT_SIZE: u16 = 16;
const _: () = assert!(UNIT_SIZE as u32 >= MAX_MISSING && UNIT_SIZE.is_multiple_of(8));

/// An equation: factors of the missing symbols, and the sum.
struct Row {
    factors: [u8; UNIT_SIZE as usize],
    sum: Vec<u8>,
}

/// Finds the symbols `missing` (at most [`MAX_MISSING`] ids below K, rising) of a block; the answer
/// has them one after the other. `block` is K whole symbols; what stands in place of the missing
/// ones does not matter. `None` if the repair symbols, with their ids, do not suffice.
pub(super) fn decode(
    mut block: Vec<u8>,
    symbol_size: u16,
    missing: &[u32],
    repair: &[(u32, &[u8])],
    plans: &PlanCache,
) -> Option<Vec<u8>> {
    let size = usize::from(symbol_size);
    let unit = usize::from(UNIT_SIZE);
    let mut units = vec![0; block.len() / size * unit];
    for (i, id) in missing.iter().map(|id| *id as usize).enumerate() {
        block[id * size..(id + 1) * size].fill(0);
        units[id * unit + i] = 1;
    }
    let zeroed = Encoder::new(&block, symbol_size, plans);
    let units = Encoder::new(&units, UNIT_SIZE, plans);
    let rows = repair.iter().map(|(id, symbol)| {
        let mut row = Row { factors: [0; UNIT_SIZE as usize], sum: zeroed.repair(*id, 1) };
        row.factors.copy_from_slice(&units.repair(*id, 1));
        row.sum.iter_mut().zip(*symbol).for_each(|(a, b)| *a ^= b);
        row
    });
    let rows = solve(rows.collect(), missing.len())?;
    Some(rows.into_iter().flat_map(|row| row.sum).collect())
}

/// Whether repair symbols with these factors of the missing symbols, `missing` of them, suffice.
pub(super) fn suffice(factors: impl Iterator<Item = [u8; UNIT_SIZE as usize]>, missing: usize) -> bool {
    solve(factors.map(|factors| Row { factors, sum: Vec::new() }).collect(), missing).is_some()
}

/// Gauss-Jordan elimination: the first `unknowns` rows end as the unknowns in order.
fn solve(mut rows: Vec<Row>, unknowns: usize) -> Option<Vec<Row>> {
    for column in 0..unknowns {
        let pivot = (column..rows.len()).find(|i| rows[*i].factors[column] != 0)?;
        rows.swap(column, pivot);
        let (above, rest) = rows.split_at_mut(column);
        let (pivot, below) = rest.split_first_mut()?;
        let inverse = products(inverse(pivot.factors[column]));
        for byte in pivot.factors.iter_mut().chain(&mut pivot.sum) {
            *byte = inverse[usize::from(*byte)];
        }
        for row in above.iter_mut().chain(below) {
            let factor = row.factors[column];
            if factor != 0 {
                let products = products(factor);
                add_products(&mut row.factors, &pivot.factors, &products);
                add_products(&mut row.sum, &pivot.sum, &products);
            }
        }
    }
    rows.truncate(unknowns);
    Some(rows)
}

fn add_products(to: &mut [u8], from: &[u8], products: &[u8; 256]) {
    for (a, b) in to.iter_mut().zip(from) {
        *a ^= products[usize::from(*b)];
    }
}

/// All products with `factor`. Built by doubling: the product of a sum is the sum of the products.
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

/// Times x modulo x^8 + x^4 + x^3 + x^2 + 1 (RFC 6330, section 5.7.2).
const fn double(a: u8) -> u8 {
    (a << 1) ^ (0x1d * (a >> 7))
}

/// The inverse of a non-zero octet: its 254th power, as the 255th is 1.
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
        // RFC 6330, section 5.7.3: 2 to the 8th is the polynomial's rest.
        assert_eq!(double(0x80), 29);
    }
}
