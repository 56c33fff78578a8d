//! The devices that a task is for, where they are known beforehand.

use super::Assignment;
use crate::units::{DeviceId, DeviceKey, TaskId};
use std::collections::BTreeMap;

/// A device that is to have the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The identifier of its row.
    pub device: DeviceId,
    /// Its name, 1 to 64 bytes: the label of its row.
    pub name: String,
    /// Its key. Without one, any device of this name is taken for it.
    pub key: Option<DeviceKey>,
}

/// Why a list of devices cannot be: a lowercase clause without the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A name comes a second time.
    #[error("the name {0:?} is there already; every device has a name of its own")]
    Name(String),
    /// A key comes a second time.
    #[error("the key is that of {0:?} already; every device has a key of its own")]
    Key(String),
}

/// A closed list of devices: these are to have the object, and nobody else is served.
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

    /// Whether nobody is on it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many devices are on it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of them, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = &Listed> {
        self.entries.iter()
    }

    /// The listed device that one with this label and this key is; the key is one that it has shown to have. An
    /// entry with a key is found by the key alone, one without by the label alone.
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

    /// The assignments of a task for these devices, none of them taken up.
    #[must_use]
    pub fn assignments(&self, task: TaskId) -> Vec<Assignment> {
        self.iter().map(|listed| Assignment::new(task, listed.device, listed.name.clone())).collect()
    }
}
