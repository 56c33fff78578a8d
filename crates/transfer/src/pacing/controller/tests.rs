//! Runs the controller against a line with a queue, in steps of a report's interval.

use super::*;
use crate::pacing::{Finding, Path, Sample};

/// A line of `capacity` bits per second with a queue. After the queue, the share `loss` is lost at
/// random.
struct Line {
    capacity: f64,
    queue: f64,
    queued: f64,
    loss: f64,
}

const DATAGRAM: f64 = 1500.0 * 8.0;
const STEP: Duration = Duration::from_millis(100);

/// Runs the controller for `seconds` from `from` on. Returns the mean rate and the line's loss in the
/// last half.
fn run(
    controller: &mut RateController,
    path: &mut Path,
    line: &mut Line,
    rng: &mut fastrand::Rng,
    from: f64,
    seconds: f64,
) -> (f64, f64) {
    let steps = (seconds / STEP.as_secs_f64()) as u32;
    let (mut carried, mut dropped, mut offered) = (0.0, 0.0, 0.0);
    for i in 0..steps {
        let now = Time::ZERO + Duration::from_secs_f64(from) + STEP * i;
        let sending = controller.rate();
        let bits = sending.0 as f64 * STEP.as_secs_f64();
        let room = line.capacity * STEP.as_secs_f64();
        let through = (bits + line.queued).min(room);
        let left = bits + line.queued - through;
        let lost = (left - line.queue).max(0.0);
        let before = line.queued;
        line.queued = left - lost;
        if i >= steps / 2 {
            carried += through;
            dropped += lost;
            offered += bits;
        }
        // The line drops `lost` of this step's datagrams. The rest arrives, after the queue.
        let sent = (bits / DATAGRAM) as u64;
        let arrived = (0..((bits - lost) / DATAGRAM) as u64).filter(|_| rng.f64() >= line.loss).count();
        let growth = (line.queued - before) / line.capacity;
        let jitter = 1.0 + 0.02 * (rng.f64() - 0.5);
        let sample = Sample {
            sent,
            received: arrived as u64,
            sent_in: STEP,
            received_in: STEP.mul_f64((1.0 + growth / STEP.as_secs_f64()).max(0.1) * jitter),
            delay_us: (line.queued / line.capacity * 1e6) as i64 + 500,
            overflowed: false,
        };
        let finding = path.observe(now, &sample, controller.trial());
        match finding {
            Finding::Nothing => {}
            Finding::Clear(clear) => {
                controller.clear(now, clear);
            }
            Finding::Congested(share) => {
                controller.congested(now, sending, share);
            }
        }
    }
    (carried / (seconds / 2.0), dropped / offered)
}

#[test]
fn lines_are_found_within_two_seconds_and_held() {
    for (capacity, loss) in
        [20e6, 100e6, 200e6, 500e6, 950e6].into_iter().flat_map(|c| [(c, 0.0), (c, 0.02), (c, 0.05)])
    {
        let mut rng = fastrand::Rng::with_seed(capacity as u64);
        let mut controller = RateController::new(RateMode::Auto(Rate(10_000_000_000)));
        let mut path = Path::default();
        let mut line = Line { capacity, queue: capacity * 0.02, queued: 0.0, loss };
        run(&mut controller, &mut path, &mut line, &mut rng, 0.0, 2.0);
        let (carried, dropped) = run(&mut controller, &mut path, &mut line, &mut rng, 2.0, 20.0);
        assert!(carried >= 0.93 * capacity, "{capacity} at {loss}: {carried:.0}");
        let most = if loss > 0.0 { 0.03 } else { 0.01 };
        assert!(dropped <= most, "{capacity} at {loss}: {dropped:.4} lost");
    }
}

