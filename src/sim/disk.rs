//! Virtual files: a source for the sender, a disk for each device. A disk outlives its device's
//! crashes. It knows what has been synced: a crash loses or tears the rest.

use super::pages::Pages;
use crate::storage::{Destination, DestinationError, Earlier, Part, RawBytes, Source, SourceError};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An object in memory that can be made to change under the sender.
#[derive(Clone)]
pub struct SimSource {
    bytes: Arc<Vec<u8>>,
    changed: Arc<AtomicBool>,
}

impl SimSource {
    /// A source of `bytes`.
    #[must_use]
    pub fn new(bytes: Arc<Vec<u8>>) -> Self {
        Self { bytes, changed: Arc::new(AtomicBool::new(false)) }
    }
    /// From now on the file is not what it was: it cannot be read, checked or sent.
    pub fn change(&self) {
        self.changed.store(true, Ordering::SeqCst);
    }
    /// The bytes that `raw` stands for, as the kernel would read them; `None` if they are gone.
    #[must_use]
    pub fn resolve(&self, raw: RawBytes) -> Option<&[u8]> {
        if self.changed.load(Ordering::SeqCst) {
            return None;
        }
        let start = (raw.address as usize).checked_sub(self.bytes.as_ptr() as usize)?;
        self.bytes.get(start..start.checked_add(raw.len)?)
    }
}

impl Source for SimSource {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.check()?;
        let offset = offset as usize;
        let end = offset.checked_add(buf.len()).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| SourceError::Read("read beyond the end of the source".to_owned()))?;
        buf.copy_from_slice(&self.bytes[offset..end]);
        Ok(())
    }
    fn raw(&self, offset: u64, len: usize) -> RawBytes {
        let bytes = &self.bytes[offset as usize..][..len];
        RawBytes { address: bytes.as_ptr(), len }
    }
    fn check(&self) -> Result<(), SourceError> {
        if self.changed.load(Ordering::SeqCst) {
            return Err(SourceError::Changed("the source changed while it was being sent".to_owned()));
        }
        Ok(())
    }
}

/// What a disk refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Bytes it has room for, if it is not unlimited; a part file is preallocated.
    pub capacity: Option<u64>,
    /// Nothing can be created.
    pub read_only: bool,
    /// The write with this number (from 0) fails.
    pub write_error: Option<u64>,
    /// Writes fail as on a full disk after so many bytes written, though there was room.
    pub full_after: Option<u64>,
    /// The read with this number (from 0) fails.
    pub read_error: Option<u64>,
    /// Syncing fails.
    pub sync_error: bool,
    /// The final name is taken while the object is being received.
    pub name_taken_late: bool,
}

#[derive(Default)]
struct State {
    faults: DiskFaults,
    /// Files under their final names; all synced, for a rename happens after the sync.
    files: BTreeMap<String, Arc<Vec<u8>>>,
    parts: BTreeMap<u64, Pages>,
    /// Part files whose device is at work on them; another may be taken over.
    owned: BTreeSet<u64>,
    /// What is expected to come; only to save memory.
    object: Arc<Vec<u8>>,
    made: u64,
    writes: u64,
    written: u64,
    reads: u64,
    version: u64,
    failures: u64,
}

impl State {
    fn used(&self) -> u64 {
        let files: usize = self.files.values().map(|f| f.len()).sum();
        let parts: usize = self.parts.values().map(Pages::len).sum();
        (files + parts) as u64
    }
    fn refuse<T>(&mut self, text: &str) -> Result<T, DestinationError> {
        self.failures += 1;
        Err(DestinationError::Disk(text.to_owned()))
    }
}

