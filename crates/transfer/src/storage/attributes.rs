//! Attributes of a file: permission bits and the time of its last modification.

use rustix::fs::{Mode, Timespec, Timestamps};
use rustix::io::retry_on_intr;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

/// The bits of a mode that are copied. Set-id bits and the sticky bit are not: they would give a file from
/// the network more rights than the receiver intended.
const PERMISSIONS: u32 = 0o777;
/// The umask if the system does not report it.
const USUAL_UMASK: u32 = 0o022;

/// Attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, set-id bits and sticky bit.
    pub mode: u16,
    /// The last modification: seconds since 1970-01-01T00:00:00Z, and nanoseconds after that, below 10^9.
    pub modified: (i64, u32),
}

impl Attributes {
    /// The attributes in this metadata.
    pub(super) fn of(meta: &Metadata) -> Self {
        let nanoseconds = u32::try_from(meta.mtime_nsec()).unwrap_or(0);
        Self { mode: (meta.mode() & 0o7777) as u16, modified: (meta.mtime(), nanoseconds) }
    }

    /// Applies them to `file`, less this user's umask, as a copy would. Errors are ignored: a file system
    /// that does not keep attributes still keeps the bytes.
    pub(super) fn apply(&self, file: &File) {
        let mode = u32::from(self.mode) & PERMISSIONS & !umask();
        let _ = retry_on_intr(|| rustix::fs::fchmod(file, Mode::from_raw_mode(mode)));
        let (tv_sec, nanoseconds) = self.modified;
        let at = Timespec { tv_sec, tv_nsec: i64::from(nanoseconds) };
        let times = Timestamps { last_access: at, last_modification: at };
        let _ = retry_on_intr(|| rustix::fs::futimens(file, &times));
    }
}

/// This process's umask, read without changing it for other threads.
pub(super) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(USUAL_UMASK)
}
