//! `known-devices`: the keys that devices have proved to this machine's sender, by device identifier.

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
    /// The known devices, most recently seen last. A damaged file is set aside, with a warning.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn known_devices(&self, warnings: &mut Vec<String>) -> Result<Vec<KnownDevice>, KeyringError> {
        self.read_seen(warnings)
    }

    /// Stores the keys of these devices, one for each, and replaces their earlier keys. If there are too many
    /// devices, those seen longest ago are dropped. If such a device changes its key, the user gets no warning;
    /// nothing else depends on it.
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
