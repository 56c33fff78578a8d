//! What a device repeats when its feedback is lost.

use super::*;

/// How long it takes until `count` more datagrams have been sent, hearing an announcement every 50 ms.
fn time_to_send(bench: &mut Bench, count: usize) -> Duration {
    let (from, sent) = (bench.now, bench.sent.len());
    while bench.sent.len() < sent + count {
        bench.announce();
        bench.pass(Duration::from_millis(50));
    }
    bench.now.since(from)
}

#[test]
fn a_lost_join_is_repeated_at_once_and_one_to_a_busy_sender_is_not() {
    let mut bench = Bench::joined(small_blocks(4), false);
    let hasty = time_to_send(&mut bench, 5);
    assert!(hasty <= Duration::from_millis(500), "5 more joins in {hasty:?}");
    let later = time_to_send(&mut bench, 5);
    assert!(later >= Duration::from_millis(1500), "and 5 more in {later:?}");
}

#[test]
fn a_lost_receipt_is_repeated_at_once_and_then_ever_more_seldom() {
    let mut bench = Bench::committing();
    bench.done(ReceiverDone::Committed("f".into()));
    let receipts =
        |bench: &Bench| bench.kinds().iter().filter(|k| **k == wire::MessageKind::Complete).count();
    bench.pass(Duration::from_millis(200));
    let hasty = receipts(&bench);
    assert!((4..=6).contains(&hasty), "{hasty} receipts");
    bench.pass(Duration::from_secs(8));
    let all = receipts(&bench);
    assert!((hasty + 4..=hasty + 9).contains(&all), "{hasty} receipts, then {all}");
}
