//! Block devices as destinations: an object is written in place, to a device that nobody else uses.
//!
//! - `claim`: the exclusive claim, and everything that forbids one; `users`: who uses a device.
//! - `part`: the writes, and what is written last; `medium`: what that needs of a device; `zeros`: ranges of zeros; `table`: partition tables that do not fit.
//! - `ioctl`: system calls.
//!
//! A device is its own part file, so an interrupted run resumes from what it holds.

mod claim;
mod ioctl;
mod medium;
mod part;
mod table;
mod users;
mod zeros;

pub(super) use claim::size;
pub(super) use ioctl::flush;

use super::refusal::shown;
use super::{Found, Part, Sink, SinkError};
use crate::units::Extent;
#[cfg(any(test, feature = "sim"))]
pub(crate) use {medium::Medium, part::PAGE};

use claim::{Claim, Identity};
use medium::Claimed;
pub(crate) use part::DevicePart;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Places of a device to look at, and bytes at each, before it counts as blank.
const PLACES: u64 = 256;
const LOOK: usize = 4096;

/// Something that the user is to be told of a device: one clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceNote {
    /// The user may have to do something.
    Warning(String),
    /// A detail.
    Note(String),
}

/// What the user is to be told of a device, from whichever thread.
#[derive(Clone, Debug, Default)]
pub struct DeviceNotes(Arc<Mutex<Vec<DeviceNote>>>);

impl DeviceNotes {
    /// Adds a warning.
    pub(super) fn warn(&self, text: String) {
        self.add(DeviceNote::Warning(text));
    }

    /// Adds a detail.
    fn note(&self, text: String) {
        self.add(DeviceNote::Note(text));
    }

    fn add(&self, note: DeviceNote) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// Those that were added since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<DeviceNote> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes objects to a block device, whatever their names.
#[derive(Debug)]
pub struct DeviceSink {
    path: PathBuf,
    /// The device that the user means.
    identity: Option<Identity>,
    force: bool,
    notes: DeviceNotes,
    /// Whether it held nothing when it was first looked at.
    blank: Option<bool>,
}

impl DeviceSink {
    /// The block device at `path`, or at the end of the links there; `None` if there is no block device. With `force`,
    /// it is written to even if it is in use.
    ///
    /// # Errors
    /// If `path` is a name among the devices that is not there: a file would be made there, in memory.
    pub fn at(path: &Path, force: bool) -> Result<Option<Self>, SinkError> {
        if let Some(device) = claim::resolve(path) {
            let (path, identity) = (path.to_owned(), claim::identity(&device));
            return Ok(Some(Self { path, identity, force, notes: DeviceNotes::default(), blank: None }));
        }
        let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
        let among = parent.filter(|parent| parent.starts_with("/dev")).is_some_and(|parent| {
            let file_system = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
            file_system(&parent) == file_system(Path::new("/dev"))
        });
        if among && fs::symlink_metadata(path).is_err() {
            return Err(SinkError::Name(format!("there is no device {}; check -o", shown(path))));
        }
        Ok(None)
    }

    /// What the user is to be told.
    #[must_use]
    pub fn notes(&self) -> DeviceNotes {
        self.notes.clone()
    }

    /// Checks that the device could be written to now. Call before the transfer, to fail early; [`Sink::create`]
    /// checks again.
    ///
    /// # Errors
    /// If it is in use, read-only, or not there.
    pub fn check(&self) -> Result<(), SinkError> {
        claim::check(&self.path, self.force)
    }

    fn is_blank(&mut self) -> bool {
        *self
            .blank
            .get_or_insert_with(|| claim::look(&self.path).is_some_and(|(file, size)| is_blank(&file, size)))
    }
}

impl Sink for DeviceSink {
    /// Anything that it holds may be a part of the object.
    fn probe(&mut self, _name: &str, extent: Extent) -> Found {
        if extent.total() == Some(0) || self.is_blank() { Found::Nothing } else { Found::Part }
    }

    /// An object that still grows may take all of the device.
    fn create(&mut self, _name: &str, extent: Extent) -> Result<Box<dyn Part>, SinkError> {
        let blank = self.is_blank();
        let claim = Claim::new(&self.path, self.force)?;
        if claim.identity() != self.identity {
            return Err(SinkError::Disk(format!(
                "{} is another device now than when mcp was started; check -o and start it again",
                shown(&self.path)
            )));
        }
        // The next look is for the next transfer.
        self.blank = None;
        Ok(Box::new(DevicePart::new(Claimed::new(claim), extent, blank, self.notes.clone())?))
    }
}

/// Where a file system on this block device or one of its partitions is mounted read-write.
pub(super) fn mounted_for_writing(device: &Metadata) -> Option<String> {
    users::mounted_for_writing(users::Number::of(device.rdev()))
}

/// Whether a device has only zeros, as far as a look at some places can say.
fn is_blank(file: &File, size: u64) -> bool {
    let mut bytes = [0; LOOK];
    let stretch = size / PLACES;
    (0..PLACES).all(|n| {
        // Some place of each stretch, but the same ones each time.
        let shift = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % stretch.max(1);
        let at = (n * stretch + shift) / LOOK as u64 * LOOK as u64;
        let len = size.saturating_sub(at).min(LOOK as u64) as usize;
        file.read_exact_at(&mut bytes[..len], at).is_ok() && crate::pack::are_zero(&bytes[..len])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;

    #[test]
    fn a_device_with_anything_on_it_is_not_blank() {
        let dir = Scratch::new();
        let file = File::options().read(true).write(true).create_new(true).open(dir.join("disk")).unwrap();
        for size in [0, 1000, 5 << 20, (64 << 20) + 512] {
            file.set_len(size).unwrap();
            assert!(is_blank(&file, size), "{size}");
        }
        // A sixteenth is found wherever it is.
        let size = 64 << 20;
        for n in 0..16 {
            file.set_len(0).unwrap();
            file.set_len(size).unwrap();
            file.write_all_at(&vec![1; 4 << 20], n * (4 << 20)).unwrap();
            assert!(!is_blank(&file, size), "{n}");
        }
    }

    #[test]
    fn only_block_devices_are_devices_and_missing_ones_are_named() {
        let dir = Scratch::new();
        fs::write(dir.join("file"), "x").unwrap();
        for path in [dir.join("file"), dir.join("new"), dir.path().to_owned(), "/dev/null".into()] {
            assert!(DeviceSink::at(&path, false).unwrap().is_none(), "{}", path.display());
        }
        let error = DeviceSink::at(Path::new("/dev/no-such-disk"), false).unwrap_err().to_string();
        assert_eq!(error, "there is no device /dev/no-such-disk; check -o");
    }
}
