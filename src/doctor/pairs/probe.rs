//! The doctor that asks: greets listeners, sends trains of datagrams, and asks what arrived.

use super::tally::{Tally, Told};
use super::verdicts::{self, Path};
use super::wire::{self, HEADER, HELLO, Kind, Message, REPORT, Train};
use super::{Endpoint, random};
use crate::doctor::Finding;
use mcp_transfer::limits::{
    DEFAULT_GROUP_V4, DEFAULT_GROUP_V6, MAX_DATAGRAM, SYMBOL_HEADER_LEN, TAG_RESERVE,
};
use mcp_transfer::net::{AddressKind, Destination, Features, Interface, Marking, UdpNet, choose};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long to wait for a listener.
const WAIT: Duration = Duration::from_secs(5);
/// The time between hellos, and for answers to what is asked.
const AGAIN: Duration = Duration::from_millis(100);
/// The time after the first answer in which other listeners answer.
const OTHERS: Duration = Duration::from_millis(500);
/// Most listeners that are examined.
const MAX_LISTENERS: usize = 64;
/// How often each listener is asked what arrived.
const ATTEMPTS: usize = 20;
/// Datagrams of an even train: enough to see a loss of one in a hundred.
const EVEN: u32 = 300;
/// And how many of them are sent at a time, two milliseconds apart: some 20 Mbit/s.
const AT_A_TIME: u32 = 4;
const PACE: Duration = Duration::from_millis(2);
/// Datagrams of a burst. They fit any socket's buffer.
const BURST: u32 = 64;
/// Copies of each length.
const COPIES: u32 = 3;
/// Lengths of IP packets that networks are known to stop at.
const LENGTHS: [usize; 10] = [576, 1000, 1280, 1400, 1420, 1450, 1492, 1500, 4000, 9000];

/// A listener that has answered.
struct Listener {
    number: u32,
    cookie: [u8; 16],
    /// Whether it answered a hello to it, or to the group.
    heard: [bool; 2],
}

/// The doctor that asks.
struct Probe {
    endpoint: Endpoint,
    run: u64,
    group: SocketAddr,
    /// Bytes of the IP and UDP headers.
    overhead: usize,
    listeners: BTreeMap<SocketAddr, Listener>,
    back: BTreeMap<SocketAddr, [Tally; Train::ALL.len()]>,
    told: BTreeMap<SocketAddr, [Told; Train::ALL.len()]>,
}

/// Examines the path to the listener at a host, or to all that hear a group.
///
/// # Errors
/// If no interface or socket can be used; the text is for the user.
pub fn run(
    to: &Destination,
    interface: Option<&str>,
    wait: Option<Duration>,
    long: Option<Duration>,
) -> io::Result<Vec<Finding>> {
    let interface = choose(interface, to).map_err(io::Error::other)?;
    let v6 = to.is_v6();
    let host = (to.kind == AddressKind::Unicast).then_some(to.on(&interface).addr);
    let group = match host {
        None => *to,
        Some(_) => {
            let group = if v6 { DEFAULT_GROUP_V6.into() } else { DEFAULT_GROUP_V4.into() };
            Destination::group(group, to.addr.port())
        }
    };
    let net = UdpNet::sender(&interface, &group, Marking::default(), None, (Features::default(), None))?;
    let mut probe = Probe {
        endpoint: Endpoint::new(net)?,
        run: u64::from_be_bytes(random()?),
        group: group.on(&interface).addr,
        overhead: if v6 { 48 } else { 28 },
        listeners: BTreeMap::new(),
        back: BTreeMap::new(),
        told: BTreeMap::new(),
    };
    probe.greet(host, wait.unwrap_or(WAIT))?;
    if probe.listeners.is_empty() {
        return Ok(vec![verdicts::nobody(host.unwrap_or(probe.group))]);
    }
    // From the answer to this on, a listener counts.
    probe.ask()?;
    let symbol = interface.symbol_size(v6);
    let needed = usize::from(symbol) + SYMBOL_HEADER_LEN + TAG_RESERVE;
    probe.sizes(&interface, needed)?;
    probe.train(Train::GroupEven, needed)?;
    probe.train(Train::GroupBurst, needed)?;
    probe.train(Train::Even, needed)?;
    probe.train(Train::Burst, needed)?;
    let seconds =
        long.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).clamp(1, super::tally::MAX_TRAIN));
    for number in 0..seconds.unwrap_or(0) {
        probe.send(probe.group, Kind::Count, Train::Long, number, HELLO)?;
        probe.take(Instant::now() + Duration::from_secs(1))?;
    }
    probe.told.clear();
    probe.ask()?;
    Ok(probe.findings(host.is_some(), needed, seconds))
}

