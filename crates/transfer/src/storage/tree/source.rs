//! A tree as the source of an object.
//!
//! The files are opened when they are read, a few at a time, and compared with the listing then. Blocks of packed files
//! are kept for a while after they were hashed: otherwise each of their files would be opened twice.

use super::listing::{Listing, Stamp, Top, compare, list, real_path};
use crate::content::{Entry, FilePiece, Manifest, Placement, TreeHead};
use crate::limits::{COMFORTABLE_BLOCK_COUNT, COMFORTABLE_BLOCK_LOG2, DEFAULT_BLOCK_LOG2, MAX_PACKED_BYTES};
use crate::storage::source::{kept_in_memory, unreadable};
use crate::storage::{Attributes, RawBytes, Source, SourceError, sendable_name};
use crate::text::escape;
use crate::units::Extent;
use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::retry_on_intr;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Large files that stay open.
const OPEN_FILES: usize = 8;
/// The tree is compared with its listing at most in one of so many parts of the time.
const CHECK_SHARE: u32 = 20;

/// Whether these paths are sent as a tree: several of them, or a directory.
#[must_use]
pub fn is_tree(paths: &[PathBuf]) -> bool {
    paths.len() > 1 || paths.first().is_some_and(|path| path.is_dir())
}

/// Files and directories, listed and readable.
pub struct TreeSource {
    tops: Vec<Top>,
    archive: bool,
    name: String,
    manifest: Manifest,
    stamps: Vec<Stamp>,
    skipped: Vec<String>,
    placement: Placement,
    block_log2: u8,
    /// Whether the tree is too large to stay in memory beside other programs.
    large: bool,
    open: Mutex<VecDeque<(u32, Arc<File>)>>,
    /// Packed blocks, oldest first.
    packed: Mutex<VecDeque<(u64, Arc<Vec<u8>>)>>,
    /// When the last comparison ended, and how long it took.
    compared: Mutex<(Instant, Duration)>,
}

/// The end of the name of so many files and directories, after that of the first.
pub fn several(tops: u32) -> String {
    format!(" and {} more", tops - 1)
}

