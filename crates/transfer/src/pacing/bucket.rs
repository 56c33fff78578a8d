//! A token bucket in bytes on the wire.

use crate::time::Time;
use crate::units::Rate;
use std::time::Duration;

const NANOS: u128 = 1_000_000_000;
/// A quantum's time on the wire. The sender passes datagrams to the kernel in runs of about this length. A cheap
/// switch must be able to queue one.
const QUANTUM_TIME: Duration = Duration::from_micros(500);
/// Most quanta sent at once after a late wake-up.
const DEPTH: u64 = 4;
/// Largest quantum in bytes: one segmented send.
const MAX_QUANTUM: u64 = 64 << 10;

/// Most tokens that late wake-ups of a busy machine add to the reserve, as a time at the rate.
const RESERVE_TIME: Duration = Duration::from_millis(50);
/// Largest debt of a bucket, as a time at the rate. Sending resumes after that time, however much was charged.
const DEBT_TIME: Duration = Duration::from_millis(250);
/// The reserve adds at most the rate divided by this to the rate, so that it causes no burst.
const RESERVE_SHARE: u128 = 4;

/// A token bucket. Sending is allowed while the bucket holds a quantum of tokens. A send is charged afterwards, so
/// the balance may fall below zero. The debt is at most a quarter of a second, or two sends if that is more.
///
/// Tokens that do not fit into the bucket after a late wake-up go into a reserve. While the reserve
/// lasts, it fills the bucket a little faster. So the rate holds on average, and a switch need not queue
/// more than the bucket's depth.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: u64,
    quantum: u64,
    depth: i64,
    tokens: i64,
    reserve: i64,
    /// Sub-byte remainder of the last refill, in bits x nanoseconds.
    remainder: u128,
    refilled: Time,
}

impl TokenBucket {
    /// A full bucket for `rate`. `datagram` is the usual size of a datagram on the wire, in bytes.
    #[must_use]
    pub fn new(rate: Rate, datagram: u64, now: Time) -> Self {
        let per_quantum = bytes_in(rate.0.max(1), QUANTUM_TIME);
        let quantum = per_quantum.clamp(datagram, MAX_QUANTUM.max(datagram));
        // More than one quantum, to make up for a late wake-up.
        let depth = (DEPTH * per_quantum).max(2 * quantum);
        let depth = i64::try_from(depth).unwrap_or(i64::MAX);
        let rate = rate.0.max(1);
        Self { rate, quantum, depth, tokens: depth, reserve: 0, remainder: 0, refilled: now }
    }

    /// Changes the rate. A negative balance and saved tokens stay, up to the new depth.
    pub fn set_rate(&mut self, rate: Rate, datagram: u64, now: Time) {
        self.refill(now);
        let tokens = self.tokens;
        *self = Self::new(rate, datagram, now);
        self.tokens = tokens.min(self.depth);
    }

    /// The number of bytes to send in one call, approximately.
    #[must_use]
    pub const fn quantum(&self) -> u64 {
        self.quantum
    }

    fn refill(&mut self, now: Time) {
        let elapsed = now.since(self.refilled).as_nanos();
        self.refilled = self.refilled.max(now);
        let gained = u128::from(self.rate) * elapsed + self.remainder;
        let bytes = gained / (8 * NANOS);
        self.remainder = gained % (8 * NANOS);
        let extra = i64::try_from(bytes / RESERVE_SHARE).unwrap_or(i64::MAX).min(self.reserve);
        self.reserve -= extra;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(bytes).saturating_add(extra);
        if self.tokens >= self.depth {
            let most = i64::try_from(bytes_in(self.rate, RESERVE_TIME)).unwrap_or(i64::MAX);
            self.reserve = self.reserve.saturating_add(self.tokens - self.depth).min(most);
            self.tokens = self.depth;
            self.remainder = 0;
        }
    }

    /// Clears the reserve. Call when there is nothing to send: the bucket does not make up for idle time.
    pub const fn rest(&mut self) {
        self.reserve = 0;
    }

    /// Whether a quantum may be sent at `now`.
    pub fn ready(&mut self, now: Time) -> bool {
        self.refill(now);
        self.tokens >= self.threshold()
    }

    fn threshold(&self) -> i64 {
        i64::try_from(self.quantum).unwrap_or(i64::MAX)
    }

