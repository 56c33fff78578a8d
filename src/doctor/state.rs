//! The clock, the state directory, and the keys in it.

use super::{Finding, quoted};
use crate::cli::identity::StateDir;
use mcp_transfer::keyring::{KeyringError, parse_known_senders};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The beginning of 2020.
const SINCE_1970: Duration = Duration::from_secs(1_577_836_800);
/// Longest list of senders that is read.
const MAX_LIST: u64 = 16 << 20;

/// Looks at the clock and at the state directory.
pub fn check(found: Result<StateDir, KeyringError>) -> Vec<Finding> {
    let mut findings = vec![clock(SystemTime::now())];
    let state = match found {
        Ok(state) => state,
        Err(e) => {
            let remedy = match &e {
                KeyringError::Writable { path } => format!("chmod go-w {}", quoted(&path.to_string_lossy())),
                KeyringError::Owner { path, .. } => format!("ls -ld {}", quoted(&path.to_string_lossy())),
                _ => "mcp key list".to_owned(),
            };
            findings.push(Finding::broken("state", e.to_string()).mend(remedy));
            return findings;
        }
    };
    let (dir, ring) = match (&state.dir, &state.ring, &state.lacking) {
        (Some(dir), Some(ring), None) => (dir, ring),
        (_, _, lacking) => {
            let why = lacking.as_deref().unwrap_or("there is no state directory");
            findings.push(
                Finding::warning("state", format!("{why}; keys and names of devices are not kept"))
                    .mend("export MCP_STATE_DIR=DIR"),
            );
            return findings;
        }
    };
    let shown = dir.display();
    if !dir.exists() {
        findings
            .push(Finding::ok("state", format!("{shown} does not exist yet; it is made when it is needed")));
        return findings;
    }
    findings.push(Finding::ok("state", format!("{shown} belongs to this user only")));
    findings.extend(open_secrets(dir));
    findings.push(match ring.names() {
        Ok(names) if names.is_empty() => {
            Finding::ok("keys", "no group key is installed: transfers are not encrypted")
        }
        Ok(names) if names.len() > 1 => Finding::warning(
            "keys",
            format!("several group keys are installed ({}): mcp send has to be told which", names.join(", ")),
        )
        .mend(format!("mcp send --key {}", quoted(&names[0]))),
        Ok(names) => {
            Finding::ok("keys", format!("transfers are encrypted with the group key {}", names.join(", ")))
        }
        Err(e) => Finding::broken("keys", e.to_string()).mend("mcp key list"),
    });
    findings.extend(senders(&dir.join("known-senders")));
    findings
}

fn clock(now: SystemTime) -> Finding {
    match now.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since >= SINCE_1970 => {
            Finding::ok("clock", format!("it says {}", humantime::format_rfc3339_seconds(now)))
        }
        _ => Finding::warning("clock", "it is before 2020: certificates and signed tasks are not valid yet")
            .mend("timedatectl set-ntp true"),
    }
}

/// Files with secrets that other users can read.
fn open_secrets(dir: &Path) -> Vec<Finding> {
    let within = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = within(dir)
        .chain(within(&dir.join("keys")))
        .filter(|path| path.extension().is_some_and(|e| e == "key"));
    let open = files
        .filter(|path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o077 != 0));
    open.map(|path| {
        Finding::broken("keys", format!("others on this machine can read {}", path.display()))
            .mend(format!("chmod 600 {}", quoted(&path.to_string_lossy())))
    })
    .collect()
}

fn senders(path: &Path) -> Option<Finding> {
    let mut list = Vec::new();
    fs::File::open(path).ok()?.take(MAX_LIST).read_to_end(&mut list).ok()?;
    Some(match parse_known_senders(&list) {
        Some(known) => Finding::ok("senders", format!("known senders: {}", known.len())),
        None => Finding::warning(
            "senders",
            format!("{} is damaged: every sender is new to this machine", path.display()),
        )
        .mend("mcp key list"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use mcp_transfer::keyring::Keyring;

    fn at(dir: &Path) -> Vec<Finding> {
        let ring = Keyring::new(dir.to_owned());
        check(ring.check().map(|lacking| StateDir { dir: Some(dir.to_owned()), ring: Some(ring), lacking }))
    }

    fn verdict(findings: &[Finding], check: &str) -> Option<Verdict> {
        findings.iter().filter(|f| f.check == check).map(|f| f.verdict).max()
    }

    #[test]
    fn a_clock_that_was_never_set() {
        assert_eq!(clock(SystemTime::UNIX_EPOCH).verdict, Verdict::Warning);
        assert_eq!(clock(SystemTime::UNIX_EPOCH + SINCE_1970).verdict, Verdict::Ok);
    }

    #[test]
    fn modes_of_the_state_directory_and_of_keys() {
        let tmp = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(verdict(&at(tmp.path()), "keys"), Some(Verdict::Ok));
        Keyring::new(tmp.path().to_owned()).create("lab").unwrap();
        assert_eq!(verdict(&at(tmp.path()), "keys"), Some(Verdict::Ok));
        let key = tmp.path().join("keys/lab.key");
        mode(&key, 0o644);
        assert_eq!(verdict(&at(tmp.path()), "keys"), Some(Verdict::Broken));
        // It was only looked at.
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o644);
        mode(tmp.path(), 0o777);
        let found = at(tmp.path());
        assert_eq!(verdict(&found, "state"), Some(Verdict::Broken));
        assert!(found.iter().any(|f| f.remedy.as_ref().is_some_and(|r| r.starts_with("chmod go-w "))));
        mode(tmp.path(), 0o700);
        fs::write(tmp.path().join("known-senders"), "rubbish").unwrap();
        assert_eq!(verdict(&at(tmp.path()), "senders"), Some(Verdict::Warning));
    }
}
