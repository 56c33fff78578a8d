//! POLL: asks the devices what they lack. Also the invitation, which POLL and ANNOUNCE carry.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::HEADER_LEN;
use crate::units::BlockIndex;
use std::time::Duration;

/// Selects which devices answer, and when. Each device draws once, and answers with probability `probability
/// / 65535` after a uniform delay in `[0, window]`. The sender chooses both so that the answers stay within
/// the feedback budget (I10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Numerator of the probability, over 65535.
    pub probability: u16,
    /// Longest delay; on the wire in whole milliseconds, at most 65535 (cut if longer).
    pub window: Duration,
}

impl Invitation {
    /// Bytes of an encoded invitation.
    pub const LEN: usize = 4;

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let probability = r.u16("probability")?;
        let window = Duration::from_millis(r.u16("window")?.into());
        Ok(Self { probability, window })
    }

    pub(super) fn encode(self, w: &mut Writer) {
        w.u16(self.probability);
        w.u16(u16::try_from(self.window.as_millis()).unwrap_or(u16::MAX));
    }
}

/// Asks the devices what they lack of the blocks below `position`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Counts the polls of the channel.
    pub round: u32,
    /// Blocks below this have been streamed.
    pub position: BlockIndex,
    /// Selects which devices answer, and when.
    pub invitation: Invitation,
    /// The number of devices that the sender serves.
    pub gsize: u32,
    /// Whether devices name their missing source symbols.
    pub want_esis: bool,
    /// Repair advertisements: the symbols that are sent after this poll. A device with a deficit no larger
    /// than that need not answer for the block. As many as fit [`crate::limits::MAX_CONTROL`].
    pub advertised: Vec<RepairAdvertisement>,
}

/// A repair advertisement: how many symbols the sender is about to send for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairAdvertisement {
    /// The block.
    pub block: BlockIndex,
    /// How many fresh symbols.
    pub symbols: u16,
}

impl RepairAdvertisement {
    /// Bytes of an encoded repair advertisement.
    pub const LEN: usize = 4 + 2;
}

impl Poll {
    /// Bytes of an encoded poll without repair advertisements, the header included.
    pub const FIXED_LEN: usize = HEADER_LEN + 4 + 4 + Invitation::LEN + 4 + 1 + 2;

    /// Bytes of the encoded poll, the header included.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        Self::FIXED_LEN + self.advertised.len() * RepairAdvertisement::LEN
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let round = r.u32("round")?;
        let position = BlockIndex(r.u32("position")?);
        let invitation = Invitation::decode(r)?;
        let gsize = r.u32("gsize")?;
        let want_esis = r.flag("want ESIs")?;
        let count = r.count(RepairAdvertisement::LEN, "advertised")?;
        let mut advertised = Vec::with_capacity(count);
        for _ in 0..count {
            advertised
                .push(RepairAdvertisement { block: r.block("advertised")?, symbols: r.u16("advertised")? });
        }
        Ok(Self { round, position, invitation, gsize, want_esis, advertised })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.round);
        w.u32(self.position.0);
        self.invitation.encode(w);
        w.u32(self.gsize);
        w.u8(self.want_esis.into());
        w.count(self.advertised.len());
        for advertised in &self.advertised {
            w.u32(advertised.block.0);
            w.u16(advertised.symbols);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{HEADER, datagram, golden, refuses, takes};
    use crate::wire::{DecodeError, Message, MessageKind, decode_plain, encode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 31] = [
        0, 0, 0, 7,                 //  0 round
        0, 0, 1, 0,                 //  4 position
        0xff, 0xff, 0x01, 0xf4,     //  8 all, 500 ms
        0, 0, 0x40, 0,              // 12 gsize
        1,                          // 16 want ESIs
        0, 2,                       // 17 advertised
        0, 0, 0, 3, 0, 12,
        0, 0, 0, 9, 0x01, 0x00,
    ];

    fn poll() -> Poll {
        Poll {
            round: 7,
            position: BlockIndex(256),
            invitation: Invitation { probability: 65535, window: Duration::from_millis(500) },
            gsize: 16384,
            want_esis: true,
            advertised: vec![
                RepairAdvertisement { block: BlockIndex(3), symbols: 12 },
                RepairAdvertisement { block: BlockIndex(9), symbols: 256 },
            ],
        }
    }

    #[test]
    fn golden_bytes() {
        golden(poll(), &BODY);
        assert_eq!(poll().encoded_len(), HEADER_LEN + BODY.len());
    }

    #[test]
    fn each_bad_field_is_named() {
        refuses(MessageKind::Poll, &BODY, 16, &[2], "want ESIs");
        refuses(MessageKind::Poll, &BODY, 19, &[0xff; 4], "advertised");
        takes(MessageKind::Poll, &BODY[..19], 17, &[0, 0]);
        let mut lying = BODY;
        lying[17..19].copy_from_slice(&[0xff, 0xff]);
        let error = DecodeError::Truncated { message: MessageKind::Poll, field: "advertised" };
        assert_eq!(decode_plain(&datagram(6, &lying)), Err(error));
    }

    #[test]
    fn as_many_as_the_size_helpers_say_fit() {
        let room = crate::limits::MAX_CONTROL - Poll::FIXED_LEN;
        let mut full = poll();
        full.advertised =
            vec![RepairAdvertisement { block: BlockIndex(1), symbols: 1 }; room / RepairAdvertisement::LEN];
        let bytes = encode_plain(HEADER, &full.clone().into());
        assert_eq!(bytes.len(), full.encoded_len());
        assert_eq!(decode_plain(&bytes), Ok((HEADER, full.into())));
    }

    #[test]
    fn a_window_beyond_the_longest_is_the_longest() {
        let mut long = poll();
        long.invitation.window = Duration::from_secs(3600);
        let bytes = encode_plain(HEADER, &long.into());
        let Ok((_, Message::Poll(poll))) = decode_plain(&bytes) else { panic!() };
        assert_eq!(poll.invitation.window, Duration::from_millis(65535));
    }
}
