//! L3: sockets: the choice of an interface, group membership, batched sending and receiving. Knows nothing of the
//! protocol. [`Net`] is the engine's port; the simulated network implements it too.

pub use crate::limits::MAX_BATCH;
pub mod choice;
pub mod destination;
pub mod endpoint;
mod exchange;
pub mod features;
mod inbound;
pub mod interface;
mod outage;
mod rebind;
mod registration;
mod routes;
pub mod send_errors;
mod share;
mod socket;
mod sys;
#[cfg(test)]
mod tests;
mod transmit;

pub use choice::{InterfaceError, ReceiveChoice, choose, choose_all_for_receive};
pub use destination::{
    AddressKind, Destination, InvalidDestination, Marking, Membership, is_source_specific,
};
pub use endpoint::{Families, UdpNet};
pub use exchange::{Label, ReadLabel};
pub use features::Features;
pub use interface::{Interface, InterfaceAddress};
pub use send_errors::{SendError, SendErrors};

use crate::storage::RawBytes;
use crate::units::{Arrival, SessionId};
use std::io;
use std::net::SocketAddr;

/// One datagram to send: `head` and then `body`.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Bytes of this program.
    pub head: &'a [u8],
    /// The rest of the datagram.
    pub body: Body<'a>,
}

impl Segment<'_> {
    /// Bytes of the datagram.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len()
            + match self.body {
                Body::None => 0,
                Body::Bytes(bytes) => bytes.len(),
                Body::Raw(raw) => raw.len,
            }
    }

    /// Whether the datagram has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The second part of a [`Segment`].
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Nothing.
    None,
    /// Bytes of this program.
    Bytes(&'a [u8]),
    /// Bytes of the mapped source, for the kernel only.
    Raw(RawBytes),
}

/// The engine's port to the network.
pub trait Net {
    /// Sends the segments to `to`, one datagram each, in order. All but the last have the same length, and
    /// the last is not longer. Returns how many were sent, or given up as lost. If that is fewer than all,
    /// call again when the socket is writable.
    ///
    /// # Errors
    /// `EFAULT` if the mapped source has shrunk; otherwise an error that makes continuing pointless.
    /// Temporary failures (no buffer, unreachable, refused) are counted and are no errors. While the own
    /// interface is away, nothing is sent for a while.
    fn send(&mut self, to: SocketAddr, segments: &[Segment<'_>]) -> io::Result<usize>;
    /// Receives a bounded batch, and passes each datagram to `sink` with its arrival. `sink` may change the
    /// bytes. Returns how many there were; 0 if nothing is waiting.
    ///
    /// # Errors
    /// If a socket fails for good.
    fn receive(&mut self, sink: &mut dyn FnMut(Arrival, &mut [u8])) -> io::Result<usize>;
    /// Joins `group`, or joins it again. Errors are kept for the log.
    fn listen(&mut self, group: SocketAddr);
    /// Sets the sessions that this endpoint takes part in. Other sessions of this process hand their
    /// datagrams over, and announcements in any case.
    fn attend(&mut self, _sessions: &[SessionId]) {}
    /// Datagrams that the kernel has dropped for lack of socket buffer.
    fn kernel_drops(&self) -> u64;
}
