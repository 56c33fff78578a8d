//! The virtual network: lines with a rate and a finite queue, links that lose, delay, reorder,
//! duplicate and corrupt, multicast groups and unicast addresses.
//!
//! ```text
//!   sender's egress line -> sender's up link --+--> device 1's down link -> its ingress line
//!                                              +--> device 2's down link -> its ingress line
//! ```
//!
//! Loss on the sender's up link is shared by the whole group; loss on a down link is one device's
//! own. A payload is shared by all its receivers; nothing is allocated for each.

use crate::time::Time;
use crate::units::Via;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// A node of the world, by its place in it.
pub type NodeId = u32;
/// Port of every node's own socket.
pub const UNICAST_PORT: u16 = 40_000;
/// Bytes around a UDP payload on Ethernet: preamble, MAC, IPv4, UDP, check sequence, gap.
pub const FRAMING: usize = 66;
/// Bytes of a symbol's datagram before its payload; corruption of a symbol hits what follows.
const SYMBOL_HEAD: usize = crate::limits::SYMBOL_HEADER_LEN;

/// The address of a node's own socket.
#[must_use]
pub fn address(node: NodeId) -> SocketAddr {
    let [_, b, c, d] = (node + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, b, c, d)), UNICAST_PORT)
}

/// A Gilbert-Elliott channel: two states, with loss in the bad one. The states last for times
/// and not for datagrams, so that a quiet link is not bad for minutes.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// Mean time between bad periods.
    pub good: Duration,
    /// Mean length of a bad period.
    pub bad: Duration,
    /// Chance a datagram to be lost while bad.
    pub loss: f64,
}

impl Burst {
    /// Whether the link is bad at `now`, by its state and the random lengths of its periods.
    fn is_bad(&self, link: &mut Link, rng: &mut fastrand::Rng, now: Time) -> bool {
        while link.state_until <= now {
            link.bad = !link.bad;
            let mean = if link.bad { self.bad } else { self.good };
            let length = mean.mul_f64(-(1.0 - rng.f64()).ln());
            link.state_until = link.state_until + length.max(Duration::from_micros(1));
        }
        link.bad
    }
}

/// What a link does to datagrams.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// Chance to be lost, each datagram for itself.
    pub loss: f64,
    /// Lossy periods.
    pub burst: Option<Burst>,
    /// Shortest delay.
    pub delay: Duration,
    /// Up to this much more.
    pub jitter: Duration,
    /// Chance to be overtaken.
    pub reorder: f64,
    /// Chance to come twice.
    pub duplicate: f64,
    /// Chance to be damaged: cut short, or with flipped bits.
    pub corrupt: f64,
    /// Nothing passes from the one time to the other.
    pub partitions: Vec<(Time, Time)>,
}

impl Quality {
    /// The share of datagrams that are lost in the long run, partitions aside.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        let burst = self.burst.map_or(0.0, |b| {
            let bad = b.bad.as_secs_f64();
            b.loss * bad / (bad + b.good.as_secs_f64())
        });
        1.0 - (1.0 - self.loss) * (1.0 - burst)
    }
}

/// A line with a rate and a finite queue.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Bits per second.
    pub rate: u64,
    /// Bytes that may wait.
    pub queue: usize,
    /// A full queue holds the sender up (a socket buffer) instead of dropping (a switch).
    pub holds: bool,
    free_at: Time,
}

impl Line {
    /// A line of `rate` bits per second with a queue of `queue` bytes that drops or holds.
    #[must_use]
    pub const fn new(rate: u64, queue: usize, holds: bool) -> Self {
        Self { rate, queue, holds, free_at: Time::ZERO }
    }
    fn backlog(&self, now: Time) -> usize {
        let bits = self.free_at.since(now).as_nanos() * u128::from(self.rate) / 1_000_000_000;
        usize::try_from(bits / 8).unwrap_or(usize::MAX)
    }
    /// When `bytes` handed in at `now` are through; `None` if the queue is full.
    fn pass(&mut self, now: Time, bytes: usize) -> Option<Time> {
        if !self.holds && self.backlog(now) + bytes > self.queue {
            return None;
        }
        let nanos = (bytes + FRAMING) as u128 * 8 * 1_000_000_000 / u128::from(self.rate.max(1));
        let start = self.free_at.max(now);
        self.free_at = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(self.free_at)
    }
}

