//! Makes the nodes of a transfer when they start.

use super::super::actors::{self, SimActor};
use super::super::checks::Checker;
use super::super::node::Actor;
use super::Transfer;
use super::watch::Watch;
use crate::time::Time;
use crate::units::{BlockIndex, Counter};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

impl Transfer<'_, '_> {
    pub(super) fn sender(&mut self, now: Time) -> SimActor {
        self.sender_incarnation += 1;
        self.sender_seen = 0;
        self.watch = Watch::begun(now);
        self.sender_outcome = None;
        self.store = actors::new_store(self.scenario);
        let counter = Counter(self.scenario.seed << 8 | self.sender_incarnation);
        let log2 = self.scenario.layout.block_log2();
        let growth = self.scenario.sender.growth;
        let source = growth.map(|growth| self.source.growing(log2, growth.dies_after, growth.window));
        let (source, plans) = (source.unwrap_or_else(|| self.source.clone()), Rc::clone(&self.plans));
        let seed = self.rng.u64(..);
        let (mut actor, ledger) =
            actors::sender(self.scenario, counter, seed, source, plans, self.store.clone(), now);
        self.ledger = Rc::new(RefCell::new(ledger));
        actor.net().ledger = Some(Rc::clone(&self.ledger));
        actor
    }

    /// An earlier version of the object with `percent` unchanged blocks. Two versions with the same
    /// percentage have the same unchanged blocks.
    fn earlier(&self, percent: u8) -> Arc<Vec<u8>> {
        let layout = &self.scenario.layout;
        let mut bytes = self.object.to_vec();
        let mut rng = fastrand::Rng::with_seed(self.scenario.seed ^ 0xeaf);
        for block in (0..layout.block_count()).map(BlockIndex) {
            if rng.u8(..100) >= percent {
                let at = layout.block_offset(block) as usize + rng.usize(..layout.block_len(block));
                bytes[at] ^= 0x55;
            }
        }
        Arc::new(bytes)
    }

    pub(super) fn buffer_bytes(&self, index: u32) -> usize {
        Checker::buffer_bytes(
            &self.scenario.first_layout(),
            self.scenario.devices[index as usize].buffer_blocks,
        )
    }

    pub(super) fn receiver(&mut self, index: u32, now: Time) -> SimActor {
        let plan = &self.scenario.devices[index as usize];
        let buffer_bytes = self.buffer_bytes(index);
        let earlier = plan.earlier.map(|percent| self.earlier(percent));
        let device = &mut self.devices[index as usize];
        device.incarnation += 1;
        device.outcome = None;
        device.seen = 0;
        device.untouched = Some(device.changes());
        let seeds = [self.rng.u64(..), self.rng.u64(..)];
        let shared = (Rc::clone(&self.plans), self.likely.clone());
        let disks = (device.disk.clone(), earlier, device.output.clone());
        actors::receiver(plan, index, seeds, disks, buffer_bytes, shared, (self.scenario.group_key, now))
    }
}
