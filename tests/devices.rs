//! Device keys, and lists of devices (`--devices`). Real binary, real sockets on `lo`.

mod support;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::files::{TempDir, assert_empty, assert_only_copy};
use support::mcp::{MCP, Network, Report, SOON, is_event};
use support::process::{Cmd, End};

const RATE: [&str; 2] = ["--rate", "200M"];

trait At {
    fn state(self, dir: &Path) -> Self;
}

impl At for Cmd {
    fn state(self, dir: &Path) -> Self {
        self.env("MCP_STATE_DIR", dir)
    }
}

/// What `mcp key device` prints on the machine with this state directory.
fn line(state: &Path, name: &str) -> String {
    let mut command = Command::new(MCP);
    let out = command.args(["key", "device", "--id", name]).env("MCP_STATE_DIR", state).output();
    let out = out.expect("run mcp key device");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8").trim().to_owned()
}

/// A list of devices as a file.
fn list(tmp: &TempDir, lines: &[&str]) -> PathBuf {
    let path = tmp.join("devices.txt");
    fs::write(&path, format!("# the lab\n{}\n", lines.join("\n"))).expect("write the list");
    path
}

fn named<'a>(end: &'a [Value], kind: &str) -> Vec<&'a Value> {
    end.iter().filter(|event| is_event(event, kind)).collect()
}

fn statuses(end: &End, label: &str) -> Vec<String> {
    let events = end.events();
    let of = events.iter().filter(|e| is_event(e, "status") && e["label"] == label);
    of.map(|e| e["status"].as_str().expect("a status").to_owned()).collect()
}

#[test]
fn the_listed_devices_are_served_and_one_that_poses_as_one_of_them_is_not() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 3 << 20, 1);
    let network = Network::loopback();
    let (own, other) = (tmp.join("own"), tmp.join("other"));
    let report = tmp.join("report.json");
    let keyed = line(&own, "lab-1");
    assert!(keyed.starts_with("lab-1 mcp-device1-"), "{keyed}");
    let list = list(&tmp, &[&keyed, "lab-2"]);
    let (first, second, third, fourth) = (tmp.dir("1"), tmp.dir("2"), tmp.dir("3"), tmp.dir("4"));
    let sender = network.send_to_list(&source, &list).args(RATE).arg("--report").arg(&report);
    let mut sender = sender.state(&tmp.join("sender")).spawn();
    // One under the listed name with a key of its own, and one that is not listed.
    let mut poses = network.recv("lab-1", &third).state(&other).spawn();
    let mut unlisted = network.recv("lab-3", &fourth).state(&other).spawn();
    for (refused, dir) in [(&mut poses, &third), (&mut unlisted, &fourth)] {
        let end = refused.expect(6, SOON);
        assert_eq!(end.last_event()["outcome"], "not_listed");
        assert!(end.stderr.contains("mcp key device"), "{}", end.stderr);
        assert_empty(dir);
    }
    // The true ones; the key alone says who the first one is.
    let mut one = network.recv("whatever", &first).state(&own).spawn();
    let mut two = network.recv("lab-2", &second).state(&other).spawn();
    let end = sender.expect(0, SOON);
    one.expect(0, SOON);
    two.expect(0, SOON);
    assert_only_copy(&source, &first);
    assert_only_copy(&source, &second);
    let report = Report::read(&report);
    let labels: Vec<_> = report.rows().iter().map(|row| row["label"].as_str().expect("a label")).collect();
    assert_eq!((labels.len(), report.status("lab-1"), report.status("lab-2")), (2, "complete", "complete"));
    assert_eq!((report.0["expected"].as_u64(), report.0["wanted"].as_u64()), (Some(2), Some(2)));
    // They had a row from the start.
    for label in ["lab-1", "lab-2"] {
        let statuses = statuses(&end, label);
        assert_eq!((statuses[0].as_str(), statuses.last().expect("one").as_str()), ("missing", "complete"));
    }
    let events = end.events();
    let refused = named(&events, "not_listed");
    let of = |label: &str| refused.iter().find(|e| e["label"] == label).expect("it was told");
    assert_eq!((of("lab-1")["named"].as_bool(), of("lab-3")["named"].as_bool()), (Some(true), Some(false)));
    let joined = named(&events, "joined");
    let key = joined.iter().find(|e| e["label"] == "lab-1").expect("joined")["device_key"].clone();
    assert_eq!(format!("lab-1 {}", key.as_str().expect("a key")), keyed);
}

