//! The end of a staged tree: links, device nodes, and attributes, those of directories from the leaves up.

use super::parent_of;
use super::plan::Plan;
use super::staging::Staging;
use super::steps::step;
use crate::content::{Entry, EntryKind, Modified, Owner, Xattr};
use crate::storage::attributes::umask;
use crate::storage::{DeviceNotes, SinkError};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, retry_on_intr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Entries that a thread takes at a time.
const CHUNK: usize = 512;
/// Threads that set attributes.
const THREADS: usize = 4;

/// Whether `--archive` was given here and at the sender.
#[derive(Clone, Copy, Debug)]
pub struct Archive {
    pub wanted: bool,
    pub sent: bool,
}

/// Completes a staged tree.
pub struct Finish<'a> {
    plan: &'a Plan,
    staging: &'a Staging,
    archive: Archive,
    notes: &'a DeviceNotes,
    /// Permission bits that new files do not get.
    umask: u32,
    /// Extended attributes that this file system did not take.
    lost: AtomicU32,
}

impl<'a> Finish<'a> {
    pub fn new(plan: &'a Plan, staging: &'a Staging, archive: Archive, notes: &'a DeviceNotes) -> Self {
        Self { plan, staging, archive, notes, umask: umask(), lost: AtomicU32::new(0) }
    }

    /// Whether owners, all attributes and device nodes are restored.
    pub const fn archive(&self) -> bool {
        self.archive.wanted
    }

