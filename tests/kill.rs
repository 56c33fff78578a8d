//! A receiver that is killed, or refused by its disk, at each system call that changes the disk: the real binary on
//! the real kernel, under `strace`.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use support::files::{TempDir, assert_empty, assert_only_copy, b3, names};
use support::inject::{Call, calls, can_inject};
use support::mcp::{Network, Report, SOON, is_event};
use support::process::{Cmd, Proc};

/// Slow enough for two dozen traced receivers on one processor.
const RATE: [&str; 2] = ["--rate", "60M"];
/// Five whole blocks and a short one.
const SIZE: u64 = 5 * (1 << 20) + 777;
const NAME: &str = "image.bin";
const OLD: &[u8] = b"what was there before";

/// What one receiver is put through.
struct Case {
    /// For messages, and the device's identifier.
    id: String,
    out: PathBuf,
    /// It replaces a file.
    forced: bool,
    fault: String,
    call: Call,
}

impl Case {
    fn new(tmp: &TempDir, call: &Call, fate: &str, forced: bool) -> Self {
        let fate_word: String = fate.chars().filter(char::is_ascii_alphanumeric).collect();
        let mode = if forced { "forced" } else { "fresh" };
        let id = format!("{mode}-{}-{}-{fate_word}", call.name, call.nth);
        let out = tmp.dir(&id);
        if forced {
            fs::write(out.join(NAME), OLD).expect("old file");
        }
        Self { id, out, forced, fault: call.meets(fate), call: call.clone() }
    }
    fn command(&self, network: &Network) -> Cmd {
        let command = network.recv(&self.id, &self.out);
        if self.forced { command.arg("--force") } else { command }
    }
    fn spawn(&self, network: &Network, tmp: &TempDir) -> Proc {
        let log = tmp.join(format!("{}.log", self.id));
        self.command(network).injected(&log, std::slice::from_ref(&self.fault)).spawn()
    }
}

/// Receives once with nothing injected; the calls that the disk saw.
fn clean_run(source: &Path, tmp: &TempDir, forced: bool) -> Vec<Call> {
    let network = Network::loopback();
    let out = tmp.dir(if forced { "clean-forced" } else { "clean" });
    if forced {
        fs::write(out.join(NAME), OLD).expect("old file");
    }
    let log = tmp.join(if forced { "clean-forced.log" } else { "clean.log" });
    let mut receiver = network.recv("clean", &out).arg("--force").injected(&log, &[]).spawn();
    let mut sender = network.send(source, 1).args(RATE).spawn();
    sender.expect(0, SOON);
    receiver.expect(0, SOON);
    assert_only_copy(source, &out);
    calls(&log)
}

/// The first call with this name, from the `from`th on.
fn find(calls: &[Call], name: &str, from: usize) -> usize {
    let found = calls[from..].iter().position(|call| call.name.starts_with(name));
    from + found.unwrap_or_else(|| panic!("no {name} in {calls:?}"))
}

/// Where in `calls` the object's bytes are synced, its name is given, and the directory is synced.
fn ending(calls: &[Call]) -> [usize; 3] {
    let last_write = calls.iter().rposition(|call| call.name.starts_with("pwrite")).expect("writes");
    let sync = find(calls, "fsync", last_write);
    let rename = find(calls, "renameat", sync);
    [sync, rename, find(calls, "fsync", rename)]
}

/// I1: the name is free, or has the old file, or the complete new one. Returns whether it is the new.
#[track_caller]
fn old_or_new(source: &Path, case: &Case) -> bool {
    let path = case.out.join(NAME);
    match fs::read(&path) {
        Err(_) => {
            assert!(!case.forced, "{}: the old file is lost", case.id);
            false
        }
        Ok(bytes) if case.forced && bytes == OLD => false,
        Ok(_) => {
            assert_eq!(b3(&path), b3(source), "{}: a wrong file under the final name", case.id);
            true
        }
    }
}

