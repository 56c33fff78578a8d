//! Child processes with deadlines: their output lines as they are written, their exit, their processor
//! time and memory. A child never outlives its [`Proc`].

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Lines or bytes of output that are kept for the message of a failed test.
const KEEP: usize = 32 * 1024;

/// Builds a command line. Prefixes (such as `ip netns exec`) go before the program, tail arguments
/// (positionals) after all others.
#[derive(Clone)]
pub struct Cmd {
    name: String,
    prefix: Vec<OsString>,
    program: OsString,
    args: Vec<OsString>,
    tail: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
}

impl Cmd {
    /// `name` identifies the command in messages.
    pub fn new(name: &str, program: impl Into<OsString>) -> Self {
        Self {
            name: name.into(),
            prefix: Vec::new(),
            program: program.into(),
            args: Vec::new(),
            tail: Vec::new(),
            env: Vec::new(),
            dir: None,
        }
    }
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }
    /// Replaces the program.
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }
    pub fn tail(mut self, arg: impl Into<OsString>) -> Self {
        self.tail.push(arg.into());
        self
    }
    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }
    /// Puts words before the whole command. The last call is the outermost.
    pub fn through<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        let mut prefix: Vec<OsString> = words.into_iter().map(|w| w.as_ref().to_owned()).collect();
        prefix.append(&mut self.prefix);
        self.prefix = prefix;
        self
    }
    /// Mounts a tmpfs with these options on `dir`, for this process alone. The mount ends with it. Needs
    /// root.
    pub fn with_tmpfs(self, dir: &Path, options: &str) -> Self {
        let script = format!(
            "mount -t tmpfs -o {options} none '{}' && exec \"$0\" \"$@\"",
            dir.to_str().expect("UTF-8 directory")
        );
        self.through(["unshare", "--mount", "sh", "-c", &script])
    }
    /// The whole command line, for messages.
    pub fn line(&self) -> String {
        self.words().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }
    fn words(&self) -> impl Iterator<Item = &OsString> {
        self.prefix.iter().chain([&self.program]).chain(&self.args).chain(&self.tail)
    }
    #[track_caller]
    pub fn spawn(self) -> Proc {
        let mut words = self.words();
        let mut command = Command::new(words.next().expect("a program"));
        // Never the user's own state directory or key.
        command.env("MCP_STATE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("mcp-state"));
        command.env_remove("MCP_KEY");
        command.args(words).envs(self.env.iter().cloned());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = self.line();
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|e| panic!("start {line}: {e}"));

        let (tx, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped stdout"));
        thread::spawn(move || {
            for line in stdout.split(b'\n') {
                let Ok(line) = line else { break };
                if tx.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&errors);
        let mut stderr = child.stderr.take().expect("piped stderr");
        let errors_reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                let mut kept = kept.lock().expect("stderr lock");
                kept.extend(&buffer[..n]);
                let excess = kept.len().saturating_sub(KEEP);
                kept.drain(..excess);
            }
        });
        Proc {
            name: self.name,
            line,
            child,
            lines,
            seen: Vec::new(),
            errors,
            errors_reader,
            started,
            done: None,
            memory: None,
        }
    }
    /// Runs the command to its end. [`End::lines`] has its output lines.
    #[track_caller]
    pub fn run(self, within: Duration) -> End {
        self.spawn().finish(within)
    }
}

/// The end of a process, and its cost.
#[derive(Clone, Debug)]
pub struct End {
    /// Exit code; `None` if a signal killed it.
    pub code: Option<i32>,
    pub status: ExitStatus,
    /// Time from its start until its end was noticed.
    pub elapsed: Duration,
    /// User and system time of all its threads, in seconds; 0 if it could not be read.
    pub cpu: f64,
    /// All lines of its standard output.
    pub lines: Vec<String>,
    /// The last 32 KiB of its standard error.
    pub stderr: String,
}

impl End {
    /// The output lines as JSON.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        self.lines.iter().map(|l| parse(l)).collect()
    }
}

#[track_caller]
fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("not a line of JSON ({e}): {line}"))
}

/// Peak resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Anonymous pages: the memory of the process itself.
    pub anonymous: u64,
    /// Peak of all resident pages, mapped file pages included.
    pub high_water: u64,
}

struct Watch {
    stop: Arc<AtomicBool>,
    anonymous: Arc<AtomicU64>,
    high_water: Arc<AtomicU64>,
}

/// A running child. It is killed on drop, even by a panic.
pub struct Proc {
    name: String,
    line: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    errors: Arc<Mutex<VecDeque<u8>>>,
    errors_reader: thread::JoinHandle<()>,
    started: Instant,
    done: Option<End>,
    memory: Option<Watch>,
}

