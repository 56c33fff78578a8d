//! Where a copy goes: a file below a directory that the administrator allows. No component of the way may be a symbolic link, so nothing
//! that is in the directory leads out of it.

use crate::documents::Hash;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::fs::{fallocate, fsync, mkdirat, open, openat, renameat, unlinkat};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// Why a destination is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// Not below an allowed directory.
    #[error("{} is not below a directory that this machine allows (--destination)", .0.display())]
    Forbidden(PathBuf),
    /// The file system failed, or a component is a symbolic link.
    #[error("cannot use {} ({source})", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A destination: an open directory, and a name in it.
#[derive(Debug)]
pub(crate) struct Place {
    dir: OwnedFd,
    name: String,
    /// For messages.
    pub path: PathBuf,
}

impl Place {
    /// The destination of `filename` by `at`, which is a directory if it ends with `/`, else the file's own path. Missing directories are made.
    ///
    /// # Errors
    /// If it is not below one of `allowed`, leads over a symbolic link, or the file system fails.
    pub(crate) fn open(allowed: &[PathBuf], at: &str, filename: &str) -> Result<Self, PlaceError> {
        let path = if at.ends_with('/') { Path::new(at).join(filename) } else { PathBuf::from(at) };
        let forbidden = || PlaceError::Forbidden(path.clone());
        let plain = |part: &Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.components().all(|part| plain(&part)) {
            return Err(forbidden());
        }
        let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(forbidden)?;
        let name = name.to_str().ok_or_else(forbidden)?.to_owned();
        let root = allowed.iter().find(|root| parent.starts_with(root)).ok_or_else(forbidden)?;
        let below = parent.strip_prefix(root).map_err(|_| forbidden())?;
        let failed = |errno: Errno| PlaceError::File { path: path.clone(), source: errno.into() };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let mut dir = open(root, flags, Mode::empty()).map_err(failed)?;
        for part in below.components() {
            match mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
            dir = openat(&dir, part.as_os_str(), flags | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
        }
        Ok(Self { dir, name, path })
    }

    /// The file that is there now, if it is a regular one.
    pub(crate) fn existing(&self) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(openat(&self.dir, &*self.name, flags, Mode::empty()).ok()?);
        file.metadata().is_ok_and(|meta| meta.is_file()).then_some(file)
    }

    /// The part file of a task beside the destination, made if it is missing.
    ///
    /// # Errors
    /// If the file system fails.
    pub(crate) fn part(&self, task: Hash) -> io::Result<File> {
        self.open_part(task, OFlags::CREATE)
    }

    fn open_part(&self, task: Hash, more: OFlags) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
        Ok(File::from(openat(&self.dir, self.part_name(task), flags, Mode::from_raw_mode(0o600))?))
    }

    /// Makes the part file of an earlier task that of `task`, if there is one.
    pub(crate) fn take_over(&self, earlier: Hash, task: Hash) {
        // Whatever it is, it is hashed again.
        let _ = renameat(&self.dir, self.part_name(earlier), &self.dir, self.part_name(task));
    }

    /// Gives the part file, which is complete and synced, the destination's name.
    ///
    /// # Errors
    /// If there is no part file, or the file system fails.
    pub(crate) fn put(&self, task: Hash) -> io::Result<()> {
        let part = self.open_part(task, OFlags::empty())?;
        rustix::fs::fchmod(&part, Mode::from_raw_mode(0o644))?;
        part.sync_all()?;
        renameat(&self.dir, self.part_name(task), &self.dir, &*self.name)?;
        Ok(fsync(&self.dir)?)
    }

    /// Removes the part file, if there is one.
    pub(crate) fn discard(&self, task: Hash) {
        // It is only a part file; a later task of the same name does not use it.
        let _ = unlinkat(&self.dir, self.part_name(task), AtFlags::empty());
    }

    fn part_name(&self, task: Hash) -> String {
        let mut end = self.name.len().min(200);
        while !self.name.is_char_boundary(end) {
            end -= 1;
        }
        format!(".{}.{:.8}.mcp-part", &self.name[..end], task.to_string())
    }
}

/// Reserves the space of a part file of `size` bytes, where the file system can, so that a full disk is noticed before
/// anything is loaded. It keeps what it has.
///
/// # Errors
/// If there is no room.
pub(crate) fn reserve(part: &File, size: u64) -> io::Result<()> {
    match retry_on_intr(|| fallocate(part, FallocateFlags::KEEP_SIZE, 0, size)) {
        // Where it cannot be reserved, writing will tell.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_copy_goes_below_an_allowed_directory_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("srv");
        std::fs::create_dir(&root).unwrap();
        let allowed = [root.clone()];
        let at = |below: &str| format!("{}/{below}", root.display());
        let (task, place) = (Hash([1; 32]), Place::open(&allowed, &at("a/b/"), "x.iso").unwrap());
        assert!(place.existing().is_none());
        place.part(task).unwrap().write_all(b"new").unwrap();
        place.put(task).unwrap();
        assert_eq!(std::fs::read(root.join("a/b/x.iso")).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(root.join("a/b")).unwrap().count(), 1);
        place.put(task).unwrap_err();
        assert_eq!(std::fs::read(root.join("a/b/x.iso")).unwrap(), b"new", "nothing is put in place twice");
        let renamed = Place::open(&allowed, &at("a/b/x.iso"), "ignored").unwrap();
        assert!(renamed.existing().is_some());

        // Links inside lead out; so do paths.
        std::os::unix::fs::symlink(dir.path(), root.join("out")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("file")).unwrap();
        assert!(matches!(Place::open(&allowed, &at("out/"), "x"), Err(PlaceError::File { .. })));
        assert!(Place::open(&allowed, &at("file"), "x").unwrap().existing().is_none());
        for outside in ["/etc/", "/etc/x", &at("../x"), "srv/", "/", &format!("{}2/", root.display())] {
            assert!(
                matches!(Place::open(&allowed, outside, "x"), Err(PlaceError::Forbidden(_))),
                "{outside}"
            );
        }
        // A copy replaces a link by a file; it does not write through it.
        let over = Place::open(&allowed, &at("file"), "x").unwrap();
        over.part(task).unwrap().write_all(b"copy").unwrap();
        over.put(task).unwrap();
        assert_eq!(std::fs::read(root.join("file")).unwrap(), b"copy");
        assert!(!std::fs::symlink_metadata(root.join("file")).unwrap().is_symlink());
    }

    #[test]
    fn space_is_reserved_beside_what_is_there() {
        use std::os::unix::fs::MetadataExt as _;
        let mut part = tempfile::tempfile().unwrap();
        part.write_all(b"some").unwrap();
        reserve(&part, 1 << 20).unwrap();
        let meta = part.metadata().unwrap();
        assert_eq!(meta.len(), 4);
        assert!(meta.blocks() * 512 >= 1 << 20, "{}", meta.blocks());
        reserve(&part, 0).unwrap();
        reserve(&part, u64::MAX / 2).unwrap_err();
    }
}
