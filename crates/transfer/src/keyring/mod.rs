//! L3: stores the keys of this machine in its state directory. All files have mode 0600 and are written
//! atomically. Every change holds a lock.
//!
//! ```text
//!  sender.key        the key of this machine as a sender; made on first use  own_keys.rs
//!  device.key        and as a device                                         own_keys.rs
//!  keys/NAME.key     group keys (crypto::group has the format)               this file
//!  known-senders     senders seen before: address, key, time                 senders.rs, seen.rs
//!  known-devices     devices seen before: identifier, key, label             devices.rs, seen.rs
//!  completed-sessions  the last one completed of each sender and object      completed.rs, seen.rs
//!  keyring.lock
//! ```
//! A damaged `sender.key`, `device.key` or list is set aside as `.bad`, and a new one is made. A damaged group
//! key is an error: without the key, transfers would run in the clear.
//!
//! A secret that others can read is used, with a warning, and its mode is restricted. Refusing it would not
//! undo a leak and would stop a whole lab; the remedy is a new key.

mod completed;
mod counter;
mod devices;
mod own_keys;
mod seen;
mod senders;

pub use completed::{CompletedOf, CompletedSessions};
pub use counter::unrecorded_session_counter;
pub use devices::KnownDevice;
pub use senders::{KnownSender, SendersError, parse as parse_known_senders};

use crate::crypto::LineError;
use crate::crypto::derive::Secret;
use crate::crypto::group::{self, FileError, GroupKey, GroupKeys};
use crate::limits::{MAX_GROUP_KEYS, MAX_KEY_FILE};
use crate::storage::{make_private_dir, set_aside, write_private};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Suffix of the group keys' files, after the key's name.
const SUFFIX: &str = ".key";

/// Error of the keyring: a lowercase clause with the next step. Contains no secret.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file system failed.
    #[error("cannot {doing} {} ({source}); check the directory, or set MCP_STATE_DIR", path.display())]
    File {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The state directory belongs to another user.
    #[error(
        "the state directory {} belongs to user {owner}, not to this user; give it back with 'chown', or set \
         MCP_STATE_DIR to another",
        path.display()
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
    },
    /// Other users can write to the state directory.
    #[error("others can write to the state directory {}, and so put keys there; run 'chmod go-w' on it", path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
    },
    /// The system provides no randomness.
    #[error("no randomness from the system: {0}")]
    Random(getrandom::Error),
    /// The name is invalid.
    #[error("{0:?} cannot be a key's name: {1}")]
    Name(String, LineError),
    /// No key has this name.
    #[error("there is no key {0}; 'mcp key list' shows which there are")]
    Absent(String),
    /// A key has this name already.
    #[error("there is a key {0} already; 'mcp key rotate {0}' renews it, 'mcp key show {0}' prints it")]
    Exists(String),
    /// The keyring holds as many keys as a receiver can try.
    #[error("there are {MAX_GROUP_KEYS} keys already; drop some with 'mcp key remove'")]
    TooMany,
    /// A group key's file is damaged.
    #[error(
        "the key file {} is unusable: {why}; drop it with 'mcp key remove {name}' and add the key again",
        path.display()
    )]
    Damaged {
        /// The key's name.
        name: String,
        /// Its file.
        path: PathBuf,
        /// The reason.
        why: FileError,
    },
}

/// What [`Keyring::add`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The keyring had no key of this name.
    New,
    /// The key replaced the current key of its name, which is now a previous version.
    Renewed,
    /// The key already is the current one.
    Current,
    /// The key already is a previous version; the current key stays.
    Older,
}

/// The keys in a state directory.
#[derive(Clone, Debug)]
pub struct Keyring {
    dir: PathBuf,
}

