//! L4: sessions as values. A send session and a receive session each are built and started on a thread of their own.
//! The caller gets a handle: events, controls, a snapshot, the outcome. Any number of sessions run in one process.
//! This module uses no signals, no terminal and no exit.
//!
//! ```text
//!   SendSession::builder(..)     .start() --> SendHandle     events, start_now, stop, snapshot, wait
//!   ReceiveSession::builder(..)  .start() --> ReceiveHandle  events, stop, snapshot, wait
//!   Discovery::start(..)                  --> DiscoveryHandle  lists senders
//!
//!   EgressBudget: what send sessions may send together on one interface
//! ```
//!
//! Send a file to a receiver in the same process, over loopback:
//!
//! ```
//! use mcp_transfer::net::Destination;
//! use mcp_transfer::session::{Listen, ReceiveSession, SendSession, Target, Wanted};
//! use mcp_transfer::storage::{FileSink, FileSource};
//! use std::net::UdpSocket;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let (image, copy) = (dir.path().join("image.bin"), dir.path().join("copy.bin"));
//! std::fs::write(&image, vec![7; 100_000])?;
//!
//! // A port that is free just now; the default is 7417.
//! let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
//! let group = Destination::parse("239.255.74.99", port)?;
//! let receiver = ReceiveSession::builder(Wanted::First, FileSink::new(Some(copy.clone()), false))
//!     .listen(Listen { group: Some(group), interface: Some("lo".into()), ..Listen::default() })
//!     .timeout(Duration::from_secs(60))
//!     .start()?;
//! let sender = SendSession::builder(FileSource::open(&image)?, Target::At(group))
//!     .interface(Some("lo".into()))
//!     .expected(Some(1))
//!     .start()?;
//!
//! let sent = sender.wait()?;
//! receiver.wait()?;
//! assert_eq!(sent.rows().len(), 1);
//! assert_eq!(std::fs::read(copy)?, vec![7; 100_000]);
//! # Ok(())
//! # }
//! ```

pub mod budget;
pub mod discovery;
pub mod events;
mod handle;
mod hashes;
mod input;
mod launch;
mod listening;
pub mod receive;
pub mod send;
mod sender_workers;
pub mod sent;

pub use budget::{EgressBudget, EgressView};
pub use discovery::{Discovered, Discovery, DiscoveryEvent, DiscoveryHandle};
pub use events::{Events, SessionEvent, What};
pub use input::StandardInput;
pub use listening::Listen;
pub use receive::{ReceiveHandle, ReceiveInfo, ReceiveOutcome, ReceiveSession, Wanted};
pub use send::{RateChoice, SendHandle, SendSession};
pub use sent::{SendInfo, SendOutcome, SendSnapshot};

use crate::limits::DEFAULT_PORT;
use crate::net::{Destination, InterfaceError, Label};
use crate::units::SessionId;
use crate::wire::{self, DecodeError};
use std::io;
use zeroize::Zeroizing;

/// The destination of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// To the rendezvous group at this port, of a family that the interface has.
    Rendezvous(u16),
    /// To a group, to a broadcast address, or to one machine.
    At(Destination),
}

impl Default for Target {
    fn default() -> Self {
        Self::Rendezvous(DEFAULT_PORT)
    }
}

/// Why a session did not start: a lowercase clause for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    fn new(why: impl ToString) -> Self {
        Self(why.to_string())
    }
    fn no_randomness(e: getrandom::Error) -> Self {
        Self(format!("no randomness from the system: {e}"))
    }
    fn cannot_wait(e: io::Error) -> Self {
        Self(format!("cannot wait for sockets: {e}"))
    }
    fn no_thread(e: io::Error) -> Self {
        Self(format!("the system gives no threads: {e}"))
    }
}

impl From<InterfaceError> for StartError {
    fn from(e: InterfaceError) -> Self {
        Self::new(e)
    }
}

/// The label of a datagram. A datagram of another version of this program may concern all sessions.
fn read_label(bytes: &[u8]) -> Option<Label> {
    match wire::head(bytes) {
        Ok(head) => {
            let for_all = head.kind == wire::MessageKind::Announce;
            Some(Label { session: head.header.session, for_all })
        }
        Err(DecodeError::UnsupportedVersion(_)) => Some(Label { session: SessionId(0), for_all: true }),
        Err(_) => None,
    }
}

/// Unpredictable bytes, for a key.
fn random_bytes() -> Result<Zeroizing<[u8; 32]>, StartError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(StartError::no_randomness)?;
    Ok(bytes)
}

/// Number of processors.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Number of worker threads for hashing, coding and the disk: one for each processor, but only a few, because
/// decoding takes several times its block in memory.
fn worker_count() -> usize {
    cores().clamp(1, 4)
}
