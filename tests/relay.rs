//! `mcp relay`: another machine passes on what its origin has signed. Real binary, on `lo` and in network namespaces.

mod support;

use mcp::crypto::sign::SigningKey;
use mcp::keyring::Keyring;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::files::{TempDir, assert_empty, assert_only_copy, seeded};
use support::lab::Lab;
use support::mcp::{MCP, Network, SOON, is_event};
use support::process::{Cmd, Proc};

const MIB: u64 = 1 << 20;
/// How long a receiver looks for a sender that it will not take.
const BRIEF: Duration = Duration::from_secs(3);

/// A machine's state directory, and the public key that its senders show.
fn machine(tmp: &TempDir, name: &str) -> (PathBuf, String) {
    let state = tmp.join(name);
    let seed = Keyring::new(state.clone()).sender(&mut Vec::new()).expect("a key");
    (state, SigningKey::new(&seed).public().line())
}

/// The relay between two groups on `lo`, which saves to `dir`.
fn relay(from: &Network, to: &Network, devices: usize, dir: &Path) -> Cmd {
    let to_group = format!("{}:{}", to.group.as_deref().expect("a group"), to.port.expect("a port"));
    Cmd::new("relay", MCP)
        .args(["relay", "--json", "--id", "relay", "--from", "lo", "--to", "lo", "--to-group", &to_group])
        .args(["-p", &from.port.expect("a port").to_string(), "-n", &devices.to_string(), "-o"])
        .arg(dir)
        .tail(from.group.as_deref().expect("a group"))
}

#[test]
fn devices_trust_the_origin_and_not_the_relay() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 20 * MIB + 77, 1);
    let (state, line) = machine(&tmp, "origin");
    let (near, far) = (Network::loopback(), Network::loopback());
    let dir = |name: &str| tmp.dir(name);
    let (saved, sure, plain, strict) = (dir("saved"), dir("sure"), dir("plain"), dir("strict"));
    let mut relaying = relay(&near, &far, 2, &saved).spawn();
    let pinned = ["--sender", &line];
    let mut trusts = far.recv("trusts", &sure).arg("--relayed").args(pinned).spawn();
    let mut anybody = far.recv("anybody", &plain).spawn();
    let mut refuses = far.patient_recv("refuses", &strict, BRIEF * 5).args(pinned).spawn();
    let mut origin = near.send(&source, 1).env("MCP_STATE_DIR", &state).spawn();
    origin.expect(0, SOON);
    let end = trusts.expect(0, SOON);
    let trusted = end.events().into_iter().find(|e| is_event(e, "sender_trusted")).expect("trusted");
    assert_eq!((&trusted["key"], &trusted["relayed"]), (&line.as_str().into(), &true.into()), "{trusted}");
    assert_eq!(trusted["decision"], "pinned");
    let end = anybody.expect(0, SOON);
    assert_eq!(end.last_event()["sender_trust"], "unverified", "it knows nobody");
    for to in [&saved, &sure, &plain] {
        assert_only_copy(&source, to);
    }
    let end = relaying.expect(0, SOON);
    assert_eq!(end.last_event()["devices"], 2);
    let end = refuses.finish(SOON);
    assert_eq!(end.last_event()["outcome"], "no_sender", "it was not told to take what is relayed");
    assert_empty(&strict);
}

/// A device with this state that takes what the origin with this key has signed from anybody.
fn relayed(network: &Network, state: &Path, line: &str, dir: &Path, more: &[&str]) -> Proc {
    let args = ["--relayed", "--force", "--sender", line];
    let cmd = network.patient_recv("device", dir, BRIEF).args(args).args(more);
    cmd.env("MCP_STATE_DIR", state).spawn()
}

#[test]
fn an_older_object_that_somebody_still_has_is_not_taken() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 3 * MIB, 1);
    let (origin, line) = machine(&tmp, "origin");
    let (near, later, far, home) =
        (Network::loopback(), Network::loopback(), Network::loopback(), Network::loopback());
    let (kept, newer, out) = (tmp.dir("kept"), tmp.dir("newer"), tmp.dir("out"));
    let state = tmp.join("device-state");
    let send = |network: &Network| {
        network.send(&source, 1).env("MCP_STATE_DIR", &origin).spawn().expect(0, SOON);
    };
    // Two relays get a version each, one after the other, and wait for devices.
    let mut old = relay(&near, &far, 1, &kept).spawn();
    send(&near);
    seeded(&source, 3 * MIB, 2);
    let mut new = relay(&later, &home, 1, &newer).spawn();
    send(&later);
    relayed(&home, &state, &line, &out, &[]).expect(0, SOON);
    assert_only_copy(&source, &out);
    new.expect(0, SOON);
    let end = relayed(&far, &state, &line, &out, &[]).finish(SOON);
    assert_eq!(end.last_event()["outcome"], "no_sender");
    assert!(end.events().iter().any(|e| is_event(e, "old_session")), "{:?}", end.lines);
    assert_only_copy(&source, &out);
    // One who knows what it means may have it.
    relayed(&far, &state, &line, &out, &["--again"]).expect(0, SOON);
    seeded(&source, 3 * MIB, 1);
    assert_only_copy(&source, &out);
    old.expect(0, SOON);
}

