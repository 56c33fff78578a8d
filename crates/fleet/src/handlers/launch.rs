//! Starts a handler through the helper process and stays with it until nothing of it is left.

use super::cgroup::Group;
use super::manifest::{Cancel, Command, Manifest, User};
use super::message::{self, Spec, Status};
use super::output::Output;
use super::trusted::{self, Links};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How the helper process is started.
#[derive(Clone, Debug)]
pub struct Helper {
    /// The program that calls [`super::exec_main`].
    pub program: PathBuf,
    /// The words before it does.
    pub args: Vec<OsString>,
}

impl Helper {
    /// This program itself, even if its file was replaced meanwhile: `mcp agent exec-handler`.
    #[must_use]
    pub fn this() -> Self {
        Self { program: "/proc/self/exe".into(), args: vec!["agent".into(), "exec-handler".into()] }
    }
}

/// A request to end a run, made from another thread. One for each run.
#[derive(Debug)]
pub struct Canceller {
    wake: OwnedFd,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Cancelled,
    /// Past the point of no return.
    Closed,
}

impl Canceller {
    /// Makes one.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { wake, state: Mutex::new(State::Open) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the run soon, or keeps it from starting. Returns whether it does: past its point of no return a run goes on.
    pub fn cancel(&self) -> bool {
        let mut state = self.lock();
        if *state == State::Open {
            *state = State::Cancelled;
            // It cannot be full.
            let _ = write(&self.wake, &1u64.to_ne_bytes());
        }
        *state == State::Cancelled
    }

    pub(super) fn is_cancelled(&self) -> bool {
        *self.lock() == State::Cancelled
    }

    /// Passes the point of no return, unless it was cancelled before.
    pub(super) fn close(&self) -> bool {
        let mut state = self.lock();
        if *state == State::Open {
            *state = State::Closed;
        }
        *state == State::Closed
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    /// By a signal that we have not sent.
    Killed(i32),
    TimedOut,
    Cancelled,
    NotStarted(String),
}

/// A run that has ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub end: End,
    /// What it printed, fit for people.
    pub output: String,
}

/// All that a run needs.
pub(super) struct Launch<'a> {
    pub helper: &'a Helper,
    pub cgroups: Option<&'a Path>,
    pub manifest: &'a Manifest,
    pub command: &'a Command,
    pub args: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub object: Option<&'a OwnedFd>,
    /// Set if the run may be cancelled.
    pub canceller: Option<&'a Canceller>,
    /// Records that the point of no return is passed.
    pub commit: &'a mut dyn FnMut() -> Result<(), String>,
}

/// Time that processes have to vanish after SIGKILL. What hangs in the kernel does not.
const VANISH: Duration = Duration::from_secs(30);
/// Longest line about the end.
const MAX_STATUS: usize = 16 << 10;

