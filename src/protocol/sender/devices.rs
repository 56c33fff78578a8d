//! The devices of a session, as the sender sees them.

use super::channel::Channel;
use super::service::{Service, Unlike};
use crate::crypto::window::ReplayWindow;
use crate::limits::MAX_FORMER_RUNS;
use crate::pacing::Path;
use crate::protocol::packet_protection::DeviceKeys;
use crate::protocol::rate_limit::RateLimit;
use crate::protocol::statistics::{Activity, Cause, DeviceRow, TransferStatistics};
use crate::task::{Assignment, State, Summary};
use crate::time::Time;
use crate::units::{AgreementKey, ChannelId, DeviceId, DeviceIndex, DeviceKey, Ticket};
use crate::wire::{Capabilities, Progress};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// What ties a device's datagrams to one run of it.
#[derive(Debug)]
pub(super) struct Link {
    pub agreement: AgreementKey,
    /// The key that the device has shown to have.
    pub key: Option<DeviceKey>,
    /// What it has been given to show that it is this device, if it comes again.
    pub ticket: Ticket,
    pub keys: DeviceKeys,
    /// What has been heard on its channel.
    pub window: ReplayWindow,
    /// How much of late.
    pub rate_limit: RateLimit,
    /// Its joins count up to here: an older one is said again by somebody else.
    pub joins: u64,
    /// Version and capabilities that both sides have.
    pub chosen: (u8, Capabilities),
}

/// One device.
#[derive(Debug)]
pub(super) struct Device {
    /// How far it is with the task.
    pub assignment: Assignment,
    /// What the store is known to have of that.
    pub recorded: Option<Assignment>,
    /// What was last told of it: the state that the store has, and the activity.
    pub told: Option<(State, Option<Activity>)>,
    /// It has said, in this run, how it ended.
    pub reported_end: bool,
    pub link: Link,
    /// Another run with the same identifier wants to join: which, and since when.
    pub duplicate: Option<(AgreementKey, Time)>,
    pub address: SocketAddr,
    pub joined: Time,
    pub last_heard: Time,
    /// When it was last known to have come closer to completion (or was taken up).
    pub last_gain: Time,
    /// The fewest symbols it ever lacked, as far as its NAK summaries told.
    pub least_deficit: u64,
    /// Who serves it.
    pub service: Service,
    /// It joined with some of the object.
    pub holds: bool,
    /// How it compares with the group.
    pub compared: Compared,
    /// Why it was last moved to unicast.
    pub cause: Option<Cause>,
    /// What its reports say of the path to it.
    pub path: Path,
    /// It has once been taken into the group of those left over; no second time.
    pub regrouped: bool,
    /// Its unicast repair; kept once made, so that packet numbers never repeat.
    pub channel: Option<Box<Channel>>,
    /// Whether the group reaches it.
    pub group: GroupReachability,
    /// What it last said of itself.
    pub reported: Reported,
    pub unicast_symbols: u64,
}

/// How a device compares with the rest of the group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    /// Epochs of the rate in a row in which it was too slow.
    pub slow_looks: u32,
    /// What it lacked at its last answer, as a share of what had been sent since the poll before.
    lacks: Option<f64>,
    /// How many rounds had invited everybody, then.
    answered: u32,
}

/// Rounds without an answer, of those that invite everybody, after which a device is taken to lack nothing.
pub(super) const SILENCE_MEANS_NOTHING_LACKS: u32 = 2;

impl Compared {
    /// Of a device that is new to the group after so many rounds that invited everybody.
    pub const fn new(rounds: u32) -> Self {
        Self { slow_looks: 0, lacks: None, answered: rounds }
    }
    /// It has answered the last of `rounds` rounds.
    pub const fn answered(&mut self, lacks: f64, rounds: u32) {
        (self.lacks, self.answered) = (Some(lacks), rounds);
    }
    /// What it lacks, as far as that is known after `rounds` rounds.
    pub fn lacks(&self, rounds: u32) -> Option<f64> {
        let silent = rounds.saturating_sub(self.answered) >= SILENCE_MEANS_NOTHING_LACKS;
        if silent { Some(0.0) } else { self.lacks }
    }
}

/// What a device says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reported {
    pub verified: u32,
    pub incomplete: Option<u32>,
    pub lost_datagrams: u64,
    pub kernel_drops: u64,
    pub overrun_drops: u64,
}

