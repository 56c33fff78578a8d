//! Drives an engine on real time: waits for sockets, workers, signals and the terminal.
//!
//! `epoll` counts in milliseconds, too coarse for pacing. Whole milliseconds are spent in the poll;
//! the rest is slept with `std::thread::sleep` (some 50 us late on Linux, which the token bucket
//! makes good), and a rest below [`SHORTEST_SLEEP`] is yielded away. Meanwhile sockets buffer.
//!
//! The clock is monotonic. A turn that took [`ABSENCE`] or longer was no turn: the process was stopped.

use super::{ABSENCE, Engine, EngineError, Jobs};
use crate::net::Net;
use crate::protocol::{Control, Machine};
use crate::time::Time;
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the observer's tick comes, and so the longest wait.
pub const TICK: Duration = Duration::from_millis(100);
/// Longest wait for a network that is not writable: not every full queue tells when it is not.
const WRITABLE_RETRY: Duration = Duration::from_millis(1);
/// Shorter rests than this are not worth a sleep.
pub const SHORTEST_SLEEP: Duration = Duration::from_micros(50);
/// How often signals and the terminal are looked at while the engine never rests.
const GLANCE: Duration = Duration::from_millis(1);

/// Fewer datagrams a second than this are taken as they come.
const STREAMING: f64 = 4_000.0;
/// How often they are counted.
const LULL_WINDOW: Duration = Duration::from_millis(5);
/// Bounds of a nap between two takes; and it lasts no longer than this part of a receive buffer's room.
const LONGEST_NAP: Duration = Duration::from_millis(1);
const SHORTEST_NAP: Duration = Duration::from_micros(100);
const ROOM_SHARE: u32 = 8;

const WAKER: Token = Token(0);
const SIGNALS: Token = Token(1);
const TERMINAL: Token = Token(2);
const FIRST_SOCKET: usize = 3;

/// A network whose sockets can wake a poll.
pub trait Pollable: Net {
    /// Registers all sockets, for reading and writing and edge-triggered, with the tokens
    /// `first_token..`. From then on [`Net::receive`] must return 0 only when every socket has
    /// said that it would block.
    ///
    /// # Errors
    /// When the system refuses.
    fn register(&mut self, registry: &Registry, first_token: usize) -> io::Result<()>;
    /// Looks after what the system may have changed; comes every [`TICK`]. Returns what the user should
    /// know of it, one clause each.
    fn tend(&mut self) -> Vec<String>;
    /// Datagrams that may wait in the smallest receive buffer, about.
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
}

/// Whoever shows the user how it goes.
pub trait Observer<M: Machine> {
    /// The machine has said something.
    fn event(&mut self, now: Time, machine: &M, event: M::Event);
    /// The user should know this though the run goes on.
    fn warn(&mut self, now: Time, text: &str);
    /// Comes every [`TICK`] and once at the end; time to redraw.
    fn tick(&mut self, now: Time, machine: &M);
}

