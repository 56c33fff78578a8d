//! Counts the planned faults of scenarios, so that a summary shows what a set of runs covers.

use super::disk_faults::DiskFaults;
use super::scenario::{DevicePlan, Scenario};
use crate::time::Time;
use std::time::Duration;

/// A device that starts later than this is late.
const LATE: Duration = Duration::from_millis(1_500);

/// Number of planned faults by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// Devices with more than 5 % loss or bursts.
    pub rough_links: u64,
    /// Devices that are cut off for some time.
    pub partitions: u64,
    /// Devices that crash.
    pub device_crashes: u64,
    /// Devices that come back.
    pub device_restarts: u64,
    /// Devices whose disk fails.
    pub disk_faults: u64,
    /// Devices that start late.
    pub late: u64,
    /// Users' interruptions, of either side.
    pub interrupts: u64,
    /// Senders that crash.
    pub sender_crashes: u64,
    /// Sources that change.
    pub source_changes: u64,
    /// Lines, on either side.
    pub lines: u64,
    /// Lines whose rate changes.
    pub changing_lines: u64,
}

impl Planned {
    /// Counts the faults that `scenario` plans.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let count = |f: &dyn Fn(&DevicePlan) -> bool| scenario.devices.iter().filter(|d| f(d)).count() as u64;
        let sender = &scenario.sender;
        let attachments = scenario.devices.iter().map(|d| &d.attachment).chain([&sender.attachment]);
        let lines: Vec<_> = attachments.flat_map(|a| [&a.egress, &a.uplink, &a.ingress]).flatten().collect();
        Self {
            rough_links: count(&|d| d.attachment.down.loss > 0.05 || d.attachment.down.burst.is_some()),
            partitions: count(&|d| !d.attachment.down.partitions.is_empty()),
            device_crashes: count(&|d| d.crash.is_some()),
            device_restarts: count(&|d| d.crash.is_some_and(|c| c.1.is_some())),
            disk_faults: count(&|d| d.faults != DiskFaults::default() || d.existing && !d.force),
            late: count(&|d| d.start > Time(LATE.as_nanos() as u64)),
            interrupts: count(&|d| d.interrupt.is_some()) + u64::from(sender.interrupt.is_some()),
            sender_crashes: u64::from(sender.crash.is_some()),
            source_changes: u64::from(sender.source_changes.is_some()),
            lines: lines.len() as u64,
            changing_lines: lines.iter().filter(|l| !l.changes.is_empty()).count() as u64,
        }
    }
    /// Adds the counts of another run.
    pub const fn add(&mut self, other: &Self) {
        self.rough_links += other.rough_links;
        self.partitions += other.partitions;
        self.device_crashes += other.device_crashes;
        self.device_restarts += other.device_restarts;
        self.disk_faults += other.disk_faults;
        self.late += other.late;
        self.interrupts += other.interrupts;
        self.sender_crashes += other.sender_crashes;
        self.source_changes += other.source_changes;
        self.lines += other.lines;
        self.changing_lines += other.changing_lines;
    }
}
