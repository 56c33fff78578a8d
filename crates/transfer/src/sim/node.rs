//! The engine's ports in the virtual world, and a node: an engine with its ports and its log.

use super::checks::Ledger;
use super::network::{Arrival, FRAMING, bits};
use super::source::SimSource;
use crate::engine::{Engine, EngineError, Jobs, Step};
use crate::net::{Body, Net, Segment};
use crate::protocol::Machine;
use crate::time::Time;
use crate::units;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// Most datagrams returned by one [`Net::receive`].
const RECEIVE_BATCH: usize = 32;

/// A sent datagram.
pub struct Sent {
    /// A spoofed source address; `None` for the node's own address.
    pub spoofed: Option<SocketAddr>,
    /// The destination.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: Rc<[u8]>,
}

/// A node's sockets. The world fills the inbox and empties the outbox.
#[derive(Default)]
pub struct SimNet {
    inbox: VecDeque<Arrival>,
    waiting: usize,
    /// The datagram that is being received.
    scratch: Vec<u8>,
    /// Datagrams that were sent and not carried yet.
    pub outbox: Vec<Sent>,
    /// Groups that were requested and not joined yet.
    pub listens: Vec<SocketAddr>,
    /// Bytes that may be sent now.
    pub room: usize,
    /// Size of the socket buffer in datagrams.
    capacity: usize,
    drops: u64,
    source: Option<SimSource>,
    /// Records all received datagrams.
    pub ledger: Option<Rc<RefCell<Ledger>>>,
}

impl SimNet {
    /// Sockets that buffer `capacity` datagrams. `source` holds a sender's source symbols.
    #[must_use]
    pub fn new(capacity: usize, source: Option<SimSource>) -> Self {
        Self { capacity, source, ..Self::default() }
    }
    /// Puts datagrams into the socket buffer. Returns the number of datagrams that did not fit.
    pub fn arrive(&mut self, mut arrival: Arrival) -> u32 {
        let mut dropped = 0;
        while self.waiting + arrival.count() as usize > self.capacity && arrival.which != 0 {
            // The last datagrams find the buffer full.
            arrival.which &= !(1 << (u64::BITS - 1 - arrival.which.leading_zeros()));
            dropped += 1;
        }
        self.drops += u64::from(dropped);
        self.waiting += arrival.count() as usize;
        if arrival.which != 0 {
            self.inbox.push_back(arrival);
        }
        dropped
    }
    /// The number of datagrams in the socket buffer.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }
}

impl Net for SimNet {
    fn send(&mut self, to: SocketAddr, segments: &[Segment<'_>]) -> io::Result<usize> {
        let len = |s: &Segment<'_>| {
            s.head.len()
                + match s.body {
                    Body::None => 0,
                    Body::Bytes(b) => b.len(),
                    Body::Raw(r) => r.len,
                }
        };
        for pair in segments.windows(2) {
            assert!(len(&pair[0]) >= len(&pair[1]), "a batch grows on its way");
        }
        if let [first, .., before_last, _] = segments {
            assert_eq!(len(first), len(before_last), "only the last of a batch may be shorter");
        }
        for (i, segment) in segments.iter().enumerate() {
            if self.room == 0 {
                return Ok(i);
            }
            let mut datagram = Vec::with_capacity(len(segment));
            datagram.extend_from_slice(segment.head);
            match segment.body {
                Body::None => {}
                Body::Bytes(bytes) => datagram.extend_from_slice(bytes),
                Body::Raw(raw) => {
                    let source = self.source.as_ref().expect("raw bytes come from a source");
                    let bytes = source.resolve(raw).ok_or_else(|| {
                        // The kernel's error for a page that no longer exists.
                        io::Error::from_raw_os_error(libc::EFAULT)
                    })?;
                    datagram.extend_from_slice(bytes);
                }
            }
            self.room = self.room.saturating_sub(datagram.len() + FRAMING);
            self.outbox.push(Sent { spoofed: None, to, bytes: datagram.into() });
        }
        Ok(segments.len())
    }
    fn receive(&mut self, sink: &mut dyn FnMut(units::Arrival, &mut [u8])) -> io::Result<usize> {
        let count = self.waiting.min(RECEIVE_BATCH);
        let mut left = count;
        while left > 0
            && let Some(arrival) = self.inbox.front_mut()
        {
            for i in bits(arrival.which).take(left) {
                let how = units::Arrival::at_once(arrival.volley.from, arrival.via);
                // All receivers share one copy, and each of them opens it.
                self.scratch.clear();
                self.scratch.extend_from_slice(&arrival.volley.datagrams[i]);
                if let Some(ledger) = &self.ledger {
                    ledger.borrow_mut().came(how.from, &self.scratch);
                }
                sink(how, &mut self.scratch);
                arrival.which &= !(1 << i);
                left -= 1;
            }
            if arrival.which == 0 {
                self.inbox.pop_front();
            }
        }
        self.waiting -= count;
        Ok(count)
    }
    fn listen(&mut self, group: SocketAddr) {
        self.listens.push(group);
    }
    fn kernel_drops(&self) -> u64 {
        self.drops
    }
}

