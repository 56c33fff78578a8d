//! Part files whose receiver has ended: killed, interrupted, or without its sender.
//!
//! A part file is locked (flock) as long as its receiver lives; the system releases the lock when the
//! process ends for any reason. So a part file of the same object whose lock is free belongs to nobody,
//! and the next receiver of that object takes it over. There is no record of its verified bytes: all of
//! them are hashed again before they count.

use super::names::PART_SUFFIX;
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::retry_on_intr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// Locks a part file for the life of its descriptor; false if another process holds the lock. On a file
/// system without locks, this succeeds.
pub(super) fn lock(file: impl AsFd) -> bool {
    !matches!(
        rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive),
        Err(rustix::io::Errno::WOULDBLOCK)
    )
}

/// A part file that belongs to no living receiver, now locked by this process.
struct Orphan {
    file: File,
    name: String,
    /// Time of its last write: seconds and nanoseconds.
    modified: (i64, i64),
}

/// Takes over the most recently written part file of `stem` in `dir` that belongs to no living receiver,
/// and removes the other ones. Leaves a file alone if it cannot be listed, opened or locked, or was not
/// made by this user: it only takes space.
pub(super) fn adopt(dir: &OwnedFd, stem: &str) -> Option<(File, String)> {
    let mut best: Option<Orphan> = None;
    for entry in Dir::read_from(dir).ok()?.flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !is_part_of(name, stem) {
            continue;
        }
        let Some(orphan) = take(dir, name) else { continue };
        let newer = best.as_ref().is_none_or(|best| best.modified < orphan.modified);
        let other = if newer { best.replace(orphan) } else { Some(orphan) };
        if let Some(other) = other {
            // If this fails too, there is nobody to report it to.
            let _ = rustix::fs::unlinkat(dir, &other.name, AtFlags::empty());
        }
    }
    best.map(|best| (best.file, best.name))
}

/// Whether there is a part file of `stem` in `dir`, whoever it belongs to.
pub(super) fn exists(dir: &OwnedFd, stem: &str) -> bool {
    let entries = Dir::read_from(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_str().is_ok_and(|name| is_part_of(name, stem)))
}

fn take(dir: &OwnedFd, name: &str) -> Option<Orphan> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?);
    // Without locks, it is unknown whether the file's receiver lives.
    retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)).ok()?;
    let meta = file.metadata().ok()?;
    // Another user who planted the file, or has a second name for it, could write to it after it was
    // verified.
    let ours = meta.is_file() && meta.nlink() == 1 && meta.uid() == rustix::process::geteuid().as_raw();
    // Between opening and locking, its receiver may have renamed it to its final name.
    let named = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let same = (named.st_dev, named.st_ino) == (meta.dev(), meta.ino());
    let modified = (meta.mtime(), meta.mtime_nsec());
    (ours && same).then(|| Orphan { file, name: name.to_owned(), modified })
}

/// Whether `name` is `.STEM.<16 hex digits>.mcp-part`.
pub(super) fn is_part_of(name: &str, stem: &str) -> bool {
    name.strip_prefix('.')
        .and_then(|rest| rest.strip_prefix(stem))
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|rest| rest.strip_suffix(PART_SUFFIX))
        .is_some_and(|random| random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_part_files_of_the_same_object_are_meant() {
        assert!(is_part_of(".a.iso.0123456789abcdef.mcp-part", "a.iso"));
        for other in [
            "a.iso.0123456789abcdef.mcp-part",
            ".a.iso.0123456789abcde.mcp-part",
            ".a.iso.0123456789abcdeg.mcp-part",
            ".b.iso.0123456789abcdef.mcp-part",
            ".a.iso.0123456789abcdef.part",
            ".a.iso.x.0123456789abcdef.mcp-part",
            ".a.iso..mcp-part",
        ] {
            assert!(!is_part_of(other, "a.iso"), "{other}");
        }
    }
}
