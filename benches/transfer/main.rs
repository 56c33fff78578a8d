//! Whole transfers, from the start of the sender to its end, in network namespaces on this machine:
//! `mcp`, UDPcast, UFTP and rsync (if installed), and a bare datagram blaster, in turn. No traffic leaves the
//! machine. Needs root.
//!
//! ```text
//! cargo bench --bench transfer -- --peers --svg peers.svg                          (the comparison, about two minutes)
//! cargo bench --bench transfer -- --rounds 5 --receivers 1,4,8 --size 256 --rate none --offload off
//! cargo bench --bench transfer -- --rate auto --line 200 --loss 50 --receivers 8
//! cargo bench --bench transfer -- --rate auto --receivers 1 --tools mcp,sealed                 (cost of a group key)
//! cargo bench --bench transfer -- --small 1024 --receivers 4 --tools mcp
//! cargo bench --bench transfer -- --rate 400 --receivers 1,8 --tools mcp,blaster   (cost of a receiver)
//! cargo bench --bench transfer -- --rounds 11 --tools mcp --other OLD/mcp          (against another build)
//! cargo bench --bench transfer -- --tree 2000 --size 64 --tools mcp,udpcast,rsync  (a directory; UDPcast from tar)
//! cargo bench --bench transfer -- --rate 400 --loss 20 --tools one-way,udpcast-fec (nothing comes back)
//! ```
//!
//! Each round runs every tool once, so that a busy period of the machine affects all of them. A run fails
//! if it does not end in time, or if a copy differs from the source. The receivers run and listen before
//! their sender starts.
//!
//! - goodput: bits of the file per second of the sender's run, gathering included. For the blaster, which
//!   repairs nothing: bits that the slowest receiver got, per second of its reception.
//! - stream: the same without gathering, as reported by mcp (`transfer_seconds`).
//! - took, all: seconds of the sender's run; seconds from its start until it and its receivers have ended
//!   (UFTP's never do).
//! - CPU: seconds of user and system time per GiB of file, at the sender and per receiver. For the
//!   blaster's receivers: per GiB received.
//! - MiB: peak memory at the sender and at one receiver: anonymous pages (its own) / all resident pages.
//!   The second includes the mapped file, which is page cache.
//! - wire: bytes that the sender put on the wire, Ethernet headers included, per byte of the file. Only
//!   with segmentation offload off: otherwise the counters miss headers.
//! - packets: packets that the sender's kernel gave to the card per MiB. With offload on, each holds many
//!   datagrams (745 a MiB). The kernel's cost per receiver depends on them: `--batch` gives the blaster
//!   as many datagrams a packet as mcp has.
//! - lost: datagrams of the blaster that its slowest receiver did not get.
//!
//! With a line, the goodput is also shown as a share of the limit: the line's rate, times the share of
//! payload in mcp's packets (1408 of 1478 bytes), times the share of datagrams that are not lost.
//!
//! Ratios are the first tool's figure divided by the other's, as medians over the rounds in which both succeeded.

#[path = "../../tests/support/mod.rs"]
mod support;

mod blaster;
mod packages;
mod picture;
mod run;
mod table;
mod tools;

use clap::{Parser, ValueEnum};
use run::Setting;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;
use support::files::{TempDir, seeded};
use support::lab::Lab;
use support::mcp::MCP;
use support::measure::{payload_share, roomy};
use support::{has_program, is_root, skip};
use table::Series;
use tools::{Pace, Tool};

/// Compares whole transfers of mcp, UDPcast, UFTP, rsync and a bare datagram blaster in network namespaces.
#[derive(Parser)]
pub struct Options {
    /// Compares mcp with the other tools as they are: no limit, segmentation offload on. Prints the table of
    /// docs/performance.md
    #[arg(long)]
    peers: bool,
    /// Also draws the goodputs into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Rounds; each runs every tool once for every number of receivers
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Numbers of receivers
    #[arg(long, value_delimiter = ',', default_value = "1,4,8")]
    receivers: Vec<usize>,
    /// Size of the file in MiB
    #[arg(long, default_value_t = 256)]
    size: u64,
    /// Size of the file in KiB, in place of --size: 1024 for the cost of starting and ending
    #[arg(long, value_name = "KIB")]
    small: Option<u64>,
    /// Copies a directory with this many files of equal size, in place of one file
    #[arg(long, value_name = "FILES")]
    tree: Option<u64>,
    /// Rate of every tool: Mbit/s, "none" (no limit), or "auto" (mcp's own choice, no limit for the
    /// others)
    #[arg(long, default_value = "none", default_value_if("peers", "true", "auto"))]
    rate: Pace,
    /// Segmentation offload at the sender's interface
    #[arg(long, default_value = "off", default_value_if("peers", "true", "on"))]
    offload: Offload,
    /// A line of this many Mbit/s in front of every receiver
    #[arg(long, value_name = "MBIT")]
    line: Option<u64>,
    /// A line of this many Mbit/s in front of receiver 1
    #[arg(long, value_name = "MBIT")]
    slow_line: Option<u64>,
    /// Independent loss at each receiver, in 1000
    #[arg(long, default_value_t = 0)]
    loss: u32,
    /// Tools to measure
    #[arg(long, value_delimiter = ',', default_value = "mcp,udpcast,uftp,blaster")]
    #[arg(default_value_if("peers", "true", "mcp,udpcast,uftp,rsync"))]
    tools: Vec<Tool>,
    /// The mcp to measure
    #[arg(long, value_name = "PATH", env = "MCP_BENCH_BINARY", default_value = MCP)]
    mcp: PathBuf,
    /// Another build of mcp to measure beside it; every pair of runs is printed
    #[arg(long, value_name = "PATH")]
    other: Option<PathBuf>,
    /// Further arguments for `mcp send`
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    mcp_args: String,
    /// Datagrams that the blaster sends in one call
    #[arg(long, default_value_t = mcp::limits::MAX_BATCH)]
    batch: usize,
    /// A run fails after this number of seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Print the result of each run
    #[arg(long)]
    verbose: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// Role of this process when the bench starts itself on a host of its network
    #[command(subcommand)]
    role: Option<blaster::Role>,
}

