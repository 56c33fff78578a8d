//! Runs the simulated world over a range of seeds:
//!
//! ```text
//! cargo run --release --features sim --example simulate -- --seeds 0..10000
//! cargo run --release --features sim --example simulate -- --seeds 1..2 --devices 1000 --loss 0.01 --size 8388608
//! cargo run --release --features sim --example simulate -- --curve --loss 0.01 --size 67108864
//! ```
//!
//! The first form draws sizes, links and faults from each seed. The second has only loss. The third
//! prints a table of plain runs with 10, 100, 1,000 and 10,000 devices.

use clap::Parser;
use mcp::sim::runner::{Summary, run_seed, run_seeds};
use mcp::sim::scenario::{Plain, Scenario};
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs seeds of the simulated world and checks every invariant.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds to run, FIRST..END (without END)
    #[arg(long, default_value = "0..1000", value_parser = parse_range)]
    seeds: Range<u64>,
    /// Number of seeds that run in parallel
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Plain runs with this many devices
    #[arg(long)]
    devices: Option<u32>,
    /// Plain runs with this independent loss, 0 to 1
    #[arg(long)]
    loss: Option<f64>,
    /// Plain runs with an object of this many bytes
    #[arg(long)]
    size: Option<u64>,
    /// Symbol size of plain runs
    #[arg(long, default_value_t = 1408)]
    symbol_size: u16,
    /// Bits per second of plain runs
    #[arg(long, default_value_t = 200_000_000)]
    rate: u64,
    /// Plain runs with 10, 100, 1,000 and 10,000 devices, or up to --devices, each with the first seed;
    /// prints a table
    #[arg(long)]
    curve: bool,
    /// Print the failures of this many failed seeds
    #[arg(long, default_value_t = 10)]
    show: usize,
    /// Print every event and datagram of the first seed, and the plan before them
    #[arg(long)]
    trace: bool,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parsed.filter(|r: &Range<u64>| !r.is_empty()).ok_or_else(|| "give FIRST..END, such as 0..1000".to_owned())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let plain =
        (args.curve || args.devices.is_some() || args.loss.is_some() || args.size.is_some()).then(|| Plain {
            devices: args.devices.unwrap_or(8),
            loss: args.loss.unwrap_or(0.01),
            size: args.size.unwrap_or(1 << 20),
            symbol_size: args.symbol_size,
            rate: args.rate,
        });
    if args.trace {
        return trace(args.seeds.start, plain.as_ref());
    }
    if let Some(plain) = plain.filter(|_| args.curve) {
        return curve(args.seeds.start, &plain, args.devices.unwrap_or(10_000));
    }
    let start = Instant::now();
    let mut last = start;
    let (total, mut done, mut failed) = (args.seeds.end - args.seeds.start, 0u64, 0);
    let summary = run_seeds(args.seeds, args.threads, plain, |seed, result| {
        done += 1;
        if let Err(failure) = result {
            failed += 1;
            if failed <= args.show {
                eprintln!("seed {seed} failed: {}\n  {}", failure.message, failure.replay);
            }
        }
        if last.elapsed() > Duration::from_secs(5) {
            last = Instant::now();
            eprintln!("{done} of {total} seeds, {failed} failed, {:.0} s", start.elapsed().as_secs_f64());
        }
    });
    print(&summary, start.elapsed());
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn trace(seed: u64, plain: Option<&Plain>) -> ExitCode {
    println!("{:#?}", plain.map_or_else(|| Scenario::generate(seed), |plain| Scenario::plain(seed, plain)));
    match run_seed(seed, plain, Some(&mut |line| println!("{line}"))) {
        Ok(report) => {
            println!("{report:#?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("failed: {}\n  {}", failure.message, failure.replay);
            ExitCode::FAILURE
        }
    }
}

fn curve(seed: u64, plain: &Plain, most: u32) -> ExitCode {
    let Plain { loss, size, symbol_size, rate, .. } = plain;
    println!("{size} bytes, {loss} loss, symbols of {symbol_size} bytes, {rate} bit/s, seed {seed}");
    println!("devices  symbols/source  peak feedback/s  transfer s  whole run s  wall time s");
    let steps = std::iter::successors(Some(10), |n| Some(n * 10)).take_while(|&n| n < most);
    for devices in steps.chain([most]) {
        let start = Instant::now();
        match run_seed(seed, Some(&Plain { devices, ..*plain }), None) {
            Ok(t) => println!(
                "{devices:7}  {:14.4}  {:15}  {:10.2}  {:11.1}  {:11.1}",
                t.overhead(),
                t.feedback_max,
                t.transfer_time.as_secs_f64(),
                t.virtual_time.as_secs_f64(),
                start.elapsed().as_secs_f64()
            ),
            Err(failure) => {
                println!("{devices:7}  failed: {}\n  {}", failure.message, failure.replay);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn print(summary: &Summary, took: Duration) {
    let t = &summary.totals;
    let failed = summary.failures.len();
    println!("runs            {} in {:.1} s, {failed} failed", t.runs, took.as_secs_f64());
    println!("virtual time    {:.0} s in {} engine steps", t.virtual_time.as_secs_f64(), t.steps);
    println!("transfer time   {:.1} s", t.transfer_time.as_secs_f64());
    println!("devices         {} of {} complete", t.complete, t.devices);
    println!(
        "symbols         {} for {} source symbols: {:.4} (group {} + {} repair, unicast {})",
        t.symbols.total(),
        t.source_symbols,
        t.overhead(),
        t.symbols.group_source,
        t.symbols.group_repair,
        t.symbols.unicast
    );
    println!("feedback        {} datagrams, at most {} in a second", t.feedback_total, t.feedback_max);
    println!("network         {:?}", t.network);
    println!("planned faults  {:?}", t.planned);
    let faults = t.faults.classes();
    println!("faults          {} transfers, {} faults of {} classes", t.runs, t.faults.total(), faults.len());
    for (class, times) in faults {
        println!("  {times:>12}  {class}");
    }
    for failure in &summary.failures {
        println!("FAILED seed {}: {}", failure.seed, failure.replay);
    }
}
