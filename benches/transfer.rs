//! Whole transfers, from the start of the sender to its end: `mcp` and, where they are installed,
//! UDPcast and UFTP, in turn, in network namespaces on this machine. Nothing leaves it. Needs root.
//!
//! `cargo bench --bench transfer -- --rounds 5 --receivers 1,4,8 --size 256 --rate 800 --loss 10`
//!
//! Each round runs every tool once, so that a busy spell of the machine hits all of them. A run
//! that does not end in time, or one with a copy that is not the source, counts as failed.
//!
//! - goodput: bits of the file per second of the sender's life, gathering included.
//! - CPU: seconds of user and system time per GiB of file, at the sender and per receiver.
//! - wire: bytes the sender put on the wire, Ethernet headers included, per byte of the file. For
//!   that, every datagram crosses by itself: segmentation at the sender's card is off.

#[path = "../tests/support/mod.rs"]
mod support;

use clap::Parser;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use support::files::{TempDir, b3};
use support::lab::Lab;
use support::mcp::Channel;
use support::process::{Cmd, Proc};
use support::{has_program, is_root, skip};

/// Compares whole transfers of mcp, UDPcast and UFTP in network namespaces.
#[derive(Parser)]
struct Options {
    /// Rounds; each runs every tool once for every number of receivers
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Numbers of receivers
    #[arg(long, value_delimiter = ',', default_value = "1,4,8")]
    receivers: Vec<usize>,
    /// Size of the file in MiB
    #[arg(long, default_value_t = 256)]
    size: u64,
    /// Rate that every tool is told to keep to, in Mbit/s
    #[arg(long, default_value_t = 800)]
    rate: u64,
    /// Independent loss at each receiver, in 1000
    #[arg(long, default_value_t = 0)]
    loss: u32,
    /// Which tools
    #[arg(long, value_delimiter = ',', default_value = "mcp,udpcast,uftp")]
    tools: Vec<String>,
    /// A run fails after so many seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Say how each run went
    #[arg(long)]
    verbose: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Starts a tool's receivers and its sender.
struct Run<'a> {
    lab: &'a Lab,
    source: &'a Path,
    tmp: &'a TempDir,
    receivers: usize,
    /// Mbit/s.
    rate: u64,
    within: Duration,
}

/// What a good run measured.
#[derive(Clone, Copy)]
struct Figures {
    seconds: f64,
    sender_cpu: f64,
    receiver_cpu: f64,
    wire: f64,
}

impl Run<'_> {
    fn out(&self, host: usize) -> PathBuf {
        self.tmp.dir(&format!("h{host}"))
    }
    fn copy(&self, host: usize) -> PathBuf {
        self.out(host).join("image.bin")
    }
    fn on(&self, host: usize, program: &str, words: &str) -> Cmd {
        self.lab.on(host, Cmd::new(program, program).args(words.split_whitespace()))
    }
    fn receiver(&self, tool: &str, host: usize) -> Proc {
        let cmd = match tool {
            "mcp" => {
                let channel = Channel::new("239.77.0.1", 7417, "eth0");
                self.lab.on(host, channel.recv(&format!("h{host}"), self.out(host)))
            }
            "udpcast" => {
                self.on(host, "udp-receiver", "--nokbd --interface eth0 --file").tail(self.copy(host))
            }
            _ => {
                let words = "-d -t -I eth0 -D";
                self.on(host, "uftpd", words).arg(self.out(host)).args(["-B", "4194304"])
            }
        };
        cmd.spawn()
    }
    fn sender(&self, tool: &str) -> Proc {
        let (n, rate) = (self.receivers, self.rate);
        let cmd = match tool {
            "mcp" => {
                let channel = Channel::new("239.77.0.1", 7417, "eth0");
                let cmd = channel.send(self.source, n).args(["--rate", &format!("{rate}M")]);
                self.lab.on(0, cmd)
            }
            "udpcast" => {
                let words = format!(
                    "--nokbd --min-receivers {n} --full-duplex --interface eth0 --max-bitrate {rate}m --file"
                );
                self.on(0, "udp-sender", &words).tail(self.source)
            }
            _ => {
                // UFTP names its clients by their address. Its announcements are paced by the round
                // trip it assumes; a tenth of a second shortens its start to what a LAN allows.
                let clients: Vec<String> = (1..=n).map(|h| format!("0x0A4D00{:02X}", h + 1)).collect();
                let words = format!("-I eth0 -r 0.1 -B 4194304 -R {} -H {}", rate * 1000, clients.join(","));
                self.on(0, "uftp", &words).tail(self.source)
            }
        };
        cmd.spawn()
    }
    /// One run; an error says in a few words how it failed.
    fn measure(&self, tool: &str, hash: &str) -> Result<Figures, String> {
        let mut receivers: Vec<Proc> = (1..=self.receivers).map(|h| self.receiver(tool, h)).collect();
        if tool != "mcp" {
            // They must be there before their sender asks for them; mcp's need not.
            thread::sleep(Duration::from_millis(500));
        }
        let before = self.lab.tx_bytes(0);
        let mut sender = self.sender(tool);
        let deadline = Instant::now() + self.within;
        let end = sender.try_finish(self.within).ok_or("sender hung")?;
        let bytes = self.lab.tx_bytes(0) - before;
        if end.code != Some(0) {
            return Err(format!("sender: {}: {}", end.status, end.stderr.lines().last().unwrap_or_default()));
        }
        let mut receiver_cpu = 0.0;
        for receiver in &mut receivers {
            if tool == "uftp" {
                receiver.signal("TERM");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let end = receiver.try_finish(left.max(Duration::from_secs(1))).ok_or("receiver hung")?;
            if tool != "uftp" && end.code != Some(0) {
                return Err(format!("receiver: {}", end.status));
            }
            receiver_cpu += end.cpu;
        }
        for host in 1..=self.receivers {
            let copy = self.copy(host);
            if !copy.exists() || b3(&copy) != hash {
                return Err("wrong copy".into());
            }
            fs::remove_file(copy).map_err(|e| e.to_string())?;
        }
        let size = self.source.metadata().map_err(|e| e.to_string())?.len() as f64;
        let gib = size / f64::from(1 << 30);
        Ok(Figures {
            seconds: end.elapsed.as_secs_f64(),
            sender_cpu: end.cpu / gib,
            receiver_cpu: receiver_cpu / gib / self.receivers as f64,
            wire: bytes as f64 / size,
        })
    }
}

