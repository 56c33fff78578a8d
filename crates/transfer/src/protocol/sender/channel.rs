//! A channel: a destination, its packet counter, its planned repairs, and the state of its round. The group has one;
//! each device in unicast repair has its own.

use super::pace::Pace;
use super::planner::PlanKind;
use crate::time::Time;
use crate::units::{BlockIndex, ChannelId, DeviceIndex, Esi};
use crate::wire::{Nak, PacketNumber};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

/// Most answers kept in one round, as a bound against floods; honest rounds invite fewer.
const MAX_ANSWERS: usize = 1024;

/// Number of polls whose time is remembered.
const POLLS_REMEMBERED: usize = 64;

/// The state of a channel's round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// No poll is open. The next one may be sent at this time if there is a reason for it.
    Idle {
        /// Earliest time of the next poll.
        next: Time,
    },
    /// A poll was sent, and its answers are being collected.
    Open {
        /// When it was sent.
        sent: Time,
        /// When the round closes and its answers are planned for.
        closes: Time,
        /// When a poll repeats the repairs planned so far, so that devices that they cover need not answer.
        echo: Time,
    },
}

/// A planned repair of one block.
#[derive(Debug)]
pub(super) enum Repair {
    /// Resends source symbols.
    Resend { block: BlockIndex, runs: VecDeque<(u32, u32)> },
    /// Resends source symbols of a compressed block with `k` of them.
    Packed { block: BlockIndex, k: u32, runs: VecDeque<(u32, u32)>, symbols: Encoded },
    /// Fresh repair symbols `first..first + count`, of which `sent` have been sent.
    Fresh { block: BlockIndex, first: Esi, count: u32, sent: u32, symbols: Encoded },
}

/// The state of a fresh repair's symbols.
#[derive(Debug)]
pub(super) enum Encoded {
    /// Not requested.
    Not,
    /// A worker encodes them.
    Asked,
    /// Ready to be sent.
    Ready(Arc<Vec<u8>>),
}

impl Encoded {
    /// `count`, if so many symbols are encoded.
    const fn count(&self, count: u32) -> u32 {
        if matches!(self, Self::Ready(_)) { count } else { 0 }
    }
}

/// Symbols to be sent now.
#[derive(Debug)]
pub(super) enum Batch {
    /// Source symbols.
    Source { block: BlockIndex, ids: Range<u32> },
    /// Source symbols of a compressed block; `symbols` has all of them.
    Packed { block: BlockIndex, ids: Range<u32>, symbols: Arc<Vec<u8>> },
    /// Repair symbols: byte range within `symbols`, the first of which has the id `first`.
    Repair { block: BlockIndex, first: Esi, symbols: Arc<Vec<u8>>, range: Range<usize> },
}

#[derive(Debug)]
pub(super) struct Channel {
    id: ChannelId,
    pub to: SocketAddr,
    next_counter: u64,
    pub round_number: u32,
    pub round: Round,
    /// Polls in a row without an answer of the device with this channel, although it was heard from.
    pub unanswered: u32,
    /// The answers of the open round.
    answers: BTreeMap<DeviceIndex, Nak>,
    queue: VecDeque<Repair>,
    pages: BTreeSet<u32>,
    /// When the latest polls were sent, by round. Late answers give a round-trip time too.
    polls: VecDeque<(u32, Time)>,
    /// The pace of unicast repair to the device with this channel, if there is one.
    pub pace: Option<Pace>,
    /// The packet number of the last symbol. An answer as of an earlier number does not account for it.
    pub last_symbol: PacketNumber,
}

impl Channel {
    pub fn new(id: ChannelId, to: SocketAddr) -> Self {
        Self {
            id,
            to,
            next_counter: 0,
            round_number: 0,
            round: Round::Idle { next: Time::ZERO },
            unanswered: 0,
            answers: BTreeMap::new(),
            queue: VecDeque::new(),
            pages: BTreeSet::new(),
            polls: VecDeque::new(),
            pace: None,
            last_symbol: PacketNumber::new(id, 0),
        }
    }

