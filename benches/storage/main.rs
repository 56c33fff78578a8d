//! Measures transfers to devices whose disk or processor is slower than the line: loop devices that the kernel's block
//! controller slows down, and receivers with a share of a core, in network namespaces on this machine. No traffic leaves
//! it. Needs root and control groups.
//!
//! ```text
//! cargo bench --bench storage                                              disks of 30 to 1000 MB/s, one device and four
//! cargo bench --bench storage -- --disks 60 --receivers 5 --slow 20        one slow disk among four
//! cargo bench --bench storage -- --disks none --core 20 --receivers 1      a receiver with a fifth of a core
//! ```
//!
//! Sender and receivers share this machine's cores. Segmentation offload is on, unless there is loss. The image is in memory, and so are the loop devices' files. The
//! receivers write past the page cache (`mcp recv -o DEVICE`).
//!
//! - share: the object's size by the time of the transfer (from its first symbol to the last receipt), as a share of the disk's rate.
//! - wire: bytes that the sender counts on the wire, with the headers, per byte of the object. Headers alone make it 1.05.
//! - CPU: seconds of user and system time of the sender per GiB.
//! - REASON: what the sender says of its slow devices.

#[path = "../../tests/support/mod.rs"]
mod support;

mod limits;

use clap::Parser;
use limits::Group;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use support::files::{TempDir, seeded};
use support::lab::Lab;
use support::loops::Loop;
use support::mcp::{MCP, Network, Report};
use support::measure::{median, roomy};

/// Measures transfers to devices with slow disks and processors.
#[derive(Parser)]
struct Options {
    /// Rates of the disks, in MB/s; "none" for no limit
    #[arg(long, value_delimiter = ',', default_value = "30,60,120,250,500,1000", value_name = "MB/S")]
    disks: Vec<String>,
    /// The first device's disk has this rate instead, in MB/s
    #[arg(long, value_name = "MB/S")]
    slow: Option<u64>,
    /// Every receiver has this share of a core, in per cent
    #[arg(long, value_name = "PERCENT")]
    core: Option<u64>,
    /// Numbers of receivers
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    receivers: Vec<usize>,
    /// Independent loss at each receiver, in 1000
    #[arg(long, default_value_t = 0)]
    loss: u32,
    /// Seconds that the object takes at the disk's rate; its size is at least 64 MiB and at most 2 GiB
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Rounds of every measurement
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Further arguments for `mcp send`
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    mcp_args: String,
    /// The mcp to measure
    #[arg(long, value_name = "PATH", env = "MCP_BENCH_BINARY", default_value = MCP)]
    mcp: PathBuf,
    /// A transfer fails after this number of seconds
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// The figures of one transfer.
struct Figures {
    seconds: f64,
    wire: f64,
    cpu: f64,
    reasons: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if !Loop::possible() {
        return Ok(());
    }
    println!(
        "{:>9}{:>11}{:>7}{:>9}{:>9}{:>8}{:>8}{:>9}  reasons",
        "disk MB/s", "receivers", "MiB", "seconds", "Mbit/s", "share", "wire", "CPU s/GiB"
    );
    for disk in &options.disks {
        let disk = match disk.as_str() {
            "none" => None,
            rate => Some(rate.parse::<u64>().map_err(|_| format!("--disks {rate}: no number"))? * 1_000_000),
        };
        for &receivers in &options.receivers {
            measure(&options, disk, receivers)?;
        }
    }
    Ok(())
}

/// Measures one case and prints its medians.
fn measure(options: &Options, disk: Option<u64>, receivers: usize) -> Result<(), Box<dyn Error>> {
    let slowest = options.slow.map(|slow| slow * 1_000_000).into_iter().chain(disk).min();
    let wanted = disk.unwrap_or(250_000_000).saturating_mul(options.seconds);
    let size = wanted.clamp(64 << 20, 2 << 30) >> 20 << 20;
    let place = TempDir::within(&roomy(size.saturating_mul(receivers as u64 + 1)));
    let source = place.join("image.bin");
    seeded(&source, size, 7);
    let Some(lab) = Lab::new(receivers + 1) else { return Ok(()) };
    if options.loss > 0 {
        (0..=receivers).for_each(|host| lab.single_packets(host));
        (1..=receivers).for_each(|host| lab.lose(host, options.loss));
    }
    let mut runs = Vec::new();
    for _ in 0..options.rounds {
        runs.push(transfer(options, &lab, &place, &source, size, disk, receivers)?);
    }
    let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure));
    let seconds = of(|run| run.seconds);
    let share = slowest.map_or(f64::NAN, |disk| size as f64 / seconds / disk as f64);
    println!(
        "{:>9}{:>11}{:>7}{:>9.2}{:>9.0}{:>8.3}{:>8.3}{:>9.2}  {}",
        disk.map_or("none".into(), |disk| (disk / 1_000_000).to_string()),
        receivers,
        size >> 20,
        seconds,
        size as f64 * 8e-6 / seconds,
        share,
        of(|run| run.wire),
        of(|run| run.cpu),
        runs.last().map_or("", |run| &run.reasons),
    );
    Ok(())
}

