//! The helper process between the agent and a handler: `mcp agent exec-handler`, hidden, not for people.
//!
//! What has to happen between fork and exec is done here by a process of its own, which has one thread and may do what it
//! likes to itself. There are two, one after the other:
//!
//! - the **outer** one makes the namespaces and waits. It dies with the agent, and the inner one with it.
//! - the **inner** one is the first process of the new process namespace. It confines itself, starts the handler, and
//!   reports how it ended. When it ends, the kernel ends whatever the handler has left.

use super::message::{self, Spec, Status};
use super::sandbox;
use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getegid, geteuid, getppid, kill_process, kill_process_group,
    set_parent_process_death_signal, setsid, wait,
};
use signal_hook::consts::{SIGCHLD, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

/// The last word on the command line of the inner process.
const INNER: &str = "--inner";

/// Runs the helper process. Its standard input is a socket to whoever started it, where the rest comes from. To be called
/// first thing in a program's `main`, before it has a second thread.
#[must_use]
pub fn main() -> ExitCode {
    let inner = std::env::args_os().next_back().is_some_and(|word| word == INNER);
    let received = message::receive(io::stdin()).and_then(Received::new);
    let Ok(received) = received else {
        eprintln!("this command is for the agent itself; see 'mcp agent --help'");
        return ExitCode::from(2);
    };
    let status = if inner { run_inner(&received).map(Some) } else { run_outer(&received).map(|()| None) };
    if let Some(status) = status.unwrap_or_else(|why| Some(Status::NotStarted(why))) {
        // If this fails, the agent is gone.
        let _ = received.report(&status);
    }
    ExitCode::SUCCESS
}

/// What came over the socket.
struct Received {
    spec: Spec,
    spec_fd: OwnedFd,
    status: OwnedFd,
    exec: OwnedFd,
    object: Option<OwnedFd>,
    commit: Option<OwnedFd>,
}

impl Received {
    fn new(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or(io::Error::from(io::ErrorKind::UnexpectedEof));
        let (spec, spec_fd) = message::read_spec(next()?)?;
        let (status, exec) = (next()?, next()?);
        let object = spec.has_object.then(&mut next).transpose()?;
        let commit = spec.has_commit.then(&mut next).transpose()?;
        Ok(Self { spec, spec_fd, status, exec, object, commit })
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let more = self.object.iter().chain(&self.commit).map(AsFd::as_fd);
        [self.spec_fd.as_fd(), self.status.as_fd(), self.exec.as_fd()].into_iter().chain(more).collect()
    }

    fn report(&self, status: &Status) -> io::Result<()> {
        File::from(self.status.try_clone()?).write_all(&serde_json::to_vec(status)?)
    }
}

/// Turns an error into a clause.
fn because<E: Display>(what: &str) -> impl Fn(E) -> String + '_ {
    move |e| format!("{what} ({e})")
}

/// Makes the namespaces, starts the inner process and waits for its end. The inner one reports.
fn run_outer(received: &Received) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(because("cannot follow the agent"))?;
    if getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()) != Some(received.spec.parent) {
        return Err("the agent is gone".into());
    }
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWNET, !received.spec.sandbox.network);
    flags.set(CloneFlags::CLONE_NEWUSER, !uid.is_root());
    unshare(flags)
        .map_err(because("namespaces cannot be made; run the agent as root, or allow user namespaces"))?;
    if !uid.is_root() {
        // It seems to be root to itself, and is still the agent's user to everybody else.
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {} 1", uid.as_raw())),
            ("gid_map", format!("0 {} 1", gid.as_raw())),
        ] {
            let path = format!("/proc/self/{file}");
            std::fs::write(path, text).map_err(because("users cannot be mapped"))?;
        }
    }
    let mut signals = Signals::new([SIGTERM, SIGCHLD]).map_err(because("signals cannot be taken"))?;
    // `ours` stays open until we end: to the inner process its end is our end.
    let (ours, theirs) = UnixStream::pair().map_err(because("a socket cannot be made"))?;
    let child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .arg(INNER)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(because("the helper cannot be started"))?;
    message::send(&ours, &received.fds()).map_err(because("the helper does not listen"))?;
    let pid = number(&child)?;
    // If a signal does not reach it, it has ended.
    wait_for(&mut signals, pid, |signal| kill_process(pid, signal).unwrap_or_default());
    Ok(())
}

fn number(child: &Child) -> Result<Pid, String> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| "a process has no number".into())
}

/// Waits for the end of a child, reaping all others, and passes SIGTERM on.
fn wait_for(signals: &mut Signals, child: Pid, pass_on: impl Fn(Signal)) -> Option<WaitStatus> {
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == child => return Some(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return None,
            }
        }
        for signal in signals.wait() {
            if signal == SIGTERM {
                pass_on(Signal::TERM);
            }
        }
    }
}

/// Confines itself, runs the handler, and says how it ended.
fn run_inner(received: &Received) -> Result<Status, String> {
    let Spec { sandbox, limits, has_cgroup, .. } = &received.spec;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(because("cannot follow the agent"))?;
    if hung_up(io::stdin().as_fd()) {
        return Err("the agent is gone".into());
    }
    setsid().map_err(because("a session cannot be made"))?;
    let mut signals = Signals::new([SIGTERM, SIGCHLD]).map_err(because("signals cannot be taken"))?;
    let null = File::options().read(true).open("/dev/null").map_err(because("/dev/null cannot be opened"))?;
    let mut command = command(received, null)?;
    sandbox::mounts(sandbox, limits)?;
    sandbox::capabilities(sandbox)?;
    sandbox::limits(limits, !has_cgroup)?;
    let own: Vec<_> = [&received.exec].into_iter().chain(&received.object).map(AsFd::as_fd).collect();
    let truncate = sandbox::landlock(sandbox, &own)?;
    sandbox::seccomp(sandbox, truncate)?;
    let child = command.spawn().map_err(because("the executable cannot be started"))?;
    // To process 1, "the group of process 1" is everybody else.
    let pass_on = |signal| kill_process_group(Pid::INIT, signal).unwrap_or_default();
    let status = wait_for(&mut signals, number(&child)?, pass_on).ok_or("the handler got lost")?;
    let exited = status.exit_status().map(Status::Exited);
    Ok(exited.unwrap_or(Status::Killed(status.terminating_signal().unwrap_or(0))))
}

/// Whether the other end of a socket is closed.
fn hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// The handler's command. Its descriptors: 0 is `/dev/null`, 1 and 2 the captured output, and those of the executable, the
/// object and the commit socket.
fn command(received: &Received, null: File) -> Result<Command, String> {
    let spec = &received.spec;
    for fd in [&received.exec].into_iter().chain(&received.object).chain(&received.commit) {
        fcntl_setfd(fd, FdFlags::empty()).map_err(because("descriptors cannot be passed on"))?;
    }
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    // A word of the command line cannot have a NUL, so one stands for the object.
    let object = received.object.as_ref().map(path).unwrap_or_default();
    let words = |text: &String| text.replace(message::OBJECT, &object);
    let mut command = Command::new(path(&received.exec));
    command.arg0(&spec.name).args(spec.args.iter().map(words)).env_clear();
    command.envs(spec.environment.iter().map(|(name, value)| (name, words(value))));
    if let Some(commit) = &received.commit {
        command.env("MCP_COMMIT_FD", commit.as_raw_fd().to_string());
    }
    command.current_dir("/").stdin(Stdio::from(null));
    if let (Some(user), true) = (spec.user, geteuid().is_root()) {
        // This also gives up all other groups.
        command.uid(user.uid).gid(user.gid);
    }
    Ok(command)
}
