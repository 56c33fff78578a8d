//! L1: object <-> blocks <-> symbols <-> byte ranges: pure arithmetic.

mod session;

pub use session::{SessionLayout, SessionLayoutError};

use crate::limits::{
    COMFORTABLE_BLOCK_COUNT, COMFORTABLE_BLOCK_LOG2, DEFAULT_BLOCK_LOG2, MAX_BLOCK_LOG2, MAX_OBJECT_SIZE,
    MAX_SOURCE_SYMBOLS, MAX_SYMBOL_SIZE, MIN_BLOCK_LOG2, MIN_SYMBOL_SIZE, SYMBOL_ALIGN,
};
use crate::units::{BlockIndex, Esi, Extent};
use std::ops::Range;

/// The division of an object into blocks and symbols. The length of a block is a power of two (the last one
/// may be shorter), so that each block is a BLAKE3 subtree. Symbols have `symbol_size` bytes (the last one of
/// a block may be shorter).
///
/// The object of a stream grows until it is sealed, by whole blocks. Each of them is known to be followed by more, so
/// what is known of a block never changes: neither its length nor its chaining value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    extent: Extent,
    block_log2: u8,
    symbol_size: u16,
}

/// Why a layout is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The object is larger than this symbol size can carry.
    #[error(
        "object of {0} bytes is too large for symbols of {1} bytes (at most {most} bytes): send it in parts",
        most = largest_object(*.1)
    )]
    TooLarge(u64, u16),
    /// The symbol size is out of range or not a multiple of 64.
    #[error("symbol size {0} is not a multiple of 64 from 64 to 8896")]
    SymbolSize(u16),
    /// The block size is out of range or gives too many symbols or blocks.
    #[error("block size 2^{0} does not fit the object and symbol size")]
    BlockSize(u8),
    /// An object that still grows ends within a block.
    #[error("an object that still grows must end with a block, not after {0} bytes")]
    Ragged(u64),
    /// An object has become shorter, has changed although it was sealed, or was sealed without the byte more that was
    /// promised.
    #[error("an object of {0} bytes cannot become one of {1} bytes")]
    Changed(u64, u64),
}