#[test]
fn killed_at_each_change_of_the_disk() {
    if !can_inject() {
        return;
    }
    let tmp = TempDir::new();
    let source = tmp.file(NAME, SIZE, 1);
    let (mut cases, mut renamed) = (Vec::new(), Vec::new());
    for forced in [false, true] {
        let calls = clean_run(&source, &tmp, forced);
        let [sync, rename, _] = ending(&calls);
        // An old file makes no difference before the last write.
        let from = if forced { sync.saturating_sub(1) } else { 0 };
        for (at, call) in calls.iter().enumerate().skip(from) {
            cases.push(Case::new(&tmp, call, "signal=KILL", forced));
            renamed.push(at > rename);
        }
    }
    assert!(cases.len() > 10, "the calls were not seen");

    let network = Network::loopback();
    let mut receivers: Vec<Proc> = cases.iter().map(|case| case.spawn(&network, &tmp)).collect();
    // Those that die before the first write have not joined yet.
    let joining = cases.iter().filter(|case| !["flock", "fallocate"].contains(&&case.call.name[..])).count();
    let sender = network.send(&source, joining).args(RATE).args(["-w", "10s"]).spawn();
    let mut found = Vec::with_capacity(cases.len());
    for (case, receiver) in cases.iter().zip(&mut receivers) {
        let end = receiver.finish(SOON);
        assert_eq!(end.status.signal(), Some(9), "{} was not killed: {}", case.id, receiver.transcript());
        found.push(old_or_new(&source, case));
    }
    // A call that kills is not done any more.
    assert_eq!(found, renamed, "new files under their names");
    sender.signal("KILL");

    // The same machines come back, to another sender.
    let network = Network::loopback();
    // One that was killed after the rename finds the file in its place, and has it confirmed.
    let mut receivers: Vec<Proc> = cases.iter().map(|case| case.command(&network).spawn()).collect();
    let mut sender = network.send(&source, cases.len()).args(RATE).spawn();
    for (case, receiver) in cases.iter().zip(&mut receivers) {
        receiver.expect(0, SOON);
        assert_only_copy(&source, &case.out);
    }
    sender.expect(0, SOON);
}

#[test]
fn errors_at_each_change_of_the_disk() {
    if !can_inject() {
        return;
    }
    let tmp = TempDir::new();
    let source = tmp.file(NAME, SIZE, 2);
    let calls = clean_run(&source, &tmp, false);
    let [sync, rename, sync_directory] = ending(&calls);
    let (reserve, first, last) =
        (find(&calls, "fallocate", 0), find(&calls, "pwrite", 0), find(&calls[..sync], "pwrite", sync - 1));
    let case = |at: usize, fate: &str| Case::new(&tmp, &calls[at], fate, false);

    let mut failing = Vec::new();
    for error in ["EIO", "ENOSPC", "EROFS"] {
        for at in [reserve, first, last, sync, rename, sync_directory] {
            failing.push(case(at, &format!("error={error}")));
        }
    }
    // A write that takes nothing and says so; a second name for what else a disk may say.
    failing.push(case(last, "retval=0"));
    failing.push(case(last, "error=EDQUOT"));

    // A signal came, or the file system does not have it: there is another way.
    let mut harmless: Vec<Case> =
        [reserve, first, last, sync, rename, sync_directory].map(|at| case(at, "error=EINTR")).into();
    harmless.push(case(reserve, "error=EOPNOTSUPP"));
    harmless.push(case(rename, "error=EINVAL"));
    harmless.push(case(sync_directory, "error=EINVAL"));

    let (network, report) = (Network::loopback(), tmp.join("report.json"));
    let mut failed: Vec<Proc> = failing.iter().map(|case| case.spawn(&network, &tmp)).collect();
    let mut fine: Vec<Proc> = harmless.iter().map(|case| case.spawn(&network, &tmp)).collect();
    let count = failing.len() + harmless.len();
    let mut sender = network.send(&source, count).args(RATE).arg("--report").arg(&report).spawn();
    sender.expect(3, SOON);
    for (case, receiver) in failing.iter().zip(&mut failed) {
        let end = receiver.expect(1, SOON);
        assert!(end.stderr.contains(NAME), "{} names the file: {}", case.id, end.stderr);
        assert!(!end.events().iter().any(|e| is_event(e, "committed")), "{}", receiver.transcript());
        assert_empty(&case.out);
    }
    for (case, receiver) in harmless.iter().zip(&mut fine) {
        receiver.expect(0, SOON);
        assert_only_copy(&source, &case.out);
    }
    let report = Report::read(&report);
    for case in &failing {
        assert_eq!(report.status(&case.id), "failed", "{}", case.id);
        let reason = report.reason(&case.id);
        assert!(reason.contains(NAME), "{}: {reason}", case.id);
        let words: &[&str] = match &case.fault {
            fault if fault.contains("ENOSPC") => &["full", "no room"],
            fault if fault.contains("EROFS") => &["read-only"],
            fault if fault.contains("EDQUOT") => &["quota"],
            _ => &["check the disk"],
        };
        assert!(words.iter().any(|word| reason.contains(word)), "{}: {reason}", case.id);
    }
    for case in &harmless {
        assert_eq!(report.status(&case.id), "complete", "{}", case.id);
    }
}

