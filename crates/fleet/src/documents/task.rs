//! The task: what is to be done, with which objects, by which devices, and when. Signed by operators.

use super::envelope::{Envelope, Kind};
use super::keys::{FleetId, Hash, SecretKey};
use super::refusal::DocumentError;
use super::rules::{FORMAT, NAME_RULE, is_filename, is_label, is_name, read, require};
use super::terms::{Term, matches};
use crate::limits::{
    MAX_ARGUMENT, MAX_ARGUMENTS, MAX_NAME, MAX_OBJECT_SIZE, MAX_OBJECTS, MAX_PATH, MAX_PATTERNS,
    MAX_REFERENCES, MAX_TERMS,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// What is to be done with the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// They are put in place as files.
    Copy,
    /// A handler installs them.
    Install,
    /// A handler updates the device by them.
    Update,
    /// A handler uses them as data.
    Batch,
}

impl TaskKind {
    /// Its word in documents and on command lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Install => "install",
            Self::Update => "update",
            Self::Batch => "batch",
        }
    }
}

/// An argument for a handler. The handler's manifest says which it takes, and of which type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Argument {
    /// A yes or no.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
}

/// A file that the task needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// One path component.
    pub filename: String,
    /// In bytes.
    pub size: u64,
    /// As `b3sum` prints it.
    pub blake3: Hash,
    /// As `sha256sum` prints it.
    pub sha256: Hash,
}

/// Who the task is for. A device checks it by what it knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Every device that the server lists it for.
    All,
    /// Devices by name; `*` in a name stands for any characters.
    Devices(BTreeSet<String>),
    /// Devices whose attributes satisfy all of these.
    Terms(Vec<Term>),
}

/// A daily window, in the device's time zone; over midnight if it ends before it begins. Its text is `22:00-05:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    /// The first minute of the day that is in the window.
    from: u16,
    /// The first minute of the day that is not.
    to: u16,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    format: u64,
    /// The fleet.
    pub fleet: FleetId,
    /// What later tasks replace: `editor`, `firmware`. A device takes one with a higher serial than before, never a lower one.
    pub name: String,
    /// Grows with each task of this name.
    pub serial: u64,
    /// The version for people, and for conditions on what is installed; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// When it was signed, in seconds since 1970.
    pub issued: u64,
    /// After this nothing of it begins any more, in seconds since 1970.
    pub expires: u64,
    /// What is to be done.
    pub kind: TaskKind,
    /// The handler; absent for copies only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// For the handler.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, Argument>,
    /// The files.
    pub objects: Vec<Object>,
    /// For copies: an absolute path. With a `/` at its end it is the directory that gets the objects, else the name of the one
    /// object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Who it is for.
    pub to: Audience,
    /// What must hold when it begins, else the device already has what it needs. The attribute `version` is that of the
    /// task of this name which the device completed last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Term>,
    /// Keys of multicast senders that may bring the objects (`mcp-sender1-...`); none: any, since the bytes are checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub senders: Vec<String>,
    /// The earliest time at which a step other than loading begins, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// The daily window in which such a step begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Names of tasks that must be completed before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
}

impl Window {
    /// The window from minute `from` of the day up to minute `to`; `None` unless both are below 1440 and differ.
    #[must_use]
    pub const fn new(from: u16, to: u16) -> Option<Self> {
        if from < 1440 && to < 1440 && from != to { Some(Self { from, to }) } else { None }
    }

    /// Whether `minute` of the day is in the window.
    #[must_use]
    pub const fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            self.from <= minute && minute < self.to
        } else {
            self.from <= minute || minute < self.to
        }
    }

    /// The minute of the day at which it opens.
    #[must_use]
    pub const fn from(self) -> u16 {
        self.from
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl FromStr for Window {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a window such as 22:00-05:00";
        let minute = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let number = |text: &str, below: u16| {
                let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
                text.parse::<u16>().ok().filter(|n| digits && *n < below)
            };
            Some(number(hours, 24)? * 60 + number(minutes, 60)?)
        };
        let ends = text.split_once('-').and_then(|(from, to)| Some((minute(from)?, minute(to)?)));
        ends.and_then(|(from, to)| Self::new(from, to)).ok_or(EXPECTED)
    }
}

impl TryFrom<String> for Window {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

impl Audience {
    /// Whether a device with this identifier and these attributes is meant.
    #[must_use]
    pub fn includes(&self, device: &str, attributes: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Devices(patterns) => patterns.iter().any(|pattern| matches(pattern, device)),
            Self::Terms(terms) => terms.iter().all(|term| term.holds(attributes)),
        }
    }
}

impl Task {
    /// A copy of nothing to nowhere for all, to be filled in. Times are in seconds since 1970.
    #[must_use]
    pub fn new(fleet: FleetId, name: &str, serial: u64, (issued, expires): (u64, u64)) -> Self {
        Self {
            format: FORMAT,
            fleet,
            name: name.to_owned(),
            serial,
            version: String::new(),
            issued,
            expires,
            kind: TaskKind::Copy,
            handler: None,
            arguments: BTreeMap::new(),
            objects: Vec::new(),
            at: None,
            to: Audience::All,
            when: Vec::new(),
            senders: Vec::new(),
            start: None,
            window: None,
            after: Vec::new(),
        }
    }

