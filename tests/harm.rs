//! Files that disappear during a transfer: the source from the sender, the output directory from a receiver. Real
//! binary, over `lo`; `kill.rs` has faults of single system calls.

mod support;

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};
use support::files::{TempDir, assert_empty, assert_only_copy, b3, names, seeded};
use support::mcp::{Network, Report, SOON, is_event};
use support::process::{Cmd, Proc};
use support::{has_program, is_root, skip};

const MIB: u64 = 1 << 20;
/// 8 MiB take 3.5 s: time to do something in the middle.
const SLOW: [&str; 2] = ["--rate", "20M"];
const NAME: &str = "image.bin";

/// Waits until the receiver has taken some data in.
#[track_caller]
fn midway(receiver: &mut Proc) {
    receiver.received(64 << 10);
}

/// Sends a file to two receivers while `harm` comes over it. They must break off and say why: exit
/// code 1 at the sender, 6 at the receivers, and no file.
fn breaks_off(seed: u64, why: &str, harm: impl Fn(&Path)) {
    let tmp = TempDir::new();
    let source = tmp.file(NAME, 12 * MIB, seed);
    let dirs = [tmp.dir("a"), tmp.dir("b")];
    let network = Network::loopback();
    let mut receivers = ["a", "b"].map(|id| network.recv(id, tmp.join(id)).spawn());
    let mut sender = network.send(&source, 2).args(SLOW).spawn();
    midway(&mut receivers[0]);
    harm(&source);
    let end = sender.expect(1, SOON);
    assert!(end.stderr.contains(NAME) && end.stderr.contains(why), "{}", end.stderr);
    for (receiver, dir) in receivers.iter_mut().zip(&dirs) {
        let end = receiver.expect(6, SOON);
        assert!(end.stderr.contains(why), "says why: {}", end.stderr);
        assert!(!end.events().iter().any(|e| is_event(e, "committed")), "{}", receiver.transcript());
        assert_empty(dir);
    }
}

/// The same, but what comes over the file's name does not touch the file: the copy is of the file as
/// it was when the transfer began.
fn goes_on(seed: u64, harm: impl Fn(&Path)) {
    let tmp = TempDir::new();
    let source = tmp.file(NAME, 6 * MIB, seed);
    let before = b3(&source);
    let out = tmp.dir("out");
    let network = Network::loopback();
    let mut receiver = network.recv("r", &out).spawn();
    let mut sender = network.send(&source, 1).args(SLOW).spawn();
    midway(&mut receiver);
    harm(&source);
    sender.expect(0, SOON);
    receiver.expect(0, SOON);
    assert_eq!(names(&out), [NAME]);
    assert_eq!(b3(&out.join(NAME)), before);
}

fn writable(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).expect("open the source")
}

#[test]
fn a_source_that_grows_breaks_off() {
    breaks_off(1, "changed", |path| {
        writable(path).write_all_at(b"more", 12 * MIB).expect("append");
    });
}

#[test]
fn a_source_that_shrinks_breaks_off() {
    breaks_off(2, "shrank", |path| writable(path).set_len(3 * MIB + 5).expect("truncate"));
}

#[test]
fn a_source_that_is_emptied_breaks_off() {
    breaks_off(8, "shrank", |path| writable(path).set_len(0).expect("truncate"));
}

#[test]
fn a_source_that_is_written_to_breaks_off() {
    breaks_off(9, "changed", |path| writable(path).write_all_at(b"changed", 11 * MIB).expect("write"));
}

#[test]
fn a_source_that_is_rewritten_breaks_off() {
    // Truncated and written anew with as many other bytes, as most programs save.
    breaks_off(3, "while it was being sent", |path| seeded(path, 12 * MIB, 33));
}

#[test]
fn a_source_that_is_dated_anew_breaks_off() {
    // It may have been written to through a map: the date is all that tells.
    breaks_off(4, "changed", |path| {
        let yesterday = SystemTime::now() - Duration::from_secs(86_400);
        writable(path).set_modified(yesterday).expect("date");
    });
}

#[test]
fn a_source_that_is_removed_is_sent_to_its_end() {
    goes_on(5, |path| fs::remove_file(path).expect("remove"));
}

