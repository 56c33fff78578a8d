//! The session a receiver takes part in: what the sender announced, and how well it is heard.

use super::Verifications;
use crate::content::{Entry, Manifest};
use crate::layout::Layout;
use crate::limits::{COMFORTABLE_BLOCK_LOG2, FeedbackBudget, MAX_BLOCKS, MAX_DEVICES};
use crate::protocol::event::ReceiverEvent;
use crate::protocol::packet_protection::ReceiverSide;
use crate::time::Time;
use crate::units::{Arrival, ChannelId, Cookie, Counter, Digest, SessionId, TaskId, Ticket};
use crate::wire::{
    self, Admit, Announce, Arrivals, Capabilities, DecodeError, Head, Message, MessageKind, OriginProof,
    PacketNumber, Phase, Retry, Versions,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A packet number that leaps further than this is damage, not loss: an hour at a million datagrams a second.
const MAX_LEAP: u64 = 1 << 32;
/// Longest stretch of arrivals that is reported on: the sender's rate may change soon.
const STRETCH: Duration = Duration::from_millis(100);
/// A sender that is heard from another address, and not from its own for so long, has moved.
const MOVED_AFTER: Duration = Duration::from_secs(1);
/// Challenges are not answered more often.
const RETRY_PATIENCE: Duration = Duration::from_millis(100);
/// So many datagrams tell what the path carries, and so many if they are spread over half a stretch.
const MANY: u32 = 64;
const ENOUGH: u32 = 25;

/// A session, latched from its first announce: later ones cannot change what it is.
#[derive(Debug)]
pub(super) struct Session {
    pub id: SessionId,
    /// It rises from one session of a sender to the next.
    pub counter: Counter,
    /// What protects what is said.
    pub side: ReceiverSide,
    /// What the sender wants to be given back in joins.
    pub cookie: Cookie,
    /// When a challenge was answered last.
    last_retry: Option<Time>,
    pub sender: SocketAddr,
    /// When anything came from there, genuine or not.
    pub home_heard: Time,
    /// When it last said something from there that was for us alone.
    pub home_spoke: Option<Time>,
    /// Where joins were sent to, and whether they went to several addresses.
    joined: Option<IpAddr>,
    scattered: bool,
    /// Another address that its announces came from.
    pub elsewhere: Option<SocketAddr>,
    pub task: TaskId,
    pub layout: Layout,
    pub name: String,
    /// What the manifest says of the object, if that is one file and the manifest came with the announce.
    pub entry: Option<Entry>,
    pub data: SocketAddr,
    pub phase: Phase,
    pub root: Option<Digest>,
    /// Devices the sender serves, at most as many as one may: what is spread by it must end.
    pub gsize: u32,
    /// What they may all say together.
    pub feedback: FeedbackBudget,
    /// What gives us our row back.
    pub ticket: Option<Ticket>,
    /// Capabilities that the sender announced.
    capabilities: [Capabilities; 2],
    /// Who made the object, as was checked.
    pub origin: Option<Box<OriginProof>>,
    /// When the sender was last heard at all, and on the group's channel.
    pub last_heard: Time,
    pub last_group: Time,
    pub group: ChannelLoss,
    /// The channel of our own unicast repair.
    pub own: ChannelLoss,
}

impl Session {
    /// The session that `announce` describes, if it is one that can be received.
    pub fn latch(side: ReceiverSide, from: SocketAddr, announce: &Announce, now: Time) -> Option<Self> {
        let [object] = announce.objects[..] else { return None };
        let layout = Layout::new(object.size, object.block_log2, announce.symbol_size).ok()?;
        // No sender of this program makes larger blocks of an object that it may send.
        let fits = layout.block_count() <= MAX_BLOCKS && layout.block_log2() <= COMFORTABLE_BLOCK_LOG2;
        fits.then(|| Self {
            id: side.session(),
            counter: announce.counter,
            side,
            cookie: Cookie::default(),
            last_retry: None,
            sender: from,
            home_heard: now,
            home_spoke: None,
            joined: None,
            scattered: false,
            elsewhere: None,
            task: announce.task,
            layout,
            name: announce.name.clone(),
            entry: described(announce, object.size),
            data: announce.data,
            phase: announce.phase,
            root: object.root,
            gsize: sound_group_size(announce.gsize),
            feedback: FeedbackBudget::announced(announce.feedback_budget),
            ticket: None,
            capabilities: [announce.required, announce.optional],
            origin: announce.origin.clone(),
            last_heard: now,
            last_group: now,
            group: ChannelLoss::default(),
            own: ChannelLoss::default(),
        })
    }

    /// Whether a challenge is for this run.
    pub fn is_challenged(&self, retry: &Retry) -> bool {
        self.side.agreement() == retry.agreement
    }

    /// Whether a challenge may be answered now; counts it as answered.
    pub fn may_answer_retry(&mut self, now: Time) -> bool {
        let may = self.last_retry.is_none_or(|at| now >= at + RETRY_PATIENCE);
        if may {
            self.last_retry = Some(now);
        }
        may
    }

    /// Whether `announce` is of this very session.
    pub fn agrees(&self, announce: &Announce) -> bool {
        self.side.agrees(announce)
    }

    /// Whether the version and the capabilities of an ADMIT are such as both sides offered.
    pub fn may_be_chosen(&self, admit: &Admit) -> bool {
        let [required, optional] = self.capabilities;
        let chosen = required.or(optional).and(Capabilities::OURS);
        (Versions::OURS.min..=Versions::OURS.max).contains(&admit.version) && admit.capabilities == chosen
    }

    /// How often each device reports while data arrives.
    pub fn report_interval(&self) -> Duration {
        self.feedback.report_interval(self.gsize)
    }

    /// What the user is told of it.
    pub fn found_event(&self) -> ReceiverEvent {
        ReceiverEvent::Found {
            session: self.id,
            task: self.task,
            sender: self.sender,
            name: self.name.clone(),
            size: self.layout.object_size(),
        }
    }

    /// Whether this is another session of what is probably the same object, cut into the same blocks.
    pub fn continues(&self, old: &Self) -> bool {
        self.side.sender() == old.side.sender()
            && self.name == old.name
            && self.layout.object_size() == old.layout.object_size()
            && self.layout.block_log2() == old.layout.block_log2()
    }

    /// Opens a datagram of the session, and notes how and from where it came; what costs least is checked first.
    /// `None` if it is damaged, forged, replayed, or not for us.
    ///
    /// # Errors
    /// When it is authentic, as far as it can be, and its body is no message that this program knows.
    pub fn open<'a>(
        &mut self,
        now: Time,
        arrival: &Arrival,
        head: &Head,
        bytes: &'a mut [u8],
        limits: &mut Verifications,
    ) -> Result<Option<Message<'a>>, DecodeError> {
        let (from, number) = (arrival.from, head.header.packet_number);
        let home = self.came_from(from, head.kind == MessageKind::Announce, now);
        // Where no seal vouches for it, what comes from elsewhere must not take the time for what comes from
        // the sender: only that it has moved can be news.
        if !home
            && !self.side.is_sealed()
            && !matches!(head.kind, MessageKind::Announce | MessageKind::Retry)
            && !head.protection.is_device()
        {
            return Ok(None);
        }
        let limit = if home { &mut limits.home } else { &mut limits.strangers };
        let Some(opened) = self.side.open(head, bytes, || limit.allow(now)) else { return Ok(None) };
        // What nothing vouches for must at least seem to come from the sender.
        if !opened.authentic && !home && head.kind != MessageKind::Retry {
            return Ok(None);
        }
        let group = number.channel() == ChannelId::GROUP;
        if opened.authentic {
            if head.protection.is_device() {
                self.spoken_to_from(from, home, now);
            }
            self.last_heard = now;
            if group {
                self.last_group = now;
            }
            if opened.newest && head.kind == MessageKind::Announce && !home {
                self.announced_elsewhere(from, now);
            }
        }
        if group {
            self.group.note(number, now - arrival.waited);
        } else if number.channel() == self.side.own_channel() {
            self.own.note(number, now - arrival.waited);
        }
        let message = wire::decode_body(head.kind, opened.body)?;
        let admitted = self.side.own_channel() != ChannelId::GROUP;
        if let (Message::Retry(retry), false) = (&message, home)
            && (admitted || !self.challenged_from(from, retry))
        {
            return Ok(None);
        }
        Ok(Some(message))
    }

    /// From now on, more is listened to than announces: what was missed until now was not lost.
    pub fn listen_anew(&mut self) {
        self.group = ChannelLoss::default();
    }

    /// A datagram of the session has come from this address; whether that is the sender's.
    pub fn came_from(&mut self, from: SocketAddr, is_announce: bool, now: Time) -> bool {
        let home = self.sender.ip() == from.ip() && self.sender.port() == from.port();
        if home {
            self.home_heard = now;
        } else if is_announce {
            self.elsewhere = Some(from);
        }
        home
    }

    /// A challenge has come: whether it may be the sender's, who then is there.
    pub fn challenged_from(&mut self, from: SocketAddr, retry: &Retry) -> bool {
        let there = self.elsewhere.is_some_and(|at| at.ip() == from.ip() && at.port() == from.port());
        let known = there && retry.agreement == self.side.agreement();
        if known {
            self.try_elsewhere();
        }
        known
    }

    /// What nobody else can read has come. Whoever says such things to us is the sender, unless it does so from
    /// where we think it is: such a datagram too can be passed on by somebody who is faster.
    pub fn spoken_to_from(&mut self, from: SocketAddr, home: bool, now: Time) {
        if home || self.home_spoke.is_none_or(|at| now >= at + MOVED_AFTER) {
            (self.sender, self.home_heard, self.home_spoke) = (from, now, Some(now));
        }
    }

    /// An authentic announce that is news has come from another address than the sender's. It has moved there if
    /// nothing comes from where it was: anybody can pass on what was said to all, and be the first.
    pub fn announced_elsewhere(&mut self, from: SocketAddr, now: Time) {
        if now >= self.home_heard + MOVED_AFTER {
            (self.sender, self.home_heard, self.home_spoke) = (from, now, None);
        }
    }

    /// A join was not answered: whoever passed on the first announce may have been another.
    pub fn try_elsewhere(&mut self) {
        if let Some(elsewhere) = &mut self.elsewhere {
            std::mem::swap(elsewhere, &mut self.sender);
        }
    }

    /// A join is sent to the sender.
    pub fn note_join(&mut self) {
        let to = self.sender.ip();
        self.scattered |= self.joined.replace(to).is_some_and(|before| before != to);
    }

    /// Whether whoever admitted us is at the sender's address: it has read a join, and all of them went there. The
    /// address that an answer comes from proves nothing, since anybody can write it.
    pub fn is_proven(&self) -> bool {
        !self.scattered && self.joined == Some(self.sender.ip())
    }

    /// Takes over what changes in the course of a session; the root hash only once.
    pub fn update(&mut self, announce: &Announce) {
        self.phase = announce.phase;
        self.gsize = sound_group_size(announce.gsize);
        if self.origin.is_none() {
            self.origin.clone_from(&announce.origin);
        }
        self.feedback = FeedbackBudget::announced(announce.feedback_budget);
        self.root = self.root.or(announce.objects.first().and_then(|object| object.root));
    }
}

