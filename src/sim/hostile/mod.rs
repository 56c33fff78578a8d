//! Hostile actors: outsiders without keys, who hear everything and send from any address, and admitted
//! devices that lie.
//!
//! ```text
//!   a seed -> plans (here)          outsider  junk, replays, forgeries, floods of joins
//!      |                           /
//!   actor  when, how much, to whom
//!      |                           \
//!     air  overheard datagrams      insider   lying NAKs and reports, duplicate identifiers, runs without end
//! ```
//!
//! They stay within the documented limits of the defence: they do not flood links, and do not forge
//! symbols or challenges by the hundred.

mod actors;
mod insider;
mod outsider;

pub use actors::Hostile;

use super::disk_faults::DiskFaults;
use super::faults::Faults;
use super::network::{Attachment, NodeId};
use super::scenario::{Draw, Scenario};
use crate::crypto::derive::Secret;
use crate::layout::Layout;
use crate::protocol::sender::SlowPolicy;
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
    /// Joins with fresh keys from addresses without a node.
    FreshJoins,
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
}

impl Attack {
    const OUTSIDERS: [Self; 13] = [
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
        Self::FreshJoins,
    ];
    const INSIDERS: [Self; 9] = [
        Self::Needs,
        Self::Reports,
        Self::WrongReceipt,
        Self::FalseReceipt,
        Self::Reruns,
        Self::Crowd,
        Self::DuplicateId(0),
        Self::Silent,
        Self::Leaver,
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
            Self::FreshJoins => "outsider: join with a fresh key, from nowhere",
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
        )
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

impl Draw {
    /// Adds hostile actors to some of the runs, and gives some of the runs a group key.
    pub(in crate::sim) fn hostility(mut self, mut scenario: Scenario) -> Scenario {
        scenario.group_key = self.chance(30);
        if !self.chance(45) {
            return scenario;
        }
        for _ in 0..self.rng.usize(1..=3) {
            let plan = self.hostile(&mut scenario);
            scenario.hostile.push(plan);
        }
        if scenario.hostile.iter().any(|plan| plan.attack.is_insider()) {
            // They count as expected, so the sender starts without waiting for the last of the others.
            scenario.linger = scenario.linger + scenario.wait + Duration::from_secs(15);
            // With `keep` every device may slow the group down, liars too.
            scenario.slow = SlowPolicy::Defer;
        }
        if scenario.hostile.iter().any(|plan| plan.attack == Attack::Past) {
            // A device tries one session after the other, and may come to the true one when that has begun.
            scenario.linger = scenario.linger + scenario.wait + Duration::from_secs(30);
        }
        scenario
    }

    /// Gives some of the senders a list of their devices, and invents devices in some of these runs.
    pub(in crate::sim) fn listing(mut self, mut scenario: Scenario) -> Scenario {
        scenario.listed = self.chance(20);
        if scenario.listed {
            scenario.expected = Some(scenario.devices.len() as u32);
            if self.chance(60) {
                let start = Time::ZERO + self.between(0, 500);
                let end = start + self.between(2_000, 20_000);
                let mut attachment = Attachment::default();
                attachment.up.delay = Duration::from_micros(20);
                attachment.down.delay = Duration::from_micros(100);
                let every = self.between(10, 200);
                let sybil = HostilePlan { attack: Attack::Sybil, start, end, every, burst: 1, attachment };
                scenario.hostile.push(sybil);
            }
        }
        scenario
    }

    fn hostile(&mut self, scenario: &mut Scenario) -> HostilePlan {
        let attacks: &[Attack] = if self.chance(60) { &Attack::OUTSIDERS } else { &Attack::INSIDERS };
        let mut attack = attacks[self.rng.usize(..attacks.len())];
        if let Attack::DuplicateId(victim) = &mut attack {
            *victim = self.rng.u32(..scenario.devices.len() as u32);
            let plan = &mut scenario.devices[*victim as usize];
            // A device that is absent for a while may lose its place to its duplicate.
            let away = plan.crash.is_some()
                || plan.faults != DiskFaults::default()
                || !plan.attachment.down.partitions.is_empty();
            if away {
                plan.hope();
            }
        }
        let start = Time::ZERO + self.between(0, 2_000);
        let end = start + self.between(500, 12_000);
        let (every, burst) = match attack {
            // As fast as it can, if only the sender gets the datagrams.
            Attack::Headed | Attack::Mimic | Attack::FreshJoins if self.chance(30) => {
                (self.between(5, 20), 10)
            }
            Attack::Needs | Attack::Reports if self.chance(30) => (self.between(5, 20), 10),
            Attack::Relay => (self.between(1, 4), 1),
            Attack::Announces | Attack::Downgrade | Attack::Regroup | Attack::Impostor | Attack::Crowd => {
                (self.between(40, 400), 1)
            }
            _ => (self.between(20, 300), self.rng.u32(1..=4)),
        };
        let mut attachment = Attachment::default();
        attachment.up.delay = if attack == Attack::Relay || self.chance(50) {
            Duration::from_micros(20)
        } else {
            self.between(0, 40)
        };
        attachment.down.delay = Duration::from_micros(100);
        HostilePlan { attack, start, end, every, burst, attachment }
    }
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
    heard: VecDeque<Heard>,
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
        self.heard.push_back(Heard { from, to, bytes });
    }
}
