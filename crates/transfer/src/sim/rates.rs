//! Tests the rate controller against lines with queues: it finds the rate soon, holds it closely and
//! follows changes. Neither random loss nor one slow device reduces the rate.

use super::line::Line;
use super::scenario::{Plain, Scenario};
use super::totals::Measured;
use super::transfer;
use crate::limits::SYMBOL_HEADER_LEN;
use crate::time::Time;
use std::time::Duration;

const T: u16 = 1408;
/// Share of a line that carries the object: symbols without headers and framing.
const PAYLOAD: f64 = T as f64 / (T as usize + SYMBOL_HEADER_LEN + super::network::FRAMING) as f64;

/// A transfer with `--rate auto` up to 10 Gbit/s, to devices behind equal lines of `rate` with queues of
/// 50 ms. The object is large enough for about `seconds`.
fn behind_lines(seed: u64, devices: u32, rate: u64, seconds: f64) -> Scenario {
    let size = (rate as f64 / 8.0 * PAYLOAD * seconds) as u64;
    let plain = Plain { devices, loss: 0.0, size, symbol_size: T, rate: 10_000_000_000, disk: None };
    let line = Line::new(rate, (rate / 8 / 20) as usize, false);
    // Only the sender's own socket prevents it from sending everything at once.
    let scenario = Scenario::plain(seed, &plain).with_socket_line(10_000_000_000, 4 << 20);
    scenario.finding_its_rate().with_lines(.., &line)
}

/// Share of the payload limit of a line of `rate` that device `i` received, and the share of datagrams
/// that its line dropped, between these seconds after the start.
fn held(met: &Measured, i: usize, rate: u64, from: f64, to: f64) -> (f64, f64) {
    let start = met.started.unwrap_or(Time::ZERO);
    let at = |s| start + Duration::from_secs_f64(s);
    let meters = &met.devices[i].meters;
    let goodput = meters.arrived.over(at(from)..at(to)).goodput();
    (goodput / (rate as f64 * PAYLOAD), meters.ingress.over(at(from)..at(to)).drop_share())
}

#[test]
fn lines_are_found_within_two_seconds_and_held() {
    for (seed, rate, loss, delay_us) in [
        (1, 20_000_000, 0.0, 100),
        (2, 20_000_000, 0.02, 10_000),
        (3, 100_000_000, 0.0, 1_000),
        (4, 100_000_000, 0.02, 100),
        (5, 200_000_000, 0.0, 100),
        (6, 200_000_000, 0.02, 20_000),
        (7, 500_000_000, 0.0, 500),
        (8, 500_000_000, 0.02, 200),
        (9, 20_000_000, 0.05, 50_000),
    ] {
        let seconds = if rate > 100_000_000 { 4.0 } else { 6.0 };
        let scenario = behind_lines(seed, 2, rate, seconds)
            .with_delay(.., Duration::from_micros(delay_us))
            .with_loss(.., loss);
        let met = transfer::measure(&scenario);
        for i in 0..2 {
            let (share, drops) = held(&met, i, rate, 2.0, seconds);
            let least = if loss > 0.0 { 0.92 * (1.0 - loss) - 0.02 } else { 0.92 };
            let what = format!("seed {seed}: {rate} with {loss} lost, {delay_us} us away");
            assert!(share >= least, "{what}: {share:.3}");
            // A probe that is mistaken for random loss rises a little further.
            let most = if loss > 0.0 { 0.03 } else { 0.01 };
            assert!(drops <= most, "{what}: {drops:.4} dropped");
        }
    }
}

#[test]
fn a_budget_is_used_and_nothing_above_it_is_aimed_at() {
    for (seed, budget, loss) in [(31, 60_000_000, 0.0), (32, 150_000_000, 0.0), (33, 150_000_000, 0.02)] {
        // That it is not aimed higher is asserted by the world, at each event.
        let scenario = behind_lines(seed, 2, 1_000_000_000, 0.5).with_loss(.., loss).with_budget(budget);
        let met = transfer::measure(&scenario);
        let (share, drops) = held(&met, 0, budget, 0.5, 2.5);
        assert!(share >= 0.95 * (1.0 - loss) - loss && share <= 1.01, "{budget}: {share:.3}");
        assert!(drops == 0.0, "{budget}: {drops:.4} dropped");
    }
}

#[test]
fn far_lines_take_longer_and_are_found_too() {
    for (seed, delay_ms) in [(11, 150), (12, 300), (13, 600)] {
        let rate = 20_000_000;
        let scenario = behind_lines(seed, 2, rate, 20.0).with_delay(.., Duration::from_millis(delay_ms));
        let met = transfer::measure(&scenario);
        let (share, drops) = held(&met, 0, rate, 8.0, 18.0);
        assert!(share >= 0.9, "{delay_ms} ms: {share:.3}");
        assert!(drops <= 0.03, "{delay_ms} ms: {drops:.4} dropped");
    }
}

