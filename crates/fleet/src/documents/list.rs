//! The list: which tasks are live for one device. Short-lived, signed by the server.

use super::envelope::{Envelope, Kind};
use super::keys::{FleetId, Hash, SecretKey};
use super::refusal::DocumentError;
use super::rules::{FORMAT, NAME_RULE, is_name, read, require};
use crate::limits::{MAX_LISTED, MAX_NONCE};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A live task of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The task's name.
    pub name: String,
    /// Its serial.
    pub serial: u64,
    /// The BLAKE3 hash of its payload ([`Envelope::hash`]).
    pub hash: Hash,
}

/// The tasks that are live for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    format: u64,
    /// The fleet.
    pub fleet: FleetId,
    /// The device.
    pub device: String,
    /// Grows whenever `tasks` change. The same version always has the same tasks.
    pub version: u64,
    /// When it was made, in seconds since 1970.
    pub issued: u64,
    /// When it ends, in seconds since 1970: hours after `issued`.
    pub expires: u64,
    /// What the device asked with, in hex; absent if it asked without a nonce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The live tasks, each name once.
    pub tasks: Vec<Entry>,
}

impl List {
    /// A list for `device` without tasks, nonce and times.
    #[must_use]
    pub fn new(fleet: FleetId, device: &str, version: u64, (issued, expires): (u64, u64)) -> Self {
        let device = device.to_owned();
        Self { format: FORMAT, fleet, device, version, issued, expires, nonce: None, tasks: Vec::new() }
    }

    /// Reads a list from a payload. Does not look at signatures.
    ///
    /// # Errors
    /// If it is not a list of a known format, or a member is not allowed.
    pub fn parse(payload: &[u8]) -> Result<Self, DocumentError> {
        let list: Self = read(Kind::List, payload)?;
        list.check()?;
        Ok(list)
    }

    /// Signs the list with `key`.
    ///
    /// # Errors
    /// As [`List::parse`].
    pub fn sign(&self, key: &SecretKey) -> Result<Envelope, DocumentError> {
        self.check()?;
        Ok(super::seal(self, Kind::List, &[key]))
    }

    fn check(&self) -> Result<(), DocumentError> {
        let rule = |holds, member, why| require(holds, Kind::List, member, why);
        rule(is_name(&self.device), "device", NAME_RULE)?;
        rule(self.version >= 1, "version", "versions begin at 1")?;
        rule(self.issued < self.expires, "expires", "it must be after 'issued'")?;
        let nonce = self.nonce.as_deref().unwrap_or_default();
        rule(
            nonce.len() <= 2 * MAX_NONCE && HEXLOWER.decode(nonce.as_bytes()).is_ok(),
            "nonce",
            "at most 32 bytes as lower-case hex",
        )?;
        rule(self.tasks.len() <= MAX_LISTED, "tasks", "at most 256 tasks")?;
        let names: BTreeSet<_> = self.tasks.iter().map(|entry| entry.name.as_str()).collect();
        rule(names.len() == self.tasks.len(), "tasks", "each name at most once")?;
        rule(names.into_iter().all(is_name), "tasks", NAME_RULE)
    }
}
