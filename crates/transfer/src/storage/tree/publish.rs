//! A finished tree gets its name: one rename for each entry at its top, which are one for a directory.

use super::existing::InPlace;
use super::finish::Finish;
use super::plan::Plan;
use super::staging::Staging;
use super::steps::step;
use super::{TreeOptions, open_beneath};
use crate::content::{Entry, EntryKind};
use crate::storage::SinkError;
use crate::storage::part::sync_directory;
use crate::storage::refusal::{refused, shown};
use crate::storage::sink::Target;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where what is replaced is put if it cannot be exchanged.
const REPLACED: &[u8] = b"replaced";

/// An entry at the top of a tree: it, its name in the directory of the target, and its path.
pub fn tops<'a>(plan: &'a Plan, target: &'a Target) -> impl Iterator<Item = (&'a Entry, &'a OsStr, PathBuf)> {
    let tops = plan.manifest.entries().iter().filter(|entry| entry.is_plain_name());
    let single = tops.clone().count() == 1;
    tops.map(move |entry| {
        let own = OsStr::from_bytes(entry.path());
        (entry, if single { &target.name } else { own }, plan.path_of(entry))
    })
}

/// What becomes of the name of an entry at the top of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// It is free.
    Free,
    /// What has it is replaced.
    Replaced,
    /// What has it is the entry, as far as was looked at, and stays.
    Kept,
}

/// Checks that the names of the tree may be taken, or have what is sent. `archive` tells whether that has owners and the
/// like.
///
/// # Errors
/// If one of them is taken and may not be replaced.
pub fn require_free(
    plan: &Plan,
    target: &Target,
    options: TreeOptions,
    archive: bool,
) -> Result<(), SinkError> {
    for (entry, name, path) in tops(plan, target) {
        let is_directory = matches!(entry.kind(), EntryKind::Directory);
        let is_listed = || InPlace::of(plan, entry, archive).is_listed(&path);
        require_one_free(target, name, &path, is_directory, options, is_listed)?;
    }
    Ok(())
}

/// Checks that `name` beside the target may be taken by a directory, or by another kind of entry. Where it is taken and
/// nothing is replaced, `is_same` tells whether that is the entry.
///
/// # Errors
/// If it may not.
pub fn require_one_free(
    target: &Target,
    name: &OsStr,
    path: &Path,
    is_directory: bool,
    options: TreeOptions,
    is_same: impl FnOnce() -> bool,
) -> Result<Name, SinkError> {
    let kind = match rustix::fs::statat(&target.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Name::Free),
        Err(errno) => return Err(refused("look up", path, &errno.into())),
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
    };
    if !options.merge && !options.force && is_same() {
        return Ok(Name::Kept);
    }
    let fits = kind == if is_directory { FileType::Directory } else { FileType::RegularFile };
    if !fits {
        let what = match kind {
            FileType::Directory => "a directory",
            FileType::RegularFile => "a file",
            FileType::Symlink => "a symbolic link",
            _ => "a device or pipe",
        };
        return Err(SinkError::Name(format!(
            "{} is {what} and is not replaced by {}; give another place with -o",
            shown(path),
            if is_directory { "a directory" } else { "a file" }
        )));
    }
    if options.merge {
        return Ok(Name::Replaced);
    }
    if !options.force {
        let merge = if is_directory { ", or --merge to put the files into it" } else { "" };
        return Err(SinkError::Name(format!(
            "{} exists already; use --force to replace it{merge}",
            shown(path)
        )));
    }
    if let Some(point) = mounted_below(&target.dir_path, name).filter(|_| is_directory) {
        return Err(SinkError::Name(format!(
            "{} cannot be replaced, because {} is mounted; unmount it, use --merge, or give another place with -o",
            shown(path),
            shown(&point)
        )));
    }
    Ok(Name::Replaced)
}

