//! The destination of a received object: its directory, its final name, and whether that name is free.
//!
//! The directory is opened once, and all later operations are relative to it. So replacing a directory by
//! a symbolic link during a transfer redirects nothing. At the end the directory must still be at its
//! path.

use super::existing::ExistingFile;
use super::part::{FilePart, has_orphan};
use super::refusal::{refused, shown};
use super::tree::TreeSink;
use super::{DeviceNotes, Found, Part, Sink, SinkError, SourceError, TreeOptions, TreeShape, safe_name};
use crate::units::Extent;
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Puts objects into a directory of the file system, or one object under a name that the user chose.
#[derive(Debug)]
pub struct FileSink {
    output: Option<PathBuf>,
    force: bool,
    keeps_equal: bool,
    trees: TreeSink,
}

/// The meaning of the user's output path.
enum Place<'a> {
    /// Into this directory, under the object's own name.
    Directory(&'a Path),
    /// Into this directory, under this name.
    File(&'a Path, &'a OsStr),
}

/// A final path: an open directory and its path, a name within it, and both joined.
pub(super) struct Target {
    pub dir: OwnedFd,
    pub dir_path: PathBuf,
    pub name: OsString,
    pub path: PathBuf,
}

impl FileSink {
    /// `output` is an existing directory (or ends in a slash) or a file name; `None` is the current
    /// directory. With `force`, commit replaces an existing regular file.
    #[must_use]
    pub fn new(output: Option<PathBuf>, force: bool) -> Self {
        Self { output, force, keeps_equal: false, trees: TreeSink::default() }
    }

    /// Receives trees with these options, and takes unchanged files from the directory `from`.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn trees(mut self, options: TreeOptions, from: Option<&Path>) -> Result<Self, SourceError> {
        self.trees = TreeSink::new(options, from)?;
        Ok(self)
    }

    /// What the user is to be told of trees.
    #[must_use]
    pub fn notes(&self) -> DeviceNotes {
        self.trees.notes.clone()
    }

    /// With `keep`, an existing file that is the object stays as it is, also if it might be replaced [default: only if
    /// it must not be replaced].
    #[must_use]
    pub const fn keep_equal(mut self, keep: bool) -> Self {
        self.keeps_equal = keep;
        self
    }

    /// Checks everything that does not depend on the object's name: that the directory exists and may be
    /// written to, and that a final name chosen by the user is free. Call before the transfer, to fail
    /// early; [`Sink::create`] checks again.
    ///
    /// # Errors
    /// As for [`Sink::create`].
    pub fn check(&self) -> Result<(), SinkError> {
        let (dir, name) = match self.place()? {
            Place::Directory(dir) => (dir, None),
            Place::File(dir, name) => (dir, Some(name)),
        };
        let fd = open_directory(dir)?;
        rustix::fs::accessat(&fd, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty())
            .map_err(|errno| refused("write into", dir, &errno.into()))?;
        if let Some(name) = name {
            require_free(&fd, name, &dir.join(name), self.force)?;
        }
        Ok(())
    }

    /// The target of a tree: a name for the only entry at its top, or the directory for several.
    fn tree_target(&self, name: &str, shape: &TreeShape) -> Result<Target, SinkError> {
        if shape.head.tops == 1 {
            return self.target(name);
        }
        let label = OsStr::new(safe_name(name)?);
        match self.place()? {
            Place::Directory(dir) => {
                let fd = open_directory(dir)?;
                Ok(Target { dir: fd, dir_path: dir.to_owned(), name: label.to_owned(), path: dir.to_owned() })
            }
            Place::File(dir, name) => Err(SinkError::Name(format!(
                "several files are sent, and {} is no directory; make it first or give another with -o",
                shown(&dir.join(name))
            ))),
        }
    }

    fn place(&self) -> Result<Place<'_>, SinkError> {
        let here = Path::new(".");
        let Some(output) = &self.output else {
            return Ok(Place::Directory(here));
        };
        let bytes = output.as_os_str().as_bytes();
        if bytes.ends_with(b"/") || bytes.ends_with(b"/.") || output.is_dir() {
            return Ok(Place::Directory(output));
        }
        let Some(name) = output.file_name() else {
            return Err(SinkError::Name(format!(
                "the output \"{}\" is neither a directory nor a file name; give one of them with -o",
                shown(output)
            )));
        };
        let parent = output.parent().filter(|p| !p.as_os_str().is_empty());
        Ok(Place::File(parent.unwrap_or(here), name))
    }

    fn target(&self, name: &str) -> Result<Target, SinkError> {
        let (dir, name) = match self.place()? {
            Place::Directory(dir) => (dir, OsStr::new(safe_name(name)?)),
            Place::File(dir, name) => (dir, name),
        };
        // Displayed as a person would write it.
        let path = if dir == Path::new(".") { PathBuf::from(name) } else { dir.join(name) };
        Ok(Target { dir: open_directory(dir)?, dir_path: dir.to_owned(), name: name.to_owned(), path })
    }
}

