//! The common loop of the fuzz targets that drive a machine: take operations from the input, advance time, end jobs,
//! and finally stop interfering.

use super::Input;
use crate::protocol::Machine;
use crate::time::Time;
use std::fmt::Debug;
use std::time::Duration;

/// Most operations of one input; the rest is ignored.
const MAX_OPERATIONS: usize = 1 << 10;
/// Most wake-ups in a row without time advancing: more is a busy loop.
const MAX_WAKES_AT_ONCE: usize = 64;

/// A machine and its environment, driven by an input.
pub(super) trait World: Sized {
    type Machine: Machine + Debug;
    /// Most steps that the machine may need to finish after the input ends, and the longest time.
    const END: (usize, Duration);

    /// The world for an input; `None` if the input is too short.
    fn new(input: &mut Input<'_>) -> Option<Self>;
    fn machine(&mut self) -> &mut Self::Machine;
    fn now(&mut self) -> &mut Time;
    fn jobs(&mut self) -> &mut Vec<<Self::Machine as Machine>::Job>;
    /// Whether the machine has finished.
    fn is_over(&self) -> bool;
    /// Performs the next operation; `None` at the end of the input.
    fn operate(&mut self, input: &mut Input<'_>) -> Option<()>;
    /// The result of a job. `how` = 0 is success.
    fn execute(&mut self, job: <Self::Machine as Machine>::Job, how: u8) -> <Self::Machine as Machine>::Done;
    /// Takes the machine's outputs and checks them.
    fn drain(&mut self);

    /// Plays an input and returns the final world; `None` if the input is too short.
    fn play(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let mut world = Self::new(&mut input)?;
        world.drain();
        for _ in 0..MAX_OPERATIONS {
            if world.is_over() || world.operate(&mut input).is_none() {
                break;
            }
        }
        world.end();
        Some(world)
    }

    /// Wakes the machine at the time that it requested, or now if that time has passed.
    fn wake(&mut self) {
        let due = self.machine().next_timeout();
        let now = due.max(*self.now());
        *self.now() = now;
        self.machine().handle_timeout(now);
        self.drain();
    }

    /// Advances time, and wakes the machine whenever it requested that.
    fn pass(&mut self, time: Duration) {
        let until = *self.now() + time;
        let mut wakes = 0;
        while self.machine().next_timeout() <= until {
            wakes = if self.machine().next_timeout() > *self.now() { 0 } else { wakes + 1 };
            assert!(wakes < MAX_WAKES_AT_ONCE, "it is awake all the time: {:?}", self.machine());
            self.wake();
        }
        *self.now() = until;
    }

    /// Ends the job that `which` selects, if there are jobs.
    fn end_job(&mut self, which: u8, how: u8) {
        let jobs = self.jobs();
        if jobs.is_empty() {
            return;
        }
        let job = jobs.remove(usize::from(which) % jobs.len());
        let done = self.execute(job, how);
        let now = *self.now();
        self.machine().handle_job_done(now, done);
        self.drain();
    }

    /// Ends all jobs successfully and wakes the machine on request, until it finishes.
    fn end(&mut self) {
        let began = *self.now();
        for _ in 0..Self::END.0 {
            while !self.jobs().is_empty() {
                self.end_job(0, 0);
            }
            if self.is_over() {
                return;
            }
            assert!(
                self.machine().next_timeout() != Time::NEVER,
                "it waits for nothing: {:?}",
                self.machine()
            );
            self.wake();
            assert!(self.now().since(began) < Self::END.1, "it takes too long: {:?}", self.machine());
        }
        panic!("it does not end: {:?}", self.machine());
    }
}
