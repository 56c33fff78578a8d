//! Cuts, power cuts, failing disks, killed processes.

use super::record::{Entry, Record};
use super::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

// ---------------------------------------------------------------------------------------------
// A disk that loses power

#[derive(Clone, Debug, Default)]
struct Contents {
    durable: Vec<u8>,
    volatile: Vec<u8>,
}

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The machine loses power.
    Power,
    /// The disk is full, or does not answer: this operation fails, the next does not.
    Error,
}

#[derive(Debug)]
struct World {
    /// Files that ever were; names lead here.
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    /// The names as they were at the last sync, and after each change since.
    name_history: Vec<BTreeMap<String, usize>>,
    rng: fastrand::Rng,
    /// The number of operations until the fault.
    fuse: Option<(u32, Fault)>,
    dark: bool,
    syncs: u32,
}

impl World {
    fn new(seed: u64) -> Arc<Mutex<Self>> {
        let rng = fastrand::Rng::with_seed(seed);
        let (names, name_history) = (BTreeMap::new(), vec![BTreeMap::new()]);
        Arc::new(Mutex::new(Self {
            files: vec![],
            names,
            name_history,
            rng,
            fuse: None,
            dark: false,
            syncs: 0,
        }))
    }

    /// A world whose journal has these bytes.
    fn with(bytes: &[u8]) -> Arc<Mutex<Self>> {
        let world = Self::new(0);
        {
            let mut world = world.lock().unwrap();
            world.files.push(Contents { durable: bytes.to_vec(), volatile: bytes.to_vec() });
            world.names.insert(FILE.to_owned(), 0);
            world.name_history = vec![world.names.clone()];
        }
        world
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.names.get(name).map(|&file| self.files[file].volatile.clone())
    }

    /// Power comes back: what was not synced is there, in part, or not.
    fn reboot(&mut self) {
        let history = std::mem::take(&mut self.name_history);
        self.names = history[self.rng.usize(..history.len())].clone();
        self.name_history = vec![self.names.clone()];
        for file in &mut self.files {
            let Contents { durable, volatile } = file;
            if volatile.len() > durable.len() && volatile.starts_with(durable) {
                let kept = self.rng.usize(durable.len()..=volatile.len());
                let mut now = volatile[..kept].to_vec();
                if kept > durable.len() && self.rng.bool() {
                    // The length was written, the data was not.
                    let from = self.rng.usize(durable.len()..kept);
                    now[from..].fill(0);
                }
                *durable = now;
            } else if self.rng.bool() {
                durable.clone_from(volatile);
            }
            volatile.clone_from(durable);
        }
        (self.dark, self.fuse) = (false, None);
    }

    /// Whether the operation fails, and if it does, whether a part of it is done.
    fn step(&mut self) -> Result<(), bool> {
        if self.dark {
            return Err(false);
        }
        match &mut self.fuse {
            Some((0, fault)) => {
                self.dark = *fault == Fault::Power;
                self.fuse = None;
                Err(self.rng.bool())
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct SimDisk(Arc<Mutex<World>>);

fn broken() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl SimDisk {
    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>, Option<usize>)) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        let file = *world.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let step = world.step();
        let part = world.rng.usize(..1000);
        match step {
            Ok(()) => change(&mut world.files[file].volatile, None),
            Err(true) => change(&mut world.files[file].volatile, Some(part)),
            Err(false) => {}
        }
        step.map_err(|_| broken())
    }

    fn change_names(&self, change: impl FnOnce(&mut World)) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        let step = world.step();
        if step != Err(false) {
            change(&mut world);
            let names = world.names.clone();
            world.name_history.push(names);
        }
        step.map_err(|_| broken())
    }
}

