//! The output for events: one line each.

use super::Event;
use crate::ui::event_file::EventLines;
use crate::ui::schema::seconds;
use mcp_transfer::time::Time;
use serde::Serialize;
use std::io::Write;
use std::time::Duration;

/// Time between two `progress` events.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: Event<'a>,
    time: f64,
}

/// Where lines go. Errors are ignored: a reader that has gone does not stop a transfer.
pub enum Lines {
    /// To an output that is written at once.
    Direct(Box<dyn Write>),
    /// To a file that may be slow.
    File(EventLines),
}

impl Lines {
    /// Lines that are written to `out` at once.
    pub fn to(out: impl Write + 'static) -> Self {
        Self::Direct(Box::new(out))
    }

    /// Writes lines. Returns false if there was no room for them; there is more for those that `must` be there.
    fn put(&mut self, line: Vec<u8>, must: bool) -> bool {
        match self {
            Self::Direct(out) => {
                let _ = out.write_all(&line).and_then(|()| out.flush());
                true
            }
            Self::File(lines) => lines.put(line, must),
        }
    }
}

/// The output for events.
pub struct Stream {
    lines: Lines,
    verbose: bool,
    /// Events for which there was no room.
    missed: u64,
    last_progress: Option<Time>,
}

impl Stream {
    /// Writes events to `lines`, with notes if `verbose`.
    pub const fn new(lines: Lines, verbose: bool) -> Self {
        Self { lines, verbose, missed: 0, last_progress: None }
    }

    pub(super) fn emit(&mut self, now: Time, event: Event<'_>) {
        let last = matches!(event, Event::Finished { .. });
        let missed = (self.missed > 0).then_some(Event::Missed { events: self.missed });
        let mut lines = Vec::new();
        for event in missed.into_iter().chain([event]) {
            let line = Line { event, time: seconds(now.since(Time::ZERO)) };
            // Plain data with text keys always serialises, and memory takes all that is written to it.
            let _ = serde_json::to_writer(&mut lines, &line);
            lines.push(b'\n');
        }
        self.missed = if self.lines.put(lines, last) { 0 } else { self.missed + 1 };
    }

    pub(super) fn note(&mut self, now: Time, text: &str) {
        if self.verbose {
            self.emit(now, Event::Note { text });
        }
    }

    pub(super) fn due(&mut self, now: Time) -> bool {
        let due = self.last_progress.is_none_or(|t| now.since(t) >= INTERVAL);
        if due {
            self.last_progress = Some(now);
        }
        due
    }
}
