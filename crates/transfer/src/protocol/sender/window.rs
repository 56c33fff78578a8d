//! A stream of which only the last blocks are kept (`--window`): which blocks are gone, and which devices that leaves
//! behind ([decision 30](../../../docs/decisions/0030-windows.md)).
//!
//! ```text
//!   gone        kept                        room
//!  |%%%%%%|====================|..........|
//!         floor       position  read
//! ```
//!
//! A block goes once all devices have verified it, and the input needs its room. So no device that is served lacks a
//! block that is gone. If the stream stands still because a device lacks one that should go, and for longer than two
//! rounds take, the device has [`PATIENCE`] in all. After that it fails. A slow device is served meanwhile: nothing else
//! needs its path.

use super::devices::Class;
use super::{Sender, SlowPolicy};
use crate::protocol::job::{SenderDone, SenderJob};
use crate::task::State;
use crate::time::Time;
use crate::units::{BlockIndex, DeviceIndex};
use crate::wire::{Abort, AbortCode, Message, Phase};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a device may let the stream stand still, in all. A silent device is lost at the same time.
pub(super) const PATIENCE: Duration = crate::limits::DEVICE_SILENCE;
/// Why a device fails.
const BEHIND: &str = "fell behind what --window keeps of the stream";

/// What is kept of a stream.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Most blocks that are kept; `None` for all.
    pub blocks: Option<u32>,
    /// Blocks below this are gone.
    floor: u32,
    /// Blocks below this were found to be verified by all devices.
    verified: u32,
    /// A device that had verified only the blocks below this, when they were last compared.
    last: Option<(DeviceIndex, u32)>,
    /// Where the stream stands still, if it does.
    still: Option<Still>,
    /// How many jobs read each block.
    jobs: BTreeMap<u32, u32>,
}

/// A stream that stands still.
#[derive(Clone, Copy, Debug)]
struct Still {
    /// The blocks below this have to go.
    wanted: u32,
    since: Time,
    /// The time before this was charged to devices.
    charged: Time,
    /// A device that lacks one of them.
    by: Option<DeviceIndex>,
}

impl Still {
    /// The time that is to be charged: all but what is usual, and what was charged already.
    fn spent(&self, usual: Duration, now: Time) -> Duration {
        now.since(self.charged.max(self.since + usual))
    }
}

impl Window {
    pub fn new(blocks: Option<u32>) -> Self {
        Self { blocks, ..Self::default() }
    }

    /// Blocks below this are gone.
    pub const fn floor(&self) -> u32 {
        self.floor
    }

    /// Blocks below this may be forgotten: nobody needs them, and no job reads them.
    pub fn unused(&self) -> u32 {
        self.jobs.first_key_value().map_or(self.floor, |(&block, _)| block.min(self.floor))
    }

    /// Takes note of a job that reads a block.
    pub fn begun(&mut self, job: &SenderJob) {
        if let SenderJob::Hash { block, .. }
        | SenderJob::Encode { block, .. }
        | SenderJob::Digest { block, .. } = job
            && self.blocks.is_some()
        {
            *self.jobs.entry(block.0).or_default() += 1;
        }
    }

    /// Takes note of the end of a job.
    pub fn ended(&mut self, done: &SenderDone) {
        let (SenderDone::Hashed { block, .. }
        | SenderDone::Encoded { block, .. }
        | SenderDone::Digested(block, _)) = done
        else {
            return;
        };
        if let Some(count) = self.jobs.get_mut(&block.0) {
            *count -= 1;
            if *count == 0 {
                self.jobs.remove(&block.0);
            }
        }
    }

    /// A device has come whose blocks are not known.
    pub const fn joined(&mut self) {
        (self.verified, self.last) = (0, None);
    }

    /// Whether the stream stands still for devices.
    pub const fn waits(&self) -> bool {
        self.still.is_some()
    }

    /// Time does not count in which the process was stopped, or nothing could be sent.
    pub const fn put_off(&mut self) {
        self.still = None;
    }
}

impl Sender {
    /// The blocks that must be gone before one more is read.
    fn in_the_way(&self) -> u32 {
        // While a block is read, its beginning is kept too.
        let most = self.window.blocks.unwrap_or(u32::MAX);
        (self.config.layout.block_count() + 2).saturating_sub(most)
    }