/// A device's disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk with these faults; `object` is what will probably be put on it.
    #[must_use]
    pub fn new(faults: DiskFaults, object: Arc<Vec<u8>>) -> Self {
        Self(Arc::new(Mutex::new(State { faults, object, ..State::default() })))
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Puts a synced file on it.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.state().files.insert(name.to_owned(), Arc::new(bytes));
    }
    /// Takes all faults away.
    pub fn mend(&self) {
        self.state().faults = DiskFaults::default();
    }
    /// Looks at the file of that name.
    pub fn with_file<T>(&self, name: &str, f: impl FnOnce(Option<&[u8]>) -> T) -> T {
        f(self.state().files.get(name).map(|f| &f[..]))
    }
    /// Names of all files under final names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().files.keys().cloned().collect()
    }
    /// Counts the changes to files under final names.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.state().version
    }
    /// How many part files there are.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.state().parts.len()
    }
    /// How often it refused something.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state().failures
    }
    /// The device loses power: what was not synced is kept, lost or torn, each write for itself.
    pub fn crash(&self, rng: &mut fastrand::Rng) {
        let mut state = self.state();
        // Who comes to clean up after that does so in vain.
        state.owned.clear();
        state.parts.values_mut().for_each(|part| part.crash(rng));
    }
}

/// The virtual destination: any name that is not taken will do.
pub struct SimDestination {
    disk: SimDisk,
    force: bool,
}

impl SimDestination {
    /// A destination on `disk`; `force` replaces an existing file.
    #[must_use]
    pub const fn new(disk: SimDisk, force: bool) -> Self {
        Self { disk, force }
    }
}

impl Destination for SimDestination {
    fn create(&mut self, name: &str, size: u64) -> Result<Box<dyn Part>, DestinationError> {
        let mut state = self.disk.state();
        if name.contains(['/', '\0']) || matches!(name, "" | "." | "..") {
            return Err(DestinationError::Name(format!("{name:?} is no file name")));
        }
        if state.files.contains_key(name) && !self.force {
            return Err(DestinationError::Name(format!("{name:?} exists; choose another directory")));
        }
        if state.faults.read_only {
            return state.refuse("the disk is read-only");
        }
        let orphan =
            state.parts.iter().find(|(id, part)| part.len() as u64 == size && !state.owned.contains(id));
        let orphan = orphan.map(|(&id, _)| id);
        if orphan.is_none() && state.faults.capacity.is_some_and(|c| state.used() + size > c) {
            return state.refuse("no space left on the disk");
        }
        // A number is given once: who has lost a part to a crash must not reach its successor.
        let id = state.made;
        state.made += 1;
        let part = orphan.and_then(|id| state.parts.remove(&id));
        let adopted = part.is_some();
        let part = part.unwrap_or_else(|| Pages::new(size as usize, Arc::clone(&state.object)));
        state.parts.insert(id, part);
        state.owned.insert(id);
        let disk = self.disk.clone();
        Ok(Box::new(SimPart { disk, id, adopted, name: name.to_owned(), force: self.force }))
    }
}

struct SimPart {
    disk: SimDisk,
    id: u64,
    adopted: bool,
    name: String,
    force: bool,
}

impl Part for SimPart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DestinationError> {
        let mut state = self.disk.state();
        let number = state.writes;
        state.writes += 1;
        state.written += bytes.len() as u64;
        if state.faults.write_error == Some(number) {
            return state.refuse("writing failed: input/output error");
        }
        if state.faults.full_after.is_some_and(|limit| state.written > limit) {
            return state.refuse("no space left on the disk");
        }
        let part = state.parts.get_mut(&self.id).expect("the part file is written while it exists");
        part.write(offset as usize, bytes);
        Ok(())
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DestinationError> {
        let mut state = self.disk.state();
        let number = state.reads;
        state.reads += 1;
        if state.faults.read_error == Some(number) {
            return state.refuse("reading failed: input/output error");
        }
        let part = state.parts.get(&self.id).expect("the part file is read while it exists");
        part.read(offset as usize, buf);
        Ok(())
    }
    fn next_written(&self, from: u64) -> Option<Range<u64>> {
        let state = self.disk.state();
        let part = state.parts.get(&self.id).filter(|_| self.adopted)?;
        part.next_written(from as usize).map(|range| range.start as u64..range.end as u64)
    }
    fn commit(&self) -> Result<PathBuf, DestinationError> {
        let mut state = self.disk.state();
        let mut part = state.parts.remove(&self.id).expect("a part file is committed once");
        if state.faults.sync_error {
            return state.refuse("syncing failed: input/output error");
        }
        if state.faults.name_taken_late && !self.force {
            // Somebody else's file, of which the checks know.
            state.failures += 1;
            return Err(DestinationError::Name(format!("{:?} has been taken meanwhile", self.name)));
        }
        part.sync();
        state.files.insert(self.name.clone(), part.content());
        state.version += 1;
        Ok(PathBuf::from(&self.name))
    }
    fn discard(&self) {
        let mut state = self.disk.state();
        // A device that crashed clears nothing away.
        if state.owned.remove(&self.id) {
            state.parts.remove(&self.id);
        }
    }
}

