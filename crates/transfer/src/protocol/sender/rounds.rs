//! The group's rounds: a poll invites answers, the planner turns the answers into repairs, the repairs are sent, and
//! the next poll follows. There is one round at a time, beside the stream.

use super::Sender;
use super::channel::Round;
use super::devices::SILENCE_MEANS_NOTHING_LACKS;
use super::planner::{Needs, Plan, PlanKind};
use super::round_trip::RoundTrips;
use super::service::Unlike;
use crate::limits::{ANSWERS_PER_POLL, MAX_CONTROL, MAX_ESI};
use crate::time::Time;
use crate::units::{BlockIndex, Coded, Coding, DeviceIndex, Esi};
use crate::wire::{Deficit, Invitation, Message, Nak, Phase, Poll, RepairAdvertisement};
use std::collections::BTreeMap;
use std::time::Duration;

/// With more devices than this, a round repeats its planned repairs while it is open.
const ECHO_ABOVE: usize = 32;
/// With at most this many devices, each names its missing source symbols: their union may be no larger than a
/// repair.
const WANT_IDS_UP_TO: usize = 4;
/// If fewer than one device in this many answers, most devices lack nothing. Some devices are silent because
/// repairs for others cover them, but not as many as that.
const FEW: f64 = 8.0;
/// Additional time for the answers, for a busy device to react.
const REACTION: Duration = Duration::from_millis(10);
/// Longest pause between polls that bring no answer.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// The estimates from the group's rounds.
#[derive(Debug)]
pub(super) struct GroupRounds {
    /// The GRTT (RFC 5401).
    pub grtt: Duration,
    /// The round-trip times of the devices, from which the GRTT follows.
    pub round_trips: RoundTrips,
    /// Smoothed share of datagrams that the device with the largest deficit loses; 0 to 1.
    pub loss: f64,
    /// Position of the last poll; below, the previous position.
    polled: u32,
    polled_before: u32,
    /// Estimated number of devices that need something.
    needy: f64,
    /// Number of devices that were polled last.
    devices: usize,
    /// The share of devices that the last poll invited, 0 to 1.
    pub probability: f64,
    /// Polls in a row without a result.
    quiet: u32,
    /// Number of rounds that invited every device.
    pub everybody: u32,
    /// Polls in a row that few of the invited devices answered.
    few: u32,
}

impl GroupRounds {
    pub fn new() -> Self {
        Self {
            grtt: RoundTrips::INITIAL,
            round_trips: RoundTrips::default(),
            loss: 0.0,
            polled: 0,
            polled_before: 0,
            needy: 0.0,
            devices: 0,
            probability: 1.0,
            quiet: 0,
            everybody: 0,
            few: 0,
        }
    }

    /// Time that a round takes, and the pause before it, while devices lack something.
    pub fn usual(&self) -> Duration {
        answers_take(self.devices as u32) + self.grtt.mul_f64(2.5) + REACTION * 2
    }

    /// Shortens the pause: a device will soon have something to report.
    pub fn stir(&mut self) {
        self.quiet = 0;
    }

    pub fn pause(&self) -> Duration {
        (self.grtt + REACTION).saturating_mul(1 << self.quiet.min(6)).min(MAX_PAUSE.max(self.grtt * 2))
    }
}

/// Time over which so many answers are spread: half a millisecond for each keeps those of a small group from filling one
/// queue.
fn answers_take(answers: u32) -> Duration {
    Duration::from_micros(500) * answers.saturating_sub(1).min(200)
}

impl Sender {
    /// The number of devices that answer the group's polls.
    fn polled_devices(&self) -> usize {
        self.devices.counts().polled
    }

    /// Whether the group's rounds still serve devices.
    pub(super) fn group_is_busy(&self) -> bool {
        self.devices.counts().in_group > 0
    }

    /// Opens, closes and repeats polls that are due.
    pub(super) fn drive_rounds(&mut self, now: Time) {
        if self.phase == Phase::Gathering || self.shutdown.is_closing() {
            return;
        }
        self.drive_group(now);
        self.drive_unicast_repairs(now);
        if self.stream_done() {
            if self.phase == Phase::Streaming {
                self.set_phase(Phase::Repairing, now);
            }
            self.regroup();
            self.plan_passes();
        }
    }

