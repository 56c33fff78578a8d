//! One observed transfer over lines.

use super::evaluate::between;
use super::sample::{Sample, sample};
use super::support::files::TempDir;
use super::support::lab::Lab;
use super::support::mcp::{Network, is_event};
use super::support::process::{Cmd, End, Proc};
use super::{Options, tcp};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The plan of a trial.
pub struct Plan<'a> {
    pub options: &'a Options,
    /// Host 0 sends, all others receive.
    pub lab: &'a Lab,
    pub source: &'a Path,
    /// Arguments of `mcp send`.
    pub words: Vec<String>,
    /// The line's rate by the time from which it applies, in seconds since the start of the stream. The
    /// first entry, at 0, applies from the beginning.
    pub lines: Vec<(f64, u64)>,
    /// Whether a TCP flow to host 1 runs before, during and after the transfer.
    pub tcp: bool,
}

/// The result of a trial. Times are seconds since the sender was started.
pub struct Trial {
    pub samples: Vec<Sample>,
    /// Start of the stream.
    pub streaming: f64,
    /// Time at which the object had been sent once; repairs follow.
    pub streamed: f64,
    /// Times of the changes of [`Plan::lines`].
    pub changes: Vec<f64>,
    /// Times at which the receivers ended with a copy; NaN for a receiver without one.
    pub ends: Vec<f64>,
    /// Goodput in Mbit/s: bits of the file by the time of the transfer, without gathering; NaN if it
    /// failed.
    pub goodput: f64,
    /// TCP's goodput in Mbit/s during the transfer; NaN without TCP.
    pub tcp: f64,
}

/// One TCP flow from host 0 to host 1.
pub struct Flow {
    client: Proc,
    server: Proc,
}

impl Flow {
    /// Starts the flow.
    pub fn start(lab: &Lab, control: &str) -> Self {
        let own = || std::env::current_exe().expect("the path of this program");
        let server = lab.on(1, Cmd::new("server", own()).arg("drain")).spawn();
        thread::sleep(Duration::from_millis(300));
        let client = lab
            .on(0, Cmd::new("client", own()).args(["pour", "--control", control]).arg(lab.address(1)))
            .spawn();
        Self { client, server }
    }

    /// Ends the flow. Returns its goodput in Mbit/s between two times of the wall clock.
    pub fn stop(mut self, from: f64, to: f64) -> f64 {
        self.client.signal("KILL");
        let end = self.server.finish(Duration::from_secs(10));
        let counts: Vec<(f64, f64)> = end
            .events()
            .iter()
            .filter_map(|e| Some((e["unix"].as_f64()?, e["bytes"].as_f64()?)))
            .filter(|(at, _)| (from..=to).contains(at))
            .collect();
        match counts[..] {
            [(a, had), .., (b, has)] => (has - had) * 8.0 / 1e6 / (b - a),
            _ => f64::NAN,
        }
    }
}

