//! The identifier of this device: derived from `--id`, kept in the state directory, or derived from the hardware.
//!
//! Where nothing can be kept (an initramfs, a read-only disk), the identifier follows from the mainboard and the network
//! interface. A running receiver holds an abstract socket of that name, so that a second one takes another slot.
//!
//! The kept one is a file `device-id` of two lines. A running receiver holds an advisory lock on
//! `device-id.lock` beside it. A second receiver on the same machine then uses `device-id.2`, and so on. The
//! lock needs a file of its own: the identifier's file is replaced by renaming, and a lock stays with the
//! file that was locked.

use super::hardware::{self, Hardware};
use mcp_transfer::keyring::{Keyring, KeyringError};
use mcp_transfer::limits::MAX_LABEL;
use mcp_transfer::storage::{make_private_dir, set_aside, write_private};
use mcp_transfer::units::DeviceId;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

/// Most receivers on one machine with kept identifiers of their own.
const MAX_SLOTS: u32 = 1024;
/// First line of the file, with the version of its format.
const HEADING: &str = "mcp-device-id 1";
/// Context of the hash of a chosen name. It must never change, or devices would change their identifiers.
const CONTEXT: &str = "mcp 2025 device identifier from a chosen name v1";

/// Context of the hash of the hardware. It must not change within a release series: a device that is restarted during a
/// transfer keeps its row by it.
const HARDWARE: &str = "mcp 2026-11-22 device identifier from the hardware v1";

/// The identifier and label of this device.
#[derive(Debug)]
pub struct DeviceIdentity {
    /// Its stable identifier.
    pub device: DeviceId,
    /// Its name for people, 1 to 64 bytes, without control characters.
    pub label: String,
    /// Which of the machine's keys belongs to this device ([`mcp_transfer::keyring::Keyring::device`]); `None` if nothing is
    /// kept.
    pub slot: Option<u32>,
    /// Warnings for the user (escape before printing).
    pub warnings: Vec<String>,
    /// Reserves the identifier for this process: the lock beside a kept one, or a name that only one process of the network
    /// namespace has.
    _reservation: Option<Box<dyn std::fmt::Debug + Send>>,
}

impl DeviceIdentity {
    /// The identity for a chosen name (1 to 64 bytes without control characters), or else the one kept in the
    /// state directory `dir`, or else the one of the hardware. If neither can be used, there is a warning, and the
    /// identifier lasts for this run only.
    ///
    /// # Errors
    /// If the operating system provides no randomness.
    pub fn find(name: Option<&str>, dir: Option<&Path>) -> io::Result<Self> {
        match name {
            Some(name) => Ok(Self::named(name)),
            None => Self::kept(dir, Path::new(hardware::SYS), &host_label()),
        }
    }

    /// The identity for a chosen name. The same name gives the same identifier everywhere.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::derive_key(CONTEXT, name.as_bytes())[..16]);
        Self {
            device: DeviceId(id),
            label: name.to_owned(),
            slot: Some(1),
            warnings: Vec::new(),
            _reservation: None,
        }
    }

    /// The identity kept in `dir`, or that of the hardware described in `sys`, labelled with `host`.
    ///
    /// # Errors
    /// If the operating system provides no randomness.
    pub fn kept(dir: Option<&Path>, sys: &Path, host: &str) -> io::Result<Self> {
        let mut warnings = Vec::new();
        let kept = match dir {
            Some(dir) => in_directory(dir, &mut warnings)
                .map_err(|e| format!("cannot keep a device identifier in {}: {e}", dir.display())),
            None => Err("there is no state directory: HOME is not set".to_owned()),
        };
        Ok(match kept {
            Ok((slot, device, lock)) => {
                let _reservation: Option<Box<dyn std::fmt::Debug + Send>> = Some(Box::new(lock));
                Self { device, label: label(host, slot), slot: Some(slot), warnings, _reservation }
            }
            Err(why) => {
                if let Some(identity) = Hardware::find(sys).and_then(|hardware| of_hardware(&hardware, host))
                {
                    return Ok(identity);
                }
                warnings.push(format!("{why}; this run uses a fresh one (set MCP_STATE_DIR or use --id)"));
                let _reservation = None;
                Self { device: random_id()?, label: label(host, 1), slot: None, warnings, _reservation }
            }
        })
    }
}

/// The state directory, as far as it is usable.
#[derive(Debug)]
pub struct StateDir {
    /// Its path, if it is known.
    pub dir: Option<PathBuf>,
    /// Its keys.
    pub ring: Option<Keyring>,
    /// Why it cannot be read; a lowercase clause.
    pub lacking: Option<String>,
}

