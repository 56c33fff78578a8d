//! Actors that mean harm: outsiders without keys, who hear everything and send from any address, and
//! devices that are let in and lie.
//!
//! ```text
//!   a seed -> plans (here)          outsider  junk, replays, forgeries, floods of joins
//!      |                           /
//!   actor  when, how much, to whom
//!      |                           \
//!     air  what was overheard       insider   lying NAKs and reports, duplicate identifiers, runs without end
//! ```
//!
//! What they do stays below what is documented as not defended: they do not fill links, and forge neither
//! symbols nor challenges by the hundred.

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

/// What a hostile actor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Random bytes of all lengths.
    Junk,
    /// The session's header with any body.
    Headed,
    /// What was overheard, at once or later, from its own address or the one it came from.
    Replay,
    /// What was overheard, with a few bits changed.
    Altered,
    /// The sender's announces passed on at once, as if they were its own or came from nowhere.
    Relay,
    /// Announces of its own sessions, and of this one as its own.
    Announces,
    /// Whole sessions of the sender that are over, played back: announces, symbols, hashes, polls, aborts.
    Past,
    /// What the sender says, signed by somebody else.
    Impostor,
    /// What devices say, without their keys.
    Mimic,
    /// Symbols of the session with other bytes: from outside, or with a group key from inside.
    Symbols,
    /// Joins with fresh keys from addresses where nobody is.
    FreshJoins,
    /// A device that lacks what there is and what there is not.
    Needs,
    /// A device whose reports make no sense.
    Reports,
    /// A device that has received something else.
    WrongReceipt,
    /// A device that claims to have the file, and has not.
    FalseReceipt,
    /// A device that begins anew all the time.
    Reruns,
    /// A device that comes under many identifiers.
    Crowd,
    /// A device with the identifier of the one with this number.
    DuplicateId(u32),
    /// A device that joins and says nothing more.
    Silent,
    /// A device that leaves again and again, with long reasons.
    Leaver,
}

impl Attack {
    const OUTSIDERS: [Self; 11] = [
        Self::Junk,
        Self::Headed,
        Self::Replay,
        Self::Altered,
        Self::Relay,
        Self::Announces,
        Self::Past,
        Self::Impostor,
        Self::Mimic,
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

    /// The class that its datagrams are counted in.
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
            Self::Symbols => "forged symbol",
            Self::FreshJoins => "outsider: join with a fresh key, from nowhere",
            Self::Needs => "hostile device: false needs",
            Self::Reports => "hostile device: false report",
            Self::WrongReceipt => "hostile device: receipt of another file",
            Self::FalseReceipt => "hostile device: receipt without the file",
            Self::Reruns => "hostile device: another run",
            Self::Crowd => "hostile device: another identifier",
            Self::DuplicateId(_) => "hostile device: duplicate identifier",
            Self::Silent => "hostile device: silence",
            Self::Leaver => "hostile device: leaves again",
        }
    }
    /// Whether it needs to be let in.
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
                | Self::DuplicateId(_)
                | Self::Silent
                | Self::Leaver
        )
    }
}

/// What is planned for one hostile actor.
#[derive(Clone, Debug)]
pub struct HostilePlan {
    /// What it does.
    pub attack: Attack,
    /// When it begins.
    pub start: Time,
    /// When it ends.
    pub end: Time,
    /// It acts this often.
    pub every: Duration,
    /// And sends so many datagrams each time, at the most.
    pub burst: u32,
    /// Its place in the network.
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

/// An address where nobody is.
fn nobody(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 255, high, low)), 7_000 + (number & 0xff))
}

/// Whether nobody is there.
#[must_use]
pub fn is_nobody(at: SocketAddr) -> bool {
    matches!(at.ip(), IpAddr::V4(ip) if ip.octets()[..2] == [10, 255])
}

impl Draw {
    /// Mixes hostile actors into a share of the runs, and gives a share of them a group key.
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
            // They count as expected, and the sender starts without waiting for the last of the others.
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

    fn hostile(&mut self, scenario: &mut Scenario) -> HostilePlan {
        let attacks: &[Attack] = if self.chance(60) { &Attack::OUTSIDERS } else { &Attack::INSIDERS };
        let mut attack = attacks[self.rng.usize(..attacks.len())];
        if let Attack::DuplicateId(victim) = &mut attack {
            *victim = self.rng.u32(..scenario.devices.len() as u32);
            let plan = &mut scenario.devices[*victim as usize];
            // Whoever is away for a while is taken for the one that is there.
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
            // As fast as it likes where only the sender gets it.
            Attack::Headed | Attack::Mimic | Attack::FreshJoins if self.chance(30) => {
                (self.between(5, 20), 10)
            }
            Attack::Needs | Attack::Reports if self.chance(30) => (self.between(5, 20), 10),
            Attack::Relay => (self.between(1, 4), 1),
            Attack::Announces | Attack::Impostor | Attack::Crowd => (self.between(40, 400), 1),
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

/// A datagram that was overheard.
#[derive(Clone)]
struct Heard {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Rc<[u8]>,
}

/// Datagrams that are kept.
const KEPT: usize = 400;

/// What hostile actors know, by whatever means.
pub struct Air {
    /// Hash of the object.
    root: Digest,
    /// Devices that are no enemies.
    honest: NodeId,
    /// How the object is cut.
    layout: Layout,
    heard: VecDeque<Heard>,
    /// The newest announce of the sender, and the one before: to its group and to the rendezvous.
    announce: Option<Rc<[u8]>>,
    announce_before: Option<Rc<[u8]>>,
    session: Option<SessionId>,
    /// The newest number of the group's channel.
    newest: u64,
    seen: u32,
    /// Nobody is left to be harmed.
    pub over: bool,
    /// What was sent, by class.
    pub struck: Faults,
}

impl Air {
    /// Of a session with an object cut so and with this hash, and so many honest devices.
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

    /// An honest actor has sent a datagram.
    pub fn overhear(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some((header, kind)) = wire::peek(bytes) else { return };
        self.session = Some(header.session);
        if to.ip().is_multicast() && header.packet_number.channel() == ChannelId::GROUP {
            self.newest = header.packet_number.counter();
        }
        self.seen = self.seen.wrapping_add(1);
        // Symbols are many; the rest is what matters.
        if kind == MessageKind::Symbol && !self.seen.is_multiple_of(16) {
            return;
        }
        let bytes: Rc<[u8]> = bytes.into();
        if kind == MessageKind::Announce {
            self.announce_before = self.announce.replace(Rc::clone(&bytes));
        }
        if self.heard.len() == KEPT {
            // Some of what is old stays for long.
            let index = self.seen as usize % 7 * (KEPT / 8);
            self.heard.remove(index);
        }
        self.heard.push_back(Heard { from, to, bytes });
    }
}
