//! Who devices are: their keys, the list of those that a task is for, keys seen before.

use super::*;
use crate::crypto::sign::SigningKey;
use crate::limits::MAX_TOLD_NOT_LISTED;
use crate::task::{DeviceList, Listed};
use crate::units::DeviceKey;
use crate::wire::{AdmitVerdict, DeviceProof, Join};

fn signing_key(n: u8) -> SigningKey {
    sham::signing_key(1_000 + u64::from(n))
}

fn key(n: u8) -> DeviceKey {
    DeviceKey::of(&signing_key(n))
}

/// Identifier of a row of the list.
fn row_id(n: u8) -> DeviceId {
    DeviceId([0xa0 + n; 16])
}

/// `lab-1` by its key, `lab-2` by its name.
fn list() -> DeviceList {
    let mut list = DeviceList::default();
    list.add(Listed { device: row_id(1), name: "lab-1".into(), key: Some(key(1)) }).unwrap();
    list.add(Listed { device: row_id(2), name: "lab-2".into(), key: None }).unwrap();
    list
}

fn listed(change: impl FnOnce(&mut SenderConfig)) -> Bench {
    Bench::new(4, |config| {
        config.task.options.expected = None;
        config.task.options.devices = Some(list());
        config.wait = Duration::from_secs(100);
        change(config);
    })
}

/// A device joins under a label, and shows what `proof` makes; the verdict, if there is one.
fn join_showing(
    bench: &mut Bench,
    (device, run, at): (u8, u64, SocketAddr),
    label: &str,
    proof: impl Fn(&FakeDevice) -> Option<DeviceProof>,
) -> Option<AdmitVerdict> {
    let from = bench.sent.len();
    bench.send_join(device, run, at);
    bench.answered(device, run, at, from);
    let fake = bench.runs.get_mut(&(device, run)).unwrap();
    fake.admit = None;
    let proof = proof(fake);
    let bytes = fake.join(Join { label: label.into(), proof, ..any_join(id(device), Holdings::Nothing) });
    let from = bench.sent.len();
    bench.take(at, bytes);
    bench.answered(device, run, at, from);
    bench.current.insert(device, run);
    bench.runs[&(device, run)].admit.as_ref().map(|admit| admit.verdict)
}

fn join_as(bench: &mut Bench, device: u8, run: u64, label: &str, shown: Option<u8>) -> Option<AdmitVerdict> {
    join_showing(bench, (device, run, address(device)), label, |fake| {
        shown.map(|n| fake.proof(&signing_key(n), id(device)))
    })
}

fn rows(bench: &Bench) -> Vec<(DeviceId, String, &'static str)> {
    let rows = bench.sender.snapshot(bench.now).devices;
    rows.iter().map(|row| (row.assignment.device, row.assignment.label.clone(), row.word())).collect()
}

fn count(bench: &Bench, which: impl Fn(&SenderEvent) -> bool) -> usize {
    bench.told.iter().filter(|event| which(event)).count()
}

fn refusals(bench: &Bench) -> Vec<(&str, Option<DeviceKey>, bool)> {
    let mut refusals = Vec::new();
    for event in &bench.told {
        if let SenderEvent::NotListed { label, key, named, .. } = event {
            refusals.push((label.as_str(), *key, *named));
        }
    }
    refusals
}

const ADMITTED: Option<AdmitVerdict> = Some(AdmitVerdict::Admitted);
const NOT_LISTED: Option<AdmitVerdict> = Some(AdmitVerdict::NotListed);

