//! A pipe as a device's destination, and what reads it: slow, dying, or failing at the end. It checks that it gets a
//! prefix of the object and nothing else, and that it is closed only when the object is whole (I1).

use super::scenario::{DevicePlan, Expectation, Scenario};
use crate::storage::{Found, Part, Sink, SinkError};
use crate::units::{Extent, Intake};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What reads a device's pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipePlan {
    /// Time that it takes for a block.
    pub each: Duration,
    /// Bytes after which it goes away.
    pub dies: Option<u64>,
    /// Exit status, if it is a command.
    pub status: Option<i32>,
    /// Whether blocks ahead of their turn wait in a spool.
    pub spooled: bool,
}

#[derive(Debug, Default)]
struct State {
    object: Arc<Vec<u8>>,
    /// Of the present run.
    written: usize,
    closed: bool,
    spool: Vec<u8>,
    /// Whether a reader ever got all, and said so.
    whole: bool,
}

/// A device's pipe, through all of its runs. Clones are the same.
#[derive(Clone, Debug)]
pub struct SimPipe(Arc<Mutex<State>>);

impl SimPipe {
    /// A pipe for `object`.
    #[must_use]
    pub fn new(object: Arc<Vec<u8>>) -> Self {
        Self(Arc::new(Mutex::new(State { object, ..State::default() })))
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Whether a reader has got all of the object, and has succeeded.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state().whole
    }
}

/// The virtual sink of a pipe.
pub struct SimPipeSink(pub SimPipe, pub PipePlan);

impl PipePlan {
    /// How it takes blocks.
    #[must_use]
    pub const fn intake(&self) -> Intake {
        if self.spooled { Intake::Spooled } else { Intake::InOrder }
    }
}

impl Sink for SimPipeSink {
    fn intake(&self) -> Intake {
        self.1.intake()
    }
    fn probe(&mut self, _: &str, _: Extent) -> Found {
        Found::Nothing
    }
    fn create(&mut self, _: &str, _: Extent) -> Result<Box<dyn Part>, SinkError> {
        let mut state = self.0.state();
        (state.written, state.closed) = (0, false);
        state.spool = if self.1.spooled { vec![0; state.object.len()] } else { Vec::new() };
        Ok(Box::new(SimPipePart(self.0.clone(), self.1)))
    }
}

struct SimPipePart(SimPipe, PipePlan);

impl Part for SimPipePart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        assert!(self.1.spooled, "there is no spool");
        self.0.state().spool[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        assert!(self.1.spooled, "there is no spool");
        buf.copy_from_slice(&self.0.state().spool[offset as usize..][..buf.len()]);
        Ok(())
    }
    fn write_next(&self, bytes: &[u8]) -> Result<(), SinkError> {
        let mut state = self.0.state();
        if state.closed {
            return Err(SinkError::Disk("the transfer is over".to_owned()));
        }
        let end = state.written + bytes.len();
        assert!(
            state.object.get(state.written..end) == Some(bytes),
            "I1: a pipe gets what is not the object"
        );
        if self.1.dies.is_some_and(|dies| end as u64 > dies) {
            return Err(SinkError::Disk("nobody reads any more".to_owned()));
        }
        state.written = end;
        Ok(())
    }
    fn commit(&self) -> Result<PathBuf, SinkError> {
        let mut state = self.0.state();
        if std::mem::replace(&mut state.closed, true) {
            return Err(SinkError::Disk("the transfer is over".to_owned()));
        }
        assert_eq!(
            state.written,
            state.object.len(),
            "I1: the end of a pipe comes before that of the object"
        );
        match self.1.status {
            Some(status) if status != 0 => Err(SinkError::Command(format!("exited with {status}"))),
            _ => {
                state.whole = true;
                Ok(PathBuf::from("-"))
            }
        }
    }
    fn discard(&self) {
        self.0.state().closed = true;
    }
}

impl DevicePlan {
    /// Lets the device pass the object on.
    pub fn pass_on(&mut self, pipe: PipePlan, size: u64) {
        self.pipe = Some(pipe);
        if pipe.dies.is_some_and(|dies| dies < size) || pipe.status.is_some_and(|status| status != 0) {
            self.expectation = Expectation::Fails;
        }
    }

