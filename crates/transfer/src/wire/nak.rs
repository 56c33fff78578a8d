//! NAK: a device's deficits over many blocks.

use super::PacketNumber;
use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::{HASHES_PER_PAGE, HEADER_LEN, MAX_SOURCE_SYMBOLS};
use crate::units::BlockIndex;

/// A NAK summary: a device's deficits over many blocks, lowest blocks first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nak {
    /// The round it answers.
    pub round: u32,
    /// The packet number on the polled channel as of which the NAK reports. A block with later symbols does
    /// not count.
    pub largest_received: PacketNumber,
    /// The delay between the poll and this answer, in microseconds (like the ACK Delay of RFC 9000). The
    /// sender learns the round-trip time from it.
    pub ack_delay_us: u32,
    /// The number of blocks that the device has not verified, also of those not listed.
    pub incomplete: u32,
    /// Missing pages of chaining values (page = block / HASHES_PER_PAGE).
    pub pages: Vec<PageRange>,
    /// The deficits. With the pages, as many as fit [`crate::limits::MAX_CONTROL`].
    pub deficits: Vec<Deficit>,
}

/// Missing hash pages `first..first + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// First page.
    pub first: u32,
    /// How many pages, at least 1.
    pub count: u32,
}

/// What a device lacks of one block, or of consecutive blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deficit {
    /// Nothing of `count` blocks from `first` on has arrived.
    Whole {
        /// First block.
        first: BlockIndex,
        /// How many blocks, at least 1.
        count: u32,
    },
    /// The block needs `symbols` more symbols of any kind.
    Symbols {
        /// The block.
        block: BlockIndex,
        /// How many symbols, at least 1.
        symbols: u16,
        /// The missing source symbols as `(first, count)` runs, rising and not touching (each begins beyond
        /// the end of the one before), below [`MAX_SOURCE_SYMBOLS`]; empty if not named.
        missing: Vec<(u16, u16)>,
    },
    /// Symbols of the block were forged: the device accepts only these source symbols.
    Sources {
        /// The block.
        block: BlockIndex,
        /// The missing source symbols, as in [`Deficit::Symbols`], but at least one run.
        missing: Vec<(u16, u16)>,
    },
}

/// One above the last possible page.
const PAGE_END: u32 = u32::MAX / HASHES_PER_PAGE + 1;

/// The first byte of a [`Deficit`] on the wire.
const WHOLE: u8 = 0;
/// See [`WHOLE`].
const SYMBOLS: u8 = 1;
/// See [`WHOLE`]: with the missing source symbols.
const SYMBOLS_NAMED: u8 = 2;
/// See [`WHOLE`]: only source symbols.
const SOURCES: u8 = 3;

impl PageRange {
    /// Bytes of an encoded range.
    pub const LEN: usize = 4 + 4;
}

impl Deficit {
    /// Bytes of the shortest encoded deficit.
    pub const MIN_LEN: usize = 1 + 4 + 2;
    /// Bytes that missing runs add to a deficit of symbols, besides [`Self::RUN_LEN`] for each.
    pub const RUNS_LEN: usize = 2;
    /// Bytes of a deficit of source symbols, without its runs.
    pub const SOURCES_LEN: usize = 1 + 4 + 2;
    /// Bytes of a run of missing source symbols.
    pub const RUN_LEN: usize = 2 + 2;

    /// One above its last block.
    #[must_use]
    pub const fn end(&self) -> u32 {
        match self {
            Self::Whole { first, count } => first.0.saturating_add(*count),
            Self::Symbols { block, .. } | Self::Sources { block, .. } => block.0.saturating_add(1),
        }
    }

    /// Bytes of the encoded deficit.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        match self {
            Self::Whole { .. } => 1 + 4 + 4,
            Self::Symbols { missing, .. } if missing.is_empty() => Self::MIN_LEN,
            Self::Symbols { missing, .. } => Self::MIN_LEN + Self::RUNS_LEN + missing.len() * Self::RUN_LEN,
            Self::Sources { missing, .. } => Self::SOURCES_LEN + missing.len() * Self::RUN_LEN,
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let form = r.u8("deficit form")?;
        match form {
            WHOLE => {
                let first = r.block("whole blocks")?;
                let count = r.u32("whole blocks")?;
                r.check(count >= 1 && first.0.checked_add(count).is_some(), "whole blocks")?;
                Ok(Self::Whole { first, count })
            }
            SYMBOLS | SYMBOLS_NAMED => {
                let block = r.block("deficit block")?;
                let symbols = r.u16("deficit")?;
                r.check(symbols >= 1, "deficit")?;
                let missing = if form == SYMBOLS { Vec::new() } else { decode_runs(r)? };
                Ok(Self::Symbols { block, symbols, missing })
            }
            SOURCES => {
                let block = r.block("deficit block")?;
                Ok(Self::Sources { block, missing: decode_runs(r)? })
            }
            _ => Err(r.out_of_range("deficit form")),
        }
    }

    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Whole { first, count } => {
                w.u8(WHOLE);
                w.u32(first.0);
                w.u32(*count);
            }
            Self::Symbols { block, symbols, missing } => {
                w.u8(if missing.is_empty() { SYMBOLS } else { SYMBOLS_NAMED });
                w.u32(block.0);
                w.u16(*symbols);
                if !missing.is_empty() {
                    encode_runs(missing, w);
                }
            }
            Self::Sources { block, missing } => {
                w.u8(SOURCES);
                w.u32(block.0);
                encode_runs(missing, w);
            }
        }
    }
}

