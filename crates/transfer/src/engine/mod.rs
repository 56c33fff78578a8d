//! L4: THE loop. It joins a protocol machine to its ports, and does not interpret the protocol.
//!
//! ```text
//!            Net::receive        Jobs::finished     the clock         the handle
//!                 |                    |                |                   |
//!                 v                    v                v                   v
//!          handle_datagram      handle_job_done   handle_timeout     handle_control
//!                 \____________________|________________|___________________/
//!                                      v
//!                                  Machine::poll  (until None)
//!                 _____________________|______________________________
//!                v                     v              v               v
//!        render -> Net::send     Jobs::submit    Net::listen      observer
//! ```
//!
//! [`Engine::step`] never blocks. It takes one bounded batch of inputs, drains a bounded number of outputs, and
//! returns when it wants to run again. The caller waits: [`run`] for sockets and real time, the simulated world for
//! its event queue.

pub mod jobs;
pub mod render;
pub mod run;
pub mod workers;

#[cfg(test)]
mod tests;

pub use crate::limits::MAX_JOBS;
use crate::net::Net;
use crate::pacing::udp_overhead;
use crate::protocol::{Control, Machine, Output, Sessions, Transmit};
use crate::time::Time;
use crate::units::Rate;
pub use render::Stream;
use render::{Heads, RenderError};
use std::io;
use std::time::Duration;

/// Most finished jobs handed to the machine in one step.
const DONE_PER_STEP: usize = 64;
/// Most outputs taken from the machine in one step, so that inputs get their turn.
const OUTPUTS_PER_STEP: usize = 64;
/// Interval at which the machine is told the rate that it can aim at.
const AIM_EVERY: Duration = Duration::from_millis(100);
/// The machine is told about a time of this length or longer in which it could do nothing.
pub const ABSENCE: Duration = Duration::from_secs(2);
/// After an interrupt, a transmission is not held up for longer: a user who waits for the end does not wait
/// for the network.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// The engine's port to the execution of jobs.
pub trait Jobs<J, D> {
    /// Takes a job. Never blocks: the machine promises to bound the number of jobs, and [`MAX_JOBS`] enforces
    /// it. Returns the result if the job is done at once.
    fn submit(&mut self, job: J) -> Option<D>;
    /// The next finished job, in any order; `None` if none is finished now.
    fn finished(&mut self) -> Option<D>;
    /// The result that tells the machine that the kernel could not read the mapped source while sending
    /// (`EFAULT`: the file has shrunk). `why` is one clause for people.
    fn source_unreadable(&mut self, why: String) -> D;
}

/// The engine's port to the egress budget, which sessions on one interface share.
pub trait Egress {
    /// Whether the session may send now.
    ///
    /// # Errors
    /// If not, the time to ask again.
    fn ready(&mut self, now: Time) -> Result<(), Time>;
    /// Charges bytes that were sent, as counted on the wire.
    fn charge(&mut self, bytes: u64);
    /// The highest rate that the session can usefully aim at.
    fn most(&self) -> Rate;
}

/// Why the loop cannot go on: a fault of the environment or a bug, never the doing of a peer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A socket failed for good.
    #[error("the network failed: {0}; check the interface and try again")]
    Net(#[source] io::Error),
    /// The machine has more jobs than it promised.
    #[error("more than {MAX_JOBS} jobs are under way; this is a bug, please report it")]
    TooManyJobs,
    /// The machine wants object data to be sent, and the engine has no object.
    #[error("symbols were to be sent without a source; this is a bug, please report it")]
    NoStream,
}

/// What is left to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When to step again at the latest. Not later than the time given to the step if more is waiting.
    pub wake: Time,
    /// A transmission is held up: step again when the network is writable.
    pub writable: bool,
    /// The machine has finished.
    pub finished: bool,
    /// Datagrams received in this step.
    pub received: usize,
}

/// A transmission in progress.
struct Pending {
    transmit: Transmit,
    /// Datagrams of it that are sent.
    sent: usize,
}

/// How far the machine's outputs were drained.
enum Drained {
    /// The machine has no more outputs, or the network accepts no more.
    Empty,
    /// It may have more.
    MayHaveMore,
    /// Other sessions may send until this time.
    Waits(Time),
}

