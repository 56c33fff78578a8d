//! The lock of a directory that one process at a time may use.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// How often a lock is tried.
const TRIES: u32 = 80;
/// The time between two tries.
const PAUSE: Duration = Duration::from_millis(25);

/// A lock, held until it is dropped or its process dies.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock that the file at `path` is, which is made if it is missing. `None` if another has it. Waits two
    /// seconds for it: a process that was killed may have forked one that has not executed its program yet, and that one
    /// holds the lock until then.
    ///
    /// # Errors
    ///
    /// If the file cannot be made or locked.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        for patience in (0..TRIES).rev() {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) if patience > 0 => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Expressly, for the same reason. If it fails, closing the file does it.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_free_at_once_though_the_file_is_shared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path).unwrap().unwrap();
        assert!(Lock::take(&path).unwrap().is_none());
        let _shared = first.0.try_clone().unwrap();
        drop(first);
        assert!(Lock::take(&path).unwrap().is_some());
        assert!(Lock::take(dir.path()).is_err());
    }
}
