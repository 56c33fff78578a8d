//! Coded blocks: their hashes and symbols at the sender; unpacking them, and zeros, at a device.

use super::{OpenPart, Refusal, read_again, read_block, value};
use crate::crypto::digest::{chaining_value_of_zeros, symbol_digest};
use crate::fec::{self, BlockAssembly, Buffer, PlanCache};
use crate::layout::Layout;
use crate::pack::{self, Recipe};
use crate::protocol::job::{ReceiverDone, SenderDone};
use crate::ranges::BitSet;
use crate::storage::{SinkError, Source, SourceError};
use crate::units::{BlockIndex, Coded, Coding, Digest, Esi, SymbolDigest};
use std::borrow::Cow;
use std::sync::Arc;

/// Hashes a block, and chooses its coding. A hole is not read.
pub(super) fn hash(
    source: &dyn Source,
    (block, layout): (BlockIndex, &Layout),
    level: Option<i8>,
    buffer: &mut Vec<u8>,
) -> Result<SenderDone, SourceError> {
    let (offset, len) = (layout.block_offset(block), layout.block_len(block));
    if source.is_hole(offset, len) {
        let value = chaining_value_of_zeros(offset, len, layout.extent());
        return Ok(SenderDone::Hashed { block, value, recipe: Recipe::ZERO, packed: None });
    }
    read_block(source, layout, block, buffer)?;
    let value = value(layout, block, buffer);
    let (recipe, packed) = pack::choose(buffer, layout.symbol_size(), level);
    Ok(SenderDone::Hashed { block, value, recipe, packed: packed.map(Arc::new) })
}

/// The coded bytes of a block that is read again.
fn read_coded<'a>(
    source: &dyn Source,
    (block, layout): (BlockIndex, &Layout),
    (recipe, value): (Recipe, Option<Digest>),
    buffer: &'a mut Vec<u8>,
) -> Result<Cow<'a, [u8]>, SourceError> {
    read_again(source, layout, block, value, buffer)?;
    pack::pack(buffer, layout.symbol_size(), recipe).ok_or_else(|| {
        let text = format!("the source changed while it was being sent (block {}); send it again", block.0);
        SourceError::Changed(text)
    })
}

/// Encodes symbols of a block: repair symbols, or all source symbols if `first` is 0.
pub(super) fn encode(
    source: &dyn Source,
    (block, layout): (BlockIndex, &Layout),
    (recipe, value): (Recipe, Option<Digest>),
    (first, count): (Esi, u32),
    (plans, buffer): (&PlanCache, &mut Vec<u8>),
) -> Result<SenderDone, SourceError> {
    let value = value.filter(|_| !source.sees_changes());
    let coded = read_coded(source, (block, layout), (recipe, value), buffer)?;
    let size = layout.symbol_size();
    let symbols = if first.0 == 0 {
        coded.into_owned()
    } else if recipe.coded.coding == Coding::Raw {
        fec::repair(&coded, size, first.0, count, plans)
    } else {
        // The ids of repair symbols begin at the K of the plain block.
        let beyond = layout.source_symbols(block).saturating_sub(recipe.coded.k);
        fec::repair_once(&coded, size, first.0 - beyond, count)
    };
    Ok(SenderDone::Encoded { block, first, symbols: Arc::new(symbols) })
}

/// Computes the digests of the source symbols of a block that disagrees at a device.
pub(super) fn digest(
    source: &dyn Source,
    (block, layout): (BlockIndex, &Layout),
    (recipe, value): (Recipe, Option<Digest>),
    buffer: &mut Vec<u8>,
) -> Result<SenderDone, SourceError> {
    // Perhaps the source has changed.
    source.check()?;
    let coded = read_coded(source, (block, layout), (recipe, value), buffer)?;
    let symbols = coded.chunks(usize::from(layout.symbol_size()));
    let digests: Vec<SymbolDigest> = symbols.map(symbol_digest).collect();
    Ok(SenderDone::Digested(block, digests))
}

