//! Free space and speed of the disk that `mcp recv` would write to, and what earlier transfers left there.

use super::{Finding, quoted};
use mcp_transfer::text::bytes;
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How much is written to measure the speed, to a file without a name.
const SAMPLE: usize = 32 << 20;
/// Free space below which nothing is measured, and which is little for an image.
const LITTLE: u64 = 1 << 30;
/// A disk below this, in bytes a second, holds a gigabit line up.
const SLOW: f64 = 120e6;
/// Most part files that are named.
const MOST_PARTS: usize = 8;

/// Looks at the directory of `output`, or at the file system that would have it.
pub fn check(output: &Path) -> Vec<Finding> {
    if fs::metadata(output).is_ok_and(|m| m.file_type().is_block_device()) {
        return vec![Finding::ok("disk", format!("{} is written in place", output.display()))];
    }
    let dir = directory(output);
    let shown = dir.display();
    let Ok(free) = rustix::fs::statvfs(&dir).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize)) else {
        return vec![
            Finding::broken("disk", format!("there is no directory {shown}"))
                .mend(format!("mkdir -p {}", quoted(&shown.to_string()))),
        ];
    };
    let mut findings = Vec::new();
    if rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK).is_err() {
        findings.push(
            Finding::broken("disk", format!("this user may not write to {shown}"))
                .mend(format!("ls -ld {}", quoted(&shown.to_string()))),
        );
    } else if free < LITTLE {
        findings.push(
            Finding::warning("disk", format!("{shown} has {} free", bytes(free)))
                .mend(format!("df -h {}", quoted(&shown.to_string()))),
        );
    } else {
        findings.push(speed(&dir, free));
    }
    findings.extend(parts(&dir));
    findings
}

/// The directory that a file or a directory at `output` would be in.
fn directory(output: &Path) -> PathBuf {
    if output.is_dir() {
        return output.to_owned();
    }
    match output.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => output.to_owned(),
    }
}

fn speed(dir: &Path, free: u64) -> Finding {
    let shown = dir.display();
    match measure(dir) {
        Ok(speed) if speed < SLOW => Finding::warning(
            "disk",
            format!(
                "{shown} has {} free, and takes {} a second: the disk holds fast lines up",
                bytes(free),
                bytes(speed as u64)
            ),
        ),
        Ok(speed) => Finding::ok(
            "disk",
            format!("{shown} has {} free, and takes {} a second", bytes(free), bytes(speed as u64)),
        ),
        Err(e) => {
            Finding::ok("disk", format!("{shown} has {} free; its speed was not measured ({e})", bytes(free)))
        }
    }
}

/// Writes a sample to a file without a name, which is gone when it is closed. Returns the bytes a second.
fn measure(dir: &Path) -> io::Result<f64> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?);
    let chunk = vec![0x5a; 1 << 20];
    let began = Instant::now();
    for _ in 0..SAMPLE / chunk.len() {
        file.write_all(&chunk)?;
    }
    file.sync_data()?;
    Ok(SAMPLE as f64 / began.elapsed().as_secs_f64().max(1e-6))
}

/// Part files of transfers that did not end.
fn parts(dir: &Path) -> Vec<Finding> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_part = |name: &str| {
        let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(".mcp-part"));
        let id = stem.and_then(|stem| stem.rsplit_once('.')).map(|(_, id)| id);
        id.is_some_and(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let parts = names.filter(|entry| entry.file_name().to_str().is_some_and(is_part)).take(MOST_PARTS);
    parts
        .map(|entry| {
            let size = entry.metadata().map_or(0, |m| m.len());
            let path = entry.path();
            Finding::warning(
                "leftover",
                format!(
                    "{} ({}) is of a transfer that did not end; the next one of the same file continues it",
                    path.display(),
                    bytes(size)
                ),
            )
            .mend(format!("rm {}", quoted(&path.to_string_lossy())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn what_is_left_over() {
        let tmp = tempfile::tempdir().unwrap();
        for name in [".a.iso.0123456789abcdef.mcp-part", ".a.iso.0123.mcp-part", "a.iso"] {
            fs::write(tmp.path().join(name), "x").unwrap();
        }
        let found = parts(tmp.path());
        assert_eq!(found.len(), 1);
        assert!(found[0].remedy.as_ref().unwrap().ends_with("/.a.iso.0123456789abcdef.mcp-part"));
        // Nothing new is there after a measurement.
        let before = fs::read_dir(tmp.path()).unwrap().count();
        check(tmp.path());
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), before);
    }

    #[test]
    fn where_it_would_be() {
        assert_eq!(directory(Path::new("new.iso")), Path::new("."));
        assert_eq!(directory(Path::new("/tmp")), Path::new("/tmp"));
        let found = check(Path::new("/nowhere/at/all/new.iso"));
        assert_eq!((found[0].check, found[0].verdict), ("disk", Verdict::Broken));
    }
}
