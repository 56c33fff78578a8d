//! The coding of each block: when it is settled, how many symbols it makes, and the packed bytes of compressed blocks.
//!
//! ```text
//!  hashed, and its coding chosen ──► settled for the session ──► its page, its symbols
//!                                        └ compressed: its packed bytes are kept until others need the room
//! ```
//! A worker chooses the coding of a block when it hashes it, some blocks ahead of the stream, and the stream waits for that.
//! The coding never changes after that, so packed bytes that are gone are made again from the block.
//!
//! With [`Compression::Auto`], the level is the highest at which the stream is not slower ([`level`]).

mod level;

use super::{BlockInfo, Sender};
use crate::limits::SENDER_PACKED_BYTES;
use crate::pack::Recipe;
use crate::protocol::job::SenderJob;
use crate::time::Time;
use crate::units::{BlockIndex, Coded, Coding, Digest, Esi, Rate};
use level::Level;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whether blocks are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// They are not.
    #[default]
    Off,
    /// As strongly as the stream leaves time for, or not at all.
    Auto,
    /// At this level, one of [`crate::pack::LEVELS`]. The stream waits for it.
    Level(i8),
}

/// Packed bytes ahead of the stream that are made again.
const REMADE_AHEAD: u32 = 2;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Codings {
    compression: Compression,
    /// Of [`Compression::Auto`].
    auto: Level,
    /// The block that the stream has begun last.
    begun: Option<u32>,
    /// Symbols of all blocks below each block, as far as the codings of all of them are known.
    sums: Vec<u64>,
    /// Packed bytes by block.
    packed: BTreeMap<u32, Arc<Vec<u8>>>,
    packed_bytes: usize,
    /// Blocks whose packed bytes are being made again for the stream.
    awaited: BTreeSet<u32>,
}

impl Codings {
    /// For a line of at most this rate.
    pub fn new(compression: Compression, line: Rate) -> Self {
        Self {
            compression,
            auto: Level::new(line),
            begun: None,
            sums: vec![0],
            packed: BTreeMap::new(),
            packed_bytes: 0,
            awaited: BTreeSet::new(),
        }
    }

    fn compresses(&self) -> bool {
        self.compression != Compression::Off
    }

    /// The level at which the next block is compressed.
    pub fn level(&self) -> Option<i8> {
        match self.compression {
            Compression::Off => None,
            Compression::Auto => self.auto.level(),
            Compression::Level(level) => Some(level),
        }
    }

    /// Whether there is room for the packed bytes of another block of `len` bytes, beside those that `in_flight` workers
    /// pack. What is below `position` can go.
    pub fn has_room(&self, in_flight: u32, len: u64, position: u32) -> bool {
        if self.level().is_none() {
            return true;
        }
        let ahead: usize = self.packed.range(position..).map(|(_, bytes)| bytes.len()).sum();
        let most = ahead as u64 + u64::from(in_flight + 1) * len;
        in_flight == 0 && ahead == 0 || most <= SENDER_PACKED_BYTES as u64
    }

    /// Keeps packed bytes. Those of blocks that were streamed make room for others, earliest first.
    fn keep(&mut self, block: u32, bytes: Arc<Vec<u8>>, position: u32) {
        self.packed_bytes += bytes.len();
        if let Some(old) = self.packed.insert(block, bytes) {
            self.packed_bytes -= old.len();
        }
        while self.packed_bytes > SENDER_PACKED_BYTES
            && let Some(entry) = self.packed.first_entry().filter(|entry| *entry.key() < position)
        {
            self.packed_bytes -= entry.remove().len();
        }
        // Blocks far ahead are packed again when their time comes.
        while self.packed_bytes > SENDER_PACKED_BYTES
            && self.packed.len() > 1
            && let Some((_, bytes)) = self.packed.pop_last()
        {
            self.packed_bytes -= bytes.len();
        }
    }
}

impl Sender {
    /// The coding of a block, once it is settled.
    pub(super) fn recipe(&self, block: u32) -> Option<Recipe> {
        self.blocks.get(block as usize)?.recipe
    }

    /// How a block is made, as far as that is known; raw otherwise.
    pub(super) fn recipe_or_raw(&self, block: BlockIndex) -> Recipe {
        self.recipe(block.0).unwrap_or_else(|| Recipe::raw(self.config.layout.source_symbols(block)))
    }

    /// K', the number of source symbols of a block on the wire; K while its coding is unknown.
    pub(super) fn symbols_of(&self, block: u32) -> u32 {
        self.recipe_or_raw(BlockIndex(block)).coded.k
    }

    /// Source symbols of blocks that are to be sent, as far as their codings are known.
    pub(super) fn symbols_between(&self, first: u32, end: u32) -> u64 {
        let sums = &self.codings.sums;
        let below = |block: u32| sums[(block as usize).min(sums.len() - 1)];
        below(end).saturating_sub(below(first))
    }

