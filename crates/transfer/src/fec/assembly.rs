//! The assembly of one received block: the symbols held, and their places.
//!
//! The buffer has K slots of one symbol. A source symbol is stored in its own slot. A repair symbol is
//! stored in the free slot of a missing source symbol. So a block never takes more memory than its size
//! (apart from a few extra symbols), and one positional write spills it to the part file, repair symbols
//! included.
//!
//! ```text
//!  slot       0        1        2        3       4         extras
//!         [  s0   |   r7   |        |   s3   |  s4 ]       [  r9   ]
//!          memory  spilled    free   memory  memory         memory      K = 5; s1, s2 are missing
//! ```
//!
//! A coded block has K' source symbols, less than the K of its plain bytes, but its ids and slots are those of the plain
//! block: symbols may arrive before it is known how the block is coded. Then the slots from K' on stay free, and repair
//! symbols have ids from K on all the same.
//!
//! A slot is free, in memory or spilled. If the last source symbol is short, its slot takes no repair
//! symbol, because the end of the file would cut it. The extras take it instead.

use super::Buffer;
use crate::layout::Layout;
use crate::limits::{MAX_ESI, MAX_EXTRA_SYMBOLS};
use crate::ranges::BitSet;
use crate::units::{BlockIndex, Coded, Coding, Esi};
use std::fmt;
use std::ops::Range;

/// The result of adding a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The symbol is new and held now.
    New,
    /// The symbol does not raise the number of symbols held: it was held already, or it is a source
    /// symbol that replaced a spilled repair symbol.
    Duplicate,
    /// The symbol is not held: there is no room or no buffer, the assembly has enough symbols, or the
    /// symbol cannot belong to this block.
    NoRoom,
}

/// A repair symbol and its slot. Without a slot the symbol is among the extras.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repair {
    pub(super) id: u32,
    pub(super) slot: Option<u32>,
}

/// The symbols held of one block.
pub struct BlockAssembly {
    pub(super) block: BlockIndex,
    pub(super) layout: Layout,
    pub(super) block_len: usize,
    /// K of the plain block.
    pub(super) plain_k: u32,
    coding: Coding,
    /// K' if the block is known to be coded, else K.
    pub(super) k: u32,
    /// Number of symbols at which decoding is tried: K', or more after a failed attempt.
    pub(super) needed: u32,
    /// K symbols long.
    pub(super) buffer: Option<Buffer>,
    /// Source symbols held, in memory or spilled.
    pub(super) source: BitSet,
    /// Slots whose symbol is in the buffer.
    pub(super) in_memory: BitSet,
    /// Slots whose symbol is in the file, and not in memory.
    pub(super) spilled: BitSet,
    /// Sorted by id.
    pub(super) repairs: Vec<Repair>,
    /// The repair symbols without a slot.
    pub(super) extras: Vec<(u32, Box<[u8]>)>,
}

impl BlockAssembly {
    /// An empty assembly without a buffer.
    #[must_use]
    pub fn new(layout: &Layout, block: BlockIndex) -> Self {
        let k = layout.source_symbols(block);
        Self {
            block,
            layout: *layout,
            block_len: layout.block_len(block),
            plain_k: k,
            coding: Coding::Raw,
            k,
            needed: k,
            buffer: None,
            source: BitSet::new(k),
            in_memory: BitSet::new(k),
            spilled: BitSet::new(k),
            repairs: Vec::new(),
            extras: Vec::new(),
        }
    }

    /// The same for a block that is coded like this, which [fits](Coded::fits) it, and not zeros.
    #[must_use]
    pub fn coded(layout: &Layout, block: BlockIndex, coded: Coded) -> Self {
        let mut assembly = Self::new(layout, block);
        let _ = assembly.set_coding(coded);
        assembly
    }

    /// Takes the coding of the block, which [fits](Coded::fits) it, and is not zero. Forgets symbols that the coded block
    /// cannot have, and repair symbols in places that it does not have. Returns how many.
    pub fn set_coding(&mut self, Coded { coding, k }: Coded) -> u32 {
        let before = self.held();
        (self.coding, self.k, self.needed) = (coding, k, k);
        self.repairs.retain(|repair| repair.slot.is_none_or(|slot| slot < k));
        for set in [&mut self.source, &mut self.in_memory, &mut self.spilled] {
            set.resize(k);
        }
        before.saturating_sub(self.held())
    }

    /// How the block is coded, as far as that is known.
    #[must_use]
    pub const fn coding(&self) -> Coding {
        self.coding
    }

