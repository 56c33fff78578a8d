//! L5: what the user sees while a command runs: bars on a terminal, plain lines elsewhere, JSON
//! events for programs.
//!
//! The command calls `event` for every event of its machine, `tick` now and then (ten times a
//! second is plenty; the views draw no more often than is useful) and `finish` once. All text
//! from the network is escaped here, before it is printed.
//!
//! ```text
//!   protocol::event --> SenderView / ReceiverView --+-- bars    stderr, a terminal
//!                       (memory.rs: what they all   +-- plain   stderr, not a terminal
//!                        have to remember)          +-- json    stdout, one event a line
//!                                                   +-- quiet   nothing; errors are cli::report's
//! ```
//! A receiver's `b3sum` line goes to stdout (bars and plain), everything else to stderr.

mod bars;
pub mod exit;
mod json;
mod memory;
mod plain;
mod quiet;
pub mod report_file;
mod schema;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod trust;

pub use exit::Exit;
pub use text::{device_name, escape};
pub use trust::refused;

use crate::protocol::event::{ReceiverEvent, ReceiverSnapshot, SenderEvent, SenderOverview, SenderSnapshot};
use crate::time::Time;
use crate::units::{DeviceId, SenderKey, SessionId, TaskId};
use std::io;

/// How to show things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Progress bars on stderr.
    Bars,
    /// A plain line at each change and every few seconds, on stderr.
    Plain,
    /// One JSON object a line on stdout (`docs/events.md`).
    Json,
    /// Nothing but errors.
    Quiet,
}

/// How to show things, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// How.
    pub mode: Mode,
    /// Whether notes are shown (`-v`).
    pub verbose: bool,
}

/// What a sender's view is told at the start.
#[derive(Clone, Debug)]
pub struct SenderIntro {
    /// The task.
    pub task: TaskId,
    /// This run of the sender.
    pub session: SessionId,
    /// The object's name.
    pub name: String,
    /// Bytes of the object.
    pub size: u64,
    /// Where it goes, for people.
    pub group: String,
    /// Whether Enter starts the stream (stdin is a terminal).
    pub enter_starts: bool,
    /// Who this machine is as a sender.
    pub sender: SenderKey,
    /// Name of the group key that the session is sealed with.
    pub sealed_with: Option<String>,
}

/// What a receiver's view is told at the start.
#[derive(Clone, Debug)]
pub struct ReceiverIntro {
    /// This device.
    pub device: DeviceId,
    /// Its label.
    pub label: String,
    /// Where it listens, for people.
    pub group: String,
    /// Names of the group keys that sessions are taken with, joined by commas; none: only sessions that
    /// are not sealed.
    pub sealed_with: Option<String>,
}

/// Text that is not an event of the protocol.
pub trait Notes {
    /// A detail (interface chosen, buffer sizes, features); shown with `-v` only.
    fn note(&mut self, now: Time, text: &str);
    /// Something the user should know though the command goes on.
    fn warn(&mut self, now: Time, text: &str);
}

/// Shows a sender's run.
pub trait SenderView: Notes {
    /// Something changed.
    fn event(&mut self, now: Time, event: &SenderEvent, overview: &SenderOverview);
    /// Time passes.
    fn tick(&mut self, now: Time, snapshot: &SenderSnapshot);
    /// The run is over; leaves a clean terminal and prints the results.
    fn finish(&mut self, now: Time, snapshot: &SenderSnapshot, exit: Exit);
}

/// Shows a receiver's run.
pub trait ReceiverView: Notes {
    /// Something changed.
    fn event(&mut self, now: Time, event: &ReceiverEvent, snapshot: &ReceiverSnapshot);
    /// Time passes.
    fn tick(&mut self, now: Time, snapshot: &ReceiverSnapshot);
    /// The run is over; leaves a clean terminal and prints the results.
    fn finish(&mut self, now: Time, snapshot: &ReceiverSnapshot, exit: Exit);
}

/// The status table as a finished sender's views print it, as wide as it gets.
#[must_use]
pub fn final_table(snapshot: &SenderSnapshot) -> String {
    table::table(&memory::SenderMemory::default(), snapshot, 0, false)
}

/// The view of a sender.
#[must_use]
pub fn sender_view(style: Style, intro: SenderIntro) -> Box<dyn SenderView> {
    match style.mode {
        Mode::Bars => Box::new(bars::SenderBars::new(bars::Screen::stderr(style.verbose), intro)),
        Mode::Plain => {
            Box::new(plain::SenderPlain::new(plain::Lines::new(io::stderr(), style.verbose), intro))
        }
        Mode::Json => Box::new(json::SenderJson::new(json::Stream::new(io::stdout(), style.verbose), intro)),
        Mode::Quiet => Box::new(quiet::Quiet),
    }
}

/// The view of a receiver.
#[must_use]
pub fn receiver_view(style: Style, intro: ReceiverIntro) -> Box<dyn ReceiverView> {
    match style.mode {
        Mode::Bars => Box::new(bars::ReceiverBars::new(
            bars::Screen::stderr(style.verbose),
            Box::new(io::stdout()),
            intro,
        )),
        Mode::Plain => Box::new(plain::ReceiverPlain::new(
            plain::Lines::new(io::stderr(), style.verbose),
            Box::new(io::stdout()),
            intro,
        )),
        Mode::Json => {
            Box::new(json::ReceiverJson::new(json::Stream::new(io::stdout(), style.verbose), intro))
        }
        Mode::Quiet => Box::new(quiet::Quiet),
    }
}
