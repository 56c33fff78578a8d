//! When what happened at a sender, and the checks of it: no enemy keeps a sender longer than documented.

use super::Transfer;
use crate::limits::{DEVICE_STALL, STRANGERS_SHARE_PERCENT};
use crate::protocol::event::{SenderEvent, SenderOutcome};
use crate::time::Time;
use crate::units::DeviceId;
use crate::wire::Phase;
use std::collections::BTreeSet;
use std::time::Duration;

/// Times of one run of a sender.
#[derive(Debug, Default)]
pub(super) struct Watch {
    begun: Time,
    streaming: Option<Time>,
    /// When the stream was over.
    repairing: Option<Time>,
    lingering: Option<Time>,
    /// When an honest device last joined or had another state.
    honest: Time,
    ended: Option<Time>,
    joined: BTreeSet<DeviceId>,
}

/// Time that the sender may take for what is due: a sweep of its devices, the silence of those that have gone, records,
/// the last messages.
const SLACK: Duration = Duration::from_secs(90);

impl Watch {
    /// A sender that starts now.
    pub fn begun(now: Time) -> Self {
        Self { begun: now, honest: now, ..Self::default() }
    }
}

impl Transfer<'_, '_> {
    /// Notes an event. After lingering, no new device is let in.
    pub(super) fn watch(&mut self, now: Time, event: &SenderEvent) {
        match event {
            SenderEvent::Phase(Phase::Streaming) => self.watch.streaming = Some(now),
            SenderEvent::Phase(Phase::Repairing) => self.watch.repairing = Some(now),
            SenderEvent::Phase(Phase::Lingering) => {
                self.watch.lingering.get_or_insert(now);
            }
            SenderEvent::Joined { device, address, .. } => {
                let until = self.watch.lingering.map(|at| at + self.scenario.linger);
                let new = self.watch.joined.insert(*device);
                let in_time = until.is_none_or(|until| now <= until);
                assert!(!new || in_time, "{device:?} joins at {now:?}, after lingering until {until:?}");
                if self.honest_at(*address).is_some() {
                    self.watch.honest = now;
                }
            }
            SenderEvent::Device(row)
                if row.transfer.address.is_some_and(|at| self.honest_at(at).is_some()) =>
            {
                self.watch.honest = now;
            }
            SenderEvent::Finished(_) => self.watch.ended = Some(now),
            _ => {}
        }
    }

    /// The answers of the last second to addresses that are not known to be reachable: so many in all and for each
    /// address, and a small share of the rate.
    pub(super) fn check_answers(&self, now: Time) {
        let streams = self.watch.streaming.is_some_and(|since| now > since + Duration::from_secs(1));
        let most = self.scenario.rate * STRANGERS_SHARE_PERCENT / 100;
        self.ledger.borrow_mut().check_answers(
            now,
            self.scenario.feedback().agreements(),
            streams.then_some(most),
        );
    }

    /// A slow liar keeps the sender no longer than it can; `--max-time` ends it in any case.
    pub(super) fn check_time(&self) {
        let Some(ended) = self.watch.ended else { return };
        let Watch { begun, streaming, repairing, honest, .. } = self.watch;
        if let Some(most) = self.scenario.max_time {
            assert!(ended <= begun + most + SLACK, "{most:?} were given, and it ended at {ended:?}");
        }
        let lies = self.scenario.hostile.iter().filter_map(|plan| plan.attack.lie());
        let took = repairing.unwrap_or(ended).since(streaming.unwrap_or(ended));
        let kept: Option<Vec<Duration>> = lies.map(|lie| lie.keeps(took)).collect();
        let planned = self.sender_outcome == Some(SenderOutcome::Ended) && self.scenario.sender.is_steady();
        if let Some(most) = kept.unwrap_or_default().into_iter().max().filter(|_| planned) {
            let since = honest.max(repairing.unwrap_or(begun));
            let until = since + most + self.scenario.linger + DEVICE_STALL + SLACK;
            assert!(ended <= until, "a liar keeps the sender from {since:?} to {ended:?}, not to {until:?}");
        }
    }
}
