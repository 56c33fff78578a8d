//! Receives a batch from a socket, which several sessions may share.

use super::features::Features;
use super::sys;
use crate::limits::MAX_DATAGRAM;
use crate::units::{Arrival, Via};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Room for one coalesced message: the largest IP packet, and a little more, so that the first lines of all
/// messages do not compete for the same places in the cache.
const COALESCED: usize = (64 << 10) + 23 * 64;
/// Room for one datagram, longer than any valid one, so that longer ones are detected.
const SINGLE: usize = (16 << 10) + 23 * 64;
/// Bytes of the receive arena. Parts that no message needs are never touched.
const ARENA: usize = COALESCED * sys::MAX_RECEIVE;
/// Approximate number of bytes to receive at a time: what the processor's cache holds until they are handled.
const BATCH_BYTES: usize = 1 << 20;
/// Fewest messages requested at a time.
const LEAST_RECEIVE: usize = 16;

/// The buffer that all sockets of an endpoint receive into.
pub(super) struct Arena {
    bytes: Vec<u8>,
    /// Mean length of the latest messages.
    usual: usize,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; ARENA], usual: COALESCED }
    }
}

/// The result of one [`Inner::receive`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) datagrams: usize,
    /// Whether as many messages arrived as were requested: more may be waiting.
    pub(super) full: bool,
}

/// A socket that several sessions may share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) socket: UdpSocket,
    pub(super) via: Via,
    pub(super) v6: bool,
    /// The port that it is bound to.
    pub(super) port: u16,
    /// Bytes of receive buffer that the system granted.
    pub(super) receive_buffer: usize,
    /// Bytes of send buffer that the system granted.
    pub(super) send_buffer: usize,
    /// Approximate number of datagrams that the kernel dropped for lack of room.
    drops: AtomicU64,
    /// State for the session that receives.
    receiving: Mutex<Receiving>,
}

/// State that is kept from one batch to the next.
#[derive(Debug)]
struct Receiving {
    /// The kernel's own drop counter, which wraps.
    drops_seen: u32,
    /// When the socket was last empty.
    emptied: Instant,
    /// When a datagram last arrived.
    heard: Option<Instant>,
}

impl Inner {
    /// A bound socket, with the sizes of its buffers: receive, send.
    pub(super) fn new(
        socket: UdpSocket,
        (via, v6, port): (Via, bool, u16),
        [receive_buffer, send_buffer]: [usize; 2],
    ) -> Self {
        let receiving = Receiving { drops_seen: 0, emptied: Instant::now(), heard: None };
        let (drops, receiving) = (AtomicU64::new(0), Mutex::new(receiving));
        Self { socket, via, v6, port, receive_buffer, send_buffer, drops, receiving }
    }

    /// Approximate number of datagrams that the kernel dropped for lack of room.
    pub(super) fn drops(&self) -> u64 {
        self.drops.load(Ordering::Relaxed)
    }

    /// The time since the last datagram; `Duration::MAX` if none has arrived.
    pub(super) fn silent_for(&self) -> Duration {
        self.receiving().heard.map_or(Duration::MAX, |at| at.elapsed())
    }

    fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives a batch; see [`super::socket::Socket::receive`].
    ///
    /// # Errors
    /// The system's error; `WouldBlock` if nothing is waiting.
    pub(super) fn receive(
        &self,
        arena: &mut Arena,
        features: Features,
        sink: &mut dyn FnMut(Arrival, &mut [u8]),
    ) -> io::Result<Batch> {
        let each = if features.gro { COALESCED } else { SINGLE };
        let most = (BATCH_BYTES / arena.usual.max(1)).clamp(LEAST_RECEIVE, sys::MAX_RECEIVE);
        let mut messages = [sys::Received::default(); sys::MAX_RECEIVE];
        let mut receiving = self.receiving();
        let asked = Instant::now();
        let received = sys::receive_many(self.socket.as_fd(), &mut arena.bytes, each, &mut messages[..most]);
        let longest = asked.saturating_duration_since(receiving.emptied);
        if received.as_ref().map_or(true, |&count| count < most) {
            receiving.emptied = asked;
        }
        let count = received?;
        receiving.heard = Some(asked);
        let messages = &messages[..count];
        arena.usual = messages.iter().map(|m| m.len).sum::<usize>() / count.max(1);
        let (mut datagrams, mut now) = (0, None);
        for (message, room) in messages.iter().zip(arena.bytes.chunks_exact_mut(each)) {
            let bytes = &mut room[..message.len];
            let segment = if message.segment == 0 { bytes.len() } else { message.segment };
            if let Some(drops) = message.drops {
                // The kernel counts a coalesced message as one drop. The dropped ones were probably like this
                // one.
                let alike = bytes.len().div_ceil(segment.max(1)).max(1) as u64;
                let dropped = u64::from(drops.wrapping_sub(receiving.drops_seen)) * alike;
                self.drops.fetch_add(dropped, Ordering::Relaxed);
                receiving.drops_seen = drops;
            }
            let Some(from) = message.from.filter(|_| !message.truncated && segment <= MAX_DATAGRAM) else {
                datagrams += 1;
                continue;
            };
            let waited = message
                .arrived
                .map_or(Duration::ZERO, |at| waited(at, *now.get_or_insert_with(SystemTime::now), longest));
            let arrival = Arrival { from, via: self.via, waited };
            if bytes.is_empty() {
                datagrams += 1;
                sink(arrival, bytes);
            }
            for datagram in bytes.chunks_mut(segment.max(1)) {
                datagrams += 1;
                sink(arrival, datagram);
            }
        }
        Ok(Batch { datagrams, full: count == most })
    }
}

/// How long a datagram has waited that the kernel received at `arrived`. The clock may have been set
/// meanwhile. But the datagram came after the socket was last found empty, `longest` ago by the monotonic
/// clock.
fn waited(arrived: SystemTime, now: SystemTime, longest: Duration) -> Duration {
    now.duration_since(arrived).unwrap_or_default().min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_costs_no_more_than_the_time_since_the_socket_was_empty() {
        let (now, ms) = (SystemTime::now(), Duration::from_millis);
        let hours = Duration::from_secs(7 * 3600);
        assert_eq!(waited(now, now + ms(3), ms(40)), ms(3));
        assert_eq!(waited(now, now + hours, ms(40)), ms(40), "set forward");
        assert_eq!(waited(now, now - hours, ms(40)), Duration::ZERO, "set back");
        // A process that was stopped believes a long wait.
        assert_eq!(waited(now, now + ms(8000), ms(8020)), ms(8000));
    }
}
