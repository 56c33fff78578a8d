//! The steps by which a tree changes the disk. Tests and the simulated world let one of them fail, or the program die
//! before it.

use rustix::io::Errno;

/// Called before each change of the disk. In the program it does nothing.
#[cfg(not(any(test, feature = "sim")))]
pub const fn step() -> Result<(), Errno> {
    Ok(())
}

#[cfg(any(test, feature = "sim"))]
pub use planned::{Fault, fail, step, taken};

#[cfg(any(test, feature = "sim"))]
mod planned {
    use super::Errno;
    use std::cell::Cell;

    /// What happens at a step.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Fault {
        /// It fails with this error of the system.
        Error(i32),
        /// The program dies: neither it nor anything after it happens.
        Death,
    }

    thread_local! {
        /// The fault of this thread, and the number of its step.
        static PLAN: Cell<Option<(u64, Fault)>> = const { Cell::new(None) };
        static TAKEN: Cell<u64> = const { Cell::new(0) };
    }

    /// Lets step `nth` of this thread, from 0 on and from now on, meet a fault; `None` for no fault.
    pub fn fail(plan: Option<(u64, Fault)>) {
        PLAN.set(plan);
        TAKEN.set(0);
    }

    /// The number of steps since then.
    #[must_use]
    pub fn taken() -> u64 {
        TAKEN.get()
    }

    /// See the other one.
    pub fn step() -> Result<(), Errno> {
        let number = TAKEN.get();
        TAKEN.set(number + 1);
        match PLAN.get() {
            Some((nth, Fault::Error(error))) if number == nth => Err(Errno::from_raw_os_error(error)),
            Some((nth, Fault::Death)) if number >= nth => Err(Errno::IO),
            _ => Ok(()),
        }
    }
}