/// Segmentation offload at the sender's card.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Offload {
    On,
    Off,
}

impl Options {
    fn bytes(&self) -> u64 {
        self.small.map_or(self.size << 20, |kib| kib << 10)
    }

    /// The goodput limit of the line with its loss, in Mbit/s; `None` without a line.
    fn limit(&self) -> Option<f64> {
        let arriving = 1.0 - f64::from(self.loss) / 1000.0;
        self.line.map(|mbit| mbit as f64 * payload_share() * arriving)
    }

    /// Describes the measurement in one line.
    fn describe(&self, place: &TempDir) -> String {
        let size = self.small.map_or(format!("{} MiB", self.size), |kib| format!("{kib} KiB"));
        let size = self.tree.map_or(size.clone(), |files| format!("{size} in {files} files"));
        let offload = if self.offload == Offload::On { "on" } else { "off" };
        let line =
            |name: &str, mbit: Option<u64>| mbit.map_or(String::new(), |m| format!(", {name} {m} Mbit/s"));
        format!(
            "{size}, rate {}, segmentation offload {offload}{}{}, loss {} in 1000, {} rounds, files in {}",
            self.rate,
            line("line", self.line),
            line("line of receiver 1", self.slow_line),
            self.loss,
            self.rounds,
            place.path().parent().map_or_else(String::new, |p| p.display().to_string()),
        )
    }

    /// Makes what is copied.
    fn source(&self, place: &TempDir) -> PathBuf {
        let Some(files) = self.tree.map(|files| files.max(1)) else {
            return place.file("image.bin", self.bytes(), 1);
        };
        let tree = place.dir("tree");
        for number in 0..files {
            // A hundred to a directory.
            let dir = tree.join((number / 100).to_string());
            std::fs::create_dir_all(&dir).expect("create a directory");
            seeded(&dir.join(number.to_string()), self.bytes() / files, number);
        }
        tree
    }

    /// A network for this number of receivers.
    fn lab(&self, receivers: usize) -> Option<Lab> {
        let lab = Lab::new(receivers + 1)?;
        if self.offload == Offload::Off {
            lab.single_packets(0);
        }
        for host in 1..=receivers {
            let own = if host == 1 { self.slow_line.or(self.line) } else { self.line };
            if let Some(mbit) = own {
                lab.bucket(host, mbit);
            }
            if self.loss > 0 {
                lab.lose(host, self.loss);
            }
        }
        Some(lab)
    }

    /// Runs every tool once in each round.
    fn series(&self, setting: &Setting<'_>, tools: &[Tool]) -> Series {
        let mut series = Series::new(setting.receivers, tools);
        for round in 1..=self.rounds {
            for (i, &tool) in tools.iter().enumerate() {
                let what = format!("round {round}: {tool} to {}", setting.receivers);
                let result = setting.measure(tool);
                match &result {
                    Ok(figures) if self.verbose => eprintln!("{what}: {:.3} s", figures.took),
                    Ok(_) => {}
                    Err(why) => eprintln!("{what}: failed: {why}"),
                }
                series.runs[i].push(result.ok());
            }
        }
        series
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if let Some(role) = &options.role {
        return role.play();
    }
    if is_root() {
        compare(&options)?;
    } else {
        skip("network namespaces need root");
    }
    Ok(())
}

fn compare(options: &Options) -> Result<(), Box<dyn Error>> {
    if options.tools.iter().any(|tool| tool.is_one_way()) && !matches!(options.rate, Pace::Mbit(_)) {
        return Err("nothing tells a one-way sender its rate: give one with --rate".into());
    }
    let wanted = options.tools.iter().chain(options.other.is_some().then_some(&Tool::Other));
    let (tools, missing): (Vec<Tool>, Vec<Tool>) = wanted.partition(|tool| has_program(tool.program()));
    packages::report(&missing);
    let most = options.receivers.iter().max().copied().unwrap_or(0) as u64;
    let place = TempDir::within(&roomy(options.bytes() * (most + 1)));
    let source = options.source(&place);
    let hash = run::hash(&source);
    println!("{}\n", options.describe(&place));
    let mut all = Vec::new();
    for &receivers in &options.receivers {
        let Some(lab) = options.lab(receivers) else { return Ok(()) };
        let setting = Setting {
            lab: &lab,
            source: &source,
            bytes: options.bytes(),
            hash: &hash,
            place: &place,
            receivers,
            pace: options.rate,
            whole_packets: options.offload == Offload::Off,
            mcp: &options.mcp,
            other: options.other.as_ref().unwrap_or(&options.mcp),
            mcp_args: &options.mcp_args,
            batch: options.batch,
            within: Duration::from_secs(options.timeout),
        };
        let series = options.series(&setting, &tools);
        series.print(options.bytes(), options.limit());
        all.push(series);
    }
    table::print_growth(&all);
    if options.peers {
        println!("{}", picture::markdown(&all));
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, picture::svg(&all, &options.describe(&place)))
            .map_err(|e| format!("write {}: {e}", path.display()))?;
    }
    Ok(())
}
