//! The device's journal: each step of a task happens once, whatever kills the agent or the machine.
//!
//! A step is recorded durably before it acts ([`Journal::begin`]) and after it has ended ([`Journal::end`]). A step that
//! is begun and not ended when the journal is opened was interrupted: [`Opened::unfinished`] lists it, and only its
//! handler's manifest says what follows. What a step does is not decided here; the task runner and `handlers` use this.
//!
//! The file is a list of lines: a checksum, a blank, a record as JSON. See `record` for the form, `disk` for the file
//! operations, and `docs/decisions/0037-handlers.md` for the reasons.

mod disk;
mod record;
mod table;
#[cfg(test)]
mod tests;

pub use record::{Action, BootId, Outcome, StepId, Verdict};

use crate::limits::{
    JOURNAL_SMALL, MAX_JOURNAL, MAX_NOTE, MAX_OPEN_STEPS, MAX_OUTCOME, MAX_RECORD, MAX_STEPS,
};
use disk::{Directory, Disk};
use record::{Entry, Record};
use std::io;
use std::path::Path;
use table::{Step, Table};

/// The name of the file in the directory of the journal.
const FILE: &str = "journal";
/// The name of the file that is about to replace it.
const NEW: &str = "journal.new";
/// The name that a damaged file is kept under.
const DAMAGED: &str = "journal.damaged";

/// Why the journal cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it open.
    #[error("another agent uses the journal; stop that one first")]
    InUse,
    /// The file system failed. Nothing was recorded, unless the journal is broken too.
    #[error("the journal cannot be written ({0}); free or repair the disk of the state directory")]
    Io(#[from] io::Error),
    /// An earlier error left unknown what is on the disk.
    #[error("the journal is in doubt after an earlier disk error; restart the agent")]
    Broken,
    /// Records of a later version.
    #[error("the journal was written by a newer mcp; install that version again")]
    Newer,
    /// More steps or larger notes than the limits allow.
    #[error("the journal is full ({0}); let running tasks end first")]
    Full(&'static str),
    /// The step was begun before and not ended.
    #[error("the step was begun before and has not ended; wait for it, or recover it first")]
    Unfinished,
    /// An answer for a step that is not open.
    #[error("the journal has no such open step; this is a fault of mcp, please report it")]
    NotOpen,
}

/// The right to act for a step that has been recorded as begun. Give it back with [`Journal::end`].
#[derive(Debug)]
#[must_use = "a step that is not ended counts as interrupted"]
pub struct Started(StepId);

impl Started {
    /// The step.
    #[must_use]
    pub fn id(&self) -> StepId {
        self.0
    }
}

/// The answer to [`Journal::begin`].
#[derive(Debug)]
#[must_use]
pub enum Begin {
    /// The step is recorded: act now.
    Started(Started),
    /// It has ended before, like this. Do not act again.
    Ended(Outcome),
    /// It was begun before and not ended. [`Opened::unfinished`] has listed it, or it runs now.
    Unfinished,
}

/// A step that was begun and not ended when the journal was opened.
#[derive(Debug)]
pub struct Unfinished {
    /// The step.
    pub id: StepId,
    /// The note of its beginning.
    pub note: String,
    /// How often it was begun: 1, and one more for each [`Journal::resume`].
    pub runs: u32,
    /// Whether it was past its point of no return ([`Journal::commit`]).
    pub committed: bool,
    /// Whether the machine was restarted since it was last begun. For [`Action::Reboot`] this is its success.
    pub rebooted: bool,
}

/// A journal, and what was found in it.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: Journal,
    /// The interrupted steps, in the order of their identifiers. Each has to be resumed or closed.
    pub unfinished: Vec<Unfinished>,
    /// Set if records were lost to damage: one clause for people. Steps may be missing, so tell the operator. The
    /// damaged file is kept as `journal.damaged`.
    pub damage: Option<String>,
}

/// The journal of one agent. All calls block for the disk.
#[derive(Debug)]
pub struct Journal {
    disk: Box<dyn Disk>,
    table: Table,
    boot: BootId,
    /// The number of the last record.
    seq: u64,
    /// The length of the file in bytes.
    len: u64,
    /// Its length when it was last written whole.
    whole: u64,
    broken: bool,
}

