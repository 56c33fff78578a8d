//! Control groups that slow a process down.

use super::support::process::Cmd;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// The period of a share of a core, in microseconds.
const PERIOD: u64 = 10_000;

/// The control groups of one process, removed on drop. Version 2 has one for all controllers, version 1 one for each.
pub struct Group {
    disk: PathBuf,
    core: PathBuf,
    unified: bool,
}

impl Group {
    /// A group without limits, for the receiver with this number.
    pub fn new(number: usize) -> io::Result<Self> {
        let (root, name) = (Path::new(ROOT), format!("mcp-bench-{}-{number}", std::process::id()));
        let unified = root.join("cgroup.controllers").exists();
        let of =
            |controller: &str| if unified { root.join(&name) } else { root.join(controller).join(&name) };
        if unified {
            write(&root.join("cgroup.subtree_control"), "+io +cpu")?;
        }
        let group = Self { disk: of("blkio"), core: of("cpu"), unified };
        fs::create_dir_all(&group.disk).and_then(|()| fs::create_dir_all(&group.core))?;
        Ok(group)
    }

    /// Limits what is written to a device, given as `MAJOR:MINOR`, in bytes a second.
    pub fn limit_writes(&self, device: &str, rate: u64) -> io::Result<()> {
        if self.unified {
            write(&self.disk.join("io.max"), &format!("{device} wbps={rate}"))
        } else {
            write(&self.disk.join("blkio.throttle.write_bps_device"), &format!("{device} {rate}"))
        }
    }

    /// Limits the processor time to so many per cent of a core.
    pub fn limit_core(&self, percent: u64) -> io::Result<()> {
        let quota = PERIOD * percent / 100;
        if self.unified {
            return write(&self.core.join("cpu.max"), &format!("{quota} {PERIOD}"));
        }
        write(&self.core.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
        write(&self.core.join("cpu.cfs_quota_us"), &quota.to_string())
    }

    /// Makes a command run in the group.
    pub fn enter(&self, command: Cmd) -> Cmd {
        let (disk, core) = (self.disk.display(), self.core.display());
        let script = format!(
            "echo $$ > '{disk}/cgroup.procs' && echo $$ > '{core}/cgroup.procs' && exec \"$0\" \"$@\""
        );
        command.through(["sh", "-c", &script])
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.disk);
        let _ = fs::remove_dir(&self.core);
    }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    fs::write(file, value).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))
}