    /// The packed bytes of a coded block, after [`Self::complete`]: whole symbols. Empty without a buffer.
    #[must_use]
    pub fn packed(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[..self.k as usize * self.size()])
    }

    /// Puts zeros behind the packed bytes. After that, [`Self::bytes`] are those of a shortened block.
    pub fn lengthen(&mut self) {
        let packed = self.k as usize * self.size();
        if let Some(buffer) = &mut self.buffer {
            buffer[packed..].fill(0);
        }
    }

    /// An assembly without a buffer, for a block that is coded like this and whose symbols `sources` are already in the
    /// file.
    #[must_use]
    pub fn with_sources(layout: &Layout, block: BlockIndex, coded: Coded, sources: BitSet) -> Self {
        let assembly = Self::coded(layout, block, coded);
        debug_assert_eq!(sources.capacity(), assembly.k);
        Self { source: sources.clone(), spilled: sources, ..assembly }
    }

    /// An assembly whose buffer has the symbols `sources` in their places. It is as long as [`Self::buffer_len`] says.
    #[must_use]
    pub fn holding(
        layout: &Layout,
        block: BlockIndex,
        coded: Coded,
        (sources, buffer): (BitSet, Buffer),
    ) -> Self {
        let assembly = Self::coded(layout, block, coded);
        debug_assert_eq!((sources.capacity(), buffer.len()), (assembly.k, assembly.buffer_len()));
        Self { source: sources.clone(), in_memory: sources, buffer: Some(buffer), ..assembly }
    }

    /// The buffer with the block's bytes, and padding behind them. Call once the block is complete.
    #[must_use]
    pub fn into_block(mut self) -> Buffer {
        self.gather();
        self.buffer.take().unwrap_or_default()
    }

    /// The index of its block.
    #[must_use]
    pub fn block(&self) -> BlockIndex {
        self.block
    }

    /// The layout of the object that it is a block of, as it was when the block was begun.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The number of source symbols: K', or K if the block is not known to be coded.
    #[must_use]
    pub fn source_symbols(&self) -> u32 {
        self.k
    }

    /// Length of the buffer that it needs, in bytes: K whole symbols, also for a coded block.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.plain_k as usize * self.size()
    }

    /// Whether it has a buffer.
    #[must_use]
    pub fn has_buffer(&self) -> bool {
        self.buffer.is_some()
    }

    /// Attaches a buffer, with any contents; it is resized to K symbols. Drops a previous buffer with the
    /// symbols in it.
    pub fn attach(&mut self, mut buffer: Buffer) {
        drop(self.take_buffer());
        buffer.set_len(self.buffer_len());
        self.buffer = Some(buffer);
    }

    /// Sees to it that the buffer can be read as bytes, with zeros for padding.
    pub(super) fn gather(&mut self) {
        if let Some(buffer) = &mut self.buffer {
            buffer.slots().gather();
            buffer[self.block_len..].fill(0);
        }
    }

    /// Detaches the buffer (an empty one if there is none) and forgets the symbols in it. The extras and
    /// the spilled symbols stay.
    pub fn take_buffer(&mut self) -> Buffer {
        for (first, count) in self.in_memory.runs(true) {
            for slot in first..first + count {
                self.source.remove(slot);
            }
        }
        let in_memory = &self.in_memory;
        self.repairs.retain(|r| !r.slot.is_some_and(|slot| in_memory.contains(slot)));
        self.in_memory.clear();
        let mut buffer = self.buffer.take().unwrap_or_default();
        buffer.slots().release();
        buffer
    }

    /// Forgets all symbols and failed attempts; the buffer stays. Call after the block disagreed with its
    /// hash.
    pub fn reset(&mut self) {
        self.needed = self.k;
        self.source.clear();
        self.in_memory.clear();
        self.spilled.clear();
        self.repairs.clear();
        self.extras.clear();
    }

    /// Adds a symbol. Returns [`Added::NoRoom`] if `payload` does not have the length of the symbol `id`,
    /// or if `id` is too large. Adds nothing once the deficit is 0.
    pub fn add(&mut self, id: Esi, payload: &[u8]) -> Added {
        let id = id.0;
        if self.holds(id) {
            return Added::Duplicate;
        }
        if id > MAX_ESI || payload.len() != self.payload_len(id) || self.deficit() == 0 || !self.has_buffer()
        {
            return Added::NoRoom;
        }
        match id {
            id if id < self.k => self.add_source(id, payload),
            // The coded block has no such symbol.
            id if id < self.plain_k => Added::NoRoom,
            id => self.add_repair(id, payload),
        }
    }

    /// The number of distinct symbols held, in memory and spilled.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.source.count() + self.held_repair()
    }

    /// The number of repair symbols held.
    #[must_use]
    pub fn held_repair(&self) -> u32 {
        // At most one for each slot, and the extras.
        self.repairs.len() as u32
    }

    /// The number of symbols that are missing before the next attempt to decode: K' minus the symbols
    /// held; after a failed attempt, one more than were held then. 0 if decoding can be tried.
    #[must_use]
    pub fn deficit(&self) -> u32 {
        if self.source.is_full() { 0 } else { self.needed.saturating_sub(self.held()) }
    }

    /// The source symbols held, in memory and spilled.
    #[must_use]
    pub const fn sources(&self) -> &BitSet {
        &self.source
    }

    /// The missing source symbols as `(first, count)` runs.
    #[must_use]
    pub fn missing(&self) -> Vec<(u32, u32)> {
        self.source.runs(false).collect()
    }

    fn holds(&self, id: u32) -> bool {
        self.source.contains(id) || self.repairs.binary_search_by_key(&id, |r| r.id).is_ok()
    }

    fn add_source(&mut self, id: u32, payload: &[u8]) -> Added {
        let mut added = Added::New;
        if self.spilled.remove(id) {
            // The repair symbol was written to the file and cannot be moved. Its slot is the source
            // symbol's only place in the file, and the source symbol is worth more: it needs no decoding.
            self.repairs.retain(|r| r.slot != Some(id));
            added = Added::Duplicate;
        } else if self.in_memory.contains(id) && !self.move_repair(id) {
            return Added::NoRoom;
        }
        self.write_slot(id, payload);
        self.source.insert(id);
        added
    }

    fn add_repair(&mut self, id: u32, payload: &[u8]) -> Added {
        let slot = self.free_slot();
        match slot {
            Some(slot) => self.write_slot(slot, payload),
            None if self.extras.len() < MAX_EXTRA_SYMBOLS => self.extras.push((id, payload.into())),
            None => return Added::NoRoom,
        }
        let at = self.repairs.partition_point(|r| r.id < id);
        self.repairs.insert(at, Repair { id, slot });
        Added::New
    }

    /// Moves the repair symbol in `slot`, which is in memory, to another place; false if there is no
    /// room.
    fn move_repair(&mut self, slot: u32) -> bool {
        let to = self.free_slot();
        if to.is_none() && self.extras.len() == MAX_EXTRA_SYMBOLS {
            return false;
        }
        let size = self.size();
        let (Some(repair), Some(buffer)) =
            (self.repairs.iter_mut().find(|r| r.slot == Some(slot)), self.buffer.as_mut())
        else {
            return false;
        };
        repair.slot = to;
        let mut symbol = vec![0; size];
        buffer.slots().read(slot as usize * size, &mut symbol);
        match to {
            Some(to) => {
                buffer.slots().write(to as usize * size, &symbol);
                self.in_memory.insert(to);
            }
            None => self.extras.push((repair.id, symbol.into())),
        }
        true
    }

    /// A free slot for a repair symbol.
    fn free_slot(&self) -> Option<u32> {
        let mut from = 0;
        loop {
            let slot = self.in_memory.next(from, false)?;
            if !self.spilled.contains(slot) {
                return (self.payload_len(slot) == self.size()).then_some(slot);
            }
            from = slot + 1;
        }
    }

    fn write_slot(&mut self, slot: u32, payload: &[u8]) {
        let start = self.slot_range(slot).start;
        if let Some(buffer) = &mut self.buffer {
            buffer.slots().write(start, payload);
            self.in_memory.insert(slot);
        }
    }

    /// The bytes of a slot in the buffer, including padding.
    pub(super) fn slot_range(&self, slot: u32) -> Range<usize> {
        let start = slot as usize * self.size();
        start..start + self.size()
    }

    fn payload_len(&self, id: u32) -> usize {
        let start = self.slot_range(id).start;
        if id < self.plain_k { self.size().min(self.block_len - start) } else { self.size() }
    }

    fn size(&self) -> usize {
        usize::from(self.layout.symbol_size())
    }
}

impl fmt::Debug for BlockAssembly {
    /// Shows only numbers: the buffer is large.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockAssembly")
            .field("block", &self.block.0)
            .field("k", &self.k)
            .field("source", &self.source.count())
            .field("repair", &self.repairs.len())
            .field("spilled", &self.spilled.count())
            .field("needed", &self.needed)
            .field("buffer", &self.has_buffer())
            .finish()
    }
}
