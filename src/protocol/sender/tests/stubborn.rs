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
        if n % 20 == 0 {
            bench.nak(2 + (n / 20 % 3) as u8, vec![lacks(0, 1, &[(1, 1)])]);
        }
        if round > 0 {
            let largest_received = PacketNumber::new(ChannelId::GROUP, bench.next_number() - 1);
            let (round, pages) = (lies(round), vec![]);
            let deficits = vec![lacks(0, 1, &[(1, 1)])];
            let nak = Nak { round, largest_received, ack_delay_us: 0, incomplete: 1, pages, deficits };
            bench.hear(1, &Message::Nak(nak));
        }
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
