//! What the loop tells: the server, how tasks end and what they do; `mcp agent status`, all of it.

use super::{CheckIn, Polls};
use crate::agent::api::ApiError;
use crate::agent::core::{Running, bound};
use crate::agent::fetch::blocking;
use crate::agent::work::Work;
use crate::ddi::{Execution, Feedback, Finished, Progress};
use crate::documents::Hash;
use crate::limits::MAX_REFUSED;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use tracing::warn;

/// Something that was refused, or that failed without ending the check-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// What it was.
    pub what: String,
    /// The refusal's code; 0 if it has none.
    pub code: i32,
    /// Why.
    pub why: String,
}

impl Polls {
    /// Notes why something was refused, or that it was not. Returns what is to be said: each reason once, until it is another.
    pub(super) fn note(&mut self, what: &str, refusal: Option<(i32, String)>) -> Option<String> {
        let known = self.refused.iter().position(|refused| refused.what == what);
        let known = known.map(|at| self.refused.remove(at));
        let (code, why) = refusal?;
        let refused = Refused { what: what.to_owned(), code, why };
        // The text of a refusal with a code may say what time it is.
        let said = known.is_some_and(|known| known.code == code && (code > 0 || known.why == refused.why));
        let line = (!said).then(|| refused.text());
        self.refused.push(refused);
        let surplus = self.refused.len().saturating_sub(MAX_REFUSED);
        self.refused.drain(..surplus);
        line
    }
}

impl Refused {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let code = if self.code > 0 { format!(" (code {})", self.code) } else { String::new() };
        format!("{} was refused: {}{code}", self.what, self.why)
    }
}

impl CheckIn {
    /// Tells the server what it does not know yet. Returns whether it now knows all.
    pub(super) async fn deliver(&mut self) -> bool {
        let mut all = true;
        let ended: Vec<Work> = {
            let inner = self.core.lock();
            inner.works.values().filter(|work| work.ended.is_some() && !work.reported).cloned().collect()
        };
        for work in ended {
            let Some(ended) = &work.ended else { continue };
            let (execution, finished) = match (ended.success, ended.canceled) {
                (true, _) if ended.downloaded => (Execution::Downloaded, Finished::Success),
                (true, _) => (Execution::Closed, Finished::Success),
                (_, true) => (Execution::Canceled, Finished::None),
                _ => (Execution::Closed, Finished::Failure),
            };
            let mut feedback = Feedback::new(&work.action, execution, finished, ended.details.clone());
            feedback.status.code = Some(ended.code.into()).filter(|code| *code != 0);
            let sent = match work.feedback.parse() {
                // The cancellation has been answered by itself.
                Ok(_) if ended.canceled => Ok(()),
                Ok(url) => self.core.api.feedback(url, &feedback).await,
                Err(_) => Ok(()),
            };
            match sent {
                // Over there it is over as well; or the server will never take it. One that fails may be well again later, and what
                // stands before one that is away answers like that too.
                Ok(()) | Err(ApiError::Gone(_) | ApiError::Status(..500)) => {
                    let known = self.core.change(work.id, |work| work.reported = true).await;
                    all &= known.is_ok();
                }
                Err(_) => all = false,
            }
        }
        self.tell_phases().await;
        all
    }

    /// Tells what open tasks do now. It is news, not a record: what cannot be told is left out.
    async fn tell_phases(&self) {
        let news: Vec<_> = {
            let mut inner = self.core.lock();
            let works = inner.works.clone();
            let untold = inner.running.iter_mut().filter(|(_, running)| !running.told);
            untold
                .filter_map(|(id, running)| {
                    running.told = true;
                    Some((works.get(id)?.clone(), running.phase.clone(), running.bytes))
                })
                .collect()
        };
        for (work, phase, (bytes, of)) in news {
            let mut details = vec![phase];
            bound(&mut details);
            let mut feedback = Feedback::new(&work.action, Execution::Proceeding, Finished::None, details);
            if of > 0 {
                feedback.status.result.progress = Some(Progress { cnt: bytes, of });
            }
            if let Ok(url) = work.feedback.parse() {
                let _ = self.core.api.feedback(url, &feedback).await;
            }
        }
    }

