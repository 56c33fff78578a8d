//! The rates that follow from the devices' reports of arrivals.
//!
//! The group: a change of its rate begins an epoch. Stretches of datagrams sent wholly within the epoch are evaluated
//! for each device. When enough devices have reported, the epoch ends, and the slowest path decides. A device that
//! carries less than half of the others' rate does not decide, unless the user's policy says so: it is moved to
//! unicast. So no report, true or false, costs the group more than half of its rate (I3).
//!
//! Unicast repair: the same for one device alone.

use super::service::Unlike;
use super::{Sender, SlowPolicy};
use crate::limits::UNICAST_SHARE_PERCENT;
use crate::pacing::{Clear, Finding, RateController, RateMode, Trial};
use crate::task::State;
use crate::time::Time;
use crate::units::{ChannelId, DeviceIndex, Rate};
use crate::wire::Arrivals;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most devices whose reports an epoch waits for.
const ENOUGH: usize = 16;
/// Longest wait of an epoch for further reports if most devices have reported ...
const PATIENCE: Duration = Duration::from_millis(250);
/// ... and if few have: the others may be further away, or silent.
const LONG_PATIENCE: Duration = Duration::from_secs(1);
/// A device that carries less than this share of the usual rate is too slow for the group ...
const TOO_SLOW: f64 = 0.5;
/// ... if that happens in this many epochs in a row.
const SLOW_LOOKS: u32 = 2;

/// The reports of the present epoch.
#[derive(Debug, Default)]
pub(super) struct Epoch {
    reports: BTreeMap<DeviceIndex, Carried>,
    first_at: Option<Time>,
}

/// The result of a device's latest report in this epoch, in bits per second.
#[derive(Clone, Copy, Debug)]
enum Carried {
    /// The path carried everything that was sent, and at best `best` recently.
    All { sending: f64, best: f64, clear: Clear },
    /// The path carried at most this share of what was sent.
    Part { sending: f64, share: f64 },
}

impl Carried {
    fn rate(self) -> f64 {
        match self {
            Self::All { sending, best, .. } => sending.max(best),
            Self::Part { sending, share } => sending * share,
        }
    }
}

/// The evaluation of an epoch's reports.
#[derive(Debug, Default)]
struct Weighed {
    /// Of the devices that do not carry everything: what was sent to the slowest one, and the share that it
    /// carries.
    slowest: Option<(f64, f64)>,
    /// Of the devices that do: the least that was sent, and their common findings.
    clear: Option<(f64, Clear)>,
    /// Whether at most half of the devices do not carry everything, and unicast could serve each of these.
    few_are_slower: bool,
}

/// The share of a rate that unicast repairs may take while the group has work.
pub(super) const fn unicast_share(rate: Rate) -> Rate {
    Rate(rate.0 * UNICAST_SHARE_PERCENT / 100)
}

impl Sender {
    /// Handles a device's arrivals on the group's channel or on its own.
    pub(super) fn arrivals(&mut self, index: DeviceIndex, arrivals: &Arrivals, overflowed: bool, now: Time) {
        if arrivals.last.channel() != ChannelId::GROUP {
            self.unicast_arrivals(index, arrivals, overflowed, now);
            return;
        }
        if self.devices.get(index).is_final() || !self.group.has_sent(arrivals.last) {
            return;
        }
        let Some(sample) = self.pace.sample(arrivals, overflowed) else { return };
        let sending = self.pace.sending(&sample);
        let trial = self.pace.trial();
        let device = self.devices.get_mut(index);
        let finding = device.path.observe(now, &sample, trial);
        if !device.service.shapes_group() {
            return;
        }
        let carried = match finding {
            Finding::Nothing => return,
            Finding::Clear(clear) => {
                Carried::All { sending, best: self.pace.in_bits(device.path.best()), clear }
            }
            Finding::Congested(share) => Carried::Part { sending: self.pace.burst(sending), share },
        };
        self.epoch.first_at.get_or_insert(now);
        self.epoch.reports.insert(index, carried);
        self.judge_rate(now);
    }

    /// Ends the epoch if enough devices have reported.
    fn judge_rate(&mut self, now: Time) {
        // Some may have ended, or have been moved to unicast, since they reported.
        let devices = &self.devices;
        self.epoch.reports.retain(|&index, _| devices.get(index).service.shapes_group());
        let active = self.devices.counts().polled.min(ENOUGH);
        let most = self.epoch.reports.len() * 2 > active;
        let patience = if most { PATIENCE } else { LONG_PATIENCE };
        let waited = self.epoch.first_at.is_some_and(|at| now >= at + patience);
        if self.epoch.reports.len() < active && !waited {
            return;
        }
        let reports = std::mem::take(&mut self.epoch).reports;
        let mut rates: Vec<f64> = reports.values().map(|carried| carried.rate()).collect();
        rates.sort_unstable_by(f64::total_cmp);
        // Whoever is slow is so beside the others: too few of them tell nothing.
        let usual = if most { rates[rates.len() / 2] } else { 0.0 };
        let weighed = self.weigh(reports, usual, now);
        // At the start, nobody knows what the others carry: as long as half of them or more carry all,
        // it goes on, until a slow one turns out to carry too little beside them, or they do not.
        let outvoted = most && weighed.few_are_slower && self.pace.trial() == Trial::Start;
        let next = self.group.next_counter();
        let changed = match (weighed.slowest, weighed.clear) {
            (Some(_), Some((sent, clear))) if outvoted && self.pace.clear(sent, clear, next, now) => true,
            (Some((sending, share)), _) => self.pace.congested(sending, share, next, now),
            (None, Some((sent, clear))) => self.pace.clear(sent, clear, next, now),
            (None, None) => false,
        };
        if changed {
            let datagram = self.datagram_on_wire();
            self.unicast_share.set_rate(unicast_share(self.pace.rate()), datagram, now);
        }
    }

