//! Opens files that only the administrator can have written: manifests and executables.
//!
//! The path is walked from the root directory, a component at a time, below descriptors. Each directory on the way, and
//! the file, must belong to root (or to the user that the agent runs as) and must not be writable for others. So nobody
//! else can have put another file there, before or after it is opened.

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::process::geteuid;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Most symbolic links in a path, as in the kernel.
const MAX_LINKS: usize = 40;

/// Whether symbolic links are followed. Their directories are checked like all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    Refuse,
    Follow,
}

/// Why a path is not trusted: a clause for people that names the part of the path and the next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Untrusted {
    /// The clause.
    pub why: String,
    /// Whether the path does not exist.
    pub absent: bool,
}

impl Untrusted {
    fn new(why: String) -> Self {
        Self { why, absent: false }
    }
}

/// Opens a regular file for reading.
pub(super) fn open_file(path: &Path, links: Links) -> Result<File, Untrusted> {
    let (fd, at) = walk(path, links)?;
    let stat = checked(&fd, &at)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Untrusted::new(format!("{} is not a regular file; put one there", at.display())));
    }
    reopen(&fd, OFlags::RDONLY, &at).map(File::from)
}

/// Opens a directory for listing it.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, Untrusted> {
    let (fd, at) = walk(path, Links::Refuse)?;
    let stat = checked(&fd, &at)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Untrusted::new(format!("{} is not a directory; make it one", at.display())));
    }
    reopen(&fd, OFlags::RDONLY | OFlags::DIRECTORY, &at)
}

/// The same file that `fd` names, with rights.
fn reopen(fd: &OwnedFd, flags: OFlags, at: &Path) -> Result<OwnedFd, Untrusted> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        Untrusted::new(format!("{} cannot be opened ({e}); let the agent read it", at.display()))
    })
}

/// Its status, if it belongs to whom it should and others cannot write to it.
fn checked(fd: &OwnedFd, at: &Path) -> Result<Stat, Untrusted> {
    let stat = fstat(fd).map_err(|e| Untrusted::new(format!("{} cannot be examined ({e})", at.display())))?;
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        let (at, uid) = (at.display(), stat.st_uid);
        return Err(Untrusted::new(format!("{at} belongs to user {uid}; run 'chown root {at}'")));
    }
    if stat.st_mode & 0o022 != 0 {
        let at = at.display();
        return Err(Untrusted::new(format!("{at} is writable for others; run 'chmod go-w {at}'")));
    }
    Ok(stat)
}

/// Finds a path without opening what is there. All directories on the way are checked, the last component is not.
fn walk(path: &Path, links: Links) -> Result<(OwnedFd, PathBuf), Untrusted> {
    if !path.is_absolute() {
        return Err(Untrusted::new(format!(
            "{} is not an absolute path; write it from / on",
            path.display()
        )));
    }
    let mut todo: VecDeque<OsString> = names(path).collect();
    let mut above: Vec<OwnedFd> = Vec::new();
    let (mut at, mut followed) = (PathBuf::from("/"), 0);
    let mut here = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Untrusted::new(format!("/ cannot be opened ({e})")))?;
    while let Some(name) = todo.pop_front() {
        checked(&here, &at)?;
        if name == ".." {
            if let Some(parent) = above.pop() {
                here = parent;
                at.pop();
            }
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = openat(&here, &name, flags, Mode::empty()).map_err(|e| Untrusted {
            why: format!("{} cannot be opened ({e})", at.join(&name).display()),
            absent: e == rustix::io::Errno::NOENT,
        })?;
        let link = fstat(&next).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if !link {
            above.push(std::mem::replace(&mut here, next));
            at.push(name);
            continue;
        }
        followed += 1;
        if links == Links::Refuse || followed > MAX_LINKS {
            let at = at.join(&name);
            return Err(Untrusted::new(format!(
                "{} is a symbolic link; put the file itself there",
                at.display()
            )));
        }
        let target = readlinkat(&next, "", Vec::new())
            .map_err(|e| Untrusted::new(format!("{} cannot be read ({e})", at.join(&name).display())))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            if !above.is_empty() {
                above.truncate(1);
                here = above.pop().unwrap_or(here);
            }
            at = PathBuf::from("/");
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            todo.push_front(name);
        }
    }
    Ok((here, at))
}

/// The components of a path that lead somewhere.
fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}
