//! PROGRESS: a device's report on itself.

use super::Arrivals;
use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::BlockIndex;

/// A device's report, which is also a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of verified blocks.
    pub verified: u32,
    /// Datagrams received on the group channel.
    pub received: u64,
    /// Datagrams of the group channel that did not arrive.
    pub lost: u64,
    /// Datagrams that its kernel dropped.
    pub kernel_drops: u64,
    /// Datagrams that it dropped for lack of a free block buffer.
    pub overrun_drops: u64,
    /// How long a block waits for its storage, in microseconds; 0 if the storage keeps up.
    pub storage_delay_us: u32,
    /// It has room for the blocks below this one; `u32::MAX` for all.
    pub room: BlockIndex,
    /// The blocks below this one are verified.
    pub below: BlockIndex,
    /// Whether the device has stored its ticket: the next run of the same device will present it.
    pub ticket_kept: bool,
    /// How recent datagrams of the group's channel, or of its own, have arrived.
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
            storage_delay_us: r.u32("storage delay")?,
            room: BlockIndex(r.u32("room")?),
            below: BlockIndex(r.u32("below")?),
            ticket_kept: r.flag("ticket kept")?,
            arrivals: Arrivals::decode(r)?,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.verified);
        w.u64(self.received);
        w.u64(self.lost);
        w.u64(self.kernel_drops);
        w.u64(self.overrun_drops);
        w.u32(self.storage_delay_us);
        w.u32(self.room.0);
        w.u32(self.below.0);
        w.u8(u8::from(self.ticket_kept));
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
    const BODY: [u8; 82] = [
        0, 0, 1, 2,
        0, 0, 0, 0, 0, 1, 0, 0,
        0, 0, 0, 0, 0, 0, 2, 0,
        0, 0, 0, 0, 0, 0, 0, 3,
        0, 0, 0, 0, 0, 0, 0, 4,
        0, 0, 0x07, 0xd0,                   // 36 storage delay 2 ms
        0, 0, 1, 4,                         // 40 room
        0, 0, 1, 0,                         // 44 below
        1,                                  // 48 ticket kept
        1,                                  // 49 arrivals
        0, 0, 0, 0, 0, 0, 1, 0,             // 50 first
        0, 0, 0, 0, 0, 0, 2, 0,             // 58 last
        0, 0, 0, 200,                       // 66 received
        0, 1, 0, 0,                         // 70 elapsed
        0, 0, 0, 0, 0, 2, 0, 0,             // 74 last at
    ];

    #[test]
    fn golden_bytes() {
        let progress = Progress {
            verified: 258,
            received: 65536,
            lost: 512,
            kernel_drops: 3,
            overrun_drops: 4,
            storage_delay_us: 2000,
            room: BlockIndex(260),
            below: BlockIndex(256),
            ticket_kept: true,
            arrivals: Some(Arrivals {
                first: PacketNumber::new(ChannelId::GROUP, 256),
                last: PacketNumber::new(ChannelId::GROUP, 512),
                received: 200,
                elapsed_us: 65536,
                last_at_us: 131_072,
            }),
        };
        golden(progress, &BODY);
        let mut without = BODY[..50].to_vec();
        without[49] = 0;
        golden(Progress { arrivals: None, ..progress }, &without);
    }

    #[test]
    fn impossible_arrivals_are_refused() {
        let no = |at, patch: &[u8]| refuses(MessageKind::Progress, &BODY, at, patch, "arrivals");
        no(49, &[2]);
        no(58, &[0, 0, 0, 0, 0, 0, 1, 0]);
        no(66, &[0, 0, 0, 1]);
        no(58, &[0, 1, 0, 0, 0, 0, 2, 0]);
    }

    #[test]
    fn every_value_is_valid_and_each_missing_field_is_named() {
        takes(MessageKind::Progress, &BODY, 0, &[0xff; 48]);
        takes(MessageKind::Progress, &BODY, 48, &[0]);
        refuses(MessageKind::Progress, &BODY, 48, &[2], "ticket kept");
        for (len, field) in [
            (3, "verified blocks"),
            (11, "received datagrams"),
            (19, "lost datagrams"),
            (27, "kernel drops"),
            (35, "overrun drops"),
            (39, "storage delay"),
            (43, "room"),
            (47, "below"),
            (48, "ticket kept"),
            (49, "arrivals"),
            (81, "arrivals"),
        ] {
            let error = DecodeError::Truncated { message: MessageKind::Progress, field };
            assert_eq!(decode_plain(&datagram(8, &BODY[..len])), Err(error));
        }
    }
}
