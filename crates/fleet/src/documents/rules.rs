//! Rules that several documents share: reading JSON of a known format, names, and text for people.

use super::envelope::Kind;
use super::refusal::DocumentError;
use crate::limits::{MAX_FILENAME, MAX_NAME};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The format of every document of this version.
pub(super) const FORMAT: u64 = 1;

/// Reads a payload of this kind. The format is looked at first: what follows it is the format's business.
pub(super) fn read<T: DeserializeOwned>(kind: Kind, payload: &[u8]) -> Result<T, DocumentError> {
    #[derive(Deserialize)]
    struct Head {
        format: u64,
    }
    let unreadable = |_| DocumentError::Unreadable(kind.name());
    let head: Head = serde_json::from_slice(payload).map_err(unreadable)?;
    if head.format != FORMAT {
        return Err(DocumentError::Format { kind, format: head.format });
    }
    serde_json::from_slice(payload).map_err(unreadable)
}

/// Fails with `why` unless `holds`.
pub(super) fn require(
    holds: bool,
    kind: Kind,
    member: &'static str,
    why: &'static str,
) -> Result<(), DocumentError> {
    if holds { Ok(()) } else { Err(DocumentError::Member { kind, member, why }) }
}

/// The rule that [`is_name`] checks, for messages.
pub(super) const NAME_RULE: &str = "1 to 128 of A-Z, a-z, 0-9, '.', '_', '-', not beginning with '.' or '-'";

/// Whether `text` can name a task, a device or a handler: one path component that needs no quoting anywhere.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether `text` is one component of a path, without control characters.
pub(crate) fn is_filename(text: &str) -> bool {
    (1..=MAX_FILENAME).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.chars().any(|c| c == '/' || c.is_control())
}

/// Whether `text` is a short text for people: no control characters.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}
