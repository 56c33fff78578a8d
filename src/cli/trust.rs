//! Chooses the keys of a transfer from the options, the variable `MCP_KEY` and the keyring: the sender
//! key, the group keys, and the senders to trust.

use super::identity::StateDir;
use super::report::Error;
use mcp_transfer::crypto::derive::Secret;
use mcp_transfer::crypto::group::{GroupKey, GroupKeys, check_name};
use mcp_transfer::crypto::sign::SigningKey;
use mcp_transfer::keyring::{Keyring, KeyringError, KnownDevice, read_private, unrecorded_session_counter};
use mcp_transfer::limits::{MAX_GROUP_KEYS, MAX_KEY_FILE};
use mcp_transfer::protocol::trust::{NobodyKnown, Strangers, Trust};
use mcp_transfer::units::{DeviceId, DeviceKey, SenderKey};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The places that keys come from.
pub struct Keys<'a> {
    /// `--key`, as typed.
    pub asked: Option<&'a Path>,
    /// The variable `MCP_KEY`: lines of a key file.
    pub variable: Option<OsString>,
    /// The state directory.
    pub state: &'a StateDir,
    /// `--require-key`: nothing is done in the clear.
    pub required: bool,
}

/// The keys chosen from [`Keys`].
enum Chosen {
    /// `--key none`: no key.
    Plain,
    /// The keys named by `--key` or `MCP_KEY`.
    Keys(GroupKeys),
    /// No key was named: the names of the installed keys.
    Installed(Vec<String>),
}

/// Refuses a key's line where the name of a key or a file belongs. The error does not repeat it.
pub fn refuse_key_line(asked: &Path) -> Result<(), Error> {
    if !asked.to_string_lossy().starts_with("mcp-key") || asked.exists() {
        return Ok(());
    }
    Err(Error::Usage(
        "a key on the command line is visible to all users of this machine; put the line into a file or into \
         MCP_KEY, or install it with 'mcp key add'"
            .into(),
    ))
}

impl Keys<'_> {
    /// The key to seal a session with; `None` to send in the clear.
    ///
    /// # Errors
    /// If several keys are installed and none is named, the chosen key is unusable, or one is required and there is
    /// none.
    pub fn for_sending(self, warnings: &mut Vec<String>) -> Result<Option<GroupKey>, Error> {
        let (state, required) = (self.state, self.required);
        let keys = match self.choose(warnings)? {
            Chosen::Plain => return in_the_clear(required, None, warnings).map(|()| None),
            Chosen::Keys(keys) => keys,
            Chosen::Installed(names) => match (&names[..], &state.ring) {
                ([], _) | (_, None) => {
                    let lacking = state.lacking.as_deref();
                    return in_the_clear(required, lacking, warnings).map(|()| None);
                }
                ([name], Some(ring)) => ring.keys(name, warnings)?,
                (several, _) => {
                    return Err(Error::Usage(format!(
                        "several keys are installed ({}); name one with --key, or --key none to send in the clear",
                        several.join(", ")
                    )));
                }
            },
        };
        Ok(Some(keys.current().clone()))
    }

    /// The keys that a session may be sealed with. If there are none, sessions are received in the clear.
    ///
    /// # Errors
    /// If there are too many keys, one of them is unusable (ignoring it could mean receiving in the clear), or one is
    /// required and there is none.
    pub fn for_receiving(self, warnings: &mut Vec<String>) -> Result<Vec<GroupKeys>, Error> {
        let (state, required) = (self.state, self.required);
        let mut lacking = None;
        let keys: Vec<GroupKeys> = match self.choose(warnings)? {
            Chosen::Plain => Vec::new(),
            Chosen::Keys(keys) => vec![keys],
            Chosen::Installed(names) => {
                lacking = state.lacking.as_deref();
                let ring = state.ring.as_ref();
                let read = names.iter().filter_map(|name| ring.map(|ring| ring.keys(name, warnings)));
                read.collect::<Result<_, KeyringError>>()?
            }
        };
        if keys.is_empty() {
            in_the_clear(required, lacking, warnings)?;
        }
        let count = keys.iter().flat_map(GroupKeys::secrets).count();
        if count > MAX_GROUP_KEYS {
            return Err(Error::Usage(format!(
                "{count} keys are installed, previous versions included, and at most {MAX_GROUP_KEYS} can be tried; \
                 name one with --key, or remove previous versions with 'mcp key remove --older'"
            )));
        }
        Ok(keys)
    }

    fn choose(self, warnings: &mut Vec<String>) -> Result<Chosen, Error> {
        let ring = self.state.ring.as_ref().filter(|_| self.state.lacking.is_none());
        let installed = ring.map_or(Ok(Vec::new()), Keyring::names)?;
        if let Some(asked) = self.asked {
            let text = asked.to_str().unwrap_or_default();
            if text == "none" {
                return Ok(Chosen::Plain);
            }
            refuse_key_line(asked)?;
            return match ring {
                Some(ring) if installed.iter().any(|name| name == text) => {
                    Ok(Chosen::Keys(ring.keys(text, warnings)?))
                }
                _ => file(asked, warnings).map(Chosen::Keys),
            };
        }
        match self.variable.map(|lines| Zeroizing::new(lines.into_vec())) {
            Some(lines) if !lines.trim_ascii().is_empty() => GroupKeys::parse(&lines)
                .map(Chosen::Keys)
                .map_err(|e| Error::Usage(format!("the key in MCP_KEY is unusable: {e}"))),
            _ => Ok(Chosen::Installed(installed)),
        }
    }
}

