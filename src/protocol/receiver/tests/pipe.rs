//! Destinations that take blocks in order: what the sender is told, and how they are given up.

use super::*;
use crate::fec::Buffer;
use crate::units::Intake;
use crate::wire::{HashPage, Poll, SinkEnd};

/// One that passes an object of small blocks on to a command, and is admitted.
fn passing(blocks: u64) -> Bench {
    let mut bench = Bench::new(small_blocks(blocks));
    bench.receiver.config.intake = Intake::InOrder;
    bench.receiver.config.command = true;
    bench.receiver.config.buffer_bytes = 4 << 10;
    bench.root = Some(crate::crypto::digest::root(&(0..blocks as u32).map(value).collect::<Vec<_>>()));
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
    let ReceiverJob::Write { block, buffer } = bench.jobs.remove(at) else { unreachable!() };
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