    /// Opens a round, and returns its number.
    pub fn open(&mut self, sent: Time, closes: Time, echo: Time) -> u32 {
        self.round_number += 1;
        self.round = Round::Open { sent, closes, echo };
        if self.polls.len() == POLLS_REMEMBERED {
            self.polls.pop_front();
        }
        self.polls.push_back((self.round_number, sent));
        self.round_number
    }

    /// When the poll of a round was sent; `None` if that is forgotten.
    pub fn poll_sent(&self, round: u32) -> Option<Time> {
        self.polls.iter().find(|(r, _)| *r == round).map(|(_, at)| *at)
    }

    /// Takes the packet number of a message on the channel of one device that is sent now.
    pub fn number_for_one(&mut self, now: Time) -> PacketNumber {
        let number = self.take_numbers(1);
        if let Some(pace) = &mut self.pace {
            pace.note_sent(number.counter(), now);
        }
        number
    }

    /// Takes `count` packet numbers and returns the first.
    pub fn take_numbers(&mut self, count: u32) -> PacketNumber {
        let first = PacketNumber::new(self.id, self.next_counter);
        self.next_counter += u64::from(count);
        first
    }

    /// Takes packet numbers for `count` symbols and returns the first.
    pub fn take_symbol_numbers(&mut self, count: u32) -> PacketNumber {
        let first = self.take_numbers(count);
        self.last_symbol = PacketNumber::new(self.id, self.next_counter.saturating_sub(1));
        first
    }

    /// The counter of the next datagram.
    pub const fn next_counter(&self) -> u64 {
        self.next_counter
    }

    /// Whether `number` is one this channel has used.
    /// Datagrams that were sent so far.
    pub const fn sent(&self) -> u64 {
        self.next_counter
    }

    pub fn has_sent(&self, number: PacketNumber) -> bool {
        number.channel() == self.id && number.counter() < self.next_counter
    }

    pub fn is_open(&self) -> bool {
        matches!(self.round, Round::Open { .. })
    }

    /// Keeps an answer to the open round. A later answer of a device replaces its earlier one.
    pub fn answer(&mut self, device: DeviceIndex, nak: Nak) {
        if self.answers.len() < MAX_ANSWERS || self.answers.contains_key(&device) {
            self.answers.insert(device, nak);
        }
    }

    pub const fn answers(&self) -> &BTreeMap<DeviceIndex, Nak> {
        &self.answers
    }

    /// Ends the round and returns its answers.
    pub fn close(&mut self, next: Time) -> BTreeMap<DeviceIndex, Nak> {
        self.round = Round::Idle { next };
        std::mem::take(&mut self.answers)
    }

    /// Whether symbols or pages are left to send.
    pub fn has_repairs(&self) -> bool {
        !self.queue.is_empty() || !self.pages.is_empty()
    }

    pub fn add_page(&mut self, page: u32) {
        self.pages.insert(page);
    }

    pub fn has_pages(&self) -> bool {
        !self.pages.is_empty()
    }

    pub fn take_page(&mut self) -> Option<u32> {
        self.pages.pop_first()
    }

    /// Queues a repair; `first` is the first of the fresh ids set aside for it. `packed` is K' of a compressed block.
    pub fn push(&mut self, block: BlockIndex, kind: PlanKind, first: Esi, packed: Option<u32>) {
        self.queue.push_back(match (kind, packed) {
            (PlanKind::Resend(runs), None) => Repair::Resend { block, runs: runs.into() },
            (PlanKind::Resend(runs), Some(k)) => {
                Repair::Packed { block, k, runs: runs.into(), symbols: Encoded::Not }
            }
            (PlanKind::Fresh(count), _) => {
                Repair::Fresh { block, first, count, sent: 0, symbols: Encoded::Not }
            }
        });
    }

    /// Drops the planned repairs. Returns how many symbols were encoded in vain. Symbols that a worker still
    /// encodes are dropped when they are ready.
    pub fn clear(&mut self) -> u32 {
        self.pages.clear();
        self.forget(u32::MAX)
    }

