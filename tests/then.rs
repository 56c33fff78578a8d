//! `mcp recv --then` and `--loop`, and the senders that they are for. Real binary, real sockets on `lo`.

mod support;

use mcp::crypto::derive::Secret;
use mcp::crypto::group::GroupKey;
use mcp::crypto::sign::SigningKey;
use mcp::keyring::{Keyring, KnownSender};
use mcp::units::SenderKey;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use support::files::{TempDir, assert_empty, assert_only_copy, b3, names, seeded};
use support::mcp::{MCP, Network, Report, SOON, is_event};
use support::process::{Cmd, Proc};
use support::{has_program, skip};

const RATE: [&str; 2] = ["--rate", "200M"];
/// 8 MiB take 3.5 s: time to do something in the middle.
const SLOW: [&str; 2] = ["--rate", "20M"];
const MIB: u64 = 1 << 20;
/// How long a receiver looks for a sender that it will not take.
const BRIEF: Duration = Duration::from_secs(3);

/// A receiver that runs this command, for any sender.
fn then(cmd: Cmd, command: &str) -> Cmd {
    cmd.args(["--any-sender", "--then", command])
}

/// The text of a file that is written soon.
#[track_caller]
fn text_of(path: &Path) -> String {
    let until = Instant::now() + SOON;
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => assert!(Instant::now() < until, "{} is never written", path.display()),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_command_is_told_of_the_file() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 2 * MIB + 3, 1);
    let (out, told, report) = (tmp.dir("out"), tmp.join("told"), tmp.join("report.json"));
    let (state, line) = machine(&tmp, "sender");
    let network = Network::loopback();
    let command = format!(
        "printf '%s\\n' \"$MCP_PATH\" \"$MCP_NAME\" \"$MCP_HASH\" \"$MCP_SIZE\" \"$MCP_SENDER\" \"$MCP_SENDER_KEY\" \
         >{}; test -f \"$MCP_PATH\" && cat && echo its words && echo its complaint >&2",
        told.display()
    );
    let mut receiver = network.recv("r", &out).args(["--sender", &line, "--then", &command]).spawn();
    let mut sender = network.send(&source, 1).args(RATE).state(&state).arg("--report").arg(&report).spawn();
    sender.expect(0, SOON);
    let end = receiver.expect(0, SOON);
    assert_only_copy(&source, &out);
    let path = out.join("image.bin");
    let want = [path.to_str().unwrap(), "image.bin", &b3(&source), "2097155", "127.0.0.1", &line];
    assert_eq!(text_of(&told).lines().collect::<Vec<_>>(), want);
    // Its output goes to the user's, and does not disturb the events.
    assert!(end.stderr.contains("its words") && end.stderr.contains("its complaint"), "{}", end.stderr);
    let states: Vec<_> = end.events().iter().filter(|e| is_event(e, "hook")).cloned().collect();
    assert_eq!((&states[0]["state"], &states[1]["state"]), (&"started".into(), &"ended".into()));
    assert_eq!(end.last_event()["hook"], 0);
    let report = Report::read(&report);
    assert_eq!((report.status("r"), &report.row("r")["hook"]), ("complete", &0.into()));
}

#[test]
fn a_command_that_fails_is_shown_at_both_ends() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 2);
    let report = tmp.join("report.json");
    let network = Network::loopback();
    let outs = ["fine", "fails", "killed", "absent"].map(|name| (name, tmp.dir(name)));
    let mut receivers = outs.each_ref().map(|(name, out)| {
        let command = match *name {
            "fine" => "exit 0",
            "fails" => "exit 3",
            "killed" => "kill -9 $$",
            _ => "/no/such/command",
        };
        then(network.recv(name, out), command).spawn()
    });
    let mut sender = network.send(&source, 4).args(RATE).arg("--report").arg(&report).spawn();
    let said = sender.expect(3, SOON).stderr;
    assert!(said.contains("fails: its --then command exited with 3"), "{said}");
    let report = Report::read(&report);
    let words = [
        (0, "complete", "", 0),
        (7, "failed", "exited with 3", 3),
        (7, "failed", "ended by signal 9", -9),
        (7, "failed", "exited with 127", 127),
    ];
    for (((name, out), receiver), (code, status, reason, hook)) in outs.iter().zip(&mut receivers).zip(words)
    {
        let end = receiver.expect(code, SOON);
        assert_only_copy(&source, out);
        assert_eq!((report.status(name), &report.row(name)["hook"]), (status, &hook.into()));
        assert!(report.reason(name).contains(reason), "{:#}", report.row(name));
        let last = end.last_event();
        assert_eq!((&last["hook"], &last["acknowledged"]), (&hook.into(), &true.into()));
        assert_eq!(end.stderr.contains("the file is saved, but its --then command"), code == 7);
    }
}