impl Plan<'_> {
    /// Runs the plan. An error says in a few words why it failed.
    pub fn run(&self, place: &TempDir) -> Result<Trial, String> {
        let receivers = self.lab.hosts() - 1;
        let network = Network::new("239.77.0.1", 7417, "eth0");
        let mcp = |cmd: Cmd| cmd.program(&self.options.mcp);
        let dirs = TempDir::within(place.path());
        let mut devices: Vec<Proc> = (1..=receivers)
            .map(|h| {
                let name = format!("h{h}");
                self.lab.on(h, mcp(network.recv(&name, dirs.dir(&name)))).spawn()
            })
            .collect();
        let flow = self.tcp.then(|| Flow::start(self.lab, &self.options.tcp_control));
        // The receivers must listen, and TCP must have its full rate.
        thread::sleep(Duration::from_millis(if self.tcp { 3000 } else { 500 }));
        let pids: Vec<u32> = devices.iter().map(Proc::pid).collect();
        let (origin, unix) = (Instant::now(), tcp::unix_now());
        let mut sender = self.lab.on(0, mcp(network.send(self.source, receivers)).args(&self.words)).spawn();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let sampler = scope.spawn(|| sample(self.lab, &pids, origin, &stop));
            let watched = self.watch(&mut sender, &mut devices, origin);
            stop.store(true, Ordering::Relaxed);
            let samples = sampler.join().map_err(|_| "the sampler panicked".to_owned())?;
            let (changes, ends, end) = watched?;
            let told = |kind: &str, phase: Option<&str>| {
                let events = end.events();
                let mut wanted =
                    events.iter().filter(|e| is_event(e, kind) && phase.is_none_or(|p| e["phase"] == p));
                wanted.next().and_then(|e| e["time"].as_f64()).unwrap_or(f64::NAN)
            };
            let (streaming, finished) = (told("phase", Some("streaming")), told("finished", None));
            // Without repairs there is no such phase.
            let streamed = told("phase", Some("repairing")).min(finished);
            let seconds = end.last_event()["transfer_seconds"].as_f64().unwrap_or(f64::NAN);
            let bits = self.source.metadata().map_err(|e| e.to_string())?.len() as f64 * 8.0;
            let trial = Trial {
                samples,
                streaming,
                streamed,
                changes,
                ends,
                goodput: if end.code == Some(0) { bits / 1e6 / seconds } else { f64::NAN },
                tcp: flow.map_or(f64::NAN, |f| f.stop(unix + streaming, unix + finished)),
            };
            if self.options.trace {
                self.trace(&trial);
            }
            Ok(trial)
        })
    }

    /// Changes the lines at their times, and waits for all processes to end.
    fn watch(
        &self,
        sender: &mut Proc,
        devices: &mut [Proc],
        origin: Instant,
    ) -> Result<(Vec<f64>, Vec<f64>, End), String> {
        let within = Duration::from_secs(self.options.timeout);
        let deadline = origin + within;
        while !sender.has(|e| is_event(e, "phase") && e["phase"] == "streaming") {
            if Instant::now() > deadline {
                return Err(format!("no stream\n{}", sender.transcript()));
            }
            thread::sleep(Duration::from_millis(2));
        }
        let streaming = Instant::now();
        let mut changes = Vec::new();
        for (after, mbit) in self.lines.iter().skip(1) {
            let due = streaming + Duration::from_secs_f64(*after);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            (1..self.lab.hosts()).for_each(|host| self.lab.bucket(host, *mbit));
            changes.push(origin.elapsed().as_secs_f64());
        }
        // The first receiver may be behind a slow line; the ends of the others must be noticed in time
        // all the same.
        let mut ends = vec![f64::NAN; devices.len()];
        for i in (0..devices.len()).rev() {
            let left = deadline.saturating_duration_since(Instant::now());
            let end = devices[i].try_finish(left);
            if end.is_some_and(|end| end.code == Some(0)) {
                ends[i] = origin.elapsed().as_secs_f64();
            }
        }
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let end = sender.try_finish(left).or_else(|| {
            sender.signal("INT");
            sender.try_finish(Duration::from_secs(10))
        });
        let end = end.ok_or("sender hung")?;
        if end.last_event()["transfer_seconds"].is_null() {
            return Err(format!("sender: {}: {}", end.status, end.stderr.trim_end()));
        }
        Ok((changes, ends, end))
    }

    /// Prints the samples of the stream.
    fn trace(&self, trial: &Trial) {
        let mut next = trial.changes.iter().zip(self.lines.iter().skip(1)).peekable();
        let mut mbit = self.lines[0].1;
        for pair in trial.samples.windows(2).filter(|w| w[1].at >= trial.streaming) {
            while let Some((_, line)) = next.next_if(|(at, _)| **at <= pair[0].at) {
                mbit = line.1;
            }
            let (share, drops) = between(&pair[0], &pair[1], mbit, 0.0);
            let at = pair[1].at - trial.streaming;
            let phase = if pair[1].at <= trial.streamed { "" } else { "  repairing" };
            println!(
                "  {at:6.2} s {:7.1} of {mbit} Mbit/s, drops {:5.1} %{phase}",
                share * mbit as f64,
                100.0 * drops
            );
        }
    }
}
