//! One run of one tool.

use super::blaster::DATAGRAM;
use super::support::files::{TempDir, b3, names};
use super::support::lab::Lab;
use super::support::process::{End, Memory, Proc};
use super::tools::{Pace, Tool};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The setting of a run, the same for all tools.
pub struct Setting<'a> {
    /// Host 0 sends, the others receive.
    pub lab: &'a Lab,
    /// The file or directory to copy.
    pub source: &'a Path,
    /// Bytes in it.
    pub bytes: u64,
    /// Its hash.
    pub hash: &'a str,
    /// The directory for the copies.
    pub place: &'a TempDir,
    /// Number of receivers.
    pub receivers: usize,
    /// Rate of the sender.
    pub pace: Pace,
    /// Whether every datagram crosses by itself, so that the byte counters are exact.
    pub whole_packets: bool,
    /// The mcp to measure.
    pub mcp: &'a Path,
    /// The mcp for [`Tool::Other`].
    pub other: &'a Path,
    /// Further arguments for `mcp send`.
    pub mcp_args: &'a str,
    /// Datagrams that the blaster sends in one call.
    pub batch: usize,
    /// Time limit of a run.
    pub within: Duration,
}

/// The figures of a successful run. NaN where a figure does not apply.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Mbit/s of the file.
    pub goodput: f64,
    /// The same without gathering.
    pub stream: f64,
    /// Seconds of the sender's run.
    pub took: f64,
    /// Seconds until all have ended.
    pub all: f64,
    /// Seconds per GiB.
    pub sender_cpu: f64,
    /// Seconds per GiB.
    pub receiver_cpu: f64,
    /// Peak memory of the sender.
    pub sender_memory: Memory,
    /// Peak memory of one receiver.
    pub receiver_memory: Memory,
    /// Bytes on the wire per byte of the file.
    pub wire: f64,
    /// Packets that the sender's kernel handed to the card per MiB of the file.
    pub packets: f64,
    /// Share of the datagrams that the slowest receiver did not get.
    pub lost: f64,
}

/// The result of a receiver of the blaster.
struct Caught {
    bytes: f64,
    seconds: f64,
}

impl Setting<'_> {
    /// Runs a tool once. An error says in a few words why it failed.
    pub fn measure(&self, tool: Tool) -> Result<Figures, String> {
        for host in 1..=self.receivers {
            // A failed run may have left its copies.
            remove(&self.copy(host));
        }
        let mut receivers: Vec<Proc> = (1..=self.receivers).map(|h| self.receiver(tool, h)).collect();
        // The receivers must listen before their sender starts.
        thread::sleep(Duration::from_millis(500));
        receivers[0].watch_memory();
        let count = |name| self.lab.statistic(0, name);
        let (bytes, packets) = (count("tx_bytes"), count("tx_packets"));
        let start = Instant::now();
        let mut sender = self.sender(tool);
        sender.watch_memory();
        let deadline = start + self.within;
        let end = sender.try_finish(self.within).ok_or("sender hung")?;
        let (bytes, packets) = (count("tx_bytes") - bytes, count("tx_packets") - packets);
        if end.code != Some(0) {
            return Err(format!("sender: {}: {}", end.status, end.stderr.lines().last().unwrap_or_default()));
        }
        let ends = self.ends(tool, &mut receivers, deadline)?;
        let all = start.elapsed().as_secs_f64();
        let caught = if tool == Tool::Blaster { caught(&ends)? } else { Vec::new() };
        if tool != Tool::Blaster {
            self.check_copies()?;
        }
        let size = self.bytes as f64;
        let gib = size / f64::from(1 << 30);
        let mbit = |bytes: f64, seconds: f64| bytes * 8.0 / 1e6 / seconds;
        let took = end.elapsed.as_secs_f64();
        let least = caught.iter().map(|c| c.bytes).fold(f64::INFINITY, f64::min);
        let (goodput, stream, received) = match tool {
            Tool::Blaster => {
                let slowest = caught.iter().map(|c| mbit(c.bytes, c.seconds)).fold(f64::INFINITY, f64::min);
                (slowest, slowest, caught.iter().map(|c| c.bytes).sum::<f64>())
            }
            Tool::Mcp | Tool::Sealed | Tool::Other => {
                let seconds = end.last_event()["transfer_seconds"].as_f64().unwrap_or(f64::NAN);
                (mbit(size, took), mbit(size, seconds), size * self.receivers as f64)
            }
            _ => (mbit(size, took), f64::NAN, size * self.receivers as f64),
        };
        let own = |cpu| if self.is_one_process(tool) { cpu } else { f64::NAN };
        Ok(Figures {
            goodput,
            stream,
            took,
            all: if tool.has_daemons() { f64::NAN } else { all },
            sender_cpu: own(end.cpu / gib),
            receiver_cpu: own(ends.iter().map(|e| e.cpu).sum::<f64>() / (received / f64::from(1 << 30))),
            sender_memory: sender.memory(),
            receiver_memory: receivers[0].memory(),
            wire: if self.whole_packets { bytes as f64 / size } else { f64::NAN },
            packets: packets as f64 / (size / f64::from(1 << 20)),
            lost: if tool == Tool::Blaster { 1.0 - least / size } else { f64::NAN },
        })
    }

    /// Waits for the ends of the receivers. Daemons have to be stopped.
    fn ends(&self, tool: Tool, receivers: &mut [Proc], deadline: Instant) -> Result<Vec<End>, String> {
        if tool.has_daemons() {
            receivers.iter().for_each(|r| r.signal("TERM"));
        }
        let end = |receiver: &mut Proc| {
            let left = deadline.saturating_duration_since(Instant::now());
            let end = receiver.try_finish(left.max(Duration::from_secs(1))).ok_or("receiver hung")?;
            if !tool.has_daemons() && end.code != Some(0) {
                return Err(format!("receiver: {}: {}", end.status, end.stderr.trim_end()));
            }
            Ok(end)
        };
        receivers.iter_mut().map(end).collect()
    }

    /// Checks and removes the copies.
    fn check_copies(&self) -> Result<(), String> {
        let copies = (1..=self.receivers).map(|host| self.copy(host));
        let right = copies.map(|copy| {
            let right = copy.exists() && hash(&copy) == self.hash;
            remove(&copy);
            right
        });
        // All of them, because a leftover copy would disturb the next run.
        let wrong = right.filter(|right| !right).count();
        if wrong == 0 { Ok(()) } else { Err(format!("{wrong} wrong copies")) }
    }
}

/// Removes a file or a directory, if it is there.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// The hash of a file; of a directory, that of its names and its files.
pub fn hash(path: &Path) -> String {
    if !path.is_dir() {
        return b3(path);
    }
    let inside = names(path).into_iter().map(|name| format!("{name} {}\n", hash(&path.join(&name))));
    blake3::hash(inside.collect::<String>().as_bytes()).to_string()
}

/// The last lines of the blaster's receivers.
fn caught(ends: &[End]) -> Result<Vec<Caught>, String> {
    let read = |end: &End| {
        let said = end.last_event();
        let number = |key: &str| said[key].as_f64().ok_or(format!("no {key} in {said}"));
        let caught = Caught { bytes: number("bytes")?, seconds: number("seconds")? };
        if caught.bytes < DATAGRAM as f64 { Err("nothing came".into()) } else { Ok(caught) }
    };
    ends.iter().map(read).collect()
}
