//! PROGRESS: a device's report on itself.

use super::Arrivals;
use super::reader::{Reader, Result};
use super::writer::Writer;

/// A device's report on itself; also proof that it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
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
    /// How datagrams of the group's channel, or of its own, have arrived of late.
    pub arrivals: Option<Arrivals>,
}

impl Progress {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            verified: r.u32("verified blocks")?,
            received: r.u64("received datagrams")?,
            lost: r.u64("lost datagrams")?,
            kernel_drops: r.u64("kernel drops")?,
            overrun_drops: r.u64("overrun drops")?,
            arrivals: Arrivals::decode(r)?,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.verified);
        w.u64(self.received);
        w.u64(self.lost);
        w.u64(self.kernel_drops);
        w.u64(self.overrun_drops);
        Arrivals::encode(self.arrivals.as_ref(), w);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ChannelId;
    use crate::wire::testing::{datagram, golden, refuses, takes};
    use crate::wire::{DecodeError, MessageKind, PacketNumber, decode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 69] = [
        0, 0, 1, 2,
        0, 0, 0, 0, 0, 1, 0, 0,
        0, 0, 0, 0, 0, 0, 2, 0,
        0, 0, 0, 0, 0, 0, 0, 3,
        0, 0, 0, 0, 0, 0, 0, 4,
        1,                                  // 36 arrivals
        0, 0, 0, 0, 0, 0, 1, 0,             // 37 first
        0, 0, 0, 0, 0, 0, 2, 0,             // 45 last
        0, 0, 0, 200,                       // 53 received
        0, 1, 0, 0,                         // 57 elapsed
        0, 0, 0, 0, 0, 2, 0, 0,             // 61 last at
    ];

    #[test]
    fn golden_bytes() {
        let progress = Progress {
            verified: 258,
            received: 65536,
            lost: 512,
            kernel_drops: 3,
            overrun_drops: 4,
            arrivals: Some(Arrivals {
                first: PacketNumber::new(ChannelId::GROUP, 256),
                last: PacketNumber::new(ChannelId::GROUP, 512),
                received: 200,
                elapsed_us: 65536,
                last_at_us: 131_072,
            }),
        };
        golden(progress, &BODY);
        let mut without = BODY[..37].to_vec();
        without[36] = 0;
        golden(Progress { arrivals: None, ..progress }, &without);
    }

    #[test]
    fn impossible_arrivals_are_refused() {
        let no = |at, patch: &[u8]| refuses(MessageKind::Progress, &BODY, at, patch, "arrivals");
        no(36, &[2]);
        no(45, &[0, 0, 0, 0, 0, 0, 1, 0]);
        no(53, &[0, 0, 0, 1]);
        no(45, &[0, 1, 0, 0, 0, 0, 2, 0]);
    }

    #[test]
    fn every_value_is_valid_and_each_missing_field_is_named() {
        takes(MessageKind::Progress, &BODY, 0, &[0xff; 36]);
        for (len, field) in [
            (3, "verified blocks"),
            (11, "received datagrams"),
            (19, "lost datagrams"),
            (27, "kernel drops"),
            (35, "overrun drops"),
            (36, "arrivals"),
            (68, "arrivals"),
        ] {
            let error = DecodeError::Truncated { message: MessageKind::Progress, field };
            assert_eq!(decode_plain(&datagram(8, &BODY[..len])), Err(error));
        }
    }
}
