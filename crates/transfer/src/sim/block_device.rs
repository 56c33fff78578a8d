//! Block devices as outputs. The order of the writes is the real one (`storage::device`), on a device in memory that
//! outlives crashes, fails, and loses or tears what was not synced. At each change it checks I1: nothing of the object
//! but zeros is in its ends before everything else is the object and durable, and its first page comes last of all.

use super::disk_faults::{DiskError, Op, PowerCut};
use super::faults::Faults;
use super::pages::Pages;
use super::scenario::{DevicePlan, Draw, Expectation, Scenario};
use crate::pack::are_zero;
use crate::storage::{DEVICE_PAGE, DeviceNotes, DevicePart, Found, Medium, Part, Sink, SinkError};
use crate::units::Extent;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a device holds at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Zeros.
    Nothing,
    /// Something else.
    Something,
    /// The object, with this percentage of its pages.
    Pages(u8),
    /// All of the object.
    Everything,
}

/// A device's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlan {
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of each end of the object that is written last.
    pub end: u64,
    /// What it holds at first.
    pub before: Before,
    /// The operation with this number fails, once.
    pub error: Option<(Op, u64, DiskError)>,
    /// The power cut of its machine.
    pub power_cut: Option<PowerCut>,
}

struct State {
    plan: BlockPlan,
    object: Arc<Vec<u8>>,
    /// What it held at first.
    before: Arc<Vec<u8>>,
    pages: Pages,
    /// Number of times that each operation was begun.
    begun: [u64; Op::ALL.len()],
    /// The number of the claim that holds it, and how many there were.
    holder: Option<u64>,
    claims: u64,
    /// The ends of what is being written: the first range, and the last one.
    ends: [Range<usize>; 2],
    /// Whether that still grows, so that the last of its ends need not belong to it.
    grows: bool,
    /// Whether it ever did.
    streamed: bool,
    /// Whether something was written elsewhere, ever; and what was written since the last sync: there, and in the ends.
    touched: bool,
    unsynced: [bool; 2],
    /// Whether a transfer was committed.
    committed: bool,
    changes: u64,
    power_lost: bool,
    struck: Faults,
}

/// A block device, through all runs of its machine. Clones are the same one.
#[derive(Clone)]
pub struct SimBlock(Arc<Mutex<State>>);

impl SimBlock {
    /// A device for `object`.
    #[must_use]
    pub fn new(plan: BlockPlan, object: Arc<Vec<u8>>, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0xb1_0c4);
        let mut before = vec![0; plan.size as usize];
        let len = before.len().min(object.len());
        match plan.before {
            Before::Nothing => {}
            Before::Something => rng.fill(&mut before),
            Before::Pages(percent) => {
                rng.fill(&mut before);
                for (to, from) in before.chunks_mut(4096).zip(object.chunks(4096)) {
                    if rng.u8(..100) < percent {
                        let len = to.len().min(from.len());
                        to[..len].copy_from_slice(&from[..len]);
                    }
                }
            }
            Before::Everything => {
                rng.fill(&mut before);
                before[..len].copy_from_slice(&object[..len]);
            }
        }
        let mut pages = Pages::new(before.len(), Arc::clone(&object));
        pages.write(0, &before);
        pages.sync();
        Self(Arc::new(Mutex::new(State {
            plan,
            object,
            before: Arc::new(before),
            pages,
            begun: Default::default(),
            holder: None,
            claims: 0,
            ends: Default::default(),
            grows: false,
            streamed: false,
            touched: false,
            unsynced: Default::default(),
            committed: false,
            changes: 0,
            power_lost: false,
            struck: Faults::default(),
        })))
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Whether a transfer was committed, and a power cut leaves all of the object there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let state = self.state();
        state.committed && state.pages.is_synced() && state.is_object(0..state.object.len())
    }
    /// Counts its changes.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }
    /// The faults that occurred.
    #[must_use]
    pub fn struck(&self) -> Faults {
        self.state().struck.clone()
    }
    /// Cuts the power of its machine.
    pub fn crash(&self, rng: &mut fastrand::Rng) {
        self.state().crash(rng);
    }
    /// Whether the power failed at an operation since the last call.
    #[must_use]
    pub fn take_power_loss(&self) -> bool {
        std::mem::take(&mut self.state().power_lost)
    }
}

impl State {
    fn holds(&self, range: Range<usize>) -> Vec<u8> {
        let mut held = vec![0; range.len()];
        self.pages.read(range.start, &mut held);
        held
    }
    /// Whether a range holds the object, as far as that goes.
    fn is_object(&self, range: Range<usize>) -> bool {
        let range = range.start.min(self.object.len())..range.end.min(self.object.len());
        range.end <= self.pages.len() && self.holds(range.clone()) == self.object[range]
    }

