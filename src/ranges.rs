//! L0: sets of small integers.

/// A set of `u32` below a fixed capacity, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BitSet {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

impl BitSet {
    /// An empty set of values below `len`.
    #[must_use]
    pub fn new(len: u32) -> Self {
        Self { words: vec![0; (len as usize).div_ceil(64)], len, ones: 0 }
    }
    /// The exclusive upper bound of the values.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.len
    }
    /// The number of values in the set.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.ones
    }
    /// Whether every value below the capacity is in the set.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.ones == self.len
    }
    /// Whether `i` is in the set; false if `i` is out of range.
    #[must_use]
    pub fn contains(&self, i: u32) -> bool {
        i < self.len && self.words[i as usize / 64] >> (i % 64) & 1 == 1
    }
    /// Adds `i`; true if it was absent. Ignores values out of range and returns false.
    pub fn insert(&mut self, i: u32) -> bool {
        if i >= self.len || self.contains(i) {
            return false;
        }
        self.words[i as usize / 64] |= 1 << (i % 64);
        self.ones += 1;
        true
    }
    /// Removes `i`; true if it was present.
    pub fn remove(&mut self, i: u32) -> bool {
        if !self.contains(i) {
            return false;
        }
        self.words[i as usize / 64] &= !(1 << (i % 64));
        self.ones -= 1;
        true
    }
    /// Empties the set.
    pub fn clear(&mut self) {
        self.words.fill(0);
        self.ones = 0;
    }
    /// The smallest value from `from` on that is in the set (`present`) or not in it.
    #[must_use]
    pub fn next(&self, from: u32, present: bool) -> Option<u32> {
        let mut i = from;
        while i < self.len {
            let word = self.words[i as usize / 64];
            let word = (if present { word } else { !word }) >> (i % 64);
            if word != 0 {
                let found = i + word.trailing_zeros();
                return (found < self.len).then_some(found);
            }
            i = (i / 64 + 1) * 64;
        }
        None
    }
    /// Maximal runs `(start, length)` of values in the set (`present`) or not in it.
    pub fn runs(&self, present: bool) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, present)?;
            at = self.next(start, !present).unwrap_or(self.len);
            Some((start, at - start))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_next_agree_with_a_plain_scan() {
        let mut rng = fastrand::Rng::with_seed(7);
        for len in [0u32, 1, 63, 64, 65, 130, 745] {
            let mut set = BitSet::new(len);
            for i in 0..len {
                if rng.u8(..4) == 0 {
                    assert!(set.insert(i));
                    assert!(!set.insert(i));
                }
            }
            for present in [false, true] {
                let from_runs: Vec<u32> = set.runs(present).flat_map(|(s, n)| s..s + n).collect();
                let plain: Vec<u32> = (0..len).filter(|&i| set.contains(i) == present).collect();
                assert_eq!(from_runs, plain);
            }
            assert_eq!(set.count() as usize, (0..len).filter(|&i| set.contains(i)).count());
            assert!(!set.insert(len) && !set.contains(len));
        }
    }
}
