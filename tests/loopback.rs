//! The real binary, real processes, real sockets, over multicast on `lo`: nothing leaves the
//! machine. Loss, IPv6 groups (`lo` has no IPv6 multicast route) and broadcast are in `netns.rs`.

mod support;

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use support::files::{TempDir, assert_empty, assert_only_copy, assert_only_part, b3, seeded};
use support::junk::{announce_forged, throw_junk};
use support::mcp::{MCP, Network, Report, SOON, is_event};
use support::process::{Cmd, Proc};
use support::{has_program, is_root, skip};

/// A rate at which two busy cores do not lose datagrams.
const RATE: [&str; 2] = ["--rate", "400M"];
/// T in these tests.
const SYMBOL: u64 = 1408;
const MIB: u64 = 1 << 20;
/// A slow run, to do something in the middle of: 8 MiB take 3.5 s.
const SLOW: [&str; 2] = ["--rate", "20M"];

/// Sends `source` to one receiver with an output directory of its own; asserts the copy.
#[track_caller]
fn copy_to_one(network: &Network, source: &Path, tmp: &TempDir, name: &str) {
    let out = tmp.dir(name);
    let mut receiver = network.recv(name, &out).spawn();
    let mut sender = network.send(source, 1).args(RATE).args(["--symbol-size", "1408"]).spawn();
    sender.expect(0, SOON);
    receiver.expect(0, SOON);
    assert_only_copy(source, &out);
}

/// Waits until the receiver has taken some data in.
#[track_caller]
fn midway(receiver: &mut Proc) {
    receiver.received(64 << 10);
}

#[test]
fn one_receiver() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 3 * MIB + 7, 1);
    let (out, report) = (tmp.dir("out"), tmp.join("report.json"));
    let network = Network::loopback();
    let mut receiver = network.recv("desk-1", &out).spawn();
    let size = ["--symbol-size", "1408"];
    let mut sender = network.send(&source, 1).args(RATE).args(size).arg("--report").arg(&report).spawn();
    let sent = sender.expect(0, SOON);
    let received = receiver.expect(0, SOON);
    assert_only_copy(&source, &out);

    // Every line is JSON and says what it is; the words of a run come in their order.
    let kinds = |events: &[Value]| -> Vec<String> {
        events.iter().map(|e| e["event"].as_str().expect("an event's name").to_owned()).collect()
    };
    let (sent, received) = (kinds(&sent.events()), kinds(&received.events()));
    for (seen, wanted) in [
        (&sent, &["joined", "finished"][..]),
        (&received, &["found", "receiving", "committed", "finished"][..]),
    ] {
        let mut at = seen.iter();
        for kind in wanted {
            assert!(at.any(|k| k == kind), "no \"{kind}\" in its place: {seen:?}");
        }
    }
    let committed =
        receiver.finish(SOON).events().into_iter().find(|e| is_event(e, "committed")).expect("committed");
    assert!(committed.to_string().contains(&b3(&source)), "{committed}");

    let report = Report::read(&report);
    assert_eq!(report.rows().len(), 1);
    assert_eq!(report.status("desk-1"), "complete");
    assert_eq!(report.0["object"]["blake3"], b3(&source), "{:#}", report.0);
    assert_eq!(report.0["object"]["name"], "image.bin");
    assert_eq!(report.0["object"]["size"], 3 * MIB + 7);
    assert_eq!((&report.0["exit"], &report.0["exit_code"]), (&"complete".into(), &0.into()));
    assert!(report.counter("source_symbols") >= (3 * MIB / SYMBOL) as f64);
}

#[test]
fn four_receivers() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 6 * MIB + 12_345, 2);
    let network = Network::loopback();
    let report = tmp.join("report.json");
    let mut receivers: Vec<(Proc, _)> = (0..4)
        .map(|n| {
            let (id, out) = (format!("r{n}"), tmp.dir(&format!("out{n}")));
            (network.recv(&id, &out).spawn(), out)
        })
        .collect();
    let mut sender = network.send(&source, 4).args(["--rate", "200M", "--report"]).arg(&report).spawn();
    sender.expect(0, SOON);
    for (receiver, out) in &mut receivers {
        receiver.expect(0, SOON);
        assert_only_copy(&source, out);
    }
    let report = Report::read(&report);
    for n in 0..4 {
        assert_eq!(report.status(&format!("r{n}")), "complete");
    }
}

