//! A stream of which only the last blocks are kept.

use super::*;
use crate::pack::Recipe;
use crate::protocol::sender::service::Unlike;
use crate::protocol::sender::window::PATIENCE;
use crate::units::Extent;
use crate::wire::{self, AdmitVerdict, ObjectKind};

fn windowed(slow: SlowPolicy) -> Bench {
    Bench::new(0, |config| {
        config.layout = Layout::of(Extent::default(), 10, 64).unwrap();
        config.kind = ObjectKind::Stream;
        config.window = Some(8);
        config.repair.slow = slow;
        config.task.options.expected = Some(2);
    })
}

impl Bench {
    /// The input gives block after block for as long as the sender asks. Returns how many there are then.
    fn read_on(&mut self) -> u32 {
        loop {
            let blocks = self.sender.config.layout.block_count();
            if !std::mem::take(&mut self.reading) {
                return blocks;
            }
            let extent = Extent { size: u64::from(blocks + 1) << 10, sealed: false };
            self.sender.handle_job_done(self.now, SenderDone::Grown(extent));
            self.drain();
            self.pass(Duration::from_millis(20));
        }
    }

    /// A device has verified the blocks below this.
    fn has(&mut self, device: u8, below: u32) {
        let report = Progress { below: BlockIndex(below), received: self.now.0, ..any_report(below) };
        self.hear(device, &Message::Progress(report));
        self.pass(Duration::from_millis(20));
    }

    fn verdict(&self, device: u8, run: u64) -> Option<AdmitVerdict> {
        Some(self.runs[&(device, run)].admit.as_ref()?.verdict)
    }

    fn repaired(&self, from: usize, block: u32) -> bool {
        let of_block = |t: &Transmit| match &t.payload {
            Payload::Source { block: of, .. } | Payload::Repair { block: of, .. } => of.0 == block,
            _ => false,
        };
        self.sent[from..].iter().any(of_block)
    }
}

#[test]
fn a_block_goes_once_all_devices_have_it_and_its_room_is_needed() {
    let mut bench = windowed(SlowPolicy::Defer);
    // Seven blocks, and the beginning of one more.
    assert_eq!(bench.read_on(), 7);
    bench.join(1, 1);
    bench.join(2, 1);
    bench.pass(Duration::from_millis(100));
    assert_eq!((bench.sender.stream.position, bench.read_on()), (7, 7));
    bench.has(1, 7);
    assert_eq!(bench.read_on(), 7, "the other one lacks all");
    bench.has(2, 3);
    assert_eq!((bench.read_on(), bench.sender.window.floor()), (10, 3));
    assert_eq!(bench.sender.window.unused(), 3);
    // A late summary asks for what is gone, and for what is there.
    let from = bench.sent.len();
    bench.nak(2, [2, 3].map(|block| lacks(block, 1, &[(1, 1)])).into());
    bench.pass(Duration::from_millis(500));
    assert!(bench.repaired(from, 3) && !bench.repaired(from, 2));
    // A lower figure is an older one.
    bench.has(2, 1);
    assert_eq!(bench.state(2), State::Active);
    bench.has(1, 10);
    bench.has(2, 10);
    assert_eq!(bench.read_on(), 17);
}

#[test]
fn a_block_that_a_job_reads_keeps_its_room() {
    let mut bench = windowed(SlowPolicy::Defer);
    bench.join(1, 1);
    bench.join(2, 1);
    let (block, layout) = (BlockIndex(1), bench.sender.config.layout);
    assert_eq!(bench.read_on(), 7);
    bench.sender.window.begun(&SenderJob::Digest { block, layout, recipe: Recipe::raw(16), value: None });
    bench.has(1, 7);
    bench.has(2, 7);
    // The blocks 0 and 1 are needed by nobody else.
    assert_eq!(bench.read_on(), 8);
    bench.sender.handle_job_done(bench.now, SenderDone::Digested(block, Vec::new()));
    bench.drain();
    bench.pass(Duration::from_millis(20));
    assert_eq!(bench.read_on(), 14);
}

