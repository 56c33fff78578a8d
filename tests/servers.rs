//! Two servers with one PostgreSQL and one bucket, and agents that know them by one name, in network namespaces. Servers are
//! killed, upgraded and cut off from the database.

mod support;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use support::files::{TempDir, b3};
use support::fleet::{Device, NOTE, SOON, id, json, manifest, wait_for};
use support::lab::Lab;
use support::mcp::MCP;
use support::process::{Cmd, End, Proc};
use support::{beside_others, has_program, skip};

/// The host of the database and of operators; those of the servers follow, and then the devices.
const DATABASE: usize = 0;
const SERVERS: usize = 2;
/// The name by which devices and operators know the servers.
const NAME: &str = "fleet.test";
/// PostgreSQL refuses to run as root; this is `nobody` of Debian.
const NOBODY: [&str; 5] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];

struct Fleet {
    lab: Lab,
    tmp: TempDir,
    programs: PathBuf,
    devices: Vec<Device>,
    /// Where the servers share objects.
    bucket: String,
}

impl Fleet {
    /// A database, two servers and so many devices. `None`, said out loud, where that is not possible.
    fn start(devices: usize, words: &[&str]) -> Option<(Self, Proc, [Proc; SERVERS])> {
        let mut fleet = Self::place(devices)?;
        fs::create_dir(fleet.tmp.join("shared")).expect("make a directory");
        fleet.bucket = format!("file://{}", fleet.tmp.join("shared").display());
        fleet.populate(devices, words)
    }

    /// The network, and nothing that runs.
    fn place(devices: usize) -> Option<Self> {
        let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let programs =
            installed.map(|entry| entry.path().join("bin")).find(|bin| bin.join("initdb").exists());
        let Some(programs) = programs.filter(|_| has_program("unshare") && has_program("setpriv")) else {
            skip("several servers need PostgreSQL, unshare and setpriv");
            return None;
        };
        let lab = Lab::new(1 + SERVERS + devices)?;
        let fleet = Self { lab, tmp: TempDir::new(), programs, devices: Vec::new(), bucket: String::new() };
        let addresses = (1..=SERVERS).map(|n| format!("{} {NAME}\n", fleet.lab.address(n)));
        fs::write(fleet.tmp.join("hosts"), addresses.collect::<String>()).expect("write");
        Some(fleet)
    }

    fn populate(mut self, devices: usize, words: &[&str]) -> Option<(Self, Proc, [Proc; SERVERS])> {
        let fleet = &mut self;
        let database = fleet.database();
        let first = fleet.serve(1, words);
        for (name, from) in [("lists.key", 1), ("operator.key", 1), ("tls.key", 1), ("tls.crt", 1)] {
            let to = fleet.state(2).join("serve");
            fs::create_dir_all(&to).expect("make a directory");
            fs::copy(fleet.state(from).join("serve").join(name), to.join(name)).expect("copy a key");
        }
        let second = fleet.serve(2, words);
        for n in 0..devices {
            let line = fleet.operate(&["enrol", "new"]).lines.concat();
            let device = Device { name: format!("d{n}"), dir: fleet.tmp.dir(&format!("d{n}")) };
            for part in ["srv", "handlers"] {
                fs::create_dir_all(device.dir.join(part)).expect("make a directory");
            }
            device.handler("note", NOTE, &manifest("note", "report", ""));
            fleet
                .on(1 + SERVERS + n, device.mcp(&["join", &line, "--id", &device.name]))
                .spawn()
                .expect(0, SOON);
            fleet.devices.push(device);
        }
        Some((self, database, [first, second]))
    }

    /// A command on a host that knows the servers' name.
    fn on(&self, host: usize, cmd: Cmd) -> Cmd {
        let hosts = self.tmp.join("hosts");
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        self.lab
            .on(host, cmd.through(["unshare", "--mount", "sh", "-c", script, hosts.to_str().expect("UTF-8")]))
    }

