//! The blocks of an object: which of them are there, and how each is checked.
//!
//! A block is 1 MiB, a subtree of the object's BLAKE3 tree. The chaining values of all blocks merge into the object's hash, so a
//! list of values needs no signature of its own, and each block is checked by itself.

use crate::documents::Hash;
use mcp_transfer::crypto::digest::{chaining_value, root};
use mcp_transfer::units::{Digest, Extent};
use std::ops::Range;

pub(crate) use crate::objects::BLOCK;

/// The blocks of one object.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    size: u64,
    values: Vec<Digest>,
    have: Vec<bool>,
}

impl Blocks {
    /// The blocks of an object of one block, whose value is the object's hash; `None` for larger ones.
    pub(crate) fn single(size: u64, root: Hash) -> Option<Self> {
        match size {
            0 => (root == Hash::of(b"")).then(|| Self { size, values: Vec::new(), have: Vec::new() }),
            1..=BLOCK => Some(Self { size, values: vec![Digest(root.0)], have: vec![false] }),
            _ => None,
        }
    }

    /// How many bytes the list of values of an object has.
    pub(crate) const fn list_len(size: u64) -> u64 {
        size.div_ceil(BLOCK) * 32
    }

    /// The blocks of an object of more than one block, with the values in `list`; `None` if they do not merge to `hash`.
    pub(crate) fn new(size: u64, hash: Hash, list: &[u8]) -> Option<Self> {
        if size <= BLOCK || list.len() as u64 != Self::list_len(size) {
            return None;
        }
        let values: Vec<Digest> = list.as_chunks::<32>().0.iter().copied().map(Digest).collect();
        if root(&values).0 != hash.0 {
            return None;
        }
        let have = vec![false; values.len()];
        Some(Self { size, values, have })
    }

    /// The number of blocks.
    pub(crate) fn count(&self) -> usize {
        self.values.len()
    }

    /// The bytes of the object.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Where block `index` is in the object.
    pub(crate) fn range(&self, index: usize) -> Range<u64> {
        let start = index as u64 * BLOCK;
        start..(start + BLOCK).min(self.size)
    }

    /// Whether `bytes` are block `index`.
    pub(crate) fn verify(&self, index: usize, bytes: &[u8]) -> bool {
        let range = self.range(index);
        bytes.len() as u64 == range.end - range.start
            && self.values[index] == chaining_value(range.start, bytes, Extent::sealed(self.size))
    }

    /// Notes that block `index` is there.
    pub(crate) fn set(&mut self, index: usize) {
        self.have[index] = true;
    }

    /// Whether block `index` is there.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.have[index]
    }

    /// The first blocks that are missing one after the other; `None` if all are there.
    pub(crate) fn missing(&self) -> Option<Range<usize>> {
        let start = self.have.iter().position(|have| !have)?;
        let end = self.have[start..].iter().position(|have| *have).map_or(self.count(), |n| start + n);
        Some(start..end)
    }

    /// Bytes of the blocks that are there.
    pub(crate) fn bytes(&self) -> u64 {
        let len = |index| {
            let range = self.range(index);
            range.end - range.start
        };
        (0..self.count()).filter(|index| self.have[*index]).map(len).sum()
    }
}

/// The list of chaining values of `bytes`, as servers give it.
#[cfg(test)]
pub(crate) fn list_of(bytes: &[u8]) -> Vec<u8> {
    let size = bytes.len() as u64;
    let values = bytes.chunks(BLOCK as usize).enumerate();
    values
        .flat_map(|(index, block)| chaining_value(index as u64 * BLOCK, block, Extent::sealed(size)).0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_merge_to_the_plain_hash_at_every_shape() {
        let bytes: Vec<u8> = (0..5 * BLOCK + 77).map(|n| (n % 251) as u8).collect();
        for size in [BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK - 1, 3 * BLOCK, 5 * BLOCK + 77] {
            let bytes = &bytes[..size as usize];
            let (root, list) = (Hash::of(bytes), list_of(bytes));
            let blocks = Blocks::new(size, root, &list).unwrap();
            for index in 0..blocks.count() {
                let range = blocks.range(index);
                let block = &bytes[range.start as usize..range.end as usize];
                assert!(blocks.verify(index, block));
                assert!(!blocks.verify(index, &block[..block.len() - 1]));
                assert!(!blocks.verify((index + 1) % blocks.count(), block), "in another place");
            }
            let mut wrong = list.clone();
            wrong[size as usize % list.len()] ^= 1;
            assert!(Blocks::new(size, root, &wrong).is_none());
            assert!(Blocks::new(size, root, &list[32..]).is_none());
            assert!(Blocks::new(size + BLOCK, root, &list).is_none());
        }
    }

    #[test]
    fn small_objects_are_one_block() {
        for size in [0, 1, BLOCK] {
            let bytes = vec![7; size as usize];
            let blocks = Blocks::single(size, Hash::of(&bytes)).unwrap();
            assert_eq!(blocks.missing(), (size > 0).then_some(0..1));
            assert!(size == 0 || blocks.verify(0, &bytes));
        }
        assert!(Blocks::single(BLOCK + 1, Hash([0; 32])).is_none());
        assert!(Blocks::single(0, Hash([0; 32])).is_none(), "no bytes have this hash");
    }

    #[test]
    fn missing_runs() {
        let bytes = vec![0; 4 * BLOCK as usize];
        let mut blocks = Blocks::new(4 * BLOCK, Hash::of(&bytes), &list_of(&bytes)).unwrap();
        assert_eq!(blocks.missing(), Some(0..4));
        blocks.set(0);
        blocks.set(2);
        assert_eq!((blocks.missing(), blocks.bytes()), (Some(1..2), 2 * BLOCK));
        blocks.set(1);
        blocks.set(3);
        assert_eq!(blocks.missing(), None);
    }
}
