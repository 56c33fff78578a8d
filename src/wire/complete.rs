//! COMPLETE: a device's completion receipt.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::Digest;

/// A completion receipt (I2). Repeated until acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Root hash of what it committed.
    pub root: Digest,
    /// Datagrams received on the group channel.
    pub received: u64,
    /// Datagrams of the group channel that never came.
    pub lost: u64,
}

impl Complete {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            root: r.digest("root")?,
            received: r.u64("received datagrams")?,
            lost: r.u64("lost datagrams")?,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.root.0);
        w.u64(self.received);
        w.u64(self.lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{datagram, golden, takes};
    use crate::wire::{DecodeError, MessageKind, decode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 48] = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
        0, 0, 0, 0, 0, 1, 0, 0,
        0, 0, 0, 0, 0, 0, 2, 0,
    ];

    #[test]
    fn golden_bytes() {
        let root = Digest(std::array::from_fn(|i| i as u8 + 1));
        golden(Complete { root, received: 65536, lost: 512 }, &BODY);
    }

    #[test]
    fn every_value_is_valid_and_each_missing_field_is_named() {
        takes(MessageKind::Complete, &BODY, 0, &[0xff; 48]);
        for (len, field) in [(31, "root"), (39, "received datagrams"), (47, "lost datagrams")] {
            let error = DecodeError::Truncated { message: MessageKind::Complete, field };
            assert_eq!(decode_plain(&datagram(9, &BODY[..len])), Err(error));
        }
    }
}
