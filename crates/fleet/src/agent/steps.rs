//! The steps of tasks that need a handler: its run, and the reboot that it may ask for. The journal makes each happen once.

use super::core::Core;
use super::fetch::blocking;
use super::runner::{Stop, code, may_run, wait};
use super::work::{Plan, Work};
use crate::documents::{Argument, Hash, Task};
use crate::handlers::{Canceller, Config, Job, ObjectFile, Report, Runner, Values};
use crate::journal::{Action, BootId, Journal, Opened, Outcome, StepId, Unfinished, Verdict};
use crate::limits::MAX_RETRIES;
use serde_json::Value;
use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What runs handlers, and remembers what has run.
#[derive(Debug)]
pub(crate) struct Steps {
    runner: Runner,
    journal: Mutex<Journal>,
    /// Taken by [`Steps::recover`].
    unfinished: Mutex<Vec<Unfinished>>,
    interrupted: BTreeSet<[u8; 32]>,
    recovered: watch::Sender<bool>,
}

impl Steps {
    /// Opens the journal in `dir`. Steps of tasks other than `known` are forgotten. Returns what was lost to damage too.
    ///
    /// # Errors
    /// If the journal cannot be opened, or the machine does not say which boot this is.
    pub(crate) fn open(
        dir: &Path,
        config: Config,
        known: &BTreeSet<Hash>,
    ) -> Result<(Self, Option<String>), Box<dyn Error + Send + Sync>> {
        let Opened { mut journal, unfinished, damage } = Journal::open(dir, BootId::current()?)?;
        journal.retain(|task| known.contains(&Hash(*task)))?;
        let interrupted = unfinished.iter().map(|step| step.id.task).collect();
        let steps = Self {
            runner: Runner::new(config),
            journal: Mutex::new(journal),
            unfinished: Mutex::new(unfinished),
            interrupted,
            recovered: watch::channel(false).0,
        };
        Ok((steps, damage))
    }

    /// Which limits this machine does not have for its handlers; nothing if it has no handlers.
    pub(crate) fn shortfalls(&self) -> Vec<String> {
        let some = self.runner.list().is_ok_and(|handlers| !handlers.is_empty());
        if some { self.runner.shortfalls() } else { Vec::new() }
    }

