//! What a send session tells: what it turned out to be, how it fares, and how it ended.

use super::budget::EgressView;
use crate::net::Interface;
use crate::protocol::event::{SenderOutcome, SenderSnapshot};
use crate::protocol::statistics::DeviceRow;
use crate::units::{Digest, SenderKey, SessionId, TaskId};
use std::net::SocketAddr;
use std::time::Duration;

/// What a send session turned out to be.
#[derive(Clone, Debug)]
pub struct SendInfo {
    /// The task.
    pub task: TaskId,
    /// The session.
    pub session: SessionId,
    /// The object's name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Where data goes.
    pub data: SocketAddr,
    /// By which interface.
    pub interface: Interface,
    /// Who sends.
    pub sender: SenderKey,
    /// Name of the group key that the session is sealed with.
    pub sealed_with: Option<String>,
}

/// A send session at a glance.
#[derive(Clone, Debug)]
pub struct SendSnapshot {
    /// What the sender says.
    pub sender: SenderSnapshot,
    /// How it fares under the budget of its interface, if there is one.
    pub egress: Option<EgressView>,
}

/// How a send session ended.
#[derive(Clone, Debug)]
pub struct SendOutcome {
    /// How the run ended.
    pub outcome: SenderOutcome,
    /// Root hash of the object, if it became known.
    pub root: Option<Digest>,
    /// How long it ran.
    pub elapsed: Duration,
    /// The session at its end; its devices as the store has them: who has the object.
    pub snapshot: SendSnapshot,
}

impl SendOutcome {
    /// Who has the object.
    #[must_use]
    pub fn rows(&self) -> &[DeviceRow] {
        &self.snapshot.sender.devices
    }
}
