//! Devices of other programs: agreed versions and capabilities, and what the sender does not understand.

use super::*;
use crate::wire::{AdmitVerdict, Capabilities, Join, Versions};

/// The device's join, with the cookie that it has been given, with something changed.
fn join(bench: &mut Bench, device: u8, change: impl FnOnce(&mut Join), extension: &[u8]) {
    let from = bench.sent.len();
    bench.send_join(device, 1, address(device));
    bench.answered(device, 1, address(device), from);
    let fake = bench.runs.get_mut(&(device, 1)).unwrap();
    let mut join = any_join(id(device), Holdings::Nothing);
    change(&mut join);
    let bytes = fake.join_with(join, |plain| plain.extend(extension));
    let from = bench.sent.len();
    bench.take(address(device), bytes);
    bench.answered(device, 1, address(device), from);
}

/// What the device was told last: verdict, version, capabilities.
fn told(bench: &Bench, device: u8) -> Option<(AdmitVerdict, u8, Capabilities)> {
    let admit = bench.runs[&(device, 1)].admit.as_ref()?;
    Some((admit.verdict, admit.version, admit.capabilities))
}

#[test]
fn version_and_capabilities_are_those_that_both_have() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
    join(
        &mut bench,
        1,
        |join| {
            join.versions = Versions { min: 1, max: 7 };
            join.supported = Capabilities(u32::MAX);
        },
        &[],
    );
    let ours = (AdmitVerdict::Admitted, 1, Capabilities::OURS);
    assert_eq!(told(&bench, 1), Some(ours));
    join(&mut bench, 2, |join| join.versions = Versions { min: 2, max: 7 }, &[]);
    let unsupported = (AdmitVerdict::Unsupported, 0, Capabilities::default());
    assert_eq!(told(&bench, 2), Some(unsupported));
    assert_eq!(bench.sender.devices.len(), 1, "it takes no room");
}

#[test]
fn extensions_of_devices_are_passed_over_unless_they_are_critical() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
    join(&mut bench, 1, |_| (), &[0x03, 0x09, 0, 1, 7]);
    assert!(told(&bench, 1).is_some());
    join(&mut bench, 2, |_| (), &[0x83, 0x09, 0, 1, 7]);
    assert_eq!(told(&bench, 2), None);
    assert_eq!(bench.sender.overview().not_understood, 1);
    bench.current.insert(1, 1);
    for (extension, verified) in [([0x03, 0x09, 0, 0], 2), ([0x83, 0x09, 0, 0], 3)] {
        let report = any_report(verified).into();
        let bytes = bench.run(1).seal_message(&report, |plain| plain.extend(extension));
        bench.take(address(1), bytes);
    }
    let snapshot = bench.sender.snapshot(bench.now);
    assert_eq!((snapshot.overview.not_understood, snapshot.devices[0].transfer.verified_blocks), (2, 2));
}

#[test]
fn kinds_that_nobody_knows_are_sent_now_and_then() {
    let mut bench = Bench::new(4, |config| config.wait = Duration::from_secs(100));
    bench.pass(Duration::from_secs(20));
    let (mut grease, mut announces) = (0, 0);
    for transmit in &bench.sent {
        let Payload::Message(bytes) = &transmit.payload else { continue };
        match crate::wire::head(bytes) {
            Ok(_) => announces += 1,
            Err(crate::wire::DecodeError::UnknownKind(kind)) => {
                assert!(crate::wire::is_grease(kind.into()));
                grease += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        announces >= 380 && (announces / 70..=announces / 60).contains(&grease),
        "{grease} of {announces}"
    );
}
