//! Tasks of many devices by multicast: a server and agents in network namespaces, with losses.

mod support;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use support::files::{TempDir, b3};
use support::fleet::{Device, NOTE, id, manifest, wait_at_most, wait_for};
use support::lab::Lab;
use support::mcp::MCP;
use support::process::{Cmd, End, Proc};
use support::{beside_others, has_program, skip};

/// For what takes a moment.
const SOON: Duration = Duration::from_secs(60);

/// A server on host 0, and a device on each other one.
struct Fleet {
    lab: Lab,
    /// A segment behind host 1, which forwards no multicast. Its hosts have the numbers after those of the lab.
    far: Option<Lab>,
    tmp: TempDir,
    server: Proc,
}

impl Fleet {
    /// `None`, said out loud, where there are no namespaces.
    fn start(hosts: usize, words: &[&str]) -> Option<Self> {
        Self::start_with(hosts, 0, words)
    }

    /// The same with so many hosts in a segment that multicast does not reach.
    fn start_with(hosts: usize, far: usize, words: &[&str]) -> Option<Self> {
        if !has_program("unshare") {
            skip("agents with directories of their own need unshare");
            return None;
        }
        let lab = Lab::new(hosts)?;
        let far = if far > 0 { Some(Lab::new(far)?) } else { None };
        if let Some(far) = &far {
            lab.reach(1, far);
            let forward = Cmd::new("router", "sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
            lab.on(1, forward).spawn().expect(0, SOON);
            lab.ip(0, &format!("route add 10.78.0.0/24 via {}", lab.address(1)));
            (0..far.hosts()).for_each(|host| drop(far.ip(host, "route add default via 10.78.0.2")));
        }
        let tmp = TempDir::new();
        let server = Self::serve(&lab, &tmp, words);
        let fleet = Self { lab, far, tmp, server };
        for host in 1..fleet.hosts() {
            let line = fleet.operate(&["enrol", "new"]).lines.concat();
            fs::create_dir_all(fleet.srv(host)).expect("make a directory");
            fleet.agent(host, &["join", &line, "--id", &format!("desk-{host}")]).spawn().expect(0, SOON);
        }
        Some(fleet)
    }

    /// The number of hosts, the server's among them.
    fn hosts(&self) -> usize {
        self.lab.hosts() + self.far.as_ref().map_or(0, Lab::hosts)
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
        let dir = self.tmp.join(format!("desk-{host}"));
        let script = "mount --bind \"$0/srv\" /srv && if [ -d \"$0/handlers\" ]; then mount -t tmpfs -o mode=755 none /etc/mcp \
             && mkdir /etc/mcp/handlers.d && mount --bind \"$0/handlers\" /etc/mcp/handlers.d; fi && exec \"$@\"";
        let cmd = cmd.through(["unshare", "--mount", "sh", "-c", script, dir.to_str().expect("UTF-8")]);
        match &self.far {
            Some(far) if host >= self.lab.hosts() => far.on(host - self.lab.hosts(), cmd),
            _ => self.lab.on(host, cmd),
        }
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

    /// Waits until so many devices have checked in.
    fn until_heard(&self, devices: usize) {
        let is_heard = |device: &&Value| !device["last_seen"].is_null();
        let heard = || {
            let list = self.operate(&["device", "list", "--json"]);
            let list: Value = serde_json::from_str(&list.lines.join("\n")).expect("devices");
            list.as_array().expect("devices").iter().filter(is_heard).count()
        };
        wait_for("check-in of all", || heard() >= devices);
    }

    /// Kills the server.
    fn kill(&mut self) {
        self.server.signal("KILL");
        self.server.finish(SOON);
    }

    /// Waits until an agent says that it does this.
    fn until_phase(&self, host: usize, phase: &str) {
        wait_for(phase, || self.is_in(host, phase));
    }

    fn is_in(&self, host: usize, phase: &str) -> bool {
        let state = self.tmp.join(format!("desk-{host}")).join("state/agent/status.json");
        fs::read_to_string(state).is_ok_and(|status| status.contains(phase))
    }

    fn watch(&self, task: i64) -> Proc {
        self.command(&["task", "show", &task.to_string(), "--watch", "--json"]).spawn()
    }
}

/// What a device said last of the sessions that it took part in.
fn message(view: &Value, device: &str) -> String {
    let mut actions = view["actions"].as_array().expect("actions").iter();
    let action = actions.find(|action| action["device"] == device).expect("its action");
    action["message"].as_str().expect("a message").to_owned()
}

/// The bytes that a device says it had in its last session.
fn by_multicast(view: &Value, device: &str) -> Option<u64> {
    message(view, device).split_once(" bytes by multicast")?.0.parse().ok()
}

/// The bytes of the object that the last session has streamed.
fn streamed(view: &Value) -> u64 {
    let last = view["sessions"].as_array().and_then(|sessions| sessions.last());
    last.and_then(|session| session["streamed"].as_u64()).unwrap_or_default()
}

#[test]
fn a_copy_for_many_goes_over_the_line_once_and_one_that_was_off_loads_it_later() {
    const SIZE: u64 = 20_000_000;
    let _cores = beside_others();
    // Slow enough for machines that do other things too: a test of what is sent, not of how fast.
    let Some(fleet) = Fleet::start(6, &["--rate", "100M"]) else { return };
    let _agents: Vec<Proc> = (1..5).map(|host| fleet.run(host)).collect();
    fleet.until_heard(4);
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
    assert_eq!(view["sessions"][0]["complete"], 4, "{view:#}");
    for host in 1..5 {
        assert_eq!(b3(&fleet.srv(host).join("image.iso")), b3(&image), "desk-{host}");
        assert_eq!(by_multicast(&view, &format!("desk-{host}")), Some(SIZE), "{view:#}");
    }
    // Not once for each of them.
    println!("{:.3} bytes on the line for each byte of the file", sent as f64 / SIZE as f64);
    assert!(sent < SIZE * 3 / 2, "{sent} bytes for {SIZE}");

    // The one that was off comes after the session.
    wait_for("end of a session", || fleet.show(task)["sessions"][0]["over"] == true);
    let _last = fleet.run(5);
    watch.expect(0, SOON);
    assert_eq!(b3(&fleet.srv(5).join("image.iso")), b3(&image));
    assert_eq!(by_multicast(&fleet.show(task), "desk-5"), None);
    assert!(fleet.server.pid() > 0);
}

/// Slow enough for something to happen in the middle of a session.
const SLOW: &[&str] = &["--rate", "40M"];

#[test]
fn a_server_that_is_killed_in_the_middle_goes_on_with_the_session() {
    const SIZE: u64 = 30_000_000;
    let _cores = beside_others();
    let Some(mut fleet) = Fleet::start(5, SLOW) else { return };
    let image = fleet.tmp.file("image.iso", SIZE, 1);
    // One has the file, and is not bothered.
    fs::copy(&image, fleet.srv(4).join("image.iso")).expect("copy");
    let _agents: Vec<Proc> = (1..5).map(|host| fleet.run(host)).collect();
    fleet.until_heard(4);
    let task = fleet.copy(&image);
    wait_for("part of the session", || streamed(&fleet.show(task)) >= SIZE / 4);
    fleet.kill();
    let before = fleet.lab.tx_bytes(0);
    fleet.server = Fleet::serve(&fleet.lab, &fleet.tmp, SLOW);
    fleet.watch(task).expect(0, SOON * 3);
    let sent = fleet.lab.tx_bytes(0) - before;
    let view = fleet.show(task);
    let sessions = view["sessions"].as_array().expect("sessions");
    assert_eq!(sessions.len(), 1, "{view:#}");
    assert_eq!((&sessions[0]["runs"], &sessions[0]["expected"]), (&2.into(), &3.into()), "{view:#}");
    for host in 1..4 {
        let device = format!("desk-{host}");
        assert_eq!(b3(&fleet.srv(host).join("image.iso")), b3(&image), "{device}");
        assert!(message(&view, &device).contains(" by multicast, all"), "{view:#}");
    }
    assert_eq!(by_multicast(&view, "desk-4"), None, "{view:#}");
    // What was there already is not sent once more.
    println!("{:.3} bytes after the restart for each byte of the file", sent as f64 / SIZE as f64);
    assert!(sent < SIZE, "{sent} bytes after the restart");
}

#[test]
fn devices_that_gave_up_wait_for_a_server_that_comes_back() {
    const SIZE: u64 = 30_000_000;
    let _cores = beside_others();
    let Some(mut fleet) = Fleet::start(3, SLOW) else { return };
    let _agents: Vec<Proc> = (1..3).map(|host| fleet.run(host)).collect();
    fleet.until_heard(2);
    let image = fleet.tmp.file("image.iso", SIZE, 1);
    let task = fleet.copy(&image);
    wait_for("part of the session", || streamed(&fleet.show(task)) >= SIZE / 4);
    fleet.kill();
    (1..3).for_each(|host| fleet.until_phase(host, "waits for the server"));
    fleet.server = Fleet::serve(&fleet.lab, &fleet.tmp, SLOW);
    fleet.watch(task).expect(0, SOON * 3);
    let view = fleet.show(task);
    for host in 1..3 {
        let device = format!("desk-{host}");
        assert_eq!(b3(&fleet.srv(host).join("image.iso")), b3(&image), "{device}");
        // Its last session has brought the rest.
        assert!(message(&view, &device).contains("all that was missing"), "{view:#}");
        let rest = by_multicast(&view, &device).expect("a session");
        assert!(rest > SIZE / 4 && rest < SIZE * 7 / 8, "{view:#}");
    }
}

#[test]
fn devices_that_lack_much_after_a_session_get_another_one_and_one_that_lacks_little_loads_it() {
    const SIZE: u64 = 30_000_000;
    let _cores = beside_others();
    let Some(fleet) = Fleet::start(6, SLOW) else { return };
    let _agents: Vec<Proc> = (1..6).map(|host| fleet.run(host)).collect();
    fleet.until_heard(5);
    let image = fleet.tmp.file("image.iso", SIZE, 1);
    let task = fleet.copy(&image);
    wait_for("part of the session", || streamed(&fleet.show(task)) >= SIZE / 4);
    // Two machines lose the network, and a third one at the end.
    for host in [3, 4] {
        fleet.lab.unplug(host);
    }
    wait_for("part of the session", || streamed(&fleet.show(task)) >= SIZE * 17 / 20);
    fleet.lab.unplug(5);
    wait_for("end of a session", || fleet.show(task)["sessions"][0]["over"] == true);
    let before = fleet.lab.tx_bytes(0);
    (3..6).for_each(|host| fleet.until_phase(host, "waits for the server"));
    for host in [3, 4] {
        fleet.lab.plug(host);
    }
    let mut watch = fleet.watch(task);
    for host in [3, 4] {
        watch.until("a copy", SOON * 2, |action| {
            action["state"] == "finished" && action["device"] == format!("desk-{host}")
        });
    }
    let second = fleet.lab.tx_bytes(0) - before;
    let view = fleet.show(task);
    assert_eq!(view["sessions"].as_array().map(Vec::len), Some(2), "{view:#}");
    assert_eq!(view["sessions"][1]["complete"], 2, "{view:#}");
    for host in [3, 4] {
        assert!(message(&view, &format!("desk-{host}")).contains("all that was missing"), "{view:#}");
    }
    println!("{:.3} bytes of the second session for each byte of the file", second as f64 / SIZE as f64);
    assert!(second < SIZE, "{second}");

    // What the last one lacks is not worth a session.
    wait_for("end of a session", || fleet.show(task)["sessions"][1]["over"] == true);
    let before = fleet.lab.tx_bytes(0);
    fleet.lab.plug(5);
    watch.expect(0, SOON * 2);
    let sent = fleet.lab.tx_bytes(0) - before;
    let view = fleet.show(task);
    assert_eq!(view["sessions"].as_array().map(Vec::len), Some(2), "{view:#}");
    let lacked = SIZE - by_multicast(&view, "desk-5").expect("the first session");
    println!("{lacked} bytes were lacking, {sent} were sent");
    // Blocks of both kinds that were there in part, and what is said beside it.
    assert!(lacked < SIZE / 4 && sent < lacked * 11 / 10 + (4 << 20), "{lacked} {sent}");
    for host in 1..6 {
        assert_eq!(b3(&fleet.srv(host).join("image.iso")), b3(&image), "desk-{host}");
    }
}

/// The device of this host gives others of its segment what it has, at so many bytes a second.
fn serving(fleet: &Fleet, host: usize, rate: &str) -> Proc {
    let words = ["run", "--serve-neighbours", "0.0.0.0:7444", "--neighbour-rate", rate];
    fleet.agent(host, &words).spawn()
}

#[test]
fn where_multicast_does_not_reach_a_device_sends_to_its_segment() {
    const SIZE: u64 = 20_000_000;
    let _cores = beside_others();
    let Some(fleet) = Fleet::start_with(3, 3, &["--rate", "100M", "--neighbours"]) else { return };
    let mut agents: Vec<Proc> = [1, 2, 4, 5].map(|host| fleet.run(host)).into();
    agents.push(serving(&fleet, 3, "20M"));
    fleet.until_heard(5);
    fleet.lab.single_packets(0);
    let image = fleet.tmp.file("image.iso", SIZE, 1);
    let before = fleet.lab.tx_bytes(0);
    let task = fleet.copy(&image);
    fleet.watch(task).expect(0, SOON * 3);
    for host in 1..6 {
        assert_eq!(b3(&fleet.srv(host).join("image.iso")), b3(&image), "desk-{host}");
    }
    let view = fleet.show(task);
    let words = format!("{SIZE} bytes by multicast, all of it");
    for device in ["desk-1", "desk-2", "desk-4", "desk-5"] {
        let said = message(&view, device);
        assert!(said.contains(&words), "{device}: {said}; {view:#}");
    }
    // Once by multicast, and one copy for the other segment.
    let sent = fleet.lab.tx_bytes(0) - before;
    assert!(sent < SIZE * 225 / 100, "{sent} bytes");
    eprintln!("{:.2} bytes on the server's line for each byte of the file", sent as f64 / SIZE as f64);
}

#[test]
fn when_the_device_that_sends_to_its_segment_dies_another_one_does() {
    const SIZE: u64 = 12_000_000;
    let _cores = beside_others();
    let Some(fleet) = Fleet::start_with(2, 4, &["--rate", "100M", "--neighbours"]) else { return };
    // Slow enough to be killed in the middle.
    let mut serve = [2, 3].map(|host| serving(&fleet, host, "2M"));
    let _agents: Vec<Proc> = [1, 4, 5].map(|host| fleet.run(host)).into();
    fleet.until_heard(5);
    let image = fleet.tmp.file("image.iso", SIZE, 2);
    let task = fleet.copy(&image);
    fleet.until_phase(4, "receives image.iso by multicast");
    let there = |host: usize| fleet.srv(host).join("image.iso").exists();
    // The one that has it all sends it.
    let first = usize::from(!there(2));
    serve[first].signal("KILL");
    serve[first].finish(SOON);
    let others = [3 - first, 4, 5];
    wait_for("copies", || others.iter().all(|host| there(*host)));
    for host in others {
        assert_eq!(b3(&fleet.srv(host).join("image.iso")), b3(&image), "desk-{host}");
    }
    let view = fleet.show(task);
    for device in ["desk-4", "desk-5"] {
        let said = message(&view, device);
        assert!(said.ends_with("bytes by multicast, all that was missing"), "{device}: {said}");
    }
}

/// What a browser sees of the server's page, by `curl` on the server's host.
struct Browser<'f> {
    lab: &'f Lab,
    /// The state of the server.
    server: PathBuf,
    jar: String,
}

impl<'f> Browser<'f> {
    fn log_in(fleet: &'f Fleet) -> Self {
        let link = fleet.operate(&["operator", "link"]).lines.concat();
        let (origin, token) = link.trim().split_once("/login/").expect("a link");
        let browser = Self {
            lab: &fleet.lab,
            server: fleet.tmp.join("server"),
            jar: fleet.tmp.join("jar").display().to_string(),
        };
        let (header, form) = (format!("Origin: {origin}"), format!("token={token}"));
        let login = format!("{origin}/login");
        let end = browser.curl(&[
            "-c",
            &browser.jar,
            "-H",
            &header,
            "-H",
            "Sec-Fetch-Site: same-origin",
            "-d",
            &form,
            &login,
        ]);
        assert_eq!(end.code, Some(0), "{end:?}");
        browser
    }