/// A machine with its ports.
pub struct Engine<M, N, W> {
    machine: M,
    net: N,
    jobs: W,
    stream: Option<Stream>,
    egress: Option<Box<dyn Egress>>,
    /// The sessions that the network was told of.
    sessions: Sessions,
    /// When to tell the machine its target rate next.
    aim: Time,
    pending: Option<Pending>,
    /// Since when transmissions are held up.
    held: Option<Time>,
    /// After this time a transmission that is held up is dropped.
    hurry: Time,
    heads: Box<Heads>,
    in_flight: usize,
    kernel_drops: u64,
}

impl<M, N, W> Engine<M, N, W>
where
    M: Machine,
    N: Net,
    W: Jobs<M::Job, M::Done>,
{
    /// Joins `machine` to its ports. Symbols are made from `stream`; a machine without one sends only
    /// messages.
    pub fn new(machine: M, net: N, jobs: W, stream: Option<Stream>) -> Self {
        Self {
            machine,
            net,
            jobs,
            stream,
            egress: None,
            sessions: Sessions::default(),
            aim: Time::ZERO,
            pending: None,
            held: None,
            hurry: Time::NEVER,
            heads: Box::new(Heads::default()),
            in_flight: 0,
            kernel_drops: 0,
        }
    }
    /// Sends only what `egress` allows.
    #[must_use]
    pub fn with_egress(mut self, egress: Option<Box<dyn Egress>>) -> Self {
        self.egress = egress;
        self
    }
    /// The machine, for snapshots.
    pub const fn machine(&self) -> &M {
        &self.machine
    }
    /// The network port.
    pub const fn net(&self) -> &N {
        &self.net
    }
    /// The network port, for registering its sockets or, in the simulation, for its queues.
    pub const fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }
    /// The job port.
    pub const fn jobs(&self) -> &W {
        &self.jobs
    }
    /// The job port, which the simulation tells the time.
    pub const fn jobs_mut(&mut self) -> &mut W {
        &mut self.jobs
    }
    /// Jobs in progress.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }
    /// Tells the machine that it was not run for `away` until `now`.
    pub fn absent(&mut self, now: Time, away: Duration) {
        // This time must not count again for a transmission that is held up.
        self.held = self.held.map(|since| (since + away).min(now));
        self.machine.handle_absence(now, away);
    }
    /// Passes on a control. It takes effect with the next step.
    pub fn control(&mut self, now: Time, control: Control) {
        if control == Control::Interrupt {
            self.hurry = self.hurry.min(now + LAST_PATIENCE);
        }
        self.machine.handle_control(now, control);
    }

    /// Takes one bounded batch of inputs, then drains a bounded number of outputs.
    ///
    /// While a transmission is held up, or other sessions send, the machine still gets datagrams and finished
    /// jobs, but is neither polled nor told the time: its pacing must not run ahead of what is sent.
    ///
    /// # Errors
    /// If the network fails for good, or the machine breaks its contract.
    pub fn step(
        &mut self,
        now: Time,
        observer: &mut dyn FnMut(Time, &M, M::Event),
    ) -> Result<Step, EngineError> {
        let (mut more, received) = self.take_inputs(now)?;
        let mut turn = self.turn(now);
        if turn.is_ok() && self.flush(now)? {
            if let Some(away) = self.held.take().map(|since| now.since(since)).filter(|d| *d >= ABSENCE) {
                self.machine.handle_absence(now, away);
            }
            if self.machine.next_timeout() <= now {
                self.machine.handle_timeout(now);
            }
            match self.drain(now, observer)? {
                Drained::Empty => {}
                Drained::MayHaveMore => more = true,
                Drained::Waits(at) => turn = Err(at),
            }
        }
        let sessions = self.machine.sessions();
        if sessions != self.sessions {
            self.net.attend(sessions.as_slice());
            self.sessions = sessions;
        }
        let blocked = self.pending.is_some();
        self.held = (blocked || turn.is_err()).then(|| self.held.unwrap_or(now));
        let wake = match (more, turn, blocked) {
            (true, ..) => now,
            (false, Err(at), _) => at,
            (false, Ok(()), true) => Time::NEVER,
            (false, Ok(()), false) => self.machine.next_timeout(),
        };
        // A machine that has finished ignores further inputs: a stream must not keep it alive.
        let finished = !blocked && self.machine.is_finished();
        Ok(Step { wake, writable: blocked && turn.is_ok(), finished, received })
    }

    /// Whether this session may send; if not, when to ask again.
    fn turn(&mut self, now: Time) -> Result<(), Time> {
        let Some(egress) = &mut self.egress else { return Ok(()) };
        if now >= self.aim {
            self.aim = now + AIM_EVERY;
            self.machine.set_most(egress.most());
        }
        match egress.ready(now) {
            Err(at) if now < self.hurry => Err(at),
            _ => Ok(()),
        }
    }

    /// Hands inputs to the machine. Returns whether more may be waiting, and the number of datagrams.
    fn take_inputs(&mut self, now: Time) -> Result<(bool, usize), EngineError> {
        let machine = &mut self.machine;
        let drops = self.net.kernel_drops();
        if drops != self.kernel_drops {
            self.kernel_drops = drops;
            machine.set_kernel_drops(drops);
        }
        let mut more = true;
        for _ in 0..DONE_PER_STEP {
            let Some(done) = self.jobs.finished() else {
                more = false;
                break;
            };
            self.in_flight = self.in_flight.saturating_sub(1);
            machine.handle_job_done(now, done);
        }
        let received = self
            .net
            .receive(&mut |arrival, bytes| machine.handle_datagram(now, arrival, bytes))
            .map_err(EngineError::Net)?;
        Ok((more || received > 0, received))
    }

    /// Polls the machine until it has no more outputs, the network accepts no more, or the session's turn is
    /// over.
    fn drain(
        &mut self,
        now: Time,
        observer: &mut dyn FnMut(Time, &M, M::Event),
    ) -> Result<Drained, EngineError> {
        for _ in 0..OUTPUTS_PER_STEP {
            match self.machine.poll(now) {
                None => return Ok(Drained::Empty),
                Some(Output::Transmit(transmit)) => {
                    self.pending = Some(Pending { transmit, sent: 0 });
                    if !self.flush(now)? {
                        return Ok(Drained::Empty);
                    }
                    if let Err(at) = self.turn(now) {
                        return Ok(Drained::Waits(at));
                    }
                }
                Some(Output::Job(job)) => {
                    if self.in_flight >= MAX_JOBS {
                        return Err(EngineError::TooManyJobs);
                    }
                    match self.jobs.submit(job) {
                        Some(done) => self.machine.handle_job_done(now, done),
                        None => self.in_flight += 1,
                    }
                }
                Some(Output::Listen(group)) => self.net.listen(group),
                Some(Output::Event(event)) => observer(now, &self.machine, event),
            }
        }
        Ok(Drained::MayHaveMore)
    }

    /// Sends the pending transmission. True if nothing is pending any more.
    fn flush(&mut self, now: Time) -> Result<bool, EngineError> {
        while let Some(pending) = &mut self.pending {
            let to = pending.transmit.to;
            let rendered = self.heads.render(&pending.transmit.payload, pending.sent, self.stream.as_ref());
            let segments = match rendered {
                Ok(segments) => segments,
                Err(RenderError::NoStream) => return Err(EngineError::NoStream),
                Err(RenderError::Source(e)) => {
                    self.pending = None;
                    let done = self.jobs.source_unreadable(e.to_string());
                    self.machine.handle_job_done(now, done);
                    break;
                }
            };
            let segments = segments.as_slice();
            if segments.is_empty() {
                self.pending = None;
                break;
            }
            match self.net.send(to, segments) {
                Ok(sent) => {
                    pending.sent += sent;
                    if let Some(egress) = &mut self.egress {
                        let overhead = udp_overhead(to);
                        egress.charge(segments[..sent].iter().map(|s| s.len() as u64 + overhead).sum());
                    }
                    if sent < segments.len() {
                        if now < self.hurry {
                            return Ok(false);
                        }
                        self.pending = None;
                    }
                }
                Err(e) if e.raw_os_error() == Some(libc::EFAULT) => {
                    self.pending = None;
                    let checked = self.stream.as_ref().map(|stream| stream.source.check());
                    let why = match checked {
                        Some(Err(e)) => e.to_string(),
                        _ => {
                            "the source file could not be read while it was being sent; send it again".into()
                        }
                    };
                    let done = self.jobs.source_unreadable(why);
                    self.machine.handle_job_done(now, done);
                }
                Err(e) => return Err(EngineError::Net(e)),
            }
        }
        Ok(true)
    }
}
