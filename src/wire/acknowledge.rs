//! ACKNOWLEDGE: the sender has noted a device's end.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::DeviceId;

/// Ends the repetition of a [`super::Complete`] or of a device's [`super::Abort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledge {
    /// Whose message is acknowledged.
    pub device: DeviceId,
}

impl Acknowledge {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { device: r.device()? })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.device.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{DEVICE, datagram, golden, takes};
    use crate::wire::{DecodeError, Kind, decode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 16] = [
        0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
    ];

    #[test]
    fn golden_bytes() {
        golden(Acknowledge { device: DEVICE }, &BODY);
    }

    #[test]
    fn every_value_is_valid_and_a_missing_field_is_named() {
        takes(Kind::Acknowledge, &BODY, 0, &[0; 16]);
        let error = DecodeError::Truncated { message: Kind::Acknowledge, field: "device" };
        assert_eq!(decode_plain(&datagram(10, &BODY[..15])), Err(error));
    }
}
