//! Actions that wait for this device's word: that of its policy, or of a person who runs `mcp agent confirm` or `deny`.
//!
//! The command leaves the answer in a file of the state directory. The loop looks for the file while something waits, takes it to the server,
//! and removes it.

use super::CheckIn;
use super::trusting::TakeError;
use crate::agent::Confirm;
use crate::agent::api::{Api, ApiError};
use crate::agent::state::{StateDir, StateError};
use crate::ddi::{Confirmation, ConfirmationFeedback, Deployment, DeploymentBase};
use crate::documents::{Listing, Task};
use crate::limits::MAX_NAME;
use mcp_transfer::storage;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The file with a person's answer.
const FILE: &str = "answer.json";
/// How often it is looked for while something waits.
const LOOK: Duration = Duration::from_secs(1);

/// An action that waits for a confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// The action at the server.
    pub action: String,
    /// Where it is at the server.
    pub link: String,
    /// What it would do, for people.
    pub what: String,
    /// Why the server was told that it may not begin; `None`: nobody has decided.
    pub denied: Option<String>,
}

/// A person's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    action: String,
    confirmation: Confirmation,
}

impl Answer {
    /// Leaves an answer for the agent.
    pub(crate) fn leave(
        state: &StateDir,
        action: &str,
        confirmation: Confirmation,
    ) -> Result<(), StateError> {
        let (path, answer) = (state.path(FILE), Self { action: action.to_owned(), confirmation });
        let bytes = serde_json::to_vec(&answer).unwrap_or_default();
        storage::write_private(&path, &bytes).map_err(|source| StateError::File { path, source })
    }

    /// The answer that nobody has taken to the server yet. One that cannot be read is none.
    pub(crate) fn left(state: &StateDir) -> Option<Self> {
        state.read(FILE).ok().flatten()
    }

    fn remove(state: &StateDir) {
        // A file that stays is found again, and the server says that it is over.
        let _ = std::fs::remove_file(state.path(FILE));
    }
}

impl CheckIn {
    /// Waits until a person has left an answer that the loop does not know yet; for ever, if nothing waits for one.
    pub(super) fn answered(&self) -> impl Future<Output = ()> + use<> {
        let core = (!self.polls.waiting.is_empty()).then(|| std::sync::Arc::clone(&self.core));
        let known = self.answer.clone();
        async move {
            let Some(core) = core else { return std::future::pending().await };
            loop {
                tokio::time::sleep(LOOK).await;
                let left = Answer::left(&core.state);
                if left.is_some() && left != known {
                    return;
                }
            }
        }
    }

    /// Sees to what waits for a confirmation. Returns whether something may begin now. `links` are what the poll offers; a server that is
    /// `busy` with another action of this device may offer none, and what waited goes on waiting.
    pub(super) async fn confirming(&mut self, mut links: Vec<Url>, busy: bool) -> Result<bool, ApiError> {
        self.answer = Answer::left(&self.core.state);
        let known = std::mem::take(&mut self.polls.waiting);
        if links.is_empty() && busy {
            if self.answer.is_none() {
                self.polls.waiting = known;
                return Ok(false);
            }
            links.extend(known.iter().filter_map(|waiting| waiting.link.parse().ok()));
        }
        let mut result = Ok(false);
        for link in links {
            let before = known.iter().find(|waiting| waiting.link == link.as_str());
            let Ok(confirmed) = &mut result else {
                self.polls.waiting.extend(before.cloned());
                continue;
            };
            match self.confirmation(link, before).await {
                Ok(answered) => *confirmed |= answered,
                Err(error) => {
                    self.polls.waiting.extend(before.cloned());
                    result = Err(error);
                }
            }
        }
        let waits =
            |answer: &Answer| self.polls.waiting.iter().any(|waiting| waiting.action == answer.action);
        if result.is_ok() && !self.answer.as_ref().is_some_and(waits) {
            self.forget_answer();
        }
        result
    }

    fn forget_answer(&mut self) {
        let taken = self.answer.take();
        // A person may have thought better of it meanwhile.
        if taken.is_some() && Answer::left(&self.core.state) == taken {
            Answer::remove(&self.core.state);
        }
    }

