//! Hostile members of the group, against the real binary over `lo`.

mod support;

use mcp::crypto::derive::Secret;
use mcp::crypto::group::GroupKey;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use support::files::{TempDir, assert_only_copy};
use support::junk::{forge_number, forge_symbols};
use support::mcp::{Network, Report, SOON, is_event};
use support::{StopOnDrop, is_root, skip};

const MIB: u64 = 1 << 20;

#[test]
fn a_member_that_forges_symbols_costs_time_and_nothing_else() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 12 * MIB + 77, 5);
    let secret = Secret::new([9; 32]);
    let key = GroupKey::new("lab", Secret::new(*secret.expose())).expect("a key");
    let file = tmp.join("lab.key");
    fs::write(&file, &*key.line()).expect("write the key");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("for its owner alone");
    let (dirs, report) = ([tmp.dir("a"), tmp.dir("b")], tmp.join("report.json"));
    let network = Network::loopback();
    let group: Ipv4Addr = network.group.as_deref().and_then(|g| g.parse().ok()).expect("an IPv4 group");
    let port = network.port.expect("a port");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let forger = scope.spawn(|| forge_symbols(group, port, &secret, &stop));
        let with_key = |cmd: support::process::Cmd| cmd.arg("--key").arg(&file);
        let mut receivers =
            [("a", &dirs[0]), ("b", &dirs[1])].map(|(id, dir)| with_key(network.recv(id, dir)).spawn());
        let sender = with_key(network.send(&source, 2)).args(["--rate", "40M"]);
        let mut sender = sender.arg("--report").arg(&report).spawn();
        for (receiver, dir) in receivers.iter_mut().zip(&dirs) {
            let end = receiver.expect(0, SOON);
            assert_only_copy(&source, dir);
            let found = end.events().into_iter().filter(|e| is_event(e, "forged_symbols")).count();
            assert!(found > 0, "nothing was forged: {}", end.last_event());
            assert!(end.last_event()["forged_symbols"].as_u64() >= Some(found as u64));
        }
        sender.expect(0, SOON);
        stop.store(true, Ordering::Relaxed);
        assert!(forger.join().expect("the forger") > 1_000);
    });
    assert!(Report::read(&report).counter("suspect_blocks") > 0.0);
}

#[test]
fn a_forged_number_far_ahead_is_not_counted_from() {
    if !is_root() {
        return skip("only root can send in another's name");
    }
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 24 * MIB, 6);
    let (out, report) = (tmp.dir("out"), tmp.join("report.json"));
    let network = Network::loopback();
    let group: Ipv4Addr = network.group.as_deref().and_then(|g| g.parse().ok()).expect("an IPv4 group");
    let port = network.port.expect("a port");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let forger = scope.spawn(|| forge_number(group, port, 1 << 31, &stop));
        let mut receiver = network.recv("a", &out).spawn();
        let mut sender =
            network.send(&source, 1).args(["--rate", "100M"]).arg("--report").arg(&report).spawn();
        let end = receiver.expect(0, SOON);
        sender.expect(0, SOON);
        stop.store(true, Ordering::Relaxed);
        assert!(forger.join().expect("the forger"), "nothing was forged");
        let lost = end.last_event()["lost_datagrams"].as_u64().expect("a number");
        assert!(lost < 1 << 20, "{lost} datagrams are taken for lost");
    });
    assert_only_copy(&source, &out);
    let lost = Report::read(&report).rows()[0]["lost_datagrams"].as_u64().expect("a number");
    assert!(lost < 1 << 20, "{lost} datagrams are told of as lost");
}

/// One device is complete, and another one does not take what it lacks: it is stopped.
#[test]
fn when_the_time_is_up_the_sender_ends_and_all_it_says_agrees() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 4 * MIB, 7);
    let (dirs, report) = ([tmp.dir("a"), tmp.dir("b")], tmp.join("report.json"));
    let network = Network::loopback();
    let mut receivers = [("a", &dirs[0]), ("b", &dirs[1])].map(|(id, dir)| network.recv(id, dir).spawn());
    let sender = network.send(&source, 2).args(["--rate", "20M", "--max-time", "8s"]);
    let mut sender = sender.arg("--report").arg(&report).spawn();
    sender.event("joined");
    sender.event("joined");
    receivers[1].signal("STOP");
    receivers[0].expect(0, SOON);
    let end = sender.expect(3, SOON);
    receivers[1].signal("CONT");
    receivers[1].expect(6, SOON);
    assert_only_copy(&source, &dirs[0]);
    let (last, report) = (end.last_event(), Report::read(&report));
    for said in [&last, &report.0] {
        assert_eq!((&said["exit"], &said["exit_code"]), (&"incomplete".into(), &3.into()), "{said}");
    }
    let row = report.rows().iter().find(|row| row["status"] != "complete").expect("a row of it");
    assert_eq!((&row["status"], &row["reason"]), (&"failed".into(), &"the transfer's time was up".into()));
    assert!(end.stderr.contains("the transfer's time was up"), "{}", end.stderr);
}
