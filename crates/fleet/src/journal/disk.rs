//! The file operations that the journal needs, and a directory that has them. The tests have one that loses power.

use super::Error;
use crate::limits::MAX_JOURNAL;
use crate::lock::Lock;
use rustix::fs::FallocateFlags;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A few files in one directory. What is written is durable only after [`Disk::sync`], a name only after
/// [`Disk::sync_names`].
pub(super) trait Disk: Debug + Send {
    /// A file's contents, `None` if there is no such file.
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Makes a file with these contents, in place of one that is there.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Writes at the end of a file. After an error, some of it may be there.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file off.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Makes a file's contents durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name, in place of the one that has it.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file, if there is one.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes the names durable.
    fn sync_names(&mut self) -> io::Result<()>;
    /// Takes space for `room` bytes after the first `len`, without a change of the length. Best effort.
    fn reserve(&mut self, name: &str, len: u64, room: u64);
}

/// A directory that only this user can write to.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    handle: File,
    files: BTreeMap<String, File>,
    _lock: Lock,
}

impl Directory {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let lock = Lock::take(&path.join("journal.lock"))?.ok_or(Error::InUse)?;
        let handle = File::open(path)?;
        Ok(Self { path: path.to_owned(), handle, files: BTreeMap::new(), _lock: lock })
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files.get_mut(name).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

/// Options that make files private and follow no link.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options
}

impl Disk for Directory {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut file = match private().read(true).write(true).open(self.path.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        if (&mut file).take(MAX_JOURNAL + 1).read_to_end(&mut bytes)? as u64 > MAX_JOURNAL {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.files.insert(name.to_owned(), file);
        Ok(Some(bytes))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.remove(name)?;
        let mut file = private().read(true).write(true).create_new(true).open(self.path.join(name))?;
        file.write_all(bytes)?;
        self.files.insert(name.to_owned(), file);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(name)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(bytes)
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.file(name)?.set_len(len)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        if let Some(file) = self.files.remove(from) {
            self.files.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.remove(name);
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn reserve(&mut self, name: &str, len: u64, room: u64) {
        if let Ok(file) = self.file(name) {
            // Not every file system can; then an end may fail on a full disk, and the step counts as interrupted.
            let _ = rustix::fs::fallocate(&*file, FallocateFlags::KEEP_SIZE, len, room);
        }
    }
}
