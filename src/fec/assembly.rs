//! A block on its way in: which symbols are held, and where.
//!
//! The buffer has K slots of one symbol. A source symbol lies in its own slot; a repair symbol
//! stands in for a missing source symbol in a free slot, so a block never takes more memory than
//! its size (but for a few extra symbols), and spilling it to the part file is one positional
//! write that keeps the repair symbols too.

use super::PlanCache;
use crate::layout::Layout;
use crate::units::{BlockIndex, SymbolId};

/// What adding a symbol did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is new and held.
    New,
    /// It was held already.
    Duplicate,
    /// There is no room for it (or no buffer): it is not held.
    NoRoom,
}

/// The symbols held of one block.
#[derive(Debug)]
pub struct BlockAssembly {}

impl BlockAssembly {
    /// An empty assembly without a buffer.
    #[must_use]
    pub fn new(layout: &Layout, block: BlockIndex) -> Self {
        todo!("{layout:?} {block:?}")
    }
    /// Its block.
    #[must_use]
    pub fn block(&self) -> BlockIndex {
        todo!()
    }
    /// K.
    #[must_use]
    pub fn source_symbols(&self) -> u32 {
        todo!()
    }
    /// Whether it has a buffer to put symbols in.
    #[must_use]
    pub fn has_buffer(&self) -> bool {
        todo!()
    }
    /// Gives it a buffer (any contents; resized to K symbols).
    pub fn attach(&mut self, buffer: Vec<u8>) {
        todo!("{}", buffer.len())
    }
    /// Takes a symbol: `payload` has been checked to be as long as the symbol `id` must be.
    pub fn add(&mut self, id: SymbolId, payload: &[u8]) -> Added {
        todo!("{id:?} {}", payload.len())
    }
    /// How many distinct symbols are held, in memory and spilled.
    #[must_use]
    pub fn held(&self) -> u32 {
        todo!()
    }
    /// How many repair symbols are among them.
    #[must_use]
    pub fn held_repair(&self) -> u32 {
        todo!()
    }
    /// How many more symbols are needed before decoding is worth a try: 0 when it is. K minus
    /// those held, plus one for each failed try.
    #[must_use]
    pub fn deficit(&self) -> u32 {
        todo!()
    }
    /// The missing source symbols as `(first, count)` runs.
    pub fn missing(&self) -> Vec<(u32, u32)> {
        todo!()
    }
}
