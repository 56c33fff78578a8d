//! The session that a receiver takes part in: the fields of its announcement, the sender's address, and losses and
//! arrivals by packet number.

use super::Verifications;
use crate::content::{Entry, Manifest, TreeHead};
use crate::crypto::window::ReplayWindow;
use crate::layout::Layout;
use crate::limits::{
    COMFORTABLE_BLOCK_LOG2, FeedbackBudget, HASHES_PER_PAGE, MAX_BLOCKS, MAX_DEVICES, UNVOUCHED_NUMBERS_AHEAD,
};
use crate::protocol::event::ReceiverEvent;
use crate::protocol::packet_protection::ReceiverSide;
use crate::protocol::provenance::Provenance;
use crate::time::Time;
use crate::units::{Arrival, BlockIndex, ChannelId, Cookie, Counter, Digest, SessionId, TaskId, Ticket};
use crate::wire::{
    self, Admit, Announce, Arrivals, Capabilities, DecodeError, Head, Message, MessageKind, ObjectKind,
    PacketNumber, Phase, Retry, Versions,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Longest distance of reordering, in packet numbers. A number further ahead of a vouched number that arrives after it
/// was never sent.
const MAX_REORDERING: u64 = 4096;
/// Longest stretch of arrivals in a report. Longer stretches could span a change of the sender's rate.
const STRETCH: Duration = Duration::from_millis(100);
/// A sender has moved if it is heard from another address, and has been silent at the known one for this time.
const MOVED_AFTER: Duration = Duration::from_secs(1);
/// Shortest interval between answers to RETRY.
const RETRY_PATIENCE: Duration = Duration::from_millis(100);
/// A stretch is long enough with `MANY` datagrams, or with `ENOUGH` if it lasts half of [`STRETCH`].
const MANY: u32 = 64;
const ENOUGH: u32 = 25;

/// A session, defined by its first announcement: later ones cannot change it.
#[derive(Debug)]
pub(super) struct Session {
    pub id: SessionId,
    /// The session counter.
    pub counter: Counter,
    /// Opens and protects datagrams.
    pub side: ReceiverSide,
    /// The cookie for JOINs.
    pub cookie: Cookie,
    /// When the last RETRY was answered.
    last_retry: Option<Time>,
    pub sender: SocketAddr,
    /// When any datagram last came from the sender's address, genuine or not.
    pub home_heard: Time,
    /// When a datagram sealed for this device last came from the sender's address.
    pub home_spoke: Option<Time>,
    /// The address that JOINs were sent to, and whether they went to several addresses.
    joined: Option<IpAddr>,
    scattered: bool,
    /// Another address from which announcements came.
    pub elsewhere: Option<SocketAddr>,
    pub task: TaskId,
    kind: ObjectKind,
    /// Whether it takes no feedback.
    pub one_way: bool,
    /// The object's division into blocks, as far as it is announced. A stream grows.
    pub layout: Layout,
    pub name: String,
    /// The object's entry in the manifest, if the announcement has the manifest and it describes a single
    /// file.
    pub entry: Option<Entry>,
    /// What the announcement says of a tree; `None` for other objects.
    pub tree: Option<TreeHead>,
    pub data: SocketAddr,
    pub phase: Phase,
    /// The highest block position that the sender has announced.
    position: BlockIndex,
    pub root: Option<Digest>,
    /// The announced gsize, at most [`MAX_DEVICES`]: delays that depend on it must end.
    pub gsize: u32,
    /// The announced feedback budget.
    pub feedback: FeedbackBudget,
    /// The ticket for later JOINs.
    pub ticket: Option<Ticket>,
    /// The announced capabilities: required, optional.
    capabilities: [Capabilities; 2],
    /// Where the object comes from, verified.
    pub provenance: Option<Box<Provenance>>,
    /// Whether the device takes part because it trusts the object's origin, and not the sender.
    pub relayed: bool,
    /// When the sender was last heard on any channel; below, on the group's channel.
    pub last_heard: Time,
    pub last_group: Time,
    pub group: ChannelLoss,
    /// Loss and arrivals on the device's own channel.
    pub own: ChannelLoss,
}

impl Session {
    /// The session that `announce` describes. `None` if this program cannot receive it.
    pub fn latch(side: ReceiverSide, from: SocketAddr, announce: &Announce, now: Time) -> Option<Self> {
        let [object] = announce.objects[..] else { return None };
        let layout = Layout::of(object.extent(), object.block_log2, announce.symbol_size).ok()?;
        let is_known = object.kind != ObjectKind::Tree || TreeHead::decode(&announce.manifest).is_ok();
        // This program's sender makes no larger blocks.
        let fits = layout.block_count() <= MAX_BLOCKS && layout.block_log2() <= COMFORTABLE_BLOCK_LOG2;
        (fits && is_known).then(|| Self {
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
            kind: object.kind,
            one_way: announce.one_way.is_some(),
            layout,
            name: announce.name.clone(),
            entry: described(announce, object.size),
            tree: (object.kind == ObjectKind::Tree)
                .then(|| TreeHead::decode(&announce.manifest).ok())
                .flatten(),
            data: announce.data,
            phase: announce.phase,
            position: announce.position,
            root: object.root,
            gsize: sound_group_size(announce.gsize),
            feedback: FeedbackBudget::announced(announce.feedback_budget),
            ticket: None,
            capabilities: [announce.required, announce.optional],
            provenance: Provenance::of(announce).map(Box::new),
            relayed: false,
            last_heard: now,
            last_group: now,
            group: ChannelLoss::default(),
            own: ChannelLoss::default(),
        })
    }

    /// Whether a RETRY answers this run.
    pub fn is_challenged(&self, retry: &Retry) -> bool {
        self.side.agreement() == retry.agreement
    }

    /// Whether a RETRY may be answered now. If so, counts it as answered.
    pub fn may_answer_retry(&mut self, now: Time) -> bool {
        let may = self.last_retry.is_none_or(|at| now >= at + RETRY_PATIENCE);
        if may {
            self.last_retry = Some(now);
        }
        may
    }

    /// Whether `announce` describes the same session.
    pub fn agrees(&self, announce: &Announce) -> bool {
        self.side.agrees(announce) && self.one_way == announce.one_way.is_some()
    }

    /// Whether both sides offered the version and the capabilities of an ADMIT.
    pub fn may_be_chosen(&self, admit: &Admit) -> bool {
        let [required, optional] = self.capabilities;
        let chosen = required.or(optional).and(Capabilities::OURS);
        (Versions::OURS.min..=Versions::OURS.max).contains(&admit.version) && admit.capabilities == chosen
    }

    /// What has arrived on the group's channel, or on the device's own.
    pub const fn arrivals_of(&mut self, channel: ChannelId) -> &mut ChannelLoss {
        if matches!(channel, ChannelId::GROUP) { &mut self.group } else { &mut self.own }
    }

    /// Interval of reports while data arrives.
    pub fn report_interval(&self) -> Duration {
        self.feedback.report_interval(self.gsize)
    }

    /// The event for the user.
    pub fn found_event(&self) -> ReceiverEvent {
        ReceiverEvent::Found {
            session: self.id,
            task: self.task,
            sender: self.sender,
            name: self.name.clone(),
            extent: self.layout.extent(),
            entries: self.tree.map(|tree| tree.entries),
        }
    }

    /// Whether this is another session of the same sender, or of the same origin, probably of the same object, with the
    /// same blocks.
    pub fn continues(&self, old: &Self) -> bool {
        self.trusted() == old.trusted()
            // Only the root tells the objects of an origin apart, whoever sends them.
            && (!(self.relayed || old.relayed) || self.root == old.root)
            && self.name == old.name
            && self.kind == old.kind
            && self.one_way == old.one_way
            && (!self.one_way || self.counter > old.counter)
            // A stream that is sent again begins anew.
            && (self.kind == ObjectKind::Stream || self.layout.extent() == old.layout.extent())
            && self.layout.block_log2() == old.layout.block_log2()
            // A tree is laid out by its manifest, which the root vouches for.
            && (self.kind != ObjectKind::Tree
                || (self.tree == old.tree && self.root == old.root && self.root.is_some()))
    }

    /// Opens a datagram of the session, and notes its arrival and its source. Cheap checks come first. `None`
    /// if the datagram is damaged, forged, replayed, or not for this device.
    ///
    /// # Errors
    /// If the datagram is as authentic as its kind can be, but this program does not know the message in its body.
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
        // Without a seal, datagrams from other addresses must not use up the signature checks for the sender.
        // They matter only if the sender has moved.
        if !home
            && !self.side.is_sealed()
            && !matches!(head.kind, MessageKind::Announce | MessageKind::Retry)
            && !head.protection.is_device()
        {
            return Ok(None);
        }
        let limit = if home { &mut limits.home } else { &mut limits.strangers };
        let Some(opened) = self.side.open(head, bytes, || limit.allow(now)) else { return Ok(None) };
        // A datagram that is not authentic must at least come from the sender's address.
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
        // Outsiders and members can give a symbol any number, so symbols vouch for nothing.
        let vouched = opened.authentic && head.kind != MessageKind::Symbol;
        if group {
            self.group.note(number, now - arrival.waited, vouched);
        } else if number.channel() == self.side.own_channel() {
            self.own.note(number, now - arrival.waited, vouched);
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

    /// Restarts the loss statistics: from now on the device listens to more than announcements.
    pub fn listen_anew(&mut self) {
        self.group = ChannelLoss::default();
    }

    /// Notes the source of a datagram. Returns whether it is the sender's address.
    pub fn came_from(&mut self, from: SocketAddr, is_announce: bool, now: Time) -> bool {
        let home = self.sender.ip() == from.ip() && self.sender.port() == from.port();
        if home {
            self.home_heard = now;
        } else if is_announce {
            self.elsewhere = Some(from);
        }
        home
    }

    /// Notes the source of a RETRY. Returns whether the RETRY may be the sender's, which then is at that
    /// address.
    pub fn challenged_from(&mut self, from: SocketAddr, retry: &Retry) -> bool {
        let there = self.elsewhere.is_some_and(|at| at.ip() == from.ip() && at.port() == from.port());
        let known = there && retry.agreement == self.side.agreement();
        if known {
            self.try_elsewhere();
        }
        known
    }

    /// Notes the source of a datagram sealed for this device. The sender is at that address, unless such datagrams
    /// also come from the known address: a faster host may relay them.
    pub fn spoken_to_from(&mut self, from: SocketAddr, home: bool, now: Time) {
        if home || self.home_spoke.is_none_or(|at| now >= at + MOVED_AFTER) {
            (self.sender, self.home_heard, self.home_spoke) = (from, now, Some(now));
        }
    }

    /// Notes an announcement, newer than all before, from another address. The sender has moved there if the known
    /// address has fallen silent. Otherwise another host may have relayed the announcement.
    pub fn announced_elsewhere(&mut self, from: SocketAddr, now: Time) {
        if now >= self.home_heard + MOVED_AFTER {
            (self.sender, self.home_heard, self.home_spoke) = (from, now, None);
        }
    }

    /// Tries the other address after a JOIN without an answer: the first announcement may have been relayed.
    pub fn try_elsewhere(&mut self) {
        if let Some(elsewhere) = &mut self.elsewhere {
            std::mem::swap(elsewhere, &mut self.sender);
        }
    }

    /// Notes that a JOIN is sent to the sender.
    pub fn note_join(&mut self) {
        let to = self.sender.ip();
        self.scattered |= self.joined.replace(to).is_some_and(|before| before != to);
    }

    /// Whether the sender that admitted the device is proven to be at its address: it has read a JOIN, and all JOINs
    /// went to that address. The source address of an answer proves nothing, because anybody can forge it.
    pub fn is_proven(&self) -> bool {
        !self.scattered && self.joined == Some(self.sender.ip())
    }

    /// The highest block position that the sender has announced.
    pub const fn position(&self) -> BlockIndex {
        self.position
    }

    /// Notes the sender's position, from an authentic poll or announcement.
    pub fn is_at(&mut self, position: BlockIndex) {
        self.position = self.position.max(position);
    }

    /// Whether the sender can have reached this block since it last announced its position. Symbols of later blocks
    /// are forged.
    pub fn reaches(&self, block: BlockIndex) -> bool {
        let k = self.layout.most_source_symbols().max(1);
        let ahead = UNVOUCHED_NUMBERS_AHEAD as u32 / k + 2 * HASHES_PER_PAGE;
        block.0 <= self.position.0.saturating_add(ahead)
    }

    /// Takes the fields that change during a session; the root hash only once. An announcement from before the object
    /// has grown is late, and changes neither its size nor its root.
    pub fn update(&mut self, announce: &Announce) {
        self.is_at(announce.position);
        self.phase = announce.phase;
        self.gsize = sound_group_size(announce.gsize);
        self.provenance = self.provenance.take().or_else(|| Provenance::of(announce).map(Box::new));
        self.feedback = FeedbackBudget::announced(announce.feedback_budget);
        if let Some(object) = announce.objects.first()
            && let Ok(layout) = self.layout.grown(object.extent())
            && layout.block_count() <= MAX_BLOCKS
        {
            self.layout = layout;
            self.root = self.root.or(object.root);
        }
    }
}

/// The entry of a single file in the announcement's manifest. `None` if the manifest is not understood, or
/// describes something else.
fn described(announce: &Announce, size: u64) -> Option<Entry> {
    let manifest = Manifest::decode(&announce.manifest).ok()?;
    manifest.single().filter(|entry| entry.size() == size).cloned()
}

/// Bounds the announced gsize by the number of devices that a session can serve.
pub(super) fn sound_group_size(told: u32) -> u32 {
    told.min(MAX_DEVICES as u32)
}

/// Loss and arrivals of one channel, by packet numbers.
#[derive(Debug, Default)]
pub(super) struct ChannelLoss {
    first: Option<PacketNumber>,
    highest: u64,
    /// The highest vouched counter.
    vouched: u64,
    /// The counters seen so far: a replayed datagram must not hide a lost one.
    counted: ReplayWindow,
    pub received: u64,
    /// The current stretch, and the one before.
    stretch: Option<Stretch>,
    before: Option<Stretch>,
}

/// A stretch of arrivals: its first and last number, the number of datagrams, and the times.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: PacketNumber,
    last: PacketNumber,
    received: u32,
    /// Of these, the symbols that were dropped because no block buffer was free.
    overrun: u32,
    first_at: Time,
    last_at: Time,
}

impl Stretch {
    const fn starting(number: PacketNumber, at: Time) -> Self {
        Self { first: number, last: number, received: 1, overrun: 0, first_at: at, last_at: at }
    }
    fn elapsed(&self) -> Duration {
        self.last_at - self.first_at
    }
    /// Whether the stretch is long enough for a report.
    fn tells(&self) -> bool {
        self.received >= MANY || self.received >= ENOUGH && self.elapsed() >= STRETCH / 2
    }
}

impl ChannelLoss {
    /// Notes a datagram that reached this machine at `at`. A datagram of another channel restarts the statistics. A
    /// `vouched` number was certainly sent. Other numbers count while they are near the last vouched one, and the
    /// next vouched number corrects the figures.
    pub fn note(&mut self, number: PacketNumber, at: Time, vouched: bool) {
        let counter = number.counter();
        let known = self.first.is_some_and(|first| first.channel() == number.channel());
        if !known {
            if !vouched {
                return;
            }
            *self = Self { first: Some(number), highest: counter, vouched: counter, ..Self::default() };
        } else if !vouched && counter.abs_diff(self.vouched) > UNVOUCHED_NUMBERS_AHEAD {
            return;
        } else if vouched && counter > self.vouched {
            self.vouched = counter;
            if self.highest > counter.saturating_add(MAX_REORDERING) {
                self.highest = counter;
                self.counted = ReplayWindow::default();
                (self.stretch, self.before) = (None, None);
            }
        }
        if !self.counted.note(counter) {
            return;
        }
        self.highest = self.highest.max(counter);
        self.received += 1;
        match &mut self.stretch {
            Some(stretch) if number > stretch.last => {
                stretch.last = number;
                stretch.last_at = stretch.last_at.max(at);
                stretch.received = stretch.received.saturating_add(1);
                // On a slow path, a stretch takes longer to be long enough.
                if stretch.elapsed() >= STRETCH && stretch.tells() {
                    let next = Stretch::starting(number, stretch.last_at);
                    self.before = self.stretch.replace(next);
                }
            }
            // A reordered datagram belongs to the stretch if it was sent within it.
            Some(stretch) => stretch.received += u32::from(number > stretch.first),
            None => self.stretch = Some(Stretch::starting(number, at)),
        }
    }

    /// Notes that the symbol that came last was dropped for lack of a buffer. For the sender's rate it did not arrive.
    pub const fn note_overrun(&mut self) {
        if let Some(stretch) = &mut self.stretch {
            stretch.overrun = stretch.overrun.saturating_add(1);
        }
    }

    /// Begins a new stretch with the next datagram.
    pub const fn begin_stretch(&mut self) {
        (self.stretch, self.before) = (None, None);
    }

    /// Whether datagrams have arrived since the last report, too few to report.
    pub fn is_arriving(&self) -> bool {
        self.stretch.is_some_and(|stretch| stretch.received > 1)
    }

    /// The latest stretch of arrivals that is long enough. It is returned only once: the next stretch begins
    /// with the last datagram, or, with `anew`, with the next one.
    pub fn take_arrivals(&mut self, anew: bool) -> Option<Arrivals> {
        let stretch = [self.stretch, self.before].into_iter().flatten().find(Stretch::tells)?;
        let last = self.stretch?;
        self.stretch = (!anew).then(|| Stretch::starting(last.last, last.last_at));
        self.before = None;
        Some(Arrivals {
            first: stretch.first,
            last: stretch.last,
            received: stretch.received.saturating_sub(stretch.overrun).max(2),
            elapsed_us: u32::try_from(stretch.elapsed().as_micros()).unwrap_or(u32::MAX),
            last_at_us: u64::try_from((stretch.last_at - Time::ZERO).as_micros()).unwrap_or(u64::MAX),
        })
    }

    /// The number of lost datagrams. A reordered one counts until it arrives.
    pub fn lost(&self) -> u64 {
        let sent = self.first.map_or(0, |first| self.highest - first.counter().min(self.highest) + 1);
        sent.saturating_sub(self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::fakes::FakeSender;
    use crate::sim::sham::SHAM;
    use crate::units::ChannelId;

    #[test]
    fn losses_are_counted_from_the_first_datagram_heard() {
        let mut loss = ChannelLoss::default();
        for counter in [100, 101, 103, 102, 106, u64::MAX >> 20] {
            loss.note(PacketNumber::new(ChannelId::GROUP, counter), Time(counter * 1000), counter == 100);
        }
        assert_eq!((loss.received, loss.lost()), (5, 2));
    }

    #[test]
    fn numbers_that_nothing_vouches_for_are_set_right() {
        let mut loss = ChannelLoss::default();
        let number = |counter| PacketNumber::new(ChannelId::GROUP, counter);
        loss.note(number(500), Time(0), false);
        assert_eq!(loss.received, 0, "nothing is known of the channel");
        run(&mut loss, 1_000..1_100, 0);
        // Far ahead, or far behind: not counted at all.
        for forged in [1_000 + (1 << 31), 1_100 + UNVOUCHED_NUMBERS_AHEAD, 0] {
            loss.note(number(forged), Time(100_000_000), false);
        }
        assert_eq!((loss.received, loss.lost()), (101, 0));
        // Less far ahead: counts until the next vouched number.
        loss.note(number(1_100 + 200_000), Time(100_000_000), false);
        assert!(loss.lost() > 190_000);
        run(&mut loss, 1_100..1_101, 101);
        assert_eq!(loss.lost(), 0, "set right");
        run(&mut loss, 1_101..1_200, 102);
        let arrivals = loss.take_arrivals(false).expect("the rate control is not blind");
        assert!(arrivals.last == number(1_199) && arrivals.received >= 99, "{arrivals:?}");
        // An older vouched number that arrives late corrects nothing.
        loss.note(number(1_050), Time(300_000_000), true);
        assert_eq!(loss.highest, 1_199);
    }

    #[test]
    fn replayed_datagrams_do_not_hide_lost_ones() {
        let mut loss = ChannelLoss::default();
        run(&mut loss, 0..100, 0);
        // Half of what follows is lost, and an attacker replays the other half.
        for counter in (100..200).step_by(2) {
            for _ in 0..3 {
                loss.note(PacketNumber::new(ChannelId::GROUP, counter), Time(counter * 1_000_000), false);
            }
        }
        assert_eq!((loss.received, loss.lost()), (150, 49));
        assert_eq!(loss.take_arrivals(false).map(|arrivals| arrivals.received), Some(50));
    }

    /// Notes counters `from..to` of the group, a millisecond apart from `ms` on.
    fn run(loss: &mut ChannelLoss, counters: std::ops::Range<u64>, ms: u64) {
        for (i, counter) in counters.enumerate() {
            // The first datagram is an announce.
            let at = Time((ms + i as u64) * 1_000_000);
            loss.note(PacketNumber::new(ChannelId::GROUP, counter), at, i == 0);
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
        // A reordered datagram belongs to the stretch; one sent before the stretch does not.
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
        (0..40).for_each(|i| {
            loss.note(PacketNumber::new(ChannelId::GROUP, i * 9), Time(i * 13_000_000), i == 0)
        });
        assert_eq!(loss.take_arrivals(false), arrivals(0, 24 * 9, 25, 24 * 13, 24 * 13));
    }

    #[test]
    fn another_channel_begins_anew() {
        let mut loss = ChannelLoss::default();
        run(&mut loss, 0..70, 0);
        (0..80).for_each(|i| {
            loss.note(PacketNumber::new(ChannelId(3), 500 + i), Time(i * 1_000_000), i == 0);
        });
        assert_eq!((loss.received, loss.lost()), (80, 0));
        assert_eq!(loss.take_arrivals(false).map(|a| a.first), Some(PacketNumber::new(ChannelId(3), 500)));
    }

    #[test]
    fn a_group_is_no_larger_than_it_can_be() {
        let sender = FakeSender::new(1);
        let mut announce = Announce { gsize: u32::MAX, feedback_budget: 0, ..sender.any_announce() };
        let from = "10.0.0.1:7418".parse().unwrap();
        let side = ReceiverSide::new(SHAM, sender.session(), &announce, None, [2; 32]).unwrap();
        let mut session = Session::latch(side, from, &announce, Time::ZERO).unwrap();
        assert_eq!(session.gsize, MAX_DEVICES as u32);
        assert_eq!(session.feedback, FeedbackBudget::announced(100));
        (announce.gsize, announce.feedback_budget) = (3, u16::MAX);
        session.update(&announce);
        assert_eq!(session.gsize, 3);
        assert_eq!(session.feedback, FeedbackBudget::announced(10_000));
    }

    #[test]
    fn symbols_of_blocks_that_the_sender_cannot_have_reached_are_forged() {
        let sender = FakeSender::new(1);
        let mut announce = sender.any_announce();
        // A million blocks of 745 symbols.
        announce.symbol_size = 1408;
        announce.objects = vec![crate::wire::Object::file(1 << 40, 20)];
        let from = "10.0.0.1:7418".parse().unwrap();
        let side = ReceiverSide::new(SHAM, sender.session(), &announce, None, [2; 32]).unwrap();
        let mut session = Session::latch(side, from, &announce, Time::ZERO).unwrap();
        let ahead = UNVOUCHED_NUMBERS_AHEAD as u32 / 745 + 64;
        for position in [0, 1_000] {
            session.is_at(BlockIndex(position));
            let reached = [0, position + ahead, position + ahead + 1, 900_000];
            assert_eq!(reached.map(|block| session.reaches(BlockIndex(block))), [true, true, false, false]);
        }
    }
}
