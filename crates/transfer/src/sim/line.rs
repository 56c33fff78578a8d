//! Lines: a rate that can change, a finite queue before it, and meters of the traffic.

use super::network::FRAMING;
use crate::time::Time;
use std::ops::Range;
use std::time::Duration;

/// Time resolution of the meters, in virtual time.
pub const SLICE: Duration = Duration::from_millis(10);

/// A line with a rate and a finite queue. Datagrams leave in order, each after the time that its bits
/// (with framing) take: a token bucket with a depth of one datagram.
#[derive(Clone, Debug)]
pub struct Line {
    /// Initial rate in bits per second.
    pub rate: u64,
    /// Size of the queue in bytes.
    pub queue: usize,
    /// Whether a full queue blocks the sender (a socket buffer) instead of dropping (a switch).
    pub holds: bool,
    /// Changes of the rate: times in ascending order, and the rate in bits per second from then on.
    pub changes: Vec<(Time, u64)>,
    free_at: Time,
}

impl Line {
    /// A line of `rate` bits per second with a queue of `queue` bytes that drops or blocks.
    #[must_use]
    pub const fn new(rate: u64, queue: usize, holds: bool) -> Self {
        Self { rate, queue, holds, changes: Vec::new(), free_at: Time::ZERO }
    }
    /// The same line with `rate` bits per second from `at` on.
    ///
    /// # Panics
    /// If `at` is before an earlier change.
    #[must_use]
    pub fn changing(mut self, at: Time, rate: u64) -> Self {
        assert!(self.changes.last().is_none_or(|&(last, _)| last <= at), "changes are in order");
        self.changes.push((at, rate));
        self
    }
    /// The rate in bits per second at `at`.
    #[must_use]
    pub fn rate_at(&self, at: Time) -> u64 {
        self.stretch(at).0
    }
    /// The rate at `at`, and the time of its next change.
    fn stretch(&self, at: Time) -> (u64, Time) {
        let next = self.changes.partition_point(|&(from, _)| from <= at);
        let rate = if next == 0 { self.rate } else { self.changes[next - 1].1 };
        (rate.max(1), self.changes.get(next).map_or(Time::NEVER, |&(from, _)| from))
    }
    /// The time at which `bits` that start at `at` have passed.
    fn through(&self, mut at: Time, mut bits: u128) -> Time {
        loop {
            let (rate, until) = self.stretch(at);
            let nanos = u64::try_from(bits * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX);
            let end = at + Duration::from_nanos(nanos);
            if end <= until {
                return end;
            }
            bits -= bits_in(until.since(at), rate).min(bits);
            at = until;
        }
    }
    /// Bytes in the queue at `now`, including the datagram that is passing.
    pub(super) fn backlog(&self, now: Time) -> usize {
        let (mut at, mut bits) = (now, 0);
        while at < self.free_at {
            let (rate, until) = self.stretch(at);
            let end = until.min(self.free_at);
            bits += bits_in(end.since(at), rate);
            at = end;
        }
        usize::try_from(bits / 8).unwrap_or(usize::MAX)
    }
    /// The time at which at most `bytes` are in the queue.
    pub(super) fn drained_to(&self, bytes: usize, now: Time) -> Time {
        let excess = self.backlog(now).saturating_sub(bytes) as u128;
        self.through(now, excess * 8)
    }
    /// The time at which a datagram of `bytes` that arrives at `now` has passed; `None` if the queue is
    /// full.
    pub(super) fn pass(&mut self, now: Time, bytes: usize) -> Option<Time> {
        if !self.holds && self.backlog(now) + bytes > self.queue {
            return None;
        }
        self.free_at = self.through(self.free_at.max(now), (bytes + FRAMING) as u128 * 8);
        Some(self.free_at)
    }
    /// The time that a datagram that arrives at `now` waits before its first bit is sent.
    pub(super) fn wait(&self, now: Time) -> Duration {
        self.free_at.since(now)
    }
}

fn bits_in(time: Duration, rate: u64) -> u128 {
    time.as_nanos() * u128::from(rate) / 1_000_000_000
}

/// Traffic at one point over a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Length of the span.
    pub length: Duration,
    /// Datagrams that passed.
    pub datagrams: u64,
    /// Their bytes on the wire, framing included.
    pub wire_bytes: u64,
    /// Bytes of symbols in them, without any header.
    pub payload: u64,
    /// Datagrams dropped by the full queue of a line or of a socket.
    pub drops: u64,
    /// Longest wait in the queue.
    pub longest_wait: Duration,
}

impl Window {
    /// The rate of symbol bytes in bits per second.
    #[must_use]
    pub fn goodput(&self) -> f64 {
        self.payload as f64 * 8.0 / self.length.as_secs_f64().max(1e-9)
    }
    /// The rate of all traffic in bits per second on the wire.
    #[must_use]
    pub fn wire_rate(&self) -> f64 {
        self.wire_bytes as f64 * 8.0 / self.length.as_secs_f64().max(1e-9)
    }
    /// The share of datagrams that the queue dropped.
    #[must_use]
    pub fn drop_share(&self) -> f64 {
        self.drops as f64 / (self.datagrams + self.drops).max(1) as f64
    }
    const fn add(&mut self, other: &Self) {
        self.datagrams += other.datagrams;
        self.wire_bytes += other.wire_bytes;
        self.payload += other.payload;
        self.drops += other.drops;
        if self.longest_wait.as_nanos() < other.longest_wait.as_nanos() {
            self.longest_wait = other.longest_wait;
        }
    }
}

