//! Measures how mcp finds and holds the rate of a line. Receivers are behind token buckets in network
//! namespaces on this machine. No traffic leaves it. Needs root.
//!
//! ```text
//! cargo bench --bench lines                                          all scenarios, mcp's own rate
//! cargo bench --bench lines -- --scenarios steady --lines 20,500 --loss 0,20 --rounds 5
//! cargo bench --bench lines -- --scenarios halving --rate 95% --trace
//! cargo bench --bench lines -- --scenarios tenth --mcp-args "--slow keep" --timeout 120
//! ```
//!
//! - `steady`: two receivers behind lines of `--lines`, with independent loss of `--loss` in addition.
//! - `halving`: two receivers behind lines of `--line`, whose rate is halved for the middle third of the
//!   time.
//! - `tenth`: seven receivers behind lines of `--line`; then eight, the first behind a tenth of that.
//! - `tcp`: one receiver behind a line of `--line`; mcp alone, one TCP flow in the same direction alone,
//!   and both together.
//!
//! Every datagram crosses by itself (segmentation offload is off). The bench observes mcp from outside:
//! every 100 ms it reads the bytes that reached each receiver's card, and the packets and drops of the
//! bucket in front of it. Shares are of the line's payload limit: the line's rate times the share of
//! payload in a packet, as the bucket counts packets (1408 of 1478 bytes). The figures are for the
//! slowest receiver, and medians over the rounds:
//!
//! - found: seconds from the start of the stream to the first half second with a share of at least
//!   `--hold` (0.92; 0.88 with loss).
//! - settled: the same, while the bucket drops less than 1 % of the packets.
//! - share, drops: from 2 s after the start (or the change) to the end of the stream (or the next
//!   change). With loss, the share is of the datagrams that are not lost.
//! - whole: bits of the file per second of the transfer, as a share.
//! - followed: seconds from a change of the line to the first such half second as in "settled".

#[path = "../../tests/support/mod.rs"]
mod support;

mod evaluate;
mod sample;
mod scenarios;
mod tcp;
mod trial;

use clap::{Parser, ValueEnum};
use std::error::Error;
use std::path::PathBuf;
use support::mcp::MCP;
use support::{is_root, skip};

/// Measures how mcp finds the rate of a line, and shares it.
#[derive(Parser)]
pub struct Options {
    /// Rounds of every measurement
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What to measure
    #[arg(long, value_delimiter = ',', default_value = "steady,halving,tenth,tcp")]
    scenarios: Vec<Scenario>,
    /// Lines of "steady", in Mbit/s
    #[arg(long, value_delimiter = ',', default_value = "20,100,200,500", value_name = "MBIT")]
    lines: Vec<u64>,
    /// Independent loss of "steady" at each receiver, in 1000
    #[arg(long, value_delimiter = ',', default_value = "0,20")]
    loss: Vec<u32>,
    /// Line of the other scenarios, in Mbit/s
    #[arg(long, default_value_t = 100, value_name = "MBIT")]
    line: u64,
    /// Seconds that the file takes at the line's full rate; "halving" takes a third for each part
    #[arg(long, default_value_t = 12)]
    seconds: u64,
    /// mcp's --rate: "auto" (no option), a share of the line such as "95%", or any value of mcp's
    #[arg(long, default_value = "auto")]
    rate: String,
    /// Further arguments for `mcp send`
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    mcp_args: String,
    /// The mcp to measure
    #[arg(long, value_name = "PATH", env = "MCP_BENCH_BINARY", default_value = MCP)]
    mcp: PathBuf,
    /// Congestion control of the TCP flow
    #[arg(long, default_value = "cubic")]
    tcp_control: String,
    /// Share of the payload limit at which a line counts as found [default: 0.92; 0.88 with loss]
    #[arg(long)]
    hold: Option<f64>,
    /// A transfer fails after this number of seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Print every sample
    #[arg(long)]
    trace: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// Role of this process when the bench starts itself on a host of its network
    #[command(subcommand)]
    role: Option<tcp::Role>,
}

/// The scenarios; see the top of the file.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Steady,
    Halving,
    Tenth,
    Tcp,
}

impl Options {
    /// Arguments of `mcp send` for the rate on a line of `mbit`.
    fn rate_words(&self, mbit: u64) -> Result<Vec<String>, String> {
        let rate = if self.rate == "auto" {
            None
        } else if let Some(percent) = self.rate.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| format!("--rate {}: no number", self.rate))?;
            Some(format!("{:.0}k", mbit as f64 * 10.0 * percent))
        } else {
            Some(self.rate.clone())
        };
        let rate = rate.into_iter().flat_map(|rate| ["--rate".to_owned(), rate]);
        Ok(rate.chain(self.mcp_args.split_whitespace().map(str::to_owned)).collect())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if let Some(role) = &options.role {
        return role.play();
    }
    if !is_root() {
        skip("network namespaces need root");
        return Ok(());
    }
    println!("rate {}, {} rounds, {} s of file a line\n", options.rate, options.rounds, options.seconds);
    for scenario in &options.scenarios {
        match scenario {
            Scenario::Steady => scenarios::steady(&options)?,
            Scenario::Halving => scenarios::halving(&options)?,
            Scenario::Tenth => scenarios::tenth(&options)?,
            Scenario::Tcp => scenarios::tcp(&options)?,
        }
        println!();
    }
    Ok(())
}
