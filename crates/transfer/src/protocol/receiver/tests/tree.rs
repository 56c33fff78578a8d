//! Trees: the manifest comes first.

use super::*;
use crate::ranges::BitSet;

impl Bench {
    /// One that has joined a session with a tree of 8 blocks, the first two of which are its manifest.
    fn with_tree(holding: Holdings) -> Self {
        let mut bench = Self::new(small_blocks(8));
        bench.kind = ObjectKind::Tree;
        bench.announce();
        bench.ask(holding);
        bench.hear_alone(&Message::Admit(ADMITTED));
        assert!(matches!(bench.jobs[..], [ReceiverJob::Open { tree: Some(_), .. }]), "{:?}", bench.jobs);
        bench
    }

    fn checks(&self) -> Vec<u32> {
        let checks = self.jobs.iter().filter_map(|job| match job {
            ReceiverJob::Check { block, .. } => Some(block.0),
            _ => None,
        });
        checks.collect()
    }
}

fn there(blocks: &[u32]) -> ReceiverDone {
    let mut there = BitSet::new(8);
    blocks.iter().for_each(|&block| {
        there.insert(block);
    });
    ReceiverDone::Arranged { there }
}

#[test]
fn what_an_interrupted_run_has_left_is_looked_for_once_the_tree_is_laid_out() {
    let mut bench = Bench::with_tree(Holdings::Some);
    bench.done(written(&[0, 1, 2, 3, 4, 5, 6, 7], 8));
    bench.page();
    assert_eq!(bench.checks(), [0, 1], "only the manifest");
    bench.checked(0, true);
    assert_eq!(bench.jobs.len(), 1);
    bench.checked(1, true);
    assert!(matches!(bench.jobs[..], [ReceiverJob::Arrange { .. }]), "{:?}", bench.jobs);
    assert_eq!(bench.lacks(), [], "anything may be there");
    bench.done(there(&[3, 5]));
    assert_eq!(bench.checks(), [3, 5]);
    assert_eq!(bench.lacks(), [whole(2, 1), whole(4, 1), whole(6, 2)]);
}

#[test]
fn a_tree_is_laid_out_once_and_a_refused_one_ends_the_run() {
    let mut bench = Bench::with_tree(Holdings::Nothing);
    bench.done(opened());
    bench.page();
    for block in [5, 1, 0] {
        assert!(!bench.jobs.iter().any(|job| matches!(job, ReceiverJob::Arrange { .. })));
        whole_block(&mut bench, block);
        let Some(ReceiverJob::Store { .. }) = bench.jobs.first() else { panic!("{:?}", bench.jobs) };
        let (block, value) = (BlockIndex(block), Digest([block as u8; 32]));
        bench.done(ReceiverDone::Stored { block, value, buffer: crate::fec::Buffer::default() });
    }
    assert!(matches!(bench.jobs[..], [ReceiverJob::Arrange { .. }]), "{:?}", bench.jobs);
    bench.done(ReceiverDone::Failed(AbortCode::Content, "refused".into()));
    assert!(matches!(bench.jobs[..], [ReceiverJob::Discard]), "{:?}", bench.jobs);
    bench.done(ReceiverDone::Discarded);
    assert!(bench.kinds().contains(&wire::MessageKind::Abort));
}
