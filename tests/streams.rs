//! Streams with the real binary over `lo` and in network namespaces: `send -`, `send --pipe`, their ends, good and bad.

mod support;

use rustix::fs::{FileType, Mode};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::files::{TempDir, assert_empty, assert_only_part, names};
use support::lab::Lab;
use support::mcp::{MCP, Network, Report, SOON, is_event};
use support::process::{Cmd, Proc};

const MIB: u64 = 1 << 20;
/// A rate at which two busy cores do not lose datagrams.
const RATE: [&str; 2] = ["--rate", "300M"];
/// A slow run, to do something in the middle of.
const SLOW: [&str; 2] = ["--rate", "40M"];

/// The same command with the output of this script as its standard input.
fn fed(cmd: Cmd, script: &str) -> Cmd {
    cmd.through(["sh", "-c", &format!("{{ {script}; }} | \"$0\" \"$@\"")])
}

/// The same command with a file as its standard input.
fn reading(cmd: Cmd, file: &Path) -> Cmd {
    cmd.through(["sh", "-c", &format!("exec \"$0\" \"$@\" <'{}'", file.display())])
}

/// Whether the only file in `dir` is a copy of the stream, under its name.
#[track_caller]
fn assert_received(source: &Path, dir: &Path, name: &str) {
    assert_eq!(names(dir), [name]);
    assert!(
        fs::read(source).expect("source") == fs::read(dir.join(name)).expect("copy"),
        "{}",
        dir.display()
    );
}

#[track_caller]
fn verified(receiver: &mut Proc, bytes: u64) {
    let enough = |e: &Value| {
        is_event(e, "progress") && e["verified_bytes"].as_u64().is_some_and(|verified| verified >= bytes)
    };
    receiver.until(&format!("{bytes} bytes verified"), SOON, enough);
}

fn receivers(network: &Network, tmp: &TempDir, count: usize) -> Vec<(Proc, PathBuf)> {
    let names = (0..count).map(|n| format!("r{n}"));
    names.map(|name| (network.recv(&name, tmp.dir(&name)).spawn(), tmp.dir(&name))).collect()
}

#[test]
fn what_is_piped_into_it_arrives_also_at_one_that_comes_in_the_middle() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 24 * MIB + 4321, 1);
    let (network, report) = (Network::loopback(), tmp.join("report.json"));
    let mut first = receivers(&network, &tmp, 4);
    let sender = network.send("-", 4).args(SLOW).args(["--linger", "1s"]).arg("--report").arg(&report);
    let mut sender = fed(sender, &format!("cat '{}'", source.display())).spawn();
    let start = sender.event("start");
    assert_eq!((&start["name"], &start["size"]), (&Value::from("stdin"), &Value::Null));
    let found = first[0].0.event("found");
    assert_eq!((&found["name"], &found["size"]), (&Value::from("stdin"), &Value::Null));
    verified(&mut first[0].0, 12 * MIB);
    let late = tmp.dir("late");
    first.push((network.recv("late", &late).spawn(), late));
    for (receiver, dir) in &mut first {
        let end = receiver.expect(0, SOON);
        assert_eq!(end.last_event()["size"], 24 * MIB + 4321);
        assert_received(&source, dir, "stdin");
    }
    sender.expect(0, SOON);
    assert_eq!(Report::read(&report).0["object"]["size"], 24 * MIB + 4321);
}

#[test]
fn every_length_is_right() {
    for (n, len) in [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB].into_iter().enumerate() {
        let tmp = TempDir::new();
        let source = tmp.file("image.bin", len, n as u64);
        let network = Network::loopback();
        let mut all = receivers(&network, &tmp, 2);
        let mut sender = reading(network.send("-", 2).args(RATE), &source).spawn();
        for (receiver, dir) in &mut all {
            receiver.expect(0, SOON);
            assert_received(&source, dir, "stdin");
        }
        sender.expect(0, SOON);
    }
}

