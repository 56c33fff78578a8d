//! Receipts that say how a device's hook ended.

use super::*;
use crate::task::Step;

impl Bench {
    fn complete_with(&mut self, device: u8, hook: Option<i32>) {
        let root = self.sender.root.unwrap();
        self.hear(device, &Message::Complete(Complete { hook, ..Complete::named(root, 1, 0) }));
    }

    fn steps(&self, device: u8) -> Vec<Step> {
        let index = self.sender.devices.index_of(id(device)).unwrap();
        self.sender.devices.get(index).assignment.steps().to_vec()
    }

    fn attempts(&self, device: u8) -> u32 {
        let index = self.sender.devices.index_of(id(device)).unwrap();
        self.sender.devices.get(index).assignment.attempts
    }
}

#[test]
fn a_hook_that_failed_makes_its_device_fail() {
    let linger = |config: &mut SenderConfig| config.linger = Duration::from_secs(3600);
    let mut bench = Bench::new(4, linger);
    (1..=3).for_each(|device| bench.join(device, 1));
    bench.pass_reporting(2, &[(1, 4), (2, 4), (3, 4)]);
    bench.complete_with(1, Some(0));
    bench.complete_with(2, Some(3));
    bench.complete_with(3, None);
    assert_eq!((bench.state(1), bench.state(3)), (State::Complete, State::Complete));
    assert_eq!(bench.steps(1), [Step::Transfer, Step::Hook(0)]);
    let failed = State::Failed("its --then command exited with 3".into());
    assert_eq!((bench.state(2), bench.kept(2)), (failed.clone(), Some(failed.clone())));
    // Its acknowledgement was lost.
    for _ in 0..3 {
        bench.complete_with(2, Some(3));
    }
    assert_eq!((bench.state(2), bench.attempts(2)), (failed, 1));
    assert_eq!(bench.steps(2), [Step::Transfer, Step::Hook(3)]);
}

#[test]
fn a_sender_that_lingers_for_ever_waits_for_its_first_device_too() {
    for linger in [FOREVER, Duration::from_secs(3600)] {
        let mut bench = Bench::new(4, |config| config.linger = linger);
        bench.pass(Duration::from_secs(24 * 3600));
        assert_eq!(bench.outcome.is_none(), linger == FOREVER, "{linger:?}");
    }
    let mut bench = Bench::new(4, |config| config.linger = FOREVER);
    bench.pass(Duration::from_secs(3600));
    bench.join(1, 1);
    bench.pass_reporting(5, &[(1, 4)]);
    bench.complete_with(1, None);
    assert_eq!(bench.state(1), State::Complete);
    bench.pass(Duration::from_secs(24 * 3600));
    assert!(bench.outcome.is_none());
    bench.join(2, 1);
    assert_eq!(bench.sender.devices.len(), 2);
}
