//! The process's connection to its user: signals, the terminal, and the time at which the view draws.
//!
//! The first SIGINT or SIGTERM asks the session to stop. The second SIGINT kills the process by that signal, so
//! that the shell sees status 130 and restores its terminal. After a console is dropped, SIGINT kills the
//! process at once.

use mcp_transfer::session::events::{Events, SessionEvent, Weigh};
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token, Waker};
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Interval of ticks for the view.
pub const TICK: Duration = Duration::from_millis(100);

const WAKER: Token = Token(0);
const SIGNALS: Token = Token(1);
const TERMINAL: Token = Token(2);

/// Requests of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGINT or SIGTERM was received.
    Stop,
    /// Enter was pressed.
    Start,
}

/// See the module's description.
pub struct Console {
    poll: Poll,
    waker: Arc<Waker>,
    signals: UnixStream,
    handlers: Vec<SigId>,
    second_ends: Arc<AtomicBool>,
    enter_starts: bool,
    next_tick: Instant,
}

impl Console {
    /// Takes over SIGINT and SIGTERM. With `enter_starts`, also reads lines from standard input if it is a
    /// terminal.
    ///
    /// # Errors
    /// If the system refuses a poll, a pipe or a signal handler.
    pub fn new(enter_starts: bool) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (read, write) = std::os::unix::net::UnixStream::pair()?;
        read.set_nonblocking(true)?;
        let mut signals = UnixStream::from_std(read);
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let second_ends = Arc::new(AtomicBool::new(false));
        // In this order the first signal arms what the second one triggers.
        flag::register_conditional_default(SIGINT, Arc::clone(&second_ends))?;
        let mut handlers = Vec::new();
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&second_ends))?;
            handlers.push(low_level::pipe::register(signal, write.try_clone()?)?);
        }
        // A write beyond the limit of file sizes must return an error that can be reported, not kill the
        // process.
        handlers.push(flag::register(libc::SIGXFSZ, Arc::default())?);
        let mut enter_starts = enter_starts && io::stdin().is_terminal();
        if enter_starts {
            let stdin = io::stdin().as_raw_fd();
            // A terminal that cannot be polled is no reason to fail.
            enter_starts =
                poll.registry().register(&mut SourceFd(&stdin), TERMINAL, Interest::READABLE).is_ok();
        }
        Ok(Self { poll, waker, signals, handlers, second_ends, enter_starts, next_tick: Instant::now() })
    }

    /// Watches a session until its end. Calls `ask` with requests of the user, and `show` with the session's
    /// events and what `look` sees of the session after them. `look` is told whether a tick is due.
    ///
    /// # Errors
    /// If the poll fails.
    pub fn watch<E: Weigh, S>(
        &mut self,
        events: &Events<E>,
        mut ask: impl FnMut(Asked),
        look: impl Fn(bool) -> Option<S>,
        mut show: impl FnMut(Vec<SessionEvent<E>>, S, bool),
    ) -> io::Result<()> {
        let waker = Arc::clone(&self.waker);
        // If waking fails, the next tick does it.
        events.notify(Box::new(move || drop(waker.wake())));
        loop {
            let over = events.is_over();
            let waiting: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
            let tick = self.wait(over || !waiting.is_empty(), &mut ask)?;
            // One look is enough for all waiting events.
            if (tick || !waiting.is_empty())
                && let Some(seen) = look(tick)
            {
                show(waiting, seen, tick);
            }
            if over {
                return Ok(());
            }
        }
    }

    /// Waits for `time`. Returns early, and true, if the user asks to stop.
    ///
    /// # Errors
    /// If the poll fails.
    pub fn pause(&mut self, time: Duration) -> io::Result<bool> {
        let (until, mut stop) = (Instant::now() + time, false);
        while !stop && Instant::now() < until {
            self.wait(false, &mut |asked| stop |= asked == Asked::Stop)?;
        }
        Ok(stop)
    }

    /// Waits until something happens, at most [`TICK`]; not at all if something `has` happened already.
    /// Returns whether a tick is due.
    fn wait(&mut self, has: bool, ask: &mut dyn FnMut(Asked)) -> io::Result<bool> {
        let mut events = mio::Events::with_capacity(8);
        let left =
            if has { Duration::ZERO } else { self.next_tick.saturating_duration_since(Instant::now()) };
        match self.poll.poll(&mut events, Some(left)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => events.clear(),
            other => other?,
        }
        let mut bytes = [0; 64];
        for event in &events {
            match event.token() {
                SIGNALS => {
                    while matches!(self.signals.read(&mut bytes), Ok(1..)) {
                        ask(Asked::Stop);
                    }
                }
                // The system would stop a background job that reads the terminal; the line is not for it.
                TERMINAL if self.enter_starts && in_foreground() => match io::stdin().read(&mut bytes) {
                    Ok(0) | Err(_) => self.enter_starts = false,
                    Ok(_) => ask(Asked::Start),
                },
                _ => {}
            }
        }
        let now = Instant::now();
        let tick = now >= self.next_tick;
        if tick {
            self.next_tick = now + TICK;
        }
        Ok(tick)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        for id in self.handlers.drain(..) {
            low_level::unregister(id);
        }
        // From here on nobody handles an interrupt.
        self.second_ends.store(true, Ordering::SeqCst);
    }
}

/// Whether this process is in its terminal's foreground group. True if `/proc` does not say.
#[must_use]
pub fn in_foreground() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command name before the last `)` may have any bytes. After it come state, parent, group, session,
    // terminal and the terminal's foreground group.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_ascii_whitespace().collect());
    match (fields.get(2), fields.get(5)) {
        (Some(group), Some(foreground)) => group == foreground,
        _ => true,
    }
}