    /// Drops the repairs of blocks below `floor`. Returns how many symbols were encoded in vain.
    pub fn forget(&mut self, floor: u32) -> u32 {
        let mut wasted = 0;
        self.queue.retain(|repair| {
            let (block, encoded) = match repair {
                Repair::Resend { block, .. } => (block, 0),
                Repair::Packed { block, k, symbols, .. } => (block, symbols.count(*k)),
                Repair::Fresh { block, count, symbols, .. } => (block, symbols.count(*count)),
            };
            let kept = block.0 >= floor;
            wasted += if kept { 0 } else { encoded };
            kept
        });
        wasted
    }

    /// The next symbols to encode, if it is among the first `ahead` of the queue. Marks it as requested.
    pub fn next_to_encode(&mut self, ahead: usize) -> Option<(BlockIndex, Esi, u32)> {
        self.queue.iter_mut().take(ahead).find_map(|repair| match repair {
            Repair::Fresh { block, first, count, symbols: symbols @ Encoded::Not, .. } => {
                *symbols = Encoded::Asked;
                Some((*block, *first, *count))
            }
            Repair::Packed { block, k, symbols: symbols @ Encoded::Not, .. } => {
                *symbols = Encoded::Asked;
                Some((*block, Esi(0), *k))
            }
            _ => None,
        })
    }

    /// Takes encoded symbols. False if no repair here waits for them.
    pub fn encoded(&mut self, block: BlockIndex, first: Esi, bytes: &Arc<Vec<u8>>) -> bool {
        for repair in &mut self.queue {
            let (b, f, symbols) = match repair {
                Repair::Fresh { block, first, symbols, .. } => (*block, *first, symbols),
                Repair::Packed { block, symbols, .. } => (*block, Esi(0), symbols),
                Repair::Resend { .. } => continue,
            };
            if b == block && f == first && matches!(symbols, Encoded::Asked) {
                *symbols = Encoded::Ready(Arc::clone(bytes));
                return true;
            }
        }
        false
    }

    /// Whether [`Channel::next_batch`] would give something.
    pub fn is_ready(&self) -> bool {
        match self.queue.front() {
            None
            | Some(
                Repair::Fresh { symbols: Encoded::Not | Encoded::Asked, .. }
                | Repair::Packed { symbols: Encoded::Not | Encoded::Asked, .. },
            ) => false,
            Some(_) => true,
        }
    }

    /// Up to `most` symbols of the repair at the head of the queue, if they are ready; and the number of
    /// encoded symbols that are released with it once all of it is sent.
    pub fn next_batch(&mut self, most: u32, symbol_size: u16) -> Option<(Batch, u32)> {
        let (batch, finished, freed) = match self.queue.front_mut()? {
            Repair::Resend { block, runs } => {
                let ids = take_ids(runs, most)?;
                (Batch::Source { block: *block, ids }, runs.is_empty(), 0)
            }
            Repair::Packed { block, k, runs, symbols: Encoded::Ready(symbols) } => {
                let (ids, symbols) = (take_ids(runs, most)?, Arc::clone(symbols));
                (Batch::Packed { block: *block, ids, symbols }, runs.is_empty(), *k)
            }
            Repair::Fresh { block, first, count, sent, symbols: Encoded::Ready(bytes) } => {
                let n = (*count - *sent).min(most.max(1));
                let size = usize::from(symbol_size);
                let start = *sent as usize * size;
                let batch = Batch::Repair {
                    block: *block,
                    first: Esi(first.0 + *sent),
                    symbols: Arc::clone(bytes),
                    range: start..start + n as usize * size,
                };
                *sent += n;
                (batch, *sent == *count, *count)
            }
            Repair::Fresh { .. } | Repair::Packed { .. } => return None,
        };
        if finished {
            self.queue.pop_front();
        }
        Some((batch, if finished { freed } else { 0 }))
    }
}

/// Takes up to `most` symbols, at least one, from the first of `runs`.
fn take_ids(runs: &mut VecDeque<(u32, u32)>, most: u32) -> Option<Range<u32>> {
    let run = runs.front_mut()?;
    let n = run.1.min(most.max(1));
    let ids = run.0..run.0 + n;
    run.0 += n;
    run.1 -= n;
    if run.1 == 0 {
        runs.pop_front();
    }
    Some(ids)
}
