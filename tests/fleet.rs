//! The standing half with real processes: a server, and agents that each have a `/srv` and handlers of their own.

mod support;

use serde_json::Value;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::beside_others;
use support::files::b3;
use support::fleet::{Device, Fleet, NOTE, SOON, id, manifest, wait_for};
use support::mcp::MCP;
use support::process::{Cmd, Proc};

#[test]
fn a_fleet_performs_every_kind_of_task_and_one_that_was_off_completes_later() {
    let _cores = beside_others();
    let Some((fleet, _server)) = Fleet::start() else { return };
    let devices: Vec<Device> = (1..=5).map(|n| fleet.device(&format!("bench-{n}"))).collect();
    devices.iter().for_each(|device| device.handler("note", NOTE, &manifest("note", "report", "")));
    let version = |n: usize| format!("version={}", if n < 3 { "2.0" } else { "2.1" });
    let start = |n: usize| devices[n].run(&["--attribute", &version(n)]);
    let mut agents: Vec<Proc> = (0..4).map(start).collect();

    // A copy, while one is off.
    let image = fleet.tmp.file("image.iso", 5_000_000, 1);
    let file = image.to_str().expect("UTF-8");
    let task = id(&fleet.operate(&["task", "add", "copy", file, "--to", "all", "--at", "/srv/images/"]));
    let mut watch = fleet.command(&["task", "show", &task.to_string(), "--watch", "--json"]).spawn();
    for _ in 0..4 {
        watch.until("a copy", SOON, |action| action["state"] == "finished");
    }
    assert_eq!(fleet.action(task, "bench-5")["state"], "waiting");
    agents.push(start(4));
    watch.expect(0, SOON);
    for device in &devices {
        assert_eq!(b3(&device.path("images/image.iso")), b3(&image), "{}", device.name);
    }

    // The other kinds run a handler, each once at each device.
    let package = fleet.tmp.file("package.bin", 70_000, 2);
    let add = |words: &[&str]| {
        let common = ["--handler", "note", "--wait=60s"];
        let file = package.to_str().expect("UTF-8");
        fleet.command(&["task", "add", words[0], file]).args(&words[1..]).args(common).spawn()
    };
    add(&["install", "--to", "all", "--arg", "word=install"]).expect(0, SOON * 2);
    let update =
        ["update", "--version", "2.1", "--when", "version < 2.1", "--to", "all", "--arg", "word=update"];
    add(&update).expect(0, SOON * 2);
    add(&["batch", "--to", "bench-*", "--expires", "1h", "--arg", "word=batch"]).expect(0, SOON * 2);
    for (n, device) in devices.iter().enumerate() {
        let old = ["install 70000", "update 70000", "batch 70000"];
        let new = ["install 70000", "batch 70000"];
        let expected: &[&str] = if n < 3 { &old } else { &new };
        assert_eq!(device.notes(), expected, "{}", device.name);
    }

    // Arguments that the manifest does not allow, and a handler that fails.
    let mut wrong = add(&["batch", "--to", "bench-1", "--arg", "word=--now"]);
    wrong.expect(4, SOON * 2);
    fs::write(devices[1].dir.join("handlers/note"), "#!/bin/sh\necho no paper >&2\nexit 9\n").expect("write");
    let end = add(&["batch", "--to", "all", "--arg", "word=again", "--name", "again"]).expect(3, SOON * 2);
    assert!(
        end.lines.iter().any(|line| line.contains("bench-2: failed") && line.contains("no paper")),
        "{end:?}"
    );
}

/// A daily window that is closed now and for hours, in UTC.
fn closed_window() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
    let hour = |hours: u64| (now / 3600 + hours) % 24;
    format!("{:02}:00-{:02}:00", hour(6), hour(7))
}

#[test]
fn tasks_that_wait_hold_back_no_other_and_keep_their_order() {
    let _cores = beside_others();
    let Some((fleet, _server)) = Fleet::start() else { return };
    let device = fleet.device("bench-1");
    device.handler("note", NOTE, &manifest("note", "report", ""));
    let _agent = device.running(&[]).env("TZ", "UTC").spawn();
    let file = fleet.tmp.file("firmware.bin", 70_000, 1);
    let add = |words: &[&str]| {
        let common = [words[0], file.to_str().expect("UTF-8"), "--to", "all"];
        fleet.operate(&[&["task", "add"][..], &common, &words[1..]].concat())
    };
    let window = closed_window();
    let firmware = ["update", "--name", "firmware", "--handler", "note", "--arg", "word=firmware"];
    let night = id(&add(&[&firmware[..], &["--window", &window]].concat()));
    let after =
        id(&add(&["copy", "--name", "notes", "--at", "/srv/notes.bin", "--after", &night.to_string()]));
    // The first wait, for the night and for each other, and this one does not.
    add(&["install", "--name", "editor", "--handler", "note", "--arg", "word=editor", "--wait=60s"]);
    assert_eq!(device.notes(), ["editor 70000"]);
    let says = |task, text: &str| {
        fleet.action(task, "bench-1")["message"].as_str().is_some_and(|said| said.starts_with(text))
    };
    wait_for("wait for the window", || says(night, "waits until"));
    wait_for("wait for the earlier task", || says(after, "waits for task firmware"));
    assert!(!device.path("notes.bin").exists());
    // A newer one takes the place of the one that waits, and what comes after it goes on.
    add(&[&firmware[..], &["--wait=60s"]].concat());
    let mut watch = fleet.command(&["task", "show", &after.to_string(), "--watch"]).spawn();
    watch.expect(0, SOON);
    assert_eq!(device.notes(), ["editor 70000", "firmware 70000"]);
    assert_eq!(b3(&device.path("notes.bin")), b3(&file));
    assert_eq!(fleet.action(night, "bench-1")["state"], "cancelled");
}

