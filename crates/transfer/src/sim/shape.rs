//! Scenarios built by hand: lines, delays and losses added to a plain scenario.
//!
//! ```
//! # use mcp_transfer::sim::{line::Line, scenario::{Plain, Scenario}, transfer};
//! # use std::time::Duration;
//! let plain = Plain { devices: 3, loss: 0.0, size: 1 << 20, symbol_size: 1408, rate: 20_000_000, disk: None };
//! let scenario = Scenario::plain(1, &plain)
//!     .with_uplink(Line::new(100_000_000, 256 << 10, false))
//!     .with_lines(2.., &Line::new(10_000_000, 64 << 10, false))
//!     .with_delay(.., Duration::from_millis(30))
//!     .with_loss(..2, 0.02);
//! let measured = transfer::measure(&scenario);
//! assert!(measured.devices.iter().all(|d| d.completed.is_some()));
//! assert!(measured.devices[2].meters.ingress.total().drops > 0);
//! ```

use super::line::Line;
use super::scenario::{DevicePlan, Scenario};
use std::ops::RangeBounds;
use std::time::Duration;

impl Scenario {
    /// The plans of some devices, to change them.
    pub fn devices_mut(&mut self, which: impl RangeBounds<usize>) -> impl Iterator<Item = &mut DevicePlan> {
        let numbered = self.devices.iter_mut().enumerate();
        numbered.filter(move |(i, _)| which.contains(i)).map(|(_, plan)| plan)
    }
    /// Makes the sender find its rate, with the scenario's rate as the ceiling.
    #[must_use]
    pub fn finding_its_rate(mut self) -> Self {
        self.finds_rate = true;
        self
    }
    /// Bounds what the sender's process may send, in bits per second.
    #[must_use]
    pub const fn with_budget(mut self, budget: u64) -> Self {
        self.budget = Some(budget);
        self
    }
    /// Adds a socket buffer and a line after the sender. A full buffer blocks the sender.
    #[must_use]
    pub fn with_socket_line(mut self, rate: u64, buffer: usize) -> Self {
        self.sender.attachment.egress = Some(Line::new(rate, buffer, true));
        self
    }
    /// Adds the line of a switch after the sender.
    #[must_use]
    pub fn with_uplink(mut self, line: Line) -> Self {
        self.sender.attachment.uplink = Some(line);
        self
    }
    /// Gives each of these devices its own line like this one, for traffic to the device.
    #[must_use]
    pub fn with_lines(mut self, which: impl RangeBounds<usize>, line: &Line) -> Self {
        self.devices_mut(which).for_each(|plan| plan.attachment.ingress = Some(line.clone()));
        self
    }
    /// Gives each of these devices its own line like this one, for traffic from the device.
    #[must_use]
    pub fn with_lines_back(mut self, which: impl RangeBounds<usize>, line: &Line) -> Self {
        self.devices_mut(which).for_each(|plan| plan.attachment.egress = Some(line.clone()));
        self
    }
    /// Adds a delay to these devices' links, in each direction, beside the time in lines.
    #[must_use]
    pub fn with_delay(mut self, which: impl RangeBounds<usize>, one_way: Duration) -> Self {
        for plan in self.devices_mut(which) {
            plan.attachment.down.delay = one_way;
            plan.attachment.up.delay = one_way;
        }
        self
    }
    /// Gives these devices an earlier version with this percentage of unchanged blocks.
    #[must_use]
    pub fn with_earlier(mut self, which: impl RangeBounds<usize>, percent: u8) -> Self {
        self.devices_mut(which).for_each(|plan| plan.earlier = Some(percent));
        self
    }
    /// Gives these devices a hook that runs for this time and ends with this status.
    #[must_use]
    pub fn with_hook(mut self, which: impl RangeBounds<usize>, time: Duration, status: i32) -> Self {
        self.devices_mut(which).for_each(|plan| plan.hook = Some((time, status)));
        self
    }
    /// In a quarter of the runs with a steady sender, gives half of the devices hooks, of which one in three fails.
    #[must_use]
    pub fn with_some_hooks(mut self, mut rng: fastrand::Rng) -> Self {
        // If all devices have failed before the stream begins, nobody is waited for. So the first device, for which there
        // is a session, may not have the object already, and nobody can with an empty one.
        let empty = self.layout.object_size() == 0;
        if rng.u8(..4) == 0 && self.sender.is_steady() {
            self.devices.iter_mut().enumerate().for_each(|(index, plan)| {
                let may_fail = !empty && (index > 0 || plan.earlier.is_none());
                // Some outlast every deadline of a silent device.
                let most = if rng.u8(..8) == 0 { 60_000 } else { 3_000 };
                let hook = (Duration::from_millis(rng.u64(..most)), i32::from(rng.u8(..3) == 0 && may_fail));
                plan.hook = rng.bool().then_some(hook);
            });
        }
        self
    }
    /// In a third of the runs, gives all devices or some of them an earlier version.
    #[must_use]
    pub fn with_some_earlier(mut self, mut rng: fastrand::Rng) -> Self {
        if rng.u8(..3) == 0 {
            let of_ten = if rng.bool() { 10 } else { 6 };
            self.devices.iter_mut().for_each(|plan| {
                plan.earlier = (rng.u8(..10) < of_ten).then(|| rng.u8(0..=100));
            });
        }
        self
    }
    /// Makes each of these devices lose this share of its datagrams independently, from 0 to 1, after the
    /// lines.
    #[must_use]
    pub fn with_loss(mut self, which: impl RangeBounds<usize>, loss: f64) -> Self {
        self.devices_mut(which).for_each(|plan| plan.attachment.down.loss = loss);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Plain;
    use super::super::transfer;
    use super::*;

    const PLAIN: Plain =
        Plain { devices: 4, loss: 0.0, size: 4 << 20, symbol_size: 1408, rate: 40_000_000, disk: None };

    #[test]
    fn a_line_that_halves_and_comes_back_is_seen() {
        let line = |rate| Line::new(rate, 128 << 10, false);
        let plain = Scenario::plain(5, &PLAIN).with_delay(.., Duration::from_millis(5));
        let free = transfer::measure(&plain);
        let start = free.started.unwrap();
        assert!(free.totals.overhead() < 1.001 && free.totals.transfer_time < Duration::from_secs(2));
        // From 0.3 s after the start of the stream, for 0.2 s, the line carries half of the rate sent.
        let at = |ms| start + Duration::from_millis(ms);
        let halved = line(50_000_000).changing(at(300), 20_000_000).changing(at(500), 50_000_000);
        let met = transfer::measure(&plain.clone().with_lines(1..2, &halved));
        assert_eq!(met.started, free.started);
        let ingress = |from, to| met.devices[1].meters.ingress.over(at(from)..at(to));
        assert_eq!(ingress(0, 300).drops, 0);
        let (full, half) = (ingress(100, 300), ingress(360, 480));
        assert!((0.9..1.01).contains(&(full.wire_rate() / 40e6)), "{full:?}");
        assert!((0.9..1.01).contains(&(half.wire_rate() / 20e6)), "{half:?}");
        assert!((0.3..0.7).contains(&half.drop_share()), "{half:?}");
        // 128 KiB at half speed.
        assert!((45..54).contains(&half.longest_wait.as_millis()), "{half:?}");
        assert!(met.devices.iter().all(|d| d.completed.is_some()));
        assert_eq!(met.devices[0].meters.ingress.total().drops, 0);
    }

    #[test]
    fn delays_hold_both_ways() {
        let far = Scenario::plain(6, &PLAIN).with_delay(2.., Duration::from_millis(600));
        let met = transfer::measure(&far);
        let done: Vec<_> = met.devices.iter().map(|d| d.completed.unwrap()).collect();
        assert!(done[2] > done[0] + Duration::from_millis(590), "{done:?}");
    }
}
