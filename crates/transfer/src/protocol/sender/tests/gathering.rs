//! When the stream starts.

use super::*;
use crate::wire::Phase;

/// A sender that expects two devices, and gathers for ten seconds.
fn bench(wait_first: Option<Duration>) -> Bench {
    Bench::new(4, |config| {
        config.task.options.expected = Some(2);
        (config.wait, config.wait_first) = (Duration::from_secs(10), wait_first);
    })
}

#[test]
fn the_time_to_gather_may_count_from_the_first_device() {
    for wait_first in [FOREVER, Duration::from_secs(3600)] {
        let mut bench = bench(Some(wait_first));
        bench.pass(Duration::from_secs(3000));
        assert_eq!((bench.sender.phase, bench.outcome.clone()), (Phase::Gathering, None));
        bench.join(1, 1);
        for _ in 0..9 {
            bench.report(1, 0);
            bench.pass(Duration::from_secs(1));
        }
        assert_eq!(bench.sender.phase, Phase::Gathering);
        bench.report(1, 0);
        bench.pass(Duration::from_secs(2));
        assert_ne!(bench.sender.phase, Phase::Gathering);
    }
}

#[test]
fn otherwise_it_counts_from_the_start() {
    let mut late = bench(None);
    late.pass(Duration::from_secs(9));
    late.join(1, 1);
    late.pass(Duration::from_secs(2));
    assert_ne!(late.sender.phase, Phase::Gathering);
    for (wait_first, seconds) in [(None, 10), (Some(Duration::from_secs(3)), 3)] {
        let mut nobody = bench(wait_first);
        nobody.pass(Duration::from_secs(seconds - 1));
        assert_eq!(nobody.outcome, None);
        nobody.pass(Duration::from_secs(2));
        assert_eq!(nobody.outcome, Some(SenderOutcome::Ended));
    }
}
