//! The verified bytes that a handler reads, from a descriptor that nobody can write through.

use crate::limits::MAX_SEALED;
use rustix::fs::{
    CWD, FileType, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fstat, memfd_create, openat,
};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions};
use std::io::{self, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An object on this machine, as a signed task describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectFile {
    /// Where its bytes are: a file of the agent, in a directory that only the agent can write to.
    pub path: PathBuf,
    /// Its name in the task: one safe component of a path.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its BLAKE3 hash.
    pub blake3: [u8; 32],
}

/// Opens an object and verifies it through the descriptor that is returned. It is open for reading only. Small objects
/// are copied into sealed memory, which nobody can change. Others stay in their file, which only the agent's user can
/// write, and which is made read-only before it is verified.
pub(super) fn open_verified(object: &ObjectFile) -> Result<OwnedFd, String> {
    let name = object.path.display();
    let failed = |e: io::Error| format!("the object {name} cannot be read ({e}); fetch it again");
    if !is_safe_name(&object.name) {
        return Err(format!(
            "the object's name '{}' is not allowed; rename it",
            mcp_transfer::text::escape(&object.name)
        ));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(CWD, &object.path, flags, Mode::empty()).map_err(|e| failed(e.into()))?);
    let stat = fstat(&file).map_err(|e| failed(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_uid != geteuid().as_raw() {
        return Err(format!("the object {name} is not a file of the agent; fetch it again"));
    }
    if stat.st_size as u64 != object.size {
        return Err(format!("the object {name} has another size than its task says; fetch it again"));
    }
    let fd = if object.size <= MAX_SEALED {
        sealed_copy(&mut file).map_err(failed)?
    } else {
        // Other users than the agent's run handlers too.
        file.set_permissions(Permissions::from_mode(0o444)).map_err(failed)?;
        file
    };
    let before = fstat(&fd).map_err(|e| failed(e.into()))?;
    let hash = hash(&fd).map_err(failed)?;
    let after = fstat(&fd).map_err(|e| failed(e.into()))?;
    let same = (before.st_size, before.st_mtime, before.st_mtime_nsec, before.st_ctime_nsec)
        == (after.st_size, after.st_mtime, after.st_mtime_nsec, after.st_ctime_nsec);
    if hash != object.blake3 || !same {
        return Err(format!("the object {name} does not have the signed hash; fetch it again"));
    }
    Ok(fd.into())
}

fn hash(mut file: &File) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    file.rewind()?;
    Ok(*hasher.finalize().as_bytes())
}

/// Copies a file into memory that can never be changed again, and opens it for reading.
fn sealed_copy(file: &mut File) -> io::Result<File> {
    let mut memory = File::from(memfd_create("mcp-object", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    io::copy(&mut io::Read::take(file, MAX_SEALED), &mut memory)?;
    fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// Whether a name is one component of a path that no command takes for an option, and that prints as one word.
fn is_safe_name(name: &str) -> bool {
    let odd = |c: char| c == '/' || c.is_control() || c.is_whitespace();
    (1..=255).contains(&name.len()) && !name.contains(odd) && !name.starts_with(['-', '.']) && {
        Path::new(name).components().count() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn object(dir: &Path, bytes: &[u8]) -> ObjectFile {
        let path = dir.join("object");
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        let (name, size, blake3) = ("x.deb".to_owned(), bytes.len() as u64, *blake3::hash(bytes).as_bytes());
        ObjectFile { path, name, size, blake3 }
    }

    #[test]
    fn small_and_large_objects_are_read_and_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1000, MAX_SEALED as usize + 1] {
            let object = object(dir.path(), &vec![7; size]);
            let mut file = File::from(open_verified(&object).unwrap());
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len(), size);
            file.write_all(b"x").unwrap_err();
            if size < MAX_SEALED as usize {
                // Not even through another descriptor.
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                let other = std::fs::OpenOptions::new().write(true).open(path);
                assert!(other.and_then(|mut other| other.write_all(b"x")).is_err());
                // Nor with the file that it was made of.
                std::fs::write(&object.path, b"changed").unwrap();
                let mut again = Vec::new();
                File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
                    .unwrap()
                    .read_to_end(&mut again)
                    .unwrap();
                assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn other_bytes_links_and_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for size in [1000, MAX_SEALED as usize + 1] {
            let good = object(dir.path(), &vec![7; size]);
            let mut bytes = vec![7; size];
            bytes[size / 2] = 8;
            std::fs::write(&good.path, &bytes).unwrap();
            assert!(open_verified(&good).unwrap_err().contains("signed hash"));
            std::fs::write(&good.path, &bytes[1..]).unwrap();
            assert!(open_verified(&good).unwrap_err().contains("size"));
        }
        let good = object(dir.path(), b"abc");
        std::fs::rename(&good.path, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &good.path).unwrap();
        open_verified(&good).unwrap_err();
        let good = object(dir.path(), b"abc");
        for name in ["", ".", "..", "../x", "a/b", "-x", "--option", "a\nb", "a b", "a\0b", ".x", "/x"] {
            let named = ObjectFile { name: name.to_owned(), ..good.clone() };
            assert!(open_verified(&named).unwrap_err().contains("name"), "{name:?}");
        }
    }
}