impl Launch<'_> {
    /// Runs it to its end. Blocks the thread: if the thread ends, so does the handler.
    pub fn run(mut self) -> Ended {
        let mut output = Output::default();
        let end = self.try_run(&mut output).unwrap_or_else(End::NotStarted);
        Ended { end, output: output.printable() }
    }

    fn user(&self) -> Result<Option<User>, String> {
        let own = geteuid();
        match self.manifest.user {
            user if own.is_root() => Ok(Some(user.unwrap_or(User { uid: 0, gid: 0 }))),
            Some(user) if user.uid != own.as_raw() => {
                Err("it wants another user than the agent's; run the agent as root".into())
            }
            _ => Ok(None),
        }
    }

    fn try_run(&mut self, output: &mut Output) -> Result<End, String> {
        let failed = |e: io::Error| format!("it cannot be started ({e}); try again later");
        let errno = |e: Errno| failed(e.into());
        let exec =
            trusted::open_file(&self.command.exec, Links::Follow).map_err(|untrusted| untrusted.why)?;
        let group = self.cgroups.map(|parent| Group::make(parent, &self.manifest.limits)).transpose();
        let group =
            group.map_err(|e| format!("a control group cannot be made ({e}); delegate one to the agent"))?;
        let commit = (self.manifest.cancel == Cancel::BeforeCommit).then(UnixStream::pair).transpose();
        let (commit, commit_theirs) = commit.map_err(failed)?.unzip();
        let spec = message::write_spec(&Spec {
            parent: std::process::id(),
            name: self.manifest.name.clone(),
            args: std::mem::take(&mut self.args),
            environment: std::mem::take(&mut self.environment),
            user: self.user()?,
            sandbox: self.manifest.sandbox.clone(),
            limits: self.manifest.limits,
            has_object: self.object.is_some(),
            has_commit: commit.is_some(),
            has_cgroup: group.as_ref().is_some_and(|group| group.counts),
        });
        let spec = spec.map_err(failed)?;
        let (out, out_theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(errno)?;
        let (status, status_theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(errno)?;
        let (socket, socket_theirs) = UnixStream::pair().map_err(failed)?;
        for fd in [out.as_fd(), status.as_fd()].into_iter().chain(commit.as_ref().map(AsFd::as_fd)) {
            rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK).map_err(errno)?;
        }
        let mut helper = std::process::Command::new(&self.helper.program);
        helper.args(&self.helper.args).env_clear().stdin(Stdio::from(OwnedFd::from(socket_theirs)));
        helper.stdout(out_theirs.try_clone().map_err(failed)?).stderr(out_theirs);
        let child = helper.spawn();
        // The other ends that it holds must not stay open here.
        drop(helper);
        let mut child = child.map_err(failed)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("it has no number")?;
        let ready = group.as_ref().map_or(Ok(()), |group| group.add(child.id())).and_then(|()| {
            let fds = [spec.as_fd(), status_theirs.as_fd(), exec.as_fd()].into_iter();
            let fds = fds.chain(self.object.map(AsFd::as_fd)).chain(commit_theirs.as_ref().map(AsFd::as_fd));
            message::send(&socket, &fds.collect::<Vec<_>>())
        });
        drop((status_theirs, commit_theirs, exec));
        let mut watch = Watch {
            pid,
            group,
            out,
            status: Some(status),
            said: Vec::new(),
            commit,
            stopping: None,
            until: Instant::now() + self.command.timeout,
            killed: false,
            why: None,
        };
        if ready.is_err() {
            watch.kill();
        }
        let watched = self.watch(&mut watch, output);
        if watched.is_err() {
            watch.kill();
        }
        let waited = child.wait();
        watched.and(waited.map(drop)).and(ready).map_err(failed)?;
        Ok(watch.end())
    }

    /// Takes what the handler says until all of it has ended.
    fn watch(&mut self, watch: &mut Watch, output: &mut Output) -> io::Result<()> {
        let mut buf = vec![0; 64 << 10];
        let mut open = true;
        while open || watch.status.is_some() {
            let now = Instant::now();
            if now >= watch.until && !watch.advance(End::TimedOut, self.manifest.kill_after) {
                return Ok(());
            }
            let cancel = self.canceller.filter(|_| watch.stopping.is_none());
            let wait = watch.until.saturating_duration_since(now);
            let ready = watch.poll(open, cancel, wait)?;
            if ready.cancel && self.canceller.is_some_and(Canceller::is_cancelled) {
                watch.advance(End::Cancelled, self.manifest.kill_after);
            }
            // A bounded number of reads, so that a flood does not hide the clock.
            for _ in 0..16 {
                match read(&watch.out, &mut buf) {
                    Ok(0) => open = false,
                    Ok(n) => {
                        output.push(&buf[..n]);
                        continue;
                    }
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
                break;
            }
            watch.hear_status(&mut buf)?;
            if ready.commit {
                self.hear_commit(watch, &mut buf);
            }
        }
        Ok(())
    }

    /// The handler asks whether it may pass its point of no return. It gets an answer if it may.
    fn hear_commit(&mut self, watch: &mut Watch, buf: &mut [u8]) {
        let Some(socket) = &watch.commit else { return };
        match read(socket, &mut *buf) {
            Ok(1..) if watch.stopping.is_none() && self.canceller.is_none_or(Canceller::close) => {
                match (self.commit)() {
                    // If it does not listen any more, it has not passed it.
                    Ok(()) => {
                        let _ = write(socket, b"ok\n");
                    }
                    Err(why) => {
                        watch.why = Some(why);
                        watch.advance(End::Cancelled, self.manifest.kill_after);
                    }
                }
            }
            Ok(1..) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => watch.commit = None,
        }
    }
}

/// A handler that runs.
struct Watch {
    pid: Pid,
    group: Option<Group>,
    out: OwnedFd,
    /// Until its end.
    status: Option<OwnedFd>,
    said: Vec<u8>,
    commit: Option<UnixStream>,
    /// Why it was told to end.
    stopping: Option<End>,
    /// When the next step of ending it is due.
    until: Instant,
    killed: bool,
    /// Why it could not go on.
    why: Option<String>,
}

struct Ready {
    cancel: bool,
    commit: bool,
}

impl Watch {
    fn poll(&self, open: bool, cancel: Option<&Canceller>, wait: Duration) -> io::Result<Ready> {
        let mut fds = Vec::new();
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let cancel = cancel.map(|canceller| readable(canceller.wake.as_fd()));
        let commit = self.commit.as_ref().map(|socket| readable(socket.as_fd()));
        let (has_cancel, has_commit) = (cancel.is_some(), commit.is_some());
        fds.extend(cancel.into_iter().chain(commit));
        fds.extend(self.status.as_ref().map(|status| readable(status.as_fd())));
        if open {
            fds.push(readable(self.out.as_fd()));
        }
        let wait = wait.min(Duration::from_secs(60)) + Duration::from_millis(1);
        let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let cancel = has_cancel && ready.next() == Some(true);
        Ok(Ready { cancel, commit: has_commit && ready.next() == Some(true) })
    }

    fn hear_status(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let Some(status) = &self.status else { return Ok(()) };
        match read(status, &mut *buf) {
            Ok(0) => self.status = None,
            Ok(n) if self.said.len() < MAX_STATUS => self.said.extend_from_slice(&buf[..n]),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// The next step of ending it: SIGTERM, SIGKILL, giving up. Returns whether there is still something to wait for.
    fn advance(&mut self, why: End, patience: Duration) -> bool {
        if self.stopping.is_none() {
            self.stopping = Some(why);
            self.until = Instant::now() + patience;
            // The helper passes it on to all of the handler's processes. If it has ended, so have they.
            let _ = kill_process(self.pid, Signal::TERM);
            return true;
        }
        if !self.killed {
            self.kill();
            return true;
        }
        false
    }

    /// Ends it all at once: the helper's end is the end of its process namespace.
    fn kill(&mut self) {
        self.killed = true;
        self.until = Instant::now() + VANISH;
        let _ = kill_process(self.pid, Signal::KILL);
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    fn end(self) -> End {
        if let Some(why) = self.why {
            return End::NotStarted(why);
        }
        let status = serde_json::from_slice(&self.said).ok();
        match (self.stopping, status) {
            (_, Some(Status::NotStarted(why))) => End::NotStarted(why),
            (Some(End::TimedOut), _) => End::TimedOut,
            // It may have ended well before it heard of it.
            (Some(End::Cancelled), Some(Status::Exited(0))) => End::Exited(0),
            (Some(end), _) => end,
            (None, Some(Status::Exited(code))) => End::Exited(code),
            (None, Some(Status::Killed(signal))) => End::Killed(signal),
            // Somebody has killed the helper, and the handler with it.
            (None, None) => End::Killed(Signal::KILL.as_raw()),
        }
    }
}
