//! Results of runs: counters that add up over many runs, and measurements of one run.

use super::checks::Symbols;
use super::faults::Faults;
use super::line::Meters;
use super::network::Counts;
use super::planned::Planned;
use crate::time::Time;
use std::time::Duration;

/// The counters of a run, or of a set of runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of runs.
    pub runs: u64,
    /// Number of devices.
    pub devices: u64,
    /// Devices that had the object at the end.
    pub complete: u64,
    /// Total virtual time.
    pub virtual_time: Duration,
    /// The part of it from the start of the stream until the last device to complete had the object.
    pub transfer_time: Duration,
    /// Engine steps.
    pub steps: u64,
    /// Source symbols of the objects.
    pub source_symbols: u64,
    /// Symbols sent.
    pub symbols: Symbols,
    /// Most feedback datagrams in any second of any run.
    pub feedback_max: usize,
    /// Feedback datagrams in all.
    pub feedback_total: u64,
    /// Counters of the network.
    pub network: Counts,
    /// Planned faults.
    pub planned: Planned,
    /// Faults that occurred, by class.
    pub faults: Faults,
}

impl Totals {
    /// Adds the counters of other runs.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.devices += other.devices;
        self.complete += other.complete;
        self.virtual_time += other.virtual_time;
        self.transfer_time += other.transfer_time;
        self.steps += other.steps;
        self.source_symbols += other.source_symbols;
        self.symbols.add(&other.symbols);
        self.feedback_max = self.feedback_max.max(other.feedback_max);
        self.feedback_total += other.feedback_total;
        self.network.add(&other.network);
        self.planned.add(&other.planned);
        self.faults.add(&other.faults);
    }
    /// Symbols sent for each source symbol.
    #[must_use]
    pub fn overhead(&self) -> f64 {
        self.symbols.total() as f64 / self.source_symbols.max(1) as f64
    }
}

/// Measurements of one run.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Counters of the run.
    pub totals: Totals,
    /// Start time of the stream, if it started.
    pub started: Option<Time>,
    /// The sender's meters.
    pub sender: Meters,
    /// Measurements of each device.
    pub devices: Vec<MeasuredDevice>,
}

/// Measurements of one device.
#[derive(Clone, Debug)]
pub struct MeasuredDevice {
    /// Its meters.
    pub meters: Meters,
    /// Time at which the object was synced under its final name; `None` if it never was.
    pub completed: Option<Time>,
}
