//! Trees as objects. Their devices use the real code for trees (`storage::tree`), each in a directory of the system, where
//! any step that changes the disk may fail, or be the last one of the program. After each call it checks I1: the final
//! name has the whole tree or is not there.

use super::actors::NAME;
use super::faults::Faults;
use super::scenario::{ContentPlan, DevicePlan, Draw, Scenario};
use crate::content::{Entry, EntryKind, Extents, Manifest, Modified, Placement, TreeHead};
use crate::layout::Layout;
use crate::storage::steps::{self, Fault};
use crate::storage::{FileSink, Found, Part, Sink, SinkError, TreeOptions, TreeShape};
use crate::units::Extent;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happens to a device that receives a tree: the step, and its fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreePlan {
    /// Of all steps of all runs of the device.
    pub fault: Option<(u64, Fault)>,
}

/// A tree: its manifest, and the bytes of its files.
#[derive(Clone, Debug)]
pub struct Tree {
    manifest: Manifest,
    placement: Placement,
}

impl Tree {
    /// A tree in blocks of `2^block_log2` bytes.
    ///
    /// # Panics
    /// Never: its entries are sound.
    #[must_use]
    pub fn new(seed: u64, block_log2: u8) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x7_4ee5);
        let modified = Modified { seconds: 1_700_000_000, nanoseconds: 5 };
        let entry = |path: &str, kind, mode| {
            Entry::new(path.as_bytes(), kind, mode, modified).expect("a sound entry")
        };
        let mut entries = vec![entry(NAME, EntryKind::Directory, 0o755)];
        for dir in 0..rng.usize(1..4) {
            let dir = format!("{NAME}/d{dir}");
            entries.push(entry(&dir, EntryKind::Directory, 0o755));
            for file in 0..rng.usize(..8) {
                let len = [rng.u64(..300), rng.u64(..5_000), rng.u64(..60_000)][rng.usize(..3)];
                // As a file system lists it: whoever is started again compares the tree in place with this one.
                let hole = Extents::from_lengths(vec![4096, 100 * 4096, 4096]).ok();
                let extents = hole.filter(|_| rng.u8(..6) == 0).unwrap_or_else(|| Extents::solid(len));
                entries.push(entry(&format!("{dir}/f{file}"), EntryKind::File(extents), 0o644));
            }
            entries.push(entry(&format!("{dir}/link"), EntryKind::Symlink(b"../d0/f0".to_vec()), 0));
        }
        let manifest = Manifest::new(entries).expect("a sound manifest");
        let placement = Placement::new(&manifest, block_log2).expect("a small tree");
        Self { manifest, placement }
    }
    /// The division of its object.
    ///
    /// # Panics
    /// If the symbol size is invalid.
    #[must_use]
    pub fn layout(&self, block_log2: u8, symbol_size: u16) -> Layout {
        Layout::new(self.placement.size(), block_log2, symbol_size).expect("a small object")
    }
    /// What is announced of it.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead::of(&self.manifest, false)
    }
    /// Makes random bytes its object.
    pub fn shape(&self, object: &mut [u8]) {
        let (manifest, mut at) = (self.manifest.encoded(), self.manifest.encoded().len());
        object[..at].copy_from_slice(manifest);
        for file in self.placement.files() {
            object[at..file.start as usize].fill(0);
            at = (file.start + file.len) as usize;
        }
        object[at..].fill(0);
    }
    /// Whether all of it is at `path`.
    fn is_at(&self, path: &Path, object: &[u8]) -> bool {
        (0_u32..).zip(self.manifest.entries()).all(|(number, entry)| {
            let path = match entry.path().get(NAME.len() + 1..) {
                Some(below) => path.join(std::ffi::OsStr::from_bytes(below)),
                None => path.to_owned(),
            };
            match entry.kind() {
                EntryKind::Directory => fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()),
                EntryKind::Symlink(target) => {
                    fs::read_link(&path).is_ok_and(|is| is.into_os_string().into_vec() == *target)
                }
                EntryKind::File(extents) => {
                    let placed = self.placement.files().iter().find(|file| file.entry == number);
                    let (mut data, mut whole) = (0, vec![0; extents.size() as usize]);
                    for (offset, len) in extents.runs_of_data(0, extents.data_len()) {
                        let start = placed.map_or(0, |file| file.start) as usize + data;
                        whole[offset as usize..][..len as usize]
                            .copy_from_slice(&object[start..][..len as usize]);
                        data += len as usize;
                    }
                    fs::read(&path).is_ok_and(|is| is == whole)
                }
                _ => false,
            }
        })
    }
}

static MADE: AtomicU64 = AtomicU64::new(0);