/// What the manifest in an announce says of its object. One that is not understood, or is of something else, says
/// nothing.
fn described(announce: &Announce, size: u64) -> Option<Entry> {
    let manifest = Manifest::decode(&announce.manifest).ok()?;
    manifest.single().filter(|entry| entry.size() == size).cloned()
}

/// Devices spread their reports and receipts by the group's size: no more than a session serves.
pub(super) fn sound_group_size(told: u32) -> u32 {
    told.min(MAX_DEVICES as u32)
}

/// How one channel is heard, told by its packet numbers.
#[derive(Debug, Default)]
pub(super) struct ChannelLoss {
    first: Option<PacketNumber>,
    highest: u64,
    pub received: u64,
    /// What has arrived of late, and the stretch before.
    stretch: Option<Stretch>,
    before: Option<Stretch>,
}

/// A stretch of arrivals: first and last number, how many of them came, and when.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: PacketNumber,
    last: PacketNumber,
    received: u32,
    first_at: Time,
    last_at: Time,
}

impl Stretch {
    const fn starting(number: PacketNumber, at: Time) -> Self {
        Self { first: number, last: number, received: 1, first_at: at, last_at: at }
    }
    fn elapsed(&self) -> Duration {
        self.last_at - self.first_at
    }
    /// Whether it is enough to tell anything.
    fn tells(&self) -> bool {
        self.received >= MANY || self.received >= ENOUGH && self.elapsed() >= STRETCH / 2
    }
}

