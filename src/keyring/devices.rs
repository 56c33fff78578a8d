//! `known-devices`: the keys that devices showed to this machine as a sender, by the devices' identifiers.

use super::seen::Seen;
use super::{Keyring, KeyringError};
use crate::limits::MAX_KNOWN_DEVICES;
use crate::units::{DeviceId, DeviceKey};
use std::collections::BTreeSet;

/// A device that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDevice {
    /// Its identifier.
    pub device: DeviceId,
    /// Its key.
    pub key: DeviceKey,
    /// Its label, for people; at most 64 bytes without control characters.
    pub label: String,
}

impl Seen for KnownDevice {
    const FILE: &'static str = "known-devices";
    const HEADING: &'static str = "mcp-known-devices 1";
    const CONTEXT: &'static str = "mcp 2026-11-21 check of known devices v1";
    const MOST: usize = MAX_KNOWN_DEVICES;
    const DAMAGED: [&'static str; 2] = ["known devices", "no change of a device's key is noticed this time"];

    fn words(&self) -> [String; 2] {
        [self.device.to_string(), self.key.line()]
    }
    fn label(&self) -> &str {
        &self.label
    }
    fn of([device, key]: [&str; 2], label: String) -> Option<Self> {
        let device = data_encoding::HEXLOWER.decode(device.as_bytes()).ok()?;
        Some(Self { device: DeviceId(device.try_into().ok()?), key: DeviceKey::from_line(key).ok()?, label })
    }
}

impl Keyring {
    /// The known devices, those seen last at the end. A damaged file is set aside, with a warning.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn known_devices(&self, warnings: &mut Vec<String>) -> Result<Vec<KnownDevice>, KeyringError> {
        self.read_seen(warnings)
    }

    /// Keeps the keys of these devices, each once, in the place of those that they had before. If there are too many
    /// devices then, those that were seen longest ago are forgotten: a key that is not remembered costs a warning
    /// that is not given, and nothing else.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn remember_devices(
        &self,
        devices: Vec<KnownDevice>,
        warnings: &mut Vec<String>,
    ) -> Result<(), KeyringError> {
        if devices.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let seen: BTreeSet<DeviceId> = devices.iter().map(|known| known.device).collect();
        let mut known = self.known_devices(warnings)?;
        known.retain(|known| !seen.contains(&known.device));
        known.extend(devices);
        known.drain(..known.len().saturating_sub(MAX_KNOWN_DEVICES));
        self.write_seen(&known)
    }
}