    /// Takes the coding that a worker has chosen for a block, unless it is settled.
    pub(super) fn choose_coding(&mut self, block: BlockIndex, recipe: Recipe, packed: Option<Arc<Vec<u8>>>) {
        let plain = self.config.layout.source_symbols(block);
        let Some(info) = self.blocks.get_mut(block.0 as usize) else { return };
        if info.recipe.is_some() {
            return;
        }
        let recipe = if recipe.coded.fits(plain) { recipe } else { Recipe::raw(plain) };
        let packed = packed.filter(|_| recipe.coded.coding == Coding::Zstd);
        info.recipe = Some(recipe);
        let position = self.stream.position;
        // If nothing is streamed, what devices lack is packed again.
        if let Some(packed) = packed.filter(|_| !self.stream.skipping && block.0 >= position) {
            self.codings.keep(block.0, packed, position);
        }
    }

    /// Supplies what is known of the blocks from an earlier run: their values, and which are zeros. They only decide which
    /// blocks devices need. The object is hashed again before its root is announced, so nothing is committed before that.
    pub(super) fn know_blocks(&mut self, blocks: Vec<(Digest, bool)>) {
        let compresses = self.codings.compresses();
        for ((info, (value, zero)), block) in self.blocks.iter_mut().zip(blocks).zip(0..) {
            info.value = Some(value);
            info.recipe = match (zero, compresses) {
                (true, _) => Some(Recipe::ZERO),
                (false, false) => Some(Recipe::raw(self.config.layout.source_symbols(BlockIndex(block)))),
                // How it is compressed shows when it is hashed again.
                (false, true) => None,
            };
        }
        self.count_hashed();
    }

    /// Counts the first blocks that are all known, and their symbols.
    pub(super) fn count_hashed(&mut self) {
        let from = self.codings.sums.len() - 1;
        let mut sum = self.codings.sums[from];
        for info in &self.blocks[from..] {
            let BlockInfo { value: Some(_), recipe: Some(recipe), .. } = info else { break };
            sum += u64::from(recipe.coded.k);
            self.codings.sums.push(sum);
        }
    }

    /// Blocks below this are hashed, and have their coding.
    pub(super) fn hashed_below(&self) -> u32 {
        (self.codings.sums.len() - 1) as u32
    }

    /// The values of all blocks of the whole object, and whether they are zeros, once they are known.
    #[must_use]
    pub fn hashed_blocks(&self) -> Option<Vec<(Digest, bool)>> {
        let known = |info: &BlockInfo| Some((info.value?, info.recipe? == Recipe::ZERO));
        self.blocks.iter().map(known).collect::<Option<_>>().filter(|_| self.config.layout.is_sealed())
    }

    /// Moves the position over blocks of zeros: they are streamed by their pages alone.
    pub(super) fn pass_zeros(&mut self) {
        let end = self.announced_blocks();
        while self.stream.position < end && self.symbols_of(self.stream.position) == 0 {
            self.stream.position += 1;
        }
    }

    /// Whether the source symbols of the block at the position can be sent.
    pub(super) fn is_coded(&self) -> bool {
        let block = self.stream.position;
        self.recipe(block).is_some_and(|recipe| {
            recipe.coded.coding != Coding::Zstd || self.codings.packed.contains_key(&block)
        })
    }

    /// Notes that the stream begins the block at its position, or waits for it.
    pub(super) fn time_blocks(&mut self, now: Time) {
        let position = self.stream.position;
        if self.codings.compression != Compression::Auto {
            return;
        }
        if !self.is_coded() {
            self.codings.auto.waits_for(position);
        } else if self.codings.begun.replace(position) != Some(position) {
            self.codings.auto.begins(now);
        }
    }

    /// The packed bytes of a compressed block, if they are at hand.
    pub(super) fn packed(&self, block: BlockIndex) -> Option<&Arc<Vec<u8>>> {
        self.codings.packed.get(&block.0)
    }

    /// Requests packed bytes that the stream needs next and that are gone.
    pub(super) fn ask_for_packed(&mut self) {
        if !self.codings.compresses() || self.stream.skipping {
            return;
        }
        for block in self.stream.position..self.announced_blocks().min(self.stream.position + REMADE_AHEAD) {
            let Some(recipe) = self.recipe(block).filter(|recipe| recipe.coded.coding == Coding::Zstd) else {
                continue;
            };
            if !self.codings.packed.contains_key(&block) && self.codings.awaited.insert(block) {
                let (layout, value) = (self.config.layout, self.value_of(BlockIndex(block)));
                let (first, count, block) = (Esi(0), recipe.coded.k, BlockIndex(block));
                self.job(SenderJob::Encode { block, layout, recipe, first, count, value });
            }
        }
    }

    /// Takes packed bytes that were requested for the stream. False if they were not.
    pub(super) fn take_packed(&mut self, block: BlockIndex, first: Esi, symbols: &Arc<Vec<u8>>) -> bool {
        let awaited = first.0 == 0 && self.codings.awaited.remove(&block.0);
        if awaited {
            self.codings.keep(block.0, Arc::clone(symbols), self.stream.position);
        }
        awaited
    }

    /// The coding of a block, for a page.
    pub(super) fn coded(&self, block: u32) -> Coded {
        self.recipe_or_raw(BlockIndex(block)).coded
    }
}

#[cfg(test)]
mod tests;