impl ChannelLoss {
    /// Notes a datagram that reached this machine at `at`. One of another channel begins anew.
    pub fn note(&mut self, number: PacketNumber, at: Time) {
        let counter = number.counter();
        match self.first {
            Some(first) if first.channel() == number.channel() => {
                if counter > self.highest.saturating_add(MAX_LEAP) {
                    return;
                }
                self.highest = self.highest.max(counter);
            }
            _ => *self = Self { first: Some(number), highest: counter, ..Self::default() },
        }
        self.received += 1;
        match &mut self.stretch {
            Some(stretch) if number > stretch.last => {
                stretch.last = number;
                stretch.last_at = stretch.last_at.max(at);
                stretch.received = stretch.received.saturating_add(1);
                // On a slow path, it takes longer until it tells anything.
                if stretch.elapsed() >= STRETCH && stretch.tells() {
                    let next = Stretch::starting(number, stretch.last_at);
                    self.before = self.stretch.replace(next);
                }
            }
            // Reordered: it belongs to this stretch if it was sent within it.
            Some(stretch) => stretch.received += u32::from(number > stretch.first),
            None => self.stretch = Some(Stretch::starting(number, at)),
        }
    }

    /// How the latest datagrams have arrived, if they are enough to tell anything. They are not told
    /// of again: the next stretch begins where this one ends, or, with `anew`, with the next datagram.
    pub fn take_arrivals(&mut self, anew: bool) -> Option<Arrivals> {
        let stretch = [self.stretch, self.before].into_iter().flatten().find(Stretch::tells)?;
        let last = self.stretch?;
        self.stretch = (!anew).then(|| Stretch::starting(last.last, last.last_at));
        self.before = None;
        Some(Arrivals {
            first: stretch.first,
            last: stretch.last,
            received: stretch.received,
            elapsed_us: u32::try_from(stretch.elapsed().as_micros()).unwrap_or(u32::MAX),
            last_at_us: u64::try_from((stretch.last_at - Time::ZERO).as_micros()).unwrap_or(u64::MAX),
        })
    }

