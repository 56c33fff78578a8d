//! Devices that keep the others, or the sender, waiting.

use super::*;

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
