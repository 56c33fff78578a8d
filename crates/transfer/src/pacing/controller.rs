//! The rate controller. It starts at a high rate, finds the capacity of the slowest served path, stays
//! just below it, and probes from time to time for more.
//!
//! ```text
//!  starting ── clear: x4, x2, x1.4 ► starting     holding ── hold time over: x1.05 ──► probing
//!     └─ congested ──► draining                   probing ── clear: more ──► probing
//!  draining ── it was random loss ──► starting    probing, holding ── congested ──► draining
//!     └─ the queue is empty ──► holding at 0.97 of the capacity
//! ```
//!
//! In this module `carried` is the estimated capacity: the highest rate that the path carries.

use super::{Clear, Trial};
use crate::time::Time;
use crate::units::Rate;
use std::time::Duration;

/// How the rate is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateMode {
    /// The rate is fixed.
    Fixed(Rate),
    /// The controller finds the rate, up to this ceiling.
    Auto(Rate),
}

impl RateMode {
    /// The fixed rate, or the ceiling.
    #[must_use]
    pub const fn most(self) -> Rate {
        let (Self::Fixed(rate) | Self::Auto(rate)) = self;
        rate
    }
}

/// Initial rate, unless the ceiling is lower. Useful at once on a LAN.
pub const START: Rate = Rate(100_000_000);
/// Lowest rate of the controller. A device that needs less is served alone.
pub const FLOOR: Rate = Rate(1_000_000);
/// Time between two probes.
const HOLD: Duration = Duration::from_secs(1);
/// Share of the capacity to use.
const SHARE: f64 = 0.97;
/// Steps while starting: `STARTING_STEP` if there is a queue of at least `QUEUE_SHOWS`, else
/// `STARTING_LEAP`. From the rate `FAST` on, the step is `STARTING_FAST`: the next report comes when the buffers of a
/// device may be full already.
const STARTING_STEP: f64 = 2.0;
const STARTING_LEAP: f64 = 4.0;
const STARTING_FAST: f64 = 1.4;
const FAST: f64 = 1.5e9;
const QUEUE_SHOWS: Duration = Duration::from_millis(2);
/// Share of the capacity at which a queue drains. Lower while starting, which leaves a long queue and
/// where random loss must be distinguished from congestion.
const DRAINING_START: f64 = 0.75;
const DRAINING_STEP: f64 = 0.9;
/// The capacity is taken for no less than this share of the rate that was carried just before, and each report lowers the rate
/// to no less than this share. A device whose storage stands still for a moment carries next to nothing, which says
/// little of what it carries otherwise.
const LEAST_FALL: f64 = 0.5;
/// A queue below `DRAINED` counts as empty. Draining ends after the time `DRAINING` in any case.
const DRAINED: Duration = Duration::from_millis(5);
const DRAINING: Duration = Duration::from_millis(400);
/// Steps of a probe: small at first because the line is probably just above the rate, then larger to
/// return quickly to a recovered line.
const PROBE_STEPS: [f64; 5] = [1.05, 1.05, 1.15, 1.3, 1.5];
/// Index of the probe step after a loss has proved to be random.
const BOLD: usize = 3;

/// `known` is the rate that was held before the congestion, or what its first report showed at the start.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Starting,
    /// Below the capacity until the queue is empty, or until `until`; then at the rate `carried`.
    Draining {
        carried: f64,
        known: f64,
        starting: bool,
        until: Time,
    },
    Holding {
        until: Time,
    },
    Probing {
        steps: usize,
        known: f64,
    },
}

/// The controller. All rates are bits per second on the wire.
#[derive(Debug)]
pub struct RateController {
    mode: RateMode,
    rate: f64,
    state: State,
    /// No more than this can be sent at present.
    most: f64,
}

impl RateController {
    /// A controller in its initial state.
    #[must_use]
    pub fn new(mode: RateMode) -> Self {
        let rate = match mode {
            RateMode::Fixed(rate) => rate,
            RateMode::Auto(ceiling) => START.min(ceiling),
        };
        Self { mode, rate: rate.0 as f64, state: State::Starting, most: f64::INFINITY }
    }