    /// Datagrams that never came (a reordered one counts until it does).
    pub fn lost(&self) -> u64 {
        let sent = self.first.map_or(0, |first| self.highest - first.counter().min(self.highest) + 1);
        sent.saturating_sub(self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::packet_protection::fakes::FakeSender;
    use crate::units::ChannelId;

    #[test]
    fn losses_are_counted_from_the_first_datagram_heard() {
        let mut loss = ChannelLoss::default();
        for counter in [100, 101, 103, 102, 106, u64::MAX >> 20] {
            loss.note(PacketNumber::new(ChannelId::GROUP, counter), Time(counter * 1000));
        }
        assert_eq!((loss.received, loss.lost()), (5, 2));
    }

    /// Notes counters `from..to` of the group, a millisecond apart from `ms` on.
    fn run(loss: &mut ChannelLoss, counters: std::ops::Range<u64>, ms: u64) {
        for (i, counter) in counters.enumerate() {
            loss.note(PacketNumber::new(ChannelId::GROUP, counter), Time((ms + i as u64) * 1_000_000));
        }
    }

    fn arrivals(first: u64, last: u64, received: u32, elapsed: u32, at: u64) -> Option<Arrivals> {
        let number = |counter| PacketNumber::new(ChannelId::GROUP, counter);
        Some(Arrivals {
            first: number(first),
            last: number(last),
            received,
            elapsed_us: elapsed * 1000,
            last_at_us: at * 1000,
        })
    }

    #[test]
    fn stretches_of_arrivals_follow_one_another() {
        let mut loss = ChannelLoss::default();
        assert_eq!(loss.take_arrivals(false), None);
        run(&mut loss, 100..120, 10);
        assert_eq!(loss.take_arrivals(false), None, "too few to tell");
        run(&mut loss, 125..170, 30);
        // One that was overtaken belongs to it, one from before does not.
        run(&mut loss, 122..123, 75);
        run(&mut loss, 99..100, 76);
        assert_eq!(loss.take_arrivals(false), arrivals(100, 169, 66, 64, 74));
        assert_eq!(loss.take_arrivals(false), None);
        run(&mut loss, 170..240, 80);
        assert_eq!(loss.take_arrivals(true), arrivals(169, 239, 71, 75, 149));
        run(&mut loss, 250..320, 1000);
        assert_eq!(loss.take_arrivals(true), arrivals(250, 319, 70, 69, 1069), "begun anew");
    }

    #[test]
    fn only_what_came_of_late_is_told() {
        let mut loss = ChannelLoss::default();
        run(&mut loss, 0..352, 0);
        assert_eq!(loss.take_arrivals(false), arrivals(300, 351, 52, 51, 351));
        run(&mut loss, 352..470, 352);
        assert_eq!(loss.take_arrivals(false), arrivals(351, 451, 101, 100, 451), "the rest is too short");
    }

    #[test]
    fn a_slow_path_is_told_of_too() {
        let mut loss = ChannelLoss::default();
        (0..40).for_each(|i| loss.note(PacketNumber::new(ChannelId::GROUP, i * 9), Time(i * 13_000_000)));
        assert_eq!(loss.take_arrivals(false), arrivals(0, 24 * 9, 25, 24 * 13, 24 * 13));
    }

    #[test]
    fn another_channel_begins_anew() {
        let mut loss = ChannelLoss::default();
        run(&mut loss, 0..70, 0);
        (0..80).for_each(|i| loss.note(PacketNumber::new(ChannelId(3), 500 + i), Time(i * 1_000_000)));
        assert_eq!((loss.received, loss.lost()), (80, 0));
        assert_eq!(loss.take_arrivals(false).map(|a| a.first), Some(PacketNumber::new(ChannelId(3), 500)));
    }

    #[test]
    fn a_group_is_no_larger_than_it_can_be() {
        let sender = FakeSender::new(1);
        let mut announce = Announce { gsize: u32::MAX, feedback_budget: 0, ..sender.any_announce() };
        let from = "10.0.0.1:7418".parse().unwrap();
        let side = ReceiverSide::new(sender.session(), &announce, None, [2; 32]).unwrap();
        let mut session = Session::latch(side, from, &announce, Time::ZERO).unwrap();
        assert_eq!(session.gsize, MAX_DEVICES as u32);
        assert_eq!(session.feedback, FeedbackBudget::announced(100));
        (announce.gsize, announce.feedback_budget) = (3, u16::MAX);
        session.update(&announce);
        assert_eq!(session.gsize, 3);
        assert_eq!(session.feedback, FeedbackBudget::announced(10_000));
    }
}
