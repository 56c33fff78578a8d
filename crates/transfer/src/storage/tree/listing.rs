//! The listing of a tree at the sender: a manifest, and what must stay as it is while the tree is sent.

use crate::content::{Entry, EntryKind, Extents, Manifest, Modified, Owner, Xattr};
use crate::limits::{MAX_TREE_DEPTH, MAX_TREE_ENTRIES};
use crate::storage::SourceError;
use crate::storage::source::unreadable;
use crate::text::escape;
use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::{Errno, retry_on_intr};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Most extents of a file. What is behind them counts as data.
const MAX_EXTENTS: usize = 1 << 16;
/// Smaller files are not searched for holes.
const SPARSE_FROM: u64 = 64 << 10;
/// Most entries that are named to the user when they are left out.
const MOST_TOLD: usize = 10;

/// A file or directory that the user wants to send, and its name in the tree.
#[derive(Clone, Debug)]
pub struct Top {
    pub path: PathBuf,
    pub name: Vec<u8>,
}

/// What identifies a file and its content, as far as metadata can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    kind: u32,
    /// 0 but for regular files.
    pub size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub fn of(stat: &Stat) -> Self {
        let kind = FileType::from_raw_mode(stat.st_mode);
        // A directory's time changes with what is in it, and that is looked at.
        let timeless = kind == FileType::Directory;
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            kind: kind.as_raw_mode(),
            size: if kind == FileType::RegularFile { stat.st_size as u64 } else { 0 },
            modified: if timeless { (0, 0) } else { (stat.st_mtime, stat.st_mtime_nsec as i64) },
        }
    }
}

/// A tree as it was found.
pub struct Listing {
    pub manifest: Manifest,
    /// The stamps of the entries, in their order.
    pub stamps: Vec<Stamp>,
    /// What was left out: lines for the user.
    pub skipped: Vec<String>,
}

/// Lists what is at `tops`, whose names ascend. With `archive`, also owners, all attributes and device nodes.
///
/// # Errors
/// If something cannot be read or sent.
pub fn list(tops: &[Top], archive: bool) -> Result<Listing, SourceError> {
    let mut walk = Walk::new(Some(Details { archive, entries: Vec::new(), links: BTreeMap::new() }));
    walk.all(tops)?;
    let Walk { stamps, skipped, untold, details, .. } = walk;
    let mut skipped = skipped;
    if untold > 0 {
        skipped.push(format!("{untold} more pipes, sockets or devices are left out"));
    }
    let entries = details.map(|details| details.entries).unwrap_or_default();
    let manifest = Manifest::new(entries).map_err(|e| SourceError::Read(e.to_string()))?;
    Ok(Listing { manifest, stamps: stamps.into_iter().map(|(_, stamp)| stamp).collect(), skipped })
}

/// Compares what is at `tops` now with a listing of it.
///
/// # Errors
/// If something has changed, is gone, or is new: it is named.
pub fn compare(
    tops: &[Top],
    archive: bool,
    manifest: &Manifest,
    stamps: &[Stamp],
) -> Result<(), SourceError> {
    let mut walk = Walk::new(None);
    walk.lists_devices = archive;
    walk.all(tops)?;
    let changed = |path: &[u8], what: &str| {
        let shown = escape(&real_path(tops, path).to_string_lossy());
        Err(SourceError::Changed(format!("{shown} {what} while it was being sent; send it again")))
    };
    let mut now = walk.stamps.iter();
    for (entry, stamp) in manifest.entries().iter().zip(stamps) {
        match now.next() {
            Some((path, there)) if path == entry.path() && there == stamp => {}
            Some((path, _)) if path == entry.path() => return changed(path, "changed"),
            // The first difference of two sorted lists.
            Some((path, _)) if walk.stamps.iter().any(|(other, _)| other == entry.path()) => {
                return changed(path, "appeared");
            }
            _ => return changed(entry.path(), "was removed"),
        }
    }
    now.next().map_or(Ok(()), |(path, _)| changed(path, "appeared"))
}

/// The path in the file system of an entry.
pub fn real_path(tops: &[Top], path: &[u8]) -> PathBuf {
    let (name, rest) = match path.iter().position(|&byte| byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    };
    // They are sorted by their names.
    let top = tops.binary_search_by(|top| top.name.as_slice().cmp(name));
    let top = top.map_or(Path::new(""), |at| &tops[at].path);
    rest.map_or_else(|| top.to_owned(), |rest| top.join(OsStr::from_bytes(rest)))
}