/// Gives the tree its names.
///
/// # Errors
/// If a name has been taken meanwhile, or the disk fails.
pub fn publish(
    plan: &Plan,
    target: &Target,
    staging: &Staging,
    force: bool,
    finish: &Finish<'_>,
) -> Result<(), SinkError> {
    let options = TreeOptions { force, ..TreeOptions::default() };
    let archive = finish.archive();
    let mut names = Vec::new();
    for (entry, name, path) in tops(plan, target) {
        let in_place = InPlace::of(plan, entry, archive);
        let is_same = || {
            in_place.is_listed(&path)
                && in_place.has_contents(plan, staging, &target.dir).is_ok_and(|is_same| is_same)
        };
        let is_directory = matches!(entry.kind(), EntryKind::Directory);
        names.push(require_one_free(target, name, &path, is_directory, options, is_same)?);
    }
    for ((entry, name, path), found) in tops(plan, target).zip(names) {
        if found == Name::Kept {
            continue;
        }
        let is_directory = matches!(entry.kind(), EntryKind::Directory);
        // Its mode may not allow to move it, so it gets that afterwards.
        let open = || open_beneath(&staging.tree, entry.path(), OFlags::RDONLY | OFlags::DIRECTORY, 0);
        let moved = is_directory.then(open).transpose();
        let moved = moved.map_err(|errno| refused("open", &path, &errno.into()))?;
        // Somebody else may have made it meanwhile.
        let found = require_one_free(target, name, &path, is_directory, options, || false)?;
        let renamed = if found == Name::Replaced {
            exchange(target, staging, (entry.path(), name))
        } else {
            rename_free(target, staging, (entry.path(), name))
        };
        renamed.map_err(|errno| match errno {
            Errno::EXIST | Errno::NOTEMPTY => SinkError::Name(format!(
                "{} was made by another program meanwhile; move it away, or use --force to replace it",
                shown(&path)
            )),
            Errno::BUSY => SinkError::Name(format!(
                "{} is in use as a mount point and cannot be replaced; give another place with -o",
                shown(&path)
            )),
            errno => refused("rename the finished tree to", &path, &errno.into()),
        })?;
        if let Some(moved) = moved {
            // A file system that does not keep modes still keeps the bytes.
            let change = || rustix::fs::fchmod(&moved, Mode::from_raw_mode(finish.mode(entry)));
            let _ = step().and_then(|()| retry_on_intr(change));
            let _ = sync_directory(&moved);
        }
    }
    let synced = step().and_then(|()| sync_directory(&target.dir));
    synced.map_err(|errno| refused("sync the directory of", &target.path, &errno.into()))
}

fn rename_free(target: &Target, staging: &Staging, (from, to): (&[u8], &OsStr)) -> Result<(), Errno> {
    let rename = || rustix::fs::renameat_with(&staging.tree, from, &target.dir, to, RenameFlags::NOREPLACE);
    match step().and_then(|()| retry_on_intr(rename)) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        done => return done,
    }
    // A file system that cannot refuse to replace. If another program makes the name just now, a file of it is lost.
    match rustix::fs::statat(&target.dir, to, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => retry_on_intr(|| rustix::fs::renameat(&staging.tree, from, &target.dir, to)),
        Err(errno) => Err(errno),
        Ok(_) => Err(Errno::EXIST),
    }
}

/// Puts what had the name into the staging directory, where it is removed afterwards.
fn exchange(target: &Target, staging: &Staging, (from, to): (&[u8], &OsStr)) -> Result<(), Errno> {
    let exchange = || rustix::fs::renameat_with(&staging.tree, from, &target.dir, to, RenameFlags::EXCHANGE);
    match step().and_then(|()| retry_on_intr(exchange)) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        done => return done,
    }
    // A file system that cannot exchange: for a moment nothing has the name.
    match rustix::fs::mkdirat(&staging.dir, REPLACED, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let replaced = open_beneath(&staging.dir, REPLACED, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
    rustix::fs::renameat(&target.dir, to, &replaced, from)?;
    rustix::fs::renameat(&staging.tree, from, &target.dir, to).inspect_err(|_| {
        let _ = rustix::fs::renameat(&replaced, from, &target.dir, to);
    })
}

/// A mount point at or below `name` in a directory.
fn mounted_below(dir: &Path, name: &OsStr) -> Option<PathBuf> {
    let path = fs::canonicalize(dir).ok()?.join(name);
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    let points =
        mounts.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    points
        .map(|point| PathBuf::from(std::ffi::OsString::from_vec(unescape(point))))
        .find(|p| p.starts_with(&path))
}

/// Undoes the octal escapes of a mount point.
fn unescape(text: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some((&first, behind)) = rest.split_first() {
        let octal = behind
            .get(..3)
            .filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        let (byte, next) = match octal {
            Some(&[a, b, c]) => ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), &behind[3..]),
            _ => (first, behind),
        };
        out.push(byte);
        rest = next;
    }
    out
}
