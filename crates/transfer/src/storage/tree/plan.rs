//! Where the bytes of an object belong, once its manifest is known: the files of the staged tree.
//!
//! A file is created when the first of its bytes arrive, so that a tree of very many files does not hold up the network.

use super::old::OldTree;
use super::staging::Staging;
use super::steps::step;
use super::{TreeShape, open_beneath};
use crate::content::{Entry, EntryKind, FilePiece, Manifest, Placement, TreeHead};
use crate::storage::SinkError;
use crate::storage::direct::Direct;
use crate::storage::refusal::{refused, shown};
use crate::text::escape;
use rustix::fs::{AtFlags, Dir, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Large files that stay open.
const OPEN_FILES: usize = 16;
/// Locks under which files are created.
const LOCKS: usize = 16;
/// Zeros of this length are a hole.
const HOLE_FROM: u64 = 64 << 10;
/// From this size on, a file is written past the page cache.
const DIRECT_FROM: u64 = 16 << 20;

/// A large file that is open.
struct OpenFile {
    file: File,
    direct: Direct,
}

/// The manifest of a tree, and the state of its files.
pub struct Plan {
    pub manifest: Manifest,
    pub placement: Placement,
    /// Whether each entry is in the staged tree as a file.
    made: Vec<AtomicBool>,
    creating: [Mutex<()>; LOCKS],
    open: Mutex<VecDeque<(u32, Arc<OpenFile>)>>,
    /// The path of the target, for messages.
    target: PathBuf,
    single_top: bool,
}

/// What the sender has done wrong.
pub fn senders_fault(what: impl std::fmt::Display) -> SinkError {
    SinkError::Content(format!("the sender's tree is refused: {what}"))
}

impl Plan {
    /// The plan of the tree whose manifest is `bytes`, which are verified. `name` is the announced name.
    ///
    /// # Errors
    /// If the manifest is not what was announced, or unsound.
    pub fn new(bytes: &[u8], shape: &TreeShape, name: &str, target: &Path) -> Result<Self, SinkError> {
        let manifest = Manifest::decode(bytes).map_err(senders_fault)?;
        if TreeHead::of(&manifest, shape.head.archive) != shape.head {
            return Err(senders_fault("its manifest is not what was announced"));
        }
        let placement = Placement::new(&manifest, shape.block_log2).map_err(senders_fault)?;
        if placement.size() != shape.size {
            return Err(senders_fault(format_args!(
                "its manifest needs {} bytes, and {} were announced",
                placement.size(),
                shape.size
            )));
        }
        let single_top = shape.head.tops == 1;
        for top in manifest.entries().iter().filter(|entry| entry.is_plain_name()) {
            let own = std::str::from_utf8(top.path()).ok();
            let sound = own.is_some_and(|own| {
                crate::storage::name_objection(own).is_none() && (!single_top || own == name)
            });
            if !sound {
                let own = escape(&String::from_utf8_lossy(top.path()));
                return Err(senders_fault(format_args!("\"{own}\" is no usable name at its top")));
            }
        }
        let made = manifest.entries().iter().map(|_| AtomicBool::new(false)).collect();
        let (creating, open) = (Default::default(), Mutex::default());
        Ok(Self { manifest, placement, made, creating, open, target: target.to_owned(), single_top })
    }

    pub fn entry(&self, number: u32) -> &Entry {
        &self.manifest.entries()[number as usize]
    }

    /// The path that an entry will have.
    pub fn path_of(&self, entry: &Entry) -> PathBuf {
        let path = entry.path();
        match path.iter().position(|&byte| byte == b'/') {
            Some(at) if self.single_top => self.target.join(OsStr::from_bytes(&path[at + 1..])),
            None if self.single_top => self.target.clone(),
            _ => self.target.join(OsStr::from_bytes(path)),
        }
    }

    pub fn refused(&self, what: &str, entry: &Entry, error: &io::Error) -> SinkError {
        refused(what, &self.path_of(entry), error)
    }

    /// Makes the directories of the tree, and keeps of what an earlier run has left what may be of use.
    pub fn prepare(&self, staging: &Staging) -> Result<(), SinkError> {
        if staging.adopted {
            self.keep_useful(&staging.tree, &mut Vec::new())
                .map_err(|errno| refused("take over the part of", &self.target, &errno.into()))?;
        }
        let mut inodes = BTreeSet::new();
        for entry in self.manifest.entries().iter().filter(|e| matches!(e.kind(), EntryKind::Directory)) {
            let fail = |errno: Errno| self.refused("create", entry, &errno.into());
            let (parent, name) = super::parent_of(&staging.tree, entry.path()).map_err(fail)?;
            let make = || rustix::fs::mkdirat(&parent, name, Mode::RWXU);
            match step().and_then(|()| retry_on_intr(make)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || !inodes.insert(stat.st_ino) {
                return Err(self.collision(entry, &parent, name));
            }
        }
        Ok(())
    }

    /// Removes everything of an earlier run but the directories and the files of the manifest.
    fn keep_useful(&self, dir: &OwnedFd, path: &mut Vec<u8>) -> Result<(), Errno> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let before = path.len();
            if before > 0 {
                path.push(b'/');
            }
            path.extend(name);
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            step()?;
            let found = FileType::from_raw_mode(stat.st_mode);
            match self.number_of(path).map(|number| (number, self.entry(number).kind())) {
                Some((_, EntryKind::Directory)) if found == FileType::Directory => {
                    rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
                    let below = open_beneath(dir, name, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
                    self.keep_useful(&below, path)?;
                }
                // Another name of the file may be of another entry now.
                Some((number, EntryKind::File(extents)))
                    if found == FileType::RegularFile && stat.st_nlink == 1 =>
                {
                    rustix::fs::chmodat(dir, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
                    // One with holes may have been made and not extended.
                    let (is, wanted) = (stat.st_size as u64, extents.size());
                    if is > wanted || (is < wanted && !extents.is_solid()) {
                        let file = open_beneath(dir, name, OFlags::WRONLY, 0)?;
                        rustix::fs::ftruncate(&file, wanted)?;
                    }
                    self.made[number as usize].store(true, Ordering::Release);
                }
                _ => super::remove::remove_all(dir, name)?,
            }
            path.truncate(before);
        }
        Ok(())
    }

    /// The number of the entry with this path.
    fn number_of(&self, path: &[u8]) -> Option<u32> {
        let parts = |path: &[u8]| path.split(|&byte| byte == b'/').map(<[u8]>::to_owned).collect::<Vec<_>>();
        let wanted = parts(path);
        let found = self.manifest.entries().binary_search_by(|entry| {
            entry.path().split(|&byte| byte == b'/').cmp(wanted.iter().map(Vec::as_slice))
        });
        found.ok().map(|number| number as u32)
    }

    /// The ranges of the object that may be there already: in the staged tree, or in an earlier one.
    pub fn held(&self, old: Option<&OldTree>) -> Vec<Range<u64>> {
        let files = self.placement.files().iter().filter(|file| {
            self.made[file.entry as usize].load(Ordering::Acquire)
                || old.is_some_and(|old| old.has(self.entry(file.entry).path(), self.single_top))
        });
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for file in files {
            let range = file.start..file.start + file.len;
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }

    /// Writes what belongs to files of these bytes of the object.
    pub fn write(
        &self,
        staging: &Staging,
        offset: u64,
        bytes: &[u8],
        through: bool,
    ) -> Result<(), SinkError> {
        for piece in self.placement.pieces(offset..offset + bytes.len() as u64) {
            let at = (piece.object - offset) as usize;
            self.write_piece(staging, piece, &bytes[at..at + piece.len as usize], through)?;
        }
        Ok(())
    }

    fn write_piece(
        &self,
        staging: &Staging,
        piece: FilePiece,
        bytes: &[u8],
        through: bool,
    ) -> Result<(), SinkError> {
        let entry = self.entry(piece.entry);
        let fail = |error: io::Error| self.refused("write", entry, &error);
        let open = self.open(staging, piece)?;
        let mut rest = bytes;
        for (offset, len) in entry.extents().into_iter().flat_map(|e| e.runs_of_data(piece.data, piece.len)) {
            let (run, behind) = rest.split_at(len as usize);
            rest = behind;
            step().map_err(|errno| fail(errno.into()))?;
            let direct = if through { open.direct.write_at(offset, run).map_err(fail)? } else { 0 };
            open.file.write_all_at(&run[direct..], offset + direct as u64).map_err(fail)?;
        }
        Ok(())
    }

    /// The same for zeros, which are holes where the file system has them.
    pub fn write_zeros(&self, staging: &Staging, offset: u64, len: u64) -> Result<(), SinkError> {
        for piece in self.placement.pieces(offset..offset + len) {
            let entry = self.entry(piece.entry);
            let open = self.open(staging, piece)?;
            for (at, len) in entry.extents().into_iter().flat_map(|e| e.runs_of_data(piece.data, piece.len)) {
                make_hole(&open.file, at, len).map_err(|error| self.refused("write", entry, &error))?;
            }
        }
        Ok(())
    }

    /// Reads bytes of the object behind its manifest.
    pub fn read(&self, staging: &Staging, offset: u64, buf: &mut [u8], back: bool) -> Result<(), SinkError> {
        buf.fill(0);
        for piece in self.placement.pieces(offset..offset + buf.len() as u64) {
            let entry = self.entry(piece.entry);
            let at = (piece.object - offset) as usize;
            let fail = |error: io::Error| self.refused("read back", entry, &error);
            if !self.made[piece.entry as usize].load(Ordering::Acquire) {
                return Err(fail(Errno::NOENT.into()));
            }
            let open = self.open(staging, piece)?;
            if back {
                // What is not read directly must not come from the cache either. All of it was synced before.
                let _ = rustix::fs::fadvise(&open.file, 0, None, rustix::fs::Advice::DontNeed);
            }
            read_piece(&open.file, entry, piece, &mut buf[at..at + piece.len as usize], |offset, run| {
                if back { open.direct.read_at(offset, run) } else { Ok(0) }
            })
            .map_err(fail)?;
        }
        Ok(())
    }

    /// Reads bytes of the object from an earlier tree.
    pub fn read_old(&self, old: &OldTree, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        for piece in self.placement.pieces(offset..offset + buf.len() as u64) {
            let entry = self.entry(piece.entry);
            let at = (piece.object - offset) as usize;
            let file = old.file(entry.path(), self.single_top).ok_or(io::ErrorKind::NotFound)?;
            read_piece(&file, entry, piece, &mut buf[at..at + piece.len as usize], |_, _| Ok(0))?;
        }
        Ok(())
    }

    /// The file of a piece. Large ones stay open.
    fn open(&self, staging: &Staging, piece: FilePiece) -> Result<Arc<OpenFile>, SinkError> {
        let number = piece.entry;
        let large = piece.object < self.placement.packed();
        if large && let Some((_, open)) = lock(&self.open).iter().find(|(other, _)| *other == number) {
            return Ok(Arc::clone(open));
        }
        let file = self.file(staging, number)?;
        let entry = self.entry(number);
        let direct = (entry.size() >= DIRECT_FROM).then(|| {
            open_beneath(&staging.tree, entry.path(), OFlags::RDWR | OFlags::DIRECT, 0).map(File::from).ok()
        });
        let open = Arc::new(OpenFile { file, direct: Direct::of(direct.flatten()) });
        if large {
            let mut files = lock(&self.open);
            if files.len() >= OPEN_FILES {
                files.pop_front();
            }
            files.push_back((number, Arc::clone(&open)));
        }
        Ok(open)
    }

    /// Opens a file of the staged tree, and creates it if it is not there.
    pub fn file(&self, staging: &Staging, number: u32) -> Result<File, SinkError> {
        let (entry, made) = (self.entry(number), &self.made[number as usize]);
        let fail = |errno: Errno| self.refused("create", entry, &errno.into());
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = || open_beneath(&staging.tree, entry.path(), flags, 0).map(File::from).map_err(fail);
        if made.load(Ordering::Acquire) {
            return open();
        }
        let _creating = lock(&self.creating[number as usize % LOCKS]);
        if made.load(Ordering::Acquire) {
            return open();
        }
        step().map_err(fail)?;
        let created = open_beneath(&staging.tree, entry.path(), flags | OFlags::CREATE | OFlags::EXCL, 0o600);
        let file = match created {
            Ok(fd) => File::from(fd),
            Err(Errno::EXIST) => {
                let (parent, name) = super::parent_of(&staging.tree, entry.path()).map_err(fail)?;
                return Err(self.collision(entry, &parent, name));
            }
            Err(errno) => return Err(fail(errno)),
        };
        let size = entry.size();
        let solid = entry.extents().is_none_or(crate::content::Extents::is_solid);
        if !solid || size >= DIRECT_FROM {
            step().map_err(fail)?;
            file.set_len(size).map_err(|error| self.refused("write", entry, &error))?;
        }
        made.store(true, Ordering::Release);
        Ok(file)
    }

    /// The error for two entries that are one here.
    pub fn collision(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> SinkError {
        let other = same_here(parent, name).map_or_else(
            || "another one".to_owned(),
            |other| shown(&self.path_of(entry).with_file_name(OsStr::from_bytes(&other))),
        );
        SinkError::Name(format!(
            "{} and {other} are one name on this file system; give a place on another one with -o",
            shown(&self.path_of(entry))
        ))
    }
}

/// The name under which `name` is listed in a directory.
fn same_here(parent: &OwnedFd, name: &[u8]) -> Option<Vec<u8>> {
    let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let listed = open_beneath(parent.as_fd(), b".", OFlags::RDONLY | OFlags::DIRECTORY, 0).ok()?;
    let names = Dir::new(listed).ok()?.flatten().filter(|entry| entry.ino() == there.st_ino);
    names.map(|entry| entry.file_name().to_bytes().to_owned()).find(|other| other != name)
}

/// Makes a run of a file zeros. The file gets no shorter than the end of the run.
pub fn make_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let end = offset + len;
    if len < HOLE_FROM || retry_on_intr(|| rustix::fs::fallocate(file, punch, offset, len)).is_err() {
        let zeros = vec![0; len.min(1 << 20) as usize];
        for at in (offset..end).step_by(zeros.len().max(1)) {
            file.write_all_at(&zeros[..zeros.len().min((end - at) as usize)], at)?;
        }
    } else if file.metadata()?.len() < end {
        // Another worker may be making the file longer; this never makes it shorter.
        file.write_all_at(&[0], end - 1)?;
    }
    Ok(())
}

/// Reads a piece of a file; `first` may read the beginning of each run in another way.
fn read_piece(
    file: &File,
    entry: &Entry,
    piece: FilePiece,
    buf: &mut [u8],
    mut first: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    for (offset, len) in entry.extents().into_iter().flat_map(|e| e.runs_of_data(piece.data, piece.len)) {
        let run = &mut buf[done..done + len as usize];
        done += len as usize;
        let read = first(offset, run)?;
        file.read_exact_at(&mut run[read..], offset + read as u64)?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
