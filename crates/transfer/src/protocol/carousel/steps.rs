//! Steps of a pass: what they wait for, and the next datagram at the paced rate.

use super::schedule::{Schedule, Step, depth, fresh};
use super::work::{Item, Work};
use super::{Carousel, EVERY, LAST_WORDS, PASS_EVERY, Stage};
use crate::limits::{HASHES_PER_PAGE, MAX_BATCH, MAX_ESI, SENDER_REPAIR_BYTES};
use crate::pacing::udp_overhead;
use crate::pack::Recipe;
use crate::protocol::job::SenderJob;
use crate::protocol::{Output, Payload, Transmit};
use crate::time::Time;
use crate::units::{BlockIndex, Digest, Esi};
use crate::wire::{Abort, HashPage, Message};
use std::ops::Range;

/// Steps ahead of the one that is being sent.
const STEPS_AHEAD: usize = 4;
/// Most hash jobs at a time, and how many blocks are hashed ahead of the steps.
const HASHES_IN_FLIGHT: u32 = 4;
const HASH_AHEAD: u32 = 2 * HASHES_PER_PAGE;

impl Carousel {
    /// Takes steps from the schedule, and requests the jobs that they wait for.
    pub(super) fn prepare(&mut self) {
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
            let (block, layout) = (BlockIndex(self.hash_asked), self.config.layout);
            let job = SenderJob::Hash { block, layout, level: None };
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
                    let block = BlockIndex(block);
                    let recipe = Recipe::raw(layout.source_symbols(block));
                    let job = SenderJob::Digest { block, layout, recipe, value };
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
                    let recipe = Recipe::raw(k);
                    let job = SenderJob::Encode { block, layout, recipe, first, count, value };
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
    pub(super) fn next_paced(&mut self, now: Time) -> Option<Transmit> {
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

    pub(super) fn begin_pass(&mut self, now: Time) {
        self.pass = self.pass.saturating_add(1);
        self.pass_began = now;
        self.position = 0;
        self.schedule = Schedule::new(self.config.layout, self.passes.overhead_per_mille, self.pass);
        self.enter(Stage::Passing);
    }

    /// Whether the step that comes next can be sent.
    pub(super) fn can_send(&self) -> bool {
        self.works.front().is_some_and(|work| {
            work.is_ready()
                && if let Step::Page(window) = &work.step { self.page(window).is_some() } else { true }
        })
    }
}
