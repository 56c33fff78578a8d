//! The files of a server beside its database: keys, certificate, and how its operators reach it.
//!
//! ```text
//!  STATE/serve/fleet.db        the store
//!  STATE/serve/objects/        the bytes
//!  STATE/serve/tls.key, .crt   the certificate of the first start; its key's hash is what enrolment lines pin
//!  STATE/serve/lists.key       signs lists; the server needs it
//!  STATE/serve/operator.key    the first operator's; signs tasks and requests; the server does not read it
//!  STATE/serve/root.key        signs roots; the server does not read it after the first start: keep it elsewhere
//!  STATE/serve/address.json    URL, pin and fleet, for the commands on this machine
//! ```
//! Secrets have mode 0600. A file is written beside its place, synced and renamed.

use crate::documents::{FleetId, Hash, SecretKey};
use data_encoding::BASE32_NOPAD;
use mcp_transfer::crypto::derive::Secret;
use mcp_transfer::crypto::sender::{seed_from_line, seed_line};
use mcp_transfer::storage;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Error of a file of the server: a lowercase clause with the next step. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system failed.
    #[error("cannot {doing} {} ({source}); check the directory, or set MCP_STATE_DIR", path.display())]
    File {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{} is damaged; restore it from a backup", .0.display())]
    Damaged(PathBuf),
    /// Others can read a secret.
    #[error("others can read {}; run 'chmod 600' on it, and consider it known", .0.display())]
    Readable(PathBuf),
    /// The system provides no randomness.
    #[error("no randomness from the system: {0}")]
    Random(getrandom::Error),
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::File { doing, path, source }
}

/// How the server is reached, for commands on its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// `https://HOST:PORT`.
    pub url: String,
    /// SHA-256 of the certificate's SubjectPublicKeyInfo.
    pub pin: Hash,
    /// The fleet.
    pub fleet: FleetId,
}

/// Creates a private directory and those above it.
///
/// # Errors
///
/// If it cannot be created.
pub fn make_dir(path: &Path) -> Result<(), StateError> {
    storage::make_private_dir(path).map_err(failed("create", path))
}

/// Writes a file whole or not at all, with mode 0600.
///
/// # Errors
///
/// If the file system fails.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    storage::write_private(path, bytes).map_err(failed("write", path))
}

/// Reads a secret; `None` if there is no such file.
///
/// # Errors
///
/// If it cannot be read, others can read it too, or it is larger than 64 KiB.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
    const MOST: u64 = 64 * 1024;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let meta = file.metadata().map_err(failed("read", path))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(StateError::Readable(path.to_owned()));
    }
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len().min(MOST)).unwrap_or(0) + 1));
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > MOST {
        return Err(StateError::Damaged(path.to_owned()));
    }
    Ok(Some(bytes))
}

/// The secret key in a file; `None` if there is no such file.
///
/// # Errors
///
/// As [`read_private`], or if the file holds no key.
pub fn read_key(path: &Path) -> Result<Option<SecretKey>, StateError> {
    let Some(bytes) = read_private(path)? else { return Ok(None) };
    let seed = seed_from_line(str::from_utf8(&bytes).unwrap_or_default());
    seed.map(|seed| Some(SecretKey::from_seed(seed.expose())))
        .map_err(|_| StateError::Damaged(path.to_owned()))
}

/// The secret key in a file, made and written first if there is none.
///
/// # Errors
///
/// As [`read_key`], or if the file cannot be written or the system has no randomness.
pub fn own_key(path: &Path) -> Result<SecretKey, StateError> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let seed = random::<32>()?;
    let line = seed_line(&Secret::new(*seed));
    // Allocated at once: a growing string would leave a copy of the secret in memory.
    let mut text = Zeroizing::new(String::with_capacity(line.len() + 1));
    text.push_str(&line);
    text.push('\n');
    write_private(path, text.as_bytes())?;
    Ok(SecretKey::from_seed(&seed))
}

/// Random bytes from the system.
///
/// # Errors
///
/// If it has none.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, StateError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut bytes[..]).map_err(StateError::Random)?;
    Ok(bytes)
}

/// A new token: 32 visible characters, 160 random bits.
///
/// # Errors
///
/// If the system has no randomness.
pub fn new_token() -> Result<Zeroizing<String>, StateError> {
    Ok(Zeroizing::new(BASE32_NOPAD.encode(&random::<20>()?[..]).to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lists.key");
        assert!(read_key(&path).expect("no error").is_none());
        let key = own_key(&path).expect("made");
        assert_eq!(own_key(&path).expect("read").public(), key.public());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(matches!(read_key(&path), Err(StateError::Readable(_))));
        let line = fs::read_to_string(&path).expect("read");
        assert!(line.starts_with("mcp-identity1-"), "the format of every secret key of mcp");
        write_private(&path, &line.as_bytes()[..line.len() - 2]).expect("written");
        assert!(matches!(read_key(&path), Err(StateError::Damaged(_))));
    }

    #[test]
    fn tokens_differ_and_are_visible() {
        let (a, b) = (new_token().expect("a token"), new_token().expect("a token"));
        assert!(*a != *b && a.len() == 32 && a.bytes().all(|c| c.is_ascii_alphanumeric()));
    }
}