impl StateDir {
    /// The state directory of this machine. If it is unknown or unreadable, there are no keys.
    ///
    /// # Errors
    /// If other users can write to it: they could add keys.
    pub fn find() -> Result<Self, KeyringError> {
        let dir = state_dir();
        let ring = dir.clone().map(Keyring::new);
        let lacking = match &ring {
            None => Some("there is no state directory (HOME is not set)".to_owned()),
            Some(ring) => ring.check()?,
        };
        Ok(Self { dir, ring, lacking })
    }
}

/// The state directory: `$MCP_STATE_DIR`, else for root `/var/lib/mcp`, else `$XDG_STATE_HOME/mcp`, else
/// `~/.local/state/mcp`.
pub fn state_dir() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    choose_dir(rustix::process::geteuid().is_root(), variable)
}

fn choose_dir(root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(dir) = variable("MCP_STATE_DIR") {
        return Some(dir);
    }
    if root {
        return Some(PathBuf::from("/var/lib/mcp"));
    }
    // Relative paths are ignored (XDG base directory specification).
    let xdg = variable("XDG_STATE_HOME").filter(|dir| dir.is_absolute());
    xdg.or_else(|| variable("HOME").map(|home| home.join(".local/state"))).map(|dir| dir.join("mcp"))
}

/// The host name without control characters; `device` if there is none.
pub(super) fn host_label() -> String {
    let name = rustix::system::uname();
    let name: String = name.nodename().to_string_lossy().chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { "device".to_owned() } else { name }
}

/// `host`, or `host-2` and so on, cut to the length of a label.
fn label(host: &str, slot: u32) -> String {
    let suffix = if slot == 1 { String::new() } else { format!("-{slot}") };
    let mut end = host.len().min(MAX_LABEL - suffix.len());
    while !host.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &host[..end])
}

/// The first identity of the hardware that no other process here has.
fn of_hardware(hardware: &Hardware, host: &str) -> Option<DeviceIdentity> {
    (1..=MAX_SLOTS).find_map(|slot| {
        let mut device = DeviceId::default();
        let hash = blake3::derive_key(HARDWARE, &hardware.seed(slot));
        device.0.copy_from_slice(&hash[..16]);
        let name = SocketAddr::from_abstract_name(format!("mcp-device-{device}")).ok()?;
        let reservation = UnixListener::bind_addr(&name).ok()?;
        Some(DeviceIdentity {
            device,
            label: label(&format!("{host}-{}", hardware.tail()), slot),
            slot: None,
            warnings: Vec::new(),
            _reservation: Some(Box::new(reservation)),
        })
    })
}

fn random_id() -> io::Result<DeviceId> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| io::Error::other(format!("no randomness: {e}")))?;
    Ok(DeviceId(id))
}

