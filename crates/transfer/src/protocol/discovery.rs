//! Discovery: a machine that listens to announcements and lists their sessions, with the trust decision about each
//! sender. It sends nothing.
//!
//! An announcement can be a recording. A listed session was announced once, and somebody sends its announcements
//! now. Only admission shows that a session is live.

use super::need::Need;
use super::packet_protection::{self, Found};
use super::rate_limit::RateLimit;
use super::trust::{Trust, TrustDecision};
use super::{Control, Machine, Output};
use crate::crypto::derive::Secret;
use crate::crypto::primitives::Primitives;
use crate::limits::{MAX_DISCOVERED, SENDER_SILENCE, VERIFICATIONS_PER_SECOND};
use crate::time::Time;
use crate::units::{Arrival, SenderKey, SessionId, TaskId};
use crate::wire::{self, MessageKind, Phase};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

/// Configuration of a [`Discovery`].
#[derive(Clone, Debug)]
pub struct DiscoveryConfig {
    /// The groups to listen to for announcements.
    pub groups: Vec<SocketAddr>,
    /// Group keys to try. If there are any, only sessions sealed with one of them are listed.
    pub group_keys: Vec<Secret>,
    /// Checks signatures.
    pub primitives: &'static dyn Primitives,
    /// The senders that would be accepted.
    pub trust: Trust,
}

/// An announced session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// The session.
    pub session: SessionId,
    /// Its task.
    pub task: TaskId,
    /// The sender's key.
    pub sender: SenderKey,
    /// The sender's address.
    pub address: SocketAddr,
    /// The trust decision about the sender.
    pub decision: TrustDecision,
    /// Name of the object (untrusted).
    pub name: String,
    /// Bytes of the object.
    pub size: u64,
    /// The data address.
    pub data: SocketAddr,
    /// A requirement of the session that this program does not meet.
    pub need: Option<Need>,
    /// The phase of the session.
    pub phase: Phase,
    /// The announcement as it was received. A receive session that takes part need not wait for the next one.
    pub announce: Vec<u8>,
}

/// A change of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryEvent {
    /// A session is announced.
    Found(Box<Discovered>),
    /// A session has entered another phase.
    Phase(SessionId, Phase),
    /// A session is no longer announced.
    Gone(SessionId),
}

#[derive(Debug)]
struct Heard {
    session: Discovered,
    last: Time,
}

/// See the module's description. Requests no jobs.
#[derive(Debug)]
pub struct Discovery {
    config: DiscoveryConfig,
    heard: BTreeMap<SessionId, Heard>,
    /// Bound on signature checks.
    verifications: RateLimit,
    out: VecDeque<Output<Infallible, DiscoveryEvent>>,
    finished: bool,
    next_join: Time,
}

/// Interval of renewed group joins while nothing is heard: a switch may have forgotten the memberships.
const REJOIN: Duration = Duration::from_secs(5);

impl Discovery {
    /// A discovery that starts listening at `now`.
    #[must_use]
    pub fn new(config: DiscoveryConfig, now: Time) -> Self {
        let out = config.groups.iter().map(|&group| Output::Listen(group)).collect();
        let verifications = RateLimit::new(VERIFICATIONS_PER_SECOND);
        Self { config, heard: BTreeMap::new(), verifications, out, finished: false, next_join: now + REJOIN }
    }

