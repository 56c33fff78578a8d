//! Requirements of a session that this program does not meet. The user is told, and can install a program that
//! meets them.

use crate::content::TreeHead;
use crate::limits::WIRE_VERSION;
use crate::wire::{Announce, Capabilities, DecodeError, ObjectKind, Versions};
use std::fmt;

/// A requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A version of the wire format.
    Version(u8),
    /// These capabilities, which this program lacks.
    Capabilities(Capabilities),
    /// A field or an extension of the announcement that only a later program understands.
    Announce(DecodeError),
    /// Answers, which this receiver does not send.
    Answers,
    /// A specified feature that this program does not implement.
    Feature(&'static str),
}

impl Need {
    /// The requirement of a datagram that was not understood, if a later program may understand it.
    #[must_use]
    pub const fn of_error(error: DecodeError) -> Option<Self> {
        match error {
            DecodeError::UnsupportedVersion(version) => Some(Self::Version(version)),
            error if error.is_not_understood() => Some(Self::Announce(error)),
            _ => None,
        }
    }

    /// The requirement of an announcement that this program does not meet, if there is one.
    #[must_use]
    pub fn of_announce(announce: &Announce) -> Option<Self> {
        if announce.versions.common(Versions::OURS).is_none() {
            return Some(Self::Version(announce.versions.min));
        }
        let missing = announce.required.without(Capabilities::OURS);
        if !missing.is_empty() {
            return Some(Self::Capabilities(missing));
        }
        match announce.objects[..] {
            [object] if matches!(object.kind, ObjectKind::File | ObjectKind::Stream | ObjectKind::Device) => {
                None
            }
            [object] if object.kind == ObjectKind::Tree => match TreeHead::decode(&announce.manifest) {
                Ok(head) if u64::from(head.manifest) <= object.size => None,
                _ => Some(Self::Feature("trees of another form")),
            },
            [_] => Some(Self::Feature("objects that are no files, trees, streams or devices")),
            _ => Some(Self::Feature("several objects")),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(f, "wire version {version} (this program speaks {WIRE_VERSION})")
            }
            Self::Capabilities(missing) => write!(f, "capabilities {:#010x}", missing.0),
            Self::Announce(DecodeError::UnknownCritical { message, number }) => {
                write!(f, "extension {number} of {message}")
            }
            Self::Announce(DecodeError::NotSupported { field, number, .. }) => write!(f, "{field} {number}"),
            Self::Announce(error) => error.fmt(f),
            Self::Answers => f.write_str("answers"),
            Self::Feature(feature) => f.write_str(feature),
        }
    }
}