/// What a manifest needs beyond the stamps.
struct Details {
    archive: bool,
    entries: Vec<Entry>,
    /// The entries of files with several names, by device and inode.
    links: BTreeMap<(u64, u64), u32>,
}

struct Walk {
    stamps: Vec<(Vec<u8>, Stamp)>,
    skipped: Vec<String>,
    untold: usize,
    lists_devices: bool,
    details: Option<Details>,
    /// Whether this user may read everything.
    all_readable: bool,
}

impl Walk {
    fn new(details: Option<Details>) -> Self {
        Self {
            stamps: Vec::new(),
            skipped: Vec::new(),
            untold: 0,
            lists_devices: details.as_ref().is_some_and(|details| details.archive),
            details,
            all_readable: rustix::process::geteuid().is_root(),
        }
    }

    fn all(&mut self, tops: &[Top]) -> Result<(), SourceError> {
        for top in tops {
            let stat = rustix::fs::stat(&top.path).map_err(|errno| failed(&top.path, errno))?;
            self.entry(
                rustix::fs::CWD,
                (top.path.as_os_str().as_bytes(), false),
                &stat,
                top.name.clone(),
                &top.path,
            )?;
        }
        Ok(())
    }

    /// Takes an entry, and all that is in it. `name` is relative to `dir`, and followed by whether a link of that name is
    /// not followed.
    fn entry(
        &mut self,
        dir: impl AsFd,
        (name, itself): (&[u8], bool),
        stat: &Stat,
        path: Vec<u8>,
        real: &Path,
    ) -> Result<(), SourceError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice);
        let listed = matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Symlink)
            || (is_device && self.lists_devices);
        if !listed {
            self.skip(kind, real);
            return Ok(());
        }
        if self.stamps.len() >= MAX_TREE_ENTRIES {
            return Err(SourceError::Read(format!(
                "more than {MAX_TREE_ENTRIES} files are too many for one tree; send them in parts"
            )));
        }
        self.stamps.push((path.clone(), Stamp::of(stat)));
        if self.details.is_some() {
            let entry = self.describe(&dir, name, (kind, stat), &path, real)?;
            self.details.iter_mut().for_each(|details| details.entries.push(entry.clone()));
        }
        if kind != FileType::Directory {
            return Ok(());
        }
        if path.iter().filter(|&&byte| byte == b'/').count() + 2 > MAX_TREE_DEPTH {
            let shown = escape(&real.to_string_lossy());
            return Err(SourceError::Read(format!("{shown} is nested too deeply; send it in parts")));
        }
        let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, itself);
        let below = retry_on_intr(|| rustix::fs::openat(&dir, name, flags, Mode::empty()))
            .map_err(|errno| failed(real, errno))?;
        self.directory(&below, &path, real)
    }

    fn directory(&mut self, dir: &OwnedFd, path: &[u8], real: &Path) -> Result<(), SourceError> {
        let refuse = |errno| failed(real, errno);
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(refuse)? {
            let entry = entry.map_err(refuse)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        for name in names {
            let below = real.join(OsStr::from_bytes(&name));
            let stat = rustix::fs::statat(dir, &name[..], AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| failed(&below, errno))?;
            let path = [path, b"/", &name].concat();
            self.entry(dir, (&name, true), &stat, path, &below)?;
        }
        Ok(())
    }

    fn skip(&mut self, kind: FileType, real: &Path) {
        if self.skipped.len() >= MOST_TOLD {
            self.untold += 1;
            return;
        }
        let what = match kind {
            FileType::Fifo => "a pipe",
            FileType::Socket => "a socket",
            _ => "a device (--archive takes it along)",
        };
        self.skipped.push(format!("{} is {what} and is left out", escape(&real.to_string_lossy())));
    }

    fn describe(
        &mut self,
        dir: impl AsFd,
        name: &[u8],
        (kind, stat): (FileType, &Stat),
        path: &[u8],
        real: &Path,
    ) -> Result<Entry, SourceError> {
        let unsound = |e: crate::content::EntryError| {
            SourceError::Read(format!("{} cannot be sent: {e}", escape(&real.to_string_lossy())))
        };
        let (all_readable, at) = (self.all_readable, self.stamps.len() as u32 - 1);
        let Some(Details { archive, links, .. }) = &mut self.details else {
            return Err(SourceError::Read("the tree is not being listed; please report this".to_owned()));
        };
        let kind = match kind {
            FileType::RegularFile => {
                if !all_readable {
                    rustix::fs::accessat(&dir, name, Access::READ_OK, AtFlags::empty())
                        .map_err(|errno| failed(real, errno))?;
                }
                let first =
                    (stat.st_nlink > 1).then(|| *links.entry((stat.st_dev, stat.st_ino)).or_insert(at));
                match first.filter(|&first| first != at) {
                    Some(first) => EntryKind::HardLink(first),
                    None => EntryKind::File(extents(&dir, name, stat)),
                }
            }
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(&dir, name, Vec::new()).map_err(|errno| failed(real, errno))?;
                EntryKind::Symlink(target.into_bytes())
            }
            device => EntryKind::Device {
                block: device == FileType::BlockDevice,
                major: rustix::fs::major(stat.st_rdev),
                minor: rustix::fs::minor(stat.st_rdev),
            },
        };
        if matches!(kind, EntryKind::HardLink(_)) {
            return Entry::new(path, kind, 0, Modified::default()).map_err(unsound);
        }
        let mode = if matches!(kind, EntryKind::Symlink(_)) { 0 } else { (stat.st_mode & 0o7777) as u16 };
        let modified = Modified { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
        let owner = archive.then_some(Owner { user: stat.st_uid, group: stat.st_gid });
        let xattrs = xattrs(real, *archive).map_err(|errno| failed(real, errno))?;
        let entry = Entry::new(path, kind, mode, modified).map_err(unsound)?;
        entry.with_owner(owner).with_xattrs(xattrs).map_err(unsound)
    }
}