    /// Runs `act` as the operation `op` of the claim `id`, unless it is to fail or the power fails. A write that fails
    /// has begun.
    fn operate(&mut self, op: Op, id: u64, act: impl FnOnce(&mut Self, bool)) -> io::Result<()> {
        let off = || Err(io::Error::other("the power is off"));
        if self.holder != Some(id) {
            return off();
        }
        let number = self.begun[op as usize];
        self.begun[op as usize] += 1;
        self.changes += u64::from(op != Op::Read);
        let cut = self.plan.power_cut.filter(|cut| cut.op == op && cut.nth == number);
        if let Some(cut) = cut.filter(|cut| !cut.after) {
            self.cut_power(op.cut(false), cut.seed);
            return off();
        }
        if let Some((_, _, error)) = self.plan.error.filter(|&(o, nth, _)| o == op && nth == number) {
            self.struck.count(op.refused(error));
            if op == Op::Write {
                act(self, true);
            }
            return Err(io::Error::from_raw_os_error(error.number()));
        }
        act(self, false);
        if let Some(cut) = cut {
            self.cut_power(op.cut(true), cut.seed);
            return off();
        }
        Ok(())
    }
    fn cut_power(&mut self, class: &'static str, seed: u64) {
        self.struck.count(class);
        self.power_lost = true;
        self.crash(&mut fastrand::Rng::with_seed(seed));
    }
    fn crash(&mut self, rng: &mut fastrand::Rng) {
        self.holder = None;
        self.unsynced = Default::default();
        self.pages.crash(rng);
        self.check_state();
    }

    /// Writes, and checks the order of it all.
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let range = offset..offset + bytes.len();
        let [head, tail] = self.ends.clone();
        let page = 0..head.end.min(DEVICE_PAGE as usize);
        let in_ends = head.start <= range.start && range.end <= head.end || tail.start <= range.start;
        assert!(in_ends || head.end <= range.start && range.end <= tail.start, "{range:?} is here and there");
        if !in_ends {
            let zeros = are_zero(&self.holds(head)) && (self.grows || are_zero(&self.holds(tail)));
            assert!(zeros && !self.unsynced[1], "I1: the ends look whole, and {range:?} is written");
            self.touched = true;
        } else if !are_zero(bytes) {
            let rest = self.is_object(head.end..tail.start) && !self.unsynced[0];
            assert!(rest, "I1: {range:?} is written before everything between the ends is there");
            if range.start < page.end {
                let ends = self.is_object(page.end..head.end) && self.is_object(tail);
                assert!(
                    ends && !self.unsynced[1],
                    "I1: the first page is written before everything else is there"
                );
            }
        }
        self.unsynced[usize::from(in_ends)] = true;
        self.pages.write(offset, bytes);
    }

    /// What is left without power: the first page has nothing, or all of the object is there.
    fn check_state(&self) {
        let object = self.object.len();
        let page = (DEVICE_PAGE as usize).min(object).min(self.pages.len());
        if !self.touched || are_zero(&self.holds(0..page)) {
            return;
        }
        assert!(self.is_object(page..object), "I1: a device looks whole and is not");
        for start in (0..page).step_by(512) {
            let sector = start..page.min(start + 512);
            let right = self.is_object(sector.clone()) || are_zero(&self.holds(sector.clone()));
            assert!(right, "I1: {sector:?} of a device is neither the object nor zeros");
        }
    }
}

/// A claim on a device.
struct Claimed {
    block: SimBlock,
    id: u64,
    size: u64,
    end: u64,
}

impl Medium for Claimed {
    fn path(&self) -> &Path {
        Path::new("/dev/sim")
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn end(&self) -> u64 {
        self.end
    }
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.block.state().operate(Op::Write, self.id, |state, fails| {
            let len = if fails { bytes.len() / 2 } else { bytes.len() };
            state.write(offset as usize, &bytes[..len]);
        })
    }
    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write(offset, &vec![0; len as usize])
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.block.state().operate(Op::Read, self.id, |state, _| state.pages.read(offset as usize, buf))
    }
    fn sync(&self) -> io::Result<()> {
        self.block.state().operate(Op::Sync, self.id, |state, _| {
            state.pages.sync();
            state.unsynced = Default::default();
            state.check_state();
        })
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut state = self.block.state();
        state.holder = state.holder.filter(|id| *id != self.id);
    }
}

/// The virtual sink of a block device.
pub struct SimBlockSink(pub SimBlock);

impl SimBlockSink {
    fn is_blank(&self) -> bool {
        let state = self.0.state();
        are_zero(&state.holds(0..state.pages.len()))
    }
}

