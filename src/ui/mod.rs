//! L5: shows a running command to the user: bars on a terminal, plain lines elsewhere, JSON events for
//! programs.
//!
//! The command calls `event` for every event of its machine, `tick` regularly (ten times a second is
//! enough; the views draw only as often as useful) and `finish` once. All text from the network is
//! escaped here, before it is printed.
//!
//! ```text
//!   protocol::event --> SenderView / ReceiverView --+-- bars    stderr, a terminal
//!                       (memory.rs: state that      +-- plain   stderr, not a terminal
//!                        all of them need)          +-- json    stdout, one event a line
//!                                                   +-- quiet   nothing; errors are cli::report's
//!                                                   +-- twice   one of these, and json to an EventFile
//! ```
//! A receiver's `b3sum` line goes to stdout (bars and plain), everything else to stderr. If the object itself goes to
//! stdout (`recv -o -`), nothing else does.

mod bars;
mod event_file;
pub mod exit;
mod json;
mod memory;
mod one_way;
mod plain;
mod quiet;
pub mod receipt_file;
pub mod report_file;
mod schema;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod trust;
mod twice;

pub use event_file::EventFile;
pub use exit::Exit;
pub use text::{device_name, escape, wrap};
pub use trust::refused;

use mcp_transfer::protocol::event::{
    ReceiverEvent, ReceiverSnapshot, SenderEvent, SenderOverview, SenderSnapshot,
};
use mcp_transfer::time::Time;
use mcp_transfer::units::{DeviceId, SenderKey, SessionId, TaskId};
use std::io;
use std::ops::Range;

/// The kind of output.
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

/// The kind of output and its detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// The kind of output.
    pub mode: Mode,
    /// Whether notes are shown (`-v`).
    pub verbose: bool,
}

/// The data that a sender's view has from the start.
#[derive(Clone, Debug)]
pub struct SenderIntro {
    /// The task's identifier.
    pub task: TaskId,
    /// The session's identifier.
    pub session: SessionId,
    /// The object's name.
    pub name: String,
    /// Size of the object in bytes.
    pub size: Option<u64>,
    /// The largest holes of the object, ascending: nothing of them is sent.
    pub holes: Vec<Range<u64>>,
    /// Entries of a tree; `None` for other objects.
    pub entries: Option<u32>,
    /// Destination of the stream, for people.
    pub group: String,
    /// Whether Enter starts the stream (stdin is a terminal).
    pub enter_starts: bool,
    /// The public key of this sender.
    pub sender: SenderKey,
    /// Name of the group key that seals the session; `None` if the session is in the clear.
    pub sealed_with: Option<String>,
}

/// The data that a receiver's view has from the start.
#[derive(Clone, Debug)]
pub struct ReceiverIntro {
    /// The device's identifier.
    pub device: DeviceId,
    /// The device's label.
    pub label: String,
    /// The name of the object to take; `None` for any.
    pub name: Option<String>,
    /// The group and port that it listens on, for people.
    pub group: String,
    /// Names of the group keys that may seal a session, joined by commas; `None` to take only sessions
    /// that are not sealed.
    pub sealed_with: Option<String>,
}

/// Output of text that is not an event of the protocol.
pub trait Notes {
    /// Shows a detail (chosen interface, buffer sizes, features), with `-v` only.
    fn note(&mut self, now: Time, text: &str);
    /// Shows a problem that does not end the command.
    fn warn(&mut self, now: Time, text: &str);
}

/// Shows a sender's run.
pub trait SenderView: Notes {
    /// Something changed.
    fn event(&mut self, now: Time, event: &SenderEvent, overview: &SenderOverview);
    /// Time passes.
    fn tick(&mut self, now: Time, snapshot: &SenderSnapshot);
    /// Ends the view: restores the terminal and prints the results. Call once.
    fn finish(&mut self, now: Time, snapshot: &SenderSnapshot, exit: Exit);
}

