//! Why a document is not used: errors of its form, and refusals of what it says. Refusals have a code for feedback.

use super::envelope::Kind;
use super::keys::Hash;
use crate::limits::{MAX_REMEMBERED, MAX_ROOT_STEPS};

/// A document, or an envelope, that is not well formed. Contains no text of the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Beyond a limit.
    #[error("the {what} is beyond the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// No such document.
    #[error("{0} cannot be read; it is damaged, or no document of a fleet")]
    Unreadable(&'static str),
    /// Of a format that this version does not know.
    #[error("the {kind} has format {format}, which this mcp does not know; update mcp", kind = .kind.name())]
    Format {
        /// The kind of document.
        kind: Kind,
        /// The format.
        format: u64,
    },
    /// A member has a value that is not allowed.
    #[error("the {kind}'s {member} is not allowed: {why}", kind = .kind.name())]
    Member {
        /// The kind of document.
        kind: Kind,
        /// The member.
        member: &'static str,
        /// The rule.
        why: &'static str,
    },
}

/// When a document expired, and by which clock. All in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// When the document expired.
    pub expires: u64,
    /// The device's time: the later of its own clock and the newest signed time it has seen.
    pub time: u64,
    /// The device's own clock.
    pub clock: u64,
}

/// Why a device refuses a document. The device reports it and keeps running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not well formed.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Too few signatures count.
    #[error("the {kind} has {valid} valid signatures of {threshold} that the root asks for", kind = .kind.name())]
    Signatures {
        /// The kind of document.
        kind: Kind,
        /// Distinct keys of the role with a valid signature.
        valid: usize,
        /// How many the root asks for.
        threshold: usize,
    },
    /// For another fleet.
    #[error("the {kind} is for another fleet", kind = .kind.name())]
    Fleet {
        /// The kind of document.
        kind: Kind,
    },
    /// For other devices.
    #[error("the {kind} is not meant for this device", kind = .kind.name())]
    Device {
        /// The kind of document.
        kind: Kind,
    },
    /// A list that answers another question.
    #[error("the list does not answer this device's question (another nonce): it may be a recording")]
    Nonce,
    /// Expired.
    #[error(
        "the {kind} expired at {}, and it is {} (by the device's own clock {})", .at.expires, .at.time, .at.clock,
        kind = .kind.name()
    )]
    Expired {
        /// The kind of document.
        kind: Kind,
        /// The times.
        at: Expired,
    },
    /// The list expired unrenewed, so the server may be cut off by somebody.
    #[error(
        "no valid list: the newest expired at {}, and it is {}; nothing is started until the server gives a new one",
        .0.expires, .0.time
    )]
    Frozen(Expired),
    /// No list was seen yet.
    #[error("no list of tasks was seen yet; nothing is started until the server gives one")]
    NoList,
    /// Older than what was seen before.
    #[error("rollback refused: the {} has number {number}, and {seen} was seen", named(*.kind, .name))]
    Rollback {
        /// The kind of document.
        kind: Kind,
        /// The task's name; empty for others.
        name: String,
        /// The serial or version.
        number: u64,
        /// The newest that was seen.
        seen: u64,
    },
    /// The same number as one seen before, and other content.
    #[error("the {} has number {number} like one seen before, and other content", named(*.kind, .name))]
    Changed {
        /// The kind of document.
        kind: Kind,
        /// The task's name; empty for others.
        name: String,
        /// The serial or version.
        number: u64,
    },
    /// A task that the list does not name, or names with another serial or hash.
    #[error("the list does not name this task {name} (serial {serial}, {hash})")]
    Unlisted {
        /// The task's name.
        name: String,
        /// Its serial.
        serial: u64,
        /// Its hash.
        hash: Hash,
    },
    /// Not the root that the enrolment line names.
    #[error("the server's root 1 is not the one of the enrolment line; ask the operator for a new line")]
    Pin,
    /// Not the root after the trusted one.
    #[error("expected root {expected} and got root {number}")]
    RootOrder {
        /// The version that follows the trusted root.
        expected: u64,
        /// The version that came.
        number: u64,
    },
    /// The newest root is too far away.
    #[error("more than {MAX_ROOT_STEPS} roots at once; the rest comes at the next check-in")]
    RootSteps,
    /// Too many names of tasks.
    #[error("{MAX_REMEMBERED} names of tasks are remembered already; use names again, with a higher serial")]
    TooManyNames,
}

impl Refusal {
    /// The code of feedback for this refusal (`status.code`). Codes never change their meaning.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::Document(DocumentError::Unreadable(_)) => 4000,
            Self::Document(DocumentError::Member { .. }) => 4001,
            Self::Document(DocumentError::Format { .. }) => 4002,
            Self::Document(DocumentError::TooLarge { .. }) => 4003,
            Self::Signatures { .. } => 4010,
            Self::Pin => 4011,
            Self::Fleet { .. } => 4030,
            Self::Device { .. } => 4031,
            Self::Nonce => 4032,
            Self::Expired { .. } => 4080,
            Self::Frozen(_) | Self::NoList => 4081,
            Self::Rollback { .. } => 4090,
            Self::Changed { .. } => 4091,
            Self::Unlisted { .. } => 4092,
            Self::RootOrder { .. } | Self::RootSteps => 4093,
            Self::TooManyNames => 4094,
        }
    }
}

/// A document, with its name if it has one.
fn named(kind: Kind, name: &str) -> String {
    format!("{} {name}", kind.name()).trim_end().to_owned()
}
