//! Trees of files: directories, or several files at once, as one object.
//!
//! - `listing`: what is there at the sender, as a manifest; `source`: the object's bytes, read from the files.
//! - `staging`: the private directory at the receiver in which a tree is built; `part`: the object written into it;
//!   `plan`: where the object's bytes belong, once the manifest is known.
//! - `finish`: links and attributes; `publish`: the tree under its name; `merge`: entry by entry into a directory.
//! - `existing`: a tree that is in place already; `old`: an earlier tree; `remove`: removing a tree.
//! - `steps`: where tests let the disk fail.
//!
//! ```text
//! .NAME.<random>.mcp-part/object   the manifest, and what arrives before it is complete
//! .NAME.<random>.mcp-part/t/...    the tree, renamed to its place when it is whole
//! ```

mod existing;
mod finish;
mod listing;
mod merge;
mod old;
mod part;
mod plan;
mod publish;
mod remove;
mod sink;
mod source;
mod staging;
pub mod steps;

pub(super) use sink::TreeSink;
pub use source::{TreeSource, is_tree};

use crate::content::TreeHead;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};
use std::os::fd::{AsFd, OwnedFd};

/// What the announcement says of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeShape {
    /// Bytes of the object.
    pub size: u64,
    /// log2 of its block size.
    pub block_log2: u8,
    /// The rest.
    pub head: TreeHead,
}

/// What the user wants of a received tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeOptions {
    /// Whether what has its name is replaced.
    pub force: bool,
    /// Whether its entries are put into an existing directory, one by one.
    pub merge: bool,
    /// Whether owners, all attributes and device nodes are restored too.
    pub archive: bool,
}

/// Opens `path` below `dir` without following a link or leaving `dir`.
fn open_beneath(dir: impl AsFd, path: &[u8], flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match retry_on_intr(|| rustix::fs::openat2(&dir, path, flags, mode, resolve)) {
        // An old kernel, or a container that knows only the old ones.
        Err(Errno::NOSYS | Errno::PERM) => {}
        done => return done,
    }
    let mut parts = path.split(|&byte| byte == b'/').peekable();
    let mut at: Option<OwnedFd> = None;
    loop {
        let part = parts.next().ok_or(Errno::INVAL)?;
        let here = at.as_ref().map_or_else(|| dir.as_fd(), AsFd::as_fd);
        if parts.peek().is_none() {
            return retry_on_intr(|| rustix::fs::openat(here, part, flags, mode));
        }
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = Some(retry_on_intr(|| rustix::fs::openat(here, part, step, Mode::empty()))?);
    }
}

/// The directory that an entry is in, below `dir`, and its name there.
fn parent_of<'a>(dir: &OwnedFd, path: &'a [u8]) -> Result<(OwnedFd, &'a [u8]), Errno> {
    let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    Ok((open_beneath(dir, parent, OFlags::PATH | OFlags::DIRECTORY, 0)?, name))
}

#[cfg(test)]
mod tests;