#[test]
fn a_source_that_is_replaced_under_its_name_is_sent_to_its_end() {
    goes_on(6, |path| {
        let other = path.with_extension("new");
        seeded(&other, 7 * MIB, 66);
        fs::rename(other, path).expect("rename");
    });
}

#[test]
fn a_source_that_may_not_be_read_any_more_is_sent_to_its_end() {
    goes_on(7, |path| fs::set_permissions(path, Permissions::from_mode(0o000)).expect("permissions"));
}

#[test]
fn a_limit_of_file_sizes_is_told() {
    let tmp = TempDir::new();
    let source = tmp.file(NAME, 4 * MIB, 11);
    let report = tmp.join("report.json");
    let (limited, fine) = (tmp.dir("limited"), tmp.dir("fine"));
    let network = Network::loopback();
    // In blocks of 512 bytes: 1 MiB.
    let limit = ["sh", "-c", "ulimit -f 2048; exec \"$0\" \"$@\""];
    let mut on_limited = network.recv("limited", &limited).through(limit).spawn();
    let mut on_fine = network.recv("fine", &fine).spawn();
    let mut sender = network.send(&source, 2).args(["--rate", "400M", "--report"]).arg(&report).spawn();
    sender.expect(3, SOON);
    on_fine.expect(0, SOON);
    let end = on_limited.expect(1, SOON);
    assert!(end.stderr.contains("no files of that size"), "{}", end.stderr);
    assert_empty(&limited);
    assert_only_copy(&source, &fine);
    assert!(Report::read(&report).reason("limited").contains("no files of that size"));
}

/// Runs it as somebody whom permissions of files bind, which they do not bind root.
fn bound_by_permissions(command: Cmd) -> Cmd {
    if !is_root() {
        return command;
    }
    let lost = "-dac_override,-dac_read_search,-fowner";
    command.through(["setpriv", "--bounding-set", lost, "--inh-caps", lost])
}

#[test]
fn directories_taken_away_fail_alone() {
    if is_root() && !has_program("setpriv") {
        return skip("root is bound by permissions only with the program setpriv");
    }
    let tmp = TempDir::new();
    let source = tmp.file(NAME, 8 * MIB, 10);
    let report = tmp.join("report.json");
    let network = Network::loopback();
    let elsewhere = tmp.dir("elsewhere");
    let ids = ["removed", "moved", "swapped", "locked"];
    let mut receivers = ids.map(|id| bound_by_permissions(network.recv(id, tmp.dir(id))).spawn());
    let fine_dir = tmp.dir("fine");
    let mut fine = network.recv("fine", &fine_dir).spawn();
    let mut sender = network.send(&source, 5).args(SLOW).arg("--report").arg(&report).spawn();
    receivers.iter_mut().for_each(midway);

    fs::remove_dir_all(tmp.join("removed")).expect("remove");
    fs::rename(tmp.join("moved"), tmp.join("moved-away")).expect("move");
    fs::rename(tmp.join("swapped"), tmp.join("swapped-away")).expect("move");
    symlink(&elsewhere, tmp.join("swapped")).expect("link");
    fs::set_permissions(tmp.join("locked"), Permissions::from_mode(0o500)).expect("permissions");

    sender.expect(3, SOON);
    fine.expect(0, SOON);
    assert_only_copy(&source, &fine_dir);
    let report = Report::read(&report);
    assert_eq!(report.status("fine"), "complete");
    for ((id, receiver), why) in ids.iter().zip(&mut receivers).zip(["gone", "gone", "replaced", "may not"]) {
        let end = receiver.expect(1, SOON);
        assert!(end.stderr.contains(why) && end.stderr.contains(NAME), "{id}: {}", end.stderr);
        assert_eq!(report.status(id), "failed");
        assert!(report.reason(id).contains(why), "{:#}", report.row(id));
    }
    // Nothing was put anywhere else, and no directory came back.
    assert_empty(&elsewhere);
    assert_empty(&tmp.join("moved-away"));
    assert_empty(&tmp.join("swapped-away"));
    assert!(!tmp.join("removed").exists() && !tmp.join("moved").exists());
    // Who may not write into a directory can remove nothing from it either.
    assert!(!tmp.join("locked").join(NAME).exists());
}
