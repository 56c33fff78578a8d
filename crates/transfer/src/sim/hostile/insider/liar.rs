//! Slow liars: devices that keep the sender busy for as long as they can.

use super::super::Attack;
use super::super::actors::Means;
use super::Insider;
use crate::limits::{DEVICE_SERVICE, DEVICE_SERVICE_OF_STREAM, DEVICE_STALL, DEVICE_SYNC};
use crate::sim::fakes::any_report;
use crate::sim::network::NodeId;
use crate::time::Time;
use crate::units::{BlockIndex, ChannelId, DeviceId};
use crate::wire::{Arrivals, Complete, Deficit, Message, Nak, PacketNumber, Progress};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How a slow liar keeps the sender busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Everything is missing, in answer to each poll; and just before each time limit, one symbol less.
    Greedy,
    /// More than there is is missing, as of long ago, so that nothing is sent; and just before each time limit, one
    /// symbol less.
    Frugal,
    /// A new run just before each time limit.
    Restarts,
    /// Everything is verified, and no receipt follows.
    NoReceipt,
    /// Something is missing, in late answers to old polls.
    Late,
    /// Its path carries half of what it lately carried.
    Slow,
    /// Another invented device just before each time limit.
    Successors,
    /// Another invented device with a false receipt every few seconds.
    Guests,
}

impl Lie {
    /// All lies.
    pub const ALL: [Self; 8] = [
        Self::Greedy,
        Self::Frugal,
        Self::Restarts,
        Self::NoReceipt,
        Self::Late,
        Self::Slow,
        Self::Successors,
        Self::Guests,
    ];

    /// The class that counts its datagrams.
    pub(in super::super) const fn class(self) -> &'static str {
        match self {
            Self::Greedy => "slow liar: everything is missing",
            Self::Frugal => "slow liar: progress without end",
            Self::Restarts => "slow liar: runs without end",
            Self::NoReceipt => "slow liar: no receipt",
            Self::Late => "slow liar: answers to old polls",
            Self::Slow => "slow liar: a path half as fast",
            Self::Successors => "slow liar: one invented device after the other",
            Self::Guests => "slow liar: invented devices with receipts",
        }
    }

    /// The longest time for which it keeps a sender whose stream `took` so long; `None` if only `--max-time` ends that.
    #[must_use]
    pub fn keeps(self, took: Duration) -> Option<Duration> {
        match self {
            Self::Late | Self::Slow => Some(DEVICE_STALL * 2),
            // Where unicast does not reach it, a greedy one is sent nothing either.
            Self::Greedy | Self::Frugal => Some(DEVICE_SYNC + DEVICE_STALL * 2),
            Self::Restarts => Some(DEVICE_SERVICE + took.saturating_mul(DEVICE_SERVICE_OF_STREAM)),
            Self::NoReceipt => Some(DEVICE_SYNC),
            Self::Guests => Some(Duration::ZERO),
            Self::Successors => None,
        }
    }

    /// Time between two signs of progress.
    const fn period(self) -> Duration {
        match self {
            Self::Guests => Duration::from_secs(5),
            _ => Duration::from_secs(DEVICE_STALL.as_secs() - 6),
        }
    }

    pub(super) const fn identifier(self, node: NodeId, run: u32) -> DeviceId {
        let mut id = [0xcc; 16];
        id[0] = node as u8;
        if matches!(self, Self::Successors | Self::Guests) {
            [id[14], id[15]] = (run as u16).to_be_bytes();
        }
        DeviceId(id)
    }
}

/// The state of a slow liar.
#[derive(Default)]
pub(super) struct Liar {
    /// Time of the last sign of progress, and their number.
    progress: Option<Time>,
    gained: u32,
    /// The highest packet number of each channel.
    newest: BTreeMap<ChannelId, PacketNumber>,
    stretch: Option<Stretch>,
    /// Rates of recent stretches, in datagrams a second.
    rates: VecDeque<(Time, f64)>,
}

/// How the group's datagrams really arrived since the last report.
#[derive(Clone, Copy)]
struct Stretch {
    first: (PacketNumber, Time),
    last: (PacketNumber, Time),
    received: u32,
}

/// Time after which a sender has forgotten what a path carried.
const FORGOTTEN: Duration = Duration::from_secs(11);
/// The share of the best rate that the liar still carries. It is not yet too slow for the group.
const CARRIES: f64 = 0.53;

impl Liar {
    /// Notes a datagram of this number.
    pub fn arrived(&mut self, number: PacketNumber, now: Time) {
        let newest = self.newest.entry(number.channel()).or_insert(number);
        *newest = number.max(*newest);
        if number.channel() != ChannelId::GROUP {
            return;
        }
        match &mut self.stretch {
            None => self.stretch = Some(Stretch { first: (number, now), last: (number, now), received: 1 }),
            Some(stretch) if number > stretch.last.0 => {
                stretch.last = (number, now);
                stretch.received += 1;
            }
            Some(_) => {}
        }
    }