impl Drop for SimPart {
    fn drop(&mut self) {
        self.disk.state().owned.remove(&self.id);
    }
}

/// An earlier version of an object, in memory.
pub struct SimEarlier(pub Arc<Vec<u8>>);

impl Earlier for SimEarlier {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = self.0.get(offset as usize..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(disk: &SimDisk) -> Box<dyn Part> {
        SimDestination::new(disk.clone(), false).create("x", 8).expect("room for a part")
    }

    #[test]
    fn a_crash_keeps_what_was_committed_and_tears_the_rest() {
        let disk = SimDisk::default();
        let first = part(&disk);
        first.write_at(0, b"abcdefgh").unwrap();
        first.commit().unwrap();
        let second = SimDestination::new(disk.clone(), true).create("x", 8).unwrap();
        second.write_at(0, b"ABCDEFGH").unwrap();
        disk.crash(&mut fastrand::Rng::with_seed(3));
        drop(second);
        disk.with_file("x", |file| assert_eq!(file, Some(&b"abcdefgh"[..])));
        assert_eq!(disk.parts(), 1);
        // The next run takes over what is left; who was switched off does not reach it any more.
        let third = SimDestination::new(disk.clone(), true).create("x", 8).unwrap();
        third.write_at(0, b"ABCDEFGH").unwrap();
        assert_eq!(disk.parts(), 1);
        drop(third);
        let fourth = SimDestination::new(disk.clone(), true).create("x", 8).unwrap();
        assert_eq!((disk.parts(), fourth.next_written(0)), (1, Some(0..8)));
        fourth.discard();
        assert_eq!(disk.parts(), 0);
    }

    #[test]
    fn every_fault_refuses() {
        let with = |faults| SimDisk::new(faults, Arc::default());
        let create = |disk: &SimDisk| SimDestination::new(disk.clone(), false).create("x", 8).map(|_| ());
        assert!(create(&with(DiskFaults { capacity: Some(7), ..DiskFaults::default() })).is_err());
        assert!(create(&with(DiskFaults { read_only: true, ..DiskFaults::default() })).is_err());
        let disk = with(DiskFaults { write_error: Some(1), ..DiskFaults::default() });
        let file = part(&disk);
        assert!(file.write_at(0, b"a").is_ok() && file.write_at(0, b"a").is_err());
        let file = part(&with(DiskFaults { full_after: Some(1), ..DiskFaults::default() }));
        assert!(file.write_at(0, b"a").is_ok() && file.write_at(0, b"a").is_err());
        let disk = with(DiskFaults { sync_error: true, ..DiskFaults::default() });
        assert!(part(&disk).commit().is_err());
        assert!(disk.names().is_empty() && disk.parts() == 0 && disk.failures() == 1);
        let disk = with(DiskFaults { name_taken_late: true, ..DiskFaults::default() });
        assert!(matches!(part(&disk).commit(), Err(DestinationError::Name(_))));
    }

    #[test]
    fn a_changed_source_cannot_be_used() {
        let source = SimSource::new(Arc::new((0..100).collect()));
        let raw = source.raw(10, 5);
        assert_eq!(source.resolve(raw), Some(&[10, 11, 12, 13, 14][..]));
        source.change();
        assert!(source.resolve(raw).is_none() && source.check().is_err());
        assert!(source.read_at(0, &mut [0]).is_err());
    }
}
