//! `one-way-sessions`: the last session without feedback that this machine has completed from each sender, by its
//! counter. A session that is no newer may be a recording.

use super::seen::Seen;
use super::{Keyring, KeyringError};
use crate::limits::MAX_KNOWN_SENDERS;
use crate::units::{Counter, SenderKey};
use std::collections::BTreeMap;

/// A completed session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Completed {
    counter: Counter,
    key: SenderKey,
    /// Text for people: when it was completed.
    label: String,
}

impl Seen for Completed {
    const FILE: &'static str = "one-way-sessions";
    const HEADING: &'static str = "mcp-one-way-sessions 1";
    const CONTEXT: &'static str = "mcp 2026-11-22 check of completed one-way sessions v1";
    const MOST: usize = MAX_KNOWN_SENDERS;
    const DAMAGED: [&'static str; 2] =
        ["completed one-way sessions", "a recording of one would be taken again"];

    fn words(&self) -> [String; 2] {
        [self.counter.0.to_string(), self.key.line()]
    }
    fn label(&self) -> &str {
        &self.label
    }
    fn of([counter, key]: [&str; 2], label: String) -> Option<Self> {
        Some(Self { counter: Counter(counter.parse().ok()?), key: SenderKey::from_line(key).ok()?, label })
    }
}

impl Keyring {
    /// The counter of the last session completed from each sender. A damaged file is set aside, with a warning.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn completed_sessions(
        &self,
        warnings: &mut Vec<String>,
    ) -> Result<BTreeMap<SenderKey, Counter>, KeyringError> {
        let all: Vec<Completed> = self.read_seen(warnings)?;
        Ok(all.into_iter().map(|session| (session.key, session.counter)).collect())
    }

    /// Notes that a session was completed; `when` is text for people. The oldest entry makes room for a new one.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn complete_session(
        &self,
        key: SenderKey,
        counter: Counter,
        when: String,
        warnings: &mut Vec<String>,
    ) -> Result<(), KeyringError> {
        let _lock = self.lock()?;
        let mut all: Vec<Completed> = self.read_seen(warnings)?;
        if let Some(known) = all.iter().position(|session| session.key == key) {
            if all[known].counter >= counter {
                return Ok(());
            }
            all.remove(known);
        }
        if all.len() >= MAX_KNOWN_SENDERS {
            all.remove(0);
        }
        all.push(Completed { counter, key, label: when });
        self.write_seen(&all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_of_each_sender_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::new(dir.path().join("state"));
        let (a, b) = (SenderKey([1; 32]), SenderKey([2; 32]));
        let known = || ring.completed_sessions(&mut Vec::new()).unwrap();
        assert!(known().is_empty());
        for (key, counter) in [(a, 7), (b, 9), (a, 8), (a, 3)] {
            ring.complete_session(key, Counter(counter), "now".into(), &mut Vec::new()).unwrap();
        }
        assert_eq!(known(), BTreeMap::from([(a, Counter(8)), (b, Counter(9))]));
    }

    #[test]
    fn it_is_bounded_and_a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::new(dir.path().to_owned());
        let key = |n: u32| {
            let mut key = SenderKey([0; 32]);
            key.0[..4].copy_from_slice(&n.to_be_bytes());
            key
        };
        let all = |n: u32| Completed { counter: Counter(1), key: key(n), label: String::new() };
        let full: Vec<Completed> = (0..MAX_KNOWN_SENDERS as u32).map(all).collect();
        ring.write_seen(&full).unwrap();
        ring.complete_session(key(u32::MAX), Counter(5), String::new(), &mut Vec::new()).unwrap();
        let known = ring.completed_sessions(&mut Vec::new()).unwrap();
        assert!(known.len() == MAX_KNOWN_SENDERS && !known.contains_key(&key(0)));
        assert_eq!(known[&key(u32::MAX)], Counter(5));
        std::fs::write(dir.path().join("one-way-sessions"), "junk").unwrap();
        let mut warnings = Vec::new();
        assert!(ring.completed_sessions(&mut warnings).unwrap().is_empty());
        assert!(warnings.len() == 1 && warnings[0].contains("taken again"), "{warnings:?}");
    }
}