#[test]
fn only_listed_devices_are_let_in_and_all_of_them_start_the_stream() {
    let mut bench = listed(|_| ());
    let missing = |n| (row_id(n), format!("lab-{n}"), "missing");
    assert_eq!(rows(&bench), [missing(1), missing(2)]);
    let told = count(&bench, |event| matches!(event, SenderEvent::Device(row) if row.is_missing()));
    assert_eq!(
        (told, bench.store.assignments(TASK).unwrap().len()),
        (2, 2),
        "the store has them from the start"
    );
    // The name with no key, with another one, and the other names.
    assert_eq!(join_as(&mut bench, 1, 1, "lab-1", None), NOT_LISTED);
    assert_eq!(join_as(&mut bench, 1, 2, "lab-1", Some(9)), NOT_LISTED);
    assert_eq!(join_as(&mut bench, 3, 1, "lab-3", Some(3)), NOT_LISTED);
    assert_eq!(refusals(&bench), [("lab-1", None, true), ("lab-3", Some(key(3)), false)], "each once");
    assert_eq!((bench.sender.devices.len(), bench.sender.overview().present()), (0, 0));
    assert_eq!(rows(&bench), [missing(1), missing(2)]);
    // The true one, which calls itself otherwise.
    assert_eq!(join_as(&mut bench, 4, 1, "localhost", Some(1)), ADMITTED);
    assert_eq!(bench.sender.phase, Phase::Gathering);
    let overview = bench.sender.overview();
    assert_eq!(
        (overview.expected, overview.wanted(), overview.present(), overview.missing),
        (Some(2), 2, 1, 1)
    );
    assert_eq!(join_as(&mut bench, 5, 1, "lab-2", Some(5)), ADMITTED);
    bench.pass(Duration::from_millis(5));
    assert!(bench.sender.phase != Phase::Gathering, "all are there");
    bench.complete(4);
    bench.complete(5);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
    let complete = |n| (row_id(n), format!("lab-{n}"), "complete");
    assert_eq!(rows(&bench), [complete(1), complete(2)]);
    let kept = bench.store.assignments(TASK).unwrap();
    assert!(kept.len() == 2 && kept.iter().all(|kept| kept.is_complete() && kept.attempts == 1));
}

/// A host that invents devices and sends receipts for them.
#[test]
fn invented_devices_neither_start_nor_end_a_session_with_a_list() {
    let mut bench = listed(|config| config.wait = Duration::from_secs(20));
    for device in 10..=200 {
        let label = if device % 2 == 0 { "lab-1".to_owned() } else { format!("intruder-{device}") };
        let shown = (device % 3 > 0).then_some(device);
        assert_eq!(join_as(&mut bench, device, 1, &label, shown), NOT_LISTED);
        bench.pass(Duration::from_millis(40));
    }
    assert_eq!(refusals(&bench).len(), MAX_TOLD_NOT_LISTED);
    assert_eq!((bench.sender.devices.len(), bench.sender.phase), (0, Phase::Gathering));
    // A listed one comes, and is served when the time to gather is over.
    assert_eq!(join_as(&mut bench, 1, 1, "x", Some(1)), ADMITTED);
    bench.pass_reporting(15, &[(1, 0)]);
    assert!(bench.sender.phase != Phase::Gathering);
    assert_eq!(join_as(&mut bench, 9, 1, "lab-1", Some(9)), NOT_LISTED);
    bench.complete(1);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
    let kept = bench.store.assignments(TASK).unwrap();
    let states: Vec<_> = kept.iter().map(|kept| (kept.device, kept.state().word())).collect();
    assert_eq!(states, [(row_id(1), "complete"), (row_id(2), "pending")]);
}

#[test]
fn those_that_never_come_are_named_as_missing() {
    // Nobody comes.
    let mut bench = listed(|config| config.wait = Duration::from_secs(3));
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
    assert_eq!(rows(&bench).iter().map(|row| row.2).collect::<Vec<_>>(), ["missing", "missing"]);
    // One does.
    let mut bench = listed(|config| config.wait = Duration::from_secs(3));
    assert_eq!(join_as(&mut bench, 2, 1, "lab-2", None), ADMITTED);
    bench.pass_reporting(3, &[(2, 0)]);
    bench.pass(Duration::from_millis(5));
    bench.complete(2);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
    let word = |bench: &Bench, n| rows(bench).into_iter().find(|row| row.0 == row_id(n)).map(|row| row.2);
    assert_eq!((word(&bench, 1), word(&bench, 2)), (Some("missing"), Some("complete")));
    let overview = bench.sender.overview();
    assert_eq!((overview.devices.complete, overview.missing, overview.wanted()), (1, 1, 2));
}

