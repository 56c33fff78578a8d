//! A campaign from start to end, on one machine: a real `mcp serve` brings a file to devices with a real `mcp agent` by
//! multicast, over loopback. No traffic leaves the machine.
//!
//! `cargo run --release --example campaign`
//!
//! Two devices get the file first. When they are done, the others get it, and the server is killed in the middle of that:
//! the next one goes on with its session. One device was off all the while. It is switched on last, and loads the file by
//! itself. It exits with 0 only if all copies are right.
//!
//! Each device has a `/srv` of its own, for which this example needs user namespaces or root.

#[path = "support/place.rs"]
mod place;
mod support;

use clap::Parser;
use place::Place;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use support::{Guard, Result, Scratch, make_file, mcp};

const SIZE: u64 = 16 << 20;
/// Bits per second: slow enough to be interrupted.
const RATE: &str = "50M";
/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Brings a file to a fleet on this machine by multicast, in two groups, in spite of a server that is killed.
#[derive(Parser)]
#[command(name = "campaign")]
struct Options {
    /// Number of devices
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(5..=50))]
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
    match Scratch::new("campaign", options.keep).and_then(|scratch| run(&options, &scratch)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("campaign: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, scratch: &Scratch) -> Result<()> {
    let place = Place::new(mcp(options.mcp.as_deref())?, &scratch.path)?;
    let serve = || place.serve(&["--rate", RATE]);
    let mut server = serve()?;
    let devices = place.join(options.devices)?;
    let (last, first) = devices.split_last().ok_or("there are no devices")?;
    let mut agents = first.iter().map(|device| place.agent(device)).collect::<Result<Vec<Guard>>>()?;
    println!("{} devices have joined; all but {last} are on", devices.len());
    until("check-in of the devices", || {
        let known: Value = serde_json::from_str(&place.ask(&["device", "list", "--json"], "server")?)?;
        let heard = known.as_array().into_iter().flatten().filter(|device| !device["last_seen"].is_null());
        Ok(heard.count() == first.len())
    })?;

    let image = scratch.path.join("image.iso");
    make_file(&image, SIZE)?;
    let number = place.copy(&image, &["--groups", "2"])?;
    let show = || -> Result<Value> {
        let said = place.ask(&["task", "show", &number, "--json"], "server")?;
        Ok(serde_json::from_str(&said)?)
    };
    let finished = |view: &Value| view["counts"]["finished"].as_u64().unwrap_or(0);
    until("first group", || Ok(finished(&show()?) == 2))?;
    println!("the first two devices are done; the others get it now");

    // It may be the session of the first two that goes on with them.
    until("data for the second group", || {
        let sent = |view: Value| -> u64 { sessions(&view).map(|session| number_of(session, "wire")).sum() };
        Ok(sent(show()?) > SIZE + SIZE / 4)
    })?;
    server.0.kill()?;
    server.0.wait()?;
    println!("the server is killed in the middle");
    server = serve()?;
    until("second group", || Ok(finished(&show()?) == first.len() as u64))?;

    // Until then, a device that comes takes part.
    until("end of the session", || Ok(sessions(&show()?).all(|session| session["over"] == true)))?;

    println!("{last} is switched on");
    agents.push(place.agent(last)?);
    until("last device", || Ok(finished(&show()?) == devices.len() as u64))?;
    place.compare(&image, &devices)?;
    println!("$ mcp task show {number}\n{}", place.ask(&["task", "show", &number], "server")?);
    let view = show()?;
    for session in sessions(&view) {
        let copies = number_of(session, "wire") as f64 / SIZE as f64;
        let (complete, runs) = (number_of(session, "complete"), number_of(session, "runs"));
        println!(
            "a session for {complete} devices, begun {runs} times: {copies:.2} bytes sent per byte of the file"
        );
    }
    drop(server);
    Ok(())
}

/// The task's multicast sessions.
fn sessions(task: &Value) -> impl Iterator<Item = &Value> {
    task["sessions"].as_array().into_iter().flatten()
}

fn number_of(session: &Value, member: &str) -> u64 {
    session[member].as_u64().unwrap_or(0)
}

/// Asks until it is so.
fn until(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !so()? {
        if Instant::now() > end {
            return Err(format!("no {what} within {PATIENCE:?}; try --keep and look at the logs").into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
