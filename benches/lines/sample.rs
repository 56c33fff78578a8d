//! Counters of the network, taken every 100 ms while a transfer runs.

use super::support::lab::{Bucket, Lab};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(100);

/// The counters of all receivers at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Seconds since the origin.
    pub at: f64,
    /// Bytes that reached each receiver's card, Ethernet headers included.
    pub received: Vec<u64>,
    /// The buckets in front of the receivers.
    pub buckets: Vec<Bucket>,
}

/// Bytes that reached the `eth0` of a process; `None` if the process has ended.
fn received(pid: u32) -> Option<u64> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let line = table.lines().find_map(|l| l.trim_start().strip_prefix("eth0:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Samples until told to stop. `pids` are processes on the hosts 1, 2 and so on. When one has ended, its
/// last count stays.
pub fn sample(lab: &Lab, pids: &[u32], origin: Instant, stop: &AtomicBool) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut last = vec![0; pids.len()];
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let at = origin.elapsed().as_secs_f64();
        for (last, pid) in last.iter_mut().zip(pids) {
            *last = received(*pid).unwrap_or(*last);
        }
        let buckets = lab.buckets()[1..=pids.len()].to_vec();
        samples.push(Sample { at, received: last.clone(), buckets });
        due += EVERY;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    samples
}
