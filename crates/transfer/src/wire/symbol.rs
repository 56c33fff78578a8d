//! SYMBOL: one encoding symbol of a block, the only message that is not a control message.

use super::header::header_bytes;
use super::reader::{Reader, Result};
use super::writer::Writer;
use super::{Header, MessageKind};
use crate::limits::{HEADER_LEN, MAX_ESI, MAX_SYMBOL_SIZE, SYMBOL_HEADER_LEN};
use crate::units::{BlockIndex, Esi};

/// One encoding symbol of a block. `payload` may be shorter than the symbol size only for the last source
/// symbol of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The block.
    pub block: BlockIndex,
    /// The encoding symbol id, at most [`MAX_ESI`].
    pub esi: Esi,
    /// 1 byte to the symbol size; checked only against [`MAX_SYMBOL_SIZE`] here.
    pub payload: &'a [u8],
}

impl<'a> Symbol<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let block = r.block("block")?;
        let esi = Esi(r.u24("esi")?);
        let payload = r.remainder();
        r.check((1..=usize::from(MAX_SYMBOL_SIZE)).contains(&payload.len()), "payload")?;
        Ok(Self { block, esi, payload })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.block.0);
        w.u24(self.esi.0);
        w.bytes(self.payload);
    }
}

/// The bytes before the payload of a symbol: header, block and ESI. The payload is sent from where it is
/// stored.
///
/// # Panics
/// In debug builds, if the session is 0, or the block or the ESI is out of range.
#[must_use]
pub fn symbol_head(header: Header, block: BlockIndex, esi: Esi) -> [u8; SYMBOL_HEADER_LEN] {
    debug_assert!(header.session.0 != 0 && block.0 != u32::MAX && esi.0 <= MAX_ESI);
    let mut head = [0; SYMBOL_HEADER_LEN];
    head[..HEADER_LEN].copy_from_slice(&header_bytes(header, MessageKind::Symbol as u8));
    head[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&block.0.to_be_bytes());
    head[HEADER_LEN + 4..].copy_from_slice(&esi.0.to_be_bytes()[1..]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{HEADER, datagram, golden, refuses, takes};
    use crate::wire::{DecodeError, decode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 12] = [
        0, 1, 2, 3,
        0x11, 0x22, 0x33,
        b'b', b'y', b't', b'e', b's',
    ];

    #[test]
    fn golden_bytes() {
        let symbol = Symbol { block: BlockIndex(0x1_0203), esi: Esi(0x11_2233), payload: b"bytes" };
        golden(symbol, &BODY);
        let head = symbol_head(HEADER, symbol.block, symbol.esi);
        assert_eq!([&head[..], b"bytes"].concat(), datagram(4, &BODY));
    }

    #[test]
    fn each_bad_field_is_named() {
        takes(MessageKind::Symbol, &BODY, 0, &[0xff, 0xff, 0xff, 0xfe]);
        refuses(MessageKind::Symbol, &BODY, 0, &[0xff; 4], "block");
        takes(MessageKind::Symbol, &BODY, 4, &[0xff, 0xff, 0xff]);
        refuses(MessageKind::Symbol, &BODY[..7], 0, &[], "payload");
        takes(MessageKind::Symbol, &BODY[..8], 0, &[]);
        let mut long = BODY[..7].to_vec();
        long.resize(7 + 8896, 0xee);
        takes(MessageKind::Symbol, &long, 0, &[]);
        long.push(0);
        refuses(MessageKind::Symbol, &long, 0, &[], "payload");
        for (len, field) in [(0, "block"), (3, "block"), (4, "esi"), (6, "esi")] {
            let error = DecodeError::Truncated { message: MessageKind::Symbol, field };
            assert_eq!(decode_plain(&datagram(4, &BODY[..len])), Err(error));
        }
    }
}
