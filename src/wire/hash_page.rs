//! HASH PAGE: chaining values of blocks.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::HASHES_PER_PAGE;
use crate::units::{BlockIndex, Digest};

/// Chaining values of the blocks `first..first + values.len()`; `first` is a multiple of
/// [`HASHES_PER_PAGE`], 1 to that many values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashPage {
    /// First block of the page.
    pub first: BlockIndex,
    /// One chaining value a block.
    pub values: Vec<Digest>,
}

impl HashPage {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let first = r.block("first block")?;
        r.check(first.0.is_multiple_of(HASHES_PER_PAGE), "first block")?;
        let count = u32::from(r.u8("count")?);
        let in_range = (1..=HASHES_PER_PAGE).contains(&count);
        r.check(in_range && first.0.checked_add(count).is_some(), "count")?;
        let values = (0..count).map(|_| r.digest("values")).collect::<Result<_>>()?;
        Ok(Self { first, values })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.first.0);
        w.u8(self.values.len().min(usize::from(u8::MAX)) as u8);
        for value in &self.values {
            w.bytes(&value.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MessageKind;
    use crate::wire::testing::{golden, refuses, takes};

    #[rustfmt::skip]
    const BODY: [u8; 69] = [
        0, 0, 0, 0x40,
        2,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    ];

    #[test]
    fn golden_bytes() {
        golden(HashPage { first: BlockIndex(64), values: vec![Digest([1; 32]), Digest([2; 32])] }, &BODY);
    }

    #[test]
    fn each_bad_field_is_named() {
        takes(MessageKind::HashPage, &BODY, 0, &[0, 0, 0, 0]);
        takes(MessageKind::HashPage, &BODY, 0, &[0xff, 0xff, 0xff, 0xe0]);
        refuses(MessageKind::HashPage, &BODY, 0, &[0, 0, 0, 0x41], "first block");
        refuses(MessageKind::HashPage, &BODY, 0, &[0xff; 4], "first block");
        refuses(MessageKind::HashPage, &BODY[..5], 4, &[0], "count");
        let mut full = BODY[..5].to_vec();
        full[4] = 32;
        full.extend([7; 32 * 32]);
        takes(MessageKind::HashPage, &full, 0, &[]);
        refuses(MessageKind::HashPage, &full, 0, &[0xff, 0xff, 0xff, 0xe0], "count");
        full.extend([7; 32]);
        refuses(MessageKind::HashPage, &full, 4, &[33], "count");
    }
}
