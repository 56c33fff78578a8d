//! Statistics of the transfer to each device: measured and shown, without effect on the protocol. The
//! [`Assignment`] has the state of the task.

use crate::task::Assignment;
use crate::units::DeviceId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What the sender does for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// The device has joined; the stream has not begun.
    Waiting,
    /// The group's stream and repairs serve it.
    Receiving,
    /// It is unlike the group (late, lossy, slow, restarted): unicast repair serves it.
    Repairing,
    /// It has ended, and the store has not recorded that yet.
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

/// Why a device is slower than the others, by its reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The path to it loses more, or has less capacity.
    Network,
    /// Its kernel drops datagrams that it has no time to receive.
    Cpu,
    /// Its disk does not keep up.
    Disk,
    /// What reads the object from it does not keep up, or it came too late for the order of the blocks.
    Reader,
    /// The sender hears nothing from it, or polls do not reach it.
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
            Self::Reader => "reader",
            Self::Feedback => "feedback",
        }
    }
}

/// Statistics of the transfer to one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransferStatistics {
    /// The address from which it was last heard; `None` if it did not join in this session.
    pub address: Option<SocketAddr>,
    /// The present activity; `None` once the transfer has ended.
    pub activity: Option<Activity>,
    /// Blocks it has not verified yet, while it is being served.
    pub deficit: Option<u32>,
    /// Blocks the device has verified, as it last reported.
    pub verified_blocks: u32,
    /// Datagrams of the group channel that the device reported as lost.
    pub lost_datagrams: u64,
    /// Datagrams that the device's kernel dropped for lack of buffer space.
    pub kernel_drops: u64,
    /// Datagrams that the device dropped because its disk or processor was too slow.
    pub overrun_drops: u64,
    /// Why unicast repair serves, or served, it; `None` if it did not.
    pub cause: Option<Cause>,
    /// Symbols sent to this device alone.
    pub unicast_symbols: u64,
    /// Time from the start of the transfer to the end of its service, or to now; 0 while devices gather.
    pub elapsed: Duration,
}

/// One row of the status table: the recorded assignment of a device, and the statistics of its transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// The assignment. Pending, if the store has no record yet.
    pub assignment: Assignment,
    /// The statistics of the transfer.
    pub transfer: TransferStatistics,
}

impl DeviceRow {
    /// Whether the device is expected by name, and has not joined.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        let Self { assignment, transfer } = self;
        assignment.attempts == 0 && transfer.address.is_none() && !assignment.state().is_final()
    }

    /// The word for the device's state in tables, events and reports.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if self.is_missing() { "missing" } else { self.assignment.state().word() }
    }

    /// The row of a device that has not joined.
    #[must_use]
    pub fn of_absent(assignment: Assignment) -> Self {
        Self { assignment, transfer: TransferStatistics::default() }
    }

    /// The rows of a table: `assignments`, with the statistics of their devices from `rows`.
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
