//! What the surface tells a sender.

use super::policy::RepairPolicy;
use crate::crypto::derive::Secret;
use crate::crypto::sign::SigningKey;
use crate::layout::Layout;
use crate::limits::{SYMBOL_HEADER_LEN, TAG_RESERVE};
use crate::pacing::{RateMode, udp_overhead};
use crate::protocol::packet_protection::SenderSide;
use crate::task::Task;
use crate::units::{Counter, DeviceId, DeviceKey, Rate, SessionId, Suite};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Everything a [`super::Sender`] needs to know; it draws and looks up nothing itself.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// Rises from session to session: with the keys, it gives the session's identifier.
    pub counter: Counter,
    /// Who sends.
    pub signing_key: SigningKey,
    /// Random bytes for this session's half of the agreement with each device; used for nothing else.
    pub agreement: [u8; 32],
    /// The group's key, if everything is to be sealed for its members.
    pub group_key: Option<Secret>,
    /// How datagrams are sealed.
    pub suite: Suite,
    /// The task. Its options: start as soon as so many devices, or those of the list, are ready.
    pub task: Task,
    /// The keys that devices had in earlier sessions.
    pub known_devices: BTreeMap<DeviceId, DeviceKey>,
    /// The object's manifest, if it fits in the announce; at most [`crate::limits::MAX_MANIFEST`] bytes.
    pub manifest: Vec<u8>,
    /// How the object is cut.
    pub layout: Layout,
    /// Where group data goes: a multicast group, a broadcast address or one host.
    pub data: SocketAddr,
    /// Where announcements go besides.
    pub rendezvous: Vec<SocketAddr>,
    /// How fast, in bits per second on the wire.
    pub rate: RateMode,
    /// How it repairs.
    pub repair: RepairPolicy,
    /// Gather for at most so long.
    pub wait: Duration,
    /// Without a number of devices to expect: start when no device has joined for so long (and one has).
    pub settle: Duration,
    /// Stay so long for late devices after the known ones are done.
    pub linger: Duration,
}

impl SenderConfig {
    /// What a sender cannot do without: its task, the object's layout, where data goes, who sends, the random
    /// bytes for its agreements, and a number that no session of the same keys has had. The rest has its
    /// default: nothing announced elsewhere, a rate found by itself, nothing sealed.
    #[must_use]
    pub fn new(
        task: Task,
        layout: Layout,
        data: SocketAddr,
        (signing_key, agreement, counter): (SigningKey, [u8; 32], Counter),
    ) -> Self {
        Self {
            counter,
            known_devices: BTreeMap::new(),
            manifest: Vec::new(),
            signing_key,
            agreement,
            group_key: None,
            suite: Suite::default(),
            task,
            layout,
            data,
            rendezvous: Vec::new(),
            rate: RateMode::Auto(Rate(1_000_000_000)),
            repair: RepairPolicy::default(),
            wait: Duration::from_secs(10),
            settle: Duration::from_secs(1),
            linger: Duration::ZERO,
        }
    }

    /// The identifier of the session that a sender begins with these.
    #[must_use]
    pub fn session(signing_key: &SigningKey, agreement: [u8; 32], counter: Counter) -> SessionId {
        let side = SenderSide::new(counter, signing_key.clone(), agreement, Suite::default(), None);
        side.session()
    }

    /// Bytes of a symbol's datagram beside its payload, without what the network adds.
    pub(super) const fn symbol_overhead(&self) -> usize {
        SYMBOL_HEADER_LEN + if self.group_key.is_some() { TAG_RESERVE } else { 0 }
    }

    /// Bytes of a symbol's datagram on the wire.
    pub(super) fn datagram_on_wire(&self) -> u64 {
        let symbol = u64::from(self.layout.symbol_size());
        symbol + self.symbol_overhead() as u64 + udp_overhead(self.data)
    }
}
