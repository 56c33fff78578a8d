//! A sender's key as text: the whole key in one line, a fingerprint for people, and the secret half for
//! its file.

use super::derive::Secret;
use super::key_text::{LineError, LineKind, groups};
use crate::units::SenderKey;
use zeroize::Zeroizing;

const KIND: LineKind = LineKind { what: "sender's key", stem: "mcp-sender", heading: "mcp-sender1-" };

const SEED: LineKind =
    LineKind { what: "secret half of a key", stem: "mcp-identity", heading: "mcp-identity1-" };

/// Domain of the fingerprint's hash. Never changes: people would see a different fingerprint.
const CONTEXT: &str = "mcp 2026-11-20 fingerprint of a sender's key v1";

impl SenderKey {
    /// 80 bits of a hash of the key, such as `k7qd-2m4x-bfhc-w3pa`, for people to compare.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        groups(&blake3::derive_key(CONTEXT, &self.0), 4)
    }

    /// The whole key in one line, `mcp-sender1-` and 58 characters. [`SenderKey::from_line`] parses it.
    #[must_use]
    pub fn line(&self) -> String {
        KIND.write("", &self.0).to_string()
    }

    /// Parses such a line; ignores white space around it.
    ///
    /// # Errors
    /// If the line is not a sender's key, is cut short or is mistyped.
    pub fn from_line(line: &str) -> Result<Self, LineError> {
        KIND.read("", KIND.body(line)?).map(|key| Self(*key))
    }
}

/// The secret half of a sender's or a device's key as one line for its file. Contains the secret.
#[must_use]
pub fn seed_line(seed: &Secret) -> Zeroizing<String> {
    SEED.write("", seed.expose())
}

/// Parses the secret half from such a line; ignores white space around it.
///
/// # Errors
/// If the line is not a secret half, is cut short or is damaged.
pub fn seed_from_line(line: &str) -> Result<Secret, LineError> {
    SEED.read("", SEED.body(line)?).map(|seed| Secret::new(*seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let key = SenderKey([7; 32]);
        assert_eq!(key.line(), GOLDEN_LINE);
        assert_eq!(key.fingerprint(), GOLDEN_FINGERPRINT);
        assert_eq!(SenderKey::from_line(&format!(" {GOLDEN_LINE}\r\n")), Ok(key));
    }

    const GOLDEN_LINE: &str = "mcp-sender1-a4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4droakbhy";
    const GOLDEN_FINGERPRINT: &str = "ma3i-cc7u-6r2h-7k5c";

    #[test]
    fn what_is_wrong_is_said() {
        let says = |line: &str| SenderKey::from_line(line).unwrap_err().to_string();
        assert!(
            says("").starts_with("this is no sender's key, which is one line that begins with mcp-sender1-")
        );
        assert!(says("mcp-key1-lab-aaaa").starts_with("this is no sender's key"));
        assert!(says("k7qd-2m4x-bfhc-w3pa").starts_with("this is no sender's key"));
        assert!(says("mcp-sender-x").starts_with("this is no sender's key"));
        assert!(says("mcp-sender2-x").contains("of a version that this mcp does not know"));
        assert!(says(&GOLDEN_LINE[..69]).contains("cut short"));
        assert!(says(&format!("{GOLDEN_LINE}a")).contains("something behind it"));
    }

    #[test]
    fn secret_halves() {
        let line = seed_line(&Secret::new([9; 32]));
        assert!(line.starts_with("mcp-identity1-"));
        assert_eq!(seed_from_line(&format!("{}\n", line.as_str())).unwrap().expose(), &[9; 32]);
        assert!(seed_from_line(&line[..50]).is_err());
        // The check covers the heading.
        assert!(SenderKey::from_line(&line.replace("identity", "sender")).is_err());
    }

    #[test]
    fn every_mistyped_character_is_noticed() {
        for at in 12..GOLDEN_LINE.len() {
            for other in ["a", "b", "7", "A", "0", "-", " ", "."] {
                let mut line = GOLDEN_LINE.to_owned();
                line.replace_range(at..=at, other);
                if line != GOLDEN_LINE {
                    assert!(SenderKey::from_line(&line).is_err(), "{line}");
                }
            }
        }
        assert!(SenderKey::from_line(&GOLDEN_LINE.to_ascii_uppercase()).is_err());
    }
}
