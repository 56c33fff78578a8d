//! How a transfer goes, device by device: what is measured and shown, and decides nothing. How far a device is
//! with its task is its [`Assignment`]'s to say.

use crate::task::Assignment;
use crate::units::DeviceId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What the sender is doing for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// The device has joined; the stream has not begun.
    Waiting,
    /// It takes the group's stream and repairs.
    Receiving,
    /// It is unlike the group (late, lossy, slow, rebooted): a unicast repair session serves it.
    Repairing,
    /// It has ended, one way or the other, and the store does not have that yet.
    Recording,
}

impl Activity {
    /// The word for it in tables, events and reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Receiving => "receiving",
            Self::Repairing => "repairing",
            Self::Recording => "recording",
        }
    }
}

/// Why a device is slower than the others, as far as its reports tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The path to it loses more, or carries less.
    Network,
    /// Its kernel drops what it has no time to take.
    Cpu,
    /// Its disk does not keep up.
    Disk,
    /// Nothing is heard from it, or polls do not reach it.
    Feedback,
}

impl Cause {
    /// The word for it in tables, events and reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Cpu => "cpu",
            Self::Disk => "disk",
            Self::Feedback => "feedback",
        }
    }
}

/// How the transfer to one device goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransferStatistics {
    /// The address it was last heard from; none if it did not join in this session.
    pub address: Option<SocketAddr>,
    /// What is being done for it; nothing once that has ended.
    pub activity: Option<Activity>,
    /// Blocks it has not verified yet, while it is being served.
    pub deficit: Option<u32>,
    /// Blocks the device has verified, as it last reported.
    pub verified_blocks: u32,
    /// Datagrams of the group channel that the device reported lost on the way.
    pub lost_datagrams: u64,
    /// Datagrams that the device's kernel dropped for want of buffer space.
    pub kernel_drops: u64,
    /// Datagrams that the device dropped because its disk or processor lagged behind.
    pub overrun_drops: u64,
    /// Why it is, or was, served apart from the group; none if it was not.
    pub cause: Option<Cause>,
    /// Symbols sent to this device alone.
    pub unicast_symbols: u64,
    /// Time from its first join to its end (or to now).
    pub elapsed: Duration,
}

/// One row of the status table: how far a device is, as the store has it, and how its transfer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// How far it is. Not begun, if the store has nothing of it yet.
    pub assignment: Assignment,
    /// How its transfer goes.
    pub transfer: TransferStatistics,
}

impl DeviceRow {
    /// Whether the device is expected by name, and has not come.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        let Self { assignment, transfer } = self;
        assignment.attempts == 0 && transfer.address.is_none() && !assignment.state().is_final()
    }

    /// The word for how far the device is, in tables, events and reports.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if self.is_missing() { "missing" } else { self.assignment.state().word() }
    }

    /// The row of a device that has not come.
    #[must_use]
    pub fn of_absent(assignment: Assignment) -> Self {
        Self { assignment, transfer: TransferStatistics::default() }
    }

    /// The rows of a table from `assignments`, with the statistics that `rows` has of their devices.
    #[must_use]
    pub fn join(assignments: Vec<Assignment>, rows: Vec<Self>) -> Vec<Self> {
        let mut known: BTreeMap<DeviceId, TransferStatistics> =
            rows.into_iter().map(|row| (row.assignment.device, row.transfer)).collect();
        let row = |assignment: Assignment| {
            let transfer = known.remove(&assignment.device).unwrap_or_default();
            Self { assignment, transfer }
        };
        assignments.into_iter().map(row).collect()
    }
}
