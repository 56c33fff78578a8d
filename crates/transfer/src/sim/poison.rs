//! Tests forged symbols: their cost, and that they never damage the file.

use super::scenario::{Plain, Scenario};
use super::totals::Totals;
use super::transfer;
use std::time::Duration;

/// 32 blocks of 1 MiB; streaming takes 7 s.
const PLAIN: Plain =
    Plain { devices: 4, loss: 0.0, size: 32 << 20, symbol_size: 1408, rate: 40_000_000, disk: None };

fn run(seed: u64, plain: &Plain, share: f64) -> Totals {
    let mut scenario = Scenario::plain(seed, plain);
    scenario.forger = share;
    let totals = transfer::run(&scenario, None);
    assert_eq!(totals.complete, totals.devices);
    println!(
        "{plain:?}, {share}: {:?}, {} of {} symbols, {} forged",
        totals.transfer_time,
        totals.symbols.total(),
        totals.source_symbols,
        totals.network.forged
    );
    totals
}

fn symbols(totals: &Totals) -> f64 {
    totals.symbols.total() as f64 / totals.source_symbols as f64
}

#[test]
fn a_few_forged_symbols_cost_no_more_than_themselves() {
    let without = run(1, &PLAIN, 0.0);
    assert_eq!(without.network.forged, 0);
    // About ten in each block. Each costs the symbols that all devices lose by it, once.
    let with = run(1, &PLAIN, 0.02);
    assert!(with.network.forged > 300);
    assert!(symbols(&with) < symbols(&without) + 0.1, "{}", symbols(&with));
    assert!(with.transfer_time < without.transfer_time * 3 / 2, "{:?}", with.transfer_time);
}

/// The figures in decision 19.
#[test]
fn what_forged_symbols_cost_grows_slowly_with_their_share() {
    for (devices, loss) in [(1, 0.0), (8, 0.01)] {
        let plain = Plain { devices, loss, ..PLAIN };
        let without = run(31_000_000, &plain, 0.0);
        for (share, most) in [(0.001, 1.2), (0.01, 1.3), (0.1, 1.4)] {
            let with = run(31_000_000, &plain, share);
            let times = with.transfer_time.as_secs_f64() / without.transfer_time.as_secs_f64();
            assert!(times < most, "{devices} devices, {share} forged: {times:.3} times as long");
        }
    }
}

#[test]
fn as_many_forged_symbols_as_true_ones_do_not_keep_anybody() {
    for (devices, loss) in [(1, 0.0), (4, 0.01), (12, 0.0)] {
        let plain = Plain { devices, loss, ..PLAIN };
        let without = run(2, &plain, 0.0);
        let with = run(2, &plain, 1.0);
        assert!(with.network.forged > with.source_symbols);
        // Only symbols with a digest can be trusted: about everything is sent once more.
        assert!(symbols(&with) < 4.0, "{}", symbols(&with));
        assert!(with.transfer_time < without.transfer_time * 6 + Duration::from_secs(5));
    }
}
