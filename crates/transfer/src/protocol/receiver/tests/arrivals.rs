//! When a device reports what arrives, and that it is complete.

use super::*;
use crate::limits::{SENDER_SILENCE, SMALL_GROUP};
use crate::protocol::receiver::liveness::SOON;
use crate::wire::{Arrivals, MessageKind, Phase};

/// Datagrams of the stream in a millisecond.
const A_MILLISECOND: u32 = 8;

impl Bench {
    fn begin_to_stream(&mut self) {
        let announce = Announce { phase: Phase::Streaming, ..self.announce_now() };
        self.hear(&Message::Announce(announce));
    }

    /// The stream goes on for so long, from this block on.
    fn stream(&mut self, from: u32, milliseconds: u32) -> u32 {
        for block in from..from + milliseconds * A_MILLISECOND {
            whole_block(self, block);
            self.pass(Duration::from_millis(1) / A_MILLISECOND);
        }
        from + milliseconds * A_MILLISECOND
    }

    fn reported(&mut self) -> Vec<Arrivals> {
        let said = self.said();
        let arrivals = said.iter().filter_map(|plain| match wire::decode_plain(plain) {
            Ok((_, Message::Progress(report))) => report.arrivals,
            _ => None,
        });
        arrivals.collect()
    }
}

#[test]
fn the_beginning_of_a_stream_is_reported_soon_and_by_itself() {
    for gsize in [1, 8, SMALL_GROUP] {
        let mut bench = Bench::joined(small_blocks(4_000), true);
        bench.gsize = gsize;
        // It waits for others, and hears that the sender is there.
        for _ in 0..8 {
            bench.announce();
            bench.pass(Duration::from_millis(50));
        }
        assert_eq!(bench.reported(), []);
        bench.begin_to_stream();
        let interval = Duration::from_millis(25).max(Duration::from_secs(1) * gsize / 150);
        let soon = SOON * 2 + interval / 4;
        bench.stream(0, soon.as_millis() as u32 + 1);
        let reported = bench.reported();
        let first = reported.first().expect("it is reported");
        assert!(first.last.counter() - first.first.counter() >= 63, "{gsize}: {first:?}");
        // Not from the announcements before.
        assert!(first.elapsed_us < 1000 * soon.as_millis() as u32, "{gsize}: {first:?}");
    }
}

#[test]
fn a_large_group_keeps_to_its_share_when_a_stream_begins() {
    let (gsize, mut soon) = (10 * SMALL_GROUP, 0);
    for _ in 0..20 {
        let mut bench = Bench::joined(small_blocks(4_000), true);
        bench.gsize = gsize;
        bench.announce();
        bench.begin_to_stream();
        bench.stream(0, 100);
        soon += usize::from(!bench.reported().is_empty());
    }
    // Of 1000 devices, 150 may report in a second.
    assert!(soon <= 4, "{soon} of 20 within a tenth of a second");
}

#[test]
fn a_small_group_s_receipts_come_at_nearly_the_same_time() {
    for (gsize, most) in [(1, 0), (8, 4), (SMALL_GROUP, 50)] {
        let mut bench = Bench::new(Layout::new(0, 20, 64).unwrap());
        bench.gsize = gsize;
        bench.announce();
        bench.ask(Holdings::Nothing);
        bench.hear_alone(&Message::Admit(ADMITTED));
        bench.done(opened());
        bench.done(ReceiverDone::Committed("f".into()));
        bench.pass(Duration::from_millis(most));
        let receipts = |bench: &Bench| bench.kinds().iter().filter(|k| **k == MessageKind::Complete).count();
        assert_eq!(receipts(&bench), 1, "{gsize}");
        // Further ones are for those that are lost.
        bench.pass(SENDER_SILENCE);
        assert!(receipts(&bench) > 1, "{gsize}");
    }
}
