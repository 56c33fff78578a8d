//! Counts the planned faults of scenarios, so that a summary shows what a set of runs covers.

use super::disk_faults::DiskFaults;
use super::scenario::{DevicePlan, Known, Scenario};
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
    /// Sessions without a way back.
    pub one_way: u64,
    /// Streams: objects that grow, and those of which only the last blocks are kept.
    pub streams: [u64; 2],
    /// Objects with blocks that need not be sent as they are.
    pub coded: u64,
    /// Senders that know the object from an earlier run, and those of them that know it wrongly.
    pub known: [u64; 2],
    /// Devices that pass the object on, and those of them whose reader goes away or fails.
    pub pipes: [u64; 2],
    /// Devices that receive a tree, and those of them that fail or die at a step.
    pub trees: [u64; 2],
    /// Devices that write to a block device, and those of them that fail or lose power at one of its operations.
    pub block_devices: [u64; 2],
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
            one_way: 0,
            streams: [u64::from(sender.growth.is_some()), u64::from(sender.is_windowed())],
            coded: u64::from(scenario.content.is_coded()),
            known: [
                u64::from(sender.known.is_some()),
                u64::from(matches!(sender.known, Some(Known::Stale(_)))),
            ],
            pipes: [
                count(&|d| d.pipe.is_some()),
                count(&|d| d.pipe.is_some_and(|pipe| pipe.dies.is_some() || pipe.status == Some(3))),
            ],
            trees: [count(&|d| d.tree.is_some()), count(&|d| d.tree.is_some_and(|t| t.fault.is_some()))],
            block_devices: [
                count(&|d| d.block.is_some()),
                count(&|d| d.block.is_some_and(|b| b.error.is_some() || b.power_cut.is_some())),
            ],
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
        self.one_way += other.one_way;
        self.streams = [self.streams[0] + other.streams[0], self.streams[1] + other.streams[1]];
        self.coded += other.coded;
        self.known = [self.known[0] + other.known[0], self.known[1] + other.known[1]];
        self.pipes = [self.pipes[0] + other.pipes[0], self.pipes[1] + other.pipes[1]];
        self.trees = [self.trees[0] + other.trees[0], self.trees[1] + other.trees[1]];
        let [all, faulty] = other.block_devices;
        self.block_devices = [self.block_devices[0] + all, self.block_devices[1] + faulty];
    }
}
