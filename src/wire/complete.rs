//! COMPLETE: a device's completion receipt.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::{DeviceId, Digest};

/// A completion receipt (I2). Repeated until acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Who.
    pub device: DeviceId,
    /// Its instance.
    pub instance: u64,
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
            device: r.device()?,
            instance: r.u64("instance")?,
            root: r.digest("root")?,
            received: r.u64("received datagrams")?,
            lost: r.u64("lost datagrams")?,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.device.0);
        w.u64(self.instance);
        w.bytes(&self.root.0);
        w.u64(self.received);
        w.u64(self.lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{DEVICE, datagram, golden, takes};
    use crate::wire::{DecodeError, Kind, decode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 72] = [
        0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
        0, 0, 0, 0, 0, 0, 0, 5,
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
        0, 0, 0, 0, 0, 1, 0, 0,
        0, 0, 0, 0, 0, 0, 2, 0,
    ];

    #[test]
    fn golden_bytes() {
        let root = Digest(std::array::from_fn(|i| i as u8 + 1));
        golden(Complete { device: DEVICE, instance: 5, root, received: 65536, lost: 512 }, &BODY);
    }

    #[test]
    fn every_value_is_valid_and_each_missing_field_is_named() {
        takes(Kind::Complete, &BODY, 0, &[0xff; 72]);
        for (len, field) in [
            (15, "device"),
            (23, "instance"),
            (55, "root"),
            (63, "received datagrams"),
            (71, "lost datagrams"),
        ] {
            let error = DecodeError::Truncated { message: Kind::Complete, field };
            assert_eq!(decode_plain(&datagram(9, &BODY[..len])), Err(error));
        }
    }
}
