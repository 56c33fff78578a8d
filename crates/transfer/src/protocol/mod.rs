//! L2: the protocol, sans-IO. Two state machines take datagrams, times and finished jobs, and return datagrams,
//! jobs and events. They read no clock, draw no randomness and do no I/O (I8).

pub mod carousel;
pub mod discovery;
pub mod event;
pub mod job;
pub mod need;
pub mod packet_protection;
pub mod provenance;
mod rate_limit;
pub mod receiver;
pub mod sender;
pub mod statistics;
pub mod trust;

use crate::layout::Layout;
use crate::limits::MAX_PROVISIONAL_SESSIONS;
use crate::time::Time;
use crate::units::{Arrival, BlockIndex, Esi, Rate, SessionId};
use crate::wire::PacketNumber;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A control from the user or the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Enter on a terminal: stop gathering, start.
    StartNow,
    /// Ctrl-C or SIGTERM: tell the other side, clean up, end.
    Interrupt,
}

/// One or more datagrams to send.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// The destination.
    pub to: SocketAddr,
    /// The contents.
    pub payload: Payload,
}

/// The contents of a [`Transmit`].
#[derive(Clone, Debug)]
pub enum Payload {
    /// One encoded control message.
    Message(Vec<u8>),
    /// Source symbols `ids` of `block`, one datagram each, with consecutive packet numbers from
    /// `packet_number` on. The engine takes the bytes from the source.
    Source {
        /// Packet number of the first symbol.
        packet_number: PacketNumber,
        /// The block.
        block: BlockIndex,
        /// The object's division into blocks and symbols.
        layout: Layout,
        /// The ESIs.
        ids: Range<u32>,
    },
    /// Encoded repair symbols.
    Repair {
        /// Packet number of the first symbol.
        packet_number: PacketNumber,
        /// The block.
        block: BlockIndex,
        /// ESI of the first symbol in `range`.
        first: Esi,
        /// Whole symbols, concatenated. `range` selects those to send.
        symbols: Arc<Vec<u8>>,
        /// Byte range within `symbols`.
        range: Range<usize>,
    },
}

/// An output of a machine; see [`Machine::poll`].
#[derive(Debug)]
pub enum Output<J, E> {
    /// Send this transmission.
    Transmit(Transmit),
    /// Execute this job, and hand its result to [`Machine::handle_job_done`].
    Job(J),
    /// Listen to this group (or port) as well. Repeated while it is silent, to join the group again.
    Listen(SocketAddr),
    /// Tell the user.
    Event(E),
}

/// A device's session, and those that it could go over to.
const MOST_SESSIONS: usize = MAX_PROVISIONAL_SESSIONS + 1;

/// A bounded set of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    ids: [SessionId; MOST_SESSIONS],
    count: usize,
}

impl Sessions {
    /// The sessions.
    #[must_use]
    pub fn as_slice(&self) -> &[SessionId] {
        &self.ids[..self.count]
    }
}

/// Keeps the first ones of more than fit.
impl FromIterator<SessionId> for Sessions {
    fn from_iter<I: IntoIterator<Item = SessionId>>(all: I) -> Self {
        let mut sessions = Self::default();
        for (place, id) in sessions.ids.iter_mut().zip(all) {
            *place = id;
            sessions.count += 1;
        }
        sessions
    }
}

/// A protocol state machine. After every `handle_*` call, the caller calls `poll` until it returns `None`.
/// Then nothing happens until the next input, or until [`Machine::next_timeout`].
pub trait Machine {
    /// The jobs that it requests.
    type Job;
    /// The results of jobs.
    type Done;
    /// The events for the user.
    type Event;

    /// Takes a datagram, which may contain anything. It is opened in place.
    fn handle_datagram(&mut self, now: Time, arrival: Arrival, bytes: &mut [u8]);
    /// Takes the time that [`Machine::next_timeout`] returned.
    fn handle_timeout(&mut self, now: Time);
    /// Takes the result of a job.
    fn handle_job_done(&mut self, now: Time, done: Self::Done);
    /// Takes the length of a time until `now` in which the machine was not run, or nothing could be sent.
    /// This time does not count as anybody's silence.
    fn handle_absence(&mut self, now: Time, away: Duration);
    /// Takes a control.
    fn handle_control(&mut self, now: Time, control: Control);
    /// Sets the number of datagrams that the kernel has dropped for lack of socket buffer.
    fn set_kernel_drops(&mut self, drops: u64);
    /// The sessions that the machine takes part in, or may take part in soon. It needs no datagrams of
    /// others, except announcements.
    fn sessions(&self) -> Sessions {
        Sessions::default()
    }
    /// Sets the most that can be sent at present, because other sessions send too. This is no reason to slow
    /// down, but none to aim at more.
    fn set_most(&mut self, _most: Rate) {}
    /// The next output, if there is one.
    fn poll(&mut self, now: Time) -> Option<Output<Self::Job, Self::Event>>;
    /// When to call [`Machine::handle_timeout`] if nothing else happens; `Time::NEVER` for not at all.
    fn next_timeout(&self) -> Time;
    /// Whether the run has ended and all outputs are drained. The last event has the outcome.
    fn is_finished(&self) -> bool;
}