    /// A controller that starts from a rate that the path is known to carry.
    #[must_use]
    pub fn knowing(mode: RateMode, rate: Rate, now: Time) -> Self {
        let mut controller = Self::new(mode);
        controller.state = State::Holding { until: now };
        controller.set(rate.0 as f64 * SHARE);
        controller
    }

    /// The rate to send at.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        Rate(self.rate as u64)
    }

    /// How the rate is chosen.
    #[must_use]
    pub const fn mode(&self) -> RateMode {
        self.mode
    }

    /// Bounds what can be sent at present, for reasons other than the path. The rate does not climb above `most`,
    /// since nobody would know whether the path carries that. It does not fall either.
    pub const fn set_most(&mut self, most: Rate) {
        self.most = most.0 as f64;
    }

    /// Whether the present rate is a trial for more capacity.
    #[must_use]
    pub const fn trial(&self) -> Trial {
        match self.state {
            State::Starting => Trial::Start,
            State::Probing { .. } => Trial::Probe,
            State::Draining { .. } | State::Holding { .. } => Trial::None,
        }
    }

    /// Reports that all served paths carried the present rate, and that the sender really sent at that
    /// rate. True if the rate changes.
    pub fn clear(&mut self, now: Time, Clear { random, queue }: Clear) -> bool {
        let step = match self.state {
            State::Starting if self.rate >= FAST => STARTING_FAST,
            State::Starting if queue < QUEUE_SHOWS => STARTING_LEAP,
            State::Starting => STARTING_STEP,
            State::Draining { starting: true, .. } if random => {
                self.state = State::Starting;
                STARTING_STEP
            }
            State::Draining { known, .. } if random => {
                self.state = State::Probing { steps: BOLD, known };
                1.0 / DRAINING_STEP
            }
            State::Draining { until, .. } if queue > DRAINED && now < until => return false,
            State::Draining { carried, .. } => {
                self.state = State::Holding { until: now + HOLD };
                return self.set(carried);
            }
            State::Holding { until } if now < until => return false,
            State::Holding { .. } => {
                self.state = State::Probing { steps: 1, known: self.rate };
                PROBE_STEPS[0]
            }
            State::Probing { steps, known } => {
                self.state = State::Probing { steps: steps + 1, known };
                PROBE_STEPS[steps.min(PROBE_STEPS.len() - 1)]
            }
        };
        self.set(self.rate * step)
    }

    /// Reports that a served path carries only the share `carried` of the rate `sending`. True if the
    /// rate changes.
    pub fn congested(&mut self, now: Time, sending: Rate, carried: f64) -> bool {
        let holding = matches!(self.state, State::Holding { .. });
        let carried = sending.0 as f64 * carried;
        if holding && carried >= self.rate {
            // The path carries the target rate. For a while the sender sent more than that.
            return false;
        }
        // The held rate includes SHARE already.
        let target = if holding { carried } else { carried * SHARE };
        // Never raises the rate: the stretch may have been sent faster than the present rate.
        let target = target.min(self.rate);
        let (most, known, starting) = match self.state {
            State::Draining { carried, known, starting, .. } => (carried, known, starting),
            State::Starting => (target, target, true),
            State::Probing { known, .. } => (self.rate, known.max(target), false),
            State::Holding { .. } => (self.rate, self.rate, false),
        };
        let carried = target.max(known * LEAST_FALL).min(most);
        self.state = State::Draining { carried, known, starting, until: now + DRAINING };
        let step = if starting { DRAINING_START } else { DRAINING_STEP };
        // While it stands still, there is no use in sending at what it carries otherwise.
        let rate = (target * step).max(self.rate * LEAST_FALL).min(carried * step);
        self.set(rate.min(self.rate))
    }

    fn set(&mut self, rate: f64) -> bool {
        let RateMode::Auto(ceiling) = self.mode else { return false };
        let floor = FLOOR.min(ceiling);
        let rate = rate.clamp(floor.0 as f64, ceiling.0 as f64).min(self.most.max(self.rate));
        let changes = (rate - self.rate).abs() > self.rate * 0.001;
        if changes {
            self.rate = rate;
        }
        changes
    }
}

#[cfg(test)]
mod tests;