/// It pauses for longer than a device or a sender may be silent.
#[test]
fn a_producer_may_pause() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 6 * MIB + 9, 2);
    let network = Network::loopback();
    let mut all = receivers(&network, &tmp, 2);
    let path = source.display();
    let script = format!("head -c 3500000 '{path}'; sleep 22; tail -c +3500001 '{path}'");
    let sender = network.send("-", 2).args(["--rate", "auto:300M"]);
    let mut sender = fed(sender, &script).spawn();
    // What was read so far arrives while it pauses.
    verified(&mut all[0].0, 3 * MIB);
    for (receiver, dir) in &mut all {
        receiver.expect(0, SOON);
        assert_received(&source, dir, "stdin");
    }
    let end = sender.expect(0, SOON);
    assert!(end.cpu < 8.0, "{} s of processor time: it waits without spinning", end.cpu);
}

#[test]
fn a_command_that_succeeds_is_a_stream_named_like_its_file() {
    let tmp = TempDir::new();
    let source = tmp.file("sda2", 5 * MIB + 77, 3);
    let network = Network::loopback();
    let mut all = receivers(&network, &tmp, 2);
    let mut sender = network.send(&source, 2).args(RATE).args(["--pipe", "tr a-z A-Z | cat"]).spawn();
    let upper = tmp.join("upper");
    fs::write(&upper, fs::read(&source).expect("source").to_ascii_uppercase()).expect("write");
    for (receiver, dir) in &mut all {
        receiver.expect(0, SOON);
        assert_received(&upper, dir, "sda2");
    }
    sender.expect(0, SOON);
}