impl Journal {
    /// Opens the journal in `dir`, an existing directory that only the agent can write to, or begins a new one. Holds a
    /// lock as long as the journal lives.
    ///
    /// # Errors
    /// If another process has it open, the file system fails, or a newer version wrote it.
    pub fn open(dir: &Path, boot: BootId) -> Result<Opened, Error> {
        Self::open_on(Box::new(Directory::open(dir)?), boot)
    }

    fn open_on(mut disk: Box<dyn Disk>, boot: BootId) -> Result<Opened, Error> {
        // What a killed rewrite has left.
        disk.remove(NEW)?;
        let found = disk.read(FILE)?;
        if found.is_some() {
            // What a killed agent had not synced must not be lost later, once others were told of it.
            disk.sync(FILE)?;
            disk.sync_names()?;
        }
        let bytes = found.unwrap_or_default();
        let replay = record::replay(&bytes)?;
        let mut table = Table::default();
        let mut damage = replay.damage;
        for entry in replay.entries {
            if let Err(what) = table.apply(entry) {
                damage.get_or_insert_with(|| what.to_owned());
            }
        }
        let whole = bytes.len() as u64;
        let mut journal = Self { disk, table, boot, seq: replay.seq, len: whole, whole, broken: false };
        if damage.is_some() {
            journal.disk.write(DAMAGED, &bytes)?;
            journal.disk.sync(DAMAGED)?;
            journal.rewrite()?;
        } else if replay.intact == 0 {
            journal.rewrite()?;
        } else if replay.intact < whole {
            // A record that was cut off: it was never acknowledged.
            journal.truncate(replay.intact)?;
        }
        let unfinished = journal.unfinished();
        Ok(Opened { journal, unfinished, damage })
    }

    fn unfinished(&self) -> Vec<Unfinished> {
        let open = |(id, step): (&StepId, &Step)| match step {
            Step::Open { note, boot, runs, committed } => Some(Unfinished {
                id: *id,
                note: note.clone(),
                runs: *runs,
                committed: *committed,
                rebooted: *boot != self.boot,
            }),
            Step::Ended(_) => None,
        };
        self.table.steps().filter_map(open).collect()
    }

    /// Records that a step begins, unless it was begun before. `note` is returned with the step if it is interrupted.
    /// Returns once the record is durable.
    ///
    /// # Errors
    /// If it cannot be recorded: then the step must not act.
    pub fn begin(&mut self, id: StepId, note: &str) -> Result<Begin, Error> {
        match self.table.get(&id) {
            Some(Step::Ended(outcome)) => return Ok(Begin::Ended(outcome.clone())),
            Some(Step::Open { .. }) => return Ok(Begin::Unfinished),
            None => {}
        }
        if note.len() > MAX_NOTE {
            return Err(Error::Full("the note of a step is too long"));
        }
        if self.table.open() >= MAX_OPEN_STEPS {
            return Err(Error::Full("too many steps are open"));
        }
        if self.table.len() >= MAX_STEPS {
            return Err(Error::Full("too many steps are remembered"));
        }
        self.shorten()?;
        self.record(Record::Begin { id, note: note.to_owned(), boot: self.boot.clone() })?;
        Ok(Begin::Started(Started(id)))
    }

    /// Records that the step is past its point of no return.
    ///
    /// # Errors
    /// If it cannot be recorded: then the step must not pass it.
    pub fn commit(&mut self, started: &Started) -> Result<(), Error> {
        self.must_be_open(started.0)?;
        self.record(Record::Commit { id: started.0 })
    }

    /// Records how a step ended. Returns once the record is durable.
    ///
    /// # Errors
    /// If it cannot be recorded: then the step counts as interrupted when the journal is next opened.
    pub fn end(&mut self, started: Started, outcome: Outcome) -> Result<(), Error> {
        self.close(started.0, outcome)
    }

    /// Records that an interrupted step is begun again.
    ///
    /// # Errors
    /// If it cannot be recorded: then the step must not act.
    pub fn resume(&mut self, unfinished: Unfinished) -> Result<Started, Error> {
        let id = unfinished.id;
        self.must_be_open(id)?;
        self.shorten()?;
        self.record(Record::Resume { id, boot: self.boot.clone() })?;
        Ok(Started(id))
    }

