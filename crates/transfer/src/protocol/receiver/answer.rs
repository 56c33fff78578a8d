//! The answer to a poll: what the device lacks and repair advertisements do not cover, in one datagram.

use super::blocks::{Blocks, Missing};
use crate::limits::MAX_CONTROL;
use crate::time::Time;
use crate::units::BlockIndex;
use crate::wire::{Deficit, Nak, PacketNumber, PageRange, Poll, RepairAdvertisement};
use std::collections::BTreeMap;

/// Most runs of missing source symbols that a deficit names. A deficit with more names none.
const MAX_RUNS: usize = 24;

/// Most runs named of a block that only source symbols can complete.
const MAX_SOURCE_RUNS: usize = 128;

/// The first `most` runs, as a NAK has them.
fn named(runs: Vec<(u32, u32)>, most: usize) -> Vec<(u16, u16)> {
    let runs = runs.into_iter().take(most);
    runs.filter_map(|(first, count)| Some((first.try_into().ok()?, count.try_into().ok()?))).collect()
}

/// An answer that waits for its random delay to pass.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    pub due: Time,
    round: u32,
    number: PacketNumber,
    position: u32,
    want_esis: bool,
    arrived: Time,
    /// Advertised fresh symbols, by block.
    advertised: BTreeMap<u32, u32>,
}

impl PendingAnswer {
    pub fn new(poll: &Poll, number: PacketNumber, arrived: Time, due: Time) -> Self {
        let mut answer = Self {
            due,
            round: poll.round,
            number,
            position: poll.position.0,
            want_esis: poll.want_esis,
            arrived,
            advertised: BTreeMap::new(),
        };
        answer.note_advertised(poll.round, &poll.advertised);
        answer
    }

    /// Notes repair advertisements that arrive while the answer waits.
    pub fn note_advertised(&mut self, round: u32, advertised: &[RepairAdvertisement]) {
        if round == self.round {
            self.advertised.extend(advertised.iter().map(|p| (p.block.0, u32::from(p.symbols))));
        }
    }

    fn covers(&self, block: u32, deficit: u32) -> bool {
        self.advertised.get(&block).is_some_and(|&advertised| advertised >= deficit)
    }

    /// The summary of what `blocks` lack. `None` if they lack nothing and `always` is not set.
    pub fn nak(&self, blocks: &Blocks, now: Time, always: bool) -> Option<Nak> {
        let ack_delay = now.since(self.arrived).as_micros();
        let mut nak = Nak {
            round: self.round,
            largest_received: self.number,
            ack_delay_us: u32::try_from(ack_delay).unwrap_or(u32::MAX),
            incomplete: blocks.layout().block_count() - blocks.verified(),
            pages: Vec::new(),
            deficits: Vec::new(),
        };
        let mut room = MAX_CONTROL - Nak::FIXED_LEN;
        for (first, count) in blocks.missing_pages(self.position) {
            // Pages may take half of the datagram; the blocks are what takes time to send.
            if room < MAX_CONTROL / 2 {
                break;
            }
            room -= PageRange::LEN;
            nak.pages.push(PageRange { first, count });
        }
        // Repairs of more blocks than there are buffers for would be dropped. The others are requested later.
        let mut buffers = u32::try_from(blocks.free_buffers()).unwrap_or(u32::MAX).max(1);
        blocks.each_missing(self.position.min(blocks.room()), |mut missing| {
            let Some(new) = missing.take_within(buffers) else { return true };
            let Some(deficit) = self.deficit(&missing, blocks) else { return true };
            buffers -= new;
            let len = deficit.encoded_len();
            if len > room {
                return false;
            }
            room -= len;
            nak.deficits.push(deficit);
            true
        });
        let silent = nak.pages.is_empty() && nak.deficits.is_empty();
        (always || !silent).then_some(nak)
    }

    fn deficit(&self, missing: &Missing<'_>, blocks: &Blocks) -> Option<Deficit> {
        match *missing {
            Missing::Whole { first, count } => {
                let covered = count == 1 && self.covers(first, blocks.coded(BlockIndex(first)).k);
                (!covered).then_some(Deficit::Whole { first: BlockIndex(first), count })
            }
            Missing::Sources(assembly) => {
                // As many runs as fit with room to spare. The rest is requested when these symbols have
                // arrived.
                let missing = named(assembly.missing(), MAX_SOURCE_RUNS);
                (!missing.is_empty()).then(|| Deficit::Sources { block: assembly.block(), missing })
            }
            Missing::Symbols(assembly) => {
                let deficit = assembly.deficit().max(1);
                if self.covers(assembly.block().0, deficit) {
                    return None;
                }
                // With repair symbols in hand, any few of the missing source symbols would do, so their ESIs
                // do not show how many are needed.
                let wanted = self.want_esis && assembly.held_repair() == 0;
                let runs = if wanted { assembly.missing() } else { Vec::new() };
                let missing = if runs.len() <= MAX_RUNS { named(runs, MAX_RUNS) } else { Vec::new() };
                let symbols = u16::try_from(deficit).unwrap_or(u16::MAX);
                Some(Deficit::Symbols { block: assembly.block(), symbols, missing })
            }
        }
    }
}