impl Sink for SimBlockSink {
    fn probe(&mut self, _: &str, extent: Extent) -> Found {
        if extent.total() == Some(0) || self.is_blank() { Found::Nothing } else { Found::Part }
    }
    fn create(&mut self, _: &str, extent: Extent) -> Result<Box<dyn Part>, SinkError> {
        let blank = self.is_blank();
        let claimed = {
            let mut state = self.0.state();
            assert!(state.holder.is_none(), "a device is claimed twice");
            let BlockPlan { size, end, .. } = state.plan;
            let object = extent.total().unwrap_or(size) as usize;
            let head = object.min(end as usize);
            let tail = object.saturating_sub(end as usize);
            state.ends = [0..head, (tail - tail % DEVICE_PAGE as usize).max(head)..object];
            state.grows = !extent.sealed;
            state.streamed |= state.grows;
            state.claims += 1;
            state.holder = Some(state.claims);
            Claimed { block: self.0.clone(), id: state.claims, size, end }
        };
        if extent.size > claimed.size {
            self.0.state().struck.count("block device too small");
        }
        let part = DevicePart::new(claimed, extent, blank, DeviceNotes::default())?;
        Ok(Box::new(SimBlockPart(part, self.0.clone())))
    }
}

/// A part on a device, with checks of the end.
struct SimBlockPart(DevicePart<Claimed>, SimBlock);

impl Part for SimBlockPart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.0.write_at(offset, bytes)
    }
    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        self.0.write_zeros(offset, len)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.0.read_at(offset, buf)
    }
    fn next_written(&self, from: u64) -> Option<Range<u64>> {
        self.0.next_written(from)
    }
    fn is_earlier(&self) -> bool {
        self.0.is_earlier()
    }
    fn seal(&self, size: u64) -> Result<(), SinkError> {
        self.0.seal(size)
    }
    fn commit(&self) -> Result<PathBuf, SinkError> {
        let path = self.0.commit()?;
        let mut state = self.1.state();
        let object = state.object.len();
        assert!(state.is_object(0..object), "I1: a device is complete without the object");
        assert!(state.pages.is_synced(), "I2: a device is complete, and a power cut could undo it");
        // The ends of a stream are those of the device, as far as it has come.
        let (whole, end) = (state.pages.len(), state.plan.end as usize);
        let last = whole - end.min(whole);
        let from = if state.streamed { object.max(end) } else { object };
        if !state.streamed || object <= last - last % DEVICE_PAGE as usize {
            let behind = from.min(whole)..whole;
            let changed = behind.into_iter().find(|&at| state.holds(at..at + 1) != state.before[at..=at]);
            assert_eq!(
                changed, None,
                "what is behind the object has changed: {:?}, {object} bytes",
                state.plan
            );
        }
        state.committed = true;
        Ok(path)
    }
    fn discard(&self) {
        self.0.discard();
    }
}

impl Scenario {
    /// In one scenario of eight, some devices write the object to a block device.
    pub(super) fn with_some_block_devices(mut self, rng: fastrand::Rng) -> Self {
        let mut draw = Draw { rng };
        if !draw.chance(12) {
            return self;
        }
        let size = self.layout.object_size();
        let awaited =
            self.sender.is_steady() && self.linger >= Duration::from_secs(30) && !self.sender.is_windowed();
        for plan in self.devices.iter_mut().skip(1).filter(|plan| plan.has_no_files()) {
            if draw.chance(67) {
                draw.block_device(plan, size, awaited);
            }
        }
        self
    }
}

impl Draw {
    fn block_device(&mut self, plan: &mut DevicePlan, object: u64, awaited: bool) {
        let size = match self.rng.u8(..10) {
            0 => object.saturating_sub(self.rng.u64(1..100_000)),
            1..4 => object,
            _ => object + self.rng.u64(..200_000),
        };
        let before = match self.rng.u8(..6) {
            0 | 1 => Before::Nothing,
            2 | 3 => Before::Something,
            4 => Before::Pages(self.rng.u8(..=100)),
            _ => Before::Everything,
        };
        let end = DEVICE_PAGE * self.rng.u64(1..=16);
        let mut block = BlockPlan { size, end, before, error: None, power_cut: None };
        let eventful = plan.crash.is_some() || plan.interrupt.is_some();
        let op = [Op::Write, Op::Write, Op::Sync, Op::Read][self.rng.usize(..4)];
        let nth = self.rng.u64(..if op == Op::Write { 12 } else { 4 });
        match self.rng.u8(..10) {
            _ if eventful => {}
            0..2 => {
                let error = if self.rng.bool() { DiskError::InputOutput } else { DiskError::Full };
                block.error = Some((op, nth, if op == Op::Read { DiskError::InputOutput } else { error }));
                plan.hope();
            }
            2..5 => {
                let (after, seed) = (self.rng.bool(), self.rng.u64(..));
                block.power_cut = Some(PowerCut { op, nth, after, seed });
                plan.back = self.chance(80).then(|| self.between(50, 4_000));
                if !awaited || plan.back.is_none() {
                    plan.hope();
                }
            }
            _ => {}
        }
        plan.write_to(block, object);
    }
}

impl DevicePlan {
    /// Lets the device write an object of this size to a block device.
    pub fn write_to(&mut self, block: BlockPlan, object: u64) {
        self.block = Some(block);
        if block.size < object {
            self.expectation = Expectation::Fails;
        }
    }
}

#[cfg(test)]
mod tests;
