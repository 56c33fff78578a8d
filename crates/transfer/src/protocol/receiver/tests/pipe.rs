//! Destinations that take blocks in order: what the sender is told, and how they are given up.

use super::*;
use crate::fec::Buffer;
use crate::units::Intake;
use crate::wire::{HashPage, Poll, SinkEnd};

/// One that passes an object of small blocks on to a command, and is admitted.
fn passing(blocks: u64) -> Bench {
    let root = crate::crypto::digest::root(&(0..blocks as u32).map(value).collect::<Vec<_>>());
    passing_on(small_blocks(blocks), Some(root))
}

/// The same with an object that may still grow.
fn passing_on(layout: Layout, root: Option<Digest>) -> Bench {
    let mut bench = Bench::new(layout);
    bench.receiver.config.intake = Intake::InOrder;
    bench.receiver.config.command = true;
    bench.receiver.config.buffer_bytes = 4 << 10;
    bench.root = root;
    bench.announce();
    bench.ask(Holdings::Passing);
    bench.hear_alone(&Message::Admit(ADMITTED));
    bench.done(opened());
    bench
}

fn value(block: u32) -> Digest {
    Digest([block as u8; 32])
}

fn hear_page(bench: &mut Bench, blocks: u32) {
    let page = HashPage::raw(BlockIndex(0), (0..blocks).map(|block| (value(block), 1)));
    bench.hear(&Message::HashPage(page));
}

/// The job asked for first has stored a block.
fn stored(bench: &mut Bench) {
    let ReceiverJob::Store { assembly, .. } = &bench.jobs[0] else { panic!("{:?}", bench.jobs) };
    let block = assembly.block();
    bench.done(ReceiverDone::Stored { block, value: value(block.0), buffer: Buffer::default() });
}

#[test]
fn the_receipt_waits_for_the_last_byte_and_says_that_it_was_a_pipe() {
    let mut bench = passing(2);
    hear_page(&mut bench, 2);
    for block in [1, 0] {
        whole_block(&mut bench, block);
        stored(&mut bench);
    }
    for n in 0..2 {
        let [ReceiverJob::Write { block, .. }] = bench.jobs[..] else { panic!("{:?}", bench.jobs) };
        assert_eq!(block, BlockIndex(n));
        bench.done(ReceiverDone::Written { block, buffer: Some(Buffer::default()) });
    }
    assert!(matches!(bench.jobs[..], [ReceiverJob::Commit { .. }]), "{:?}", bench.jobs);
    bench.done(ReceiverDone::Committed("-".into()));
    bench.pass(Duration::from_secs(1));
    let said = bench.said();
    let receipt = said.iter().find_map(|plain| match wire::decode_plain(plain) {
        Ok((_, Message::Complete(receipt))) => Some(receipt),
        _ => None,
    });
    let receipt = receipt.expect("a receipt");
    assert_eq!((receipt.sink, receipt.command, receipt.hook), (SinkEnd::Piped, Some(0), None));
}

/// A block arrives, and is written at once.
fn passed_on(bench: &mut Bench, block: u32) {
    whole_block(bench, block);
    stored(bench);
    let [ReceiverJob::Write { block: written, layout, .. }] = bench.jobs[..] else {
        panic!("{:?}", bench.jobs)
    };
    assert_eq!((written.0, layout), (block, bench.layout));
    bench.done(ReceiverDone::Written { block: written, buffer: Some(Buffer::default()) });
}

