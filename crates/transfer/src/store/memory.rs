//! A store that lasts as long as the program.

use super::{StoreError, TaskStore};
use crate::limits::MAX_DEVICES;
use crate::task::Assignment;
use crate::units::{DeviceId, TaskId};
use std::collections::BTreeMap;

/// Assignments in memory: at most [`MAX_DEVICES`] for each task.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    tasks: BTreeMap<TaskId, BTreeMap<DeviceId, Assignment>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub const fn new() -> Self {
        Self { tasks: BTreeMap::new() }
    }
}

impl TaskStore for MemoryStore {
    fn look_up(&mut self, task: TaskId, devices: &[DeviceId]) -> Result<Vec<Option<Assignment>>, StoreError> {
        let kept = self.tasks.get(&task);
        Ok(devices.iter().map(|device| kept?.get(device).cloned()).collect())
    }

    fn record(&mut self, assignments: &[Assignment]) -> Result<Vec<Assignment>, StoreError> {
        // Checks that there is room for all of them before it changes anything.
        let mut new: BTreeMap<TaskId, usize> = BTreeMap::new();
        for assignment in assignments {
            let devices = self.tasks.entry(assignment.task).or_default();
            let new = new.entry(assignment.task).or_default();
            *new += usize::from(!devices.contains_key(&assignment.device));
            if devices.len() + *new > MAX_DEVICES {
                return Err(StoreError::Full(devices.len()));
            }
        }
        let kept = assignments.iter().map(|assignment| {
            let devices = self.tasks.entry(assignment.task).or_default();
            let kept = devices.entry(assignment.device).or_insert_with(|| assignment.clone());
            if kept.may_be_replaced_by(assignment) {
                kept.clone_from(assignment);
            }
            kept.clone()
        });
        Ok(kept.collect())
    }

    fn assignments(&mut self, task: TaskId) -> Result<Vec<Assignment>, StoreError> {
        Ok(self.tasks.get(&task).into_iter().flat_map(BTreeMap::values).cloned().collect())
    }
}
