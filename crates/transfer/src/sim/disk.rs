//! Virtual files: a disk for each device. A disk outlives its device's crashes. It records which bytes and names are
//! synced; a crash loses or tears the rest. [`DiskFaults`] sets in advance which operations fail, and at which operation
//! the device loses power.

use super::disk_faults::{DiskError, DiskFaults, Op};
use super::faults::Faults;
use super::pages::Pages;
use crate::storage::{Earlier, Found, Part, Sink, SinkError, Tickets};
use crate::units::{Extent, SessionId, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A change of a name that is not durable yet, because the directory was not synced.
struct Change {
    name: String,
    before: Option<Arc<Vec<u8>>>,
    /// The part file that got the name, if any.
    part: Option<(u64, Pages)>,
}

#[derive(Default)]
struct State {
    faults: DiskFaults,
    /// Files under their final names, with durable bytes: a part file is renamed after its sync.
    files: BTreeMap<String, Arc<Vec<u8>>>,
    /// Changes of `files` since the directory was last synced.
    unsynced: Vec<Change>,
    parts: BTreeMap<u64, Pages>,
    /// Kept tickets: each is durable as soon as it is kept.
    tickets: BTreeMap<SessionId, Ticket>,
    /// Part files with a living device. A later run may take over the others.
    owned: BTreeSet<u64>,
    /// The expected object, used only to save memory.
    object: Arc<Vec<u8>>,
    made: u64,
    /// Number of times that each operation was begun.
    begun: [u64; Op::ALL.len()],
    written: u64,
    version: u64,
    changes: u64,
    /// The power went at an operation, and nobody has asked yet.
    power_lost: bool,
    struck: Faults,
}

impl State {
    /// Size of the part file of an object. A virtual file does not grow: it has room for all of the object at once.
    fn size_of(&self, extent: Extent) -> u64 {
        extent.total().unwrap_or(self.object.len() as u64)
    }
    fn used(&self) -> u64 {
        let files: usize = self.files.values().map(|f| f.len()).sum();
        let parts: usize = self.parts.values().map(Pages::len).sum();
        (files + parts) as u64
    }
    fn refuse<T>(&mut self, op: Op, error: DiskError) -> Result<T, SinkError> {
        self.struck.count(op.refused(error));
        Err(SinkError::Disk(error.text(op)))
    }
    /// Runs `act` as the operation `op` on the part file `part` (`None` before it exists), unless the
    /// operation is to fail or the power fails. A part file lost in a crash has no power.
    fn operate<T>(
        &mut self,
        op: Op,
        part: Option<u64>,
        act: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, SinkError> {
        let off = || Err(SinkError::Disk("the power is off".to_owned()));
        if part.is_some_and(|id| !self.owned.contains(&id)) {
            return off();
        }
        let number = self.begun[op as usize];
        self.begun[op as usize] += 1;
        self.changes += u64::from(op != Op::Read);
        let cut = self.faults.power_cut.filter(|cut| cut.op == op && cut.nth == number);
        if let Some(cut) = cut.filter(|cut| !cut.after) {
            self.cut_power(op.cut(false), cut.seed);
            return off();
        }
        if let Some((_, _, error)) = self.faults.error.filter(|&(o, nth, _)| o == op && nth == number) {
            return self.refuse(op, error);
        }
        let done = act(self);
        if let Some(cut) = cut {
            self.cut_power(op.cut(true), cut.seed);
            return off();
        }
        Ok(done)
    }
    fn part(&mut self, id: u64) -> &mut Pages {
        self.parts.get_mut(&id).expect("the part file is used while it exists")
    }
    fn cut_power(&mut self, class: &'static str, seed: u64) {
        self.struck.count(class);
        self.power_lost = true;
        self.crash(&mut fastrand::Rng::with_seed(seed));
    }
    fn crash(&mut self, rng: &mut fastrand::Rng) {
        // A clean-up after the power failure has no effect.
        self.owned.clear();
        self.parts.values_mut().for_each(|part| part.crash(rng));
        // Changes of names become durable in their order, up to any of them.
        let kept = rng.usize(..=self.unsynced.len());
        let lost: Vec<Change> = self.unsynced.drain(kept..).collect();
        self.unsynced.clear();
        for change in lost.into_iter().rev() {
            self.version += 1;
            self.parts.extend(change.part);
            match change.before {
                Some(before) => self.files.insert(change.name, before),
                None => self.files.remove(&change.name),
            };
        }
    }
    /// Gives the part file `id` the name; with `None` removes the file of that name. Not durable yet.
    fn rename(&mut self, id: Option<u64>, name: &str) {
        let part = id.and_then(|id| Some((id, self.parts.remove(&id)?)));
        let content = part.as_ref().map(|(_, pages)| {
            assert!(pages.is_synced(), "a part file gets its final name before it is synced");
            pages.content()
        });
        let before = match content {
            Some(content) => self.files.insert(name.to_owned(), content),
            None => self.files.remove(name),
        };
        self.unsynced.push(Change { name: name.to_owned(), before, part });
        self.version += 1;
    }
}

/// A device's disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk with these faults. `object` is its expected content.
    #[must_use]
    pub fn new(faults: DiskFaults, object: Arc<Vec<u8>>) -> Self {
        Self(Arc::new(Mutex::new(State { faults, object, ..State::default() })))
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Puts a synced file on the disk.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.state().files.insert(name.to_owned(), Arc::new(bytes));
    }
    /// Removes all faults.
    pub fn mend(&self) {
        self.state().faults = DiskFaults::default();
    }
    /// Calls `f` with the content of the file of that name.
    pub fn with_file<T>(&self, name: &str, f: impl FnOnce(Option<&[u8]>) -> T) -> T {
        f(self.state().files.get(name).map(|f| &f[..]))
    }
    /// Names of all files under final names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().files.keys().cloned().collect()
    }
    /// Whether all names would survive a power cut right now.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state().unsynced.is_empty()
    }
    /// The number of changes to files under final names.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.state().version
    }
    /// Counts all that changes it, or was to.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }
    /// How many part files there are.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.state().parts.len()
    }
    /// The faults that occurred.
    #[must_use]
    pub fn struck(&self) -> Faults {
        self.state().struck.clone()
    }
    /// Cuts the device's power. Each write that was not synced is kept, lost or torn by itself.
    pub fn crash(&self, rng: &mut fastrand::Rng) {
        self.state().crash(rng);
    }
    /// Whether the power failed at an operation since the last call.
    #[must_use]
    pub fn take_power_loss(&self) -> bool {
        std::mem::take(&mut self.state().power_lost)
    }
}

