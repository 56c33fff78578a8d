//! How fast a channel sends: a token bucket at the rate that its controller has found, and the times at which its
//! datagrams were sent, which devices' reports are compared with.

use crate::pacing::{Clear, RateController, RateMode, Sample, TokenBucket, Trial};
use crate::time::Time;
use crate::units::Rate;
use crate::wire::Arrivals;
use std::collections::VecDeque;
use std::time::Duration;

/// Times of sending that are remembered, and their spacing: two seconds in all.
const MEMORY: usize = 1 << 13;
const SPACING: Duration = Duration::from_micros(250);
/// Below this share of the target rate, the sender itself is the bottleneck, so the rate does not rise.
const REALLY_SENT: f64 = 0.6;
/// A stretch can be sent at more than this share of the rate only for moments, while the bucket catches up.
const MOST_SENT: f64 = 1.25;
/// A stretch tells of the present rate if at most one in this many of its datagrams was sent before: a device begins a
/// stretch with the end of the one before, whose report brings the change of the rate.
const MOSTLY: u64 = 5;
/// Approximate shortest time that the symbols of a unicast repair's round take.
const ROUND: Duration = Duration::from_millis(250);
/// Fewest symbols of a round. The answer to a shorter one would tell nothing about the rate.
const FEWEST: u64 = 64;

/// The pace of a channel.
#[derive(Debug)]
pub(super) struct Pace {
    pub bucket: TokenBucket,
    controller: RateController,
    /// Bytes of a symbol's datagram on the wire.
    datagram: u64,
    /// Packet counters and when they were sent.
    sent: VecDeque<(u64, Time)>,
    /// The first packet counter at the present rate.
    since: u64,
}

impl Pace {
    pub fn new(controller: RateController, datagram: u64, now: Time) -> Self {
        let bucket = TokenBucket::new(controller.rate(), datagram, now);
        Self { bucket, controller, datagram, sent: VecDeque::new(), since: 0 }
    }

    /// Bits per second on the wire.
    pub const fn rate(&self) -> Rate {
        self.controller.rate()
    }

    pub const fn mode(&self) -> RateMode {
        self.controller.mode()
    }

    /// Sets the most that can be sent at present; see [`RateController::set_most`].
    pub const fn set_most(&mut self, most: Rate) {
        self.controller.set_most(most);
    }

    pub const fn trial(&self) -> Trial {
        self.controller.trial()
    }

    /// The rate of this many datagrams a second, in bits per second on the wire.
    pub fn in_bits(&self, datagrams: f64) -> f64 {
        datagrams * (self.datagram * 8) as f64
    }

    /// The mean rate at which a stretch was sent, in bits per second.
    pub fn sending(&self, sample: &Sample) -> f64 {
        self.in_bits(sample.sent as f64 / sample.sent_in.as_secs_f64().max(1e-6))
    }

    /// Notes that the channel's datagrams from `counter` on are sent now.
    pub fn note_sent(&mut self, counter: u64, now: Time) {
        let soon = self.sent.back().is_some_and(|&(_, at)| now < at + SPACING);
        if !soon && matches!(self.mode(), RateMode::Auto(_)) {
            if self.sent.len() == MEMORY {
                self.sent.pop_front();
            }
            self.sent.push_back((counter, now));
        }
    }

    /// Forgets the times of sending while the channel rests (I6).
    pub fn forget(&mut self) {
        self.sent = VecDeque::new();
    }

    /// About when the datagram with this counter was sent.
    fn sent_at(&self, counter: u64) -> Option<Time> {
        let after = self.sent.partition_point(|&(first, _)| first <= counter);
        let &(first, at) = self.sent.get(after.checked_sub(1)?)?;
        let Some(&(next, then)) = self.sent.get(after) else { return Some(at) };
        let share = (counter - first) as f64 / (next - first).max(1) as f64;
        // After a pause, a datagram was sent soon after the noted time before the pause.
        Some(at + (then - at).min(SPACING * 2).mul_f64(share))
    }

