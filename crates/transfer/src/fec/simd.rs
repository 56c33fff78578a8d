//! Sums of symbols with the processor's vector instructions, where it has the right ones.
//!
//! The product with a constant factor is linear in the bits of an octet. So it is the sum of two table look-ups, one
//! for each half of the octet (AVX2), or the product with a matrix of bits (GFNI).

#![allow(unsafe_code)]

/// Rows that are summed together. Their sums stay in registers.
pub(super) const ROWS: usize = 4;
/// Bytes of each symbol that are summed at a time.
pub(super) const STRIP: usize = 64;
/// The sums of one strip.
pub(super) type Sums = [[u8; STRIP]; ROWS];
/// Sums the strips that begin at this offset of each symbol. A symbol's factors are those of the rows.
pub(super) type Kernel = fn(symbols: &[&[u8]], at: usize, factors: &[[u8; ROWS]]) -> Sums;

/// The kernels for this processor, the fastest first.
pub(super) fn kernels() -> Vec<Kernel> {
    #[cfg(target_arch = "x86_64")]
    return x86_64::kernels();
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{Kernel, ROWS, STRIP, Sums};
    use crate::fec::octets::products;
    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256,
        _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi8, _mm256_set1_epi64x,
        _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_storeu_si256, _mm256_xor_si256,
    };

    pub fn kernels() -> Vec<Kernel> {
        let mut kernels: Vec<Kernel> = Vec::new();
        if is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the instructions.
            kernels.push(|symbols, at, factors| unsafe { gfni(symbols, at, factors) });
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the instructions.
            kernels.push(|symbols, at, factors| unsafe { avx2(symbols, at, factors) });
        }
        kernels
    }

    /// By factor: the products of the low halves of octets, then those of the high halves.
    static HALVES: [[[u8; 16]; 2]; 256] = {
        let mut halves = [[[0; 16]; 2]; 256];
        let mut factor = 0;
        while factor < 256 {
            let products = products(factor as u8);
            let mut half = 0;
            while half < 16 {
                halves[factor][0][half] = products[half];
                halves[factor][1][half] = products[half << 4];
                half += 1;
            }
            factor += 1;
        }
        halves
    };

    /// By factor: the matrix whose product with an octet is the octet times the factor. The row of the lowest bit is
    /// in the highest byte.
    static MATRICES: [i64; 256] = {
        let mut matrices = [0; 256];
        let mut factor = 0;
        while factor < 256 {
            let products = products(factor as u8);
            let mut rows = [0_u8; 8];
            let mut bit = 0;
            while bit < 8 {
                let mut column = 0;
                while column < 8 {
                    rows[bit] |= (products[1 << column] >> bit & 1) << column;
                    column += 1;
                }
                bit += 1;
            }
            matrices[factor] = i64::from_be_bytes(rows);
            factor += 1;
        }
        matrices
    };

    #[target_feature(enable = "avx2")]
    fn avx2(symbols: &[&[u8]], at: usize, factors: &[[u8; ROWS]]) -> Sums {
        let low = _mm256_set1_epi8(15);
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for (symbol, factors) in symbols.iter().zip(factors) {
            let octets = load(symbol, at);
            let lows = octets.map(|octets| _mm256_and_si256(octets, low));
            let highs = octets.map(|octets| _mm256_and_si256(_mm256_srli_epi16::<4>(octets), low));
            for (sum, factor) in sums.iter_mut().zip(factors) {
                let [of_low, of_high] = &HALVES[usize::from(*factor)];
                let (of_low, of_high) = (table(of_low), table(of_high));
                for (sum, (low, high)) in sum.iter_mut().zip(lows.iter().zip(&highs)) {
                    let low = _mm256_shuffle_epi8(of_low, *low);
                    let high = _mm256_shuffle_epi8(of_high, *high);
                    *sum = _mm256_xor_si256(*sum, _mm256_xor_si256(low, high));
                }
            }
        }
        store(&sums)
    }

    #[target_feature(enable = "avx2,gfni")]
    fn gfni(symbols: &[&[u8]], at: usize, factors: &[[u8; ROWS]]) -> Sums {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for (symbol, factors) in symbols.iter().zip(factors) {
            let octets = load(symbol, at);
            for (sum, factor) in sums.iter_mut().zip(factors) {
                let matrix = _mm256_set1_epi64x(MATRICES[usize::from(*factor)]);
                for (sum, octets) in sum.iter_mut().zip(octets) {
                    *sum = _mm256_xor_si256(*sum, _mm256_gf2p8affine_epi64_epi8::<0>(octets, matrix));
                }
            }
        }
        store(&sums)
    }

    #[target_feature(enable = "avx2")]
    fn load(symbol: &[u8], at: usize) -> [__m256i; 2] {
        let strip = &symbol[at..at + STRIP];
        // SAFETY: the strip has 64 bytes; the instruction reads 32 from any address.
        unsafe {
            let halves = strip.as_ptr().cast::<__m256i>();
            [_mm256_loadu_si256(halves), _mm256_loadu_si256(halves.add(1))]
        }
    }

    #[target_feature(enable = "avx2")]
    fn table(products: &[u8; 16]) -> __m256i {
        // SAFETY: the table has 16 bytes, which the instruction reads from any address.
        let products = unsafe { _mm_loadu_si128(products.as_ptr().cast()) };
        _mm256_broadcastsi128_si256(products)
    }

    #[target_feature(enable = "avx2")]
    fn store(sums: &[[__m256i; 2]; ROWS]) -> Sums {
        let mut bytes = [[0; STRIP]; ROWS];
        for (strip, halves) in bytes.iter_mut().zip(sums) {
            for (bytes, half) in strip.chunks_exact_mut(32).zip(halves) {
                // SAFETY: the chunk has 32 bytes, which the instruction writes to any address.
                unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), *half) };
            }
        }
        bytes
    }
}
