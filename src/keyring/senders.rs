//! `known-senders`: the senders that this machine trusts since it first saw them, with their addresses.
//!
//! ```text
//! mcp-known-senders 1
//! 10.0.0.5 mcp-sender1-... 2026-11-20T09:30:00Z
//! check 5d41402abc4b2a76b9719d911017c592
//! ```
//! The check is the first 16 bytes of a hash of all lines before the check.

use super::{Keyring, KeyringError, at, is_absent};
use crate::limits::{MAX_KNOWN_SENDERS, MAX_LABEL};
use crate::storage::{set_aside, write_private};
use crate::units::SenderKey;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;

/// First line of the file, with the version of the format.
const HEADING: &str = "mcp-known-senders 1";
/// Domain of the check's hash; never changes within a version.
const CONTEXT: &str = "mcp 2026-11-20 check of known senders v1";
/// Largest file, in bytes: address, key, label and three separators for each sender.
const MOST: usize = 256 + MAX_KNOWN_SENDERS * (45 + 70 + MAX_LABEL + 3);

/// A sender that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSender {
    /// Its address.
    pub address: IpAddr,
    /// Its key.
    pub key: SenderKey,
    /// Text for people, such as the time of the first contact; at most 64 bytes without control
    /// characters.
    pub label: String,
}

impl Keyring {
    /// The known senders. A damaged file is set aside, with a warning.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn known_senders(&self, warnings: &mut Vec<String>) -> Result<Vec<KnownSender>, KeyringError> {
        let path = self.dir.join("known-senders");
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MOST as u64 + 1).read_to_end(&mut bytes)) {
            Err(e) if is_absent(&e) => return Ok(Vec::new()),
            other => at("read", &path, other)?,
        };
        if let Some(known) = parse(&bytes) {
            return Ok(known);
        }
        let aside = at("set aside", &path, set_aside(&path))?;
        let aside = aside.display();
        warnings.push(format!(
            "the list of known senders was damaged and is now {aside}; every sender is new to this device"
        ));
        Ok(Vec::new())
    }

    /// Adds a sender to the list, unless its key or its address is there already.
    ///
    /// # Errors
    /// If the list is full, or the file system fails.
    pub fn remember(&self, sender: KnownSender, warnings: &mut Vec<String>) -> Result<(), SendersError> {
        let _lock = self.lock()?;
        let mut known = self.known_senders(warnings)?;
        let sender = KnownSender { address: sender.address.to_canonical(), ..sender };
        if known.iter().any(|k| k.key == sender.key || k.address == sender.address) {
            return Ok(());
        }
        if known.len() >= MAX_KNOWN_SENDERS {
            return Err(SendersError::Full);
        }
        known.push(sender);
        Ok(self.write_known(&known)?)
    }

    /// Removes the senders with this address, key or fingerprint; returns them.
    ///
    /// # Errors
    /// If there are none, or the file system fails.
    pub fn forget(&self, what: &str, warnings: &mut Vec<String>) -> Result<Vec<KnownSender>, SendersError> {
        let what = what.trim();
        let address = what.parse().ok().map(|ip: IpAddr| ip.to_canonical());
        let key = SenderKey::from_line(what).ok();
        let _lock = self.lock()?;
        let (forgotten, kept): (Vec<_>, Vec<_>) =
            self.known_senders(warnings)?.into_iter().partition(|known| {
                Some(known.address) == address || Some(known.key) == key || known.key.fingerprint() == what
            });
        if forgotten.is_empty() {
            return Err(SendersError::Unknown(what.to_owned()));
        }
        self.write_known(&kept)?;
        Ok(forgotten)
    }

    fn write_known(&self, known: &[KnownSender]) -> Result<(), KeyringError> {
        let path = self.dir.join("known-senders");
        at("write", &path, write_private(&path, text(known).as_bytes()))
    }
}

/// Error of [`Keyring::remember`] and [`Keyring::forget`].
#[derive(Debug, thiserror::Error)]
pub enum SendersError {
    /// The keyring failed.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The list is full.
    #[error("{MAX_KNOWN_SENDERS} senders are remembered already; drop some with 'mcp key forget'")]
    Full,
    /// No known sender has this address, key or fingerprint.
    #[error(
        "no sender {0:?} is remembered; give an address, a key or a fingerprint that 'mcp key list' shows"
    )]
    Unknown(String),
}

/// The file's content.
pub(super) fn text(known: &[KnownSender]) -> String {
    let mut text = format!("{HEADING}\n");
    for KnownSender { address, key, label } in known {
        let mut label: String = label.chars().filter(|c| !c.is_control()).collect();
        while label.len() > MAX_LABEL {
            label.pop();
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{address} {} {}", key.line(), label.trim());
    }
    let check = check(&text);
    let _ = writeln!(text, "check {check}");
    text
}

/// Parses the file's content; `None` if it is damaged.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Vec<KnownSender>> {
    if bytes.len() > MOST {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let at = text.trim_end_matches('\n').rfind('\n')? + 1;
    let (body, last) = text.split_at(at);
    if last.trim_end_matches('\n').strip_prefix("check ")? != check(body) {
        return None;
    }
    let lines = body.strip_prefix(HEADING)?.strip_prefix('\n')?.lines();
    let known: Option<Vec<_>> = lines.map(parse_line).collect();
    known.filter(|known| known.len() <= MAX_KNOWN_SENDERS)
}

fn parse_line(line: &str) -> Option<KnownSender> {
    let (address, rest) = line.split_once(' ')?;
    let (key, label) = rest.split_once(' ')?;
    if label.len() > MAX_LABEL || label.chars().any(char::is_control) {
        return None;
    }
    let (address, key) = (address.parse().ok()?, SenderKey::from_line(key).ok()?);
    Some(KnownSender { address, key, label: label.to_owned() })
}

fn check(body: &str) -> String {
    let hash = blake3::derive_key(CONTEXT, body.as_bytes());
    data_encoding::HEXLOWER.encode(&hash[..16])
}
