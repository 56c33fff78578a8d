//! Error texts for failures of the file system at the receiver.

use super::SinkError;
use crate::text::escape;
use rustix::io::Errno;
use std::io;
use std::path::Path;

/// `path` for messages.
pub(super) fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

/// The error for a failed operation `what` (a verb: "write") on `path`: the reason, and the next step.
pub(super) fn refused(what: &str, path: &Path, error: &io::Error) -> SinkError {
    let path = shown(path);
    let Some(errno) = Errno::from_io_error(error) else {
        return SinkError::Disk(format!("cannot {what} {path} ({error}); check the disk"));
    };
    let text = match errno {
        Errno::NOSPC => format!("cannot {what} {path}: the disk is full; free some space and try again"),
        Errno::DQUOT => {
            format!("cannot {what} {path}: the disk quota is used up; free some space and try again")
        }
        Errno::ROFS => format!("cannot {what} {path}: the disk is read-only; give a writable place with -o"),
        Errno::ACCESS | Errno::PERM => {
            format!("cannot {what} {path}: this user may not; give a writable place with -o")
        }
        Errno::FBIG => {
            format!("cannot {what} {path}: the file system takes no files of that size; give another with -o")
        }
        Errno::NAMETOOLONG => {
            format!(
                "cannot {what} {path}: the file system takes no names so long; give a shorter one with -o"
            )
        }
        Errno::NOENT => {
            format!("cannot {what} {path}: the directory or part file is gone; put it back and try again")
        }
        _ => format!("cannot {what} {path} ({error}); check the disk"),
    };
    // Another disk does not fix a bad name.
    if errno == Errno::NAMETOOLONG { SinkError::Name(text) } else { SinkError::Disk(text) }
}
