//! A program under `strace` that stops after each of its calls that change a disk, so that a test can kill it after any
//! of them. The program is unchanged.

use super::fleet::wait_for;
use super::mcp::MCP;
use super::process::Proc;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often a program is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// The words that come before a traced command line: logs `calls` to `log`, and injects `faults`. With `paths`, only
/// calls that name or use one of these.
pub fn strace(log: &Path, calls: &str, paths: &[PathBuf], faults: &[String]) -> Vec<String> {
    let mut words = vec!["strace".to_owned(), "-f".into(), "-o".into(), log.display().to_string()];
    words.extend(["-e".to_owned(), format!("trace={calls}")]);
    words.extend(paths.iter().flat_map(|path| ["-P".to_owned(), path.display().to_string()]));
    words.extend(faults.iter().flat_map(|fault| ["-e".to_owned(), format!("inject={fault}")]));
    words
}

/// A traced `mcp`. It is killed on drop.
pub struct Traced {
    pub proc: Proc,
    program: Pid,
    stops: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
    guard: Option<JoinHandle<()>>,
}

impl Traced {
    /// Looks after a command that was started by way of [`strace`] with this `log`. Whenever it stops, it goes on; at the
    /// stop with the number `last`, from 1 on, it is killed.
    #[track_caller]
    pub fn new(proc: Proc, log: &Path, last: u32) -> Self {
        let mut found = None;
        wait_for("traced program", || {
            found = program(proc.pid());
            found.is_some() || !Path::new("/proc").join(proc.pid().to_string()).exists()
        });
        let program = found.expect("a traced program that has not ended");
        let (stops, over) = <(Arc<AtomicU32>, Arc<AtomicBool>)>::default();
        let guard = thread::spawn({
            let (stops, over, log) = (Arc::clone(&stops), Arc::clone(&over), log.to_owned());
            move || {
                while !over.load(Ordering::Relaxed) {
                    let seen = stops_in(&log);
                    stops.store(seen, Ordering::Relaxed);
                    if seen >= last {
                        let _ = kill_process(program, Signal::KILL);
                        return;
                    }
                    if is_stopped(program) {
                        let _ = kill_process(program, Signal::CONT);
                    }
                    thread::sleep(LOOK);
                }
            }
        });
        Self { proc, program, stops, over, guard: Some(guard) }
    }

    /// How often it has stopped.
    pub fn stops(&self) -> u32 {
        self.stops.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.proc.try_finish(Duration::ZERO).is_some()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(guard) = self.guard.take() {
            let _ = guard.join();
        }
        if !self.has_ended() {
            let _ = kill_process(self.program, Signal::KILL);
            // `strace` ends after it.
            let _ = self.proc.try_finish(super::fleet::SOON);
        }
    }
}

/// The `mcp` that `strace` with this number has started.
fn program(strace: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).ok()?;
    let mcp = fs::canonicalize(MCP).ok()?;
    let is_mcp = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == mcp);
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.into_iter().find(is_mcp).and_then(Pid::from_raw)
}

/// The calls after which the programs of a log were told to stop.
fn stops_in(log: &Path) -> u32 {
    let text = fs::read_to_string(log).unwrap_or_default();
    u32::try_from(text.matches("--- SIGSTOP {").count()).expect("few stops")
}

fn is_stopped(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, Some(Some('T' | 't')))
}
