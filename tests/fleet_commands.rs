//! The commands of the standing half as people type them, with real processes: who joins and by what, what the tables
//! say, operators, certificates, servers and clients that are not ours, mirrors.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use support::files::b3;
use support::fleet::{self, Device, Fleet, SOON, id, wait_for};
use support::mcp::MCP;
use support::process::{Cmd, End, Proc};
use support::{beside_others, has_program, skip};

/// What a device says of a copy that is done.
const DONE: &str = "image.iso is loaded and verified";

/// A table as people see it, its cells separated by bars, with what differs from run to run masked.
fn cells(end: &End) -> Vec<String> {
    let row = |line: &String| {
        let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(mask).collect::<Vec<_>>().join(" | ")
    };
    end.lines.iter().map(row).collect()
}

/// Ages, spans of time, hashes and keys by what they are.
fn mask(cell: &str) -> String {
    let words: Vec<&str> = cell.split(' ').collect();
    let is_span = |word: &str| {
        let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
        unit.len() < word.len()
            && ["s", "m", "h", "day", "days", "month", "months", "year", "years"].contains(&unit)
    };
    let mut masked = Vec::new();
    for word in words {
        let bare = word.trim_matches(['(', ')', ',']);
        if is_span(word) {
            if masked.last().is_none_or(|last| last != "TIME") {
                masked.push("TIME".to_owned());
            }
        } else if bare.len() == 64 && bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            masked.push(word.replace(bare, "HASH"));
        } else if bare.len() == 52 && bare.bytes().all(|b| b.is_ascii_alphanumeric()) {
            masked.push(word.replace(bare, "KEY"));
        } else {
            masked.push(word.to_owned());
        }
    }
    masked.join(" ")
}

/// A free port of this machine.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Starts a server with these words, and returns the line that it prints.
fn serve(fleet: &Fleet, words: &[&str]) -> (Proc, String) {
    let mut server = fleet.serving_by(words).spawn();
    let line = server.next_line(SOON);
    (server, line)
}

fn watch(fleet: &Fleet, task: i64) -> End {
    fleet.command(&["task", "show", &task.to_string(), "--watch"]).spawn().expect(0, SOON)
}

fn status(device: &Device) -> Value {
    fleet::json(&device.mcp(&["status", "--json"]).spawn().expect(0, SOON))
}

/// Waits until the agent has checked in since it was started.
fn checked_in(device: &Device) -> Value {
    wait_for("check-in", || {
        device.mcp(&["status", "--json"]).run(SOON).code == Some(0) && !status(device)["last_poll"].is_null()
    });
    status(device)
}

