//! Resuming after an interruption, with the real binary over `lo`: killed receivers, killed senders, earlier versions,
//! stored hashes.

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use support::files::{TempDir, assert_only_copy, names};
use support::mcp::{Network, Report, SOON, is_event, number};

const MIB: u64 = 1 << 20;
/// A rate at which two busy cores do not lose datagrams.
const RATE: [&str; 2] = ["--rate", "400M"];
/// A slow run, to do something in the middle of: 16 MiB take 3.5 s.
const SLOW: [&str; 2] = ["--rate", "40M"];

/// A copy of `source`, in which one byte of each of these blocks of 1 MiB is another.
fn changed(source: &Path, to: PathBuf, blocks: impl Iterator<Item = u64>) -> PathBuf {
    fs::copy(source, &to).expect("copy");
    let file = fs::OpenOptions::new().read(true).write(true).open(&to).expect("open");
    for block in blocks {
        let (at, mut byte) = (block * MIB + 4711 * (block + 1), [0]);
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 1], at).expect("write");
    }
    to
}

#[test]
fn a_killed_receiver_that_is_started_again_receives_only_the_rest() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 32 * MIB + 4321, 1);
    let out = tmp.dir("out");
    // With the same sender still at it, and with another one.
    let network = Network::loopback();
    let mut first = network.recv("r", &out).spawn();
    let mut sender = network.send(&source, 1).args(SLOW).args(["--linger", "20s"]).spawn();
    first.verified(7 * MIB);
    first.signal("KILL");
    first.finish(SOON);
    assert_eq!(names(&out).len(), 1, "the part file stays");
    let mut second = network.recv("r", &out).spawn();
    second.verified(10 * MIB);
    second.signal("KILL");
    second.finish(SOON);
    sender.signal("INT");
    sender.finish(SOON);

    let mut sender = network.send(&source, 1).args(SLOW).spawn();
    let mut third = network.recv("r", &out).spawn();
    let end = third.expect(0, SOON);
    sender.expect(0, SOON);
    assert_only_copy(&source, &out);
    let share = end.received_share();
    assert!(share < 0.7, "received {share} of the object again: {}", end.last_event());
    let held = end.events().into_iter().find(|e| is_event(e, "resumed")).expect("it says what it had");
    assert!(number(&held, "percent") > 30.0, "{held}");
}

#[test]
fn receivers_go_on_with_a_killed_sender_that_is_started_again() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 16 * MIB, 2);
    let (dirs, report) = ([tmp.dir("a"), tmp.dir("b")], tmp.join("report.json"));
    let network = Network::loopback();
    let mut receivers = [network.recv("a", &dirs[0]).spawn(), network.recv("b", &dirs[1]).spawn()];
    let mut sender = network.send(&source, 2).args(SLOW).spawn();
    receivers.iter_mut().for_each(|receiver| receiver.verified(6 * MIB));
    sender.signal("KILL");
    sender.finish(SOON);
    let mut sender = network.send(&source, 2).args(SLOW).arg("--report").arg(&report).spawn();
    for (receiver, dir) in receivers.iter_mut().zip(&dirs) {
        let found = receiver.expect(0, SOON).events().into_iter().filter(|e| is_event(e, "found")).count();
        assert_eq!(found, 2, "it found the sender twice");
        assert_only_copy(&source, dir);
    }
    sender.expect(0, SOON);
    let report = Report::read(&report);
    let wire = report.counter("wire_bytes") / (16 * MIB) as f64;
    assert!(wire < 0.75, "{wire} of the object on the wire: {:#}", report.0["counters"]);
}

#[test]
fn interrupted_on_either_side_it_is_kept_and_said() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 16 * MIB, 3);
    let network = Network::loopback();
    let dirs = [tmp.dir("theirs"), tmp.dir("ours")];
    let mut stays = network.recv("stays", &dirs[0]).spawn();
    let mut goes = network.recv("goes", &dirs[1]).spawn();
    let mut sender = network.send(&source, 2).args(SLOW).spawn();
    goes.verified(3 * MIB);
    goes.signal("INT");
    let gone = goes.expect(130, SOON);
    stays.verified(5 * MIB);
    sender.signal("INT");
    sender.expect(130, SOON);
    for (end, least) in [(gone, 3 * MIB), (stays.expect(6, SOON), 5 * MIB)] {
        assert!(end.stderr.contains("MiB are kept and the next 'mcp recv' resumes"), "{}", end.stderr);
        assert!(number(&end.last_event(), "kept_bytes") >= least as f64, "{}", end.last_event());
    }
    let mut sender = network.send(&source, 2).args(RATE).spawn();
    let mut receivers = [network.recv("stays", &dirs[0]).spawn(), network.recv("goes", &dirs[1]).spawn()];
    for (receiver, dir) in receivers.iter_mut().zip(&dirs) {
        let end = receiver.expect(0, SOON);
        assert!(number(&end.last_event(), "resumed_bytes") >= (3 * MIB) as f64, "{}", end.last_event());
        assert_only_copy(&source, dir);
    }
    sender.expect(0, SOON);
}

