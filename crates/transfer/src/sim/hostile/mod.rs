//! Hostile actors: outsiders without keys, who hear everything and send from any address, and admitted
//! devices that lie.
//!
//! ```text
//!   a seed -> plans (draw)          outsider  junk, replays, forgeries
//!      |                           /
//!   actor  when, how much, to whom --- flood  joins: made up, recorded, or of invented devices
//!      |                           \
//!     air  overheard datagrams      insider   lying NAKs and reports, duplicate identifiers, runs without end
//!                                      |
//!                                    liar     keeps the sender busy for as long as it can
//! ```
//!
//! They stay within the documented limits of the defence: they do not flood links, and do not forge
//! symbols or challenges by the hundred.

mod actors;
mod draw;
mod flood;
mod insider;
mod outsider;

pub use actors::Hostile;
pub use flood::Joins;
pub use insider::Lie;

use super::faults::Faults;
use super::network::{Attachment, NodeId};
use crate::crypto::derive::Secret;
use crate::layout::Layout;
use crate::time::Time;
use crate::units::{ChannelId, Digest, SessionId};
use crate::wire::{self, MessageKind};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// The behaviour of a hostile actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Random bytes of all lengths.
    Junk,
    /// The session's header with a random body.
    Headed,
    /// Overheard datagrams, at once or later, from its own address or the original one.
    Replay,
    /// Overheard datagrams with a few changed bits.
    Altered,
    /// The sender's announces, relayed at once from its own address or from an address without a node.
    Relay,
    /// Announces of its own sessions, and of this session as its own.
    Announces,
    /// Whole sessions of the sender that are over, played back: announces, symbols, hashes, polls, aborts.
    Past,
    /// What the sender says, signed by somebody else.
    Impostor,
    /// Messages of devices without their keys.
    Mimic,
    /// The sender's announces with other versions, capabilities, algorithms or extensions, signed as they were or by
    /// somebody else.
    Downgrade,
    /// What the sender has signed for no group, sealed for this one by a member; or what it has signed for this
    /// one, laid bare.
    Regroup,
    /// Symbols of the session with other bytes: from outside, or with a group key from inside.
    Symbols,
    /// Hundreds or thousands of joins a second.
    JoinFlood(Joins),
    /// A device that reports existing and impossible blocks as missing.
    Needs,
    /// A device whose reports are inconsistent.
    Reports,
    /// A device with a receipt of another file.
    WrongReceipt,
    /// A device with a receipt, but without the file.
    FalseReceipt,
    /// A device that starts new runs all the time.
    Reruns,
    /// A device with many identifiers.
    Crowd,
    /// A host that invents devices, under the names of the listed ones too, with keys and without.
    Sybil,
    /// A device with the identifier of the device with this number.
    DuplicateId(u32),
    /// A device that joins and then falls silent.
    Silent,
    /// A device that leaves again and again, with long reasons.
    Leaver,
    /// A device that keeps the sender busy for as long as it can.
    SlowLiar(Lie),
}

impl Attack {
    const OUTSIDERS: [Self; 14] = [
        Self::Junk,
        Self::Headed,
        Self::Replay,
        Self::Altered,
        Self::Relay,
        Self::Announces,
        Self::Past,
        Self::Impostor,
        Self::Mimic,
        Self::Downgrade,
        Self::Regroup,
        Self::Symbols,
        Self::JoinFlood(Joins::MadeUp),
        Self::JoinFlood(Joins::Recorded),
    ];
    const INSIDERS: [Self; 13] = [
        Self::Needs,
        Self::Reports,
        Self::WrongReceipt,
        Self::FalseReceipt,
        Self::Reruns,
        Self::Crowd,
        Self::DuplicateId(0),
        Self::Silent,
        Self::Leaver,
        // They tell many lies.
        Self::SlowLiar(Lie::Greedy),
        Self::SlowLiar(Lie::Greedy),
        Self::SlowLiar(Lie::Greedy),
        Self::JoinFlood(Joins::Invented),
    ];

