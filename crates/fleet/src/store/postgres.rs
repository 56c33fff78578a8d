//! A PostgreSQL of the tests' own, which ends with them.

use super::Database;
use sqlx::ConnectOptions as _;
use sqlx::any::AnyConnectOptions;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// With the URL of a server in this variable, tests make their databases there.
pub(crate) const VARIABLE: &str = "MCP_TEST_POSTGRES";

/// How long it may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

impl Database {
    /// A database for a test: a file in its directory, or one of the server that the variable names.
    pub(crate) async fn of_tests(dir: &Path) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        match std::env::var(VARIABLE) {
            Err(_) => Self::File(dir.join("fleet.db")),
            Ok(url) => {
                let name = format!("t{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
                create(&url, &name).await;
                Self::Postgres(url.replace("/postgres?", &format!("/{name}?")))
            }
        }
    }
}

async fn create(url: &str, name: &str) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnectOptions::from_str(url).expect("a URL").connect().await.expect("connected");
    sqlx::query(&format!("CREATE DATABASE {name}")).execute(&mut connection).await.expect("created");
}

/// A server on a socket in a directory of its own.
pub(crate) struct Postgres {
    dir: tempfile::TempDir,
    programs: PathBuf,
    server: Option<Child>,
}

impl Postgres {
    /// Starts one. `None`, said out loud, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let Some(programs) =
            installed.map(|entry| entry.path().join("bin")).find(|bin| bin.join("initdb").exists())
        else {
            assert!(
                std::env::var_os("MCP_TESTS_MUST_RUN").is_none(),
                "would be skipped: there is no PostgreSQL"
            );
            eprintln!("skipped: there is no PostgreSQL; install the package postgresql");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        let mut postgres = Self { dir, programs, server: None };
        if rustix::process::geteuid().is_root() {
            // It refuses to run as root.
            let (uid, gid) = OTHER;
            std::os::unix::fs::chown(postgres.dir.path(), Some(uid), Some(gid)).expect("given away");
        }
        let made = postgres
            .command("initdb")
            .args(["-A", "trust", "-U", "mcp", "-E", "UTF8", "--no-sync", "-D"])
            .arg(postgres.data())
            .output();
        let made = made.expect("ran");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.go_on();
        Some(postgres)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if rustix::process::geteuid().is_root() {
            command.uid(OTHER.0).gid(OTHER.1);
        }
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// The URL of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.dir.path().to_str().expect("UTF-8").replace('/', "%2F");
        format!("postgres://mcp@localhost/{database}?host={socket}")
    }

    /// Makes a database.
    pub(crate) async fn database(&self, name: &str) -> Database {
        create(&self.url("postgres"), name).await;
        self.url(name).parse().expect("a URL")
    }

    /// Starts it, or starts it again.
    pub(crate) fn go_on(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path());
        command.args(["-c", "listen_addresses=", "-c", "max_connections=1000", "-c", "fsync=off"]);
        self.server = Some(command.stderr(Stdio::null()).spawn().expect("started"));
        let begun = Instant::now();
        while !self
            .command("pg_isready")
            .arg("-h")
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .status()
            .expect("ran")
            .success()
        {
            assert!(begun.elapsed() < PATIENCE, "it does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes the processes that serve connections stand still, or go on.
    pub(crate) fn freeze(&self, still: bool) {
        let parent = self.server.as_ref().expect("it runs").id().to_string();
        let signal = if still { "-STOP" } else { "-CONT" };
        let told = Command::new("pkill").args([signal, "-P", &parent]).status();
        assert!(told.is_ok_and(|status| status.success()), "pkill");
    }

    /// Stops it at once, as if the machine had failed.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // SIGQUIT: its children end too.
            let pid = rustix::process::Pid::from_child(&server);
            rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("told");
            server.wait().expect("ended");
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The user and group `nobody` of Debian.
const OTHER: (u32, u32) = (65534, 65534);
