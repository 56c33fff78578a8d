//! A bound on what costs time for each datagram, so that a flood of forgeries costs no more.

use crate::time::Time;
use std::time::Duration;

/// Stretch of time over which it is counted.
const STRETCH: Duration = Duration::from_millis(100);

/// Counts how often something was done of late.
#[derive(Debug)]
pub(super) struct Effort {
    most: u32,
    since: Time,
    done: u32,
}

impl Effort {
    /// Something that may be done so often a second, in bursts of a tenth of that.
    pub(super) const fn new(per_second: u32) -> Self {
        Self { most: per_second / 10, since: Time::ZERO, done: 0 }
    }

    /// Whether it may be done now; counts it as done.
    pub(super) fn may(&mut self, now: Time) -> bool {
        if now.since(self.since) >= STRETCH {
            (self.since, self.done) = (now, 0);
        }
        self.done += 1;
        self.done <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_so_often() {
        let mut effort = Effort::new(50);
        let mut times = |from: u64, to: u64| {
            (from..to).filter(|ms| effort.may(Time::ZERO + Duration::from_millis(*ms))).count()
        };
        assert_eq!(times(0, 100), 5);
        assert_eq!(times(100, 103), 3);
        assert_eq!(times(103, 1103), 5 * 10 - 3 + 3);
    }
}
