//! Devices that are started again, and clones of their disks: who gets which row. Real binary, real sockets on `lo`.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::files::{TempDir, assert_only_copy, names};
use support::mcp::{MCP, Network, Report, SOON, is_event};
use support::process::{Cmd, End, Proc};

/// 16 MiB take 3.5 s.
const SLOW: [&str; 2] = ["--rate", "40M"];
const SIZE: u64 = 16 << 20;
/// Longer than the silence by which a device without a ticket is taken for a restarted one, and shorter than the one
/// by which it is lost.
const SILENCE: Duration = Duration::from_secs(4);

trait At {
    fn state(self, dir: &Path) -> Self;
}

impl At for Cmd {
    fn state(self, dir: &Path) -> Self {
        self.env("MCP_STATE_DIR", dir)
    }
}

/// The state directory of a machine that has its key, and a copy of it: a clone's.
fn state_and_clone(tmp: &TempDir) -> (PathBuf, PathBuf) {
    let (own, clone) = (tmp.join("own"), tmp.join("clone"));
    let made = Command::new(MCP).args(["key", "device", "--id", "desk"]).env("MCP_STATE_DIR", &own).output();
    assert!(made.expect("run mcp key device").status.success());
    let copied = Command::new("cp").arg("-a").args([&own, &clone]).status();
    assert!(copied.expect("run cp").success());
    (own, clone)
}

fn tickets(state: &Path) -> usize {
    fs::read_dir(state.join("tickets")).map_or(0, Iterator::count)
}

/// Waits until a device has kept its ticket, and has told the sender so.
fn until_kept(state: &Path) {
    let begun = Instant::now();
    while tickets(state) == 0 {
        assert!(begun.elapsed() < SOON, "no ticket in {}", state.display());
        sleep(Duration::from_millis(20));
    }
    // It reports once a second.
    sleep(Duration::from_millis(2500));
}

fn duplicates(end: &End) -> usize {
    end.events().iter().filter(|event| is_event(event, "duplicate_id")).count()
}

fn verified(receiver: &mut Proc, bytes: u64) {
    let enough = |e: &serde_json::Value| {
        is_event(e, "progress") && e["verified_bytes"].as_u64().is_some_and(|have| have >= bytes)
    };
    receiver.until(&format!("{bytes} bytes verified"), SOON, enough);
}

#[test]
fn a_clone_that_joins_while_the_first_device_is_silent_takes_nothing_from_it() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", SIZE, 1);
    let (network, report) = (Network::loopback(), tmp.join("report.json"));
    let (own, copy) = state_and_clone(&tmp);
    let (out, other) = (tmp.dir("out"), tmp.dir("other"));
    let mut sender =
        network.send(&source, 2).args(SLOW).arg("--report").arg(&report).state(&tmp.join("sender")).spawn();
    let mut first = network.recv("desk", &out).state(&own).spawn();
    until_kept(&own);
    first.signal("STOP");
    sleep(SILENCE);
    let mut clone = network.recv("desk", &other).state(&copy).spawn();
    clone.event("admitted");
    first.signal("CONT");
    let end = sender.expect(0, SOON);
    first.expect(0, SOON);
    clone.expect(0, SOON);
    assert_only_copy(&source, &out);
    assert_only_copy(&source, &other);
    assert_eq!(duplicates(&end), 1);
    let report = Report::read(&report);
    assert_eq!((report.rows().len(), report.status("desk")), (2, "complete"));
    let clone = report.rows().iter().find(|row| row["label"] != "desk").expect("the clone has a row");
    assert!(clone["label"].as_str().is_some_and(|label| label.starts_with("desk (duplicate")), "{clone}");
    assert_eq!(clone["status"], "complete");
    assert_eq!((tickets(&own), tickets(&copy)), (0, 0), "they are of no more use");
}

#[test]
fn a_device_that_is_killed_and_started_again_has_its_row_back() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", SIZE, 2);
    // The last one cannot keep a ticket: it is known by its silence.
    fs::write(tmp.join("file"), "").expect("write");
    for (name, state) in [("kept", tmp.join("state")), ("none", tmp.join("file/state"))] {
        let (network, report) = (Network::loopback(), tmp.join(format!("{name}.json")));
        let out = tmp.dir(name);
        let sender = network.send(&source, 1).args(SLOW).arg("--report").arg(&report);
        let mut sender = sender.state(&tmp.join("sender")).spawn();
        let recv = || network.recv("desk", &out).state(&state);
        let mut first = recv().spawn();
        verified(&mut first, 3 << 20);
        first.signal("KILL");
        first.finish(SOON);
        let kept = tickets(&state);
        assert_eq!(kept, usize::from(name == "kept"));
        let mut second = recv().spawn();
        let end = sender.expect(0, SOON);
        second.expect(0, SOON);
        assert_only_copy(&source, &out);
        let report = Report::read(&report);
        assert_eq!((report.rows().len(), report.status("desk")), (1, "complete"), "{name}");
        assert_eq!(duplicates(&end), 0, "{name}");
        assert_eq!((tickets(&state), names(&out).len()), (0, 1));
    }
}

/// A place of its own has no ticket: the run is another one, and the table says what became of the first.
#[test]
fn one_that_is_started_again_for_another_place_gets_a_row_of_its_own() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", SIZE, 3);
    let (network, report, state) = (Network::loopback(), tmp.join("report.json"), tmp.join("state"));
    let (out, other) = (tmp.dir("out"), tmp.dir("other"));
    let sender = network.send(&source, 1).args(SLOW).arg("--report").arg(&report);
    let mut sender = sender.state(&tmp.join("sender")).spawn();
    let mut first = network.recv("desk", &out).state(&state).spawn();
    verified(&mut first, 4 << 20);
    first.signal("KILL");
    first.finish(SOON);
    let mut second = network.recv("desk", &other).state(&state).spawn();
    let end = sender.expect(3, SOON);
    second.expect(0, SOON);
    assert_only_copy(&source, &other);
    let report = Report::read(&report);
    assert_eq!((report.rows().len(), report.status("desk"), duplicates(&end)), (2, "lost", 1));
}
