//! A block on its way in: which symbols are held, and where.
//!
//! The buffer has K slots of one symbol. A source symbol lies in its own slot; a repair symbol
//! stands in for a missing source symbol in a free slot, so a block never takes more memory than
//! its size (but for a few extra symbols), and spilling it to the part file is one positional
//! write that keeps the repair symbols too.
//!
//! ```text
//!  slot       0        1        2        3       4         extras
//!         [  s0   |   r7   |        |   s3   |  s4 ]       [  r9   ]
//!          memory  spilled    free   memory  memory         memory      K = 5; s1, s2 are missing
//! ```
//!
//! A slot is free, in memory or spilled. The slot of a last source symbol that is shorter than a
//! symbol takes no repair symbol, as the file would cut it; the extras do.

use super::Buffer;
use crate::layout::Layout;
use crate::limits::{MAX_ESI, MAX_EXTRA_SYMBOLS};
use crate::ranges::BitSet;
use crate::units::{BlockIndex, Esi};
use std::fmt;
use std::ops::Range;

/// What adding a symbol did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is new and held: one more than before.
    New,
    /// It brings nothing: it was held already, or it is a source symbol that could only take the
    /// place of a spilled repair symbol, which it did.
    Duplicate,
    /// There is no room for it (or no buffer), there are enough already, or it cannot be a symbol
    /// of this block: it is not held.
    NoRoom,
}

/// A repair symbol and its slot; without one it is among the extras.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repair {
    pub(super) id: u32,
    pub(super) slot: Option<u32>,
}

/// The symbols held of one block.
pub struct BlockAssembly {
    pub(super) block: BlockIndex,
    pub(super) block_len: usize,
    pub(super) symbol_size: u16,
    pub(super) k: u32,
    /// How many symbols a try to decode asks for: K, or more after failed tries.
    pub(super) needed: u32,
    /// K symbols long; the padding behind the block's end is zero.
    pub(super) buffer: Option<Buffer>,
    /// Source symbols held, in memory or spilled.
    pub(super) source: BitSet,
    /// Slots whose symbol is in the buffer.
    pub(super) in_memory: BitSet,
    /// Slots whose symbol is in the file; none of those in memory.
    pub(super) spilled: BitSet,
    /// Sorted by id.
    pub(super) repairs: Vec<Repair>,
    /// The repair symbols that have no slot.
    pub(super) extras: Vec<(u32, Box<[u8]>)>,
}

impl BlockAssembly {
    /// An empty assembly without a buffer.
    #[must_use]
    pub fn new(layout: &Layout, block: BlockIndex) -> Self {
        let k = layout.source_symbols(block);
        Self {
            block,
            block_len: layout.block_len(block),
            symbol_size: layout.symbol_size(),
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

    /// An assembly without a buffer, of whose symbols these source symbols are in the file.
    #[must_use]
    pub fn with_sources(layout: &Layout, block: BlockIndex, sources: BitSet) -> Self {
        let assembly = Self::new(layout, block);
        debug_assert_eq!(sources.capacity(), assembly.k);
        Self { source: sources.clone(), spilled: sources, ..assembly }
    }

    /// Its block.
    #[must_use]
    pub fn block(&self) -> BlockIndex {
        self.block
    }

    /// K.
    #[must_use]
    pub fn source_symbols(&self) -> u32 {
        self.k
    }

    /// Bytes of the buffer it wants: K whole symbols.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.k as usize * self.size()
    }

    /// Whether it has a buffer to put symbols in.
    #[must_use]
    pub fn has_buffer(&self) -> bool {
        self.buffer.is_some()
    }

    /// Gives it a buffer (any contents; resized to K symbols). A buffer it has already is dropped,
    /// with the symbols in it.
    pub fn attach(&mut self, mut buffer: Buffer) {
        drop(self.take_buffer());
        buffer.set_len(self.buffer_len());
        if buffer.notes().is_none() {
            buffer[self.block_len..].fill(0);
        }
        self.buffer = Some(buffer);
    }

    /// Gives a buffer that only has notes ([`Buffer::liken`]) its bytes; to be done before anything
    /// but [`Self::add`].
    pub fn gather(&mut self) {
        if let Some(buffer) = &mut self.buffer
            && buffer.notes().is_some()
        {
            buffer.gather();
            buffer[self.block_len..].fill(0);
        }
    }

    /// Takes the buffer away (empty if there is none) and forgets the symbols in it. The extras
    /// and what was spilled stay.
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
        buffer.scatter();
        buffer
    }