/// Shows a receiver's run.
pub trait ReceiverView: Notes {
    /// Shows an event. `snapshot` is the state after it.
    fn event(&mut self, now: Time, event: &ReceiverEvent, snapshot: &ReceiverSnapshot);
    /// Shows the progress of time. Call regularly.
    fn tick(&mut self, now: Time, snapshot: &ReceiverSnapshot);
    /// Ends the view: restores the terminal and prints the results. Call once.
    fn finish(&mut self, now: Time, snapshot: &ReceiverSnapshot, exit: Exit);
}

/// A sentence for stderr: broken between words if that is a `terminal`.
#[must_use]
pub fn wrapped(sentence: &str, terminal: bool) -> String {
    let columns = console::Term::stderr().size_checked().filter(|_| terminal);
    wrap(sentence, columns.map_or(0, |(_, columns)| usize::from(columns)), text::INDENT)
}

/// The status table as a finished sender's views print it, as wide as it gets.
#[must_use]
pub fn final_table(snapshot: &SenderSnapshot) -> String {
    table::table(&memory::SenderMemory::default(), snapshot, 0, false)
}

/// The view of a sender for `--json`, which prints to `out`.
pub fn json_sender_view(
    out: impl io::Write + 'static,
    verbose: bool,
    intro: SenderIntro,
) -> impl SenderView + 'static {
    json::SenderJson::new(json::Stream::new(json::Lines::to(out), verbose), intro)
}

/// The view of a receiver for `--json`, which prints to `out`.
pub fn json_receiver_view(
    out: impl io::Write + 'static,
    verbose: bool,
    intro: ReceiverIntro,
) -> impl ReceiverView + 'static {
    json::ReceiverJson::new(json::Stream::new(json::Lines::to(out), verbose), intro)
}

/// The view of a sender, whose events also go to `events`.
#[must_use]
pub fn sender_view(style: Style, intro: SenderIntro, events: Option<&EventFile>) -> Box<dyn SenderView> {
    let Some(events) = events else { return sender_screen(style, intro) };
    let stream = json::Stream::new(events.lines(), style.verbose);
    let json = json::SenderJson::new(stream, intro.clone());
    Box::new(twice::Twice(sender_screen(style, intro), Box::new(json)))
}

fn sender_screen(style: Style, intro: SenderIntro) -> Box<dyn SenderView> {
    match style.mode {
        Mode::Bars => Box::new(bars::SenderBars::new(bars::Screen::stderr(style.verbose), intro)),
        Mode::Plain => {
            Box::new(plain::SenderPlain::new(plain::Lines::new(io::stderr(), style.verbose), intro))
        }
        Mode::Json => Box::new(json_sender_view(io::stdout(), style.verbose, intro)),
        Mode::Quiet => Box::new(quiet::Quiet),
    }
}

/// The view of a receiver, whose events also go to `events`. What it would print on stdout goes to stderr if stdout is
/// `taken`.
#[must_use]
pub fn receiver_view(
    style: Style,
    intro: ReceiverIntro,
    taken: bool,
    events: Option<&EventFile>,
) -> Box<dyn ReceiverView> {
    let Some(events) = events else { return receiver_screen(style, intro, taken) };
    let stream = json::Stream::new(events.lines(), style.verbose);
    let json = json::ReceiverJson::new(stream, intro.clone());
    Box::new(twice::Twice(receiver_screen(style, intro, taken), Box::new(json)))
}

fn receiver_screen(style: Style, intro: ReceiverIntro, taken: bool) -> Box<dyn ReceiverView> {
    let out: Box<dyn io::Write> = if taken { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
    match style.mode {
        Mode::Bars => Box::new(bars::ReceiverBars::new(bars::Screen::stderr(style.verbose), out, intro)),
        Mode::Plain => {
            Box::new(plain::ReceiverPlain::new(plain::Lines::new(io::stderr(), style.verbose), out, intro))
        }
        Mode::Json => Box::new(json_receiver_view(out, style.verbose, intro)),
        Mode::Quiet => Box::new(quiet::Quiet),
    }
}