    /// Moves devices to unicast that are too slow compared with the `usual` bits per second, and evaluates
    /// the others.
    fn weigh(&mut self, reports: BTreeMap<DeviceIndex, Carried>, usual: f64, now: Time) -> Weighed {
        let (count, mut slower, mut may_go) = (reports.len(), 0, true);
        let mut weighed = Weighed::default();
        for (index, carried) in reports {
            let may_defer = self.may_defer(index);
            let keep = self.config.repair.slow == SlowPolicy::Keep;
            let device = self.devices.get_mut(index);
            let (looks, service) = (&mut device.compared.slow_looks, &mut device.service);
            // Not even if only the group reaches it.
            let may_leave = may_defer || !keep && service.is_unicast_unreachable();
            match carried {
                Carried::Part { .. } if carried.rate() < usual * TOO_SLOW && may_leave => {
                    // Once may have been a hiccup of its own: that is nothing for the others to wait for.
                    *looks += 1;
                    if *looks >= SLOW_LOOKS && may_defer {
                        self.too_slow(index, now);
                    } else if *looks >= SLOW_LOOKS {
                        service.wait_for_the_end();
                    }
                }
                Carried::Part { sending, share } => {
                    *looks = 0;
                    slower += 1;
                    may_go &= may_defer;
                    if weighed.slowest.is_none_or(|(s, h)| sending * share < s * h) {
                        weighed.slowest = Some((sending, share));
                    }
                }
                Carried::All { sending, clear, .. } => {
                    *looks = 0;
                    let (least, all) = weighed.clear.unwrap_or((sending, clear));
                    weighed.clear = Some((least.min(sending), all.and(clear)));
                }
            }
        }
        weighed.few_are_slower = may_go && slower * 2 <= count;
        weighed
    }

    /// Whether a device may be moved to unicast because it is slow: only if unicast reaches it, and, after
    /// regrouping, only if the device is then served alone.
    fn may_defer(&self, index: DeviceIndex) -> bool {
        let device = self.devices.get(index);
        match self.config.repair.slow {
            SlowPolicy::Keep => false,
            SlowPolicy::Defer => !device.service.is_unicast_unreachable(),
            SlowPolicy::Drop => !device.service.is_unicast_unreachable() && !device.regrouped,
        }
    }

    /// Handles a device that would slow the others down. It is served by unicast after the stream, or fails.
    /// Meanwhile it takes the symbols of the stream that arrive, as its path is full anyway.
    fn too_slow(&mut self, index: DeviceIndex, now: Time) {
        let cause = self.devices.get_mut(index).move_to_unicast(Unlike::Slow).word();
        if self.config.repair.slow == SlowPolicy::Drop {
            let reason =
                format!("too slow for the group ({cause}); without --slow drop it is served afterwards");
            self.set_state(index, State::Failed(reason), now);
            self.end_if_done(now);
            return;
        }
        self.tell_if_changed(index, now);
    }

    /// The controller with which unicast repair of the device begins.
    pub(super) fn unicast_controller(&self, index: DeviceIndex, now: Time) -> RateController {
        let device = self.devices.get(index);
        let known = device
            .path
            .carries()
            .filter(|_| device.service.is_slow())
            .map(|carried| self.pace.in_bits(carried));
        let rate = known.map_or(self.pace.rate(), |rate| Rate(rate as u64));
        RateController::knowing(RateMode::Auto(self.pace.mode().most()), rate, now)
    }

    /// Handles the arrivals on a device's own channel.
    fn unicast_arrivals(&mut self, index: DeviceIndex, arrivals: &Arrivals, overflowed: bool, now: Time) {
        let device = self.devices.get_mut(index);
        let Some(channel) = device.channel.as_mut().filter(|c| c.has_sent(arrivals.last)) else { return };
        let next = channel.next_counter();
        let Some(pace) = &mut channel.pace else { return };
        let Some(sample) = pace.sample(arrivals, overflowed) else { return };
        let sending = pace.sending(&sample);
        match device.path.observe(now, &sample, pace.trial()) {
            Finding::Nothing => {}
            Finding::Clear(clear) => {
                pace.clear(sending, clear, next, now);
            }
            Finding::Congested(share) => {
                pace.congested(pace.burst(sending), share, next, now);
            }
        }
    }
}
