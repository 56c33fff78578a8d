//! Sessions without feedback: when they count, and that nothing is ever sent.

use super::*;
use crate::units::Counter;
use crate::wire::{Abort, AbortCode, HashPage, OneWay};

fn small() -> Layout {
    Layout::new(4 << 10, 10, 512).unwrap()
}

/// A receiver with this configuration.
fn bench(change: impl FnOnce(&mut ReceiverConfig)) -> Bench {
    let mut bench = Bench::new(small());
    let config = ReceiverConfig::new((DEVICE, "d".into()), vec![], (1, [2; 32]));
    let mut config = ReceiverConfig { primitives: SHAM, ..config };
    change(&mut config);
    bench.receiver = Receiver::new(config, Time::ZERO);
    bench
}

fn announce(bench: &mut Bench) {
    let one_way = Some(OneWay { pass: 0, overhead_per_mille: 100 });
    // Even one that invites everybody gets no JOIN.
    let announce = Announce { one_way, ..bench.announce_now() };
    bench.hear(&Message::Announce(announce));
}

/// One that takes part.
fn receiving() -> Bench {
    let mut bench = bench(|_| ());
    announce(&mut bench);
    bench.probed(Holdings::Nothing);
    assert!(matches!(bench.jobs[..], [ReceiverJob::Open { .. }]), "{:?}", bench.jobs);
    bench.done(opened());
    bench
}

#[test]
fn it_takes_part_unasked_and_never_says_anything() {
    let mut bench = receiving();
    assert!(bench.told.contains(&ReceiverEvent::Admitted));
    for _ in 0..60 {
        announce(&mut bench);
        bench.pass(Duration::from_millis(500));
    }
    bench.receiver.handle_control(bench.now, Control::Interrupt);
    bench.drain();
    while let Some(job) = bench.jobs.first() {
        assert!(matches!(job, ReceiverJob::Discard | ReceiverJob::Keep), "{job:?}");
        bench.done(ReceiverDone::Discarded);
    }
    assert_eq!(bench.outcome, Some(ReceiverOutcome::Interrupted));
    assert!(bench.sent.is_empty());
}

#[test]
fn silence_and_the_farewell_end_it_with_what_it_lacks() {
    let mut bench = receiving();
    bench.pass(Duration::from_secs(21));
    bench.done(ReceiverDone::Discarded);
    assert_eq!(bench.outcome, Some(ReceiverOutcome::Lacking { blocks: 4, of: 4, end: None }));
    let mut bench = receiving();
    let k = small().source_symbols(BlockIndex(0));
    let page = HashPage::raw(BlockIndex(0), (0..4).map(|n| (Digest([n; 32]), k)));
    bench.hear(&Message::HashPage(page));
    for id in 0..2 {
        bench.hear(&Message::Symbol(Symbol { block: BlockIndex(1), esi: Esi(id), payload: &[0; 512] }));
    }
    assert!(matches!(bench.jobs[..], [ReceiverJob::Store { .. }]));
    for _ in 0..5 {
        bench.hear(&Message::Abort(Abort { code: AbortCode::Finished, reason: String::new() }));
        bench.pass(Duration::from_millis(100));
    }
    assert_eq!((bench.jobs.len(), &bench.outcome), (1, &None), "the last block is at a worker");
    bench.done(ReceiverDone::Stored {
        block: BlockIndex(1),
        value: Digest([1; 32]),
        buffer: crate::fec::Buffer::default(),
    });
    bench.done(ReceiverDone::Kept);
    let end = Some(AbortCode::Finished);
    assert_eq!(bench.outcome, Some(ReceiverOutcome::Lacking { blocks: 3, of: 4, end }));
    assert_eq!(bench.receiver.missing(), [(0, 1), (2, 2)]);
    assert!(bench.sent.is_empty());
}

#[test]
fn an_old_session_is_told_of_once_and_does_not_count() {
    let key = FakeSender::new(COUNTER).key();
    for (last, taken) in [(COUNTER - 1, true), (COUNTER, false), (COUNTER + 1, false)] {
        let mut bench = bench(|config| config.completed = [(key, Counter(last))].into());
        (0..5).for_each(|_| announce(&mut bench));
        assert_eq!(bench.jobs.len() == 1, taken, "{last}");
        let told = bench.told.iter().filter(|e| matches!(e, ReceiverEvent::OldSession { .. })).count();
        assert_eq!(told, usize::from(!taken));
    }
}

#[test]
fn a_quiet_one_leaves_senders_alone_that_want_answers() {
    let mut bench = bench(|config| config.quiet = true);
    for _ in 0..200 {
        bench.announce();
        bench.pass(Duration::from_millis(50));
    }
    assert!(bench.jobs.is_empty() && bench.sent.is_empty());
    assert!(
        matches!(bench.told[..], [ReceiverEvent::SenderNeeds { need: Need::Answers, .. }]),
        "{:?}",
        bench.told
    );
    announce(&mut bench);
    // It is another session for a device that has not heard of it.
    assert!(bench.jobs.len() <= 1 && bench.sent.is_empty());
}
