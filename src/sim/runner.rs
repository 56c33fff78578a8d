//! Runs many seeds and adds up what they came to. A seed that fails is named, with the one
//! command that replays it.

use super::checks::Symbols;
use super::network::Counts;
use super::planned::Planned;
use super::scenario::{Plain, Scenario};
use super::transfer::{self, Report, Trace};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// A seed whose run broke something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub message: String,
    /// The command that replays it.
    pub replay: String,
}

/// What a set of runs came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Devices in them.
    pub devices: u64,
    /// Devices that had the object in the end.
    pub complete: u64,
    /// Virtual time in all.
    pub virtual_time: Duration,
    /// Engine steps.
    pub steps: u64,
    /// Source symbols of the objects.
    pub source_symbols: u64,
    /// Symbols sent.
    pub symbols: Symbols,
    /// Most feedback datagrams in any second of any run.
    pub feedback_max: usize,
    /// Feedback datagrams in all.
    pub feedback_total: u64,
    /// What the network did.
    pub network: Counts,
    /// What was planned.
    pub planned: Planned,
    /// How often disks refused.
    pub disk_failures: u64,
    /// Seeds that failed, in rising order.
    pub failures: Vec<Failure>,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.devices += report.devices;
        self.complete += report.complete;
        self.virtual_time += report.took;
        self.steps += report.steps;
        self.source_symbols += report.source_symbols;
        self.symbols.group_source += report.symbols.group_source;
        self.symbols.group_repair += report.symbols.group_repair;
        self.symbols.unicast += report.symbols.unicast;
        self.feedback_max = self.feedback_max.max(report.feedback_max);
        self.feedback_total += report.feedback_total;
        self.network.add(&report.network);
        self.planned.add(&report.planned);
        self.disk_failures += report.disk_failures;
    }
    /// Symbols sent for each source symbol.
    #[must_use]
    pub fn overhead(&self) -> f64 {
        self.symbols.total() as f64 / self.source_symbols.max(1) as f64
    }
}

/// Runs one seed; mixed faults, or a plain run.
///
/// # Errors
/// When an invariant is broken, something hangs or an expectation is not met.
pub fn run_seed(seed: u64, plain: Option<&Plain>, trace: Option<Trace<'_>>) -> Result<Report, Failure> {
    let run = || {
        let scenario = match plain {
            Some(plain) => Scenario::plain(seed, plain),
            None => Scenario::generate(seed),
        };
        transfer::run(&scenario, trace)
    };
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let mut replay =
            format!("cargo run --release --features sim --example simulate -- --seeds {seed}..{}", seed + 1);
        if let Some(Plain { devices, loss, size, symbol_size, rate }) = plain {
            replay += &format!(
                " --devices {devices} --loss {loss} --size {size} --symbol-size {symbol_size} --rate {rate}"
            );
        }
        Failure { seed, message: message.unwrap_or_else(|| "a panic without text".to_owned()), replay }
    })
}

/// Runs all `seeds` on `threads` threads. `progress` is told of each that is done.
pub fn run_seeds(
    seeds: Range<u64>,
    threads: usize,
    plain: Option<Plain>,
    mut progress: impl FnMut(u64, &Result<Report, Failure>),
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
                    if seed >= end || sender.send((seed, run_seed(seed, plain.as_ref(), None))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, result) in results {
            progress(seed, &result);
            match result {
                Ok(report) => summary.add(&report),
                Err(failure) => summary.failures.push(failure),
            }
        }
    });
    summary.failures.sort_by_key(|f| f.seed);
    summary
}