    /// Whether there is room for another block. Lets go of those that all devices have verified, if not, and waits until no
    /// job reads them.
    pub(super) fn has_room_to_read(&mut self) -> bool {
        let wanted = self.in_the_way();
        if wanted <= self.window.floor {
            return wanted <= self.window.unused();
        }
        if self.stream.position < wanted {
            return false;
        }
        if self.window.verified < wanted {
            self.compare_devices();
        }
        if self.window.verified < wanted {
            return false;
        }
        self.window.floor = wanted;
        let mut wasted = self.group.forget(wanted);
        for index in self.unicast_repairs.clone() {
            wasted += self.device_channel(index).forget(wanted);
        }
        self.encoded_symbols = self.encoded_symbols.saturating_sub(wasted);
        self.inquiries.forget(wanted);
        wanted <= self.window.unused()
    }

    /// Finds out which blocks all devices have verified. One look is enough while the last device has not moved.
    fn compare_devices(&mut self) {
        if let Some((index, below)) = self.window.last {
            let device = self.devices.get(index);
            if !device.is_final() && device.reported.below == below {
                return;
            }
        }
        let open: Vec<DeviceIndex> = self.devices.of(Class::Open).iter().copied().collect();
        let below = |index| (index, self.devices.get(index).reported.below);
        let last = open.into_iter().map(below).min_by_key(|last| last.1);
        self.window.last = last;
        self.window.verified = last.map_or(u32::MAX, |(_, below)| below);
    }

    /// How long the stream stands still for devices that are not slow: until they have answered, been repaired and
    /// reported. A window that is smaller than what is sent meanwhile makes the stream stop and go.
    fn usual_stand_still(&self) -> Duration {
        self.rounds.usual() * 2 + self.budget().report_interval(self.devices.gsize()) * 2
    }

    /// Whether the input has to wait for devices.
    fn stands_still(&mut self) -> bool {
        self.window.blocks.is_some()
            && self.phase == Phase::Streaming
            && !self.config.layout.is_sealed()
            && !self.stream.reading
            && self.stream_rests()
            && !self.has_room_to_read()
    }

    /// Notes where the stream stands still. Where it did until now is charged to the device that it waited for last.
    pub(super) fn watch_window(&mut self, now: Time) {
        if self.window.blocks.is_none() {
            return;
        }
        let stands = self.stands_still();
        let (wanted, by) = (self.in_the_way(), self.window.last.map(|(index, _)| index));
        let before = self.window.still.take_if(|still| !stands || still.wanted != wanted);
        if let Some((before, by)) = before.and_then(|before| Some((before, before.by?))) {
            let spent = before.spent(self.usual_stand_still(), now);
            self.devices.get_mut(by).reported.held += spent;
        }
        if stands {
            self.window.still.get_or_insert(Still { wanted, since: now, charged: now, by }).by = by;
        }
    }

    /// Looks after the devices that let the stream stand still: they fail once their time is over.
    pub(super) fn charge_for_window(&mut self, now: Time) {
        self.watch_window(now);
        let usual = self.usual_stand_still();
        let Some(still) = &mut self.window.still else { return };
        let (wanted, spent) = (still.wanted, still.spent(usual, now));
        still.charged = now;
        let open = self.devices.of(Class::Open).clone();
        for index in open {
            let device = self.devices.get_mut(index);
            if device.reported.below >= wanted {
                continue;
            }
            device.reported.held += spent;
            if device.reported.held >= PATIENCE {
                self.leave_behind(index, now);
            }
        }
        self.end_if_done(now);
    }

    /// Takes how far a device has come. Returns false if it lacks something that is gone, and is told so.
    pub(super) fn keeps_up(&mut self, index: DeviceIndex, below: BlockIndex, now: Time) -> bool {
        let blocks = self.config.layout.block_count();
        let waits = self.config.repair.slow == SlowPolicy::Keep;
        let device = self.devices.get_mut(index);
        let below = below.0.min(blocks);
        if below > device.reported.below {
            device.reported.below = below;
            if waits {
                device.reported.held = Duration::ZERO;
            }
        }
        if device.reported.below >= self.window.floor || device.assignment.is_complete() {
            return true;
        }
        self.leave_behind(index, now);
        self.end_if_done(now);
        false
    }

    /// A device lacks what is gone, or nobody waits for it any more.
    pub(super) fn leave_behind(&mut self, index: DeviceIndex, now: Time) {
        self.set_state(index, State::Failed(BEHIND.to_owned()), now);
        let abort = Abort { code: AbortCode::Behind, reason: BEHIND.to_owned() };
        self.send_signed_to_device(index, &Message::Abort(abort), now);
    }
}