/// The virtual sink. It accepts any free name.
pub struct SimSink {
    disk: SimDisk,
    force: bool,
}

impl SimSink {
    /// A sink on `disk`; `force` replaces an existing file.
    #[must_use]
    pub const fn new(disk: SimDisk, force: bool) -> Self {
        Self { disk, force }
    }
}

impl Sink for SimSink {
    fn probe(&mut self, name: &str, extent: Extent) -> Found {
        let state = self.disk.state();
        let size = state.size_of(extent);
        let orphan =
            state.parts.iter().any(|(id, part)| part.len() as u64 == size && !state.owned.contains(id));
        match state.files.get(name).filter(|file| extent.total() == Some(file.len() as u64) && !self.force) {
            Some(_) => Found::Whole(Box::new(SimWhole { disk: self.disk.clone(), name: name.to_owned() })),
            None if orphan => Found::Part,
            None => Found::Nothing,
        }
    }
    fn create(&mut self, name: &str, extent: Extent) -> Result<Box<dyn Part>, SinkError> {
        let mut state = self.disk.state();
        let size = state.size_of(extent);
        if name.contains(['/', '\0']) || matches!(name, "" | "." | "..") {
            return Err(SinkError::Name(format!("{name:?} is no file name")));
        }
        if state.files.contains_key(name) && !self.force {
            return Err(SinkError::Name(format!("{name:?} exists; choose another directory")));
        }
        if state.faults.read_only {
            return state.refuse(Op::Create, DiskError::ReadOnly);
        }
        let orphan =
            state.parts.iter().find(|(id, part)| part.len() as u64 == size && !state.owned.contains(id));
        let orphan = orphan.map(|(&id, _)| id);
        if orphan.is_none() && state.faults.capacity.is_some_and(|c| state.used() + size > c) {
            return state.refuse(Op::Create, DiskError::Full);
        }
        let (id, adopted) = state.operate(Op::Create, None, |state| {
            // Every number is used once: after a crash, an old part must not reach its successor.
            let id = state.made;
            state.made += 1;
            let part = orphan.and_then(|id| state.parts.remove(&id));
            let adopted = part.is_some();
            let part = part.unwrap_or_else(|| Pages::new(size as usize, Arc::clone(&state.object)));
            state.parts.insert(id, part);
            state.owned.insert(id);
            (id, adopted)
        })?;
        let disk = self.disk.clone();
        Ok(Box::new(SimPart { disk, id, adopted, name: name.to_owned(), force: self.force }))
    }
}

/// A file in place.
struct SimWhole {
    disk: SimDisk,
    name: String,
}

