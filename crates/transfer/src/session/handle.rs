//! The handle of a running session: its events, its controls, snapshots, and its outcome.
//!
//! ```text
//!  Handle --commands--> [inbox] --wake--> the session's thread --events--> [queue] --> Events
//!         <-------------- snapshots, on request ------------------------
//! ```

use super::events::{EventSender, Events, Weigh, What};
use crate::engine::run::{Host, Observer, Pollable, RunError};
use crate::engine::{Engine, Jobs};
use crate::protocol::{Control, Machine};
use crate::time::Time;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// A command for a session's thread.
enum Command<S> {
    Control(Control),
    Snapshot(Detail, SyncSender<S>),
}

/// How much of a session a snapshot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Nothing that grows with the number of devices.
    Overview,
    All,
}

struct Inbox<S> {
    commands: Vec<Command<S>>,
    /// Whether the session's thread takes no more commands.
    closed: bool,
    /// The session's last snapshot.
    last: Option<S>,
}

struct Shared<S> {
    inbox: Mutex<Inbox<S>>,
    /// Whether there are commands. The loop checks this.
    asked: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl<S> Shared<S> {
    fn inbox(&self) -> MutexGuard<'_, Inbox<S>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that runs on a thread of its own. Dropping it stops the session, and waits until the session has
/// told the other side and closed its files.
pub(super) struct Running<E, S, O> {
    shared: Arc<Shared<S>>,
    events: Events<E>,
    thread: Option<JoinHandle<O>>,
    start: Instant,
}

impl<E, S, O> Running<E, S, O> {
    fn ask(&self, command: Command<S>) {
        let mut inbox = self.shared.inbox();
        if !inbox.closed {
            inbox.commands.push(command);
            drop(inbox);
            self.shared.asked.store(true, Ordering::Release);
            (self.shared.wake)();
        }
    }
}

impl<E, S: Clone, O> Running<E, S, O> {
    pub fn events(&self) -> Events<E> {
        self.events.clone()
    }

    /// The present time of the session's clock.
    pub fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    pub fn control(&self, control: Control) {
        self.ask(Command::Control(control));
    }

    /// Requests a snapshot from the session's thread, and waits for it.
    pub fn snapshot(&self, detail: Detail) -> Option<S> {
        let (sender, receiver) = sync_channel(1);
        self.ask(Command::Snapshot(detail, sender));
        // After the end nobody answers.
        receiver.recv().ok().or_else(|| self.shared.inbox().last.clone())
    }

    /// Whether the session has ended.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If the session's thread has panicked.
    pub fn wait(mut self) -> O {
        let thread = self.thread.take().expect("it is taken once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<E, S, O> Drop for Running<E, S, O> {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.ask(Command::Control(Control::Interrupt));
        // A panic of the thread has been printed, and nobody wants the outcome.
        let _ = thread.join();
    }
}

/// The duties of the session's thread besides running the engine.
pub(super) trait Part<M: Machine> {
    /// The snapshot of the session.
    type Snapshot: Clone;
    /// Notes an event before it is passed on.
    fn note(&mut self, event: &M::Event);
    /// Learns of a control before the machine does. Must be quick.
    fn control(&self, _: Control) {}
    fn snapshot(&self, now: Time, machine: &M, detail: Detail) -> Self::Snapshot;
}

/// The session's side of a handle.
pub(super) struct Side<E: Weigh, S, P> {
    shared: Arc<Shared<S>>,
    commands: Vec<Command<S>>,
    events: EventSender<E>,
    pub part: P,
}

impl<M, P> Observer<M> for Side<M::Event, P::Snapshot, P>
where
    M: Machine,
    M::Event: Weigh,
    P: Part<M>,
{
    fn event(&mut self, now: Time, _: &M, event: M::Event) {
        self.part.note(&event);
        self.events.send(now, What::Changed(event));
    }

    fn warn(&mut self, now: Time, text: &str) {
        self.warn_of(now, text.to_owned());
    }

    fn control(&mut self, now: Time, machine: &M) -> Option<Control> {
        if self.commands.is_empty() {
            if !self.shared.asked.swap(false, Ordering::Acquire) {
                return None;
            }
            std::mem::swap(&mut self.commands, &mut self.shared.inbox().commands);
            self.commands.reverse();
        }
        while let Some(command) = self.commands.pop() {
            match command {
                Command::Control(control) => {
                    self.part.control(control);
                    return Some(control);
                }
                // The requester may be gone.
                Command::Snapshot(detail, to) => drop(to.send(self.part.snapshot(now, machine, detail))),
            }
        }
        None
    }
}

impl<E: Weigh, S, P> Side<E, S, P> {
    fn warn_of(&self, now: Time, text: String) {
        self.events.send(now, What::Warning(text));
    }

    /// Emits a detail.
    pub fn tell(&self, now: Time, text: String) {
        self.events.send(now, What::Note(text));
    }

    /// Sets the snapshot that is returned from the end on.
    fn close(&self, last: S) {
        self.shared.inbox().last = Some(last);
    }
}

impl<E: Weigh, S, P> Drop for Side<E, S, P> {
    /// Wakes requesters that would wait in vain.
    fn drop(&mut self) {
        let mut inbox = self.shared.inbox();
        inbox.closed = true;
        inbox.commands.clear();
    }
}

/// A host, and both ends of a session that is not started yet.
pub(super) struct Desk<E: Weigh, S> {
    pub host: Host,
    shared: Arc<Shared<S>>,
    sender: EventSender<E>,
    events: Events<E>,
}

impl<E, S> Desk<E, S>
where
    E: Weigh + Send + 'static,
    S: Clone + Send + 'static,
{
    /// Creates the host and the queue.
    ///
    /// # Errors
    /// If the system refuses a poll.
    pub fn new() -> io::Result<Self> {
        let host = Host::new()?;
        let inbox = Mutex::new(Inbox { commands: Vec::new(), closed: false, last: None });
        let shared = Arc::new(Shared { inbox, asked: AtomicBool::new(false), wake: Box::new(host.wake()) });
        let (sender, events) = super::events::queue();
        Ok(Self { host, shared, sender, events })
    }

    /// Emits a warning before the session starts.
    pub fn warn(&self, text: String) {
        self.sender.send(self.host.now(), What::Warning(text));
    }

    /// Emits a detail before the session starts.
    pub fn note(&self, text: String) {
        self.sender.send(self.host.now(), What::Note(text));
    }

    /// Runs the engine that `engine` makes on a thread of its own called `name`, and then `end`, which makes
    /// the outcome from the result of the run.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn run<M, N, W, P, O>(
        self,
        name: String,
        part: P,
        engine: impl FnOnce() -> Engine<M, N, W> + Send + 'static,
        end: impl FnOnce(Time, Result<(), RunError>, &Engine<M, N, W>, &mut Side<E, S, P>) -> O + Send + 'static,
    ) -> io::Result<Running<E, S, O>>
    where
        M: Machine<Event = E>,
        N: Pollable,
        W: Jobs<M::Job, M::Done>,
        P: Part<M, Snapshot = S> + Send + 'static,
        O: Send + 'static,
    {
        let Self { mut host, shared, sender, events } = self;
        let start = host.start();
        let mut side = Side { shared: Arc::clone(&shared), commands: Vec::new(), events: sender, part };
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let mut engine = engine();
            let run = host.run(&mut engine, &mut side);
            let outcome = end(host.now(), run, &engine, &mut side);
            side.close(side.part.snapshot(host.now(), engine.machine(), Detail::All));
            outcome
        })?;
        Ok(Running { shared, events, thread: Some(thread), start })
    }
}