    /// The arrivals on a path that carries half of what it lately carried.
    fn slow_arrivals(&mut self, now: Time) -> Option<Arrivals> {
        let stretch = self.stretch.filter(|stretch| stretch.received > 30)?;
        self.stretch = None;
        let took = stretch.last.1.since(stretch.first.1);
        let sent = stretch.last.0.counter() - stretch.first.0.counter();
        let rate = sent as f64 / took.as_secs_f64().max(1e-3);
        self.rates.push_back((now, rate));
        while self.rates.front().is_some_and(|&(at, _)| now.since(at) > FORGOTTEN) {
            self.rates.pop_front();
        }
        let best = self.rates.iter().map(|&(_, rate)| rate).fold(0.0, f64::max);
        let share = (best * CARRIES / rate).min(1.0);
        // A queue grows, and drops the rest.
        let received =
            if share < 1.0 { (f64::from(stretch.received) * 0.9) as u32 } else { stretch.received };
        let elapsed = if share < 1.0 { took.mul_f64(0.9 / share) } else { took };
        let last_at = stretch.last.1 + elapsed.saturating_sub(took);
        Some(Arrivals {
            first: stretch.first.0,
            last: stretch.last.0,
            received,
            elapsed_us: elapsed.as_micros() as u32,
            last_at_us: last_at.0 / 1_000,
        })
    }
}

impl Insider {
    /// Speaks often enough not to be lost, and makes progress just before it would be given up.
    pub(super) fn act_slowly(&mut self, means: &mut Means, lie: Lie, now: Time) {
        let since = *self.liar.progress.get_or_insert(now);
        let blocks = means.air.borrow().layout.block_count();
        if now.since(since) >= lie.period() {
            self.liar.progress = None;
            self.liar.gained += 1;
            if matches!(lie, Lie::Restarts | Lie::Successors | Lie::Guests) {
                self.begin(means);
                self.join(means);
                return;
            }
        }
        let report = match lie {
            Lie::NoReceipt => any_report(blocks),
            Lie::Slow => Progress { arrivals: self.liar.slow_arrivals(now), ..any_report(0) },
            _ => any_report(0),
        };
        self.say(means, &Message::Progress(report));
        match lie {
            Lie::Guests => {
                let root = means.air.borrow().root;
                self.say(means, &Message::Complete(Complete::named(root, 0, 0)));
            }
            Lie::Frugal => {
                let symbols = u16::MAX - self.liar.gained as u16;
                let huge = Deficit::Symbols { block: BlockIndex(0), symbols, missing: Vec::new() };
                let nak = self.lacking(means, 1, PacketNumber::new(ChannelId::GROUP, 0));
                self.say(means, &Message::Nak(Nak { deficits: vec![huge], ..nak }));
            }
            _ => {}
        }
    }

    /// Answers a poll on this channel.
    pub(super) fn answer_slowly(&mut self, means: &mut Means, polled: ChannelId) {
        let (Some(device), Attack::SlowLiar(lie)) = (&self.device, means.attack) else { return };
        let Some(newest) = self.liar.newest.get(&polled).copied() else { return };
        let round = device.rounds.get(&polled).copied().unwrap_or_default();
        if device.channel() == ChannelId::GROUP {
            return;
        }
        let nak = match lie {
            Lie::Greedy => self.lacking(means, round, newest),
            Lie::Late => {
                let round = if means.rng.bool() { round.saturating_sub(20).max(1) } else { round };
                let symbols = means.rng.u16(1..4);
                let something = Deficit::Symbols { block: BlockIndex(0), symbols, missing: Vec::new() };
                Nak { deficits: vec![something], ..self.lacking(means, round, newest) }
            }
            _ => return,
        };
        self.say(means, &Message::Nak(nak));
    }

    /// A summary in which all symbols are missing but those that it claims to have gained.
    fn lacking(&self, means: &Means, round: u32, largest_received: PacketNumber) -> Nak {
        let layout = means.air.borrow().layout;
        let (blocks, k) = (layout.block_count(), layout.source_symbols(BlockIndex(0)).max(1));
        let left = blocks.saturating_mul(k).saturating_sub(self.liar.gained);
        let mut deficits = Vec::new();
        if left >= k {
            deficits.push(Deficit::Whole { first: BlockIndex(0), count: left / k });
        }
        if left % k > 0 {
            let symbols = (left % k).min(u16::MAX.into()) as u16;
            deficits.push(Deficit::Symbols { block: BlockIndex(left / k), symbols, missing: Vec::new() });
        }
        Nak { round, largest_received, ack_delay_us: 0, incomplete: blocks, pages: Vec::new(), deficits }
    }
}
