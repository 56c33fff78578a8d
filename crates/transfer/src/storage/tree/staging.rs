//! The private directory beside the target in which a tree is built. It belongs to the receiver that holds its lock; one
//! whose receiver has ended is taken over, like a part file.

use super::open_beneath;
use super::remove::remove_all;
use super::steps::step;
use crate::limits::MAX_NAME;
use crate::storage::SinkError;
use crate::storage::names::shorten;
use crate::storage::orphaned_part::{is_part_of, lock};
use crate::storage::part::{PART_AFFIXES, part_name};
use crate::storage::refusal::refused;
use crate::storage::sink::Target;
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// The file with the manifest, and with what arrives before the manifest is complete.
const OBJECT: &[u8] = b"object";
/// The directory with the tree.
pub const TREE: &[u8] = b"t";
/// Random names tried before giving up.
const NAME_TRIES: u32 = 8;
/// Its mode: nobody else looks into it.
const PRIVATE: Mode = Mode::RWXU;

/// An open and locked staging directory.
pub struct Staging {
    pub name: String,
    pub dir: OwnedFd,
    pub tree: OwnedFd,
    pub object: File,
    /// Whether an earlier run made it.
    pub adopted: bool,
}

impl Staging {
    /// Takes over the directory that an earlier run has left for `target`, or makes one.
    pub fn create(target: &Target) -> Result<Self, SinkError> {
        if let Some(adopted) = adopt(target) {
            return Ok(adopted);
        }
        let stem = target.name.to_string_lossy();
        let mut last = Errno::EXIST;
        for _ in 0..NAME_TRIES {
            let random = getrandom::u64()
                .map_err(|error| refused("draw a part name for", &target.path, &io::Error::other(error)))?;
            let name = part_name(&stem, random);
            match step().and_then(|()| retry_on_intr(|| rustix::fs::mkdirat(&target.dir, &name, PRIVATE))) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(refused("create", &target.path, &errno.into())),
            }
            match open(target, &name) {
                Ok(dir) if lock(&dir) => {
                    let made = Self::of(dir, name.clone(), false);
                    return made.map_err(|errno| {
                        // If this fails too, there is nobody to report it to.
                        let _ = remove_all(&target.dir, name.as_bytes());
                        refused("create", &target.path, &errno.into())
                    });
                }
                // Another receiver has taken it over already.
                Ok(_) => {}
                Err(errno) => last = errno,
            }
        }
        Err(refused("create", &target.path, &last.into()))
    }

    fn of(dir: OwnedFd, name: String, adopted: bool) -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK;
        step()?;
        let object = File::from(open_beneath(&dir, OBJECT, flags, 0o600)?);
        let stat = rustix::fs::fstat(&object)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile
            || stat.st_nlink > 1
        {
            return Err(Errno::EXIST);
        }
        match step().and_then(|()| retry_on_intr(|| rustix::fs::mkdirat(&dir, TREE, PRIVATE))) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let tree = open_beneath(&dir, TREE, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        Ok(Self { name, dir, tree, object, adopted })
    }

    /// Whether it still is where it was made.
    pub fn is_in_place(&self, target: &Target) -> bool {
        let named = rustix::fs::statat(&target.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        let own = rustix::fs::fstat(&self.dir);
        matches!((named, own), (Ok(named), Ok(own)) if (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino))
    }
}

/// Whether an earlier run has left a staging directory for `target`.
pub fn has_orphan(target: &Target) -> bool {
    orphans(target).is_some_and(|names| names.iter().any(|name| open(target, name).is_ok()))
}

/// The names of directories that may be of earlier runs for `target`.
fn orphans(target: &Target) -> Option<Vec<String>> {
    let stem = target.name.to_string_lossy();
    let stem = shorten(&stem, MAX_NAME - PART_AFFIXES);
    let entries = Dir::read_from(&target.dir).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    Some(names.filter(|name| is_part_of(name, stem)).collect())
}

fn open(target: &Target, name: &str) -> Result<OwnedFd, Errno> {
    open_beneath(&target.dir, name.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY, 0)
}

/// Takes over the directory that belongs to no living receiver and has something of a tree, or of several such ones
/// that which was written to last, and removes the others.
fn adopt(target: &Target) -> Option<Staging> {
    let mut found: Vec<(bool, (i64, i64), Staging)> = Vec::new();
    for name in orphans(target)? {
        let Some(staging) = take(target, name) else { continue };
        let object = staging.object.metadata().ok();
        let modified = object.as_ref().map(|meta| (meta.mtime(), meta.mtime_nsec())).unwrap_or_default();
        let is_used = object.is_some_and(|meta| meta.len() > 0) || !is_empty(&staging.tree);
        let tree = rustix::fs::fstat(&staging.tree)
            .map_or((0, 0), |stat| (stat.st_mtime, stat.st_mtime_nsec as i64));
        found.push((is_used, modified.max(tree), staging));
    }
    found.sort_by_key(|(is_used, modified, _)| (*is_used, *modified));
    let best = found.pop().map(|(_, _, staging)| staging);
    for (_, _, other) in found {
        // If this fails too, there is nobody to report it to.
        let _ = remove_all(&target.dir, other.name.as_bytes());
    }
    best
}

/// Removes what earlier runs have left for `target`, which has what is wanted: one that was killed after its tree had got
/// its name, for example.
pub fn remove_orphans(target: &Target) {
    for name in orphans(target).into_iter().flatten() {
        if let Some(orphan) = take(target, name) {
            // What stays is found by the next run.
            let _ = remove_all(&target.dir, orphan.name.as_bytes());
        }
    }
}

fn is_empty(dir: &OwnedFd) -> bool {
    let Ok(entries) = Dir::read_from(dir) else { return true };
    entries.flatten().all(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."))
}

fn take(target: &Target, name: String) -> Option<Staging> {
    let dir = open(target, &name).ok()?;
    // Without locks, it is unknown whether its receiver lives.
    retry_on_intr(|| rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)).ok()?;
    let stat = rustix::fs::fstat(&dir).ok()?;
    // Nobody else can have put anything into it.
    let ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
    let staging = Staging::of(dir, name, true).ok().filter(|_| ours)?;
    staging.is_in_place(target).then_some(staging)
}
