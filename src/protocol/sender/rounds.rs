//! The group's rounds: a poll invites answers, the answers are planned together, the repairs go out,
//! the next poll follows; one round at a time, beside the stream.

use super::Sender;
use super::channel::Round;
use super::devices::SILENCE_MEANS_NOTHING_LACKS;
use super::planner::{Needs, Plan, PlanKind};
use super::round_trip::RoundTrips;
use super::service::Unlike;
use crate::limits::{MAX_CONTROL, MAX_ESI, NAKS_PER_SECOND};
use crate::time::Time;
use crate::units::{BlockIndex, DeviceIndex, Esi};
use crate::wire::{Deficit, Invitation, Message, Nak, Phase, Poll, RepairAdvertisement};
use std::collections::BTreeMap;
use std::time::Duration;

/// With more devices than this, what is planned is echoed while the round is open.
const ECHO_ABOVE: usize = 32;
/// With at most so many devices, the missing source symbols are worth naming: their union may be
/// no larger than a repair.
const WANT_IDS_UP_TO: usize = 4;
/// Fewer than one device in so many lacking something means that most lack nothing. Devices also keep
/// silent because others' answers cover them, but not so many.
const FEW: f64 = 8.0;
/// Time for the answers beyond the round trip: a busy device's reaction.
const REACTION: Duration = Duration::from_millis(10);
/// Longest pause between polls that bring no answer.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// What the group's rounds have taught.
#[derive(Debug)]
pub(super) struct GroupRounds {
    /// The group's round-trip time (RFC 5401's GRTT).
    pub grtt: Duration,
    /// Those of its devices.
    pub round_trips: RoundTrips,
    /// Share of datagrams that the device furthest behind loses, smoothed; 0 to 1.
    pub loss: f64,
    /// Position of the last poll, and of the one before the last that moved it.
    polled: u32,
    polled_before: u32,
    /// How many devices are thought to need something.
    needy: f64,
    /// The last poll's share of devices invited, 0 to 1.
    probability: f64,
    /// Polls in a row that brought nothing to do.
    quiet: u32,
    /// Rounds that invited everybody.
    pub everybody: u32,
    /// Polls in a row whose answers came from few, even if not everybody was invited.
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
            probability: 1.0,
            quiet: 0,
            everybody: 0,
            few: 0,
        }
    }

    /// Somebody will have something to say soon.
    pub fn stir(&mut self) {
        self.quiet = 0;
    }

    pub fn pause(&self) -> Duration {
        (self.grtt + REACTION).saturating_mul(1 << self.quiet.min(6)).min(MAX_PAUSE.max(self.grtt * 2))
    }
}

impl Sender {
    /// Devices that answer the group's polls.
    fn polled_devices(&self) -> usize {
        self.devices.counts().polled
    }

    /// Whether the group has devices of its own left.
    pub(super) fn group_is_busy(&self) -> bool {
        self.devices.counts().in_group > 0
    }

    /// Opens, closes and echoes what is due.
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

