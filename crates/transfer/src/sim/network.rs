//! The virtual network: lines with a rate and a queue; links that lose, delay, reorder, duplicate and
//! corrupt; multicast groups and unicast addresses.
//!
//! ```text
//!   sender's egress -> its uplink -> its up link --+--> device 1's ingress line -> its down link
//!    (socket buffer)    (a switch)                 +--> device 2's ingress line -> its down link
//! ```
//!
//! Multicast and unicast share the same lines. The whole group shares the queues and the loss on the
//! sender's side. An ingress line and a down link belong to one device. A datagram passes the lines first
//! and is then lost or delayed by the link. Datagrams that leave at one instant travel as a [`Volley`],
//! which all receivers share; there is no allocation for each.

pub mod forger;

use super::line::{Line, Meters};
use super::link::{Fate, Link, Quality, traverse};
use crate::time::Time;
use crate::units::Via;
use crate::wire::{Message, decode_plain};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// Index of a node in the world.
pub type NodeId = u32;
/// Port of every node's own socket.
pub const UNICAST_PORT: u16 = 40_000;
/// Bytes around a UDP payload on Ethernet: preamble, MAC, IPv4, UDP, check sequence, gap.
pub const FRAMING: usize = 66;
/// Bytes of a symbol's datagram before its payload. Only the payload of a symbol is corrupted.
const SYMBOL_HEAD: usize = crate::limits::SYMBOL_HEADER_LEN;

/// The address of a node's own socket.
#[must_use]
pub fn address(node: NodeId) -> SocketAddr {
    let [_, b, c, d] = (node + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, b, c, d)), UNICAST_PORT)
}

/// A node's lines and links.
#[derive(Clone, Debug, Default)]
pub struct Attachment {
    /// The line out of the node; `None` is infinitely fast.
    pub egress: Option<Line>,
    /// The switch's line after that, which all datagrams of the node pass.
    pub uplink: Option<Line>,
    /// The line into the node.
    pub ingress: Option<Line>,
    /// The link from the node.
    pub up: Quality,
    /// The link to the node.
    pub down: Quality,
}

/// Counters of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams handed to the network.
    pub sent: u64,
    /// Bytes of them on the wire, framing included.
    pub wire_bytes: u64,
    /// Datagrams delivered; a multicast datagram counts once for each receiver.
    pub delivered: u64,
    /// Datagrams lost independently.
    pub lost: u64,
    /// Datagrams lost in bursts.
    pub burst_lost: u64,
    /// Datagrams lost in a partition.
    pub partitioned: u64,
    /// Datagrams dropped by a full queue.
    pub tail_dropped: u64,
    /// Datagrams duplicated.
    pub duplicated: u64,
    /// Datagrams reordered.
    pub reordered: u64,
    /// Datagrams damaged.
    pub corrupted: u64,
    /// Datagrams forged.
    pub forged: u64,
    /// Datagrams to an address without a node.
    pub unroutable: u64,
    /// Datagrams dropped by a receiver's full socket buffer.
    pub kernel_drops: u64,
}

impl Counts {
    /// Adds the counts of another world.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.wire_bytes += other.wire_bytes;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.burst_lost += other.burst_lost;
        self.partitioned += other.partitioned;
        self.tail_dropped += other.tail_dropped;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.forged += other.forged;
        self.unroutable += other.unroutable;
        self.kernel_drops += other.kernel_drops;
    }
}

/// Most datagrams in one volley.
pub const VOLLEY: usize = 64;

/// Datagrams that left one node at one instant for one address.
#[derive(Debug)]
pub struct Volley {
    /// Their source address.
    pub from: SocketAddr,
    /// At most [`VOLLEY`].
    pub datagrams: Vec<Rc<[u8]>>,
    /// Bytes of the symbol in each datagram, if the network is metered; 0 if it is not a symbol.
    payloads: Vec<usize>,
    /// Time of sending.
    sent: Time,
}

impl Volley {
    fn payload(&self, index: usize) -> usize {
        self.payloads.get(index).copied().unwrap_or(0)
    }
}

/// Datagrams of a volley that reach a node at the same time.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The receiving node.
    pub node: NodeId,
    /// The receiving socket.
    pub via: Via,
    /// The datagrams: bit i stands for datagram i of the volley.
    pub which: u64,
    /// The volley as it left the sender.
    pub volley: Rc<Volley>,
}

impl Arrival {
    /// The number of datagrams.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.which.count_ones()
    }
}

