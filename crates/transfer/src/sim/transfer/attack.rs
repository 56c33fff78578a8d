//! Hostile actors in a transfer: their creation, and the checks of the harm that they must not do.

use super::super::actors::{SimActor, device_key, index_of};
use super::super::checks::Ledger;
use super::super::hostile::{Air, Attack, Hostile, HostilePlan, Joins, Lie};
use super::super::network::{NodeId, address};
use super::super::scenario::Scenario;
use super::Transfer;
use crate::limits::{AGREEMENTS_PER_SECOND, MAX_DEVICES, MAX_PENDING_JOINS, MAX_QUEUED_OUTPUTS};
use crate::protocol::event::SenderEvent;
use crate::protocol::packet_protection::SenderSide;
use crate::protocol::sender::Sender;
use crate::sim::sham;
use crate::time::Time;
use crate::units::{Counter, DeviceKey, Digest, Suite};
use crate::wire::Phase;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

/// An empty ledger, for the time before a sender starts.
pub(super) fn no_ledger() -> Rc<RefCell<Ledger>> {
    let side = SenderSide::new(Counter(1), sham::signing_key(0), [1; 32], Suite::default(), None);
    Rc::new(RefCell::new(Ledger::new(side)))
}

/// The initial knowledge of hostile actors.
pub(super) fn air(scenario: &Scenario, object: &[u8]) -> Rc<RefCell<Air>> {
    let root = Digest(*blake3::hash(object).as_bytes());
    let air = Air::new(root, scenario.layout, scenario.devices.len() as NodeId);
    Rc::new(RefCell::new(air))
}

/// Most rows that an insider may have.
fn most_rows(plan: &HostilePlan) -> usize {
    match plan.attack {
        // A quarter of the agreements, and what a burst adds.
        Attack::JoinFlood(Joins::Invented) => {
            let seconds = plan.end.since(plan.start).as_secs_f64() + 1.0;
            (f64::from(AGREEMENTS_PER_SECOND / 4) * seconds) as usize
        }
        // One after the other, for as long as the sender is there, until the address has as many as are free.
        Attack::SlowLiar(Lie::Successors | Lie::Guests) => MAX_DEVICES / 2,
        _ => 64,
    }
}

impl Transfer<'_, '_> {
    pub(super) fn is_hostile(&self, node: NodeId) -> bool {
        node as usize > self.devices.len()
    }

    /// The hostile actor with this number, and its node.
    pub(super) fn hostile(&mut self, index: u32) -> (NodeId, SimActor) {
        let node = self.devices.len() as NodeId + 1 + index;
        let plan = self.scenario.hostile[index as usize].clone();
        // Independent of the run's own random numbers, so that the run is the same with and without
        // enemies.
        let seed = (self.scenario.seed << 3 | u64::from(index)) ^ 0xe71;
        let hostile = Hostile::new(plan, node, seed, self.scenario.group_key, Rc::clone(&self.air));
        (node, SimActor::Hostile(Box::new(hostile)))
    }

    /// The honest device at an address, if there is one.
    pub(super) fn honest_at(&self, at: SocketAddr) -> Option<u32> {
        (0..self.devices.len() as u32).find(|index| address(index + 1) == at)
    }

    /// I6: actors without keys take no row at the sender, and actors with keys take no more than a
    /// device, or as many as one address may agree on.
    pub(super) fn check_table_sizes(&self, [devices, joins, outputs]: [usize; 3]) {
        let most = self.most_rows;
        assert!(devices <= most, "I6: {devices} devices, and {} are there", self.devices.len());
        assert!(joins <= MAX_PENDING_JOINS, "I6: {joins} joins wait");
        assert!(outputs <= MAX_QUEUED_OUTPUTS * 2, "I6: {outputs} outputs wait");
    }

    /// Most rows at the sender.
    pub(super) fn most_rows(&self) -> usize {
        let plans = || self.scenario.hostile.iter().filter(|plan| plan.attack.is_insider());
        // Duplicates of restarted devices have rows of their own, and so has each run that passes the object on.
        let passes_on = |index: u32| {
            let plan = &self.scenario.devices[index as usize];
            plan.loses_power() && plan.pipe.is_some()
        };
        let twice = |index: &u32| self.may_look_like_two(*index) || passes_on(*index);
        let restarted = (0..self.devices.len() as u32).filter(twice).count();
        if self.scenario.listed {
            self.devices.len()
        } else if plans().count() == 0 {
            self.devices.len() + restarted
        } else {
            // A run with another device's identifier gets a row of its own, and such a host starts anew all the time.
            self.devices.len() * 4 + plans().map(most_rows).sum::<usize>()
        }
    }

    /// With a list, nobody else has a row, and the stream starts with all of them, or when the time to wait is over.
    pub(super) fn check_listed(&self, now: Time, sender: &Sender, event: &SenderEvent) {
        if !self.scenario.listed {
            return;
        }
        match event {
            SenderEvent::Joined { device, key, .. } => {
                let index = index_of(*device);
                assert_eq!(*key, Some(DeviceKey::of(&device_key(index))), "device {index} is another one");
            }
            SenderEvent::Phase(Phase::Streaming) if self.scenario.sender.start_now.is_none() => {
                let missing = sender.overview().missing;
                let again = self.scenario.sender.crash.and_then(|(_, back)| back).filter(|back| *back <= now);
                let waited = now.since(again.unwrap_or(Time::ZERO)) >= self.scenario.wait;
                assert!(missing == 0 || waited, "started without {missing} at {now:?}");
            }
            _ => {}
        }
    }

    /// Whether a device may look like two: it was restarted, and an enemy may have held back what it said before.
    fn may_look_like_two(&self, index: u32) -> bool {
        self.scenario.devices[index as usize].loses_power() && !self.scenario.hostile.is_empty()
    }

    /// Checks that a duplicate identifier is reported only in runs that may have one.
    pub(super) fn check_twins(&self, addresses: &[SocketAddr; 2]) {
        let planned = self.scenario.hostile.iter().any(|plan| matches!(plan.attack, Attack::DuplicateId(_)));
        let honest = |at: &SocketAddr| self.honest_at(*at).filter(|&index| !self.may_look_like_two(index));
        let honest = addresses.iter().all(|at| honest(at).is_some());
        assert!(planned || !honest, "duplicates are reported at {addresses:?}, and there are none");
    }
}
