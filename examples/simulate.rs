//! Runs the simulated world over a range of seeds:
//!
//! ```text
//! cargo run --release --features sim --example simulate -- --seeds 0..10000
//! cargo run --release --features sim --example simulate -- --seeds 0..200000 --time 30m --finished FILE
//! cargo run --release --features sim --example simulate -- --seeds 1..2 --devices 1000 --loss 0.01 --size 8388608
//! cargo run --release --features sim --example simulate -- --curve --loss 0.01 --size 67108864
//! ```
//!
//! The first form draws sizes, links and faults from each seed. The second does the same in shares: it stops after
//! the given time, and the next call continues. The third has only loss. The fourth prints a table of plain runs
//! with 10, 100, 1,000 and 10,000 devices.

use clap::Parser;
use mcp::agreement::Agreement;
use mcp::sim::one_way;
use mcp::sim::runner::{Runs, Summary, run_seed, run_seeds};
use mcp::sim::scenario::{Plain, Scenario};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Number of seeds in one range of the file of finished ranges.
const RANGE: u64 = 1000;

/// Runs seeds of the simulated world and checks every invariant.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds to run, FIRST..END (without END)
    #[arg(long, default_value = "0..1000", value_parser = parse_range)]
    seeds: Range<u64>,
    /// Number of seeds that run in parallel
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Start no further seeds after this time, such as 30m
    #[arg(long, value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Keep the ranges of seeds that ran without a failure in this file, and do not run them again
    #[arg(long)]
    finished: Option<PathBuf>,
    /// Run lines without a way back only; otherwise one seed in ten stands for one
    #[arg(long)]
    one_way: bool,
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
    /// Bytes a second that the disks of plain runs store; then the sender finds its rate, up to --rate
    #[arg(long)]
    disk: Option<u64>,
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
            disk: args.disk,
        });
    let runs = match plain {
        Some(plain) => Runs::Plain(plain),
        None if args.one_way => Runs::OneWay,
        None => Runs::Mixed,
    };
    if args.trace {
        return trace(args.seeds.start, &runs);
    }
    if let Some(plain) = plain.filter(|_| args.curve) {
        return curve(args.seeds.start, &plain, args.devices.unwrap_or(10_000));
    }
    let start = Instant::now();
    let summary = match run(&args, runs, start) {
        Ok(summary) => summary,
        Err(e) => {
            eprintln!("cannot use the file of finished ranges: {e}");
            return ExitCode::FAILURE;
        }
    };
    print(&summary, start.elapsed());
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the seeds that are not finished, a range at a time.
fn run(args: &Args, runs: Runs, start: Instant) -> io::Result<Summary> {
    let finished = args.finished.as_deref().map_or(Ok(Vec::new()), read_finished)?;
    let ends = args.seeds.clone().step_by(RANGE as usize).map(|at| (at + RANGE).min(args.seeds.end));
    let ranges = args.seeds.clone().step_by(RANGE as usize).zip(ends).map(|(from, to)| from..to);
    let (mut summary, mut last) = (Summary::default(), start);
    let total = args.seeds.end - args.seeds.start;
    let mut done = 0;
    for range in ranges {
        if args.time.is_some_and(|time| start.elapsed() >= time) {
            break;
        }
        if finished.contains(&range) {
            done += range.end - range.start;
            continue;
        }
        let mut failed = summary.failures.len();
        let of_range = run_seeds(range.clone(), args.threads, runs, &Agreement, |seed, result| {
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
        if let Some(path) = args.finished.as_deref().filter(|_| of_range.failures.is_empty()) {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            writeln!(file, "{}..{}", range.start, range.end)?;
        }
        summary.totals.add(&of_range.totals);
        summary.failures.extend(of_range.failures);
    }
    Ok(summary)
}

/// The ranges in the file; none if there is no file.
fn read_finished(path: &Path) -> io::Result<Vec<Range<u64>>> {
    let text = match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let parse = |line: &str| parse_range(line).map_err(|why| io::Error::other(format!("{line:?}: {why}")));
    text.lines().map(parse).collect()
}

fn trace(seed: u64, runs: &Runs) -> ExitCode {
    match runs {
        runs if runs.is_one_way(seed) => println!("{:#?}", one_way::Plan::generate(seed)),
        Runs::Plain(plain) => println!("{:#?}", Scenario::plain(seed, plain)),
        Runs::Mixed | Runs::OneWay => println!("{:#?}", Scenario::generate(seed)),
    }
    match run_seed(seed, runs, &Agreement, Some(&mut |line| println!("{line}"))) {
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
        match run_seed(seed, &Runs::Plain(Plain { devices, ..*plain }), &Agreement, None) {
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
