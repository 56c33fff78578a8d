//! A control group (version 2) for each run: memory and processes of the handler as a whole, and an end that nothing
//! escapes. Where the machine gives the agent none, limits are those of each process.

use super::manifest::Limits;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How the groups are called.
const PREFIX: &str = "mcp-handler-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The group of one run. Dropping it ends all its processes and removes it.
#[derive(Debug)]
pub(super) struct Group {
    dir: PathBuf,
    /// Whether it limits memory.
    pub counts: bool,
}

impl Group {
    /// Makes a group in `parent`, which is delegated to the agent.
    pub fn make(parent: &Path, limits: &Limits) -> io::Result<Self> {
        // The controllers may be there already, or belong to version 1.
        let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory +pids");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&dir)?;
        let mut group = Self { dir, counts: false };
        let memory = group.set("memory.max", &(limits.memory << 20).to_string());
        let pids = group.set("pids.max", &limits.processes.to_string());
        let _ = group.set("memory.swap.max", "0");
        let _ = group.set("memory.oom.group", "1");
        group.counts = memory.is_ok() && pids.is_ok();
        Ok(group)
    }

    fn set(&self, file: &str, text: &str) -> io::Result<()> {
        fs::OpenOptions::new()
            .write(true)
            .open(self.dir.join(file))
            .and_then(|mut f| io::Write::write_all(&mut f, text.as_bytes()))
    }

    /// Puts a process into it.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    /// Ends all its processes.
    pub fn kill(&self) {
        // Before Linux 5.14 the process namespace alone has to do.
        let _ = self.set("cgroup.kill", "1");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    let _ = fs::write(dir.join("cgroup.kill"), "1");
    for _ in 0..100 {
        match fs::remove_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(10))
            }
            _ => return,
        }
    }
}

/// What is missing in `parent` for limits of a handler as a whole: a clause for people.
pub(super) fn shortfall(parent: Option<&Path>) -> Option<String> {
    let each = "memory and processes of handlers are limited for each process alone";
    let Some(parent) = parent else {
        return Some(format!(
            "{each}: the agent has no control group; run it as a service with Delegate=yes"
        ));
    };
    let there = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    let missing = |name: &&str| !there.split_whitespace().any(|controller| controller == *name);
    let missing: Vec<_> = ["memory", "pids"].into_iter().filter(missing).collect();
    (!missing.is_empty()).then(|| {
        format!("{each}: {} lacks the controllers {}; delegate them", parent.display(), missing.join(", "))
    })
}

/// Ends and removes what an agent that was killed has left in `parent`.
pub(super) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let own = format!("{PREFIX}{}-", std::process::id());
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && !name.starts_with(&own)) {
            remove(&entry.path());
        }
    }
}

/// The group in which this process may make others: the one above its own, if its own is called `agent` (in the unit:
/// `Delegate=yes`, `DelegateSubgroup=agent`).
pub(super) fn delegated() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then_some(at)
    })?;
    let own = Path::new(mount).join(path);
    (own.file_name()? == "agent").then(|| own.parent().map(Path::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_group_cannot_limit_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let said = |parent| shortfall(parent).unwrap_or_default();
        assert!(said(None).contains("no control group"), "{}", said(None));
        for (controllers, missing) in [
            ("", Some("lacks the controllers memory, pids;")),
            ("cpuset cpu pids\n", Some("lacks the controllers memory;")),
            ("cpu memory pids\n", None),
        ] {
            fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
            let text = said(Some(dir.path()));
            assert!(
                missing.map_or(text.is_empty(), |missing| text.contains(missing)),
                "{controllers}: {text}"
            );
        }
    }
}