#[test]
fn a_line_that_halves_and_comes_back_is_followed() {
    let rate = 100_000_000;
    let plain = behind_lines(21, 2, rate, 9.0);
    let start = transfer::measure(&plain).started.unwrap();
    let at = |s: u64| start + Duration::from_secs(s);
    let line = Line::new(rate, 625_000, false).changing(at(3), rate / 2).changing(at(6), rate);
    let met = transfer::measure(&plain.with_lines(.., &line));
    assert_eq!(met.started, Some(start));
    let (share, drops) = held(&met, 1, rate / 2, 5.0, 6.0);
    assert!(share >= 0.92 && drops <= 0.01, "halved: {share:.3}, {drops:.4} dropped");
    let (share, _) = held(&met, 1, rate, 8.0, 9.0);
    assert!(share >= 0.92, "back again: {share:.3}");
}

#[test]
fn random_loss_alone_does_not_bring_the_rate_down() {
    let plain =
        Plain { devices: 3, loss: 0.05, size: 100 << 20, symbol_size: T, rate: 300_000_000, disk: None };
    let scenario = Scenario::plain(31, &plain).with_socket_line(1_000_000_000, 4 << 20).finding_its_rate();
    let met = transfer::measure(&scenario);
    let (share, _) = held(&met, 0, 300_000_000, 1.0, 2.5);
    assert!(share >= 0.9, "{share:.3}");
}

#[test]
fn one_device_behind_a_tenth_of_the_line_does_not_hold_the_others_up() {
    let rate = 100_000_000;
    let slow = Line::new(rate / 10, 62_500, false);
    let last = |met: &Measured| met.devices[1..].iter().filter_map(|d| d.completed).max().unwrap();
    let equal = transfer::measure(&behind_lines(41, 8, rate, 3.0));
    let unequal = transfer::measure(&behind_lines(41, 8, rate, 3.0).with_lines(..1, &slow));
    let (a, b) = (last(&equal) - equal.started.unwrap(), last(&unequal) - unequal.started.unwrap());
    assert!(b.as_secs_f64() <= 1.1 * a.as_secs_f64(), "{b:?} instead of {a:?}");
    // The slow device is served alone afterwards, at about the capacity of its own line.
    let own = unequal.devices[0].completed.unwrap() - unequal.started.unwrap();
    assert!(own <= Duration::from_secs(40), "{own:?}");
}

/// A transfer without loss to devices with these disks, in bytes a second.
fn onto_disks(seed: u64, size: u64, disks: &[Option<u64>]) -> Scenario {
    let disk = disks.first().copied().flatten();
    let plain =
        Plain { devices: disks.len() as u32, loss: 0.01, size, symbol_size: T, rate: 10_000_000_000, disk };
    let mut scenario = Scenario::plain(seed, &plain).finding_its_rate();
    for (plan, disk) in scenario.devices.iter_mut().zip(disks) {
        plan.disk = *disk;
    }
    scenario
}

#[test]
fn a_slow_disk_is_filled_and_costs_nothing_on_the_wire() {
    for (seed, disk, size) in [(1, 30_000_000, 128 << 20), (2, 250_000_000, 256 << 20)] {
        let met = transfer::measure(&onto_disks(seed, size, &[Some(disk)]));
        let (took, least) = (met.totals.transfer_time.as_secs_f64(), size as f64 / disk as f64);
        assert!(took <= least / 0.85, "seed {seed}: {took:.2} s instead of {least:.2}");
        let symbols = met.totals.overhead();
        assert!(symbols <= 1.06, "seed {seed}: {symbols:.3} symbols for each source symbol");
    }
}

#[test]
fn one_slow_disk_among_fast_ones_holds_nobody_up() {
    let (fast, slow, size) = (Some(125_000_000), Some(12_500_000), 128 << 20);
    let met = transfer::measure(&onto_disks(4, size, &[fast, fast, slow, fast, fast]));
    assert_eq!(met.totals.complete, 5);
    let start = met.started.unwrap_or(Time::ZERO);
    let took = met.devices.iter().map(|device| device.completed.map(|at| (at - start).as_secs_f64()));
    let took: Vec<f64> = took.flatten().collect();
    let (least, slowest) = (size as f64 / 125e6, size as f64 / 12.5e6);
    let symbols = met.totals.overhead();
    for (i, took) in took.iter().enumerate().filter(|(i, _)| *i != 2) {
        assert!(*took < least * 1.5, "device {i} took {took:.2} s, alone {least:.2}");
    }
    assert!(took[2] < slowest * 1.5, "the slow one took {:.2} s, alone {slowest:.2}", took[2]);
    assert!(symbols < 2.5, "{symbols:.3} symbols for each source symbol");
}