    /// The class that counts its datagrams.
    const fn class(self) -> &'static str {
        match self {
            Self::Junk => "outsider: junk",
            Self::Headed => "outsider: junk with the session's header",
            Self::Replay => "outsider: replay",
            Self::Altered => "outsider: bits changed",
            Self::Relay => "outsider: announce passed on",
            Self::Announces => "outsider: announce of its own",
            Self::Past => "outsider: a session from the past",
            Self::Impostor => "outsider: forged word of the sender",
            Self::Mimic => "outsider: forged word of a device",
            Self::Downgrade => "outsider: announce of other abilities",
            Self::Regroup => "member: announce moved to another group",
            Self::Symbols => "forged symbol",
            Self::JoinFlood(joins) => joins.class(),
            Self::Needs => "hostile device: false needs",
            Self::Reports => "hostile device: false report",
            Self::WrongReceipt => "hostile device: receipt of another file",
            Self::FalseReceipt => "hostile device: receipt without the file",
            Self::Reruns => "hostile device: another run",
            Self::Crowd => "hostile device: another identifier",
            Self::Sybil => "hostile device: invented",
            Self::DuplicateId(_) => "hostile device: duplicate identifier",
            Self::Silent => "hostile device: silence",
            Self::Leaver => "hostile device: leaves again",
            Self::SlowLiar(lie) => lie.class(),
        }
    }
    /// Whether it has to be admitted.
    #[must_use]
    pub const fn is_insider(self) -> bool {
        matches!(
            self,
            Self::Needs
                | Self::Reports
                | Self::WrongReceipt
                | Self::FalseReceipt
                | Self::Reruns
                | Self::Crowd
                | Self::Sybil
                | Self::DuplicateId(_)
                | Self::Silent
                | Self::Leaver
                | Self::SlowLiar(_)
                | Self::JoinFlood(Joins::Invented)
        )
    }
    /// The lie of a slow liar.
    #[must_use]
    pub const fn lie(self) -> Option<Lie> {
        match self {
            Self::SlowLiar(lie) => Some(lie),
            _ => None,
        }
    }
    /// Most datagrams that an actor sends in a run.
    const fn most(self) -> u32 {
        match self {
            Self::JoinFlood(_) => 12_000,
            Self::SlowLiar(_) => 60_000,
            _ => 4_000,
        }
    }
}

/// The plan of one hostile actor.
#[derive(Clone, Debug)]
pub struct HostilePlan {
    /// Its behaviour.
    pub attack: Attack,
    /// Start time.
    pub start: Time,
    /// End time.
    pub end: Time,
    /// Time between its actions.
    pub every: Duration,
    /// Most datagrams in each action.
    pub burst: u32,
    /// Its lines and links.
    pub attachment: Attachment,
}

/// The group's key, in runs that have one.
#[must_use]
pub fn group_key() -> Secret {
    Secret::new([0x11; 32])
}

/// The key of another group.
fn other_key() -> Secret {
    Secret::new([0x22; 32])
}

/// An address without a node.
fn nobody(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 255, high, low)), 7_000 + (number & 0xff))
}

/// Whether the address has no node.
#[must_use]
pub fn is_nobody(at: SocketAddr) -> bool {
    matches!(at.ip(), IpAddr::V4(ip) if ip.octets()[..2] == [10, 255])
}

/// An overheard datagram.
#[derive(Clone)]
struct Heard {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Rc<[u8]>,
}

/// Most overheard datagrams that are kept.
const KEPT: usize = 400;

/// The knowledge of hostile actors, from any source.
pub struct Air {
    /// Hash of the object.
    root: Digest,
    /// Number of honest devices.
    honest: NodeId,
    /// The division of the object into blocks and symbols.
    layout: Layout,
    heard: VecDeque<Rc<Heard>>,
    /// The newest announces of the sender: to its group and to the default group.
    announce: Option<Rc<[u8]>>,
    announce_before: Option<Rc<[u8]>>,
    session: Option<SessionId>,
    /// The highest counter of the group's channel.
    newest: u64,
    seen: u32,
    /// Whether the session is over for all honest nodes.
    pub over: bool,
    /// Datagrams sent by hostile actors, by class.
    pub struck: Faults,
}

impl Air {
    /// The knowledge about a session with this layout and root hash, and this number of honest devices.
    #[must_use]
    pub fn new(root: Digest, layout: Layout, honest: NodeId) -> Self {
        Self {
            root,
            honest,
            layout,
            heard: VecDeque::new(),
            announce: None,
            announce_before: None,
            session: None,
            newest: 0,
            seen: 0,
            over: false,
            struck: Faults::default(),
        }
    }

    /// Records a datagram that an honest actor has sent.
    pub fn overhear(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some((header, kind)) = wire::peek(bytes) else { return };
        self.session = Some(header.session);
        if to.ip().is_multicast() && header.packet_number.channel() == ChannelId::GROUP {
            self.newest = header.packet_number.counter();
        }
        self.seen = self.seen.wrapping_add(1);
        // There are many symbols; the other messages matter more.
        if kind == MessageKind::Symbol && !self.seen.is_multiple_of(16) {
            return;
        }
        let bytes: Rc<[u8]> = bytes.into();
        if kind == MessageKind::Announce {
            self.announce_before = self.announce.replace(Rc::clone(&bytes));
        }
        if self.heard.len() == KEPT {
            // Some old datagrams are kept for long.
            let index = self.seen as usize % 7 * (KEPT / 8);
            self.heard.remove(index);
        }
        self.heard.push_back(Rc::new(Heard { from, to, bytes }));
    }
}