/// How long a job that begins at a time takes.
pub type JobDelay<J> = Box<dyn FnMut(&J, Time) -> Duration>;

/// Workers for jobs of one kind, beside the others.
pub const LANES: usize = 2;

/// Executes a node's jobs.
pub struct Work<J, D> {
    /// Executes a job at this time.
    pub run: Box<dyn FnMut(J, Time) -> D>,
    /// Which of [`LANES`] workers of their own a job has, if any.
    pub lane: fn(&J) -> Option<usize>,
    /// How long a job that begins now takes.
    pub delay: JobDelay<J>,
    /// What is told when the source is gone.
    pub source_unreadable: fn(String) -> D,
}

/// Virtual workers: a job takes effect when it is submitted, and its result is reported after its delay.
pub struct SimJobs<J, D> {
    work: Work<J, D>,
    now: Time,
    workers: Vec<Time>,
    lanes: [Time; LANES],
    running: BTreeMap<(Time, u64), D>,
    submitted: u64,
}

impl<J, D> SimJobs<J, D> {
    /// `workers` virtual worker threads.
    #[must_use]
    pub fn new(workers: usize, work: Work<J, D>) -> Self {
        let workers = vec![Time::ZERO; workers.max(1)];
        let (now, lanes) = (Time::ZERO, [Time::ZERO; LANES]);
        Self { work, now, workers, lanes, running: BTreeMap::new(), submitted: 0 }
    }
    /// The time at which the next job ends.
    #[must_use]
    pub fn next_done(&self) -> Time {
        self.running.first_key_value().map_or(Time::NEVER, |((at, _), _)| *at)
    }
    /// The number of jobs submitted so far.
    #[must_use]
    pub const fn submitted(&self) -> u64 {
        self.submitted
    }
}

impl<J, D> Jobs<J, D> for SimJobs<J, D> {
    fn submit(&mut self, job: J) -> Option<D> {
        self.submitted += 1;
        let delay = (self.work.delay)(&job, self.now);
        let worker = match (self.work.lane)(&job) {
            Some(lane) => &mut self.lanes[lane],
            None => self.workers.iter_mut().min().expect("there is at least one worker"),
        };
        *worker = (*worker).max(self.now) + delay;
        let key = (*worker, self.submitted);
        let done = (self.work.run)(job, self.now);
        self.running.insert(key, done);
        None
    }
    fn finished(&mut self) -> Option<D> {
        if self.next_done() <= self.now { self.running.pop_first().map(|(_, done)| done) } else { None }
    }
    fn source_unreadable(&mut self, why: String) -> D {
        (self.work.source_unreadable)(why)
    }
}

/// An actor that the world drives.
pub trait Actor {
    /// Runs one step of the engine at `now`.
    ///
    /// # Errors
    /// If the engine cannot continue.
    fn step(&mut self, now: Time) -> Result<Step, EngineError>;
    /// The node's sockets.
    fn net(&mut self) -> &mut SimNet;
    /// The time at which its next job ends.
    fn next_done(&self) -> Time;
}

/// The engine type of the virtual world.
pub type SimEngine<M> = Engine<M, SimNet, SimJobs<<M as Machine>::Job, <M as Machine>::Done>>;
/// Callback for a node's events.
pub type OnEvent<M> = Box<dyn FnMut(Time, &M, &<M as Machine>::Event)>;

/// An engine in the virtual world, with a log of its machine's events.
pub struct Node<M: Machine> {
    /// The engine.
    pub engine: SimEngine<M>,
    /// Every event with its time.
    pub log: Vec<(Time, M::Event)>,
    on_event: OnEvent<M>,
}

impl<M: Machine> Node<M> {
    /// A node around `engine`. `on_event` gets each event before it is logged.
    pub fn new(engine: SimEngine<M>, on_event: OnEvent<M>) -> Self {
        Self { engine, log: Vec::new(), on_event }
    }
}

impl<M: Machine> Actor for Node<M> {
    fn step(&mut self, now: Time) -> Result<Step, EngineError> {
        let Self { engine, log, on_event } = self;
        engine.jobs_mut().now = now;
        engine.step(now, &mut |at, machine, event| {
            on_event(at, machine, &event);
            log.push((at, event));
        })
    }
    fn net(&mut self) -> &mut SimNet {
        self.engine.net_mut()
    }
    fn next_done(&self) -> Time {
        self.engine.jobs().next_done()
    }
}
