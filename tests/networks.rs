//! What networks ask of datagrams: classes, and groups of one source. Real binary in network namespaces. Needs root and
//! `ip`, `nft`, `ethtool`, `tc`; without them each test says so and passes.

mod support;

use support::files::{TempDir, assert_empty, assert_only_copy};
use support::lab::Lab;
use support::mcp::{MCP, Network, SOON};
use support::process::Cmd;

const MIB: u64 = 1 << 20;

#[test]
fn all_datagrams_of_a_sender_have_the_class_that_was_asked_for() {
    let Some(lab) = Lab::new(3) else { return };
    let (tmp, network) = (TempDir::new(), Network::new("239.77.3.1", 7417, "eth0"));
    let source = tmp.file("image.bin", 3 * MIB, 1);
    lab.single_packets(0);
    // One device gets repairs too.
    lab.lose(1, 100);
    lab.watch_class(2, 46);
    let outs = [1, 2].map(|host| tmp.dir(&format!("h{host}")));
    let mut receivers: Vec<_> =
        (1..3).map(|host| lab.on(host, network.recv(&format!("h{host}"), &outs[host - 1])).spawn()).collect();
    lab.on(0, network.send(&source, 2)).args(["--dscp", "ef"]).spawn().expect(0, SOON);
    for receiver in &mut receivers {
        receiver.expect(0, SOON);
    }
    outs.iter().for_each(|out| assert_only_copy(&source, out));
    let counted = lab.loss(2);
    assert!(counted.seen > 2000 && counted.dropped == 0, "{counted:?}");
}

#[test]
fn of_a_source_specific_group_the_device_takes_what_its_source_sends() {
    let Some(lab) = Lab::new(3) else { return };
    for (group, source) in [("232.77.3.1", lab.address(1)), ("ff3e::7703:1", lab.address6(1))] {
        let (tmp, network) = (TempDir::new(), Network::new(group, 7417, "eth0"));
        let (wrong, right, out) =
            (tmp.file("wrong.bin", MIB, 1), tmp.file("right.bin", 3 * MIB, 2), tmp.dir("out"));
        let mut impostor = lab.on(0, network.send(&wrong, 1)).spawn();
        impostor.event("phase");
        let mut receiver = lab.on(2, network.recv("d", &out)).args(["--source", &source]).spawn();
        lab.on(1, network.send(&right, 1)).spawn().expect(0, SOON);
        receiver.expect(0, SOON);
        assert_only_copy(&right, &out);
        impostor.signal("INT");
        impostor.expect(130, SOON);
    }
}

#[test]
fn a_source_that_does_not_fit_the_group_is_refused() {
    let tmp = TempDir::new();
    for (args, says) in [
        (&["232.1.1.1"][..], "give the sender's address with --source"),
        (&["ff3e::5"], "give the sender's address with --source"),
        (&["127.0.0.1", "--source", "127.0.0.1"], "no multicast group"),
        (&["239.1.1.1", "--source", "::1"], "cannot send to 239.1.1.1"),
        (&["239.1.1.1", "--source", "239.1.1.2"], "not the address of a sender"),
        (&["--source", "127.0.0.1"], "GROUP"),
    ] {
        let end = Cmd::new("recv", MCP).args(["recv", "-i", "lo"]).args(args).dir(tmp.path()).run(SOON);
        assert_eq!(end.code, Some(2), "{args:?}: {}", end.stderr);
        assert!(end.stderr.contains(says), "{args:?}: {}", end.stderr);
    }
    assert_empty(tmp.path());
}