    /// Compares a device's report with the times of sending. `None` if more than a small part of the stretch was not
    /// sent at the present rate, or if it is forgotten.
    pub fn sample(&self, arrivals: &Arrivals, overflowed: bool) -> Option<Sample> {
        let (first, last) = (arrivals.first.counter(), arrivals.last.counter());
        let sent = last.checked_sub(first)?;
        if self.since.saturating_sub(first) > sent / MOSTLY {
            return None;
        }
        let (first_at, last_at) = (self.sent_at(first)?, self.sent_at(last)?);
        // A few datagrams that were sent at once after a late wake-up do not make the path faster.
        let least = self.in_bits(sent as f64) / (MOST_SENT * self.rate().0.max(1) as f64);
        Some(Sample {
            sent,
            received: u64::from(arrivals.received) - 1,
            sent_in: (last_at - first_at).max(Duration::from_secs_f64(least)),
            received_in: Duration::from_micros(arrivals.elapsed_us.into()),
            delay_us: i64::try_from(arrivals.last_at_us).ok()? - i64::try_from(last_at.0 / 1000).ok()?,
            overflowed,
        })
    }

    /// The rate at which datagrams left, if `sending` bits per second were sent on average. If there is
    /// little to send, they still leave at the full rate, with pauses in between. The pauses say nothing
    /// about the path.
    pub fn burst(&self, sending: f64) -> f64 {
        if self.is_really(sending) { sending } else { self.rate().0 as f64 }
    }

    /// Whether `sending` bits per second are about the target rate.
    fn is_really(&self, sending: f64) -> bool {
        sending >= REALLY_SENT * self.rate().0 as f64
    }

    /// Reports that the path carried what was sent at `sending` bits per second; see
    /// [`RateController::clear`]. `next` is the counter of the channel's next datagram. True if the rate
    /// changes.
    pub fn clear(&mut self, sending: f64, clear: Clear, next: u64, now: Time) -> bool {
        let changes = self.is_really(sending) && self.controller.clear(now, clear);
        self.settle(changes, next, now)
    }

    /// Reports that the path carries `share` of `sending` bits per second. True if the rate changes.
    pub fn congested(&mut self, sending: f64, share: f64, next: u64, now: Time) -> bool {
        let changes = self.controller.congested(now, Rate(sending as u64), share);
        self.settle(changes, next, now)
    }

    fn settle(&mut self, changes: bool, next: u64, now: Time) -> bool {
        if changes {
            self.bucket.set_rate(self.rate(), self.datagram, now);
            self.since = next;
        }
        changes
    }

    /// Number of symbols in a round of unicast repair: enough for a useful answer, few enough that a wrong
    /// rate is noticed soon, and enough that the path is not idle most of the time.
    pub fn symbols_a_round(&self, rtt: Duration) -> u64 {
        let bytes = u128::from(self.rate().0 / 8) * ROUND.max(rtt * 2).as_millis() / 1000;
        (u64::try_from(bytes).unwrap_or(u64::MAX) / self.datagram).max(FEWEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PacketNumber;

    #[test]
    fn a_stretch_tells_of_the_present_rate_if_it_was_nearly_all_sent_at_it() {
        let mut pace = Pace::new(RateController::new(RateMode::Auto(Rate(10_000_000_000))), 1500, Time::ZERO);
        let at = |counter: u64| Time::ZERO + Duration::from_micros(120) * counter as u32;
        (0..500).for_each(|counter| pace.note_sent(counter, at(counter)));
        let tells = |pace: &Pace, first, last| {
            let number = |counter| PacketNumber::new(crate::units::ChannelId::GROUP, counter);
            let (received, elapsed_us) = ((last - first + 1) as u32, 120 * (last - first) as u32);
            let (first, last) = (number(first), number(last));
            let arrivals = Arrivals { first, last, received, elapsed_us, last_at_us: 0 };
            pace.sample(&arrivals, false).is_some()
        };
        assert!(tells(&pace, 0, 99));
        assert!(pace.clear(100e6, Clear::default(), 104, at(104)), "the rate rises");
        // The next stretch begins with the end of the one that was reported.
        assert!(tells(&pace, 99, 200) && tells(&pace, 104, 150));
        assert!(!tells(&pace, 99, 120) && !tells(&pace, 50, 200), "much of it is older");
    }
}