impl Sink for FileSink {
    fn probe(&mut self, name: &str, extent: Extent) -> Found {
        let Ok(target) = self.target(name) else { return Found::Nothing };
        let orphan = has_orphan(&target);
        let may_keep = self.keeps_equal || !self.force;
        let whole = extent.total().filter(|_| may_keep).and_then(|size| ExistingFile::open(target, size));
        match whole {
            Some(file) => Found::Whole(Box::new(file)),
            None if orphan => Found::Part,
            None => Found::Nothing,
        }
    }

    fn create(&mut self, name: &str, extent: Extent) -> Result<Box<dyn Part>, SinkError> {
        let target = self.target(name)?;
        require_free(&target.dir, &target.name, &target.path, self.force)?;
        Ok(Box::new(FilePart::create(target, extent, self.force)?))
    }

    fn probe_tree(&mut self, name: &str, shape: &TreeShape) -> Found {
        let Ok(target) = self.tree_target(name, shape) else { return Found::Nothing };
        self.trees.probe(target, name, shape, self.keeps_equal)
    }

    fn create_tree(&mut self, name: &str, shape: &TreeShape) -> Result<Box<dyn Part>, SinkError> {
        let target = self.tree_target(name, shape)?;
        self.trees.create(target, name, shape)
    }
}

impl Target {
    /// Checks that the directory is still at its path: the file must be found under [`Self::path`].
    /// Otherwise another directory has taken its place, and the file would be out of sight.
    pub(super) fn require_in_place(&self) -> Result<(), SinkError> {
        let of = |errno: Errno| refused("look up", &self.dir_path, &errno.into());
        let ours = retry_on_intr(|| rustix::fs::fstat(&self.dir)).map_err(of)?;
        let there = match retry_on_intr(|| rustix::fs::stat(&self.dir_path)) {
            Ok(stat) => Some((stat.st_dev, stat.st_ino)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
            Err(errno) => return Err(of(errno)),
        };
        if there == Some((ours.st_dev, ours.st_ino)) && ours.st_nlink > 0 {
            return Ok(());
        }
        let what = if there.is_some() { "was replaced by another" } else { "is gone" };
        Err(SinkError::Disk(format!(
            "cannot finish {}: its directory {what} meanwhile; leave it in place and try again",
            shown(&self.path)
        )))
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, SinkError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => SinkError::Name(format!(
            "the directory {} does not exist; make it first or give another with -o",
            shown(path)
        )),
        Errno::NOTDIR => SinkError::Name(format!(
            "{} is not a directory; give a directory or a file name with -o",
            shown(path)
        )),
        _ => refused("open the directory", path, &errno.into()),
    })
}

/// Checks that `name` in `dir` does not exist, or is a regular file that may be replaced (`replace`).
/// Returns whether there is such a file.
pub(super) fn require_free(
    dir: impl AsFd,
    name: &OsStr,
    path: &Path,
    replace: bool,
) -> Result<bool, SinkError> {
    let kind = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(refused("look up", path, &errno.into())),
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
    };
    let what = match kind {
        FileType::RegularFile if replace => return Ok(true),
        FileType::RegularFile => {
            return Err(SinkError::Name(format!(
                "{} exists already; use --force to replace it",
                shown(path)
            )));
        }
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        FileType::Unknown => "not a regular file",
    };
    Err(SinkError::Name(format!("{} is {what} and is not replaced; give another place with -o", shown(path))))
}
