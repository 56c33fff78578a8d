//! `known-senders`: the senders that this machine has trusted since first use, with their addresses.

use super::seen::{self, Seen};
use super::{Keyring, KeyringError};
use crate::limits::MAX_KNOWN_SENDERS;
use crate::units::SenderKey;
use std::net::IpAddr;

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

impl Seen for KnownSender {
    const FILE: &'static str = "known-senders";
    const HEADING: &'static str = "mcp-known-senders 1";
    const CONTEXT: &'static str = "mcp 2026-11-20 check of known senders v1";
    const MOST: usize = MAX_KNOWN_SENDERS;
    const DAMAGED: [&'static str; 2] = ["known senders", "every sender is new to this device"];

    fn words(&self) -> [String; 2] {
        [self.address.to_string(), self.key.line()]
    }
    fn label(&self) -> &str {
        &self.label
    }
    fn of([address, key]: [&str; 2], label: String) -> Option<Self> {
        Some(Self { address: address.parse().ok()?, key: SenderKey::from_line(key).ok()?, label })
    }
}

impl Keyring {
    /// The known senders. A damaged file is set aside, with a warning.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn known_senders(&self, warnings: &mut Vec<String>) -> Result<Vec<KnownSender>, KeyringError> {
        self.read_seen(warnings)
    }

    /// Adds a sender to the list, unless the list already has its key or its address.
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
        Ok(self.write_seen(&known)?)
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
        self.write_seen(&kept)?;
        Ok(forgotten)
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

/// Parses the file's content; `None` if it is damaged.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Vec<KnownSender>> {
    seen::parse(bytes)
}
