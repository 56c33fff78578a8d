//! JOIN: a device asks to be served.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::MAX_LABEL;
use crate::units::DeviceId;

/// A device asks to be served. It travels sealed; before the sealed part stand, in clear, the device's half
/// of the agreement, its cookie, and in sealed sessions a proof of the group key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Its stable identifier.
    pub device: DeviceId,
    /// Whether it holds bytes that may be the object's.
    pub holds: bool,
    /// Its name for people, 0 to 64 bytes of UTF-8; cut when longer. Untrusted.
    pub label: String,
}

impl Join {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            device: r.device()?,
            holds: r.flag("holds")?,
            label: r.text(MAX_LABEL, "label")?.to_owned(),
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.device.0);
        w.u8(self.holds.into());
        w.text(&self.label, MAX_LABEL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{DEVICE, HEADER, golden, refuses, takes};
    use crate::wire::{Message, MessageKind, decode_plain, encode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 24] = [
        0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
        1,
        6, b'l', b'a', b'b', b'-', b'0', b'7',
    ];

    #[test]
    fn golden_bytes() {
        golden(Join { device: DEVICE, holds: true, label: "lab-07".into() }, &BODY);
    }

    #[test]
    fn each_bad_field_is_named() {
        takes(MessageKind::Join, &BODY[..18], 17, &[0]);
        let mut long = BODY[..17].to_vec();
        long.push(64);
        long.extend([b'x'; 64]);
        takes(MessageKind::Join, &long, 0, &[]);
        long.push(b'x');
        refuses(MessageKind::Join, &long, 17, &[65], "label");
        refuses(MessageKind::Join, &BODY, 23, &[0xc3], "label");
        refuses(MessageKind::Join, &BODY, 16, &[2], "holds");
    }

    #[test]
    fn a_long_label_is_cut_between_characters() {
        let label = format!("{}\u{e9}", "x".repeat(63));
        let bytes = encode_plain(HEADER, &Join { device: DEVICE, holds: false, label }.into());
        let Ok((_, Message::Join(join))) = decode_plain(&bytes) else { panic!() };
        assert_eq!(join.label, "x".repeat(63));
    }
}
