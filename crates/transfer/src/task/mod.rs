//! L1: tasks and assignments. A task says what to do; an assignment is one device's part, with its state. This module
//! has the values and the rules of the states. `store` has the storage, `protocol::statistics` the transfer's figures.

mod assignment;
mod devices;

pub use assignment::{Assignment, Illegal, State, Step, Summary};
pub use devices::{DeviceList, ListError, Listed};

use crate::units::{Digest, TaskId};

/// What devices do with the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskKind {
    /// Keep it as a file.
    #[default]
    Copy,
    /// Install it.
    Install,
    /// Update an installed version with it.
    Update,
    /// Feed it to a batch job.
    Batch,
}

impl TaskKind {
    /// The number on the wire and in stores.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Copy => 0,
            Self::Install => 1,
            Self::Update => 2,
            Self::Batch => 3,
        }
    }

    /// The kind with this number; `None` if there is none.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0 => Some(Self::Copy),
            1 => Some(Self::Install),
            2 => Some(Self::Update),
            3 => Some(Self::Batch),
            _ => None,
        }
    }

    /// The word for the kind in tables, events and reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Install => "install",
            Self::Update => "update",
            Self::Batch => "batch",
        }
    }
}

/// Options of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskOptions {
    /// The expected number of devices. Devices beyond it count too.
    pub expected: Option<u32>,
    /// The only devices that may take part. `None` admits every device.
    pub devices: Option<DeviceList>,
}

impl TaskOptions {
    /// The expected number of devices, if known.
    #[must_use]
    pub fn expected(&self) -> Option<u32> {
        let listed = self.devices.as_ref().map(|devices| u32::try_from(devices.len()).unwrap_or(u32::MAX));
        listed.or(self.expected)
    }
}

/// A task for many devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Its identifier.
    pub id: TaskId,
    /// The kind of task.
    pub kind: TaskKind,
    /// The object's name, 1 to 255 bytes.
    pub name: String,
    /// Digest of the object's manifest, if it has one.
    pub manifest: Option<Digest>,
    /// Its options.
    pub options: TaskOptions,
}

impl Task {
    /// A task to copy the object `name`, with no options.
    #[must_use]
    pub fn copy(id: TaskId, name: &str) -> Self {
        Self { id, name: name.to_owned(), ..Self::default() }
    }

    /// The number of devices that must complete the task, if `assigned` devices have an assignment.
    #[must_use]
    pub fn wanted(&self, assigned: usize) -> usize {
        assigned.max(self.options.expected().unwrap_or(0) as usize)
    }
}

#[cfg(test)]
mod tests;
