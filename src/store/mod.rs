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

/// Why a store did not do what it was asked; lowercase clauses for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It holds as many devices of the task as it may.
    #[error("the task has {0} devices already; serve the others with another task")]
    Full(usize),
    /// The system behind it refused, or did not answer in its time.
    #[error("{0}")]
    Unavailable(String),
}

/// Keeps the assignments of all tasks.
///
/// The rules of which state follows which are [`Assignment::may_be_replaced_by`], for every store.
pub trait TaskStore: Send {
    /// What is kept of each of `devices` in `task`, in their order.
    ///
    /// # Errors
    /// When the store fails.
    fn look_up(&mut self, task: TaskId, devices: &[DeviceId]) -> Result<Vec<Option<Assignment>>, StoreError>;

    /// Keeps `assignments`, each a device's at most once, durably, and returns what is kept of each afterwards.
    /// One that may not replace what is there is passed over: what is returned for it is what is there.
    ///
    /// # Errors
    /// When the store is full or fails; then none of them counts as kept, and the same call may be made again.
    fn record(&mut self, assignments: &[Assignment]) -> Result<Vec<Assignment>, StoreError>;

    /// All assignments of `task`, in the order of their devices' identifiers.
    ///
    /// # Errors
    /// When the store fails.
    fn assignments(&mut self, task: TaskId) -> Result<Vec<Assignment>, StoreError>;
}

/// A store that a session's jobs share with whoever reads the rows at the end.
#[derive(Clone)]
pub struct SharedStore(Arc<Mutex<dyn TaskStore>>);

impl SharedStore {
    /// Shares `store`.
    #[must_use]
    pub fn new(store: impl TaskStore + 'static) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// Does something with the store; waits for whoever is at it.
    pub fn with<T>(&self, f: impl FnOnce(&mut dyn TaskStore) -> T) -> T {
        // A store keeps its own order when one of its calls panics.
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