    /// Makes everything but the directories as it is to be.
    pub fn contents(&self) -> Result<(), SinkError> {
        if self.archive.wanted && !self.archive.sent {
            self.notes.warn("the sender did not use --archive: owners are not known".to_owned());
        }
        let entries = self.plan.manifest.entries();
        let mut left_out = 0;
        for (number, entry) in (0_u32..).zip(entries) {
            match entry.kind() {
                // Those with data are there.
                EntryKind::File(extents) if extents.data_len() == 0 => {
                    drop(self.plan.file(self.staging, number)?)
                }
                EntryKind::Device { block, major, minor } if self.archive.wanted => {
                    let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                    let node = rustix::fs::makedev(*major, *minor);
                    let mode = Mode::RUSR | Mode::WUSR;
                    self.make(entry, |dir, name| rustix::fs::mknodat(dir, name, kind, mode, node))?;
                }
                EntryKind::Device { .. } => left_out += 1,
                _ => {}
            }
        }
        if left_out > 0 {
            let text = "device nodes are left out; --archive makes them";
            self.notes.warn(format!("{left_out} {text}"));
        }
        for entry in entries {
            if let EntryKind::HardLink(number) = entry.kind() {
                let first = self.plan.entry(*number);
                let fail = |errno: Errno| self.plan.refused("link", entry, &errno.into());
                let (of, own) = parent_of(&self.staging.tree, first.path()).map_err(fail)?;
                self.make(entry, |dir, name| rustix::fs::linkat(&of, own, dir, name, AtFlags::empty()))?;
            }
        }
        // From here on, no path of the staged tree is opened for writing.
        for entry in entries {
            if let EntryKind::Symlink(target) = entry.kind() {
                self.make(entry, |dir, name| rustix::fs::symlinkat(&target[..], dir, name))?;
            }
        }
        self.attributes_of_contents()?;
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            self.notes
                .warn(format!("{lost} extended attributes are lost: the file system does not take them"));
        }
        Ok(())
    }

    /// Makes an entry, which must be new.
    fn make(
        &self,
        entry: &Entry,
        make: impl Fn(&OwnedFd, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), SinkError> {
        let fail = |errno: Errno| self.plan.refused("create", entry, &errno.into());
        let (parent, name) = parent_of(&self.staging.tree, entry.path()).map_err(fail)?;
        match step().and_then(|()| retry_on_intr(|| make(&parent, name))) {
            Err(Errno::EXIST) => Err(self.plan.collision(entry, &parent, name)),
            done => done.map_err(fail),
        }
    }

    fn attributes_of_contents(&self) -> Result<(), SinkError> {
        let entries = self.plan.manifest.entries();
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), SinkError> {
            loop {
                let from = next.fetch_add(CHUNK, Ordering::Relaxed);
                let Some(rest) = entries.get(from..) else { return Ok(()) };
                self.attributes_of(&rest[..rest.len().min(CHUNK)])?;
            }
        };
        std::thread::scope(|scope| {
            let threads = entries.len().div_ceil(CHUNK).min(THREADS);
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            let joined = others.into_iter().map(|other| {
                let died = || SinkError::Disk("a thread has died; please report this".to_owned());
                other.join().unwrap_or_else(|_| Err(died()))
            });
            joined.fold(own, |all, one| all.and(one))
        })
    }

    fn attributes_of(&self, entries: &[Entry]) -> Result<(), SinkError> {
        let mut at: Option<(Option<&[u8]>, OwnedFd)> = None;
        for entry in entries {
            let skipped = match entry.kind() {
                EntryKind::Directory | EntryKind::HardLink(_) => true,
                EntryKind::Device { .. } => !self.archive.wanted,
                _ => false,
            };
            if skipped {
                continue;
            }
            let parent = entry.parent();
            if at.as_ref().is_none_or(|(there, _)| *there != parent) {
                let fail = |errno: Errno| self.plan.refused("look up", entry, &errno.into());
                at = Some((parent, parent_of(&self.staging.tree, entry.path()).map_err(fail)?.0));
            }
            let name = entry.path().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            if let Some((_, dir)) = &at {
                self.apply(entry, dir, name, 0)?;
            }
        }
        Ok(())
    }

    /// Gives the staged directories their attributes. Those at the top stay writable until they are in place: the system
    /// does not move others.
    pub fn directories(&self) -> Result<(), SinkError> {
        for entry in self.plan.manifest.entries().iter().rev() {
            if matches!(entry.kind(), EntryKind::Directory) {
                let fail = |errno: Errno| self.plan.refused("look up", entry, &errno.into());
                let (parent, name) = parent_of(&self.staging.tree, entry.path()).map_err(fail)?;
                self.apply(entry, &parent, name, if entry.is_plain_name() { 0o700 } else { 0 })?;
            }
        }
        Ok(())
    }

    /// Gives `name` in `dir` the attributes of an entry; its mode gets the bits `more` too.
    pub fn apply(&self, entry: &Entry, dir: &OwnedFd, name: &[u8], more: u32) -> Result<(), SinkError> {
        // A file system that does not keep attributes still keeps the bytes.
        let check = |done: Result<(), Errno>| match done {
            Err(errno) if self.archive.wanted => {
                Err(self.plan.refused("set the attributes of", entry, &errno.into()))
            }
            _ => Ok(()),
        };
        if let Some(Owner { user, group }) = entry.owner().filter(|_| self.archive.wanted) {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            check(rustix::fs::chownat(dir, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW))?;
        }
        // Those of the user need the right to write, which the mode may take away.
        let (users, others): (Vec<&Xattr>, Vec<&Xattr>) = entry.xattrs().iter().partition(|x| x.is_users());
        check(self.set_xattrs(dir, name, &users))?;
        if !matches!(entry.kind(), EntryKind::Symlink(_)) {
            let mode = Mode::from_raw_mode(self.mode(entry) | more);
            let change = || rustix::fs::chmodat(dir, name, mode, AtFlags::empty());
            check(step().and_then(|()| retry_on_intr(change)))?;
        }
        if self.archive.wanted {
            check(self.set_xattrs(dir, name, &others))?;
        }
        let Modified { seconds, nanoseconds } = entry.modified();
        let at = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
        let times = Timestamps { last_access: at, last_modification: at };
        let change = || rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        check(step().and_then(|()| retry_on_intr(change)))
    }

    /// The mode that an entry gets here: as a copy would, or exactly that of the sender.
    pub fn mode(&self, entry: &Entry) -> u32 {
        let mode = u32::from(entry.mode());
        if self.archive.wanted { mode } else { mode & 0o777 & !self.umask }
    }

    fn set_xattrs(&self, dir: &OwnedFd, name: &[u8], xattrs: &[&Xattr]) -> Result<(), Errno> {
        if xattrs.is_empty() {
            return Ok(());
        }
        // No system call takes a directory for them.
        let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        path.extend(name);
        let path = PathBuf::from(std::ffi::OsString::from_vec(path));
        for Xattr { name, value } in xattrs {
            match rustix::fs::lsetxattr(&path, &name[..], value, XattrFlags::empty()) {
                Err(_) if !self.archive.wanted => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                done => done?,
            }
        }
        Ok(())
    }
}
