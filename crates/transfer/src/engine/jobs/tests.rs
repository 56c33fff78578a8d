use super::*;
use crate::command::Facts;
use crate::crypto::digest::symbol_digest;
use crate::pack::Recipe;
use crate::protocol::job::InPlace;
use crate::sim::disk::{SimDisk, SimEarlier, SimSink};
use crate::sim::disk_faults::{DiskError, DiskFaults, Op};
use crate::sim::source::SimSource;
use crate::storage::RawBytes;
use crate::task::Assignment;
use crate::units::{Coded, DeviceId, Esi, SymbolDigest};

const SIZE: usize = 3 * 8_192 + 100;

/// A source without a modification time, as a device.
struct Timeless(SimSource);

impl Source for Timeless {
    fn extent(&self) -> crate::units::Extent {
        self.0.extent()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.0.read_at(offset, buf)
    }
    fn raw(&self, offset: u64, len: usize) -> Option<RawBytes> {
        self.0.raw(offset, len)
    }
    fn check(&self) -> Result<(), SourceError> {
        Ok(())
    }
    fn sees_changes(&self) -> bool {
        false
    }
}

struct Bench {
    object: Vec<u8>,
    source: SimSource,
    layout: Layout,
    plans: PlanCache,
    disk: SimDisk,
    files: ReceiverFiles,
}

fn bench(faults: DiskFaults) -> Bench {
    let object: Vec<u8> = (0..SIZE).map(|i| (i * i / 7) as u8).collect();
    let source = SimSource::new(Arc::new(object.clone()));
    let disk = SimDisk::new(faults, Arc::default());
    let files = ReceiverFiles::new(Box::new(SimSink::new(disk.clone(), false)));
    let layout = Layout::new(SIZE as u64, 13, 256).unwrap();
    Bench { object, source, layout, plans: PlanCache::default(), disk, files }
}

impl Bench {
    fn send(&self, job: SenderJob) -> SenderDone {
        run_sender_job(job, &self.source, &self.plans, &mut Vec::new())
    }
    fn receive(&self, job: ReceiverJob) -> ReceiverDone {
        run_receiver_job(job, &self.files, &self.plans)
    }
    fn commit(&self) -> ReceiverJob {
        ReceiverJob::Commit { layout: self.layout, root: Digest([0; 32]) }
    }
    fn open(&self) -> ReceiverDone {
        self.receive(ReceiverJob::Open { name: "x".to_owned(), layout: self.layout, entry: None, tree: None })
    }
    fn value(&self, block: u32) -> Digest {
        match self.send(SenderJob::Hash { block: BlockIndex(block), layout: self.layout, level: None }) {
            SenderDone::Hashed { block: BlockIndex(b), value, .. } if b == block => value,
            other => panic!("{other:?}"),
        }
    }
    fn repair(&self, block: u32, count: u32) -> Arc<Vec<u8>> {
        let block = BlockIndex(block);
        let first = Esi(self.layout.source_symbols(block));
        match self.send(SenderJob::Encode {
            block,
            layout: self.layout,
            recipe: Recipe::raw(first.0),
            first,
            count,
            value: None,
        }) {
            SenderDone::Encoded { symbols, .. } => symbols,
            other => panic!("{other:?}"),
        }
    }
    fn add_source(&self, assembly: &mut BlockAssembly, ids: impl IntoIterator<Item = u32>) {
        let block = assembly.block();
        let start = self.layout.block_offset(block) as usize;
        for id in ids {
            let range = self.layout.symbol_range(block, Esi(id));
            assembly.add(Esi(id), &self.object[start + range.start..start + range.end]);
        }
    }
    fn assembly(&self, block: u32) -> BlockAssembly {
        let mut assembly = BlockAssembly::new(&self.layout, BlockIndex(block));
        assembly.attach(Buffer::default());
        assembly
    }
}

