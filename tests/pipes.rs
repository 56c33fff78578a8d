//! `mcp recv -o -` and `--pipe`: objects passed on in order. Real binary, real sockets on `lo` or in namespaces.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use support::files::{TempDir, assert_only_copy, b3, names};
use support::lab::Lab;
use support::mcp::{Network, Report, SOON};
use support::process::Cmd;

const MIB: u64 = 1 << 20;
const RATE: [&str; 2] = ["--rate", "200M"];
/// 8 MiB take 3.5 s: time to do something in the middle.
const SLOW: [&str; 2] = ["--rate", "20M"];

/// A receiver in a pipeline: `mcp recv -o - | consumer`. Its status is that of the first that fails.
fn piped(cmd: Cmd, consumer: &str) -> Cmd {
    let script = format!("set -o pipefail; \"$0\" \"$@\" | {consumer}");
    cmd.through(["bash", "-c", &script])
}

/// A receiver that runs a command itself, for any sender.
fn passing(network: &Network, id: &str, command: &str) -> Cmd {
    network.recv(id, "-").args(["--any-sender", "--pipe", command])
}

fn same(a: &Path, b: &Path) -> bool {
    Command::new("cmp").arg(a).arg(b).status().is_ok_and(|status| status.success())
}

#[track_caller]
fn grows_beyond(path: &Path, bytes: u64) {
    let until = Instant::now() + SOON;
    while fs::metadata(path).map_or(0, |meta| meta.len()) < bytes {
        assert!(Instant::now() < until, "{} does not grow", path.display());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn objects_of_every_size_come_out_whole_and_alone() {
    for (n, size) in [0, 1, MIB - 1, MIB, 5 * MIB + 7].into_iter().enumerate() {
        let tmp = TempDir::new();
        let source = tmp.file("image.bin", size, n as u64);
        let (out, report, spool) = (tmp.join("out"), tmp.join("report.json"), tmp.dir("spool"));
        let network = Network::loopback();
        let mut plain = piped(network.recv("plain", "-"), &format!("cat >{}", out.display())).spawn();
        let command = format!(
            "b3=$(sha256sum); test \"$MCP_SIZE $b3\" = \"{size} $(sha256sum <{})\"",
            source.display()
        );
        let mut own = passing(&network, "own", &command).spawn();
        let spooled = network.recv("spooled", "-").arg("--spool").arg(&spool);
        let mut spooled = piped(spooled, &format!("cmp - {}", source.display())).spawn();
        let mut sender = network.send(&source, 3).args(RATE).arg("--report").arg(&report).spawn();
        sender.expect(0, SOON);
        let end = plain.expect(0, SOON);
        // What is not the object went to standard error, the events too.
        assert!(end.lines.is_empty(), "{:?}", end.lines);
        assert!(end.stderr.contains("\"event\":\"committed\""), "{}", end.stderr);
        own.expect(0, SOON);
        spooled.expect(0, SOON);
        assert!(same(&source, &out), "{size}");
        assert!(names(&spool).is_empty());
        let report = Report::read(&report);
        assert!(["plain", "own", "spooled"].iter().all(|id| report.status(id) == "complete"), "{size}");
    }
}

#[test]
fn the_commands_end_is_the_devices() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 4 * MIB, 3);
    let (report, out) = (tmp.join("report.json"), tmp.dir("out"));
    let network = Network::loopback();
    let commands = [
        ("fine", "cat >/dev/null", 0, ""),
        ("fails", "cat >/dev/null; exit 3", 7, "exited with 3"),
        ("killed", "cat >/dev/null; kill -9 $$", 7, "ended by signal 9"),
        ("early", "head -c 100000 >/dev/null", 7, "ended before it had read everything"),
        ("absent", "/no/such/command", 7, "exited with 127"),
    ];
    let mut receivers = commands.map(|(id, command, ..)| passing(&network, id, command).spawn());
    let mut gone = piped(network.recv("gone", "-"), "head -c 100000 >/dev/null").spawn();
    let mut file = network.recv("file", &out).spawn();
    let mut sender = network.send(&source, 7).args(RATE).arg("--report").arg(&report).spawn();
    sender.expect(3, SOON);
    let report = Report::read(&report);
    for ((id, _, code, reason), receiver) in commands.iter().zip(&mut receivers) {
        let end = receiver.expect(*code, SOON);
        assert!(report.reason(id).contains(reason) && end.stderr.contains(reason), "{id}: {}", end.stderr);
        assert_eq!(report.status(id), if *code == 0 { "complete" } else { "failed" });
    }
    let end = gone.expect(1, SOON);
    assert!(end.stderr.contains("nobody reads the standard output any more"), "{}", end.stderr);
    assert_eq!(report.status("gone"), "failed");
    file.expect(0, SOON);
    assert_only_copy(&source, &out);
}