    /// Answers for the action of this link, if somebody has decided. Returns whether it may begin; else it goes on waiting.
    async fn confirmation(&mut self, link: Url, before: Option<&Waiting>) -> Result<bool, ApiError> {
        let asked: DeploymentBase = match self.core.api.get(link.clone()).await {
            Err(ApiError::Gone(_)) => return Ok(false),
            other => other?,
        };
        let Some(terms) = asked.confirmation else { return Ok(false) };
        let denied = before.filter(|known| known.action == asked.id).and_then(|known| known.denied.clone());
        let feedback = Api::feedback_url(link.clone());
        let (what, refused) = match self.would_take(&terms, &feedback).await {
            Ok(Some(task)) => (describe(&task), None),
            Ok(None) => (describe_unsigned(&terms), None),
            Err(TakeError::Unasked(error)) => return Err(error),
            Err(TakeError::Refused { code, why, held: true }) => {
                self.note(&format!("action {}", asked.id), Err::<(), _>((code, why)));
                let what = describe_unsigned(&terms);
                self.polls.waiting.push(Waiting { action: asked.id, link: link.into(), what, denied });
                return Ok(false);
            }
            Err(TakeError::Refused { code, why, held: false }) => {
                (describe_unsigned(&terms), Some((code, format!("refused by this device: {why}"))))
            }
        };
        let waiting = Waiting { action: asked.id, link: link.into(), what, denied };
        let answer = self.answer.as_ref().filter(|answer| answer.action == waiting.action);
        let by_hand = answer.map(|answer| answer.confirmation);
        let mut said =
            ConfirmationFeedback { confirmation: Confirmation::Denied, code: None, details: Vec::new() };
        let why = match (refused, by_hand, self.core.settings.confirm) {
            // Confirming it would only make it fail.
            (Some((code, why)), ..) => {
                said.code = Some(code.into());
                why
            }
            (None, Some(answer), _) => {
                said.confirmation = answer;
                "by hand".to_owned()
            }
            (None, None, Confirm::Auto) => {
                said.confirmation = Confirmation::Confirmed;
                "by this device's policy".to_owned()
            }
            (None, None, Confirm::Ask) => {
                self.polls.waiting.push(waiting);
                return Ok(false);
            }
        };
        let confirmed = said.confirmation == Confirmation::Confirmed;
        if confirmed || waiting.denied.as_ref() != Some(&why) {
            said.details.push(why.clone());
            match self.core.api.feedback(feedback, &said).await {
                Ok(()) | Err(ApiError::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if by_hand.is_some() {
            self.forget_answer();
        }
        if !confirmed {
            self.polls.waiting.push(Waiting { denied: Some(why), ..waiting });
        }
        Ok(confirmed)
    }

    /// What this device would do, if it takes what is offered; `None` for files that nobody signed. No list names a task that waits for a
    /// confirmation, so the list is not asked; it is when the task begins.
    async fn would_take(&mut self, terms: &Deployment, feedback: &Url) -> Result<Option<Task>, TakeError> {
        let Some(text) =
            terms.chunks.iter().find_map(|chunk| crate::ddi::task_from_metadata(&chunk.metadata))
        else {
            return Ok(self.take_unsigned(terms, feedback).map(|_| None)?);
        };
        let (_, _, task) = self.check_task(&text, Listing::Absent).await?;
        Ok(Some(task))
    }
}

fn describe(task: &Task) -> String {
    let how = match (&task.handler, &task.at) {
        (Some(handler), _) => format!(" by {handler}"),
        (None, Some(at)) => format!(" to {at}"),
        (None, None) => String::new(),
    };
    let files: Vec<_> = task.objects.iter().map(|object| object.filename.as_str()).collect();
    let version = if task.version.is_empty() { String::new() } else { format!(" {}", task.version) };
    format!("{}{version}: {}{how}: {}", task.name, task.kind.as_str(), files.join(", "))
}

fn describe_unsigned(terms: &Deployment) -> String {
    let names = terms.chunks.iter().take(1).map(|chunk| format!("{} {}", chunk.name, chunk.version));
    names.collect::<String>().chars().take(2 * MAX_NAME).collect()
}