#[test]
fn a_device_that_comes_when_the_beginning_is_gone_is_turned_away() {
    let mut bench = windowed(SlowPolicy::Defer);
    bench.join(1, 1);
    bench.join(2, 1);
    bench.join(3, 1);
    bench.read_on();
    for device in 1..=3 {
        bench.has(device, 7);
    }
    assert!(bench.read_on() > 7 && bench.sender.window.floor() > 0);
    bench.join(4, 1);
    assert_eq!(bench.verdict(4, 1), Some(AdmitVerdict::TooLate));
    // A device that was restarted has nothing, and holds nobody up.
    bench.pass(Duration::from_secs(3));
    bench.join(3, 2);
    assert_eq!(bench.verdict(3, 2), Some(AdmitVerdict::TooLate));
    assert!(matches!(bench.state(3), State::Failed(_)) && bench.sender.devices.len() == 3);
    let blocks = bench.read_on();
    bench.has(1, blocks);
    bench.has(2, blocks);
    assert!(bench.read_on() > blocks);
}

#[test]
fn the_beginning_is_kept_for_a_device_that_the_store_is_still_asked_about() {
    for window in [Some(8), None] {
        let mut bench = Bench::new(0, |config| {
            config.layout = Layout::of(Extent::default(), 10, 64).unwrap();
            config.kind = ObjectKind::Stream;
            config.window = window;
            config.wait = Duration::from_secs(5);
            config.task.options.expected = Some(3);
        });
        bench.join(1, 1);
        bench.pass(Duration::from_secs(4));
        bench.store_is = StoreIs::Failing;
        bench.join(2, 1);
        bench.pass(Duration::from_secs(2));
        // Without a window, the device loses nothing.
        let expected = if window.is_some() { Phase::Gathering } else { Phase::Streaming };
        assert_eq!(bench.sender.phase, expected, "{window:?}");
        bench.store_is = StoreIs::Sound;
        bench.pass(Duration::from_secs(6));
        assert_eq!((bench.sender.phase, bench.sender.devices.len()), (Phase::Streaming, 2));
        bench.report(1, 0);
        assert_eq!((bench.state(1), bench.state(2)), (State::Active, State::Active));
    }
}

#[test]
fn a_slow_device_is_served_while_the_stream_stands_still() {
    let mut bench = windowed(SlowPolicy::Defer);
    bench.join(1, 1);
    bench.join(2, 1);
    bench.read_on();
    let index = bench.sender.devices.index_of(id(2)).unwrap();
    bench.sender.devices.get_mut(index).move_to_unicast(Unlike::Slow);
    bench.has(1, 7);
    bench.has(2, 3);
    // Three blocks more are read, and device 2 lacks the next that has to go.
    assert_eq!(bench.read_on(), 10);
    bench.has(1, 10);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.state(2), State::Active);
    assert_eq!(bench.sender.unicast_repairs, [index]);
}

#[test]
fn a_device_that_lets_the_stream_stand_still_fails_alone() {
    for (slow, seconds) in [(SlowPolicy::Defer, 30), (SlowPolicy::Keep, 30)] {
        let mut bench = windowed(slow);
        bench.join(1, 1);
        bench.join(2, 1);
        bench.read_on();
        let begun = bench.now;
        let mut below = 1;
        while bench.state(2) == State::Active && bench.now.since(begun) < Duration::from_secs(seconds) {
            let blocks = bench.read_on();
            bench.has(1, blocks);
            // It has a block more every two seconds.
            below = 1 + (bench.now.since(begun).as_secs() / 2) as u32;
            bench.has(2, below);
            bench.pass(Duration::from_millis(200));
        }
        assert_eq!(bench.state(1), State::Active);
        if slow == SlowPolicy::Keep {
            assert_eq!(bench.state(2), State::Active);
            continue;
        }
        let State::Failed(why) = bench.state(2) else { panic!("{below}: {:?}", bench.state(2)) };
        assert!(why.contains("--window"), "{why}");
        let took = bench.now.since(begun);
        assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
        // The others go on, and it is told again when it speaks.
        let blocks = bench.read_on();
        bench.has(1, blocks);
        assert!(bench.read_on() > blocks);
        let from = bench.sent.len();
        bench.has(2, below);
        assert!(bench.sent.len() > from);
        assert_eq!(bench.state(1), State::Active);
    }
}

#[test]
fn without_a_device_nothing_stands_in_the_way() {
    let mut bench = windowed(SlowPolicy::Defer);
    bench.join(1, 1);
    bench.join(2, 1);
    bench.read_on();
    for device in [1, 2] {
        let reason = "disk full".to_owned();
        bench.hear(device, &Message::Abort(wire::Abort { code: AbortCode::Disk, reason }));
    }
    bench.pass(Duration::from_secs(3));
    assert!(bench.outcome.is_some() || bench.sender.window.floor() > 0);
}