#[test]
fn a_command_that_fails_completes_nobody() {
    for (end, why) in [("exit 3", "exited with 3"), ("kill -9 $$", "was ended by signal 9")] {
        let tmp = TempDir::new();
        let source = tmp.file("image.bin", 4 * MIB + 1, 4);
        let network = Network::loopback();
        let mut all = receivers(&network, &tmp, 2);
        // It fails only once the devices have joined: otherwise they would wait for another sender.
        let go = tmp.join("go");
        rustix::fs::mknodat(rustix::fs::CWD, &go, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .expect("a fifo");
        let command = format!("cat; read go < {}; {end}", go.display());
        let mut sender = network.send(&source, 2).args(RATE).args(["--pipe", &command]).spawn();
        for (receiver, _) in &mut all {
            receiver.event("receiving");
        }
        fs::write(&go, "\n").expect("the command waits");
        let end = sender.expect(1, SOON);
        assert!(end.stderr.contains("the --pipe command") && end.stderr.contains(why), "{}", end.stderr);
        for (receiver, dir) in &mut all {
            let end = receiver.expect(6, SOON);
            assert!(end.stderr.contains(why), "{}", end.stderr);
            assert!(!names(dir).iter().any(|name| name == "image.bin"), "{:?}", names(dir));
        }
    }
}

/// The same command with what it prints going to another.
fn into(cmd: Cmd, consumer: &str) -> Cmd {
    cmd.through(["bash", "-c", &format!("set -o pipefail; \"$0\" \"$@\" | {consumer}")])
}

#[test]
fn a_stream_goes_from_pipe_to_pipe() {
    let tmp = TempDir::new();
    // More than the window of a pipe.
    let source = tmp.file("image.bin", 60 * MIB + 4321, 10);
    let (network, out, copy) = (Network::loopback(), tmp.dir("out"), tmp.join("copy"));
    let mut plain = into(network.recv("plain", "-"), &format!("cat >'{}'", copy.display())).spawn();
    let mut file = network.recv("file", &out).spawn();
    // How long it is going to be is not known.
    let command = format!("test -z \"$MCP_SIZE\" && cmp - '{}'", source.display());
    let own = network.recv("own", "-").args(["--any-sender", "--pipe", &command]);
    let mut own = own.env("MCP_SIZE", "7").spawn();
    let script = format!("head -c 9000000 '{0}'; sleep 6; tail -c +9000001 '{0}'", source.display());
    let mut sender = fed(network.send("-", 3).args(RATE), &script).spawn();
    let started = Instant::now();
    while fs::metadata(&copy).map_or(0, |meta| meta.len()) < 8 * MIB {
        assert!(started.elapsed() < SOON, "what was read so far is not passed on");
        std::thread::sleep(Duration::from_millis(20));
    }
    sender.expect(0, SOON);
    for receiver in [&mut plain, &mut file, &mut own] {
        receiver.expect(0, SOON);
    }
    assert_received(&source, &out, "stdin");
    assert!(fs::read(&source).expect("source") == fs::read(&copy).expect("copy"));
}

#[test]
fn a_command_that_reads_does_not_see_the_end_of_a_stream_whose_producer_dies() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 6 * MIB + 9, 11);
    let (network, spool) = (Network::loopback(), tmp.dir("spool"));
    let word = format!("98764{}", std::process::id());
    let mut all: Vec<_> = ["window", "spool"]
        .map(|id| {
            let (out, whole) = (tmp.join(format!("{id}.out")), tmp.join(format!("{id}.whole")));
            // The last one never ends by itself.
            let command =
                format!("cat | (cat >'{}'; touch '{}') | sleep {word}", out.display(), whole.display());
            let cmd = network.recv(id, "-").args(["--any-sender", "--pipe", &command]);
            let cmd = if id == "spool" { cmd.arg("--spool").arg(&spool) } else { cmd };
            (cmd.spawn(), out, whole)
        })
        .into();
    let mut sender = network.send(&source, 2).args(RATE).args(["--pipe", "cat; sleep 8; exit 3"]).spawn();
    let started = Instant::now();
    for (_, out, _) in &all {
        while fs::metadata(out).map_or(0, |meta| meta.len()) < 4 * MIB {
            assert!(started.elapsed() < SOON, "{} does not grow", out.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(running(&format!("sleep {word}")) > 0);
    sender.expect(1, SOON);
    for (receiver, _, whole) in &mut all {
        let end = receiver.expect(6, SOON);
        assert!(end.stderr.contains("exited with 3"), "{}", end.stderr);
        assert!(!whole.exists());
    }
    assert_eq!(running(&format!("sleep {word}")), 0);
}

/// Processes whose command line has this word.
fn running(word: &str) -> usize {
    let out = Command::new("pgrep").args(["-cf", word]).output().expect("pgrep");
    String::from_utf8_lossy(&out.stdout).trim().parse().expect("a number")
}

#[test]
fn an_interrupt_ends_the_command_and_all_it_has_started() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 8 * MIB, 5);
    let network = Network::loopback();
    let mut all = receivers(&network, &tmp, 1);
    // A number of seconds that no other process has.
    let word = format!("98765{}", std::process::id());
    let command = format!("{{ cat; sleep {word}; }} | cat");
    let mut sender = network.send(&source, 1).args(RATE).args(["--pipe", &command]).spawn();
    verified(&mut all[0].0, 4 * MIB);
    assert!(running(&format!("sleep {word}")) > 0);
    sender.signal("INT");
    sender.expect(130, SOON);
    assert_eq!(running(&format!("sleep {word}")), 0);
    all[0].0.expect(6, SOON);
    assert_only_part(&all[0].1);
}

