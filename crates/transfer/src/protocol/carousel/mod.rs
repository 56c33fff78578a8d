//! A sender without feedback: it announces its object and sends it pass after pass, and hears nobody.
//!
//! ```text
//!  warming up ──► passing ◄──► pausing           schedule: the steps of a pass, and their order
//!                    │                           work:     a step under way, symbol by symbol
//!                    ▼                           steps:    what steps wait for, and what is sent next
//!                last words ──► farewell ──► finished
//! ```
//! The line may lose the first and the last datagrams of a transfer, as diodes do. So the session begins with a second
//! of announcements, and ends with half a second of them and as much of ABORTs. All is sent at one rate. Without a
//! group key anybody can forge symbols, and no device can ask for digests. So the digests of all symbols are sent,
//! signed, ahead of them.

mod schedule;
mod steps;
mod view;
mod work;

pub use schedule::Repetition;

use super::event::{SenderEvent, SenderOutcome};
use super::job::{SenderDone, SenderJob};
use super::packet_protection::{SenderSide, SymbolSeal};
use super::sender::{NOT_AS_SIGNED, SOURCE_CHANGED, SenderConfig};
use super::{Control, Machine, Output, Payload, Sessions, Transmit};
use crate::limits::ANNOUNCE_INTERVAL;
use crate::pacing::{ETHERNET_HEADER, ETHERNET_OVERHEAD, RateMode, TokenBucket, udp_overhead};
use crate::pack::Recipe;
use crate::ranges::BitSet;
use crate::time::Time;
use crate::units::{Arrival, BlockIndex, ChannelId, Digest, Esi, Rate, SessionId};
use crate::wire::{AbortCode, Header, Message, OriginProof, PacketNumber, Phase};
use schedule::Schedule;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use work::Work;

type Out = Output<SenderJob, SenderEvent>;

/// How long the session is announced before its first symbol.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long it is announced after its last symbol; below, how long it says farewell.
const LAST_WORDS: Duration = Duration::from_millis(500);
const FAREWELL: Duration = Duration::from_millis(500);
/// Shortest interval of these datagrams: 250 in a second.
const EVERY: Duration = Duration::from_millis(4);
/// A pass begins at the earliest this long after the one before, so that small objects do not take up the processor.
const PASS_EVERY: Duration = Duration::from_secs(1);
/// Interval between checks of the source.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Where the session stands.
#[derive(Debug)]
enum Stage {
    WarmingUp { until: Time, next: Time },
    Passing,
    Pausing { until: Time },
    LastWords { until: Time, next: Time },
    Farewell { until: Time, next: Time, outcome: SenderOutcome, code: AbortCode, reason: String },
    Finished,
}

#[derive(Debug, Default)]
struct Counters {
    /// Bytes of Ethernet frames without their check sequence.
    wire_bytes: u64,
    source: u64,
    repair: u64,
    ignored: u64,
}

/// The sender without feedback. See [`Machine`] for how it is driven.
#[derive(Debug)]
pub struct Carousel {
    config: SenderConfig,
    passes: Repetition,
    side: SenderSide,
    bucket: TokenBucket,
    rate: Rate,
    stage: Stage,
    values: Vec<Option<Digest>>,
    /// Which blocks are zeros. They are sent like all others; a later session with feedback has to know.
    zeros: BitSet,
    root: Option<Digest>,
    origin: Option<Box<OriginProof>>,
    /// Blocks below this have been handed to the hash workers; of these, so many are not done.
    hash_asked: u32,
    hashes_in_flight: u32,
    /// The end of the blocks that the steps have reached in the first pass.
    reached: u32,
    /// The ESI of the next fresh repair symbol of each block.
    next_repair: Vec<u32>,
    pass: u32,
    pass_began: Time,
    /// Blocks of the pass whose turn is over.
    position: u32,
    schedule: Schedule,
    works: VecDeque<Work>,
    announce_at: Time,
    announces: u32,
    check_at: Time,
    checking: bool,
    ends_at: Time,
    /// Packet counters of the next datagrams: to the group, and elsewhere.
    group: u64,
    elsewhere: u64,
    out: VecDeque<Out>,
    counters: Counters,
}