    pub(super) async fn write_status(&mut self) {
        let phase = |(id, running): (&Hash, &Running)| {
            let (bytes, of) = running.bytes;
            let progress = if of > 0 { format!(" ({bytes} of {of} bytes)") } else { String::new() };
            (id.to_string(), format!("{}{progress}", running.phase))
        };
        self.polls.phases = self.core.lock().running.iter().map(phase).collect();
        let (core, polls) = (Arc::clone(&self.core), self.polls.clone());
        let written = blocking(move || core.state.put("status.json", &polls).map_err(io::Error::other));
        if let Err(error) = written.await {
            warn!(%error, "cannot write the status ({error})");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::core::Core;
    use crate::agent::testing::{Server, send};
    use crate::agent::work::{Content, Ended};
    use std::sync::Mutex;

    #[tokio::test]
    async fn what_ended_is_told_when_the_server_is_back_after_weeks() {
        let answer = Arc::new(Mutex::new(""));
        let given = Arc::clone(&answer);
        let server = Server::start(move |_, stream| {
            let head = *given.lock().unwrap();
            async move {
                if !head.is_empty() {
                    send(stream, &format!("{head}\r\nContent-Length: 0"), b"").await;
                }
            }
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let core = Core::alone(dir.path());
        let id = Hash([7; 32]);
        let content = Content::Unsigned { name: "n".into(), version: String::new(), files: Vec::new() };
        let feedback = format!("{}/feedback", server.url);
        core.update(id, |_| Work { feedback, ..Work::new(id, "4", content) }).await.unwrap();
        let details = vec!["it is installed".to_owned()];
        core.end(id, Ended { success: true, at: 1, details, ..Ended::default() }).await.unwrap();
        let mut checks = CheckIn::new(Arc::clone(&core));
        // A server that hangs up, that fails, and what stands before one that is away.
        let away = ["", "500 Bad", "502 Bad", "503 Busy", "504 Late", "408 Late", "429 Busy", "401 Who"];
        for n in 0..200 {
            *answer.lock().unwrap() = away[n % away.len()];
            assert!(!checks.deliver().await, "{n}");
            assert!(!core.lock().works[&id].reported);
        }
        // Also after a restart meanwhile.
        assert!(!core.state.works().unwrap()[&id].reported);
        *answer.lock().unwrap() = "200 OK";
        assert!(checks.deliver().await);
        let requests = server.requests();
        let said: serde_json::Value = serde_json::from_slice(&requests.last().unwrap().body).unwrap();
        assert_eq!((&said["id"], &said["status"]["result"]["finished"]), (&"4".into(), &"success".into()));
        assert_eq!(said["status"]["details"][0], "it is installed");
        assert!(checks.deliver().await && server.requests().len() == requests.len(), "once");
        assert!(core.state.works().unwrap()[&id].reported);
    }

    #[test]
    fn a_refusal_is_said_once_until_its_reason_is_another() {
        let mut polls = Polls::default();
        let mut said = |what, refusal: Option<(i32, &str)>| {
            polls.note(what, refusal.map(|(code, why)| (code, why.to_owned()))).is_some()
        };
        // Two that are refused at each poll, one with a text that says the time.
        assert!(said("the list", Some((4081, "it is 1"))) && said("action 2", Some((4092, "unlisted"))));
        assert!(!said("the list", Some((4081, "it is 2"))) && !said("action 2", Some((4092, "unlisted"))));
        assert!(said("the list", Some((4090, "it is 3"))), "another reason");
        assert!(
            !said("the list", None) && said("the list", Some((4090, "it is 3"))),
            "once more, after a success"
        );
        assert!(said("action 3", Some((0, "full"))) && said("action 3", Some((0, "away"))));
        let many: Vec<_> = (0..100).map(|n| format!("action {n}00")).collect();
        assert!(many.iter().all(|what| said(what, Some((4000, "unreadable")))));
        assert_eq!(polls.refused.len(), MAX_REFUSED);
        assert_eq!(polls.refused.pop().unwrap().text(), "action 9900 was refused: unreadable (code 4000)");
    }
}
