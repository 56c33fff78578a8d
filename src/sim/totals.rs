//! What runs came to: the counters of one run, which add up over many, and what was measured in one.

use super::checks::Symbols;
use super::faults::Faults;
use super::line::Meters;
use super::network::Counts;
use super::planned::Planned;
use crate::time::Time;
use std::time::Duration;

/// What a run, or a set of runs, came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// Devices in them.
    pub devices: u64,
    /// Devices that had the object in the end.
    pub complete: u64,
    /// Virtual time in all.
    pub virtual_time: Duration,
    /// The part of it from the start of the stream until the last device that got the object had it.
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
    /// What the network did.
    pub network: Counts,
    /// What was planned.
    pub planned: Planned,
    /// What struck, by class.
    pub faults: Faults,
}

impl Totals {
    /// Adds what other runs came to.
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

/// What was measured in one run.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What it came to.
    pub totals: Totals,
    /// When the stream began, if it did.
    pub started: Option<Time>,
    /// The sender's meters.
    pub sender: Meters,
    /// Each device's.
    pub devices: Vec<MeasuredDevice>,
}

/// What was measured of one device.
#[derive(Clone, Debug)]
pub struct MeasuredDevice {
    /// Its meters.
    pub meters: Meters,
    /// When it had the object, synced under its name; `None` if it never had.
    pub completed: Option<Time>,
}
