//! Part files that a killed receiver left behind.
//!
//! A part file is locked (flock) for as long as its receiver lives; the system drops the lock when
//! the process ends, however it ends. So a part file of the same object whose lock is free belongs to
//! nobody, and the next receiver of that object removes it.

use super::names::PART_SUFFIX;
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};

/// Locks a part file for the life of its descriptor; false if somebody else has it. File systems
/// without locks count as locked by nobody and by us.
pub(super) fn lock(file: impl AsFd) -> bool {
    !matches!(
        rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive),
        Err(rustix::io::Errno::WOULDBLOCK)
    )
}

/// Removes the part files of `stem` in `dir` that belong to no living receiver. What cannot be
/// listed, opened or locked is left alone: it only takes space.
pub(super) fn sweep(dir: &OwnedFd, stem: &str) {
    let Ok(entries) = Dir::read_from(dir) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !is_part_of(name, stem) {
            continue;
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(dir, name, flags, Mode::empty()) else { continue };
        let free = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if free {
            // If even that fails there is nobody left to be told.
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
        }
    }
}

/// Whether `name` is `.STEM.<16 hex digits>.mcp-part`.
fn is_part_of(name: &str, stem: &str) -> bool {
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
