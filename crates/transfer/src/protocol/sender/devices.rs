//! The sender's state of each device, and sets of devices by class.

use super::channel::Channel;
use super::headway::Headway;
use super::reported::Reported;
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

/// The keys and replay state of one run of a device.
#[derive(Debug)]
pub(super) struct Link {
    pub agreement: AgreementKey,
    /// The key that the device has proved to have.
    pub key: Option<DeviceKey>,
    /// The ticket that identifies this device if it joins again.
    pub ticket: Ticket,
    /// Whether the device has said that its next run will present the ticket.
    pub ticket_kept: bool,
    pub keys: DeviceKeys,
    /// Replay window of the device's channel.
    pub window: ReplayWindow,
    /// Bound on the device's messages.
    pub rate_limit: RateLimit,
    /// One above the highest packet number of its joins. A lower number is a replay.
    pub joins: u64,
    /// The version and capabilities that its ADMIT gave.
    pub chosen: (u8, Capabilities),
}

/// One device.
#[derive(Debug)]
pub(super) struct Device {
    /// Its assignment: the state of the task.
    pub assignment: Assignment,
    /// The assignment that the store is known to have.
    pub recorded: Option<Assignment>,
    /// The last row event: the state in the store, and the activity.
    pub told: Option<(State, Option<Activity>)>,
    /// Whether it has reported, in this run, how it ended.
    pub reported_end: bool,
    pub link: Link,
    /// Another run that wants to join with the same identifier, and since when.
    pub duplicate: Option<(AgreementKey, Time)>,
    pub address: SocketAddr,
    /// Another address that its messages came from, and the bytes from there since the last RETRY to it.
    pub elsewhere: Option<(SocketAddr, usize)>,
    pub last_heard: Time,
    /// Its progress.
    pub headway: Headway,
    /// Which repairs serve it.
    pub service: Service,
    /// Whether it joined with some of the object.
    pub holds: bool,
    /// Its comparison with the group.
    pub compared: Compared,
    /// Why it was last moved to unicast.
    pub cause: Option<Cause>,
    /// The estimate of the path to it.
    pub path: Path,
    /// Whether it has been regrouped; this happens only once.
    pub regrouped: bool,
    /// Its unicast repair. Kept once created, so that packet numbers never repeat.
    pub channel: Option<Box<Channel>>,
    /// Whether the group's datagrams reach it.
    pub group: GroupReachability,
    /// Its latest reports.
    pub reported: Reported,
    pub unicast_symbols: u64,
}

/// A device's comparison with the rest of the group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    /// Epochs of the rate in a row in which the device was too slow.
    pub slow_looks: u32,
    /// Its deficit at its last answer, as a share of what was sent since the poll before.
    lacks: Option<f64>,
    /// The number of rounds that had invited everybody at that time.
    answered: u32,
}

/// After this many rounds without an answer, of those that invite everybody, a device is taken to lack
/// nothing.
pub(super) const SILENCE_MEANS_NOTHING_LACKS: u32 = 2;

impl Compared {
    /// A device that is new to the group, after this many rounds that invited everybody.
    pub const fn new(rounds: u32) -> Self {
        Self { slow_looks: 0, lacks: None, answered: rounds }
    }
    /// Notes an answer to the last of `rounds` rounds.
    pub const fn answered(&mut self, lacks: f64, rounds: u32) {
        (self.lacks, self.answered) = (Some(lacks), rounds);
    }
    /// What the device lacks, if that is known after `rounds` rounds.
    pub fn lacks(&self, rounds: u32) -> Option<f64> {
        let silent = rounds.saturating_sub(self.answered) >= SILENCE_MEANS_NOTHING_LACKS;
        if silent { Some(0.0) } else { self.lacks }
    }
}

/// Whether the group's datagrams reach a device, by its reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupReachability {
    /// Datagrams of the group that it has received, and when this figure last rose.
    received: u64,
    pub rose: Time,
    /// Reports in a row with the same figure.
    same: u32,
    /// True if nothing of the group reaches the device although its messages arrive. A switch may have
    /// forgotten its membership. Unicast has to repair what it lacks.
    pub unreachable: bool,
    /// When it last got an announcement by unicast.
    pub told: Time,
}

/// A device is out of the group's reach after this time without a datagram of the group, although
/// announcements are sent, and after this many reports without one.
const UNREACHABLE_GROUP_AFTER: (Duration, u32) = (Duration::from_secs(3), 3);

impl GroupReachability {
    pub const fn new(now: Time) -> Self {
        Self { received: 0, rose: now, same: 0, unreachable: false, told: now }
    }
    /// Takes a report. True if the device is out of the group's reach from now on.
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
    /// Whether the device has reported that it cannot take the object.
    pub fn has_failed(&self) -> bool {
        matches!(self.assignment.state(), State::Failed(_))
    }
    /// Whether unicast repair has something to do for it.
    fn wants_unicast(&self) -> bool {
        self.service.wants_unicast() && !self.reported.waits_for_reader()
    }
    /// Whether the store has the current assignment.
    pub fn is_recorded(&self) -> bool {
        self.recorded.as_ref() == Some(&self.assignment)
    }
    /// The present activity of its transfer.
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
    /// Moves the device from the group to unicast, and notes the main cause of its losses.
    pub fn move_to_unicast(&mut self, reason: Unlike) -> Cause {
        let cause = match reason {
            Unlike::GroupUnreachable => Cause::Network,
            Unlike::NoRoom => Cause::Reader,
            Unlike::Lossy | Unlike::Slow | Unlike::Last => self.reported.cause(),
        };
        self.cause = Some(cause);
        self.service.move_to_unicast(reason);
        cause
    }
    /// Returns the device to the group, after this many rounds that invited everybody.
    pub fn return_to_group(&mut self, rounds: u32) {
        self.service = Service::Group;
        self.compared = Compared::new(rounds);
    }
    /// The row of a device, of an object with so many blocks, in a transfer that started at `started`.
    pub fn row(&self, started: Option<Time>, blocks: u32, now: Time) -> DeviceRow {
        let gathering = started.is_none();
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
                elapsed: until.since(started.unwrap_or(until)),
            },
        }
    }
}

