//! ABORT: one side stops.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::MAX_REASON;
use crate::units::DeviceId;

/// Why one side stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AbortCode {
    /// The sender is done; devices that are not complete will not be served any more.
    Finished = 0,
    /// Interrupted by its user.
    Interrupted = 1,
    /// The source file changed, shrank or could not be read.
    Source = 2,
    /// The device's disk refused: full, read-only, or failing.
    Disk = 3,
    /// The destination exists, or its name is unusable.
    Name = 4,
    /// The object's bytes do not agree with its hash.
    Mismatch = 5,
    /// Anything else on its own side.
    Internal = 6,
}

impl AbortCode {
    const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Finished,
            1 => Self::Interrupted,
            2 => Self::Source,
            3 => Self::Disk,
            4 => Self::Name,
            5 => Self::Mismatch,
            6 => Self::Internal,
            _ => return None,
        })
    }
}

/// One side stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The device that stops, or none if it is the sender.
    pub device: Option<DeviceId>,
    /// Why.
    pub code: AbortCode,
    /// One clause for people, 0 to 200 bytes of UTF-8; cut when longer. Untrusted.
    pub reason: String,
}

impl Abort {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let device = if r.flag("device")? { Some(r.device()?) } else { None };
        let code = r.u8("code")?;
        let code = AbortCode::from_wire(code).ok_or(r.out_of_range("code"))?;
        let reason = r.text(MAX_REASON, "reason")?.to_owned();
        Ok(Self { device, code, reason })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u8(self.device.is_some().into());
        if let Some(device) = self.device {
            w.bytes(&device.0);
        }
        w.u8(self.code as u8);
        w.text(&self.reason, MAX_REASON);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{DEVICE, HEADER, golden, refuses, takes};
    use crate::wire::{Kind, Message, decode_plain, encode_plain};

    #[rustfmt::skip]
    const DEVICE_STOPS: [u8; 28] = [
        1,
        0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
        3,
        9, b'd', b'i', b's', b'k', b' ', b'f', b'u', b'l', b'l',
    ];

    const SENDER_STOPS: [u8; 3] = [0, 6, 0];

    #[test]
    fn golden_bytes() {
        let code = AbortCode::Disk;
        golden(Abort { device: Some(DEVICE), code, reason: "disk full".into() }, &DEVICE_STOPS);
        golden(Abort { device: None, code: AbortCode::Internal, reason: String::new() }, &SENDER_STOPS);
    }

    #[test]
    fn each_bad_field_is_named() {
        refuses(Kind::Abort, &DEVICE_STOPS, 0, &[2], "device");
        (0..=6).for_each(|code| takes(Kind::Abort, &SENDER_STOPS, 1, &[code]));
        refuses(Kind::Abort, &SENDER_STOPS, 1, &[7], "code");
        refuses(Kind::Abort, &DEVICE_STOPS, 27, &[0x80], "reason");
        let mut long = vec![0, 1, 200];
        long.extend([b'x'; 200]);
        takes(Kind::Abort, &long, 0, &[]);
        long.push(b'x');
        refuses(Kind::Abort, &long, 2, &[201], "reason");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "\u{20ac}".repeat(100);
        let bytes = encode_plain(HEADER, &Abort { device: None, code: AbortCode::Disk, reason }.into());
        let Ok((_, Message::Abort(abort))) = decode_plain(&bytes) else { panic!() };
        assert_eq!(abort.reason, "\u{20ac}".repeat(66));
    }
}