impl Reported {
    /// What most of its losses are due to.
    fn cause(&self) -> Cause {
        let on_the_way = self.lost_datagrams.saturating_sub(self.kernel_drops);
        let most = self.kernel_drops.max(self.overrun_drops).max(on_the_way);
        match most {
            1.. if most == self.overrun_drops => Cause::Disk,
            1.. if most == self.kernel_drops => Cause::Cpu,
            _ => Cause::Network,
        }
    }
}

/// Whether the group reaches a device, as its reports tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupReachability {
    /// Datagrams of the group that it has received, and when that figure last rose.
    received: u64,
    pub rose: Time,
    /// Reports in a row that told the same figure.
    same: u32,
    /// Nothing of the group reaches it although it speaks to us: a switch has forgotten its membership,
    /// perhaps. What it lacks has to come by unicast.
    pub unreachable: bool,
    /// When it was last told by unicast that we are here.
    pub told: Time,
}

/// Without a datagram of the group for so long, with announcements going out all the while, and
/// without one in so many reports, a device is unreachable by the group.
const UNREACHABLE_GROUP_AFTER: (Duration, u32) = (Duration::from_secs(3), 3);

impl GroupReachability {
    pub const fn new(now: Time) -> Self {
        Self { received: 0, rose: now, same: 0, unreachable: false, told: now }
    }
    /// A report tells how many it has received, and perhaps how. Whether it has just become unreachable by the group.
    pub fn report(&mut self, report: &Progress, now: Time) -> bool {
        let arrivals = report.arrivals.is_some_and(|arrivals| arrivals.first.channel() == ChannelId::GROUP);
        if report.received > self.received || arrivals {
            *self = Self { received: report.received, ..Self::new(now) };
            return false;
        }
        self.same += 1;
        let unreachable =
            now.since(self.rose) >= UNREACHABLE_GROUP_AFTER.0 && self.same >= UNREACHABLE_GROUP_AFTER.1;
        unreachable && !std::mem::replace(&mut self.unreachable, true)
    }
}

impl Device {
    pub fn is_final(&self) -> bool {
        self.assignment.state().is_final()
    }
    /// Whether it has said that it cannot take the object.
    pub fn has_failed(&self) -> bool {
        matches!(self.assignment.state(), State::Failed(_))
    }
    /// Whether the store has it as it is.
    pub fn is_recorded(&self) -> bool {
        self.recorded.as_ref() == Some(&self.assignment)
    }
    /// What is being done for it.
    pub fn activity(&self, gathering: bool) -> Option<Activity> {
        if self.is_final() {
            return (!self.is_recorded()).then_some(Activity::Recording);
        }
        Some(if gathering {
            Activity::Waiting
        } else if self.service.wants_unicast() {
            Activity::Repairing
        } else {
            Activity::Receiving
        })
    }
    /// Moves it from the group to unicast, for what most of its losses are due to.
    pub fn move_to_unicast(&mut self, reason: Unlike) -> Cause {
        let cause = match reason {
            Unlike::GroupUnreachable => Cause::Network,
            Unlike::Lossy | Unlike::Slow | Unlike::Last => self.reported.cause(),
        };
        self.cause = Some(cause);
        self.service.move_to_unicast(reason);
        cause
    }
    /// The group serves it again, after so many rounds that invited everybody.
    pub fn return_to_group(&mut self, rounds: u32) {
        self.service = Service::Group;
        self.compared = Compared::new(rounds);
    }
    pub fn row(&self, gathering: bool, blocks: u32, now: Time) -> DeviceRow {
        let own = &self.assignment;
        let assignment = self.recorded.clone();
        let reported = &self.reported;
        let deficit = || reported.incomplete.unwrap_or_else(|| blocks.saturating_sub(reported.verified));
        let until = if let Service::Ended { at } = self.service { at } else { now };
        let lost = *own.state() == State::Lost;
        DeviceRow {
            assignment: assignment
                .unwrap_or_else(|| Assignment::new(own.task, own.device, own.label.clone())),
            transfer: TransferStatistics {
                address: Some(self.address),
                activity: self.activity(gathering),
                deficit: (!gathering && !self.is_final()).then(deficit),
                verified_blocks: reported.verified,
                lost_datagrams: reported.lost_datagrams,
                kernel_drops: reported.kernel_drops,
                overrun_drops: reported.overrun_drops,
                cause: if lost || self.service.is_unicast_unreachable() {
                    Some(Cause::Feedback)
                } else {
                    self.cause
                },
                unicast_symbols: self.unicast_symbols,
                elapsed: until.since(self.joined),
            },
        }
    }
}

