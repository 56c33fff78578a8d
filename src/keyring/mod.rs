//! L3: the keys of this machine, in its state directory. All files are of the mode 0600, and appear whole
//! or not at all; changes hold a lock.
//!
//! ```text
//!  sender.key        who this machine is as a sender; made on first use      sender_key.rs
//!  keys/NAME.key     group keys (crypto::group has the format)               this file
//!  known-senders     senders seen before: address, key, when                 senders.rs
//!  keyring.lock
//! ```
//! A damaged `sender.key` or `known-senders` is set aside as `.bad`, and another is made. Not so a group
//! key: to go on without it would be to send and receive in the clear.
//!
//! A secret that others may read is taken all the same, with a warning, and its mode is mended: whoever
//! wanted to read it has done so, and to refuse would stop a whole lab for what a new key must mend.

mod counter;
mod sender_key;
mod senders;

pub use counter::unrecorded_session_counter;
pub use senders::{KnownSender, SendersError, parse as parse_known_senders};

use crate::crypto::LineError;
use crate::crypto::derive::Secret;
use crate::crypto::group::{self, FileError, GroupKey, GroupKeys};
use crate::limits::{MAX_GROUP_KEYS, MAX_KEY_FILE};
use crate::storage::{make_private_dir, set_aside, write_private};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What the files of group keys are called behind their names.
const SUFFIX: &str = ".key";

/// Why the keyring could not do it; lowercase clauses with the next step. No secret is in them.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file system refused.
    #[error("cannot {doing} {} ({source}); check the directory, or set MCP_STATE_DIR", path.display())]
    File {
        /// What was to be done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no randomness.
    #[error("no randomness from the system: {0}")]
    Random(getrandom::Error),
    /// No name for a key.
    #[error("{0:?} cannot be a key's name: {1}")]
    Name(String, LineError),
    /// No such key.
    #[error("there is no key {0}; 'mcp key list' shows which there are")]
    Absent(String),
    /// Such a key is there.
    #[error("there is a key {0} already; 'mcp key rotate {0}' renews it, 'mcp key show {0}' prints it")]
    Exists(String),
    /// More keys than a receiver tries.
    #[error("there are {MAX_GROUP_KEYS} keys already; drop some with 'mcp key remove'")]
    TooMany,
    /// A group key's file is none.
    #[error(
        "the key file {} is unusable: {why}; drop it with 'mcp key remove {name}' and add the key again",
        path.display()
    )]
    Damaged {
        /// The key's name.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        why: FileError,
    },
}

/// What [`Keyring::add`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The key is new here.
    New,
    /// It took the place of another one of the same name, which is an older one now.
    Renewed,
    /// It is the current one already.
    Current,
    /// It is there already, as an older one; the current one stays.
    Older,
}

/// The keys in a state directory.
#[derive(Clone, Debug)]
pub struct Keyring {
    dir: PathBuf,
}

impl Keyring {
    /// The keys in `dir`, which is made when there is something to keep.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The names of the group keys, in order. Files that cannot be one are passed over.
    ///
    /// # Errors
    /// When the directory cannot be read; that it is not there means that there are none.
    pub fn names(&self) -> Result<Vec<String>, KeyringError> {
        let dir = self.dir.join("keys");
        let refused = |source| KeyringError::File { doing: "read", path: dir.clone(), source };
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            // A directory that is none has nothing in it either.
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

    /// The group keys of this name. Adds to `warnings` what the user should be told.
    ///
    /// # Errors
    /// When there are none, they are damaged, or they cannot be read.
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

    /// Makes a group key.
    ///
    /// # Errors
    /// When the name is none or taken, or the file system or the system's randomness refuses.
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

    /// Takes group keys in. A file that is damaged is set aside for them.
    ///
    /// # Errors
    /// When there are too many keys, or the file system refuses.
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

    /// Makes a new secret for a name; the one before becomes an older one.
    ///
    /// # Errors
    /// As for [`Keyring::keys`], or when the system refuses randomness or writing.
    pub fn rotate(&self, name: &str, warnings: &mut Vec<String>) -> Result<GroupKey, KeyringError> {
        let _lock = self.lock()?;
        let mut keys = self.keys(name, warnings)?;
        let key = fresh(name)?;
        keys.renew(key.clone());
        let path = self.path(name)?;
        at("write", &path, write_private(&path, keys.text().as_bytes()))?;
        Ok(key)
    }

    /// Drops the keys of a name, damaged ones too.
    ///
    /// # Errors
    /// When there are none, or the file system refuses.
    pub fn remove(&self, name: &str) -> Result<(), KeyringError> {
        let path = self.path(name)?;
        let _lock = self.lock()?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(KeyringError::Absent(name.to_owned())),
            other => at("remove", &path, other),
        }
    }

    /// Drops the keys of a name that came before the current one; returns how many there were.
    ///
    /// # Errors
    /// As for [`Keyring::keys`], or when the file system refuses.
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

    /// Makes the directory if need be, and waits for whoever else changes it. The lock is held for as
    /// long as the file that is returned.
    fn lock(&self) -> Result<File, KeyringError> {
        at("make", &self.dir, make_private_dir(&self.dir))?;
        let path = self.dir.join("keyring.lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        at("lock", &path, open.and_then(|file| file.lock().map(|()| file)))
    }
}

/// What the file system said of `path`, as an error of the keyring.
fn at<T>(doing: &'static str, path: &Path, result: io::Result<T>) -> Result<T, KeyringError> {
    result.map_err(|source| KeyringError::File { doing, path: path.to_owned(), source })
}

/// Whether there is nothing at that path, and nothing can be.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A key nobody has.
fn fresh(name: &str) -> Result<GroupKey, KeyringError> {
    let key = GroupKey::new(name, random_secret()?);
    key.map_err(|e| KeyringError::Name(name.to_owned(), e))
}

fn random_secret() -> Result<Secret, KeyringError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(KeyringError::Random)?;
    Ok(Secret::new(*bytes))
}

/// Reads a file with secrets, of which at most `most + 1` bytes are returned; none if it is not there.
/// Where others may read or change it, `warnings` tell so. With `advice` the file is the keyring's own: its
/// mode is mended, and the advice given; without, it is the user's to mend.
///
/// # Errors
/// Whatever the file system says.
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
    // All the room at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 64));
    at("read", path, file.take(most as u64 + 1).read_to_end(&mut bytes))?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