struct State {
    dir: PathBuf,
    tree: Tree,
    object: Arc<Vec<u8>>,
    fault: Option<(u64, Fault)>,
    /// Which run of the device has power.
    life: u64,
    changes: u64,
    committed: bool,
    power_lost: bool,
    struck: Faults,
}

impl Drop for State {
    fn drop(&mut self) {
        // What is left is small, and in the system's directory for such things.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A device's directory, through all of its runs. Clones are the same one.
#[derive(Clone)]
pub struct SimTree(Arc<Mutex<State>>);

impl SimTree {
    /// An empty directory for `tree`, whose object is `object`.
    ///
    /// # Panics
    /// If the system has no room for it.
    #[must_use]
    pub fn new(plan: TreePlan, tree: Tree, object: Arc<Vec<u8>>) -> Self {
        let shared = Path::new("/dev/shm");
        let place = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = place.join(format!("mcp-sim-{}-{number}", std::process::id()));
        // A killed process may have left it.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("room for a directory");
        let (life, changes, committed, power_lost) = (0, 0, false, false);
        let (fault, struck) = (plan.fault, Faults::default());
        Self(Arc::new(Mutex::new(State {
            dir,
            tree,
            object,
            fault,
            life,
            changes,
            committed,
            power_lost,
            struck,
        })))
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Whether it has all of the tree, and a device has said so.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let state = self.state();
        state.committed && state.tree.is_at(&state.dir.join(NAME), &state.object)
    }
    /// Counts what changes it.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }
    /// The faults that occurred.
    #[must_use]
    pub fn struck(&self) -> Faults {
        self.state().struck.clone()
    }
    /// Kills the program that uses it.
    pub fn kill(&self) {
        self.state().life += 1;
    }
    /// Whether the program died at a step since the last call.
    #[must_use]
    pub fn take_death(&self) -> bool {
        std::mem::take(&mut self.state().power_lost)
    }
    /// Its sink, for one run of the device.
    #[must_use]
    pub fn sink(&self) -> Box<dyn Sink> {
        let state = self.state();
        let (dir, life) = (state.dir.clone(), state.life);
        drop(state);
        let sink = FileSink::new(Some(dir), false).trees(TreeOptions::default(), None);
        Box::new(SimTreeSink { sink: sink.expect("no other directory"), run: Run(self.clone(), life) })
    }
}

/// One run of a device.
#[derive(Clone)]
struct Run(SimTree, u64);

impl Run {
    /// Does something with the directory, unless the program is dead: then it has done nothing, and gets `dead`.
    fn go<T>(&self, dead: T, act: impl FnOnce() -> T) -> T {
        let Self(tree, life) = self;
        let fault = {
            let state = tree.state();
            if state.life != *life {
                return dead;
            }
            state.fault
        };
        steps::fail(fault);
        let done = act();
        let taken = steps::taken();
        steps::fail(None);
        let mut state = tree.state();
        state.changes += taken;
        if let Some((nth, fault)) = state.fault {
            state.fault = nth.checked_sub(taken).map(|left| (left, fault));
            if nth < taken {
                state.struck.count(match fault {
                    Fault::Death => "tree: killed before a step",
                    Fault::Error(_) => "tree: a step fails",
                });
                if fault == Fault::Death {
                    state.life += 1;
                    state.power_lost = true;
                }
            }
        }
        state.check();
        if state.life == *life { done } else { dead }
    }
}

impl State {
    fn check(&self) {
        let path = self.dir.join(NAME);
        let there = fs::symlink_metadata(&path).is_ok();
        assert!(!there || self.tree.is_at(&path, &self.object), "I1: a tree is not whole under its name");
    }
}

fn dead<T>() -> Result<T, SinkError> {
    Err(SinkError::Disk("the program is dead".to_owned()))
}

struct SimTreeSink {
    sink: FileSink,
    run: Run,
}

impl Sink for SimTreeSink {
    // A hostile session may offer a plain file.
    fn probe(&mut self, name: &str, extent: Extent) -> Found {
        let Self { sink, run } = self;
        run.go(Found::Nothing, || sink.probe(name, extent))
    }
    fn create(&mut self, name: &str, extent: Extent) -> Result<Box<dyn Part>, SinkError> {
        let Self { sink, run } = self;
        run.go(dead(), || sink.create(name, extent))
    }
    fn probe_tree(&mut self, name: &str, shape: &TreeShape) -> Found {
        let Self { sink, run } = self;
        match run.go(Found::Nothing, || sink.probe_tree(name, shape)) {
            Found::Whole(part) => Found::Whole(Box::new(SimTreePart(part, run.clone()))),
            found => found,
        }
    }
    fn create_tree(&mut self, name: &str, shape: &TreeShape) -> Result<Box<dyn Part>, SinkError> {
        let Self { sink, run } = self;
        let part = run.go(dead(), || sink.create_tree(name, shape))?;
        Ok(Box::new(SimTreePart(part, run.clone())))
    }
}

struct SimTreePart(Box<dyn Part>, Run);

impl Part for SimTreePart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.1.go(dead(), || self.0.write_at(offset, bytes))
    }
    fn write_through(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.1.go(dead(), || self.0.write_through(offset, bytes))
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.1.go(dead(), || self.0.read_at(offset, buf))
    }
    fn next_written(&self, from: u64) -> Option<Range<u64>> {
        self.0.next_written(from)
    }
    fn arrange(&self) -> Result<Vec<Range<u64>>, SinkError> {
        self.1.go(dead(), || {
            let state = self.1.0.state();
            let (len, object) = (state.tree.manifest.encoded().len(), Arc::clone(&state.object));
            drop(state);
            let mut manifest = vec![0; len];
            self.0.read_at(0, &mut manifest)?;
            assert!(
                manifest == object[..manifest.len()],
                "a tree is laid out before its manifest is verified"
            );
            self.0.arrange()
        })
    }
    fn has_earlier(&self) -> bool {
        self.0.has_earlier()
    }
    fn read_earlier(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_earlier(offset, buf)
    }
    fn commit(&self) -> Result<PathBuf, SinkError> {
        let done = self.1.go(dead(), || self.0.commit());
        self.1.0.state().committed |= done.is_ok();
        done
    }
    fn discard(&self) {
        self.1.go((), || self.0.discard());
    }
}

