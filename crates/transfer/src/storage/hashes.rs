//! A cache of the chaining values of files that were sent before, so that they need not be read and
//! hashed again. Each entry is one file in the state directory, named by path and block size:
//!
//! ```text
//!  heading (with its version) │ path, device, inode, size, times, block size │ blocks │ BLAKE3 of it all
//! ```
//! Each block has its value, and a byte that is 1 if the block is all zeros, else 0.
//!
//! An entry counts only for the same file: the same path, device, inode, size, and times of modification
//! and change. A file that was modified just before it was opened is not cached, because a second change
//! within the same tick of the file system's clock would not be visible. A damaged entry is set aside.

use crate::limits::{HASH_CACHE_BYTES, HASH_CACHE_FILES, MAX_BLOCKS};
use crate::units::Digest;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Heading of every entry. The number is the version of the format.
const HEADING: &[u8] = b"mcp-hashes 2\n";
/// Suffix of entries, after the hash of their key.
const SUFFIX: &str = ".hashes";
const ASIDE: &str = ".bad";
/// A file modified less than this time before its opening may change again without a new time.
const SETTLED: Duration = Duration::from_secs(2);
const DIGEST: usize = 32;
/// Bytes of a block in an entry.
const BLOCK: usize = DIGEST + 1;

const _: () = assert!(MAX_BLOCKS as u64 * BLOCK as u64 * 3 / 2 < HASH_CACHE_BYTES);

/// Identifies a file in its present state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileId {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last modification, and of the last change of any attribute.
    modified: (i64, i64),
    changed: (i64, i64),
    /// Whether the last modification was long enough before the opening.
    settled: bool,
}

impl FileId {
    /// Identifies the file at `path`, which was opened at `now` and then had this metadata.
    pub(super) fn new(path: &Path, meta: &Metadata, now: SystemTime) -> Self {
        let age = meta.modified().ok().and_then(|modified| now.duration_since(modified).ok());
        Self {
            path: fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            settled: age.is_some_and(|age| age >= SETTLED),
        }
    }

    /// The bytes of an entry that identify the file, for blocks of 2^`block_log2` bytes.
    fn key(&self, block_log2: u8) -> Vec<u8> {
        let path = self.path.as_os_str().as_bytes();
        let mut key = HEADING.to_vec();
        key.extend((path.len() as u64).to_be_bytes());
        key.extend(path);
        for number in [self.device, self.inode, self.size] {
            key.extend(number.to_be_bytes());
        }
        for (seconds, nanos) in [self.modified, self.changed] {
            key.extend(seconds.to_be_bytes());
            key.extend(nanos.to_be_bytes());
        }
        key.push(block_log2);
        key
    }
}

/// What is kept of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashedBlock {
    /// Its chaining value.
    pub value: Digest,
    /// Whether all its bytes are 0.
    pub is_zero: bool,
}

/// The directory with the entries.
#[derive(Clone, Debug)]
pub struct HashCache {
    dir: PathBuf,
}

impl HashCache {
    /// The cache in the state directory `state`.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { dir: state.join("hashes") }
    }

    fn entry(&self, file: &FileId, block_log2: u8) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[block_log2]).update(file.path.as_os_str().as_bytes());
        self.dir.join(format!("{}{SUFFIX}", &hasher.finalize().to_hex()[..32]))
    }

    /// The `count` blocks of a file, of 2^`block_log2` bytes; `None` if they are not cached. Sets a damaged entry aside.
    #[must_use]
    pub fn load(&self, file: &FileId, block_log2: u8, count: u32) -> Option<Vec<HashedBlock>> {
        let path = self.entry(file, block_log2);
        let mut opened = File::open(&path).ok()?;
        let mut bytes = Vec::new();
        (&mut opened).take(HASH_CACHE_BYTES).read_to_end(&mut bytes).ok()?;
        let Some(content) = checked(&bytes) else {
            let mut aside = path.clone().into_os_string();
            aside.push(ASIDE);
            let _ = fs::rename(&path, aside);
            return None;
        };
        // The entry is for another file, or the file has changed since.
        let values = content.strip_prefix(&file.key(block_log2)[..])?;
        if values.len() != count as usize * BLOCK {
            return None;
        }
        // The oldest entries are removed first if there are too many; this one has been used now.
        let _ = opened.set_modified(SystemTime::now());
        let block = |block: &[u8]| {
            let (value, zero) = block.split_first_chunk()?;
            Some(HashedBlock { value: Digest(*value), is_zero: zero == [1] })
        };
        values.chunks_exact(BLOCK).map(block).collect()
    }

    /// Stores the blocks of a file, unless it was modified just before it was opened. Call only
    /// while the file is still in the state that `file` identifies.
    ///
    /// # Errors
    /// If the file system fails; no partial entry is left.
    pub fn store(&self, file: &FileId, block_log2: u8, blocks: &[HashedBlock]) -> io::Result<()> {
        if !file.settled || blocks.len() > MAX_BLOCKS as usize {
            return Ok(());
        }
        let mut bytes = file.key(block_log2);
        for block in blocks {
            bytes.extend(block.value.0);
            bytes.push(block.is_zero.into());
        }
        let sum = *blake3::hash(&bytes).as_bytes();
        bytes.extend(sum);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let path = self.entry(file, block_log2);
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        // One that was left behind might have another mode.
        let _ = fs::remove_file(&temporary);
        let create = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let written = create.and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        self.make_room();
        written
    }

    /// Removes the entry of a file.
    pub fn forget(&self, file: &FileId, block_log2: u8) {
        // A missing entry is as good as a removed one.
        let _ = fs::remove_file(self.entry(file, block_log2));
    }

    /// Removes the oldest entries until the rest is within bounds.
    fn make_room(&self) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let meta = entry.metadata().ok().filter(Metadata::is_file)?;
                Some((meta.modified().ok()?, meta.len(), entry.path()))
            })
            .collect();
        files.sort_unstable();
        let mut bytes: u64 = files.iter().map(|file| file.1).sum();
        let mut count = files.len();
        for (_, len, path) in files {
            if bytes <= HASH_CACHE_BYTES && count <= HASH_CACHE_FILES {
                return;
            }
            let _ = fs::remove_file(path);
            (bytes, count) = (bytes - len, count - 1);
        }
    }
}

