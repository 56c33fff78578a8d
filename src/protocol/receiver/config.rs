//! What the surface tells a receiver.

use crate::crypto::derive::Secret;
use crate::crypto::sign::SigningKey;
use crate::limits::RECEIVER_BUFFER_BYTES;
use crate::protocol::trust::Trust;
use crate::units::{DeviceId, SessionId};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Everything a [`super::Receiver`] needs to know; it draws and looks up nothing itself.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// Seed of all its random choices.
    pub seed: u64,
    /// The device's stable identifier.
    pub device: DeviceId,
    /// Its name for people; at most 64 bytes.
    pub label: String,
    /// Its key, if it has one.
    pub device_key: Option<SigningKey>,
    /// No sender by then: give up.
    pub timeout: Duration,
    /// Where announces are looked for.
    pub groups: Vec<SocketAddr>,
    /// Take part only in a session whose data goes to this address.
    pub only: Option<IpAddr>,
    /// Bytes of block buffers, those inside jobs included; four blocks at the least.
    pub buffer_bytes: usize,
    /// Random bytes, drawn for this run: what the device's half of each agreement comes from. They tell one
    /// run of a device from another.
    pub agreement: [u8; 32],
    /// Group keys to try. If there are any, only sessions sealed with one of them are taken.
    pub group_keys: Vec<Secret>,
    /// Whom files are taken from.
    pub trust: Trust,
    /// Take part in this session only; none: the first that will do.
    pub wanted: Option<SessionId>,
}

impl ReceiverConfig {
    /// What a receiver cannot do without: its identifier and label, where to listen, a seed and random bytes
    /// for its agreements. The rest has its default: a minute to find a sender, nothing sealed, and trust in
    /// anybody.
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
            buffer_bytes: RECEIVER_BUFFER_BYTES,
            agreement,
            group_keys: Vec::new(),
            trust: Trust::anybody(),
            wanted: None,
        }
    }
}