/// There is no group key. Where the installed keys cannot be looked up, that is said: the machine may well have some.
fn in_the_clear(required: bool, lacking: Option<&str>, warnings: &mut Vec<String>) -> Result<(), Error> {
    let lacking = lacking.map(|why| format!("{why}, so no installed group key can be found"));
    if required {
        let why = lacking.unwrap_or_else(|| "there is no group key".to_owned());
        return Err(Error::Usage(format!(
            "{why}, and --require-key asks for one; install it with 'mcp key add', or name it with --key"
        )));
    }
    warnings.extend(lacking.map(|why| {
        format!("{why}: this transfer is in the clear; set MCP_STATE_DIR, or forbid it with --require-key")
    }));
    Ok(())
}

/// Reads the keys of the file that `--key` names.
fn file(path: &Path, warnings: &mut Vec<String>) -> Result<GroupKeys, Error> {
    let shown = path.display();
    let Some(bytes) = read_private(path, MAX_KEY_FILE, None, warnings)? else {
        let what = match path.to_str().map(check_name) {
            Some(Ok(())) => "neither an installed key nor a file",
            _ => "not a file",
        };
        return Err(Error::Usage(format!(
            "--key {shown}: that is {what}; 'mcp key list' shows the installed keys"
        )));
    };
    GroupKeys::parse(&bytes).map_err(|e| Error::Environment(format!("the key file {shown} is unusable: {e}")))
}

/// Joins names of keys for display; empty if there are none.
#[must_use]
pub fn named<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The counter of this session, which distinguishes the sessions of this machine. It never ends a run: if it
/// cannot be kept, the clock is used.
#[must_use]
pub fn session_counter(ring: Option<&Keyring>, warnings: &mut Vec<String>) -> u64 {
    ring.map_or_else(unrecorded_session_counter, |ring| {
        ring.next_session_counter(warnings).unwrap_or_else(|_| unrecorded_session_counter())
    })
}

/// The key of this machine as a sender. If it cannot be kept, there is a warning, and devices that have seen
/// the sender before will not recognize it.
///
/// # Errors
/// If the operating system provides no randomness.
pub fn signing_key(ring: Option<&Keyring>, warnings: &mut Vec<String>) -> Result<SigningKey, Error> {
    let kept = match ring {
        Some(ring) => ring.sender(warnings).map_err(|e| e.to_string()),
        None => Err("there is no state directory: HOME is not set (set MCP_STATE_DIR)".to_owned()),
    };
    let seed = match kept {
        Ok(seed) => seed,
        Err(why) => {
            warnings.push(format!("{why}; this run uses a temporary sender key, which no device recognises"));
            Secret::new(*super::random_bytes()?)
        }
    };
    Ok(SigningKey::new(&seed))
}