/// Cloned machines have the same identifier. Nobody notices before they meet in one transfer.
#[test]
fn two_devices_with_one_identifier_are_both_completed_and_named() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 6 * MIB, 3);
    let network = Network::loopback();
    let report = tmp.join("report.json");
    let outs = ["a", "b"].map(|name| tmp.dir(name));
    let mut receivers = outs.each_ref().map(|out| network.recv("clone", out).spawn());
    let mut sender = network.send(&source, 2).args(["--rate", "200M", "--report"]).arg(&report).spawn();
    sender.event("duplicate_id");
    sender.expect(0, SOON);
    for (receiver, out) in receivers.iter_mut().zip(&outs) {
        receiver.expect(0, SOON);
        assert_only_copy(&source, out);
    }
    let report = Report::read(&report);
    assert!(report.rows().len() == 2 && report.rows().iter().all(|row| row["status"] == "complete"));
    assert!(report.rows().iter().any(|row| row["label"] != "clone"), "{:#}", report.0);
}

#[test]
fn one_host_instead_of_a_group() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 2 * MIB + 1, 3);
    let at = Network::loopback();
    let to = Network { group: Some("127.0.0.1".into()), ..at.clone() };
    let listen = Network { group: None, ..at };
    let out = tmp.dir("out");
    let mut receiver = listen.recv("host", &out).spawn();
    let mut sender = to.send(&source, 1).args(RATE).spawn();
    sender.expect(0, SOON);
    receiver.expect(0, SOON);
    assert_only_copy(&source, &out);
}

#[test]
fn sizes_around_every_edge() {
    let sizes = [0, 1, SYMBOL - 1, SYMBOL, SYMBOL + 1, MIB - 1, MIB, MIB + 1];
    let tmp = TempDir::new();
    thread::scope(|scope| {
        for (n, size) in (0..).zip(sizes) {
            let tmp = &tmp;
            scope.spawn(move || {
                let source = tmp.file(format!("size-{size}"), size, n);
                copy_to_one(&Network::loopback(), &source, tmp, &format!("out-{size}"));
            });
        }
    });
}

#[test]
fn names_of_all_kinds() {
    let tmp = TempDir::new();
    let names = ["two words.img", "Grüße-日本-🦀.img", "-rf", "--help", ".hidden", "semi;colon'quote\".img"];
    thread::scope(|scope| {
        for (n, name) in (0..).zip(names) {
            let tmp = &tmp;
            scope.spawn(move || {
                let dir = tmp.dir(&format!("in-{n}"));
                seeded(&dir.join(name), 10_000, n);
                let (out, network) = (tmp.dir(&format!("out-{n}")), Network::loopback());
                let mut receiver = network.recv("r", &out).spawn();
                // A bare relative name, so that it does begin with a dash.
                let mut sender = network.send(name, 1).args(RATE).dir(&dir).spawn();
                sender.expect(0, SOON);
                receiver.expect(0, SOON);
                assert_only_copy(&dir.join(name), &out);
            });
        }
    });
}

#[test]
fn hostile_names_cannot_leave_the_directory() {
    let tmp = TempDir::new();
    let absolute = tmp.join("absolute").to_str().expect("UTF-8").to_owned();
    let names = [
        "../escaped",
        "..",
        ".",
        "deeper/../../escaped",
        "sub/escaped",
        "back\\slash",
        "clear\x1b[2Jscreen",
        "gpj.\u{202e}exe",
        "new\nline",
        "x.mcp-part",
        "NUL.txt",
        "ends in a dot.",
        "stream::$DATA",
        &absolute,
    ];
    thread::scope(|scope| {
        for (n, name) in names.iter().enumerate() {
            let (tmp, network) = (&tmp, Network::loopback());
            scope.spawn(move || {
                let out = tmp.dir(&format!("box-{n}/out"));
                let mut receiver = network.recv("r", &out).spawn();
                let stop = Arc::new(AtomicBool::new(false));
                let forger = {
                    let group = network.group.as_ref().and_then(|g| g.parse().ok()).expect("group");
                    let port = network.port.expect("port");
                    let (stop, name) = (Arc::clone(&stop), (*name).to_owned());
                    thread::spawn(move || announce_forged(group, port, &name, &stop))
                };
                let end = receiver.try_finish(SOON);
                stop.store(true, Ordering::Relaxed);
                assert!(forger.join().expect("forger"), "{name:?}: the sender would have been told");
                let end = end.unwrap_or_else(|| panic!("{name:?}: no end\n{}", receiver.transcript()));
                assert_eq!(end.code, Some(1), "{name:?}: {}", receiver.transcript());
                assert!(end.stderr.contains("the name"), "{name:?}: {}", end.stderr);
                assert!(!end.stderr.trim_end().contains(char::is_control), "{name:?}: {:?}", end.stderr);
                assert_empty(&out);
                assert_eq!(support::files::names(&tmp.join(format!("box-{n}"))), ["out"]);
            });
        }
    });
    let boxes = support::files::names(tmp.path());
    assert!(boxes.iter().all(|name| name.starts_with("box-")), "{boxes:?}");
}

