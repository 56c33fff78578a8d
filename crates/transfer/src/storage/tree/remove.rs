//! Removing a tree of ours, or the one that it has replaced.

use super::steps::step;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};
use std::os::fd::{AsFd, OwnedFd};

/// Removes `name` in `dir`, with all that is in it. Follows no link, and does not enter another file system.
///
/// # Errors
/// If something stays.
pub fn remove_all(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match step().and_then(|()| retry_on_intr(|| rustix::fs::unlinkat(&dir, name, AtFlags::empty()))) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        done => return done,
    }
    let below = match open(&dir, name) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&dir, name, Mode::RWXU, AtFlags::empty())?;
            open(&dir, name)?
        }
        opened => opened?,
    };
    remove_contents(&below)?;
    step()?;
    retry_on_intr(|| rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR))
}

/// Removes all that is in `dir`.
///
/// # Errors
/// If something stays.
pub fn remove_contents(dir: &OwnedFd) -> Result<(), Errno> {
    let mut made_writable = false;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        match remove_all(dir, name) {
            Err(Errno::ACCESS) if !made_writable => {
                made_writable = true;
                rustix::fs::fchmod(dir, Mode::RWXU)?;
                remove_all(dir, name)?;
            }
            done => done?,
        }
    }
    Ok(())
}

fn open(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match retry_on_intr(|| rustix::fs::openat2(&dir, name, flags, Mode::empty(), resolve)) {
        Err(Errno::NOSYS | Errno::PERM) => {}
        done => return done,
    }
    let below = retry_on_intr(|| rustix::fs::openat(&dir, name, flags, Mode::empty()))?;
    let same = rustix::fs::fstat(&below)?.st_dev == rustix::fs::fstat(&dir)?.st_dev;
    if same { Ok(below) } else { Err(Errno::XDEV) }
}
