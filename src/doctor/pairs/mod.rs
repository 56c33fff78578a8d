//! Two doctors look at the path between two machines: one listens (`mcp doctor --listen`), the other asks it
//! (`mcp doctor --to`). Their sockets, ports and interfaces are those of a receiver and of a sender.
//!
//! A listener is safe to leave alone: it sends only answers, each to the source of a datagram and not longer than
//! that, so many a second ([`listen::ANSWERS_PER_SECOND`]). All but the answer to a hello need a cookie that only the
//! owner of the address has received.

pub mod listen;
pub mod probe;
mod tally;
mod verdicts;
mod wire;

use mcp_transfer::net::{Body, Net, Segment, UdpNet};
use mcp_transfer::units::Arrival;
use mio::{Events, Poll};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// Sockets and what waits for them.
struct Endpoint {
    net: UdpNet,
    poll: Poll,
    events: Events,
}

impl Endpoint {
    fn new(mut net: UdpNet) -> io::Result<Self> {
        let poll = Poll::new()?;
        net.register(poll.registry(), 0)?;
        Ok(Self { net, poll, events: Events::with_capacity(16) })
    }

    /// Sends one datagram, unless the queue is full: then it is lost, as on the way.
    fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.net.send(to, &[Segment { head: bytes, body: Body::None }]).map(drop)
    }

    /// Passes a batch that arrives until then to `sink`, with the times of arrival. Returns early after a signal;
    /// returns how many there were.
    fn receive_some(
        &mut self,
        until: Instant,
        mut sink: impl FnMut(SocketAddr, &mut [u8], Instant),
    ) -> io::Result<usize> {
        loop {
            let now = Instant::now();
            let mut take = |arrival: Arrival, bytes: &mut [u8]| {
                sink(arrival.from, bytes, now.checked_sub(arrival.waited).unwrap_or(now));
            };
            let count = self.net.receive(&mut take)?;
            let left = until.saturating_duration_since(Instant::now());
            if count > 0 || left.is_zero() {
                return Ok(count);
            }
            match self.poll.poll(&mut self.events, Some(left)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(0),
                other => other?,
            }
        }
    }

    /// Passes all that arrives until then to `sink`.
    fn receive(
        &mut self,
        until: Instant,
        mut sink: impl FnMut(SocketAddr, &mut [u8], Instant),
    ) -> io::Result<()> {
        while Instant::now() < until {
            self.receive_some(until, &mut sink)?;
        }
        Ok(())
    }
}

/// Bytes that nobody else knows.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| io::Error::other(format!("no randomness from the system: {e}")))?;
    Ok(bytes)
}