/// Numbers of devices by kind, for decisions at every step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Still to be served.
    pub open: usize,
    /// Of these, devices that joined with some of the object.
    pub holding: usize,
    /// Devices that answer the group's polls.
    pub polled: usize,
    /// Devices that the group's rounds serve completely.
    pub in_group: usize,
    /// Of these, devices that wait for their readers.
    pub waiting: usize,
    /// Open devices with room for a limited number of blocks.
    pub limited: usize,
    pub complete: usize,
    pub failed: usize,
    /// Their assignments in the store.
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
            waiting: usize::from(device.service.is_group() && device.reported.waits_for_reader()),
            limited: usize::from(open && device.reported.room.is_limited()),
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
        self.waiting += other.waiting;
        self.limited += other.limited;
        self.complete += other.complete;
        self.failed += other.failed;
        self.recorded += other.recorded;
    }
    fn subtract(&mut self, other: Self) {
        self.open -= other.open;
        self.holding -= other.holding;
        self.polled -= other.polled;
        self.in_group -= other.in_group;
        self.waiting -= other.waiting;
        self.limited -= other.limited;
        self.complete -= other.complete;
        self.failed -= other.failed;
        self.recorded -= other.recorded;
    }
}

/// Classes by which devices are found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Class {
    /// Still to be served.
    Open,
    /// The group's rounds serve them completely.
    Group,
    /// They want unicast repair.
    Unicast,
    /// They want unicast repair once the stream is over.
    SlowUnicast,
    /// They may form a new group when no other device is left.
    Leftover,
    /// The group's datagrams do not reach them.
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
            Self::Unicast => device.wants_unicast() && !device.service.is_slow(),
            Self::SlowUnicast => device.wants_unicast() && device.service.is_slow(),
            Self::Leftover => open && !device.regrouped && !device.group.unreachable,
            Self::GroupUnreachable => open && device.group.unreachable,
        }
    }

    /// The classes of a device, one bit each.
    fn bits(device: &Device) -> u8 {
        Self::ALL.iter().filter(|class| class.has(device)).map(|&class| 1 << class as u8).sum()
    }
}

/// Most devices that one question counts anew.
const MOST_TOUCHED: usize = 8;

/// All devices, by index and by identifier.
#[derive(Debug, Default)]
pub(super) struct Devices {
    list: Vec<Device>,
    by_id: BTreeMap<DeviceId, DeviceIndex>,
    runs: BTreeMap<AgreementKey, DeviceIndex>,
    tickets: BTreeMap<Ticket, DeviceIndex>,
    /// Runs that were replaced by another run, and one above the highest packet number of their joins. Joins
    /// up to that number can be replayed by anybody, from any address.
    former: BTreeMap<AgreementKey, u64>,
    /// The same runs, the oldest first.
    former_order: VecDeque<AgreementKey>,
    /// Counts of all devices but the touched ones.
    counted: Counts,
    /// Devices by class, when they were last counted.
    classes: [BTreeSet<DeviceIndex>; Class::ALL.len()],
    /// The classes of each device at that time.
    filed: Vec<u8>,
    /// Devices that may have changed since.
    touched: Vec<DeviceIndex>,
    /// The number of accesses to devices. It measures the cost of a step.
    looks: Cell<u64>,
}

impl Devices {
    fn note_look(&self) {
        self.looks.set(self.looks.get() + 1);
    }
    /// The number of accesses to devices.
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
    /// The device with this key to whose latest run this ticket was given.
    pub fn of_ticket(&self, ticket: &Ticket, key: Option<DeviceKey>) -> Option<DeviceIndex> {
        self.tickets.get(ticket).copied().filter(|index| self.list[index.position()].link.key == key)
    }
    /// Whether a join of a replaced run is a replay. A higher number shows that the run is alive.
    pub fn is_former(&self, agreement: &AgreementKey, number: u64) -> bool {
        self.former.get(agreement).is_some_and(|joins| number < *joins)
    }
    /// Replaces the run of a device.
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
    /// Counts a device, and adds it to its classes.
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
    /// Counts and classifies the touched devices.
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
    /// All devices, to change fields that are not counted: neither the state nor the service.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (DeviceIndex, &mut Device)> {
        self.looks.set(self.looks.get() + self.list.len() as u64);
        (0..).map(DeviceIndex).zip(&mut self.list)
    }
    /// The number of devices of each kind, without a scan of all.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counted;
        self.touched.iter().for_each(|&index| counts.add(Counts::of(&self.list[index.position()])));
        counts
    }
    /// Whether counts and classes are up to date.
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
    /// The number of devices that the sender serves, as announced. Devices spread their reports by it.
    pub fn gsize(&self) -> u32 {
        u32::try_from(self.open()).unwrap_or(u32::MAX)
    }
}
