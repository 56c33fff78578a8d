//! L1: the coded form of a block: nothing for zeros, without the zeros at its end, or compressed; and back. The only user
//! of the `zstd` crate.
//!
//! ```text
//!  sender     plain bytes --choose--> Recipe, and the packed bytes
//!                         --pack----> the same bytes again, from the same recipe
//!  receiver   packed bytes --unpack--> plain bytes, or nothing
//! ```
//!
//! Packed bytes are whole symbols: K' of them. They must not change within a session, so a recipe gives the same bytes
//! each time: one version of the library is deterministic for a level, and each block gets a context of its own.

use crate::units::{Coded, Coding};
use std::borrow::Cow;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{compress_bound, find_frame_compressed_size};

/// Lowest and highest level of compression, as those of the `zstd` tool. Levels below 1 are faster and pack less.
pub const LEVELS: std::ops::RangeInclusive<i8> = -7..=19;
/// Bytes from the middle of a block that are packed first, to find out whether the rest is worth it.
const PROBE: usize = 64 << 10;
/// The level of the probe.
const PROBE_LEVEL: i8 = 1;
/// Packing is worth it if it leaves at most this many percent.
const WORTH_PERCENT: usize = 95;
/// Zeros at the end of a block are left out if they make at least one in this many of its symbols: the coding of blocks
/// of unusual length takes longer.
const WORTH_SHORTENING: u32 = 32;
/// Bytes that are compared with zeros at a time.
const PIECE: usize = 4096;

/// How the packed bytes of a block are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The coding, and the number of symbols.
    pub coded: Coded,
    /// The level of [`Coding::Zstd`].
    pub level: i8,
}

impl Recipe {
    /// A block of `k` symbols that is sent as it is.
    #[must_use]
    pub const fn raw(k: u32) -> Self {
        Self { coded: Coded::raw(k), level: 0 }
    }
    /// A block of zeros.
    pub const ZERO: Self = Self { coded: Coded { coding: Coding::Zero, k: 0 }, level: 0 };
}

/// Whether all bytes are 0. Ends soon if they are not.
#[must_use]
pub fn are_zero(bytes: &[u8]) -> bool {
    // Equal to itself shifted by one, and beginning with 0: the comparison of slices is the fastest loop there is.
    bytes.first().is_none_or(|&first| first == 0 && bytes[1..] == bytes[..bytes.len() - 1])
}

/// The length of `bytes` without the zeros at their end.
fn trimmed(bytes: &[u8]) -> usize {
    let zeros: usize = bytes.rchunks(PIECE).take_while(|piece| are_zero(piece)).map(<[u8]>::len).sum();
    bytes[..bytes.len() - zeros].iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// Chooses the coding of a block of at least one byte, for symbols of `symbol_size` bytes. With a `level`, one of
/// [`LEVELS`], packs it if that is worth it. Returns the packed bytes with their padding if the coding is
/// [`Coding::Zstd`].
#[must_use]
pub fn choose(block: &[u8], symbol_size: u16, level: Option<i8>) -> (Recipe, Option<Vec<u8>>) {
    let symbols = |len: usize| len.div_ceil(usize::from(symbol_size)) as u32;
    let k = symbols(block.len());
    // Most blocks are known not to be zeros, or short, by their last byte.
    let (short, len) = match trimmed(block) {
        0 => return (Recipe::ZERO, None),
        len => (symbols(len), len),
    };
    let few = short < k && k - short >= k / WORTH_SHORTENING;
    let least = if few { short } else { k };
    if let Some(level) = level.filter(|_| is_worth_packing(&block[..len])) {
        let most = least * WORTH_PERCENT as u32 / 100;
        if let Some(mut packed) = compress(block, level).filter(|packed| symbols(packed.len()) <= most) {
            let k = symbols(packed.len());
            packed.resize(k as usize * usize::from(symbol_size), 0);
            return (Recipe { coded: Coded { coding: Coding::Zstd, k }, level }, Some(packed));
        }
    }
    let coding = if few { Coding::Short } else { Coding::Raw };
    (Recipe { coded: Coded { coding, k: least }, level: 0 }, None)
}

/// Whether a piece from the middle shrinks enough.
fn is_worth_packing(block: &[u8]) -> bool {
    let len = block.len().min(PROBE);
    let start = (block.len() - len) / 2;
    let packed = compress(&block[start..start + len], PROBE_LEVEL);
    packed.is_some_and(|packed| packed.len() <= len * WORTH_PERCENT / 100)
}

/// One frame with these bytes. The frame may depend on the room that there is for it, so there is always as much.
fn compress(bytes: &[u8], level: i8) -> Option<Vec<u8>> {
    let mut packed = Vec::with_capacity(compress_bound(bytes.len()));
    Compressor::new(level.into()).ok()?.compress_to_buffer(bytes, &mut packed).ok()?;
    Some(packed)
}

/// The packed bytes of a block, padded to whole symbols, except for a raw block. `None` if the block is not the one that
/// the recipe was made for.
#[must_use]
pub fn pack(block: &[u8], symbol_size: u16, Recipe { coded, level }: Recipe) -> Option<Cow<'_, [u8]>> {
    let len = coded.k as usize * usize::from(symbol_size);
    match coded.coding {
        Coding::Raw => Some(Cow::Borrowed(block)),
        Coding::Zero => Some(Cow::Borrowed(&[])),
        Coding::Short => block.get(..len).map(Cow::Borrowed),
        Coding::Zstd => {
            let mut packed = compress(block, level)?;
            if packed.len().next_multiple_of(symbol_size.into()) != len {
                return None;
            }
            packed.resize(len, 0);
            Some(Cow::Owned(packed))
        }
    }
}

