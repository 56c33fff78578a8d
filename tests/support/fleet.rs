//! A fleet on this machine: a server, operator's commands, and devices that each have a `/srv`, handlers and a boot
//! identifier of their own.

use super::files::TempDir;
use super::mcp::MCP;
use super::process::{Cmd, End, Proc};
use super::{has_program, is_root, skip};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// For what takes a moment.
pub const SOON: Duration = Duration::from_secs(60);

/// Appends a line to a file in `/srv` each time it runs.
pub const NOTE: &str = r#"#!/bin/sh
echo "$1 $(wc -c <"$2")" >>/srv/notes
"#;

/// The manifest of a handler in `/etc/mcp/handlers.d` that takes a word, and may change `/srv`. `more` is appended.
pub fn manifest(name: &str, interrupted: &str, more: &str) -> String {
    format!(
        r#"
description = "Notes that it ran"
user = "root"
interrupted = "{interrupted}"
cancel = "any-time"

[run]
exec = "/etc/mcp/handlers.d/{name}"
args = ["{{arg.word}}", "{{object}}"]
timeout = "1m"

[environment]
PATH = "/usr/bin:/bin"

[arguments.word]
type = "string"
pattern = "[a-z]+"

[sandbox]
write = ["/srv"]
{more}"#
    )
}

/// The place of a server and its devices.
pub struct Fleet {
    pub tmp: TempDir,
    port: u16,
}

impl Fleet {
    /// Starts a server. `None`, said out loud, where agents cannot have directories of their own.
    pub fn start() -> Option<(Self, Proc)> {
        let fleet = Self::new()?;
        let server = fleet.serve();
        Some((fleet, server))
    }

    /// The same, without a server yet.
    pub fn new() -> Option<Self> {
        if !is_root() || !has_program("unshare") {
            skip("mounts of an agent's own need root and unshare");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        Some(Self { tmp: TempDir::new(), port })
    }

    /// The command line of the server.
    pub fn serving(&self) -> Cmd {
        self.serving_by(&["--poll", "1s", "--interface", "lo"])
    }

    /// The same, with these words instead of the usual ones.
    pub fn serving_by(&self, words: &[&str]) -> Cmd {
        let listen = format!("127.0.0.1:{}", self.port);
        let cmd = Cmd::new("server", MCP).args(["serve", "--listen", &listen]).args(words);
        cmd.env("MCP_STATE_DIR", self.tmp.dir("server"))
    }

    /// Starts `mcp serve`, and waits until it serves.
    pub fn serve(&self) -> Proc {
        let mut server = self.serving().spawn();
        // The line comes once it listens.
        server.next_line(SOON);
        server
    }

    /// An operator's command.
    pub fn command(&self, words: &[&str]) -> Cmd {
        Cmd::new("operator", MCP).args(words).env("MCP_STATE_DIR", self.tmp.dir("server"))
    }

    /// Runs an operator's command that must succeed.
    #[track_caller]
    pub fn operate(&self, words: &[&str]) -> End {
        self.command(words).spawn().expect(0, SOON)
    }

    /// A task at a device, as the server tells it.
    pub fn action(&self, task: i64, device: &str) -> Value {
        let view = json(&self.operate(&["task", "show", &task.to_string(), "--json"]));
        let actions = view["actions"].as_array().expect("actions");
        actions.iter().find(|action| action["device"] == device).expect("an action of the device").clone()
    }

    /// A machine that has joined.
    pub fn device(&self, name: &str) -> Device {
        let line = self.operate(&["enrol", "new"]).lines.concat();
        let device = self.machine(name);
        device.mcp(&["join", &line, "--id", name]).spawn().expect(0, SOON);
        device
    }

    /// A machine that has not.
    pub fn machine(&self, name: &str) -> Device {
        let dir = self.tmp.dir(name);
        for part in ["srv", "handlers"] {
            fs::create_dir_all(dir.join(part)).expect("make a directory");
        }
        Device { name: name.to_owned(), dir }
    }
}

/// A machine with an agent.
pub struct Device {
    pub name: String,
    pub dir: PathBuf,
}

impl Device {
    pub fn mcp(&self, words: &[&str]) -> Cmd {
        Cmd::new(&self.name, MCP).arg("agent").args(words).env("MCP_STATE_DIR", self.dir.join("state"))
    }

    /// Installs a handler.
    pub fn handler(&self, name: &str, program: &str, manifest: &str) {
        let path = self.dir.join("handlers").join(name);
        fs::write(&path, program).expect("write a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
        fs::write(path.with_extension("toml"), manifest).expect("write a manifest");
    }

    /// The command line of its agent, which has this machine's `/srv` and `/etc/mcp/handlers.d` for itself, and the
    /// boot identifier of [`Device::boot`], if there is one.
    pub fn running(&self, words: &[&str]) -> Cmd {
        self.running_under(words, &[])
    }

    /// The same, run by another program.
    pub fn running_under(&self, words: &[&str], tracer: &[String]) -> Cmd {
        let script = "mount -t tmpfs -o mode=755 none /etc/mcp && mkdir /etc/mcp/handlers.d \
             && mount --bind \"$0/srv\" /srv && mount --bind \"$0/handlers\" /etc/mcp/handlers.d \
             && if [ -e \"$0/boot_id\" ]; then mount --bind \"$0/boot_id\" /proc/sys/kernel/random/boot_id; fi \
             && exec \"$@\"";
        fs::create_dir_all("/etc/mcp").expect("make a directory");
        let through = ["unshare", "--mount", "sh", "-c", script, self.dir.to_str().expect("UTF-8")];
        self.mcp(&["run", "--interface", "lo"]).args(words).through(tracer).through(through)
    }

    /// Starts its agent.
    pub fn run(&self, words: &[&str]) -> Proc {
        self.running(words).spawn()
    }

    /// From its next start on, the agent finds itself in this run of the machine.
    pub fn boot(&self, n: u32) {
        fs::write(self.dir.join("boot_id"), format!("00000000-0000-4000-8000-{n:012}\n")).expect("write");
    }

    /// A file of the agent's state.
    pub fn state(&self, name: &str) -> PathBuf {
        self.dir.join("state/agent").join(name)
    }

    /// The tasks that the agent has taken, as it stores them.
    pub fn works(&self) -> Vec<Value> {
        let entries = fs::read_dir(self.state("tasks")).into_iter().flatten().flatten();
        let paths =
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        paths.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join("srv").join(name)
    }

    /// What the handler noted, a line for each time.
    pub fn notes(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.path("notes")).unwrap_or_default();
        notes.lines().map(str::to_owned).collect()
    }
}

/// The number of a task that was added.
pub fn id(end: &End) -> i64 {
    end.lines.concat().trim_start_matches("task ").parse().expect("the number of a task")
}

/// The one JSON value that a command has printed.
#[track_caller]
pub fn json(end: &End) -> Value {
    serde_json::from_str(&end.lines.join("\n")).unwrap_or_else(|e| panic!("not JSON ({e}): {end:?}"))
}

/// Waits until something is so, which another process brings about.
#[track_caller]
pub fn wait_for(what: &str, so: impl FnMut() -> bool) {
    wait_at_most(SOON, what, so);
}

/// The same for what takes long.
#[track_caller]
pub fn wait_at_most(limit: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !so() {
        assert!(Instant::now() < deadline, "no {what} within {limit:?}");
        thread::sleep(Duration::from_millis(10));
    }
}
