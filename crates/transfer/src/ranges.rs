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
    /// Adds the values of a range, as far as they are below the capacity, a word at a time.
    pub fn insert_range(&mut self, range: std::ops::Range<u32>) {
        let (mut at, end) = (range.start, range.end.min(self.len));
        while at < end {
            // Up to the end of the range, or of its word.
            let next = (at / 64 + 1).saturating_mul(64).min(end);
            let mask = (u64::MAX >> (64 - (next - at))) << (at % 64);
            let word = &mut self.words[at as usize / 64];
            self.ones += (mask & !*word).count_ones();
            *word |= mask;
            at = next;
        }
    }
    /// Adds the values of another set, as far as they are below the capacity, a word at a time.
    pub fn insert_all(&mut self, other: &Self) {
        let beyond = self.words.len() * 64 - self.len as usize;
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        if let Some(last) = self.words.last_mut() {
            *last &= u64::MAX >> beyond;
        }
        self.ones = self.words.iter().map(|word| word.count_ones()).sum();
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
    /// Changes the capacity. Values beyond the new one are removed.
    pub fn resize(&mut self, len: u32) {
        self.words.resize((len as usize).div_ceil(64), 0);
        if len < self.len {
            if let Some(last) = self.words.last_mut().filter(|_| !len.is_multiple_of(64)) {
                *last &= u64::MAX >> (64 - len % 64);
            }
            self.ones = self.words.iter().map(|word| word.count_ones()).sum();
        }
        self.len = len;
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
    fn a_set_that_is_resized_has_the_values_that_fit() {
        for (len, then) in [(10, 200), (64, 65), (200, 64), (200, 65), (130, 1), (130, 0), (0, 7), (5, 5)] {
            let mut set = BitSet::new(len);
            (0..len).step_by(3).for_each(|i| assert!(set.insert(i)));
            set.resize(then);
            let kept: Vec<u32> = set.runs(true).map(|(first, _)| first).collect();
            let expected: Vec<u32> = (0..len.min(then)).step_by(3).collect();
            assert_eq!((kept, set.capacity()), (expected.clone(), then), "{len} {then}");
            assert_eq!(set.count(), expected.len() as u32);
            set.resize(300);
            assert_eq!(set.count(), expected.len() as u32);
        }
    }

    #[test]
    fn ranges_and_sets_are_added_as_single_values_are() {
        let mut rng = fastrand::Rng::with_seed(9);
        for len in [0_u32, 1, 63, 64, 65, 128, 745] {
            let (mut set, mut plain) = (BitSet::new(len), BitSet::new(len));
            let mut other = BitSet::new(len * 2 + 70);
            for _ in 0..20 {
                let first = rng.u32(..len + 70);
                let range = first..first + rng.u32(..200);
                set.insert_range(range.clone());
                range.for_each(|i| {
                    plain.insert(i);
                });
                assert_eq!(set, plain);
                other.insert(rng.u32(..other.capacity()));
            }
            set.insert_all(&other);
            other.runs(true).flat_map(|(first, n)| first..first + n).for_each(|i| {
                plain.insert(i);
            });
            assert_eq!(set, plain);
        }
        let (from, to) = (u32::MAX - 3, u32::MAX);
        let mut none = BitSet::new(100);
        none.insert_range(from..to);
        none.insert_range(10..10);
        assert_eq!(none.count(), 0);
    }

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
