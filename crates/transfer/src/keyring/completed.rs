//! `completed-sessions`: by their counters, the last session without feedback that this machine has completed from each
//! sender, and the last session of which it has completed each object of an origin. What is older may be a recording.

use super::seen::Seen;
use super::{Keyring, KeyringError};
use crate::crypto::origin::OriginName;
use crate::limits::MAX_KNOWN_SENDERS;
use crate::units::{Counter, SenderKey};
use data_encoding::HEXLOWER;
use std::collections::BTreeMap;

/// What was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletedOf {
    /// A session without feedback of this sender.
    OneWay(SenderKey),
    /// An object of this name, of an origin.
    Object(OriginName),
}

/// The counters of the last sessions that were completed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompletedSessions {
    /// Those without feedback, by sender.
    pub one_way: BTreeMap<SenderKey, Counter>,
    /// Those of objects, by origin and name.
    pub objects: BTreeMap<OriginName, Counter>,
}

/// A completed session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Completed {
    of: CompletedOf,
    counter: Counter,
    /// Text for people: when it was completed.
    label: String,
}

impl Seen for Completed {
    const FILE: &'static str = "completed-sessions";
    const HEADING: &'static str = "mcp-completed-sessions 1";
    const CONTEXT: &'static str = "mcp 2026-11-23 check of completed sessions v1";
    const MOST: usize = MAX_KNOWN_SENDERS;
    const DAMAGED: [&'static str; 2] = ["completed sessions", "a recording of one would be taken again"];

    /// `COUNTER` or `COUNTER:NAME`, and the key.
    fn words(&self) -> [String; 2] {
        let counter = self.counter.0;
        match &self.of {
            CompletedOf::OneWay(key) => [counter.to_string(), key.line()],
            CompletedOf::Object(object) => {
                [format!("{counter}:{}", HEXLOWER.encode(&object.name)), object.key.line()]
            }
        }
    }
    fn label(&self) -> &str {
        &self.label
    }
    fn of([session, key]: [&str; 2], label: String) -> Option<Self> {
        let key = SenderKey::from_line(key).ok()?;
        let (counter, of) = match session.split_once(':') {
            None => (session, CompletedOf::OneWay(key)),
            Some((counter, name)) => {
                let name = HEXLOWER.decode(name.as_bytes()).ok()?.try_into().ok()?;
                (counter, CompletedOf::Object(OriginName { key, name }))
            }
        };
        Some(Self { of, counter: Counter(counter.parse().ok()?), label })
    }
}

impl Keyring {
    /// What was completed last. A damaged file is set aside, with a warning.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn completed_sessions(&self, warnings: &mut Vec<String>) -> Result<CompletedSessions, KeyringError> {
        let CompletedSessions { mut one_way, mut objects } = CompletedSessions::default();
        for Completed { of, counter, .. } in self.read_seen(warnings)? {
            match of {
                CompletedOf::OneWay(key) => one_way.insert(key, counter),
                CompletedOf::Object(object) => objects.insert(object, counter),
            };
        }
        Ok(CompletedSessions { one_way, objects })
    }

    /// Notes that a session was completed; `when` is text for people. The oldest entry makes room for a new one.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn complete_session(
        &self,
        of: CompletedOf,
        counter: Counter,
        when: String,
        warnings: &mut Vec<String>,
    ) -> Result<(), KeyringError> {
        let _lock = self.lock()?;
        let mut all: Vec<Completed> = self.read_seen(warnings)?;
        if let Some(known) = all.iter().position(|session| session.of == of) {
            if all[known].counter >= counter {
                return Ok(());
            }
            all.remove(known);
        }
        if all.len() >= MAX_KNOWN_SENDERS {
            all.remove(0);
        }
        all.push(Completed { of, counter, label: when });
        self.write_seen(&all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_of_each_sender_and_each_object_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::new(dir.path().join("state"));
        let (a, b) = (SenderKey([1; 32]), SenderKey([2; 32]));
        let known = || ring.completed_sessions(&mut Vec::new()).unwrap();
        assert_eq!(known(), CompletedSessions::default());
        let (x, y) = (OriginName::new(a, "x"), OriginName::new(a, "y"));
        let complete = |of, counter| {
            ring.complete_session(of, Counter(counter), "now".into(), &mut Vec::new()).unwrap();
        };
        for (key, counter) in [(a, 7), (b, 9), (a, 8), (a, 3)] {
            complete(CompletedOf::OneWay(key), counter);
        }
        for (object, counter) in [(x, 20), (y, 2), (x, 21), (x, 5)] {
            complete(CompletedOf::Object(object), counter);
        }
        let one_way = BTreeMap::from([(a, Counter(8)), (b, Counter(9))]);
        let objects = BTreeMap::from([(x, Counter(21)), (y, Counter(2))]);
        assert_eq!(known(), CompletedSessions { one_way, objects });
    }

    #[test]
    fn it_is_bounded_and_a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::new(dir.path().to_owned());
        let key = |n: u32| {
            let mut key = SenderKey([0xff; 32]);
            key.0[..4].copy_from_slice(&n.to_be_bytes());
            key
        };
        // The longest lines that there are.
        let label = "2026-11-23T10:00:00Z".to_owned();
        let of = |n: u32| CompletedOf::Object(OriginName::new(key(n), "x"));
        let all = |n: u32| Completed { of: of(n), counter: Counter(u64::MAX), label: label.clone() };
        let full: Vec<Completed> = (0..MAX_KNOWN_SENDERS as u32).map(all).collect();
        ring.write_seen(&full).unwrap();
        let newest = CompletedOf::OneWay(key(u32::MAX));
        ring.complete_session(newest, Counter(5), String::new(), &mut Vec::new()).unwrap();
        let CompletedSessions { one_way, objects } = ring.completed_sessions(&mut Vec::new()).unwrap();
        assert_eq!(one_way, BTreeMap::from([(key(u32::MAX), Counter(5))]));
        let first = OriginName::new(key(0), "x");
        assert!(objects.len() == MAX_KNOWN_SENDERS - 1 && !objects.contains_key(&first));
        std::fs::write(dir.path().join("completed-sessions"), "junk").unwrap();
        let mut warnings = Vec::new();
        assert_eq!(ring.completed_sessions(&mut warnings).unwrap(), CompletedSessions::default());
        assert!(warnings.len() == 1 && warnings[0].contains("taken again"), "{warnings:?}");
    }
}
