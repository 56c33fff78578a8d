//! Devices that keep the others, or the sender, waiting.

use super::*;

/// Whether a device fails by the size of the datagrams, of which it gets one in `one_in`, while forged packet numbers
/// make it count any number as lost.
fn fails_by_size(size: u16, one_in: u64) -> bool {
    let mut bench = Bench::new(0, |config| {
        config.layout = Layout::new(64 << 20, 20, size).unwrap();
        config.task.options.expected = Some(2);
    });
    bench.join(1, 1);
    bench.join(2, 1);
    for _ in 0..30 {
        bench.pass(Duration::from_millis(100));
        let sent = bench.next_number();
        for (device, received) in [(1, sent), (2, sent / one_in)] {
            let report = Progress { lost: 1 << 18, received, ..any_report(0) };
            bench.hear(device, &Message::Progress(report));
        }
    }
    assert!(bench.next_number() > 1_000, "{}", bench.next_number());
    assert_eq!(bench.state(1), State::Active);
    let State::Failed(why) = bench.state(2) else { return false };
    assert!(why.contains("--symbol-size 1408"), "{why}");
    true
}

#[test]
fn a_device_whose_path_does_not_carry_large_datagrams_fails_and_the_reason_says_so() {
    assert!(fails_by_size(8896, 30));
    assert!(!fails_by_size(8896, 20));
    assert!(!fails_by_size(1408, 30), "these are not large");
    assert!(!fails_by_size(8896, u64::MAX), "the group does not reach it at all");
}

/// The group's round-trip time, with one device of four that answers as `lies` says, and others that lack
/// something now and then.
fn round_trip(lies: impl Fn(u32) -> u32) -> Duration {
    let mut bench = Bench::new(20_000, |config| {
        config.task.options.expected = Some(4);
        config.rate = RateMode::Fixed(Rate(2_000_000));
    });
    (1..=4).for_each(|device| bench.join(device, 1));
    for n in 0..2_000 {
        bench.pass(Duration::from_millis(10));
        let round = bench.sender.group.round_number;
        let Some(polled) = bench.sender.group.poll_sent(round) else { continue };
        let largest_received = PacketNumber::new(ChannelId::GROUP, bench.next_number() - 1);
        let nak = |round, ack_delay: Duration| Nak {
            round,
            largest_received,
            ack_delay_us: ack_delay.as_micros() as u32,
            incomplete: 1,
            pages: vec![],
            deficits: vec![lacks(0, 1, &[(1, 1)])],
        };
        if n % 20 == 0 {
            // They are five milliseconds away.
            let ack_delay = bench.now.since(polled).saturating_sub(Duration::from_millis(5));
            bench.hear(2 + (n / 20 % 3) as u8, &Message::Nak(nak(round, ack_delay)));
        }
        bench.hear(1, &Message::Nak(nak(lies(round), Duration::ZERO)));
    }
    assert!(bench.sender.group.round_number > 30, "{} rounds", bench.sender.group.round_number);
    bench.sender.rounds.grtt
}

#[test]
fn one_device_does_not_slow_the_groups_rounds_down() {
    for (what, lies) in [
        ("old rounds", (|round: u32| round.saturating_sub(20).max(1)) as fn(u32) -> u32),
        ("none", |round| round),
    ] {
        let grtt = round_trip(lies);
        assert!(grtt < Duration::from_millis(150), "{what}: {grtt:?}");
    }
}

/// A sender whose stream is over, with the devices in it. Device 1 lacks all.
fn after_the_stream(devices: u8, change: impl FnOnce(&mut SenderConfig)) -> Bench {
    let mut bench = Bench::new(4_000, |config| {
        config.task.options.expected = Some(devices.into());
        change(config);
    });
    (1..=devices).for_each(|device| bench.join(device, 1));
    while !bench.sender.stream_done() {
        bench.pass(Duration::from_millis(50));
    }
    bench
}