impl Scenario {
    /// The tree that is sent, if one is.
    #[must_use]
    pub fn tree(&self) -> Option<Tree> {
        self.devices.first()?.tree.map(|_| Tree::new(self.seed, self.layout.block_log2()))
    }

    /// Makes the object of some scenarios a tree, if nothing in them is about other outputs.
    pub(super) fn with_some_trees(mut self, rng: fastrand::Rng) -> Self {
        let mut draw = Draw { rng };
        let plain = |plan: &DevicePlan| plan.has_no_files() && plan.block.is_none();
        let fits = self.sender.growth.is_none() && self.content.lie.is_none() && self.forger == 0.0;
        if !draw.chance(25) || !fits || !self.devices.iter().all(plain) {
            return self;
        }
        self.content = ContentPlan { compression: self.content.compression, ..ContentPlan::default() };
        for (index, plan) in self.devices.iter_mut().enumerate() {
            let mut fault = None;
            let eventful = index == 0 || plan.crash.is_some() || plan.interrupt.is_some();
            if !eventful && draw.chance(40) {
                let death = draw.chance(60);
                let kind = if death { Fault::Death } else { Fault::Error(libc::EIO) };
                fault = Some((draw.rng.u64(..120), kind));
                plan.back = draw.chance(80).then(|| draw.between(50, 4_000));
                plan.hope();
            }
            plan.tree = Some(TreePlan { fault });
        }
        if let Some(tree) = self.tree() {
            self.layout = tree.layout(self.layout.block_log2(), self.layout.symbol_size());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scenario::Plain;
    use crate::sim::transfer;
    use std::time::Duration;

    const PLAIN: Plain =
        Plain { devices: 3, loss: 0.02, size: 200_000, symbol_size: 256, rate: 20_000_000, disk: None };

    fn with(seed: u64, fault: Option<(u64, Fault)>) -> Scenario {
        let mut scenario = Scenario::plain(seed, &PLAIN);
        scenario.linger = Duration::from_secs(30);
        for plan in &mut scenario.devices {
            plan.tree = Some(TreePlan::default());
            plan.back = Some(Duration::from_millis(300));
        }
        scenario.devices[1].tree = Some(TreePlan { fault });
        scenario.layout = Layout::new(1, 13, 256).unwrap();
        scenario.layout = scenario.tree().unwrap().layout(13, 256);
        scenario
    }

    #[test]
    fn a_device_that_is_killed_at_any_step_has_the_tree_later() {
        let (mut killed, mut seed) = (0, 43_500_200);
        for nth in (0..90).step_by(3) {
            seed += 1;
            let totals = transfer::run(&with(seed, Some((nth, Fault::Death))), None);
            assert_eq!(totals.complete, 3, "step {nth}");
            killed += u32::from(totals.faults.classes().any(|(class, _)| class.starts_with("tree: killed")));
        }
        assert!(killed > 15, "{killed}");
    }

    #[test]
    fn a_disk_that_fails_leaves_no_tree_and_harms_nobody() {
        for (seed, nth) in [(43_500_240, 0), (43_500_241, 2), (43_500_242, 4)] {
            let mut scenario = with(seed, Some((nth, Fault::Error(libc::EIO))));
            scenario.devices[1].expectation = crate::sim::scenario::Expectation::Fails;
            assert_eq!(transfer::run(&scenario, None).complete, 2, "step {nth}");
        }
    }
}