impl Carousel {
    /// A sender that begins at `now`. Of the configuration, it uses nothing that concerns single devices.
    ///
    /// # Panics
    /// If the layout has more blocks than [`crate::limits::MAX_BLOCKS`], the object still grows, or the rate is not fixed.
    /// `session` checks this before.
    #[must_use]
    pub fn new(config: SenderConfig, passes: Repetition, now: Time) -> Self {
        let layout = config.layout;
        assert!(layout.block_count() <= crate::limits::MAX_BLOCKS && layout.is_sealed());
        let RateMode::Fixed(rate) = config.rate else { panic!("a line without a way back has a fixed rate") };
        let blocks = 0..layout.block_count();
        let mut carousel = Self {
            side: config.side(),
            bucket: TokenBucket::new(rate, config.datagram_on_wire(), now),
            rate,
            stage: Stage::WarmingUp { until: now + WARM_UP, next: now },
            values: vec![None; blocks.len()],
            zeros: BitSet::new(layout.block_count()),
            root: None,
            origin: None,
            hash_asked: 0,
            hashes_in_flight: 0,
            reached: 0,
            next_repair: blocks.map(|block| layout.source_symbols(BlockIndex(block))).collect(),
            pass: 0,
            pass_began: now,
            position: 0,
            schedule: Schedule::new(layout, passes.overhead_per_mille, 0),
            works: VecDeque::new(),
            announce_at: Time::NEVER,
            announces: 0,
            check_at: now + CHECK_EVERY,
            checking: false,
            ends_at: config.max_time.map_or(Time::NEVER, |time| now + time),
            group: 0,
            elsewhere: 0,
            out: VecDeque::new(),
            counters: Counters::default(),
            passes,
            config,
        };
        let announce = carousel.announced();
        carousel.side.announce(&announce);
        carousel.out.push_back(Output::Event(SenderEvent::Phase(Phase::Gathering)));
        carousel.set_root_if_hashed(now);
        carousel
    }

    /// Supplies the blocks' chaining values of an earlier run, and whether they are zeros. The source is hashed all the same, before its root is
    /// announced. Ignored unless there is exactly one value for each block. Call before driving the machine.
    #[must_use]
    pub fn with_values(mut self, blocks: Vec<(Digest, bool)>) -> Self {
        if blocks.len() == self.values.len() && self.root.is_none() {
            self.values = blocks.into_iter().map(|(value, _)| Some(value)).collect();
        }
        self
    }

    /// The chaining values of all blocks, and whether they are zeros, once the object is hashed.
    #[must_use]
    pub fn hashed_blocks(&self) -> Option<Vec<(Digest, bool)>> {
        self.root?;
        let is_zero = |block| self.zeros.contains(block);
        (0..).zip(&self.values).map(|(block, value)| Some(((*value)?, is_zero(block)))).collect()
    }

