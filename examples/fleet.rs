//! A fleet on one machine: a real `mcp serve`, and devices with a real `mcp agent`, over loopback. No traffic leaves
//! the machine.
//!
//! `cargo run --release --example fleet`
//!
//! The devices enrol. All but one are on when a file is rolled out to `/srv/images/`; the last one is switched on
//! later, and completes by itself. Each device has a `/srv` of its own: a mount that only its agent sees, for which
//! this example needs user namespaces or root. It exits with 0 only if all copies are right.

#[path = "support/place.rs"]
mod place;
mod support;

use clap::Parser;
use place::Place;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use support::{Guard, Result, Scratch, line, make_file, mcp};

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
    let place = Place::new(mcp(options.mcp.as_deref())?, &scratch.path)?;
    let _server = place.serve(&[])?;
    let devices = place.join(options.devices)?;
    println!("{} devices have joined; all but {} are on", devices.len(), devices[devices.len() - 1]);
    let (last, first) = devices.split_last().ok_or("there are no devices")?;
    let mut agents = first.iter().map(|device| place.agent(device)).collect::<Result<Vec<Guard>>>()?;

    let image = scratch.path.join("image.iso");
    make_file(&image, 16 << 20)?;
    let number = place.copy(&image, &[])?;

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
    place.compare(&image, &devices)?;
    println!("$ mcp task show {number}\n{}", place.ask(&["task", "show", &number], "server")?);
    Ok(())
}
