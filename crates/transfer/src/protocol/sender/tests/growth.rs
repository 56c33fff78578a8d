//! A stream: its object grows while it is sent.

use super::*;
use crate::limits::{MAX_BLOCKS, MAX_READ_AHEAD, SENDER_SILENCE};
use crate::units::Extent;
use crate::wire::{self, Object, ObjectKind};

/// Blocks of 1 KiB; at 100 Mbit/s one takes a tenth of a millisecond.
fn growing(blocks: u64) -> Extent {
    Extent { size: blocks << 10, sealed: false }
}

fn stream() -> Bench {
    Bench::new(0, |config| {
        config.layout = Layout::of(Extent::default(), 10, 64).unwrap();
        config.kind = ObjectKind::Stream;
    })
}

impl Bench {
    /// The input job that is asked for ends so.
    fn grow(&mut self, extent: Extent) {
        assert!(std::mem::take(&mut self.reading), "it waits for no input");
        self.sender.handle_job_done(self.now, SenderDone::Grown(extent));
        self.drain();
    }

    fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }
}

/// The object that a message announces, if it is an announcement.
fn announced(transmit: &Transmit) -> Option<Object> {
    let Payload::Message(bytes) = &transmit.payload else { return None };
    let head = wire::head(bytes).ok().filter(|head| head.kind == wire::MessageKind::Announce)?;
    let body = &bytes[crate::limits::HEADER_LEN..bytes.len() - crate::limits::SIGNATURE_RESERVE];
    let Ok(Message::Announce(announce)) = wire::decode_body(head.kind, body) else { panic!("{head:?}") };
    Some(announce.objects[0])
}

#[test]
fn growth_is_announced_before_it_is_streamed_and_again_soon_after() {
    let mut bench = stream();
    bench.join(1, 1);
    bench.grow(growing(3));
    bench.grow(growing(4));
    bench.pass_ms(20);
    bench.pass_ms(500);
    bench.grow(growing(40));
    bench.pass_ms(60);
    bench.grow(Extent::sealed((40 << 10) + 1));
    bench.pass_ms(60);
    let (mut known, mut streamed, mut told) = (0, 0, [0; 2]);
    for transmit in &bench.sent {
        if let Some(object) = announced(transmit) {
            assert!(object.kind == ObjectKind::Stream && object.size >= known);
            known = object.size;
            told[0] += u32::from(known == 40 << 10);
            told[1] += u32::from(object.sealed);
        }
        if let Payload::Source { block, layout, ids, .. } = &transmit.payload {
            assert!(u64::from(block.0) << 10 < known, "{block:?} was not announced");
            assert!(ids.end <= layout.source_symbols(*block));
            streamed = streamed.max(block.0 + 1);
        }
    }
    assert_eq!(streamed, 41);
    assert!(told.iter().all(|&times| times >= 2), "{told:?}");
    assert!(bench.sender.root.is_some());
    bench.complete(1);
    bench.pass_ms(500);
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
}

#[test]
fn a_pause_longer_than_all_limits_ends_nothing() {
    let mut bench = stream();
    bench.join(1, 1);
    bench.grow(growing(5));
    bench.pass_ms(100);
    bench.nak(1, vec![]);
    let (sent, outputs) = (bench.sent.len(), bench.outputs);
    for second in 0..600 {
        // The group reaches it.
        let report = Progress { received: second + 2, ..any_report(5) };
        bench.hear(1, &Message::Progress(report));
        let from = bench.sent.len();
        bench.pass_ms(1000);
        let heard = bench.sent[from..].iter().filter_map(announced).count();
        assert!(heard >= 4, "{heard} announcements in second {second}");
    }
    assert!(SENDER_SILENCE < Duration::from_secs(600));
    // It polls, in case what was streamed last is lacking, and does not spin.
    assert!((bench.sent.len() - sent) < 600 * 20, "{}", bench.sent.len() - sent);
    assert!(bench.outputs - outputs < 600 * 25, "{}", bench.outputs - outputs);
    assert!(bench.outcome.is_none());
    assert_eq!(bench.sender.overview().phase, Phase::Streaming);
    let lacks = Deficit::Whole { first: BlockIndex(4), count: 1 };
    let from = bench.sent.len();
    bench.nak(1, vec![lacks]);
    bench.pass_ms(1000);
    let again = |t: &Transmit| matches!(t.payload, Payload::Source { block: BlockIndex(4), .. });
    assert!(bench.sent[from..].iter().any(again), "what was streamed so far is repaired");
    bench.report(1, 5);
    bench.grow(Extent::sealed(6 << 10));
    bench.pass_ms(100);
    assert_eq!(bench.sender.overview().phase, Phase::Repairing);
    bench.complete(1);
    bench.pass_ms(500);
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
}

#[test]
fn values_are_told_at_once_while_the_stream_rests() {
    let mut bench = stream();
    bench.join(1, 1);
    bench.grow(growing(3));
    bench.pass_ms(50);
    assert_eq!(bench.sender.stream.told, 3);
    bench.grow(growing(33));
    bench.pass_ms(50);
    assert_eq!(bench.sender.stream.told, 33);
    bench.grow(Extent::sealed((33 << 10) + 5));
    bench.pass_ms(50);
    assert_eq!((bench.sender.stream.told, bench.sender.values().map(|v| v.len())), (34, Some(34)));
}

#[test]
fn the_input_is_read_ahead_up_to_a_bound() {
    let blocks = MAX_READ_AHEAD >> 20;
    let mut bench = Bench::new(0, |config| {
        config.layout = Layout::of(Extent::default(), 20, 1408).unwrap();
        config.kind = ObjectKind::Stream;
    });
    let extent = |blocks: u64| Extent { size: blocks << 20, sealed: false };
    bench.grow(extent(blocks - 1));
    bench.grow(extent(blocks));
    bench.pass_ms(100);
    assert!(!bench.reading, "it waits for the stream");
    bench.join(1, 1);
    bench.pass_ms(100);
    assert!(bench.reading);
    // What is longer than an object can be is an error.
    bench.grow(extent(u64::from(MAX_BLOCKS) + 1));
    bench.pass_ms(500);
    assert!(matches!(bench.outcome, Some(SenderOutcome::SourceFailed(_))), "{:?}", bench.outcome);
}

#[test]
fn an_empty_stream_is_sealed_at_once() {
    let mut bench = stream();
    bench.grow(Extent::sealed(0));
    bench.join(1, 1);
    bench.pass_ms(500);
    bench.complete(1);
    bench.pass_ms(500);
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
}

#[test]
fn a_stream_whose_devices_have_gone_ends() {
    let mut bench = stream();
    bench.join(1, 1);
    bench.grow(growing(3));
    bench.pass_ms(50);
    bench.abort(1);
    bench.pass_ms(500);
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
}
