//! A tree that is in place already and may be the one that is sent. It is read for hashing and never written to.

use super::TreeShape;
use super::source::TreeSource;
use super::staging::remove_orphans;
use crate::storage::part::sync_directory;
use crate::storage::refusal::{refused, shown};
use crate::storage::sink::Target;
use crate::storage::{Part, SinkError, Source};
use rustix::fs::OFlags;
use std::ops::Range;
use std::path::PathBuf;

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
        let dir = super::open_beneath(&self.target.dir, name, OFlags::RDONLY | OFlags::DIRECTORY, 0)
            .map_err(fail)?;
        rustix::fs::syncfs(&dir).map_err(fail)?;
        sync_directory(&self.target.dir).map_err(fail)?;
        remove_orphans(&self.target);
        Ok(path.clone())
    }

    fn discard(&self) {}
}
