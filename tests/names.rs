//! `--name`: an object has a name on which both sides can insist. Real binary, real sockets on `lo`.

mod support;

use std::time::Duration;
use support::files::{TempDir, assert_empty, assert_only_copy, b3};
use support::mcp::{MCP, Network, SOON, is_event};
use support::process::Cmd;

const MIB: u64 = 1 << 20;

#[test]
fn each_device_gets_the_file_whose_name_it_gave() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let names = ["d1p1.img", "d1p2.img"];
    let files = names.map(|name| tmp.file(name, 3 * MIB, name.len() as u64));
    // The wrong sender is there first, on the same group and port.
    let mut first = network.send(&files[0], 1).spawn();
    first.event("phase");
    let outs = names.map(|name| tmp.dir(&format!("out-{name}")));
    let receiver = |i: usize| network.recv(names[i], &outs[i]).args(["--name", names[i]]).spawn();
    let (mut second, other) = (receiver(1), receiver(0));
    let skipped = second.event("other_name");
    assert_eq!(skipped["name"], "d1p1.img");
    let sender = network.send(&files[1], 1).spawn();
    for mut proc in [second, other, first, sender] {
        proc.expect(0, SOON);
    }
    for (file, out) in files.iter().zip(&outs) {
        assert_only_copy(file, out);
    }
}

#[test]
fn a_file_can_be_sent_under_another_name() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    // Receivers would refuse its own name.
    let (file, out) = (tmp.file("part.mcp-part", MIB, 1), tmp.dir("out"));
    let mut sender = network.send(&file, 1).args(["--name", "whole.img"]).spawn();
    network.recv("d", &out).spawn().expect(0, SOON);
    sender.expect(0, SOON);
    assert_eq!(b3(&out.join("whole.img")), b3(&file));
}

#[test]
fn without_a_file_of_its_name_a_receiver_says_what_was_sent() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let (file, out) = (tmp.file("d1p1.img", MIB, 1), tmp.dir("out"));
    let mut sender = network.send(&file, 1).spawn();
    sender.event("phase");
    let cmd = network.patient_recv("d", &out, Duration::from_secs(2)).args(["--name", "d1p2.img"]);
    let end = cmd.run(SOON);
    assert_eq!(end.code, Some(5), "{}", end.stderr);
    let told = end.events().iter().filter(|event| is_event(event, "other_name")).count();
    assert_eq!(told, 1);
    assert!(end.stderr.contains("127.0.0.1 sent d1p1.img"), "{}", end.stderr);
    assert_empty(&out);
    sender.signal("INT");
    sender.expect(130, SOON);
}

#[test]
fn a_name_must_be_a_plain_file_name() {
    for (command, name) in [("send", "a/b"), ("recv", ".."), ("send", "nul"), ("recv", "")] {
        let cmd = Cmd::new(command, MCP).args([command, "--name", name]);
        let end = if command == "send" { cmd.arg("f") } else { cmd }.run(SOON);
        assert_eq!(end.code, Some(2), "{name:?}: {}", end.stderr);
        assert!(end.stderr.contains("write a plain file name"), "{name:?}: {}", end.stderr);
    }
}
