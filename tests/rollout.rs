//! A task goes to a fleet in groups, with real processes: it is paused when it fails, goes on, and is undone where it has begun,
//! though the server is killed in the middle.

mod support;

use serde_json::Value;
use std::fs;
use support::beside_others;
use support::fleet::{Device, Fleet, SOON, id, json, manifest, wait_for};
use support::process::Proc;

/// Notes what it was told, unless the device is broken.
const NOTE: &str = r#"#!/bin/sh
if [ -e /srv/broken ]; then echo "the flash does not answer" >&2; exit 1; fi
echo "$1" >>/srv/notes
"#;

fn kill(mut process: Proc) {
    process.signal("KILL");
    process.finish(SOON);
}

fn shown(fleet: &Fleet, task: i64) -> Value {
    json(&fleet.operate(&["task", "show", &task.to_string(), "--json"]))
}

fn add(fleet: &Fleet, word: &str, more: &[&str]) -> i64 {
    let file = fleet.tmp.file(format!("{word}.bin"), 3000, 1);
    let arg = format!("word={word}");
    let words = ["task", "add", "install", file.to_str().expect("UTF-8"), "--name", "fw", "--to", "all"];
    id(&fleet.operate(&[&words[..], &["--handler", "note", "--arg", &arg], more].concat()))
}

/// Waits until a task is complete everywhere.
fn complete(fleet: &Fleet, task: i64) {
    fleet.command(&["task", "show", &task.to_string(), "--watch"]).spawn().expect(0, SOON);
}

#[test]
fn a_rollout_stops_at_a_failure_and_is_undone_where_it_has_begun() {
    let _cores = beside_others();
    let Some((fleet, server)) = Fleet::start() else { return };
    let devices: Vec<Device> = (1..=5).map(|n| fleet.device(&format!("d{n}"))).collect();
    for device in &devices {
        device.handler("note", NOTE, &manifest("note", "report", ""));
    }
    let mut agents: Vec<_> = devices.iter().map(|device| device.run(&[])).collect();
    fleet.operate(&["device", "tag", "d1", "canary"]);
    for name in ["d2", "d3"] {
        fleet.operate(&["device", "tag", name, "pilot"]);
    }
    let first = add(&fleet, "one", &[]);
    complete(&fleet, first);
    // The one that is off does not hold up the others.
    kill(agents.pop().expect("an agent"));
    fs::write(devices[1].path("broken"), "").expect("write");

    let groups = ["--groups", "tag:canary,tag:pilot", "--rollback", &first.to_string()];
    let second = add(&fleet, "two", &groups);
    let held = "1 of 2 devices of group 2 failed; at most 0% may";
    wait_for("pause", || shown(&fleet, second)["rollout"]["held"] == held);
    assert_eq!(devices[0].notes(), ["one", "two"]);
    assert_eq!(devices[3].notes(), ["one"], "its group is not open");
    let text = fleet.operate(&["task", "show", &second.to_string()]).lines.join("\n");
    for line in [
        format!("group 2 of 3 (tag:pilot); paused: {held}"),
        "1 tag:canary: done, 1 of 1 done".into(),
        "3 all others: later, 0 of 2 done".into(),
        format!("mcp task rollback {second}"),
    ] {
        assert!(text.contains(&line), "{line} in\n{text}");
    }

    // What is paused stays so, whatever becomes of the server; and somebody decides.
    kill(server);
    let server = fleet.serve();
    assert_eq!(shown(&fleet, second)["state"], "paused");
    fleet.operate(&["task", "resume", &second.to_string()]);
    wait_for("third group", || shown(&fleet, second)["rollout"]["open"] == 2);
    kill(server);
    let _server = fleet.serve();
    wait_for("install", || devices[3].notes() == ["one", "two"]);
    wait_for("report", || fleet.action(second, "d4")["state"] == "finished");

    fs::remove_file(devices[1].path("broken")).expect("mended");
    let said = fleet.operate(&["task", "rollback", &second.to_string()]).lines.concat();
    let undo = second + 1;
    assert_eq!(said, format!("task {undo} undoes it at 4 devices"));
    complete(&fleet, undo);
    let _late = devices[4].run(&[]);
    wait_for("check-in", || {
        let view = json(&fleet.operate(&["device", "show", "d5", "--json"]));
        view["last_seen"].as_u64() > shown(&fleet, undo)["created"].as_u64()
    });
    for (device, notes) in devices.iter().zip([
        &["one", "two", "one"][..],
        &["one", "one"],
        &["one", "two", "one"],
        &["one", "two", "one"],
        &["one"],
    ]) {
        assert_eq!(device.notes(), notes, "{}", device.name);
    }
}
