//! Drives an engine on real time: waits for sockets, workers and the handle. It knows nothing of signals or a
//! terminal; those belong to `cli`.
//!
//! `epoll` counts in milliseconds, which is too coarse for pacing. The loop spends whole milliseconds in the poll
//! and sleeps for the rest with `std::thread::sleep` (some 50 us late on Linux; the token bucket catches up). It
//! yields for a rest below [`SHORTEST_SLEEP`]. Meanwhile sockets buffer.
//!
//! The clock is monotonic. If a turn took [`ABSENCE`] or longer, the process was stopped.

use super::{ABSENCE, Engine, EngineError, Jobs};
use crate::net::Net;
use crate::protocol::{Control, Machine};
use crate::time::Time;
use mio::{Events, Poll, Registry, Token, Waker};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Interval of [`Pollable::tend`], and so the longest wait.
pub const TICK: Duration = Duration::from_millis(100);
/// Longest wait for a network that is not writable: not every full queue reports when it has room again.
const WRITABLE_RETRY: Duration = Duration::from_millis(1);
/// A shorter rest is not worth a sleep.
pub const SHORTEST_SLEEP: Duration = Duration::from_micros(50);

/// At fewer datagrams a second than this, there are no naps.
const STREAMING: f64 = 4_000.0;
/// Interval over which they are counted.
const LULL_WINDOW: Duration = Duration::from_millis(5);
/// Bounds of a nap. It also lasts no longer than this part of the time in which a receive buffer fills.
const LONGEST_NAP: Duration = Duration::from_millis(1);
const SHORTEST_NAP: Duration = Duration::from_micros(100);
const ROOM_SHARE: u32 = 8;

const WAKER: Token = Token(0);
const FIRST_SOCKET: usize = 1;

/// A network whose sockets can wake a poll.
pub trait Pollable: Net {
    /// Registers all sockets, for reading and writing and edge-triggered, with the tokens `first_token..`.
    /// From then on [`Net::receive`] must return 0 only when every socket would block.
    ///
    /// # Errors
    /// If the system refuses.
    fn register(&mut self, registry: &Registry, first_token: usize) -> io::Result<()>;
    /// Registers a function to call when datagrams arrive by another way than the own sockets.
    fn wake_by(&mut self, _wake: Box<dyn Fn() + Send + Sync>) {}
    /// Checks what the system may have changed; called every [`TICK`]. Returns warnings for the user, one
    /// clause each.
    fn tend(&mut self) -> Vec<String>;
    /// Approximate number of datagrams that fit the smallest receive buffer.
    fn room(&self) -> usize;
}

impl Pollable for crate::net::UdpNet {
    fn room(&self) -> usize {
        Self::room(self)
    }
    fn tend(&mut self) -> Vec<String> {
        Self::tend(self)
    }
    fn register(&mut self, registry: &Registry, first_token: usize) -> io::Result<()> {
        Self::register(self, registry, first_token)
    }
    fn wake_by(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        Self::wake_by(self, wake);
    }
}