/// The content of an entry, if its hash is right.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
    (content.starts_with(HEADING) && blake3::hash(content).as_bytes() == sum).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;

    fn file(dir: &Scratch, name: &str) -> FileId {
        let path = dir.join(name);
        let meta = fs::metadata(&path).unwrap();
        FileId::new(&path, &meta, SystemTime::now() + SETTLED)
    }

    fn values(count: u8) -> Vec<HashedBlock> {
        (0..count).map(|n| HashedBlock { value: Digest([n; 32]), is_zero: n % 2 == 1 }).collect()
    }

    #[test]
    fn with_a_clock_in_1970_no_hashes_are_believed_and_nothing_fails() {
        let dir = Scratch::new();
        fs::write(dir.join("a"), "abc").unwrap();
        let meta = fs::metadata(dir.join("a")).unwrap();
        let early = SystemTime::UNIX_EPOCH + Duration::from_secs(40);
        let unsettled = FileId::new(&dir.join("a"), &meta, early);
        assert!(!unsettled.settled && file(&dir, "a").settled);
        let cache = HashCache::new(&dir.join("state"));
        let _ = cache.store(&unsettled, 20, &values(3));
        assert_eq!(cache.load(&unsettled, 20, 3), None);
    }

    #[test]
    fn values_come_back_for_the_very_file_only() {
        let dir = Scratch::new();
        let cache = HashCache::new(&dir.join("state"));
        fs::write(dir.join("a"), "one").unwrap();
        let a = file(&dir, "a");
        assert_eq!(cache.load(&a, 20, 3), None);
        cache.store(&a, 20, &values(3)).unwrap();
        assert_eq!(cache.load(&a, 20, 3), Some(values(3)));
        assert_eq!((cache.load(&a, 21, 3), cache.load(&a, 20, 4)), (None, None));
        // A hard link to the same bytes, another file of the same name, another time.
        fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
        assert_eq!(cache.load(&file(&dir, "b"), 20, 3), None);
        for change in [
            |a: &mut FileId| a.inode += 1,
            |a: &mut FileId| a.size += 1,
            |a: &mut FileId| a.modified.1 += 1,
            |a: &mut FileId| a.changed.1 += 1,
            |a: &mut FileId| a.device += 1,
        ] {
            let mut other = a.clone();
            change(&mut other);
            assert_eq!(cache.load(&other, 20, 3), None);
        }
        cache.forget(&a, 20);
        assert_eq!(cache.load(&a, 20, 3), None);
    }

    #[test]
    fn a_file_that_was_just_modified_is_not_cached() {
        let dir = Scratch::new();
        let cache = HashCache::new(dir.path());
        fs::write(dir.join("a"), "one").unwrap();
        let meta = fs::metadata(dir.join("a")).unwrap();
        let modified = meta.modified().unwrap();
        for now in [modified, modified + SETTLED / 2, modified - SETTLED * 2] {
            let file = FileId::new(&dir.join("a"), &meta, now);
            cache.store(&file, 20, &values(1)).unwrap();
            assert_eq!(cache.load(&file, 20, 1), None);
        }
    }

    #[test]
    fn every_damaged_entry_is_set_aside() {
        let dir = Scratch::new();
        let cache = HashCache::new(dir.path());
        fs::write(dir.join("a"), "one").unwrap();
        let a = file(&dir, "a");
        cache.store(&a, 20, &values(2)).unwrap();
        let path = cache.entry(&a, 20);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            for bad in [&bad[..], &good[..at]] {
                fs::write(&path, bad).unwrap();
                assert_eq!(cache.load(&a, 20, 2), None, "byte {at}");
                assert!(!path.exists());
            }
        }
        let names: Vec<_> = fs::read_dir(dir.join("hashes")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(names.len(), 1);
        assert!(names[0].to_string_lossy().ends_with(".hashes.bad"), "{names:?}");
        cache.store(&a, 20, &values(2)).unwrap();
        assert_eq!(cache.load(&a, 20, 2), Some(values(2)));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let dir = Scratch::new();
        let cache = HashCache::new(dir.path());
        fs::write(dir.join("a"), "one").unwrap();
        let a = file(&dir, "a");
        let named = |n: usize| FileId { path: format!("/{n}").into(), ..a.clone() };
        for n in 0..HASH_CACHE_FILES + 3 {
            cache.store(&named(n), 20, &values(1)).unwrap();
            let entry = File::open(cache.entry(&named(n), 20)).unwrap();
            entry.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64)).unwrap();
        }
        assert_eq!(fs::read_dir(dir.join("hashes")).unwrap().count(), HASH_CACHE_FILES);
        assert_eq!(cache.load(&named(2), 20, 1), None);
        assert!(cache.load(&named(3), 20, 1).is_some());
        // The bound in bytes counts too: a sparse giant takes the whole cache.
        File::create(dir.join("hashes/giant.hashes")).unwrap().set_len(HASH_CACHE_BYTES + 1).unwrap();
        cache.store(&a, 20, &values(1)).unwrap();
        assert!(!dir.join("hashes/giant.hashes").exists() && cache.load(&named(4), 20, 1).is_none());
    }
}