impl Part for SimWhole {
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> Result<(), SinkError> {
        panic!("a file in place is written to")
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.disk.with_file(&self.name, |file| {
            let bytes = file.and_then(|file| file.get(offset as usize..)?.get(..buf.len()));
            let gone = || SinkError::Disk("the file is gone".to_owned());
            bytes.map(|bytes| buf.copy_from_slice(bytes)).ok_or_else(gone)
        })
    }
    fn commit(&self) -> Result<PathBuf, SinkError> {
        let mut state = self.disk.state();
        state.operate(Op::SyncDirectory, None, |state| state.unsynced.clear())?;
        Ok(PathBuf::from(&self.name))
    }
    fn discard(&self) {}
}

struct SimPart {
    disk: SimDisk,
    id: u64,
    adopted: bool,
    name: String,
    force: bool,
}

impl SimPart {
    /// Sync, rename and sync of the directory. Each can fail, or be the last operation.
    fn publish(&self, state: &mut State) -> Result<PathBuf, SinkError> {
        let id = self.id;
        state.operate(Op::Sync, Some(id), |state| state.part(id).sync())?;
        if state.faults.name_taken_late && !self.force {
            // Another program's file, which the checks know.
            state.struck.count("name taken late");
            return Err(SinkError::Name(format!("{:?} has been taken meanwhile", self.name)));
        }
        let replaces = state.files.contains_key(&self.name);
        state.operate(Op::Rename, Some(id), |state| state.rename(Some(id), &self.name))?;
        let synced = state.operate(Op::SyncDirectory, Some(id), |state| state.unsynced.clear());
        if synced.is_err() && state.owned.contains(&id) && !replaces {
            state.rename(None, &self.name);
        }
        synced.map(|()| PathBuf::from(&self.name))
    }
}