/// The position of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the line into the node. The world passes it to [`Network::enter`].
    Line,
    /// At the node's socket.
    Socket,
}

struct Place {
    attachment: Attachment,
    up: Link,
    down: Link,
    listening: Vec<SocketAddr>,
    meters: Option<Box<Meters>>,
}

/// The network.
pub struct Network {
    rng: fastrand::Rng,
    places: Vec<Place>,
    groups: HashMap<SocketAddr, Vec<NodeId>>,
    metered: bool,
    forger: Option<forger::Forger>,
    /// Counters.
    pub counts: Counts,
}

/// Collects datagrams that arrive at the same time.
struct Gathered<'a> {
    volley: &'a Rc<Volley>,
    node: NodeId,
    via: Via,
    stage: Stage,
    at: Time,
    which: u64,
}

impl<'a> Gathered<'a> {
    const fn new(volley: &'a Rc<Volley>, node: NodeId, via: Via, stage: Stage) -> Self {
        Self { volley, node, via, stage, at: Time::ZERO, which: 0 }
    }
    fn put(&mut self, at: Time, index: usize, deliver: &mut impl FnMut(Time, Stage, Arrival)) {
        if at != self.at || self.which & 1 << index != 0 {
            self.flush(deliver);
            self.at = at;
        }
        self.which |= 1 << index;
    }
    fn flush(&mut self, deliver: &mut impl FnMut(Time, Stage, Arrival)) {
        let which = std::mem::take(&mut self.which);
        if which != 0 {
            let (node, via, volley) = (self.node, self.via, Rc::clone(self.volley));
            deliver(self.at, self.stage, Arrival { node, via, which, volley });
        }
    }
}

/// The indices of the set bits.
pub fn bits(mut which: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let index = which.trailing_zeros();
        which &= which.wrapping_sub(1);
        (index < u64::BITS).then_some(index as usize)
    })
}

