//! An earlier version of the object (`mcp recv --from`): a file or a disk to take unchanged blocks from.
//! It is only read, and its blocks count only after they are hashed.

use super::{Earlier, SourceError};
use crate::text::escape;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// An open regular file or block device.
#[derive(Debug)]
pub struct EarlierFile {
    file: File,
    size: u64,
}

impl EarlierFile {
    /// Opens the file (or disk) at `path`. The opened file stays the same if another file takes its name,
    /// which the object itself may do.
    ///
    /// # Errors
    /// If it cannot be read, or is neither a regular file nor a block device.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let shown = escape(&path.to_string_lossy());
        let refuse = |error: io::Error| {
            SourceError::Read(match error.kind() {
                io::ErrorKind::NotFound => format!("{shown} does not exist; check --from"),
                io::ErrorKind::PermissionDenied => {
                    format!("{shown} may not be read by this user; change its permissions")
                }
                _ => format!("cannot read {shown} ({error}); check --from"),
            })
        };
        // Opening a pipe would wait for its writer.
        let mut file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(refuse)?;
        let kind = file.metadata().map_err(refuse)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(SourceError::Read(format!(
                "{shown} is neither a file nor a disk; give an earlier version of the file with --from"
            )));
        }
        // For a block device, seeking is the only way to its size.
        let size = file.seek(SeekFrom::End(0)).map_err(refuse)?;
        if size > 0 {
            file.read_at(&mut [0], 0).map_err(refuse)?;
        }
        Ok(Self { file, size })
    }
}

impl Earlier for EarlierFile {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;

    #[test]
    fn it_reads_what_is_there_and_says_what_it_cannot_read() {
        let dir = Scratch::new();
        let path = dir.join("old.iso");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = EarlierFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut buf = [0; 4];
        file.read_at(6, &mut buf).unwrap();
        assert_eq!((file.size(), &buf), (10, b"6789"));
        assert!(file.read_at(7, &mut buf).is_err());
        let text = |path: &Path| EarlierFile::open(path).unwrap_err().to_string();
        assert!(text(&path).contains("old.iso does not exist"), "{}", text(&path));
        assert!(text(dir.path()).contains("neither a file nor a disk"), "{}", text(dir.path()));
        assert!(text(Path::new("/dev/null")).contains("neither a file nor a disk"));
    }
}
