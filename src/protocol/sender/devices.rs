//! The devices of a session, as the sender sees them.

use super::channel::Channel;
use crate::crypto::window::ReplayWindow;
use crate::limits::MAX_FORMER_RUNS;
use crate::pacing::Path;
use crate::protocol::packet_protection::DeviceKeys;
use crate::protocol::rate_limit::RateLimit;
use crate::protocol::statistics::{Activity, Cause, DeviceRow, TransferStatistics};
use crate::task::{Assignment, State, Summary};
use crate::time::Time;
use crate::units::{AgreementKey, ChannelId, DeviceId, DeviceIndex};
use crate::wire::{Capabilities, Progress};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// What ties a device's datagrams to one run of it.
#[derive(Debug)]
pub(super) struct Link {
    pub agreement: AgreementKey,
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
    /// When its state became final.
    pub ended: Option<Time>,
    pub last_heard: Time,
    /// When it was last known to have come closer to completion (or was taken up).
    pub last_gain: Time,
    /// The fewest symbols it ever lacked, as far as its NAK summaries told.
    pub least_deficit: u64,
    /// Blocks below this went by before it was there: the group does not repair them for it.
    pub since: u32,
    /// It joined with some of the object.
    pub holds: bool,
    /// Its losses or its speed are unlike the group's: the group does not repair for it.
    pub unicast_only: bool,
    /// It is moved to unicast since it is slow: while the stream fills its path, it needs no session.
    pub slow: bool,
    /// Epochs of the rate in a row in which it was too slow for the group.
    pub slow_looks: u32,
    /// Why it was last moved to unicast.
    pub cause: Option<Cause>,
    /// What its reports say of the path to it.
    pub path: Path,
    /// It has once been taken into the group of those left over; no second time.
    pub regrouped: bool,
    /// Unicast polls in a row that it did not answer although it was heard from.
    pub unanswered: u32,
    /// Rounds of the group in a row that brought no answer from it.
    pub silent_rounds: u32,
    /// What it lacked at its last answer, as a share of what had been sent since the poll before.
    pub lacks: Option<f64>,
    /// Its unicast repair; kept once made, so that packet numbers never repeat.
    pub channel: Option<Box<Channel>>,
    /// Whether the group reaches it.
    pub group: GroupReachability,
    pub verified: u32,
    pub incomplete: Option<u32>,
    pub lost_datagrams: u64,
    pub kernel_drops: u64,
    pub overrun_drops: u64,
    pub unicast_symbols: u64,
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

/// Unicast polls without an answer after which a device is taken to be out of unicast reach.
const UNREACHABLE_AFTER: u32 = 6;

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
        } else if (self.unicast_only || self.since > 0) && !self.unreachable() {
            Activity::Repairing
        } else {
            Activity::Receiving
        })
    }
    /// Whether unicast has proven useless to it.
    pub fn unreachable(&self) -> bool {
        self.unanswered >= UNREACHABLE_AFTER
    }
    /// Whether the group's rounds serve all it lacks.
    pub fn in_group(&self) -> bool {
        !self.is_final() && (self.unreachable() || (!self.unicast_only && self.since == 0))
    }
    /// Whether unicast repair should serve it.
    pub fn wants_unicast(&self) -> bool {
        !self.is_final() && !self.in_group()
    }
    /// Whether the group repairs `block` for it.
    pub fn group_repairs(&self, block: u32) -> bool {
        self.in_group() || (!self.is_final() && !self.unicast_only && block >= self.since)
    }
    /// Moves it from the group to unicast, for what most of its losses are due to.
    pub fn move_to_unicast(&mut self) -> Cause {
        let on_the_way = self.lost_datagrams.saturating_sub(self.kernel_drops);
        let most = self.kernel_drops.max(self.overrun_drops).max(on_the_way);
        let cause = match most {
            1.. if most == self.overrun_drops => Cause::Disk,
            1.. if most == self.kernel_drops => Cause::Cpu,
            _ => Cause::Network,
        };
        (self.unicast_only, self.cause) = (true, Some(cause));
        cause
    }
    pub fn row(&self, gathering: bool, blocks: u32, now: Time) -> DeviceRow {
        let own = &self.assignment;
        let assignment = self.recorded.clone();
        let deficit = || self.incomplete.unwrap_or_else(|| blocks.saturating_sub(self.verified));
        let lost = *own.state() == State::Lost;
        DeviceRow {
            assignment: assignment
                .unwrap_or_else(|| Assignment::new(own.task, own.device, own.label.clone())),
            transfer: TransferStatistics {
                address: Some(self.address),
                activity: self.activity(gathering),
                deficit: (!gathering && !self.is_final()).then(deficit),
                verified_blocks: self.verified,
                lost_datagrams: self.lost_datagrams,
                kernel_drops: self.kernel_drops,
                overrun_drops: self.overrun_drops,
                cause: if lost || self.unreachable() { Some(Cause::Feedback) } else { self.cause },
                unicast_symbols: self.unicast_symbols,
                elapsed: self.ended.unwrap_or(now).since(self.joined),
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
            polled: usize::from(open && (device.unreachable() || !device.unicast_only)),
            in_group: usize::from(device.in_group()),
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

/// Most devices that are counted anew for each question.
const MOST_TOUCHED: usize = 8;

/// All devices, by index and by identifier.
#[derive(Debug, Default)]
pub(super) struct Devices {
    list: Vec<Device>,
    by_id: BTreeMap<DeviceId, DeviceIndex>,
    runs: BTreeMap<AgreementKey, DeviceIndex>,
    /// Runs that another took the place of, the oldest first, and one above the highest number of their joins:
    /// those up to there can be replayed by anybody, from any address.
    former: VecDeque<(AgreementKey, u64)>,
    /// All but those touched, counted.
    counted: Counts,
    /// Devices that may be changing.
    touched: Vec<DeviceIndex>,
}

impl Devices {
    pub fn index_of(&self, id: DeviceId) -> Option<DeviceIndex> {
        self.by_id.get(&id).copied()
    }
    /// The device that a run belongs to.
    pub fn of_run(&self, agreement: &AgreementKey) -> Option<DeviceIndex> {
        self.runs.get(agreement).copied()
    }
    /// Whether a join of a run is one from before another took its place. A later one says that it lives.
    pub fn is_former(&self, agreement: &AgreementKey, number: u64) -> bool {
        self.former.iter().any(|(run, joins)| run == agreement && number < *joins)
    }
    /// A device has begun a new run: the one before speaks for it no longer.
    pub fn begin_run(&mut self, index: DeviceIndex, link: Link) {
        let former = (self.list[index.position()].link.agreement, self.list[index.position()].link.joins);
        self.runs.remove(&former.0);
        if self.former.len() == MAX_FORMER_RUNS {
            self.former.pop_front();
        }
        self.former.push_back(former);
        self.runs.insert(link.agreement, index);
        self.list[index.position()].link = link;
    }
    /// Adds a device. There must be room: fewer than [`crate::limits::MAX_DEVICES`].
    pub fn insert(&mut self, device: Device) -> DeviceIndex {
        let index = DeviceIndex(self.list.len() as u16);
        self.runs.insert(device.link.agreement, index);
        self.by_id.insert(device.assignment.device, index);
        self.counted.add(Counts::of(&device));
        self.list.push(device);
        index
    }
    pub fn get(&self, index: DeviceIndex) -> &Device {
        &self.list[index.position()]
    }
    pub fn get_mut(&mut self, index: DeviceIndex) -> &mut Device {
        if !self.touched.contains(&index) {
            if self.touched.len() == MOST_TOUCHED {
                for index in self.touched.drain(..) {
                    self.counted.add(Counts::of(&self.list[index.position()]));
                }
            }
            self.touched.push(index);
            self.counted.subtract(Counts::of(&self.list[index.position()]));
        }
        &mut self.list[index.position()]
    }
    pub fn len(&self) -> usize {
        self.list.len()
    }
    /// The index of each device.
    pub fn indices(&self) -> impl Iterator<Item = DeviceIndex> + use<> {
        (0..self.list.len() as u16).map(DeviceIndex)
    }
    pub fn iter(&self) -> impl Iterator<Item = (DeviceIndex, &Device)> {
        self.indices().zip(&self.list)
    }
    /// To change what is not counted: neither the status nor who serves a device.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (DeviceIndex, &mut Device)> {
        self.indices().zip(&mut self.list)
    }
    /// How many there are of each kind, without looking at them all: with ten thousand, every step
    /// would.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counted;
        self.touched.iter().for_each(|&index| counts.add(Counts::of(&self.list[index.position()])));
        debug_assert_eq!(counts, self.count_all());
        counts
    }
    fn count_all(&self) -> Counts {
        let mut counts = Counts::default();
        self.list.iter().for_each(|device| counts.add(Counts::of(device)));
        counts
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