    /// The session's identifier.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.side.session()
    }

    /// The seal of this session's symbols, if there is a group key.
    #[must_use]
    pub fn symbol_seal(&self) -> Option<SymbolSeal> {
        self.side.symbols()
    }

    /// Announces the session to the group and on the rendezvous groups.
    fn announce(&mut self, now: Time) {
        self.announce_at = now + ANNOUNCE_INTERVAL;
        let message = Message::Announce(self.announced());
        self.send_to_group(&message);
        self.announces += 1;
        for to in self.config.rendezvous.clone() {
            if to != self.config.data {
                let number = self.number_elsewhere();
                let transmit = self.message(to, number, &message);
                self.out.push_back(Output::Transmit(transmit));
            }
        }
    }

    const fn number_elsewhere(&mut self) -> PacketNumber {
        self.elsewhere += 1;
        PacketNumber::new(ChannelId::REPLIES, self.elsewhere - 1)
    }

    const fn numbers(&mut self, count: u32) -> PacketNumber {
        self.group += count as u64;
        PacketNumber::new(ChannelId::GROUP, self.group - count as u64)
    }

    fn message(&mut self, to: SocketAddr, packet_number: PacketNumber, message: &Message<'_>) -> Transmit {
        let header = Header { session: self.side.session(), packet_number };
        let bytes = self.side.to_all(header, message);
        self.charge(bytes.len() as u64 + udp_overhead(to), 1);
        Transmit { to, payload: Payload::Message(bytes) }
    }

    fn group_message(&mut self, message: &Message<'_>) -> Transmit {
        let number = self.numbers(1);
        self.message(self.config.data, number, message)
    }

    fn send_to_group(&mut self, message: &Message<'_>) {
        let transmit = self.group_message(message);
        self.out.push_back(Output::Transmit(transmit));
    }

    /// Charges datagrams of `bytes` bytes in total, on the wire, to the rate.
    fn charge(&mut self, bytes: u64, datagrams: u32) {
        self.bucket.charge(bytes);
        self.counters.wire_bytes += bytes - (ETHERNET_OVERHEAD - ETHERNET_HEADER) * u64::from(datagrams);
    }

    fn event(&mut self, event: SenderEvent) {
        self.out.push_back(Output::Event(event));
    }

    /// Goes over to another stage.
    fn enter(&mut self, stage: Stage) {
        let before = self.phase();
        self.stage = stage;
        let phase = self.phase();
        if phase != before {
            self.event(SenderEvent::Phase(phase));
        }
    }

    fn end(&mut self, outcome: SenderOutcome, code: AbortCode, reason: &str, now: Time) {
        if !self.is_closing() {
            let reason = reason.to_owned();
            self.enter(Stage::Farewell { until: now + FAREWELL, next: now, outcome, code, reason });
        }
    }

    const fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Farewell { .. } | Stage::Finished)
    }

    /// The number of whole passes that were sent.
    const fn whole_passes(&self) -> u32 {
        match self.stage {
            Stage::Pausing { .. } | Stage::LastWords { .. } => self.pass.saturating_add(1),
            _ => self.pass,
        }
    }

    /// Sets the root hash once the whole object is hashed.
    fn set_root_if_hashed(&mut self, now: Time) {
        let all = self.hash_asked == self.config.layout.block_count() && self.hashes_in_flight == 0;
        let values: Option<Vec<Digest>> = self.values.iter().copied().collect();
        if let (None, true, Some(values)) = (self.root, all, values) {
            let root = crate::crypto::digest::root(&values);
            self.root = Some(root);
            self.origin = self.config.origin(root);
            self.event(SenderEvent::Hashed(root));
            if self.origin.is_none() {
                let outcome = SenderOutcome::SourceFailed(NOT_AS_SIGNED.to_owned());
                self.end(outcome, AbortCode::Source, NOT_AS_SIGNED, now);
                return;
            }
            if matches!(self.stage, Stage::Passing | Stage::Pausing { .. }) {
                self.announce_at = now;
            }
        }
    }

    fn hashed(&mut self, block: BlockIndex, value: Digest, is_zero: bool, now: Time) {
        self.hashes_in_flight = self.hashes_in_flight.saturating_sub(1);
        let Some(known) = self.values.get_mut(block.0 as usize) else { return };
        if known.replace(value).is_some_and(|known| known != value) {
            let outcome = SenderOutcome::SourceFailed(SOURCE_CHANGED.to_owned());
            self.end(outcome, AbortCode::Source, SOURCE_CHANGED, now);
            return;
        }
        if is_zero {
            self.zeros.insert(block.0);
        }
        self.set_root_if_hashed(now);
    }

    fn run_due(&mut self, now: Time) {
        if now >= self.ends_at {
            let done = SenderOutcome::SentOneWay(self.whole_passes());
            self.end(done, AbortCode::Finished, "the transfer's time was up", now);
        }
        match &self.stage {
            Stage::WarmingUp { until, .. } if now >= *until => {
                self.pass_began = now;
                self.enter(Stage::Passing);
            }
            Stage::Pausing { until } if now >= *until => self.begin_pass(now),
            // Without its root no device can complete: a large file may still be hashed.
            Stage::LastWords { until, .. } if now >= *until && self.root.is_some() => {
                let done = SenderOutcome::SentOneWay(self.whole_passes());
                self.end(done, AbortCode::Finished, "the sender is done", now);
            }
            Stage::Farewell { until, outcome, .. } if now >= *until => {
                let outcome = outcome.clone();
                self.stage = Stage::Finished;
                self.event(SenderEvent::Finished(outcome));
            }
            _ => {}
        }
        if matches!(self.stage, Stage::Passing | Stage::Pausing { .. }) && now >= self.announce_at {
            self.announce(now);
        }
        if now >= self.check_at && !self.is_closing() {
            self.check_at = now + CHECK_EVERY;
            if !std::mem::replace(&mut self.checking, true) {
                self.out.push_back(Output::Job(SenderJob::CheckSource));
            }
        }
    }
}