impl Keyring {
    /// The keyring in `dir`. The directory is created with the first key.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Checks that only this user controls the state directory. Call before reading anything from it. Returns the
    /// reason if the directory cannot be read. A directory that does not exist yet is valid.
    ///
    /// # Errors
    /// If it belongs to another user, or others can write to it.
    pub fn check(&self) -> Result<Option<String>, KeyringError> {
        let (path, shown) = (&self.dir, self.dir.display());
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Ok(Some(format!("the state directory {shown} cannot be read ({e})"))),
        };
        if !metadata.is_dir() {
            return Ok(Some(format!("the state directory {shown} is none")));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(KeyringError::Owner { path: path.clone(), owner: metadata.uid() });
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(KeyringError::Writable { path: path.clone() });
        }
        Ok(None)
    }

    /// The names of the group keys, sorted. Ignores files without a valid key name.
    ///
    /// # Errors
    /// If the directory cannot be read. A missing directory has no keys and is no error.
    pub fn names(&self) -> Result<Vec<String>, KeyringError> {
        let dir = self.dir.join("keys");
        let refused = |source| KeyringError::File { doing: "read", path: dir.clone(), source };
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            // A file in the directory's place means that there are no keys either.
            Err(e) if is_absent(&e) => return Ok(Vec::new()),
            Err(e) => return Err(refused(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(refused)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX));
            names.extend(name.filter(|name| group::check_name(name).is_ok()).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// The group keys of this name. Adds warnings for the user to `warnings`.
    ///
    /// # Errors
    /// If there is no key of this name, its file is damaged, or it cannot be read.
    pub fn keys(&self, name: &str, warnings: &mut Vec<String>) -> Result<GroupKeys, KeyringError> {
        let path = self.path(name)?;
        let advice = format!("renew it with 'mcp key rotate {name}' if somebody did");
        let bytes = read_private(&path, MAX_KEY_FILE, Some(&advice), warnings)?;
        let bytes = bytes.ok_or_else(|| KeyringError::Absent(name.to_owned()))?;
        let damaged = |why| KeyringError::Damaged { name: name.to_owned(), path: path.clone(), why };
        let keys = GroupKeys::parse(&bytes).map_err(damaged)?;
        if keys.current().name() != name {
            return Err(damaged(FileError::Mixed(1)));
        }
        Ok(keys)
    }

    /// Makes and stores a group key.
    ///
    /// # Errors
    /// If the name is invalid or taken, or the file system or the system's randomness fails.
    pub fn create(&self, name: &str) -> Result<GroupKey, KeyringError> {
        let path = self.path(name)?;
        let _lock = self.lock()?;
        if path.exists() {
            return Err(KeyringError::Exists(name.to_owned()));
        }
        let key = fresh(name)?;
        self.write_new(&path, &GroupKeys::new(key.clone()))?;
        Ok(key)
    }

    /// Stores group keys of one name. Sets a damaged file of that name aside.
    ///
    /// # Errors
    /// If there are too many keys, or the file system fails.
    pub fn add(&self, keys: GroupKeys, warnings: &mut Vec<String>) -> Result<Added, KeyringError> {
        let name = keys.current().name().to_owned();
        let path = self.path(&name)?;
        let _lock = self.lock()?;
        let mut here = match self.keys(&name, warnings) {
            Ok(here) => here,
            Err(KeyringError::Absent(_)) => {
                self.write_new(&path, &keys)?;
                return Ok(Added::New);
            }
            Err(KeyringError::Damaged { path, why, .. }) => {
                let aside = at("set aside", &path, set_aside(&path))?;
                warnings
                    .push(format!("the key file there was unusable ({why}) and is now {}", aside.display()));
                self.write_new(&path, &keys)?;
                return Ok(Added::New);
            }
            Err(e) => return Err(e),
        };
        let added = if here.current().same_secret(keys.current()) {
            Added::Current
        } else if here.older().iter().any(|older| older.same_secret(keys.current())) {
            Added::Older
        } else {
            Added::Renewed
        };
        here.merge(keys);
        at("write", &path, write_private(&path, here.text().as_bytes()))?;
        Ok(added)
    }

    /// Makes a new secret for a name. The current secret becomes a previous version.
    ///
    /// # Errors
    /// As for [`Keyring::keys`], or if the file system or the system's randomness fails.
    pub fn rotate(&self, name: &str, warnings: &mut Vec<String>) -> Result<GroupKey, KeyringError> {
        let _lock = self.lock()?;
        let mut keys = self.keys(name, warnings)?;
        let key = fresh(name)?;
        keys.renew(key.clone());
        let path = self.path(name)?;
        at("write", &path, write_private(&path, keys.text().as_bytes()))?;
        Ok(key)
    }

    /// Removes all keys of a name, even if their file is damaged.
    ///
    /// # Errors
    /// If there is no key of this name, or the file system fails.
    pub fn remove(&self, name: &str) -> Result<(), KeyringError> {
        let path = self.path(name)?;
        let _lock = self.lock()?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(KeyringError::Absent(name.to_owned())),
            other => at("remove", &path, other),
        }
    }

    /// Removes the previous versions of a key; returns their number.
    ///
    /// # Errors
    /// As for [`Keyring::keys`], or if the file system fails.
    pub fn remove_older(&self, name: &str, warnings: &mut Vec<String>) -> Result<usize, KeyringError> {
        let _lock = self.lock()?;
        let mut keys = self.keys(name, warnings)?;
        let dropped = keys.older().len();
        keys.drop_older();
        let path = self.path(name)?;
        at("write", &path, write_private(&path, keys.text().as_bytes()))?;
        Ok(dropped)
    }

    fn write_new(&self, path: &Path, keys: &GroupKeys) -> Result<(), KeyringError> {
        if self.names()?.len() >= MAX_GROUP_KEYS {
            return Err(KeyringError::TooMany);
        }
        let dir = self.dir.join("keys");
        at("make", &dir, make_private_dir(&dir))?;
        at("write", path, write_private(path, keys.text().as_bytes()))
    }

    fn path(&self, name: &str) -> Result<PathBuf, KeyringError> {
        group::check_name(name).map_err(|e| KeyringError::Name(name.to_owned(), e))?;
        Ok(self.dir.join("keys").join(format!("{name}{SUFFIX}")))
    }

    /// Locks the keyring, after waiting for any other process that holds the lock. Creates the directory if
    /// needed. The lock lasts as long as the returned file.
    fn lock(&self) -> Result<File, KeyringError> {
        at("make", &self.dir, make_private_dir(&self.dir))?;
        let path = self.dir.join("keyring.lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        at("lock", &path, open.and_then(|file| file.lock().map(|()| file)))
    }
}

/// Converts an error of the file system about `path` to an error of the keyring.
fn at<T>(doing: &'static str, path: &Path, result: io::Result<T>) -> Result<T, KeyringError> {
    result.map_err(|source| KeyringError::File { doing, path: path.to_owned(), source })
}

/// Whether the error means that no file exists at the path.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A key with a random secret.
fn fresh(name: &str) -> Result<GroupKey, KeyringError> {
    let key = GroupKey::new(name, random_secret()?);
    key.map_err(|e| KeyringError::Name(name.to_owned(), e))
}

fn random_secret() -> Result<Secret, KeyringError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(KeyringError::Random)?;
    Ok(Secret::new(*bytes))
}

/// Reads at most `most + 1` bytes of a file with secrets; `None` if the file does not exist. Adds a warning
/// if other users can read or change the file. With `advice` the file is the keyring's own: its mode is
/// restricted, and the warning ends with the advice. Without, the warning asks the user to restrict it.
///
/// # Errors
/// If the file system fails.
pub fn read_private(
    path: &Path,
    most: usize,
    advice: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<Option<Zeroizing<Vec<u8>>>, KeyringError> {
    let file = match File::open(path) {
        Err(e) if is_absent(&e) => return Ok(None),
        other => at("read", path, other)?,
    };
    let metadata = at("read", path, file.metadata())?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        let shown = path.display();
        warnings.push(match advice {
            Some(advice) => {
                let mended = file.set_permissions(Permissions::from_mode(0o600));
                let mended =
                    mended.map_or_else(|e| format!("still can ({e})"), |()| "no longer can".to_owned());
                format!("others on this machine could read or change {shown}, and {mended}; {advice}")
            }
            None => format!("others on this machine can read or change {shown}; run 'chmod 600' on it"),
        });
    }
    // Allocated at once: a growing vector would leave copies of secrets in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 64));
    at("read", path, file.take(most as u64 + 1).read_to_end(&mut bytes))?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