/// Counts the traffic at one point, by [`SLICE`]s of virtual time.
#[derive(Clone, Debug, Default)]
pub struct Meter(Vec<Window>);

fn slice(at: Time) -> usize {
    usize::try_from(at.since(Time::ZERO).as_nanos() / SLICE.as_nanos()).unwrap_or(usize::MAX)
}

impl Meter {
    fn slice_mut(&mut self, at: Time) -> &mut Window {
        let index = slice(at);
        if self.0.len() <= index {
            self.0.resize(index + 1, Window::default());
        }
        &mut self.0[index]
    }
    /// Records a datagram of `bytes`, `payload` of them a symbol's, that passed at `at` after `wait` in a
    /// queue.
    pub(super) fn passed(&mut self, at: Time, bytes: usize, payload: usize, wait: Duration) {
        let one = Window {
            length: Duration::ZERO,
            datagrams: 1,
            wire_bytes: (bytes + FRAMING) as u64,
            payload: payload as u64,
            drops: 0,
            longest_wait: wait,
        };
        self.slice_mut(at).add(&one);
    }
    /// Records a datagram dropped at `at`.
    pub(super) fn dropped(&mut self, at: Time) {
        self.slice_mut(at).drops += 1;
    }
    /// The traffic in `window`, extended to whole slices.
    #[must_use]
    pub fn over(&self, window: Range<Time>) -> Window {
        let first = slice(window.start);
        let end = slice(window.end + (SLICE - Duration::from_nanos(1))).max(first + 1);
        let mut sum = Window::default();
        for part in self.0.iter().take(end).skip(first) {
            sum.add(part);
        }
        sum.length = SLICE * u32::try_from(end - first).unwrap_or(u32::MAX);
        sum
    }
    /// All traffic, up to the last slice with any.
    #[must_use]
    pub fn total(&self) -> Window {
        self.over(Time::ZERO..Time::ZERO + SLICE * u32::try_from(self.0.len()).unwrap_or(u32::MAX))
    }
}

/// The meters of one node.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    /// Meter of the line out of it.
    pub egress: Meter,
    /// Meter of the switch after that line.
    pub uplink: Meter,
    /// Meter of the line into it.
    pub ingress: Meter,
    /// Meter of its sockets: datagrams that arrived, and drops of the socket buffers.
    pub arrived: Meter,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }
    /// A datagram of 1000 bytes on the wire.
    const BYTES: usize = 1_000 - FRAMING;

    #[test]
    fn a_rate_that_changes_carries_what_it_should() {
        // One datagram a millisecond; half of that from 10 ms to 20 ms. Both changes fall into a
        // datagram.
        let mut line = Line::new(8_000_000, 1 << 20, false)
            .changing(Time(10_500_000), 4_000_000)
            .changing(ms(20), 8_000_000);
        let out: Vec<u64> = (0..20).map(|_| line.pass(ms(0), BYTES).unwrap().0 / 1_000).collect();
        assert_eq!(out[..10], (1..=10).map(|i| i * 1_000).collect::<Vec<_>>());
        // Half of the eleventh at full speed, half at half speed.
        assert_eq!(out[10..14], [11_500, 13_500, 15_500, 17_500]);
        // A quarter of the sixteenth is left when the line is fast again.
        assert_eq!(out[14..], [19_500, 20_750, 21_750, 22_750, 23_750, 24_750]);
        assert_eq!(line.backlog(ms(0)), 20_000);
        assert_eq!(line.backlog(Time(15_500_000)), 7_000);
        assert_eq!(line.drained_to(7_000, ms(0)), Time(15_500_000));
        assert_eq!(line.wait(ms(24)).as_micros(), 750);
        assert_eq!(
            (line.rate_at(ms(10)), line.rate_at(ms(15)), line.rate_at(ms(25))),
            (8_000_000, 4_000_000, 8_000_000)
        );
    }

    #[test]
    fn a_meter_sums_over_windows() {
        let mut meter = Meter::default();
        for i in 0..100 {
            meter.passed(ms(i), BYTES, 900, Duration::from_micros(i));
        }
        meter.dropped(ms(55));
        let window = meter.over(ms(50)..ms(60));
        assert_eq!(
            (window.datagrams, window.wire_bytes, window.payload, window.drops),
            (10, 10_000, 9_000, 1)
        );
        assert_eq!((window.length, window.longest_wait), (SLICE, Duration::from_micros(59)));
        assert!(
            (window.goodput() - 7_200_000.0).abs() < 1.0 && (window.wire_rate() - 8_000_000.0).abs() < 1.0
        );
        assert!((window.drop_share() - 1.0 / 11.0).abs() < 1e-9);
        assert_eq!(meter.total().datagrams, 100);
        assert_eq!(meter.over(ms(200)..ms(300)).datagrams, 0);
    }
}