#[test]
fn the_printed_line_and_tags_say_who_gets_what_and_the_tables_tell_of_it() {
    let _cores = beside_others();
    let Some(fleet) = Fleet::new() else { return };
    let (_server, line) = serve(&fleet, &["--poll", "1s", "--interface", "lo"]);

    // By the line that the server prints, a device waits for an operator.
    let first = fleet.machine("bench-1");
    let joined = first.mcp(&["join", &line, "--id", "bench-1"]).spawn().expect(0, SOON);
    let said = "joined as bench-1; now run 'mcp agent run', or 'systemctl enable --now mcp-agent'";
    assert_eq!(joined.lines, [said]);
    let list = || cells(&fleet.operate(&["device", "list"]));
    let heading = "device | state | heard | from | version | tags";
    assert_eq!(list(), [heading, "bench-1 | pending | never"]);
    let _agent = first.run(&["--attribute", "version=2.0"]);
    wait_for("poll", || list()[1] != "bench-1 | pending | never");
    fleet.operate(&["device", "accept", "bench-1"]);
    wait_for("attributes", || list()[1].contains("ago") && list()[1].contains("2.0"));
    assert_eq!(list(), [heading, "bench-1 | accepted | TIME ago | 127.0.0.1 | 2.0"]);

    // By a line of its own it does not wait, and gets the line's tags.
    let tagged = fleet.operate(&["enrol", "new", "--tag", "lab3", "--label", "new desks"]).lines.concat();
    let second = fleet.machine("bench-2");
    second.mcp(&["join", &tagged, "--id", "bench-2"]).spawn().expect(0, SOON);
    let third = fleet.device("bench-3");
    fleet.operate(&["device", "tag", "bench-3", "old"]);
    fleet.operate(&["device", "tag", "bench-1", "lab3", "upstairs"]);
    fleet.operate(&["device", "tag", "bench-1", "-upstairs", "-never"]);
    let _others = [second.run(&[]), third.run(&[])];

    let file = fleet.tmp.file("image.iso", 70_000, 1);
    let copy = ["task", "add", "copy", text(&file), "--to", "tag:lab3", "--at", "/srv/images/"];
    let task = id(&fleet.operate(&copy));
    let end = watch(&fleet, task);
    assert_eq!(end.lines.last().map(String::as_str), Some("task 1: 2 of 2 done"), "{end:?}");
    let lines: Vec<&str> = end.lines.iter().map(String::as_str).collect();
    for device in ["bench-1", "bench-2"] {
        assert!(lines.contains(&format!("{device}: finished {DONE}").as_str()), "{lines:?}");
    }
    for device in [&first, &second] {
        assert_eq!(b3(&device.path("images/image.iso")), b3(&file), "{}", device.name);
    }
    assert!(!third.path("images/image.iso").exists());

    // What people see of it.
    assert_eq!(
        cells(&fleet.operate(&["task", "list"])),
        [
            "task | name | kind | version | state | devices | expires | by",
            "1 | image | copy | running | 2 of 2 done | TIME | first"
        ]
    );
    let shown = cells(&fleet.operate(&["task", "show", "1"]));
    let told = [
        "task | 1 (image 1)",
        "kind | copy",
        "state | running",
        "added | TIME ago by first",
        "devices | 2 of 2 done",
        "at | /srv/images/",
        "file | image.iso (70000 bytes, HASH)",
    ];
    let actions = [
        "",
        "device | state | attempt | changed | message",
        "bench-1 | finished | 1 | TIME ago | image.iso is loaded and verified",
        "bench-2 | finished | 1 | TIME ago | image.iso is loaded and verified",
    ];
    // Whether by multicast is not told here.
    let shown: Vec<&str> =
        shown.iter().map(String::as_str).filter(|row| !row.starts_with("multicast")).collect();
    assert_eq!(shown, [&told[..], &actions].concat());
    let shown = cells(&fleet.operate(&["device", "show", "bench-1"]));
    let begin = ["device | bench-1", "state | accepted", "heard | TIME ago from 127.0.0.1", "tags | lab3"];
    assert_eq!(shown[..4], begin);
    assert!(shown.contains(&"version | 2.0".to_owned()), "{shown:?}");
    let end = [
        "",
        "task | attempt | state | changed | message",
        "1 | 1 | finished | TIME ago | image.iso is loaded and verified",
    ];
    assert_eq!(shown[shown.len() - 3..], end);
    assert_eq!(
        cells(&fleet.operate(&["enrol", "list"])),
        [
            "id | kind | left | valid | tags | label | by",
            "3 | line | 0 | TIME | first",
            "2 | line | 0 | TIME | lab3 | new desks | first",
            "1 | line | any | TIME | printed at the start | server",
        ]
    );

    // A line that is revoked enrols nobody any more; whom it enrolled stays.
    fleet.operate(&["enrol", "revoke", "1"]);
    let revoked = cells(&fleet.operate(&["enrol", "list"]));
    assert_eq!(revoked[3], "1 | line | any | revoked | printed at the start | server");
    let late = fleet.machine("bench-4");
    let end = late.mcp(&["join", &line, "--id", "bench-4"]).spawn().expect(1, SOON);
    assert!(end.stderr.starts_with("error: "), "{end:?}");
    assert_eq!(list().len(), 4);
    assert_eq!(
        cells(&fleet.operate(&["operator", "list"])),
        ["operator | role | since | key", "first | admin | TIME ago | HASH"]
    );
    let audit = cells(&fleet.operate(&["operator", "audit"]));
    assert_eq!(audit[0], "when | who | from | what | subject");
    let done = [
        "first | 127.0.0.1 | revoke enrolment line | 1",
        "first | 127.0.0.1 | add task | image 1",
        "first | 127.0.0.1 | upload object | HASH",
        "first | 127.0.0.1 | tag device | bench-1",
        "first | 127.0.0.1 | tag device | bench-1",
        "first | 127.0.0.1 | tag device | bench-3",
        "device bench-3 | 127.0.0.1 | enrol | accepted",
        "first | 127.0.0.1 | new enrolment line | 3",
        "device bench-2 | 127.0.0.1 | enrol | accepted",
        "first | 127.0.0.1 | new enrolment line | 2",
        "first | 127.0.0.1 | accept device | bench-1",
        "device bench-1 | 127.0.0.1 | enrol | pending",
    ];
    assert_eq!(audit[1..], done.map(|row| format!("TIME ago | {row}")));
}