    /// When a round needs attention next.
    pub(super) fn rounds_timeout(&self) -> Time {
        if self.phase == Phase::Gathering || self.shutdown.is_closing() {
            return Time::NEVER;
        }
        let group = match self.group.round {
            Round::Open { closes, echo, .. } => closes.min(echo),
            Round::Idle { next } if self.group_poll_is_due() => next,
            Round::Idle { .. } => Time::NEVER,
        };
        let unicast_repairs = self.unicast_repairs.iter().filter_map(|&index| {
            let channel = self.devices.get(index).channel.as_ref()?;
            match channel.round {
                Round::Open { closes, .. } => Some(closes),
                Round::Idle { next } => (!channel.has_repairs()).then_some(next),
            }
        });
        unicast_repairs.min().unwrap_or(Time::NEVER).min(group)
    }

    /// Whether there is a reason to poll the group. The caller checks the time.
    fn group_poll_is_due(&self) -> bool {
        let Some(polls) = self.config.repair.polls else { return false };
        if self.group.has_repairs() || self.polled_devices() == 0 {
            return false;
        }
        let position = self.stream.position;
        if self.stream_rests() || self.stream_is_held() {
            let counts = self.devices.counts();
            let served = counts.in_group > counts.waiting;
            return position > 0 && (served || self.rounds.polled < position);
        }
        let step = polls.step(self.pace.rate().0, self.config.layout.block_log2());
        position >= self.rounds.polled.saturating_add(step)
    }

    fn drive_group(&mut self, now: Time) {
        match self.group.round {
            Round::Open { closes, echo, .. } => {
                let all_in =
                    self.rounds.probability >= 1.0 && self.group.answers().len() >= self.polled_devices();
                if now >= closes || all_in {
                    self.close_group_round(now);
                } else if now >= echo {
                    self.echo_poll(now);
                }
            }
            Round::Idle { next } => {
                if now >= next && self.group_poll_is_due() {
                    self.poll_group(now);
                }
            }
        }
    }

    fn poll_group(&mut self, now: Time) {
        let devices = self.polled_devices();
        let position = self.stream.position;
        if position > self.rounds.polled {
            // New blocks: every device may lack something.
            self.rounds.polled_before = self.rounds.polled;
            self.rounds.polled = position;
            self.rounds.needy = devices as f64;
            self.rounds.quiet = 0;
        }
        // Devices that are new to the group lack all that was sent before.
        self.rounds.needy += devices.saturating_sub(self.rounds.devices) as f64;
        self.rounds.devices = devices;
        let needy = self.rounds.needy.clamp(1.0, devices.max(1) as f64);
        // Half a second's worth of answers at most.
        let most = (self.budget().naks() / 2).min(ANSWERS_PER_POLL);
        let probability = (f64::from(most) / needy).min(1.0);
        let answers = (needy * probability).ceil() as u32;
        let window = answers_take(answers);
        let echo = if devices > ECHO_ABOVE { now + window / 2 + self.rounds.grtt } else { Time::NEVER };
        let closes = now + window + self.rounds.grtt.mul_f64(1.5) + REACTION;
        self.rounds.probability = probability;
        let round = self.group.open(now, closes, if echo < closes { echo } else { Time::NEVER });
        if self.stream_rests() {
            // A device may be waiting for the root hash before it commits, or for what has grown.
            self.announce(now);
        }
        let invitation =
            Invitation { probability: (probability * f64::from(u16::MAX)).ceil() as u16, window };
        self.send_group_poll(round, invitation, Vec::new(), now);
    }

    fn send_group_poll(
        &mut self,
        round: u32,
        invitation: Invitation,
        advertised: Vec<RepairAdvertisement>,
        now: Time,
    ) {
        let poll = Poll {
            round,
            position: BlockIndex(self.rounds.polled),
            invitation,
            gsize: self.devices.gsize(),
            want_esis: self.polled_devices() <= WANT_IDS_UP_TO,
            advertised,
        };
        self.send_to_group(&Message::Poll(poll), now);
    }

