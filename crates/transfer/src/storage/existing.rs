//! A file that is in place already and may be the object. It is read for hashing and never written to.

use super::part::sync_directory;
use super::refusal::{refused, shown};
use super::sink::Target;
use super::{Part, SinkError};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::retry_on_intr;
use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

/// Identifies a file and its last change.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

fn stamp(meta: &Metadata) -> Stamp {
    let (modified, changed) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    (meta.dev(), meta.ino(), meta.len(), modified, changed)
}

/// A regular file under a final name. Committing it checks that it is unchanged since it was opened, and
/// syncs it.
pub(super) struct ExistingFile {
    file: File,
    target: Target,
    opened: Stamp,
}

impl ExistingFile {
    /// Opens the file of `target`, if it is a readable regular file of `size` bytes.
    pub(super) fn open(target: Target, size: u64) -> Option<Self> {
        // Opening a pipe would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd =
            retry_on_intr(|| rustix::fs::openat(&target.dir, &target.name, flags, Mode::empty())).ok()?;
        let file = File::from(fd);
        let meta = file.metadata().ok()?;
        (meta.is_file() && meta.len() == size).then(|| Self { opened: stamp(&meta), file, target })
    }

    fn not_written(&self) -> SinkError {
        SinkError::Disk(format!(
            "{} is complete and is not written to; please report this",
            shown(&self.target.path)
        ))
    }
}

impl Part for ExistingFile {
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> Result<(), SinkError> {
        Err(self.not_written())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.file.read_exact_at(buf, offset).map_err(|error| refused("read", &self.target.path, &error))
    }

    fn next_written(&self, from: u64) -> Option<Range<u64>> {
        let size = self.opened.2;
        (from < size).then_some(from..size)
    }

    fn commit(&self) -> Result<PathBuf, SinkError> {
        let Target { dir, name, path, .. } = &self.target;
        self.file.sync_all().map_err(|error| refused("sync", path, &error))?;
        self.target.require_in_place()?;
        let now = self.file.metadata().map_err(|error| refused("look up", path, &error))?;
        let named = retry_on_intr(|| rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| refused("look up", path, &errno.into()))?;
        if stamp(&now) != self.opened || (now.dev(), now.ino()) != (named.st_dev, named.st_ino) {
            return Err(SinkError::Name(format!(
                "{} changed while it was compared; leave it alone and try again",
                shown(path)
            )));
        }
        sync_directory(dir).map_err(|errno| refused("sync the directory of", path, &errno.into()))?;
        Ok(path.clone())
    }

    fn discard(&self) {}
}