#[test]
fn errors_past_the_page_cache() {
    if !can_inject() {
        return;
    }
    let tmp = TempDir::new();
    // Large enough for direct writing, where the file system has it.
    let source = tmp.file(NAME, 17 << 20, 5);
    let write = Call { name: "pwrite64".into(), nth: 5 };
    let case = |fate: &str| Case::new(&tmp, &write, fate, false);
    let failing = ["error=EIO", "error=ENOSPC"].map(case);
    let harmless = ["error=EINTR"].map(case);
    let network = Network::loopback();
    let mut failed = failing.each_ref().map(|case| case.spawn(&network, &tmp));
    let mut fine = harmless.each_ref().map(|case| case.spawn(&network, &tmp));
    let mut sender = network.send(&source, 3).args(["--rate", "100M"]).spawn();
    sender.expect(3, SOON);
    for (case, receiver) in failing.iter().zip(&mut failed) {
        let end = receiver.expect(1, SOON);
        assert!(end.stderr.contains(NAME), "{}: {}", case.id, end.stderr);
        assert_empty(&case.out);
    }
    for (case, receiver) in harmless.iter().zip(&mut fine) {
        receiver.expect(0, SOON);
        assert_only_copy(&source, &case.out);
    }
}

#[test]
fn errors_while_replacing_a_file() {
    if !can_inject() {
        return;
    }
    let tmp = TempDir::new();
    let source = tmp.file(NAME, SIZE, 3);
    let calls = clean_run(&source, &tmp, true);
    let cases: Vec<Case> =
        ending(&calls).iter().map(|&at| Case::new(&tmp, &calls[at], "error=EIO", true)).collect();
    let (network, report) = (Network::loopback(), tmp.join("report.json"));
    let mut receivers: Vec<Proc> = cases.iter().map(|case| case.spawn(&network, &tmp)).collect();
    let mut sender = network.send(&source, cases.len()).args(RATE).arg("--report").arg(&report).spawn();
    // Nobody is complete, whatever lies under the name.
    sender.expect(4, SOON);
    let report = Report::read(&report);
    for (case, receiver) in cases.iter().zip(&mut receivers) {
        receiver.expect(1, SOON);
        assert_eq!(report.status(&case.id), "failed", "{}", case.id);
        assert_eq!(names(&case.out), [NAME], "{}", case.id);
        // What was replaced cannot be brought back: the verified file stays.
        let renamed = case.call == calls[ending(&calls)[2]];
        assert_eq!(old_or_new(&source, case), renamed, "{}", case.id);
    }
}

#[test]
fn a_source_that_cannot_be_read_ends_the_transfer() {
    if !can_inject() {
        return;
    }
    let tmp = TempDir::new();
    let source = tmp.file(NAME, SIZE, 4);
    let out = tmp.dir("out");
    let network = Network::loopback();
    let mut receiver = network.recv("r", &out).spawn();
    let fault = ["pread64:error=EIO:when=4+".to_owned()];
    let sender = network.send(&source, 1).args(["--rate", "20M"]);
    let mut sender = sender.injected_at(&source, &tmp.join("send.log"), "pread64", &fault).spawn();
    let end = sender.expect(1, SOON);
    assert!(end.stderr.contains("cannot read") && end.stderr.contains(NAME), "{}", end.stderr);
    // The sender reads at once, so the device may or may not have been admitted before that. If not, this was a session
    // of long ago for all that it knows, and it goes on waiting.
    if !receiver.has(|e| e["event"] == "admitted") {
        receiver.signal("INT");
    }
    let end = receiver.finish(SOON);
    let admitted = end.events().iter().any(|e| e["event"] == "admitted");
    assert!(end.code == Some(130) || admitted && end.code == Some(6), "{:?}: {}", end.code, end.stderr);
    assert_empty(&out);
}
