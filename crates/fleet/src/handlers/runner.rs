//! Performs the steps of tasks that need a handler: check, run, rollback, and what follows an interruption.
//!
//! The journal is written before a handler starts and after it has ended. A rollback is a step of its own within the run
//! that it undoes: the run ends in the journal only once its rollback has, so neither is forgotten. A restart of the machine
//! that a run asks for is begun before the run ends, for the same reason.

use super::arguments::{Checked, Values};
use super::launch::{Canceller, End, Ended, Helper, Launch};
use super::manifest::{Cancel, Command, Interrupted, Manifest, Object};
use super::object::{self, ObjectFile};
use super::{DIRECTORY, cgroup, sandbox, trusted};
use crate::journal::{Action, Begin, Error, Journal, Outcome, Started, StepId, Unfinished, Verdict};
use crate::limits::MAX_RUNS;
use data_encoding::HEXLOWER;
use mcp_transfer::text::{ended, escape};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where a runner finds what it needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of manifests.
    pub directory: PathBuf,
    /// How helper processes are started.
    pub helper: Helper,
    /// The control group (version 2) in which runs get groups of their own.
    pub cgroups: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { directory: DIRECTORY.into(), helper: Helper::this(), cgroups: cgroup::delegated() }
    }
}

/// A step of a task that needs a handler. It is the note of the step in the journal, so that it can be resumed without
/// the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The handler's name.
    pub handler: String,
    /// The arguments of the task.
    #[serde(default)]
    pub arguments: Values,
    /// The object of the task.
    pub object: Option<ObjectFile>,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// As the journal has it.
    pub outcome: Outcome,
    /// What the handler printed, bounded and fit for people; empty if it did not run now.
    pub output: String,
}

impl Report {
    fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self { outcome: Outcome::new(verdict, text), output: String::new() }
    }
}

/// A handler of this machine.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its manifest, or why it cannot be used.
    pub manifest: Result<Manifest, String>,
}

/// What has become of interrupted steps.
#[derive(Debug, Default)]
pub struct Recovered {
    /// How the runs ended.
    pub reports: Vec<(StepId, Report)>,
    /// Those without a handler, which are still unfinished.
    pub others: Vec<Unfinished>,
}

/// What is needed to run commands of a handler for a job.
struct Prepared<'a> {
    manifest: Manifest,
    values: Checked,
    object: Option<OwnedFd>,
    job: &'a Job,
    id: StepId,
}

/// Runs handlers. Calls block their thread until the handler has ended; any number may run at a time.
#[derive(Debug)]
pub struct Runner {
    config: Config,
}

impl Runner {
    /// Makes one. Ends what the handlers of a killed agent have left behind in control groups.
    #[must_use]
    pub fn new(config: Config) -> Self {
        if let Some(parent) = &config.cgroups {
            cgroup::sweep(parent);
        }
        Self { config }
    }

