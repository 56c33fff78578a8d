//! Tasks of many devices by multicast: a server and agents in network namespaces, with losses.

mod support;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::files::{TempDir, b3};
use support::lab::Lab;
use support::mcp::MCP;
use support::process::{Cmd, End, Proc};
use support::{beside_others, has_program, skip};

/// For what takes a moment.
const SOON: Duration = Duration::from_secs(60);

/// A server on host 0, and a device on each other one.
struct Fleet {
    lab: Lab,
    tmp: TempDir,
    server: Proc,
}

impl Fleet {
    /// `None`, said out loud, where there are no namespaces.
    fn start(hosts: usize, words: &[&str]) -> Option<Self> {
        if !has_program("unshare") {
            skip("agents with directories of their own need unshare");
            return None;
        }
        let lab = Lab::new(hosts)?;
        let tmp = TempDir::new();
        let server = Self::serve(&lab, &tmp, words);
        let fleet = Self { lab, tmp, server };
        for host in 1..hosts {
            let line = fleet.operate(&["enrol", "new"]).lines.concat();
            fs::create_dir_all(fleet.srv(host)).expect("make a directory");
            fleet.agent(host, &["join", &line, "--id", &format!("desk-{host}")]).spawn().expect(0, SOON);
        }
        Some(fleet)
    }

    fn serve(lab: &Lab, tmp: &TempDir, words: &[&str]) -> Proc {
        let address = lab.address(0);
        let cmd = Cmd::new("server", MCP).args(["serve", "--listen", &format!("{address}:7443")]);
        let cmd = cmd.args(["--name", &address, "--poll", "1s"]).args(words);
        let mut server = lab.on(0, cmd.env("MCP_STATE_DIR", tmp.dir("server"))).spawn();
        // The line comes once it listens.
        server.next_line(SOON);
        server
    }

    fn command(&self, words: &[&str]) -> Cmd {
        let cmd = Cmd::new("operator", MCP).args(words).env("MCP_STATE_DIR", self.tmp.dir("server"));
        self.lab.on(0, cmd)
    }

    #[track_caller]
    fn operate(&self, words: &[&str]) -> End {
        self.command(words).spawn().expect(0, SOON)
    }

    fn show(&self, task: i64) -> Value {
        let end = self.operate(&["task", "show", &task.to_string(), "--json"]);
        serde_json::from_str(&end.lines.join("\n")).expect("a task")
    }

    fn srv(&self, host: usize) -> PathBuf {
        self.tmp.join(format!("desk-{host}")).join("srv")
    }

    /// A command of the agent of a host, which has `/srv` for itself.
    fn agent(&self, host: usize, words: &[&str]) -> Cmd {
        let state = self.tmp.join(format!("desk-{host}")).join("state");
        let cmd = Cmd::new(&format!("desk-{host}"), MCP).arg("agent").args(words).env("MCP_STATE_DIR", state);
        let srv = self.srv(host);
        let script = "mount --bind \"$0\" /srv && exec \"$@\"";
        let cmd = cmd.through(["unshare", "--mount", "sh", "-c", script, srv.to_str().expect("UTF-8")]);
        self.lab.on(host, cmd)
    }

    fn run(&self, host: usize) -> Proc {
        self.agent(host, &["run"]).spawn()
    }

    /// Adds a copy of a file for all devices; returns its number.
    fn copy(&self, file: &Path) -> i64 {
        let words = ["task", "add", "copy", file.to_str().expect("UTF-8"), "--to", "all", "--at", "/srv/"];
        let added = self.operate(&words).lines.concat();
        added.trim_start_matches("task ").parse().expect("the number of a task")
    }

    fn watch(&self, task: i64) -> Proc {
        self.command(&["task", "show", &task.to_string(), "--watch", "--json"]).spawn()
    }
}

/// The bytes that a device says it had by multicast.
fn by_multicast(view: &Value, device: &str) -> Option<u64> {
    let actions = view["actions"].as_array()?;
    let message = actions.iter().find(|action| action["device"] == device)?["message"].as_str()?;
    message
        .split(", ")
        .flat_map(|part| part.split("; "))
        .find_map(|clause| clause.strip_suffix(" bytes by multicast")?.rsplit(' ').next()?.parse().ok())
}

#[test]
fn a_copy_for_many_goes_over_the_line_once_and_one_that_was_off_loads_it_later() {
    const SIZE: u64 = 20_000_000;
    let _cores = beside_others();
    let Some(fleet) = Fleet::start(6, &[]) else { return };
    let _agents: Vec<Proc> = (1..5).map(|host| fleet.run(host)).collect();
    // All have been heard of.
    let mut seen = 0;
    while seen < 4 {
        let list = fleet.operate(&["device", "list", "--json"]);
        let list: Value = serde_json::from_str(&list.lines.join("\n")).expect("devices");
        let is_heard = |device: &&Value| !device["last_seen"].is_null();
        seen = list.as_array().expect("devices").iter().filter(is_heard).count();
    }
    (1..5).for_each(|host| fleet.lab.lose(host, 10));
    let image = fleet.tmp.file("image.iso", SIZE, 1);
    let before = fleet.lab.tx_bytes(0);
    let task = fleet.copy(&image);
    let mut watch = fleet.watch(task);
    for _ in 0..4 {
        watch.until("a copy", SOON, |action| action["state"] == "finished");
    }
    let sent = fleet.lab.tx_bytes(0) - before;
    let view = fleet.show(task);
    assert_eq!(view["session"]["complete"], 4, "{view:#}");
    for host in 1..5 {
        assert_eq!(b3(&fleet.srv(host).join("image.iso")), b3(&image), "desk-{host}");
        assert_eq!(by_multicast(&view, &format!("desk-{host}")), Some(SIZE), "{view:#}");
    }
    // Not once for each of them.
    println!("{:.3} bytes on the line for each byte of the file", sent as f64 / SIZE as f64);
    assert!(sent < SIZE * 3 / 2, "{sent} bytes for {SIZE}");

    // The one that was off comes after the session.
    while fleet.show(task)["session"]["over"] != true {}
    let _last = fleet.run(5);
    watch.expect(0, SOON);
    assert_eq!(b3(&fleet.srv(5).join("image.iso")), b3(&image));
    assert_eq!(by_multicast(&fleet.show(task), "desk-5"), None);
    assert!(fleet.server.pid() > 0);
}

#[test]
fn what_a_session_did_not_bring_comes_by_http() {
    const SIZE: u64 = 30_000_000;
    let _cores = beside_others();
    // Slow enough to be killed in the middle.
    let Some(mut fleet) = Fleet::start(3, &["--rate", "40M"]) else { return };
    let _agents: Vec<Proc> = (1..3).map(|host| fleet.run(host)).collect();
    let image = fleet.tmp.file("image.iso", SIZE, 1);
    let task = fleet.copy(&image);
    let streamed = |view: &Value| view["session"]["streamed"].as_u64().unwrap_or_default();
    while streamed(&fleet.show(task)) < SIZE / 4 {}
    fleet.server.signal("KILL");
    fleet.server.finish(SOON);
    fleet.server = Fleet::serve(&fleet.lab, &fleet.tmp, &["--rate", "40M"]);
    fleet.watch(task).expect(0, SOON * 3);
    let view = fleet.show(task);
    for host in 1..3 {
        assert_eq!(b3(&fleet.srv(host).join("image.iso")), b3(&image), "desk-{host}");
        let part = by_multicast(&view, &format!("desk-{host}")).unwrap_or_default();
        assert!(part > SIZE / 8 && part < SIZE, "{view:#}");
    }
}