    /// Repeats the poll with the repairs planned so far. Devices that these repairs cover need not answer.
    fn echo_poll(&mut self, now: Time) {
        if let Round::Open { echo, .. } = &mut self.group.round {
            *echo = Time::NEVER;
        }
        let needs = self.group_needs(self.group.answers());
        let room = (MAX_CONTROL - Poll::FIXED_LEN) / RepairAdvertisement::LEN;
        let loss = self.rounds.loss;
        let advertised: Vec<RepairAdvertisement> = needs
            .maxima()
            .take(room)
            .map(|(block, max)| RepairAdvertisement {
                block: BlockIndex(block),
                symbols: u16::try_from(max + (f64::from(max) * loss) as u32).unwrap_or(u16::MAX),
            })
            .collect();
        if !advertised.is_empty() {
            let none = Invitation { probability: 0, window: Duration::ZERO };
            self.send_group_poll(self.group.round_number, none, advertised, now);
        }
    }

    /// The needs of the group's devices, from their answers.
    fn group_needs(&self, answers: &BTreeMap<DeviceIndex, Nak>) -> Needs {
        let mut needs = Needs::default();
        let pages = self.page_count();
        for (index, nak) in answers {
            let device = self.devices.get(*index);
            // A device out of unicast reach is repaired through the group, but only after the stream.
            let waits = |block| device.service.waits_for(block) && !self.stream_done();
            needs.add(nak, pages, |block| {
                let info = self.blocks.get(block as usize)?;
                let counts = block < self.rounds.polled
                    && block >= self.window.floor()
                    && device.service.group_repairs(block)
                    && !waits(block)
                    && info.last_sent <= nak.largest_received;
                (counts && self.symbols_of(block) > 0).then(|| self.symbols_of(block))
            });
        }
        needs
    }

    fn close_group_round(&mut self, now: Time) {
        let Round::Open { sent, .. } = self.group.round else { return };
        // The answers of rounds must stay within their share of the feedback bound.
        let spacing = Duration::from_secs(1) * (self.group.answers().len() as u32) / self.budget().naks();
        let answers = self.group.close((sent + spacing).max(now));
        let (polled, devices) = (self.polled_devices(), &self.devices);
        let counts = |index| devices.get(index).service.shapes_group();
        self.rounds.grtt = self.rounds.round_trips.group(self.rounds.grtt, polled, counts);
        self.move_to_unicast(&answers, now);
        let needs = self.group_needs(&answers);
        for page in needs.pages() {
            self.group.add_page(page);
        }
        let plans = needs.plan(self.rounds.loss);
        self.learn(answers.len(), &needs, &plans);
        let quiet = plans.is_empty() && !self.group.has_repairs();
        for plan in plans {
            let (kind, first, packed) = self.set_aside(plan.block, plan.kind);
            self.group.push(BlockIndex(plan.block), kind, first, packed);
        }
        if quiet && (self.stream_rests() || self.stream_is_held()) {
            self.rounds.quiet += 1;
            self.group.round = Round::Idle { next: now + self.quiet_pause() };
        } else if !quiet {
            self.rounds.quiet = 0;
        }
    }

    /// Updates the estimates of the loss and of the number of needy devices.
    fn learn(&mut self, answers: usize, needs: &Needs, plans: &[Plan]) {
        let fresh_from = self.rounds.polled_before;
        let shares: Vec<f64> = needs
            .maxima()
            .map(|(block, max)| (block, max, self.symbols_of(block)))
            // Before a block's first repair, its deficit is the loss on the path.
            .filter(|&(block, ..)| block >= fresh_from && !self.is_repaired(block))
            .filter(|&(block, ..)| self.was_sent(block))
            .map(|(_, max, k)| f64::from(max) / f64::from(k))
            .collect();
        if !shares.is_empty() {
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            self.rounds.loss = (0.5 * self.rounds.loss + 0.5 * mean).min(0.5);
        }
        let brought = answers as f64 / self.rounds.probability;
        self.rounds.needy = if plans.is_empty() && answers == 0 {
            // No invited device lacks anything: the next poll invites four times as many.
            self.rounds.needy / 4.0
        } else {
            brought.max(self.rounds.needy / 4.0)
        };
    }

    /// Whether fresh symbols of a block were planned before.
    fn is_repaired(&self, block: u32) -> bool {
        self.blocks[block as usize].next_repair.0 > self.config.layout.source_symbols(BlockIndex(block))
    }