impl Disk for SimDisk {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().bytes(name))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.change_names(|world| {
            world.files.push(Contents::default());
            world.names.insert(name.to_owned(), world.files.len() - 1);
        })?;
        self.append(name, bytes)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.change(name, |file, part| {
            let len = part.map_or(bytes.len(), |part| part % (bytes.len() + 1));
            file.extend_from_slice(&bytes[..len]);
        })
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.change(name, |file, part| {
            if part.is_none() {
                file.truncate(len as usize);
            }
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        let file = *world.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let step = world.step();
        if step != Err(false) {
            world.files[file].durable = world.files[file].volatile.clone();
            world.syncs += 1;
        }
        step.map_err(|_| broken())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.change_names(|world| {
            if let Some(file) = world.names.remove(from) {
                world.names.insert(to.to_owned(), file);
            }
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        if self.0.lock().unwrap().names.contains_key(name) {
            self.change_names(|world| {
                world.names.remove(name);
            })?;
        }
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        let step = world.step();
        if step != Err(false) {
            world.name_history = vec![world.names.clone()];
        }
        step.map_err(|_| broken())
    }

    fn reserve(&mut self, _: &str, _: u64, _: u64) {}
}

fn boot(number: u32) -> BootId {
    BootId(format!("boot-{number}"))
}

fn open(world: &Arc<Mutex<World>>, number: u32) -> Result<Opened, Error> {
    Journal::open_on(Box::new(SimDisk(Arc::clone(world))), boot(number))
}

fn step(task: u8, part: u32) -> StepId {
    StepId { task: [task; 32], attempt: 1, part, action: Action::Run }
}

fn begun(journal: &mut Journal, id: StepId, note: &str) -> Started {
    match journal.begin(id, note).unwrap() {
        Begin::Started(started) => started,
        other => panic!("{other:?}"),
    }
}

/// A journal with a record of each kind, as bytes.
fn sample() -> Vec<u8> {
    let world = World::new(1);
    let mut journal = open(&world, 1).unwrap().journal;
    let first = begun(&mut journal, step(1, 0), "one\nnote");
    let second = begun(&mut journal, step(2, 0), "\"two\"");
    journal.commit(&second).unwrap();
    journal.end(first, Outcome::new(Verdict::Done, "fine")).unwrap();
    let _ = begun(&mut journal, step(3, 0), "three");
    drop(journal);
    let mut opened = open(&world, 2).unwrap();
    let last = opened.unfinished.pop().unwrap();
    let resumed = opened.journal.resume(last).unwrap();
    opened.journal.end(resumed, Outcome::new(Verdict::Failed, "not so fine")).unwrap();
    opened.journal.retain(|task| *task != [1; 32]).unwrap();
    world.lock().unwrap().bytes(FILE).unwrap()
}

fn table(bytes: &[u8]) -> Table {
    let mut table = Table::default();
    for entry in record::replay(bytes).unwrap().entries {
        table.apply(entry).unwrap();
    }
    table
}

#[test]
fn a_step_happens_once() {
    let world = World::new(0);
    let mut journal = open(&world, 1).unwrap().journal;
    let started = begun(&mut journal, step(1, 0), "");
    assert!(matches!(journal.begin(step(1, 0), ""), Ok(Begin::Unfinished)));
    journal.end(started, Outcome::new(Verdict::Done, "é".repeat(MAX_OUTCOME))).unwrap();
    let Begin::Ended(outcome) = journal.begin(step(1, 0), "").unwrap() else { panic!("it ran again") };
    assert_eq!(outcome.text.len(), MAX_OUTCOME);
    assert!(matches!(journal.begin(StepId { attempt: 2, ..step(1, 0) }, ""), Ok(Begin::Started(_))));
    // After a restart the same.
    drop(journal);
    let opened = open(&world, 1).unwrap();
    assert_eq!(opened.journal.outcome(&step(1, 0)), Some(&outcome));
    let [unfinished] = &opened.unfinished[..] else { panic!("{:?}", opened.unfinished) };
    assert_eq!((unfinished.runs, unfinished.rebooted, unfinished.committed), (1, false, false));
}

#[test]
fn a_reboot_is_confirmed_after_it() {
    let world = World::new(0);
    let mut journal = open(&world, 1).unwrap().journal;
    let id = StepId { action: Action::Reboot, ..step(1, 0) };
    let _ = begun(&mut journal, id, "");
    drop(journal);
    // The agent was restarted, the machine was not.
    assert!(!open(&world, 1).unwrap().unfinished[0].rebooted);
    let Opened { mut journal, mut unfinished, .. } = open(&world, 2).unwrap();
    assert!(unfinished[0].rebooted);
    journal.settle(unfinished.remove(0), Outcome::new(Verdict::Done, "")).unwrap();
    drop(journal);
    assert!(open(&world, 3).unwrap().unfinished.is_empty());
}

#[test]
fn a_cut_at_any_byte_loses_only_the_record_that_was_cut() {
    let bytes = sample();
    assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 9);
    for cut in 0..=bytes.len() {
        for zeros in [0, 7] {
            let mut torn = bytes[..cut].to_vec();
            torn.extend(std::iter::repeat_n(0, zeros));
            let whole = bytes[..cut].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
            let world = World::with(&torn);
            let Opened { mut journal, damage, .. } = open(&world, 9).unwrap();
            assert_eq!((damage, &journal.table), (None, &table(&bytes[..whole])), "{cut}");
            // It can be written again, and read after that.
            let started = begun(&mut journal, step(9, 9), "later");
            journal.end(started, Outcome::new(Verdict::Done, "")).unwrap();
            let expected = journal.table.clone();
            drop(journal);
            let again = open(&world, 9).unwrap();
            assert_eq!((again.damage, again.journal.table), (None, expected), "{cut}");
        }
    }
}

#[test]
fn a_changed_byte_is_reported_and_the_rest_is_kept() {
    let bytes = sample();
    for at in 0..bytes.len() - 1 {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let world = World::with(&changed);
        let opened = open(&world, 9).unwrap();
        assert!(opened.damage.is_some(), "{at}");
        assert_eq!(world.lock().unwrap().bytes(DAMAGED), Some(changed), "{at}");
        // Step 2 is known from two records, so it is lost only with the line feed between them.
        let kept = matches!(opened.journal.table.get(&step(2, 0)), Some(Step::Open { .. }));
        assert!(kept || bytes[at] == b'\n', "{at}");
        // It is said once.
        drop(opened);
        assert_eq!(open(&world, 9).unwrap().damage, None);
    }
    // A whole line that is missing is noticed by its number.
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
    lines.remove(3);
    assert!(open(&World::with(&lines.concat()), 9).unwrap().damage.is_some());
}

#[test]
fn any_bytes_are_survived() {
    let bytes = sample();
    let mut reported = 0;
    for seed in 0..3000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut changed = bytes.clone();
        for _ in 0..rng.u32(1..4) {
            let (a, b) = (rng.usize(..=changed.len()), rng.usize(..=changed.len()));
            let range = a.min(b)..a.max(b);
            match rng.u32(..4) {
                0 => drop(changed.drain(range)),
                1 => changed.splice(a..a, bytes[..rng.usize(..bytes.len())].iter().copied()).for_each(drop),
                2 => changed[range].fill(rng.u8(..)),
                _ => changed.truncate(a),
            }
        }
        let world = World::with(&changed);
        let opened = open(&world, 9).unwrap();
        reported += u32::from(opened.damage.is_some());
        let expected = opened.journal.table.clone();
        drop(opened);
        let again = open(&world, 9).unwrap();
        assert_eq!((again.damage, again.journal.table), (None, expected), "seed {seed}");
    }
    assert!(reported > 1000, "{reported}");
}