/// Devices by what they are, for decisions that every step takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Still to be served.
    pub open: usize,
    /// Those of them that joined with some of the object.
    pub holding: usize,
    /// They answer the group's polls.
    pub polled: usize,
    /// The group's rounds serve all they lack.
    pub in_group: usize,
    pub complete: usize,
    pub failed: usize,
    /// What the store has of them.
    pub recorded: Summary,
}

impl Counts {
    fn of(device: &Device) -> Self {
        let open = !device.is_final();
        let recorded = device.recorded.as_ref().map_or(&State::Pending, Assignment::state);
        Self {
            open: usize::from(open),
            holding: usize::from(open && device.holds),
            polled: usize::from(device.service.answers_group()),
            in_group: usize::from(device.service.is_group()),
            complete: usize::from(device.assignment.is_complete()),
            failed: usize::from(device.has_failed()),
            recorded: Summary::of([recorded]),
        }
    }
    fn add(&mut self, other: Self) {
        self.open += other.open;
        self.holding += other.holding;
        self.polled += other.polled;
        self.in_group += other.in_group;
        self.complete += other.complete;
        self.failed += other.failed;
        self.recorded += other.recorded;
    }
    fn subtract(&mut self, other: Self) {
        self.open -= other.open;
        self.holding -= other.holding;
        self.polled -= other.polled;
        self.in_group -= other.in_group;
        self.complete -= other.complete;
        self.failed -= other.failed;
        self.recorded -= other.recorded;
    }
}

/// What devices are found by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Class {
    /// Still to be served.
    Open,
    /// The group's rounds serve all they lack.
    Group,
    /// Unicast repair is to serve them.
    Unicast,
    /// The same, once the stream is over.
    SlowUnicast,
    /// They may make up a new group when nobody else is left.
    Leftover,
    /// The group does not reach them.
    GroupUnreachable,
}

impl Class {
    const ALL: [Self; 6] =
        [Self::Open, Self::Group, Self::Unicast, Self::SlowUnicast, Self::Leftover, Self::GroupUnreachable];

    fn has(self, device: &Device) -> bool {
        let open = !device.is_final();
        match self {
            Self::Open => open,
            Self::Group => device.service.is_group(),
            Self::Unicast => device.service.wants_unicast() && !device.service.is_slow(),
            Self::SlowUnicast => device.service.is_slow(),
            Self::Leftover => open && !device.regrouped && !device.group.unreachable,
            Self::GroupUnreachable => open && device.group.unreachable,
        }
    }

    /// The classes of a device, a bit each.
    fn bits(device: &Device) -> u8 {
        Self::ALL.iter().filter(|class| class.has(device)).map(|&class| 1 << class as u8).sum()
    }
}

/// Most devices that are counted anew for each question.
const MOST_TOUCHED: usize = 8;

/// All devices, by index and by identifier.
#[derive(Debug, Default)]
pub(super) struct Devices {
    list: Vec<Device>,
    by_id: BTreeMap<DeviceId, DeviceIndex>,
    runs: BTreeMap<AgreementKey, DeviceIndex>,
    tickets: BTreeMap<Ticket, DeviceIndex>,
    /// Runs that another took the place of, and one above the highest number of their joins: those up to there
    /// can be replayed by anybody, from any address.
    former: BTreeMap<AgreementKey, u64>,
    /// The same, the oldest first.
    former_order: VecDeque<AgreementKey>,
    /// All but those touched, counted.
    counted: Counts,
    /// Devices by class, as of when they were last counted.
    classes: [BTreeSet<DeviceIndex>; Class::ALL.len()],
    /// The classes of each device, as of then.
    filed: Vec<u8>,
    /// Devices that may be changing.
    touched: Vec<DeviceIndex>,
    /// How often a device was looked at: what a step costs is measured by it.
    looks: Cell<u64>,
}