#[test]
fn output_may_name_a_file() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 5_000, 4);
    let (out, network) = (tmp.dir("out"), Network::loopback());
    let mut receiver = network.recv("r", out.join("other name.img")).spawn();
    let mut sender = network.send(&source, 1).args(RATE).spawn();
    sender.expect(0, SOON);
    receiver.expect(0, SOON);
    assert_eq!(support::files::names(&out), ["other name.img"]);
    assert_eq!(b3(&out.join("other name.img")), b3(&source));
}

#[test]
fn existing_file_is_kept_unless_forced() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 2 * MIB, 5);
    let report = tmp.join("report.json");
    let network = Network::loopback();
    let (kept, forced, fresh) = (tmp.dir("kept"), tmp.dir("forced"), tmp.dir("fresh"));
    for dir in [&kept, &forced] {
        fs::write(dir.join("image.bin"), "old contents").expect("write");
    }
    let mut refuses = network.recv("refuses", &kept).spawn();
    let mut replaces = network.recv("replaces", &forced).arg("--force").spawn();
    let mut writes = network.recv("writes", &fresh).spawn();
    let mut sender = network.send(&source, 3).args(RATE).arg("--report").arg(&report).spawn();
    sender.expect(3, SOON);
    let refused = refuses.expect(1, SOON);
    assert!(refused.stderr.contains("--force"), "names the next step: {}", refused.stderr);
    replaces.expect(0, SOON);
    writes.expect(0, SOON);
    assert_eq!(fs::read_to_string(kept.join("image.bin")).expect("read"), "old contents");
    assert_eq!(support::files::names(&kept), ["image.bin"]);
    assert_only_copy(&source, &forced);
    assert_only_copy(&source, &fresh);

    let report = Report::read(&report);
    assert_eq!(report.status("refuses"), "failed");
    assert!(report.reason("refuses").contains("exist"), "{:#}", report.row("refuses"));
    assert_eq!(report.status("replaces"), "complete");
    assert_eq!(report.status("writes"), "complete");
}

#[test]
fn two_senders_on_one_group() {
    let tmp = TempDir::new();
    let first = tmp.file("first.bin", 4 * MIB, 6);
    let second = tmp.file("second.bin", 3 * MIB, 7);
    let network = Network::loopback();
    let mut receivers = Vec::new();
    let receive = |n: usize| {
        let out = tmp.dir(&format!("out{n}"));
        (network.recv(&format!("r{n}"), &out).spawn(), out)
    };
    receivers.push(receive(0));
    let mut a = network.send(&first, 1).args(["--rate", "8M"]).spawn();
    receivers[0].0.event("receiving");
    // The first one streams for another four seconds. Whom a later receiver hears first is chance;
    // one by one they come until one of them is the second sender's.
    let mut b = network.send(&second, 1).args(["--rate", "100M", "-w", "25s"]).spawn();
    while !b.has(|e| is_event(e, "joined")) {
        assert!(receivers.len() < 40, "nobody joins the second sender\n{}", b.transcript());
        receivers.push(receive(receivers.len()));
        thread::sleep(Duration::from_millis(330));
    }
    a.expect(0, SOON);
    b.expect(0, SOON);
    let mut copies = [0, 0];
    for (receiver, out) in &mut receivers {
        receiver.expect(0, SOON);
        let which = usize::from(support::files::names(out) == ["second.bin"]);
        assert_only_copy([&first, &second][which], out);
        copies[which] += 1;
    }
    assert!(copies[0] > 0 && copies[1] > 0, "each sender had somebody: {copies:?}");
}

#[test]
fn late_receiver_is_completed_while_lingering() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 2 * MIB, 8);
    let (early_dir, late_dir, report) = (tmp.dir("early"), tmp.dir("late"), tmp.join("report.json"));
    let network = Network::loopback();
    let mut early = network.recv("early", &early_dir).spawn();
    let mut sender =
        network.send(&source, 1).args(RATE).args(["--linger", "5s", "--report"]).arg(&report).spawn();
    early.expect(0, SOON);
    let mut late = network.recv("late", &late_dir).spawn();
    late.expect(0, SOON);
    sender.expect(0, SOON);
    assert_only_copy(&source, &early_dir);
    assert_only_copy(&source, &late_dir);
    let report = Report::read(&report);
    assert_eq!((report.status("early"), report.status("late")), ("complete", "complete"));
}