#[test]
fn tasks_are_paused_and_devices_are_refused_and_forgotten() {
    let _cores = beside_others();
    let Some((fleet, _server)) = Fleet::start() else { return };
    let (first, second) = (fleet.device("bench-1"), fleet.device("bench-2"));
    let add = |name: &str, to: &str| {
        let file = fleet.tmp.file(name, 50_000, 1);
        id(&fleet.operate(&["task", "add", "copy", text(&file), "--to", to, "--at", "/srv/"]))
    };
    let held = add("held.bin", "all");
    fleet.operate(&["task", "pause", &held.to_string()]);
    let state = |task: i64| fleet.action(task, "bench-1")["state"].clone();
    let _agents = [first.run(&[]), second.run(&[])];
    // One that came later is done, and the paused one waits.
    watch(&fleet, add("free.bin", "all"));
    assert_eq!((state(held), first.path("held.bin").exists()), ("waiting".into(), false));
    assert!(cells(&fleet.operate(&["task", "list"])).iter().any(|row| row.contains("| paused |")));
    fleet.operate(&["task", "resume", &held.to_string()]);
    watch(&fleet, held);
    assert!(first.path("held.bin").exists() && second.path("held.bin").exists());

    // A device that is refused is told nothing, until it is accepted again.
    fleet.operate(&["device", "refuse", "bench-2"]);
    wait_for("refusal", || !status(&second)["error"].is_null());
    let error = status(&second)["error"].as_str().expect("text").to_owned();
    assert!(error.contains("40"), "{error}");
    let list = || cells(&fleet.operate(&["device", "list"]));
    assert!(list()[2].starts_with("bench-2 | refused |"), "{:?}", list());
    watch(&fleet, add("without.bin", "bench-1"));

    // One that is forgotten is not there any more, and what others have stays.
    fleet.operate(&["device", "forget", "bench-2"]);
    assert_eq!(list().len(), 2, "{:?}", list());
    let end = fleet.command(&["device", "show", "bench-2"]).spawn().expect(1, SOON);
    assert!(end.stderr.starts_with("error: the server refused: "), "{end:?}");
    assert_eq!(state(held), "finished");
    assert!(!second.path("without.bin").exists());
}

