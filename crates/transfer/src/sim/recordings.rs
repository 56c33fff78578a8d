//! Waiting devices, and hosts that replay recordings of ended sessions.

use super::hostile::{Attack, HostilePlan};
use super::network::Attachment;
use super::scenario::{Plain, Scenario};
use super::transfer;
use crate::time::Time;
use std::time::Duration;

const PLAIN: Plain =
    Plain { devices: 4, loss: 0.01, size: 2 << 20, symbol_size: 1408, rate: 20_000_000, disk: None };

fn at(ms: u64) -> Time {
    Time::ZERO + Duration::from_millis(ms)
}

/// Announces, symbols, hashes, polls and aborts of a dozen sessions from the past, from the beginning on.
fn scenario(seed: u64, group_key: bool) -> Scenario {
    let mut scenario = Scenario::plain(seed, &PLAIN);
    scenario.group_key = group_key;
    scenario.linger = Duration::from_secs(30);
    scenario.hostile = vec![HostilePlan {
        attack: Attack::Past,
        start: at(0),
        end: at(60_000),
        every: Duration::from_millis(20),
        burst: 2,
        attachment: Attachment::default(),
    }];
    scenario
}

#[test]
fn they_do_not_keep_a_device_from_the_sender_that_is_there() {
    for (seed, group_key) in [(1, false), (2, true), (3, false), (4, true)] {
        let measured = transfer::measure(&scenario(seed, group_key));
        assert_eq!(measured.totals.complete, 4, "seed {seed}");
        let last = measured.devices.iter().map(|device| device.completed).max().flatten().unwrap();
        // One turn in vain, then the session with the highest counter.
        assert!(last < at(10_000), "seed {seed}: the last one is complete at {last:?}");
    }
}

#[test]
fn they_neither_end_nor_hold_a_device_that_waits() {
    for (seed, group_key) in [(5, false), (6, true), (7, false), (8, true)] {
        let mut scenario = scenario(seed, group_key);
        // Nobody is there for twelve seconds but the strangers.
        scenario.sender.crash = Some((at(10), Some(at(12_000))));
        scenario
            .devices
            .iter_mut()
            .for_each(|device| device.start = device.start + Duration::from_millis(500));
        let measured = transfer::measure(&scenario);
        assert_eq!(measured.totals.complete, 4, "seed {seed}");
        let last = measured.devices.iter().map(|device| device.completed).max().flatten().unwrap();
        assert!(last < at(22_000), "seed {seed}: the last one is complete at {last:?}");
    }
}
