//! L1: object <-> blocks <-> symbols <-> byte ranges: pure arithmetic.

use crate::units::{BlockIndex, SymbolId};
use std::ops::Range;

/// How an object is cut up. Blocks are a power of two long (the last one shorter), so that each
/// is a BLAKE3 subtree; symbols are `symbol_size` long (the last one of a block shorter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    object_size: u64,
    block_log2: u8,
    symbol_size: u16,
}

/// Why there is no such layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The object is larger than this symbol size can carry.
    #[error("object of {0} bytes is too large for symbols of {1} bytes")]
    TooLarge(u64, u16),
    /// The symbol size is out of range or not a multiple of 64.
    #[error("symbol size {0} is not a multiple of 64 from 64 to 8896")]
    SymbolSize(u16),
    /// The block size is out of range or gives too many symbols or blocks.
    #[error("block size 2^{0} does not fit the object and symbol size")]
    BlockSize(u8),
}

impl Layout {
    /// The layout a sender chooses: 1 MiB blocks, larger ones where the object asks for it.
    ///
    /// # Errors
    /// When the symbol size is invalid or the object too large for it.
    pub fn choose(object_size: u64, symbol_size: u16) -> Result<Self, LayoutError> {
        todo!("{object_size} {symbol_size}")
    }
    /// A layout from its parameters, as they come from the network.
    ///
    /// # Errors
    /// When they do not make a valid layout.
    pub fn new(object_size: u64, block_log2: u8, symbol_size: u16) -> Result<Self, LayoutError> {
        todo!("{object_size} {block_log2} {symbol_size}")
    }
    /// Bytes of the object.
    #[must_use]
    pub const fn object_size(&self) -> u64 {
        self.object_size
    }
    /// log2 of the block size.
    #[must_use]
    pub const fn block_log2(&self) -> u8 {
        self.block_log2
    }
    /// Bytes of a symbol.
    #[must_use]
    pub const fn symbol_size(&self) -> u16 {
        self.symbol_size
    }
    /// How many blocks; 0 for an empty object.
    #[must_use]
    pub fn block_count(&self) -> u32 {
        todo!()
    }
    /// Byte offset of a block.
    #[must_use]
    pub fn block_offset(&self, block: BlockIndex) -> u64 {
        todo!("{block:?}")
    }
    /// Bytes of a block: the block size, or what is left for the last one.
    #[must_use]
    pub fn block_len(&self, block: BlockIndex) -> usize {
        todo!("{block:?}")
    }
    /// K: source symbols of a block.
    #[must_use]
    pub fn source_symbols(&self, block: BlockIndex) -> u32 {
        todo!("{block:?}")
    }
    /// Source symbols of the whole object.
    #[must_use]
    pub fn total_source_symbols(&self) -> u64 {
        todo!()
    }
    /// Byte range of a source symbol within its block; shorter than a symbol at the block's end.
    #[must_use]
    pub fn symbol_range(&self, block: BlockIndex, id: SymbolId) -> Range<usize> {
        todo!("{block:?} {id:?}")
    }
}
