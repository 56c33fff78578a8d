//! Counts the datagrams of a train: how many, in which order, how long, how fast.

use std::time::Instant;

/// Most datagrams of a train.
pub const MAX_TRAIN: u32 = 1024;

/// What has arrived of a train.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    told: Told,
    seen: [u64; (MAX_TRAIN / 64) as usize],
    first: Option<Instant>,
    /// Bytes after the first datagram.
    bytes: u64,
}

/// The result, as it is told to the other doctor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Different datagrams.
    pub received: u32,
    /// Copies of datagrams that had arrived before.
    pub copies: u32,
    /// Datagrams that came after one with a higher number.
    pub late: u32,
    /// The highest number, plus one.
    pub end: u32,
    /// The bytes of the longest one.
    pub largest: u32,
    /// Bits a second from the first to the last datagram; 0 if they came at once.
    pub rate: u64,
}

impl Told {
    /// Bytes of its encoding.
    pub const LEN: usize = 28;

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let words = [self.received, self.copies, self.late, self.end, self.largest];
        words.iter().flat_map(|word| word.to_be_bytes()).chain(self.rate.to_be_bytes()).collect()
    }

    /// Reads its bytes.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
        let rate = u64::from_be_bytes(std::array::from_fn(|i| bytes[20 + i]));
        Self { received: word(0), copies: word(4), late: word(8), end: word(12), largest: word(16), rate }
    }
}

impl Tally {
    /// Counts a datagram. A number beyond [`MAX_TRAIN`] is none of a train.
    pub fn count(&mut self, number: u32, length: usize, at: Instant) {
        let Some(word) = self.seen.get_mut((number / 64) as usize) else { return };
        let bit = 1 << (number % 64);
        if *word & bit != 0 {
            self.told.copies = self.told.copies.saturating_add(1);
            return;
        }
        *word |= bit;
        let told = &mut self.told;
        told.received += 1;
        told.late += u32::from(number < told.end);
        told.end = told.end.max(number + 1);
        told.largest = told.largest.max(u32::try_from(length).unwrap_or(u32::MAX));
        let Some(first) = self.first else {
            self.first = Some(at);
            return;
        };
        self.bytes += length as u64;
        let time = at.saturating_duration_since(first).as_secs_f64();
        told.rate = if time > 0.0 { (self.bytes as f64 * 8.0 / time) as u64 } else { 0 };
    }

    /// What arrived so far.
    #[must_use]
    pub const fn told(&self) -> Told {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn order_copies_and_rate() {
        let (mut tally, now) = (Tally::default(), Instant::now());
        for (number, ms) in [(0, 0), (2, 1), (1, 2), (1, 3), (5, 4), (MAX_TRAIN, 5), (u32::MAX, 6)] {
            tally.count(number, 1000, now + Duration::from_millis(ms));
        }
        let told = tally.told();
        let wanted = Told { received: 4, copies: 1, late: 1, end: 6, largest: 1000, rate: 6_000_000 };
        assert_eq!(told, wanted);
        assert_eq!(Told::decode(&told.encode().try_into().unwrap()), wanted);
    }
}