#[test]
fn killed_receiver_does_not_hold_up_the_others() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 8 * MIB, 9);
    let report = tmp.join("report.json");
    let network = Network::loopback();
    let dirs = [tmp.dir("a"), tmp.dir("b"), tmp.dir("victim")];
    let mut a = network.recv("a", &dirs[0]).spawn();
    let mut b = network.recv("b", &dirs[1]).spawn();
    let mut victim = network.recv("victim", &dirs[2]).spawn();
    let mut sender = network.send(&source, 3).args(SLOW).arg("--report").arg(&report).spawn();
    midway(&mut victim);
    victim.signal("KILL");
    a.expect(0, SOON);
    b.expect(0, SOON);
    sender.expect(3, SOON);
    assert_only_copy(&source, &dirs[0]);
    assert_only_copy(&source, &dirs[1]);
    assert!(!dirs[2].join("image.bin").exists());
    let report = Report::read(&report);
    assert_eq!(report.status("victim"), "lost");
    assert_eq!((report.status("a"), report.status("b")), ("complete", "complete"));
}

#[test]
fn killed_sender_leaves_nothing_behind() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 16 * MIB, 10);
    let network = Network::loopback();
    let dirs = [tmp.dir("a"), tmp.dir("b")];
    let mut streaming = network.recv("a", &dirs[0]).spawn();
    let mut sender = network.send(&source, 1).args(SLOW).spawn();
    // This one's sender dies before the first byte, still waiting for a second device.
    let network = Network::loopback();
    let mut gathering = network.recv("b", &dirs[1]).spawn();
    let mut gatherer = network.send(&source, 2).args(SLOW).spawn();
    streaming.event("receiving");
    gathering.event("admitted");
    for sender in [&mut sender, &mut gatherer] {
        sender.signal("KILL");
        sender.finish(SOON);
    }
    for (receiver, dir) in [&mut streaming, &mut gathering].into_iter().zip(&dirs) {
        // They give up after 20 s of silence.
        let end = receiver.expect(6, Duration::from_secs(40));
        assert!(!end.stderr.trim().is_empty(), "says what happened");
        assert!(!dir.join("image.bin").exists());
    }
}

#[test]
fn interrupted_sender_tells_its_receivers() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 16 * MIB, 11);
    let network = Network::loopback();
    for signal in ["INT", "TERM"] {
        let dirs = [tmp.dir(&format!("a-{signal}")), tmp.dir(&format!("b-{signal}"))];
        let mut a = network.recv("a", &dirs[0]).spawn();
        let mut b = network.recv("b", &dirs[1]).spawn();
        let mut sender = network.send(&source, 2).args(SLOW).spawn();
        midway(&mut a);
        sender.signal(signal);
        sender.expect(130, SOON);
        a.expect(6, SOON);
        b.expect(6, SOON);
        // Perhaps a part file is kept for the next run, and nothing else.
        dirs.iter().for_each(|d| assert_only_part(d));
    }
}

#[test]
fn interrupted_receiver_tells_its_sender() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 8 * MIB, 12);
    let (stays_dir, goes_dir, report) = (tmp.dir("stays"), tmp.dir("goes"), tmp.join("report.json"));
    let network = Network::loopback();
    let mut stays = network.recv("stays", &stays_dir).spawn();
    let mut goes = network.recv("goes", &goes_dir).spawn();
    let mut sender = network.send(&source, 2).args(SLOW).arg("--report").arg(&report).spawn();
    midway(&mut goes);
    goes.signal("INT");
    goes.expect(130, SOON);
    assert_only_part(&goes_dir);
    stays.expect(0, SOON);
    assert_only_copy(&source, &stays_dir);
    sender.expect(3, SOON);
    // It was told: a silent device is lost.
    assert_eq!(Report::read(&report).status("goes"), "failed");
}

#[test]
fn nobody_comes() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 1000, 13);
    let mut sender = Network::loopback().send(&source, 2).args(["-w", "1s"]).spawn();
    let end = sender.expect(4, SOON);
    assert!(!end.stderr.trim().is_empty(), "says what to do");
}

#[test]
fn no_sender_comes() {
    let tmp = TempDir::new();
    let network = Network::loopback();
    let mut receiver = network.patient_recv("r", tmp.path(), Duration::from_secs(1)).spawn();
    let end = receiver.expect(5, SOON);
    assert!(!end.stderr.trim().is_empty(), "says what to do");
    assert_empty(tmp.path());
}

