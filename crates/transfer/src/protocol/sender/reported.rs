//! The figures of a device's latest reports, and what follows from its *room*: a device that takes blocks in order has
//! room for a limited number of them (`docs/protocol.md`, PROGRESS).
//!
//! - A device that lacks nothing below its room waits for its reader. It is not polled, and may take its time.
//! - A device whose room ends below what was streamed has missed whole blocks. Unicast repair serves it from then on.
//! - If every device has limited room, the stream waits for those whose room is near the largest. Otherwise it would be
//!   sent to nobody.

use super::Sender;
use super::channel::Round;
use super::devices::Class;
use super::frames::Stretch;
use super::service::Unlike;
use crate::protocol::statistics::Cause;
use crate::time::Time;
use crate::units::{BlockIndex, DeviceIndex};
use crate::wire::Phase;
use std::time::Duration;

/// A disk that lets blocks wait for this long is what holds the device up.
const DISK_IS_BEHIND: Duration = Duration::from_millis(100);
/// The stream waits for devices whose room ends at most so many blocks below the largest. Devices further behind are not
/// waited for, so together they delay the stream by no more than the time for so many blocks.
const NEAR: u32 = 16;

/// The room of a device that passes the object on, until it reports. Every device has buffers for so many blocks.
const FIRST_ROOM: u32 = 4;

/// The figures of a device's latest reports.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reported {
    pub verified: u32,
    pub incomplete: Option<u32>,
    pub lost_datagrams: u64,
    pub kernel_drops: u64,
    pub overrun_drops: u64,
    /// How long a block waits for its disk.
    pub storage_delay: Duration,
    pub room: Room,
    /// The blocks below this are verified.
    pub below: u32,
    /// How long it has let the stream stand still (`sender::window`).
    pub held: Duration,
    /// Since when its datagrams are counted (`sender::frames`).
    pub stretch: Option<Stretch>,
}

impl Reported {
    /// The main cause of its losses.
    pub fn cause(&self) -> Cause {
        if self.storage_delay >= DISK_IS_BEHIND {
            return Cause::Disk;
        }
        let on_the_way = self.lost_datagrams.saturating_sub(self.kernel_drops);
        let most = self.kernel_drops.max(self.overrun_drops).max(on_the_way);
        match most {
            1.. if most == self.overrun_drops => Cause::Disk,
            1.. if most == self.kernel_drops => Cause::Cpu,
            _ => Cause::Network,
        }
    }

    /// Whether it lacks nothing that it has room for, and has no room for all. How many blocks it has verified does
    /// not tell: some of them may be beyond its room.
    pub const fn waits_for_reader(&self) -> bool {
        self.below >= self.room.below
    }
}

/// The room of a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// It has room for the blocks below this; `u32::MAX` for all.
    pub below: u32,
    /// Blocks that had been streamed at a time that its latest report came after.
    streamed: u32,
    at: Time,
}

impl Default for Room {
    fn default() -> Self {
        Self { below: u32::MAX, streamed: 0, at: Time::ZERO }
    }
}

impl Room {
    /// The room of a device that has not reported, and that passes the object on or keeps it.
    pub fn unreported(passes_on: bool) -> Self {
        if passes_on { Self { below: FIRST_ROOM, ..Self::default() } } else { Self::default() }
    }

    /// Whether it has room for a limited number of blocks.
    pub const fn is_limited(&self) -> bool {
        self.below < u32::MAX
    }

    /// Takes a report, while the stream is at `position`. True if the device had no room for a block that has reached
    /// it. A report may have been on the way for `trip`, so it is compared with an earlier position.
    fn report(&mut self, below: u32, position: u32, trip: Duration, now: Time) -> bool {
        self.below = below;
        let behind = below < self.streamed;
        if now >= self.at + trip {
            (self.streamed, self.at) = (position, now);
        }
        behind
    }
}

impl Sender {
    /// Takes the room that a device has reported.
    pub(super) fn room_reported(&mut self, index: DeviceIndex, room: BlockIndex, now: Time) {
        let (position, trip) = (self.stream.position, self.rounds.grtt);
        let blocks = self.config.layout.block_count();
        let apart = self.config.repair.sets_apart() && self.config.repair.unicast_repairs > 0;
        let apart = apart && self.phase != Phase::Gathering && !self.stream.skipping;
        let device = self.devices.get_mut(index);
        let waited = device.reported.waits_for_reader() || device.reported.verified == blocks;
        let grows = room.0 > device.reported.room.below;
        let behind = device.reported.room.report(room.0, position, trip, now);
        let in_group = device.service.answers_group();
        if waited && grows {
            device.headway.wait(now);
        }
        if behind && apart && in_group && !device.regrouped && !device.service.is_unicast_unreachable() {
            device.move_to_unicast(Unlike::NoRoom);
            self.tell_if_changed(index, now);
        } else if waited && grows && in_group && !self.group.is_open() {
            self.rounds.stir();
            self.group.round = Round::Idle { next: now };
        }
        self.hold_stream();
    }

    /// Decides how far the stream may go. It waits only if no device has room for all blocks.
    pub(super) fn hold_stream(&mut self) {
        let counts = self.devices.counts();
        self.stream.held_at = None;
        if counts.open == 0 || counts.limited < counts.open {
            return;
        }
        let open: Vec<DeviceIndex> = self.devices.of(Class::Open).iter().copied().collect();
        let rooms = || open.iter().map(|&index| self.devices.get(index).reported.room.below);
        let near = rooms().max().unwrap_or(u32::MAX).saturating_sub(NEAR);
        self.stream.held_at = rooms().filter(|&room| room >= near).min();
    }

    /// Whether the stream waits for room.
    pub(super) fn stream_is_held(&self) -> bool {
        !self.stream_done() && self.stream.held_at.is_some_and(|at| self.stream.position >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_behind_once_it_had_no_room_for_what_has_reached_it() {
        let at = |ms| Time::ZERO + Duration::from_millis(ms);
        let trip = Duration::from_millis(10);
        let mut room = Room::default();
        assert!(!room.report(4, 0, trip, at(100)));
        // The stream is far ahead of the report, which may have been on its way for long.
        assert!(!room.report(5, 40, trip, at(105)));
        assert!(!room.report(40, 80, trip, at(115)), "compared with 0");
        assert!(!room.report(80, 90, trip, at(125)), "it has room for the 80 that have reached it");
        assert!(room.report(89, 90, trip, at(135)));
        // A file has room for all.
        assert!(!room.report(u32::MAX, 1 << 20, trip, at(200)) && !room.is_limited());
    }

    #[test]
    fn a_device_waits_for_its_reader_when_it_lacks_nothing_that_it_has_room_for() {
        let mut reported = Reported::default();
        for (below, room, waits) in [(0, u32::MAX, false), (3, 4, false), (4, 4, true), (0, 0, true)] {
            (reported.below, reported.room.below) = (below, room);
            assert_eq!(reported.waits_for_reader(), waits, "{below} {room}");
        }
        // It lacks block 3, and has blocks beyond its room of when it reported.
        (reported.verified, reported.below, reported.room.below) = (6, 3, 4);
        assert!(!reported.waits_for_reader());
    }
}
