//! The group's round-trip time (GRTT of RFC 5401), estimated from answers to polls.
//!
//! The GRTT determines how long a round waits for answers, so no single device may raise it: it is a quantile over
//! the devices, not the maximum. Each device gives one sample for each poll, and none for a poll older than its last
//! answer. A sample at most doubles the device's estimate. Devices further away than the GRTT are still served: their
//! summaries count in a later round.

use crate::units::DeviceIndex;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bounds of the estimate.
const BOUNDS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(2));
/// Estimate before the first sample.
const INITIAL: Duration = Duration::from_millis(50);
/// One device in this many may be further away than the estimate. Of two or more devices, at least one may be.
const ONE_IN: usize = 8;
/// Most devices with a stored estimate.
const REMEMBERED: usize = 1024;

/// The estimate for one device.
#[derive(Clone, Copy, Debug)]
struct Known {
    estimate: Duration,
    /// Rounds of the latest polls that it answered: of the group, and of its own channel.
    rounds: [u32; 2],
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    devices: BTreeMap<DeviceIndex, Known>,
}

impl RoundTrips {
    /// The group's estimate at the start.
    pub const INITIAL: Duration = INITIAL;

    /// Takes a sample: a device answered the poll of this round, of the group or of its own channel, after `sample`.
    pub fn answered(
        &mut self,
        device: DeviceIndex,
        of_group: bool,
        round: u32,
        sample: Duration,
        grtt: Duration,
    ) {
        if self.devices.len() >= REMEMBERED && !self.devices.contains_key(&device) {
            return;
        }
        let none = Known { estimate: grtt, rounds: [0; 2] };
        let known = self.devices.entry(device).or_insert(none);
        let latest = &mut known.rounds[usize::from(of_group)];
        if round <= *latest {
            return;
        }
        *latest = round;
        let sample = sample.clamp(BOUNDS.0, BOUNDS.1);
        known.estimate = if sample > known.estimate {
            sample.min(known.estimate * 2)
        } else {
            (known.estimate * 7 + sample) / 8
        };
    }

    /// The round-trip time of a device, if known.
    pub fn of(&self, device: DeviceIndex) -> Option<Duration> {
        self.devices.get(&device).map(|known| known.estimate)
    }

    /// The group's new estimate after a round. `grtt` is the old one. `polled` is the number of devices for which
    /// `counts` is true. The estimate falls slowly.
    pub fn group(
        &mut self,
        grtt: Duration,
        polled: usize,
        mut counts: impl FnMut(DeviceIndex) -> bool,
    ) -> Duration {
        self.devices.retain(|&device, _| counts(device));
        let further = if polled < 2 { 0 } else { polled.div_ceil(ONE_IN) };
        let mut known: Vec<Duration> = self.devices.values().map(|known| known.estimate).collect();
        known.sort_unstable_by(|a, b| b.cmp(a));
        let few = known.last().map(|&least| least.min(INITIAL));
        let next = known.get(further).copied().or(few).unwrap_or(grtt);
        next.max(grtt.mul_f64(0.9)).clamp(BOUNDS.0, BOUNDS.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The estimate after this many rounds of devices with these round-trip times.
    fn play(times: &[Duration], rounds: u32) -> Duration {
        let (mut trips, mut grtt) = (RoundTrips::default(), INITIAL);
        for round in 1..=rounds {
            for (device, &time) in (0..).map(DeviceIndex).zip(times) {
                trips.answered(device, true, round, time, grtt);
            }
            grtt = trips.group(grtt, times.len(), |_| true);
        }
        grtt
    }

    #[test]
    fn one_of_several_does_not_decide() {
        let near = [ms(5); 8];
        for count in 1..8 {
            let mut times = near[..count].to_vec();
            times.push(ms(2_000));
            assert!(play(&times, 100) < ms(10), "{count}: {:?}", play(&times, 100));
        }
        // A tenth of the devices does not raise it either; a fifth does.
        let of = |far| play(&[vec![ms(5); 100 - far], vec![ms(500); far]].concat(), 100);
        assert!(of(10) < ms(10) && of(20) > ms(450), "{:?}, {:?}", of(10), of(20));
    }

    #[test]
    fn a_far_away_group_is_waited_for() {
        for count in [1, 2, 5] {
            let grtt = play(&vec![ms(600); count], 10);
            assert!(grtt > ms(590) && grtt <= ms(600), "{count}: {grtt:?}");
        }
    }

    #[test]
    fn a_poll_is_answered_once_and_before_the_next() {
        let (mut trips, device) = (RoundTrips::default(), DeviceIndex(3));
        trips.answered(device, true, 9, ms(10), ms(10));
        for round in [1, 8, 9] {
            trips.answered(device, true, round, ms(2_000), ms(10));
        }
        assert_eq!(trips.of(device), Some(ms(10)));
        // A single sample far above the device's estimate.
        trips.answered(device, true, 10, ms(2_000), ms(10));
        assert_eq!(trips.of(device), Some(ms(20)));
        trips.answered(device, false, 1, ms(2_000), ms(10));
        assert_eq!(trips.of(device), Some(ms(40)));
    }

    #[test]
    fn those_that_have_gone_are_forgotten_and_the_number_is_bounded() {
        let mut trips = RoundTrips::default();
        for n in 0..5_000 {
            trips.answered(DeviceIndex(n), true, 1, ms(80), ms(50));
        }
        assert_eq!(trips.devices.len(), REMEMBERED);
        assert_eq!(trips.group(ms(50), 5_000, |_| false), ms(50));
        assert_eq!(trips.devices.len(), 0);
    }
}