/// Takes the first free slot of `dir`, and reads or creates its identifier.
fn in_directory(dir: &Path, warnings: &mut Vec<String>) -> io::Result<(u32, DeviceId, File)> {
    make_private_dir(dir)?;
    for slot in 1..=MAX_SLOTS {
        let name = if slot == 1 { "device-id".to_owned() } else { format!("device-id.{slot}") };
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(format!("{name}.lock")))?;
        match lock.try_lock() {
            Ok(()) => return Ok((slot, read_or_make(&dir.join(name), warnings)?, lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
    Err(io::Error::other(format!("{MAX_SLOTS} receivers run on this machine already")))
}

/// Reads the identifier, or creates one. A damaged file is set aside. The caller holds the lock.
fn read_or_make(path: &Path, warnings: &mut Vec<String>) -> io::Result<DeviceId> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(1024).read_to_end(&mut text)) {
        Ok(_) => {
            if let Some(id) = std::str::from_utf8(&text).ok().and_then(parse) {
                return Ok(id);
            }
            let aside = set_aside(path)?;
            let aside = aside.display();
            warnings.push(format!("the device identifier was damaged and is now {aside}; made a new one"));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let id = random_id()?;
    write_private(path, format!("{HEADING}\n{id}\n").as_bytes())?;
    Ok(id)
}

fn parse(text: &str) -> Option<DeviceId> {
    let (heading, rest) = text.split_once('\n')?;
    let hex = rest.strip_suffix('\n').unwrap_or(rest);
    if heading != HEADING || hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(hex, 16).ok().map(|n| DeviceId(n.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn kept(dir: &Path) -> DeviceIdentity {
        DeviceIdentity::kept(Some(dir), Path::new("/no/sys"), "lab").unwrap()
    }

    #[test]
    fn a_chosen_name_is_the_same_everywhere() {
        let identity = DeviceIdentity::named("lab-07");
        assert_eq!(identity.label, "lab-07");
        assert_eq!(identity.device, DeviceIdentity::named("lab-07").device);
        assert_ne!(identity.device, DeviceIdentity::named("lab-08").device);
        // Golden: a change of this would give every named device a new identity.
        assert_eq!(identity.device.to_string(), "c0f7555e5b6f1023b18a89c2d516abc8");
    }

    #[test]
    fn kept_from_run_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let first = kept(&state);
        let device = first.device;
        assert_eq!((first.label.as_str(), first.warnings.len()), ("lab", 0));
        drop(first);
        assert_eq!(kept(&state).device, device);
        let text = fs::read_to_string(state.join("device-id")).unwrap();
        assert_eq!(text, format!("mcp-device-id 1\n{device}\n"));
        assert_eq!(fs::read_dir(&state).unwrap().count(), 2);
        for entry in fs::read_dir(&state).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn receivers_side_by_side_differ() {
        let dir = tempfile::tempdir().unwrap();
        let all = [kept(dir.path()), kept(dir.path()), kept(dir.path())];
        assert_eq!(all.each_ref().map(|i| i.label.as_str()), ["lab", "lab-2", "lab-3"]);
        let ids = all.each_ref().map(|i| i.device);
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        let [first, second, third] = all;
        drop(second);
        let again = kept(dir.path());
        assert_eq!((again.label.as_str(), again.device), ("lab-2", ids[1]));
        drop((first, third));
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let good = format!("{HEADING}\n{}\n", "ab".repeat(16));
        assert!(parse(&good).is_some() && parse(good.trim_end()).is_some());
        let long = good.clone() + "x";
        let bad = ["", "x", "mcp-device-id 2\n", "mcp-device-id 1\nabc\n", long.as_str(), "\u{fffd}\n"];
        for text in bad {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("device-id"), text).unwrap();
            let identity = kept(dir.path());
            assert_eq!(identity.warnings.len(), 1, "{text:?}");
            assert_eq!(fs::read_to_string(dir.path().join("device-id.bad")).unwrap(), text);
            let device = identity.device;
            drop(identity);
            let again = kept(dir.path());
            assert_eq!((again.device, again.warnings.len()), (device, 0));
        }
    }

    #[test]
    fn an_unusable_directory_costs_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for state in [Some(file.as_path()), Some(Path::new("/proc/absent")), None] {
            let fresh = || DeviceIdentity::kept(state, Path::new("/no/sys"), "lab").unwrap();
            let (a, b) = (fresh(), fresh());
            assert_ne!(a.device, b.device);
            assert_eq!((a.label.as_str(), a.warnings.len()), ("lab", 1));
            assert!(a.warnings[0].contains("--id"), "{:?}", a.warnings);
        }
    }

    #[test]
    fn without_a_directory_the_hardware_tells_machines_apart() {
        let dir = tempfile::tempdir().unwrap();
        let sys = |n: u32| {
            let sys = dir.path().join(n.to_string());
            fs::create_dir_all(sys.join("class/net/eth0")).unwrap();
            // No other test and no real machine has this address.
            let mac = format!("06:00:{:02x}:00:00:{n:02x}\n", std::process::id() % 256);
            fs::write(sys.join("class/net/eth0/address"), mac).unwrap();
            sys
        };
        let (here, there) = (sys(1), sys(2));
        let found = |sys: &Path| DeviceIdentity::kept(None, sys, "lab").unwrap();
        let (first, second, other) = (found(&here), found(&here), found(&there));
        assert_eq!(
            [&first, &second, &other].map(|i| i.label.clone()),
            ["lab-000001", "lab-000001-2", "lab-000002"]
        );
        assert!(first.device != second.device && first.device != other.device);
        assert!(first.warnings.is_empty() && first.slot.is_none());
        let device = first.device;
        drop(first);
        assert_eq!(found(&here).device, device, "it is the same from run to run");
    }

    #[test]
    fn labels_fit() {
        assert_eq!(label("lab", 1), "lab");
        let long = "ä".repeat(40);
        assert_eq!(label(&long, 1).len(), 64);
        assert_eq!(label(&long, 12), format!("{}-12", "ä".repeat(30)));
        assert!(!host_label().is_empty());
    }

    #[test]
    fn directories() {
        let choose = |root, set: &[(&str, &str)]| {
            choose_dir(root, |name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v)))
        };
        let home = ("HOME", "/home/a");
        assert_eq!(choose(true, &[home, ("MCP_STATE_DIR", "/x")]), Some("/x".into()));
        assert_eq!(choose(true, &[home]), Some("/var/lib/mcp".into()));
        assert_eq!(choose(false, &[home, ("XDG_STATE_HOME", "/s")]), Some("/s/mcp".into()));
        assert_eq!(choose(false, &[home, ("XDG_STATE_HOME", "s")]), Some("/home/a/.local/state/mcp".into()));
        assert_eq!(choose(false, &[]), None);
    }
}