impl Probe {
    /// Sends hellos until listeners have answered, or the time is over.
    fn greet(&mut self, host: Option<SocketAddr>, wait: Duration) -> io::Result<()> {
        // A host may answer from another one of its addresses.
        let wanted = |from: &SocketAddr, listener: &Listener| {
            host.is_none_or(|host| listener.heard[0] || host.ip() == from.ip())
        };
        let (mut until, mut found) = (Instant::now().checked_add(wait), false);
        let hello = |train| Message { kind: Kind::Hello, train, run: self.run, cookie: [0; 16], number: 0 };
        let (to_group, to_host) = (wire::encode(&hello(1), &[], HELLO), wire::encode(&hello(0), &[], HELLO));
        while until.is_none_or(|until| Instant::now() < until) {
            self.endpoint.send(self.group, &to_group)?;
            if let Some(host) = host {
                self.endpoint.send(host, &to_host)?;
            }
            let (run, listeners) = (self.run, &mut self.listeners);
            self.endpoint.receive(Instant::now() + AGAIN, |from, bytes, _| {
                let Some((message, _)) = wire::decode(bytes) else { return };
                let room = listeners.len() < MAX_LISTENERS || listeners.contains_key(&from);
                if message.kind == Kind::Here && message.run == run && room {
                    let (number, cookie) = (message.number, message.cookie);
                    let listener =
                        listeners.entry(from).or_insert(Listener { number, cookie, heard: [false; 2] });
                    listener.heard[usize::from(message.train == 1)] = true;
                }
            })?;
            if !found && self.listeners.iter().any(|(from, listener)| wanted(from, listener)) {
                // The rest of them, or the other way, takes no longer.
                found = true;
                until = Some(Instant::now() + OTHERS);
            }
        }
        self.listeners.retain(|from, listener| wanted(from, listener));
        Ok(())
    }

    /// Sends a datagram of a train.
    fn send(
        &mut self,
        to: SocketAddr,
        kind: Kind,
        train: Train,
        number: u32,
        length: usize,
    ) -> io::Result<()> {
        let cookie = self.listeners.get(&to).map_or([0; 16], |listener| listener.cookie);
        let message = Message { kind, train: train as u8, run: self.run, cookie, number };
        self.endpoint.send(to, &wire::encode(&message, &[], length))
    }

    /// Takes what listeners send until then.
    fn take(&mut self, until: Instant) -> io::Result<()> {
        let (run, listeners, back, told) = (self.run, &self.listeners, &mut self.back, &mut self.told);
        self.endpoint.receive(until, |from, bytes, at| {
            let Some((message, payload)) = wire::decode(bytes) else { return };
            let ours = listeners.get(&from).is_some_and(|listener| listener.cookie == message.cookie);
            if !ours || message.run != run {
                return;
            }
            match message.kind {
                Kind::Back => {
                    let tallies = back.entry(from).or_default();
                    if let Some(tally) = tallies.get_mut(usize::from(message.train)) {
                        tally.count(message.number, bytes.len(), at);
                    }
                }
                Kind::Told => {
                    if let Some(report) = wire::decode_report(payload) {
                        told.insert(from, report);
                    }
                }
                _ => {}
            }
        })
    }

    /// Asks all listeners what arrived, until all have said so.
    fn ask(&mut self) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            let open: Vec<SocketAddr> =
                self.listeners.keys().filter(|to| !self.told.contains_key(to)).copied().collect();
            if open.is_empty() {
                break;
            }
            for to in open {
                self.send(to, Kind::Ask, Train::GroupEven, 0, REPORT)?;
            }
            self.take(Instant::now() + AGAIN)?;
        }
        Ok(())
    }

    /// Sends datagrams of several lengths to the group, up to the interface's MTU.
    fn sizes(&mut self, interface: &Interface, needed: usize) -> io::Result<()> {
        let most = (interface.mtu as usize).saturating_sub(self.overhead).clamp(HEADER, MAX_DATAGRAM);
        let mut lengths: Vec<usize> = LENGTHS.iter().map(|length| length - self.overhead).collect();
        lengths.extend([needed, most]);
        lengths.retain(|length| *length <= most);
        let mut number = 0;
        for length in lengths {
            for _ in 0..COPIES {
                self.send(self.group, Kind::Count, Train::GroupSizes, number, length)?;
                number += 1;
            }
            self.take(Instant::now() + PACE)?;
        }
        Ok(())
    }

    /// Sends a train to the group, or to each listener and back.
    fn train(&mut self, train: Train, length: usize) -> io::Result<()> {
        let length = length.min(MAX_DATAGRAM);
        let grouped = matches!(train, Train::GroupEven | Train::GroupBurst);
        let to: Vec<SocketAddr> =
            if grouped { vec![self.group] } else { self.listeners.keys().copied().collect() };
        let kind = if grouped { Kind::Count } else { Kind::Echo };
        let (count, at_a_time) = match train {
            Train::GroupBurst | Train::Burst => (BURST, BURST),
            _ => (EVEN, AT_A_TIME),
        };
        for to in to {
            for number in 0..count {
                self.send(to, kind, train, number, length)?;
                if (number + 1) % at_a_time == 0 {
                    self.take(Instant::now() + PACE)?;
                }
            }
            self.take(Instant::now() + AGAIN)?;
        }
        Ok(())
    }

    /// Judges what listeners told.
    fn findings(&self, host: bool, needed: usize, seconds: Option<u32>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (from, listener) in &self.listeners {
            let tallies = self.back.get(from);
            let back = [Train::Even, Train::Burst]
                .map(|train| tallies.map_or_else(Told::default, |t| t[train as usize].told()));
            let path = Path {
                host: from.ip(),
                unicast: host.then_some(listener.heard[0]),
                group: listener.heard[1],
                told: self.told.get(from),
                back,
                sent: [EVEN, BURST],
                needed,
                overhead: self.overhead,
                seconds,
            };
            findings.extend(path.findings());
        }
        let mut seen = BTreeMap::new();
        for (from, listener) in &self.listeners {
            if seen.insert(from.ip(), listener.number).is_some_and(|number| number != listener.number) {
                findings.push(verdicts::two_at(from.ip()));
            }
        }
        findings
    }
}
