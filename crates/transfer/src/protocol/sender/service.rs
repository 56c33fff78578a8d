//! Who serves a device: the group's rounds, unicast repair, or both.
//!
//! ```text
//!   present at the start              caught up, or regrouped
//!        └──► Group ◄──────────────────────────────┬──────────────┐
//!   late        │ unlike the group                 │              │
//!    └──► Behind{below} ──────────────► UnicastOnly{reason}       │
//!               │ six polls unanswered             │              │
//!               └──────────► GroupOnly{waits} ◄────┘              │
//!   from any state: Ended, and back by taking the task up again ──┘
//! ```

use crate::time::Time;

/// Why the group does not repair for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unlike {
    /// It loses far more than the others.
    Lossy,
    /// It carries far less than the others. While the stream fills its path, it needs no repairs.
    Slow,
    /// It takes blocks in order, and had no room for some that were streamed.
    NoRoom,
    /// The group's datagrams do not reach it, though its messages arrive.
    GroupUnreachable,
    /// It is the last one of several: the others should not get its repairs.
    Last,
}

/// Who serves a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// The group's rounds, for all blocks.
    Group,
    /// The group's rounds from block `below` on; unicast repair for earlier blocks, which were streamed
    /// before it joined.
    Behind {
        /// The first block that the group repairs for it; more than 0.
        below: u32,
    },
    /// Unicast repair, for all blocks.
    UnicastOnly {
        /// Why.
        reason: Unlike,
    },
    /// The group's rounds, for all blocks, because unicast does not reach it.
    GroupOnly {
        /// Blocks below this wait until the stream is over, so as not to delay it.
        waits: u32,
    },
    /// None: it has ended.
    Ended {
        /// When.
        at: Time,
    },
}

impl Service {
    /// The service of a device that takes up the task when the blocks below `gone_by` have been streamed.
    pub const fn of_newcomer(gone_by: u32) -> Self {
        match gone_by {
            0 => Self::Group,
            below => Self::Behind { below },
        }
    }
    /// Whether the group's rounds serve all blocks.
    pub const fn is_group(self) -> bool {
        matches!(self, Self::Group | Self::GroupOnly { .. })
    }
    /// Whether it wants unicast repair.
    pub const fn wants_unicast(self) -> bool {
        matches!(self, Self::Behind { .. } | Self::UnicastOnly { .. })
    }
    /// Whether unicast repair alone serves it.
    pub const fn is_unicast_only(self) -> bool {
        matches!(self, Self::UnicastOnly { .. })
    }
    /// Whether it was moved to unicast because it is slow.
    pub const fn is_slow(self) -> bool {
        matches!(self, Self::UnicastOnly { reason: Unlike::Slow })
    }
    /// Whether unicast does not reach it.
    pub const fn is_unicast_unreachable(self) -> bool {
        matches!(self, Self::GroupOnly { .. })
    }
    /// Whether the group's rate and its limits depend on it.
    pub const fn shapes_group(self) -> bool {
        match self {
            Self::Group | Self::Behind { .. } => true,
            Self::GroupOnly { waits } => waits < u32::MAX,
            Self::UnicastOnly { .. } | Self::Ended { .. } => false,
        }
    }
    /// Whether it answers the group's polls.
    pub const fn answers_group(self) -> bool {
        matches!(self, Self::Group | Self::Behind { .. } | Self::GroupOnly { .. })
    }
    /// Whether the group repairs `block` for it.
    pub const fn group_repairs(self, block: u32) -> bool {
        block >= self.group_from()
    }
    /// The first block that the group repairs for it.
    pub const fn group_from(self) -> u32 {
        match self {
            Self::Group | Self::GroupOnly { .. } => 0,
            Self::Behind { below } => below,
            Self::UnicastOnly { .. } | Self::Ended { .. } => u32::MAX,
        }
    }
    /// Whether the group repairs `block` for it only after the stream.
    pub const fn waits_for(self, block: u32) -> bool {
        matches!(self, Self::GroupOnly { waits } if block < waits)
    }
    /// Unicast repairs blocks below this, of those below `position`. Depends on whether the group has work.
    pub fn unicast_scope(self, position: u32, group_is_busy: bool) -> u32 {
        match self {
            Self::Behind { below } if group_is_busy => below.min(position),
            Self::Group if group_is_busy => 0,
            _ => position,
        }
    }
    /// Moves it to unicast, if unicast reaches it. True if it is there now.
    pub const fn move_to_unicast(&mut self, reason: Unlike) -> bool {
        let may = matches!(self, Self::Group | Self::Behind { .. } | Self::UnicastOnly { .. });
        if may {
            *self = Self::UnicastOnly { reason };
        }
        may
    }
    /// Lets a device that unicast does not reach wait until the stream is over, for all blocks. Until then it shapes the
    /// group no more.
    pub const fn wait_for_the_end(&mut self) {
        if let Self::GroupOnly { waits } = self {
            *waits = u32::MAX;
        }
    }
    /// Leaves it to the group, because it answers no unicast polls.
    pub const fn give_unicast_up(&mut self) {
        match *self {
            Self::Behind { below } => *self = Self::GroupOnly { waits: below },
            Self::UnicastOnly { .. } => *self = Self::GroupOnly { waits: u32::MAX },
            Self::Group | Self::GroupOnly { .. } | Self::Ended { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Service; 6] = [
        Service::Group,
        Service::Behind { below: 7 },
        Service::UnicastOnly { reason: Unlike::Lossy },
        Service::GroupOnly { waits: 7 },
        Service::GroupOnly { waits: u32::MAX },
        Service::Ended { at: Time::ZERO },
    ];

    #[test]
    fn every_block_has_one_that_repairs_it() {
        for service in ALL {
            for block in [0, 6, 7, 8] {
                let by_unicast = service.wants_unicast() && block < service.unicast_scope(9, true);
                let by_group = service.group_repairs(block);
                let ended = matches!(service, Service::Ended { .. });
                assert_eq!(by_unicast != by_group, !ended, "{service:?} {block}");
            }
            assert_eq!(service.is_group() || service.wants_unicast(), service != ALL[5]);
            // Where the group has nothing to do, unicast does it all.
            assert!(!service.wants_unicast() || service.unicast_scope(9, false) == 9);
        }
    }

    #[test]
    fn one_that_unicast_does_not_reach_stays_with_the_group() {
        for mut service in ALL {
            let before = service;
            let moved = service.move_to_unicast(Unlike::Slow);
            assert_eq!(moved, service.is_slow());
            assert_eq!(moved, !before.is_unicast_unreachable() && before != ALL[5]);
            service.give_unicast_up();
            assert!(!service.wants_unicast());
            if moved {
                // What it lacks of the whole stream waits, and it is no measure for the others.
                assert!(service.waits_for(8) && !service.shapes_group());
            }
        }
        let mut late = Service::of_newcomer(7);
        late.give_unicast_up();
        assert!(late.waits_for(6) && !late.waits_for(7) && late.shapes_group());
        assert_eq!(Service::of_newcomer(0), Service::Group);
    }
}