impl Proc {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Waits for the next output line for which `wanted` holds, as JSON.
    #[track_caller]
    pub fn until(&mut self, what: &str, within: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line);
                    let value = parse(self.seen.last().expect("a line"));
                    if wanted(&value) {
                        return value;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no {what} within {within:?}\n{}", self.transcript())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    thread::sleep(Duration::from_millis(50));
                    panic!("ended without {what}\n{}", self.transcript())
                }
            }
        }
    }
    /// Waits for the next output line, whatever it is.
    #[track_caller]
    pub fn next_line(&mut self, within: Duration) -> String {
        self.line_or_end(within).unwrap_or_else(|| panic!("ended without output\n{}", self.transcript()))
    }
    /// The same; `None` if there will be none any more.
    #[track_caller]
    pub fn line_or_end(&mut self, within: Duration) -> Option<String> {
        match self.lines.recv_timeout(within) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no output within {within:?}\n{}", self.transcript()),
        }
    }
    /// Whether such a line has arrived. Reads the present lines and does not wait.
    #[track_caller]
    pub fn has(&mut self, wanted: impl Fn(&Value) -> bool) -> bool {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push(line);
        }
        self.seen.iter().any(|l| wanted(&parse(l)))
    }
    /// Sends a signal by its name (`INT`, `KILL`, `STOP` ...).
    pub fn signal(&self, signal: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.pid())]).status();
        assert!(status.is_ok_and(|s| s.success()), "signal {signal} to {}", self.name);
    }
    /// Starts to sample the memory of the process; see [`Proc::memory`].
    pub fn watch_memory(&mut self) {
        let (stop, anonymous, high_water) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        self.memory = Some(Watch {
            stop: Arc::clone(&stop),
            anonymous: Arc::clone(&anonymous),
            high_water: Arc::clone(&high_water),
        });
        let path = format!("/proc/{}/status", self.pid());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok(status) = fs::read_to_string(&path) else { break };
                anonymous.fetch_max(kib(&status, "RssAnon:") << 10, Ordering::Relaxed);
                high_water.fetch_max(kib(&status, "VmHWM:") << 10, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
    }
    /// The peak memory since [`Proc::watch_memory`].
    pub fn memory(&self) -> Memory {
        let watch = self.memory.as_ref().expect("watch_memory was called");
        Memory {
            anonymous: watch.anonymous.load(Ordering::Relaxed),
            high_water: watch.high_water.load(Ordering::Relaxed),
        }
    }
    /// Waits for its end. Panics with its output if that takes longer than `within`.
    #[track_caller]
    pub fn finish(&mut self, within: Duration) -> End {
        self.try_finish(within)
            .unwrap_or_else(|| panic!("did not end within {within:?}\n{}", self.transcript()))
    }
    /// Waits for its end. `None` if it still runs after `within`.
    pub fn try_finish(&mut self, within: Duration) -> Option<End> {
        if let Some(end) = &self.done {
            return Some(end.clone());
        }
        let deadline = Instant::now() + within;
        let stat = format!("/proc/{}/stat", self.pid());
        let mut cpu = 0.0;
        let status = loop {
            // Before it is reaped, a dead process still has its clock of processor time, in nanoseconds;
            // the stat line has only ticks. This avoids an unsafe call of wait4.
            match fs::read_to_string(&stat).ok().as_deref().and_then(state) {
                Some('Z' | 'X') => {
                    cpu = cpu_seconds(self.pid());
                    break self.child.wait().expect("wait for child");
                }
                Some(_) => {}
                None => {
                    if let Some(status) = self.child.try_wait().expect("wait for child") {
                        break status;
                    }
                }
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        };
        let elapsed = self.started.elapsed();
        // The readers see the end of file once the pipes are drained. A grandchild could keep the pipes
        // open.
        let patience = Instant::now() + Duration::from_secs(2);
        while !self.errors_reader.is_finished() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(1));
        }
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(2)) {
            self.seen.push(line);
        }
        let end = End {
            code: status.code(),
            status,
            elapsed,
            cpu,
            lines: self.seen.clone(),
            stderr: self.stderr(),
        };
        self.done = Some(end.clone());
        Some(end)
    }
    /// Waits for its end and asserts its exit code.
    #[track_caller]
    pub fn expect(&mut self, code: i32, within: Duration) -> End {
        let end = self.finish(within);
        if end.code != Some(code) {
            panic!("should end with {code}: {}\n{}", end.status, self.transcript());
        }
        end
    }
    fn stderr(&self) -> String {
        let kept = self.errors.lock().expect("stderr lock");
        String::from_utf8_lossy(&kept.iter().copied().collect::<Vec<u8>>()).into_owned()
    }
    /// Its command line, state and output, for the message of a failed test.
    pub fn transcript(&mut self) -> String {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push(line);
        }
        let mut text = format!("--- {}: {}\n", self.name, self.line);
        let from = self.seen.len().saturating_sub(30);
        for line in &self.seen[from..] {
            let _ = writeln!(text, "out: {line}");
        }
        for line in self.stderr().lines().rev().take(30).collect::<Vec<_>>().into_iter().rev() {
            let _ = writeln!(text, "err: {line}");
        }
        text
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if let Some(watch) = &self.memory {
            watch.stop.store(true, Ordering::Relaxed);
        }
        if self.done.is_none() {
            if thread::panicking() {
                // One process often knows why another failed.
                let state = match self.child.try_wait() {
                    Ok(Some(status)) => format!("had ended: {status}"),
                    _ => "was still running".into(),
                };
                let transcript = self.transcript();
                eprintln!("beside it, {} {state}\n{transcript}", self.name);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The state from `/proc/PID/stat`. The name in it may contain blanks and brackets, so the fields are
/// counted from the last bracket.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Processor time of a process so far, in seconds; 0 if it has ended.
fn cpu_seconds(pid: u32) -> f64 {
    let clock = i32::try_from(pid).ok().and_then(|pid| clock_getcpuclockid(Pid::from_raw(pid)).ok());
    let time = clock.and_then(|clock| clock_gettime(clock).ok());
    time.map_or(0.0, |t| t.tv_sec() as f64 + t.tv_nsec() as f64 / 1e9)
}

fn kib(status: &str, key: &str) -> u64 {
    status
        .lines()
        .find_map(|l| l.strip_prefix(key))
        .and_then(|v| v.split_whitespace().next())
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}
