//! What the surface tells a sender.

use crate::crypto::derive::Secret;
use crate::crypto::sign::SigningKey;
use crate::layout::Layout;
use crate::limits::{SYMBOL_HEADER_LEN, TAG_RESERVE};
use crate::pacing::{RateMode, udp_overhead};
use crate::units::{Rate, SessionId, Suite, TaskId};
use std::net::SocketAddr;
use std::time::Duration;

/// What becomes of a device that carries less than half of what the others do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// The group goes on at the rate the rest carry; the device is served alone, afterwards.
    #[default]
    Defer,
    /// Everybody waits for it.
    Keep,
    /// It fails.
    Drop,
}

/// Everything a [`super::Sender`] needs to know; it draws and looks up nothing itself.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// The session; not 0.
    pub session: SessionId,
    /// Who sends.
    pub signing_key: SigningKey,
    /// Random bytes for this session's half of the agreement with each device; used for nothing else.
    pub agreement: [u8; 32],
    /// The group's key, if everything is to be sealed for its members.
    pub group_key: Option<Secret>,
    /// How datagrams are sealed.
    pub suite: Suite,
    /// The task.
    pub task: TaskId,
    /// The object's name, 1 to 255 bytes.
    pub name: String,
    /// How the object is cut.
    pub layout: Layout,
    /// Where group data goes: a multicast group, a broadcast address or one host.
    pub data: SocketAddr,
    /// Where announcements go besides.
    pub rendezvous: Vec<SocketAddr>,
    /// How fast, in bits per second on the wire.
    pub rate: RateMode,
    /// What becomes of a device that carries far less than the others.
    pub slow: SlowPolicy,
    /// Start as soon as so many devices are ready; also the number expected to complete.
    pub expected: Option<u32>,
    /// Gather for at most so long.
    pub wait: Duration,
    /// Without `expected`: start when no device has joined for so long (and one has).
    pub settle: Duration,
    /// Stay so long for late devices after the known ones are done.
    pub linger: Duration,
}

impl SenderConfig {
    /// What a sender cannot do without: its session and task, the object's name and layout, where data goes,
    /// who sends, and the random bytes for its agreements. The rest has its default: nothing announced
    /// elsewhere, a rate found by itself, nobody expected, nothing sealed.
    #[must_use]
    pub fn new(
        (session, task): (SessionId, TaskId),
        (name, layout): (String, Layout),
        data: SocketAddr,
        (signing_key, agreement): (SigningKey, [u8; 32]),
    ) -> Self {
        Self {
            session,
            signing_key,
            agreement,
            group_key: None,
            suite: Suite::default(),
            task,
            name,
            layout,
            data,
            rendezvous: Vec::new(),
            rate: RateMode::Auto(Rate(1_000_000_000)),
            slow: SlowPolicy::default(),
            expected: None,
            wait: Duration::from_secs(10),
            settle: Duration::from_secs(1),
            linger: Duration::ZERO,
        }
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