impl Devices {
    fn note_look(&self) {
        self.looks.set(self.looks.get() + 1);
    }
    /// How often a device was looked at.
    pub const fn looks(&self) -> u64 {
        self.looks.get()
    }
    pub fn index_of(&self, id: DeviceId) -> Option<DeviceIndex> {
        self.by_id.get(&id).copied()
    }
    /// The device that a run belongs to.
    pub fn of_run(&self, agreement: &AgreementKey) -> Option<DeviceIndex> {
        self.runs.get(agreement).copied()
    }
    /// The device whose latest run was given this ticket.
    pub fn of_ticket(&self, ticket: &Ticket) -> Option<DeviceIndex> {
        self.tickets.get(ticket).copied()
    }
    /// Whether a join of a run is one from before another took its place. A later one says that it lives.
    pub fn is_former(&self, agreement: &AgreementKey, number: u64) -> bool {
        self.former.get(agreement).is_some_and(|joins| number < *joins)
    }
    /// A device has begun a new run: the one before speaks for it no longer.
    pub fn begin_run(&mut self, index: DeviceIndex, link: Link) {
        let former = &self.list[index.position()].link;
        self.runs.remove(&former.agreement);
        self.tickets.remove(&former.ticket);
        if self.former_order.len() == MAX_FORMER_RUNS
            && let Some(oldest) = self.former_order.pop_front()
        {
            self.former.remove(&oldest);
        }
        if self.former.insert(former.agreement, former.joins).is_none() {
            self.former_order.push_back(former.agreement);
        }
        self.runs.insert(link.agreement, index);
        self.tickets.insert(link.ticket, index);
        self.list[index.position()].link = link;
    }
    /// Adds a device. There must be room: fewer than [`crate::limits::MAX_DEVICES`].
    pub fn insert(&mut self, device: Device) -> DeviceIndex {
        let index = DeviceIndex(self.list.len() as u16);
        self.runs.insert(device.link.agreement, index);
        self.tickets.insert(device.link.ticket, index);
        self.by_id.insert(device.assignment.device, index);
        self.list.push(device);
        self.filed.push(0);
        self.file(index);
        index
    }
    pub fn get(&self, index: DeviceIndex) -> &Device {
        self.note_look();
        &self.list[index.position()]
    }
    pub fn get_mut(&mut self, index: DeviceIndex) -> &mut Device {
        self.note_look();
        if !self.touched.contains(&index) {
            if self.touched.len() == MOST_TOUCHED {
                self.settle();
            }
            self.touched.push(index);
            self.counted.subtract(Counts::of(&self.list[index.position()]));
        }
        &mut self.list[index.position()]
    }
    /// Counts a device, and puts it into its classes.
    fn file(&mut self, index: DeviceIndex) {
        let device = &self.list[index.position()];
        self.counted.add(Counts::of(device));
        let bits = Class::bits(device);
        let changed = std::mem::replace(&mut self.filed[index.position()], bits) ^ bits;
        for class in Class::ALL {
            let bit = 1 << class as u8;
            if changed & bit != 0 {
                let members = &mut self.classes[class as usize];
                if bits & bit != 0 {
                    members.insert(index)
                } else {
                    members.remove(&index)
                };
            }
        }
    }
    /// Whatever was changing has changed.
    fn settle(&mut self) {
        while let Some(index) = self.touched.pop() {
            self.file(index);
        }
    }
    pub fn len(&self) -> usize {
        self.list.len()
    }
    /// The index of each device.
    pub fn indices(&self) -> impl Iterator<Item = DeviceIndex> + use<> {
        (0..self.list.len() as u16).map(DeviceIndex)
    }
    /// The indices of the devices of a class.
    pub fn of(&mut self, class: Class) -> &BTreeSet<DeviceIndex> {
        self.settle();
        &self.classes[class as usize]
    }
    pub fn iter(&self) -> impl Iterator<Item = (DeviceIndex, &Device)> {
        self.indices().zip(&self.list).inspect(|_| self.note_look())
    }
    /// To change what is not counted: neither the state nor who serves a device.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (DeviceIndex, &mut Device)> {
        self.looks.set(self.looks.get() + self.list.len() as u64);
        (0..).map(DeviceIndex).zip(&mut self.list)
    }
    /// How many there are of each kind, without looking at them all: with ten thousand, every step
    /// would.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counted;
        self.touched.iter().for_each(|&index| counts.add(Counts::of(&self.list[index.position()])));
        counts
    }
    /// Whether what is counted and filed is so.
    #[cfg(test)]
    pub fn is_consistent(&mut self) -> bool {
        let mut counts = Counts::default();
        self.list.iter().for_each(|device| counts.add(Counts::of(device)));
        self.settle();
        let filed = self.list.iter().zip(&self.filed).all(|(device, &bits)| Class::bits(device) == bits);
        let served = |device: &Device| matches!(device.service, Service::Ended { .. }) == device.is_final();
        counts == self.counted && filed && self.list.iter().all(served)
    }
    /// Devices that are still to be served.
    pub fn open(&self) -> usize {
        self.counts().open
    }
    /// The same as the devices are told: they spread their reports by it.
    pub fn gsize(&self) -> u32 {
        u32::try_from(self.open()).unwrap_or(u32::MAX)
    }
}
