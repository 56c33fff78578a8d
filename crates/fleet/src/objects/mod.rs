//! The server's directory of objects, by their BLAKE3 hash. An object is imported in one pass, which yields all its
//! hashes and the chaining values of its blocks; it is written beside its place, synced, and renamed. So a name in the
//! directory only ever holds the whole object, whenever the server is killed.
//!
//! ```text
//!  objects/ab/ab12...ef            the bytes
//!  objects/ab/ab12...ef.blocks     the chaining values of its blocks of 1 MiB, 32 bytes each
//!  objects/importing/N             an import under way; removed when the server starts
//! ```
//! The files are blocking: callers in async code use a blocking thread. Which objects are needed is the store's to know.

mod hashing;
#[cfg(test)]
mod tests;

pub use hashing::{BLOCK, ObjectHashes};

use hashing::Hashing;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Error of the directory of objects: a lowercase clause with the next step.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The disk is full. Nothing was kept of the import, and nothing else was touched.
    #[error("the disk of {} is full; free some space, then import the object again", .0.display())]
    Full(PathBuf),
    /// The file system failed otherwise.
    #[error("cannot {doing} {} ({source}); check the state directory", path.display())]
    File {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The bytes to import could not be read.
    #[error("the object's bytes cannot be read ({0}); import it again")]
    Source(io::Error),
    /// The bytes are not those that were announced.
    #[error("the bytes have the hash {found}, not {expected}; send the object again")]
    Differs {
        /// The announced hash.
        expected: blake3::Hash,
        /// The hash of what came.
        found: blake3::Hash,
    },
    /// There is no such object.
    #[error("object {0} is not here; add it with 'mcp task add'")]
    Missing(blake3::Hash),
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ObjectError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ObjectError::Full(path),
        _ => ObjectError::File { doing, path, source },
    }
}

/// A directory of objects.
#[derive(Debug)]
pub struct Objects {
    root: PathBuf,
    next: AtomicU64,
}

/// An import under way. Dropped before [`Import::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Import<'a> {
    objects: &'a Objects,
    path: PathBuf,
    file: Option<File>,
    hashing: Hashing,
}

impl Objects {
    /// Opens the directory `root`, and creates it if it is missing. Removes what imports left that were interrupted, so
    /// only one process may use a directory.
    ///
    /// # Errors
    ///
    /// If the directory cannot be created or listed.
    pub fn open(root: &Path) -> Result<Self, ObjectError> {
        let importing = root.join("importing");
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&importing).map_err(failed("create", &importing))?;
        for entry in fs::read_dir(&importing).map_err(failed("list", &importing))? {
            let path = entry.map_err(failed("list", &importing))?.path();
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(Self { root: root.to_owned(), next: AtomicU64::new(0) })
    }

    /// The file of the object `hash`; it need not exist.
    #[must_use]
    pub fn path(&self, hash: &blake3::Hash) -> PathBuf {
        Self::file_of(&self.root, hash)
    }

    /// The file of the object `hash` in the directory `root`, without opening the directory.
    #[must_use]
    pub fn file_of(root: &Path, hash: &blake3::Hash) -> PathBuf {
        let name = hash.to_hex();
        root.join(&name[..2]).join(name.as_str())
    }

