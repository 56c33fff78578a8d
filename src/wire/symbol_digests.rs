//! SYMBOL DIGESTS: what a block's source symbols are, signed, for devices that were told lies.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::{DIGESTS_PER_MESSAGE, MAX_SOURCE_SYMBOLS};
use crate::units::{BlockIndex, SymbolDigest, SymbolId};

/// Digests of source symbols `first..` of a block; see [`SymbolDigest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolDigests {
    /// The block.
    pub block: BlockIndex,
    /// The first symbol.
    pub first: SymbolId,
    /// Of it and those that follow, 1 to [`DIGESTS_PER_MESSAGE`]; none beyond [`MAX_SOURCE_SYMBOLS`].
    pub digests: Vec<SymbolDigest>,
}

impl SymbolDigests {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let block = r.block("block")?;
        let first = SymbolId(r.u32("first symbol")?);
        let count = r.count(16, "digests")?;
        r.check((1..=DIGESTS_PER_MESSAGE).contains(&count), "digests")?;
        let end = first.0.checked_add(count as u32);
        r.check(end.is_some_and(|end| end <= MAX_SOURCE_SYMBOLS), "first symbol")?;
        let mut digests = Vec::with_capacity(count);
        for _ in 0..count {
            digests.push(SymbolDigest(r.array("digests")?));
        }
        Ok(Self { block, first, digests })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.block.0);
        w.u32(self.first.0);
        w.count(self.digests.len());
        for digest in &self.digests {
            w.bytes(&digest.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_CONTROL;
    use crate::wire::testing::{datagram, golden, refuses, takes};
    use crate::wire::{DecodeError, Kind, decode_plain};

    fn body(count: u8) -> Vec<u8> {
        let mut body = vec![0, 0, 0, 7, 0, 0, 0, 64, 0, count];
        (0..count).for_each(|i| body.extend([i; 16]));
        body
    }

    #[test]
    fn golden_bytes() {
        let digests = vec![SymbolDigest([0; 16]), SymbolDigest([1; 16])];
        golden(SymbolDigests { block: BlockIndex(7), first: SymbolId(64), digests }, &body(2));
    }

    #[test]
    fn each_bad_field_is_named() {
        refuses(Kind::SymbolDigests, &body(1), 0, &[0xff; 4], "block");
        refuses(Kind::SymbolDigests, &body(0), 0, &[], "digests");
        refuses(Kind::SymbolDigests, &body(DIGESTS_PER_MESSAGE as u8 + 1), 0, &[], "digests");
        refuses(Kind::SymbolDigests, &body(2), 4, &[0xff; 4], "first symbol");
        let last = MAX_SOURCE_SYMBOLS - 2;
        takes(Kind::SymbolDigests, &body(2), 4, &last.to_be_bytes());
        refuses(Kind::SymbolDigests, &body(2), 4, &(last + 1).to_be_bytes(), "first symbol");
        let mut lying = body(2);
        lying[8] = 0xff;
        let error = DecodeError::Truncated { message: Kind::SymbolDigests, field: "digests" };
        assert_eq!(decode_plain(&datagram(14, &lying)), Err(error));
    }

    #[test]
    fn the_most_fit() {
        let full = body(DIGESTS_PER_MESSAGE as u8);
        takes(Kind::SymbolDigests, &full, 0, &[]);
        assert!(full.len() + 20 <= MAX_CONTROL);
    }
}