/// One node's place in the network.
#[derive(Clone, Debug, Default)]
pub struct Attachment {
    /// The line out of it; none is infinitely fast.
    pub egress: Option<Line>,
    /// The line into it.
    pub ingress: Option<Line>,
    /// What happens to what it sends.
    pub up: Quality,
    /// What happens on the way to it.
    pub down: Quality,
}

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams handed to the network.
    pub sent: u64,
    /// Bytes of them on the wire, framing included.
    pub wire_bytes: u64,
    /// Datagrams delivered (a multicast one once a receiver).
    pub delivered: u64,
    /// Lost each for itself.
    pub lost: u64,
    /// Lost in bursts.
    pub burst_lost: u64,
    /// Lost because of a partition.
    pub partitioned: u64,
    /// Dropped by a full queue.
    pub tail_dropped: u64,
    /// Sent on twice.
    pub duplicated: u64,
    /// Overtaken.
    pub reordered: u64,
    /// Damaged.
    pub corrupted: u64,
    /// Nobody there.
    pub unroutable: u64,
    /// Dropped by a receiver's full socket buffer.
    pub kernel_drops: u64,
}

impl Counts {
    /// Adds another world's counts.
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
        self.unroutable += other.unroutable;
        self.kernel_drops += other.kernel_drops;
    }
}

/// A datagram about to be delivered.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// To whom.
    pub node: NodeId,
    /// The sender's address.
    pub from: SocketAddr,
    /// By which socket.
    pub via: Via,
    /// Its bytes.
    pub bytes: Rc<[u8]>,
}

/// State of one direction of a node's link.
#[derive(Clone, Debug)]
struct Link {
    bad: bool,
    state_until: Time,
    /// When the last datagram that was not overtaken arrives.
    last: Time,
}

impl Link {
    /// Its first period is a good one.
    const NEW: Self = Self { bad: true, state_until: Time::ZERO, last: Time::ZERO };
}

struct Place {
    attachment: Attachment,
    up: Link,
    down: Link,
    listening: Vec<SocketAddr>,
}

/// The network.
pub struct Network {
    rng: fastrand::Rng,
    places: Vec<Place>,
    groups: HashMap<SocketAddr, Vec<NodeId>>,
    /// What has happened.
    pub counts: Counts,
}

/// What a link made of a datagram.
enum Fate {
    Lost,
    Passed { at: Time, again: Option<Time>, damaged: bool },
}

/// A datagram that has left its sender.
struct Flight<'a> {
    now: Time,
    at: Time,
    from: NodeId,
    bytes: &'a Rc<[u8]>,
}