/// Runs one transfer.
fn transfer(
    options: &Options,
    lab: &Lab,
    place: &TempDir,
    source: &Path,
    size: u64,
    disk: Option<u64>,
    receivers: usize,
) -> Result<Figures, Box<dyn Error>> {
    let network = Network::new("239.77.0.1", 7417, "eth0");
    // New disks each time: a device takes what its disk has already.
    let place = TempDir::within(place.path());
    let report = place.join("report.json");
    let mut targets = Vec::new();
    let mut groups = Vec::new();
    let mut devices = Vec::new();
    for host in 1..=receivers {
        let (target, group) = (Loop::sized(&place.join(format!("disk{host}")), size), Group::new(host)?);
        let slow = options.slow.filter(|_| host == 1).map(|slow| slow * 1_000_000);
        if let Some(rate) = slow.or(disk) {
            group.limit_writes(&target.numbers(), rate)?;
        }
        if let Some(percent) = options.core {
            group.limit_core(percent)?;
        }
        let receiver = network.recv(&format!("h{host}"), &target.device).arg("--any-sender");
        devices.push(group.enter(lab.on(host, receiver.program(&options.mcp))).spawn());
        targets.push(target);
        // Gone after its process.
        groups.push(group);
    }
    // The receivers must listen.
    thread::sleep(Duration::from_millis(500));
    let words = options.mcp_args.split_whitespace();
    let send = network.send(source, receivers).arg("--report").arg(&report).args(words);
    let mut sender = lab.on(0, send.program(&options.mcp)).spawn();
    let within = Duration::from_secs(options.timeout);
    let end = sender.try_finish(within).ok_or_else(|| format!("too slow\n{}", sender.transcript()))?;
    if end.code != Some(0) {
        return Err(format!("the sender ended with {:?}: {}", end.code, end.stderr).into());
    }
    for device in &mut devices {
        device.expect(0, within);
    }
    for target in &targets {
        same(source, &target.file)?;
    }
    let report = Report::read(&report);
    let mut reasons: Vec<&str> = report.rows().iter().filter_map(|row| row["slow_by"].as_str()).collect();
    reasons.dedup();
    Ok(Figures {
        seconds: end.last_event()["transfer_seconds"].as_f64().ok_or("the sender tells no time")?,
        wire: report.counter("wire_bytes") / size as f64,
        cpu: end.cpu / size as f64 * f64::from(1 << 30),
        reasons: reasons.join(", "),
    })
}

/// An error if the two files are not the same.
fn same(source: &Path, copy: &Path) -> Result<(), Box<dyn Error>> {
    let status = std::process::Command::new("cmp").arg(source).arg(copy).status()?;
    if status.success() { Ok(()) } else { Err(format!("{} is not the image", copy.display()).into()) }
}
