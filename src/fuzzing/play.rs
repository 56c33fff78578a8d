//! What both fuzz targets do alike: take operations from the input, let time go on, pick jobs to end, and
//! in the end stop interfering.

use super::Input;
use crate::protocol::Machine;
use crate::time::Time;
use std::fmt::Debug;
use std::time::Duration;

/// Operations taken from one input; the rest is left.
const MAX_OPERATIONS: usize = 1 << 10;
/// Times a machine may ask to be woken without time going on: more is a busy loop.
const MAX_WAKES_AT_ONCE: usize = 64;

/// A machine with all that an input does to it.
pub(super) trait World: Sized {
    type Machine: Machine + Debug;
    /// Inputs that the machine may take to its end, and the time for that.
    const END: (usize, Duration);

    /// None if the input is too short for one.
    fn new(input: &mut Input<'_>) -> Option<Self>;
    fn machine(&mut self) -> &mut Self::Machine;
    fn now(&mut self) -> &mut Time;
    fn jobs(&mut self) -> &mut Vec<<Self::Machine as Machine>::Job>;
    /// Whether the machine has said that it is at its end.
    fn is_over(&self) -> bool;
    /// One operation; none if the input is at its end.
    fn operate(&mut self, input: &mut Input<'_>) -> Option<()>;
    /// What becomes of a job; `how` = 0: it ends as it should.
    fn execute(&mut self, job: <Self::Machine as Machine>::Job, how: u8) -> <Self::Machine as Machine>::Done;
    /// Takes what the machine has to say, and looks at it.
    fn drain(&mut self);

    /// The world at its end; none if the input is too short for one.
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

    /// Wakes the machine at the time it asked for, or now if that has gone by.
    fn wake(&mut self) {
        let due = self.machine().next_timeout();
        let now = due.max(*self.now());
        *self.now() = now;
        self.machine().handle_timeout(now);
        self.drain();
    }

    /// Lets time go on, with a call whenever the machine wants one.
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

    /// Ends the job that `which` picks, if there are any.
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

    /// Ends all jobs as they should and wakes the machine when it asks, until it is at its end.
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