/// Device 1 asks for all it lacks twice a second; once in 59 seconds it lacks one symbol less, or has one block more.
/// For how long it is served.
fn served(bench: &mut Bench, blocks: bool) -> Duration {
    let began = bench.now;
    let index = bench.sender.devices.index_of(id(1)).unwrap();
    for n in 0..40_000_u32 {
        let gains = n / 118;
        if n % 2 == 0 {
            bench.report(1, if blocks { gains } else { 0 });
        }
        let lacking = if blocks { 3_999 } else { 3_999 - gains / K };
        let last = (K - if blocks { 0 } else { gains % K }) as u16;
        let channel = bench.sender.device_channel(index);
        let (round, number) = (channel.round_number, channel.next_counter());
        let of_group = bench.sender.devices.get(index).service.answers_group() || number == 0;
        let number = if of_group {
            PacketNumber::new(ChannelId::GROUP, bench.next_number() - 1)
        } else {
            PacketNumber::new(ChannelId::of_device(index), number - 1)
        };
        let whole = Deficit::Whole { first: BlockIndex(0), count: lacking };
        let nak = Nak {
            round: if of_group { bench.sender.group.round_number } else { round },
            largest_received: number,
            ack_delay_us: 0,
            incomplete: 4_000,
            pages: vec![],
            deficits: vec![whole, lacks(lacking, last, &[])],
        };
        bench.hear(1, &Message::Nak(nak));
        bench.pass(Duration::from_millis(500));
        bench.sent.clear();
        if bench.state(1).is_final() {
            return bench.now.since(began);
        }
    }
    panic!("it is served still after {:?}", bench.now.since(began));
}

#[test]
fn progress_is_proportionate_to_what_is_sent() {
    for blocks in [false, true] {
        let mut bench = after_the_stream(2, |_| {});
        bench.complete(2);
        let time = served(&mut bench, blocks);
        assert!(time < Duration::from_secs(180), "blocks {blocks}: {time:?}");
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
    }
}

#[test]
fn whoever_starts_again_all_the_time_is_not_served_for_ever() {
    let mut bench = after_the_stream(2, |_| {});
    bench.complete(2);
    let mut ended = None;
    // Never silent for long enough to be lost, it has one block more every 54 seconds, and starts again every ten minutes.
    for minute in 0..60 * 24 {
        if minute > 0 && minute % 10 == 0 {
            bench.join(1, 12 + minute / 10);
        }
        for _ in 0..6 {
            bench.report(1, (minute % 10) as u32);
            bench.pass(Duration::from_secs(9));
            bench.sent.clear();
        }
        if bench.outcome.is_some() {
            ended = Some(minute);
            break;
        }
    }
    // Not before: it might be slow.
    assert!(
        ended.is_some_and(|minute| (60 * 3..60 * 5).contains(&minute)),
        "{ended:?}: {:?}",
        bench.state(1)
    );
}

#[test]
fn lingering_lasts_as_long_as_was_asked_for() {
    let mut bench = after_the_stream(1, |config| config.linger = Duration::from_secs(60));
    bench.complete(1);
    let over = bench.now + Duration::from_secs(60);
    // Devices that somebody invents come and complete one after the other.
    for device in 2..100 {
        if bench.outcome.is_none() {
            bench.join(device, 1);
        }
        if bench.outcome.is_none() && bench.sender.devices.index_of(id(device)).is_some() {
            bench.complete(device);
        }
        bench.pass(Duration::from_secs(2));
        if bench.outcome.is_some() {
            break;
        }
    }
    assert!(bench.outcome.is_some() && bench.now <= over + Duration::from_secs(5), "{:?}", bench.now);
}

#[test]
fn when_the_time_is_up_everything_ends() {
    let minute = Duration::from_secs(60);
    let mut bench = after_the_stream(3, |config| config.max_time = Some(minute));
    bench.complete(2);
    bench.pass_reporting(58, &[(1, 5), (3, 5)]);
    assert_eq!(bench.outcome, None);
    bench.pass_reporting(4, &[(1, 6), (3, 6)]);
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
    let failed = State::Failed("the transfer's time was up".into());
    assert_eq!((bench.state(1), bench.state(2)), (failed.clone(), State::Complete));
    assert_eq!(bench.kept(3), Some(failed));
    // Nobody has come, or all are done: then it is no different from any other end.
    let mut bench = Bench::new(4, |config| {
        (config.max_time, config.wait) = (Some(minute), minute * 10);
    });
    bench.pass(minute * 2);
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
    let mut bench =
        after_the_stream(1, |config| (config.max_time, config.linger) = (Some(minute), minute * 10));
    bench.complete(1);
    bench.pass(minute * 2);
    assert_eq!((bench.outcome.clone(), bench.state(1)), (Some(SenderOutcome::Ended), State::Complete));
}
