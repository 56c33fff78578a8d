//! Directories for tests, removed on drop.

use rustix::fs::{FlockOperation, flock};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A new empty directory, or a small file system mounted for the test.
pub struct Scratch {
    path: PathBuf,
    mounted: bool,
}

impl Scratch {
    pub fn new() -> Self {
        let random = getrandom::u64().expect("random number");
        let path = std::env::temp_dir().join(format!("mcp-test-{random:016x}"));
        std::fs::create_dir(&path).expect("scratch directory");
        Self { path, mounted: false }
    }

    /// A tmpfs with `options`; `None`, with a message, if mounting is not allowed.
    pub fn mounted(options: &str) -> Option<Self> {
        let mut scratch = Self::new();
        scratch.mounted =
            run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "mcp-test"]).arg(&scratch.path));
        if !scratch.mounted {
            eprintln!("SKIPPED: cannot mount a tmpfs here (needs root)");
        }
        scratch.mounted.then_some(scratch)
    }

    pub fn remount(&self, options: &str) {
        let done = patiently(|| {
            run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.path))
        });
        assert!(done, "cannot remount {}", self.path.display());
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Waits until no name in the directory is locked, as it is once a process has died. In a test it may be locked for a
    /// moment longer: a program that another test is starting shares this process's open files until it runs.
    pub fn await_unlocked(&self) {
        let free = |name: &String| {
            let file = std::fs::File::open(self.join(name)).expect("open");
            // Unlocked expressly, because this file may be shared by now, too.
            flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                && flock(&file, FlockOperation::Unlock).is_ok()
        };
        assert!(patiently(|| self.names().iter().all(free)), "still locked in {}", self.path.display());
    }

    /// The names in the directory, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(&self.path)
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.mounted && !patiently(|| run(Command::new("umount").arg(&self.path))) {
            eprintln!("cannot unmount {}", self.path.display());
            return;
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn run(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Retries for some seconds: what a program that another test is starting shares with this process is in use until the
/// program runs.
fn patiently(attempt: impl Fn() -> bool) -> bool {
    (0..200).any(|_| {
        attempt() || {
            std::thread::sleep(Duration::from_millis(20));
            false
        }
    })
}
