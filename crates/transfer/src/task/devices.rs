//! The list of devices of a task (`--devices`).

use super::Assignment;
use crate::units::{DeviceId, DeviceKey, TaskId};
use std::collections::BTreeMap;

/// A device on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The identifier of its row.
    pub device: DeviceId,
    /// Its name, 1 to 64 bytes: the label of its row.
    pub name: String,
    /// Its key. An entry without a key matches any device of this name.
    pub key: Option<DeviceKey>,
}

/// Why a list of devices is invalid: a lowercase clause without the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A name occurs twice.
    #[error("the name {0:?} is there already; give each device its own name")]
    Name(String),
    /// A key occurs twice.
    #[error("the key is that of {0:?} already; give each device its own key")]
    Key(String),
}

/// A closed list of devices: all of them are to get the object, and no other device is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceList {
    entries: Vec<Listed>,
    by_name: BTreeMap<String, usize>,
    by_key: BTreeMap<DeviceKey, usize>,
}

impl DeviceList {
    /// Adds a device.
    ///
    /// # Errors
    /// If its name or its key is on the list already.
    pub fn add(&mut self, listed: Listed) -> Result<(), ListError> {
        let there = |at: &usize| self.entries[*at].name.clone();
        if let Some(name) = self.by_name.get(&listed.name).map(there) {
            return Err(ListError::Name(name));
        }
        if let Some(name) = listed.key.and_then(|key| self.by_key.get(&key)).map(there) {
            return Err(ListError::Key(name));
        }
        let at = self.entries.len();
        self.by_name.insert(listed.name.clone(), at);
        if let Some(key) = listed.key {
            self.by_key.insert(key, at);
        }
        self.entries.push(listed);
        Ok(())
    }

    /// Whether the list is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of devices on the list.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Listed> {
        self.entries.iter()
    }

    /// The entry of a device with this label and this proven key. An entry with a key matches by the key alone, an
    /// entry without a key by the label alone.
    #[must_use]
    pub fn find(&self, label: &str, key: Option<&DeviceKey>) -> Option<&Listed> {
        let by_key = key.and_then(|key| self.by_key.get(key)).map(|at| &self.entries[*at]);
        by_key.or_else(|| self.named(label).filter(|listed| listed.key.is_none()))
    }

    /// The entry with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Listed> {
        self.by_name.get(name).map(|at| &self.entries[*at])
    }

    /// New assignments of a task, one for each device.
    #[must_use]
    pub fn assignments(&self, task: TaskId) -> Vec<Assignment> {
        self.iter().map(|listed| Assignment::new(task, listed.device, listed.name.clone())).collect()
    }
}
