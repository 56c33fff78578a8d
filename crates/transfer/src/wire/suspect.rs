//! SUSPECT: blocks of a device disagree with their chaining values, because some symbols are forged or damaged.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::MAX_SUSPECTS;
use crate::units::BlockIndex;

/// Requests the digests of these blocks' source symbols, to find the wrong ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The blocks, 1 to [`MAX_SUSPECTS`], rising.
    pub blocks: Vec<BlockIndex>,
}

impl Suspect {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let count = r.count(4, "blocks")?;
        r.check((1..=MAX_SUSPECTS).contains(&count), "blocks")?;
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            let block = r.block("blocks")?;
            r.check(blocks.last().is_none_or(|last| *last < block), "blocks")?;
            blocks.push(block);
        }
        Ok(Self { blocks })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.count(self.blocks.len());
        for block in &self.blocks {
            w.u32(block.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{datagram, golden, refuses, takes};
    use crate::wire::{DecodeError, MessageKind, decode_plain};

    const BODY: [u8; 10] = [0, 2, 1, 2, 3, 4, 1, 2, 3, 5];

    #[test]
    fn golden_bytes() {
        let blocks = vec![BlockIndex(0x0102_0304), BlockIndex(0x0102_0305)];
        golden(Suspect { blocks }, &BODY);
    }

    #[test]
    fn each_bad_field_is_named() {
        refuses(MessageKind::Suspect, &[0, 0], 0, &[], "blocks");
        refuses(MessageKind::Suspect, &BODY, 6, &[0xff; 4], "blocks");
        // Rising, and none twice.
        refuses(MessageKind::Suspect, &BODY, 6, &[1, 2, 3, 4], "blocks");
        takes(MessageKind::Suspect, &BODY, 6, &[0xff, 0xff, 0xff, 0xfe]);
        let many = |count: u8| [0, count].into_iter().chain((0..count).flat_map(|i| [0, 0, 0, i]));
        takes(MessageKind::Suspect, &many(MAX_SUSPECTS as u8).collect::<Vec<_>>(), 0, &[]);
        refuses(MessageKind::Suspect, &many(MAX_SUSPECTS as u8 + 1).collect::<Vec<_>>(), 0, &[], "blocks");
        let error = DecodeError::Truncated { message: MessageKind::Suspect, field: "blocks" };
        assert_eq!(decode_plain(&datagram(13, &[0, 9, 0, 0, 0, 1])), Err(error));
    }
}
