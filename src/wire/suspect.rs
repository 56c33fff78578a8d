//! SUSPECT: a device's block disagrees with its hash: some of its symbols are forged.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::BlockIndex;

/// Asks for the digests of a block's source symbols, to tell the forged ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The block.
    pub block: BlockIndex,
}

impl Suspect {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { block: r.block("block")? })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.block.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Kind;
    use crate::wire::testing::{golden, refuses};

    #[test]
    fn golden_bytes() {
        golden(Suspect { block: BlockIndex(0x0102_0304) }, &[1, 2, 3, 4]);
    }

    #[test]
    fn each_bad_field_is_named() {
        refuses(Kind::Suspect, &[0xff; 4], 0, &[], "block");
    }
}
