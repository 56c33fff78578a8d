//! The cost of a crowd on the loop's thread, counted in accesses to devices and in outputs: the same for each device,
//! however many there are.

use super::*;

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
