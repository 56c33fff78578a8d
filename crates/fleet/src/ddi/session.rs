//! Where an object is sent by multicast: what a server tells its devices beside the links of an artifact.

use super::Metadata;
use crate::limits::MAX_SESSION_WAIT;
use mcp_transfer::crypto::group::GroupKey;
use mcp_transfer::units::SenderKey;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use zeroize::Zeroizing;

const GROUP: &str = "mcp.group";
const SENDER: &str = "mcp.sender";
const SEAL: &str = "mcp.seal";
const WAIT: &str = "mcp.wait";

/// A multicast session that brings an object. It is a hint: what it brings is checked like everything else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The multicast group of its data.
    pub group: SocketAddr,
    /// The key of its sender, as a line `mcp-sender1-...`. The sender has it for this session only.
    pub sender: String,
    /// The key that it is sealed with, as a line `mcp-key1-...`. Secret.
    pub seal: String,
    /// How long a device waits for it to begin, in seconds.
    pub wait: u64,
}

/// What `mcp serve` answers an agent that says what it lacks of an object: join this session, ask again after so many
/// seconds, or, with neither, load it by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOffer {
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// After how many seconds the agent asks again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<u64>,
}

impl Session {
    /// The metadata of a chunk that say it.
    #[must_use]
    pub fn to_metadata(&self) -> [Metadata; 4] {
        let entry = |key: &str, value: String| Metadata { key: key.into(), value };
        [
            entry(GROUP, self.group.to_string()),
            entry(SENDER, self.sender.clone()),
            entry(SEAL, self.seal.clone()),
            entry(WAIT, self.wait.to_string()),
        ]
    }

    /// The session that a chunk's metadata name; `None` if they name none, or what they say cannot be read.
    #[must_use]
    pub fn from_metadata(metadata: &[Metadata]) -> Option<Self> {
        let value = |key: &str| metadata.iter().find(|m| m.key == key).map(|m| m.value.as_str());
        let session = Self {
            group: value(GROUP)?.parse().ok()?,
            sender: value(SENDER)?.to_owned(),
            seal: value(SEAL)?.to_owned(),
            wait: value(WAIT)?.parse::<u64>().ok()?.min(MAX_SESSION_WAIT.as_secs()),
        };
        session.is_usable().then_some(session)
    }

    /// Whether it is in a multicast group, and its keys can be read.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.group.ip().is_multicast() && self.keys().is_some()
    }

    /// How long a device waits for it to begin.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.wait).min(MAX_SESSION_WAIT)
    }

    /// The key of its sender and the key that it is sealed with.
    #[must_use]
    pub fn keys(&self) -> Option<(SenderKey, GroupKey)> {
        let seal = Zeroizing::new(self.seal.clone());
        SenderKey::from_line(&self.sender).ok().zip(GroupKey::from_line(&seal).ok())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, sender, seal: _, wait } = self;
        f.debug_struct("Session")
            .field("group", group)
            .field("sender", sender)
            .field("wait", wait)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcp_transfer::crypto::derive::Secret;

    fn example() -> Session {
        Session {
            group: "239.77.1.2:7417".parse().unwrap(),
            sender: SenderKey([7; 32]).line(),
            seal: GroupKey::new("session", Secret::new([8; 32])).unwrap().line().to_string(),
            wait: 30,
        }
    }

    #[test]
    fn goes_through_metadata_and_bounds_the_wait() {
        let session = example();
        assert_eq!(Session::from_metadata(&session.to_metadata()), Some(session.clone()));
        let endless = Session { wait: u64::MAX, ..session.clone() };
        let read = Session::from_metadata(&endless.to_metadata()).unwrap();
        assert_eq!(read.patience(), MAX_SESSION_WAIT);
        assert!(!format!("{session:?}").contains(&session.seal));
    }

    #[test]
    fn what_cannot_be_read_is_no_session() {
        for broken in 0..4 {
            let mut metadata = example().to_metadata().to_vec();
            metadata[broken].value.push('x');
            assert_eq!(Session::from_metadata(&metadata), None, "{:?}", metadata[broken]);
            metadata.remove(broken);
            assert_eq!(Session::from_metadata(&metadata), None);
        }
    }
}