    /// The objects that are in the directory `root`, in no order, without opening it: a server may use it meanwhile.
    ///
    /// # Errors
    ///
    /// If it cannot be listed.
    pub fn listed(root: &Path) -> io::Result<Vec<blake3::Hash>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.len() == 2) {
                for entry in fs::read_dir(path)? {
                    let name = entry?.file_name();
                    found.extend(name.to_str().and_then(|name| blake3::Hash::from_hex(name).ok()));
                }
            }
        }
        Ok(found)
    }

    fn blocks_path(&self, hash: &blake3::Hash) -> PathBuf {
        self.path(hash).with_extension("blocks")
    }

    /// Begins an import.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn import(&self) -> Result<Import<'_>, ObjectError> {
        let path = self.root.join("importing").join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("create", &path))?;
        Ok(Import { objects: self, path, file: Some(file), hashing: Hashing::default() })
    }

    /// Imports all that `source` yields. With `expected`, refuses bytes that have another hash.
    ///
    /// # Errors
    ///
    /// If `source` cannot be read, the disk is full or fails, or the bytes differ. Nothing is kept then.
    pub fn import_from(
        &self,
        mut source: impl Read,
        expected: Option<blake3::Hash>,
    ) -> Result<ObjectHashes, ObjectError> {
        let mut import = self.import()?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return import.finish(expected),
                Ok(n) => import.write(&buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ObjectError::Source(error)),
            }
        }
    }

    /// Opens an object for reading; returns its size too.
    ///
    /// # Errors
    ///
    /// If the object is not here, or cannot be opened.
    pub fn open_object(&self, hash: &blake3::Hash) -> Result<(File, u64), ObjectError> {
        let path = self.path(hash);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ObjectError::Missing(*hash),
            _ => failed("open", &path)(error),
        })?;
        let size = file.metadata().map_err(failed("read", &path))?.len();
        Ok((file, size))
    }

    /// The chaining values of an object's blocks, 32 bytes each. They merge into its hash ([`mcp_transfer::crypto::digest::root`]).
    ///
    /// # Errors
    ///
    /// If the object is not here, or cannot be read.
    pub fn block_values(&self, hash: &blake3::Hash) -> Result<Vec<u8>, ObjectError> {
        let path = self.blocks_path(hash);
        fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ObjectError::Missing(*hash),
            _ => failed("read", &path)(error),
        })
    }

    /// Whether the object is here, whole.
    #[must_use]
    pub fn contains(&self, hash: &blake3::Hash) -> bool {
        self.path(hash).is_file()
    }

    /// Removes an object; one that is not here is no error.
    ///
    /// # Errors
    ///
    /// If a file cannot be removed.
    pub fn remove(&self, hash: &blake3::Hash) -> Result<(), ObjectError> {
        // The object first: its name stands for both.
        for path in [self.path(hash), self.blocks_path(hash)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Import<'_> {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// If the disk is full or fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        self.hashing.update(bytes);
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(failed("write", &self.path)),
            None => Ok(()),
        }
    }

    /// The bytes taken so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.hashing.size()
    }

    /// Syncs the object and gives it its name. An object that is here already stays as it is. With `expected`, refuses
    /// bytes that have another hash.
    ///
    /// # Errors
    ///
    /// If the bytes differ, or the disk is full or fails. Nothing is kept then.
    pub fn finish(mut self, expected: Option<blake3::Hash>) -> Result<ObjectHashes, ObjectError> {
        let (hashes, values) = std::mem::take(&mut self.hashing).finish();
        if let Some(expected) = expected.filter(|expected| *expected != hashes.blake3) {
            return Err(ObjectError::Differs { expected, found: hashes.blake3 });
        }
        let (target, blocks) = (self.objects.path(&hashes.blake3), self.objects.blocks_path(&hashes.blake3));
        let Some(file) = self.file.take() else { return Ok(hashes) };
        file.sync_all().map_err(failed("sync", &self.path))?;
        if self.objects.contains(&hashes.blake3) {
            return Ok(hashes);
        }
        let dir = target.parent().unwrap_or(&self.objects.root);
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => sync_dir(&self.objects.root)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create", dir)(error)),
        }
        // The chaining values first: where the object is, they are.
        let beside = self.path.with_extension("blocks");
        let written = write_synced(&beside, &values)
            .and_then(|()| fs::rename(&beside, &blocks).map_err(failed("rename", &beside)));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written?;
        fs::rename(&self.path, &target).map_err(failed("rename", &self.path))?;
        sync_dir(dir)?;
        Ok(hashes)
    }
}

impl Drop for Import<'_> {
    fn drop(&mut self) {
        // Gone already if it has its name.
        let _ = fs::remove_file(&self.path);
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), ObjectError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("create", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

fn sync_dir(path: &Path) -> Result<(), ObjectError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed("sync", path))
}
