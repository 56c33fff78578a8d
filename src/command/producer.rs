//! A command whose output is a stream (`send --pipe`).

use super::{GRACE, lock};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Interval of looks whether a command has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A running shell command. It has a process group of its own, so that all of a pipeline can be ended. Dropping it ends
/// it.
#[derive(Debug)]
pub struct Producer {
    output: ChildStdout,
    pid: Option<Pid>,
    /// `None` once it was waited for: then its number may belong to another process.
    child: Mutex<Option<Child>>,
}

impl Producer {
    /// Starts `command` with `/bin/sh -c` and this standard input. Its standard error is that of this program.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub fn start(command: &OsStr, input: Stdio) -> io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(command)
            .stdin(input)
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self { output, pid, child: Mutex::new(Some(child)) })
    }

    /// Reads some of its output. Returns 0 once it and all that it has started have closed it.
    ///
    /// # Errors
    /// If the system cannot read it.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.output, buf)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it did not succeed: one clause for people.
    pub fn finish(&self) -> Result<(), String> {
        if let Some(pid) = self.pid {
            // Until it is waited for below, its number belongs to no other process.
            let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
        }
        let child = lock(&self.child).take();
        let status = child.map(|mut child| child.wait()).transpose();
        let why = match status {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => describe(status),
            Ok(None) => "was ended".to_owned(),
            Err(e) => format!("cannot be waited for ({e})"),
        };
        Err(format!("the --pipe command {why}, so the stream is not whole; send it again"))
    }

    /// Ends it: SIGTERM to its process group, and after a grace SIGKILL. Waits until it has ended.
    pub fn stop(&self) {
        let mut child = lock(&self.child);
        let (Some(running), Some(pid)) = (child.as_mut(), self.pid) else { return };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let ended = || !matches!(retry_on_intr(|| waitid(WaitId::Pid(pid), options)), Ok(None));
        // What it has started may live on, so its group gets the signals in any case.
        let _ = kill_process_group(pid, Signal::TERM);
        let until = Instant::now() + GRACE;
        while !ended() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = running.wait();
        *child = None;
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How a command ended: a clause without its subject.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, signal) => format!("was killed by signal {}", signal.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(command: &str) -> Producer {
        Producer::start(command.as_ref(), Stdio::null()).unwrap()
    }

    fn output(producer: &Producer) -> Vec<u8> {
        let (mut all, mut buf) = (Vec::new(), [0; 100]);
        while let n @ 1.. = producer.read(&mut buf).unwrap() {
            all.extend_from_slice(&buf[..n]);
        }
        all
    }

    #[test]
    fn only_a_command_that_succeeds_has_said_all() {
        let producer = start("echo abc; cat");
        assert_eq!((output(&producer), producer.finish()), (b"abc\n".to_vec(), Ok(())));
        for (command, why) in [("echo abc; exit 3", "ended with status 3"), ("kill -9 $$", "signal 9")] {
            let producer = start(command);
            output(&producer);
            let error = producer.finish().unwrap_err();
            assert!(error.contains(why) && error.starts_with("the --pipe command"), "{error}");
        }
    }

    #[test]
    fn stopping_ends_all_of_a_pipeline() {
        let started = Instant::now();
        let producer = start("sleep 1000 | sleep 1000");
        producer.stop();
        assert!(started.elapsed() < GRACE);
        // Nobody has its output open any more.
        assert_eq!(output(&producer), b"");
        assert!(producer.finish().unwrap_err().contains("was ended"));
        let stubborn = start("trap '' TERM; echo; while :; do sleep 0.01; done");
        assert_eq!(stubborn.read(&mut [0; 10]).unwrap(), 1);
        drop(stubborn);
        assert!(started.elapsed() >= GRACE);
    }
}
