//! What the object consists of, and how it is coded: zeros, blocks that end in zeros, blocks that can be compressed; and
//! pages that lie about one of them.

use super::{DevicePlan, Draw, Expectation, Scenario};
use crate::crypto::digest::{chaining_value, symbol_digest};
use crate::fec;
use crate::layout::Layout;
use crate::pack::{self, Recipe};
use crate::protocol::job::{SenderDone, SenderJob};
use crate::protocol::sender::Compression;
use crate::units::{BlockIndex, Coded, Coding, Digest, Esi};
use std::sync::Arc;

/// What a page says of a block, although it is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageLie {
    /// It is zeros.
    Zeros,
    /// It has one symbol less than it has.
    Symbols,
    /// It is compressed, and its frame holds far more than a block.
    Bomb,
}

/// What the sender knows of the object from an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The values of all blocks, and which are zeros.
    Right,
    /// The same, but of this block as it is no longer.
    Stale(u32),
}

impl Known {
    /// What it knows of this object.
    #[must_use]
    pub fn values(self, object: &[u8], layout: &Layout) -> Vec<(Digest, bool)> {
        let known = |block| {
            let bytes = slice(object, layout, block);
            let value = chaining_value(layout.block_offset(block), bytes, layout.extent());
            (value, pack::are_zero(bytes))
        };
        let mut values: Vec<_> = (0..layout.block_count()).map(BlockIndex).map(known).collect();
        if let Self::Stale(block) = self {
            values[block as usize].0.0[0] ^= 1;
        }
        values
    }
}

/// The content of the object.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContentPlan {
    /// The percentage of blocks that are zeros.
    pub zeros: u8,
    /// The percentage of blocks that end in zeros.
    pub short: u8,
    /// The percentage of blocks that can be compressed.
    pub text: u8,
    /// Whether the sender compresses.
    pub compression: Compression,
    /// The block of which the pages lie, if they do.
    pub lie: Option<(u32, PageLie)>,
}

impl ContentPlan {
    /// Whether there are blocks that need not be sent as they are.
    #[must_use]
    pub fn is_coded(&self) -> bool {
        self.zeros > 0 || self.short > 0 || self.text > 0 && self.compression != Compression::Off
    }
    /// Makes an object of random bytes what it is to be.
    pub fn shape(&self, object: &mut [u8], layout: &Layout, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0xc0_71e7);
        for block in object.chunks_mut(1 << layout.block_log2()) {
            let (which, len) = (rng.u8(..100), block.len());
            let (zeros, short) = (self.zeros, self.zeros + self.short);
            if which < zeros {
                block.fill(0);
            } else if which < short {
                block[rng.usize(..len)..].fill(0);
            } else if which < short + self.text {
                block.iter_mut().for_each(|byte| *byte &= 0x33);
            }
        }
    }

    /// The result of a job, as a sender has it that lies.
    pub fn told(&self, job: &SenderJob, bytes: &[u8]) -> Option<SenderDone> {
        let (at, lie) = self.lie?;
        let (SenderJob::Hash { block, layout, .. }
        | SenderJob::Encode { block, layout, .. }
        | SenderJob::Digest { block, layout, .. }) = job
        else {
            return None;
        };
        let plain = layout.source_symbols(*block);
        if block.0 != at || plain < 2 {
            return None;
        }
        let size = layout.symbol_size();
        let (coded, packed) = match lie {
            PageLie::Zeros => (Coded { coding: Coding::Zero, k: 0 }, Vec::new()),
            PageLie::Symbols => {
                let len = (plain - 1) as usize * usize::from(size);
                (Coded { coding: Coding::Short, k: plain - 1 }, slice(bytes, layout, *block)[..len].to_vec())
            }
            PageLie::Bomb => {
                let (recipe, packed) = pack::choose(&vec![b'x'; 4 << 20], size, Some(1));
                let mut packed = packed?;
                let most = (plain - 1) as usize * usize::from(size);
                packed.resize(packed.len().min(most), 0);
                (Coded { k: recipe.coded.k.min(plain - 1), ..recipe.coded }, packed)
            }
        };
        Some(match job {
            SenderJob::Hash { .. } => {
                let value = chaining_value(
                    layout.block_offset(*block),
                    slice(bytes, layout, *block),
                    layout.extent(),
                );
                let packed = (lie == PageLie::Bomb).then(|| Arc::new(packed));
                SenderDone::Hashed { block: *block, value, recipe: Recipe { coded, level: 1 }, packed }
            }
            SenderJob::Encode { first: Esi(0), block, .. } => {
                SenderDone::Encoded { block: *block, first: Esi(0), symbols: Arc::new(packed) }
            }
            SenderJob::Encode { first, count, block, .. } => {
                let symbols = fec::repair_once(&packed, size, first.0 - (plain - coded.k), *count);
                SenderDone::Encoded { block: *block, first: *first, symbols: Arc::new(symbols) }
            }
            _ => SenderDone::Digested(*block, packed.chunks(size.into()).map(symbol_digest).collect()),
        })
    }
}

fn slice<'a>(object: &'a [u8], layout: &Layout, block: BlockIndex) -> &'a [u8] {
    &object[layout.block_offset(block) as usize..][..layout.block_len(block)]
}

impl Draw {
    /// Half of the objects have zeros and other blocks that need not be sent as they are.
    pub(super) fn content(mut self, mut scenario: Scenario) -> Scenario {
        if self.chance(50) {
            return scenario;
        }
        let share = |draw: &mut Self| if draw.chance(50) { draw.rng.u8(..=33) } else { 0 };
        let (zeros, short, text) = (share(&mut self), share(&mut self), share(&mut self));
        // Now and then there is hardly anything else.
        let zeros = if self.chance(20) { zeros + 34 } else { zeros };
        let compression = match self.rng.u8(..4) {
            0 | 1 => Compression::Off,
            2 => Compression::Auto,
            _ => Compression::Level(self.rng.i8(-3..=5)),
        };
        scenario.content = ContentPlan { zeros, short, text, compression, lie: None };
        let count = scenario.layout.block_count();
        if count > 0 && self.chance(6) {
            let lie = [PageLie::Zeros, PageLie::Symbols, PageLie::Bomb][self.rng.usize(..3)];
            scenario.content.lie = Some((self.rng.u32(..count), lie));
            scenario.devices.iter_mut().for_each(|device| {
                if device.expectation == Expectation::Complete {
                    device.expectation = Expectation::Any;
                }
            });
        }
        scenario
    }

    /// Lets some senders know the object from an earlier run, a few of them wrongly.
    pub(super) fn knowledge(mut self, mut scenario: Scenario) -> Scenario {
        let count = scenario.layout.block_count();
        let fits = scenario.sender.growth.is_none() && scenario.content.lie.is_none();
        if !fits || !self.chance(20) {
            return scenario;
        }
        scenario.sender.known = Some(Known::Right);
        if count > 0 && self.chance(10) {
            scenario.sender.known = Some(Known::Stale(self.rng.u32(..count)));
            scenario.devices.iter_mut().for_each(DevicePlan::fail);
        }
        scenario
    }
}