#[test]
fn a_full_spool_ends_the_transfer_and_says_so() {
    if !support::is_root() {
        eprintln!("skipped: a small file system needs root");
        return;
    }
    let tmp = TempDir::new();
    let (source, spool) = (tmp.file("image.bin", 8 * MIB, 6), tmp.dir("spool"));
    let network = Network::loopback();
    let mut all = receivers(&network, &tmp, 1);
    let sender = network.send("-", 1).args(RATE).arg("--spool").arg(&spool);
    // There is room for what comes before the devices have joined.
    let script = format!("head -c 2000000 '{0}'; sleep 6; cat '{0}'", source.display());
    let mut sender = fed(sender, &script).with_tmpfs(&spool, "size=3m").spawn();
    let end = sender.expect(1, SOON);
    assert!(end.stderr.contains("is full") && end.stderr.contains("--spool"), "{}", end.stderr);
    all[0].0.expect(6, SOON);
    assert!(!names(&all[0].1).iter().any(|name| name == "stdin"));
    let mut none = reading(network.send("-", 1).args(["--spool", "/no/such/place"]), &source).spawn();
    let end = none.expect(1, SOON);
    assert!(end.stderr.contains("/no/such/place"), "{}", end.stderr);
}

#[test]
fn a_killed_receiver_resumes() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 24 * MIB, 7);
    let (network, out) = (Network::loopback(), tmp.dir("out"));
    let mut first = network.recv("r", &out).spawn();
    let sender = network.send("-", 1).args(SLOW).args(["--linger", "20s"]);
    let mut sender = reading(sender, &source).spawn();
    verified(&mut first, 8 * MIB);
    first.signal("KILL");
    first.finish(SOON);
    assert_only_part(&out);
    let mut second = network.recv("r", &out).spawn();
    let end = second.expect(0, SOON);
    assert_received(&source, &out, "stdin");
    let held = end.events().into_iter().find(|e| is_event(e, "resumed")).expect("it says what it had");
    assert!(held["bytes"].as_u64().is_some_and(|bytes| bytes >= 6 * MIB), "{held}");
    sender.signal("INT");
    sender.finish(SOON);
    // The same bytes again are the same blocks, from another sender.
    let again = tmp.dir("again");
    let mut third = network.recv("s", &again).spawn();
    let mut sender = reading(network.send("-", 1).args(SLOW), &source).spawn();
    verified(&mut third, 8 * MIB);
    sender.signal("KILL");
    sender.finish(SOON);
    let mut sender = reading(network.send("-", 1).args(SLOW), &source).spawn();
    let found = third.expect(0, SOON).events().into_iter().filter(|e| is_event(e, "found")).count();
    assert_eq!(found, 2, "it found the sender twice");
    sender.expect(0, SOON);
    assert_received(&source, &again, "stdin");
}

#[test]
fn loss_is_repaired() {
    let Some(lab) = Lab::new(5) else { return };
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 24 * MIB + 5, 8);
    let network = Network::new("239.77.0.1", 7417, "eth0");
    let mut all = Vec::new();
    for host in 1..5 {
        lab.lose(host, 10);
        let dir = tmp.dir(&format!("h{host}"));
        all.push((lab.on(host, network.recv(&format!("h{host}"), &dir)).spawn(), dir));
    }
    let script = format!("cat '{0}' | head -c 9000000; sleep 1; tail -c +9000001 '{0}'", source.display());
    let sender = network.send("-", 4).args(["--rate", "100M"]);
    let mut sender = lab.on(0, fed(sender, &script)).spawn();
    for (receiver, dir) in &mut all {
        receiver.expect(0, SOON);
        assert_received(&source, dir, "stdin");
    }
    sender.expect(0, SOON);
}

#[test]
fn nothing_is_sent_without_a_device() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 9);
    let network = Network::loopback();
    let sender = network.send("-", 1).args(["--wait", "1s"]);
    reading(sender, &source)
        .run(SOON)
        .status
        .code()
        .map_or_else(|| panic!("killed"), |code| assert_eq!(code, 4));
    let help = Cmd::new("help", MCP).args(["send", "--help"]).run(SOON);
    assert!(help.lines.iter().any(|line| line.contains("--pipe")), "{:?}", help.lines);
    assert_empty(&tmp.dir("none"));
}

