//! Handlers as they run: real processes, namespaces and limits. Needs root.

mod hostile;
mod interrupted;
mod kinds;
mod layers;
#[path = "../support/place.rs"]
mod place;
mod runs;
mod shipped;

use mcp_fleet::handlers::{Canceller, Config, Helper, Job, ObjectFile, Report, Runner, Values};
use mcp_fleet::journal::{Action, BootId, Journal, Opened, StepId};
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory with handlers, objects and a journal.
struct Lab {
    root: PathBuf,
    steps: AtomicU32,
    /// Removed with the lab.
    _dir: Option<tempfile::TempDir>,
}

impl Lab {
    /// `None` if the tests cannot run here.
    fn new() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        if uid.split_whitespace().nth(1) != Some("0") {
            assert!(std::env::var_os("MCP_TESTS_MUST_RUN").is_none(), "would be skipped: needs root");
            let _ = writeln!(std::io::stderr(), "skipped: needs root");
            return None;
        }
        let dir = place::of_root();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for sub in ["handlers.d", "bin", "out", "objects", "journal"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        fs::set_permissions(dir.path().join("out"), Permissions::from_mode(0o777)).unwrap();
        Some(Self { root: dir.path().to_owned(), steps: AtomicU32::new(0), _dir: Some(dir) })
    }

    /// One that another process has made.
    fn at(root: PathBuf) -> Self {
        Self { root, steps: AtomicU32::new(0), _dir: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A handler without an object whose program is this shell script; `more` goes to the end of its manifest, `top`
    /// to its beginning.
    fn handler(&self, name: &str, script: &str, top: &str, more: &str) {
        let exec = self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"), 0o755);
        let interrupted = if top.contains("interrupted") { "" } else { "interrupted = \"report\"\n" };
        let object = if top.contains("object") { "" } else { "object = \"none\"\n" };
        let sandbox = if more.contains("[sandbox]") { "" } else { "[sandbox]\nwrite = [\"OUT\"]\n" };
        let timeout = if more.contains("timeout") { "" } else { "timeout = \"30s\"\n" };
        let text = format!(
            "description = \"{name}\"\nkill-after = \"1s\"\n{interrupted}{object}{top}\n[environment]\nPATH = \"/usr/bin:/bin\"\nOUT = \"OUT\"\n\
             {sandbox}[run]\nexec = \"{}\"\n{timeout}{more}\n",
            exec.display()
        );
        self.manifest(name, &text);
    }

    fn manifest(&self, name: &str, text: &str) -> PathBuf {
        let text = text.replace("\"OUT\"", &format!("{:?}", self.path("out")));
        self.write(&format!("handlers.d/{name}.toml"), &text, 0o644)
    }

    fn object(&self, name: &str, bytes: &[u8]) -> ObjectFile {
        let path = self.path(&format!("objects/{name}"));
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        ObjectFile {
            path,
            name: name.into(),
            size: bytes.len() as u64,
            blake3: *blake3::hash(bytes).as_bytes(),
        }
    }

    fn runner(&self) -> Runner {
        let helper = Helper { program: env!("CARGO_BIN_EXE_mcp-exec-handler").into(), args: Vec::new() };
        Runner::new(Config { directory: self.path("handlers.d"), helper, cgroups: None })
    }

    fn open(&self) -> (Mutex<Journal>, Vec<mcp_fleet::journal::Unfinished>) {
        let Opened { journal, unfinished, damage } =
            Journal::open(&self.path("journal"), BootId("boot".into())).unwrap();
        assert_eq!(damage, None);
        (Mutex::new(journal), unfinished)
    }

    fn next_step(&self) -> StepId {
        let part = self.steps.fetch_add(1, Ordering::Relaxed);
        StepId { task: [7; 32], attempt: 1, part, action: Action::Run }
    }

    /// Performs a new step.
    fn perform(&self, job: &Job) -> Report {
        let (journal, _) = self.open();
        self.runner().perform(&journal, self.next_step(), job, &Canceller::new().unwrap()).unwrap()
    }

    /// Runs a handler without arguments and object.
    fn run(&self, handler: &str) -> Report {
        self.perform(&job(handler))
    }

    fn out(&self, name: &str) -> String {
        fs::read_to_string(self.path("out").join(name)).unwrap_or_default()
    }
}

fn job(handler: &str) -> Job {
    Job { handler: handler.into(), arguments: Values::new(), object: None }
}

/// The processes whose command line has this word.
fn processes(word: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() && line.split(|b| *b == 0).any(|part| part == word.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// A number that no other process has on its command line.
fn marker() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}{:03}", 1_000_000 + std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn sh(command: &str, dir: &Path) {
    let status = std::process::Command::new("sh").args(["-ec", command]).current_dir(dir).status().unwrap();
    assert!(status.success(), "{command}");
}