/// Sends an image of which 5 % of the blocks have changed to receivers that have the old one; returns
/// the bytes on the wire for each byte of the image.
fn wire_share_of_five_percent(tmp: &TempDir, receivers: usize) -> f64 {
    const BLOCKS: u64 = 256;
    let old = tmp.file("old.bin", BLOCKS * MIB, 4);
    let mut blocks: Vec<u64> = (0..BLOCKS).collect();
    fastrand::Rng::with_seed(5).shuffle(&mut blocks);
    let new = changed(&old, tmp.join("image.bin"), blocks.into_iter().take(BLOCKS as usize / 20));
    let report = tmp.join("report.json");
    let network = Network::loopback();
    let receive = |n: usize| {
        let out = tmp.dir(&format!("out{n}"));
        (network.recv(&format!("r{n}"), &out).arg("--from").arg(&old).spawn(), out)
    };
    let mut all: Vec<_> = (0..receivers).map(receive).collect();
    let mut sender = network.send(&new, receivers).args(["--rate", "200M", "--report"]).arg(&report).spawn();
    sender.expect(0, SOON);
    for (receiver, out) in &mut all {
        let end = receiver.expect(0, SOON);
        assert!(number(&end.last_event(), "resumed_bytes") >= (240 * MIB) as f64, "{}", end.last_event());
        assert_only_copy(&new, out);
        fs::remove_dir_all(out).expect("make room");
    }
    let report = Report::read(&report);
    assert!(report.counter("skipped_bytes") >= (240 * MIB) as f64, "{:#}", report.0["counters"]);
    report.counter("wire_bytes") / (BLOCKS * MIB) as f64
}

#[test]
fn an_image_of_which_5_percent_changed_costs_little_more_than_that() {
    for receivers in [1, 8] {
        let share = wire_share_of_five_percent(&TempDir::new(), receivers);
        println!("{receivers} receivers: {share:.4} bytes on the wire per byte");
        assert!(share <= 0.07, "{receivers} receivers: {share} bytes on the wire per byte");
    }
}

#[test]
fn an_earlier_version_that_cannot_be_read_is_named_at_once() {
    let tmp = TempDir::new();
    let missing = tmp.join("missing.iso");
    let end = Network::loopback().recv("r", tmp.path()).arg("--from").arg(&missing).run(SOON);
    assert_eq!(end.code, Some(1));
    assert!(end.stderr.contains("missing.iso does not exist"), "{}", end.stderr);
}

/// A file that is large and old enough for its hashes to be stored.
fn settled_source(tmp: &TempDir) -> PathBuf {
    let source = tmp.file("image.bin", 20 * MIB, 6);
    let settled = SystemTime::now() - Duration::from_secs(60);
    fs::File::options().write(true).open(&source).expect("open").set_modified(settled).expect("date");
    source
}

#[test]
fn hashes_are_remembered_and_a_damaged_memory_is_set_aside() {
    let tmp = TempDir::new();
    let (source, state) = (settled_source(&tmp), tmp.dir("state"));
    let network = Network::loopback();
    let known = |n: u32| {
        let out = tmp.dir(&format!("out{n}"));
        let mut receiver = network.recv("r", &out).spawn();
        let sender = network.send(&source, 1).args(RATE).arg("-v");
        let mut sender = sender.env("MCP_STATE_DIR", &state).spawn();
        let end = sender.expect(0, SOON);
        receiver.expect(0, SOON);
        assert_only_copy(&source, &out);
        end.events().iter().any(|e| is_event(e, "note") && e.to_string().contains("hashed before"))
    };
    assert!(!known(0));
    assert!(known(1));
    let entry = state.join("hashes").join(&names(&state.join("hashes"))[0]);
    let mut bytes = fs::read(&entry).expect("read");
    *bytes.last_mut().expect("a checksum") ^= 1;
    fs::write(&entry, bytes).expect("write");
    assert!(!known(2));
    assert!(known(3));
    assert!(names(&state.join("hashes")).iter().any(|name| name.ends_with(".bad")));
}

#[test]
fn wrong_hashes_are_forgotten_at_the_first_mismatch() {
    let tmp = TempDir::new();
    let (source, state) = (settled_source(&tmp), tmp.dir("state"));
    let network = Network::loopback();
    let send = || network.send(&source, 1).args(RATE).env("MCP_STATE_DIR", &state);
    let first = tmp.dir("first");
    let mut receiver = network.recv("r", &first).spawn();
    send().spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    // The value of one block is wrong, and the checksum is right: what a bug or a file that changed without a
    // new time would leave.
    let hashes = state.join("hashes");
    let entry = hashes.join(&names(&hashes)[0]);
    let mut bytes = fs::read(&entry).expect("read");
    bytes.truncate(bytes.len() - 32);
    *bytes.last_mut().expect("a value") ^= 1;
    let sum = *blake3::hash(&bytes).as_bytes();
    bytes.extend(sum);
    fs::write(&entry, bytes).expect("write");
    let end = send().run(SOON);
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(end.stderr.contains("not what it was when it was hashed last; send it again"), "{}", end.stderr);
    let second = tmp.dir("second");
    let mut receiver = network.recv("r", &second).spawn();
    send().spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    assert_only_copy(&source, &second);
}