impl Network {
    /// An empty network with its own stream of random numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            places: Vec::new(),
            groups: HashMap::new(),
            counts: Counts::default(),
        }
    }
    /// Adds a node.
    pub fn attach(&mut self, attachment: Attachment) -> NodeId {
        self.places.push(Place { attachment, up: Link::NEW, down: Link::NEW, listening: Vec::new() });
        (self.places.len() - 1) as NodeId
    }
    /// A node's place, to change its quality.
    pub fn attachment(&mut self, node: NodeId) -> &mut Attachment {
        &mut self.places[node as usize].attachment
    }
    /// The node listens to `group` from now on.
    pub fn listen(&mut self, node: NodeId, group: SocketAddr) {
        let listening = &mut self.places[node as usize].listening;
        if !listening.contains(&group) {
            listening.push(group);
            self.groups.entry(group).or_default().push(node);
        }
    }
    /// The node listens to nothing any more.
    pub fn leave(&mut self, node: NodeId) {
        for group in std::mem::take(&mut self.places[node as usize].listening) {
            if let Some(members) = self.groups.get_mut(&group) {
                members.retain(|&m| m != node);
            }
        }
    }
    /// Bytes the node may send before its egress holds it up.
    #[must_use]
    pub fn room(&self, node: NodeId, now: Time) -> usize {
        match &self.places[node as usize].attachment.egress {
            Some(line) if line.holds => line.queue.saturating_sub(line.backlog(now)),
            _ => usize::MAX,
        }
    }
    /// When half of the node's egress queue is free again.
    #[must_use]
    pub fn writable_at(&self, node: NodeId, now: Time) -> Time {
        match &self.places[node as usize].attachment.egress {
            Some(line) => {
                let excess = line.backlog(now).saturating_sub(line.queue / 2) as u64;
                now + Duration::from_nanos(excess.saturating_mul(8_000_000_000) / line.rate.max(1) + 1)
            }
            None => now,
        }
    }

    /// Carries a datagram from `from` to the address `to`; `deliver` gets each arrival with its time.
    pub fn carry(
        &mut self,
        now: Time,
        from: NodeId,
        to: SocketAddr,
        bytes: &Rc<[u8]>,
        deliver: &mut impl FnMut(Time, Arrival),
    ) {
        self.counts.sent += 1;
        self.counts.wire_bytes += (bytes.len() + FRAMING) as u64;
        let place = &mut self.places[from as usize];
        let departs = match &mut place.attachment.egress {
            None => now,
            Some(line) => match line.pass(now, bytes.len()) {
                Some(at) => at,
                None => {
                    self.counts.tail_dropped += 1;
                    return;
                }
            },
        };
        let fate =
            traverse(&mut self.rng, &mut self.counts, &place.attachment.up, &mut place.up, now, departs);
        let Fate::Passed { at, again, damaged } = fate else { return };
        let bytes = if damaged { self.damage(bytes) } else { Rc::clone(bytes) };
        for at in std::iter::once(at).chain(again) {
            self.fan_out(&Flight { now, at, from, bytes: &bytes }, to, deliver);
        }
    }

    fn fan_out(&mut self, flight: &Flight<'_>, to: SocketAddr, deliver: &mut impl FnMut(Time, Arrival)) {
        let from = flight.from;
        if to.ip().is_multicast() {
            // Taken out while in use: delivering does not change the membership.
            let members = self.groups.get_mut(&to).map(std::mem::take).unwrap_or_default();
            for &node in members.iter().filter(|&&n| n != from) {
                self.hand_over(flight, node, Via::Group, deliver);
            }
            self.groups.insert(to, members);
        } else if matches!(to.ip(), IpAddr::V4(ip) if ip.is_broadcast()) {
            for node in 0..self.places.len() as NodeId {
                if node != from && self.bound(node, to.port()) {
                    self.hand_over(flight, node, Via::Group, deliver);
                }
            }
        } else {
            let node = match to.ip() {
                IpAddr::V4(ip) => (u32::from(ip) & 0xff_ffff).wrapping_sub(1),
                IpAddr::V6(_) => NodeId::MAX,
            };
            if node as usize >= self.places.len() {
                self.counts.unroutable += 1;
            } else if to.port() == UNICAST_PORT {
                self.hand_over(flight, node, Via::Unicast, deliver);
            } else if self.bound(node, to.port()) {
                self.hand_over(flight, node, Via::Group, deliver);
            } else {
                self.counts.unroutable += 1;
            }
        }
    }

    /// Whether the node has a socket bound to the well-known `port`.
    fn bound(&self, node: NodeId, port: u16) -> bool {
        self.places[node as usize].listening.iter().any(|a| a.port() == port)
    }

    fn hand_over(
        &mut self,
        flight: &Flight<'_>,
        node: NodeId,
        via: Via,
        deliver: &mut impl FnMut(Time, Arrival),
    ) {
        let place = &mut self.places[node as usize];
        let (quality, link) = (&place.attachment.down, &mut place.down);
        let fate = traverse(&mut self.rng, &mut self.counts, quality, link, flight.now, flight.at);
        let Fate::Passed { at, again, damaged } = fate else { return };
        let from = address(flight.from);
        let bytes = if damaged { self.damage(flight.bytes) } else { Rc::clone(flight.bytes) };
        for at in std::iter::once(at).chain(again) {
            let through = match &mut self.places[node as usize].attachment.ingress {
                None => Some(at),
                Some(line) => line.pass(at, bytes.len()),
            };
            match through {
                Some(at) => {
                    self.counts.delivered += 1;
                    deliver(at, Arrival { node, from, via, bytes: Rc::clone(&bytes) });
                }
                None => self.counts.tail_dropped += 1,
            }
        }
    }

    /// A damaged copy. What a checksum misses is rare but happens in a symbol's payload, where the
    /// block's hash must find it. Control messages are not authenticated yet, so a flip in their
    /// fields would be a forgery and not an accident: they are cut short or hit in the first bytes.
    fn damage(&mut self, bytes: &Rc<[u8]>) -> Rc<[u8]> {
        let mut copy = bytes.to_vec();
        if copy.is_empty() || self.rng.u8(..3) == 0 {
            copy.truncate(self.rng.usize(..bytes.len().max(1)));
            return copy.into();
        }
        let symbol = matches!(crate::wire::decode(bytes), Ok((_, crate::wire::Message::Symbol(_))));
        let range = if symbol { SYMBOL_HEAD.min(copy.len() - 1)..copy.len() } else { 0..3.min(copy.len()) };
        for _ in 0..self.rng.usize(1..=3) {
            let at = self.rng.usize(range.clone());
            copy[at] ^= 1 << self.rng.u8(..8);
        }
        copy.into()
    }
}