/// The keys that devices had in earlier sessions. Without them no change is noticed, which costs a warning.
#[must_use]
pub fn known_devices(ring: Option<&Keyring>, warnings: &mut Vec<String>) -> BTreeMap<DeviceId, DeviceKey> {
    let known = ring.map_or(Ok(Vec::new()), |ring| ring.known_devices(warnings));
    let known = known.unwrap_or_else(|e| {
        warnings.push(format!("{e}; no change of a device's key is noticed"));
        Vec::new()
    });
    known.into_iter().map(|known| (known.device, known.key)).collect()
}

/// Keeps the keys that devices have shown. Returns warnings.
#[must_use]
pub fn remember_devices(ring: Option<&Keyring>, seen: BTreeMap<DeviceId, KnownDevice>) -> Vec<String> {
    let mut warnings = Vec::new();
    let seen = seen.into_values().collect();
    let kept = ring.map_or(Ok(()), |ring| ring.remember_devices(seen, &mut warnings));
    warnings
        .extend(kept.err().map(|e| format!("{e}; the keys of this session's devices are not remembered")));
    warnings
}

/// This machine's key as a device. Where it cannot be kept there is none, which costs a warning.
#[must_use]
pub fn device_key(
    ring: Option<&Keyring>,
    slot: Option<u32>,
    warnings: &mut Vec<String>,
) -> Option<SigningKey> {
    match ring?.device(slot?, warnings) {
        Ok(seed) => Some(SigningKey::new(&seed)),
        Err(e) => {
            warnings.push(format!("{e}; this device shows no key to senders"));
            None
        }
    }
}

/// The senders that a receiver trusts.
///
/// # Errors
/// If the list of known senders cannot be read: without the list another sender could impersonate a
/// known one.
pub fn trust(
    pinned: &[SenderKey],
    strangers: Strangers,
    ring: Option<&Keyring>,
    warnings: &mut Vec<String>,
) -> Result<Trust, Error> {
    let known = match ring {
        // With pinned keys the list of known senders is not used.
        Some(ring) if pinned.is_empty() => ring.known_senders(warnings)?,
        _ => Vec::new(),
    };
    let known = known.into_iter().map(|known| (known.address, known.key)).collect();
    Ok(Trust { pinned: pinned.to_vec(), known, strangers })
}

/// Requires a known sender, because `option` does more than to save a file. `sealed` says whether sessions are sealed with
/// a group key.
///
/// # Errors
/// If no sender can be known.
pub fn known_only(trust: Trust, sealed: bool, option: &str) -> Result<Trust, Error> {
    trust.known_only(sealed).map_err(|NobodyKnown| {
        Error::Usage(format!(
            "{option} needs a sender that is known, and none is: name it with --sender KEY ('mcp key show' prints the \
             key there), install a group key, or take a file from it on a terminal without {option} first; \
             --any-sender takes files from anyone"
        ))
    })
}

