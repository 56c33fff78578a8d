//! PROGRESS: a device's report on itself.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::DeviceId;

/// A device's report on itself; also proof that it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Who.
    pub device: DeviceId,
    /// Blocks verified.
    pub verified: u32,
    /// Datagrams received on the group channel.
    pub received: u64,
    /// Datagrams of the group channel that never came.
    pub lost: u64,
    /// Datagrams its kernel dropped.
    pub kernel_drops: u64,
    /// Datagrams it dropped for want of a free block buffer.
    pub overrun_drops: u64,
}

impl Progress {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            device: r.device()?,
            verified: r.u32("verified blocks")?,
            received: r.u64("received datagrams")?,
            lost: r.u64("lost datagrams")?,
            kernel_drops: r.u64("kernel drops")?,
            overrun_drops: r.u64("overrun drops")?,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.device.0);
        w.u32(self.verified);
        w.u64(self.received);
        w.u64(self.lost);
        w.u64(self.kernel_drops);
        w.u64(self.overrun_drops);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{DEVICE, datagram, golden, takes};
    use crate::wire::{DecodeError, Kind, decode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 52] = [
        0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
        0, 0, 1, 2,
        0, 0, 0, 0, 0, 1, 0, 0,
        0, 0, 0, 0, 0, 0, 2, 0,
        0, 0, 0, 0, 0, 0, 0, 3,
        0, 0, 0, 0, 0, 0, 0, 4,
    ];

    #[test]
    fn golden_bytes() {
        let progress = Progress {
            device: DEVICE,
            verified: 258,
            received: 65536,
            lost: 512,
            kernel_drops: 3,
            overrun_drops: 4,
        };
        golden(progress, &BODY);
    }

    #[test]
    fn every_value_is_valid_and_each_missing_field_is_named() {
        takes(Kind::Progress, &BODY, 16, &[0xff; 36]);
        for (len, field) in [
            (15, "device"),
            (19, "verified blocks"),
            (27, "received datagrams"),
            (35, "lost datagrams"),
            (43, "kernel drops"),
            (51, "overrun drops"),
        ] {
            let error = DecodeError::Truncated { message: Kind::Progress, field };
            assert_eq!(decode_plain(&datagram(8, &BODY[..len])), Err(error));
        }
    }
}