#[test]
fn nothing_runs_if_the_transfer_fails_or_the_file_was_there() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 8 * MIB, 3);
    let (broken, occupied, equal) = (tmp.dir("broken"), tmp.dir("occupied"), tmp.dir("equal"));
    fs::write(occupied.join("image.bin"), "something else").expect("write");
    fs::copy(&source, equal.join("image.bin")).expect("copy");
    let ran = tmp.join("ran");
    let command = format!("touch {}", ran.display());
    let network = Network::loopback();
    let start = |name: &str, out: &Path| then(network.recv(name, out), &command).spawn();
    let (mut a, mut b, mut c) =
        (start("broken", &broken), start("occupied", &occupied), start("equal", &equal));
    let mut sender = network.send(&source, 3).args(SLOW).spawn();
    b.expect(1, SOON);
    let end = c.expect(0, SOON);
    assert!(end.events().iter().any(|e| is_event(e, "hook") && e["state"] == "skipped"));
    assert!(end.last_event()["hook"].is_null());
    a.received(64 << 10);
    sender.signal("INT");
    sender.expect(130, SOON);
    a.expect(6, SOON);
    assert!(!ran.exists(), "it ran");
}

#[test]
fn a_name_is_never_a_part_of_the_command() {
    let tmp = TempDir::new();
    let evil = [
        "$(touch pwned)",
        "`touch pwned`",
        "x; touch pwned #",
        "x' \"; touch pwned; '",
        "-rf",
        "&& touch pwned",
    ];
    thread::scope(|scope| {
        for (n, name) in (0..).zip(evil) {
            let tmp = &tmp;
            scope.spawn(move || {
                let (dir, out) = (tmp.dir(&format!("in-{n}")), tmp.dir(&format!("out-{n}")));
                seeded(&dir.join(name), 10_000, n);
                let (network, told) = (Network::loopback(), tmp.join(format!("told-{n}")));
                let command = format!("printf '%s\\n' \"$MCP_NAME\" >{}; rm \"$MCP_PATH\"", told.display());
                // Relative paths, and a directory in which such a command would leave its trace.
                let mut receiver = then(network.recv("r", "."), &command).dir(&out).spawn();
                let mut sender = network.send(name, 1).args(RATE).dir(&dir).spawn();
                sender.expect(0, SOON);
                receiver.expect(0, SOON);
                assert_eq!(text_of(&told), format!("{name}\n"));
                assert_empty(&out);
                assert_eq!(names(&dir), [name]);
            });
        }
    });
}

#[test]
fn an_interrupt_ends_the_command_and_the_sender_is_told() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 4);
    let (out, report, begun) = (tmp.dir("out"), tmp.join("report.json"), tmp.join("begun"));
    let network = Network::loopback();
    let command = format!(": >{}; exec sleep 100", begun.display());
    let mut receiver = then(network.recv("r", &out), &command).spawn();
    let mut sender = network.send(&source, 1).args(RATE).arg("--report").arg(&report).spawn();
    let until = Instant::now() + SOON;
    while !begun.exists() {
        assert!(Instant::now() < until, "the command does not begin");
        thread::sleep(Duration::from_millis(5));
    }
    receiver.signal("INT");
    let end = receiver.expect(130, Duration::from_secs(20));
    assert_eq!(end.last_event()["hook"], -15);
    sender.expect(4, SOON);
    let report = Report::read(&report);
    assert!(report.reason("r").contains("ended by signal 15"), "{:#}", report.row("r"));
    assert_only_copy(&source, &out);
}

/// Sends a file to one receiver, and expects this code.
#[track_caller]
fn send_once(network: &Network, source: &Path, code: i32) {
    network.send(source, 1).args(RATE).spawn().expect(code, SOON);
}

fn finished(receiver: &mut Proc) -> serde_json::Value {
    receiver.event("finished")
}

