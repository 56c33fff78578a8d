//! What is in place already and may be what is sent: a whole tree, or one of several files. It is read and never written to.

use super::listing::{Top, list};
use super::plan::Plan;
use super::source::TreeSource;
use super::staging::{Staging, remove_orphans};
use super::{TreeShape, open_beneath};
use crate::content::{Entry, EntryKind};
use crate::storage::attributes::umask;
use crate::storage::part::sync_directory;
use crate::storage::refusal::{refused, shown};
use crate::storage::sink::Target;
use crate::storage::{Part, SinkError, Source};
use rustix::fs::OFlags;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that are compared at a time.
const PIECE: usize = 1 << 20;

/// A directory under a final name. Committing it checks that it is as it was when it was listed, and removes what earlier
/// runs have left for it.
pub struct ExistingTree {
    source: TreeSource,
    target: Target,
}

impl ExistingTree {
    /// Lists the directory of `target`, if it has a tree with the size of the announced one, called `name`.
    pub fn open(target: Target, name: &str, shape: &TreeShape) -> Option<Self> {
        let stat =
            rustix::fs::statat(&target.dir, &target.name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_directory =
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
        let path = target.dir_path.join(&target.name);
        let list = || TreeSource::existing(path, name, shape.head.archive, shape.block_log2).ok();
        let source = is_directory.then(list)??;
        let same = source.head() == shape.head && source.extent().size == shape.size;
        same.then_some(Self { source, target })
    }
}

impl Part for ExistingTree {
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> Result<(), SinkError> {
        let path = shown(&self.target.path);
        Err(SinkError::Disk(format!("{path} is complete and is not written to; please report this")))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.source.read_at(offset, buf).map_err(|error| SinkError::Disk(error.to_string()))
    }

    fn next_written(&self, from: u64) -> Option<Range<u64>> {
        let size = self.source.extent().size;
        (from < size).then_some(from..size)
    }

    fn commit(&self) -> Result<PathBuf, SinkError> {
        let path = &self.target.path;
        self.target.require_in_place()?;
        self.source.compare().map_err(|_| {
            let path = shown(path);
            SinkError::Name(format!("{path} changed while it was compared; leave it alone and try again"))
        })?;
        let fail = |errno: rustix::io::Errno| refused("sync", path, &errno.into());
        let name = std::os::unix::ffi::OsStrExt::as_bytes(&*self.target.name);
        let dir =
            open_beneath(&self.target.dir, name, OFlags::RDONLY | OFlags::DIRECTORY, 0).map_err(fail)?;
        rustix::fs::syncfs(&dir).map_err(fail)?;
        sync_directory(&self.target.dir).map_err(fail)?;
        remove_orphans(&self.target);
        Ok(path.clone())
    }

    fn discard(&self) {}
}

/// An entry at the top of a tree, with all below it, and the same under its name in the directory of a target.
pub struct InPlace<'a> {
    entries: &'a [Entry],
    /// The number of the first.
    first: u32,
    archive: bool,
}

impl<'a> InPlace<'a> {
    pub fn of(plan: &'a Plan, top: &Entry, archive: bool) -> Self {
        let all = plan.manifest.entries();
        let is_below = |entry: &&Entry| {
            entry.path().strip_prefix(top.path()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        let first = all.iter().position(|entry| entry.path() == top.path()).unwrap_or(all.len());
        let count = all[first..].iter().take_while(is_below).count();
        Self { entries: &all[first..first + count], first: first as u32, archive }
    }

    /// Whether what is at `path` has the same entries. Contents are not read.
    pub fn is_listed(&self, path: &Path) -> bool {
        let Some(top) = self.entries.first() else { return false };
        let tops = [Top { path: path.to_owned(), name: top.path().to_owned() }];
        let Ok(there) = list(&tops, self.archive) else { return false };
        let there = there.manifest.entries();
        there.len() == self.entries.len()
            && there.iter().zip(self.entries).all(|(there, sent)| self.is_same(there, sent))
    }

    fn is_same(&self, there: &Entry, sent: &Entry) -> bool {
        let kind = match (there.kind(), sent.kind()) {
            (EntryKind::HardLink(there), EntryKind::HardLink(sent)) => {
                sent.checked_sub(self.first) == Some(*there)
            }
            (there, sent) => there == sent,
        };
        // As it would be made here.
        let mode = if self.archive { sent.mode() } else { sent.mode() & 0o777 & !(umask() as u16) };
        let owner = !self.archive || there.owner() == sent.owner();
        let is_link = matches!(sent.kind(), EntryKind::Symlink(_));
        kind && owner
            && (is_link || there.mode() == mode)
            && there.path() == sent.path()
            && there.modified() == sent.modified()
            && there.xattrs() == sent.xattrs()
    }

    /// Whether the files below `dir` have the bytes of the staged ones, which are verified.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn has_contents(
        &self,
        plan: &Plan,
        staging: &Staging,
        dir: &impl std::os::fd::AsFd,
    ) -> io::Result<bool> {
        let files = (self.first..).zip(self.entries);
        for (number, entry) in files.filter(|(_, entry)| matches!(entry.kind(), EntryKind::File(_))) {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            let there = File::from(open_beneath(dir, entry.path(), flags, 0)?);
            let staged = plan.file(staging, number).map_err(|error| io::Error::other(error.to_string()))?;
            if !are_equal(&there, &staged)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn are_equal(one: &File, other: &File) -> io::Result<bool> {
    let len = one.metadata()?.len();
    if len != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    for at in (0..len).step_by(PIECE) {
        let piece = (len - at).min(PIECE as u64) as usize;
        one.read_exact_at(&mut left[..piece], at)?;
        other.read_exact_at(&mut right[..piece], at)?;
        if left[..piece] != right[..piece] {
            return Ok(false);
        }
    }
    Ok(true)
}
