//! Writes small files atomically: reports, and the files of the state directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Writes `bytes` to `path` through a temporary file in the same directory, which is synced and renamed.
/// So a reader sees the old contents or the new. Follows a symbolic link. If `path` exists and is not a
/// regular file (a pipe, `/dev/stdout`), writes to it directly.
///
/// # Errors
/// If the file system fails; the temporary file is then removed.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, bytes, 0o666)
}

/// Like [`write_whole`], for files that only this user may read: the file has mode 0600 from its first
/// byte on.
///
/// # Errors
/// If the file system fails; the temporary file is then removed.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, bytes, 0o600)
}

fn write_with(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let Some(Place { path, dir, temporary }) = Place::of(path)? else {
        return OpenOptions::new().write(true).open(path)?.write_all(bytes);
    };
    // A file that an earlier run left behind might have another mode.
    let _ = fs::remove_file(&temporary);
    let create = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
    let written = create.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    });
    if written.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    File::open(dir)?.sync_all()
}

/// Whether [`write_whole`] could write to `path` now. Changes nothing.
///
/// # Errors
/// If it could not.
pub fn check_whole(path: &Path) -> io::Result<()> {
    match Place::of(path)? {
        Some(place) => {
            let _ = fs::remove_file(&place.temporary);
            File::create_new(&place.temporary).and_then(|_| fs::remove_file(&place.temporary))
        }
        // Opening a pipe would wait for its reader.
        None => Ok(()),
    }
}

/// Makes `dir` and its missing parents, for this user alone. An existing directory stays as it is.
///
/// # Errors
/// If the file system fails.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Appends `.bad` to the name of a damaged file, so that the user can inspect it. Returns the new path.
///
/// # Errors
/// If the file system fails.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".bad");
    fs::rename(path, &aside)?;
    Ok(aside.into())
}

/// The destination of a write, and the directory of its temporary file.
struct Place {
    path: PathBuf,
    dir: PathBuf,
    temporary: PathBuf,
}

impl Place {
    /// `None` if the path exists and is neither a regular file nor a directory.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let path = match fs::metadata(path) {
            Ok(m) if m.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(m) if !m.is_file() => return Ok(None),
            Ok(_) => fs::canonicalize(path)?,
            Err(_) => path.to_path_buf(),
        };
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = dir.join(temporary);
        Ok(Some(Self { path, dir, temporary }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        write_whole(&path, b"old").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn private_from_the_first_byte_on() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/sender.key");
        make_private_dir(path.parent().unwrap()).unwrap();
        make_private_dir(path.parent().unwrap()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let aside = set_aside(&path).unwrap();
        assert_eq!(aside, dir.path().join("state/sender.key.bad"));
        assert_eq!((fs::read(&aside).unwrap(), path.exists()), (b"new".to_vec(), false));
    }

    #[test]
    fn an_error_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write_whole(&dir.path().join("absent/report.json"), b"x").is_err());
        assert!(write_whole(Path::new("/"), b"x").is_err());
        assert!(check_whole(&dir.path().join("absent/report.json")).is_err());
        assert!(check_whole(dir.path()).is_err());
        check_whole(&dir.path().join("report.json")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write_whole(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn to_check_a_place_does_not_write_through_a_link_that_somebody_planted() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, report) = (dir.path().join("victim"), dir.path().join("report.json"));
        fs::write(&victim, "precious").unwrap();
        let planted = dir.path().join(format!(".report.json.{}.tmp", std::process::id()));
        std::os::unix::fs::symlink(&victim, planted).unwrap();
        let _ = check_whole(&report);
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }
}