    /// Decides about the steps that were interrupted, as their manifests say. Blocks as long as handlers run.
    pub(crate) fn recover(&self) -> Result<(), crate::journal::Error> {
        let unfinished = std::mem::take(&mut *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner));
        let others = self.runner.recover(&self.journal, unfinished)?.others;
        for step in others.into_iter().filter(|step| step.id.action == Action::Reboot && step.rebooted) {
            self.journal().settle(step, Outcome::new(Verdict::Done, "the machine was restarted"))?;
        }
        self.recovered.send_replace(true);
        Ok(())
    }

    /// Whether a step of the task was interrupted: it is settled first, so a cancellation comes too late.
    pub(crate) fn was_interrupted(&self, task: Hash) -> bool {
        self.interrupted.contains(&task.0) && !*self.recovered.borrow()
    }

    /// Whether it is known how the attempt ended.
    fn is_decided(&self, work: &Work) -> bool {
        let journal = self.journal();
        let runs = (0..MAX_RETRIES).map(|part| StepId {
            task: work.id.0,
            attempt: work.attempt,
            part,
            action: Action::Run,
        });
        runs.map_while(|run| journal.outcome(&run)).any(|outcome| outcome.verdict != Verdict::Retry)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until what was interrupted of a task is settled. Whether the handler needs not run any more.
pub(super) async fn settled(core: &Arc<Core>, work: &Work) -> bool {
    if core.steps.was_interrupted(work.id) {
        core.phase(work.id, "settles what was interrupted");
        let mut recovered = core.steps.recovered.subscribe();
        let _ = recovered.wait_for(|recovered| *recovered).await;
        release(core, work.id);
    }
    core.steps.is_decided(work)
}

/// Runs the handler of a task, whose object is in place, and waits for the reboot that it asks for.
pub(super) async fn handle(
    core: &Arc<Core>,
    work: &Work,
    plan: &Plan,
    task: &Task,
    object: Option<ObjectFile>,
) -> Result<Vec<String>, Stop> {
    let (id, steps) = (work.id, Arc::clone(&core.steps));
    let arguments: Values = task.arguments.iter().map(|(name, value)| (name.clone(), json(value))).collect();
    let job = Job { handler: task.handler.clone().unwrap_or_default(), arguments, object };
    for part in 0..MAX_RETRIES {
        let step = StepId { task: id.0, attempt: work.attempt, part, action: Action::Run };
        let known = steps.journal().outcome(&step).map(|outcome| outcome.verdict);
        let turn = match known {
            None => Some(may_run(core, id, plan).await?),
            // Long ago, or before the agent was started.
            Some(Verdict::Retry) => continue,
            Some(_) => None,
        };
        let failed = |error: &dyn Error| Stop::failed(code::STORED, error);
        let canceller = Arc::new(Canceller::new().map_err(|error| failed(&error))?);
        bind(core, id, Some(Arc::clone(&canceller)))?;
        core.phase(id, &format!("runs {}", job.handler));
        let (steps, job) = (Arc::clone(&steps), job.clone());
        let ran = blocking(move || {
            steps.runner.perform(&steps.journal, step, &job, &canceller).map_err(io::Error::other)
        });
        let Report { outcome, output } = ran.await.map_err(|error| failed(&error))?;
        drop(turn);
        let mut details = vec![outcome.text];
        details
            .extend(output.lines().rev().take(10).map(str::to_owned).collect::<Vec<_>>().into_iter().rev());
        match outcome.verdict {
            Verdict::Done => return Ok(details),
            Verdict::RebootNeeded => {
                reboot(core, step).await?;
                details.push("the machine was restarted after it".to_owned());
                return Ok(details);
            }
            Verdict::Cancelled => return Err(Stop::Canceled),
            Verdict::Failed => return Err(Stop::Failed(code::HANDLER, details)),
            Verdict::Interrupted => return Err(Stop::Failed(code::INTERRUPTED, details)),
            Verdict::Retry => {
                release(core, id);
                core.phase(id, &format!("is tried again later: {}", details[0]));
                wait(core, id, plan, core.settings.retry * (1 << part.min(6))).await?;
            }
        }
    }
    Err(Stop::failed(code::HANDLER, "it asked too often to be tried again later"))
}

/// Waits for the restart of the machine that a run has asked for. The administrator or the handler restarts it; the agent does not.
async fn reboot(core: &Arc<Core>, run: StepId) -> Result<(), Stop> {
    let step = StepId { action: Action::Reboot, ..run };
    if core.steps.journal().outcome(&step).is_none() {
        core.phase(Hash(run.task), "waits for a restart of the machine");
        std::future::pending().await
    }
    Ok(())
}

/// From here on a cancellation goes to the handler, or comes too late.
fn bind(core: &Arc<Core>, id: Hash, canceller: Option<Arc<Canceller>>) -> Result<(), Stop> {
    if let Some(running) = core.lock().running.get_mut(&id) {
        if *running.cancel.borrow() {
            return Err(Stop::Canceled);
        }
        (running.cancellable, running.canceller) = (false, canceller);
    }
    Ok(())
}

fn release(core: &Arc<Core>, id: Hash) {
    if let Some(running) = core.lock().running.get_mut(&id) {
        (running.cancellable, running.canceller) = (true, None);
    }
}

fn json(argument: &Argument) -> Value {
    match argument {
        Argument::Boolean(value) => Value::Bool(*value),
        Argument::Integer(value) => Value::from(*value),
        Argument::Text(value) => Value::from(value.clone()),
    }
}