impl Layout {
    /// The layout that a sender chooses: 1 MiB blocks, or larger ones for large objects.
    ///
    /// # Errors
    /// If the symbol size is invalid, or the object is too large for it.
    pub fn choose(object_size: u64, symbol_size: u16) -> Result<Self, LayoutError> {
        check_symbol_size(symbol_size)?;
        let largest = largest_block_log2(symbol_size);
        let comfortable = largest.min(COMFORTABLE_BLOCK_LOG2);
        let mut block_log2 = DEFAULT_BLOCK_LOG2;
        while block_log2 < comfortable && count(object_size, block_log2) > COMFORTABLE_BLOCK_COUNT {
            block_log2 += 1;
        }
        while block_log2 < largest && count(object_size, block_log2) > u64::from(u32::MAX) {
            block_log2 += 1;
        }
        // Only the object's size can be wrong here, whatever error `new` returns.
        Self::new(object_size, block_log2, symbol_size)
            .map_err(|_| LayoutError::TooLarge(object_size, symbol_size))
    }
    /// A layout from parameters, which may come from the network.
    ///
    /// # Errors
    /// If they are invalid.
    pub fn new(object_size: u64, block_log2: u8, symbol_size: u16) -> Result<Self, LayoutError> {
        Self::of(Extent::sealed(object_size), block_log2, symbol_size)
    }
    /// A layout of an object that may still grow, from parameters, which may come from the network.
    ///
    /// # Errors
    /// If they are invalid.
    pub fn of(extent: Extent, block_log2: u8, symbol_size: u16) -> Result<Self, LayoutError> {
        let object_size = extent.size;
        check_symbol_size(symbol_size)?;
        if object_size > MAX_OBJECT_SIZE {
            return Err(LayoutError::TooLarge(object_size, symbol_size));
        }
        if !(MIN_BLOCK_LOG2..=MAX_BLOCK_LOG2).contains(&block_log2)
            || full_block_symbols(block_log2, symbol_size) > u64::from(MAX_SOURCE_SYMBOLS)
            || count(object_size, block_log2) > u64::from(u32::MAX)
        {
            return Err(LayoutError::BlockSize(block_log2));
        }
        if !extent.sealed && !object_size.is_multiple_of(1 << block_log2) {
            return Err(LayoutError::Ragged(object_size));
        }
        Ok(Self { extent, block_log2, symbol_size })
    }
    /// The same object after it has grown.
    ///
    /// # Errors
    /// If `extent` cannot follow the present one, or is too large for the blocks.
    pub fn grown(&self, extent: Extent) -> Result<Self, LayoutError> {
        let now = self.extent;
        let follows = extent.size > now.size || !extent.sealed || extent.size == 0;
        if extent != now && (now.sealed || extent.size < now.size || !follows) {
            return Err(LayoutError::Changed(now.size, extent.size));
        }
        Self::of(extent, self.block_log2, self.symbol_size)
    }
    /// How long the object is, as far as that is known.
    #[must_use]
    pub const fn extent(&self) -> Extent {
        self.extent
    }
    /// Whether the object's size is final.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        self.extent.sealed
    }
    /// Bytes of the object; the bytes so far if it is not sealed.
    #[must_use]
    pub const fn object_size(&self) -> u64 {
        self.extent.size
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
    /// The number of blocks; 0 for an empty object.
    #[must_use]
    pub fn block_count(&self) -> u32 {
        // `new` has checked that it fits.
        count(self.extent.size, self.block_log2) as u32
    }
    /// Byte offset of a block.
    #[must_use]
    pub fn block_offset(&self, block: BlockIndex) -> u64 {
        u64::from(block.0) << self.block_log2
    }
    /// Bytes of a block: the block size, or what is left for the last one; 0 past the last one.
    #[must_use]
    pub fn block_len(&self, block: BlockIndex) -> usize {
        let left = self.extent.size.saturating_sub(self.block_offset(block));
        left.min(1 << self.block_log2) as usize
    }
    /// K: source symbols of a block; 0 past the last one.
    #[must_use]
    pub fn source_symbols(&self, block: BlockIndex) -> u32 {
        // At most MAX_SOURCE_SYMBOLS, as `new` has checked for a full block.
        self.block_len(block).div_ceil(usize::from(self.symbol_size)) as u32
    }
    /// K of the longest block that the object can have: of a full one while it grows; 0 if it is empty.
    #[must_use]
    pub fn most_source_symbols(&self) -> u32 {
        if self.extent.sealed {
            return self.source_symbols(BlockIndex(0));
        }
        full_block_symbols(self.block_log2, self.symbol_size) as u32
    }
    /// Source symbols of the whole object.
    #[must_use]
    pub fn total_source_symbols(&self) -> u64 {
        let Some(last) = self.block_count().checked_sub(1) else { return 0 };
        u64::from(last) * full_block_symbols(self.block_log2, self.symbol_size)
            + u64::from(self.source_symbols(BlockIndex(last)))
    }
    /// Byte range of a source symbol within its block. Shorter than a symbol at the block's end, and empty
    /// for the ESI of a repair symbol.
    #[must_use]
    pub fn symbol_range(&self, block: BlockIndex, id: Esi) -> Range<usize> {
        let len = self.block_len(block) as u64;
        let start = u64::from(id.0) * u64::from(self.symbol_size);
        let end = start + u64::from(self.symbol_size);
        start.min(len) as usize..end.min(len) as usize
    }
}

fn check_symbol_size(symbol_size: u16) -> Result<(), LayoutError> {
    if (MIN_SYMBOL_SIZE..=MAX_SYMBOL_SIZE).contains(&symbol_size) && symbol_size.is_multiple_of(SYMBOL_ALIGN)
    {
        Ok(())
    } else {
        Err(LayoutError::SymbolSize(symbol_size))
    }
}

/// Blocks of an object; may be more than 2^32.
const fn count(object_size: u64, block_log2: u8) -> u64 {
    object_size.div_ceil(1 << block_log2)
}

/// K of a full block; may be more than allowed.
fn full_block_symbols(block_log2: u8, symbol_size: u16) -> u64 {
    (1_u64 << block_log2).div_ceil(u64::from(symbol_size))
}

/// log2 of the largest block that valid symbols of this size can carry.
fn largest_block_log2(symbol_size: u16) -> u8 {
    // ceil(2^n / T) <= K_max is 2^n <= K_max * T, as K_max is whole.
    let bytes = u64::from(MAX_SOURCE_SYMBOLS) * u64::from(symbol_size);
    (bytes.ilog2() as u8).min(MAX_BLOCK_LOG2)
}

/// Bytes of the largest object that symbols of this size can carry.
fn largest_object(symbol_size: u16) -> u64 {
    (u64::from(u32::MAX) << largest_block_log2(symbol_size.max(1))).min(MAX_OBJECT_SIZE)
}

#[cfg(test)]
mod tests;
