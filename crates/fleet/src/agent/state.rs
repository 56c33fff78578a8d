//! The device's state directory: who the device is, what it trusts, its tasks. Every file has mode 0600 and is replaced whole, synced;
//! the directory has mode 0700 and belongs to one agent at a time.

use super::work::Work;
use crate::documents::{FleetId, Hash, Trusted};
use crate::lock::Lock;
use mcp_transfer::storage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Error of the state directory: a lowercase clause with the next step.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system failed.
    #[error("cannot use {} ({source}); check the directory, or give another with --state", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Others could change what the agent trusts.
    #[error("others can write to {}, or it belongs to another user; run 'chown' and 'chmod 700' on it", .0.display())]
    Open(PathBuf),
    /// Another agent runs.
    #[error("another agent uses {}; stop it first", .0.display())]
    InUse(PathBuf),
    /// A file is damaged.
    #[error("{} is damaged ({why}); move it away, and join the fleet again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Who the device is, towards one server.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The server, without tenant and path of the interface.
    pub server: String,
    /// The tenant.
    pub tenant: String,
    /// The device's name.
    pub device: String,
    /// The value of the header `Authorization`, if there is one.
    #[serde(default)]
    pub authorization: Option<String>,
    /// The pin of the server's certificate; `None`: the system's authorities decide.
    #[serde(default)]
    pub pin: Option<Hash>,
    /// The fleet; `None` at a server that is not ours.
    #[serde(default)]
    pub fleet: Option<FleetId>,
}

/// What the device has completed under a task's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Completed {
    /// The task's version.
    pub version: String,
    /// Its serial.
    pub serial: u64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Whether the version is that of the device's software: of an update, or of files of a server that is not ours.
    #[serde(default)]
    pub software: bool,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct StateDir {
    dir: PathBuf,
    lock: Option<Lock>,
}

impl StateDir {
    /// The directory for reading only: for `mcp agent status`, beside an agent that runs.
    pub(crate) fn read_only(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), lock: None }
    }

    /// Makes the directory if it is missing, and takes its lock.
    ///
    /// # Errors
    /// If others can write to it, another agent has it, or the file system fails.
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::File { path, source }
        };
        for dir in [dir.to_owned(), dir.join("tasks"), dir.join("parts"), dir.join("journal")] {
            storage::make_private_dir(&dir).map_err(failed(&dir))?;
        }
        let meta = fs::metadata(dir).map_err(failed(dir))?;
        if meta.mode() & 0o022 != 0 || meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(StateError::Open(dir.to_owned()));
        }
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed(dir))?;
        let path = dir.join("lock");
        let lock = Lock::take(&path).map_err(failed(&path))?;
        let lock = lock.ok_or_else(|| StateError::InUse(dir.to_owned()))?;
        for dir in [dir.to_owned(), dir.join("tasks")] {
            // What an agent that was killed did not come to rename.
            for entry in fs::read_dir(&dir).map_err(failed(&dir))?.flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "tmp") {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), lock: Some(lock) })
    }

    /// The path of a file in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Replaces a file by these bytes, synced.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        debug_assert!(self.lock.is_some(), "only the agent writes");
        let path = self.path(name);
        storage::write_private(&path, bytes).map_err(|source| StateError::File { path, source })
    }

    /// The value in a file, `None` if there is no such file.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| StateError::Damaged { path, why: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::File { path, source }),
        }
    }

    /// Writes a value as JSON.
    pub(crate) fn put<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        // The state's types have string keys and integers only.
        self.write(name, &serde_json::to_vec_pretty(value).unwrap_or_default())
    }

    /// What the device trusts.
    pub(crate) fn trusted(&self) -> Result<Option<Trusted>, StateError> {
        let path = self.path("trusted.json");
        match fs::read(&path) {
            Ok(bytes) => Trusted::parse(&bytes)
                .map(Some)
                .map_err(|error| StateError::Damaged { path, why: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::File { path, source }),
        }
    }

    /// The tasks.
    pub(crate) fn works(&self) -> Result<BTreeMap<Hash, Work>, StateError> {
        let path = self.path("tasks");
        let failed = |source| StateError::File { path: path.clone(), source };
        let mut works = BTreeMap::new();
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(works),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(".json")) else { continue };
            if let Some(work) = self.read::<Work>(&format!("tasks/{name}"))? {
                works.insert(work.id, work);
            }
        }
        Ok(works)
    }

    /// Stores a task.
    pub(crate) fn put_work(&self, work: &Work) -> Result<(), StateError> {
        self.put(&format!("tasks/{}.json", work.id), work)
    }

    /// Forgets a task and its part files.
    pub(crate) fn forget_work(&self, id: Hash) {
        // What stays behind is loaded as a task that has ended, and forgotten the next time.
        let _ = fs::remove_file(self.path(&format!("tasks/{id}.json")));
        let _ = fs::remove_dir_all(self.path(&format!("parts/{id}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_whole_and_for_one_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let state = StateDir::open(&path).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse(_))));
        state.put("x.json", &vec![1, 2]).unwrap();
        assert_eq!(state.read::<Vec<u8>>("x.json").unwrap(), Some(vec![1, 2]));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("x.json"))), (0o700, 0o600));
        fs::write(path.join("x.json"), "{").unwrap();
        assert!(matches!(state.read::<Vec<u8>>("x.json"), Err(StateError::Damaged { .. })));
        drop(state);
        fs::set_permissions(&path, Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::Open(_))));
    }
}