impl TreeSource {
    /// Lists the files and directories at `paths`, to be offered under `name` [default: that of the first, and how many
    /// more]. A single directory has this name in the tree too. With `archive`, owners, all extended attributes and
    /// device nodes are sent too.
    ///
    /// # Errors
    /// If something cannot be read or sent, or two of the paths have the same name.
    pub fn open(paths: &[PathBuf], name: Option<&str>, archive: bool) -> Result<Self, SourceError> {
        paths.iter().try_for_each(|path| require_kind(path))?;
        let own = paths.iter().map(|path| top_name(path, name.filter(|_| paths.len() == 1)));
        let names = own.collect::<Result<Vec<_>, _>>()?;
        let mut tops: Vec<Top> = paths
            .iter()
            .zip(&names)
            .map(|(path, name)| Top { path: path.clone(), name: name.clone().into() })
            .collect();
        tops.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = tops.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let shown = |top: &Top| escape(&top.path.to_string_lossy());
            return Err(SourceError::Read(format!(
                "{} and {} have the same name; rename one, or send them one after the other",
                shown(&pair[0]),
                shown(&pair[1])
            )));
        }
        let label = match (name, &names[..]) {
            (Some(name), _) => name.to_owned(),
            (None, [first, _, ..]) => {
                let more = several(names.len() as u32);
                let room = crate::limits::MAX_NAME - more.len();
                format!("{}{more}", crate::storage::names::shorten(first, room))
            }
            (None, _) => names.first().cloned().unwrap_or_default(),
        };
        Self::of(tops, label, archive)
    }

    /// The tree of one directory that is called `name` in the tree, whatever its own name.
    pub(super) fn existing(
        path: PathBuf,
        name: &str,
        archive: bool,
        block_log2: u8,
    ) -> Result<Self, SourceError> {
        let tops = vec![Top { path, name: name.as_bytes().to_owned() }];
        let mut source = Self::of(tops, name.to_owned(), archive)?;
        if source.block_log2 != block_log2 {
            source.block_log2 = block_log2;
            source.placement = placement(&source.manifest, block_log2)?;
        }
        Ok(source)
    }

    fn of(tops: Vec<Top>, name: String, archive: bool) -> Result<Self, SourceError> {
        let begun = Instant::now();
        let Listing { manifest, stamps, skipped } = list(&tops, archive)?;
        if manifest.entries().is_empty() {
            return Err(SourceError::Read(
                "there is nothing to send: all of it is pipes, sockets or devices".to_owned(),
            ));
        }
        let block_log2 = block_log2_for(manifest.content_size());
        let placement = placement(&manifest, block_log2)?;
        let large = placement.size() > kept_in_memory();
        let (open, packed) = (Mutex::default(), Mutex::default());
        let compared = Mutex::new((Instant::now(), begun.elapsed()));
        Ok(Self {
            tops,
            archive,
            name,
            manifest,
            stamps,
            skipped,
            placement,
            block_log2,
            large,
            open,
            packed,
            compared,
        })
    }

    /// The name that is offered to receivers.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// What is announced of the tree.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead::of(&self.manifest, self.archive)
    }
    /// log2 of the block size that its files are placed by.
    #[must_use]
    pub const fn block_log2(&self) -> u8 {
        self.block_log2
    }
    /// What is left out of the tree: lines for the user.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.skipped
    }

    /// Compares the tree with its listing now.
    pub(super) fn compare(&self) -> Result<(), SourceError> {
        compare(&self.tops, self.archive, &self.manifest, &self.stamps)
    }

    fn shown(&self, entry: &Entry) -> String {
        escape(&real_path(&self.tops, entry.path()).to_string_lossy())
    }

    fn changed(&self, entry: &Entry, what: &str) -> SourceError {
        SourceError::Changed(format!("{} {what} while it was being sent; send it again", self.shown(entry)))
    }

    /// Opens a file, if it still is the one that was listed.
    fn open_file(&self, number: u32) -> Result<File, SourceError> {
        let entry = &self.manifest.entries()[number as usize];
        let path = real_path(&self.tops, entry.path());
        let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // What the user names may be a link to the file.
        flags.set(OFlags::NOFOLLOW, !entry.is_plain_name());
        let fd =
            retry_on_intr(|| rustix::fs::open(&path, flags, Mode::empty())).map_err(|errno| match errno {
                rustix::io::Errno::NOENT => self.changed(entry, "was removed"),
                errno => unreadable(&self.shown(entry), &errno.into()),
            })?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| unreadable(&self.shown(entry), &errno.into()))?;
        if Stamp::of(&stat) != self.stamps[number as usize] {
            return Err(self.changed(entry, "changed"));
        }
        Ok(File::from(fd))
    }

    /// A large file, which stays open for a while.
    fn large_file(&self, number: u32) -> Result<Arc<File>, SourceError> {
        if let Some((_, file)) = lock(&self.open).iter().find(|(other, _)| *other == number) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(self.open_file(number)?);
        let mut open = lock(&self.open);
        if open.len() >= OPEN_FILES {
            open.pop_front();
        }
        open.push_back((number, Arc::clone(&file)));
        Ok(file)
    }

    fn read_piece(&self, piece: FilePiece, buf: &mut [u8]) -> Result<(), SourceError> {
        let entry = &self.manifest.entries()[piece.entry as usize];
        let file = if piece.object < self.placement.packed() {
            self.large_file(piece.entry)?
        } else {
            Arc::new(self.open_file(piece.entry)?)
        };
        let mut done = 0;
        for (offset, len) in
            entry.extents().into_iter().flat_map(|extents| extents.runs_of_data(piece.data, piece.len))
        {
            let part = &mut buf[done..done + len as usize];
            file.read_exact_at(part, offset).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.changed(entry, "shrank"),
                _ => unreadable(&self.shown(entry), &error),
            })?;
            done += len as usize;
        }
        Ok(())
    }

    /// Reads from the manifest and the files.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        buf.fill(0);
        let manifest = self.manifest.encoded();
        if let Some(rest) = usize::try_from(offset).ok().and_then(|offset| manifest.get(offset..)) {
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
        }
        for piece in self.placement.pieces(offset..offset + buf.len() as u64) {
            let at = (piece.object - offset) as usize;
            self.read_piece(piece, &mut buf[at..at + piece.len as usize])?;
        }
        Ok(())
    }

    /// A block with packed files.
    fn packed_block(&self, block: u64) -> Result<Arc<Vec<u8>>, SourceError> {
        if let Some((_, bytes)) = lock(&self.packed).iter().find(|(other, _)| *other == block) {
            return Ok(Arc::clone(bytes));
        }
        let start = block << self.block_log2;
        let len = (self.placement.size() - start).min(1 << self.block_log2);
        let mut bytes = vec![0; len as usize];
        self.read(start, &mut bytes)?;
        let bytes = Arc::new(bytes);
        let mut packed = lock(&self.packed);
        while packed.len() >= (MAX_PACKED_BYTES >> self.block_log2).max(1) {
            packed.pop_front();
        }
        packed.push_back((block, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

impl Source for TreeSource {
    fn extent(&self) -> Extent {
        Extent::sealed(self.placement.size())
    }

    fn attributes(&self) -> Option<Attributes> {
        None
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= self.placement.size());
        let Some(end) = end else {
            return Err(SourceError::Read("bytes behind the end of the tree; please report this".to_owned()));
        };
        if offset < self.placement.packed() {
            return self.read(offset, buf);
        }
        let mut at = offset;
        while at < end {
            let block = at >> self.block_log2;
            let (start, next) = (block << self.block_log2, end.min((block + 1) << self.block_log2));
            let bytes = self.packed_block(block)?;
            let part = &bytes[(at - start) as usize..(next - start) as usize];
            buf[(at - offset) as usize..(next - offset) as usize].copy_from_slice(part);
            at = next;
        }
        Ok(())
    }

    /// There is no map of a tree.
    fn raw(&self, _offset: u64, _len: usize) -> Option<RawBytes> {
        None
    }

    fn leave_behind(&self, offset: u64, len: usize) {
        if !self.large {
            return;
        }
        for piece in self.placement.pieces(offset..offset + len as u64) {
            let Ok(file) = self.open_file(piece.entry) else { continue };
            let len = std::num::NonZeroU64::new(piece.len);
            // Without its holes the piece is not longer. A hint, which may miss some of a sparse file.
            let _ = rustix::fs::fadvise(&file, piece.data, len, Advice::DontNeed);
        }
    }

    /// Compares everything with the listing, but not so often that it takes much of the time.
    fn check(&self) -> Result<(), SourceError> {
        let mut compared = lock(&self.compared);
        if compared.0.elapsed() < compared.1 * CHECK_SHARE {
            return Ok(());
        }
        let begun = Instant::now();
        self.compare()?;
        *compared = (Instant::now(), begun.elapsed());
        Ok(())
    }
}

/// A panic of a worker leaves these consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks that what the user names is a file or a directory, or a link to one.
fn require_kind(path: &Path) -> Result<(), SourceError> {
    let shown = escape(&path.to_string_lossy());
    let kind = std::fs::metadata(path).map_err(|error| unreadable(&shown, &error))?.file_type();
    if kind.is_file() || kind.is_dir() {
        return Ok(());
    }
    Err(SourceError::Read(format!(
        "{shown} is neither a file nor a directory and cannot be sent with others; send it on its own"
    )))
}

/// The name of a path in the tree. `.` and `..` have the name of the directory that they are.
fn top_name(path: &Path, name: Option<&str>) -> Result<String, SourceError> {
    if name.is_some() || path.file_name().is_some() {
        return sendable_name(path, name);
    }
    let shown = escape(&path.to_string_lossy());
    let real = std::fs::canonicalize(path).map_err(|error| unreadable(&shown, &error))?;
    sendable_name(&real, None)
}

fn placement(manifest: &Manifest, block_log2: u8) -> Result<Placement, SourceError> {
    Placement::new(manifest, block_log2).map_err(|e| SourceError::Read(e.to_string()))
}

/// 1 MiB, or more for a tree of very many bytes.
fn block_log2_for(bytes: u64) -> u8 {
    let comfortable = |log2: &u8| bytes >> log2 <= COMFORTABLE_BLOCK_COUNT;
    (DEFAULT_BLOCK_LOG2..COMFORTABLE_BLOCK_LOG2).find(comfortable).unwrap_or(COMFORTABLE_BLOCK_LOG2)
}
