//! A classroom on one machine: one real `mcp send` and several real `mcp recv`, over multicast on the
//! loopback interface. No traffic leaves the machine.
//!
//! `cargo run --release --example classroom`
//!
//! It makes a file, sends it to all receivers at once, and compares every copy's BLAKE3 hash with the
//! source's. It exits with 0 only if all copies are right.

mod support;

use clap::Parser;
use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::{Guard, Result, Scratch, hash_file, line, make_file, mcp};

/// Sends one file to several receivers on this machine and checks every copy.
#[derive(Parser)]
#[command(name = "classroom")]
struct Options {
    /// Size of the file, such as 64M or 1G
    #[arg(long, default_value = "64M", value_parser = parse_size)]
    size: u64,
    /// Number of receivers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    receivers: u8,
    /// Rate of the sender, as for `mcp send --rate`. All receivers share this machine's processors
    #[arg(long, default_value = "auto")]
    rate: String,
    /// Give up after this number of seconds
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Use this mcp program, instead of building one
    #[arg(long, value_name = "FILE")]
    mcp: Option<PathBuf>,
    /// Keep the files and logs
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match Scratch::new("classroom", options.keep).and_then(|scratch| run(&options, &scratch)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("classroom: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, scratch: &Scratch) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let mcp = mcp(options.mcp.as_deref())?;

    let source = scratch.path.join("lesson.img");
    println!("making a file of {:.1} MiB of pseudo-random bytes", mib(options.size));
    make_file(&source, options.size)?;
    let hash = hash_file(&source)?;

    // A site-local group, and a port that is free at the moment.
    let port = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port();
    let group = format!("239.77.{}.{}", port >> 8, port & 255);
    println!("{} receivers wait for the group {group}, port {port}, on lo", options.receivers);
    let mut receivers = (1..=options.receivers)
        .map(|n| Seat::take(&mcp, scratch, &group, port, n))
        .collect::<Result<Vec<Seat>>>()?;

    let mut send = Command::new(&mcp);
    send.env("MCP_STATE_DIR", scratch.path.join("state"));
    send.args(["send", "-i", "lo", "-p", &port.to_string(), "--rate", &options.rate]);
    send.args(["-n", &options.receivers.to_string(), "--wait", "30s"]).arg(&source).arg(&group);
    println!("$ {}\n", line(&send));
    let started = Instant::now();
    let mut sender = Guard(send.stdin(Stdio::null()).spawn().map_err(|e| format!("start mcp send: {e}"))?);

    let deadline = started + Duration::from_secs(options.timeout);
    let sent = wait(&mut sender, deadline, &interrupted).map_err(|e| format!("mcp send {e}"))?;
    let took = started.elapsed();
    println!();
    let mut wrong = 0;
    for seat in &mut receivers {
        // When the sender has ended, its receivers have ended too, or never will.
        let deadline = deadline.min(Instant::now() + Duration::from_secs(30));
        match seat.check(&hash, deadline, &interrupted) {
            Ok(()) => println!("{}  {hash}  verified", seat.id),
            Err(why) => {
                wrong += 1;
                println!("{}  FAILED: {why}\n{}", seat.id, tail_of(&seat.log));
            }
        }
    }
    if wrong > 0 {
        return Err(format!("{wrong} of {} receivers have no right copy", options.receivers).into());
    }
    if sent != 0 {
        return Err(format!("every copy is right, but mcp send ended with exit code {sent}").into());
    }
    let seconds = took.as_secs_f64();
    println!(
        "\n{} right copies of {:.1} MiB in {seconds:.2} s: {:.0} Mbit/s to each receiver",
        options.receivers,
        mib(options.size),
        options.size as f64 * 8.0 / seconds / 1e6,
    );
    if options.keep {
        println!("the files and logs are in {}", scratch.path.display());
    }
    Ok(())
}

/// One receiver: its process, its output directory, its log.
struct Seat {
    id: String,
    process: Guard,
    copy: PathBuf,
    log: PathBuf,
}

impl Seat {
    fn take(mcp: &Path, scratch: &Scratch, group: &str, port: u16, n: u8) -> Result<Self> {
        let id = format!("desk-{n:02}");
        let dir = scratch.path.join(&id);
        fs::create_dir(&dir)?;
        let log = scratch.path.join(format!("{id}.log"));
        let mut recv = Command::new(mcp);
        recv.env("MCP_STATE_DIR", scratch.path.join("state"));
        recv.args([
            "recv",
            group,
            "-i",
            "lo",
            "-p",
            &port.to_string(),
            "--id",
            &id,
            "--timeout",
            "30s",
            "-o",
        ]);
        recv.arg(&dir);
        if n == 1 {
            println!("$ {}", line(&recv));
        }
        let output = File::create(&log)?;
        recv.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let process = Guard(recv.spawn().map_err(|e| format!("start mcp recv: {e}"))?);
        Ok(Self { id, process, copy: dir.join("lesson.img"), log })
    }

    /// Waits for the receiver's end; its copy must have this hash.
    fn check(&mut self, hash: &blake3::Hash, deadline: Instant, interrupted: &AtomicBool) -> Result<()> {
        match wait(&mut self.process, deadline, interrupted)? {
            0 => {}
            code => return Err(format!("mcp recv ended with exit code {code}").into()),
        }
        if hash_file(&self.copy)? != *hash {
            return Err("its copy differs from the source".into());
        }
        Ok(())
    }
}

/// Waits for a child's exit code. An interrupt or the deadline ends the wait with an error; the guard
/// then ends the child.
fn wait(child: &mut Guard, deadline: Instant, interrupted: &AtomicBool) -> Result<i32> {
    loop {
        if let Some(status) = child.0.try_wait()? {
            return status.code().ok_or_else(|| format!("was killed: {status}").into());
        }
        if interrupted.load(Ordering::Relaxed) {
            return Err("was interrupted".into());
        }
        if Instant::now() > deadline {
            return Err("did not end in time; try a lower --rate or a longer --timeout".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The last lines of a receiver's log.
fn tail_of(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].iter().map(|l| format!("    {l}\n")).collect()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB") {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("a number of bytes with K, M or G behind it".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "a number of bytes with K, M or G behind it".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".into())
}
