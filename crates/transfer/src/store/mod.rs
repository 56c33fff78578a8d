//! L3: where assignments are kept: task x device -> state. The sender answers joins from the store, and the exit
//! code, the final table and the report are made from it.
//!
//! A store may be slow, and may fail. It is used on a thread of its own (`engine::jobs`), never by a session's loop.
//! `protocol::sender::records` decides what a failure means.

mod memory;

pub use memory::MemoryStore;

use crate::task::Assignment;
use crate::units::{DeviceId, TaskId};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a store failed; lowercase clauses for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It has as many devices of the task as it may have.
    #[error("the task has {0} devices already; serve the others with another task")]
    Full(usize),
    /// The system behind it refused, or did not answer in time.
    #[error("{0}")]
    Unavailable(String),
}

/// Keeps the assignments of all tasks.
///
/// [`Assignment::may_be_replaced_by`] has the rules of which state follows which. Every store follows them.
pub trait TaskStore: Send {
    /// The assignment of each of `devices` in `task`, in their order.
    ///
    /// # Errors
    /// If the store fails.
    fn look_up(&mut self, task: TaskId, devices: &[DeviceId]) -> Result<Vec<Option<Assignment>>, StoreError>;

    /// Records `assignments` durably, at most one for each device, and returns the assignment of each device
    /// afterwards. An assignment that may not replace the recorded one is skipped; then the recorded one is
    /// returned.
    ///
    /// # Errors
    /// If the store is full or fails. Then none of them counts as recorded, and the call can be repeated.
    fn record(&mut self, assignments: &[Assignment]) -> Result<Vec<Assignment>, StoreError>;

    /// All assignments of `task`, in the order of their devices' identifiers.
    ///
    /// # Errors
    /// If the store fails.
    fn assignments(&mut self, task: TaskId) -> Result<Vec<Assignment>, StoreError>;
}

/// A store that a session's jobs and the reader of the last rows share.
#[derive(Clone)]
pub struct SharedStore(Arc<Mutex<dyn TaskStore>>);

impl SharedStore {
    /// Shares `store`.
    #[must_use]
    pub fn new(store: impl TaskStore + 'static) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// Calls `f` with the store. Waits while another thread uses it.
    pub fn with<T>(&self, f: impl FnOnce(&mut dyn TaskStore) -> T) -> T {
        // A store stays consistent if one of its calls panics.
        f(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for SharedStore {
    fn default() -> Self {
        Self::new(MemoryStore::new())
    }
}

impl std::fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedStore")
    }
}

#[cfg(test)]
mod tests;