    /// Whether there is reason for a poll of the group, once its time has come.
    fn group_poll_is_due(&self) -> bool {
        let Some(polls) = self.config.repair.polls else { return false };
        if self.group.has_repairs() || self.polled_devices() == 0 {
            return false;
        }
        let position = self.stream.position;
        if self.stream_done() {
            return position > 0 && (self.group_is_busy() || self.rounds.polled < position);
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
            // New blocks: anybody may lack something.
            self.rounds.polled_before = self.rounds.polled;
            self.rounds.polled = position;
            self.rounds.needy = devices as f64;
            self.rounds.quiet = 0;
        }
        let needy = self.rounds.needy.clamp(1.0, devices.max(1) as f64);
        let most = self.config.repair.polls.map_or(0, |polls| polls.answers);
        let probability = (f64::from(most) / needy).min(1.0);
        let answers = (needy * probability).ceil() as u32;
        // Half a millisecond each keeps the answers of a small group from meeting in one queue.
        let window = Duration::from_micros(500) * answers.saturating_sub(1).min(200);
        let echo = if devices > ECHO_ABOVE { now + window / 2 + self.rounds.grtt } else { Time::NEVER };
        let closes = now + window + self.rounds.grtt.mul_f64(1.5) + REACTION;
        self.rounds.probability = probability;
        let round = self.group.open(now, closes, if echo < closes { echo } else { Time::NEVER });
        if self.stream_done() {
            // It may be the root hash that keeps a device from committing.
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

    /// Says what the answers so far will bring, so that devices which lack no more stay silent.
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

    /// What the devices of the group lack, according to `answers`.
    fn group_needs(&self, answers: &BTreeMap<DeviceIndex, Nak>) -> Needs {
        let mut needs = Needs::default();
        let pages = self.page_count();
        for (index, nak) in answers {
            let device = self.devices.get(*index);
            // Whoever is out of unicast reach is served by the group, but not at the cost of its stream.
            let waits = |block| device.service.waits_for(block) && !self.stream_done();
            needs.add(nak, pages, |block| {
                let info = self.blocks.get(block as usize)?;
                let counts = block < self.rounds.polled
                    && device.service.group_repairs(block)
                    && !waits(block)
                    && info.last_sent <= nak.largest_received;
                counts.then(|| self.config.layout.source_symbols(BlockIndex(block)))
            });
        }
        needs
    }

    fn close_group_round(&mut self, now: Time) {
        let Round::Open { sent, .. } = self.group.round else { return };
        // The answers of a round may not come faster than their share of the feedback bound.
        let spacing = Duration::from_secs(1) * (self.group.answers().len() as u32) / NAKS_PER_SECOND;
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
            let (kind, first) = self.set_aside(plan.block, plan.kind);
            self.group.push(BlockIndex(plan.block), kind, first);
        }
        if quiet && self.stream_done() {
            self.rounds.quiet += 1;
            self.group.round = Round::Idle { next: now + self.quiet_pause() };
        } else if !quiet {
            self.rounds.quiet = 0;
        }
    }

    /// Learns the loss and the number of needy devices from a round.
    fn learn(&mut self, answers: usize, needs: &Needs, plans: &[Plan]) {
        let fresh_from = self.rounds.polled_before;
        let shares: Vec<f64> = needs
            .maxima()
            .map(|(block, max)| (block, max, self.config.layout.source_symbols(BlockIndex(block))))
            // What a block lacks before its first repair is what the path there lost.
            .filter(|&(block, _, k)| block >= fresh_from && self.blocks[block as usize].next_repair.0 == k)
            .filter(|&(block, ..)| self.was_sent(block))
            .map(|(_, max, k)| f64::from(max) / f64::from(k))
            .collect();
        if !shares.is_empty() {
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            self.rounds.loss = (0.5 * self.rounds.loss + 0.5 * mean).min(0.5);
        }
        let brought = answers as f64 / self.rounds.probability;
        self.rounds.needy = if plans.is_empty() && answers == 0 {
            // Nobody of those invited lacks anything: ask four times as many.
            self.rounds.needy / 4.0
        } else {
            brought.max(self.rounds.needy / 4.0)
        };
    }

    /// Ids for a plan: fresh symbols get ids that were never used in the block.
    pub(super) fn set_aside(&mut self, block: u32, kind: PlanKind) -> (PlanKind, Esi) {
        let k = self.config.layout.source_symbols(BlockIndex(block));
        let info = &mut self.blocks[block as usize];
        match kind {
            PlanKind::Fresh(count) if info.next_repair.0 + count <= MAX_ESI => {
                let first = info.next_repair;
                info.next_repair.0 += count;
                (PlanKind::Fresh(count), first)
            }
            PlanKind::Fresh(_) => (PlanKind::Resend(vec![(0, k)]), Esi(0)),
            resend @ PlanKind::Resend(_) => (resend, Esi(0)),
        }
    }

    /// Moves devices to unicast whose deficits are unlike the group's: more than three times the median and
    /// a tenth of what was sent. What they lack is sent to them alone, so that the group pays a
    /// bounded share for them (I3). Where too little is known of the others (their answers may be
    /// late or lost), nobody is moved to unicast.
    fn move_to_unicast(&mut self, answers: &BTreeMap<DeviceIndex, Nak>, now: Time) {
        let polled = self.polled_devices();
        if polled < 2 || !self.config.repair.sets_apart() {
            return;
        }
        let segment = u64::from(self.rounds.polled - self.rounds.polled_before).max(1);
        let segment = segment * u64::from(self.config.layout.source_symbols(BlockIndex(0)));
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
        // With only some of the devices invited, their number tells what the others' silence does not.
        let few = answers.len() as f64 / self.rounds.probability * FEW < polled as f64;
        self.rounds.few = if few { self.rounds.few + 1 } else { 0 };
        // Nobody lacks so much that it could be unlike the others, whatever they lack.
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

    /// Symbols that a device lacks of the blocks the group repairs for it.
    fn group_deficit(&self, index: DeviceIndex, nak: &Nak) -> u64 {
        let device = self.devices.get(index);
        let deficits = nak.deficits.iter().map(|deficit| match deficit {
            Deficit::Whole { first, count } => {
                let end = first.0.saturating_add(*count).min(self.rounds.polled);
                let start = first.0.max(device.service.group_from());
                let k = self.config.layout.source_symbols(BlockIndex(0));
                self.blocks_lost(start, end) * u64::from(k)
            }
            Deficit::Symbols { block, symbols, .. } if device.service.group_repairs(block.0) => {
                u64::from(*symbols)
            }
            // What a forger does to a device says nothing of the path to it.
            Deficit::Symbols { .. } | Deficit::Sources { .. } => 0,
        });
        deficits.sum()
    }
}