    /// Starts the database. At the first time it is made.
    fn database(&self) -> Proc {
        let dir = self.tmp.dir("postgres");
        let data = dir.join("data");
        let program = |name: &str| Cmd::new(name, self.programs.join(name)).dir(&dir);
        let address = self.lab.address(DATABASE);
        let here = ["-h", &address, "-U", "mcp"];
        let new = !data.exists();
        if new {
            std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).expect("give away");
            let words = ["-A", "trust", "-U", "mcp", "-E", "UTF8", "--no-sync", "-D"];
            program("initdb").args(words).arg(&data).through(NOBODY).spawn().expect(0, SOON);
            let everybody = "host all all 10.77.0.0/16 trust\n";
            let rules = fs::read_to_string(data.join("pg_hba.conf")).expect("read");
            fs::write(data.join("pg_hba.conf"), rules + everybody).expect("write");
        }
        let words = ["-c", "fsync=off", "-c", &format!("listen_addresses={address}"), "-k", "", "-D"];
        let server = program("postgres").args(words).arg(&data).through(NOBODY);
        let server = self.lab.on(DATABASE, server).spawn();
        wait_for("database", || {
            let asked = self.lab.on(DATABASE, program("pg_isready").args(here)).run(SOON);
            asked.code == Some(0)
        });
        if new {
            self.lab.on(DATABASE, program("createdb").args(here).arg("fleet")).spawn().expect(0, SOON);
        }
        server
    }

    fn state(&self, server: usize) -> PathBuf {
        self.tmp.join(format!("server-{server}"))
    }

    fn serve(&self, server: usize, words: &[&str]) -> Proc {
        let store = format!("postgres://mcp@{}/fleet", self.lab.address(DATABASE));
        let cmd = Cmd::new(&format!("server {server}"), MCP).args(["serve", "--name", NAME, "--poll", "1s"]);
        let cmd = cmd.args(["--store", &store, "--objects", &self.bucket]).args(words);
        let endpoint = format!("http://{}:5000", self.lab.address(DATABASE));
        let cmd = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ]
        .into_iter()
        .fold(cmd.env("MCP_STATE_DIR", self.state(server)), |cmd, (name, value)| cmd.env(name, value));
        let mut running = self.on(server, cmd).spawn();
        // The line comes once it listens.
        running.next_line(SOON);
        running
    }

    fn command(&self, words: &[&str]) -> Cmd {
        self.on(DATABASE, Cmd::new("operator", MCP).args(words).env("MCP_STATE_DIR", self.state(1)))
    }

    #[track_caller]
    fn operate(&self, words: &[&str]) -> End {
        self.command(words).spawn().expect(0, SOON)
    }

    fn run(&self, device: usize) -> Proc {
        let Device { dir, .. } = &self.devices[device];
        let script = "mount -t tmpfs -o mode=755 none /etc/mcp && mkdir /etc/mcp/handlers.d \
             && mount --bind \"$0/srv\" /srv && mount --bind \"$0/handlers\" /etc/mcp/handlers.d && exec \"$@\"";
        fs::create_dir_all("/etc/mcp").expect("make a directory");
        let run = self.devices[device].mcp(&["run"]);
        let run = run.through(["unshare", "--mount", "sh", "-c", script, dir.to_str().expect("UTF-8")]);
        self.on(1 + SERVERS + device, run).spawn()
    }

    fn show(&self, task: i64) -> Value {
        json(&self.operate(&["task", "show", &task.to_string(), "--json"]))
    }

    /// Adds a copy of a new file for all devices. Returns the task's number, and the file.
    fn copy(&self, name: &str, size: u64, seed: u64) -> (i64, PathBuf) {
        let file = self.tmp.file(name, size, seed);
        let words = ["task", "add", "copy", file.to_str().expect("UTF-8"), "--to", "all", "--at", "/srv/"];
        (id(&self.operate(&words)), file)
    }

    /// Adds an installation that notes a word on all devices.
    fn install(&self, word: &str) -> i64 {
        let file = self.tmp.file(format!("{word}.bin"), 3000, 1);
        let words = ["task", "add", "install", file.to_str().expect("UTF-8"), "--name", "fw", "--to", "all"];
        id(&self.operate(&[&words[..], &["--handler", "note", "--arg", &format!("word={word}")]].concat()))
    }

    /// Waits until a task is done everywhere.
    #[track_caller]
    fn done(&self, task: i64) {
        wait_for("end of the task", || self.show(task)["counts"]["finished"] == self.devices.len());
    }

    /// Waits until a session has sent something of the task.
    fn streams(&self, task: i64) {
        wait_for("stream", || {
            let sessions = self.show(task)["sessions"].as_array().cloned().unwrap_or_default();
            sessions.iter().any(|session| session["streamed"].as_u64() > Some(0) || session["over"] == true)
        });
    }

    #[track_caller]
    fn has_copies(&self, file: &Path) {
        for device in &self.devices {
            let copy = device.path(file.file_name().and_then(|name| name.to_str()).expect("a name"));
            assert_eq!(b3(&copy), b3(file), "{}", device.name);
        }
    }
}