impl Network {
    /// An empty network with its own stream of random numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            places: Vec::new(),
            groups: HashMap::new(),
            metered: false,
            forger: None,
            counts: Counts::default(),
        }
    }
    /// Meters the traffic of each node that is added from now on.
    pub const fn measure(&mut self) {
        self.metered = true;
    }
    /// Takes a node's meters, if it has any, and resets them.
    pub fn take_meters(&mut self, node: NodeId) -> Option<Meters> {
        self.places[node as usize].meters.as_mut().map(|meters| std::mem::take(&mut **meters))
    }
    /// Records that the socket of `node` has dropped `count` datagrams.
    pub(super) fn socket_dropped(&mut self, now: Time, node: NodeId, count: u32) {
        self.counts.kernel_drops += u64::from(count);
        if let Some(meters) = &mut self.places[node as usize].meters {
            (0..count).for_each(|_| meters.arrived.dropped(now));
        }
    }
    /// Adds a node.
    pub fn attach(&mut self, attachment: Attachment) -> NodeId {
        let meters = self.metered.then(Box::default);
        let (up, down, listening) = (Link::NEW, Link::NEW, Vec::new());
        self.places.push(Place { attachment, up, down, listening, meters });
        (self.places.len() - 1) as NodeId
    }
    /// A node's lines and links, to change them.
    pub fn attachment(&mut self, node: NodeId) -> &mut Attachment {
        &mut self.places[node as usize].attachment
    }
    /// Makes the node listen to `group` from now on.
    pub fn listen(&mut self, node: NodeId, group: SocketAddr) {
        let listening = &mut self.places[node as usize].listening;
        if !listening.contains(&group) {
            listening.push(group);
            self.groups.entry(group).or_default().push(node);
        }
    }
    /// Makes the node leave all groups.
    pub fn leave(&mut self, node: NodeId) {
        for group in std::mem::take(&mut self.places[node as usize].listening) {
            if let Some(members) = self.groups.get_mut(&group) {
                members.retain(|&m| m != node);
            }
        }
    }
    /// Bytes that the node may send before its egress line is full.
    #[must_use]
    pub fn room(&self, node: NodeId, now: Time) -> usize {
        match &self.places[node as usize].attachment.egress {
            Some(line) if line.holds => line.queue.saturating_sub(line.backlog(now)),
            _ => usize::MAX,
        }
    }
    /// Time at which half of the node's egress queue is free again.
    #[must_use]
    pub fn writable_at(&self, node: NodeId, now: Time) -> Time {
        match &self.places[node as usize].attachment.egress {
            Some(line) => line.drained_to(line.queue / 2, now) + Duration::from_nanos(1),
            None => now,
        }
    }

    /// Carries at most [`VOLLEY`] datagrams from the node `from` with the source address `source` to the
    /// address `to`. Calls `deliver` for each arrival with its time and position.
    pub fn carry(
        &mut self,
        now: Time,
        (from, source): (NodeId, SocketAddr),
        to: SocketAddr,
        mut datagrams: Vec<Rc<[u8]>>,
        deliver: &mut impl FnMut(Time, Stage, Arrival),
    ) {
        debug_assert!(datagrams.len() <= VOLLEY);
        let payloads: Vec<usize> =
            if self.metered { datagrams.iter().map(|d| payload(d)).collect() } else { Vec::new() };
        let mut flights = Vec::with_capacity(datagrams.len());
        for (i, datagram) in datagrams.iter_mut().enumerate() {
            self.counts.sent += 1;
            self.counts.wire_bytes += (datagram.len() + FRAMING) as u64;
            let payload = payloads.get(i).copied().unwrap_or(0);
            let Some(departs) = self.depart(now, from, datagram.len(), payload) else { continue };
            let Place { attachment, up, .. } = &mut self.places[from as usize];
            let fate = traverse(&mut self.rng, &mut self.counts, &attachment.up, up, now, departs);
            let Fate::Passed { at, again, damaged } = fate else { continue };
            if damaged {
                *datagram = self.damage(datagram);
            }
            flights.extend(std::iter::once(at).chain(again).map(|at| (at, i)));
        }
        if !flights.is_empty() {
            let volley = Rc::new(Volley { from: source, datagrams, payloads, sent: now });
            self.forge(&volley, flights[0].0, (from, to), deliver);
            self.fan_out(&volley, &flights, from, to, deliver);
        }
    }

    /// The time at which a datagram has passed the lines out of its node; `None` if one dropped it.
    fn depart(&mut self, now: Time, from: NodeId, bytes: usize, payload: usize) -> Option<Time> {
        let Place { attachment, meters, .. } = &mut self.places[from as usize];
        let (egress, uplink) = (&mut attachment.egress, &mut attachment.uplink);
        let mut meters = meters.as_deref_mut();
        let mut at = now;
        for (first, line) in [(true, egress), (false, uplink)] {
            let (wait, through) = match line {
                Some(line) => (line.wait(at), line.pass(at, bytes)),
                // Sent datagrams are metered with or without a line.
                None if first => (Duration::ZERO, Some(at)),
                None => continue,
            };
            if let Some(meters) = &mut meters {
                let meter = if first { &mut meters.egress } else { &mut meters.uplink };
                match through {
                    Some(through) => meter.passed(through, bytes, payload, wait),
                    None => meter.dropped(at),
                }
            }
            let Some(through) = through else {
                self.counts.tail_dropped += 1;
                return None;
            };
            at = through;
        }
        Some(at)
    }

    fn fan_out(
        &mut self,
        volley: &Rc<Volley>,
        flights: &[(Time, usize)],
        from: NodeId,
        to: SocketAddr,
        deliver: &mut impl FnMut(Time, Stage, Arrival),
    ) {
        if to.ip().is_multicast() {
            // Taken out of the map while in use: delivering does not change the membership.
            let members = self.groups.get_mut(&to).map(std::mem::take).unwrap_or_default();
            for &node in members.iter().filter(|&&n| n != from) {
                self.approach(volley, flights, node, Via::Group, deliver);
            }
            self.groups.insert(to, members);
        } else if matches!(to.ip(), IpAddr::V4(ip) if ip.is_broadcast()) {
            for node in 0..self.places.len() as NodeId {
                if node != from && self.bound(node, to.port()) {
                    self.approach(volley, flights, node, Via::Group, deliver);
                }
            }
        } else {
            let node = match to.ip() {
                IpAddr::V4(ip) => (u32::from(ip) & 0xff_ffff).wrapping_sub(1),
                IpAddr::V6(_) => NodeId::MAX,
            };
            let there = (node as usize) < self.places.len();
            let via = match to.port() {
                UNICAST_PORT if there => Via::Unicast,
                port if there && self.bound(node, port) => Via::Group,
                _ => {
                    self.counts.unroutable += flights.len() as u64;
                    return;
                }
            };
            self.approach(volley, flights, node, via, deliver);
        }
    }

    /// Whether the node has a socket bound to the well-known `port`.
    fn bound(&self, node: NodeId, port: u16) -> bool {
        self.places[node as usize].listening.iter().any(|a| a.port() == port)
    }

    /// Brings a volley to a node: to its line, if it has one, or over its link to its socket.
    fn approach(
        &mut self,
        volley: &Rc<Volley>,
        flights: &[(Time, usize)],
        node: NodeId,
        via: Via,
        deliver: &mut impl FnMut(Time, Stage, Arrival),
    ) {
        if self.places[node as usize].attachment.ingress.is_none() {
            self.hand_over(volley, flights.iter().copied(), node, via, deliver);
            return;
        }
        // Other nodes' datagrams may arrive before: each enters the line at its own time.
        let mut gathered = Gathered::new(volley, node, via, Stage::Line);
        for &(at, i) in flights {
            gathered.put(at, i, deliver);
        }
        gathered.flush(deliver);
    }

    /// Passes an arrival through the line into its node, which may drop it, and then over the link.
    pub fn enter(&mut self, now: Time, arrival: &Arrival, deliver: &mut impl FnMut(Time, Stage, Arrival)) {
        let Arrival { node, via, which, volley } = arrival;
        let place = &mut self.places[*node as usize];
        let mut flights = Vec::with_capacity(arrival.count() as usize);
        for i in bits(*which) {
            let Some(line) = &mut place.attachment.ingress else { break };
            let bytes = volley.datagrams[i].len();
            let wait = line.wait(now);
            let through = line.pass(now, bytes);
            if let Some(meters) = &mut place.meters {
                match through {
                    Some(through) => meters.ingress.passed(through, bytes, volley.payload(i), wait),
                    None => meters.ingress.dropped(now),
                }
            }
            match through {
                Some(through) => flights.push((through, i)),
                None => self.counts.tail_dropped += 1,
            }
        }
        self.hand_over(volley, flights.into_iter(), *node, *via, deliver);
    }

    /// Carries datagrams of a volley over a node's link to its socket.
    fn hand_over(
        &mut self,
        volley: &Rc<Volley>,
        flights: impl Iterator<Item = (Time, usize)>,
        node: NodeId,
        via: Via,
        deliver: &mut impl FnMut(Time, Stage, Arrival),
    ) {
        let mut gathered = Gathered::new(volley, node, via, Stage::Socket);
        for (at, i) in flights {
            let Place { attachment, down, meters, .. } = &mut self.places[node as usize];
            let fate = traverse(&mut self.rng, &mut self.counts, &attachment.down, down, volley.sent, at);
            let Fate::Passed { at, again, damaged } = fate else { continue };
            let times = std::iter::once(at).chain(again);
            self.counts.delivered += 1 + u64::from(again.is_some());
            if let Some(meters) = meters {
                let payload = if damaged { 0 } else { volley.payload(i) };
                for at in times.clone() {
                    meters.arrived.passed(at, volley.datagrams[i].len(), payload, Duration::ZERO);
                }
            }
            if !damaged {
                times.for_each(|at| gathered.put(at, i, deliver));
                continue;
            }
            let copy = self.damage(&volley.datagrams[i]);
            let (from, sent) = (volley.from, volley.sent);
            let copy = Rc::new(Volley { from, datagrams: vec![copy], payloads: Vec::new(), sent });
            for at in times {
                deliver(at, Stage::Socket, Arrival { node, via, which: 1, volley: Rc::clone(&copy) });
            }
        }
        gathered.flush(deliver);
    }

    /// A damaged copy. For a symbol, the damage is in the payload, where the block's hash must detect it.
    /// Without a group key its header is not authenticated, and a flip there would be a forgery and not
    /// an accident. All other messages are signed or sealed, and the damage may be anywhere.
    fn damage(&mut self, bytes: &Rc<[u8]>) -> Rc<[u8]> {
        let mut copy = bytes.to_vec();
        if copy.is_empty() || self.rng.u8(..3) == 0 {
            copy.truncate(self.rng.usize(..bytes.len().max(1)));
            return copy.into();
        }
        let range =
            if payload(bytes) > 0 { SYMBOL_HEAD.min(copy.len() - 1)..copy.len() } else { 0..copy.len() };
        for _ in 0..self.rng.usize(1..=3) {
            let at = self.rng.usize(range.clone());
            copy[at] ^= 1 << self.rng.u8(..8);
        }
        copy.into()
    }
}

/// Bytes of the symbol in a datagram; 0 if it is another message.
fn payload(bytes: &[u8]) -> usize {
    if let Ok((_, Message::Symbol(symbol))) = decode_plain(bytes) { symbol.payload.len() } else { 0 }
}

#[cfg(test)]
mod tests;
