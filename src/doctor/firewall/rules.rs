//! What a packet filter does to a datagram. A rule either matches, or does not, or depends on what is not known
//! here; so does the fate of a datagram. `nft` and `iptables` make the rules from text.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Most chains that one chain leads to in a row.
const MAX_DEPTH: usize = 16;
/// Most rules that one datagram is held against.
const MAX_STEPS: usize = 100_000;

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// It arrives.
    Input,
    /// It is sent.
    Output,
}

/// The UDP datagram that is asked about.
pub struct Packet<'a> {
    /// The interface that it crosses.
    pub interface: &'a str,
    /// Its destination port.
    pub port: u16,
    /// Its destination, if it is known.
    pub daddr: Option<Ipv4Addr>,
    /// Whether it is IPv6.
    pub v6: bool,
}

/// One condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is known to hold, or not to hold.
    Is(bool),
    /// The interface is this one (or, if false, another one).
    Interface(String, bool),
    /// The destination port is in one of these ranges (or in none).
    Port(Vec<(u16, u16)>, bool),
    /// The destination is in this IPv4 network (or is not).
    Daddr(Ipv4Addr, u8, bool),
    /// The packet's family is IPv6, or is not.
    V6(bool),
    /// It depends on more than is known here.
    Unknown,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It lets the datagram through this base chain.
    Accept,
    /// It drops or rejects it.
    Drop,
    /// It continues in another chain, and then here.
    Jump(String),
    /// It continues in another chain, and not here.
    Goto(String),
    /// It continues behind the jump.
    Return,
    /// It counts, logs or marks.
    Nothing,
    /// What it does depends on more than is known here.
    Unknown,
}

/// A rule: what it does if all its conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub conditions: Vec<Condition>,
    /// What it does.
    pub action: Action,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where it begins, if it is a base chain.
    pub hook: Option<Base>,
    /// Whether it drops what no rule decides.
    pub drops: bool,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// The hook of a base chain, and the device of an ingress chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The way.
    pub hook: Hook,
    /// The only interfaces that it sees; none: all.
    pub devices: Vec<String>,
    /// The family of its packets, if it sees only one: whether that is IPv6.
    pub v6: Option<bool>,
}

/// All chains, by a name for people: `table inet filter, chain input`.
#[derive(Debug, Default)]
pub struct Ruleset {
    /// The chains.
    pub chains: BTreeMap<String, Chain>,
}

/// What becomes of a datagram, with the chain that decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It passes.
    Accepted,
    /// It may be dropped.
    Unknown(String),
    /// It is dropped.
    Dropped(String),
}

/// How a chain ends.
enum End {
    Accept,
    Drop(String),
    Fall,
}

/// A walk of one datagram through the rules.
struct Walk<'a> {
    set: &'a Ruleset,
    packet: &'a Packet<'a>,
    steps: usize,
    /// A rule may have accepted it already.
    maybe_accepted: bool,
    /// A chain that may have dropped it.
    maybe_dropped: Option<String>,
}

impl Ruleset {
    /// What becomes of a datagram.
    #[must_use]
    pub fn fate(&self, hook: Hook, packet: &Packet<'_>) -> Fate {
        let mut fate = Fate::Accepted;
        for (name, chain) in &self.chains {
            let Some(at) = &chain.hook else { continue };
            let sees = at.devices.is_empty() || at.devices.iter().any(|device| device == packet.interface);
            if at.hook != hook || !sees || at.v6.is_some_and(|v6| v6 != packet.v6) {
                continue;
            }
            let mut walk = Walk { set: self, packet, steps: 0, maybe_accepted: false, maybe_dropped: None };
            let end = match walk.chain(name, chain, 0) {
                End::Fall if chain.drops => End::Drop(format!("the policy of {name}")),
                end => end,
            };
            let here = match end {
                End::Drop(rule) if walk.maybe_accepted => Fate::Unknown(rule),
                End::Drop(rule) => Fate::Dropped(rule),
                _ => walk.maybe_dropped.map_or(Fate::Accepted, Fate::Unknown),
            };
            fate = fate.max(here);
        }
        fate
    }
}

impl Walk<'_> {
    fn chain(&mut self, name: &str, chain: &Chain, depth: usize) -> End {
        for (i, rule) in chain.rules.iter().enumerate() {
            self.steps += 1;
            let sure = match self.matches(rule) {
                Some(false) => continue,
                Some(true) => true,
                None => false,
            };
            let place = || format!("rule {} of {name}", i + 1);
            match &rule.action {
                Action::Nothing => {}
                Action::Unknown => self.maybe_accepted = true,
                Action::Accept if sure => return End::Accept,
                Action::Accept => self.maybe_accepted = true,
                Action::Drop if sure => return End::Drop(place()),
                Action::Drop => self.maybe_dropped = Some(place()),
                Action::Return if sure => return End::Fall,
                // What follows may be skipped.
                Action::Return => self.maybe_accepted = true,
                Action::Jump(target) | Action::Goto(target) => {
                    let set = self.set;
                    let found = set.chains.get(target);
                    let Some(next) = found.filter(|_| depth < MAX_DEPTH && self.steps < MAX_STEPS) else {
                        self.maybe_accepted = true;
                        continue;
                    };
                    match (self.chain(target, next, depth + 1), sure) {
                        (End::Fall, true) if matches!(rule.action, Action::Goto(_)) => return End::Fall,
                        (End::Fall, _) => {}
                        (end, true) => return end,
                        (End::Accept, false) => self.maybe_accepted = true,
                        (End::Drop(rule), false) => self.maybe_dropped = Some(rule),
                    }
                }
            }
        }
        End::Fall
    }

    /// Whether a rule matches; `None` if that is not known.
    fn matches(&self, rule: &Rule) -> Option<bool> {
        let mut sure = true;
        for condition in &rule.conditions {
            match self.holds(condition) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => sure = false,
            }
        }
        sure.then_some(true)
    }

    fn holds(&self, condition: &Condition) -> Option<bool> {
        let packet = self.packet;
        match condition {
            Condition::Is(holds) => Some(*holds),
            Condition::V6(v6) => Some(packet.v6 == *v6),
            Condition::Interface(name, same) => {
                let matches = match name.strip_suffix('*') {
                    Some(start) => packet.interface.starts_with(start),
                    None => packet.interface == name,
                };
                Some(matches == *same)
            }
            Condition::Port(ranges, inside) => {
                Some(ranges.iter().any(|(low, high)| (*low..=*high).contains(&packet.port)) == *inside)
            }
            Condition::Daddr(..) if packet.v6 => Some(false),
            Condition::Daddr(net, len, inside) => {
                let mask = u32::MAX.checked_shl(32 - u32::from((*len).min(32))).unwrap_or(0);
                packet.daddr.map(|to| (u32::from(to) & mask == u32::from(*net) & mask) == *inside)
            }
            Condition::Unknown => None,
        }
    }
}
