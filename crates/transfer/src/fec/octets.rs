//! Arithmetic with octets: GF(256) modulo x^8 + x^4 + x^3 + x^2 + 1 (RFC 6330, section 5.7).

use super::simd::{self, Kernel, ROWS, STRIP};
use std::array::from_fn;
use std::sync::LazyLock;

/// Adds `from` to `to`.
pub(super) fn add(to: &mut [u8], from: &[u8]) {
    for (a, b) in to.iter_mut().zip(from) {
        *a ^= b;
    }
}

/// Adds the products of `from` with one factor to `to`; `products` is the factor's table.
pub(super) fn add_products(to: &mut [u8], from: &[u8], products: &[u8; 256]) {
    for (a, b) in to.iter_mut().zip(from) {
        *a ^= products[usize::from(*b)];
    }
}

/// The products of all octets.
static PRODUCTS: [[u8; 256]; 256] = {
    let mut all = [[0; 256]; 256];
    let mut factor = 0;
    while factor < 256 {
        all[factor] = products_with(factor as u8);
        factor += 1;
    }
    all
};

/// All products with `factor`.
pub(super) const fn products(factor: u8) -> &'static [u8; 256] {
    &PRODUCTS[factor as usize]
}

/// The table for one factor, built by doubling: the product of a sum is the sum of the products.
const fn products_with(factor: u8) -> [u8; 256] {
    let mut products = [0; 256];
    let mut of_power = factor;
    let mut size = 1;
    while size < 256 {
        let mut i = 0;
        while i < size {
            products[size + i] = products[i] ^ of_power;
            i += 1;
        }
        size *= 2;
        of_power = double(of_power);
    }
    products
}

/// Multiplies by x.
pub(super) const fn double(a: u8) -> u8 {
    // All ones if the highest bit is set.
    let carry = (a.cast_signed() >> 7).cast_unsigned();
    (a << 1) ^ (0x1d & carry)
}

/// The inverse of a non-zero octet: its 254th power, because its 255th power is 1.
pub(super) fn inverse(a: u8) -> u8 {
    let table = products(a);
    (1..254).fold(a, |power, _| table[usize::from(power)])
}

/// Code for [`sums`] that is fast on this processor, if there is any.
pub(super) fn kernel() -> Option<Kernel> {
    static KERNEL: LazyLock<Option<Kernel>> = LazyLock::new(|| simd::kernels().first().copied());
    *KERNEL
}

/// For each row of factors, the sum of the symbols times their factors, concatenated. Symbols have `size` bytes. A
/// row has a factor for each symbol; further ones are ignored. So are bytes of a symbol beyond `size`, which is at least 1.
pub(super) fn sums(kernel: Kernel, symbols: &[&[u8]], size: usize, rows: &[&[u8]]) -> Vec<u8> {
    let mut sums = vec![0; rows.len() * size];
    let whole = size - size % STRIP;
    // The ends of the symbols, as strips.
    let ends: Vec<[u8; STRIP]> = symbols.iter().map(|symbol| padded(&symbol[whole..size])).collect();
    let ends: Vec<&[u8]> = ends.iter().map(|end| &end[..]).collect();
    for (sums, rows) in sums.chunks_mut(ROWS * size).zip(rows.chunks(ROWS)) {
        let factor = |row: usize, i: usize| rows.get(row).map_or(0, |row| row[i]);
        let factors = (0..symbols.len()).map(|i| from_fn(|row| factor(row, i)));
        let factors: Vec<[u8; ROWS]> = factors.collect();
        for at in (0..size).step_by(STRIP) {
            let strips = if at < whole { kernel(symbols, at, &factors) } else { kernel(&ends, 0, &factors) };
            for (sum, strip) in sums.chunks_exact_mut(size).zip(&strips) {
                let len = STRIP.min(size - at);
                sum[at..at + len].copy_from_slice(&strip[..len]);
            }
        }
    }
    sums
}

fn padded(bytes: &[u8]) -> [u8; STRIP] {
    let mut strip = [0; STRIP];
    strip[..bytes.len()].copy_from_slice(bytes);
    strip
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
    fn kernels_agree_with_the_tables_for_every_size_and_alignment() {
        let mut rng = fastrand::Rng::with_seed(1);
        let kernels = simd::kernels();
        if kernels.is_empty() {
            eprintln!("skipped: this processor has no kernel");
        }
        for size in (1..=200).chain([1400, 1408, 1432]) {
            let (count, rows, shift) = (rng.usize(0..40), rng.usize(0..10), rng.usize(0..64));
            let mut bytes = vec![0; shift + count * size];
            rng.fill(&mut bytes);
            let symbols: Vec<&[u8]> = bytes[shift..].chunks(size).collect();
            let rows: Vec<Vec<u8>> = (0..rows).map(|_| (0..count).map(|_| rng.u8(..)).collect()).collect();
            let mut expected = vec![0; rows.len() * size];
            for (sum, row) in expected.chunks_exact_mut(size).zip(&rows) {
                for (symbol, factor) in symbols.iter().zip(row) {
                    add_products(sum, symbol, products(*factor));
                }
            }
            let rows: Vec<&[u8]> = rows.iter().map(|row| &row[..]).collect();
            for (i, kernel) in kernels.iter().enumerate() {
                assert_eq!(sums(*kernel, &symbols, size, &rows), expected, "kernel {i}, symbols of {size}");
            }
        }
    }

    #[test]
    fn kernels_know_every_product() {
        let all: Vec<u8> = (0..=255).collect();
        for kernel in simd::kernels() {
            for factor in 0..=255 {
                assert_eq!(sums(kernel, &[&all], 256, &[&[factor]]), products(factor));
            }
        }
    }
}
