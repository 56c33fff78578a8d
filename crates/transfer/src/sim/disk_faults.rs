//! The faults of a device's disk, and how a scenario draws them.

use super::scenario::{DevicePlan, Draw, Expectation, Scenario};
use crate::layout::Layout;
use std::time::Duration;

/// An operation of a device's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes the part file, and reserves its space.
    Create,
    /// Writes to the part file.
    Write,
    /// Reads from the part file.
    Read,
    /// Makes the part file's bytes durable.
    Sync,
    /// Gives the part file its final name.
    Rename,
    /// Makes the final name durable.
    SyncDirectory,
}

impl Op {
    /// All operations.
    pub const ALL: [Self; 6] =
        [Self::Create, Self::Write, Self::Read, Self::Sync, Self::Rename, Self::SyncDirectory];

    const fn verb(self) -> &'static str {
        match self {
            Self::Create => "create the file",
            Self::Write => "write",
            Self::Read => "read back",
            Self::Sync => "sync the file",
            Self::Rename => "rename the file",
            Self::SyncDirectory => "sync the directory",
        }
    }
    /// The class of a power cut right before or `after` the operation.
    pub(super) const fn cut(self, after: bool) -> &'static str {
        match (self, after) {
            (Self::Create, false) => "power cut before creating",
            (Self::Create, true) => "power cut after creating",
            (Self::Write, false) => "power cut before a write",
            (Self::Write, true) => "power cut after a write",
            (Self::Read, false) => "power cut before a read",
            (Self::Read, true) => "power cut after a read",
            (Self::Sync, false) => "power cut before the sync",
            (Self::Sync, true) => "power cut after the sync",
            (Self::Rename, false) => "power cut before the rename",
            (Self::Rename, true) => "power cut after the rename",
            (Self::SyncDirectory, false) => "power cut before the directory's sync",
            (Self::SyncDirectory, true) => "power cut after the directory's sync",
        }
    }
    /// The class of an error of the operation.
    pub(super) const fn refused(self, error: DiskError) -> &'static str {
        match (self, error) {
            (Self::Create, DiskError::InputOutput) => "EIO on creating",
            (Self::Create, DiskError::Full) => "ENOSPC on creating",
            (Self::Create, DiskError::ReadOnly) => "EROFS on creating",
            (Self::Write, DiskError::InputOutput) => "EIO on a write",
            (Self::Write, DiskError::Full) => "ENOSPC on a write",
            (Self::Write, DiskError::ReadOnly) => "EROFS on a write",
            (Self::Read, _) => "EIO on a read",
            (Self::Sync, DiskError::InputOutput) => "EIO on the sync",
            (Self::Sync, DiskError::Full) => "ENOSPC on the sync",
            (Self::Sync, DiskError::ReadOnly) => "EROFS on the sync",
            (Self::Rename, DiskError::InputOutput) => "EIO on the rename",
            (Self::Rename, DiskError::Full) => "ENOSPC on the rename",
            (Self::Rename, DiskError::ReadOnly) => "EROFS on the rename",
            (Self::SyncDirectory, DiskError::InputOutput) => "EIO on the directory's sync",
            (Self::SyncDirectory, DiskError::Full) => "ENOSPC on the directory's sync",
            (Self::SyncDirectory, DiskError::ReadOnly) => "EROFS on the directory's sync",
        }
    }
}

/// An error of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// EIO.
    InputOutput,
    /// ENOSPC.
    Full,
    /// EROFS.
    ReadOnly,
}

impl DiskError {
    /// The system's number of it.
    pub(super) const fn number(self) -> i32 {
        match self {
            Self::InputOutput => libc::EIO,
            Self::Full => libc::ENOSPC,
            Self::ReadOnly => libc::EROFS,
        }
    }
    /// The error text that the device reports.
    pub(super) fn text(self, op: Op) -> String {
        let why = match self {
            Self::InputOutput => "input/output error",
            Self::Full => "no space left on the disk",
            Self::ReadOnly => "the disk is read-only",
        };
        format!("cannot {}: {why}", op.verb())
    }
}

