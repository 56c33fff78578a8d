//! Checks the end of a transfer: all nodes have ended, both sides agree, and expectations are met.

use super::super::actors::SimActor;
use super::super::faults::Faults;
use super::super::network::NodeId;
use super::super::scenario::Expectation;
use super::super::world::World;
use super::{BEFORE, SENDER, Transfer};
use crate::protocol::event::{ReceiverOutcome, SenderOutcome};
use crate::task::State;
use crate::wire::AbortCode;

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

    /// The end: everything has ended, both sides agree, and expectations are met.
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
        self.check_agreement(world);
        self.check_time();
        let rows = self.last_rows(world);
        for (index, plan) in (0..).zip(&scenario.devices) {
            let device = &self.devices[index as usize];
            self.checker.check_disk(index, &device.disk, plan.existing.then_some(BEFORE));
            let has = device.has_object(&self.checker);
            let state = self.state_of(&rows, index);
            let about = || {
                let (outcome, start) = (&device.outcome, plan.start);
                format!("device {index} started at {start:?}: {outcome:?}, table: {state:?}, plan: {plan:#?}")
            };
            let alive = world.actor(index + 1).is_some();
            if alive {
                assert!(device.outcome.is_some(), "I5: no outcome: {}", about());
                self.check_device_agreement(world, index);
            }
            if state == Some(State::Complete) {
                assert!(has, "I2: {}", about());
            }
            match &device.outcome {
                Some(ReceiverOutcome::Complete { acknowledged }) => {
                    assert!(has, "I1: {}", about());
                    if *acknowledged && sender_alive && scenario.sender.crash.is_none() {
                        assert_eq!(state, Some(State::Complete), "{}", about());
                    }
                }
                Some(ReceiverOutcome::HookFailed { acknowledged, .. }) => {
                    assert!(has, "I1: {}", about());
                    if *acknowledged && sender_alive && scenario.sender.crash.is_none() {
                        assert!(matches!(state, Some(State::Failed(_))), "{}", about());
                    }
                }
                Some(ReceiverOutcome::SenderAborted(AbortCode::Behind, _)) => {
                    assert!(scenario.sender.is_windowed(), "nothing of the object is gone: {}", about());
                }
                Some(ReceiverOutcome::AlreadyComplete) => assert!(has, "I2: {}", about()),
                _ => {}
            }
            match plan.expectation {
                Expectation::Complete => {
                    assert!(has, "it should be complete: {}", about());
                    let fails = plan.hook.is_some_and(|(_, status)| status != 0);
                    let right = matches!(state, Some(State::Failed(_)) if fails)
                        || state == Some(State::Complete) && !fails;
                    assert!(right, "{}", about());
                }
                Expectation::Fails => {
                    assert!(!has, "it cannot be complete: {}", about());
                    assert_ne!(state, Some(State::Complete), "{}", about());
                }
                Expectation::Unconfirmed => {
                    assert_ne!(state, Some(State::Complete), "{}", about());
                }
                Expectation::Any => {}
            }
        }
    }

    /// All faults of the run.
    pub(super) fn struck(&self, world: &World<SimActor>) -> Faults {
        let mut faults = self.faults.clone();
        for device in &self.devices {
            faults.add(&device.disk.struck());
            device.output.iter().for_each(|output| faults.add(&output.struck()));
            if matches!(&device.outcome, Some(ReceiverOutcome::SenderAborted(AbortCode::Behind, _))) {
                faults.count("window: device behind, or too late");
            }
        }
        faults.of_network(&world.network.counts);
        faults.add(&self.air.borrow().struck);
        faults
    }
}
