//! The stream: source symbols block after block, with hashes ahead of them. Chooses the next datagram at the paced
//! rate: repairs first, then the stream, and unicast repairs within their share.

use super::Sender;
use super::channel::Batch;
use crate::limits::{HASHES_PER_PAGE, MAX_BATCH, SENDER_REPAIR_BYTES};
use crate::pacing::udp_overhead;
use crate::pack::Recipe;
use crate::protocol::event::SenderOutcome;
use crate::protocol::job::SenderJob;
use crate::protocol::{Payload, Transmit};
use crate::time::Time;
use crate::units::{BlockIndex, Coded, Coding, Digest, Esi, Extent};
use crate::wire::{AbortCode, HashPage, Message, Phase};
use std::sync::Arc;

/// Most hash jobs at a time.
const HASHES_IN_FLIGHT: u32 = 16;
/// Blocks that are hashed ahead of the stream: two pages, so that a page is complete before its blocks are
/// sent.
const HASH_AHEAD: u32 = 2 * HASHES_PER_PAGE;
/// Fresh repairs at the head of a queue that are encoded ahead.
const ENCODE_AHEAD: usize = 8;

/// The error of a source that has other hashes than before. What writes through a map need not show in the file's times.
pub(in crate::protocol) const SOURCE_CHANGED: &str =
    "the file is not what it was when it was hashed last; send it again";

/// The state of the stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// How long the object was when it was last announced.
    pub announced: Extent,
    /// Whether a job waits for the input of an object that grows.
    pub reading: bool,
    /// Whether it was ended because no device was left.
    pub cut: bool,
    /// Blocks below this have been streamed.
    pub position: u32,
    /// Source symbols of the block at `position` that have been sent.
    sent: u32,
    /// Blocks below this have been handed to the hash workers.
    hash_asked: u32,
    hashes_in_flight: u32,
    /// The chaining values of the blocks below this have been sent for the first time.
    pub told: u32,
    /// Pages below this have been sent a second time, after their blocks.
    pages_repeated: u32,
    /// Delta mode: nothing is streamed, because every device holds some of the object.
    pub skipping: bool,
    /// The number of blocks of which something was sent to the group.
    pub touched: u32,
    /// The stream waits before this block for devices to have room.
    pub held_at: Option<u32>,
}

impl Stream {
    /// The stream of an object of which nothing was sent. One that does not grow is as long as it is announced.
    pub fn new(extent: Extent) -> Self {
        Self { announced: if extent.sealed { extent } else { Extent::default() }, ..Self::default() }
    }
}

impl Sender {
    fn block_count(&self) -> u32 {
        self.config.layout.block_count()
    }

    pub(super) fn stream_done(&self) -> bool {
        self.config.layout.is_sealed() && self.stream_rests()
    }

    /// Ends the stream because no device is left. The rest counts as streamed.
    pub(super) fn cut_stream(&mut self) {
        self.stream.cut = true;
        self.stream.position = self.block_count();
        self.stream.sent = 0;
    }

    /// Requests jobs whose results are needed soon.
    pub(super) fn ask_for_jobs(&mut self) {
        self.ask_for_input();
        // The first pages are hashed while gathering, the rest just ahead of the stream.
        let ahead = if self.tells_values_first() { u32::MAX } else { HASH_AHEAD };
        let end = self.block_count().min(self.stream.position.saturating_add(ahead));
        let (layout, level) = (self.config.layout, self.codings.level());
        while self.stream.hash_asked < end && self.stream.hashes_in_flight < HASHES_IN_FLIGHT {
            let in_flight = self.stream.hashes_in_flight;
            let room = self.codings.has_room(in_flight, 1 << layout.block_log2(), self.stream.position);
            if !room && !self.tells_values_first() {
                break;
            }
            let block = BlockIndex(self.stream.hash_asked);
            self.stream.hash_asked += 1;
            self.stream.hashes_in_flight += 1;
            // Nobody waits for a coding that is settled.
            let level = level.filter(|_| self.recipe(block.0).is_none());
            self.job(SenderJob::Hash { block, layout, level });
        }
        self.ask_for_packed();
        self.ask_for_digests();
        let symbol_size = self.config.layout.symbol_size();
        let budget = (SENDER_REPAIR_BYTES / usize::from(symbol_size)) as u32;
        loop {
            // One repair is always allowed, however large.
            if self.encoded_symbols >= budget {
                return;
            }
            let next = self.group.next_to_encode(ENCODE_AHEAD).or_else(|| {
                let front = self.unicast_repairs.iter().take(2).copied().collect::<Vec<_>>();
                front.into_iter().find_map(|index| self.device_channel(index).next_to_encode(2))
            });
            let Some((block, first, count)) = next else { return };
            self.encoded_symbols += count;
            let (layout, recipe, value) =
                (self.config.layout, self.recipe_or_raw(block), self.value_of(block));
            self.job(SenderJob::Encode { block, layout, recipe, first, count, value });
        }
    }