/// Gets the events of a run, and gives it controls.
pub trait Observer<M: Machine> {
    /// The machine has emitted an event.
    fn event(&mut self, now: Time, machine: &M, event: M::Event);
    /// Something that the user should know although the run goes on.
    fn warn(&mut self, now: Time, text: &str);
    /// The next control for the machine, if there is one. Called at each turn of the loop, so it must be
    /// cheap. A caller that adds a control also wakes the loop ([`Host::wake`]).
    fn control(&mut self, now: Time, machine: &M) -> Option<Control>;
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The poll failed.
    #[error("waiting for the network failed: {0}; this should not happen, please report it")]
    Poll(#[source] io::Error),
    /// The loop cannot go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A poll and a clock, with which a loop waits.
pub struct Host {
    poll: Poll,
    waker: Arc<Waker>,
    start: Instant,
}

impl Host {
    /// A poll without sources. Its clock starts now.
    ///
    /// # Errors
    /// If the system refuses a poll.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self { poll, waker, start: Instant::now() })
    }

    /// The start of its clock.
    #[must_use]
    pub const fn start(&self) -> Instant {
        self.start
    }

    /// A function that wakes the loop: for worker threads that have finished a job, and for the handle.
    pub fn wake(&self) -> impl Fn() + Clone + Send + Sync + 'static {
        let waker = Arc::clone(&self.waker);
        // If waking fails, the loop continues at its next tick.
        move || drop(waker.wake())
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// Runs `engine` until its machine has finished.
    ///
    /// # Errors
    /// If the network or the poll fails, or the machine breaks its contract.
    pub fn run<M, N, W>(
        &mut self,
        engine: &mut Engine<M, N, W>,
        observer: &mut impl Observer<M>,
    ) -> Result<(), RunError>
    where
        M: Machine,
        N: Pollable,
        W: Jobs<M::Job, M::Done>,
    {
        let mut events = Events::with_capacity(64);
        engine.net_mut().wake_by(Box::new(self.wake()));
        engine.net_mut().register(self.poll.registry(), FIRST_SOCKET).map_err(RunError::Poll)?;
        let mut next_tick = Time::ZERO;
        let mut lull = Lull::new(engine.net().room());
        let mut last_turn = self.now();
        loop {
            let now = self.now();
            let away = now.since(std::mem::replace(&mut last_turn, now));
            if away >= ABSENCE {
                // The process was stopped, or kept from running. This is no silence of the others.
                engine.absent(now, away);
                observer.warn(now, &format!("this process stood still for {:.1} s", away.as_secs_f64()));
            }
            while let Some(control) = observer.control(now, engine.machine()) {
                engine.control(now, control);
            }
            let step = engine.step(now, &mut |now, machine, event| observer.event(now, machine, event))?;
            if now >= next_tick || step.finished {
                for text in engine.net_mut().tend() {
                    observer.warn(now, &text);
                }
                next_tick = now + TICK;
            }
            if step.finished {
                return Ok(());
            }
            let mut rest = step.wake.min(next_tick).since(self.now());
            if step.writable {
                rest = rest.min(WRITABLE_RETRY);
            }
            let nap = lull.after(now, step.received);
            if !nap.is_zero() && nap <= rest {
                std::thread::sleep(nap);
                rest = Duration::ZERO;
            }
            let timeout = Duration::from_millis(u64::try_from(rest.as_millis()).unwrap_or(u64::MAX));
            if timeout > Duration::ZERO {
                self.wait(&mut events, timeout).map_err(RunError::Poll)?;
            } else if rest >= SHORTEST_SLEEP {
                std::thread::sleep(rest);
            } else if rest > Duration::ZERO {
                std::thread::yield_now();
            }
        }
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(events, Some(timeout)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other,
        }
    }
}

/// Naps while datagrams stream in. They let datagrams gather, so that one wake-up and one system call serve
/// many of them. With several receivers on a machine, or on a slow one, wake-ups are most of the cost.
struct Lull {
    room: usize,
    since: Time,
    count: usize,
    per_second: f64,
}

impl Lull {
    fn new(room: usize) -> Self {
        Self { room, since: Time::ZERO, count: 0, per_second: 0.0 }
    }

    /// How long to sleep after the `received` datagrams that were waiting; zero for not at all.
    fn after(&mut self, now: Time, received: usize) -> Duration {
        self.count += received;
        let elapsed = now.since(self.since);
        if elapsed >= LULL_WINDOW {
            self.per_second = self.count as f64 / elapsed.as_secs_f64();
            (self.since, self.count) = (now, 0);
        }
        if self.per_second < STREAMING {
            return Duration::ZERO;
        }
        let fills = Duration::from_secs_f64(self.room as f64 / self.per_second);
        let nap = (fills / ROOM_SHARE).min(LONGEST_NAP);
        if nap < SHORTEST_NAP { Duration::ZERO } else { nap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_while_datagrams_stream_in_and_not_longer_than_the_buffer_allows() {
        let at = |us| Time::ZERO + Duration::from_micros(us);
        let after = |room, per_ms: usize| {
            let mut lull = Lull::new(room);
            (0..20).fold(Duration::ZERO, |_, ms| lull.after(at(ms * 1000), per_ms))
        };
        assert_eq!(after(5000, 2), Duration::ZERO, "too few to gather");
        assert_eq!(after(9000, 20), LONGEST_NAP);
        let fast = after(5000, 800);
        assert!(fast > Duration::from_micros(600) && fast < Duration::from_micros(900), "{fast:?}");
        assert_eq!(after(60, 80), Duration::ZERO, "a small buffer is full too soon");
        let mut lull = Lull::new(5000);
        for ms in 0..20 {
            lull.after(at(ms * 1000), 20);
        }
        assert_eq!(lull.after(at(40_000), 0), Duration::ZERO, "the stream has ended");
    }
}