    fn curl(&self, words: &[&str]) -> End {
        let common = ["--silent", "--show-error", "--fail", "--insecure", "--max-time", "10"];
        self.lab.on(0, Cmd::new("curl", "curl").args(common).args(words)).run(SOON)
    }

    /// The state of each device of a task as the page has it, by device; `None` while the server is away.
    fn states(&self, task: i64) -> Option<Vec<(String, String)>> {
        let url = format!("https://{}:7443/tasks/{task}", self.lab.address(0));
        let end = self.curl(&["-b", &self.jar, &url]);
        let page = (end.code == Some(0)).then(|| end.lines.concat())?;
        let row = |row: &str| {
            let (device, rest) = row.split_once('"')?;
            let state = rest.split_once("class=\"badge ")?.1.split_once("</span> ")?.1.split_once('<')?.0;
            Some((device.to_owned(), state.to_owned()))
        };
        let rows = page.split("<tr><th scope=\"row\"><a href=\"/devices/").skip(1).filter_map(row);
        Some(rows.collect())
    }

    /// The same as operators are told.
    fn told(&self, task: i64) -> Option<Vec<(String, String)>> {
        let words = ["task", "show", &task.to_string(), "--json"];
        let show = Cmd::new("operator", MCP).args(words).env("MCP_STATE_DIR", &self.server);
        let end = self.lab.on(0, show).run(SOON);
        let view: Value = serde_json::from_str(&end.lines.concat()).ok()?;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let actions = view["actions"].as_array()?;
        Some(actions.iter().map(|action| (word(&action["device"]), word(&action["state"]))).collect())
    }