    /// Records how an interrupted step ended, without running it again: a reboot that has happened, a step that is
    /// reported as interrupted.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub fn settle(&mut self, unfinished: Unfinished, outcome: Outcome) -> Result<(), Error> {
        self.close(unfinished.id, outcome)
    }

    fn close(&mut self, id: StepId, mut outcome: Outcome) -> Result<(), Error> {
        self.must_be_open(id)?;
        let mut end = outcome.text.len().min(MAX_OUTCOME);
        while !outcome.text.is_char_boundary(end) {
            end -= 1;
        }
        outcome.text.truncate(end);
        self.record(Record::End { id, outcome })
    }

    /// How a step ended, if it has.
    #[must_use]
    pub fn outcome(&self, id: &StepId) -> Option<&Outcome> {
        match self.table.get(id)? {
            Step::Ended(outcome) => Some(outcome),
            Step::Open { .. } => None,
        }
    }

    /// Whether a step was ever begun.
    #[must_use]
    pub fn has_begun(&self, id: &StepId) -> bool {
        self.table.get(id).is_some()
    }

    /// Forgets the ended steps of all tasks but those for which `keep` holds. To be called only with tasks that cannot
    /// be offered again: a step that is forgotten could be begun anew.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub fn retain(&mut self, keep: impl Fn(&[u8; 32]) -> bool) -> Result<(), Error> {
        for task in self.table.ended_tasks() {
            if !keep(&task) {
                self.record(Record::Forget { task })?;
            }
        }
        Ok(())
    }

    fn must_be_open(&self, id: StepId) -> Result<(), Error> {
        match self.table.get(&id) {
            Some(Step::Open { .. }) => Ok(()),
            _ => Err(Error::NotOpen),
        }
    }

    /// Appends a record, makes it durable, and applies it.
    fn record(&mut self, record: Record) -> Result<(), Error> {
        if self.broken {
            return Err(Error::Broken);
        }
        let entry = Entry { seq: self.seq + 1, record };
        let line = entry.line();
        if self.len + line.len() as u64 > MAX_JOURNAL {
            return Err(Error::Full("its file is too long"));
        }
        if let Err(error) = self.disk.append(FILE, &line) {
            self.truncate(self.len)?;
            return Err(error.into());
        }
        if let Err(error) = self.disk.sync(FILE) {
            // The kernel may have dropped the pages: what the file holds is unknown until it is read again.
            self.broken = true;
            return Err(error.into());
        }
        (self.seq, self.len) = (entry.seq, self.len + line.len() as u64);
        // Room for the ends of all open steps, so that a full disk cannot turn an end into an interruption.
        let applied = self.table.apply(entry);
        debug_assert!(applied.is_ok(), "only records that fit the table are written");
        let room = (self.table.open() * MAX_RECORD) as u64;
        if room > 0 {
            self.disk.reserve(FILE, self.len, room);
        }
        Ok(())
    }

    /// Cuts the file back to its first `len` bytes, durably.
    fn truncate(&mut self, len: u64) -> Result<(), Error> {
        let cut = self.disk.truncate(FILE, len).and_then(|()| self.disk.sync(FILE));
        self.broken |= cut.is_err();
        cut?;
        self.len = len;
        Ok(())
    }

    /// Rewrites the file when most of it is of no use any more.
    fn shorten(&mut self) -> Result<(), Error> {
        if self.broken || self.len < JOURNAL_SMALL.max(2 * self.whole) {
            return Ok(());
        }
        self.rewrite()
    }

    /// Replaces the file by one with the records that rebuild the table. At any moment the name holds one of the two.
    fn rewrite(&mut self) -> Result<(), Error> {
        let (mut bytes, mut seq) = (Vec::new(), self.seq);
        let records =
            std::iter::once(Record::Journal { version: record::VERSION }).chain(self.table.records());
        for record in records {
            seq += 1;
            bytes.extend(Entry { seq, record }.line());
        }
        let written = self.disk.write(NEW, &bytes).and_then(|()| self.disk.sync(NEW));
        if let Err(error) = written {
            // The old file is as it was.
            let _ = self.disk.remove(NEW);
            return Err(error.into());
        }
        if let Err(error) = self.disk.rename(NEW, FILE).and_then(|()| self.disk.sync_names()) {
            // Either name may survive a power cut.
            self.broken = true;
            return Err(error.into());
        }
        (self.seq, self.len, self.whole) = (seq, bytes.len() as u64, bytes.len() as u64);
        Ok(())
    }
}
