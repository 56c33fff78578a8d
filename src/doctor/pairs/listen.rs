//! The doctor that listens: answers hellos, counts trains, and says at the end whom it heard.

use super::tally::Tally;
use super::wire::{self, HELLO, Kind, Message, REPORT, Train};
use super::{Endpoint, random};
use crate::doctor::Finding;
use mcp_transfer::limits::{DEFAULT_GROUP_V4, DEFAULT_GROUP_V6};
use mcp_transfer::net::endpoint::Families;
use mcp_transfer::net::{AddressKind, Destination, Features, Net, UdpNet, choose_all_for_receive};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Most answers in a second, in the mean.
pub const ANSWERS_PER_SECOND: f64 = 4000.0;
/// Most answers at once.
const MAX_BURST: f64 = 512.0;
/// Doctors that are remembered.
const MAX_PEERS: usize = 64;
/// How often the time and signals are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A doctor that was heard.
struct Peer {
    /// Whether a hello to the group, or to this machine, was heard.
    heard: [bool; 2],
    /// Whether it has shown the cookie, so that answers reach it.
    answered: bool,
    tallies: [Tally; Train::ALL.len()],
    last: Instant,
}

/// What a listener knows.
struct Listener {
    key: [u8; 32],
    number: u32,
    peers: BTreeMap<(SocketAddr, u64), Peer>,
    /// Answers that may be sent now.
    tokens: f64,
    refilled: Instant,
}

/// Listens as a receiver would, until `stop` or for some time, and says what was heard.
///
/// # Errors
/// If no interface or socket can be used; the text is for the user.
pub fn run(
    group: Option<&Destination>,
    interface: Option<&str>,
    port: u16,
    time: Option<Duration>,
    stop: &AtomicBool,
) -> io::Result<Vec<Finding>> {
    let interfaces = choose_all_for_receive(interface, group).map_err(io::Error::other)?;
    let port = group.map_or(port, |group| group.addr.port());
    let families = group.map_or(Families::ANY, |group| Families::of(&group.addr));
    let mut net = UdpNet::receiver(&interfaces, port, families, (Features::default(), None))?;
    if families.v4 {
        net.listen((DEFAULT_GROUP_V4, port).into());
    }
    if families.v6 {
        net.listen((DEFAULT_GROUP_V6, port).into());
    }
    if let Some(group) = group.filter(|group| group.kind == AddressKind::Multicast) {
        net.listen(group.addr);
    }
    let mut endpoint = Endpoint::new(net)?;
    let mut listener = Listener::new(random()?, u32::from_be_bytes(random()?), Instant::now());
    let end = time.and_then(|time| Instant::now().checked_add(time));
    while !stop.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end) {
        let mut answers = Vec::new();
        let look = Instant::now() + LOOK;
        let until = end.map_or(look, |end| end.min(look));
        // A batch at a time, so that echoes keep their pace.
        endpoint.receive_some(until, |from, bytes, at| {
            answers.extend(listener.hear(from, bytes, at).map(|answer| (from, answer)));
        })?;
        for (to, answer) in answers {
            endpoint.send(to, &answer)?;
        }
    }
    Ok(listener.findings())
}

impl Listener {
    const fn new(key: [u8; 32], number: u32, now: Instant) -> Self {
        Self { key, number, peers: BTreeMap::new(), tokens: MAX_BURST, refilled: now }
    }

