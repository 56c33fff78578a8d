//! L3: commands of the user that run on this machine: after an object is in place ([`Hook`]), while it arrives
//! ([`PipedCommand`]), or to make the stream that is sent ([`Producer`]).

mod piped;
mod producer;

pub use piped::PipedCommand;
pub use producer::Producer;

use crate::units::{Digest, SenderKey};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time that an interrupted command has to end by itself, before it gets SIGTERM.
pub const GRACE: Duration = Duration::from_secs(3);

/// A received object, as a hook is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The path of the file.
    pub path: &'a Path,
    /// The object's name: one component of a path.
    pub name: &'a str,
    /// Its BLAKE3 hash.
    pub root: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The address of its sender.
    pub sender: IpAddr,
    /// The key of its sender.
    pub key: SenderKey,
}

/// A command that runs once an object is in place.
pub trait Hook: Send + Sync {
    /// Runs it, and waits for its end. Returns its exit status; a negative one is the number of the signal that ended
    /// it.
    ///
    /// # Errors
    /// If it could not be started: one clause for people.
    fn run(&self, facts: &Facts<'_>) -> Result<i32, String>;
    /// Ends it soon, or does not begin it any more. Does not wait.
    fn interrupt(&self);
}

/// A command for the shell. It gets the facts as environment variables, and nothing from the network becomes a part of
/// the command. Its standard input is `/dev/null`. It stays in the process group of this program, so Ctrl-C in a
/// terminal reaches it too.
#[derive(Debug)]
pub struct ShellHook {
    command: OsString,
    /// Whether its standard output goes to this program's standard error.
    to_stderr: bool,
    process: Arc<Mutex<Process>>,
}

/// The process of a command.
#[derive(Debug, Default)]
struct Process {
    interrupted: bool,
    /// Its number while it runs.
    pid: Option<Pid>,
}

fn lock(process: &Mutex<Process>) -> MutexGuard<'_, Process> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ShellHook {
    /// Runs `command` with `/bin/sh -c`. With `to_stderr`, its standard output goes to this program's standard error,
    /// because its standard output has a form of its own.
    #[must_use]
    pub fn new(command: OsString, to_stderr: bool) -> Self {
        Self { command, to_stderr, process: Arc::default() }
    }

    fn stdout(&self) -> io::Result<Stdio> {
        if !self.to_stderr {
            return Ok(Stdio::inherit());
        }
        Ok(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    fn try_run(&self, facts: &Facts<'_>) -> io::Result<Option<ExitStatus>> {
        // A path that begins with a dash would be an option to most commands.
        let path = std::path::absolute(facts.path)?;
        let mut process = lock(&self.process);
        if process.interrupted {
            return Ok(None);
        }
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(&self.command)
            .env("MCP_PATH", path)
            .env("MCP_NAME", facts.name)
            .env("MCP_HASH", facts.root.to_string())
            .env("MCP_SIZE", facts.size.to_string())
            .env("MCP_SENDER", facts.sender.to_canonical().to_string())
            .env("MCP_SENDER_KEY", facts.key.line())
            .stdin(Stdio::null())
            .stdout(self.stdout()?)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        process.pid = pid;
        drop(process);
        if let Some(pid) = pid {
            // Until it is waited for, its number belongs to no other process.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            // An error is one of the wait below too.
            let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), options));
        }
        let mut process = lock(&self.process);
        process.pid = None;
        let status = child.wait();
        drop(process);
        status.map(Some)
    }
}

impl Hook for ShellHook {
    fn run(&self, facts: &Facts<'_>) -> Result<i32, String> {
        let status =
            self.try_run(facts).map_err(|e| format!("the --then command could not be started: {e}"))?;
        let signal = status.map_or(Some(Signal::INT.as_raw()), |status| status.signal());
        let code = status.and_then(|status| status.code());
        Ok(code.unwrap_or_else(|| signal.map_or(i32::MIN, |signal| -signal)))
    }

    fn interrupt(&self) {
        let mut process = lock(&self.process);
        if std::mem::replace(&mut process.interrupted, true) || process.pid.is_none() {
            return;
        }
        let process = Arc::clone(&self.process);
        std::thread::spawn(move || {
            std::thread::sleep(GRACE);
            if let Some(pid) = lock(&process).pid {
                // It may be a zombie by now, which takes no signals.
                let _ = kill_process(pid, Signal::TERM);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn facts<'a>(path: &'a Path, name: &'a str) -> Facts<'a> {
        let (root, key) = (Digest([0xab; 32]), SenderKey([7; 32]));
        Facts { path, name, root, size: 1 << 40, sender: IpAddr::from([10, 0, 0, 1]), key }
    }

    fn run(command: &str, path: &Path, name: &str) -> Result<i32, String> {
        ShellHook::new(command.into(), true).run(&facts(path, name))
    }

    #[test]
    fn it_is_told_of_the_object_in_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let (path, out) = (dir.path().join("-n $(id)\n;x"), dir.path().join("out"));
        let names = "$MCP_PATH|$MCP_NAME|$MCP_HASH|$MCP_SIZE|$MCP_SENDER|$MCP_SENDER_KEY";
        let command = format!("printf %s \"{names}\" >{}; cat; exit 7", out.display());
        assert_eq!(run(&command, &path, "-n $(id);x"), Ok(7));
        let key = SenderKey([7; 32]).line();
        let told = format!("{}|-n $(id);x|{}|1099511627776|10.0.0.1|{key}", path.display(), "ab".repeat(32));
        assert_eq!(std::fs::read_to_string(&out).unwrap(), told);
        // A path is absolute.
        assert_eq!(run("case $MCP_PATH in /*/f) ;; *) exit 1; esac", Path::new("f"), "f"), Ok(0));
    }

    #[test]
    fn every_end_has_its_status() {
        let end = |command: &str| run(command, Path::new("f"), "f");
        assert_eq!((end("true"), end("exit 255"), end("kill -9 $$")), (Ok(0), Ok(255), Ok(-9)));
        assert_eq!(end("/no/such/command 2>/dev/null"), Ok(127));
        let why = run("true", Path::new("f"), "a\0b").unwrap_err();
        assert!(why.starts_with("the --then command could not be started: "), "{why}");
    }

    #[test]
    fn an_interrupt_ends_it_after_a_while() {
        let hook = Arc::new(ShellHook::new("exec sleep 100".into(), true));
        let (started, runs) = (Instant::now(), Arc::clone(&hook));
        let thread = std::thread::spawn(move || runs.run(&facts(Path::new("f"), "f")));
        while lock(&hook.process).pid.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        hook.interrupt();
        assert_eq!(thread.join().unwrap(), Ok(-15));
        assert!(started.elapsed() >= GRACE);
        assert_eq!(hook.run(&facts(Path::new("f"), "f")), Ok(-2), "it is not begun any more");
    }
}