#[test]
fn records_of_a_newer_version_are_not_touched() {
    for record in [
        Entry { seq: 1, record: Record::Journal { version: record::VERSION + 1 } }.line(),
        String::from_utf8(sample()).unwrap().lines().next().unwrap().replace("journal", "diary").into_bytes(),
    ] {
        let text = String::from_utf8(record).unwrap();
        let json = text.trim_end().split_once(' ').unwrap().1;
        let sum = data_encoding::HEXLOWER.encode(&blake3::hash(json.as_bytes()).as_bytes()[..16]);
        let line = format!("{sum} {json}\n").into_bytes();
        let world = World::with(&line);
        assert!(matches!(open(&world, 1), Err(Error::Newer)));
        assert_eq!(world.lock().unwrap().bytes(FILE), Some(line));
    }
}

#[test]
fn it_stays_small() {
    let world = World::new(3);
    let mut journal = open(&world, 1).unwrap().journal;
    let note = "n".repeat(MAX_NOTE);
    let mut longest = 0;
    for n in 0..500 {
        let started = begun(&mut journal, step(n as u8, n), &note);
        journal.end(started, Outcome::new(Verdict::Done, "")).unwrap();
        journal.retain(|task| task[0] == n as u8).unwrap();
        longest = longest.max(journal.len);
    }
    assert!(longest < 2 * JOURNAL_SMALL, "{longest}");
    drop(journal);
    let opened = open(&world, 1).unwrap();
    assert_eq!((opened.unfinished.len(), opened.journal.table.len()), (0, 1));
}