#[test]
fn an_object_goes_from_disk_to_disk() {
    let bench = bench(DiskFaults::default());
    assert!(matches!(bench.send(SenderJob::CheckSource), SenderDone::SourceChecked));
    assert!(matches!(bench.open(), ReceiverDone::Opened { .. }));
    for block in 0..bench.layout.block_count() {
        let k = bench.layout.source_symbols(BlockIndex(block));
        let mut assembly = bench.assembly(block);
        if k > 1 {
            // Spilled half-way, with repair symbols in the place of two that are lost.
            bench.add_source(&mut assembly, 0..10);
            let done = bench.receive(ReceiverJob::Spill(assembly));
            let ReceiverDone::Spilled { assembly: mut spilled, buffer } = done else { panic!("{done:?}") };
            assert_eq!((spilled.held(), buffer.len()), (10, spilled.buffer_len()));
            spilled.attach(buffer);
            bench.add_source(&mut spilled, 12..k);
            for (i, symbol) in (k..).zip(bench.repair(block, 2).chunks(256)) {
                spilled.add(Esi(i), symbol);
            }
            assembly = spilled;
        } else {
            bench.add_source(&mut assembly, 0..k);
        }
        let expected = bench.value(block);
        match bench.receive(ReceiverJob::Store {
            assembly,
            expected: Some(expected),
            keep: true,
            pressed: block == 0,
        }) {
            ReceiverDone::Stored { block: stored, value, buffer } => {
                assert_eq!((stored.0, value), (block, expected));
                assert!(!buffer.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(bench.receive(bench.commit()), ReceiverDone::Committed(_)));
    bench.disk.with_file("x", |file| assert!(file == Some(&bench.object[..])));
}

#[test]
fn what_is_wrong_or_too_little_is_not_written() {
    let bench = bench(DiskFaults::default());
    bench.open();
    let mut assembly = bench.assembly(1);
    bench.add_source(&mut assembly, 0..31);
    let done = bench.receive(ReceiverJob::Store { assembly, expected: None, keep: true, pressed: false });
    let ReceiverDone::Undecodable(mut assembly) = done else { panic!("{done:?}") };
    assert_eq!((assembly.held(), assembly.deficit()), (31, 1));
    assembly.add(Esi(31), &[9; 256]);
    let done = bench.receive(ReceiverJob::Store {
        assembly,
        expected: Some(bench.value(1)),
        keep: true,
        pressed: false,
    });
    let ReceiverDone::Mismatched { block: BlockIndex(1), buffer, kept: Some(received) } = &done else {
        panic!("{done:?}")
    };
    assert!(!buffer.is_empty() && received.is_full());
    // The one symbol that is not the sender's is found by its digest.
    let done = bench.send(SenderJob::Digest {
        block: BlockIndex(1),
        layout: bench.layout,
        recipe: Recipe::raw(32),
        value: None,
    });
    let SenderDone::Digested(BlockIndex(1), mut digests) = done else { panic!("{done:?}") };
    assert_eq!(digests.len(), 32);
    let expected = bench.value(1);
    let sift = |digests: &[SymbolDigest], expected| {
        let digests = Arc::new(digests.to_vec());
        match bench.receive(ReceiverJob::Sift {
            block: BlockIndex(1),
            layout: bench.layout,
            coded: Coded::raw(32),
            digests,
            expected,
            buffer: None,
        }) {
            ReceiverDone::Sifted { right, agrees, .. } => (right.runs(false).collect::<Vec<_>>(), agrees),
            done => panic!("{done:?}"),
        }
    };
    assert_eq!(sift(&digests, expected), (vec![(31, 1)], false));
    // Digests that do not give the chaining value are the sender's fault.
    digests[31] = symbol_digest(&[9; 256]);
    assert_eq!(sift(&digests, expected), (vec![], false));
    // Nothing is written over what a worker may be reading.
    let mut assembly = bench.assembly(0);
    assembly.attach(Buffer::default());
    (0..32).for_each(|id| {
        assembly.add(Esi(id), &[9; 256]);
    });
    let done = bench.receive(ReceiverJob::Store {
        assembly,
        expected: Some(bench.value(0)),
        keep: false,
        pressed: false,
    });
    assert!(matches!(done, ReceiverDone::Mismatched { kept: None, .. }), "{done:?}");
    let done = bench.receive(ReceiverJob::Check {
        block: BlockIndex(0),
        layout: bench.layout,
        expected: value(&bench.layout, BlockIndex(0), &[0; 8192]),
        in_part: true,
    });
    assert!(matches!(done, ReceiverDone::Checked { agrees: true, .. }), "it is still empty: {done:?}");
    assert!(matches!(bench.receive(ReceiverJob::Discard), ReceiverDone::Discarded));
    assert_eq!(bench.disk.parts(), 0);
}

#[test]
fn refusals_are_told_with_their_code() {
    let full = bench(DiskFaults { capacity: Some(1), ..DiskFaults::default() });
    assert!(matches!(full.open(), ReceiverDone::Failed(AbortCode::Disk, _)));
    let taken = bench(DiskFaults::default());
    taken.disk.put("x", Vec::new());
    assert!(matches!(taken.open(), ReceiverDone::Failed(AbortCode::Name, _)));
    assert!(matches!(taken.receive(taken.commit()), ReceiverDone::Failed(AbortCode::Internal, _)));
    let failing =
        bench(DiskFaults { error: Some((Op::Write, 0, DiskError::InputOutput)), ..DiskFaults::default() });
    failing.open();
    let mut assembly = failing.assembly(3);
    failing.add_source(&mut assembly, 0..1);
    let done = failing.receive(ReceiverJob::Store { assembly, expected: None, keep: true, pressed: false });
    assert!(matches!(done, ReceiverDone::Failed(AbortCode::Disk, _)), "{done:?}");
    failing.source.change();
    assert!(matches!(failing.send(SenderJob::CheckSource), SenderDone::SourceFailed(_)));
    assert!(matches!(
        failing.send(SenderJob::Hash { block: BlockIndex(0), layout: failing.layout, level: None }),
        SenderDone::SourceFailed(_)
    ));
    // Whoever has no store says so.
    let nobody = failing.send(SenderJob::LookUp(vec![DeviceId([1; 16])]));
    assert!(matches!(nobody, SenderDone::LookedUp(Err(_))));
    assert!(matches!(failing.send(SenderJob::Record(vec![])), SenderDone::Recorded(Err(_))));
}

#[test]
fn the_store_is_asked_and_told() {
    let (store, task) = (SharedStore::default(), TaskId([1; 16]));
    let mut one = Assignment::new(task, DeviceId([1; 16]), "one".into());
    one.take_up();
    let done = run_store_job(SenderJob::Record(vec![one.clone()]), task, &store);
    assert!(matches!(done, SenderDone::Recorded(Ok(kept)) if kept == [one.clone()]));
    let ids = [DeviceId([1; 16]), DeviceId([2; 16])];
    let done = run_store_job(SenderJob::LookUp(ids.to_vec()), task, &store);
    let expected = [(ids[0], Some(one)), (ids[1], None)];
    assert!(matches!(done, SenderDone::LookedUp(Ok(found)) if found == expected));
    let done = run_store_job(SenderJob::LookUp(ids.to_vec()), TaskId([2; 16]), &store);
    assert!(matches!(done, SenderDone::LookedUp(Ok(found)) if found.iter().all(|(_, kept)| kept.is_none())));
}

/// Whether the block is found, in the part file or in an earlier version.
fn found(bench: &Bench, block: u32, in_part: bool) -> bool {
    let (block, expected) = (BlockIndex(block), bench.value(block));
    match bench.receive(ReceiverJob::Check { block, layout: bench.layout, expected, in_part }) {
        ReceiverDone::Checked { block: checked, agrees } if checked == block => agrees,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_an_earlier_run_has_left_is_found_if_it_is_as_it_should_be() {
    let mut bench =
        bench(DiskFaults { error: Some((Op::Read, 3, DiskError::InputOutput)), ..DiskFaults::default() });
    assert!(matches!(bench.open(), ReceiverDone::Opened { written, earlier: 0 } if written.count() == 0));
    for block in [0, 2] {
        let mut assembly = bench.assembly(block);
        bench.add_source(&mut assembly, 0..bench.layout.source_symbols(BlockIndex(block)));
        bench.receive(ReceiverJob::Store { assembly, expected: None, keep: true, pressed: false });
    }
    assert!(matches!(bench.receive(ReceiverJob::Keep), ReceiverDone::Kept));
    assert!(matches!(bench.receive(ReceiverJob::Keep), ReceiverDone::Discarded), "there is none any more");
    bench.files = ReceiverFiles::new(Box::new(SimSink::new(bench.disk.clone(), false)));
    let ReceiverDone::Opened { written, earlier: 0 } = bench.open() else { panic!("not opened") };
    assert_eq!((written.contains(0), written.contains(1), written.contains(2)), (true, false, true));
    assert!(found(&bench, 0, true) && !found(&bench, 1, true) && found(&bench, 2, true));
    // The disk fails the next read: the block is not there, and that is all.
    assert!(!found(&bench, 0, true));
    assert!(found(&bench, 0, true));
}

#[test]
fn blocks_that_have_not_changed_are_copied_from_an_earlier_version() {
    let mut bench = bench(DiskFaults::default());
    let mut old = bench.object.clone();
    old[8_192 + 77] ^= 1;
    let with = |bench: &mut Bench, old: &[u8]| {
        let earlier = Box::new(SimEarlier(Arc::new(old.to_vec())));
        let sink = SimSink::new(bench.disk.clone(), false);
        bench.files = ReceiverFiles::new(Box::new(sink)).with_earlier(Some(earlier));
        match bench.open() {
            ReceiverDone::Opened { earlier, .. } => earlier,
            other => panic!("{other:?}"),
        }
    };
    // One that is shorter has fewer whole blocks; a longer one has all.
    assert_eq!(with(&mut bench, &old[..8_192 * 2 + 1]), 2);
    assert!(found(&bench, 0, false) && !found(&bench, 1, true) && !found(&bench, 2, false));
    old.push(7);
    assert_eq!(with(&mut bench, &old), 4);
    for block in 0..4 {
        assert_eq!(found(&bench, block, false), block != 1, "block {block}");
    }
    let mut assembly = bench.assembly(1);
    bench.add_source(&mut assembly, 0..32);
    bench.receive(ReceiverJob::Store { assembly, expected: None, keep: true, pressed: false });
    assert!(matches!(bench.receive(bench.commit()), ReceiverDone::Committed(_)));
    bench.disk.with_file("x", |file| assert!(file == Some(&bench.object[..])));
}

#[test]
fn a_block_that_no_longer_has_its_value_ends_the_task() {
    let bench = bench(DiskFaults::default());
    let (block, first, count) = (BlockIndex(1), Esi(32), 2);
    let timeless = Timeless(bench.source.clone());
    let value = Some(bench.value(1));
    let run = |source: &dyn Source, job| run_sender_job(job, source, &bench.plans, &mut Vec::new());
    let wrong = Some(Digest([1; 32]));
    let (layout, recipe) = (bench.layout, Recipe::raw(32));
    let encode = |value| SenderJob::Encode { block, layout, recipe, first, count, value };
    let digest = |value| SenderJob::Digest { block, layout, recipe, value };
    for known in [None, value] {
        assert!(matches!(run(&timeless, encode(known)), SenderDone::Encoded { .. }));
        assert!(matches!(run(&timeless, digest(known)), SenderDone::Digested(..)));
    }
    for job in [encode(wrong), digest(wrong)] {
        let done = run(&timeless, job);
        let SenderDone::SourceFailed(why) = &done else { panic!("{done:?}") };
        assert_eq!(why, "the source changed while it was being sent (block 1); send it again");
    }
    // A file's times are looked at instead, unless a device has found that its block disagrees.
    assert!(matches!(run(&bench.source, encode(wrong)), SenderDone::Encoded { .. }));
    assert!(matches!(run(&bench.source, digest(wrong)), SenderDone::SourceFailed(_)));
}

#[test]
fn reading_back_compares_the_disk_with_the_hash() {
    for rotten in [false, true] {
        let bench = bench(DiskFaults::default());
        bench.open();
        for block in 0..4 {
            let mut assembly = bench.assembly(block);
            bench.add_source(&mut assembly, 0..bench.layout.source_symbols(BlockIndex(block)));
            let stored = ReceiverJob::Store { assembly, expected: None, keep: false, pressed: false };
            assert!(matches!(bench.receive(stored), ReceiverDone::Stored { .. }));
        }
        let files = bench.files.verifying(true);
        if rotten {
            files.part().ok().unwrap().part.write_at(9_000, b"rotten").unwrap();
        }
        let root = Digest(*blake3::hash(&bench.object).as_bytes());
        let done = run_receiver_job(ReceiverJob::Commit { layout: bench.layout, root }, &files, &bench.plans);
        match done {
            ReceiverDone::Committed(_) => assert!(!rotten),
            ReceiverDone::Failed(AbortCode::Disk, why) => assert!(rotten && why.contains("replace the disk")),
            other => panic!("{other:?}"),
        }
    }
}

/// A hook that notes the names for which it ran.
#[derive(Default)]
struct Noted(Mutex<Vec<String>>);

impl Hook for Noted {
    fn run(&self, facts: &Facts<'_>) -> Result<i32, String> {
        lock(&self.0).push(facts.name.to_owned());
        Ok(0)
    }
    fn interrupt(&self) {}
}

#[test]
fn a_name_that_is_unsafe_runs_no_command() {
    let noted = Arc::new(Noted::default());
    let sink = SimSink::new(SimDisk::new(DiskFaults::default(), Arc::default()), false);
    let files = ReceiverFiles::new(Box::new(sink)).with_hook(Some(Arc::clone(&noted) as Arc<dyn Hook>));
    let run = |name: &str| {
        let object = InPlace {
            path: "/srv/x".into(),
            name: name.to_owned(),
            root: Digest::default(),
            size: 1,
            sender: [10, 0, 0, 1].into(),
            key: crate::units::SenderKey([1; 32]),
        };
        match run_receiver_job(ReceiverJob::Hook(object), &files, &PlanCache::default()) {
            ReceiverDone::HookEnded(ended) => ended,
            other => panic!("{other:?}"),
        }
    };
    for name in ["../x", "a\nb", "x/y", ""] {
        assert!(run(name).is_err_and(|why| why.contains("did not run")), "{name:?}");
    }
    assert_eq!(run("x"), Ok(0));
    assert_eq!(*lock(&noted.0), ["x"]);
}