#[test]
fn a_server_that_is_killed_goes_on_where_it_was() {
    let _cores = beside_others();
    let Some((fleet, mut server)) = Fleet::start() else { return };
    let devices: Vec<Device> = (1..=2).map(|n| fleet.device(&format!("bench-{n}"))).collect();
    devices.iter().for_each(|device| device.handler("note", NOTE, &manifest("note", "report", "")));
    let _agents: Vec<Proc> = devices.iter().map(|device| device.run(&[])).collect();
    for round in 0..5 {
        let name = format!("round-{round}.bin");
        let file = fleet.tmp.file(&name, 3_000_000, round);
        let words = ["task", "add", "batch", file.to_str().expect("UTF-8"), "--handler", "note"];
        let words = [&words[..], &["--to", "all", "--arg", "word=round"]].concat();
        let task = id(&fleet.operate(&words));
        let mut watch = fleet.command(&["task", "show", &task.to_string(), "--watch", "--json"]).spawn();
        watch.until("the task", SOON, |action| action["state"] == "waiting" || action["state"] == "running");
        server.signal("KILL");
        server.finish(SOON);
        server = fleet.serve();
        watch.expect(0, SOON * 2);
    }
    for device in &devices {
        assert_eq!(device.notes().len(), 5, "{}: {:?}", device.name, device.notes());
    }
}

#[test]
fn a_person_at_a_device_confirms_and_its_key_is_that_of_mcp_key_device() {
    let _cores = beside_others();
    let Some((fleet, _server)) = Fleet::start() else { return };
    let device = fleet.device("bench-1");
    let key = Cmd::new("key", MCP).args(["key", "device"]).env("MCP_STATE_DIR", device.dir.join("state"));
    let key = key.spawn().expect(0, SOON).lines.concat();
    let shown = fleet.operate(&["device", "show", "bench-1", "--json"]).lines.join("\n");
    let shown: Value = serde_json::from_str(&shown).expect("a device");
    assert_eq!(key.split(' ').next_back(), shown["key"].as_str());

    let _agent = device.run(&[]);
    let file = fleet.tmp.file("image.iso", 100_000, 1);
    let path = file.to_str().expect("UTF-8");
    let task =
        id(&fleet.operate(&["task", "add", "copy", path, "--to", "all", "--at", "/srv/", "--confirm"]));
    let action = fleet.action(task, "bench-1")["id"].as_i64().expect("a number").to_string();
    let status = || device.mcp(&["status"]).spawn().expect(0, SOON).lines;
    let asks = |line: &String| line.contains(&format!("mcp agent confirm {action}"));
    let begun = std::time::Instant::now();
    while !status().iter().any(asks) {
        assert!(begun.elapsed() < SOON, "{:?}", status());
        std::thread::sleep(Duration::from_millis(200));
    }
    device.mcp(&["confirm", "4711"]).spawn().expect(1, SOON);
    device.mcp(&["deny", &action]).spawn().expect(0, SOON);
    assert_eq!(fleet.action(task, "bench-1")["message"], "denied by the device");
    assert!(!device.path("image.iso").exists());
    device.mcp(&["confirm", &action]).spawn().expect(0, SOON);
    let mut watch = fleet.command(&["task", "show", &task.to_string(), "--watch"]).spawn();
    watch.expect(0, SOON);
    assert_eq!(b3(&device.path("image.iso")), b3(&file));
}

#[test]
fn programs_read_from_the_log_who_asked_for_what() {
    let _cores = beside_others();
    let Some(fleet) = Fleet::new() else { return };
    let mut server = fleet.serving().args(["--log", "json"]).spawn();
    server.next_line(SOON);
    let device = fleet.device("bench-1");
    let mut agent = device.run(&["--log", "json"]);
    let image = fleet.tmp.file("image.iso", 70_000, 1);
    let file = image.to_str().expect("UTF-8");
    fleet
        .command(&["task", "add", "copy", file, "--to", "all", "--at", "/srv/", "--wait=60s"])
        .spawn()
        .expect(0, SOON);
    let logged = |process: &mut Proc| {
        process.signal("TERM");
        let lines = process.finish(SOON).stderr;
        let objects =
            lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{lines}")));
        objects.collect::<Vec<Value>>()
    };
    let events = logged(&mut agent);
    assert!(events.iter().any(|event| event["task"] == "image" && event["level"] == "INFO"), "{events:#?}");
    let events = logged(&mut server);
    let of = |message: &str| events.iter().filter(|event| event["message"] == message).collect::<Vec<_>>();
    let [ended] = of("bench-1 ended action 1: finished")[..] else { panic!("{events:#?}") };
    assert_eq!((&ended["span"]["device"], &ended["span"]["method"]), (&"bench-1".into(), &"POST".into()));
    let answered = |route: &str, who: &str, name: &str| {
        let of_route = |event: &&Value| event["span"]["route"] == route && event["status"] == 200;
        of("answered").into_iter().filter(of_route).any(|event| event["span"][who] == name)
    };
    assert!(answered("/{tenant}/controller/v1/{device}", "device", "bench-1"), "{events:#?}");
    assert!(answered("/mcp/v1/manage/tasks", "operator", "first"), "{events:#?}");
}