#[test]
fn full_is_an_error_and_open_steps_are_not_forgotten() {
    let world = World::new(0);
    let mut journal = open(&world, 1).unwrap().journal;
    assert!(matches!(journal.begin(step(0, 0), &"n".repeat(MAX_NOTE + 1)), Err(Error::Full(_))));
    for n in 0..MAX_OPEN_STEPS as u32 {
        let _ = begun(&mut journal, step(1, n), &"\u{1}".repeat(MAX_NOTE));
    }
    assert!(matches!(journal.begin(step(2, 0), ""), Err(Error::Full(_))));
    journal.retain(|_| false).unwrap();
    assert_eq!(journal.table.open(), MAX_OPEN_STEPS);
    drop(journal);
    assert_eq!(open(&world, 1).unwrap().unfinished.len(), MAX_OPEN_STEPS);
}

#[test]
fn one_agent_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = Journal::open(dir.path(), boot(1)).unwrap();
    assert!(matches!(Journal::open(dir.path(), boot(1)), Err(Error::InUse)));
    drop(first);
    let mut journal = Journal::open(dir.path(), BootId::current().unwrap()).unwrap().journal;
    let _ = begun(&mut journal, step(1, 0), "");
    let file = dir.path().join(FILE);
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap()) & 0o777, 0o600);
    drop(journal);
    // A link is not followed.
    std::fs::rename(&file, dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", &file).unwrap();
    assert!(matches!(Journal::open(dir.path(), boot(1)), Err(Error::Io(_))));
}

/// What the caller of a journal knows: open steps with their runs, ended ones.
type Known = BTreeMap<StepId, Result<(u32, bool), Verdict>>;

fn known(journal: &Journal) -> Known {
    let state = |step: &Step| match step {
        Step::Open { runs, committed, .. } => Ok((*runs, *committed)),
        Step::Ended(outcome) => Err(outcome.verdict),
    };
    journal.table.steps().map(|(id, step)| (*id, state(step))).collect()
}

