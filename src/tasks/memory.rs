//! A store that lasts as long as the program.

use super::{StatusStore, StoreError};
use crate::limits::MAX_DEVICES;
use crate::status::DeviceRow;
use crate::units::{DeviceId, TaskId};
use std::collections::BTreeMap;

/// Rows in memory: at most [`MAX_DEVICES`] a task.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    tasks: BTreeMap<TaskId, BTreeMap<DeviceId, DeviceRow>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub const fn new() -> Self {
        Self { tasks: BTreeMap::new() }
    }
}

impl StatusStore for MemoryStore {
    fn get(&self, task: TaskId, device: DeviceId) -> Option<DeviceRow> {
        self.tasks.get(&task)?.get(&device).cloned()
    }

    fn put(&mut self, task: TaskId, row: DeviceRow) -> Result<(), StoreError> {
        let devices = self.tasks.entry(task).or_default();
        if devices.len() >= MAX_DEVICES && !devices.contains_key(&row.device) {
            return Err(StoreError::Full(devices.len()));
        }
        devices.insert(row.device, row);
        Ok(())
    }

    fn rows(&self, task: TaskId) -> Vec<DeviceRow> {
        self.tasks.get(&task).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }
}
