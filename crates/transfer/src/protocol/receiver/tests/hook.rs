//! The hook: it runs once the object is in place, and its end is the device's.

use super::*;
use crate::protocol::event::{HookChange, HookEnd};
use crate::units::Digest;
use crate::wire::{Abort, Acknowledge, Complete, MessageKind};

/// A device with a hook that is committing an empty object.
fn committing() -> Bench {
    let mut bench = Bench::committing();
    bench.receiver.config.hook = Some(HookRule::default());
    bench
}

/// A device whose hook runs.
fn hooking() -> Bench {
    let mut bench = committing();
    bench.done(ReceiverDone::Committed("f".into()));
    assert!(matches!(&bench.jobs[..], [ReceiverJob::Hook(job)] if job.name == "f" && job.size == 0));
    bench
}

fn receipts(bench: &mut Bench) -> Vec<Complete> {
    let said = bench.said();
    let receipts = said.iter().filter_map(|bytes| match wire::decode_plain(bytes) {
        Ok((_, Message::Complete(receipt))) => Some(receipt),
        _ => None,
    });
    receipts.collect()
}

fn changes(bench: &Bench) -> Vec<HookChange> {
    let change = |event: &ReceiverEvent| match event {
        ReceiverEvent::Hook(change) => Some(change.clone()),
        _ => None,
    };
    bench.told.iter().filter_map(change).collect()
}

#[test]
fn the_receipt_waits_for_the_hook_and_has_its_status() {
    for (end, status) in [(Ok(0), 0), (Ok(3), 3), (Ok(-9), -9), (Err("no shell".to_owned()), 127)] {
        let mut bench = hooking();
        bench.sent.clear();
        bench.pass(Duration::from_secs(60));
        let kinds = bench.kinds();
        assert!(!kinds.contains(&MessageKind::Complete), "{kinds:?}");
        let alive = kinds.iter().filter(|kind| **kind == MessageKind::Progress).count();
        assert!(alive > 30, "it shows that it is alive: {alive}");
        // The sender's end does not end it: the file is in place.
        bench.hear(&Message::Abort(Abort { code: AbortCode::Finished, reason: String::new() }));
        assert_eq!(bench.outcome, None);
        bench.sent.clear();
        bench.done(ReceiverDone::HookEnded(end));
        let said = receipts(&mut bench);
        assert!(!said.is_empty() && said.iter().all(|receipt| receipt.hook == Some(status)), "{said:?}");
        bench.hear_alone(&Message::Acknowledge(Acknowledge));
        match bench.outcome.clone() {
            Some(ReceiverOutcome::Complete { acknowledged: true }) => assert_eq!(status, 0),
            Some(ReceiverOutcome::HookFailed { end, acknowledged: true, interrupted: false }) => {
                assert!(end.status == status && end.failure.is_some(), "{end:?}");
            }
            other => panic!("{status}: {other:?}"),
        }
        let [HookChange::Started, HookChange::Ended(end)] = &changes(&bench)[..] else { panic!() };
        assert_eq!(end.status, status);
    }
}

#[test]
fn an_interrupt_waits_for_the_end_of_the_hook_and_not_long_for_the_sender() {
    let mut bench = hooking();
    bench.interrupt();
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.outcome, None);
    bench.done(ReceiverDone::HookEnded(Ok(-15)));
    bench.pass(Duration::from_secs(3));
    let end = HookEnd::of_status(-15);
    let failed = |end| ReceiverOutcome::HookFailed { end, acknowledged: false, interrupted: true };
    assert_eq!(bench.outcome, Some(failed(end)));

    // One that has not begun does not begin any more, and the sender is told that it did not succeed.
    let mut bench = committing();
    bench.interrupt();
    bench.sent.clear();
    bench.done(ReceiverDone::Committed("f".into()));
    assert_eq!(receipts(&mut bench).first().map(|receipt| receipt.hook), Some(Some(-2)));
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.outcome, Some(failed(HookEnd::of_status(-2))));
    assert_eq!(changes(&bench), []);
}

#[test]
fn a_file_that_was_there_runs_it_only_if_it_failed_before() {
    let root = Digest([3; 32]);
    for owed in [false, true] {
        let mut bench = Bench::new(small_blocks(8));
        bench.receiver.config.hook = Some(HookRule { owed: owed.then_some(root).into_iter().collect() });
        bench.root = Some(root);
        bench.announce();
        bench.ask(Holdings::All(root));
        bench.hear_alone(&Message::Admit(ADMITTED));
        assert!(matches!(bench.jobs[..], [ReceiverJob::Adopt { .. }]), "{:?}", bench.jobs);
        bench.sent.clear();
        bench.done(ReceiverDone::Committed("f".into()));
        if owed {
            assert!(matches!(bench.jobs[..], [ReceiverJob::Hook(_)]), "{:?}", bench.jobs);
        } else {
            assert_eq!(receipts(&mut bench).first().map(|receipt| receipt.hook), Some(None));
            assert_eq!(changes(&bench), [HookChange::Skipped]);
        }
    }
}

#[test]
fn an_ignored_session_is_not_joined_before_its_time() {
    let mut bench = Bench::new(small_blocks(8));
    let later = Time::ZERO + Duration::from_secs(5);
    bench.receiver.config.ignored = [(bench.sender.session(), later)].into();
    bench.announce();
    bench.pass(Duration::from_secs(4));
    bench.announce();
    assert!(bench.jobs.is_empty() && bench.told.is_empty(), "{:?}", bench.told);
    bench.pass(Duration::from_secs(2));
    bench.announce();
    assert!(matches!(bench.jobs[..], [ReceiverJob::Probe { .. }]), "{:?}", bench.jobs);
}
