//! Where an object is sent by multicast: what a server tells its devices beside the links of an artifact.

use super::Metadata;
use crate::limits::MAX_SESSION_WAIT;
use data_encoding::HEXLOWER;
use mcp_transfer::crypto::LineError;
use mcp_transfer::crypto::derive::Secret;
use mcp_transfer::crypto::group::GroupKey;
use mcp_transfer::crypto::sign::SigningKey;
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
/// Name of the keys that sessions are sealed with.
const SEAL_NAME: &str = "session";

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
    /// What an agent does that has the object now: send it to others of its segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perform: Option<Perform>,
}

/// A session that an agent performs for its segment, where the server's multicast does not reach.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Perform {
    /// What its keys are derived from, 32 bytes in hexadecimal. Secret.
    secret: String,
    /// The multicast group to send to.
    pub group: SocketAddr,
    /// How many devices wait for it.
    pub devices: u64,
    /// How long it waits for them, in seconds.
    gather: u64,
}

/// The keys of a session that is performed for a fleet.
#[derive(Clone)]
pub struct SessionKeys {
    /// Its sender signs with it.
    pub sender: SigningKey,
    /// It is sealed with it.
    pub seal: GroupKey,
}

impl SessionKeys {
    /// The keys that follow from a session's secret.
    ///
    /// # Errors
    ///
    /// If they cannot be made, which would be a bug.
    pub fn of(secret: &Secret) -> Result<Self, LineError> {
        let sender = secret.derive("mcp 2026-11-22 sender key of a server's session v1", &[]);
        let seal = secret.derive("mcp 2026-11-22 group key of a server's session v1", &[]);
        Ok(Self { sender: SigningKey::new(&sender), seal: GroupKey::new(SEAL_NAME, seal)? })
    }

    /// The session in the group `group` that has these keys, and for which a device waits so long.
    #[must_use]
    pub fn session(&self, group: SocketAddr, wait: Duration) -> Session {
        let (sender, seal) = (self.sender.public().line(), self.seal.line().to_string());
        Session { group, sender, seal, wait: wait.min(MAX_SESSION_WAIT).as_secs() }
    }
}

impl Perform {
    /// A session with keys that follow from `secret`, in a group, for so many devices.
    #[must_use]
    pub fn new(secret: &[u8; 32], group: SocketAddr, devices: u64, gather: Duration) -> Self {
        Self { secret: HEXLOWER.encode(secret), group, devices, gather: gather.as_secs() }
    }

    /// The session's secret; `None` if it cannot be read.
    #[must_use]
    pub fn secret(&self) -> Option<Secret> {
        let bytes = Zeroizing::new(HEXLOWER.decode(self.secret.as_bytes()).ok()?);
        Some(Secret::new(bytes.as_slice().try_into().ok()?))
    }

    /// How long it waits for its devices.
    #[must_use]
    pub fn gather(&self) -> Duration {
        Duration::from_secs(self.gather).min(MAX_SESSION_WAIT)
    }
}

impl fmt::Debug for Perform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret: _, group, devices, gather } = self;
        f.debug_struct("Perform")
            .field("group", group)
            .field("devices", devices)
            .field("gather", gather)
            .finish_non_exhaustive()
    }
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
    fn who_performs_a_session_has_its_keys() {
        let perform =
            Perform::new(&[8; 32], "239.77.1.2:7417".parse().unwrap(), 3, Duration::from_secs(u64::MAX));
        let text = serde_json::to_string(&perform).unwrap();
        let read: Perform = serde_json::from_str(&text).unwrap();
        assert_eq!((&read, read.gather()), (&perform, MAX_SESSION_WAIT));
        let (told, own) = (SessionKeys::of(&read.secret().unwrap()), SessionKeys::of(&Secret::new([8; 32])));
        let (told, own) = (told.unwrap(), own.unwrap());
        assert_eq!(
            (told.sender.public(), told.seal.line().to_string()),
            (own.sender.public(), own.seal.line().to_string())
        );
        assert!(!format!("{perform:?}").contains("0808"));
        let broken = Perform { secret: "08".into(), ..perform };
        assert!(broken.secret().is_none());
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
