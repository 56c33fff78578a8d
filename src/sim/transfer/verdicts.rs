//! Checks the end of a transfer: all nodes have ended, both sides agree, and expectations are met.

use super::super::actors::{SimActor, device_id};
use super::super::network::{NodeId, address};
use super::super::scenario::Expectation;
use super::super::world::World;
use super::{BEFORE, SENDER, Transfer};
use crate::protocol::event::{ReceiverOutcome, SenderOutcome};
use crate::status::DeviceStatus;

impl Transfer<'_, '_> {
    /// I5: names the nodes that have not ended.
    pub(super) fn report_hang(&self, world: &World<SimActor>) {
        let at = world.now();
        for node in 0..=self.devices.len() as NodeId {
            match world.actor(node).filter(|_| !world.is_finished(node)) {
                Some(SimActor::Sender(s)) => {
                    panic!("I5: the sender is still running: {:#?}", s.engine.machine().snapshot(at))
                }
                Some(SimActor::Receiver(r)) => {
                    let snapshot = r.engine.machine().snapshot();
                    panic!("I5: device {} is still running: {snapshot:#?} {:?}", node - 1, r.log)
                }
                Some(SimActor::Hostile(_)) | None => {}
            }
        }
        panic!("I5: a hostile actor is still there at {at:?}");
    }

    /// The table's status of a device. If another device used its identifier first, its runs have other
    /// rows, which are identified by their address.
    fn status_of(&self, index: u32) -> Option<DeviceStatus> {
        let rows = self.table.borrow().rows();
        let mut own: Vec<_> = rows.iter().filter(|row| row.address == address(index + 1)).collect();
        own.sort_by_key(|row| (row.status != DeviceStatus::Complete, row.device != device_id(index)));
        own.first().map(|row| row.status.clone())
    }

    /// Checks the end: all nodes have ended, both sides agree, and expectations are met.
    pub(super) fn check_end(&self, world: &World<SimActor>) {
        let scenario = self.scenario;
        let sender_alive = world.actor(SENDER).is_some();
        if sender_alive {
            assert!(world.is_finished(SENDER), "I5: the sender never came to its end");
            let outcome = self.sender_outcome.as_ref().expect("I5: the sender finished with an outcome");
            if scenario.sender.is_steady() {
                assert_eq!(*outcome, SenderOutcome::Ended, "nothing happened to the sender");
            }
        }
        for (index, plan) in (0..).zip(&scenario.devices) {
            let device = &self.devices[index as usize];
            self.checker.check_disk(index, &device.disk, plan.existing.then_some(BEFORE));
            let has = self.checker.has_object(&device.disk);
            let status = self.status_of(index);
            let about = || {
                let (outcome, start) = (&device.outcome, plan.start);
                format!(
                    "device {index} started at {start:?}: {outcome:?}, table: {status:?}, plan: {plan:#?}"
                )
            };
            let alive = world.actor(index + 1).is_some();
            if alive {
                assert!(device.outcome.is_some(), "I5: no outcome: {}", about());
            }
            if status == Some(DeviceStatus::Complete) {
                assert!(has, "I2: {}", about());
            }
            match &device.outcome {
                Some(ReceiverOutcome::Complete { acknowledged }) => {
                    assert!(has, "I1: {}", about());
                    if *acknowledged && sender_alive && scenario.sender.crash.is_none() {
                        assert_eq!(status, Some(DeviceStatus::Complete), "{}", about());
                    }
                }
                Some(ReceiverOutcome::AlreadyComplete) => assert!(has, "I2: {}", about()),
                _ => {}
            }
            match plan.expectation {
                Expectation::Complete => {
                    assert!(has, "it should be complete: {}", about());
                    assert_eq!(status, Some(DeviceStatus::Complete), "{}", about());
                }
                Expectation::Fails => {
                    assert!(!has, "it cannot be complete: {}", about());
                    assert_ne!(status, Some(DeviceStatus::Complete), "{}", about());
                }
                Expectation::Unconfirmed => {
                    assert_ne!(status, Some(DeviceStatus::Complete), "{}", about());
                }
                Expectation::Any => {}
            }
        }
    }
}
