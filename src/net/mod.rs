//! L3: sockets: the choice of an interface, group membership, batched sending and receiving.
//! Blind to the protocol. [`Net`] is the port of the engine; the simulated network has its own.

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
pub use destination::{AddressKind, Destination, InvalidDestination};
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
    /// Bytes of our own.
    pub head: &'a [u8],
    /// What follows them.
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
    /// Bytes of our own.
    Bytes(&'a [u8]),
    /// Bytes of the mapped source, for the kernel only.
    Raw(RawBytes),
}

/// The engine's port to the network.
pub trait Net {
    /// Sends the segments to `to`, one datagram each, in order; all but the last are equally
    /// long and the last is not longer. Returns how many were sent (or given up for lost, as the
    /// network may); fewer than all means: again when writable.
    ///
    /// # Errors
    /// `EFAULT` when the mapped source has shrunk; otherwise what makes going on pointless. Passing
    /// troubles (no buffer, unreachable, refused) are counted and not errors; while our own interface is
    /// away, nothing is sent for a while.
    fn send(&mut self, to: SocketAddr, segments: &[Segment<'_>]) -> io::Result<usize>;
    /// Receives a bounded batch and hands each datagram to `sink` with how it came in; what `sink` makes of
    /// the bytes is its own business. Returns
    /// how many; 0 when there is nothing more now.
    ///
    /// # Errors
    /// When a socket fails for good.
    fn receive(&mut self, sink: &mut dyn FnMut(Arrival, &mut [u8])) -> io::Result<usize>;
    /// Listens to `group` as well (joins it, or re-joins it). Refusals are kept for the log.
    fn listen(&mut self, group: SocketAddr);
    /// Takes part in these sessions from now on: what other sessions of this process receive for them is
    /// theirs to hand over. Announcements are handed over in any case.
    fn attend(&mut self, _sessions: &[SessionId]) {}
    /// Datagrams the kernel dropped for want of socket buffer, so far.
    fn kernel_drops(&self) -> u64;
}