#[test]
fn a_command_does_not_see_the_end_of_a_cut_stream() {
    for (n, how) in ["receiver interrupted", "sender interrupted"].into_iter().enumerate() {
        let tmp = TempDir::new();
        let source = tmp.file("image.bin", 8 * MIB, n as u64);
        let (out, whole, report) = (tmp.join("out"), tmp.join("whole"), tmp.join("report.json"));
        let network = Network::loopback();
        let command = format!("cat | (cat >{}; touch {})", out.display(), whole.display());
        let mut receiver = passing(&network, "r", &command).spawn();
        let mut sender = network.send(&source, 1).args(SLOW).arg("--report").arg(&report).spawn();
        grows_beyond(&out, MIB);
        if n == 0 {
            receiver.signal("INT");
            receiver.expect(130, SOON);
            sender.expect(4, SOON);
            assert_eq!(Report::read(&report).status("r"), "failed");
        } else {
            sender.signal("INT");
            sender.expect(130, SOON);
            receiver.expect(6, SOON);
        }
        thread::sleep(Duration::from_millis(200));
        assert!(!whole.exists(), "{how}");
        assert!(fs::metadata(&out).unwrap().len() < 8 * MIB);
    }
}

#[test]
fn who_comes_late_or_again_gets_it_from_the_beginning() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 8 * MIB, 5);
    let (out, late, again) = (tmp.dir("out"), tmp.join("late"), tmp.join("again"));
    let (report, state) = (tmp.join("report.json"), tmp.dir("state"));
    let network = Network::loopback();
    let mut file = network.recv("file", &out).spawn();
    let sender = network.send(&source, 1).args(SLOW).args(["--linger", "6s", "--report"]).arg(&report);
    let mut sender = sender.spawn();
    file.received(4 * MIB);
    let pass = |to: &Path| {
        let cmd = network.recv("late", "-").env("MCP_STATE_DIR", &state);
        piped(cmd, &format!("cat >{}", to.display())).spawn()
    };
    pass(&late).expect(0, SOON);
    file.expect(0, SOON);
    // The table has it as complete, and what it passed on is gone.
    pass(&again).expect(0, SOON);
    sender.expect(0, SOON);
    assert!(same(&source, &late) && same(&source, &again));
    let report = Report::read(&report);
    assert_eq!(report.rows().len(), 3, "{:#}", report.0);
}

#[test]
fn a_slow_consumer_delays_nobody_and_is_served() {
    let tmp = TempDir::new();
    let (source, out, copy) = (tmp.file("image.bin", 96 * MIB, 6), tmp.dir("out"), tmp.join("copy"));
    let report = tmp.join("report.json");
    let network = Network::loopback();
    // At most 10 MiB a second, where the others take 25.
    let consumer = format!(
        "while dd bs=1M count=4 iflag=fullblock status=none >>{0}.part && test -s {0}.part; do cat {0}.part >>{0}; \
         rm {0}.part; sleep 0.4; done",
        copy.display()
    );
    let mut slow = piped(network.recv("slow", "-"), &consumer).spawn();
    let mut file = network.recv("file", &out).spawn();
    let mut sender = network.send(&source, 2).args(RATE).arg("--report").arg(&report).spawn();
    file.expect(0, SOON * 2);
    assert!(slow.try_finish(Duration::ZERO).is_none(), "the slow one holds up the other");
    sender.expect(0, SOON * 4);
    slow.expect(0, SOON);
    assert_only_copy(&source, &out);
    assert!(same(&source, &copy));
}

#[test]
fn a_stuck_consumer_takes_no_more_than_the_window() {
    let tmp = TempDir::new();
    let (source, out) = (tmp.file("image.bin", 160 * MIB, 7), tmp.dir("out"));
    let report = tmp.join("report.json");
    let network = Network::loopback();
    let mut stuck = passing(&network, "stuck", "exec sleep 1000").spawn();
    stuck.watch_memory();
    let mut file = network.recv("file", &out).spawn();
    let mut sender = network.send(&source, 2).args(["--rate", "400M"]).arg("--report").arg(&report).spawn();
    file.expect(0, SOON * 2);
    thread::sleep(Duration::from_secs(2));
    let memory = stuck.memory();
    assert!(memory.anonymous < 80 * MIB, "{memory:?}");
    assert!(sender.try_finish(Duration::ZERO).is_none(), "it is not given up");
    stuck.signal("INT");
    stuck.expect(130, SOON);
    sender.expect(3, SOON);
    let report = Report::read(&report);
    assert_eq!((report.status("file"), report.status("stuck")), ("complete", "failed"));
    assert_eq!(report.row("stuck")["slow_by"], "reader");
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let network = Network::loopback();
    let cases: [(&[&str], &str); 7] = [
        (&["-o", "-", "--then", "true", "--any-sender"], "--then needs a file"),
        (&["-o", "-", "--from", "/etc/passwd"], "--from does not go with -o -"),
        (&["-o", "-", "--force"], "--force does not go with -o -"),
        (&["-o", "-", "--loop", "--any-sender"], "use --pipe"),
        (&["-o", "/tmp", "--pipe", "cat", "--any-sender"], "add -o -"),
        (&["-o", "/tmp", "--spool", "/tmp"], "--spool is for -o -"),
        (&["-o", "-", "--pipe", "cat"], "--any-sender"),
    ];
    let empty = TempDir::new();
    for (args, says) in cases {
        let cmd = Cmd::new("r", support::mcp::MCP).args(["recv", "--key", "none"]).args(args);
        let end = cmd.env("MCP_STATE_DIR", empty.path()).run(SOON);
        assert_eq!(end.code, Some(2), "{args:?}: {}", end.stderr);
        assert!(end.stderr.contains(says), "{args:?}: {}", end.stderr);
    }
    // Plain standard output takes any sender, as a file does.
    let brief = network.patient_recv("r", "-", Duration::from_millis(300)).run(SOON);
    assert_eq!(brief.code, Some(5), "{}", brief.stderr);
}

