//! Temporary directories, files with known contents, and their hashes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Prefix of the names of all directories made here.
const PREFIX: &str = "mcp-test-";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A number that no other caller in this process gets.
pub fn unique() -> u32 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// A temporary directory, removed with its content on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }
    /// A temporary directory in `parent` instead of the system's.
    pub fn within(parent: &Path) -> Self {
        let path = parent.join(format!("{PREFIX}{}-{}", std::process::id(), unique()));
        fs::create_dir_all(&path).expect("temporary directory");
        Self(path)
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
    /// Makes a new directory within.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).expect("directory");
        path
    }
    /// Makes a file of pseudo-random bytes within.
    pub fn file(&self, name: impl AsRef<OsStr>, size: u64, seed: u64) -> PathBuf {
        let path = self.join(name.as_ref());
        seeded(&path, size, seed);
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the [`TempDir`]s that killed processes left in `parent`.
pub fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Writes `size` pseudo-random bytes, which depend only on the seed.
pub fn seeded(path: &Path, size: u64, seed: u64) {
    let mut file = File::create(path).expect("create test file");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut chunk = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let n = usize::try_from(left.min(chunk.len() as u64)).expect("chunk size");
        rng.fill(&mut chunk[..n]);
        file.write_all(&chunk[..n]).expect("write test file");
        left -= n as u64;
    }
}

/// The hash that `b3sum` prints for the file.
pub fn b3(path: &Path) -> String {
    let file = File::open(path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).expect("read file");
    hasher.finalize().to_hex().to_string()
}

/// The names in a directory, sorted, to check that no file is left over.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("list {}: {e}", dir.display()))
        .map(|entry| entry.expect("directory entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Asserts that `dir` holds a copy of `source` under its own name, and no other file.
#[track_caller]
pub fn assert_only_copy(source: &Path, dir: &Path) {
    let name = source.file_name().expect("file name").to_string_lossy().into_owned();
    assert_eq!(names(dir), std::slice::from_ref(&name), "contents of {}", dir.display());
    assert_eq!(b3(&dir.join(name)), b3(source), "hash of the copy in {}", dir.display());
}

/// Asserts that a directory is empty: no final name, no part file.
#[track_caller]
pub fn assert_empty(dir: &Path) {
    assert_eq!(names(dir), Vec::<String>::new(), "left over in {}", dir.display());
}

/// Asserts that a directory is empty, or has only a part file for the next run.
#[track_caller]
pub fn assert_only_part(dir: &Path) {
    let names = names(dir);
    let part = |name: &String| name.starts_with('.') && name.ends_with(".mcp-part");
    assert!(names.len() <= 1 && names.iter().all(part), "left over in {}: {names:?}", dir.display());
}