fn encode_runs(runs: &[(u16, u16)], w: &mut Writer) {
    w.count(runs.len());
    for &(first, count) in runs {
        w.u16(first);
        w.u16(count);
    }
}

fn decode_runs(r: &mut Reader<'_>) -> Result<Vec<(u16, u16)>> {
    const FIELD: &str = "missing symbols";
    let count = r.count(Deficit::RUN_LEN, FIELD)?;
    r.check(count >= 1, FIELD)?;
    let mut runs = Vec::with_capacity(count);
    // The end of the run before. A run that begins there would be part of it.
    let mut end = None;
    for _ in 0..count {
        let (first, count) = (r.u16(FIELD)?, r.u16(FIELD)?);
        let after = u32::from(first) + u32::from(count);
        let apart = end.is_none_or(|end| u32::from(first) > end);
        r.check(count >= 1 && apart && after <= MAX_SOURCE_SYMBOLS, FIELD)?;
        runs.push((first, count));
        end = Some(after);
    }
    Ok(runs)
}

impl Nak {
    /// Bytes of an encoded NAK without pages and deficits, the header included.
    pub const FIXED_LEN: usize = HEADER_LEN + 4 + 8 + 4 + 4 + 2 + 2;

    /// Bytes of the encoded NAK, the header included.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let deficits: usize = self.deficits.iter().map(Deficit::encoded_len).sum();
        Self::FIXED_LEN + self.pages.len() * PageRange::LEN + deficits
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let round = r.u32("round")?;
        let largest_received = PacketNumber(r.u64("largest received")?);
        let ack_delay_us = r.u32("ack delay")?;
        let incomplete = r.u32("incomplete blocks")?;
        let count = r.count(PageRange::LEN, "pages")?;
        let mut pages = Vec::with_capacity(count);
        for _ in 0..count {
            let (first, count) = (r.u32("pages")?, r.u32("pages")?);
            r.check(count >= 1 && first.checked_add(count).is_some_and(|end| end <= PAGE_END), "pages")?;
            pages.push(PageRange { first, count });
        }
        let count = r.count(Deficit::MIN_LEN, "deficits")?;
        let mut deficits = Vec::with_capacity(count);
        for _ in 0..count {
            deficits.push(Deficit::decode(r)?);
        }
        Ok(Self { round, largest_received, ack_delay_us, incomplete, pages, deficits })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.round);
        w.u64(self.largest_received.0);
        w.u32(self.ack_delay_us);
        w.u32(self.incomplete);
        w.count(self.pages.len());
        for pages in &self.pages {
            w.u32(pages.first);
            w.u32(pages.count);
        }
        w.count(self.deficits.len());
        for deficit in &self.deficits {
            deficit.encode(w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ChannelId;
    use crate::wire::testing::{HEADER, datagram, golden, refuses, takes};
    use crate::wire::{DecodeError, MessageKind, decode_plain, encode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 65] = [
        0, 0, 0, 7,                                     //  0 round
        0, 1, 0, 0, 0, 0, 0x12, 0x34,                   //  4 as of
        0, 0, 1, 44,                                    // 12 held 300 us
        0, 0, 0, 6,                                     // 16 incomplete
        0, 1,                                           // 20 pages
        0, 0, 0, 2, 0, 0, 0, 1,                         // 22
        0, 3,                                           // 30 deficits
        1, 0, 0, 0, 5, 0, 3,                            // 32 symbols
        2, 0, 0, 0, 6, 0, 4, 0, 2,                      // 39 symbols, 2 runs:
        0, 10, 0, 3,                                    // 48 10..13
        0, 14, 0, 1,                                    // 52 14..15
        0, 0, 0, 0, 8, 0, 0, 0, 4,                      // 56 whole
    ];

    fn nak() -> Nak {
        Nak {
            round: 7,
            largest_received: PacketNumber::new(ChannelId(1), 0x1234),
            ack_delay_us: 300,
            incomplete: 6,
            pages: vec![PageRange { first: 2, count: 1 }],
            deficits: vec![
                Deficit::Symbols { block: BlockIndex(5), symbols: 3, missing: vec![] },
                Deficit::Symbols { block: BlockIndex(6), symbols: 4, missing: vec![(10, 3), (14, 1)] },
                Deficit::Whole { first: BlockIndex(8), count: 4 },
            ],
        }
    }

    #[test]
    fn golden_bytes() {
        golden(nak(), &BODY);
        assert_eq!(nak().encoded_len(), HEADER_LEN + BODY.len());
    }

    #[test]
    fn each_bad_field_is_named() {
        let no = |at, patch: &[u8], field| refuses(MessageKind::Nak, &BODY, at, patch, field);
        let yes = |at, patch: &[u8]| takes(MessageKind::Nak, &BODY, at, patch);
        // The last page is 2^27 - 1.
        yes(22, &[0x07, 0xff, 0xff, 0xff, 0, 0, 0, 1]);
        no(22, &[0x07, 0xff, 0xff, 0xff, 0, 0, 0, 2], "pages");
        no(22, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "pages");
        no(26, &[0, 0, 0, 0], "pages");
        no(32, &[4], "deficit form");
        no(33, &[0xff; 4], "deficit block");
        no(37, &[0, 0], "deficit");
        yes(37, &[0xff, 0xff]);
        // Runs: at least one symbol, rising, apart, below 56403.
        no(50, &[0, 0], "missing symbols");
        no(50, &[0, 4], "missing symbols");
        no(50, &[0, 5], "missing symbols");
        no(52, &[0, 9], "missing symbols");
        yes(52, &[0xdc, 0x52]);
        no(52, &[0xdc, 0x53], "missing symbols");
        no(52, &[0xff, 0xff, 0xff, 0xff], "missing symbols");
        // Whole blocks: at least one, and their end is a u32.
        no(61, &[0, 0, 0, 0], "whole blocks");
        yes(57, &[0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 1]);
        no(57, &[0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 2], "whole blocks");
        no(57, &[0xff; 4], "whole blocks");
        yes(57, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn sources_alone() {
        let mut body = BODY[..32].to_vec();
        body[31] = 1;
        body.extend([3, 0, 0, 0, 6, 0, 2, 0, 10, 0, 3, 0, 14, 0, 1]);
        let deficit = Deficit::Sources { block: BlockIndex(6), missing: vec![(10, 3), (14, 1)] };
        let nak = Nak { deficits: vec![deficit], ..nak() };
        assert_eq!(nak.encoded_len(), HEADER_LEN + body.len());
        golden(nak, &body);
        refuses(MessageKind::Nak, &body, 33, &[0xff; 4], "deficit block");
        refuses(MessageKind::Nak, &body, 37, &[0, 0], "missing symbols");
        refuses(MessageKind::Nak, &body, 43, &[0, 13], "missing symbols");
    }

    #[test]
    fn an_empty_list_of_runs_is_not_the_canonical_form() {
        let mut body = BODY[..32].to_vec();
        body[31] = 1;
        body.extend([2, 0, 0, 0, 6, 0, 4, 0, 0]);
        refuses(MessageKind::Nak, &body, 0, &[], "missing symbols");
    }

    #[test]
    fn counts_beyond_the_datagram_are_refused() {
        for (at, field) in [(20, "pages"), (30, "deficits"), (46, "missing symbols")] {
            let mut lying = BODY;
            lying[at..at + 2].copy_from_slice(&[0xff, 0xff]);
            let error = DecodeError::Truncated { message: MessageKind::Nak, field };
            assert_eq!(decode_plain(&datagram(7, &lying)), Err(error));
        }
    }

    #[test]
    fn as_many_as_the_size_helpers_say_fit() {
        let mut full = nak();
        full.pages.clear();
        full.deficits.clear();
        let room = crate::limits::MAX_CONTROL - Nak::FIXED_LEN;
        let runs = (room - Deficit::MIN_LEN - Deficit::RUNS_LEN) / Deficit::RUN_LEN;
        let missing = (0..runs as u16).map(|i| (3 * i, 2)).collect();
        full.deficits.push(Deficit::Symbols { block: BlockIndex(0), symbols: 600, missing });
        let bytes = encode_plain(HEADER, &full.clone().into());
        assert_eq!(bytes.len(), full.encoded_len());
        assert_eq!(decode_plain(&bytes), Ok((HEADER, full.into())));
    }
}