#[test]
fn a_loop_takes_one_file_after_the_other() {
    let tmp = TempDir::new();
    let (out, log) = (tmp.dir("out"), tmp.join("log"));
    let network = Network::loopback();
    let source = tmp.file("kiosk.img", MIB, 5);
    let command = format!("echo $MCP_NAME $MCP_HASH >>{}", log.display());
    let mut receiver = then(network.recv("r", &out), &command).args(["--loop", "--force"]).spawn();

    // A sender that stays is not joined again.
    let mut staying = network.send(&source, 1).args(RATE).args(["--linger", "forever"]).spawn();
    assert_eq!(finished(&mut receiver)["outcome"], "complete");
    thread::sleep(Duration::from_secs(2));
    staying.signal("INT");
    let joined = staying.expect(130, SOON).events().iter().filter(|e| is_event(e, "joined")).count();
    assert_eq!(joined, 1, "it is joined once");

    // The same file again: it is kept, and the command does not run again.
    send_once(&network, &source, 0);
    assert_eq!(finished(&mut receiver)["hook"], serde_json::Value::Null);
    // A file whose name is taken by a directory: that session fails, and no other.
    fs::create_dir(out.join("other.img")).expect("directory");
    send_once(&network, &tmp.file("other.img", MIB, 6), 4);
    assert_eq!(finished(&mut receiver)["outcome"], "failed");
    // A new version under the same name.
    let first = b3(&source);
    let source = tmp.file("kiosk.img", MIB + 5, 7);
    send_once(&network, &source, 0);
    assert_eq!(finished(&mut receiver)["outcome"], "complete");
    assert_eq!(b3(&out.join("kiosk.img")), b3(&source));
    receiver.signal("INT");
    receiver.expect(130, SOON);
    let want = format!("kiosk.img {first}\nkiosk.img {}\n", b3(&source));
    assert_eq!(fs::read_to_string(&log).expect("log"), want);
}

#[test]
fn a_loop_runs_a_failed_command_again_and_keeps_a_file_unless_forced() {
    let tmp = TempDir::new();
    let (out, fail) = (tmp.dir("out"), tmp.join("fail"));
    fs::write(&fail, "").expect("write");
    let network = Network::loopback();
    let source = tmp.file("a.img", MIB, 8);
    let command = format!("test ! -e {}", fail.display());
    let mut receiver = then(network.recv("r", &out), &command).arg("--loop").spawn();
    send_once(&network, &source, 4);
    assert_eq!(finished(&mut receiver)["exit_code"], 7);
    fs::remove_file(&fail).expect("remove");
    send_once(&network, &source, 0);
    assert_eq!(finished(&mut receiver)["hook"], 0);
    // Without --force, a newer version does not replace it.
    let before = b3(&source);
    send_once(&network, &tmp.file("a.img", MIB, 9), 4);
    assert_eq!(finished(&mut receiver)["exit_code"], 1);
    assert_eq!(b3(&out.join("a.img")), before);
    receiver.signal("TERM");
    receiver.expect(130, SOON);
}

/// A machine's state directory, and the public key that its senders show.
fn machine(tmp: &TempDir, name: &str) -> (PathBuf, String) {
    let state = tmp.join(name);
    let seed = Keyring::new(state.clone()).sender(&mut Vec::new()).expect("a key");
    let line = SigningKey::new(&seed).public().line();
    (state, line)
}

trait Stateful {
    fn state(self, dir: &Path) -> Self;
}

impl Stateful for Cmd {
    fn state(self, dir: &Path) -> Self {
        self.env("MCP_STATE_DIR", dir)
    }
}

fn remember(state: &Path, address: IpAddr, line: &str) {
    let key = SenderKey::from_line(line).expect("a key");
    let sender = KnownSender { address, key, label: "before".into() };
    Keyring::new(state.to_owned()).remember(sender, &mut Vec::new()).expect("remembered");
}

#[test]
fn where_no_sender_is_known_nothing_begins() {
    let tmp = TempDir::new();
    let ours = tmp.dir("ours");
    let start = |option: &[&str]| {
        Cmd::new("r", MCP)
            .args(["recv", "--timeout", "3s", "-i", "lo", "-p", "7399"])
            .args(option)
            .state(&ours)
    };
    let says = |text: &str| {
        for part in ["--sender KEY", "group key", "--any-sender"] {
            assert!(text.contains(part), "{text}");
        }
    };
    for option in [&["--then", "touch ran"][..], &["--loop"]] {
        let end = start(option).dir(tmp.path()).run(SOON);
        assert_eq!(end.code, Some(2), "{}", end.stderr);
        says(&end.stderr);
    }
    if !has_program("script") {
        return skip("a terminal is made by script");
    }
    // A user who watches has not answered anything.
    let line = start(&["--loop"]).line();
    let end = Cmd::new("terminal", "script").args(["-qec", &line, "/dev/null"]).state(&ours).run(SOON);
    assert_eq!(end.code, Some(2), "{:?}", end.lines);
    says(&end.lines.join(" "));
}

