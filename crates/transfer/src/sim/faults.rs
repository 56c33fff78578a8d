//! Counts the faults that occurred, by class. `planned` counts the planned ones.

use super::network::Counts;
use std::collections::BTreeMap;

/// Counts of faults by class. A class is a short name for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<&'static str, u64>);

impl Faults {
    /// Counts one fault of this class.
    pub fn count(&mut self, class: &'static str) {
        self.many(class, 1);
    }
    /// Counts `times` faults of this class. A class without any does not appear.
    pub fn many(&mut self, class: &'static str, times: u64) {
        if times > 0 {
            *self.0.entry(class).or_default() += times;
        }
    }
    /// Adds the faults of a network.
    pub fn of_network(&mut self, counts: &Counts) {
        for (class, times) in [
            ("datagram lost", counts.lost),
            ("datagram lost in a burst", counts.burst_lost),
            ("datagram lost in a partition", counts.partitioned),
            ("datagram dropped by a full queue", counts.tail_dropped),
            ("datagram dropped by a full socket", counts.kernel_drops),
            ("datagram duplicated", counts.duplicated),
            ("datagram reordered", counts.reordered),
            ("datagram damaged", counts.corrupted),
            ("symbol forged", counts.forged),
        ] {
            self.many(class, times);
        }
    }
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        other.classes().for_each(|(class, times)| self.many(class, times));
    }
    /// The name and the count of each class that occurred.
    pub fn classes(&self) -> impl ExactSizeIterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(&class, &times)| (class, times))
    }
    /// The sum of all classes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_add_up() {
        let mut faults = Faults::default();
        faults.many("loss", 0);
        assert_eq!((faults.total(), faults.classes().len()), (0, 0));
        faults.many("loss", 3);
        let mut other = Faults::default();
        other.count("crash");
        other.count("loss");
        faults.add(&other);
        assert_eq!(faults.classes().collect::<Vec<_>>(), [("crash", 1), ("loss", 4)]);
        assert_eq!(faults.total(), 5);
    }
}