    /// The cookie of an address.
    fn cookie(&self, from: SocketAddr, run: u64) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.key, format!("{from} {run}").as_bytes());
        std::array::from_fn(|i| hash.as_bytes()[i])
    }

    /// Takes a datagram. Returns the answer to its source, which is not longer.
    fn hear(&mut self, from: SocketAddr, bytes: &[u8], at: Instant) -> Option<Vec<u8>> {
        let (message, _) = wire::decode(bytes)?;
        let cookie = self.cookie(from, message.run);
        match message.kind {
            Kind::Hello if bytes.len() >= HELLO => {
                self.peer(from, message.run, at).heard[usize::from(message.train == 1)] = true;
                let answer = Message { kind: Kind::Here, cookie, number: self.number, ..message };
                self.allowed(at).then(|| wire::encode(&answer, &[], HELLO))
            }
            // From here on, the address is that of who asks. The group's datagrams have no cookie; they count for
            // a run that is known.
            Kind::Count => {
                let peer = self.peers.get_mut(&(from, message.run)).filter(|peer| peer.answered)?;
                peer.tallies.get_mut(usize::from(message.train))?.count(message.number, bytes.len(), at);
                None
            }
            Kind::Echo if message.cookie == cookie => {
                let peer = self.peer(from, message.run, at);
                peer.tallies.get_mut(usize::from(message.train))?.count(message.number, bytes.len(), at);
                let answer = Message { kind: Kind::Back, ..message };
                self.allowed(at).then(|| wire::encode(&answer, &[], bytes.len()))
            }
            Kind::Ask if message.cookie == cookie && bytes.len() >= REPORT => {
                let peer = self.peer(from, message.run, at);
                peer.answered = true;
                let report = wire::encode_report(&peer.tallies);
                let answer = Message { kind: Kind::Told, ..message };
                self.allowed(at).then(|| wire::encode(&answer, &report, REPORT))
            }
            _ => None,
        }
    }

    /// The state of a doctor. The one that was silent for longest makes room for a new one.
    fn peer(&mut self, from: SocketAddr, run: u64, now: Instant) -> &mut Peer {
        let key = (from, run);
        if !self.peers.contains_key(&key)
            && self.peers.len() >= MAX_PEERS
            && let Some(oldest) = self.peers.iter().min_by_key(|(_, peer)| peer.last).map(|(key, _)| *key)
        {
            self.peers.remove(&oldest);
        }
        let peer = self.peers.entry(key).or_insert_with(|| Peer {
            heard: [false; 2],
            answered: false,
            tallies: Default::default(),
            last: now,
        });
        peer.last = now;
        peer
    }

    /// Whether one more answer may be sent.
    fn allowed(&mut self, now: Instant) -> bool {
        let time = now.saturating_duration_since(self.refilled);
        self.refilled = self.refilled.max(now);
        self.tokens = (self.tokens + time.as_secs_f64() * ANSWERS_PER_SECOND).min(MAX_BURST);
        let allowed = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(allowed));
        allowed
    }

    fn findings(&self) -> Vec<Finding> {
        if self.peers.is_empty() {
            let nobody = "no other doctor was heard: none ran, or its datagrams do not arrive";
            return vec![Finding::broken("multicast", nobody).mend("mcp doctor --to 239.255.74.17")];
        }
        let mut findings = Vec::new();
        for ((from, _), peer) in &self.peers {
            let ip = from.ip();
            findings.push(match peer.heard {
                [_, true] => Finding::ok("multicast", format!("datagrams of {ip} to the group arrive")),
                [true, false] => Finding::broken(
                    "multicast",
                    format!("datagrams of {ip} to this machine arrive, but none to the group"),
                )
                .mend("mcp doctor --listen-for 130s"),
                [false, false] => continue,
            });
            findings.push(if peer.answered {
                Finding::ok("unicast", format!("answers reach {ip}"))
            } else {
                Finding::broken(
                    "unicast",
                    format!("{ip} does not confirm answers: they do not reach it, or it does not reach this machine by unicast"),
                )
                .mend("mcp doctor")
            });
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn hello(run: u64) -> Vec<u8> {
        let message = Message { kind: Kind::Hello, train: 1, run, cookie: [0; 16], number: 0 };
        wire::encode(&message, &[], HELLO)
    }

    #[test]
    fn no_answer_is_longer_than_its_question_and_strangers_get_only_hellos() {
        let now = Instant::now();
        let (from, stranger) =
            (SocketAddr::from(([10, 0, 0, 1], 7418)), SocketAddr::from(([10, 0, 0, 2], 7418)));
        let mut listener = Listener::new([1; 32], 7, now);
        let answer = listener.hear(from, &hello(5), now).unwrap();
        assert_eq!(answer.len(), HELLO);
        assert_eq!(listener.hear(from, &hello(5)[..HELLO - 1], now), None);
        let cookie = wire::decode(&answer).unwrap().0.cookie;
        let message = Message { kind: Kind::Echo, train: 3, run: 5, cookie, number: 0 };
        for (kind, least) in [(Kind::Echo, wire::HEADER), (Kind::Ask, REPORT)] {
            for length in [wire::HEADER, HELLO, REPORT, 1400] {
                let bytes = wire::encode(&Message { kind, ..message }, &[], length);
                let answer = listener.hear(from, &bytes, now);
                assert_eq!(answer.is_some(), length >= least, "{kind:?} {length}");
                assert!(answer.is_none_or(|answer| answer.len() <= length));
                // The cookie is of one address and one run.
                assert_eq!(listener.hear(stranger, &bytes, now), None);
                let other = wire::encode(&Message { kind, run: 6, ..message }, &[], length);
                assert_eq!(listener.hear(from, &other, now), None);
            }
        }
        for kind in [Kind::Here, Kind::Back, Kind::Told, Kind::Count] {
            assert_eq!(
                listener.hear(from, &wire::encode(&Message { kind, ..message }, &[], 1400), now),
                None
            );
        }
        assert_eq!(listener.hear(from, b"doc1 and so on", now), None);
    }

    #[test]
    fn answers_and_memory_are_bounded() {
        let now = Instant::now();
        let mut listener = Listener::new([1; 32], 7, now);
        let flood = |listener: &mut Listener, at| {
            let from = |i: u64| SocketAddr::from(([10, 0, (i / 250) as u8, (i % 250) as u8], 7418));
            (0..5000).filter(|i| listener.hear(from(*i), &hello(*i), at).is_some()).count()
        };
        assert_eq!(flood(&mut listener, now), MAX_BURST as usize);
        assert_eq!(flood(&mut listener, now + Duration::from_millis(10)), 40);
        assert_eq!(listener.peers.len(), MAX_PEERS);
    }

    #[test]
    fn what_was_heard() {
        let now = Instant::now();
        let from = SocketAddr::from(([10, 0, 0, 1], 7418));
        let mut listener = Listener::new([1; 32], 7, now);
        assert_eq!(listener.findings()[0].verdict, Verdict::Broken);
        let answer = listener.hear(from, &hello(5), now).unwrap();
        let verdicts =
            |listener: &Listener| listener.findings().iter().map(|f| f.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(&listener), [Verdict::Ok, Verdict::Broken]);
        let cookie = wire::decode(&answer).unwrap().0.cookie;
        let ask = Message { kind: Kind::Ask, train: 0, run: 5, cookie, number: 0 };
        listener.hear(from, &wire::encode(&ask, &[], REPORT), now).unwrap();
        assert_eq!(verdicts(&listener), [Verdict::Ok, Verdict::Ok]);
    }
}