    /// The announced sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<Discovered> {
        self.heard.values().map(|heard| heard.session.clone()).collect()
    }

    fn announced(&mut self, now: Time, from: SocketAddr, bytes: &mut [u8]) -> Option<()> {
        let head = wire::head(bytes).ok().filter(|head| head.kind == MessageKind::Announce)?;
        // Checks first what costs nothing.
        if head.protection.is_group() == self.config.group_keys.is_empty() || !self.verifications.allow(now) {
            return None;
        }
        let as_it_came = bytes.to_vec();
        let DiscoveryConfig { primitives, group_keys, .. } = &self.config;
        let Found { announce, .. } = packet_protection::find(*primitives, group_keys, &head, bytes)?;
        let id = head.header.session;
        self.next_join = now + REJOIN;
        if let Some(heard) = self.heard.get_mut(&id) {
            // Another sender cannot replace it.
            if heard.session.sender == announce.sender {
                heard.last = now;
                heard.session.address = from;
                heard.session.announce = as_it_came;
                if std::mem::replace(&mut heard.session.phase, announce.phase) != announce.phase {
                    self.out.push_back(Output::Event(DiscoveryEvent::Phase(id, announce.phase)));
                }
            }
            return None;
        }
        let decision = self.config.trust.decide(&announce.sender, from.ip());
        self.make_room(decision.accepted())?;
        let session = Discovered {
            session: id,
            task: announce.task,
            sender: announce.sender,
            address: from,
            decision,
            size: announce.objects.iter().fold(0, |sum, object| object.size.saturating_add(sum)),
            need: Need::of_announce(&announce),
            data: announce.data,
            name: announce.name,
            phase: announce.phase,
            announce: as_it_came,
        };
        self.out.push_back(Output::Event(DiscoveryEvent::Found(Box::new(session.clone()))));
        self.heard.insert(id, Heard { session, last: now });
        Some(())
    }

    /// Makes room for another session. Only a session that is not trusted can be removed, and only for a
    /// trusted one.
    fn make_room(&mut self, accepted: bool) -> Option<()> {
        if self.heard.len() < MAX_DISCOVERED {
            return Some(());
        }
        let stranger = |heard: &Heard| !heard.session.decision.accepted();
        let oldest =
            self.heard.iter().filter(|(_, h)| accepted && stranger(h)).min_by_key(|(_, h)| h.last)?;
        let id = *oldest.0;
        self.heard.remove(&id);
        self.out.push_back(Output::Event(DiscoveryEvent::Gone(id)));
        Some(())
    }
}

impl Machine for Discovery {
    type Job = Infallible;
    type Done = String;
    type Event = DiscoveryEvent;

    fn handle_datagram(&mut self, now: Time, arrival: Arrival, bytes: &mut [u8]) {
        self.announced(now, arrival.from, bytes);
    }

    fn handle_timeout(&mut self, now: Time) {
        let silent = |heard: &Heard| now >= heard.last + SENDER_SILENCE;
        let gone: Vec<_> = self.heard.iter().filter(|(_, h)| silent(h)).map(|(&id, _)| id).collect();
        for id in gone {
            self.heard.remove(&id);
            self.out.push_back(Output::Event(DiscoveryEvent::Gone(id)));
        }
        if now >= self.next_join {
            self.next_join = now + REJOIN;
            self.out.extend(self.config.groups.iter().map(|&group| Output::Listen(group)));
        }
    }

    fn handle_job_done(&mut self, _: Time, _: String) {}

    fn handle_absence(&mut self, now: Time, away: Duration) {
        for heard in self.heard.values_mut() {
            heard.last = (heard.last + away).min(now);
        }
    }

    fn handle_control(&mut self, _: Time, control: Control) {
        self.finished |= control == Control::Interrupt;
    }

    fn set_kernel_drops(&mut self, _: u64) {}

    fn poll(&mut self, _: Time) -> Option<Output<Infallible, DiscoveryEvent>> {
        self.out.pop_front()
    }

    fn next_timeout(&self) -> Time {
        let silent = self.heard.values().map(|heard| heard.last + SENDER_SILENCE).min();
        silent.unwrap_or(Time::NEVER).min(self.next_join)
    }

