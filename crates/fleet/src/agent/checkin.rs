//! The check-in loop: polls the server, takes what it offers, and tells it how tasks end. Nothing here waits for a download or an install.

mod confirming;
mod telling;
mod trusting;

pub(crate) use confirming::{Answer as PersonsAnswer, Waiting};
pub(crate) use telling::Refused;

use super::api::{Api, ApiError};
use super::core::Core;
use super::work::{Content, Work};
use super::{at_least, clock, jittered, runner};
use crate::ddi::{
    Cancel, ControllerBase, Deployment, DeploymentBase, Execution, Feedback, Finished, Handling, Session,
    task_from_metadata,
};
use crate::documents::{Hash, Listing};
use crate::limits::{MAX_MIRRORS, MAX_OFFERED, MIN_SLEEP};
use confirming::Answer;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{error, warn};
use trusting::TakeError;

/// The time between polls if the server names none.
const SLEEP: Duration = Duration::from_secs(300);
/// The first pause after a failure, and the longest.
const BACK_OFF: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(1800)];
/// How long to wait before feedback that failed is sent again.
const AGAIN: Duration = Duration::from_secs(30);
/// How often newer roots are asked for.
const ROOTS: Duration = Duration::from_secs(3600);

/// What `mcp agent status` shows of the loop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Polls {
    /// The server.
    pub server: String,
    /// When the last poll succeeded, in seconds since 1970.
    pub last: Option<u64>,
    /// When the next one is due.
    pub next: Option<u64>,
    /// Why the last one failed.
    pub error: Option<String>,
    /// What was refused last, the newest at the end.
    pub refused: Vec<Refused>,
    /// What each open task does.
    pub phases: BTreeMap<String, String>,
    /// The actions that wait for a confirmation.
    pub waiting: Vec<Waiting>,
}

/// The loop's own state.
pub(crate) struct CheckIn {
    core: Arc<Core>,
    polls: Polls,
    failures: u32,
    attributes_sent: Option<BTreeMap<String, String>>,
    roots: Option<Instant>,
    /// The tasks because of which newer roots were asked for.
    strangers: BTreeSet<Hash>,
    /// Something new was left for later, because enough tasks load.
    left: bool,
    /// A person's answer that was found, and not yet taken to the server.
    answer: Option<Answer>,
}

impl Drop for CheckIn {
    /// Ends the runners where they are: what is stored is enough to go on.
    fn drop(&mut self) {
        self.core
            .lock()
            .running
            .values()
            .filter_map(|running| running.abort.as_ref())
            .for_each(|abort| abort.abort());
    }
}

