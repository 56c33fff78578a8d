//! `sender.key` and `device.key`: this machine's own keys, as a sender and as a device. Each is made on first use.

use super::{Keyring, KeyringError, at, random_secret, read_private};
use crate::crypto::derive::Secret;
use crate::crypto::sender::{seed_from_line, seed_line};
use crate::storage::{set_aside, write_private};
use std::path::Path;
use zeroize::Zeroizing;

/// Largest file, in bytes.
const MOST: usize = 4096;

/// A role of this machine, with a key of its own.
#[derive(Clone, Copy, Debug)]
struct Role {
    /// The role, for people who open the file.
    what: &'static str,
    /// The consequence of losing the key, for the warning.
    lost: &'static str,
}

const SENDER: Role = Role {
    what: "sender",
    lost: "devices that know this sender refuse the new one until they are told ('mcp key forget')",
};
const DEVICE: Role = Role {
    what: "device",
    lost: "senders that list this device with its key refuse the new one until they are told ('mcp key device'), and so \
           does the server of its fleet ('mcp device forget NAME')",
};

impl Keyring {
    /// The secret half of this machine's key as a sender, made on first use. Adds warnings for the user to
    /// `warnings`.
    ///
    /// # Errors
    /// If the file system or the system's randomness fails.
    pub fn sender(&self, warnings: &mut Vec<String>) -> Result<Secret, KeyringError> {
        self.own_key(SENDER, "sender.key", warnings)
    }

    /// The secret half of this machine's key as a device, made on first use. Receivers without a chosen name that run
    /// at the same time are separate devices: `slot` numbers them from 1. Adds warnings for the user to `warnings`.
    ///
    /// # Errors
    /// If the file system or the system's randomness fails.
    pub fn device(&self, slot: u32, warnings: &mut Vec<String>) -> Result<Secret, KeyringError> {
        let name = if slot == 1 { "device.key".to_owned() } else { format!("device.key.{slot}") };
        self.own_key(DEVICE, &name, warnings)
    }

    fn own_key(&self, role: Role, name: &str, warnings: &mut Vec<String>) -> Result<Secret, KeyringError> {
        let Role { what, lost } = role;
        let path = self.dir.join(name);
        // Reads without the lock, because the directory may be read-only.
        if let Found::Seed(seed) = read(&path, warnings)? {
            return Ok(seed);
        }
        let _lock = self.lock()?;
        // Another process may have made the key meanwhile. The first read has added the warnings.
        match read(&path, &mut Vec::new())? {
            Found::Seed(seed) => return Ok(seed),
            Found::Damaged => {
                let aside = at("set aside", &path, set_aside(&path))?;
                let aside = aside.display();
                warnings.push(format!(
                    "this {what}'s key was damaged and is now {aside}; made a new one, and {lost}"
                ));
            }
            Found::Nothing => {}
        }
        let seed = random_secret()?;
        let line = seed_line(&seed);
        let comment =
            format!("# The secret half of this machine's key as a {what} of mcp. Show it to nobody.\n");
        let mut text = Zeroizing::new(String::with_capacity(comment.len() + line.len() + 1));
        text.push_str(&comment);
        text.push_str(&line);
        text.push('\n');
        at("write", &path, write_private(&path, text.as_bytes()))?;
        Ok(seed)
    }
}

enum Found {
    Nothing,
    Damaged,
    Seed(Secret),
}

fn read(path: &Path, warnings: &mut Vec<String>) -> Result<Found, KeyringError> {
    let advice = "remove it, for a new one, if somebody did";
    let Some(bytes) = read_private(path, MOST, Some(advice), warnings)? else { return Ok(Found::Nothing) };
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    Ok(match (lines.next().map(seed_from_line), lines.next()) {
        (Some(Ok(seed)), None) if bytes.len() <= MOST => Found::Seed(seed),
        _ => Found::Damaged,
    })
}