    /// Reads a task from a payload. Does not look at signatures.
    ///
    /// # Errors
    /// If it is not a task of a known format, or a member is not allowed.
    pub fn parse(payload: &[u8]) -> Result<Self, DocumentError> {
        let task: Self = read(Kind::Task, payload)?;
        task.check()?;
        Ok(task)
    }

    /// Signs the task with `keys`. [`Envelope::sign`] adds further ones later.
    ///
    /// # Errors
    /// If a member is not allowed, or the envelope would be too large.
    pub fn sign(&self, keys: &[&SecretKey]) -> Result<Envelope, DocumentError> {
        self.check()?;
        let envelope = super::seal(self, Kind::Task, keys);
        Envelope::parse(&envelope.to_bytes())
    }

    /// The bytes of all objects.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }

    fn check(&self) -> Result<(), DocumentError> {
        let rule = |holds, member, why| require(holds, Kind::Task, member, why);
        rule(is_name(&self.name), "name", NAME_RULE)?;
        rule(self.serial >= 1, "serial", "serials begin at 1")?;
        rule(is_label(&self.version), "version", "at most 128 bytes, no control characters")?;
        rule(self.issued < self.expires, "expires", "it must be after 'issued'")?;
        match self.kind {
            TaskKind::Copy => {
                rule(self.handler.is_none() && self.arguments.is_empty(), "handler", "a copy has none")?;
                rule(!self.objects.is_empty(), "objects", "a copy needs an object")?;
                rule(self.at.as_deref().is_some_and(is_destination), "at", DESTINATION_RULE)?;
                let directory = self.at.as_deref().is_some_and(|at| at.ends_with('/'));
                rule(
                    directory || self.objects.len() == 1,
                    "at",
                    "several objects need a directory, with '/' at its end",
                )?;
            }
            _ => {
                rule(self.handler.as_deref().is_some_and(is_name), "handler", NAME_RULE)?;
                rule(self.at.is_none(), "at", "only a copy has a destination")?;
            }
        }
        rule(self.arguments.len() <= MAX_ARGUMENTS, "arguments", "at most 64 arguments")?;
        for (name, value) in &self.arguments {
            rule(is_name(name), "arguments", NAME_RULE)?;
            if let Argument::Text(text) = value {
                let fits = text.len() <= MAX_ARGUMENT && !text.contains('\0');
                rule(fits, "arguments", "at most 4096 bytes each, without a zero byte")?;
            }
        }
        self.check_objects()?;
        let to = match &self.to {
            Audience::All => true,
            Audience::Devices(patterns) => {
                let name = |pattern: &String| {
                    (1..=MAX_NAME).contains(&pattern.len()) && !pattern.chars().any(char::is_control)
                };
                (1..=MAX_PATTERNS).contains(&patterns.len()) && patterns.iter().all(name)
            }
            Audience::Terms(terms) => {
                (1..=MAX_TERMS).contains(&terms.len()) && terms.iter().all(Term::is_valid)
            }
        };
        rule(to, "to", "1 to 512 names of devices, or 1 to 32 conditions")?;
        let when = self.when.len() <= MAX_TERMS && self.when.iter().all(Term::is_valid);
        rule(when, "when", "at most 32 conditions")?;
        let senders = self.senders.len() <= MAX_REFERENCES && self.senders.iter().all(|s| is_label(s));
        rule(senders, "senders", "at most 16 keys")?;
        rule(self.after.len() <= MAX_REFERENCES, "after", "at most 16 tasks")?;
        rule(self.after.iter().all(|name| is_name(name)), "after", NAME_RULE)?;
        rule(!self.after.contains(&self.name), "after", "a task cannot wait for itself")?;
        rule(self.start.is_none_or(|start| start < self.expires), "start", "it must be before 'expires'")
    }

    fn check_objects(&self) -> Result<(), DocumentError> {
        let rule = |holds, why| require(holds, Kind::Task, "objects", why);
        rule(self.objects.len() <= MAX_OBJECTS, "at most 1024 objects")?;
        rule(
            self.objects.iter().all(|object| is_filename(&object.filename)),
            "a filename is one path component of at most 255 bytes, without control characters",
        )?;
        let names: BTreeSet<_> = self.objects.iter().map(|object| &object.filename).collect();
        rule(names.len() == self.objects.len(), "each filename at most once")?;
        rule(self.objects.iter().all(|object| object.size <= MAX_OBJECT_SIZE), "at most 1 PiB each")
    }
}

/// The rule that [`is_destination`] checks.
const DESTINATION_RULE: &str =
    "an absolute path of at most 1024 bytes, without '.', '..' and control characters";

/// Whether `path` can be the directory of a copy.
fn is_destination(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= MAX_PATH
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| part.is_empty() || is_filename(part))
}