/// One life of an agent: random steps until something fails. Returns what is acknowledged, and what may have become
/// of it with the call that failed.
fn live(opened: Opened, rng: &mut fastrand::Rng, fresh: &mut u32) -> (Known, Known) {
    let Opened { mut journal, mut unfinished, .. } = opened;
    let mut open: Vec<Started> = Vec::new();
    let mut sure = known(&journal);
    for _ in 0..40 {
        let mut maybe = sure.clone();
        let result = match rng.u32(..8) {
            0..=2 => {
                *fresh += 1;
                let id = step((*fresh % 5) as u8, *fresh);
                maybe.insert(id, Ok((1, false)));
                journal.begin(id, &"x".repeat(rng.usize(..4000))).map(|begin| match begin {
                    Begin::Started(started) => open.push(started),
                    other => panic!("{other:?}"),
                })
            }
            3 if !unfinished.is_empty() => {
                let last = unfinished.swap_remove(rng.usize(..unfinished.len()));
                if let Some(Ok((runs, _))) = maybe.get_mut(&last.id) {
                    *runs += 1;
                }
                journal.resume(last).map(|started| open.push(started))
            }
            4 if !unfinished.is_empty() => {
                let last = unfinished.swap_remove(rng.usize(..unfinished.len()));
                maybe.insert(last.id, Err(Verdict::Interrupted));
                journal.settle(last, Outcome::new(Verdict::Interrupted, ""))
            }
            5 if !open.is_empty() => {
                let started = &open[rng.usize(..open.len())];
                if let Some(Ok((_, committed))) = maybe.get_mut(&started.id()) {
                    *committed = true;
                }
                journal.commit(started)
            }
            6 if fresh.is_multiple_of(3) => {
                let gone = [rng.u8(..5); 32];
                maybe.retain(|id, state| id.task != gone || state.is_ok());
                journal.retain(|task| *task != gone)
            }
            _ if !open.is_empty() => {
                let started = open.swap_remove(rng.usize(..open.len()));
                maybe.insert(started.id(), Err(Verdict::Done));
                journal.end(started, Outcome::new(Verdict::Done, "t"))
            }
            _ => continue,
        };
        match result {
            Ok(()) => sure = maybe,
            Err(Error::Io(_) | Error::Broken) => return (sure, maybe),
            Err(Error::Full(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(known(&journal), sure);
    }
    (sure.clone(), sure)
}

/// Seeds 0 to this one; more with `JOURNAL_SEEDS`.
const SEEDS: u64 = 400;

#[test]
fn power_cuts_and_disk_errors_lose_nothing_that_was_acknowledged() {
    let seeds = std::env::var("JOURNAL_SEEDS").map_or(SEEDS, |n| n.parse().unwrap());
    let mut faults = 0;
    for seed in 0..seeds {
        let mut rng = fastrand::Rng::with_seed(seed);
        let world = World::new(rng.u64(..));
        let (mut sure, mut maybe) = (Known::new(), Known::new());
        let mut fresh = 0;
        for life in 0..8 {
            let fault = if rng.bool() { Fault::Power } else { Fault::Error };
            world.lock().unwrap().fuse = Some((rng.u32(..90), fault));
            let opened = loop {
                match open(&world, life) {
                    Ok(opened) => break opened,
                    // The fault came while it was opened.
                    Err(Error::Io(_)) if world.lock().unwrap().dark => world.lock().unwrap().reboot(),
                    Err(Error::Io(_)) => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            };
            assert_eq!(opened.damage, None, "seed {seed}");
            let found = known(&opened.journal);
            assert!(
                found == sure || found == maybe,
                "seed {seed} life {life}: {found:?}\n{sure:?}\n{maybe:?}"
            );
            (sure, maybe) = live(opened, &mut rng, &mut fresh);
            let mut world = world.lock().unwrap();
            faults += u32::from(world.fuse.is_none());
            if world.dark || rng.u8(..4) == 0 {
                world.reboot();
            }
            world.fuse = None;
        }
    }
    assert!(faults > seeds as u32, "the faults hardly ever came: {faults}");
}

// ---------------------------------------------------------------------------------------------
// Killed processes

/// The agent of the next test: does step after step, in a directory that the environment names.
#[test]
#[ignore = "is run by the test of killed agents"]
fn child() {
    let Some(dir) = std::env::var_os("JOURNAL_CHILD") else { return };
    let dir = Path::new(&dir);
    let act = |id: StepId| {
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(dir.join("acts")).unwrap();
        log.write_all(format!("{}\n", id.part).as_bytes()).unwrap();
    };
    let Opened { mut journal, unfinished, damage } = Journal::open(dir, boot(1)).unwrap();
    assert_eq!(damage, None);
    for step in unfinished {
        assert_eq!(step.note, format!("note {}", step.id.part));
        let runs = step.runs;
        let started = journal.resume(step).unwrap();
        act(started.id());
        journal.end(started, Outcome::new(Verdict::Done, (runs + 1).to_string())).unwrap();
    }
    for part in 0.. {
        if let Begin::Started(started) = journal.begin(step(1, part), &format!("note {part}")).unwrap() {
            act(started.id());
            journal.end(started, Outcome::new(Verdict::Done, "1")).unwrap();
        }
    }
}

#[test]
fn killed_agents_run_each_step_as_often_as_the_journal_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::tests::child", "--ignored", "--nocapture"])
            .env("JOURNAL_CHILD", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(rng.u64(20..120)));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // It is only ended by us, or once there is no room for more steps.
        assert!(!said.contains("panicked") || said.contains("remembered"), "{said}");
    }
    let mut acts: BTreeMap<u32, u32> = BTreeMap::new();
    for line in std::fs::read_to_string(dir.path().join("acts")).unwrap().lines() {
        *acts.entry(line.parse().unwrap()).or_default() += 1;
    }
    assert!(acts.len() > 25, "it hardly ran: {acts:?}");
    let opened = Journal::open(dir.path(), boot(1)).unwrap();
    for (id, step) in opened.journal.table.steps() {
        let ran = acts.get(&id.part).copied().unwrap_or(0);
        match step {
            // The last of the recorded runs ended; each of those before may have been killed before it acted.
            Step::Ended(outcome) => {
                assert!((1..=outcome.text.parse().unwrap()).contains(&ran), "{id:?}: {ran}")
            }
            Step::Open { runs, .. } => assert!(ran <= *runs, "{id:?}: {ran} of {runs}"),
        }
    }
    for part in acts.keys() {
        assert!(opened.journal.table.get(&step(1, *part)).is_some(), "{part} ran without a record");
    }
}
