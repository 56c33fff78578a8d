//! `sender.key`: the key of this machine as a sender.

use super::{Keyring, KeyringError, at, random_secret, read_private};
use crate::crypto::derive::Secret;
use crate::crypto::sender::{seed_from_line, seed_line};
use crate::storage::{set_aside, write_private};
use std::path::Path;
use zeroize::Zeroizing;

/// Largest file, in bytes.
const MOST: usize = 4096;
/// First line of the file, for people who open it.
const COMMENT: &str = "# The secret half of this machine's key as a sender of mcp. Show it to nobody.\n";

impl Keyring {
    /// The secret half of this machine's key as a sender, made on first use. Adds warnings for the user to
    /// `warnings`.
    ///
    /// # Errors
    /// If the file system or the system's randomness fails.
    pub fn sender(&self, warnings: &mut Vec<String>) -> Result<Secret, KeyringError> {
        let path = self.dir.join("sender.key");
        // Without the lock, since the directory may be read-only.
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
                    "this sender's key was damaged and is now {aside}; made a new one, which devices that \
                     know this sender refuse until they are told ('mcp key forget')"
                ));
            }
            Found::Nothing => {}
        }
        let seed = random_secret()?;
        let line = seed_line(&seed);
        let mut text = Zeroizing::new(String::with_capacity(COMMENT.len() + line.len() + 1));
        text.push_str(COMMENT);
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
