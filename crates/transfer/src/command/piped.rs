//! A command of the user that reads an object from its standard input, or writes one to its standard output.

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::GRACE;

/// How often a command that was told to end is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A running shell command, one of whose ends is a pipe to this program. It is a process group of its own, so that all of
/// a pipeline can be ended before any part of it sees the end of its input: the end of a cut stream looks like the end of
/// a whole one. Ctrl-C in a terminal does not reach it. Dropping it ends it.
#[derive(Debug)]
pub struct PipedCommand {
    /// The number of the shell and of its process group.
    group: Pid,
    child: Mutex<Ended>,
}

#[derive(Debug)]
struct Ended {
    child: Child,
    /// Once its end was taken note of.
    status: Option<i32>,
}

impl Ended {
    /// Takes note of its end, if it has ended.
    fn look(&mut self) -> Option<i32> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten().map(status_of);
        }
        self.status
    }
}

/// An exit status; negative: the number of the signal that ended the command.
fn status_of(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| -signal)).unwrap_or(i32::MIN)
}

impl PipedCommand {
    /// Starts `command` with `/bin/sh -c` to read an object. Returns it, and the pipe that it reads. It gets the object's
    /// name and size, if they are known, as `MCP_NAME` and `MCP_SIZE`, and nothing from the network becomes a part of the
    /// command.
    ///
    /// # Errors
    /// If the system refuses a process or a pipe.
    pub fn reader(command: &OsStr, name: Option<&str>, size: Option<u64>) -> io::Result<(Self, OwnedFd)> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).env_remove("MCP_NAME").env_remove("MCP_SIZE");
        if let Some(name) = name {
            shell.env("MCP_NAME", name);
        }
        if let Some(size) = size {
            shell.env("MCP_SIZE", size.to_string());
        }
        Self::start(shell.stdin(Stdio::piped()), |child| Some(child.stdin.take()?.into()))
    }

    /// Starts `command` with `/bin/sh -c` to write an object, with this standard input. Returns it, and the pipe that it
    /// writes.
    ///
    /// # Errors
    /// If the system refuses a process or a pipe.
    pub(super) fn writer(command: &OsStr, input: Stdio) -> io::Result<(Self, OwnedFd)> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).stdin(input).stdout(Stdio::piped());
        Self::start(&mut shell, |child| Some(child.stdout.take()?.into()))
    }

    fn start(
        shell: &mut Command,
        pipe: impl FnOnce(&mut Child) -> Option<OwnedFd>,
    ) -> io::Result<(Self, OwnedFd)> {
        let mut child = shell.process_group(0).spawn()?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (Some(group), Some(pipe)) = (group, pipe(&mut child)) else {
            return Err(io::Error::other("it has no number or no pipe"));
        };
        let child = Mutex::new(Ended { child, status: None });
        Ok((Self { group, child }, pipe))
    }

    fn lock(&self) -> MutexGuard<'_, Ended> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its end. Returns its exit status; a negative one is the number of the signal that ended it. Another
    /// thread may end it meanwhile.
    #[must_use]
    pub fn wait(&self) -> i32 {
        loop {
            if let Some(status) = self.lock().look() {
                return status;
            }
            // It is not reaped here, so that its number stays its own.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let _ = retry_on_intr(|| waitid(WaitId::Pid(self.group), options));
        }
    }

    /// Its exit status, if it ends within this time.
    #[must_use]
    pub fn ends_within(&self, time: Duration) -> Option<i32> {
        let until = Instant::now() + time;
        loop {
            let status = self.lock().look();
            if status.is_some() || Instant::now() >= until {
                return status;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends all of it: with SIGTERM, and after [`GRACE`] with SIGKILL. Returns once it has ended.
    pub fn stop(&self) {
        for (signal, patience) in [(Signal::TERM, GRACE), (Signal::KILL, GRACE)] {
            if self.has_ended() {
                return;
            }
            let _ = kill_process_group(self.group, signal);
            let until = Instant::now() + patience;
            while Instant::now() < until && !self.has_ended() {
                std::thread::sleep(LOOK);
            }
        }
    }

    /// Ends all of it, unless it has ended by itself. What it has left in the background is its business then.
    pub fn end(&self) {
        if self.lock().look().is_none() {
            self.stop();
        }
    }

    /// Whether no process of its group is left.
    fn has_ended(&self) -> bool {
        self.lock().look().is_some() && test_kill_process_group(self.group) == Err(Errno::SRCH)
    }
}

impl Drop for PipedCommand {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::write;

    fn start(command: &str) -> (PipedCommand, OwnedFd) {
        PipedCommand::reader(OsStr::new(command), Some("a b"), Some(7)).unwrap()
    }

    #[test]
    fn it_reads_what_is_written_and_says_how_it_ended() {
        for (command, status) in [
            ("test \"$(cat)$MCP_NAME$MCP_SIZE\" = 'hello a b7'", 0),
            ("cat >/dev/null; exit 3", 3),
            ("cat >/dev/null; kill -9 $$", -9),
        ] {
            let (piped, stdin) = start(command);
            write(&stdin, b"hello ").unwrap();
            assert_eq!(piped.ends_within(Duration::from_millis(20)), None, "{command}");
            drop(stdin);
            assert_eq!(piped.wait(), status, "{command}");
        }
    }

    #[test]
    fn all_of_a_pipeline_is_ended_before_it_sees_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, begun) = (dir.path().join("whole"), dir.path().join("begun"));
        // The last command would say that it has read everything.
        let command = format!("cat | (echo >{}; cat >/dev/null; echo >{})", begun.display(), whole.display());
        let (piped, stdin) = start(&command);
        while !begun.exists() {
            std::thread::sleep(LOOK);
        }
        piped.stop();
        drop(stdin);
        assert_eq!(piped.wait(), -15);
        std::thread::sleep(Duration::from_millis(100));
        assert!(!whole.exists());
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let begun = dir.path().join("begun");
        let (piped, stdin) =
            start(&format!("trap '' TERM; : >{}; while :; do sleep 1; done", begun.display()));
        while !begun.exists() {
            std::thread::sleep(LOOK);
        }
        let began = Instant::now();
        piped.stop();
        assert!(began.elapsed() >= GRACE);
        assert_eq!(piped.wait(), -9);
        drop(stdin);
    }
}
