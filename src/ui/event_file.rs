//! `--json=FILE`: a file or FIFO for the events of a run. A thread of its own opens and writes it, so a FIFO without a
//! reader, or with a slow one, holds nobody up. Lines that it cannot take wait, up to a bound; those beyond are missed,
//! but not the last one of a run.

use super::json::Lines;
use mcp_transfer::limits::MAX_EVENT_BACKLOG;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Time at the end for a reader to take what waits: one that reads, and one that has not opened the FIFO.
const LAST_LINES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(100));

/// An open file for events. Dropping it waits for its reader, for two seconds at most.
pub struct EventFile {
    shared: Arc<Shared>,
}

/// Takes lines for the file.
pub struct EventLines {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    /// Their bytes.
    bytes: usize,
    /// Whether somebody can read the lines.
    open: bool,
    /// Whether a line is being written.
    writing: bool,
    /// No more lines come, or none can be written.
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// The next line to write; `None` at their end.
    fn next(&self) -> Option<Vec<u8>> {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.over;
        let state = self.changed.wait_while(self.lock(), idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let line = state.waiting.pop_front()?;
        state.bytes -= line.len();
        state.writing = true;
        Some(line)
    }
}

impl EventFile {
    /// Opens `path`: a FIFO once it has a reader, and anything else at once. A file is created, or written at its end.
    ///
    /// # Errors
    /// If it cannot be opened, or no thread be started.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fifo = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        let file = if fifo { None } else { Some(open(path)?) };
        let shared = Arc::<Shared>::default();
        let (writer, path) = (Arc::clone(&shared), fifo.then(|| path.to_owned()));
        thread::Builder::new().name("events".into()).spawn(move || write(&writer, file, path))?;
        Ok(Self { shared })
    }

    /// Takes the lines of one run.
    pub(super) fn lines(&self) -> Lines {
        Lines::File(EventLines { shared: Arc::clone(&self.shared) })
    }
}

impl Drop for EventFile {
    fn drop(&mut self) {
        self.shared.change(|state| state.over = true);
        let begun = Instant::now();
        let mut state = self.shared.lock();
        while !state.waiting.is_empty() || state.writing {
            let patience = if state.open { LAST_LINES.0 } else { LAST_LINES.1 };
            let Some(left) = patience.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else {
                return;
            };
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl EventLines {
    /// Takes a line. Returns false if too much waits already; twice as much may wait before one that `must` be there.
    pub(super) fn put(&self, line: Vec<u8>, must: bool) -> bool {
        let mut state = self.shared.lock();
        if state.over {
            return true;
        }
        let most = if must { 2 * MAX_EVENT_BACKLOG } else { MAX_EVENT_BACKLOG };
        if state.bytes + line.len() > most {
            return false;
        }
        state.bytes += line.len();
        state.waiting.push_back(line);
        drop(state);
        self.shared.changed.notify_all();
        true
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Writes lines until their end. A FIFO (`path`) is opened anew when its reader has gone.
fn write(shared: &Shared, mut file: Option<File>, path: Option<PathBuf>) {
    loop {
        if file.is_none() {
            file = path.as_deref().and_then(|path| open(path).ok());
        }
        let Some(out) = &mut file else { break };
        shared.change(|state| state.open = true);
        let Some(line) = shared.next() else { return };
        let written = out.write_all(&line);
        match written {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe && path.is_some() => {
                file = None;
                shared.change(|state| {
                    state.bytes += line.len();
                    state.waiting.push_front(line);
                    (state.open, state.writing) = (false, false);
                });
            }
            Err(_) => break,
            Ok(()) => shared.change(|state| state.writing = false),
        }
    }
    shared.change(|state| *state = State { over: true, ..State::default() });
}

#[cfg(test)]
mod tests;