impl CheckIn {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        // What was denied before stays so. A status that cannot be read is written anew.
        let known = core.state.read::<Polls>("status.json").ok().flatten();
        let waiting = known.map(|polls| polls.waiting).unwrap_or_default();
        let polls = Polls { server: core.api.net.server().to_string(), waiting, ..Polls::default() };
        Self {
            core,
            polls,
            failures: 0,
            attributes_sent: None,
            roots: None,
            strangers: BTreeSet::new(),
            left: false,
            answer: None,
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let open: Vec<_> = {
            let inner = self.core.lock();
            inner.works.values().filter(|work| work.is_open()).map(|work| work.id).collect()
        };
        // No other handler runs before what was interrupted is settled.
        let turn = Arc::clone(&self.core.handlers).try_acquire_owned();
        open.into_iter().for_each(|id| runner::spawn(&self.core, id));
        let steps = Arc::clone(&self.core.steps);
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            if let Err(error) = steps.recover() {
                error!(%error, "cannot settle what was interrupted ({error}); restart the agent");
            }
        });
        loop {
            let result = tokio::select! {
                () = &mut stop => return,
                result = self.check_in() => result,
            };
            let pause = self.pause(result);
            self.polls.next = Some(clock() + pause.as_secs());
            self.write_status().await;
            let mut until = Instant::now() + pause;
            loop {
                let core = Arc::clone(&self.core);
                tokio::select! {
                    () = &mut stop => return,
                    () = tokio::time::sleep_until(until.into()) => break,
                    () = self.answered() => break,
                    () = core.changed.notified() => {
                        if !self.deliver().await {
                            until = until.min(Instant::now() + jittered(AGAIN));
                        }
                        core.tell_offering(false).await;
                        self.write_status().await;
                        if self.left && !core.is_loading_enough() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// How long to wait after a poll.
    fn pause(&mut self, result: Result<Duration, ApiError>) -> Duration {
        let error = match result {
            Ok(sleep) => {
                (self.failures, self.polls.last, self.polls.error) = (0, Some(clock()), None);
                return jittered(sleep);
            }
            Err(error) => error,
        };
        if self.polls.error.as_deref() != Some(&error.to_string()) {
            warn!("{error}");
        }
        self.polls.error = Some(error.to_string());
        let [first, longest] = BACK_OFF;
        let back_off = (first * 2_u32.pow(self.failures.min(9))).min(longest);
        self.failures += 1;
        match error {
            ApiError::Later { after: Some(after), .. } => at_least(after),
            // Slowly: an operator has to do something first.
            ApiError::Unauthorized(_) => jittered(back_off.max(Duration::from_secs(60))),
            _ => jittered(back_off),
        }
    }

    /// One check-in. Returns the time until the next one.
    pub(crate) async fn check_in(&mut self) -> Result<Duration, ApiError> {
        self.left = false;
        self.deliver().await;
        let core = Arc::clone(&self.core);
        if core.listing == Listing::Required && self.roots.is_none_or(|at| at.elapsed() >= ROOTS) {
            self.take_roots().await?;
        }
        if self.attributes_sent.as_ref() != Some(&core.attributes()) {
            self.put_attributes().await?;
        }
        core.tell_offering(true).await;
        let answer: ControllerBase = core.api.get(core.api.base().clone()).await?;
        if core.listing == Listing::Required {
            let taken = self.take_list().await;
            self.note("the list", taken);
        }
        if answer.links.get("configData").is_some() {
            self.put_attributes().await?;
        }
        let mut offers = answer.offers;
        if offers.is_empty() {
            // A server that is not ours has one at a time.
            offers.push(answer.links);
        }
        offers.truncate(MAX_OFFERED);
        let links =
            |rel| -> Vec<Url> { offers.iter().filter_map(|links| core.api.link(links.get(rel)?)).collect() };
        let (cancellations, deployments) = (links("cancelAction"), links("deploymentBase"));
        let busy = !(cancellations.is_empty() && deployments.is_empty());
        for link in cancellations {
            self.cancel(link).await?;
        }
        let confirmed = self.confirming(links("confirmationBase"), busy).await?;
        for link in deployments {
            self.offered(link).await?;
        }
        let sleep = answer.config.polling.sleep.map_or(SLEEP, |sleep| sleep.get());
        // What was confirmed may begin.
        Ok(if confirmed { MIN_SLEEP } else { sleep })
    }

    /// Sees to a deployment that the server offers. One that is wrong holds back no other.
    async fn offered(&mut self, link: Url) -> Result<(), ApiError> {
        let feedback = Api::feedback_url(link.clone());
        let known = {
            let inner = self.core.lock();
            inner.works.values().any(|work| work.is_open() && work.feedback == feedback.as_str())
        };
        if !known && self.core.is_loading_enough() {
            self.left = true;
            return Ok(());
        }
        let taken = match self.deployment(link.clone()).await {
            Err(error @ (ApiError::Status(_) | ApiError::Unreadable(_))) => Err((0, error.to_string())),
            // It was taken back in between.
            Ok(()) | Err(ApiError::Gone(_)) => Ok(()),
            Err(error) => return Err(error),
        };
        self.note(link.path(), taken);
        Ok(())
    }

    /// Notes whether something was refused, or failed without ending the check-in. Says so once, until the reason is another.
    fn note<T>(&mut self, what: &str, result: Result<T, (i32, String)>) {
        if let Some(line) = self.polls.note(what, result.err()) {
            warn!("{line}");
        }
    }

    async fn put_attributes(&mut self) -> Result<(), ApiError> {
        let sent = self.core.attributes();
        let change = self.core.attributes_change(&sent);
        if change.data.len() > sent.len() {
            warn!("more tasks are completed than there are attributes: the server knows of the newest");
        }
        match self.core.api.put_attributes(&change).await {
            // A server that does not take them, or no more of them, is no reason not to work.
            Ok(()) | Err(ApiError::Status(_) | ApiError::Gone(_) | ApiError::Later { status: 429, .. }) => {
                self.attributes_sent = Some(sent);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Answers a cancellation: the task ends here, unless it is past the point of no return.
    async fn cancel(&mut self, link: Url) -> Result<(), ApiError> {
        let cancel: Cancel = match self.core.api.get(link.clone()).await {
            Err(ApiError::Gone(_)) => return Ok(()),
            other => other?,
        };
        let action = cancel.cancel_action.stop_id;
        let canceled = {
            let mut inner = self.core.lock();
            let work =
                inner.works.values().find(|work| work.action == action && work.is_open()).map(|work| work.id);
            match work.and_then(|id| inner.running.get_mut(&id)) {
                Some(running) if !running.cancellable => {
                    running.canceller.as_ref().is_some_and(|canceller| canceller.cancel())
                }
                Some(running) => {
                    // A receiver that is gone has ended by itself.
                    let _ = running.cancel.send(true);
                    true
                }
                None => true,
            }
        };
        let (execution, finished, why) = if canceled {
            (Execution::Closed, Finished::Success, "canceled")
        } else {
            (Execution::Rejected, Finished::None, "it is past its point of no return")
        };
        let feedback = Feedback::new(&action, execution, finished, vec![why.to_owned()]);
        match self.core.api.feedback(Api::feedback_url(link), &feedback).await {
            Ok(()) | Err(ApiError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn deployment(&mut self, link: Url) -> Result<(), ApiError> {
        let answer: DeploymentBase = self.core.api.get(link.clone()).await?;
        let feedback = Api::feedback_url(link);
        let Some(deployment) = answer.deployment else { return Ok(()) };
        let mut text = deployment.chunks.iter().find_map(|chunk| task_from_metadata(&chunk.metadata));
        if text.is_none()
            && let Some(link) = answer.links.get("mcp-task").and_then(|href| self.core.api.link(href))
        {
            text = Some(self.core.api.envelope(link).await?.to_metadata());
        }
        let taken = match text {
            Some(text) => self.take_task(&text).await,
            None => self.take_unsigned(&deployment, &feedback).map_err(TakeError::from),
        };
        let (id, content) = match taken {
            Ok(taken) => taken,
            Err(TakeError::Unasked(error)) => return Err(error),
            Err(TakeError::Refused { code, why, held }) => {
                self.note(&format!("action {}", answer.id), Err::<(), _>((code, why.clone())));
                let (execution, finished) = match held {
                    true => (Execution::Rejected, Finished::None),
                    false => (Execution::Closed, Finished::Failure),
                };
                let mut report = Feedback::new(&answer.id, execution, finished, vec![why]);
                report.status.code = Some(code.into());
                return match self.core.api.feedback(feedback, &report).await {
                    Ok(()) | Err(ApiError::Gone(_)) => Ok(()),
                    Err(error) => Err(error),
                };
            }
        };
        let stored = self.accept(id, &answer.id, &feedback, content, &deployment).await;
        self.note(&format!("action {}", answer.id), stored.map_err(|error| (0, error.to_string())));
        Ok(())
    }

    /// Stores what the server offers, and starts it if there is something to do.
    async fn accept(
        &self,
        id: Hash,
        action: &str,
        feedback: &Url,
        content: Content,
        deployment: &Deployment,
    ) -> io::Result<()> {
        let sources = self.sources(deployment);
        let session = deployment.chunks.iter().find_map(|chunk| Session::from_metadata(&chunk.metadata));
        let session = session.filter(|_| self.core.settings.multicast);
        let offered = |known: Option<Work>| {
            let mut work = known.unwrap_or_else(|| Work::new(id, action, content));
            let again = work.ended.as_ref().is_some_and(|ended| !ended.success) && work.action != action;
            if again {
                // The operator tries once more.
                (work.attempt, work.ended) = (work.attempt + 1, None);
            }
            work.hold_download = deployment.download == Handling::Skip;
            work.hold_update = deployment.update == Handling::Skip;
            work.only_load = work.hold_update && deployment.maintenance_window.is_none();
            if work.is_downloaded() && !work.only_load {
                // Now the rest of it is wanted.
                work.ended = None;
            }
            // Offered although it has ended: the server does not know yet.
            work.reported = false;
            (work.action, work.feedback) = (action.to_owned(), feedback.to_string());
            work.sources = sources;
            // Only its wait is another, and the task is stored when it changes.
            let same = |known: &Session| session.as_ref().is_some_and(|new| new.sender == known.sender);
            if !work.session.as_ref().is_some_and(same) {
                work.session = session;
            }
            work
        };
        if self.core.update(id, offered).await?.is_open() {
            runner::spawn(&self.core, id);
        }
        self.core.changed.notify_one();
        Ok(())
    }

    /// Where the server says that the files are: its mirrors, then its own links.
    fn sources(&self, deployment: &Deployment) -> BTreeMap<String, Vec<String>> {
        let mut sources = BTreeMap::new();
        for chunk in &deployment.chunks {
            let hint =
                |key: &str| chunk.metadata.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
            let mirrors = hint("mcp.mirrors").map(|urls| urls.split_whitespace().take(MAX_MIRRORS).collect());
            let mirrors: Vec<&str> = mirrors.unwrap_or_default();
            for artifact in &chunk.artifacts {
                let hash =
                    artifact.hashes.blake3.as_deref().or_else(|| hint("mcp.object").map(String::as_str));
                let mirror = |base: &&str| match (base.ends_with('/'), hash) {
                    // As `mcp mirror export` writes it.
                    (true, Some(hash)) => Some(format!("{base}objects/{hash}")),
                    (true, None) => Some(format!("{base}{}", artifact.filename)),
                    (false, _) => Some((*base).to_owned()),
                };
                let mut urls: Vec<String> = mirrors.iter().filter_map(mirror).collect();
                let strong = artifact.hashes.blake3.is_some() || artifact.hashes.sha256.is_some();
                let secure = artifact.links.get("download");
                let plain = artifact
                    .links
                    .get("download-http")
                    .filter(|_| secure.is_none() && self.core.settings.plain || strong);
                urls.extend(secure.into_iter().chain(plain).map(str::to_owned));
                sources.insert(artifact.filename.clone(), urls);
            }
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_away_is_asked_ever_more_rarely_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut checks = CheckIn::new(Core::alone(dir.path()));
        let about = |seconds: u64| {
            Duration::from_secs(seconds).mul_f64(0.8)..=Duration::from_secs(seconds).mul_f64(1.2)
        };
        // Weeks of them.
        let mut pauses = Vec::new();
        for n in 0..2000_u32 {
            let pause = checks.pause(Err(ApiError::Status(500)));
            let expected = about((5 * 2_u64.pow(n.min(9))).min(1800));
            assert!(expected.contains(&pause), "{n}: {pause:?}");
            pauses.push(pause);
        }
        pauses.dedup();
        assert!(pauses.len() > 1900, "devices do not come together");
        let later =
            checks.pause(Err(ApiError::Later { status: 503, after: Some(Duration::from_secs(3600)) }));
        assert!(
            (3600..=4500).contains(&later.as_secs()),
            "what the server asks for is a lower bound: {later:?}"
        );
        assert!(about(300).contains(&checks.pause(Ok(Duration::from_secs(300)))));
        assert!(about(60).contains(&checks.pause(Err(ApiError::Unauthorized(401)))), "slowly from the start");
        assert!(about(10).contains(&checks.pause(Err(ApiError::Status(500)))));
    }
}
