//! Loop devices. They need root.

use super::{has_program, is_root, skip};
use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A loop device over a file. It is detached on drop, also by a panic.
pub struct Loop {
    /// Its path.
    pub device: PathBuf,
    /// What the device holds.
    pub file: PathBuf,
}

impl Loop {
    /// Whether this machine has loop devices. If not, the test is skipped.
    pub fn possible() -> bool {
        if !is_root() {
            skip("loop devices need root");
            return false;
        }
        if !has_program("losetup") {
            skip("no program losetup");
            return false;
        }
        match losetup(&["-f".as_ref()]) {
            Ok(_) => true,
            Err(why) => {
                skip(&format!("no loop devices: {why}"));
                false
            }
        }
    }

    /// A device over a file, with these options of `losetup`.
    #[track_caller]
    pub fn over(file: &Path, options: &[&str]) -> Self {
        let options = options.iter().map(Path::new);
        let words: Vec<&Path> = options.chain(["-f".as_ref(), "--show".as_ref(), file]).collect();
        let device = losetup(&words).unwrap_or_else(|why| panic!("losetup {words:?}: {why}"));
        Self { device: device.into(), file: file.to_owned() }
    }

    /// A device of this size over a file, which may be new. What the file does not have is zeros that take no space.
    #[track_caller]
    pub fn sized(file: &Path, size: u64) -> Self {
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(file);
        open.and_then(|file| file.set_len(size)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Self::over(file, &[])
    }

    /// The device's path.
    pub fn path(&self) -> &str {
        self.device.to_str().expect("UTF-8")
    }

    /// The device's numbers, as `MAJOR:MINOR`.
    pub fn numbers(&self) -> String {
        let device = self.device.metadata().unwrap_or_else(|e| panic!("{}: {e}", self.path())).rdev();
        format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The kernel keeps partitions of a loop device without a file.
        let _ = Command::new("delpart").arg(&self.device).arg("1").output();
        let _ = losetup(&["-d".as_ref(), &self.device]);
    }
}

fn losetup(words: &[&Path]) -> Result<String, String> {
    let output = Command::new("losetup").args(words).output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
