//! Worker threads for hashing, coding and the disk, behind the engine's [`Jobs`] port.
//!
//! ```text
//!   loop thread --submit--> [queue] --> worker 1..n --> [done] --wake--> loop thread
//! ```
//!
//! The queue needs no bound of its own: the engine has at most [`super::MAX_JOBS`] jobs in progress. A worker that
//! panics reports a finished job and goes on, so a panic cannot hang the program.

use super::Jobs;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Executes one job; each worker has its own, so that it can keep buffers.
pub type Runner<J, D> = Box<dyn FnMut(J) -> D + Send>;

/// Builds the results that are not returned by a job: a worker's panic, an unreadable source.
pub struct FailureResults<D> {
    /// The result for a worker's panic, from its text.
    pub worker_died: fn(String) -> D,
    /// The result for a source that could not be read while sending, from the reason.
    pub source_unreadable: fn(String) -> D,
}

impl<D> Clone for FailureResults<D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D> Copy for FailureResults<D> {}

struct Queue<J> {
    jobs: VecDeque<J>,
    closed: bool,
}

struct Shared<J> {
    queue: Mutex<Queue<J>>,
    changed: Condvar,
}

impl<J> Default for Shared<J> {
    fn default() -> Self {
        let queue = Queue { jobs: VecDeque::new(), closed: false };
        Self { queue: Mutex::new(queue), changed: Condvar::new() }
    }
}

impl<J> Shared<J> {
    /// No job runs under the lock, so a poisoned lock guards consistent data.
    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Drops the queued jobs, and ends the threads.
    fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.changed.notify_all();
    }
    /// Waits for a job; `None` when the queue is closed.
    fn take(&self) -> Option<J> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Jobs with a thread of their own.
struct Lane<J> {
    /// Selects the jobs of this lane.
    takes: fn(&J) -> bool,
    shared: Arc<Shared<J>>,
}

/// A set of worker threads. Dropping it lets each one finish its job, drops the queued jobs and joins the
/// threads. It does not join the threads of lanes, which may wait for something that never answers.
pub struct Workers<J, D> {
    shared: Arc<Shared<J>>,
    sender: Sender<D>,
    done: Receiver<D>,
    wake: Arc<dyn Fn() + Send + Sync>,
    threads: Vec<JoinHandle<()>>,
    lanes: Vec<Lane<J>>,
    failures: FailureResults<D>,
}

impl<J: Send + 'static, D: Send + 'static> Workers<J, D> {
    /// Starts `count` threads (at least one), each with a runner of its own made by `runner`. Workers call
    /// `wake` after each job, to wake the loop.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(
        count: usize,
        failures: FailureResults<D>,
        wake: impl Fn() + Send + Sync + 'static,
        runner: impl Fn() -> Runner<J, D> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        keep_freed_memory();
        let (sender, done) = channel();
        let (shared, wake, threads) = (Arc::default(), Arc::new(wake), Vec::new());
        let lanes = Vec::new();
        let mut workers = Self { shared, sender, done, wake, threads, lanes, failures };
        let runner = Arc::new(runner);
        for i in 0..count.max(1) {
            let shared = Arc::clone(&workers.shared);
            let thread = workers.spawn(&format!("worker-{i}"), shared, Arc::clone(&runner))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Executes the jobs that `takes` accepts one after the other on a thread of their own. They may take
    /// long without delaying other jobs.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn with_lane(
        mut self,
        name: &str,
        takes: fn(&J) -> bool,
        runner: impl Fn() -> Runner<J, D> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::default();
        self.spawn(name, Arc::clone(&shared), Arc::new(runner))?;
        self.lanes.push(Lane { takes, shared });
        Ok(self)
    }

    fn spawn(
        &self,
        name: &str,
        shared: Arc<Shared<J>>,
        runner: Arc<impl Fn() -> Runner<J, D> + Send + Sync + 'static>,
    ) -> io::Result<JoinHandle<()>> {
        let (sender, wake, failures) = (self.sender.clone(), Arc::clone(&self.wake), self.failures);
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || work(&shared, &sender, &*wake, &*runner, failures))
    }
}

/// Bytes of the allocation that is freed at the start of a worker, see [`keep_freed_memory`].
const FREED_AT_START: usize = 16 << 20;

/// Coding a block takes some megabytes for a millisecond. The GNU allocator would return them to the system
/// each time, and the next block would pay for hundreds of page faults. It keeps twice as much as the largest
/// single allocation that was ever freed, so one such allocation is freed here. Other allocators are not
/// affected.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(FREED_AT_START)));
}

/// The loop of a worker.
fn work<J, D>(
    shared: &Shared<J>,
    done: &Sender<D>,
    wake: &dyn Fn(),
    runner: &dyn Fn() -> Runner<J, D>,
    failure_results: FailureResults<D>,
) {
    let mut run = None;
    while let Some(job) = shared.take() {
        let result = catch_unwind(AssertUnwindSafe(|| run.get_or_insert_with(runner)(job)));
        let result = result.unwrap_or_else(|panic| {
            // The runner's buffers may be in any state.
            run = None;
            (failure_results.worker_died)(panic_text(&*panic))
        });
        // The receiver is gone while the engine is being dropped.
        let _ = done.send(result);
        wake();
    }
}

/// The text of a panic, as far as it has one.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".to_owned())
}

impl<J, D> Jobs<J, D> for Workers<J, D> {
    fn submit(&mut self, job: J) -> Option<D> {
        let lane = self.lanes.iter().find(|lane| (lane.takes)(&job));
        let shared = lane.map_or(&self.shared, |lane| &lane.shared);
        shared.lock().jobs.push_back(job);
        shared.changed.notify_one();
        None
    }
    fn finished(&mut self) -> Option<D> {
        self.done.try_recv().ok()
    }
    fn source_unreadable(&mut self, why: String) -> D {
        (self.failures.source_unreadable)(why)
    }
}

impl<J, D> Drop for Workers<J, D> {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.shared.close();
        }
        self.shared.close();
        for thread in self.threads.drain(..) {
            // Every panic inside a job has been caught and reported.
            let _ = thread.join();
        }
    }
}