    pub(super) fn hashed(
        &mut self,
        block: BlockIndex,
        value: Digest,
        (recipe, packed): (Recipe, Option<Arc<Vec<u8>>>),
        now: Time,
    ) {
        self.stream.hashes_in_flight = self.stream.hashes_in_flight.saturating_sub(1);
        // The stored hashes may be wrong, and so may what they say of zeros.
        let wrong = self.blocks.get_mut(block.0 as usize).is_some_and(|info| {
            let zero = |recipe: Recipe| recipe == Recipe::ZERO;
            info.value.replace(value).is_some_and(|known| known != value)
                || info.recipe.is_some_and(|known| zero(known) != zero(recipe))
        });
        if wrong {
            let text = SOURCE_CHANGED.to_owned();
            let outcome = SenderOutcome::SourceFailed(text.clone());
            self.finish(outcome, AbortCode::Source, &text, now);
            return;
        }
        self.choose_coding(block, recipe, packed);
        self.count_hashed();
        self.set_root_if_hashed(now);
    }

    /// Sets the root hash once the whole object is hashed.
    pub(super) fn set_root_if_hashed(&mut self, now: Time) {
        let all_hashed = self.stream.hash_asked == self.block_count() && self.stream.hashes_in_flight == 0;
        if self.root.is_none() && all_hashed {
            self.set_root(now);
            if self.root.is_some() && self.phase != Phase::Gathering {
                self.announce(now);
            }
        }
    }

    /// The chaining value of a block, if it is known.
    pub(super) fn value_of(&self, block: BlockIndex) -> Option<Digest> {
        self.blocks.get(block.0 as usize).and_then(|info| info.value)
    }

    pub(super) fn encoded(&mut self, block: BlockIndex, first: Esi, symbols: Arc<Vec<u8>>) {
        let count = (symbols.len() / usize::from(self.config.layout.symbol_size())) as u32;
        if self.take_packed(block, first, &symbols) || self.group.encoded(block, first, &symbols) {
            return;
        }
        // Where unicast repair has ended, what was planned was dropped.
        let mut repairs = self.unicast_repairs.clone().into_iter();
        let wanted = repairs.any(|index| self.device_channel(index).encoded(block, first, &symbols));
        if !wanted {
            // Its repair was dropped meanwhile.
            self.encoded_symbols = self.encoded_symbols.saturating_sub(count);
        }
    }

    /// The number of pages.
    pub(super) fn page_count(&self) -> u32 {
        self.block_count().div_ceil(HASHES_PER_PAGE)
    }

    /// The end of the known values of a page; `None` if they are not to be sent yet. Only the last page of an object
    /// that grows is sent in part.
    fn page_end(&self, page: u32) -> Option<u32> {
        let first = page.saturating_mul(HASHES_PER_PAGE);
        let whole = first.saturating_add(HASHES_PER_PAGE).min(self.block_count());
        let end = whole.min(self.hashed_below());
        let complete = end == whole || !self.config.layout.is_sealed();
        (first < end && complete).then_some(end)
    }

    /// A page, as far as it can be sent.
    fn page(&self, page: u32) -> Option<HashPage> {
        let first = page.saturating_mul(HASHES_PER_PAGE);
        let blocks = first..self.page_end(page)?;
        let known = |block| Some((self.value_of(BlockIndex(block))?, self.coded(block)));
        let blocks: Option<Vec<(Digest, Coded)>> = blocks.map(known).collect();
        Some(HashPage::of(BlockIndex(first), blocks?))
    }

    /// The next page to be sent for the first time, and its end. While more of the page is about to follow, it waits;
    /// while the stream rests, it does not.
    fn untold_page(&self) -> Option<(u32, u32)> {
        let page = self.stream.told / HASHES_PER_PAGE;
        let end = self.page_end(page).filter(|&end| end > self.stream.told)?;
        let whole = end.is_multiple_of(HASHES_PER_PAGE) || self.config.layout.is_sealed();
        (whole || self.stream_rests()).then_some((page, end))
    }

