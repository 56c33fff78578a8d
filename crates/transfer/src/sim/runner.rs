//! Runs many seeds and adds up their results. Names a seed that fails, with the command that replays it.

use super::one_way;
use super::scenario::{Plain, Scenario};
use super::surface::Surface;
use super::totals::Totals;
use super::transfer::{self, Trace};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

/// What the seeds of a set of runs stand for.
#[derive(Clone, Copy, Debug)]
pub enum Runs {
    /// Mixed faults, in one run of ten on a line without a way back.
    Mixed,
    /// Lines without a way back.
    OneWay,
    /// Plain runs.
    Plain(Plain),
}

impl Runs {
    /// Whether a seed stands for a line without a way back.
    #[must_use]
    pub fn is_one_way(&self, seed: u64) -> bool {
        match self {
            Self::Mixed => one_way::is_meant_by(seed),
            Self::OneWay => true,
            Self::Plain(_) => false,
        }
    }
}

/// A seed whose run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The panic's message.
    pub message: String,
    /// The command that replays it.
    pub replay: String,
}

/// The result of a set of runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The sum over the runs that did not fail.
    pub totals: Totals,
    /// Failed seeds, in ascending order.
    pub failures: Vec<Failure>,
}

/// Runs one seed, and lets `surface` check the ends. Lines without a way back have no trace, and no surface.
///
/// # Errors
/// If an invariant is broken, a node hangs or an expectation is not met.
pub fn run_seed(
    seed: u64,
    runs: &Runs,
    surface: &dyn Surface,
    trace: Option<Trace<'_>>,
) -> Result<Totals, Failure> {
    let run = || {
        if runs.is_one_way(seed) {
            return one_way::run(seed).totals;
        }
        let scenario = match runs {
            Runs::Plain(plain) => Scenario::plain(seed, plain),
            Runs::Mixed | Runs::OneWay => Scenario::generate(seed),
        };
        transfer::run_below(surface, &scenario, trace)
    };
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let mut replay =
            format!("cargo run --release --features sim --example simulate -- --seeds {seed}..{}", seed + 1);
        if let Runs::OneWay = runs {
            replay += " --one-way";
        }
        if let Runs::Plain(Plain { devices, loss, size, symbol_size, rate, disk }) = runs {
            replay += &format!(
                " --devices {devices} --loss {loss} --size {size} --symbol-size {symbol_size} --rate {rate}"
            );
            replay += &disk.map_or_else(String::new, |disk| format!(" --disk {disk}"));
        }
        Failure { seed, message: message.unwrap_or_else(|| "a panic without text".to_owned()), replay }
    })
}

/// Runs all `seeds` on `threads` threads, and lets `surface` check the ends. Calls `progress` for each finished seed.
pub fn run_seeds(
    seeds: Range<u64>,
    threads: usize,
    runs: Runs,
    surface: &dyn Surface,
    mut progress: impl FnMut(u64, &Result<Totals, Failure>),
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for _ in 0..threads.max(1) {
            let (sender, next, end) = (sender.clone(), &next, seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send((seed, run_seed(seed, &runs, surface, None))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, result) in results {
            progress(seed, &result);
            match result {
                Ok(totals) => summary.totals.add(&totals),
                Err(failure) => summary.failures.push(failure),
            }
        }
    });
    summary.failures.sort_by_key(|f| f.seed);
    summary
}