/// The plain bytes of a complete assembly, in its buffer or in another one; none if the coded ones are not of a block.
pub(crate) fn plain(assembly: &mut BlockAssembly) -> Option<Option<Buffer>> {
    match assembly.coding() {
        Coding::Raw | Coding::Zero => Some(None),
        Coding::Short => {
            assembly.lengthen();
            Some(None)
        }
        Coding::Zstd => {
            let len = assembly.layout().block_len(assembly.block());
            let mut unpacked = Buffer::default();
            unpacked.set_len(assembly.buffer_len());
            let (block, padding) = unpacked.split_at_mut(len);
            padding.fill(0);
            pack::unpack(assembly.packed(), block).then_some(Some(unpacked))
        }
    }
}

/// Finds out which of a block's symbols, as they are kept, have their digests. If all have, and the block has its value
/// after all, it is stored as it should be.
pub(super) fn sift(
    open: &OpenPart,
    (block, layout): (BlockIndex, &Layout),
    coded: Coded,
    (digests, expected): (&[SymbolDigest], Digest),
    mut held: Option<Buffer>,
) -> Result<ReceiverDone, Refusal> {
    let mut read = Buffer::default();
    let bytes = block_bytes(open, (block, layout), held.as_ref(), &mut read)?;
    let size = usize::from(layout.symbol_size());
    let bytes = &bytes[..bytes.len().min(coded.k as usize * size)];
    let mut right = BitSet::new(coded.k);
    for (id, _) in (0..).zip(bytes.chunks(size).zip(digests)).filter(|(_, (s, d))| symbol_digest(s) == **d) {
        right.insert(id);
    }
    if !right.is_full() {
        return Ok(ReceiverDone::Sifted { block, right, agrees: false, buffer: held });
    }
    if coded.coding == Coding::Raw {
        let agrees = value(layout, block, bytes) == expected;
        return Ok(ReceiverDone::Sifted { block, right, agrees, buffer: held });
    }
    // The plain block is not kept anywhere yet.
    let mut unpacked = Buffer::default();
    unpacked.set_len(layout.source_symbols(block) as usize * size);
    unpacked.fill(0);
    let len = layout.block_len(block);
    let whole = match coded.coding {
        Coding::Zstd => pack::unpack(bytes, &mut unpacked[..len]),
        _ => {
            unpacked[..bytes.len()].copy_from_slice(bytes);
            true
        }
    };
    let agrees = whole && value(layout, block, &unpacked[..len]) == expected;
    if agrees && held.is_some() {
        held = Some(unpacked);
    } else if agrees {
        open.part.write_at(layout.block_offset(block), &unpacked[..len])?;
    }
    Ok(ReceiverDone::Sifted { block, right, agrees, buffer: held })
}

/// The bytes of a block: those that are `held`, or else those of the part file, which are read into `read`.
pub(super) fn block_bytes<'a>(
    open: &OpenPart,
    (block, layout): (BlockIndex, &Layout),
    held: Option<&'a Buffer>,
    read: &'a mut Buffer,
) -> Result<&'a [u8], SinkError> {
    let len = layout.block_len(block);
    if let Some(held) = held {
        return Ok(&held[..len]);
    }
    read.set_len(len);
    open.part.read_at(layout.block_offset(block), read)?;
    Ok(read)
}

/// Verifies blocks of zeros, and makes them zeros in the part file.
pub(super) fn zero(
    open: &OpenPart,
    first: BlockIndex,
    values: &[Digest],
    layout: &Layout,
) -> Result<ReceiverDone, Refusal> {
    let place = |block| (layout.block_offset(block), layout.block_len(block));
    let (mut end, start) = (0, layout.block_offset(first));
    for (block, expected) in (first.0..).map(BlockIndex).zip(values) {
        let (offset, len) = place(block);
        if chaining_value_of_zeros(offset, len, layout.extent()) != *expected {
            return Ok(ReceiverDone::Zeroed { first, count: values.len() as u32, wrong: Some(block) });
        }
        end = offset + len as u64;
    }
    if !open.in_memory && end > start {
        open.part.write_zeros(start, end - start)?;
    }
    Ok(ReceiverDone::Zeroed { first, count: values.len() as u32, wrong: None })
}

/// Reserves the space of blocks.
pub(super) fn reserve(
    open: &OpenPart,
    first: BlockIndex,
    count: u32,
    layout: &Layout,
) -> Result<ReceiverDone, Refusal> {
    let start = layout.block_offset(first);
    let end = start.saturating_add(u64::from(count) << layout.block_log2()).min(layout.object_size());
    open.part.reserve(start, end.saturating_sub(start))?;
    Ok(ReceiverDone::Reserved)
}
