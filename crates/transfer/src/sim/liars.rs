//! Tests slow liars one by one: what each costs the group.

use super::hostile::{Attack, HostilePlan, Lie};
use super::network::Attachment;
use super::scenario::{Plain, Scenario};
use super::transfer;
use crate::time::Time;
use std::time::Duration;

/// Streaming takes 40 s, several times as long as a path's best rate is remembered.
const PLAIN: Plain =
    Plain { devices: 3, loss: 0.0, size: 38 << 20, symbol_size: 1408, rate: 8_000_000, disk: None };

/// The time that three honest devices take beside a device with this lie.
fn time_beside(lie: Option<Lie>) -> Duration {
    let mut scenario = Scenario::plain(7, &PLAIN).finding_its_rate();
    scenario.expected = Some(4);
    scenario.wait = Duration::from_secs(3);
    scenario.hostile.extend(lie.map(|lie| HostilePlan {
        attack: Attack::SlowLiar(lie),
        start: Time::ZERO,
        end: Time::NEVER,
        every: Duration::from_millis(if lie == Lie::Slow { 100 } else { 1_000 }),
        burst: 1,
        attachment: Attachment::default(),
    }));
    if lie == Some(Lie::Successors) {
        scenario.max_time = Some(Duration::from_secs(300));
    }
    let met = transfer::measure(&scenario);
    let start = met.started.expect("it has started");
    let last = met.devices.iter().map(|device| device.completed.expect("all are complete")).max();
    last.map(|last| last.since(start)).unwrap_or_default()
}

#[test]
fn a_liar_costs_the_group_at_most_half_of_its_rate() {
    let alone = time_beside(None);
    for lie in [Lie::Slow, Lie::Greedy, Lie::Late, Lie::NoReceipt, Lie::Successors, Lie::Guests] {
        let beside = time_beside(Some(lie));
        println!("{lie:?}: {beside:?} instead of {alone:?}");
        assert!(beside.as_secs_f64() < alone.as_secs_f64() * 2.1, "{lie:?}: {beside:?} instead of {alone:?}");
    }
}
