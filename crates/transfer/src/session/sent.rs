//! Results of a send session: its parameters, its state while it runs, and its outcome.

use super::budget::EgressView;
use crate::content::TreeHead;
use crate::net::Interface;
use crate::protocol::event::{SenderOutcome, SenderSnapshot};
use crate::protocol::statistics::DeviceRow;
use crate::units::{Digest, SenderKey, SessionId, TaskId};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

/// The parameters of a send session, known once it is open.
#[derive(Clone, Debug)]
pub struct SendInfo {
    /// The task.
    pub task: TaskId,
    /// The session.
    pub session: SessionId,
    /// The object's name.
    pub name: String,
    /// The object's size in bytes; unknown if it is a stream.
    pub size: Option<u64>,
    /// The largest holes of the object, ascending: nothing of them is sent.
    pub holes: Vec<Range<u64>>,
    /// What it consists of, if it is a tree.
    pub tree: Option<TreeHead>,
    /// The destination of the data.
    pub data: SocketAddr,
    /// The interface that the data leaves by.
    pub interface: Interface,
    /// The sender's public key.
    pub sender: SenderKey,
    /// Name of the group key that the session is sealed with.
    pub sealed_with: Option<String>,
}

/// A snapshot of a send session.
#[derive(Clone, Debug)]
pub struct SendSnapshot {
    /// The state of the sender.
    pub sender: SenderSnapshot,
    /// Its share of its interface's budget, if the interface has one.
    pub egress: Option<EgressView>,
}

/// How a send session ended.
#[derive(Clone, Debug)]
pub struct SendOutcome {
    /// How the run ended.
    pub outcome: SenderOutcome,
    /// Root hash of the object, if it became known.
    pub root: Option<Digest>,
    /// The session's duration.
    pub elapsed: Duration,
    /// The session at its end. Its devices are as recorded in the store.
    pub snapshot: SendSnapshot,
}

impl SendOutcome {
    /// One row for each device, with its recorded assignment.
    #[must_use]
    pub fn rows(&self) -> &[DeviceRow] {
        &self.snapshot.sender.devices
    }
}
