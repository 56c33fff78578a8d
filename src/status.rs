//! L0: the words of the task status table.

use crate::units::DeviceId;
use std::net::SocketAddr;
use std::time::Duration;

/// Where one device stands with one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceStatus {
    /// Joined; the stream has not begun.
    Waiting,
    /// Takes the group's stream; `deficit` blocks are still incomplete as far as the sender knows.
    Receiving {
        /// Blocks not yet verified.
        deficit: u32,
    },
    /// Unlike the group (late, lossy, slow, rebooted): served by unicast repair.
    Repairing {
        /// Blocks not yet verified.
        deficit: u32,
    },
    /// The device verified, synced and renamed the object, and said so (I2).
    Complete,
    /// The device gave up, with its reason.
    Failed(String),
    /// Unheard of past its deadline.
    Lost,
}

impl DeviceStatus {
    /// Whether nothing more is to be done for the device unless it comes back.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Complete | Self::Failed(_) | Self::Lost)
    }
    /// The word for it in tables, events and reports.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Receiving { .. } => "receiving",
            Self::Repairing { .. } => "repairing",
            Self::Complete => "complete",
            Self::Failed(_) => "failed",
            Self::Lost => "lost",
        }
    }
}

/// Why a device is slower than the others, as far as its reports tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The path to it loses or carries less.
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

/// One row of the task status table, as shown, reported and stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// The device.
    pub device: DeviceId,
    /// Its label, as it gave it (escape before printing).
    pub label: String,
    /// The address it was last heard from.
    pub address: SocketAddr,
    /// Where it stands.
    pub status: DeviceStatus,
    /// Blocks the device has verified, as it last reported.
    pub verified_blocks: u32,
    /// Datagrams of the group channel the device reported lost on the way.
    pub lost_datagrams: u64,
    /// Datagrams the device's kernel dropped for want of buffer space.
    pub kernel_drops: u64,
    /// Datagrams the device dropped because its disk or processor lagged behind.
    pub overrun_drops: u64,
    /// Why it is, or was, served apart from the group; none if it was not.
    pub cause: Option<Cause>,
    /// Symbols sent to this device alone.
    pub unicast_symbols: u64,
    /// Time from its first join to its completion (or to now).
    pub elapsed: Duration,
}
