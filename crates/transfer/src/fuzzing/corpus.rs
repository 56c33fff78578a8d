//! The inputs of the fuzz targets that are committed.

use std::fs;
use std::path::{Path, PathBuf};

/// The directory with the inputs of a target.
#[must_use]
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// Runs a target's body with each of its inputs, and says with which. Returns how many there are.
///
/// # Panics
/// If there are none, or the body panics.
#[track_caller]
pub fn replay(target: &str, body: fn(&[u8])) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder(target)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        body(&fs::read(path).unwrap());
        files += 1;
    }
    assert!(files > 0, "{target} has no inputs");
    files
}

/// Writes an input of a target.
///
/// # Panics
/// If the disk fails.
pub fn write(target: &str, name: &str, input: &[u8]) {
    fs::create_dir_all(folder(target)).unwrap();
    fs::write(folder(target).join(name), input).unwrap();
}