#[test]
fn with_a_window_what_comes_late_is_refused_and_the_others_go_on() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 40 * MIB + 99, 41);
    let (network, report) = (Network::loopback(), tmp.join("report.json"));
    let mut all = receivers(&network, &tmp, 3);
    let cmd = network.send("-", 3).args(["--rate", "100M", "--window", "10M", "--pipe", "cat"]);
    let mut sender = reading(cmd.arg("--report").arg(&report), &source).spawn();
    // One is killed, so the window stays where it is for ten seconds, or until the next run of it is refused.
    let (mut killed, out) = all.pop().expect("three");
    verified(&mut killed, 6 * MIB);
    killed.signal("KILL");
    killed.finish(SOON);
    // Those that are left have all that the window has.
    all.iter_mut().for_each(|(receiver, _)| verified(receiver, 14 * MIB));
    for (id, out) in [("late", &tmp.dir("late")), ("r2", &out)] {
        let end = network.recv(id, out).spawn().expect(6, SOON);
        assert!(end.stderr.contains("came after the beginning"), "{}", end.stderr);
        assert!(!out.join("stdin").exists());
    }
    sender.expect(3, SOON);
    for (receiver, out) in &mut all {
        receiver.expect(0, SOON);
        assert_received(&source, out, "stdin");
    }
    let failed = Report::read(&report).reason("r2");
    assert!(failed.contains("--window"), "{failed}");
}

#[test]
fn an_endless_stream_goes_through_a_window_until_it_is_interrupted() {
    let tmp = TempDir::new();
    let network = Network::loopback();
    let ended = |n: usize| tmp.join(format!("ended{n}"));
    let receiver = |n: usize| {
        let command = format!("cat >/dev/null; echo >'{}'", ended(n).display());
        network.recv(&format!("r{n}"), "-").args(["--any-sender", "--pipe", &command]).spawn()
    };
    let mut all = [1, 2].map(receiver);
    let (group, port) = (network.group.clone().expect("group"), network.port.expect("port").to_string());
    let args = ["send", "--json", "--pipe", "yes", "--name", "endless", "--window", "8M", "--rate", "400M"];
    let sender = Cmd::new("sender", MCP).args(args).args(["-i", "lo", "-n", "2", "-p", &port, &group]);
    let mut sender = sender.spawn();
    sender.watch_memory();
    let enough = |e: &Value| e["streamed_bytes"].as_u64().is_some_and(|bytes| bytes >= 128 * MIB);
    sender.until("128 MiB of the stream", SOON, enough);
    let memory = sender.memory().anonymous;
    assert!(memory < 64 * MIB, "{memory} bytes of memory for a window of 8 MiB");
    sender.signal("INT");
    sender.expect(130, SOON);
    for (n, receiver) in (1..).zip(&mut all) {
        receiver.expect(6, SOON);
        assert!(!ended(n).exists(), "the command took the cut stream for a whole one");
    }
}

#[test]
fn a_command_that_reads_nothing_needs_no_file() {
    let tmp = TempDir::new();
    let network = Network::loopback();
    let mut all = receivers(&network, &tmp, 1);
    let command = "test -z \"$(cat)\" && echo hello";
    let network = (network.group.expect("group"), network.port.expect("port").to_string());
    let args = ["send", "--pipe", command, "--name", "greeting", "-i", "lo", "-n", "1", "-p", &network.1];
    Cmd::new("sender", MCP).args(args).arg(&network.0).spawn().expect(0, SOON);
    all[0].0.expect(0, SOON);
    assert_eq!(fs::read(all[0].1.join("greeting")).expect("the file"), b"hello\n");
    for (args, why) in [
        (&["send", "--pipe", "true"][..], "--name"),
        (&["send", "/dev/null", "--spool", "/tmp"], "--spool is for streams"),
        (&["send", "/dev/null", "--window", "9M"], "--window is for streams"),
        (&["send", "-", "--one-way", "-r", "1M"], "write the stream to a file, and send that"),
    ] {
        let end = Cmd::new("sender", MCP).args(args.iter().copied()).spawn().expect(2, SOON);
        assert!(end.stderr.contains(why), "{}", end.stderr);
    }
}
