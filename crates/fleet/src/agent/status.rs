//! `mcp agent status`: what the agent does, why, and when next. Reads the state directory, so it works beside an agent that runs, and without one.

use super::checkin::{Polls, Refused, Waiting};
use super::clock;
use super::state::{Completed, Identity, StateDir, StateError};
use super::time_text;
use mcp_transfer::text::escape;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the device is and does.
#[derive(Debug, Serialize)]
pub struct Status {
    device: Option<String>,
    server: Option<String>,
    fleet: Option<String>,
    root: Option<u64>,
    list_expires: Option<u64>,
    frozen: bool,
    last_poll: Option<u64>,
    next_poll: Option<u64>,
    error: Option<String>,
    refused: Vec<String>,
    waiting: Vec<Waiting>,
    tasks: Vec<TaskStatus>,
    completed: BTreeMap<String, Completed>,
}

#[derive(Debug, Serialize)]
struct TaskStatus {
    name: String,
    version: String,
    serial: u64,
    action: String,
    attempt: u32,
    state: &'static str,
    doing: Option<String>,
    details: Vec<String>,
    reported: bool,
}

impl Status {
    /// Reads the status.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn read(state: &StateDir) -> Result<Self, StateError> {
        let identity: Option<Identity> = state.read("identity.json")?;
        let trusted = state.trusted()?;
        let polls: Polls = state.read("status.json")?.unwrap_or_default();
        let mut works: Vec<_> = state.works()?.into_values().collect();
        works.sort_by_key(|work| (work.ended.is_some(), work.ended.as_ref().map(|ended| ended.at)));
        let task = |work: super::work::Work| {
            let plan = work.plan().ok();
            TaskStatus {
                name: plan.as_ref().map(|plan| plan.name.clone()).unwrap_or_default(),
                version: plan.as_ref().map(|plan| plan.version.clone()).unwrap_or_default(),
                serial: plan.map_or(0, |plan| plan.serial),
                state: match &work.ended {
                    None => "open",
                    Some(ended) if ended.downloaded => "loaded",
                    Some(ended) if ended.success => "done",
                    Some(ended) if ended.canceled => "canceled",
                    Some(_) => "failed",
                },
                doing: polls.phases.get(&work.id.to_string()).cloned().filter(|_| work.is_open()),
                details: work.ended.map(|ended| ended.details).unwrap_or_default(),
                action: work.action,
                attempt: work.attempt,
                reported: work.reported,
            }
        };
        let now = clock();
        Ok(Self {
            server: identity.as_ref().map(|identity| identity.server.clone()).or(Some(polls.server)),
            fleet: identity.as_ref().and_then(|identity| identity.fleet).map(|fleet| fleet.to_string()),
            device: identity.map(|identity| identity.device),
            root: trusted.as_ref().map(|trusted| trusted.root().version),
            list_expires: trusted.as_ref().and_then(crate::documents::Trusted::list_expires),
            frozen: trusted.is_some_and(|trusted| trusted.not_frozen(now).is_err()),
            last_poll: polls.last,
            next_poll: polls.next,
            error: polls.error,
            refused: polls.refused.iter().map(Refused::text).collect(),
            waiting: polls.waiting,
            tasks: works.into_iter().map(task).collect(),
            completed: state.read("completed.json")?.unwrap_or_default(),
        })
    }

    /// The actions that wait for a confirmation.
    pub(crate) fn waiting(&self) -> &[Waiting] {
        &self.waiting
    }

    /// As text for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let time = |at: Option<u64>| at.map_or("never".to_owned(), time_text);
        let none = || "none".to_owned();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "device     {}", self.device.clone().unwrap_or_else(none));
        let _ = writeln!(out, "server     {}", self.server.clone().unwrap_or_else(none));
        let _ = writeln!(out, "last poll  {}", time(self.last_poll));
        let _ = writeln!(out, "next poll  {}", time(self.next_poll));
        if self.root.is_some() {
            let frozen = if self.frozen { " (expired: nothing is started)" } else { "" };
            let _ = writeln!(out, "list until {}{frozen}", time(self.list_expires));
        }
        let refused = self.refused.iter().map(|text| ("refused", text));
        for (what, text) in self.error.iter().map(|text| ("error", text)).chain(refused) {
            let _ = writeln!(out, "{what:<10} {}", escape(text));
        }
        for Waiting { action, what, denied, .. } in &self.waiting {
            let (action, what) = (escape(action), escape(what));
            let _ = match denied {
                None => {
                    writeln!(
                        out,
                        "confirm    {what}; run 'mcp agent confirm {action}' or 'mcp agent deny {action}'"
                    )
                }
                Some(why) => writeln!(out, "denied     {what} (action {action}): {}", escape(why)),
            };
        }
        for task in &self.tasks {
            let serial = if task.serial > 0 { format!(" #{}", task.serial) } else { String::new() };
            let doing = task.doing.clone().unwrap_or_else(|| task.details.join("; "));
            let line = format!("task       {}{serial} {}: {} {doing}", task.name, task.version, task.state);
            let _ = writeln!(out, "{}", escape(&line));
        }
        out
    }
}
