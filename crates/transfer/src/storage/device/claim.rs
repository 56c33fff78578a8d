//! The claim on a block device: an exclusive open, and the checks that it does not make.

use super::ioctl;
use super::users::{self, Number, Use};
use crate::storage::SinkError;
use crate::storage::direct::Direct;
use crate::storage::refusal::shown;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How often, and at which interval, to try for the lock on the disk. `udev` holds it while it looks at the disk.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A block device that nobody else uses, open for writing. Dropping it releases the device.
#[derive(Debug)]
pub(super) struct Claim {
    pub path: PathBuf,
    pub file: File,
    /// A second descriptor: a second exclusive one would be refused.
    pub direct: Direct,
    pub size: u64,
    /// Bytes of a logical sector.
    pub sector: u64,
    pub is_disk: bool,
    /// Keeps `udev` from looking at the disk while it is written.
    _lock: Option<File>,
}

/// The block device at `path`, all links followed; `None` if there is none.
pub(super) fn resolve(path: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    fs::metadata(&path).is_ok_and(|meta| meta.file_type().is_block_device()).then_some(path)
}

impl Claim {
    /// Claims the block device at `path`. With `force`, also if it is in use, as far as the system allows it.
    pub fn new(path: &Path, force: bool) -> Result<Self, SinkError> {
        let path = resolve(path).ok_or_else(|| gone(path))?;
        let file = open(&path, true, force)?;
        let direct = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(&path)
            .ok()
            .filter(|direct| number(direct).is_some_and(|direct| Some(direct) == number(&file)));
        let size = size(&file).map_err(|error| failed("read the size of", &path, &error))?;
        let sector = rustix::fs::ioctl_blksszget(&file).map_or(512, u64::from);
        let disk = number(&file).and_then(Number::disk);
        let lock = match &disk {
            None => file.try_clone().ok(),
            Some((_, name)) => File::open(Path::new("/dev").join(name)).ok(),
        };
        let lock = lock.filter(lock_soon);
        let is_disk = disk.is_none();
        Ok(Self { path, file, direct: Direct::of(direct), size, sector, is_disk, _lock: lock })
    }

    /// The identity of the device.
    pub fn identity(&self) -> Option<Identity> {
        number(&self.file).map(|number| (number, number.sequence()))
    }
}

/// Checks that the device at `path` could be claimed, without touching it.
pub(super) fn check(path: &Path, force: bool) -> Result<(), SinkError> {
    let path = resolve(path).ok_or_else(|| gone(path))?;
    open(&path, false, force).map(drop)
}

/// Opens the device for reading, to look at it.
pub(super) fn look(path: &Path) -> Option<(File, u64)> {
    let mut file = File::open(resolve(path)?).ok()?;
    let size = file.seek(SeekFrom::End(0)).ok()?;
    Some((file, size))
}

/// Opens the device exclusively, and checks that it is not read-only, and that no loop device is over it.
fn open(path: &Path, write: bool, force: bool) -> Result<File, SinkError> {
    let opened = |flags: OFlags| {
        OpenOptions::new().read(true).write(write).custom_flags(flags.bits() as i32).open(path)
    };
    let number = fs::metadata(path).ok().map(|meta| Number::of(meta.rdev()));
    let user = number.and_then(users::find);
    if let Some(user) = user.as_ref().filter(|_| !force) {
        return Err(in_use(path, Some(user), number));
    }
    let file = match opened(OFlags::EXCL) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {
            let forced = if force { opened(OFlags::empty()).ok() } else { None };
            forced.ok_or_else(|| in_use(path, user.as_ref(), number))?
        }
        other => other.map_err(|error| failed("open", path, &error))?,
    };
    if !file.metadata().is_ok_and(|meta| meta.file_type().is_block_device()) {
        return Err(gone(path));
    }
    // A read-only device can be opened for writing. The first write would fail.
    if ioctl::is_read_only(&file) == Ok(true) {
        return Err(read_only(path));
    }
    Ok(file)
}

/// What tells a device from another one under the same name.
pub(super) type Identity = (Number, Option<String>);

/// The identity of the device at `path`.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    let number = Number::of(fs::metadata(path).ok()?.rdev());
    Some((number, number.sequence()))
}

fn number(file: &File) -> Option<Number> {
    file.metadata().ok().map(|meta| Number::of(meta.rdev()))
}

/// Its size in bytes. Seeking is the way to it.
pub(in crate::storage) fn size(mut device: &File) -> io::Result<u64> {
    device.seek(SeekFrom::End(0))
}

/// Tries for the lock for a moment. Who holds it longer keeps `udev` off too.
fn lock_soon(disk: &File) -> bool {
    (0..LOCK_TRIES).any(|n| {
        if n > 0 {
            thread::sleep(LOCK_PAUSE);
        }
        retry_on_intr(|| rustix::fs::flock(disk, FlockOperation::NonBlockingLockExclusive))
            != Err(Errno::AGAIN)
    })
}

fn gone(path: &Path) -> SinkError {
    SinkError::Disk(format!("there is no block device {}; check -o", shown(path)))
}

fn read_only(path: &Path) -> SinkError {
    SinkError::Disk(format!(
        "{} is read-only; check its switch, make it writable with blockdev --setrw, or give another device with -o",
        shown(path)
    ))
}

fn in_use(path: &Path, user: Option<&Use>, number: Option<Number>) -> SinkError {
    let path = shown(path);
    SinkError::Disk(match user {
        Some(Use { what, advice }) => format!("{path} is in use: {what}; {advice}"),
        None => match number.and_then(users::program) {
            Some(program) => format!("{path} is in use: {program} holds it; end that program first"),
            None => format!("{path} is in use by another program; end that first"),
        },
    })
}

/// The error for a failed operation `what` (a verb) on the device: the reason, and the next step.
pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> SinkError {
    let device = shown(path);
    SinkError::Disk(match Errno::from_io_error(error) {
        Some(Errno::NOSPC) => {
            format!("cannot {what} {device}: the storage behind it is full; make room there and try again")
        }
        Some(Errno::ACCESS) => {
            format!(
                "cannot {what} {device}: this user may not; run mcp as root or as a member of the group disk"
            )
        }
        Some(Errno::PERM | Errno::ROFS) => return read_only(path),
        Some(Errno::NXIO | Errno::NODEV | Errno::NOMEDIUM) => {
            format!("cannot {what} {device}: nothing is behind it; put it in and try again")
        }
        Some(Errno::IO) => {
            format!("cannot {what} {device}: the device fails (I/O error); replace it or check its cable")
        }
        _ => format!("cannot {what} {device} ({error}); check the device"),
    })
}