#[test]
fn one_that_never_comes_is_named() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 1 << 20, 2);
    let (network, out, report) = (Network::loopback(), tmp.dir("out"), tmp.join("report.json"));
    let list = list(&tmp, &["lab-1", "lab-2  # in repair", "lab-3"]);
    let sender = network.send_to_list(&source, &list).args(RATE).args(["--wait", "3s", "--report"]);
    let mut sender = sender.arg(&report).state(&tmp.join("sender")).spawn();
    let mut receiver = network.recv("lab-1", &out).state(&tmp.join("device")).spawn();
    let end = sender.expect(3, SOON);
    receiver.expect(0, SOON);
    assert_only_copy(&source, &out);
    assert!(end.stderr.contains("lab-2: never joined, lab-3: never joined"), "{}", end.stderr);
    let report = Report::read(&report);
    let statuses = ["lab-1", "lab-2", "lab-3"].map(|label| report.status(label).to_owned());
    assert_eq!(statuses, ["complete", "missing", "missing"]);
    assert_eq!((report.counter("devices"), report.counter("devices_missing")), (3.0, 2.0));
    let last = end.last_event();
    assert_eq!((&last["exit"], last["devices_missing"].as_u64()), (&"incomplete".into(), Some(2)));
    // Nobody at all.
    let sender = Network::loopback().send_to_list(&source, &list).args(["--wait", "100ms"]);
    let end = sender.state(&tmp.join("sender")).spawn().expect(4, SOON);
    assert!(end.stderr.contains("no device joined"), "{}", end.stderr);
}

#[test]
fn a_key_that_has_changed_is_told_and_the_device_is_served() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 1 << 20, 3);
    let run = |state: &str, name: &str| -> Vec<Value> {
        let (network, out) = (Network::loopback(), tmp.dir(name));
        let mut receiver = network.recv("lab-1", &out).state(&tmp.join(state)).spawn();
        let mut sender = network.send(&source, 1).args(RATE).state(&tmp.join("sender")).spawn();
        let end = sender.expect(0, SOON);
        receiver.expect(0, SOON);
        assert_only_copy(&source, &out);
        end.events()
    };
    let changed = |events: &[Value]| named(events, "device_key_changed").len();
    assert_eq!(changed(&run("before", "first")), 0, "seen for the first time");
    assert_eq!(changed(&run("before", "again")), 0);
    let events = run("reinstalled", "changed");
    let told = named(&events, "device_key_changed");
    assert_eq!(told.len(), 1);
    let key = |state: &str| line(&tmp.join(state), "lab-1").split_off("lab-1 ".len());
    assert_eq!(
        (&told[0]["device_key"], &told[0]["expected"]),
        (&key("reinstalled").into(), &key("before").into())
    );
    assert_eq!(changed(&run("reinstalled", "known")), 0, "it is remembered");
}

#[test]
fn a_list_that_makes_no_sense_is_refused_by_its_line() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 1000, 4);
    let lines =
        [("lab-1\nlab-1\n", "line 2: the name \"lab-1\""), ("", "lists no device"), ("a b c\n", "line 1")];
    for (text, says) in lines {
        let path = tmp.join("bad.txt");
        fs::write(&path, text).expect("write");
        let sender = Network::loopback().send_to_list(&source, &path).args(["--wait", "100ms"]);
        let end = sender.spawn().expect(2, Duration::from_secs(10));
        assert!(end.stderr.contains("bad.txt") && end.stderr.contains(says), "{}", end.stderr);
    }
    let both = Network::loopback().send_to_list(&source, Path::new("x")).args(["-n", "2"]);
    let end = both.spawn().expect(2, Duration::from_secs(10));
    assert!(end.stderr.contains("--devices"), "{}", end.stderr);
}
