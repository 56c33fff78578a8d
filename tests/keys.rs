//! `mcp key` and the options about keys, through the real binary; every run has a state directory of
//! its own.

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::files::{TempDir, names};
use support::mcp::{MCP, Network, SOON};

/// A machine: a state directory that does not exist yet.
struct Machine {
    tmp: TempDir,
    state: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let tmp = TempDir::new();
        let state = tmp.join("state/mcp");
        Self { tmp, state }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(MCP);
        command.args(args).env("MCP_STATE_DIR", &self.state).env_remove("MCP_KEY").stdin(Stdio::null());
        command
    }

    /// `mcp key ARGS`, its exit code asserted; standard output.
    #[track_caller]
    fn key(&self, args: &[&str], code: i32) -> String {
        self.told(args, code).0
    }

    /// The same with standard error.
    #[track_caller]
    fn told(&self, args: &[&str], code: i32) -> (String, String) {
        let args: Vec<&str> = std::iter::once("key").chain(args.iter().copied()).collect();
        texts(&self.command(&args).output().expect("run mcp key"), code)
    }

    /// `mcp key add` with `line` on standard input.
    #[track_caller]
    fn add(&self, line: &str, code: i32) -> String {
        let mut command = self.command(&["key", "add"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run mcp key add");
        child.stdin.take().expect("a pipe").write_all(line.as_bytes()).expect("write the line");
        texts(&child.wait_with_output().expect("mcp key add ends"), code).1
    }
}

#[track_caller]
fn texts(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    (out, err)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o777
}

/// Every file below `dir` is for its owner alone, and every directory too.
fn assert_private(dir: &Path) {
    assert_eq!(mode(dir), 0o700, "{}", dir.display());
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            assert_private(&path);
        } else {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

#[test]
fn a_key_is_made_carried_renewed_and_removed() {
    let (first, second) = (Machine::new(), Machine::new());
    let (line, hint) = first.told(&["new", "lab"], 0);
    assert!(line.starts_with("mcp-key1-lab-") && line.lines().count() == 1, "{line}");
    assert!(hint.contains("mcp key add") && !hint.contains(line.trim()), "{hint}");
    assert_private(&first.state);

    // Piped into the next machine, as it is or with a line break of another system.
    let id = second.add(&line.replace('\n', "\r\n"), 0);
    assert_private(&second.state);
    let id = id.split(['(', ')']).nth(1).expect("the key's short id").to_owned();
    for machine in [&first, &second] {
        let list = machine.key(&["list"], 0);
        assert!(list.contains("lab") && list.contains(&id) && !list.contains("mcp-key1"), "{list}");
        assert_eq!(machine.key(&["show", "lab"], 0), line);
    }
    assert!(second.add(&line, 0).contains("already"));

    let new = first.key(&["rotate", "lab"], 0);
    assert!(new.starts_with("mcp-key1-lab-") && new != line);
    let list = first.key(&["list"], 0);
    assert!(list.contains(&format!("older: {id}")), "{list}");
    let file = second.tmp.join("carried");
    fs::write(&file, format!("# from the first machine\n{new}")).expect("write the line");
    second.told(&["add", file.to_str().expect("UTF-8")], 0);
    assert_eq!(second.key(&["show", "lab"], 0), new);
    // An old line does not undo that.
    assert!(second.add(&line, 0).contains("nothing changed"));
    assert_eq!(second.key(&["list"], 0), list);
    second.key(&["remove", "--older", "lab"], 0);
    assert!(!second.key(&["list"], 0).contains("older"));
    second.key(&["remove", "lab"], 0);
    assert_eq!(second.key(&["list"], 0), "");
    assert_private(&second.state);
    assert_private(&first.state);
}

#[test]
fn what_makes_no_sense_is_said() {
    let machine = Machine::new();
    for (args, says) in [
        (&["new", "../lab"][..], "cannot be a key's name"),
        (&["new", "none"], "cannot be a key's name"),
        (&["show", "lab"], "there is no key lab"),
        (&["remove", "lab"], "mcp key list"),
        (&["rotate", "lab"], "mcp key list"),
        (&["forget", "10.0.0.5"], "no sender \"10.0.0.5\" is remembered"),
    ] {
        let (out, err) = machine.told(args, 2);
        assert!(out.is_empty() && err.contains(says), "{args:?}: {err}");
    }
    let line = machine.key(&["new", "lab"], 0);
    assert!(machine.told(&["new", "lab"], 2).1.contains("mcp key rotate lab"));
    assert!(machine.told(&["add", "/no/such/file"], 1).1.contains("/no/such/file"));
    for bad in ["", "junk", &line[..40], &line.replace("-lab-", "-lob-")] {
        let err = machine.add(bad, 2);
        assert!(err.contains("no usable key") && !err.contains(&line[20..35]), "{bad:?}: {err}");
    }
    let err = machine.told(&["add", line.trim()], 2).1;
    assert!(err.contains("visible to all users") && !err.contains(&line[20..35]), "{err}");
    // Nothing that failed has changed anything.
    assert_eq!(machine.key(&["show", "lab"], 0), line);
}

#[test]
fn a_sender_has_a_key_of_its_own() {
    let machine = Machine::new();
    let (line, hint) = machine.told(&["show"], 0);
    assert!(line.starts_with("mcp-sender1-"), "{line}");
    assert_private(&machine.state);
    assert_eq!(machine.told(&["show"], 0), (line.clone(), hint));
    let file = machine.state.join("sender.key");
    // One that was left open to others still counts, and is closed.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("chmod");
    let (same, err) = machine.told(&["show"], 0);
    assert!(same == line && err.contains("warning") && err.contains("sender.key"), "{err}");
    assert_private(&machine.state);
    fs::write(&file, "damaged").expect("write");
    let (other, err) = machine.told(&["show"], 0);
    assert!(other != line && err.contains("sender.key.bad"), "{err}");
    assert_private(&machine.state);
}

#[test]
fn which_key_a_transfer_uses() {
    let machine = Machine::new();
    let source = machine.tmp.file("image.bin", 1000, 1);
    let network = Network::loopback();
    let out = machine.tmp.dir("out");
    let recv = |args: &[&str]| {
        let recv = network.patient_recv("desk", &out, std::time::Duration::from_millis(50));
        recv.env("MCP_STATE_DIR", &machine.state).args(args).spawn().finish(SOON)
    };
    let send = |args: &[&str]| {
        let send = network.send(&source, 1).args(["--wait", "50ms"]).args(args);
        send.env("MCP_STATE_DIR", &machine.state).spawn().finish(SOON)
    };
    let sealed_with = |end: &support::process::End| end.events()[0]["sealed_with"].clone();

    assert_eq!(sealed_with(&recv(&[])), serde_json::Value::Null);
    assert_eq!(sealed_with(&send(&[])), serde_json::Value::Null);
    let lab = machine.key(&["new", "lab"], 0);
    let (received, sent) = (recv(&[]), send(&[]));
    assert_eq!((received.code, sent.code), (Some(5), Some(4)));
    assert_eq!((sealed_with(&received), sealed_with(&sent)), ("lab".into(), "lab".into()));
    assert_eq!(sent.events()[0]["key"], machine.key(&["show"], 0).trim());
    machine.key(&["new", "attic"], 0);
    assert_eq!(sealed_with(&recv(&[])), "attic, lab");
    let several = send(&[]);
    assert!(several.code == Some(2) && several.stderr.contains("(attic, lab)"), "{}", several.stderr);
    for (key, name) in [("lab", "lab".into()), ("none", serde_json::Value::Null)] {
        assert_eq!(sealed_with(&send(&["--key", key])), name);
        assert_eq!(sealed_with(&recv(&["--key", key])), name);
    }

    // Neither help nor errors show what MCP_KEY holds.
    let with_variable =
        |args: &[&str], value: &str| machine.command(args).env("MCP_KEY", value).output().expect("run mcp");
    for command in ["send", "recv"] {
        let (help, _) = texts(&with_variable(&[command, "--help"], &lab), 0);
        assert!(help.contains("MCP_KEY") && !help.contains(lab.trim()), "{help}");
    }
    let (_, err) = texts(&with_variable(&["recv", "-i", "lo", "--timeout", "50ms"], &lab[..30]), 2);
    assert!(err.contains("MCP_KEY") && !err.contains(&lab[20..30]), "{err}");
    let (_, err) = texts(&with_variable(&["recv", "-i", "lo", "--key", lab.trim()], ""), 2);
    assert!(err.contains("is visible to all users") && !err.contains(lab.trim()), "{err}");

    // A key that is damaged is no reason to receive in the clear.
    fs::write(machine.state.join("keys/lab.key"), "").expect("write");
    let damaged = recv(&[]);
    assert!(damaged.code == Some(1) && damaged.stderr.contains("mcp key remove lab"), "{}", damaged.stderr);
    assert_eq!(names(&machine.state.join("keys")), ["attic.key", "lab.key"]);
}

#[test]
fn a_device_has_a_key_of_its_own() {
    let machine = Machine::new();
    let (line, hint) = machine.told(&["device", "--id", "lab-07"], 0);
    assert!(line.starts_with("lab-07 mcp-device1-") && line.lines().count() == 1, "{line}");
    assert!(hint.contains("--devices"), "{hint}");
    assert_eq!(machine.key(&["device", "--id", "lab-08"], 0), line.replace("lab-07", "lab-08"));
    // Without a name, it is the host's.
    let (_, key) = line.trim().split_once(' ').expect("a key");
    assert!(machine.key(&["device"], 0).trim().ends_with(key));
    assert_private(&machine.state);
    let network = Network::loopback();
    let out = machine.tmp.dir("out");
    let recv = network.patient_recv("desk", &out, std::time::Duration::from_millis(50));
    recv.env("MCP_STATE_DIR", &machine.state).spawn().finish(SOON);
    let recv = Command::new(MCP)
        .args(["recv", "-i", "lo", "--timeout", "50ms"])
        .env("MCP_STATE_DIR", &machine.state)
        .output()
        .expect("run mcp recv");
    assert_eq!(recv.status.code(), Some(5));
    // With the identifier, its lock and all.
    assert!(machine.state.join("device-id").exists() && machine.state.join("device-id.lock").exists());
    assert_private(&machine.state);
}

#[test]
fn nothing_is_done_in_the_clear_where_a_key_is_required() {
    let machine = Machine::new();
    let source = machine.tmp.file("image.bin", 1000, 2);
    let network = Network::loopback();
    let out = machine.tmp.dir("out");
    let recv = |args: &[&str], state: &Path| {
        let recv = network.patient_recv("desk", &out, std::time::Duration::from_millis(50));
        recv.env("MCP_STATE_DIR", state).args(args).spawn().finish(SOON)
    };
    let send = |args: &[&str], state: &Path| {
        let send = network.send(&source, 1).args(["--wait", "50ms"]).args(args);
        send.env("MCP_STATE_DIR", state).spawn().finish(SOON)
    };
    for end in [recv(&["--require-key"], &machine.state), send(&["--require-key"], &machine.state)] {
        assert_eq!(end.code, Some(2));
        assert!(end.stderr.contains("there is no group key, and --require-key"), "{}", end.stderr);
    }
    machine.key(&["new", "lab"], 0);
    let (received, sent) =
        (recv(&["--require-key"], &machine.state), send(&["--require-key"], &machine.state));
    assert_eq!((received.code, sent.code), (Some(5), Some(4)));
    assert_eq!(send(&["--require-key", "--key", "none"], &machine.state).code, Some(2));
    // Where the keys cannot be looked up, it is said that the transfer is in the clear, or nothing is done.
    let nowhere = Path::new("/dev/null");
    for end in [recv(&[], nowhere), send(&[], nowhere)] {
        let warned = end.events().iter().any(|e| {
            e["event"] == "warning" && e["text"].as_str().is_some_and(|text| text.contains("in the clear"))
        });
        assert!(warned, "{:?}", end.lines);
    }
    let end = send(&["--require-key"], nowhere);
    assert!(end.code == Some(2) && end.stderr.contains("/dev/null"), "{}", end.stderr);
}

#[test]
fn a_state_directory_that_others_can_write_to_is_refused() {
    let machine = Machine::new();
    let source = machine.tmp.file("image.bin", 1000, 3);
    let out = machine.tmp.dir("out");
    machine.key(&["new", "lab"], 0);
    let refused = |says: &str| {
        let network = Network::loopback();
        let recv = network.patient_recv("desk", &out, std::time::Duration::from_millis(50));
        let recv = recv.env("MCP_STATE_DIR", &machine.state).spawn().finish(SOON);
        let send = network.send(&source, 1).args(["--wait", "50ms"]);
        let send = send.env("MCP_STATE_DIR", &machine.state).spawn().finish(SOON);
        for (code, err) in
            [(recv.code, recv.stderr), (send.code, send.stderr), (Some(1), machine.told(&["list"], 1).1)]
        {
            let names = err.contains(machine.state.to_str().expect("UTF-8"));
            assert!(code == Some(1) && names && err.contains(says), "{err}");
        }
    };
    for mode in [0o770, 0o707] {
        fs::set_permissions(&machine.state, fs::Permissions::from_mode(mode)).expect("chmod");
        refused("others can write");
    }
    fs::set_permissions(&machine.state, fs::Permissions::from_mode(0o700)).expect("chmod");
    // Only root can give a directory away.
    if std::os::unix::fs::chown(&machine.state, Some(65_534), None).is_ok() {
        refused("belongs to user 65534");
    }
}