impl Machine for Carousel {
    type Job = SenderJob;
    type Done = SenderDone;
    type Event = SenderEvent;

    /// Nothing can come that matters.
    fn handle_datagram(&mut self, _: Time, _: Arrival, _: &mut [u8]) {
        self.counters.ignored += 1;
    }

    fn handle_timeout(&mut self, now: Time) {
        self.run_due(now);
    }

    fn handle_job_done(&mut self, now: Time, done: SenderDone) {
        if self.is_closing() {
            return;
        }
        match done {
            SenderDone::Hashed { block, value, recipe, .. } => {
                self.hashed(block, value, recipe == Recipe::ZERO, now);
            }
            SenderDone::Encoded { block, first, symbols } => {
                let sealed = self.config.group_key.is_some();
                let symbol_size = self.config.layout.symbol_size();
                if self.works.iter_mut().any(|work| work.encoded(block, first, &symbols)) && !sealed {
                    let job = SenderJob::Vouch { block, first, symbols, symbol_size };
                    self.out.push_back(Output::Job(job));
                }
            }
            SenderDone::Digested(block, digests) => {
                self.works.iter_mut().find_map(|work| work.vouched(block, Esi(0), &digests));
            }
            SenderDone::Vouched(block, first, digests) => {
                self.works.iter_mut().find_map(|work| work.vouched(block, first, &digests));
            }
            SenderDone::SourceChecked => self.checking = false,
            SenderDone::SourceFailed(text) => {
                self.end(SenderOutcome::SourceFailed(text.clone()), AbortCode::Source, &text, now);
            }
            SenderDone::WorkerDied(text) => {
                self.end(SenderOutcome::Internal(text.clone()), AbortCode::Internal, &text, now);
            }
            // It asks for none of these.
            SenderDone::Grown(_) | SenderDone::LookedUp(_) | SenderDone::Recorded(_) => {}
        }
    }

    fn handle_absence(&mut self, _: Time, _: Duration) {}

    fn handle_control(&mut self, now: Time, control: Control) {
        match control {
            Control::StartNow => {}
            Control::Interrupt => {
                self.end(
                    SenderOutcome::Interrupted,
                    AbortCode::Interrupted,
                    "interrupted at the sender",
                    now,
                );
            }
        }
    }

    fn set_kernel_drops(&mut self, _drops: u64) {}

    fn sessions(&self) -> Sessions {
        [self.side.session()].into_iter().collect()
    }

    fn poll(&mut self, now: Time) -> Option<Out> {
        if let Some(out) = self.out.pop_front() {
            return Some(out);
        }
        self.prepare();
        if let Some(out) = self.out.pop_front() {
            return Some(out);
        }
        let sent = self.next_paced(now).map(Output::Transmit);
        sent.or_else(|| self.out.pop_front())
    }

    fn next_timeout(&self) -> Time {
        let paced = |at: Time| at.max(self.bucket.ready_at());
        let own = match &self.stage {
            Stage::WarmingUp { until, next } => (*until).min(paced(*next)),
            Stage::LastWords { until, next } => match self.root {
                Some(_) => (*until).min(paced(*next)),
                None => paced(*next),
            },
            Stage::Farewell { until, next, .. } => (*until).min(paced(*next)),
            Stage::Passing if self.can_send() => self.bucket.ready_at().min(self.announce_at),
            Stage::Passing => self.announce_at,
            Stage::Pausing { until } => (*until).min(self.announce_at),
            Stage::Finished => return Time::NEVER,
        };
        if self.is_closing() { own } else { own.min(self.check_at).min(self.ends_at) }
    }

    fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Finished) && self.out.is_empty()
    }
}

#[cfg(test)]
mod tests;