#[test]
fn wrong_usage_is_told_apart_from_a_wrong_environment() {
    let tmp = TempDir::new();
    let file = tmp.file("f", 10, 14);
    let file = file.to_str().expect("UTF-8");
    for args in [
        &["send"][..],
        &["frobnicate"],
        &["send", file, "--rate", "bananas"],
        &["send", file, "not-an-address"],
        &["send", file, "-n", "-3"],
        &["send", file, "--symbol-size", "1000"],
        &["recv", "--timeout", "soon"],
        &["recv", "--no-such-flag"],
    ] {
        let end = Cmd::new("usage", MCP).args(args).run(SOON);
        assert_eq!(end.code, Some(2), "{args:?}: {}", end.stderr);
        assert!(!end.stderr.is_empty(), "{args:?} says what is wrong");
    }
    for args in [
        &["send", "/no/such/file", "239.77.0.1", "-i", "lo"][..],
        &["send", file, "239.77.0.1", "-i", "nosuch0"],
        &["recv", "239.77.0.1", "-i", "nosuch0"],
        &["send", "/dev/null", "239.77.0.1", "-i", "lo"],
    ] {
        let end = Cmd::new("environment", MCP).args(args).run(SOON);
        assert_eq!(end.code, Some(1), "{args:?}: {}", end.stderr);
        let named = args.iter().any(|a| a.len() > 5 && end.stderr.contains(a));
        assert!(named, "{args:?} names the thing: {}", end.stderr);
    }
    for args in [
        &["--help"][..],
        &["--version"],
        &["--version", "-v"],
        &["send", "--help"],
        &["recv", "--help"],
        &["key", "--help"],
    ] {
        assert_eq!(Cmd::new("help", MCP).args(args).run(SOON).code, Some(0), "{args:?}");
    }
}

#[test]
fn full_and_read_only_disks_fail_alone() {
    if !is_root() || !has_program("unshare") {
        return skip("a full disk is a small tmpfs, which needs root and unshare");
    }
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 4 * MIB, 18);
    let (full, readonly, fine, report) =
        (tmp.dir("full"), tmp.dir("readonly"), tmp.dir("fine"), tmp.join("report.json"));
    let network = Network::loopback();
    let mut on_full = network.recv("full", &full).with_tmpfs(&full, "size=1m").spawn();
    let mut on_readonly = network.recv("readonly", &readonly).with_tmpfs(&readonly, "ro").spawn();
    let mut on_fine = network.recv("fine", &fine).spawn();
    let mut sender = network.send(&source, 3).args(RATE).arg("--report").arg(&report).spawn();
    sender.expect(3, SOON);
    on_fine.expect(0, SOON);
    assert_only_copy(&source, &fine);
    let (full_end, readonly_end) = (on_full.expect(1, SOON), on_readonly.expect(1, SOON));
    assert!(full_end.stderr.contains("no room"), "{}", full_end.stderr);
    assert!(readonly_end.stderr.contains("read-only"), "{}", readonly_end.stderr);
    let report = Report::read(&report);
    assert_eq!(report.status("fine"), "complete");
    for (label, reason) in [("full", "no room"), ("readonly", "read-only")] {
        assert_eq!(report.status(label), "failed");
        assert!(report.reason(label).contains(reason), "{:#}", report.row(label));
    }
}

#[test]
fn junk_changes_nothing() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 12 * MIB, 20);
    let network = Network::loopback();
    let dirs = [tmp.dir("a"), tmp.dir("b")];
    let mut a = network.recv("a", &dirs[0]).spawn();
    let mut b = network.recv("b", &dirs[1]).spawn();
    let mut sender = network.send(&source, 2).args(["--rate", "40M"]).spawn();
    let stop = Arc::new(AtomicBool::new(false));
    let thrower = {
        let group = network.group.as_ref().and_then(|g| g.parse().ok()).expect("group");
        let port = network.port.expect("port");
        let (stop, pids) = (Arc::clone(&stop), [sender.pid(), a.pid(), b.pid()]);
        thread::spawn(move || throw_junk(group, port, &pids, &stop))
    };
    let ends = (sender.try_finish(SOON), a.try_finish(SOON), b.try_finish(SOON));
    stop.store(true, Ordering::Relaxed);
    let thrown = thrower.join().expect("thrower");
    drop(ends);
    sender.expect(0, SOON);
    a.expect(0, SOON);
    b.expect(0, SOON);
    dirs.iter().for_each(|d| assert_only_copy(&source, d));
    assert!(thrown > 1000, "threw {thrown} datagrams");
}
