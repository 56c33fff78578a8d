//! One device's part in a task, and the rules of its states.
//!
//! ```text
//!             take up              start
//!  (nothing) ────────► pending ──────────► active ──┬──► complete   final
//!                         ▲  └───────────┬──────────┼──► failed, with a reason
//!                         │              └──────────┴──► lost
//!                         └── take up again: the next attempt, from any state but complete
//! ```
//!
//! Within one attempt a state only moves to the right. So two records of an assignment are ordered without a clock,
//! and a store needs only the last of several records.

use crate::units::{DeviceId, TaskId};

/// The state of a device's task. It says nothing about the transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The device has not begun.
    #[default]
    Pending,
    /// The device is working on it.
    Active,
    /// The device has verified and synced the object and has sent a receipt (I2).
    Complete,
    /// The device failed, or was given up, for this reason (untrusted text).
    Failed(String),
    /// The device was silent beyond its deadline.
    Lost,
}

impl State {
    /// Whether the state is final unless the device takes the task up again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Complete | Self::Failed(_) | Self::Lost)
    }

    /// The word for the state in tables, events and reports.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Complete => "complete",
            Self::Failed(_) => "failed",
            Self::Lost => "lost",
        }
    }

    /// The position of the state within an attempt: later states have higher ranks.
    const fn rank(&self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Active => 1,
            Self::Complete | Self::Failed(_) | Self::Lost => 2,
        }
    }

    /// Whether `to` may follow within one attempt.
    fn may_become(&self, to: &Self) -> bool {
        self == to || self.rank() < to.rank()
    }
}

/// A step that a device has finished in its present attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The object is verified and has its final name.
    Transfer,
    /// The command that read the object has ended, with this exit code.
    Command(i32),
    /// The hook, which runs once the object is in place (`--then`), has ended, with this exit code.
    Hook(i32),
}

impl Step {
    /// Why the step makes the device fail: one clause for people. `None` if it succeeded. A negative status is the
    /// number of the signal that ended the command.
    #[must_use]
    pub fn failure(self) -> Option<String> {
        let (what, status) = match self {
            Self::Transfer | Self::Command(0) | Self::Hook(0) => return None,
            Self::Command(status) => ("its command", status),
            Self::Hook(status) => ("its --then command", status),
        };
        Some(format!("{what} {}", crate::text::ended(status)))
    }
}

/// One device's part in a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The task.
    pub task: TaskId,
    /// The device.
    pub device: DeviceId,
    /// The label that the device gave. Untrusted: escape before printing.
    pub label: String,
    /// The number of times that the device has taken the task up.
    pub attempts: u32,
    state: State,
    steps: Vec<Step>,
}

/// An assignment cannot change to this state; a lowercase clause for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("device {device} is {from} and cannot become {to} in the same attempt; please report this")]
pub struct Illegal {
    /// The device.
    pub device: DeviceId,
    /// The word for its present state.
    pub from: &'static str,
    /// The word for the refused state.
    pub to: &'static str,
}

impl Assignment {
    /// An assignment that the device has not taken up.
    #[must_use]
    pub const fn new(task: TaskId, device: DeviceId, label: String) -> Self {
        Self { task, device, label, attempts: 0, state: State::Pending, steps: Vec::new() }
    }

    /// The state of the task.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The finished steps of this attempt, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether the device has completed the task.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// Takes the task up, for the first time or again. A complete assignment stays complete.
    pub fn take_up(&mut self) {
        if !self.is_complete() {
            self.attempts = self.attempts.saturating_add(1);
            self.state = State::Pending;
            self.steps.clear();
        }
    }

    /// Changes the state within the attempt. Returns whether it changed.
    ///
    /// # Errors
    /// If `state` cannot follow the present one. The assignment is then unchanged.
    pub fn set(&mut self, state: State) -> Result<bool, Illegal> {
        if !self.state.may_become(&state) {
            return Err(Illegal { device: self.device, from: self.state.word(), to: state.word() });
        }
        let changed = self.state != state;
        self.state = state;
        Ok(changed)
    }

    /// Ends the attempt with these steps: complete, or failed if one of them failed. Returns whether the state
    /// changed.
    ///
    /// # Errors
    /// If the attempt has ended in another way. The assignment is then unchanged.
    pub fn end(&mut self, steps: Vec<Step>) -> Result<bool, Illegal> {
        let failure = steps.iter().find_map(|step| step.failure());
        let changed = self.set(failure.map_or(State::Complete, State::Failed))?;
        if changed {
            self.steps = steps;
        }
        Ok(changed)
    }

    /// Whether `later` may replace this record of the same assignment: it has a later attempt, or a later
    /// state of the same attempt. A complete assignment stays complete (I2).
    #[must_use]
    pub fn may_be_replaced_by(&self, later: &Self) -> bool {
        let same = (self.task, self.device) == (later.task, later.device);
        let follows = match later.attempts.cmp(&self.attempts) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => self.state.may_become(&later.state),
            std::cmp::Ordering::Greater => true,
        };
        same && follows && (!self.is_complete() || later.is_complete())
    }
}

/// The number of a task's assignments in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Not begun.
    pub pending: usize,
    /// In progress.
    pub active: usize,
    /// Complete.
    pub complete: usize,
    /// Failed, with a reason.
    pub failed: usize,
    /// Lost.
    pub lost: usize,
}

impl Summary {
    /// Counts states.
    pub fn of<'a>(states: impl IntoIterator<Item = &'a State>) -> Self {
        let mut summary = Self::default();
        states.into_iter().for_each(|state| *summary.count(state) += 1);
        summary
    }

    /// The number of all assignments.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.open() + self.complete + self.failed + self.lost
    }

    /// The number of assignments that are not final.
    #[must_use]
    pub const fn open(&self) -> usize {
        self.pending + self.active
    }

    /// The number of assignments in this state.
    pub const fn count(&mut self, state: &State) -> &mut usize {
        match state {
            State::Pending => &mut self.pending,
            State::Active => &mut self.active,
            State::Complete => &mut self.complete,
            State::Failed(_) => &mut self.failed,
            State::Lost => &mut self.lost,
        }
    }
}

impl std::ops::Add for Summary {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.pending += other.pending;
        self.active += other.active;
        self.complete += other.complete;
        self.failed += other.failed;
        self.lost += other.lost;
    }
}

impl std::ops::SubAssign for Summary {
    fn sub_assign(&mut self, other: Self) {
        self.pending -= other.pending;
        self.active -= other.active;
        self.complete -= other.complete;
        self.failed -= other.failed;
        self.lost -= other.lost;
    }
}