    /// Reserves the ESIs of a plan. Fresh symbols get ESIs that the block has never used. Returns K' of a compressed block
    /// too.
    pub(super) fn set_aside(&mut self, block: u32, kind: PlanKind) -> (PlanKind, Esi, Option<u32>) {
        let Coded { coding, k } = self.coded(block);
        let packed = (coding == Coding::Zstd).then_some(k);
        let info = &mut self.blocks[block as usize];
        match kind {
            PlanKind::Fresh(count) if info.next_repair.0 + count <= MAX_ESI => {
                let first = info.next_repair;
                info.next_repair.0 += count;
                (PlanKind::Fresh(count), first, packed)
            }
            PlanKind::Fresh(_) => (PlanKind::Resend(vec![(0, k)]), Esi(0), packed),
            resend @ PlanKind::Resend(_) => (resend, Esi(0), packed),
        }
    }

    /// Moves devices to unicast whose deficits are unlike the group's: more than three times the median and more
    /// than a tenth of the symbols sent. Unicast repairs serve them, so that the group pays a bounded share for them
    /// (I3). Moves no device if too little is known about the others: their answers may be late or lost.
    fn move_to_unicast(&mut self, answers: &BTreeMap<DeviceIndex, Nak>, now: Time) {
        let polled = self.polled_devices();
        if polled < 2 || !self.config.repair.sets_apart() {
            return;
        }
        let segment = self.symbols_between(self.rounds.polled_before, self.rounds.polled).max(1);
        let totals: BTreeMap<DeviceIndex, u64> =
            answers.iter().map(|(index, nak)| (*index, self.group_deficit(*index, nak))).collect();
        let everybody = self.rounds.probability >= 1.0;
        self.rounds.everybody += u32::from(everybody);
        let rounds = self.rounds.everybody;
        for (&index, &total) in &totals {
            let device = self.devices.get_mut(index);
            if device.service.shapes_group() {
                device.compared.answered(total as f64 / segment as f64, rounds);
            }
        }
        // Not every device was invited, so the estimate is the number of answers divided by the probability.
        let few = answers.len() as f64 / self.rounds.probability * FEW < polled as f64;
        self.rounds.few = if few { self.rounds.few + 1 } else { 0 };
        // No deficit is large enough to be unlike the others, whatever theirs are.
        let least = 0.1 * segment as f64 + 16.0;
        if totals.values().all(|&total| total as f64 <= least) {
            return;
        }
        let shaping = self.devices.iter().filter(|(_, device)| device.service.shapes_group());
        let mut known: Vec<f64> = shaping.filter_map(|(_, device)| device.compared.lacks(rounds)).collect();
        known.sort_unstable_by(f64::total_cmp);
        let median = if known.len() * 2 >= polled {
            known.get((known.len().max(1) - 1) / 2).copied()
        } else {
            (self.rounds.few >= SILENCE_MEANS_NOTHING_LACKS).then_some(0.0)
        };
        let Some(median) = median else { return };
        let limit = (3.0 * median + 0.1) * segment as f64 + 16.0;
        for (index, total) in totals {
            let device = self.devices.get_mut(index);
            if total as f64 > limit
                && device.service.answers_group()
                && !device.service.is_unicast_unreachable()
            {
                device.move_to_unicast(Unlike::Lossy);
                self.tell_if_changed(index, now);
            }
        }
    }

    /// The device's deficit in the blocks that the group repairs for it, in symbols.
    fn group_deficit(&self, index: DeviceIndex, nak: &Nak) -> u64 {
        let device = self.devices.get(index);
        let deficits = nak.deficits.iter().map(|deficit| match deficit {
            Deficit::Whole { first, count } => {
                let end = first.0.saturating_add(*count).min(self.rounds.polled);
                let start = first.0.max(device.service.group_from());
                self.symbols_lost(start, end)
            }
            Deficit::Symbols { block, symbols, .. } if device.service.group_repairs(block.0) => {
                u64::from(*symbols)
            }
            // Forgeries cause these deficits, not the path.
            Deficit::Symbols { .. } | Deficit::Sources { .. } => 0,
        });
        deficits.sum()
    }
}
