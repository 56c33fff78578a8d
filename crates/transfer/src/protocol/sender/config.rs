//! Configuration of a sender.

use super::codings::Compression;
use super::policy::RepairPolicy;
use crate::crypto::derive::Secret;
use crate::crypto::sign::SigningKey;
use crate::layout::Layout;
use crate::limits::{FeedbackBudget, SYMBOL_HEADER_LEN, TAG_RESERVE};
use crate::pacing::{RateMode, udp_overhead};
use crate::protocol::packet_protection::SenderSide;
use crate::protocol::provenance::Provenance;
use crate::task::Task;
use crate::units::{Counter, DeviceId, DeviceKey, Rate, SessionId, Suite};
use crate::wire::ObjectKind;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A time of lingering without an end.
pub const FOREVER: Duration = Duration::MAX;

/// Everything that a [`super::Sender`] needs to know. It draws and looks up nothing itself.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// The session counter. It rises from session to session; with the keys, it gives the session's
    /// identifier.
    pub counter: Counter,
    /// The sender's key.
    pub signing_key: SigningKey,
    /// Random bytes for this session's agreement key; used for nothing else.
    pub agreement: Secret,
    /// The group key, if the session seals for the group.
    pub group_key: Option<Secret>,
    /// The AEAD of all seals.
    pub suite: Suite,
    /// The task. With its option `expected`, the stream starts as soon as that many devices are ready; with `devices`,
    /// as soon as those of the list are.
    pub task: Task,
    /// The keys that devices had in earlier sessions.
    pub known_devices: BTreeMap<DeviceId, DeviceKey>,
    /// The object's manifest, if it fits in the announcement; at most [`crate::limits::MAX_MANIFEST`] bytes.
    pub manifest: Vec<u8>,
    /// The object of another origin that the session passes on, with its name, manifest and block size. Without it, this
    /// sender is the origin.
    pub relayed: Option<Provenance>,
    /// What the object is.
    pub kind: ObjectKind,
    /// The object's division into blocks and symbols, as far as it is known. That of a stream grows.
    pub layout: Layout,
    /// Where group data goes: a multicast group, a broadcast address or one host.
    pub data: SocketAddr,
    /// Further destinations of announcements.
    pub rendezvous: Vec<SocketAddr>,
    /// The rate, in bits per second on the wire.
    pub rate: RateMode,
    /// Feedback datagrams a second that all devices together may send, while the line may carry what `rate` says. As the
    /// rate falls, so does what is announced.
    pub feedback: FeedbackBudget,
    /// The repair policy.
    pub repair: RepairPolicy,
    /// Whether blocks are compressed.
    pub compression: Compression,
    /// Most blocks of a stream that its source keeps; `None` if it keeps all.
    pub window: Option<u32>,
    /// The longest time to gather.
    pub wait: Duration,
    /// If set, the longest time until the first device is ready; `wait` then counts from that moment. [`FOREVER`] for no
    /// end.
    pub wait_first: Option<Duration>,
    /// Without an expected number of devices: the stream starts when at least one has joined and no other has
    /// for this long.
    pub settle: Duration,
    /// How long the sender waits for late devices after the known ones are done; [`FOREVER`] for no end.
    pub linger: Duration,
    /// End after so long, whatever is left to be done: what is not complete then has failed.
    pub max_time: Option<Duration>,
}

impl SenderConfig {
    /// The fields that have no default: task, layout, data address, signing key, random bytes for agreements,
    /// and a counter that no other session of the same keys has. By default the session is announced at its
    /// data address only, finds its rate, and seals nothing for the group. An object that is not sealed is a stream.
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
            relayed: None,
            signing_key,
            agreement: Secret::new(agreement),
            group_key: None,
            suite: Suite::default(),
            task,
            kind: if layout.is_sealed() { ObjectKind::File } else { ObjectKind::Stream },
            layout,
            data,
            rendezvous: Vec::new(),
            rate: RateMode::Auto(Rate(1_000_000_000)),
            feedback: FeedbackBudget::default(),
            repair: RepairPolicy::default(),
            compression: Compression::Off,
            window: None,
            wait: Duration::from_secs(10),
            wait_first: None,
            settle: Duration::from_secs(1),
            linger: Duration::ZERO,
            max_time: None,
        }
    }

    /// The identifier of the session with these keys and this counter.
    #[must_use]
    pub fn session(signing_key: &SigningKey, agreement: [u8; 32], counter: Counter) -> SessionId {
        let side = SenderSide::new(counter, signing_key.clone(), agreement, Suite::default(), None);
        side.session()
    }

    /// The sender's side of packet protection, with these keys and this counter.
    pub(crate) fn side(&self) -> SenderSide {
        let agreement = *self.agreement.expose();
        SenderSide::new(
            self.counter,
            self.signing_key.clone(),
            agreement,
            self.suite,
            self.group_key.as_ref(),
        )
    }

    pub(super) fn lingers_forever(&self) -> bool {
        self.linger == FOREVER
    }

    /// Bytes of a symbol's datagram besides its payload, without the headers of the network.
    pub(in crate::protocol) const fn symbol_overhead(&self) -> usize {
        SYMBOL_HEADER_LEN + if self.group_key.is_some() { TAG_RESERVE } else { 0 }
    }

    /// Bytes of a symbol's datagram on the wire.
    pub(in crate::protocol) fn datagram_on_wire(&self) -> u64 {
        let symbol = u64::from(self.layout.symbol_size());
        symbol + self.symbol_overhead() as u64 + udp_overhead(self.data)
    }
}
