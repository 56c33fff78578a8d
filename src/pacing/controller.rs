//! The rate controller: starts high, finds what the slowest served path carries, stays just below it,
//! and looks now and then whether it carries more.
//!
//! ```text
//!  starting ── clear: x4 or x2 ──► starting       holding ── its time is over: x1.05 ──► probing
//!     └─ congested ──► draining                   probing ── clear: more  ──► probing
//!  draining ── it was random loss ──► starting    probing, holding ── congested ──► draining
//!     └─ the queue is gone ──► holding at 0.97 of what is carried
//! ```

use super::{Clear, Trial};
use crate::time::Time;
use crate::units::Rate;
use std::time::Duration;

/// How the rate is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateMode {
    /// At the rate given, whatever happens.
    Fixed(Rate),
    /// By itself, up to this.
    Auto(Rate),
}

/// The rate it starts at, if the ceiling allows: useful at once on a LAN.
pub const START: Rate = Rate(100_000_000);
/// It never goes below this; a device that needs less is served alone.
pub const FLOOR: Rate = Rate(1_000_000);
/// Pause between two looks whether the path carries more.
const HOLD: Duration = Duration::from_secs(1);
/// Share of what is carried that is used.
const SHARE: f64 = 0.97;
/// Steps at the start: where a queue begins to show, and where none does.
const STARTING_STEP: f64 = 2.0;
const STARTING_LEAP: f64 = 4.0;
const QUEUE_SHOWS: Duration = Duration::from_millis(2);
/// Share of what is carried at which a queue is drained: low after the start, whose queue is long, and
/// where random loss is told from congestion.
const DRAINING_START: f64 = 0.75;
const DRAINING_STEP: f64 = 0.9;
/// A queue shorter than this is none; and it is drained for no longer than so.
const DRAINED: Duration = Duration::from_millis(5);
const DRAINING: Duration = Duration::from_millis(400);
/// Steps of a probe: small while the line may be just above, then to where a line has come back to.
const PROBE_STEPS: [f64; 5] = [1.05, 1.05, 1.15, 1.3, 1.5];
/// The step of a probe once a loss has turned out to be random.
const BOLD: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Starting,
    /// Slower than need be, until `until` at the latest; then what is thought to be carried.
    Draining {
        carried: f64,
        starting: bool,
        until: Time,
    },
    Holding {
        until: Time,
    },
    Probing {
        steps: usize,
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
    /// Begins.
    #[must_use]
    pub fn new(mode: RateMode) -> Self {
        let rate = match mode {
            RateMode::Fixed(rate) => rate,
            RateMode::Auto(ceiling) => START.min(ceiling),
        };
        Self { mode, rate: rate.0 as f64, state: State::Starting, most: f64::INFINITY }
    }

    /// Goes on from a rate that is known to be carried.
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

    /// How the rate is found.
    #[must_use]
    pub const fn mode(&self) -> RateMode {
        self.mode
    }

    /// No more than `most` can be sent at present, for reasons that are not the way's: the rate does not
    /// climb above it, since nobody would know whether that is carried. It does not fall either.
    pub const fn set_most(&mut self, most: Rate) {
        self.most = most.0 as f64;
    }

    /// Whether the present rate is a try whether more is carried.
    #[must_use]
    pub const fn trial(&self) -> Trial {
        match self.state {
            State::Starting => Trial::Start,
            State::Probing { .. } => Trial::Probe,
            State::Draining { .. } | State::Holding { .. } => Trial::None,
        }
    }

    /// All served paths carried what was sent at the present rate, which really was sent. True if
    /// the rate changes.
    pub fn clear(&mut self, now: Time, Clear { random, queue }: Clear) -> bool {
        let step = match self.state {
            State::Starting if queue < QUEUE_SHOWS => STARTING_LEAP,
            State::Starting => STARTING_STEP,
            State::Draining { starting: true, .. } if random => {
                self.state = State::Starting;
                STARTING_STEP
            }
            State::Draining { .. } if random => {
                self.state = State::Probing { steps: BOLD };
                1.0 / DRAINING_STEP
            }
            State::Draining { until, .. } if queue > DRAINED && now < until => return false,
            State::Draining { carried, .. } => {
                self.state = State::Holding { until: now + HOLD };
                return self.set(carried);
            }
            State::Holding { until } if now < until => return false,
            State::Holding { .. } => {
                self.state = State::Probing { steps: 1 };
                PROBE_STEPS[0]
            }
            State::Probing { steps } => {
                self.state = State::Probing { steps: steps + 1 };
                PROBE_STEPS[steps.min(PROBE_STEPS.len() - 1)]
            }
        };
        self.set(self.rate * step)
    }

    /// A served path carries no more than the share `carried` of what was sent at the rate `sending`.
    /// True if the rate changes.
    pub fn congested(&mut self, now: Time, sending: Rate, carried: f64) -> bool {
        let holding = matches!(self.state, State::Holding { .. });
        let carried = sending.0 as f64 * carried;
        if holding && carried >= self.rate {
            // What is aimed at does get through: for a while more was sent than that.
            return false;
        }
        // What is held is a share already.
        let target = if holding { carried } else { carried * SHARE };
        let (carried, starting) = match self.state {
            State::Draining { carried, starting, .. } => (carried.min(target), starting),
            // Never up: what arrived may have been sent faster than now.
            _ => (target.min(self.rate), self.state == State::Starting),
        };
        self.state = State::Draining { carried, starting, until: now + DRAINING };
        let step = if starting { DRAINING_START } else { DRAINING_STEP };
        self.set((carried * step).min(self.rate))
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
