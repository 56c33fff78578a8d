//! Tasks of every kind by multicast, over loopback: handlers, several files, several tasks, times, and `mcp recv`.

mod support;

use serde_json::Value;
use std::path::Path;
use support::beside_others;
use support::files::b3;
use support::fleet::{Device, Fleet, NOTE, SOON, id, json, manifest, wait_for};
use support::mcp::MCP;
use support::process::{Cmd, Proc};

/// Devices that have checked in, with the handler `note`, at a server that sends at most so fast.
fn devices(fleet: &Fleet, count: usize) -> (Vec<Device>, Vec<Proc>) {
    let devices: Vec<Device> = (1..=count).map(|n| fleet.device(&format!("desk-{n}"))).collect();
    let agents = devices.iter().map(|device| {
        device.handler("note", NOTE, &manifest("note", "report", ""));
        device.run(&[])
    });
    let agents = agents.collect();
    wait_for("check-in of all", || {
        let list = json(&fleet.operate(&["device", "list", "--json"]));
        list.as_array().expect("devices").iter().all(|device| !device["last_seen"].is_null())
    });
    (devices, agents)
}

fn serve(fleet: &Fleet, rate: &str) -> Proc {
    let mut server = fleet.serving().args(["--rate", rate]).spawn();
    // The line comes once it listens.
    server.next_line(SOON);
    server
}

fn add(fleet: &Fleet, kind: &str, files: &[&Path], words: &[&str]) -> i64 {
    let files: Vec<&str> = files.iter().map(|path| path.to_str().expect("UTF-8")).collect();
    id(&fleet.operate(&[&["task", "add", kind][..], &files, words].concat()))
}

fn show(fleet: &Fleet, task: i64) -> Value {
    json(&fleet.operate(&["task", "show", &task.to_string(), "--json"]))
}

fn watch(fleet: &Fleet, task: i64) -> Proc {
    fleet.command(&["task", "show", &task.to_string(), "--watch", "--json"]).spawn()
}

/// How many devices each session of a task has completed.
fn completed(view: &Value) -> Vec<u64> {
    let sessions = view["sessions"].as_array().into_iter().flatten();
    sessions.map(|session| session["complete"].as_u64().expect("a number")).collect()
}

#[test]
fn an_install_an_update_and_a_batch_come_by_multicast_and_mcp_recv_listens() {
    const SIZE: u64 = 6_000_000;
    let _cores = beside_others();
    let Some(fleet) = Fleet::new() else { return };
    let _server = serve(&fleet, "16M");
    let (devices, _agents) = devices(&fleet, 3);
    for (kind, seed, listens) in [("install", 1, false), ("update", 2, false), ("batch", 3, true)] {
        let file = fleet.tmp.file(kind, SIZE, seed);
        let word = format!("word={kind}");
        let task = add(&fleet, kind, &[&file], &["--to", "all", "--handler", "note", "--arg", &word]);
        let mut done = watch(&fleet, task);
        if listens {
            let asked = fleet.command(&["task", "session", &task.to_string()]);
            let mut command = None;
            wait_for("session", || {
                let end = asked.clone().run(SOON);
                command = (end.code == Some(0)).then(|| end.lines.concat());
                command.is_some()
            });
            let command = command.expect("a session");
            let copy = fleet.tmp.dir("recv").join("copy");
            // As it is pasted into a shell.
            let line = command.replacen(" mcp ", &format!(" {MCP} "), 1);
            let line = format!("{line} --interface lo --output {}", copy.display());
            Cmd::new("recv", "sh").args(["-c", &line]).spawn().expect(0, SOON);
            assert_eq!(b3(&copy), b3(&file));
        }
        done.expect(0, SOON);
        let view = show(&fleet, task);
        // The one that only listened is one more.
        assert_eq!(completed(&view), [3 + u64::from(listens)], "{view:#}");
    }
    for device in &devices {
        assert_eq!(device.notes(), ["install 6000000", "update 6000000", "batch 6000000"], "{}", device.name);
    }
}

#[test]
fn the_files_of_a_task_come_one_after_the_other_and_other_tasks_wait_their_turn() {
    const SIZE: u64 = 6_000_000;
    let _cores = beside_others();
    let Some(fleet) = Fleet::new() else { return };
    let _server = serve(&fleet, "40M");
    let (devices, _agents) = devices(&fleet, 4);
    let files = [("one", 1), ("two", 2), ("three", 3)].map(|(name, seed)| fleet.tmp.file(name, SIZE, seed));
    let at = ["--at", "/srv/"];
    let pair = add(
        &fleet,
        "copy",
        &[&files[0], &files[1]],
        &[&at[..], &["--name", "pair", "--to", "desk-1", "--to", "desk-2"]].concat(),
    );
    let single =
        add(&fleet, "copy", &[&files[2]], &[&at[..], &["--to", "desk-3", "--to", "desk-4"]].concat());
    let mut ends = [watch(&fleet, pair), watch(&fleet, single)];
    let mut views = [pair, single].map(|task| show(&fleet, task));
    let is_done = |view: &Value| view["counts"]["finished"] == 2;
    while !views.iter().all(is_done) {
        views = [pair, single].map(|task| show(&fleet, task));
        let sessions = views.iter().flat_map(|view| view["sessions"].as_array().into_iter().flatten());
        // Asked for one after the other: what ran at the first look may be over at the second.
        let running: Vec<&Value> = sessions.filter(|session| session["over"] != true).collect();
        if let [one, other] = running[..] {
            let still = [pair, single].map(|task| show(&fleet, task)["sessions"].clone());
            let still = still.iter().flat_map(|all| all.as_array().into_iter().flatten());
            assert!(still.filter(|session| session["over"] != true).count() < 2, "{one:#} {other:#}");
        }
    }
    ends.iter_mut().for_each(|end| drop(end.expect(0, SOON)));
    let [pair, single] = [pair, single].map(|task| show(&fleet, task));
    assert_eq!((completed(&pair), completed(&single)), (vec![2, 2], vec![2]), "{pair:#} {single:#}");
    for (device, names) in devices.iter().zip([&["one", "two"][..], &["one", "two"], &["three"], &["three"]])
    {
        for name in names {
            let source = files.iter().find(|file| file.ends_with(name)).expect("a file");
            assert_eq!(b3(&device.path(name)), b3(source), "{} {name}", device.name);
        }
    }
}

#[test]
fn a_task_that_loads_in_its_window_begins_when_that_opens() {
    const SIZE: u64 = 6_000_000;
    let _cores = beside_others();
    let Some(fleet) = Fleet::new() else { return };
    let _server = serve(&fleet, "100M");
    let (_devices, _agents) = devices(&fleet, 2);
    let file = fleet.tmp.file("image", SIZE, 1);
    let words = ["--to", "all", "--at", "/srv/", "--start-in", "8s", "--load-in-window"];
    let task = add(&fleet, "copy", &[&file], &words);
    watch(&fleet, task).expect(0, SOON);
    let view = show(&fleet, task);
    assert_eq!(completed(&view), [2], "{view:#}");
    let start = view["task"]["start"].as_u64().expect("a time");
    let called = view["sessions"][0]["called"].as_u64().expect("a time");
    assert!(called >= start, "{view:#}");
    for action in view["actions"].as_array().expect("actions") {
        assert!(action["begun"].as_u64().expect("a time") >= start, "{view:#}");
    }
}
