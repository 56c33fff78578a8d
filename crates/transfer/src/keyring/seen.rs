//! Lists of keys seen before, each with its owner: text files that end with a check.
//!
//! ```text
//! mcp-known-senders 1
//! 10.0.0.5 mcp-sender1-... 2026-11-20T09:30:00Z
//! check 5d41402abc4b2a76b9719d911017c592
//! ```
//! The check is the first 16 bytes of a hash of all lines before the check.

use super::{Keyring, KeyringError, at, is_absent};
use crate::limits::MAX_LABEL;
use crate::storage::{set_aside, write_private};
use std::fmt::Write;
use std::fs::File;
use std::io::Read;

/// Longest line: the key's owner (39 bytes for an address), the key, a label, two separators and a line break.
const MAX_LINE: usize = 45 + 70 + MAX_LABEL + 3;

/// An entry of a list. Each list is one file of the state directory.
pub(super) trait Seen: Sized {
    /// Name of the file.
    const FILE: &'static str;
    /// First line of the file, with the version of the format.
    const HEADING: &'static str;
    /// Domain of the check's hash; never changes within a version.
    const CONTEXT: &'static str;
    /// Most entries.
    const MOST: usize;
    /// Words of the warning about a damaged list: the list, and the consequence.
    const DAMAGED: [&'static str; 2];

    /// The key's owner, without spaces, and the key's line.
    fn words(&self) -> [String; 2];
    /// Text for people.
    fn label(&self) -> &str;
    /// The entry with these words and this label; `None` if they are invalid.
    fn of(words: [&str; 2], label: String) -> Option<Self>;
}

impl Keyring {
    /// All entries. A damaged file is set aside, with a warning.
    pub(super) fn read_seen<S: Seen>(&self, warnings: &mut Vec<String>) -> Result<Vec<S>, KeyringError> {
        let path = self.dir.join(S::FILE);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(most_bytes::<S>() + 1).read_to_end(&mut bytes)) {
            Err(e) if is_absent(&e) => return Ok(Vec::new()),
            other => at("read", &path, other)?,
        };
        if let Some(seen) = parse(&bytes) {
            return Ok(seen);
        }
        let aside = at("set aside", &path, set_aside(&path))?;
        let ([list, follows], aside) = (S::DAMAGED, aside.display());
        warnings.push(format!("the list of {list} was damaged and is now {aside}; {follows}"));
        Ok(Vec::new())
    }

    /// Writes the whole list. The caller holds the lock.
    pub(super) fn write_seen<S: Seen>(&self, seen: &[S]) -> Result<(), KeyringError> {
        let path = self.dir.join(S::FILE);
        at("write", &path, write_private(&path, text(seen).as_bytes()))
    }
}

const fn most_bytes<S: Seen>() -> u64 {
    256 + (S::MOST * MAX_LINE) as u64
}

/// The file's content.
pub(super) fn text<S: Seen>(seen: &[S]) -> String {
    let mut text = format!("{}\n", S::HEADING);
    for entry in seen {
        let mut label: String = entry.label().chars().filter(|c| !c.is_control()).collect();
        while label.len() > MAX_LABEL {
            label.pop();
        }
        let [whose, key] = entry.words();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{whose} {key} {}", label.trim());
    }
    let check = check::<S>(&text);
    let _ = writeln!(text, "check {check}");
    text
}

/// Parses the file's content; `None` if it is damaged.
pub(super) fn parse<S: Seen>(bytes: &[u8]) -> Option<Vec<S>> {
    if bytes.len() as u64 > most_bytes::<S>() {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let at = text.trim_end_matches('\n').rfind('\n')? + 1;
    let (body, last) = text.split_at(at);
    if last.trim_end_matches('\n').strip_prefix("check ")? != check::<S>(body) {
        return None;
    }
    let lines = body.strip_prefix(S::HEADING)?.strip_prefix('\n')?.lines();
    let seen: Option<Vec<S>> = lines.map(parse_line).collect();
    seen.filter(|seen| seen.len() <= S::MOST)
}

fn parse_line<S: Seen>(line: &str) -> Option<S> {
    let (whose, rest) = line.split_once(' ')?;
    let (key, label) = rest.split_once(' ')?;
    if label.len() > MAX_LABEL || label.chars().any(char::is_control) {
        return None;
    }
    S::of([whose, key], label.to_owned())
}

fn check<S: Seen>(body: &str) -> String {
    let hash = blake3::derive_key(S::CONTEXT, body.as_bytes());
    data_encoding::HEXLOWER.encode(&hash[..16])
}
