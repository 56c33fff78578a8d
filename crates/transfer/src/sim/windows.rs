//! Streams of which only the last blocks are kept, on lines that are much longer than the window.

use super::line::Line;
use super::scenario::{Expectation, GrowthPlan, Plain, Scenario};
use super::transfer;
use crate::layout::Layout;
use std::time::Duration;

/// 512 blocks of 16 KiB, of which 8 are kept.
fn scenario(seed: u64) -> Scenario {
    let plain =
        Plain { devices: 4, loss: 0.01, size: 8 << 20, symbol_size: 1024, rate: 100_000_000, disk: None };
    let mut scenario = Scenario::plain(seed, &plain);
    scenario.layout = Layout::new(plain.size, 14, plain.symbol_size).unwrap();
    let growth =
        GrowthPlan { each: Duration::ZERO, pause: (0, Duration::ZERO), dies_after: None, window: Some(8) };
    scenario.sender.growth = Some(growth);
    scenario
}

#[test]
fn a_window_far_below_the_way_to_and_fro_makes_the_stream_stop_and_go_and_no_device_fail() {
    let far = scenario(45_900_000).with_delay(.., Duration::from_millis(60));
    let measured = transfer::measure(&far);
    // The stream stands still for most of the time.
    assert!(measured.totals.transfer_time > Duration::from_secs(15), "{:?}", measured.totals.transfer_time);
    assert_eq!(measured.totals.complete, 4);
}

#[test]
fn a_device_that_holds_the_stream_up_fails_alone() {
    let line = Line::new(500_000, 20_000, false);
    let mut slow = scenario(45_900_001).with_lines(3.., &line);
    slow.devices[3].expectation = Expectation::Fails;
    let measured = transfer::measure(&slow);
    assert_eq!(measured.totals.complete, 3);
}