fn failed(path: &Path, errno: Errno) -> SourceError {
    unreadable(&escape(&path.to_string_lossy()), &errno.into())
}

/// The data and holes of a file. Without support for that, or in a file that cannot be opened, all is data.
fn extents(dir: &impl AsFd, name: &[u8], stat: &Stat) -> Extents {
    let size = stat.st_size as u64;
    let solid = Extents::solid(size);
    if size < SPARSE_FROM || stat.st_blocks as u64 * 512 >= size {
        return solid;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fd) = retry_on_intr(|| rustix::fs::openat(dir, name, flags, Mode::empty())) else { return solid };
    holes(&File::from(fd), size).and_then(|lengths| Extents::from_lengths(lengths).ok()).unwrap_or(solid)
}

/// The lengths of data, hole, data and so on.
fn holes(file: &File, size: u64) -> Option<Vec<u64>> {
    let (mut lengths, mut at) = (Vec::new(), 0);
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => size,
            Err(_) => return None,
        };
        if start > at {
            if lengths.is_empty() {
                lengths.push(0);
            }
            lengths.push(start - at);
        }
        if start == size {
            break;
        }
        let mut end = rustix::fs::seek(file, SeekFrom::Hole(start)).ok()?.min(size);
        if lengths.len() + 2 >= MAX_EXTENTS {
            end = size;
        }
        lengths.push(end.checked_sub(start).filter(|&len| len > 0)?);
        at = end;
    }
    Some(lengths)
}

/// The extended attributes that are sent, by name.
fn xattrs(path: &Path, archive: bool) -> Result<Vec<Xattr>, Errno> {
    let mut list = match rustix::fs::llistxattr_query(path) {
        Ok(size) => vec![0; size],
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let len = rustix::fs::llistxattr(path, &mut list[..])?;
    let listed = list[..len].split(|&byte| byte == 0).filter(|name| Xattr::is_permitted(name));
    let mut names: Vec<&[u8]> = listed.filter(|name| archive || name.starts_with(b"user.")).collect();
    names.sort_unstable();
    let xattr = |name: &[u8]| {
        let mut value = vec![0; rustix::fs::lgetxattr_query(path, name)?];
        if !value.is_empty() {
            let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
            value.truncate(len);
        }
        Ok(Xattr { name: name.to_owned(), value })
    };
    names.into_iter().map(xattr).collect()
}