/// Unpacks the frame at the beginning of `packed` into `block`. False if it is no frame, or does not give exactly as many
/// bytes. Takes no more memory than that.
#[must_use]
pub fn unpack(packed: &[u8], block: &mut [u8]) -> bool {
    let Some(frame) = find_frame_compressed_size(packed).ok().and_then(|len| packed.get(..len)) else {
        return false;
    };
    let unpacked = Decompressor::new().and_then(|mut unpacker| unpacker.decompress_to_buffer(frame, block));
    unpacked.is_ok_and(|len| len == block.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u16 = 256;
    const LEN: usize = 100 * T as usize;

    fn random(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
        bytes
    }

    fn text(len: usize) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(len as u64);
        (0..len).map(|_| b"abcdefgh"[rng.usize(..8)]).collect()
    }

    fn coded(block: &[u8], level: Option<i8>) -> (Coding, u32) {
        let (recipe, packed) = choose(block, T, level);
        let again = pack(block, T, recipe).unwrap();
        assert_eq!(packed.is_some(), recipe.coded.coding == Coding::Zstd);
        assert!(packed.is_none_or(|packed| packed[..] == again[..]), "it changes");
        assert!(recipe.coded.fits((block.len() as u32).div_ceil(T.into())));
        if recipe.coded.coding != Coding::Raw {
            assert_eq!(again.len(), recipe.coded.k as usize * usize::from(T));
        }
        (recipe.coded.coding, recipe.coded.k)
    }

    #[test]
    fn zeros_are_told_from_everything_else() {
        assert!(are_zero(&[]) && are_zero(&[0]) && are_zero(&[0; 5000]));
        for len in [1, 2, 15, 16, 17, 4096, 4097, 5000, 9000] {
            assert_eq!(trimmed(&vec![0; len]), 0);
            for at in [0, 1, len / 2, len - 1] {
                let (mut bytes, at) = (vec![0; len], at.min(len - 1));
                bytes[at] = 1;
                assert!(!are_zero(&bytes), "{len} {at}");
                assert_eq!(trimmed(&bytes), at + 1);
                assert!(!are_zero(&vec![7; len]));
            }
        }
    }

    #[test]
    fn each_block_has_the_coding_that_takes_least() {
        for level in [None, Some(1)] {
            assert_eq!(coded(&vec![0; LEN], level), (Coding::Zero, 0));
            assert_eq!(coded(&[0], level), (Coding::Zero, 0));
            assert_eq!(coded(&[7], level), (Coding::Raw, 1));
            assert_eq!(coded(&random(LEN), level), (Coding::Raw, 100));
            // Zeros behind the 10th symbol, and only in the last two.
            let shorter = |len: usize| [random(len), vec![0; LEN - len]].concat();
            assert_eq!(coded(&shorter(2500), level), (Coding::Short, 10));
            assert_eq!(coded(&shorter(2560), level), (Coding::Short, 10));
            assert_eq!(coded(&shorter(LEN - 512), level).0, Coding::Raw);
        }
        let (coding, k) = coded(&text(LEN), Some(3));
        assert!(coding == Coding::Zstd && (30..50).contains(&k), "{coding:?} {k}");
        assert_eq!(coded(&text(LEN), None).0, Coding::Raw);
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        for (len, level) in [(4000, 1), (LEN, -1), (LEN, 3), (LEN, 19), (700_001, 1), (700_001, 3)] {
            {
                let block = [text(len - 300), vec![0; 300]].concat();
                let (recipe, packed) = choose(&block, T, Some(level));
                assert_eq!(recipe.coded.coding, Coding::Zstd, "{len} at {level}");
                let packed = packed.unwrap();
                let mut unpacked = vec![9; len];
                assert!(unpack(&packed, &mut unpacked) && unpacked == block);
                // A block of another length, and a damaged frame.
                assert!(!unpack(&packed, &mut vec![9; len + 1]) && !unpack(&packed, &mut vec![9; len - 1]));
                let mut damaged = packed.clone();
                damaged[0] ^= 1;
                assert!(!unpack(&damaged, &mut unpacked));
                for at in (0..packed.len()).step_by(packed.len() / 50 + 1) {
                    damaged.copy_from_slice(&packed);
                    damaged[at] ^= 0x10;
                    // Right or wrong, it ends.
                    let _ = unpack(&damaged, &mut unpacked);
                }
            }
        }
    }

    #[test]
    fn a_bomb_takes_no_more_than_its_block() {
        let bomb = compress(&vec![0; 64 << 20], 3).unwrap();
        assert!(bomb.len() < 10_000);
        assert!(!unpack(&bomb, &mut [9; 1000]));
        assert!(!unpack(&[], &mut [9; 10]) && !unpack(&[0; 4096], &mut [9; 10]));
    }

    #[test]
    fn another_block_does_not_fit_a_recipe() {
        let (recipe, _) = choose(&text(LEN), T, Some(3));
        assert_eq!(pack(&random(LEN), T, recipe), None, "it is longer");
        assert_eq!(pack(&vec![7; LEN], T, recipe), None, "it is shorter");
        let short = Recipe { coded: Coded { coding: Coding::Short, k: 100 }, level: 0 };
        assert_eq!(pack(&random(1000), T, short), None);
    }
}