    /// Compares both, now and then, until `over` is closed. The page may be a moment late, but must come to say what operators are told unless that
    /// changes meanwhile. Returns how often it did.
    fn compare(&self, tasks: &[i64], over: &mpsc::Receiver<()>) -> usize {
        let mut compared = 0;
        while over.recv_timeout(Duration::from_millis(200)) == Err(mpsc::RecvTimeoutError::Timeout) {
            for task in tasks {
                let Some(told) = self.told(*task) else { continue };
                let mut seen = None;
                wait_for("page that says what operators are told", || {
                    seen = self.states(*task);
                    seen.as_ref() == Some(&told) || self.told(*task).as_ref() != Some(&told)
                });
                compared += usize::from(seen == Some(told));
            }
        }
        compared
    }
}

/// One server, a segment of its own, one behind another switch, and one that its multicast does not reach. Of nine devices,
/// two are off, one is slow, and one has a full disk. The server is killed in the middle, and so is the device that sends to
/// its segment.
#[test]
fn nine_devices_complete_tasks_of_all_kinds_though_much_goes_wrong() {
    const SIZE: u64 = 20_000_000;
    const SMALL: u64 = 200_000;
    const WORDS: [&str; 3] = ["--rate", "100M", "--neighbours"];
    let _cores = beside_others();
    if !has_program("curl") {
        return skip("the page is read with curl");
    }
    let Some(mut fleet) = Fleet::start_with(6, 4, &WORDS) else { return };
    fs::create_dir_all("/etc/mcp").expect("make a directory");
    fleet.lab.second_switch(&[3, 4, 5]);
    for host in 1..10 {
        let device = Device { name: format!("desk-{host}"), dir: fleet.tmp.join(format!("desk-{host}")) };
        fs::create_dir_all(device.dir.join("handlers")).expect("make a directory");
        device.handler("note", NOTE, &manifest("note", "report", ""));
    }
    let slow_line = "8mbit";
    fleet.lab.line_rate(5, slow_line);
    fleet.lab.single_packets(0);
    fleet.lab.count_sent(0, &[("group", "224.0.0.0/4"), ("far", "10.78.0.0/24")]);
    // Hosts 2 and 9 are off.
    let mut agents: Vec<Proc> = [1, 3, 5].map(|host| fleet.run(host)).into();
    agents.push(fleet.agent(4, &["run"]).with_tmpfs(&fleet.srv(4), "size=8m").spawn());
    let mut far = [6, 7, 8].map(|host| serving(&fleet, host, "4M"));
    fleet.until_heard(7);

    let image = fleet.tmp.file("image.iso", SIZE, 1);
    let mut tasks = vec![fleet.copy(&image)];
    for (kind, seed) in [("install", 2), ("update", 3), ("batch", 4)] {
        let file = fleet.tmp.file(kind, SMALL, seed);
        let words = ["task", "add", kind, file.to_str().expect("UTF-8"), "--to", "all", "--handler", "note"];
        tasks.push(id(&fleet.operate(&[&words[..], &["--arg", &format!("word={kind}")]].concat())));
    }
    wait_for("a quarter of the stream", || streamed(&fleet.show(tasks[0])) > SIZE / 4);
    fleet.kill();
    fleet.server = Fleet::serve(&fleet.lab, &fleet.tmp, &WORDS);
    let (going_on, over) = mpsc::channel::<()>();
    let page = Browser::log_in(&fleet);
    let compared = thread::scope(|scope| {
        let going_on = going_on;
        let (page, tasks) = (&page, &tasks);
        let viewer = scope.spawn(move || page.compare(tasks, &over));
        // The one that has the image sends it to the others of its segment; it dies, and is started again.
        let there = |host: usize| fleet.srv(host).join("image.iso").exists();
        let receives = |host| fleet.is_in(host, "receives image.iso by multicast");
        wait_for("session in the far segment", || {
            [6, 7, 8].iter().filter(|host| receives(**host)).count() == 2
        });
        let first = [6, 7, 8].iter().position(|host| there(*host)).expect("who has it sends it");
        far[first].signal("KILL");
        far[first].finish(SOON);
        far[first] = serving(&fleet, 6 + first, "4M");

        let states = |task: i64| -> Vec<(String, String)> { page.told(task).expect("the server is there") };
        let count = |task: i64, state: &str| states(task).iter().filter(|(_, s)| s == state).count();
        let soon = |what: &str, so: &dyn Fn() -> bool| wait_at_most(SOON * 4, what, so);
        soon("all that can be", &|| {
            tasks.iter().all(|task| count(*task, "waiting") == 2 && count(*task, "running") == 0)
        });
        let (group, unicast) = (fleet.lab.sent(0, "group"), fleet.lab.sent(0, "far"));
        let bytes = SIZE + 3 * SMALL;
        eprintln!(
            "by multicast {:.3} bytes for each byte of the files, to the far segment {:.3}",
            group as f64 / bytes as f64,
            unicast as f64 / bytes as f64
        );
        // The slow one lacks the quarter that was sent before the server was killed, so it is sent once more.
        assert!(group < bytes * 140 / 100 && unicast < bytes * 130 / 100, "{group} {unicast}");

        agents.extend([2, 9].map(|host| fleet.run(host)));
        soon("those that were off", &|| {
            tasks.iter().all(|task| count(*task, "finished") + count(*task, "failed") == 9)
        });
        drop(going_on);
        viewer.join().expect("the page tells the truth")
    });
    eprintln!("the page was compared {compared} times");
    assert!(compared > 10, "{compared}");
    for (at, task) in tasks.iter().enumerate() {
        let view = fleet.show(*task);
        let failed = usize::from(at == 0);
        assert_eq!(view["counts"]["finished"], 9 - failed, "{view:#}");
    }
    let view = fleet.show(tasks[0]);
    let why = message(&view, "desk-4");
    assert!(why.contains("space"), "{why}");
    for host in (1..10).filter(|host| *host != 4) {
        assert_eq!(b3(&fleet.srv(host).join("image.iso")), b3(&image), "desk-{host}");
        let notes = fs::read_to_string(fleet.srv(host).join("notes")).expect("notes");
        let mut notes: Vec<&str> = notes.lines().collect();
        notes.sort_unstable();
        assert_eq!(notes, ["batch 200000", "install 200000", "update 200000"], "desk-{host}");
    }
}
