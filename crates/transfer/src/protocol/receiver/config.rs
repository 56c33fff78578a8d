//! Configuration of a receiver.

use crate::crypto::derive::Secret;
use crate::crypto::origin::OriginName;
use crate::crypto::primitives::{Primitives, REAL};
use crate::crypto::sign::SigningKey;
use crate::fec::{Memory, OwnMemory};
use crate::limits::RECEIVER_BUFFER_BYTES;
use crate::protocol::trust::Trust;
use crate::time::Time;
use crate::units::{Counter, DeviceId, Digest, Intake, SenderKey, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Everything that a [`super::Receiver`] needs to know. It draws and looks up nothing itself.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// The seed of all random choices.
    pub seed: u64,
    /// The device's stable identifier.
    pub device: DeviceId,
    /// Its name for people; at most 64 bytes.
    pub label: String,
    /// The device's key, if it has one.
    pub device_key: Option<SigningKey>,
    /// The receiver gives up if it has found no sender after this time.
    pub timeout: Duration,
    /// The groups to listen to for announcements.
    pub groups: Vec<SocketAddr>,
    /// If set, only a session with this data address counts.
    pub only: Option<IpAddr>,
    /// If set, only senders at this address count.
    pub source: Option<IpAddr>,
    /// Bytes of block buffers, those inside jobs included; at least four blocks.
    pub buffer_bytes: usize,
    /// The memory of these buffers.
    pub memory: Arc<dyn Memory>,
    /// Random bytes of this run. The device's agreement key of each session is derived from them. They
    /// distinguish the runs of a device.
    pub agreement: Secret,
    /// Checks signatures and agrees on keys.
    pub primitives: &'static dyn Primitives,
    /// The group keys to try. If there are any, only sessions sealed with one of them count.
    pub group_keys: Vec<Secret>,
    /// The senders to accept.
    pub trust: Trust,
    /// If set, only this session counts; otherwise the first acceptable one.
    pub wanted: Option<SessionId>,
    /// If set, only objects of this name count.
    pub name: Option<String>,
    /// Sessions that do not count before these times.
    pub ignored: BTreeMap<SessionId, Time>,
    /// Whether to send nothing at all. Then only sessions without feedback count.
    pub quiet: bool,
    /// The counter of the last session without feedback that was completed from each sender. Older ones do not count.
    pub completed: BTreeMap<SenderKey, Counter>,
    /// If set, objects of pinned and known origins count too, whoever sends them. It has the counter of the last session of
    /// which each object of an origin was completed; older ones do not count. The destination takes blocks before the
    /// object is known to be whole, so it must be one that appears only then: no device, and no pipe.
    pub relayed: Option<BTreeMap<OriginName, Counter>>,
    /// Whether a hook runs once the object is in place.
    pub hook: Option<HookRule>,
    /// How the destination takes blocks.
    pub intake: Intake,
    /// Whether a command reads the object. Then the destination is whole only once that has succeeded.
    pub command: bool,
}

/// When the hook runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookRule {
    /// An object that is in place already does not run it again, unless its root is one of these.
    pub owed: BTreeSet<Digest>,
}

impl ReceiverConfig {
    /// The fields that have no default: identifier, label, groups, seed and random bytes. By default the
    /// receiver waits a minute for a sender, has no group key, and trusts every sender.
    #[must_use]
    pub fn new(
        (device, label): (DeviceId, String),
        groups: Vec<SocketAddr>,
        (seed, agreement): (u64, [u8; 32]),
    ) -> Self {
        Self {
            seed,
            device,
            label,
            device_key: None,
            timeout: Duration::from_secs(60),
            groups,
            only: None,
            source: None,
            buffer_bytes: RECEIVER_BUFFER_BYTES,
            memory: Arc::new(OwnMemory),
            agreement: Secret::new(agreement),
            primitives: REAL,
            group_keys: Vec::new(),
            trust: Trust::anybody(),
            wanted: None,
            name: None,
            ignored: BTreeMap::new(),
            quiet: false,
            completed: BTreeMap::new(),
            relayed: None,
            hook: None,
            intake: Intake::AnyOrder,
            command: false,
        }
    }
}
