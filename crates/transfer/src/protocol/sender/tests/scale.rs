//! The cost of a crowd on the loop's thread, counted in accesses to devices and in outputs: the same for each device,
//! however many there are.

use super::*;
use crate::limits::FeedbackBudget;

/// Looks and outputs for each of `count` devices: as they join, and as they report and complete.
#[derive(Debug)]
struct Cost {
    join: (f64, f64),
    receipt: (f64, f64),
}

fn id(n: u32) -> DeviceId {
    DeviceId((u128::from(n) + 1).to_be_bytes())
}

fn address(n: u32) -> SocketAddr {
    SocketAddr::from(((0x0a00_0000 + n).to_be_bytes(), 4000))
}

fn play(count: u32) -> Cost {
    let mut bench = Bench::new(4, |config| {
        config.task.options.expected = Some(count);
        // Nobody is late: unicast repair costs what its bounded number of sessions costs.
        config.wait = Duration::from_secs(1000);
    });
    let announce = bench.sender.announced();
    let mut fakes = Vec::new();
    for n in 0..count {
        let mut random = [0x5a; 32];
        random[..4].copy_from_slice(&n.to_be_bytes());
        let mut fake = FakeDevice::new(&announce, random);
        for _ in 0..2 {
            bench.sent.clear();
            let bytes = fake.join(any_join(id(n), Holdings::Nothing));
            bench.take(address(n), bytes);
            for transmit in bench.sent.iter().filter(|transmit| transmit.to == address(n)) {
                if let Payload::Message(bytes) = &transmit.payload {
                    fake.hear(bytes);
                }
            }
        }
        fakes.push(fake);
        // As many as announces invite: 100 a second.
        bench.pass(Duration::from_millis(10));
    }
    assert_eq!(bench.sender.overview().devices.active, count as usize);
    let per_device = |figure: u64| figure as f64 / f64::from(count);
    let joins = (bench.sender.device_looks(), bench.outputs);
    bench.pass(Duration::from_millis(20));
    assert!(bench.sender.stream_done());
    let before = (bench.sender.device_looks(), bench.outputs);
    let root = bench.sender.root.unwrap();
    for n in 0..count {
        bench.sent.clear();
        // As few are left, they may not have been silent since they joined.
        let soon = (n + 100).min(count - 1);
        let report = fakes[soon as usize].seal_message(&any_report(1).into(), |_| ());
        bench.take(address(soon), report);
        let receipt = Complete::named(root, 1, 0);
        let bytes = fakes[n as usize].seal_message(&Message::Complete(receipt), |_| ());
        bench.take(address(n), bytes);
        bench.pass(Duration::from_millis(5));
    }
    bench.pass(Duration::from_millis(200));
    let receipts = (bench.sender.device_looks() - before.0, bench.outputs - before.1);
    assert_eq!(bench.sender.overview().devices.complete, count as usize);
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
    assert_eq!(bench.store.assignments(TASK).unwrap().len(), count as usize);
    assert!(bench.sender.devices.is_consistent());
    Cost {
        join: (per_device(joins.0), per_device(joins.1)),
        receipt: (per_device(receipts.0), per_device(receipts.1)),
    }
}

#[test]
fn ten_thousand_joins_and_receipts_cost_as_much_each_as_a_thousand() {
    let (few, many) = (play(1_000), play(10_000));
    println!("for each of 1,000: {few:.1?}; for each of 10,000: {many:.1?}");
    let pairs = [(few.join, many.join), (few.receipt, many.receipt)];
    for (few, many) in pairs.into_iter().flat_map(|(a, b)| [(a.0, b.0), (a.1, b.1)]) {
        assert!(many < few * 1.5 + 1.0 && many < 60.0, "{few} of a thousand, {many} of ten thousand");
    }
}

#[test]
fn devices_that_join_late_are_invited_as_few_at_a_time_as_the_others() {
    // A budget that has room for 25 summaries a second, and so for 12 answers to a poll.
    let mut bench = Bench::new(4, |config| {
        config.task.options.expected = Some(2);
        config.feedback = FeedbackBudget::announced(100);
    });
    (1..=2).for_each(|device| bench.join(device, 1));
    for _ in 0..20 {
        // The group's polls find that one device lacks nothing for a while.
        bench.report(1, 1);
        bench.pass(Duration::from_millis(500));
    }
    bench.complete(2);
    assert!(bench.sender.stream_done() && bench.sender.group_is_busy());
    (3..=102).for_each(|device| bench.join(device, 1));
    let round = bench.sender.group.round_number;
    while bench.sender.group.round_number == round {
        bench.pass(Duration::from_millis(10));
    }
    let invited = bench.sender.rounds.probability * 101.0;
    assert!(invited <= 13.0, "{invited:.1} of 101 devices");
}

#[test]
fn the_budget_follows_the_line_and_the_cores() {
    let of = |mbit: u64, cores| FeedbackBudget::of(Rate(mbit * 1_000_000), cores).per_second();
    assert_eq!([of(1, 2), of(20, 2), of(100, 2), of(1_000, 2)], [1_000, 1_000, 5_000, 10_000]);
    assert_eq!([of(1_000, 1), of(20, 1)], [5_000, 1_000]);
    // While devices join, what the line may carry counts; then what it does carry.
    let most = FeedbackBudget::of(Rate(1_000_000_000), 4);
    let mut bench = Bench::new(4, |config| {
        config.rate = RateMode::Fixed(Rate(50_000_000));
        config.task.options.expected = None;
        config.settle = Duration::from_secs(10);
        config.feedback = most;
    });
    assert_eq!(bench.sender.announced().feedback_budget, 10_000);
    (1..=101).for_each(|device| bench.join(device, 1));
    bench.sender.handle_control(bench.now, Control::StartNow);
    bench.drain();
    assert_eq!(bench.sender.announced().feedback_budget, 2_500);
    // Few devices need no more than the least.
    bench.complete(1);
    assert_eq!(bench.sender.announced().feedback_budget, 1_000);
    // A flood gets as many agreements as crowds need, and no more.
    assert_eq!([most.agreements(), FeedbackBudget::DEFAULT.agreements()], [2_000, 1_000]);
}
