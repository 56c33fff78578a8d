//! HASH PAGE: chaining values of blocks, and the codings of their symbols.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::{HASHES_PER_PAGE, MAX_SOURCE_SYMBOLS};
use crate::units::{BlockIndex, Coded, Coding, Digest};

const fn coding_of(number: u8) -> Option<Coding> {
    Some(match number {
        0 => Coding::Raw,
        1 => Coding::Short,
        2 => Coding::Zero,
        3 => Coding::Zstd,
        _ => return None,
    })
}

/// A page's entry for one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// The chaining value of its plain bytes.
    pub value: Digest,
    /// The coding of its symbols.
    pub coding: Coding,
    /// The number of source symbols in this coding: 0 for [`Coding::Zero`] and only for it; K for
    /// [`Coding::Raw`].
    pub coded_k: u16,
}

impl BlockEntry {
    /// The coding of the block, with its number of source symbols.
    #[must_use]
    pub const fn coded(&self) -> Coded {
        Coded { coding: self.coding, k: self.coded_k as u32 }
    }
}

/// Chaining values of the blocks `first..first + blocks.len()`; `first` is a multiple of
/// [`HASHES_PER_PAGE`], 1 to that many blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashPage {
    /// First block of the page.
    pub first: BlockIndex,
    /// Its blocks.
    pub blocks: Vec<BlockEntry>,
}

impl HashPage {
    /// A page of raw blocks: their values, and K of each.
    #[must_use]
    pub fn raw(first: BlockIndex, blocks: impl IntoIterator<Item = (Digest, u32)>) -> Self {
        Self::of(first, blocks.into_iter().map(|(value, k)| (value, Coded::raw(k))))
    }

    /// A page of blocks with these values and codings. A number of symbols is at most [`MAX_SOURCE_SYMBOLS`].
    #[must_use]
    pub fn of(first: BlockIndex, blocks: impl IntoIterator<Item = (Digest, Coded)>) -> Self {
        let entry = |(value, Coded { coding, k })| BlockEntry { value, coding, coded_k: k as u16 };
        Self { first, blocks: blocks.into_iter().map(entry).collect() }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let first = r.block("first block")?;
        r.check(first.0.is_multiple_of(HASHES_PER_PAGE), "first block")?;
        let count = u32::from(r.u8("count")?);
        let in_range = (1..=HASHES_PER_PAGE).contains(&count);
        r.check(in_range && first.0.checked_add(count).is_some(), "count")?;
        let mut blocks = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let value = r.digest("values")?;
            blocks.push(BlockEntry { value, coding: Coding::Raw, coded_k: 0 });
        }
        for block in &mut blocks {
            block.coded_k = r.u16("coded source symbols")?;
            r.check(u32::from(block.coded_k) <= MAX_SOURCE_SYMBOLS, "coded source symbols")?;
        }
        for pair in blocks.chunks_mut(2) {
            let codings = r.u8("codings")?;
            for (block, number) in pair.iter_mut().zip([codings >> 4, codings & 15]) {
                block.coding = coding_of(number).ok_or(r.not_supported("coding", number.into()))?;
                r.check((block.coded_k == 0) == (block.coding == Coding::Zero), "coded source symbols")?;
            }
            r.check(pair.len() == 2 || codings & 15 == 0, "codings")?;
        }
        Ok(Self { first, blocks })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.first.0);
        w.u8(self.blocks.len().min(usize::from(u8::MAX)) as u8);
        for block in &self.blocks {
            w.bytes(&block.value.0);
        }
        for block in &self.blocks {
            w.u16(block.coded_k);
        }
        for pair in self.blocks.chunks(2) {
            let second = pair.get(1).map_or(0, |block| block.coding as u8);
            w.u8((pair[0].coding as u8) << 4 | second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{HEADER_LEN, MAX_CONTROL};
    use crate::wire::testing::{datagram, golden, refuses, takes};
    use crate::wire::{DecodeError, MessageKind, decode_plain};

    #[rustfmt::skip]
    const HEAD: [u8; 5] = [
        0, 0, 0, 0x40,
        3,
    ];
    #[rustfmt::skip]
    const TAIL: [u8; 8] = [
        0x02, 0xe9, 0, 0, 0, 1,                         // 101 coded K: 745, 0, 1
        0x02, 0x30,                                     // 107 raw, zero, zstd
    ];

    fn body() -> Vec<u8> {
        [&HEAD[..], &[1; 32], &[2; 32], &[3; 32], &TAIL].concat()
    }

    #[test]
    fn golden_bytes() {
        let entry = |n, coding, coded_k| BlockEntry { value: Digest([n; 32]), coding, coded_k };
        let blocks = vec![entry(1, Coding::Raw, 745), entry(2, Coding::Zero, 0), entry(3, Coding::Zstd, 1)];
        golden(HashPage { first: BlockIndex(64), blocks }, &body());
        let one = [&[0, 0, 0, 0, 1][..], &[1; 32], &[0xdc, 0x53, 0x10]].concat();
        golden(HashPage { first: BlockIndex(0), blocks: vec![entry(1, Coding::Short, 56_403)] }, &one);
    }

    #[test]
    fn each_bad_field_is_named() {
        let body = body();
        let no = |at, patch: &[u8], field| refuses(MessageKind::HashPage, &body, at, patch, field);
        takes(MessageKind::HashPage, &body, 0, &[0, 0, 0, 0]);
        takes(MessageKind::HashPage, &body, 0, &[0xff, 0xff, 0xff, 0xe0]);
        no(0, &[0, 0, 0, 0x41], "first block");
        no(0, &[0xff; 4], "first block");
        refuses(MessageKind::HashPage, &body[..5], 4, &[0], "count");
        refuses(MessageKind::HashPage, &body, 4, &[33], "count");
        // Nothing is sent of zeros, and something of all else.
        no(103, &[0, 1], "coded source symbols");
        no(101, &[0, 0], "coded source symbols");
        no(101, &[0xdc, 0x54], "coded source symbols");
        // The last nibble of an odd number of them is not used.
        no(108, &[0x31], "codings");
        let mut later = body;
        later[107] = 0x42;
        let error = DecodeError::NotSupported { message: MessageKind::HashPage, field: "coding", number: 4 };
        assert_eq!(decode_plain(&datagram(MessageKind::HashPage as u8, &later)), Err(error));
    }

    #[test]
    fn a_full_page_fits() {
        let mut full = vec![0, 0, 0, 0, 32];
        full.extend([7; 32 * 32]);
        full.extend([1; 2 * 32]);
        full.extend([0; 16]);
        takes(MessageKind::HashPage, &full, 0, &[]);
        refuses(MessageKind::HashPage, &full, 0, &[0xff, 0xff, 0xff, 0xe0], "count");
        assert!(HEADER_LEN + full.len() <= MAX_CONTROL);
    }
}
