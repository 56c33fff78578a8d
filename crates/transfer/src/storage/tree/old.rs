//! An earlier tree, to take unchanged files from: that of `mcp recv --from`, or what is in the place of the new one. It is
//! only read.

use super::open_beneath;
use crate::storage::SourceError;
use crate::storage::sink::Target;
use crate::storage::source::unreadable;
use crate::text::escape;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An open directory, in which files are looked for under their paths below the top of the tree.
#[derive(Debug)]
pub struct OldTree(OwnedFd);

impl OldTree {
    /// Opens the directory at `path`.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        opened.map(Self).map_err(|errno| unreadable(&escape(&path.to_string_lossy()), &errno.into()))
    }

    /// What is where a tree with so many entries at its top will be, if something is.
    pub fn in_place(target: &Target, tops: u32) -> Option<Self> {
        let name = if tops == 1 { target.name.as_bytes() } else { b"." };
        open_beneath(&target.dir, name, OFlags::RDONLY | OFlags::DIRECTORY, 0).ok().map(Self)
    }

    /// Whether it has a regular file at this path of a tree.
    pub fn has(&self, path: &[u8], single_top: bool) -> bool {
        let stat = rustix::fs::statat(&self.0, within(path, single_top), AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    /// The regular file at this path of a tree.
    pub fn file(&self, path: &[u8], single_top: bool) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(open_beneath(&self.0, within(path, single_top), flags, 0).ok()?);
        file.metadata().ok()?.is_file().then_some(file)
    }
}

/// The path below the earlier tree: without the top, which may have had another name.
fn within(path: &[u8], single_top: bool) -> &[u8] {
    let rest = path.iter().position(|&byte| byte == b'/').map(|at| &path[at + 1..]);
    rest.filter(|_| single_top).unwrap_or(path)
}