    /// Whether to send a page a second time, because its blocks have been streamed.
    fn repeat_is_due(&self) -> bool {
        let after = (self.stream.pages_repeated + 1).saturating_mul(HASHES_PER_PAGE);
        let after = if self.config.layout.is_sealed() { after.min(self.block_count()) } else { after };
        self.stream.pages_repeated < self.page_count()
            && self.stream.told >= after
            && self.stream.position >= after
    }

    /// The next page on the group's channel. Each page is sent once as soon as its blocks are hashed, once
    /// more after they have been streamed, and again if devices ask.
    fn next_group_page(&mut self) -> Option<HashPage> {
        if self.phase == Phase::Gathering && !self.tells_values_first() {
            return None;
        }
        let page = if let Some((page, end)) = self.untold_page() {
            self.stream.told = end;
            self.skip_ahead();
            page
        } else if self.repeat_is_due() {
            self.stream.pages_repeated += 1;
            self.stream.pages_repeated - 1
        } else {
            self.group.take_page()?
        };
        self.page(page)
    }

    /// Bytes of a symbol's datagram on the wire.
    pub(super) fn datagram_on_wire(&self) -> u64 {
        self.config.datagram_on_wire()
    }

    /// Symbols that make a quantum of this many bytes on the wire.
    fn symbols_at_once(&self, quantum: u64) -> u32 {
        (quantum / self.datagram_on_wire()).clamp(1, MAX_BATCH as u64) as u32
    }

    /// The next transmission at the paced rate: the group's repairs before its stream; unicast repairs if
    /// their share allows, or if the group has nothing to send.
    pub(super) fn next_paced(&mut self, now: Time) -> Option<Transmit> {
        if !self.pace.bucket.ready(now) {
            return None;
        }
        if self.may_stream() {
            self.pass_zeros();
            self.time_blocks(now);
        }
        let group_has = self.group_can_send();
        if (!group_has || self.unicast_share.ready(now))
            && let Some(transmit) = self.next_digests(now).or_else(|| self.next_unicast(now))
        {
            return Some(transmit);
        }
        if !group_has {
            self.pace.bucket.rest();
            return None;
        }
        if let Some(page) = self.next_group_page() {
            let number = self.group_number(now);
            return Some(self.transmit_open(self.config.data, number, &Message::HashPage(page)));
        }
        let most = self.symbols_at_once(self.pace.bucket.quantum());
        let size = self.config.layout.symbol_size();
        if let Some((batch, freed)) = self.group.next_batch(most, size) {
            self.encoded_symbols = self.encoded_symbols.saturating_sub(freed);
            return Some(self.transmit_group(batch, now));
        }
        self.next_source(most, now).map(|batch| self.transmit_group(batch, now))
    }

    /// Whether the group has something to send now.
    fn group_can_send(&self) -> bool {
        let streams = self.may_stream() && self.is_coded();
        self.group.is_ready()
            || streams
            || ((self.phase != Phase::Gathering || self.tells_values_first())
                && (self.untold_page().is_some() || self.repeat_is_due() || self.group.has_pages()))
    }

    /// Whether the stream has something to send, and somebody has room for it.
    fn may_stream(&self) -> bool {
        self.phase == Phase::Streaming
            && self.stream.position < self.announced_blocks()
            && !self.stream.skipping
            && !self.stream_is_held()
    }

    fn next_source(&mut self, most: u32, now: Time) -> Option<Batch> {
        if !self.may_stream() || !self.is_coded() {
            return None;
        }
        let block = BlockIndex(self.stream.position);
        let k = self.symbols_of(block.0);
        let first = self.stream.sent;
        let end = k.min(first + most);
        self.stream.sent = end;
        if end == k {
            self.stream.position += 1;
            self.stream.sent = 0;
            self.pass_zeros();
            self.announce_growth(now);
        }
        let ids = first..end;
        Some(match self.packed(block).filter(|_| self.coded(block.0).coding == Coding::Zstd) {
            Some(symbols) => Batch::Packed { block, ids, symbols: Arc::clone(symbols) },
            None => Batch::Source { block, ids },
        })
    }

    fn transmit_group(&mut self, batch: Batch, now: Time) -> Transmit {
        let first_time = match &batch {
            Batch::Source { block, ids } | Batch::Packed { block, ids, .. } => {
                self.note_source(*block, ids.start, ids.end)
            }
            Batch::Repair { .. } => false,
        };
        let (count, bytes, block) = self.size_of(&batch, self.config.data);
        let number = self.group.take_symbol_numbers(count);
        self.pace.note_sent(number.counter(), now);
        if let Some(info) = self.blocks.get_mut(block.0 as usize) {
            info.last_sent = crate::wire::PacketNumber(number.0 + u64::from(count) - 1);
        }
        let counter = if first_time { &mut self.counters.source } else { &mut self.counters.repair };
        *counter += u64::from(count);
        self.charge(bytes, count);
        Transmit { to: self.config.data, payload: self.payload(batch, number) }
    }