#[test]
fn a_line_that_halves_and_comes_back_is_followed() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut controller = RateController::new(RateMode::Auto(Rate(1_000_000_000)));
    let mut path = Path::default();
    let mut line = Line { capacity: 200e6, queue: 4e6, queued: 0.0, loss: 0.01 };
    run(&mut controller, &mut path, &mut line, &mut rng, 0.0, 5.0);
    line.capacity = 100e6;
    run(&mut controller, &mut path, &mut line, &mut rng, 5.0, 2.0);
    let (carried, _) = run(&mut controller, &mut path, &mut line, &mut rng, 7.0, 4.0);
    assert!(carried >= 92e6, "{carried:.0}");
    line.capacity = 200e6;
    run(&mut controller, &mut path, &mut line, &mut rng, 11.0, 2.0);
    assert!(controller.rate().0 >= 170_000_000, "{:?}", controller.rate());
}

#[test]
fn random_loss_alone_does_not_slow_it_down() {
    let mut rng = fastrand::Rng::with_seed(4);
    let ceiling = Rate(800_000_000);
    let mut controller = RateController::new(RateMode::Auto(ceiling));
    let mut path = Path::default();
    let mut line = Line { capacity: 1e12, queue: 1e9, queued: 0.0, loss: 0.05 };
    run(&mut controller, &mut path, &mut line, &mut rng, 0.0, 5.0);
    assert_eq!(controller.rate(), ceiling);
}

#[test]
fn a_fixed_rate_stays_and_a_lie_stops_at_the_floor() {
    let mut fixed = RateController::new(RateMode::Fixed(Rate(5_000_000)));
    fixed.congested(Time::ZERO, Rate(5_000_000), 0.01);
    assert_eq!(fixed.rate(), Rate(5_000_000));
    let mut auto = RateController::new(RateMode::Auto(Rate(1_000_000_000)));
    for _ in 0..100 {
        auto.congested(Time::ZERO, auto.rate(), 0.01);
    }
    assert_eq!(auto.rate(), FLOOR);
}

#[test]
fn what_cannot_be_sent_is_not_aimed_at() {
    let mut controller = RateController::new(RateMode::Auto(Rate(1_000_000_000)));
    controller.set_most(Rate(150_000_000));
    assert!(controller.clear(Time::ZERO, Clear::default()));
    assert_eq!(controller.rate(), Rate(150_000_000));
    // Less than what is aimed at already is no reason to slow down.
    controller.set_most(Rate(50_000_000));
    assert!(!controller.clear(Time::ZERO, Clear::default()));
    assert_eq!(controller.rate(), Rate(150_000_000));
    assert!(controller.congested(Time::ZERO, Rate(150_000_000), 0.5), "the way's limits hold all the same");
    assert!(controller.rate() < Rate(80_000_000));
}

#[test]
fn storage_that_stands_still_for_a_moment_does_not_stop_the_stream() {
    let mut controller = RateController::new(RateMode::Auto(Rate(10_000_000_000)));
    (0..5).for_each(|_| assert!(controller.clear(Time::ZERO, Clear::default())));
    assert!(controller.rate() > Rate(3_000_000_000));
    let known = controller.rate().0 as f64 * 0.6 * SHARE;
    assert!(controller.congested(Time::ZERO, controller.rate(), 0.6));
    let before = controller.rate();
    // Nearly nothing of what came meanwhile could be stored.
    assert!(controller.congested(Time::ZERO, controller.rate(), 0.01));
    assert!(controller.rate().0 >= before.0 / 2 - 1, "{:?}", controller.rate());
    // A device that carries so little needs no more than a few reports to say so.
    (0..10).for_each(|_| _ = controller.congested(Time::ZERO, controller.rate(), 0.01));
    assert!(controller.rate() < Rate(5_000_000));
    // It goes on from half of what it carried before, and not from there.
    assert!(controller.clear(Time::ZERO, Clear::default()));
    assert!((controller.rate().0 as f64 - known * LEAST_FALL).abs() < 10.0, "{:?}", controller.rate());
    // If it carries as little as it said, each time costs one report.
    let mut reports = 0;
    while controller.rate() > Rate(10_000_000) {
        assert!(controller.congested(Time::ZERO, controller.rate(), 0.001));
        while controller.rate() > Rate(5_000_000) {
            assert!(controller.congested(Time::ZERO, controller.rate(), 0.001));
        }
        assert!(controller.clear(Time::ZERO, Clear::default()));
        reports += 1;
    }
    assert!(reports <= 10, "{reports}");
}
