//! Tests of devices with a hook: the sender waits for its end and reports it, and no other device is held up.

use super::scenario::{Expectation, Plain, Scenario};
use super::transfer;
use crate::time::Time;
use std::time::Duration;

const PLAIN: Plain =
    Plain { devices: 3, loss: 0.02, size: 4 << 20, symbol_size: 1408, rate: 40_000_000, disk: None };

#[test]
fn the_sender_waits_for_hooks_and_tells_how_they_ended() {
    let time = Duration::from_secs(90);
    let mut scenario = Scenario::plain(11, &PLAIN).with_hook(1..2, time, 0).with_hook(2.., time, 3);
    scenario.devices[2].expectation = Expectation::Unconfirmed;
    // The checks at the end compare the sender's table with the expectations.
    let measured = transfer::measure(&scenario);
    let completed: Vec<_> = measured.devices.iter().map(|device| device.completed.unwrap()).collect();
    // The file is there before the hook, and the first device is not held up by the others.
    assert!(completed.iter().all(|at| at.since(Time::ZERO) < time), "{completed:?}");
}

#[test]
fn a_hook_that_outlasts_the_sender_s_patience_counts_if_the_sender_is_still_there() {
    let long = Duration::from_secs(20 * 60);
    let minutes = |n: u64| Duration::from_secs(60 * n);
    for (linger, expectation) in [(0, Expectation::Unconfirmed), (10, Expectation::Complete)] {
        let mut scenario = Scenario::plain(12, &PLAIN).with_hook(2.., long, 0);
        scenario.linger = minutes(linger);
        scenario.devices[2].expectation = expectation;
        let totals = transfer::measure(&scenario).totals;
        assert_eq!(totals.complete, 3, "the file is there");
    }
}
