//! Who uses a block device: mounts, swap, devices built on it, loop devices over it, programs. An exclusive open says
//! only that somebody does, and it says nothing of loop devices, which do not hold what they are made of.

use crate::text::escape;
use rustix::fs::{major, minor};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The number of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(u32, u32);

impl Number {
    pub fn of(rdev: u64) -> Self {
        Self(major(rdev), minor(rdev))
    }

    /// The block device at a path.
    fn at(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        meta.file_type().is_block_device().then(|| Self::of(meta.rdev()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }

    /// A number that no other disk has since the machine was started, also not one that is plugged in later under the
    /// same number. None before Linux 5.15.
    pub fn sequence(self) -> Option<String> {
        let directory = self.disk().map(|(disk, _)| disk).or_else(|| self.directory())?;
        fs::read_to_string(directory.join("diskseq")).ok()
    }

    /// Its directory in sysfs.
    pub fn directory(self) -> Option<PathBuf> {
        fs::canonicalize(format!("/sys/dev/block/{}:{}", self.0, self.1)).ok()
    }

    /// The disk of which it is a partition: its directory and its name.
    pub fn disk(self) -> Option<(PathBuf, String)> {
        let own = self.directory()?;
        if !own.join("partition").exists() {
            return None;
        }
        let disk = own.parent()?.to_owned();
        let name = name_of(&disk);
        Some((disk, name))
    }
}

/// The name of a device from its directory in sysfs, as it is in `/dev`.
fn name_of(directory: &Path) -> String {
    directory.file_name().unwrap_or_default().to_string_lossy().replace('!', "/")
}

/// A device and what belongs to it: its partitions, or the disk that it is a partition of.
struct Family(Vec<(Number, String)>);

impl Family {
    fn of(device: Number) -> Self {
        let mut members = Vec::new();
        let mut add = |directory: &Path| {
            let number = fs::read_to_string(directory.join("dev")).ok().and_then(|dev| Number::parse(&dev));
            members.extend(number.map(|number| (number, name_of(directory))));
        };
        if let Some(own) = device.directory() {
            add(&own);
            let entries = fs::read_dir(&own).into_iter().flatten().flatten();
            entries.map(|e| e.path()).filter(|e| e.join("partition").exists()).for_each(|e| add(&e));
        }
        if let Some((disk, _)) = device.disk() {
            add(&disk);
        }
        Self(members)
    }

    fn name(&self, number: Number) -> Option<&str> {
        self.0.iter().find(|member| member.0 == number).map(|member| &*member.1)
    }
}

/// A use of a device, and how to end it: two clauses for people. "It" is the device.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub what: String,
    pub advice: &'static str,
}

/// What uses the device, its partitions or its disk, as far as it can be seen. A loop device alone does not keep
/// others from opening what it is made of.
pub(super) fn find(device: Number) -> Option<Use> {
    let family = Family::of(device);
    let own = device.directory().map(|directory| name_of(&directory)).unwrap_or_default();
    let subject = |name: &str| if name == own { "it".to_owned() } else { name.to_owned() };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Some((name, point)) = mounted(&mounts, &family) {
        let what = format!("{} is mounted on {}", subject(&name), escape(&point));
        return Some(Use { what, advice: "unmount it first" });
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    for area in swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        if let Some(name) = Number::at(Path::new(&unescaped(area))).and_then(|number| family.name(number)) {
            let what = format!("{} is used as swap space", subject(name));
            return Some(Use { what, advice: "turn it off with swapoff first" });
        }
    }
    for (number, name) in &family.0 {
        let holders = number.directory().and_then(|directory| fs::read_dir(directory.join("holders")).ok());
        if let Some(holder) = holders.into_iter().flatten().flatten().next() {
            let what = format!("{} is a part of {}", subject(name), holder.file_name().to_string_lossy());
            return Some(Use { what, advice: "stop that first" });
        }
    }
    over_loop(&family, &mounts)
}

/// Where a file system on the device or one of its partitions is mounted read-write.
pub(super) fn mounted_for_writing(device: Number) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let writable = |line: &&str| {
        // Both the mount and its file system have options.
        let (mount, system) = line.split_once(" - ").unwrap_or((line, ""));
        let has_rw = |options: Option<&str>| options.is_some_and(|o| o.split(',').any(|o| o == "rw"));
        has_rw(mount.split(' ').nth(5)) && has_rw(system.split(' ').nth(2))
    };
    let mounts: Vec<&str> = mounts.lines().filter(writable).collect();
    mounted(&mounts.join("\n"), &Family::of(device)).map(|(_, point)| point)
}

