//! Attributes of a file: permission bits and the time of its last modification.

use rustix::fs::{Mode, Timespec, Timestamps};
use rustix::io::retry_on_intr;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

/// Bits of a mode that are carried over. Set-id bits and the sticky bit are not: they would give what comes from the
/// network more rights than its receiver has meant to.
const PERMISSIONS: u32 = 0o777;
/// What new files are not given where the system does not say.
const USUAL_UMASK: u32 = 0o022;

/// Attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, set-id bits and sticky bit.
    pub mode: u16,
    /// When it was last modified: seconds since 1970-01-01T00:00:00Z, and nanoseconds after that, below 10^9.
    pub modified: (i64, u32),
}

impl Attributes {
    /// Those of a file with this metadata.
    pub(super) fn of(meta: &Metadata) -> Self {
        let nanoseconds = u32::try_from(meta.mtime_nsec()).unwrap_or(0);
        Self { mode: (meta.mode() & 0o7777) as u16, modified: (meta.mtime(), nanoseconds) }
    }

    /// Gives them to `file`, less what this user's umask takes, as copying it would. A file system that cannot keep
    /// them keeps the bytes all the same.
    pub(super) fn apply(&self, file: &File) {
        let mode = u32::from(self.mode) & PERMISSIONS & !umask();
        let _ = retry_on_intr(|| rustix::fs::fchmod(file, Mode::from_raw_mode(mode)));
        let (tv_sec, nanoseconds) = self.modified;
        let at = Timespec { tv_sec, tv_nsec: i64::from(nanoseconds) };
        let times = Timestamps { last_access: at, last_modification: at };
        let _ = retry_on_intr(|| rustix::fs::futimens(file, &times));
    }
}

/// This process's umask, read without changing it for the other threads.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(USUAL_UMASK)
}
