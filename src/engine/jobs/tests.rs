use super::*;
use crate::sim::disk::{DiskFaults, SimDestination, SimDisk, SimSource};
use crate::units::{DeviceId, SymbolId};

const SIZE: usize = 3 * 8_192 + 100;

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
    let files = ReceiverFiles::new(Box::new(SimDestination::new(disk.clone(), false)));
    let layout = Layout::new(SIZE as u64, 13, 256).unwrap();
    Bench { object, source, layout, plans: PlanCache::default(), disk, files }
}

impl Bench {
    fn send(&self, job: SenderJob) -> SenderDone {
        run_sender_job(job, &self.source, &self.layout, &self.plans, &mut Vec::new())
    }
    fn receive(&self, job: ReceiverJob) -> ReceiverDone {
        run_receiver_job(job, &self.files, &self.plans)
    }
    fn open(&self) -> ReceiverDone {
        self.receive(ReceiverJob::Open { name: "x".to_owned(), layout: self.layout })
    }
    fn value(&self, block: u32) -> Digest {
        match self.send(SenderJob::Hash(BlockIndex(block))) {
            SenderDone::Hashed(BlockIndex(b), value) if b == block => value,
            other => panic!("{other:?}"),
        }
    }
    fn repair(&self, block: u32, count: u32) -> Arc<Vec<u8>> {
        let block = BlockIndex(block);
        let first = SymbolId(self.layout.source_symbols(block));
        match self.send(SenderJob::Encode { block, first, count }) {
            SenderDone::Encoded { symbols, .. } => symbols,
            other => panic!("{other:?}"),
        }
    }
    fn add_source(&self, assembly: &mut BlockAssembly, ids: impl IntoIterator<Item = u32>) {
        let block = assembly.block();
        let start = self.layout.block_offset(block) as usize;
        for id in ids {
            let range = self.layout.symbol_range(block, SymbolId(id));
            assembly.add(SymbolId(id), &self.object[start + range.start..start + range.end]);
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
                spilled.add(SymbolId(i), symbol);
            }
            assembly = spilled;
        } else {
            bench.add_source(&mut assembly, 0..k);
        }
        let expected = bench.value(block);
        match bench.receive(ReceiverJob::Store { assembly, expected: Some(expected), pressed: block == 0 }) {
            ReceiverDone::Stored { block: stored, value, buffer } => {
                assert_eq!((stored.0, value), (block, expected));
                assert!(!buffer.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(bench.receive(ReceiverJob::Commit), ReceiverDone::Committed(_)));
    bench.disk.with_file("x", |file| assert!(file == Some(&bench.object[..])));
}

#[test]
fn what_is_wrong_or_too_little_is_not_written() {
    let bench = bench(DiskFaults::default());
    bench.open();
    let mut assembly = bench.assembly(1);
    bench.add_source(&mut assembly, 0..31);
    let done = bench.receive(ReceiverJob::Store { assembly, expected: None, pressed: false });
    let ReceiverDone::Undecodable(mut assembly) = done else { panic!("{done:?}") };
    assert_eq!((assembly.held(), assembly.deficit()), (31, 1));
    assembly.add(SymbolId(31), &[9; 256]);
    let done = bench.receive(ReceiverJob::Store { assembly, expected: Some(bench.value(1)), pressed: false });
    assert!(matches!(&done, ReceiverDone::Mismatched { block: BlockIndex(1), buffer } if !buffer.is_empty()));
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
    assert!(matches!(taken.receive(ReceiverJob::Commit), ReceiverDone::Failed(AbortCode::Internal, _)));
    let failing = bench(DiskFaults { write_error: Some(0), ..DiskFaults::default() });
    failing.open();
    let mut assembly = failing.assembly(3);
    failing.add_source(&mut assembly, 0..1);
    let done = failing.receive(ReceiverJob::Store { assembly, expected: None, pressed: false });
    assert!(matches!(done, ReceiverDone::Failed(AbortCode::Disk, _)), "{done:?}");
    failing.source.change();
    assert!(matches!(failing.send(SenderJob::CheckSource), SenderDone::SourceFailed(_)));
    assert!(matches!(failing.send(SenderJob::Hash(BlockIndex(0))), SenderDone::SourceFailed(_)));
    let nobody = failing.send(SenderJob::LookUp(DeviceId([1; 16])));
    assert!(matches!(nobody, SenderDone::LookedUp(_, None)));
}