/// A power cut at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerCut {
    /// The operation.
    pub op: Op,
    /// The number of the operation among those of its kind, from 0 on.
    pub nth: u64,
    /// Whether the power fails after the operation rather than before it.
    pub after: bool,
    /// Seed that decides what happens to unsynced data.
    pub seed: u64,
}

/// The errors of a disk, and the power cut of its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Capacity in bytes; `None` is unlimited. Part files are preallocated.
    pub capacity: Option<u64>,
    /// Whether creating files fails.
    pub read_only: bool,
    /// The operation with this number (from 0) fails, once: a system reports a lost write one time.
    pub error: Option<(Op, u64, DiskError)>,
    /// Writes fail as on a full disk after this number of bytes, though there was room.
    pub full_after: Option<u64>,
    /// Whether another file takes the final name while the object is being received.
    pub name_taken_late: bool,
    /// The power cut of the device.
    pub power_cut: Option<PowerCut>,
}

impl Draw {
    /// Draws a fault, and whether it prevents the device from completing.
    pub(super) fn disk(&mut self, layout: &Layout) -> (DiskFaults, bool) {
        let size = layout.object_size();
        let none = DiskFaults::default();
        let failing = |op, nth| DiskFaults { error: Some((op, nth, DiskError::InputOutput)), ..none };
        match self.rng.u8(..7) {
            0 if size > 0 => (DiskFaults { capacity: Some(self.rng.u64(..size)), ..none }, true),
            1 => (failing(Op::Write, self.rng.u64(..8)), false),
            2 if size > 1 => (DiskFaults { full_after: Some(self.rng.u64(..size)), ..none }, true),
            3 => (failing(Op::Read, self.rng.u64(..3)), false),
            4 => (failing(Op::Sync, 0), true),
            5 => (DiskFaults { name_taken_late: true, ..none }, true),
            _ => (DiskFaults { read_only: true, ..none }, true),
        }
    }

    /// Gives some of the devices without other faults a disk error or a power cut at an operation.
    pub(super) fn disk_faults(mut self, mut scenario: Scenario) -> Scenario {
        let (steady, linger) = (scenario.sender.is_steady(), scenario.linger);
        // The first device has no fault, so that there is a session.
        for plan in scenario.devices.iter_mut().skip(1) {
            let eventful = plan.crash.is_some()
                || plan.interrupt.is_some()
                || plan.existing
                || plan.faults != DiskFaults::default();
            match self.rng.u8(..100) {
                _ if eventful => {}
                0..7 => self.failing(plan),
                7..15 => self.powerless(plan, steady, linger),
                _ => {}
            }
        }
        if self.chance(4) {
            scenario.forger = self.rng.f64();
        }
        scenario
    }

    fn operation(&mut self) -> (Op, u64) {
        let op = Op::ALL[self.rng.usize(..Op::ALL.len())];
        let nth = match op {
            Op::Write => self.rng.u64(..5),
            Op::Read => self.rng.u64(..2),
            _ => 0,
        };
        (op, nth)
    }

    fn failing(&mut self, plan: &mut DevicePlan) {
        let (op, nth) = self.operation();
        let error = [DiskError::InputOutput, DiskError::Full, DiskError::ReadOnly][self.rng.usize(..3)];
        plan.faults.error = Some((op, nth, if op == Op::Read { DiskError::InputOutput } else { error }));
        plan.existing = plan.force && self.chance(50);
        plan.expectation = match op {
            // The device may never reach this operation.
            Op::Write | Op::Read => Expectation::Any,
            // A file that replaced another one stays.
            Op::SyncDirectory if plan.existing => Expectation::Unconfirmed,
            _ => Expectation::Fails,
        };
    }

    fn powerless(&mut self, plan: &mut DevicePlan, steady: bool, linger: Duration) {
        let (op, nth) = self.operation();
        let (after, seed) = (self.chance(50), self.rng.u64(..));
        plan.faults.power_cut = Some(PowerCut { op, nth, after, seed });
        plan.force = self.chance(70);
        plan.existing = plan.force && self.chance(50);
        plan.back = self.chance(80).then(|| self.between(50, 4_000));
        // The sender stays long enough after the last of the other devices.
        let awaited = steady && plan.force && plan.back.is_some() && linger >= Duration::from_secs(30);
        if !awaited {
            plan.hope();
        }
    }
}
