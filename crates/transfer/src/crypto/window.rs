//! Replay protection: refuses a packet number that was seen before (as in RFC 4303, section 3.4.3).

/// Number of counters below the highest that the window distinguishes. Older counters count as seen.
pub const WINDOW: u64 = 4096;
const WORDS: usize = WINDOW as usize / 64;

/// A sliding window over one channel's counters. Only authenticated datagrams may move it: otherwise a
/// forgery could push genuine datagrams out of it.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// One above the highest counter seen.
    end: u64,
    seen: Box<[u64; WORDS]>,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { end: 0, seen: Box::new([0; WORDS]) }
    }
}

impl ReplayWindow {
    /// Whether the window has not seen this counter yet.
    #[must_use]
    pub fn is_new(&self, counter: u64) -> bool {
        if counter >= self.end {
            return true;
        }
        self.end - counter <= WINDOW && self.seen[word(counter)] & bit(counter) == 0
    }

    /// One above the highest counter seen.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Records an authenticated datagram. False if the counter was seen before, or is below the window.
    pub fn note(&mut self, counter: u64) -> bool {
        if !self.is_new(counter) {
            return false;
        }
        if counter >= self.end {
            // Counters that enter the window have not been seen. Clears whole words, at most one window's
            // worth.
            let (from, to) = (self.end, counter + 1);
            if to - from >= WINDOW {
                self.seen.fill(0);
            } else {
                let mut at = from;
                while at < to {
                    if at.is_multiple_of(64) && to - at >= 64 {
                        self.seen[word(at)] = 0;
                        at += 64;
                    } else {
                        self.seen[word(at)] &= !bit(at);
                        at += 1;
                    }
                }
            }
            self.end = to;
        }
        self.seen[word(counter)] |= bit(counter);
        true
    }
}

const fn word(counter: u64) -> usize {
    (counter / 64) as usize % WORDS
}

const fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_set_that_forgets_nothing() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut window, mut seen, mut high) = (ReplayWindow::default(), BTreeSet::new(), 0_u64);
            for _ in 0..5_000 {
                let counter = match rng.u8(..10) {
                    0 => high.saturating_sub(rng.u64(..WINDOW * 2)),
                    1 => high + rng.u64(..WINDOW * 2),
                    2 => high.saturating_sub(rng.u64(..4)),
                    _ => high + rng.u64(..3),
                };
                let end = seen.last().map_or(0, |h| h + 1);
                let wanted = counter >= end || end - counter <= WINDOW && !seen.contains(&counter);
                assert_eq!(window.is_new(counter), wanted, "seed {seed}, {counter} of {high}");
                assert_eq!(window.note(counter), wanted);
                seen.insert(counter);
                high = high.max(counter);
            }
        }
    }

    #[test]
    fn the_last_numbers_there_are() {
        let mut window = ReplayWindow::default();
        let last = (1 << 48) - 1;
        assert!(window.note(last) && !window.note(last) && !window.note(0) && window.note(last - 1));
    }
}