impl From<KeyringError> for Error {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Name(..)
            | KeyringError::Absent(_)
            | KeyringError::Exists(_)
            | KeyringError::TooMany => Self::Usage(error.to_string()),
            KeyringError::File { .. }
            | KeyringError::Owner { .. }
            | KeyringError::Writable { .. }
            | KeyringError::Random(_)
            | KeyringError::Damaged { .. } => Self::Environment(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keyring with keys of these names, and the directory that holds it.
    fn ring(names: &[&str]) -> (tempfile::TempDir, Keyring) {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::new(dir.path().join("state"));
        for name in names {
            ring.create(name).unwrap();
        }
        (dir, ring)
    }

    fn state(ring: Option<&Keyring>) -> StateDir {
        let lacking = match ring {
            Some(ring) => ring.check().unwrap(),
            None => Some("there is no state directory".to_owned()),
        };
        StateDir { dir: None, ring: ring.cloned(), lacking }
    }

    fn sending(
        ring: &Keyring,
        asked: Option<&str>,
        variable: Option<&str>,
    ) -> Result<Option<String>, String> {
        let state = &state(Some(ring));
        let variable = variable.map(Into::into);
        let keys = Keys { asked: asked.map(Path::new), variable, state, required: false };
        let key = keys.for_sending(&mut Vec::new()).map_err(|e| e.to_string())?;
        Ok(key.map(|key| key.name().to_owned()))
    }

    fn receiving(ring: &Keyring, asked: Option<&str>, variable: Option<&str>) -> Result<String, String> {
        let state = &state(Some(ring));
        let variable = variable.map(Into::into);
        let keys = Keys { asked: asked.map(Path::new), variable, state, required: false };
        let keys = keys.for_receiving(&mut Vec::new()).map_err(|e| e.to_string())?;
        Ok(named(keys.iter().map(|keys| keys.current().name())))
    }

    #[test]
    fn without_a_word_what_is_installed_is_used() {
        let (_tmp, none) = ring(&[]);
        assert_eq!((sending(&none, None, None), receiving(&none, None, None)), (Ok(None), Ok(String::new())));
        let (_tmp, one) = ring(&["lab"]);
        assert_eq!(sending(&one, None, Some(" ")), Ok(Some("lab".into())));
        assert_eq!(receiving(&one, None, Some("")), Ok("lab".into()));
        let (_tmp, two) = ring(&["lab", "attic"]);
        assert!(sending(&two, None, None).unwrap_err().contains("(attic, lab)"));
        assert_eq!(receiving(&two, None, None), Ok("attic, lab".into()));
    }

    #[test]
    fn what_is_asked_for_is_used_alone() {
        let (dir, ring) = ring(&["lab", "attic"]);
        let other = GroupKey::new("other", Secret::new([1; 32])).unwrap().line();
        let path = dir.path().join("carried");
        std::fs::write(&path, other.as_str()).unwrap();
        let path = path.to_str().unwrap();
        for (asked, variable, want) in [
            (Some("none"), None, None),
            (Some("none"), Some(other.as_str()), None),
            (Some("lab"), Some(other.as_str()), Some("lab")),
            (Some(path), None, Some("other")),
            (None, Some(other.as_str()), Some("other")),
        ] {
            assert_eq!(sending(&ring, asked, variable), Ok(want.map(str::to_owned)), "{asked:?}");
            assert_eq!(
                receiving(&ring, asked, variable),
                Ok(want.unwrap_or_default().to_owned()),
                "{asked:?}"
            );
        }
        let says = |asked, variable| receiving(&ring, asked, variable).unwrap_err();
        assert!(says(Some("lob"), None).contains("neither an installed key nor a file"));
        assert!(says(Some("./lob"), None).contains("that is not a file"));
        let line = says(Some(other.as_str()), None);
        assert!(line.contains("is visible to all users") && !line.contains(&other[20..]), "{line}");
        let cut = says(None, Some(&other[..30]));
        assert!(
            cut.contains("MCP_KEY") && cut.contains("cut short") && !cut.contains(&other[20..30]),
            "{cut}"
        );
        std::fs::write(dir.path().join("junk"), "junk").unwrap();
        assert!(
            says(dir.path().join("junk").to_str(), None)
                .contains("is unusable: line 1: this is no group key")
        );
    }

    #[test]
    fn older_keys_are_for_receiving_only() {
        let (_tmp, ring) = ring(&["lab"]);
        let new = ring.rotate("lab", &mut Vec::new()).unwrap();
        let state = &state(Some(&ring));
        let keys = || Keys { asked: None, variable: None, state, required: true };
        let sent = keys().for_sending(&mut Vec::new()).unwrap().unwrap();
        assert!(sent.same_secret(&new));
        let received = keys().for_receiving(&mut Vec::new()).unwrap();
        assert_eq!(received.iter().flat_map(GroupKeys::secrets).count(), 2);
    }

    #[test]
    fn a_file_that_others_read_costs_a_warning_and_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, ring) = ring(&[]);
        let path = dir.path().join("carried");
        std::fs::write(&path, GroupKey::new("a", Secret::new([1; 32])).unwrap().line().as_str()).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let mut warnings = Vec::new();
        let state = &state(Some(&ring));
        let keys = Keys { asked: Some(&path), variable: None, state, required: true };
        assert!(keys.for_sending(&mut warnings).unwrap().is_some());
        assert!(warnings.len() == 1 && warnings[0].contains("chmod 600"), "{warnings:?}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_key_that_is_required_is_there_or_nothing_is_done() {
        let (_tmp, none) = ring(&[]);
        let (_tmp2, one) = ring(&["lab"]);
        let says = |ring: &Keyring, asked: Option<&str>| {
            let (state, w) = (state(Some(ring)), &mut Vec::new());
            let keys = || Keys { asked: asked.map(Path::new), variable: None, state: &state, required: true };
            let sent = keys().for_sending(w).map(|key| assert!(key.is_some())).map_err(|e| e.to_string());
            let received = keys().for_receiving(w).map(|keys| assert!(!keys.is_empty()));
            assert_eq!(sent, received.map_err(|e| e.to_string()));
            sent
        };
        assert_eq!(says(&one, None), Ok(()));
        for (ring, asked) in [(&none, None), (&none, Some("none")), (&one, Some("none"))] {
            assert!(says(ring, asked).unwrap_err().starts_with("there is no group key, and --require-key"));
        }
    }