impl Part for SimPart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let mut state = self.disk.state();
        let (id, offset, before) = (self.id, offset as usize, state.written);
        state.written += bytes.len() as u64;
        let limit = state.faults.full_after.filter(|&limit| state.written > limit);
        let done = match limit {
            Some(_) if state.owned.contains(&id) => state.refuse(Op::Write, DiskError::Full),
            _ => state.operate(Op::Write, Some(id), |state| state.part(id).write(offset, bytes)),
        };
        if done.is_err() && state.owned.contains(&id) {
            // A failing write has written a prefix: as much as there was room for, or half.
            let begun = limit.map_or(bytes.len() / 2, |limit| limit.saturating_sub(before) as usize);
            state.part(id).write(offset, &bytes[..begun.min(bytes.len())]);
        }
        done
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        let mut state = self.disk.state();
        state.operate(Op::Read, Some(self.id), |state| state.part(self.id).read(offset as usize, buf))
    }
    fn next_written(&self, from: u64) -> Option<Range<u64>> {
        let state = self.disk.state();
        let part = state.parts.get(&self.id).filter(|_| self.adopted)?;
        part.next_written(from as usize).map(|range| range.start as u64..range.end as u64)
    }
    fn commit(&self) -> Result<PathBuf, SinkError> {
        let mut state = self.disk.state();
        let done = self.publish(&mut state);
        if state.owned.remove(&self.id) && done.is_err() {
            state.parts.remove(&self.id);
        }
        done
    }
    fn discard(&self) {
        let mut state = self.disk.state();
        state.changes += 1;
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

/// The tickets on a device's disk. One device has one destination.
pub struct SimTickets(pub SimDisk);

impl Tickets for SimTickets {
    fn find(&mut self, session: SessionId) -> Option<Ticket> {
        self.0.state().tickets.get(&session).copied()
    }
    fn keep(&mut self, session: SessionId, ticket: Ticket) -> bool {
        let mut state = self.0.state();
        state.changes += 1;
        let kept = !state.faults.read_only;
        if kept {
            state.tickets.insert(session, ticket);
        }
        kept
    }
    fn forget(&mut self) {
        self.0.state().tickets.clear();
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
    use crate::sim::disk_faults::PowerCut;

    fn part(disk: &SimDisk) -> Box<dyn Part> {
        SimSink::new(disk.clone(), false).create("x", Extent::sealed(8)).expect("room for a part")
    }

    #[test]
    fn a_crash_keeps_what_was_committed_and_tears_the_rest() {
        let disk = SimDisk::default();
        let first = part(&disk);
        first.write_at(0, b"abcdefgh").unwrap();
        first.commit().unwrap();
        let second = SimSink::new(disk.clone(), true).create("x", Extent::sealed(8)).unwrap();
        second.write_at(0, b"ABCDEFGH").unwrap();
        disk.crash(&mut fastrand::Rng::with_seed(3));
        drop(second);
        disk.with_file("x", |file| assert_eq!(file, Some(&b"abcdefgh"[..])));
        assert_eq!(disk.parts(), 1);
        // The next run takes over the part file; the device without power no longer reaches it.
        let third = SimSink::new(disk.clone(), true).create("x", Extent::sealed(8)).unwrap();
        third.write_at(0, b"ABCDEFGH").unwrap();
        assert_eq!(disk.parts(), 1);
        drop(third);
        let fourth = SimSink::new(disk.clone(), true).create("x", Extent::sealed(8)).unwrap();
        assert_eq!((disk.parts(), fourth.next_written(0)), (1, Some(0..8)));
        fourth.discard();
        assert_eq!(disk.parts(), 0);
    }

    #[test]
    fn every_fault_refuses() {
        let with = |faults| SimDisk::new(faults, Arc::default());
        let create =
            |disk: &SimDisk| SimSink::new(disk.clone(), false).create("x", Extent::sealed(8)).map(|_| ());
        assert!(create(&with(DiskFaults { capacity: Some(7), ..DiskFaults::default() })).is_err());
        assert!(create(&with(DiskFaults { read_only: true, ..DiskFaults::default() })).is_err());
        let failing = |op, nth| {
            with(DiskFaults { error: Some((op, nth, DiskError::InputOutput)), ..DiskFaults::default() })
        };
        assert!(create(&failing(Op::Create, 0)).is_err());
        let file = part(&failing(Op::Write, 1));
        assert!(file.write_at(0, b"abcd").is_ok() && file.write_at(0, b"ABCD").is_err());
        let mut back = [0; 4];
        file.read_at(0, &mut back).unwrap();
        assert_eq!(&back, b"ABcd");
        let file = part(&with(DiskFaults { full_after: Some(3), ..DiskFaults::default() }));
        assert!(file.write_at(0, b"ab").is_ok() && file.write_at(2, b"cd").is_err());
        file.read_at(0, &mut back).unwrap();
        assert_eq!(&back, b"abc\0");
        assert!(part(&failing(Op::Read, 0)).read_at(0, &mut back).is_err());
        for op in [Op::Sync, Op::Rename, Op::SyncDirectory] {
            let disk = failing(op, 0);
            assert!(part(&disk).commit().is_err());
            assert!(disk.names().is_empty() && disk.parts() == 0 && disk.struck().total() == 1, "{op:?}");
            let second = failing(op, 1);
            assert!(part(&second).commit().is_ok());
        }
        let disk = with(DiskFaults { name_taken_late: true, ..DiskFaults::default() });
        assert!(matches!(part(&disk).commit(), Err(SinkError::Name(_))));
    }

    #[test]
    fn the_power_goes_before_and_after_each_operation() {
        for op in Op::ALL {
            let (mut old, mut new) = (0, 0);
            for seed in 0..40 {
                let power_cut = Some(PowerCut { op, nth: 0, after: seed % 2 == 1, seed });
                let disk = SimDisk::new(DiskFaults { power_cut, ..DiskFaults::default() }, Arc::default());
                disk.put("x", b"previous".to_vec());
                let outcome =
                    SimSink::new(disk.clone(), true).create("x", Extent::sealed(8)).and_then(|part| {
                        part.write_at(0, b"contents")?;
                        part.read_at(0, &mut [0; 8])?;
                        part.commit()
                    });
                // A device without power learns nothing.
                assert!(outcome.is_err() && disk.take_power_loss() && !disk.take_power_loss());
                assert!(disk.is_settled() && disk.struck().total() == 1);
                disk.with_file("x", |file| match file {
                    Some(b"previous") => old += 1,
                    Some(b"contents") => new += 1,
                    other => panic!("{op:?} {seed}: {other:?}"),
                });
                let after_sync = op == Op::SyncDirectory && seed % 2 == 1;
                assert!(!after_sync || new > 0, "a synced name is lost");
                // A part file that was not renamed, or lost its new name again, stays a part file.
                let renamed = disk.with_file("x", |file| file == Some(b"contents"));
                let made = op != Op::Create || seed % 2 == 1;
                assert_eq!(disk.parts(), usize::from(made && !renamed), "{op:?} {seed}");
            }
            let both = matches!(op, Op::Rename | Op::SyncDirectory);
            assert!(old > 0 && (new > 0) == both, "{op:?}: {old} old, {new} new");
        }
    }

    #[test]
    fn a_name_is_durable_only_after_the_sync_of_its_directory() {
        let error = Some((Op::SyncDirectory, 0, DiskError::InputOutput));
        let disk = SimDisk::new(DiskFaults { error, ..DiskFaults::default() }, Arc::default());
        disk.put("x", b"previous".to_vec());
        let file = SimSink::new(disk.clone(), true).create("x", Extent::sealed(8)).unwrap();
        file.write_at(0, b"contents").unwrap();
        assert!(file.commit().is_err());
        disk.with_file("x", |file| assert_eq!(file, Some(&b"contents"[..])));
        assert!(!disk.is_settled());
    }
}
