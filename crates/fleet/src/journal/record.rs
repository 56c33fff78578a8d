//! The records of the journal and their form in the file.
//!
//! A record is one line: 32 hexadecimal digits (the first half of the BLAKE3 hash of the rest of the line), a blank, and
//! a JSON object with the record's number. Numbers grow by one and never restart, so a missing record is noticed.

use super::Error;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::io;

/// The version of the format.
pub(super) const VERSION: u32 = 1;
/// Digits of the checksum.
const CHECK: usize = 32;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Gives a verified file its name.
    Copy,
    /// Runs a handler.
    Run,
    /// Runs a handler's rollback.
    Rollback,
    /// Restarts the machine.
    Reboot,
}

/// Which step: the same identifier is the same step, and happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId {
    /// The hash of the task's document.
    #[serde(with = "hex")]
    pub task: [u8; 32],
    /// The number of the attempt: an operator's `retry` is a new one.
    pub attempt: u32,
    /// The number of the step within the task.
    pub part: u32,
    /// What it does.
    pub action: Action,
}

/// How a step ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It did what it should.
    Done,
    /// It did, and the machine must be restarted before it has an effect.
    RebootNeeded,
    /// It did nothing, and may be tried again later.
    Retry,
    /// It failed.
    Failed,
    /// It was cancelled, and undone if it had begun.
    Cancelled,
    /// It was interrupted, and was neither resumed nor rolled back.
    Interrupted,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// In a word.
    pub verdict: Verdict,
    /// One clause for people, cut to [`crate::limits::MAX_OUTCOME`] bytes.
    pub text: String,
}

impl Outcome {
    /// Combines the two.
    #[must_use]
    pub fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self { verdict, text: text.into() }
    }
}

/// One run of the machine, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(pub String);

impl BootId {
    /// The present one, as the kernel names it.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self(id.trim().to_owned()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub(super) enum Record {
    /// The first one of each file.
    Journal { version: u32 },
    /// A step begins.
    Begin { id: StepId, note: String, boot: BootId },
    /// An interrupted step begins again.
    Resume { id: StepId, boot: BootId },
    /// A step passes its point of no return.
    Commit { id: StepId },
    /// A step has ended.
    End { id: StepId, outcome: Outcome },
    /// An open step, in a file that was written whole.
    Open { id: StepId, note: String, boot: BootId, runs: u32, committed: bool },
    /// An ended step, in a file that was written whole.
    Ended { id: StepId, outcome: Outcome },
    /// The ended steps of a task are of no use any more.
    Forget {
        #[serde(with = "hex")]
        task: [u8; 32],
    },
}

/// A record with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub seq: u64,
    #[serde(flatten)]
    pub record: Record,
}

impl Entry {
    /// The line of the file.
    pub fn line(&self) -> Vec<u8> {
        let json = serde_json::to_string(self).expect("strings and numbers have a form in JSON");
        format!("{} {json}\n", check(json.as_bytes())).into_bytes()
    }
}

fn check(json: &[u8]) -> String {
    HEXLOWER.encode(&blake3::hash(json).as_bytes()[..CHECK / 2])
}

/// What the bytes of a file say.
#[derive(Debug)]
pub(super) struct Replay {
    /// The valid records in order.
    pub entries: Vec<Entry>,
    /// The number of the last one.
    pub seq: u64,
    /// Up to where the file is in order, in bytes.
    pub intact: u64,
    /// Whether acknowledged records were lost, and why it seems so.
    pub damage: Option<String>,
}

/// Reads the records. A cut in the last line is no damage: that record was never acknowledged.
pub(super) fn replay(bytes: &[u8]) -> Result<Replay, Error> {
    let mut replay = Replay { entries: Vec::new(), seq: 0, intact: 0, damage: None };
    let (mut at, mut bad) = (0, false);
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let begins = at;
        at += line.len();
        let Some(json) = valid(line) else {
            bad = true;
            continue;
        };
        // The checksum holds, so a record that cannot be read is one that this version does not know.
        let entry: Entry = serde_json::from_slice(json).map_err(|_| Error::Newer)?;
        if matches!(entry.record, Record::Journal { version } if version != VERSION) {
            return Err(Error::Newer);
        }
        if bad || (entry.seq != replay.seq + 1 && replay.intact > 0) {
            let lost = entry.seq.saturating_sub(replay.seq + 1);
            let what = format!("byte {begins} follows damage; {lost} records are lost");
            replay.damage.get_or_insert(what);
        }
        bad = false;
        if entry.seq <= replay.seq {
            continue;
        }
        replay.seq = entry.seq;
        replay.intact = at as u64;
        replay.entries.push(entry);
    }
    let rest = &bytes[replay.intact as usize..];
    // A record that was not acknowledged ends early, or has pages that were never written. Anything else was whole once.
    let torn = !rest.ends_with(b"\n") || rest.contains(&0);
    if !rest.is_empty() && (!torn || rest.iter().filter(|b| **b == b'\n').count() > 1) {
        replay.damage.get_or_insert(format!("it is not readable from byte {} on", replay.intact));
    }
    Ok(replay)
}

/// The JSON of a line that is whole.
fn valid(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = (line.get(..CHECK)?, line.get(CHECK..)?.strip_prefix(b" ")?);
    (check(json).as_bytes() == sum).then_some(json)
}

/// Hashes as hexadecimal digits.
mod hex {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(hash: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(hash))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
        bytes.try_into().map_err(|_| D::Error::custom("a hash has 64 digits"))
    }
}