/// What a link does to a datagram sent at `now` that reaches it at `at`.
fn traverse(
    rng: &mut fastrand::Rng,
    counts: &mut Counts,
    quality: &Quality,
    link: &mut Link,
    now: Time,
    at: Time,
) -> Fate {
    if quality.partitions.iter().any(|&(from, to)| from <= now && now < to) {
        counts.partitioned += 1;
        return Fate::Lost;
    }
    if let Some(burst) = &quality.burst
        && burst.is_bad(link, rng, now)
        && rng.f64() < burst.loss
    {
        counts.burst_lost += 1;
        return Fate::Lost;
    }
    if quality.loss > 0.0 && rng.f64() < quality.loss {
        counts.lost += 1;
        return Fate::Lost;
    }
    let mut arrives = at + quality.delay;
    if quality.jitter > Duration::ZERO {
        arrives = arrives + Duration::from_nanos(rng.u64(..=quality.jitter.as_nanos() as u64));
    }
    if quality.reorder > 0.0 && rng.f64() < quality.reorder {
        counts.reordered += 1;
        let late = (quality.jitter + Duration::from_millis(1)) * 3;
        arrives = arrives + Duration::from_nanos(rng.u64(..=late.as_nanos() as u64));
    } else {
        arrives = arrives.max(link.last);
        link.last = arrives;
    }
    let mut again = None;
    if quality.duplicate > 0.0 && rng.f64() < quality.duplicate {
        counts.duplicated += 1;
        again = Some(arrives + Duration::from_micros(rng.u64(..5_000)));
    }
    let damaged = quality.corrupt > 0.0 && rng.f64() < quality.corrupt;
    counts.corrupted += u64::from(damaged);
    Fate::Passed { at: arrives, again, damaged }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1)), 7417);

    fn pair(down: Quality) -> Network {
        let mut network = Network::new(1);
        network.attach(Attachment::default());
        for _ in 0..2 {
            let node = network.attach(Attachment { down: down.clone(), ..Attachment::default() });
            network.listen(node, GROUP);
        }
        network
    }

    fn send(network: &mut Network, now: Time, to: SocketAddr, bytes: &[u8]) -> Vec<(Time, Arrival)> {
        let mut arrivals = Vec::new();
        network.carry(now, 0, to, &Rc::from(bytes), &mut |at, a| arrivals.push((at, a)));
        arrivals
    }

    #[test]
    fn groups_unicast_and_broadcast_reach_whom_they_should() {
        let mut network = pair(Quality::default());
        let to = |network: &mut Network, to| {
            send(network, Time::ZERO, to, b"x").iter().map(|(_, a)| (a.node, a.via)).collect::<Vec<_>>()
        };
        assert_eq!(to(&mut network, GROUP), [(1, Via::Group), (2, Via::Group)]);
        assert_eq!(to(&mut network, address(2)), [(2, Via::Unicast)]);
        assert_eq!(to(&mut network, "10.0.0.2:7417".parse().unwrap()), [(1, Via::Group)]);
        assert_eq!(to(&mut network, "10.0.0.2:9".parse().unwrap()), []);
        let all = "255.255.255.255:7417".parse().unwrap();
        assert_eq!(to(&mut network, all), [(1, Via::Group), (2, Via::Group)]);
        network.leave(1);
        assert_eq!(to(&mut network, GROUP), [(2, Via::Group)]);
    }

    #[test]
    fn loss_is_as_often_as_asked_and_each_for_itself() {
        let mut network = pair(Quality { loss: 0.1, ..Quality::default() });
        let mut both = 0;
        for _ in 0..10_000 {
            both += u32::from(send(&mut network, Time::ZERO, GROUP, b"x").is_empty());
        }
        assert!((1_800..2_200).contains(&network.counts.lost), "{}", network.counts.lost);
        assert!((60..140).contains(&both), "{both}");
    }

    #[test]
    fn bursts_take_their_share_in_runs() {
        let burst = Burst { good: Duration::from_millis(90), bad: Duration::from_millis(10), loss: 1.0 };
        let mut network = pair(Quality { burst: Some(burst), ..Quality::default() });
        let (mut lost, mut runs, mut before) = (0, 0, false);
        for i in 0..100_000u64 {
            let now = send(&mut network, Time(i * 1_000_000), address(1), b"x").is_empty();
            lost += u32::from(now);
            runs += u32::from(now && !before);
            before = now;
        }
        assert!((8_000..12_000).contains(&lost), "{lost}");
        assert!((8..13).contains(&(lost / runs)), "{lost} in {runs} runs");
    }

    #[test]
    fn a_full_queue_drops_or_holds() {
        let mut network = pair(Quality::default());
        network.attachment(0).egress = Some(Line::new(8_000_000, 3_000, false));
        for _ in 0..10 {
            send(&mut network, Time::ZERO, GROUP, &[0; 934]);
        }
        // One a millisecond; the queue holds three. Both receivers get those.
        assert_eq!((network.counts.delivered, network.counts.tail_dropped), (6, 7));
        network.attachment(0).egress = Some(Line::new(8_000_000, 3_000, true));
        assert_eq!(network.room(0, Time::ZERO), 3_000);
        for _ in 0..3 {
            send(&mut network, Time::ZERO, GROUP, &[0; 934]);
        }
        assert_eq!(network.room(0, Time::ZERO), 0);
        let at = network.writable_at(0, Time::ZERO);
        assert_eq!(at.0 / 1_000, 1_500);
        assert!(network.room(0, at) >= 1_500);
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let order = |quality| {
            let mut network = pair(quality);
            let mut seen: Vec<(Time, u8)> = Vec::new();
            for i in 0..100u8 {
                let now = Time(u64::from(i) * 10_000);
                let arrivals = send(&mut network, now, address(1), &[i]);
                seen.extend(arrivals.iter().map(|(at, a)| (*at, a.bytes[0])));
            }
            seen.sort();
            seen.iter().map(|(_, i)| *i).collect::<Vec<_>>()
        };
        let jitter = Quality { jitter: Duration::from_millis(5), ..Quality::default() };
        assert!(order(jitter.clone()).is_sorted());
        assert!(!order(Quality { reorder: 0.2, ..jitter }).is_sorted());
    }

    #[test]
    fn a_partition_ends() {
        let mut network = pair(Quality { partitions: vec![(Time(10), Time(20))], ..Quality::default() });
        assert_eq!(send(&mut network, Time(9), GROUP, b"x").len(), 2);
        assert_eq!(send(&mut network, Time(10), GROUP, b"x").len(), 0);
        assert_eq!(send(&mut network, Time(20), GROUP, b"x").len(), 2);
    }
}
