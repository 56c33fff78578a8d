//! Tests of devices that hold a part of the object, and the cost of completing them.

use super::actors::keeps_tickets;
use super::scenario::{Plain, Scenario};
use super::totals::Totals;
use super::transfer;
use crate::time::Time;
use std::time::Duration;

/// 64 blocks of 1 MiB; streaming takes 7 s.
const PLAIN: Plain =
    Plain { devices: 1, loss: 0.0, size: 64 << 20, symbol_size: 1408, rate: 80_000_000, disk: None };

fn at(ms: u64) -> Time {
    Time::ZERO + Duration::from_millis(ms)
}

fn symbols(totals: &Totals) -> f64 {
    totals.symbols.total() as f64 / totals.source_symbols as f64
}

/// The share of the object that is sent if every device has an earlier version.
fn share(seed: u64, plain: &Plain, percent: u8) -> f64 {
    let totals = transfer::run(&Scenario::plain(seed, plain).with_earlier(.., percent), None);
    assert_eq!(totals.complete, totals.devices);
    symbols(&totals)
}

#[test]
fn only_what_changed_is_sent_however_many_devices() {
    for devices in [1, 8, 40] {
        let plain = Plain { devices, ..PLAIN };
        // The seed decides the number of changed blocks; all blocks are changed for every device.
        let changed = share(3, &plain, 90);
        assert!((0.03..0.20).contains(&changed), "{devices} devices: {changed}");
        assert!(share(3, &plain, 100) < 1e-9, "{devices} devices");
        let lossy = share(3, &Plain { loss: 0.02, ..plain }, 90);
        assert!(lossy < changed * 1.3 + 0.01, "{devices} devices: {changed} without and {lossy} with loss");
    }
}

#[test]
fn a_group_with_different_versions_pays_for_the_union_only() {
    let plain = Plain { devices: 6, ..PLAIN };
    let scenario = Scenario::plain(4, &plain).with_earlier(..3, 95).with_earlier(3.., 50);
    let totals = transfer::run(&scenario, None);
    assert_eq!(totals.complete, 6);
    // The blocks that half of the devices lack include those that the others lack.
    assert!((0.3..0.75).contains(&symbols(&totals)), "{}", symbols(&totals));
    // The rate is used: the transfer takes little more than the symbols' time at 80 Mbit/s.
    let least = Duration::from_secs_f64(symbols(&totals) * 64.0 * 1.05 * 8.4 / 80.0);
    assert!(totals.transfer_time < least * 5 / 4, "{:?} of {least:?}", totals.transfer_time);
}

#[test]
fn one_that_has_nothing_gets_it_all() {
    // At the start: everything is streamed to all.
    let plain = Plain { devices: 4, ..PLAIN };
    let totals = transfer::run(&Scenario::plain(5, &plain).with_earlier(..3, 95), None);
    assert_eq!(totals.complete, 4);
    assert!((1.0..1.02).contains(&symbols(&totals)), "{}", symbols(&totals));
    // Later: the others do not wait for it.
    let mut late = Scenario::plain(5, &plain).with_earlier(..3, 60);
    late.expected = Some(3);
    late.linger = Duration::from_secs(20);
    late.devices[3].start = at(3_500);
    let totals = transfer::run(&late, None);
    assert_eq!(totals.complete, 4);
}

#[test]
fn a_device_that_comes_back_receives_the_rest_only() {
    let plain = Plain { devices: 2, ..PLAIN };
    let mut scenario = Scenario::plain(6, &plain);
    scenario.linger = Duration::from_secs(30);
    scenario.devices[1].crash = Some((at(5_000), Some(at(5_500))));
    let totals = transfer::run(&scenario, None);
    assert_eq!(totals.complete, 2);
    // The device held half of the object, and the crash lost some of it. It misses the symbols that pass
    // until the sender knows that its former run is over. Without resuming, the whole object would have
    // been sent again.
    assert!(symbols(&totals) < 1.7, "{}", symbols(&totals));
}

/// Devices 0 and 3 differ in one thing only: device 3 cannot keep its ticket.
#[test]
fn a_device_that_comes_back_with_its_ticket_has_its_row_at_once() {
    // How long a device that is back waits for its row.
    let waits = |device: u32| {
        let mut scenario = Scenario::plain(8, &Plain { devices: 4, size: 16 << 20, ..PLAIN });
        let back = at(1_200);
        scenario.devices[device as usize].crash = Some((at(1_000), Some(back)));
        let mut admitted = Vec::new();
        let mut trace = |line: std::fmt::Arguments<'_>| {
            let line = line.to_string();
            let time = line.strip_suffix(&format!(" device {device}: Admitted"));
            admitted.extend(time.and_then(|time| time.trim().parse::<f64>().ok()));
        };
        let totals = transfer::run(&scenario, Some(&mut trace));
        // The row is that of its first run in either case: there is one for each device, and all are complete.
        assert_eq!((totals.complete, admitted.len(), keeps_tickets(device)), (4, 2, device == 0));
        Duration::from_secs_f64(admitted[1]) - back.since(Time::ZERO)
    };
    let (with, without) = (waits(0), waits(3));
    // Without a ticket, it is two seconds of silence that tell the sender.
    assert!(with < Duration::from_millis(1_500), "{with:?}");
    assert!(without >= Duration::from_millis(1_750), "{without:?}");
}

#[test]
fn devices_go_over_to_a_sender_that_comes_back() {
    let plain = Plain { devices: 5, ..PLAIN };
    let mut scenario = Scenario::plain(7, &plain);
    scenario.sender.crash = Some((at(5_000), Some(at(7_000))));
    let measured = transfer::measure(&scenario);
    assert!(measured.devices.iter().all(|d| d.completed.is_some()), "none had to be started again");
    // Half before the crash, half after it.
    let sent = symbols(&measured.totals);
    assert!((0.95..1.2).contains(&sent), "{sent}");
}