    fn is_finished(&self) -> bool {
        self.finished && self.out.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::trust::Strangers;
    use crate::sim::fakes::FakeSender;
    use crate::sim::sham::{self, SHAM};
    use crate::units::{ChannelId, Via};
    use crate::wire::Message;

    const GROUP: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(239, 1, 1, 1)), 7417);

    /// The sender with this key, in its session of this number.
    fn sender(counter: u64, key: u8, group: Option<&Secret>) -> FakeSender {
        FakeSender::of(counter, sham::signing_key(key.into()), [key; 32], group)
    }

    struct Bench {
        discovery: Discovery,
        now: Time,
    }

    impl Bench {
        fn new(trust: Trust, group_keys: Vec<Secret>) -> Self {
            let config = DiscoveryConfig { groups: vec![GROUP], group_keys, primitives: SHAM, trust };
            let mut bench = Self { discovery: Discovery::new(config, Time::ZERO), now: Time::ZERO };
            assert!(matches!(bench.discovery.poll(Time::ZERO), Some(Output::Listen(GROUP))));
            assert!(bench.events().is_empty());
            bench
        }

        fn hear(&mut self, sender: &mut FakeSender, phase: Phase) -> Vec<DiscoveryEvent> {
            let announce = wire::Announce { phase, ..sender.any_announce() };
            let mut bytes = sender.to_all(ChannelId::GROUP, &Message::Announce(announce), |_| ());
            let arrival = Arrival::at_once(([10, 0, 0, 1], 7418).into(), Via::Group);
            self.discovery.handle_datagram(self.now, arrival, &mut bytes);
            self.events()
        }

        fn pass(&mut self, time: Duration) -> Vec<DiscoveryEvent> {
            let end = self.now + time;
            while self.discovery.next_timeout() <= end {
                self.now = self.now.max(self.discovery.next_timeout());
                self.discovery.handle_timeout(self.now);
            }
            self.now = end;
            self.events()
        }

        fn events(&mut self) -> Vec<DiscoveryEvent> {
            let all = std::iter::from_fn(|| self.discovery.poll(self.now));
            all.filter_map(|out| if let Output::Event(event) = out { Some(event) } else { None }).collect()
        }
    }

    #[test]
    fn a_session_is_found_once_followed_and_gone_when_it_falls_silent() {
        let mut bench = Bench::new(Trust::anybody(), vec![]);
        let (mut a, mut b) = (sender(1, 1, None), sender(2, 2, None));
        let found = bench.hear(&mut a, Phase::Gathering);
        let [DiscoveryEvent::Found(first)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            (first.session, first.sender, first.decision),
            (a.session(), a.key(), TrustDecision::Unverified)
        );
        bench.pass(SENDER_SILENCE / 2);
        assert!(bench.hear(&mut a, Phase::Gathering).is_empty(), "no news");
        assert_eq!(
            bench.hear(&mut a, Phase::Streaming),
            [DiscoveryEvent::Phase(a.session(), Phase::Streaming)]
        );
        assert_eq!(bench.hear(&mut b, Phase::Gathering).len(), 1);
        assert_eq!(bench.discovery.sessions().len(), 2);
        bench.pass(SENDER_SILENCE / 2);
        bench.hear(&mut b, Phase::Gathering);
        // A while in which nobody listened is nobody's silence.
        bench.now = bench.now + Duration::from_secs(3600);
        bench.discovery.handle_absence(bench.now, Duration::from_secs(3600));
        assert_eq!(bench.pass(SENDER_SILENCE / 2), [DiscoveryEvent::Gone(a.session())]);
        assert_eq!(bench.pass(SENDER_SILENCE), [DiscoveryEvent::Gone(b.session())]);
        assert!(bench.discovery.sessions().is_empty());
        bench.discovery.handle_control(bench.now, Control::Interrupt);
        assert!(bench.discovery.is_finished());
    }

    #[test]
    fn only_the_kind_looked_for_is_listed() {
        let group = Secret::new([5; 32]);
        let mut bench = Bench::new(Trust::anybody(), vec![group.clone()]);
        assert!(bench.hear(&mut sender(1, 1, None), Phase::Gathering).is_empty());
        assert_eq!(bench.hear(&mut sender(2, 1, Some(&group)), Phase::Gathering).len(), 1);
        let sessions = bench.discovery.sessions();
        assert_eq!((sessions.len(), sessions[0].sender), (1, sender(2, 1, None).key()));
    }

    #[test]
    fn a_flood_of_strangers_is_bounded_and_keeps_nobody_out_who_is_trusted() {
        let known = sender(1, 1, None).key();
        let trust = Trust { pinned: vec![known], strangers: Strangers::Refuse, ..Trust::anybody() };
        let mut bench = Bench::new(trust, vec![]);
        for n in 0..2 * MAX_DISCOVERED as u64 {
            bench.now = bench.now + Duration::from_millis(10);
            bench.hear(&mut sender(100 + n, 2, None), Phase::Gathering);
        }
        assert_eq!(bench.discovery.sessions().len(), MAX_DISCOVERED);
        let events = bench.hear(&mut sender(1, 1, None), Phase::Gathering);
        assert!(
            matches!(&events[..], [DiscoveryEvent::Gone(_), DiscoveryEvent::Found(s)] if s.sender == known)
        );
        assert_eq!(bench.discovery.sessions().len(), MAX_DISCOVERED);
    }
}