    /// Charges `bytes` on the wire.
    pub fn charge(&mut self, bytes: u64) {
        let floor = bytes_in(self.rate, DEBT_TIME).max(2 * self.quantum).max(2 * MAX_QUANTUM);
        let floor = i64::try_from(floor).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX)).max(-floor);
    }

    /// The time from which [`TokenBucket::ready`] is true, if nothing is charged until then.
    #[must_use]
    pub fn ready_at(&self) -> Time {
        let short = self.threshold().saturating_sub(self.tokens);
        let Ok(short) = u128::try_from(short) else { return self.refilled };
        let nanos = (short * 8 * NANOS).saturating_sub(self.remainder).div_ceil(u128::from(self.rate));
        self.refilled + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / (8 * NANOS)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_rate_over_a_second_at_many_rates() {
        for rate in [64_000u64, 1_000_000, 20_000_000, 1_000_000_000, 25_000_000_000] {
            let mut bucket = TokenBucket::new(Rate(rate), 1500, Time::ZERO);
            let (mut now, mut sent) = (Time::ZERO, 0u64);
            let end = Time::ZERO + Duration::from_secs(1);
            while now < end {
                if bucket.ready(now) {
                    let n = bucket.quantum() / 1500 * 1500;
                    bucket.charge(n);
                    sent += n;
                } else {
                    let at = bucket.ready_at();
                    assert!(at > now, "rate {rate}: no progress at {now:?}");
                    now = at;
                }
            }
            let slack = 2 * bytes_in(rate, DEPTH as u32 * QUANTUM_TIME) + 4 * 1500;
            let exact = rate / 8;
            assert!(sent <= exact + slack, "rate {rate}: {sent} > {exact} + {slack}");
            assert!(sent + slack >= exact, "rate {rate}: {sent} < {exact} - {slack}");
        }
    }

    #[test]
    fn an_idle_bucket_saves_up_no_more_than_its_depth() {
        let mut bucket = TokenBucket::new(Rate(8_000_000), 1000, Time::ZERO);
        let later = Time::ZERO + Duration::from_secs(3600);
        let mut burst = 0;
        while bucket.ready(later) {
            bucket.charge(1000);
            burst += 1000;
        }
        assert!(burst <= DEPTH * bucket.quantum() + 1000, "{burst}");
    }

    #[test]
    fn late_wake_ups_are_made_up_for_and_idle_times_are_not() {
        let sent = |rests: bool| {
            let mut bucket = TokenBucket::new(Rate(80_000_000), 1500, Time::ZERO);
            let (mut sent, mut most) = (0, 0);
            // The sender wakes up every half millisecond, but every twentieth wake-up is three milliseconds late.
            let late = (0..).map(|i| 13_000 * (i / 20) + 500 * (i % 20)).take_while(|us| *us < 3_000_000);
            for us in late {
                let now = Time::ZERO + Duration::from_micros(us);
                let mut burst = 0;
                while bucket.ready(now) {
                    bucket.charge(bucket.quantum());
                    burst += bucket.quantum();
                }
                if rests {
                    bucket.rest();
                }
                (sent, most) = (sent + burst, most.max(burst));
            }
            assert!(most <= DEPTH * bucket.quantum(), "{most}");
            sent
        };
        let full = 80_000_000 / 8 * 3;
        assert!(sent(false) > full * 97 / 100, "{}", sent(false));
        assert!(sent(true) < full * 95 / 100, "{}", sent(true));
    }

    #[test]
    fn debt_has_a_floor() {
        let rate = 100_000_000;
        let mut bucket = TokenBucket::new(Rate(rate), 1500, Time::ZERO);
        (0..1_000_000).for_each(|_| bucket.charge(150));
        assert!(!bucket.ready(Time::ZERO + Duration::from_millis(200)));
        assert!(bucket.ready(Time::ZERO + Duration::from_millis(260)));
    }

    #[test]
    fn debt_is_paid_before_the_next_send() {
        let mut bucket = TokenBucket::new(Rate(8_000), 100, Time::ZERO);
        bucket.charge(1_200);
        assert!(!bucket.ready(Time::ZERO));
        let at = bucket.ready_at();
        assert!(at >= Time::ZERO + Duration::from_secs(1), "{at:?}");
        assert!(bucket.ready(at));
    }
}