    #[test]
    fn a_damaged_key_is_not_passed_over() {
        let (dir, ring) = ring(&["lab"]);
        std::fs::write(dir.path().join("state/keys/lab.key"), "").unwrap();
        assert!(sending(&ring, None, None).unwrap_err().contains("mcp key remove lab"));
        assert!(receiving(&ring, None, None).unwrap_err().contains("mcp key remove lab"));
        assert_eq!(receiving(&ring, Some("none"), None), Ok(String::new()));
    }

    #[test]
    fn an_identity_is_kept_or_costs_a_warning() {
        let (dir, ring) = ring(&[]);
        let mut warnings = Vec::new();
        let kept = signing_key(Some(&ring), &mut warnings).unwrap().public();
        assert_eq!(signing_key(Some(&ring), &mut warnings).unwrap().public(), kept);
        assert!(warnings.is_empty(), "{warnings:?}");
        std::fs::write(dir.path().join("file"), "").unwrap();
        let unusable = Keyring::new(dir.path().join("file"));
        for ring in [Some(&unusable), None] {
            let mut warnings = Vec::new();
            assert_ne!(signing_key(ring, &mut warnings).unwrap().public(), kept);
            assert!(warnings.len() == 1 && warnings[0].contains("MCP_STATE_DIR"), "{warnings:?}");
            // No key can be installed there; the transfer runs all the same.
            let state = &state(ring);
            let keys = |required| Keys { asked: None, variable: None, state, required };
            let warned = |warnings: &[String]| {
                warnings.last().is_some_and(|w| w.contains("in the clear") && w.contains("--require-key"))
            };
            assert!(keys(false).for_receiving(&mut warnings).unwrap().is_empty() && warned(&warnings));
            warnings.clear();
            assert!(keys(false).for_sending(&mut warnings).unwrap().is_none() && warned(&warnings));
            let refused = keys(true).for_sending(&mut warnings).unwrap_err();
            assert!(
                matches!(&refused, Error::Usage(why) if why.contains("no installed group key can be found"))
            );
            assert!(device_key(ring, Some(1), &mut warnings).is_none());
            assert_eq!(trust(&[], Strangers::Pin, ring, &mut warnings).unwrap().known.len(), 0);
        }
    }
}
