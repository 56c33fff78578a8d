//! A fleet on one machine: a real `mcp serve`, and devices with a real `mcp agent`, over loopback. No traffic leaves
//! the machine.
//!
//! `cargo run --release --example fleet`
//!
//! The devices enrol. All but one are on when a file is rolled out to `/srv/images/`; the last one is switched on
//! later, and completes by itself. Each device has a `/srv` of its own: a mount that only its agent sees, for which
//! this example needs user namespaces or root. It exits with 0 only if all copies are right.

mod support;

use clap::Parser;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use support::{Guard, Result, Scratch, hash_file, line, make_file, mcp};

/// Rolls a file out to a fleet on this machine.
#[derive(Parser)]
#[command(name = "fleet")]
struct Options {
    /// Number of devices
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=50))]
    devices: u8,
    /// Use this mcp program, instead of building one
    #[arg(long, value_name = "FILE")]
    mcp: Option<PathBuf>,
    /// Keep the files and logs
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match Scratch::new("fleet", options.keep).and_then(|scratch| run(&options, &scratch)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, scratch: &Scratch) -> Result<()> {
    let place = Place { mcp: mcp(options.mcp.as_deref())?, dir: scratch.path.clone() };
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let listen = format!("127.0.0.1:{port}");
    let words = ["serve", "--listen", &listen, "--poll", "1s", "--interface", "lo"];
    let mut serve = place.mcp(&words, "server");
    println!("$ {}", line(&serve));
    let log = File::create(scratch.path.join("server.log"))?;
    let mut server = Guard(serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?);
    // It prints an enrolment line once it listens.
    let output = server.0.stdout.take().ok_or("the server has no output")?;
    if BufReader::new(output).lines().next().is_none() {
        return Err(format!("the server has ended; see {}", scratch.path.join("server.log").display()).into());
    }

    let devices: Vec<String> = (1..=options.devices).map(|n| format!("bench-{n}")).collect();
    for device in &devices {
        let enrolment = place.ask(&["enrol", "new"], "server")?;
        fs::create_dir_all(scratch.path.join(device).join("srv"))?;
        place.ask(&["agent", "join", enrolment.trim(), "--id", device], device)?;
    }
    println!("{} devices have joined; all but {} are on", devices.len(), devices[devices.len() - 1]);
    let (last, first) = devices.split_last().ok_or("there are no devices")?;
    let mut agents = first.iter().map(|device| place.agent(device)).collect::<Result<Vec<Guard>>>()?;

    let image = scratch.path.join("image.iso");
    make_file(&image, 16 << 20)?;
    let file = image.display().to_string();
    let add = ["task", "add", "copy", &file, "--to", "all", "--at", "/srv/images/"];
    println!("$ mcp {}", add.join(" "));
    let task = place.ask(&add, "server")?;
    let number = task.trim().trim_start_matches("task ").to_owned();

    let mut watch = place.mcp(&["task", "show", &number, "--watch"], "server");
    println!("$ {}", line(&watch));
    let mut watch = Guard(watch.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    let output = watch.0.stdout.take().ok_or("mcp task show has no output")?;
    let mut finished = 0;
    for said in BufReader::new(output).lines() {
        let said = said?;
        println!("  {said}");
        finished += usize::from(said.contains(": finished"));
        if finished == first.len() && agents.len() == first.len() {
            println!("{last} is switched on");
            agents.push(place.agent(last)?);
        }
    }
    let ended = watch.0.wait()?;
    if !ended.success() {
        return Err(format!("mcp task show ended with {ended}; try --keep and look at the logs").into());
    }

    let hash = hash_file(&image)?;
    for device in &devices {
        let copy = scratch.path.join(device).join("srv/images/image.iso");
        if hash_file(&copy)? != hash {
            return Err(format!("the copy of {device} differs from the source").into());
        }
        println!("{device}  {hash}  verified");
    }
    println!("$ mcp task show {number}\n{}", place.ask(&["task", "show", &number], "server")?);
    Ok(())
}

/// The program, and the directory in which the server and each device have theirs.
struct Place {
    mcp: PathBuf,
    dir: PathBuf,
}

impl Place {
    /// A command with the state of the server or a device.
    fn mcp(&self, words: &[&str], owner: &str) -> Command {
        let mut command = Command::new(&self.mcp);
        command.args(words).env("MCP_STATE_DIR", self.dir.join(owner));
        command
    }

    /// Runs a command that must succeed, and returns what it prints.
    fn ask(&self, words: &[&str], owner: &str) -> Result<String> {
        let output = self.mcp(words, owner).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("mcp {}: {}", words[..2].join(" "), why.trim()).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts the agent of a device, which has a `/srv` of its own.
    fn agent(&self, device: &str) -> Result<Guard> {
        let own: &Path = &self.dir.join(device);
        let log = File::create(own.join("agent.log"))?;
        let mut agent = Command::new("unshare");
        agent.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        agent
            .arg("mount --bind \"$0\" /srv && exec \"$1\" agent run --interface lo")
            .arg(own.join("srv"))
            .arg(&self.mcp);
        agent.env("MCP_STATE_DIR", own).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = agent.spawn().map_err(|e| format!("start unshare: {e}; install util-linux"))?;
        Ok(Guard(started))
    }
}
