//! What the records amount to: each step's state.

use super::record::{BootId, Entry, Outcome, Record, StepId};
use std::collections::{BTreeMap, BTreeSet};

/// The state of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Begun and not ended.
    Open { note: String, boot: BootId, runs: u32, committed: bool },
    /// Ended. Its note is of no use any more.
    Ended(Outcome),
}

/// The state of all steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    steps: BTreeMap<StepId, Step>,
    open: usize,
}

impl Table {
    pub fn get(&self, id: &StepId) -> Option<&Step> {
        self.steps.get(id)
    }

    pub fn steps(&self) -> impl Iterator<Item = (&StepId, &Step)> {
        self.steps.iter()
    }

    /// All steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Steps that are begun and not ended.
    pub fn open(&self) -> usize {
        self.open
    }

    /// The tasks that have ended steps.
    pub fn ended_tasks(&self) -> BTreeSet<[u8; 32]> {
        let ended = self.steps.iter().filter(|(_, step)| matches!(step, Step::Ended(_)));
        ended.map(|(id, _)| id.task).collect()
    }

    /// Takes over a record.
    ///
    /// # Errors
    /// If it does not follow from those before it: some are lost. What it says is taken as far as it goes, and in doubt
    /// a step is open: then it is not run again unnoticed.
    pub fn apply(&mut self, entry: Entry) -> Result<(), &'static str> {
        let known = match entry.record {
            Record::Journal { .. } => true,
            Record::Begin { id, note, boot } => {
                self.set(id, Step::Open { note, boot, runs: 1, committed: false }).is_none()
            }
            Record::Open { id, note, boot, runs, committed } => {
                self.set(id, Step::Open { note, boot, runs, committed }).is_none()
            }
            Record::Resume { id, boot } => match self.steps.get_mut(&id) {
                Some(Step::Open { boot: last, runs, .. }) => {
                    (*last, *runs) = (boot, runs.saturating_add(1));
                    true
                }
                _ => {
                    self.set(id, Step::Open { note: String::new(), boot, runs: 2, committed: false });
                    false
                }
            },
            Record::Commit { id } => match self.steps.get_mut(&id) {
                Some(Step::Open { committed, .. }) => {
                    *committed = true;
                    true
                }
                _ => {
                    let boot = BootId(String::new());
                    self.set(id, Step::Open { note: String::new(), boot, runs: 1, committed: true });
                    false
                }
            },
            Record::End { id, outcome } => {
                matches!(self.set(id, Step::Ended(outcome)), Some(Step::Open { .. }))
            }
            Record::Ended { id, outcome } => self.set(id, Step::Ended(outcome)).is_none(),
            Record::Forget { task } => {
                self.steps.retain(|id, step| id.task != task || matches!(step, Step::Open { .. }));
                true
            }
        };
        if known { Ok(()) } else { Err("a record does not follow from those before it") }
    }

    fn set(&mut self, id: StepId, step: Step) -> Option<Step> {
        let opens = matches!(step, Step::Open { .. });
        let before = self.steps.insert(id, step);
        let was_open = matches!(before, Some(Step::Open { .. }));
        self.open = self.open + usize::from(opens) - usize::from(was_open);
        before
    }

    /// The records that rebuild the table.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.steps.iter().map(|(id, step)| match step.clone() {
            Step::Open { note, boot, runs, committed } => {
                Record::Open { id: *id, note, boot, runs, committed }
            }
            Step::Ended(outcome) => Record::Ended { id: *id, outcome },
        })
    }
}