#[test]
fn what_cannot_be_relayed_is_said() {
    let tmp = TempDir::new();
    let refused = |args: &[&str], words: &str| {
        let end = Cmd::new("mcp", MCP).args(args).run(SOON);
        assert!(end.code == Some(2) && end.stderr.contains(words), "{args:?}: {}", end.stderr);
    };
    refused(&["recv", "--relayed", "-o", "-"], "--relayed does not go with -o -");
    refused(&["recv", "--relayed", "--one-way"], "cannot be used with");
    refused(&["relay", "-o", "-"], "a relay saves what it passes on");
    // A directory arrives, and is not passed on.
    let tree = tmp.dir("tree");
    fs::write(tree.join("a"), "a").expect("a file");
    let (near, far, saved) = (Network::loopback(), Network::loopback(), tmp.dir("saved"));
    let mut relaying = relay(&near, &far, 1, &saved).spawn();
    let mut origin = near.send(&tree, 1).spawn();
    origin.expect(0, SOON);
    let end = relaying.finish(SOON);
    assert!(end.code == Some(1) && end.stderr.contains("only single files are passed on"), "{}", end.stderr);
    assert_eq!(fs::read(saved.join("tree/a")).expect("it is saved"), b"a");
}

#[test]
fn when_a_relay_dies_another_one_completes_its_segment() {
    // The origin and two relays; four devices on a segment that only the relays reach.
    let (Some(near), Some(far)) = (Lab::new(3), Lab::new(4)) else { return };
    near.reach(1, &far);
    near.reach(2, &far);
    near.single_packets(0);
    (0..4).for_each(|device| far.lose(device, 10));
    let tmp = TempDir::new();
    let size = 24 * MIB;
    let source = tmp.file("image.bin", size, 3);
    let (state, line) = machine(&tmp, "origin");
    let relaying = |host: usize, more: &[&str]| {
        let cmd = Cmd::new(&format!("relay {host}"), MCP)
            .args(["relay", "--json", "--from", "eth0", "--to", "eth1"]);
        let cmd = cmd.args(["-n", "4", "-o"]).arg(tmp.dir(&format!("relay{host}"))).args(more);
        near.on(host, cmd.env("MCP_STATE_DIR", tmp.join(format!("state{host}")))).spawn()
    };
    let send = |to: usize| {
        let cmd = Cmd::new("origin", MCP).args(["send", "--json", "-n", "1", "-i", "eth0"]).arg(&source);
        let cmd = cmd.arg(near.address(to)).env("MCP_STATE_DIR", &state);
        near.on(0, cmd).spawn().expect(0, SOON);
    };
    let outs: Vec<_> = (0..4).map(|device| tmp.dir(&format!("out{device}"))).collect();
    let mut devices: Vec<_> = outs
        .iter()
        .enumerate()
        .map(|(device, out)| {
            let cmd = Cmd::new(&format!("device {device}"), MCP).args([
                "recv",
                "--json",
                "-i",
                "eth0",
                "--relayed",
            ]);
            let cmd = cmd.args(["--sender", &line, "--id", &format!("d{device}"), "-o"]).arg(out);
            far.on(device, cmd.env("MCP_STATE_DIR", tmp.join(format!("device{device}")))).spawn()
        })
        .collect();
    let mut first = relaying(1, &["-r", "40M"]);
    send(1);
    for device in &mut devices {
        device.verified(size / 8);
    }
    first.signal("KILL");
    first.finish(SOON);
    let mut second = relaying(2, &[]);
    let before = near.tx_bytes(0);
    send(2);
    let sent = near.tx_bytes(0) - before;
    assert!(sent <= size + size * 15 / 100, "{sent} bytes on the origin's line");
    for (device, out) in devices.iter_mut().zip(&outs) {
        let end = device.expect(0, SOON);
        assert_only_copy(&source, out);
        let found = end.events().iter().filter(|e| is_event(e, "found")).count();
        assert!(found >= 2, "it went over to the second relay: {:?}", end.lines);
    }
    assert_eq!(second.expect(0, SOON).last_event()["devices"], 4);
}