/// Why a run broke off.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The poll failed.
    #[error("waiting for the network failed: {0}; this should not happen, please report it")]
    Poll(#[source] io::Error),
    /// The loop cannot go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The process's ties to the system: the poll, the clock, the signals, the terminal.
///
/// The first SIGINT or SIGTERM becomes [`Control::Interrupt`]; the second SIGINT ends the process
/// at once, by that signal: the shell sees 130, and sets its terminal right. When a host has been
/// dropped, SIGINT ends the process at once.
pub struct Host {
    poll: Poll,
    waker: Arc<Waker>,
    start: Instant,
    signals: UnixStream,
    handlers: Vec<SigId>,
    second_ends: Arc<AtomicBool>,
    enter_starts: bool,
}

impl Host {
    /// Makes the poll and takes over SIGINT and SIGTERM. With `enter_starts`, a line entered on
    /// the terminal (if standard input is one) becomes [`Control::StartNow`].
    ///
    /// # Errors
    /// When the system refuses a poll, a pipe or a signal handler.
    pub fn new(enter_starts: bool) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (read, write) = std::os::unix::net::UnixStream::pair()?;
        read.set_nonblocking(true)?;
        let mut signals = UnixStream::from_std(read);
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let second_ends = Arc::new(AtomicBool::new(false));
        // The order makes the first signal arm what the second one triggers.
        flag::register_conditional_default(SIGINT, Arc::clone(&second_ends))?;
        let mut handlers = Vec::new();
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&second_ends))?;
            handlers.push(low_level::pipe::register(signal, write.try_clone()?)?);
        }
        // A write beyond the limit of file sizes is to be an error that can be told, not the end.
        handlers.push(flag::register(libc::SIGXFSZ, Arc::default())?);
        let mut enter_starts = enter_starts && io::stdin().is_terminal();
        if enter_starts {
            let stdin = io::stdin().as_raw_fd();
            // A terminal that cannot be polled is no reason not to run.
            enter_starts =
                poll.registry().register(&mut SourceFd(&stdin), TERMINAL, Interest::READABLE).is_ok();
        }
        Ok(Self { poll, waker, start: Instant::now(), signals, handlers, second_ends, enter_starts })
    }

    /// Something for worker threads to call when a job is done.
    pub fn wake(&self) -> impl Fn() + Send + Sync + 'static {
        let waker = Arc::clone(&self.waker);
        // A waker that fails leaves the loop to its next tick.
        move || drop(waker.wake())
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// Runs `engine` until its machine is finished.
    ///
    /// # Errors
    /// When the network or the poll fails, or the machine breaks its contract.
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
        engine.net_mut().register(self.poll.registry(), FIRST_SOCKET).map_err(RunError::Poll)?;
        let mut next_tick = Time::ZERO;
        let mut last_poll = self.now();
        let mut lull = Lull::new(engine.net().room());
        let mut last_turn = last_poll;
        loop {
            let now = self.now();
            let away = now.since(std::mem::replace(&mut last_turn, now));
            if away >= ABSENCE {
                // Stopped, or kept from running: the others cannot be blamed for it.
                engine.absent(now, away);
                observer.warn(now, &format!("this process stood still for {:.1} s", away.as_secs_f64()));
            }
            let step = engine.step(now, &mut |now, machine, event| observer.event(now, machine, event))?;
            if now >= next_tick || step.finished {
                observer.tick(now, engine.machine());
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
            if timeout > Duration::ZERO || now.since(last_poll) >= GLANCE {
                self.wait(&mut events, timeout).map_err(RunError::Poll)?;
                last_poll = self.now();
                for control in self.controls(&events) {
                    engine.control(last_poll, control);
                }
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

    /// What the system and the user ask for.
    fn controls(&mut self, events: &Events) -> Vec<Control> {
        let mut controls = Vec::new();
        let mut bytes = [0; 64];
        for event in events {
            match event.token() {
                SIGNALS => {
                    while matches!(self.signals.read(&mut bytes), Ok(1..)) {
                        controls.push(Control::Interrupt);
                    }
                    controls.dedup();
                }
                // A background job that reads is stopped by the system; the line is not for it.
                TERMINAL if self.enter_starts && in_foreground() => match io::stdin().read(&mut bytes) {
                    Ok(0) | Err(_) => self.enter_starts = false,
                    Ok(_) => controls.push(Control::StartNow),
                },
                _ => {}
            }
        }
        controls
    }
}

/// While datagrams stream in, a short nap lets them gather, so that a wake-up and a system call serve
/// many and not one each: with several receivers on a machine, or a weak one, that is most of the cost.
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

    /// How long to sleep when `received` datagrams were all there were; zero if not at all.
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

impl Drop for Host {
    fn drop(&mut self) {
        for id in self.handlers.drain(..) {
            low_level::unregister(id);
        }
        // From here on nobody handles an interrupt gracefully any more.
        self.second_ends.store(true, Ordering::SeqCst);
    }
}

/// Whether this process is in its terminal's foreground group. Assumed where `/proc` does not say.
#[must_use]
pub fn in_foreground() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command name before the last `)` may hold anything: state, parent, group, session,
    // terminal and the terminal's foreground group follow it.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_ascii_whitespace().collect());
    match (fields.get(2), fields.get(5)) {
        (Some(group), Some(foreground)) => group == foreground,
        _ => true,
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