/// The receiver of web hooks that the documents print, in Python, which checks signatures by itself.
#[test]
fn a_program_hears_what_happens_by_a_web_hook() {
    let _cores = beside_others();
    if !has_program("python3") {
        return skip("python3 is missing");
    }
    let Some((fleet, _server)) = Fleet::start() else { return };
    let device = fleet.device("bench-1");
    let _agent = device.run(&[]);
    let (good, bad) = (port(), port());
    let url = format!("http://127.0.0.1:{good}/");
    let secret = fleet.operate(&["hook", "add", &url]).lines.concat();
    let other = fleet.operate(&["hook", "add", &format!("http://127.0.0.1:{bad}/"), "--event", "task.over"]);
    // Nobody is there yet.
    wait_for("failure", || {
        cells(&fleet.operate(&["hook", "list"])).iter().any(|row| row.contains("failed: "))
    });
    let document = include_str!("../docs/operating.md").split("```python\n").nth(1).expect("a program");
    let program = document.split("```").next().expect("its end");
    let receiver = |secret: &str, port: u16| {
        let file = fleet.tmp.join(format!("receiver-{port}.py"));
        fs::write(&file, program.replace("8080", &port.to_string())).expect("written");
        Cmd::new("receiver", "python3").arg(file.as_os_str()).env("HOOK_SECRET", secret).spawn()
    };
    let mut hears = receiver(&secret, good);
    // This one has another's secret, so it believes nothing.
    let _deaf = receiver(&secret, bad);
    assert_ne!(secret, other.lines.concat());
    let file = fleet.tmp.file("image.iso", 50_000, 1);
    let task = id(&fleet.operate(&["task", "add", "copy", text(&file), "--to", "all", "--at", "/srv/"]));
    watch(&fleet, task);
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "task.over") {
        let line = hears.next_line(SOON);
        let (event, body) = line.split_once(' ').expect("an event");
        assert!(event.starts_with("evt_"), "{line}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        heard.push(body["type"].as_str().expect("a type").to_owned());
    }
    assert_eq!(heard, ["hook.added", "task.added", "device.finished", "task.over"]);
    let rows = || cells(&fleet.operate(&["hook", "list"]));
    wait_for("answer", || rows()[2].contains("it answers 401 Unauthorized"));
    let rows = rows();
    assert_eq!(rows[0], "id | url | events | since | waiting | missed | state");
    assert_eq!(rows[1], format!("1 | {url} | all | TIME ago | 0 | 0 | ok"));
    assert!(rows[2].contains("| task.over | TIME ago | ") && rows[2].contains("; again in TIME"), "{rows:?}");
    fleet.operate(&["hook", "remove", "2"]);
    assert_eq!(cells(&fleet.operate(&["hook", "list"])).len(), 2);
    let end = fleet.command(&["hook", "remove", "2"]).spawn().expect(1, SOON);
    assert!(end.stderr.contains("there is no web hook 2; 'mcp hook list' shows them"), "{end:?}");
    let end = fleet.command(&["hook", "add", &url, "--event", "x"]).spawn().expect(2, SOON);
    assert!(end.stderr.contains("expected one of task.added, "), "{end:?}");
    let trail = fleet.operate(&["operator", "audit", "--json"]).lines.concat();
    assert!(trail.contains("add web hook") && !trail.contains(&secret), "{trail}");
}

/// The machine of an operator, with nothing of the server's but `address.json`.
struct Desk {
    dir: PathBuf,
}

impl Desk {
    fn new(fleet: &Fleet) -> Self {
        let dir = fleet.tmp.dir("desk");
        fs::copy(fleet.tmp.join("server/serve/address.json"), dir.join("address.json")).expect("copy");
        Self { dir }
    }

