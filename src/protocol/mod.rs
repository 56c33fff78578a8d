//! L2: the protocol, sans-IO: two state machines that are handed datagrams, times and finished
//! jobs, and that hand out datagrams, jobs and events. They read no clock, draw no randomness of
//! their own and do no I/O (I8).

pub mod discovery;
pub mod event;
pub mod job;
pub mod need;
pub mod packet_protection;
mod rate_limit;
pub mod receiver;
pub mod sender;
pub mod statistics;
pub mod trust;

use crate::limits::MAX_PROVISIONAL_SESSIONS;
use crate::time::Time;
use crate::units::{Arrival, BlockIndex, Esi, Rate, SessionId};
use crate::wire::PacketNumber;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What a person or the operating system asks of a running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Enter on a terminal: stop gathering, start.
    StartNow,
    /// Ctrl-C or SIGTERM: tell the other side, clean up, end.
    Interrupt,
}

/// A datagram, or a run of equal ones, to be sent.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub payload: Payload,
}

/// What a [`Transmit`] carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One encoded control message.
    Message(Vec<u8>),
    /// Source symbols `ids` of `block`, one datagram each with rising packet numbers from
    /// `packet_number` on; the engine takes the bytes straight from the source.
    Source {
        /// Packet number of the first.
        packet_number: PacketNumber,
        /// The block.
        block: BlockIndex,
        /// The source symbol ids.
        ids: Range<u32>,
    },
    /// Encoded repair symbols.
    Repair {
        /// Packet number of the first.
        packet_number: PacketNumber,
        /// The block.
        block: BlockIndex,
        /// Id of the first.
        first: Esi,
        /// Whole symbols, one after the other, of which `range` (in bytes) is to be sent; `first`
        /// is the id of the first symbol in `range`.
        symbols: Arc<Vec<u8>>,
        /// Byte range within `symbols`.
        range: Range<usize>,
    },
}

/// What a machine hands out; see [`Machine::poll`].
#[derive(Debug)]
pub enum Output<J, E> {
    /// Send this.
    Transmit(Transmit),
    /// Do this and hand the result to [`Machine::handle_job_done`].
    Job(J),
    /// Listen to this group (or port) as well; asked again while silent, to re-join.
    Listen(SocketAddr),
    /// Tell the user.
    Event(E),
}

/// A device's session, and those that it would go over to.
const MOST_SESSIONS: usize = MAX_PROVISIONAL_SESSIONS + 1;

/// A few sessions.
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

/// Of more than fit, the first ones.
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

/// A protocol state machine. The contract: after every `handle_*` call, `poll` is called until it
/// returns `None`; then nothing happens until the next input or until [`Machine::next_timeout`].
pub trait Machine {
    /// Work it asks for.
    type Job;
    /// What became of it.
    type Done;
    /// What it tells the user.
    type Event;

    /// A datagram has arrived. Anything at all may be in it; it is opened in place.
    fn handle_datagram(&mut self, now: Time, arrival: Arrival, bytes: &mut [u8]);
    /// The time [`Machine::next_timeout`] has come.
    fn handle_timeout(&mut self, now: Time);
    /// A job has ended.
    fn handle_job_done(&mut self, now: Time, done: Self::Done);
    /// Until `now`, nobody has run the machine for `away`, or nothing could be sent: what was not heard
    /// in that time is no sign of silence.
    fn handle_absence(&mut self, now: Time, away: Duration);
    /// The user or the system asks for something.
    fn handle_control(&mut self, now: Time, control: Control);
    /// The kernel has dropped so many datagrams in all for want of socket buffer.
    fn set_kernel_drops(&mut self, drops: u64);
    /// The sessions that it takes part in, or may take part in soon: what comes in for others is nothing to
    /// it, but for announcements.
    fn sessions(&self) -> Sessions {
        Sessions::default()
    }
    /// More than this cannot be sent just now, since other sessions send too: no reason to slow down, but
    /// none to aim at more.
    fn set_most(&mut self, _most: Rate) {}
    /// The next thing to be done, if any.
    fn poll(&mut self, now: Time) -> Option<Output<Self::Job, Self::Event>>;
    /// When to call [`Machine::handle_timeout`] if nothing else happens; `Time::NEVER` if not.
    fn next_timeout(&self) -> Time;
    /// Whether the run is over (with all outputs drained); the outcome is in the last event.
    fn is_finished(&self) -> bool;
}