    /// Forgets all symbols and failed tries, after the block has disagreed with its hash; the
    /// buffer stays.
    pub fn reset(&mut self) {
        self.needed = self.k;
        self.source.clear();
        self.in_memory.clear();
        self.spilled.clear();
        self.repairs.clear();
        self.extras.clear();
    }

    /// Takes a symbol: `payload` has been checked to be as long as the symbol `id` must be (one
    /// that is not, or an id that is too large, finds no room). Once the deficit is 0 nothing more
    /// is taken.
    pub fn add(&mut self, id: Esi, payload: &[u8]) -> Added {
        let id = id.0;
        if self.holds(id) {
            return Added::Duplicate;
        }
        if id > MAX_ESI || payload.len() != self.payload_len(id) || self.deficit() == 0 || !self.has_buffer()
        {
            return Added::NoRoom;
        }
        if id < self.k { self.add_source(id, payload) } else { self.add_repair(id, payload) }
    }

    /// How many distinct symbols are held, in memory and spilled.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.source.count() + self.held_repair()
    }

    /// How many repair symbols are among them.
    #[must_use]
    pub fn held_repair(&self) -> u32 {
        // At most a symbol a slot and the extras.
        self.repairs.len() as u32
    }

    /// How many more symbols are needed before decoding is worth a try: 0 when it is. K minus
    /// those held; after a failed try, one more than was held then.
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
            // The repair symbol there is out of reach. Its slot is the only place in the file for
            // this one, which is worth more: it needs no decoding.
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

    /// Moves the repair symbol in `slot`, which is in memory, elsewhere; false if there is no room.
    fn move_repair(&mut self, slot: u32) -> bool {
        let to = self.free_slot();
        if to.is_none() && self.extras.len() == MAX_EXTRA_SYMBOLS {
            return false;
        }
        let from = self.slot_range(slot);
        let size = self.size();
        let (Some(repair), Some(buffer)) =
            (self.repairs.iter_mut().find(|r| r.slot == Some(slot)), self.buffer.as_mut())
        else {
            return false;
        };
        repair.slot = to;
        if let Some(notes) = buffer.notes() {
            let mut symbol = vec![0; size];
            notes.read(slot, &mut symbol);
            match to {
                Some(to) => {
                    notes.write(to, &symbol);
                    self.in_memory.insert(to);
                }
                None => self.extras.push((repair.id, symbol.into())),
            }
            return true;
        }
        match to {
            Some(to) => {
                buffer.copy_within(from, to as usize * size);
                self.in_memory.insert(to);
            }
            None => self.extras.push((repair.id, buffer[from].into())),
        }
        true
    }

    /// A slot that may take a repair symbol.
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
            match buffer.notes() {
                Some(notes) => notes.write(slot, payload),
                None => buffer[start..start + payload.len()].copy_from_slice(payload),
            }
            self.in_memory.insert(slot);
        }
    }

    /// The bytes of a slot in the buffer, padding included.
    pub(super) fn slot_range(&self, slot: u32) -> Range<usize> {
        let start = slot as usize * self.size();
        start..start + self.size()
    }

    fn payload_len(&self, id: u32) -> usize {
        if id < self.k { self.size().min(self.block_len - self.slot_range(id).start) } else { self.size() }
    }

    fn size(&self) -> usize {
        usize::from(self.symbol_size)
    }
}

impl fmt::Debug for BlockAssembly {
    /// Numbers only: the buffer is large.
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