#[test]
fn an_unknown_sender_is_refused_before_any_byte() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 10);
    let (theirs, line) = machine(&tmp, "theirs");
    let (_, other) = machine(&tmp, "other");
    let ours = tmp.dir("ours");
    remember(&ours, Ipv4Addr::new(10, 9, 9, 9).into(), &other);
    let (network, out, ran) = (Network::loopback(), tmp.dir("out"), tmp.join("ran"));
    let command = format!("touch {}", ran.display());
    let receive = || network.patient_recv("r", &out, BRIEF).state(&ours).args(["--then", &command]);
    let mut receiver = receive().spawn();
    let mut sender = network.send(&source, 1).args(RATE).args(["-w", "2s"]).state(&theirs).spawn();
    let end = receiver.expect(5, SOON);
    sender.expect(4, SOON);
    let refused = end.events().into_iter().find(|e| is_event(e, "sender_refused")).expect("refused");
    assert_eq!((&refused["decision"], &refused["key"]), (&"unknown".into(), &line.as_str().into()));
    assert!(end.stderr.contains("--any-sender") && end.stderr.contains(&line), "{}", end.stderr);
    assert_empty(&out);

    // The same on a terminal: seeing a sender for the first time is not knowing it.
    if has_program("script") {
        let line = receive().line();
        let line = line.replace("--json", "").replace(&command, &format!("'{command}'"));
        let mut receiver = Cmd::new("tty", "script").args(["-qec", &line, "/dev/null"]).state(&ours).spawn();
        let mut sender = network.send(&source, 1).args(RATE).args(["-w", "2s"]).state(&theirs).spawn();
        let end = receiver.expect(5, SOON);
        assert!(end.lines.join(" ").contains("--any-sender"), "{:?}", end.lines);
        sender.expect(4, SOON);
        assert_empty(&out);
    }
    assert!(!ran.exists());
}

#[test]
fn every_way_to_know_a_sender_is_enough() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 11);
    let (theirs, line) = machine(&tmp, "theirs");
    let group_key = GroupKey::new("lab", Secret::new([3; 32])).expect("a name").line().to_string();
    let remembering = tmp.dir("remembering");
    remember(&remembering, Ipv4Addr::LOCALHOST.into(), &line);
    let empty = tmp.dir("empty");
    for way in ["any", "pinned", "group", "remembered"] {
        let (network, out) = (Network::loopback(), tmp.dir(way));
        let mut receive = network.recv("r", &out).args(["--then", "touch \"$MCP_PATH.ran\""]);
        let mut send = network.send(&source, 1).args(RATE).state(&theirs);
        receive = receive.state(if way == "remembered" { &remembering } else { &empty });
        match way {
            "any" => receive = receive.arg("--any-sender"),
            "pinned" => receive = receive.args(["--sender", &line]),
            "group" => {
                receive = receive.env("MCP_KEY", group_key.as_str());
                send = send.env("MCP_KEY", group_key.as_str());
            }
            _ => {}
        }
        let mut receiver = receive.spawn();
        send.spawn().expect(0, SOON);
        receiver.expect(0, SOON);
        assert_eq!(names(&out), ["image.bin", "image.bin.ran"], "{way}");
    }
}

#[test]
fn what_is_allowed_for_one_run_makes_no_sender_known() {
    if !has_program("script") {
        return skip("a terminal is made by script");
    }
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 13);
    let (network, out, ours) = (Network::loopback(), tmp.dir("out"), tmp.dir("ours"));
    let line = network.recv("r", &out).args(["--any-sender", "--then", "true"]).line().replace("--json", "");
    let mut receiver = Cmd::new("tty", "script").args(["-qec", &line, "/dev/null"]).state(&ours).spawn();
    send_once(&network, &source, 0);
    let end = receiver.expect(0, SOON);
    assert!(end.lines.join(" ").contains("sender unverified"), "{:?}", end.lines);
    let known = Keyring::new(ours).known_senders(&mut Vec::new()).expect("the list");
    assert!(known.is_empty(), "{known:?}");
}

#[test]
fn a_loop_ends_if_no_sender_comes_in_the_time_that_was_given() {
    let tmp = TempDir::new();
    let network = Network::loopback();
    let cmd = network.patient_recv("r", tmp.path(), BRIEF).args(["--any-sender", "--loop"]);
    let end = cmd.run(SOON);
    assert_eq!((end.code, &end.last_event()["outcome"]), (Some(5), &"no_sender".into()));
    assert!(end.elapsed >= BRIEF);
}

#[test]
fn a_device_is_no_file_to_save_to() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 10_000, 12);
    for device in ["/dev/null", "/dev/zero"] {
        let network = Network::loopback();
        let mut receiver = network.recv("r", device).arg("--force").spawn();
        send_once(&network, &source, 4);
        let end = receiver.expect(1, SOON);
        assert!(end.stderr.contains(&format!("{device} is a device and is not replaced")), "{}", end.stderr);
        // The user is told before a sender comes.
        assert!(is_event(&end.events()[1], "warning"), "{}", receiver.transcript());
        assert!(!end.events().iter().any(|e| is_event(e, "committed")), "{}", receiver.transcript());
    }
}