    /// Whether nothing of the plan is about the device's files, or about another output.
    pub(super) fn has_no_files(&self) -> bool {
        let Self { faults, existing, earlier, hook, disk, pipe, .. } = self;
        *faults == super::disk_faults::DiskFaults::default()
            && !existing
            && earlier.is_none()
            && hook.is_none()
            && disk.is_none()
            && pipe.is_none()
    }
}

impl Scenario {
    /// In one scenario of eight, some devices pass the object on.
    pub(super) fn with_some_pipes(mut self, mut rng: fastrand::Rng) -> Self {
        if rng.u8(..8) > 0 {
            return self;
        }
        let size = self.layout.object_size();
        // A reader that is slow, or a run that was cut short, may fall behind a window.
        let steady = self.sender.is_steady() && !self.sender.is_windowed();
        for plan in self.devices.iter_mut().skip(1).filter(|plan| plan.has_no_files()) {
            let most = [5, 50, 1_000][rng.usize(..3)];
            let pipe = PipePlan {
                each: Duration::from_millis(rng.u64(..=most)),
                dies: (rng.u8(..6) == 0).then(|| rng.u64(..=size)),
                status: [None, Some(0), Some(3)][rng.usize(..5).min(2) % 3],
                spooled: rng.u8(..4) == 0,
            };
            if rng.u8(..3) > 0 {
                // Nothing is resumed, so a run that was cut short is less likely to complete.
                if plan.crash.is_some() || !steady {
                    plan.hope();
                }
                plan.pass_on(pipe, size);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Plain;
    use super::super::transfer;
    use super::*;

    const PLAIN: Plain =
        Plain { devices: 4, loss: 0.01, size: 24 << 20, symbol_size: 1408, rate: 400_000_000, disk: None };
    const FAST: PipePlan =
        PipePlan { each: Duration::from_millis(2), dies: None, status: None, spooled: false };

    fn with(pipes: &[PipePlan]) -> Scenario {
        with_seed(42_010_000, pipes)
    }

    fn with_seed(seed: u64, pipes: &[PipePlan]) -> Scenario {
        let mut scenario = Scenario::plain(seed, &PLAIN);
        for (plan, pipe) in scenario.devices.iter_mut().zip(pipes) {
            plan.buffer_blocks = 8;
            plan.pass_on(*pipe, PLAIN.size);
        }
        scenario
    }

    fn completed(scenario: &Scenario) -> Vec<Option<f64>> {
        let measured = transfer::measure(scenario);
        let started = measured.started.unwrap();
        let took = |device: &super::super::totals::MeasuredDevice| {
            device.completed.map(|at| at.since(started).as_secs_f64())
        };
        measured.devices.iter().map(took).collect()
    }

    #[test]
    fn a_slow_reader_delays_nobody() {
        let alone = completed(&with(&[]))[3].unwrap();
        // The stream takes 21 ms for a block.
        let slow = PipePlan { each: Duration::from_millis(200), ..FAST };
        let took = completed(&with(&[slow, FAST]));
        assert!(took[3].unwrap() < alone * 1.3 && took[1].unwrap() < alone * 1.3, "{alone} {took:?}");
        let own = 24.0 * 0.2;
        assert!(took[0].unwrap() > own && took[0].unwrap() < own * 1.3, "{took:?}");
    }

    #[test]
    fn the_stream_waits_if_nobody_has_room() {
        let slow = PipePlan { each: Duration::from_millis(60), ..FAST };
        // In the second one, an ADMIT is lost: the device joins, and reports only after the others have no more room.
        for seed in [42_010_000, 42_700_018] {
            let measured = transfer::measure(&with_seed(seed, &[slow; 4]));
            assert_eq!(measured.totals.complete, 4);
            // Hardly anything is sent twice.
            let symbols = measured.totals.symbols;
            assert!(symbols.total() * 100 < measured.totals.source_symbols * 115, "{seed}: {symbols:?}");
        }
    }
}
