//! A directory that goes when it is dropped; in memory where the system has a place for that.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static MADE: AtomicU64 = AtomicU64::new(0);

/// See the module's description.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new and empty one.
    pub fn new() -> Self {
        let shared = Path::new("/dev/shm");
        let place = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = place.join(format!("mcp-fuzz-{}-{n}", std::process::id()));
        // One that a run before has left behind when it was killed.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("a directory of its own");
        Self(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path within it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
