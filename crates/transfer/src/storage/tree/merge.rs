//! A finished tree is merged into what is there: directories that exist stay, and everything else replaces what has its
//! name, each by one rename.

use super::finish::Finish;
use super::plan::Plan;
use super::staging::Staging;
use super::steps::step;
use super::{open_beneath, parent_of};
use crate::content::{Entry, EntryKind};
use crate::storage::SinkError;
use crate::storage::refusal::{refused, shown};
use crate::storage::sink::Target;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// Merges the staged tree into the directory of the target.
///
/// # Errors
/// If something of another kind has one of the names: then nothing is changed. Or if the disk fails.
pub fn merge(plan: &Plan, target: &Target, staging: &Staging, finish: &Finish<'_>) -> Result<(), SinkError> {
    let entries = plan.manifest.entries();
    let single_top = entries.iter().filter(|entry| entry.is_plain_name()).count() == 1;
    let merge = Merge { plan, target, staging, single_top };
    for entry in entries {
        merge.check(entry)?;
    }
    for entry in entries {
        merge.place(entry)?;
    }
    for entry in entries.iter().rev().filter(|entry| matches!(entry.kind(), EntryKind::Directory)) {
        let path = merge.place_of(entry);
        let (dir, name) = merge.parent(entry, &path)?;
        finish.apply(entry, &dir, name, 0)?;
    }
    Ok(())
}

struct Merge<'a> {
    plan: &'a Plan,
    target: &'a Target,
    staging: &'a Staging,
    single_top: bool,
}

impl Merge<'_> {
    /// The path that an entry gets in the directory of the target.
    fn place_of(&self, entry: &Entry) -> Vec<u8> {
        let path = entry.path();
        let rest = path.iter().position(|&byte| byte == b'/').map_or(&path[path.len()..], |at| &path[at..]);
        if self.single_top { [self.target.name.as_bytes(), rest].concat() } else { path.to_owned() }
    }

    fn parent<'b>(&self, entry: &Entry, path: &'b [u8]) -> Result<(OwnedFd, &'b [u8]), SinkError> {
        parent_of(&self.target.dir, path).map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => self.in_the_way(entry, "is in what is a link or a file there"),
            errno => refused("open the directory of", &self.plan.path_of(entry), &errno.into()),
        })
    }

    fn in_the_way(&self, entry: &Entry, what: &str) -> SinkError {
        SinkError::Name(format!(
            "{} {what}; nothing was merged: move that away, or give another place with -o",
            shown(&self.plan.path_of(entry))
        ))
    }

    fn check(&self, entry: &Entry) -> Result<(), SinkError> {
        let path = self.place_of(entry);
        let (dir, name) = match parent_of(&self.target.dir, &path) {
            // It will be made.
            Err(Errno::NOENT) => return Ok(()),
            _ => self.parent(entry, &path)?,
        };
        let there = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(refused("look up", &self.plan.path_of(entry), &errno.into())),
            Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        };
        match (matches!(entry.kind(), EntryKind::Directory), there) {
            (true, false) => Err(self.in_the_way(entry, "is no directory there")),
            (false, true) => Err(self.in_the_way(entry, "is a directory there")),
            _ => Ok(()),
        }
    }

    fn place(&self, entry: &Entry) -> Result<(), SinkError> {
        let fail = |errno: Errno| refused("merge", &self.plan.path_of(entry), &errno.into());
        let path = self.place_of(entry);
        let (dir, name) = self.parent(entry, &path)?;
        if matches!(entry.kind(), EntryKind::Directory) {
            let make = || rustix::fs::mkdirat(&dir, name, Mode::RWXU);
            return match step().and_then(|()| retry_on_intr(make)) {
                Ok(()) | Err(Errno::EXIST) => {
                    // What was made meanwhile may be something else.
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                    open_beneath(&dir, name, flags, 0).map(drop).map_err(fail)
                }
                Err(errno) => Err(fail(errno)),
            };
        }
        let (from, staged) = parent_of(&self.staging.tree, entry.path()).map_err(fail)?;
        let rename = || rustix::fs::renameat(&from, staged, &dir, name);
        match step().and_then(|()| retry_on_intr(rename)) {
            // A device node that was left out.
            Err(Errno::NOENT) if matches!(entry.kind(), EntryKind::Device { .. }) => Ok(()),
            done => done.map_err(fail),
        }
    }
}