#[test]
fn whichever_server_ends_no_task_is_lost_and_none_is_done_twice() {
    let _cores = beside_others();
    // More of them show what is rare: MCP_TEST_KILLS=30.
    let kills = std::env::var("MCP_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4_usize);
    let words = ["--rate", "60M"];
    let Some((fleet, _database, servers)) = Fleet::start(3, &words) else { return };
    let mut servers = servers.map(Some);
    let _agents: Vec<Proc> = (0..fleet.devices.len()).map(|device| fleet.run(device)).collect();
    let mut expected = Vec::new();
    let (mut runs, mut sessions) = (0, 0);
    for kill in 0..kills {
        let (image, file) = fleet.copy(&format!("image-{kill}"), 20 << 20, kill as u64);
        fleet.streams(image);
        let letter = |digit: char| char::from(b'a' + (digit as u8 - b'0'));
        let word: String = kill.to_string().chars().map(letter).collect();
        let note = fleet.install(&word);
        // An upgrade ends it in order, and a failure does not.
        let (victim, signal) =
            (kill % SERVERS, if (kill / SERVERS).is_multiple_of(2) { "KILL" } else { "TERM" });
        let mut server = servers[victim].take().expect("it runs");
        server.signal(signal);
        server.finish(SOON);
        fleet.done(image);
        fleet.done(note);
        fleet.has_copies(&file);
        expected.push(format!("{word} 3000"));
        for device in &fleet.devices {
            assert_eq!(device.notes(), expected, "{}", device.name);
        }
        let view = fleet.show(image);
        for session in view["sessions"].as_array().expect("sessions") {
            sessions += 1;
            runs += session["runs"].as_u64().expect("a count");
        }
        servers[victim] = Some(fleet.serve(victim + 1, &words));
    }
    println!("{kills} servers ended; {sessions} sessions, which began {runs} times");
    assert!(runs > sessions, "no session was taken up by the other server");
}

#[test]
fn while_the_database_is_gone_a_session_goes_on_and_receipts_are_entered_afterwards() {
    let _cores = beside_others();
    let Some((fleet, mut database, _servers)) = Fleet::start(3, &["--rate", "60M"]) else { return };
    let _agents: Vec<Proc> = (0..fleet.devices.len()).map(|device| fleet.run(device)).collect();
    let (image, file) = fleet.copy("image", 30 << 20, 1);
    fleet.streams(image);
    // At once, as if its machine had failed.
    database.signal("QUIT");
    database.finish(SOON);
    wait_for("copies", || {
        fleet
            .devices
            .iter()
            .all(|device| fs::metadata(device.path("image")).is_ok_and(|m| m.len() == 30 << 20))
    });
    fleet.has_copies(&file);
    let refused = fleet.command(&["task", "list"]).run(SOON);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let _database = fleet.database();
    wait_for("database", || fleet.command(&["task", "list"]).run(SOON).code == Some(0));
    fleet.done(image);
    let view = fleet.show(image);
    assert_eq!(view["sessions"].as_array().map(Vec::len), Some(1), "{view}");
    assert_eq!(view["sessions"][0]["runs"], 1, "nobody took it for gone: {view}");
}

#[test]
fn servers_share_files_by_s3() {
    let _cores = beside_others();
    let Some(python) = std::env::var_os("MCP_S3_PYTHON").map(PathBuf::from) else {
        skip("a server of S3 needs MCP_S3_PYTHON, a Python with the packages of tests/support/s3.txt");
        return;
    };
    let Some(mut fleet) = Fleet::place(2) else { return };
    fleet.bucket = "s3://fleet/files".into();
    let address = fleet.lab.address(DATABASE);
    let run = |script: &str, words: &[&str]| {
        fleet.lab.on(DATABASE, Cmd::new("bucket", &python).args(["-c", script]).args(words)).run(SOON).code
    };
    let serve = ["-m", "moto.server", "-H", &address, "-p", "5000"];
    let s3 = || fleet.lab.on(DATABASE, Cmd::new("s3", &python).args(serve)).spawn();
    let mut server = s3();
    let put = "import sys, urllib.request as r\nr.urlopen(r.Request(sys.argv[1], method=sys.argv[2])).read()";
    let bucket = format!("http://{address}:5000/fleet");
    wait_for("bucket", || run(put, &[&bucket, "PUT"]) == Some(0));

    let Some((fleet, _database, [one, two])) = fleet.populate(2, &["--no-multicast"]) else { return };
    let mut servers = [Some(one), Some(two)];
    let _agents: Vec<Proc> = (0..fleet.devices.len()).map(|device| fleet.run(device)).collect();
    // More than a part, and less.
    for (n, size) in [20 << 20, 3000].into_iter().enumerate() {
        let (task, file) = fleet.copy(&format!("file-{n}"), size, n as u64);
        // Whichever server took it, the other one has it too.
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let hash = b3(&file);
        wait_for(&format!("{name} at both servers"), || {
            let path = |server| fleet.state(server).join("serve/objects").join(&hash[..2]).join(&hash);
            path(1).exists() && path(2).exists()
        });
        let mut gone = servers[n].take().expect("it runs");
        gone.signal("KILL");
        gone.finish(SOON);
        fleet.done(task);
        fleet.has_copies(&file);
        servers[n] = Some(fleet.serve(n + 1, &["--no-multicast"]));
    }
    // Without the bucket no file is taken: the other server could not have it.
    server.signal("KILL");
    server.finish(SOON);
    let file = fleet.tmp.file("new", 1000, 9);
    let words = ["task", "add", "copy", file.to_str().expect("UTF-8"), "--to", "all", "--at", "/srv/"];
    let refused = fleet.command(&words).run(SOON);
    assert!(refused.code != Some(0) && refused.stderr.contains("check the bucket"), "{refused:?}");
}