#[test]
fn a_stream_is_passed_on_as_it_grows_and_closed_only_when_it_is_sealed() {
    let growing = |blocks: u64| Extent { size: blocks << 10, sealed: false };
    let small = small_blocks(1);
    let layout = Layout::of(growing(2), 10, small.symbol_size()).unwrap();
    let mut bench = passing_on(layout, None);
    hear_page(&mut bench, 2);
    (0..2).for_each(|block| passed_on(&mut bench, block));
    bench.pass(Duration::from_secs(5));
    assert!(bench.jobs.is_empty(), "{:?}", bench.jobs);
    // The window has moved on with what was written.
    bench.layout = layout.grown(growing(9)).unwrap();
    bench.announce();
    hear_page(&mut bench, 9);
    (2..9).for_each(|block| passed_on(&mut bench, block));
    assert!(bench.jobs.is_empty(), "{:?}", bench.jobs);
    bench.layout = bench.layout.grown(Extent::sealed(10 << 10)).unwrap();
    bench.announce();
    hear_page(&mut bench, 10);
    passed_on(&mut bench, 9);
    assert!(bench.jobs.is_empty(), "its root is not known: {:?}", bench.jobs);
    bench.root = Some(crate::crypto::digest::root(&(0..10).map(value).collect::<Vec<_>>()));
    bench.announce();
    let [ReceiverJob::Commit { layout, .. }] = bench.jobs[..] else { panic!("{:?}", bench.jobs) };
    assert_eq!(layout.object_size(), 10 << 10);
}

#[test]
fn a_stream_that_breaks_off_is_given_up() {
    let layout = Layout::of(Extent { size: 4 << 10, sealed: false }, 10, small_blocks(1).symbol_size());
    let mut bench = passing_on(layout.unwrap(), None);
    hear_page(&mut bench, 4);
    (0..2).for_each(|block| passed_on(&mut bench, block));
    let abort = wire::Abort { code: AbortCode::Source, reason: "the producer died".into() };
    bench.hear(&Message::Abort(abort));
    // Not kept, as a file's would be, and not committed.
    assert!(matches!(bench.jobs[..], [ReceiverJob::Discard]), "{:?}", bench.jobs);
}

#[test]
fn one_that_waits_for_its_reader_asks_for_nothing_and_tells_its_room() {
    let mut bench = passing(8);
    hear_page(&mut bench, 8);
    for block in 0..4 {
        whole_block(&mut bench, block);
        stored_later(&mut bench);
    }
    bench.pass(Duration::from_secs(2));
    bench.sent.clear();
    let poll = Poll {
        round: 1,
        position: BlockIndex(8),
        invitation: Invitation { probability: u16::MAX, window: Duration::ZERO },
        gsize: 1,
        want_esis: true,
        advertised: Vec::new(),
    };
    bench.hear_alone(&Message::Poll(poll));
    let rooms_and_naks = |bench: &mut Bench| {
        let said = bench.said();
        let said = said.iter().filter_map(|plain| match wire::decode_plain(plain) {
            Ok((_, Message::Progress(report))) => Some(Ok(report.room.0)),
            Ok((_, Message::Nak(nak))) => Some(Err(nak.deficits.len())),
            _ => None,
        });
        said.collect::<Vec<_>>()
    };
    let said = rooms_and_naks(&mut bench);
    assert!(said.contains(&Err(0)) && said.iter().all(|said| said.is_err() || *said == Ok(4)), "{said:?}");
    // The reader takes a block: the sender hears of it soon.
    bench.sent.clear();
    let at = bench.jobs.iter().position(|job| matches!(job, ReceiverJob::Write { .. })).unwrap();
    let ReceiverJob::Write { block, buffer, .. } = bench.jobs.remove(at) else { unreachable!() };
    bench.receiver.handle_job_done(bench.now, ReceiverDone::Written { block, buffer });
    bench.drain();
    bench.pass(Duration::from_millis(60));
    assert!(rooms_and_naks(&mut bench).contains(&Ok(5)));
}

fn stored_later(bench: &mut Bench) {
    let at = bench.jobs.iter().position(|job| matches!(job, ReceiverJob::Store { .. })).unwrap();
    let job = bench.jobs.remove(at);
    bench.jobs.insert(0, job);
    stored(bench);
}

#[test]
fn it_is_given_up_at_once_though_its_reader_is_stuck() {
    let mut bench = passing(8);
    hear_page(&mut bench, 8);
    whole_block(&mut bench, 0);
    stored(&mut bench);
    assert!(matches!(bench.jobs[..], [ReceiverJob::Write { .. }]));
    bench.interrupt();
    assert!(matches!(bench.jobs[..], [ReceiverJob::Write { .. }, ReceiverJob::Discard]), "{:?}", bench.jobs);
    bench.jobs.remove(0);
    bench.done(ReceiverDone::Discarded);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.outcome, Some(ReceiverOutcome::Interrupted));
}
