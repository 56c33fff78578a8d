//! ABORT: one side stops.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::MAX_REASON;

/// Why one side stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AbortCode {
    /// The sender is done and serves no device any more.
    Finished = 0,
    /// The user interrupted it.
    Interrupted = 1,
    /// The source file changed, shrank or could not be read.
    Source = 2,
    /// The device's disk refused: full, read-only, or failing.
    Disk = 3,
    /// The destination exists, or its name is unusable.
    Name = 4,
    /// The object's bytes disagree with its hash.
    Mismatch = 5,
    /// Any other failure of the side that sends it.
    Internal = 6,
    /// The command that read the object failed at the device.
    Command = 7,
    /// The object is not what its kind promises: a tree's manifest is unsound.
    Content = 8,
    /// The device lacks a part of a stream that the sender does not keep any more.
    Behind = 9,
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
            7 => Self::Command,
            8 => Self::Content,
            9 => Self::Behind,
            _ => return None,
        })
    }
}

/// One side stops: the sender if it is signed, a device if it is sealed for its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The reason, as a code.
    pub code: AbortCode,
    /// The reason for people: one clause, 0 to 200 bytes of UTF-8; cut if longer. Untrusted.
    pub reason: String,
}

impl Abort {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let code = r.u8("code")?;
        let code = AbortCode::from_wire(code).ok_or(r.out_of_range("code"))?;
        let reason = r.text(MAX_REASON, "reason")?.to_owned();
        Ok(Self { code, reason })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u8(self.code as u8);
        w.text(&self.reason, MAX_REASON);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{HEADER, golden, refuses, takes};
    use crate::wire::{Message, MessageKind, decode_plain, encode_plain};

    const DISK_FULL: [u8; 11] = [3, 9, b'd', b'i', b's', b'k', b' ', b'f', b'u', b'l', b'l'];
    const NO_REASON: [u8; 2] = [6, 0];

    #[test]
    fn golden_bytes() {
        golden(Abort { code: AbortCode::Disk, reason: "disk full".into() }, &DISK_FULL);
        golden(Abort { code: AbortCode::Internal, reason: String::new() }, &NO_REASON);
    }

    #[test]
    fn each_bad_field_is_named() {
        (0..=9).for_each(|code| takes(MessageKind::Abort, &NO_REASON, 0, &[code]));
        refuses(MessageKind::Abort, &NO_REASON, 0, &[10], "code");
        refuses(MessageKind::Abort, &DISK_FULL, 10, &[0x80], "reason");
        let mut long = vec![1, 200];
        long.extend([b'x'; 200]);
        takes(MessageKind::Abort, &long, 0, &[]);
        long.push(b'x');
        refuses(MessageKind::Abort, &long, 1, &[201], "reason");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "\u{20ac}".repeat(100);
        let bytes = encode_plain(HEADER, &Abort { code: AbortCode::Disk, reason }.into());
        let Ok((_, Message::Abort(abort))) = decode_plain(&bytes) else { panic!() };
        assert_eq!(abort.reason, "\u{20ac}".repeat(66));
    }
}
