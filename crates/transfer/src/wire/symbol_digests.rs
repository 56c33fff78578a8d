//! SYMBOL DIGESTS: signed digests of a block's symbols, for devices that have received forged ones.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::{DIGESTS_PER_MESSAGE, MAX_ESI};
use crate::units::{BlockIndex, Esi, SymbolDigest};

/// Digests of the symbols `first_esi..` of a block; see [`SymbolDigest`]. Those of repair symbols are sent in one-way
/// sessions only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolDigests {
    /// The block.
    pub block: BlockIndex,
    /// ESI of the first symbol.
    pub first_esi: Esi,
    /// Digests of this and the following symbols, 1 to [`DIGESTS_PER_MESSAGE`], none beyond
    /// [`MAX_ESI`].
    pub digests: Vec<SymbolDigest>,
}

impl SymbolDigests {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let block = r.block("block")?;
        let first_esi = Esi(r.u32("first esi")?);
        let count = r.count(16, "digests")?;
        r.check((1..=DIGESTS_PER_MESSAGE).contains(&count), "digests")?;
        let end = first_esi.0.checked_add(count as u32);
        r.check(end.is_some_and(|end| end <= MAX_ESI + 1), "first esi")?;
        let mut digests = Vec::with_capacity(count);
        for _ in 0..count {
            digests.push(SymbolDigest(r.array("digests")?));
        }
        Ok(Self { block, first_esi, digests })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.block.0);
        w.u32(self.first_esi.0);
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
    use crate::wire::{DecodeError, MessageKind, decode_plain};

    fn body(count: u8) -> Vec<u8> {
        let mut body = vec![0, 0, 0, 7, 0, 0, 0, 64, 0, count];
        (0..count).for_each(|i| body.extend([i; 16]));
        body
    }

    #[test]
    fn golden_bytes() {
        let digests = vec![SymbolDigest([0; 16]), SymbolDigest([1; 16])];
        golden(SymbolDigests { block: BlockIndex(7), first_esi: Esi(64), digests }, &body(2));
    }

    #[test]
    fn each_bad_field_is_named() {
        refuses(MessageKind::SymbolDigests, &body(1), 0, &[0xff; 4], "block");
        refuses(MessageKind::SymbolDigests, &body(0), 0, &[], "digests");
        refuses(MessageKind::SymbolDigests, &body(DIGESTS_PER_MESSAGE as u8 + 1), 0, &[], "digests");
        refuses(MessageKind::SymbolDigests, &body(2), 4, &[0xff; 4], "first esi");
        let last = MAX_ESI - 1;
        takes(MessageKind::SymbolDigests, &body(2), 4, &last.to_be_bytes());
        refuses(MessageKind::SymbolDigests, &body(2), 4, &(last + 1).to_be_bytes(), "first esi");
        let mut lying = body(2);
        lying[8] = 0xff;
        let error = DecodeError::Truncated { message: MessageKind::SymbolDigests, field: "digests" };
        assert_eq!(decode_plain(&datagram(14, &lying)), Err(error));
    }

    #[test]
    fn the_most_fit() {
        let full = body(DIGESTS_PER_MESSAGE as u8);
        takes(MessageKind::SymbolDigests, &full, 0, &[]);
        assert!(full.len() + crate::limits::HEADER_LEN <= MAX_CONTROL);
    }
}