    /// The next batch or page of the unicast repairs, which take turns.
    fn next_unicast(&mut self, now: Time) -> Option<Transmit> {
        let size = self.config.layout.symbol_size();
        for _ in 0..self.unicast_repairs.len() {
            let index = *self.unicast_repairs.front()?;
            self.unicast_repairs.rotate_left(1);
            if let Some(page) = self.device_channel(index).take_page().and_then(|page| self.page(page)) {
                let number = self.device_channel(index).number_for_one(now);
                let to = self.devices.get(index).address;
                return Some(self.transmit_open(to, number, &Message::HashPage(page)));
            }
            let mut most = self.symbols_at_once(self.pace.bucket.quantum());
            if let Some(pace) = &mut self.device_channel(index).pace {
                if !pace.bucket.ready(now) {
                    continue;
                }
                let quantum = pace.bucket.quantum();
                most = most.min(self.symbols_at_once(quantum));
            }
            let Some((batch, freed)) = self.device_channel(index).next_batch(most, size) else { continue };
            self.encoded_symbols = self.encoded_symbols.saturating_sub(freed);
            let to = self.devices.get(index).address;
            let (count, bytes, _) = self.size_of(&batch, to);
            let channel = self.device_channel(index);
            let number = channel.take_symbol_numbers(count);
            if let Some(pace) = &mut channel.pace {
                pace.bucket.charge(bytes);
                pace.note_sent(number.counter(), now);
            }
            self.devices.get_mut(index).unicast_symbols += u64::from(count);
            self.counters.unicast += u64::from(count);
            self.unicast_share.charge(bytes);
            self.charge(bytes, count);
            return Some(Transmit { to, payload: self.payload(batch, number) });
        }
        None
    }

    /// The number of symbols in a batch, their bytes on the wire, and their block.
    fn size_of(&self, batch: &Batch, to: std::net::SocketAddr) -> (u32, u64, BlockIndex) {
        let layout = &self.config.layout;
        let each = self.config.symbol_overhead() as u64 + udp_overhead(to);
        match batch {
            Batch::Source { block, ids } => {
                let payload: usize = ids.clone().map(|id| layout.symbol_range(*block, Esi(id)).len()).sum();
                let count = ids.end - ids.start;
                (count, payload as u64 + each * u64::from(count), *block)
            }
            Batch::Packed { block, ids, .. } => {
                let count = ids.end - ids.start;
                (count, (each + u64::from(layout.symbol_size())) * u64::from(count), *block)
            }
            Batch::Repair { block, range, .. } => {
                let count = range.len() / usize::from(layout.symbol_size());
                (count as u32, range.len() as u64 + each * count as u64, *block)
            }
        }
    }

    fn payload(&self, batch: Batch, packet_number: crate::wire::PacketNumber) -> Payload {
        match batch {
            Batch::Source { block, ids } => {
                Payload::Source { packet_number, block, layout: self.config.layout, ids }
            }
            Batch::Packed { block, ids, symbols } => {
                let size = usize::from(self.config.layout.symbol_size());
                let range = ids.start as usize * size..ids.end as usize * size;
                Payload::Repair { packet_number, block, first: Esi(ids.start), symbols, range }
            }
            Batch::Repair { block, first, symbols, range } => {
                Payload::Repair { packet_number, block, first, symbols, range }
            }
        }
    }

    /// When something can next be sent at the paced rate; never if there is nothing.
    pub(super) fn paced_timeout(&self) -> Time {
        if self.shutdown.is_closing() {
            return Time::NEVER;
        }
        let group = if self.group_can_send() { self.pace.bucket.ready_at() } else { Time::NEVER };
        // The unicast share only ever delays it; then the group's stream keeps the loop awake.
        let unicast = self.unicast_repairs.iter().filter_map(|&index| {
            let channel = self.devices.get(index).channel.as_ref()?;
            let own = channel.pace.as_ref().map_or(Time::ZERO, |pace| pace.bucket.ready_at());
            match (channel.is_ready(), channel.has_pages()) {
                (_, true) => Some(self.pace.bucket.ready_at()),
                (true, false) => Some(self.pace.bucket.ready_at().max(own)),
                (false, false) => None,
            }
        });
        let digests = self.inquiries.ready_at().max(self.pace.bucket.ready_at());
        unicast.min().unwrap_or(Time::NEVER).min(group).min(digests)
    }
}
