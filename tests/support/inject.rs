//! Injects faults into a running `mcp` with `strace`, which can make any system call fail, return a wrong
//! result, or be the last call of a process. The binary is unchanged.

use super::process::Cmd;
use super::{has_program, skip};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The calls by which a receiver changes its disk, with all their variants.
const DISK: &str = "flock,fallocate,ftruncate,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,\
                    renameat,renameat2,linkat,unlinkat,mkdirat";

/// A system call of the writing thread: its name, and its number among the calls of that name, from 1 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub name: String,
    pub nth: u32,
}

impl Call {
    /// The option of `strace` for this call and this fault.
    pub fn meets(&self, fate: &str) -> String {
        format!("{}:{fate}:when={}", self.name, self.nth)
    }
}

/// Whether faults can be injected here. If not, prints the reason.
pub fn can_inject() -> bool {
    if let Some(missing) = ["strace", "taskset"].iter().find(|p| !has_program(p)) {
        skip(&format!("faults are injected by the program {missing}"));
        return false;
    }
    let mut traced = Command::new("strace");
    traced.args(["-f", "-o", "/dev/null", "true"]);
    let works = traced.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !works {
        skip("this user may not trace processes here");
    }
    works
}

impl Cmd {
    /// Runs the command with one worker thread, so that calls of one kind have a fixed order. Logs the
    /// disk calls to `log`, and injects `faults` ([`Call::meets`]).
    pub fn injected(self, log: &Path, faults: &[String]) -> Self {
        self.one_worker(log, &["-e", &format!("trace={DISK}")], faults)
    }

    /// The same for calls of any thread that name or use the file at `path`.
    pub fn injected_at(self, path: &Path, log: &Path, calls: &str, faults: &[String]) -> Self {
        let path = path.to_str().expect("UTF-8 path");
        self.one_worker(log, &["-P", path, "-e", &format!("trace={calls}")], faults)
    }

    fn one_worker(self, log: &Path, what: &[&str], faults: &[String]) -> Self {
        let mut words = vec!["taskset", "-c"];
        let cpu = first_cpu();
        let log = log.to_str().expect("UTF-8 path");
        words.extend([&cpu[..], "strace", "-f", "-qq", "-e", "signal=none", "-o", log]);
        words.extend(what);
        let faults: Vec<String> = faults.iter().map(|fault| format!("inject={fault}")).collect();
        words.extend(faults.iter().flat_map(|fault| ["-e", fault]));
        self.through(words)
    }
}

/// The first processor that this process may run on.
fn first_cpu() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let digits = |list: &str| list.trim().chars().take_while(char::is_ascii_digit).collect();
    list.map(digits).unwrap_or_else(|| "0".into())
}

/// The calls in a log, in order.
///
/// # Panics
/// If they come from more than one thread: `strace` counts each thread by itself.
pub fn calls(log: &Path) -> Vec<Call> {
    let text = fs::read_to_string(log).unwrap_or_else(|e| panic!("read {}: {e}", log.display()));
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut threads = Vec::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        threads.push(thread);
        let nth = seen.entry(name).or_default();
        *nth += 1;
        calls.push(Call { name: name.to_owned(), nth: *nth });
    }
    threads.dedup();
    assert!(threads.len() == 1, "the disk is written to by the threads {threads:?}:\n{text}");
    calls
}
