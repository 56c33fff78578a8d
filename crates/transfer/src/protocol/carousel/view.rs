//! How the session looks: to the user, and to devices.

use super::{Carousel, Stage};
use crate::protocol::event::{PassProgress, SenderOverview, SenderSnapshot};
use crate::task::Summary;
use crate::units::BlockIndex;
use crate::wire::{Announce, Capabilities, OneWay, Phase};

impl Carousel {
    pub(super) const fn phase(&self) -> Phase {
        match (&self.stage, self.pass) {
            (Stage::WarmingUp { .. }, _) => Phase::Gathering,
            (Stage::Passing | Stage::Pausing { .. }, 0) => Phase::Streaming,
            (Stage::Passing | Stage::Pausing { .. }, _) => Phase::Repairing,
            _ => Phase::Lingering,
        }
    }

    /// The session at a glance.
    #[must_use]
    pub fn overview(&self) -> SenderOverview {
        let layout = &self.config.layout;
        let (position, size) = (self.position, layout.object_size());
        SenderOverview {
            phase: self.phase(),
            blocks: layout.block_count(),
            position,
            object_size: size,
            growing: false,
            streamed: (u64::from(position) << layout.block_log2()).min(size),
            skipped: 0,
            rate: self.rate,
            wire_bytes: self.counters.wire_bytes,
            source_symbols: self.counters.source,
            repair_symbols: self.counters.repair,
            unicast_symbols: 0,
            feedback: 0,
            ignored: self.counters.ignored,
            unknown_kinds: 0,
            not_understood: 0,
            suspects: 0,
            expected: None,
            devices: Summary::default(),
            missing: 0,
            passes: Some(PassProgress { pass: self.pass, of: self.passes.count }),
        }
    }

    /// The session at a glance. No devices are known.
    #[must_use]
    pub fn snapshot(&self) -> SenderSnapshot {
        SenderSnapshot { overview: self.overview(), devices: Vec::new() }
    }

    /// The session as it is announced now.
    #[must_use]
    pub fn announced(&self) -> Announce {
        let overhead_per_mille = self.passes.overhead_per_mille;
        let reached = if self.pass == 0 { self.position } else { self.config.layout.block_count() };
        Announce {
            phase: self.phase(),
            position: BlockIndex(reached),
            feedback_budget: 0,
            // All blocks are raw: a page that is lost would leave the symbols of a coded block without a meaning.
            required: Capabilities::default(),
            optional: Capabilities::default(),
            one_way: Some(OneWay { pass: self.pass, overhead_per_mille }),
            origin: self.origin.clone(),
            ..self.config.announce(&self.side, self.root)
        }
    }
}
