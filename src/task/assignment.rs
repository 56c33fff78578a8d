//! One device's part in a task, and the rules of its states.
//!
//! ```text
//!             take up              start
//!  (nothing) ────────► pending ──────────► active ──┬──► complete   for good
//!                         ▲  └───────────┬──────────┼──► failed, with a reason
//!                         │              └──────────┴──► lost
//!                         └── take up again: the next attempt, from anything but complete
//! ```
//!
//! Within one attempt a state only moves to the right. So of two records of one assignment the later one can be
//! told without a clock, and a store may be given only the last of several.

use crate::units::{DeviceId, TaskId};

/// How far a device is with a task. What its transfer is doing is no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing has been done yet.
    #[default]
    Pending,
    /// The device is at it.
    Active,
    /// Done: the device verified and synced the object, and said so (I2).
    Complete,
    /// The device gave up, or was given up, for this reason (untrusted text).
    Failed(String),
    /// The device has been silent past its deadline.
    Lost,
}

impl State {
    /// Whether nothing more happens unless the device takes the task up again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Complete | Self::Failed(_) | Self::Lost)
    }

    /// The word for it in tables, events and reports.
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

    /// How far to the right it stands within an attempt.
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

/// Something that a device has ended in its present attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The object is verified, and where it belongs.
    Transfer,
    /// The command that was fed with it has ended, with this exit code.
    Command(i32),
    /// The hook that runs afterwards has ended, with this exit code.
    Hook(i32),
}

/// One device's part in a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The task.
    pub task: TaskId,
    /// The device.
    pub device: DeviceId,
    /// The device's label, as it gave it (escape before printing).
    pub label: String,
    /// How often the device has taken the task up.
    pub attempts: u32,
    state: State,
    steps: Vec<Step>,
}

/// An assignment cannot come to this state from the one it has; a lowercase clause for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("device {device} is {from} and cannot become {to} in the same attempt; please report this")]
pub struct Illegal {
    /// The device.
    pub device: DeviceId,
    /// The word for its state.
    pub from: &'static str,
    /// The word for the one refused.
    pub to: &'static str,
}

impl Assignment {
    /// An assignment that the device has not taken up yet.
    #[must_use]
    pub const fn new(task: TaskId, device: DeviceId, label: String) -> Self {
        Self { task, device, label, attempts: 0, state: State::Pending, steps: Vec::new() }
    }

    /// How far the device is.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What it has ended in this attempt, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether the device has done the task.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// The device takes the task up, for the first time or again. One that is complete stays so.
    pub fn take_up(&mut self) {
        if !self.is_complete() {
            self.attempts = self.attempts.saturating_add(1);
            self.state = State::Pending;
            self.steps.clear();
        }
    }

    /// The assignment comes to `state` within its attempt; true if it was in another one.
    ///
    /// # Errors
    /// When that state cannot follow the present one; the assignment stays as it was.
    pub fn set(&mut self, state: State) -> Result<bool, Illegal> {
        if !self.state.may_become(&state) {
            return Err(Illegal { device: self.device, from: self.state.word(), to: state.word() });
        }
        let changed = self.state != state;
        self.state = state;
        Ok(changed)
    }

    /// The device has done the task, by these steps; true if it had not before.
    ///
    /// # Errors
    /// When it has failed or is lost in this attempt; the assignment stays as it was.
    pub fn complete(&mut self, steps: Vec<Step>) -> Result<bool, Illegal> {
        let changed = self.set(State::Complete)?;
        if changed {
            self.steps = steps;
        }
        Ok(changed)
    }

    /// Whether `later` may stand in the place of this record of the same assignment: it is from a later attempt,
    /// or further in the same one. What is complete is so for good (I2).
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

/// How many assignments of a task are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Not begun.
    pub pending: usize,
    /// Under way.
    pub active: usize,
    /// Done.
    pub complete: usize,
    /// Given up, with a reason.
    pub failed: usize,
    /// Silent past the deadline.
    pub lost: usize,
}

impl Summary {
    /// Counts states.
    pub fn of<'a>(states: impl IntoIterator<Item = &'a State>) -> Self {
        let mut summary = Self::default();
        states.into_iter().for_each(|state| *summary.count(state) += 1);
        summary
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.open() + self.complete + self.failed + self.lost
    }

    /// Those for which something is still to be done.
    #[must_use]
    pub const fn open(&self) -> usize {
        self.pending + self.active
    }

    /// The number of those in this state.
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