    /// A command there, as the operator whose key is in `ann.key`.
    fn command(&self, words: &[&str]) -> Cmd {
        let cmd = Cmd::new("desk", MCP).args(words).env("MCP_STATE_DIR", self.dir.join("state"));
        cmd.arg("--server").arg(self.dir.join("address.json")).arg("--operator-key").arg(self.path("ann.key"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

#[test]
fn operators_come_and_go_and_sign_without_a_network() {
    let _cores = beside_others();
    let Some((fleet, _server)) = Fleet::start() else { return };
    let device = fleet.device("bench-1");
    let _agent = device.run(&[]);
    checked_in(&device);
    let desk = Desk::new(&fleet);
    let key = desk.path("ann.key");
    let public = fleet.operate(&["operator", "key", text(&key)]).lines.concat();
    // Made once: the same file has the same key.
    assert_eq!(fleet.operate(&["operator", "key", text(&key)]).lines, [public.as_str()]);
    let file = fleet.tmp.file("image.iso", 70_000, 1);
    let add = |name: &str| {
        desk.command(&["task", "add", "copy", text(&file), "--to", "all", "--at", "/srv/", "--name", name])
    };
    let end = add("early").spawn().expect(1, SOON);
    assert!(end.stderr.contains("the server refused"), "{end:?}");

    // One who may read sees, and changes nothing.
    fleet.operate(&["operator", "add", "ann", &public, "--role", "read"]);
    desk.command(&["task", "list"]).spawn().expect(0, SOON);
    let end = add("early").spawn().expect(1, SOON);
    assert!(end.stderr.contains("the server refused"), "{end:?}");

    // With the right to, and a root that says so, a task reaches an agent that has been running all the time.
    fleet.operate(&["operator", "add", "ann", &public]);
    let operators = cells(&fleet.operate(&["operator", "list"]));
    let row = format!("ann | operate | TIME ago | {}", mask(&public));
    assert!(operators.contains(&row), "{operators:?}");
    let end = add("online").arg("--wait=60s").spawn().expect(0, SOON);
    assert!(end.lines.contains(&format!("bench-1: finished {DONE}")), "{end:?}");
    assert_eq!(b3(&device.path("image.iso")), b3(&file));
    assert_eq!(status(&device)["root"], 2);

    // Signed where there is no network at all, and carried to the server by hand.
    let address: Value =
        serde_json::from_slice(&fs::read(desk.path("address.json")).expect("read")).expect("JSON");
    let fleet_id = address["fleet"].as_str().expect("the fleet");
    let price_list = fleet.tmp.file("prices.csv", 3_000, 2);
    let sign = |name: &str| {
        let signed = desk.path(name);
        let words =
            ["task", "sign", "copy", text(&price_list), "--to", "all", "--at", "/srv/", "--name", name];
        let cmd = Cmd::new("sign", MCP).args(words).args(["--fleet", fleet_id, "--key", text(&key), "-o"]);
        cmd.arg(&signed).through(["unshare", "--net"]).spawn().expect(0, SOON);
        signed
    };
    let give = |signed: &Path| {
        let words = ["task", "add", "copy", text(&price_list), "--signed", text(signed), "--wait=60s"];
        fleet.command(&words)
    };
    let later = sign("later.task");
    give(&sign("prices.task")).spawn().expect(0, SOON);
    assert_eq!(b3(&device.path("prices.csv")), b3(&price_list));
    let tasks = cells(&fleet.operate(&["task", "list"]));
    assert!(
        tasks.iter().any(|row| row.contains("| prices.task | copy | running | 1 of 1 done |")),
        "{tasks:?}"
    );

    // What is not the operator's to sign any more is taken by nobody.
    fleet.operate(&["operator", "remove", "ann"]);
    assert_eq!(cells(&fleet.operate(&["operator", "list"])).len(), 2);
    for mut refused in [add("gone").spawn(), give(&later).spawn()] {
        let end = refused.expect(1, SOON);
        assert!(end.stderr.contains("the server refused"), "{end:?}");
    }
    // The first operator's tasks are, as before.
    let last = ["task", "add", "copy", text(&file), "--to", "all", "--at", "/srv/last/", "--wait=60s"];
    fleet.operate(&last);
    assert_eq!(b3(&device.path("last/image.iso")), b3(&file));
}

#[test]
fn a_server_has_a_certificate_of_ones_own_and_says_loudly_where_it_has_none() {
    let _cores = beside_others();
    let Some((fleet, mut server)) = Fleet::start() else { return };
    // Any key and certificate will do, such as those that another server has made.
    server.signal("TERM");
    server.expect(0, SOON);
    let own = fleet.tmp.dir("own");
    for name in ["tls.crt", "tls.key"] {
        fs::copy(fleet.tmp.join("server/serve").join(name), own.join(name)).expect("copy");
    }
    let pin = |fleet: &Fleet| {
        let address = fs::read(fleet.tmp.join("server/serve/address.json")).expect("read");
        serde_json::from_slice::<Value>(&address).expect("JSON")["pin"].clone()
    };
    let pinned = pin(&fleet);
    fs::remove_dir_all(fleet.tmp.join("server")).expect("remove");

    let plain = format!("127.0.0.1:{}", port());
    let (certificate, key) = (own.join("tls.crt"), own.join("tls.key"));
    let mut words = vec!["--tls-cert", text(&certificate), "--tls-key", text(&key)];
    words.extend(["--listen-plain", &plain, "--poll", "1h", "--interface", "lo"]);
    let (mut server, line) = serve(&fleet, &words);
    assert_eq!(pin(&fleet), pinned);
    assert!(!fleet.tmp.join("server/serve/tls.key").exists());
    let device = fleet.machine("bench-1");
    device.mcp(&["join", &line, "--id", "bench-1"]).spawn().expect(0, SOON);
    fleet.operate(&["device", "accept", "bench-1"]);
    let agent = device.run(&[]);

    // Idle, it says when it polls next, and is small.
    let idle = checked_in(&device);
    let wait = idle["next_poll"].as_u64().expect("a time") - idle["last_poll"].as_u64().expect("a time");
    assert!((2_500..4_900).contains(&wait), "{wait} s");
    let said = device.mcp(&["status"]).spawn().expect(0, SOON).lines;
    assert!(said[3].starts_with("next poll  20") && said[3] > said[2].replace("last", "next"), "{said:?}");
    // 20 MiB are its bound. 12 of them are pages of the program, of which there are more without optimization.
    let memory = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("read");
    let own = memory.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    let kib: u64 = own.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!((1..6 * 1024).contains(&kib), "{kib} KiB");

    // Clients of the device interface, of which one has a token of its own and one that of a gateway.
    let url = format!("http://{plain}");
    let accepted = fleet.operate(&["device", "accept", "shop-1", "--token"]).lines.concat();
    let (name, token) = accepted.split_once(' ').expect("a name and a token");
    assert_eq!(name, "shop-1");
    let gateway = fleet.operate(&["enrol", "new", "--gateway", "--ask"]).lines.concat();
    let (_, mut own) = client(&fleet, &url, "shop-1", token, &[]);
    let (other, _nobody) = client(&fleet, &url, "shop-2", token, &[]);
    let (_, _gateway) = client(&fleet, &url, "shop-3", &gateway, &["--gateway-token"]);
    let rows = || cells(&fleet.operate(&["device", "list"]));
    let heard = |begin: &str| rows().iter().any(|row| row.starts_with(begin) && row.contains("ago"));
    wait_for("the device with a token", || heard("shop-1 | accepted | "));
    wait_for("the device of the gateway", || heard("shop-3 | pending | "));
    wait_for("the refusal", || {
        status(&other)["error"].as_str().is_some_and(|why| why.contains("does not accept this device"))
    });
    assert_eq!(rows().len(), 4, "a token is one device's: {:?}", rows());
    // Who has joined no fleet trusts no key, and says so.
    let file = fleet.tmp.file("prices.csv", 3_000, 2);
    let task = id(&fleet.operate(&["task", "add", "copy", text(&file), "--to", "shop-*", "--at", "/srv/"]));
    own.signal("TERM");
    own.expect(0, SOON);
    let (_, _again) = client(&fleet, &url, "shop-1", token, &[]);
    wait_for("the end", || fleet.action(task, "shop-1")["state"] == "failed");
    let why = fleet.action(task, "shop-1")["message"].clone();
    assert_eq!(why, "this device has joined no fleet, so it trusts no key");

    server.signal("TERM");
    let end = server.expect(0, SOON);
    let loud = format!(
        "warning: listening on {plain} WITHOUT encryption: tokens and files can be read and changed there"
    );
    assert!(end.stderr.lines().any(|line| line == loud), "{end:?}");
}

/// An agent that has joined no fleet, and checks in with a server that it is told.
fn client(fleet: &Fleet, url: &str, name: &str, token: &str, words: &[&str]) -> (Device, Proc) {
    let machine = fleet.machine(name);
    let (file, given) = (machine.dir.join("token"), machine.path(""));
    fs::write(&file, format!("{token}\n")).expect("write");
    let common = ["--server", url, "--id", name, "--token-file", text(&file)];
    let cmd = machine.mcp(&["run"]).args(common).args(["--unsigned-copies", text(&given), "--plain"]);
    let agent = cmd.arg("--no-multicast").args(words).spawn();
    (machine, agent)
}

/// A server of the device interface that offers one file, once, and notes the requests.
fn offering_one_file(listener: &TcpListener, bytes: &[u8], tell: &Sender<String>) {
    let base = format!("http://{}/TEN/controller/v1/kiosk-1", listener.local_addr().expect("an address"));
    let sleep = json!({ "polling": { "sleep": "00:00:01" } });
    let offer = json!({ "config": sleep, "_links": { "deploymentBase": { "href": format!("{base}/deploymentBase/7") } } });
    let artifact = json!({
        "filename": "notes.txt", "size": bytes.len(), "hashes": { "sha256": sha256(bytes) },
        "_links": { "download-http": { "href": format!("{base}/notes.txt") } },
    });
    let chunk = json!({ "part": "bApp", "version": "1", "name": "notes", "artifacts": [artifact] });
    let deployment =
        json!({ "id": "7", "deployment": { "download": "forced", "update": "forced", "chunks": [chunk] } });
    let mut ended = false;
    for connection in listener.incoming() {
        let mut connection = BufReader::new(connection.expect("a connection"));
        let mut head = String::new();
        while connection.read_line(&mut head).is_ok_and(|n| n > 2) {}
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
        };
        let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
        connection.read_exact(&mut body).expect("a body");
        let (method, path) = head.split_once(' ').expect("a request");
        let path = path.split(' ').next().expect("a path");
        let said = String::from_utf8_lossy(&body).into_owned();
        let answer = match (method, path.rsplit('/').next().expect("a name")) {
            ("GET", "kiosk-1") if ended => json!({ "config": sleep }).to_string().into_bytes(),
            ("GET", "kiosk-1") => offer.to_string().into_bytes(),
            ("GET", "7") => deployment.to_string().into_bytes(),
            ("GET", "notes.txt") => bytes.to_vec(),
            _ => Vec::new(),
        };
        ended |= said.contains("\"closed\"");
        // Who listens may have gone.
        let _ = tell.send(format!("{method} {path} {} {said}", header("authorization")));
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            answer.len()
        );
        let connection = connection.get_mut();
        let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&answer));
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("write");
    let sum = Cmd::new("sum", "sha256sum").arg(file.path()).spawn().expect(0, SOON).lines.concat();
    sum.split(' ').next().expect("a sum").to_owned()
}

#[test]
fn an_agent_works_with_a_server_that_it_is_told() {
    let _cores = beside_others();
    let Some(fleet) = Fleet::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (tell, told) = channel();
    thread::spawn(move || offering_one_file(&listener, b"opening hours", &tell));
    let words = ["--tenant", "TEN", "--gateway-token"];
    let (kiosk, _agent) = client(&fleet, &url, "kiosk-1", "the-secret", &words);
    let until_closed = || told.recv_timeout(SOON).expect("a request");
    let mut requests = vec![until_closed()];
    while !requests.last().is_some_and(|last| last.contains("\"closed\"")) {
        requests.push(until_closed());
    }
    let secret = |request: &&String| request.contains(" GatewayToken the-secret ");
    assert!(requests.iter().filter(|request| request.contains("/controller/v1/kiosk-1")).all(|r| secret(&r)));
    let last = requests.last().expect("the last");
    let begin = "POST /TEN/controller/v1/kiosk-1/deploymentBase/7/feedback GatewayToken the-secret ";
    assert!(last.starts_with(begin) && last.contains("\"success\""), "{last}");
    assert_eq!(fs::read(kiosk.path("notes.txt")).expect("the file"), b"opening hours");
}

#[test]
fn what_is_exported_any_web_server_gives_to_agents() {
    let _cores = beside_others();
    if !has_program("python3") {
        return skip("a web server that nobody here wrote needs python3");
    }
    let Some(fleet) = Fleet::new() else { return };
    let (mirror, tree) = (format!("http://127.0.0.1:{}/tree/", port()), fleet.tmp.dir("web/tree"));
    let (_server, _) = serve(&fleet, &["--mirror", &mirror, "--no-multicast", "--poll", "1s"]);
    let device = fleet.device("bench-1");
    let file = fleet.tmp.file("image.iso", 3_000_000, 1);
    let copy = ["task", "add", "copy", text(&file), "--to", "all", "--at", "/srv/"];
    let task = id(&fleet.operate(&copy));
    assert_eq!(fleet.operate(&["mirror", "export", text(&tree)]).lines, ["1 objects"]);
    let address = mirror.trim_start_matches("http://").trim_end_matches("/tree/");
    let web = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", text(tree.parent().expect("web"))];
    let web = Cmd::new("web", "python3").arg("-u").args(web).arg(address.rsplit(':').next().expect("a port"));
    let mut web = web.spawn();
    web.next_line(SOON);
    let _agent = device.run(&[]);
    watch(&fleet, task);
    assert_eq!(b3(&device.path("image.iso")), b3(&file));
    web.signal("TERM");
    let said = web.finish(SOON).stderr;
    let asked = format!("\"GET /tree/objects/{} HTTP/1.1\" 200", b3(&file));
    assert!(said.contains(&asked), "{said}");
}

/// What a terminal shows at each moment that the program has drawn something.
fn screens(columns: u16, output: &str) -> Vec<String> {
    let term = indicatif::InMemoryTerm::new(24, columns);
    let draw = |piece: &str| {
        use indicatif::TermLike as _;
        term.write_str(piece).expect("a terminal in memory");
        term.contents()
    };
    output.split_inclusive(['\n', '\r']).map(draw).collect()
}

#[test]
fn a_task_is_followed_with_a_bar_on_a_terminal() {
    let _cores = beside_others();
    if !has_program("script") {
        return skip("a terminal needs script (util-linux)");
    }
    let Some((fleet, _server)) = Fleet::start() else { return };
    let devices = ["bench-1", "bench-2"].map(|name| fleet.device(name));
    let file = fleet.tmp.file("image.iso", 70_000, 1);
    let copy = ["task", "add", "copy", text(&file), "--to", "all", "--at", "/srv/"];
    let task = id(&fleet.operate(&copy));
    let drawn = fleet.tmp.join("drawn");
    let show = format!("stty cols 40; exec {MCP} task show {task} --watch");
    let watch = Cmd::new("watch", "script").args(["-qefc", &show, text(&drawn)]).env("TERM", "xterm");
    let mut watch = watch.env("MCP_STATE_DIR", fleet.tmp.dir("server")).spawn();
    let output = || fs::read_to_string(&drawn).unwrap_or_default();
    wait_for("bar", || output().contains("0 of 2 done"));
    let _first = devices[0].run(&[]);
    wait_for("one device", || output().contains("1 of 2 done"));
    let _second = devices[1].run(&[]);
    watch.expect(0, SOON);
    let output = output();
    let begin = output.find('\r').expect("a bar");
    let output = output[begin..].split("Script done").next().expect("output").trim_end();
    let screens = screens(40, output);
    let bars: Vec<&str> = screens.iter().filter_map(|screen| screen.lines().last()).collect();
    for wanted in ["[                         ] 0 of 2 done", "[############             ] 1 of 2 done"] {
        assert!(bars.contains(&wanted), "{bars:#?}");
    }
    // No bar is left between the lines.
    let last = screens.last().expect("a screen");
    let lines = |name: &str| format!("{name}: finished image.iso is loaded an\nd verified\n");
    let wanted = format!("{}{}task 1: 2 of 2 done", lines("bench-1"), lines("bench-2"));
    assert_eq!(*last, wanted, "{screens:#?}");
}

/// Runs an example with these options, and returns what it printed; `None`, said out loud, if it cannot run.
fn example(name: &str, words: &[&str]) -> Option<End> {
    let _cores = beside_others();
    let own = std::env::current_exe().expect("this program");
    let example = own.parent().and_then(Path::parent).expect("a directory").join("examples").join(name);
    if !example.exists() {
        skip("examples are built by 'cargo test' without --test, or by 'cargo build --examples'");
        return None;
    }
    let fleet = Fleet::new()?;
    let run = Cmd::new("example", &example).args(words).args(["--mcp", MCP]).env("TMPDIR", fleet.tmp.path());
    Some(run.spawn().expect(0, SOON * 2))
}

fn verified(end: &End) -> usize {
    end.lines.iter().filter(|line| line.starts_with("bench-") && line.ends_with("  verified")).count()
}

#[test]
fn the_example_of_a_fleet_runs() {
    let Some(end) = example("fleet", &["--devices", "2"]) else { return };
    assert_eq!(verified(&end), 2, "{end:?}");
}

#[test]
fn the_example_of_a_campaign_runs() {
    let Some(end) = example("campaign", &["--devices", "5"]) else { return };
    assert_eq!(verified(&end), 5, "{end:?}");
    let has = |text: &str| end.lines.iter().any(|line| line.contains(text));
    assert!(has("the server is killed in the middle") && has("begun 2 times"), "{end:?}");
    let last = end.lines.iter().find(|line| line.starts_with("bench-5  finished")).expect("the last device");
    assert!(!last.contains("by multicast"), "{last}");
}
