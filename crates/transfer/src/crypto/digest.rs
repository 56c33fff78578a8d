//! BLAKE3 of the object, computed from the chaining values of its blocks.
//!
//! The length of a block is a power of two (the last block may be shorter), and it begins at a multiple
//! of its size. So it is a subtree of the object's BLAKE3 tree. Its chaining value depends on its offset,
//! and the values of all blocks merge into the hash that `b3sum` prints for the whole file. An object of
//! one block is an exception: the block is the root, which BLAKE3 finalises differently, so the block's
//! "chaining value" is the object's hash.

use crate::units::{Digest, Extent, SymbolDigest};
use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// The chaining value of the block `bytes` at `offset` in an object. If the block is the whole object, the
/// root hash.
///
/// # Panics
/// If `offset` is not a multiple of the block size, or if `bytes` is empty and the object is not: there
/// is no such block.
#[must_use]
pub fn chaining_value(offset: u64, bytes: &[u8], object: Extent) -> Digest {
    if object.total() == Some(bytes.len() as u64) {
        assert_eq!(offset, 0, "a block that is the whole object begins at 0");
        return Digest(*blake3::hash(bytes).as_bytes());
    }
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset).update(bytes);
    Digest(hasher.finalize_non_root())
}

/// The same for a block of `len` zeros, without having them in memory.
///
/// # Panics
/// As [`chaining_value`].
#[must_use]
pub fn chaining_value_of_zeros(offset: u64, len: usize, object: Extent) -> Digest {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut hasher = Hasher::new();
    let whole = object.total() == Some(len as u64);
    if whole {
        assert_eq!(offset, 0, "a block that is the whole object begins at 0");
    } else {
        hasher.set_input_offset(offset);
    }
    let mut left = len;
    while left > 0 {
        let piece = left.min(ZEROS.len());
        hasher.update(&ZEROS[..piece]);
        left -= piece;
    }
    Digest(if whole { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() })
}

/// The digest that distinguishes a source symbol from a forged one. `payload` is the symbol as sent,
/// without padding.
#[must_use]
pub fn symbol_digest(payload: &[u8]) -> SymbolDigest {
    let hash = blake3::hash(payload);
    let (half, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 16], &[]));
    SymbolDigest(*half)
}

/// The BLAKE3 hash of the object whose blocks have these chaining values, in order. Without values, the
/// hash of the empty object.
#[must_use]
pub fn root(values: &[Digest]) -> Digest {
    match values {
        [] => Digest(*blake3::hash(&[]).as_bytes()),
        [only] => *only,
        _ => {
            let (left, right) = values.split_at(left_count(values.len()));
            Digest(*merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).as_bytes())
        }
    }
}

/// The chaining value of a subtree of at least one block. The recursion depth is log2 of the number of
/// blocks.
fn merge(values: &[Digest]) -> ChainingValue {
    if let [only] = values {
        return only.0;
    }
    let (left, right) = values.split_at(left_count(values.len()));
    merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
}

/// The number of blocks in the left subtree of `count > 1` blocks: the largest power of two below `count`
/// (BLAKE3 paper, section 2.1).
const fn left_count(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize, seed: u64) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes);
        bytes
    }

    fn by_blocks(object: &[u8], block_log2: u8) -> Digest {
        let extent = Extent::sealed(object.len() as u64);
        let values: Vec<Digest> = object
            .chunks(1 << block_log2)
            .enumerate()
            .map(|(i, block)| chaining_value((i as u64) << block_log2, block, extent))
            .collect();
        root(&values)
    }

    fn check(len: usize, block_log2: u8, seed: u64) {
        let object = bytes(len, seed);
        let expected = Digest(*blake3::hash(&object).as_bytes());
        assert_eq!(by_blocks(&object, block_log2), expected, "len {len} log2 {block_log2} seed {seed}");
    }

    #[test]
    fn equals_b3sum_at_the_edges() {
        for block_log2 in [10, 11, 14] {
            let block = 1_usize << block_log2;
            for len in [0, 1, 63, 64, 65, 1023, 1024, 1025] {
                check(len, block_log2, 1);
            }
            for blocks in 1..=17 {
                for len in [blocks * block - 1, blocks * block, blocks * block + 1] {
                    check(len, block_log2, blocks as u64);
                }
            }
        }
    }

    #[test]
    fn equals_b3sum_at_the_usual_block_size() {
        for len in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 12_345] {
            check(len, 20, 7);
        }
    }

    #[test]
    fn equals_b3sum_at_random() {
        let mut rng = fastrand::Rng::with_seed(2);
        for seed in 0..100 {
            check(rng.usize(0..200_000), rng.u8(10..16), seed);
        }
    }

    #[test]
    fn zeros_have_the_value_of_their_place() {
        for len in [1, 1024, 1 << 16, (1 << 16) + 1, 1 << 18, 300_000] {
            for object in [len as u64, 1 << 40].map(Extent::sealed) {
                for offset in [0, 1 << 20, 7 << 20] {
                    if offset == 0 || object.size > len as u64 {
                        let value = chaining_value(offset, &vec![0; len], object);
                        assert_eq!(chaining_value_of_zeros(offset, len, object), value, "{len} at {offset}");
                    }
                }
            }
        }
    }

    #[test]
    fn known_answers() {
        assert_eq!(root(&[]).to_string(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(chaining_value(0, b"", Extent::sealed(0)), root(&[]));
    }

    #[test]
    fn the_same_bytes_elsewhere_have_another_value() {
        let block = bytes(1024, 3);
        let [longer, whole] = [4096, 1024].map(Extent::sealed);
        assert_ne!(chaining_value(0, &block, longer), chaining_value(1024, &block, longer));
        assert_ne!(chaining_value(0, &block, longer), chaining_value(0, &block, whole));
        // While the object grows, something follows each of its blocks.
        let growing = Extent { size: 1024, sealed: false };
        assert_eq!(chaining_value(0, &block, longer), chaining_value(0, &block, growing));
    }
}
