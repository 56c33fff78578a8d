//! A sender without feedback: it announces its object and sends it pass after pass, and hears nobody.
//!
//! ```text
//!  warming up ──► passing ◄──► pausing           schedule: the steps of a pass, and their order
//!                    │                           work:     a step under way, symbol by symbol
//!                    └──► last words ──► farewell ──► finished
//! ```
//! The line may lose the first and the last datagrams of a transfer, as diodes do. So the session begins with a second
//! of announcements, and ends with half a second of them and as much of ABORTs. All is sent at one rate. Without a
//! group key anybody can forge symbols, and no device can ask for digests. So the digests of all symbols are sent,
//! signed, ahead of them.

mod schedule;
mod work;

pub use schedule::Repetition;

use super::event::{PassProgress, SenderEvent, SenderOutcome, SenderOverview, SenderSnapshot};
use super::job::{SenderDone, SenderJob};
use super::packet_protection::{SenderSide, SymbolSeal};
use super::sender::{SOURCE_CHANGED, SenderConfig};
use super::{Control, Machine, Output, Payload, Sessions, Transmit};
use crate::limits::{ANNOUNCE_INTERVAL, HASHES_PER_PAGE, MAX_BATCH, MAX_ESI, SENDER_REPAIR_BYTES};
use crate::pacing::{ETHERNET_HEADER, ETHERNET_OVERHEAD, RateMode, TokenBucket, udp_overhead};
use crate::task::Summary;
use crate::time::Time;
use crate::units::{Arrival, BlockIndex, ChannelId, Digest, Esi, Rate, SessionId};
use crate::wire::{
    Abort, AbortCode, Announce, Capabilities, HashPage, Header, Message, OneWay, OriginProof, PacketNumber,
    Phase,
};
use schedule::{Schedule, Step, depth, fresh};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;
use work::{Item, Work};

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
/// Steps ahead of the one that is being sent.
const STEPS_AHEAD: usize = 4;
/// Most hash jobs at a time, and how many blocks are hashed ahead of the steps.
const HASHES_IN_FLIGHT: u32 = 4;
const HASH_AHEAD: u32 = 2 * HASHES_PER_PAGE;

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
            side: SenderSide::new(
                config.counter,
                config.signing_key.clone(),
                *config.agreement.expose(),
                config.suite,
                config.group_key.as_ref(),
            ),
            bucket: TokenBucket::new(rate, config.datagram_on_wire(), now),
            rate,
            stage: Stage::WarmingUp { until: now + WARM_UP, next: now },
            values: vec![None; blocks.len()],
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

    /// Supplies the blocks' chaining values of an earlier run. The source is hashed all the same, before its root is
    /// announced. Ignored unless there is exactly one value for each block. Call before driving the machine.
    #[must_use]
    pub fn with_values(mut self, values: Vec<Digest>) -> Self {
        if values.len() == self.values.len() && self.root.is_none() {
            self.values = values.into_iter().map(Some).collect();
        }
        self
    }

    /// The chaining values of all blocks, once they are known.
    #[must_use]
    pub fn values(&self) -> Option<Vec<Digest>> {
        self.values.iter().copied().collect()
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

    const fn phase(&self) -> Phase {
        match (&self.stage, self.pass) {
            (Stage::WarmingUp { .. }, _) => Phase::Gathering,
            (Stage::Passing | Stage::Pausing { .. }, 0) => Phase::Streaming,
            (Stage::Passing | Stage::Pausing { .. }, _) => Phase::Repairing,
            _ => Phase::Lingering,
        }
    }

    /// The session at a glance.
    #[must_use]
    pub fn overview(&self) -> SenderOverview {
        let layout = &self.config.layout;
        let (position, size) = (self.position, layout.object_size());
        SenderOverview {
            phase: self.phase(),
            blocks: layout.block_count(),
            position,
            object_size: size,
            growing: false,
            streamed: (u64::from(position) << layout.block_log2()).min(size),
            skipped: 0,
            rate: self.rate,
            wire_bytes: self.counters.wire_bytes,
            source_symbols: self.counters.source,
            repair_symbols: self.counters.repair,
            unicast_symbols: 0,
            feedback: 0,
            ignored: self.counters.ignored,
            unknown_kinds: 0,
            not_understood: 0,
            suspects: 0,
            expected: None,
            devices: Summary::default(),
            missing: 0,
            passes: Some(PassProgress { pass: self.pass, of: self.passes.count }),
        }
    }

    /// The session at a glance. No devices are known.
    #[must_use]
    pub fn snapshot(&self) -> SenderSnapshot {
        SenderSnapshot { overview: self.overview(), devices: Vec::new() }
    }

    /// The session as it is announced now.
    #[must_use]
    pub fn announced(&self) -> Announce {
        let overhead_per_mille = self.passes.overhead_per_mille;
        let reached = if self.pass == 0 { self.position } else { self.config.layout.block_count() };
        Announce {
            phase: self.phase(),
            position: BlockIndex(reached),
            feedback_budget: 0,
            optional: Capabilities::default(),
            one_way: Some(OneWay { pass: self.pass, overhead_per_mille }),
            origin: self.origin.clone(),
            ..self.config.announce(&self.side, self.root)
        }
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
        if let (None, true, Some(values)) = (self.root, all, self.values()) {
            let root = crate::crypto::digest::root(&values);
            self.root = Some(root);
            self.origin = Some(self.config.origin(root));
            self.event(SenderEvent::Hashed(root));
            if matches!(self.stage, Stage::Passing | Stage::Pausing { .. }) {
                self.announce_at = now;
            }
        }
    }

    fn hashed(&mut self, block: BlockIndex, value: Digest, now: Time) {
        self.hashes_in_flight = self.hashes_in_flight.saturating_sub(1);
        let Some(known) = self.values.get_mut(block.0 as usize) else { return };
        if known.replace(value).is_some_and(|known| known != value) {
            let outcome = SenderOutcome::SourceFailed(SOURCE_CHANGED.to_owned());
            self.end(outcome, AbortCode::Source, SOURCE_CHANGED, now);
            return;
        }
        self.set_root_if_hashed(now);
    }

    /// Takes steps from the schedule, and requests the jobs that they wait for.
    fn prepare(&mut self) {
        if !matches!(self.stage, Stage::WarmingUp { .. } | Stage::Passing) {
            return;
        }
        while self.works.len() < STEPS_AHEAD {
            let encoded: u32 = self.works.iter().map(Work::encoded_symbols).sum();
            let bytes = encoded as usize * usize::from(self.config.layout.symbol_size());
            if bytes >= SENDER_REPAIR_BYTES / 2 {
                break;
            }
            let Some(step) = self.schedule.next() else { break };
            let work = self.work(step);
            self.works.push_back(work);
        }
        let count = self.config.layout.block_count();
        let end = if self.pass == 0 { count.min(self.reached.saturating_add(HASH_AHEAD)) } else { count };
        while self.hash_asked < end && self.hashes_in_flight < HASHES_IN_FLIGHT {
            let job = SenderJob::Hash(BlockIndex(self.hash_asked), self.config.layout);
            self.hash_asked += 1;
            self.hashes_in_flight += 1;
            self.out.push_back(Output::Job(job));
        }
    }

    /// Begins to prepare a step. Sets aside the ESIs of its repair symbols.
    fn work(&mut self, step: Step) -> Work {
        let (layout, sealed) = (self.config.layout, self.config.group_key.is_some());
        match &step {
            Step::Begin | Step::End => Work::new(step, Vec::new(), sealed),
            Step::Page(window) => {
                self.reached = self.reached.max(window.end);
                Work::new(step, Vec::new(), sealed)
            }
            Step::Source(window) => {
                let symbols = |block: u32| (block, 0, layout.source_symbols(BlockIndex(block)));
                let parts: Vec<_> = window.clone().map(symbols).collect();
                for &(block, ..) in parts.iter().filter(|_| !sealed) {
                    let value = self.values[block as usize];
                    let job = SenderJob::Digest { block: BlockIndex(block), layout, value };
                    self.out.push_back(Output::Job(job));
                }
                Work::new(step, parts, sealed)
            }
            Step::Repair(window, columns) => {
                let mut parts = Vec::new();
                for block in window.clone() {
                    let all = self.schedule.repairs(block);
                    let count = columns.end.min(all).saturating_sub(columns.start);
                    if count == 0 {
                        continue;
                    }
                    let (k, next) =
                        (layout.source_symbols(BlockIndex(block)), &mut self.next_repair[block as usize]);
                    let first = fresh(*next, count, k);
                    *next = first + count;
                    debug_assert!(*next <= MAX_ESI + 1);
                    parts.push((block, first, count));
                    let value = self.values[block as usize];
                    let (block, first) = (BlockIndex(block), Esi(first));
                    let job = SenderJob::Encode { block, layout, first, count, value };
                    self.out.push_back(Output::Job(job));
                }
                Work::new(step, parts, sealed)
            }
        }
    }

    /// The page of some blocks, once all its values are known.
    fn page(&self, window: &Range<u32>) -> Option<HashPage> {
        let first = window.start / HASHES_PER_PAGE * HASHES_PER_PAGE;
        let end = (first + HASHES_PER_PAGE).min(self.config.layout.block_count());
        let values: Option<Vec<Digest>> = self.values[first as usize..end as usize].iter().copied().collect();
        let symbols = (first..end).map(|block| self.config.layout.source_symbols(BlockIndex(block)));
        Some(HashPage::raw(BlockIndex(first), values?.into_iter().zip(symbols)))
    }

    /// The next datagrams, if the rate allows any and there are any.
    fn next_paced(&mut self, now: Time) -> Option<Transmit> {
        if !self.bucket.ready(now) {
            return None;
        }
        let can_send = self.can_send();
        match &mut self.stage {
            Stage::WarmingUp { next, .. } | Stage::LastWords { next, .. } if now >= *next => {
                *next = now + EVERY;
                self.announce(now);
                None
            }
            Stage::Farewell { next, code, reason, .. } if now >= *next => {
                *next = now + EVERY;
                let message = Message::Abort(Abort { code: *code, reason: reason.clone() });
                Some(self.group_message(&message))
            }
            Stage::Passing if can_send => self.next_of_pass(now),
            _ => {
                // The pace is constant: it does not make up for idle time.
                self.bucket.rest();
                None
            }
        }
    }

    fn next_of_pass(&mut self, now: Time) -> Option<Transmit> {
        loop {
            let work = self.works.front_mut().filter(|work| work.is_ready())?;
            match work.step.clone() {
                Step::Begin => {
                    self.works.pop_front();
                    self.announce(now);
                    return None;
                }
                Step::End => {
                    self.works.pop_front();
                    self.end_pass(now);
                    return None;
                }
                Step::Page(window) => {
                    let page = self.page(&window)?;
                    self.works.pop_front();
                    return Some(self.group_message(&Message::HashPage(page)));
                }
                Step::Source(window) | Step::Repair(window, _) => {
                    let quantum = self.bucket.quantum() / self.config.datagram_on_wire();
                    let Some(item) = work.next(quantum.clamp(1, MAX_BATCH as u64) as u32) else {
                        self.works.pop_front();
                        self.prepare();
                        self.advance(&window);
                        continue;
                    };
                    return Some(self.transmit(item));
                }
            }
        }
    }

    /// Notes that a step of a window is over.
    fn advance(&mut self, window: &Range<u32>) {
        let blocks = self.config.layout.block_count();
        let more = self.works.iter().any(|work| matches!(&work.step, Step::Repair(w, _) if w == window));
        self.position = match self.pass {
            0 => self.position.max(window.end),
            _ if more => self.position,
            _ => (self.position + depth(&self.config.layout)).min(blocks),
        };
    }

    fn transmit(&mut self, item: Item) -> Transmit {
        let (to, layout) = (self.config.data, self.config.layout);
        let each = self.config.symbol_overhead() as u64 + udp_overhead(to);
        match item {
            Item::Digests(digests) => self.group_message(&Message::SymbolDigests(digests)),
            Item::Source(block, ids) => {
                let payload: usize = ids.clone().map(|id| layout.symbol_range(block, Esi(id)).len()).sum();
                let count = ids.len() as u32;
                self.counters.source += u64::from(count);
                self.charge(payload as u64 + each * u64::from(count), count);
                let packet_number = self.numbers(count);
                Transmit { to, payload: Payload::Source { packet_number, block, layout, ids } }
            }
            Item::Repair { block, first, symbols, range } => {
                let count = (range.len() / usize::from(layout.symbol_size())) as u32;
                self.counters.repair += u64::from(count);
                self.charge(range.len() as u64 + each * u64::from(count), count);
                let packet_number = self.numbers(count);
                Transmit { to, payload: Payload::Repair { packet_number, block, first, symbols, range } }
            }
        }
    }

    /// The last step of a pass was sent.
    fn end_pass(&mut self, now: Time) {
        self.position = self.config.layout.block_count();
        self.announce(now);
        if self.passes.count.is_some_and(|count| self.pass.saturating_add(1) >= count) {
            self.enter(Stage::LastWords { until: now + LAST_WORDS, next: now + EVERY });
        } else {
            let until = (now + self.passes.pause).max(self.pass_began + PASS_EVERY);
            self.enter(Stage::Pausing { until });
            self.run_due(now);
        }
    }

    fn begin_pass(&mut self, now: Time) {
        self.pass = self.pass.saturating_add(1);
        self.pass_began = now;
        self.position = 0;
        self.schedule = Schedule::new(self.config.layout, self.passes.overhead_per_mille, self.pass);
        self.enter(Stage::Passing);
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

    /// Whether the step that comes next can be sent.
    fn can_send(&self) -> bool {
        self.works.front().is_some_and(|work| {
            work.is_ready()
                && if let Step::Page(window) = &work.step { self.page(window).is_some() } else { true }
        })
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
            SenderDone::Hashed(block, value) => self.hashed(block, value, now),
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