#[test]
fn the_list_is_recorded_as_soon_as_the_store_answers() {
    let mut bench = listed(|_| ());
    assert!(bench.sender.is_recorded());
    let mut silent =
        Bench::with_store(StoreIs::Failing, 4, |config| config.task.options.devices = Some(list()));
    assert!(!silent.sender.is_recorded() && silent.sender.recorded_assignments().is_empty());
    assert_eq!(rows(&silent), rows(&bench), "they are shown all the same");
    silent.store_is = StoreIs::Sound;
    silent.pass(Duration::from_secs(1));
    assert!(silent.sender.is_recorded());
    assert_eq!(silent.sender.recorded_assignments(), list().assignments(TASK));
    // One that joins before the store has it is recorded as it is.
    assert_eq!(join_as(&mut bench, 2, 1, "lab-2", None), ADMITTED);
    let recorded = bench.sender.recorded_assignments();
    assert_eq!(recorded.iter().map(|row| row.attempts).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_proof_for_anything_else_is_no_proof() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
    let announce = bench.sender.announced();
    let elsewhere = FakeDevice::new(&announce, [99; 32]);
    let proofs: [&dyn Fn(&FakeDevice) -> DeviceProof; 4] = [
        &|fake| fake.proof(&signing_key(1), id(2)),
        &|_| elsewhere.proof(&signing_key(1), id(1)),
        &|fake| DeviceProof { key: key(2), ..fake.proof(&signing_key(1), id(1)) },
        &|fake| DeviceProof { signature: [7; 64], ..fake.proof(&signing_key(1), id(1)) },
    ];
    for (run, proof) in (1..).zip(proofs) {
        let verdict = join_showing(&mut bench, (1, run, address(1)), "d", |fake| Some(proof(fake)));
        assert_eq!((verdict, bench.sender.devices.len()), (None, 0), "{run}");
    }
    assert_eq!(join_as(&mut bench, 1, 9, "d", Some(1)), ADMITTED);
    let shown =
        count(&bench, |event| matches!(event, SenderEvent::Joined { key: Some(own), .. } if *own == key(1)));
    assert_eq!(shown, 1);
}

#[test]
fn a_key_that_has_changed_is_told_once() {
    let known = [(id(1), key(1)), (id(2), key(2)), (id(3), key(3)), (row_id(1), key(7))];
    let mut bench = Bench::new(4, |config| {
        config.task.options.expected = Some(9);
        config.known_devices = known.into();
    });
    let changes = |bench: &Bench| {
        let change = |event: &SenderEvent| match event {
            SenderEvent::DeviceKeyChanged { device, key, before, .. } => Some((*device, *key, *before)),
            _ => None,
        };
        bench.told.iter().filter_map(change).collect::<Vec<_>>()
    };
    assert_eq!(join_as(&mut bench, 1, 1, "d", Some(1)), ADMITTED);
    assert_eq!(join_as(&mut bench, 4, 1, "d", Some(4)), ADMITTED);
    assert_eq!(changes(&bench), [], "the same, and a new one");
    assert_eq!(join_as(&mut bench, 2, 1, "d", Some(9)), ADMITTED, "it is served all the same");
    assert_eq!(join_as(&mut bench, 3, 1, "d", None), ADMITTED);
    let expected = [(id(2), Some(key(9)), key(2)), (id(3), None, key(3))];
    assert_eq!(changes(&bench), expected);
    // Another run of it is not compared again.
    bench.pass(Duration::from_secs(3));
    assert_eq!(join_as(&mut bench, 2, 2, "d", Some(9)), ADMITTED);
    assert_eq!(changes(&bench), expected);
    // An enrolled key needs none from before.
    let mut bench = listed(|config| config.known_devices = known.into());
    assert_eq!(join_as(&mut bench, 1, 1, "d", Some(1)), ADMITTED);
    assert_eq!(changes(&bench), []);
}

#[test]
fn a_silent_devices_row_is_for_its_own_key() {
    // (shown, from elsewhere): rows after a few joins. The former run has been silent for three seconds.
    for (shown, elsewhere, rows) in
        [(Some(1), false, 1), (Some(1), true, 1), (Some(9), false, 2), (None, false, 2), (Some(9), true, 2)]
    {
        let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
        assert_eq!(join_as(&mut bench, 1, 1, "d", Some(1)), ADMITTED);
        bench.pass(Duration::from_secs(3));
        let at = if elsewhere { address(60) } else { address(1) };
        for _ in 0..2 {
            join_showing(&mut bench, (1, 2, at), "d", |fake| {
                shown.map(|n| fake.proof(&signing_key(n), id(1)))
            });
        }
        assert_eq!(bench.sender.devices.len(), rows, "{shown:?} {elsewhere}");
    }
    // Two that show one key are clones, if the first goes on speaking or has nothing left to do.
    for completes in [true, false] {
        let mut bench = Bench::new(4, |config| {
            config.task.options.expected = Some(2);
            config.linger = Duration::from_secs(60);
        });
        assert_eq!(join_as(&mut bench, 1, 1, "d", Some(1)), ADMITTED);
        bench.join(2, 1);
        bench.pass(Duration::from_millis(500));
        if completes {
            bench.complete(1);
        }
        for _ in 0..4 {
            bench.current.insert(1, 1);
            bench.report(1, 0);
            join_showing(&mut bench, (1, 2, address(60)), "d", |fake| {
                Some(fake.proof(&signing_key(1), id(1)))
            });
            bench.pass(Duration::from_millis(400));
        }
        assert_eq!(bench.sender.devices.len(), 3, "complete: {completes}");
        // A clone's key is not kept for the identifier that it has in this session alone.
        let own = |event: &SenderEvent| matches!(event, SenderEvent::Joined { key: Some(_), .. });
        assert_eq!(count(&bench, own), 1);
    }
}

#[test]
fn a_clone_that_joins_while_the_first_device_is_silent_gets_a_row_of_its_own() {
    // (silence, from another address): for a moment, for longer than a restart takes, and until the device is lost.
    for (silence, elsewhere) in [(0, true), (3, false), (3, true), (15, false), (15, true)] {
        let mut bench = Bench::new(4, |config| {
            config.task.options.expected = Some(9);
            config.wait = Duration::from_secs(100);
        });
        assert_eq!(join_as(&mut bench, 1, 1, "d", Some(1)), ADMITTED);
        bench.hear(1, &Message::Progress(Progress { ticket_kept: true, ..any_report(0) }));
        bench.pass(Duration::from_secs(silence));
        let at = if elsewhere { address(60) } else { address(1) };
        let clone =
            join_showing(&mut bench, (1, 2, at), "d", |fake| Some(fake.proof(&signing_key(1), id(1))));
        assert_eq!(clone, ADMITTED);
        assert_eq!(bench.sender.devices.len(), 2, "{silence} s, {elsewhere}");
        let told = |event: &&SenderEvent| matches!(event, SenderEvent::DuplicateId { .. });
        assert_eq!(bench.told.iter().filter(told).count(), 1);
        // The first one was only out of reach. Both are served, and each row says what became of its device.
        bench.current.insert(1, 1);
        bench.report(1, 0);
        let first = bench.sender.snapshot(bench.now).devices;
        assert!(first.iter().all(|row| !row.assignment.state().is_final()), "{silence} s, {elsewhere}");
        bench.sender.handle_control(bench.now, Control::StartNow);
        bench.drain();
        bench.complete(1);
        bench.current.insert(1, 2);
        let root = bench.sender.root.unwrap();
        let receipt = bench.run(1).seal_message(&Complete::named(root, 1, 0).into(), |_| ());
        bench.take(at, receipt);
        bench.pass(Duration::from_secs(1));
        let rows = bench.sender.snapshot(bench.now).devices;
        assert!(rows.iter().all(|row| row.assignment.is_complete()), "{silence} s, {elsewhere}");
        assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
    }
}

#[test]
fn a_ticket_is_worth_nothing_with_another_key() {
    for (shown, rows) in [(1, 1), (9, 2)] {
        let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
        assert_eq!(join_as(&mut bench, 1, 1, "d", Some(1)), ADMITTED);
        let ticket = bench.runs[&(1, 1)].admit.as_ref().and_then(|admit| admit.ticket);
        let from = bench.sent.len();
        bench.send_join(1, 2, address(1));
        bench.answered(1, 2, address(1), from);
        let fake = bench.runs.get_mut(&(1, 2)).unwrap();
        let proof = Some(fake.proof(&signing_key(shown), id(1)));
        let bytes = fake.join(Join { ticket, proof, ..any_join(id(1), Holdings::Nothing) });
        bench.take(address(1), bytes);
        assert_eq!(bench.sender.devices.len(), rows, "{shown}");
    }
}

/// The list has one row for a device, with its ticket or without.
#[test]
fn a_listed_device_that_has_lost_its_ticket_is_known_by_its_key_once_it_is_silent() {
    let mut bench = listed(|_| ());
    assert_eq!(join_as(&mut bench, 1, 1, "x", Some(1)), ADMITTED);
    bench.hear(1, &Message::Progress(Progress { ticket_kept: true, ..any_report(0) }));
    bench.pass(Duration::from_secs(3));
    assert_eq!(join_as(&mut bench, 1, 2, "x", Some(1)), ADMITTED);
    assert_eq!((bench.sender.devices.len(), rows(&bench).len()), (1, 2));
}

#[test]
fn a_second_device_of_a_listed_name_is_turned_away() {
    let mut bench = listed(|_| ());
    assert_eq!(join_as(&mut bench, 2, 1, "lab-2", None), ADMITTED);
    assert_eq!(join_as(&mut bench, 3, 1, "lab-2", None), NOT_LISTED);
    assert_eq!(count(&bench, |event| matches!(event, SenderEvent::DuplicateId { .. })), 1);
    assert_eq!((bench.sender.devices.len(), rows(&bench).len()), (1, 2));
}