/// The first mount of a member of the family: its name, and the mount point.
fn mounted(mountinfo: &str, family: &Family) -> Option<(String, String)> {
    mountinfo.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let number = fields.next().and_then(Number::parse);
        // Some file systems (btrfs) show a number of their own here, and their device as the source.
        let source = || Number::at(Path::new(&unescaped(system.split(' ').nth(1)?)));
        let name = number.and_then(|number| family.name(number)).or_else(|| family.name(source()?))?;
        Some((name.to_owned(), unescaped(fields.nth(1)?)))
    })
}

/// A loop device over a member of the family.
fn over_loop(family: &Family, mounts: &str) -> Option<Use> {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let directory = entry.path();
        let Ok(backing) = fs::read_to_string(directory.join("loop/backing_file")) else { continue };
        let backing = Path::new(backing.trim_end_matches('\n'));
        if Number::at(backing).and_then(|number| family.name(number)).is_none() {
            continue;
        }
        let name = name_of(&directory);
        let number = fs::read_to_string(directory.join("dev")).ok().and_then(|dev| Number::parse(&dev));
        let above = number.and_then(|number| mounted(mounts, &Family::of(number)));
        return Some(match above {
            Some((_, point)) => Use {
                what: format!("the loop device {name} is over it, and mounted on {}", escape(&point)),
                advice: "unmount that, and detach it with losetup -d first",
            },
            None => {
                let what = format!("the loop device {name} is over it");
                Use { what, advice: "detach that with losetup -d first" }
            }
        });
    }
    None
}

/// A program that has the device open: its name and its process. Only root sees those of other users.
pub(super) fn program(device: Number) -> Option<String> {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = processes.filter(|process| {
        let name = process.file_name();
        let name = name.to_string_lossy();
        name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own
    });
    for process in others.map(|process| process.path()) {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        if files.map(|file| file.path()).any(|file| Number::at(&file) == Some(device)) {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let number = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Some(format!("{} (process {number})", escape(name.trim_end())));
        }
    }
    None
}

/// A field of mountinfo or swaps, in which some bytes are written as three octal digits.
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) => {
                out.push(byte);
                out.extend(&part.as_bytes()[3..]);
            }
            None => {
                out.push(b'\\');
                out.extend(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_the_number_of_the_device() {
        let text = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                    30 27 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n\
                    31 27 8:17 /sub /mnt/my\\040disk ro,noatime - vfat /dev/sdb1 rw,fmask=0022\n";
        let family = |number| Family(vec![(number, "x1".to_owned())]);
        let found = |number| mounted(text, &family(number));
        assert_eq!(found(Number(8, 2)), Some(("x1".into(), "/".into())));
        assert_eq!(found(Number(8, 17)), Some(("x1".into(), "/mnt/my disk".into())));
        assert_eq!((found(Number(8, 1)), found(Number(8, 16))), (None, None));
        assert_eq!(mounted("", &family(Number(8, 2))), None);
    }

    #[test]
    fn octal_escapes_are_undone_and_nothing_else() {
        for (field, want) in [
            ("/a\\040b\\011c", "/a b\tc"),
            ("/plain", "/plain"),
            ("\\134", "\\"),
            ("/odd\\9x", "/odd\\9x"),
            ("/end\\", "/end\\"),
            ("/\\04", "/\\04"),
        ] {
            assert_eq!(unescaped(field), want);
        }
        assert_eq!(Number::parse("259:3\n"), Some(Number(259, 3)));
        assert_eq!((Number::parse("8"), Number::parse("8:x")), (None, None));
    }
}