#[test]
fn with_loop_the_command_runs_for_each_object() {
    let tmp = TempDir::new();
    let sources = [tmp.file("a.bin", 2 * MIB, 8), tmp.file("b.bin", MIB + 1, 9)];
    let out = tmp.dir("out");
    let network = Network::loopback();
    let command = format!("cat >{}/$MCP_NAME", out.display());
    let mut receiver = passing(&network, "r", &command).arg("--loop").spawn();
    for source in &sources {
        network.send(source, 1).args(RATE).run(SOON);
        assert!(same(source, &out.join(source.file_name().unwrap())));
    }
    receiver.signal("INT");
    receiver.expect(130, SOON);
}

#[test]
fn files_and_pipes_are_served_together_over_lossy_lines() {
    let Some(lab) = Lab::new(9) else { return };
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 64 * MIB, 10);
    let report = tmp.join("report.json");
    let network = Network::new("239.77.0.1", 7417, "eth0");
    lab.single_packets(0);
    let want = b3(&source);
    let mut receivers: Vec<_> = (1..=8)
        .map(|host| {
            lab.lose(host, 10);
            let id = format!("h{host}");
            let out = tmp.dir(&id);
            let cmd = if host <= 4 {
                network.recv(&id, &out)
            } else {
                let copy = out.join("copy");
                passing(&network, &id, &format!("cat >{}", copy.display()))
            };
            (host, out, lab.on(host, cmd).spawn())
        })
        .collect();
    let sender = network.send(&source, 8).args(["--rate", "150M"]).arg("--report").arg(&report);
    let mut sender = lab.on(0, sender).spawn();
    sender.expect(0, SOON * 4);
    for (host, out, receiver) in &mut receivers {
        receiver.expect(0, SOON);
        let name = if *host <= 4 { "image.bin" } else { "copy" };
        assert_eq!(b3(&out.join(name)), want, "host {host}");
    }
}

/// The exit code and the bytes that the last line of events says, which is what a script reads.
fn last_words(events: &str) -> (i64, i64) {
    let last: serde_json::Value = serde_json::from_str(events.lines().last().expect("a line")).expect("JSON");
    assert!(last["event"] == "finished" && last["bits_per_second"].as_u64() > Some(0), "{last}");
    (last["exit_code"].as_i64().expect("a number"), last["verified_bytes"].as_i64().expect("a number"))
}

#[test]
fn events_go_to_a_fifo_or_a_descriptor_beside_everything_else() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 6 * MIB, 17);
    let (fifo, unread, network) = (tmp.join("fifo"), tmp.join("unread"), Network::loopback());
    for path in [&fifo, &unread] {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a fifo");
    }
    let to = |id: &str, file: &str, script: &str| {
        let (port, group) = (network.port.expect("port").to_string(), network.group.clone().expect("group"));
        let events = format!("--json={file}");
        let args =
            ["recv", "-i", "lo", "-p", &port, "--id", id, "--timeout", "60", "-o", "-", &events, &group];
        Cmd::new(id, support::mcp::MCP).args(args).through(["bash", "-c", script])
    };
    let out = |id: &str| tmp.join(id);
    let discard = |id: &str| format!("\"$0\" \"$@\" >'{}'", out(id).display());
    let read = format!("cat '{}' >'{}' & {}", fifo.display(), out("read.json").display(), discard("read"));
    let descriptor = format!("{} 3>'{}'", discard("fd"), out("fd.json").display());
    // One reader takes the first line and goes away; nobody ever opens the other fifo.
    let gone =
        format!("head -n 1 '{}' >'{}' & {}", unread.display(), out("gone.json").display(), discard("gone"));
    let mut all = [
        to("read", fifo.to_str().expect("text"), &format!("{read}; code=$?; wait; exit $code")).spawn(),
        to("fd", "/dev/fd/3", &descriptor).spawn(),
        to("gone", unread.to_str().expect("text"), &gone).spawn(),
    ];
    network.send(&source, 3).args(RATE).spawn().expect(0, SOON);
    for receiver in &mut all {
        let end = receiver.expect(0, SOON);
        assert!(end.stderr.contains("received 6.00 MiB"), "the screen is as ever: {}", end.stderr);
    }
    for id in ["read", "fd"] {
        let events = fs::read_to_string(out(&format!("{id}.json"))).expect("events");
        assert_eq!(last_words(&events), (0, 6 * MIB as i64));
    }
    for id in ["read", "fd", "gone"] {
        assert!(same(&source, &out(id)), "{id}");
    }
}
