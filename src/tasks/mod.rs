//! L3: the task status table: task x device -> status. Every completion request of a device is
//! answered from it, and so are the exit code, the final table and the report.
//!
//! The rows live behind [`StatusStore`]: in memory ([`MemoryStore`]), later on disk. The rules of
//! which status may follow which are here, the same for every store.

mod memory;

pub use memory::MemoryStore;

use crate::status::{DeviceRow, DeviceStatus};
use crate::units::{DeviceId, TaskId};

/// Why a store did not take a row; lowercase clauses for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It holds as many devices of the task as it may.
    #[error("the task has {0} devices already; serve the others with another task")]
    Full(usize),
    /// The system refused to keep it.
    #[error("{0}")]
    Io(String),
}

/// Where the rows of all tasks are kept.
pub trait StatusStore {
    /// The row of `device` in `task`, if there is one.
    fn get(&self, task: TaskId, device: DeviceId) -> Option<DeviceRow>;
    /// Puts `row` in the place of the device's former one, if any.
    ///
    /// # Errors
    /// When the store is full or fails; the former row is then still there.
    fn put(&mut self, task: TaskId, row: DeviceRow) -> Result<(), StoreError>;
    /// All rows of `task`, in the order of their device identifiers.
    fn rows(&self, task: TaskId) -> Vec<DeviceRow>;
}

/// Why a row was not recorded; lowercase clauses for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A device cannot come to this status from the one it has; its row stays as it was.
    #[error("device {device} is {from} and cannot become {to}; please report this")]
    Illegal {
        /// The device.
        device: DeviceId,
        /// The word for its status.
        from: &'static str,
        /// The word for the one refused.
        to: &'static str,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many devices of a task stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Joined, before the stream.
    pub waiting: usize,
    /// Taking the group's stream.
    pub receiving: usize,
    /// Served by unicast repair.
    pub repairing: usize,
    /// Verified and committed.
    pub complete: usize,
    /// Gave up, with a reason.
    pub failed: usize,
    /// Unheard of past the deadline.
    pub lost: usize,
}

impl Summary {
    /// All devices.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.active() + self.complete + self.failed + self.lost
    }
    /// Devices that something is still to be done for.
    #[must_use]
    pub const fn active(&self) -> usize {
        self.waiting + self.receiving + self.repairing
    }
    /// Whether there are devices and every one of them is complete.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete > 0 && self.complete == self.total()
    }

    const fn count(&mut self, status: &DeviceStatus) -> &mut usize {
        match status {
            DeviceStatus::Waiting => &mut self.waiting,
            DeviceStatus::Receiving { .. } => &mut self.receiving,
            DeviceStatus::Repairing { .. } => &mut self.repairing,
            DeviceStatus::Complete => &mut self.complete,
            DeviceStatus::Failed(_) => &mut self.failed,
            DeviceStatus::Lost => &mut self.lost,
        }
    }
}

/// The rows of one task.
#[derive(Debug)]
pub struct TaskTable<S> {
    task: TaskId,
    store: S,
    summary: Summary,
}

impl<S: StatusStore> TaskTable<S> {
    /// The table of `task`, with whatever rows `store` holds for it already.
    #[must_use]
    pub fn new(task: TaskId, store: S) -> Self {
        let mut summary = Summary::default();
        for row in store.rows(task) {
            *summary.count(&row.status) += 1;
        }
        Self { task, store, summary }
    }

    /// The task.
    #[must_use]
    pub const fn task(&self) -> TaskId {
        self.task
    }

    /// The row of `device`, if it ever joined.
    #[must_use]
    pub fn look_up(&self, device: DeviceId) -> Option<DeviceRow> {
        self.store.get(self.task, device)
    }

    /// Whether `device` is known to have the object: the answer to a completion request.
    #[must_use]
    pub fn is_complete(&self, device: DeviceId) -> bool {
        self.look_up(device).is_some_and(|row| row.status == DeviceStatus::Complete)
    }

    /// Takes a device's new row.
    ///
    /// Complete is for good (I2): a row that says otherwise is refused. A device that is lost or
    /// failed may come back to any status (I4), but one that failed is not lost afterwards, for
    /// the reason it gave says more. A device does not return to waiting once it has taken part.
    ///
    /// # Errors
    /// When the status cannot follow the one the device has, or the store fails; the table is
    /// then as it was.
    pub fn record(&mut self, row: DeviceRow) -> Result<(), RecordError> {
        let former = self.look_up(row.device).map(|row| row.status);
        if let Some(from) = &former
            && !may_follow(from, &row.status)
        {
            let (from, to) = (from.word(), row.status.word());
            return Err(RecordError::Illegal { device: row.device, from, to });
        }
        let status = row.status.clone();
        self.store.put(self.task, row)?;
        if let Some(former) = former {
            *self.summary.count(&former) -= 1;
        }
        *self.summary.count(&status) += 1;
        Ok(())
    }

    /// All rows, in the order of their device identifiers.
    #[must_use]
    pub fn rows(&self) -> Vec<DeviceRow> {
        self.store.rows(self.task)
    }

    /// Devices that are complete.
    #[must_use]
    pub const fn count_complete(&self) -> usize {
        self.summary.complete
    }

    /// How many devices stand where.
    #[must_use]
    pub const fn summary(&self) -> Summary {
        self.summary
    }

    /// Gives the store back, for another task.
    #[must_use]
    pub fn into_store(self) -> S {
        self.store
    }
}

const fn may_follow(from: &DeviceStatus, to: &DeviceStatus) -> bool {
    use DeviceStatus::{Complete, Failed, Lost, Receiving, Repairing, Waiting};
    match (from, to) {
        (Complete, to) => matches!(to, Complete),
        (Receiving { .. } | Repairing { .. }, Waiting) | (Failed(_), Lost) => false,
        (Waiting | Receiving { .. } | Repairing { .. } | Failed(_) | Lost, _) => true,
    }
}

#[cfg(test)]
mod tests;