    /// Which limits of the sandbox this machine does not have: clauses for people. What a handler cannot do without keeps it from running
    /// instead.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let group = cgroup::shortfall(self.config.cgroups.as_deref());
        group.into_iter().chain(sandbox::shortfalls().map(str::to_owned)).collect()
    }

    /// The manifest of a handler.
    ///
    /// # Errors
    /// If there is none, or it cannot be used: one clause for people.
    pub fn manifest(&self, name: &str) -> Result<Manifest, String> {
        Manifest::load(&self.config.directory, name).map_err(|why| {
            why.unwrap_or_else(|| {
                let directory = self.config.directory.display();
                format!("this machine has no handler '{}'; add one to {directory}", escape(name))
            })
        })
    }

    /// The names of the handlers of this machine, and what is wrong with those that cannot be used.
    ///
    /// # Errors
    /// If the directory is not to be trusted. It is no error if there is none.
    pub fn list(&self) -> Result<Vec<Listed>, String> {
        let directory = &self.config.directory;
        match trusted::open_directory(directory) {
            Err(untrusted) if untrusted.absent => return Ok(Vec::new()),
            Err(untrusted) => return Err(untrusted.why),
            Ok(_) => {}
        }
        let entries = std::fs::read_dir(directory).map_err(|e| format!("{} ({e})", directory.display()))?;
        let files = entries.flatten().map(|entry| PathBuf::from(entry.file_name()));
        let mut names: Vec<String> = files
            .filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
            .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        Ok(names.into_iter().map(|name| Listed { manifest: self.manifest(&name), name }).collect())
    }

    /// Performs a step once. If it has ended before, reports how; if the handler says that its work is done already, does
    /// not run it.
    ///
    /// # Errors
    /// If the journal cannot record it. If the step was interrupted before, see [`Self::recover`].
    pub fn perform(
        &self,
        journal: &Mutex<Journal>,
        id: StepId,
        job: &Job,
        canceller: &Canceller,
    ) -> Result<Report, Error> {
        if let Some(outcome) = lock(journal).outcome(&id) {
            return Ok(Report { outcome: outcome.clone(), output: String::new() });
        }
        let prepared = match self.prepare(id, job) {
            Ok(prepared) => prepared,
            // Nothing was done, and nothing will be different unless the administrator changes it.
            Err(why) => return Ok(Report::new(Verdict::Failed, why)),
        };
        let note =
            serde_json::to_string(job).map_err(|_| Error::Full("the arguments have no form in JSON"))?;
        let installed = self.is_done(&prepared);
        let closes = prepared.manifest.cancel == Cancel::BeforeStart && installed == Ok(false);
        if canceller.is_cancelled() || (closes && !canceller.close()) {
            return Ok(Report::new(Verdict::Cancelled, "it was cancelled before it started"));
        }
        let started = match lock(journal).begin(id, &note)? {
            Begin::Started(started) => started,
            Begin::Ended(outcome) => return Ok(Report { outcome, output: String::new() }),
            Begin::Unfinished => return Err(Error::Unfinished),
        };
        match installed {
            Ok(false) => self.run(journal, started, &prepared, 1, canceller),
            Ok(true) => finish(journal, started, Report::new(Verdict::Done, "it was there already")),
            Err(why) => finish(journal, started, Report::new(Verdict::Failed, why)),
        }
    }

    /// Decides about the steps of handlers that were interrupted, and does what their manifests say: runs them again,
    /// rolls them back, or reports them. Steps without a handler ([`Action::Copy`], [`Action::Reboot`]) are returned as
    /// they are.
    ///
    /// # Errors
    /// If the journal cannot record it.
    pub fn recover(&self, journal: &Mutex<Journal>, unfinished: Vec<Unfinished>) -> Result<Recovered, Error> {
        let mut recovered = Recovered::default();
        // A rollback sorts after its run. It goes first: what follows for the run depends on it.
        for step in unfinished.into_iter().rev() {
            let id = step.id;
            match id.action {
                Action::Run => recovered.reports.push((id, self.recover_run(journal, step)?)),
                Action::Rollback => drop(self.recover_rollback(journal, step)?),
                Action::Copy | Action::Reboot => recovered.others.push(step),
            }
        }
        Ok(recovered)
    }

    fn recover_rollback(&self, journal: &Mutex<Journal>, step: Unfinished) -> Result<Report, Error> {
        let (id, runs) = (step.id, step.runs);
        let prepared = serde_json::from_str::<Job>(&step.note).map_err(|e| e.to_string());
        let result = match &prepared {
            Ok(job) if runs < MAX_RUNS => self.prepare(id, job),
            Ok(_) => Err(format!("the rollback was interrupted {runs} times")),
            Err(why) => Err(why.clone()),
        };
        match result {
            Ok(prepared) => {
                let started = lock(journal).resume(step)?;
                self.roll_back(journal, started, &prepared, runs + 1)
            }
            Err(why) => settle(journal, step, Report::new(Verdict::Interrupted, why)),
        }
    }

    fn recover_run(&self, journal: &Mutex<Journal>, step: Unfinished) -> Result<Report, Error> {
        let (id, runs) = (step.id, step.runs);
        let how = match (step.rebooted, step.committed) {
            (false, false) => "the agent was stopped",
            (true, false) => "the machine stopped",
            (false, true) => "the agent was stopped past the point of no return",
            (true, true) => "the machine stopped past the point of no return",
        };
        let rollback = StepId { action: Action::Rollback, ..id };
        // Not in the condition, which would hold the lock until the end of the block.
        let rolled_back = lock(journal).outcome(&rollback).cloned();
        if let Some(outcome) = rolled_back {
            return settle(
                journal,
                step,
                after_rollback(Verdict::Failed, "it failed or was interrupted", &outcome),
            );
        }
        if lock(journal).has_begun(&StepId { action: Action::Reboot, ..id }) {
            let text = format!("{how} after it had asked for a restart of the machine");
            return settle(journal, step, Report::new(Verdict::RebootNeeded, text));
        }
        let job = match serde_json::from_str::<Job>(&step.note) {
            Ok(job) => job,
            Err(e) => {
                let text = format!("{how} while it ran, and its note is not readable ({e})");
                return settle(journal, step, Report::new(Verdict::Interrupted, text));
            }
        };
        let prepared = match self.prepare(id, &job) {
            Ok(prepared) => prepared,
            Err(why) => {
                let text = format!("{how} while it ran, and it cannot go on: {why}");
                return settle(journal, step, Report::new(Verdict::Interrupted, text));
            }
        };
        if self.is_done(&prepared) == Ok(true) {
            let text = format!("{how} while it ran; its check says that it was done");
            return settle(journal, step, Report::new(Verdict::Done, text));
        }
        match prepared.manifest.interrupted {
            Interrupted::Resume if runs < MAX_RUNS => {
                let started = lock(journal).resume(step)?;
                match Canceller::new() {
                    Ok(canceller) => self.run(journal, started, &prepared, runs + 1, &canceller),
                    Err(e) => finish(journal, started, Report::new(Verdict::Failed, e.to_string())),
                }
            }
            Interrupted::Rollback => {
                let started = lock(journal).begin(rollback, &step.note)?;
                let Begin::Started(started) = started else { return Err(Error::Unfinished) };
                let report = self.roll_back(journal, started, &prepared, 1)?;
                let text = format!("{how} while it ran");
                let mut run = after_rollback(Verdict::Failed, &text, &report.outcome);
                run.output = report.output;
                settle(journal, step, run)
            }
            Interrupted::Resume | Interrupted::Report => {
                let text =
                    format!("{how} while it ran (run {runs}); see what it has done, then retry the task");
                settle(journal, step, Report::new(Verdict::Interrupted, text))
            }
        }
    }

    /// Everything that can be refused before a handler runs.
    fn prepare<'a>(&self, id: StepId, job: &'a Job) -> Result<Prepared<'a>, String> {
        let manifest = self.manifest(&job.handler)?;
        let of = |why: String| format!("handler {}: {why}", job.handler);
        let values = manifest.check_arguments(&job.arguments).map_err(of)?;
        let object = match (&job.object, manifest.object) {
            (Some(file), Object::Required) => Some(object::open_verified(file).map_err(of)?),
            (None, Object::None) => None,
            (Some(_), Object::None) => return Err(of("it takes no object; remove it from the task".into())),
            (None, Object::Required) => return Err(of("it needs an object; add one to the task".into())),
        };
        Ok(Prepared { manifest, values, object, job, id })
    }

    /// Asks the handler's check. Exit code 0 says that all is done, 1 that it is not.
    fn is_done(&self, prepared: &Prepared<'_>) -> Result<bool, String> {
        let Some(check) = &prepared.manifest.check else { return Ok(false) };
        let ended = self.launch(prepared, check, 1, None, &mut || Ok(()));
        match ended.end {
            End::Exited(0) => Ok(true),
            End::Exited(1) => Ok(false),
            _ => Err(format!("its check {}: {}", how(&ended.end), last_line(&ended.output))),
        }
    }

    fn run(
        &self,
        journal: &Mutex<Journal>,
        started: Started,
        prepared: &Prepared<'_>,
        run: u32,
        canceller: &Canceller,
    ) -> Result<Report, Error> {
        let manifest = &prepared.manifest;
        let cancellable = (manifest.cancel != Cancel::BeforeStart).then_some(canceller);
        let mut commit = || lock(journal).commit(&started).map_err(|e| e.to_string());
        let Ended { end, output } = self.launch(prepared, &manifest.run, run, cancellable, &mut commit);
        let verdict = match end {
            End::Exited(code) if manifest.exit.done.contains(&code) => Verdict::Done,
            End::Exited(code) if manifest.exit.reboot_needed.contains(&code) => Verdict::RebootNeeded,
            End::Exited(code) if manifest.exit.retry.contains(&code) => Verdict::Retry,
            End::Cancelled => Verdict::Cancelled,
            _ => Verdict::Failed,
        };
        let mut text = how(&end);
        if verdict == Verdict::Failed && !output.is_empty() {
            text = format!("{text}: {}", last_line(&output));
        }
        let mut report = Report { outcome: Outcome::new(verdict, text), output };
        if verdict == Verdict::RebootNeeded {
            // Before the run ends: whenever the machine is restarted from now on, that is the restart that it needs.
            let _open = lock(journal).begin(StepId { action: Action::Reboot, ..prepared.id }, "")?;
        }
        let began = !matches!(end, End::NotStarted(_));
        if matches!(verdict, Verdict::Failed | Verdict::Cancelled) && began && manifest.rollback.is_some() {
            let id = StepId { action: Action::Rollback, ..prepared.id };
            let note = serde_json::to_string(prepared.job).unwrap_or_default();
            let begin = lock(journal).begin(id, &note)?;
            if let Begin::Started(rollback) = begin {
                let undone = self.roll_back(journal, rollback, prepared, 1)?;
                report.outcome = after_rollback(verdict, &report.outcome.text, &undone.outcome).outcome;
                report.output = format!("{}\n[rollback]\n{}", report.output, undone.output);
            }
        }
        finish(journal, started, report)
    }

    fn roll_back(
        &self,
        journal: &Mutex<Journal>,
        started: Started,
        prepared: &Prepared<'_>,
        run: u32,
    ) -> Result<Report, Error> {
        let Some(rollback) = &prepared.manifest.rollback else {
            let why = "its manifest has no rollback any more";
            return finish(journal, started, Report::new(Verdict::Interrupted, why));
        };
        let Ended { end, output } = self.launch(prepared, rollback, run, None, &mut || Ok(()));
        let done = matches!(end, End::Exited(code) if prepared.manifest.exit.done.contains(&code));
        let verdict = if done { Verdict::Done } else { Verdict::Failed };
        finish(journal, started, Report { outcome: Outcome::new(verdict, how(&end)), output })
    }

    fn launch(
        &self,
        prepared: &Prepared<'_>,
        command: &Command,
        run: u32,
        canceller: Option<&Canceller>,
        commit: &mut dyn FnMut() -> Result<(), String>,
    ) -> Ended {
        let Prepared { manifest, values, object, job, id } = prepared;
        let args = command.args.iter().filter_map(|template| template.fill(values)).collect();
        let mut environment: Vec<(String, String)> = vec![
            ("MCP_HANDLER".into(), manifest.name.clone()),
            ("MCP_TASK".into(), HEXLOWER.encode(&id.task)),
            ("MCP_RUN".into(), run.to_string()),
        ];
        if let Some(file) = &job.object {
            environment.push(("MCP_OBJECT".into(), super::message::OBJECT.into()));
            environment.push(("MCP_NAME".into(), file.name.clone()));
            environment.push(("MCP_SIZE".into(), file.size.to_string()));
            environment.push(("MCP_HASH".into(), HEXLOWER.encode(&file.blake3)));
        }
        let more = manifest.environment.iter();
        environment.extend(more.filter_map(|(name, value)| Some((name.clone(), value.fill(values)?))));
        let (helper, cgroups) = (&self.config.helper, self.config.cgroups.as_deref());
        let object = object.as_ref();
        Launch { helper, cgroups, manifest, command, args, environment, object, canceller, commit }.run()
    }
}

fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

fn finish(journal: &Mutex<Journal>, started: Started, report: Report) -> Result<Report, Error> {
    lock(journal).end(started, report.outcome.clone())?;
    Ok(report)
}

fn settle(journal: &Mutex<Journal>, step: Unfinished, report: Report) -> Result<Report, Error> {
    lock(journal).settle(step, report.outcome.clone())?;
    Ok(report)
}

/// The end of a run that was rolled back.
fn after_rollback(verdict: Verdict, what: &str, rollback: &Outcome) -> Report {
    match rollback.verdict {
        Verdict::Done => Report::new(verdict, format!("{what}; it was rolled back")),
        _ => {
            let text =
                format!("{what}; its rollback {}; see what is left, then retry the task", rollback.text);
            Report::new(Verdict::Interrupted, text)
        }
    }
}

/// An end in words.
fn how(end: &End) -> String {
    match end {
        End::Exited(code) => ended(*code),
        End::Killed(signal) => ended(-signal),
        End::TimedOut => "took too long and was ended".into(),
        End::Cancelled => "was cancelled".into(),
        End::NotStarted(why) => format!("was not started: {why}"),
    }
}

fn last_line(output: &str) -> &str {
    output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing")
}
