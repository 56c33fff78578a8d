//! COMPLETE: a device's completion receipt.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::Digest;

/// What happened to the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SinkEnd {
    /// The file has its name and is synced.
    #[default]
    Named = 0,
    /// They are in place on a block device and synced.
    InPlace = 1,
    /// They were written to a pipe.
    Piped = 2,
}

/// A completion receipt (I2). Repeated until acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Root hash of the committed object.
    pub root: Digest,
    /// What happened to the bytes.
    pub sink: SinkEnd,
    /// Exit status of the command that read the bytes, if there was one.
    pub command: Option<i32>,
    /// Exit status of the command that ran afterwards, if there was one.
    pub hook: Option<i32>,
    /// Datagrams received on the group channel.
    pub received: u64,
    /// Datagrams of the group channel that did not arrive.
    pub lost: u64,
}

fn status(r: &mut Reader<'_>, field: &'static str) -> Result<Option<i32>> {
    Ok(if r.flag(field)? { Some(r.u32(field)?.cast_signed()) } else { None })
}

impl Complete {
    /// The receipt for a named file.
    #[must_use]
    pub const fn named(root: Digest, received: u64, lost: u64) -> Self {
        Self { root, sink: SinkEnd::Named, command: None, hook: None, received, lost }
    }

    /// The receipt for bytes that were written to a pipe. `command` is the exit status of the command that read them,
    /// if `mcp` ran it.
    #[must_use]
    pub const fn piped(root: Digest, command: Option<i32>, received: u64, lost: u64) -> Self {
        Self { root, sink: SinkEnd::Piped, command, hook: None, received, lost }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            root: r.digest("root")?,
            sink: match r.u8("sink")? {
                0 => SinkEnd::Named,
                1 => SinkEnd::InPlace,
                2 => SinkEnd::Piped,
                _ => return Err(r.out_of_range("sink")),
            },
            command: status(r, "command")?,
            hook: status(r, "hook")?,
            received: r.u64("received datagrams")?,
            lost: r.u64("lost datagrams")?,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.root.0);
        w.u8(self.sink as u8);
        for status in [self.command, self.hook] {
            w.u8(status.is_some().into());
            if let Some(status) = status {
                w.u32(status.cast_unsigned());
            }
        }
        w.u64(self.received);
        w.u64(self.lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{datagram, golden, refuses, takes};
    use crate::wire::{DecodeError, MessageKind, decode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 51] = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
        0, 0, 0,                            // 32 named, no command, no hook
        0, 0, 0, 0, 0, 1, 0, 0,
        0, 0, 0, 0, 0, 0, 2, 0,
    ];

    fn root() -> Digest {
        Digest(std::array::from_fn(|i| i as u8 + 1))
    }

    #[test]
    fn golden_bytes() {
        golden(Complete::named(root(), 65536, 512), &BODY);
        let ended = Complete {
            sink: SinkEnd::Piped,
            command: Some(0),
            hook: Some(-2),
            ..Complete::named(root(), 65536, 512)
        };
        let ends = [2, 1, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe];
        golden(ended, &[&BODY[..32], &ends, &BODY[35..]].concat());
    }

    #[test]
    fn each_bad_and_each_missing_field_is_named() {
        takes(MessageKind::Complete, &BODY, 32, &[1]);
        refuses(MessageKind::Complete, &BODY, 32, &[3], "sink");
        refuses(MessageKind::Complete, &BODY, 33, &[2], "command");
        refuses(MessageKind::Complete, &BODY, 34, &[2], "hook");
        let missing = [(31, "root"), (32, "sink"), (33, "command"), (34, "hook")];
        for (len, field) in missing.into_iter().chain([(42, "received datagrams"), (50, "lost datagrams")]) {
            let error = DecodeError::Truncated { message: MessageKind::Complete, field };
            assert_eq!(decode_plain(&datagram(9, &BODY[..len])), Err(error));
        }
    }
}