fn median(runs: &[Figures], value: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

fn program(tool: &str) -> Option<&'static str> {
    match tool {
        "mcp" => Some("ip"),
        "udpcast" => Some("udp-sender"),
        "uftp" => Some("uftp"),
        _ => None,
    }
}

fn main() {
    let options = Options::parse();
    if !is_root() {
        return skip("network namespaces need root");
    }
    let mut tools = Vec::new();
    for tool in &options.tools {
        match program(tool) {
            Some(program) if has_program(program) => tools.push(tool.as_str()),
            Some(program) => skip(&format!("{tool}: {program} is not installed")),
            None => skip(&format!("{tool}: there is no such tool here; mcp, udpcast, uftp")),
        }
    }
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", options.size << 20, 1);
    let hash = b3(&source);
    println!(
        "{} MiB, {} Mbit/s, loss {} in 1000, median of {} rounds\n",
        options.size, options.rate, options.loss, options.rounds
    );
    println!(
        "{:<10}{:<9}{:>9}{:>9}{:>11}{:>12}{:>8}{:>8}",
        "receivers", "tool", "Mbit/s", "of mcp", "CPU s/GiB", "CPU s/GiB", "wire", "failed"
    );
    println!("{:<10}{:<9}{:>9}{:>9}{:>11}{:>12}", "", "", "goodput", "", "sender", "a receiver");
    for &receivers in &options.receivers {
        let Some(lab) = Lab::new(receivers + 1) else { return };
        lab.single_packets(0);
        if options.loss > 0 {
            (1..=receivers).for_each(|h| lab.lose(h, options.loss));
        }
        let within = Duration::from_secs(options.timeout);
        let mut runs = vec![Vec::new(); tools.len()];
        for round in 1..=options.rounds {
            for (tool, runs) in tools.iter().zip(&mut runs) {
                let tmp = TempDir::new();
                let rate = options.rate;
                let run = Run { lab: &lab, source: &source, tmp: &tmp, receivers, rate, within };
                match run.measure(tool, &hash) {
                    Ok(figures) => {
                        if options.verbose {
                            eprintln!("round {round}: {tool} to {receivers}: {:.2} s", figures.seconds);
                        }
                        runs.push(figures);
                    }
                    Err(why) => eprintln!("round {round}: {tool} to {receivers}: failed: {why}"),
                }
            }
        }
        print_table(&options, receivers, &tools, &runs);
    }
}

/// One line a tool: medians over its good runs.
fn print_table(options: &Options, receivers: usize, tools: &[&str], runs: &[Vec<Figures>]) {
    let ours = tools.iter().position(|t| *t == "mcp").map_or(&[][..], |at| &runs[at]);
    for (tool, runs) in tools.iter().zip(runs) {
        let failed = options.rounds - runs.len();
        if runs.is_empty() {
            println!(
                "{receivers:<10}{tool:<9}{:>9}{:>9}{:>11}{:>12}{:>8}{failed:>8}",
                "-", "-", "-", "-", "-"
            );
            continue;
        }
        let seconds = median(runs, |f| f.seconds);
        let goodput = (options.size << 23) as f64 / seconds / 1e6;
        let ratio = match ours {
            [] => "-".into(),
            _ => format!("{:.2}", median(ours, |f| f.seconds) / seconds),
        };
        println!(
            "{receivers:<10}{tool:<9}{goodput:>9.0}{ratio:>9}{:>11.2}{:>12.2}{:>8.3}{failed:>8}",
            median(runs, |f| f.sender_cpu),
            median(runs, |f| f.receiver_cpu),
            median(runs, |f| f.wire),
        );
    }
}
