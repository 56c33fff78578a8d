//! What the loop tells: the server, how tasks end and what they do; `mcp agent status`, all of it.

use super::CheckIn;
use crate::agent::api::ApiError;
use crate::agent::core::{Running, bound};
use crate::agent::fetch::blocking;
use crate::agent::log;
use crate::agent::work::Work;
use crate::ddi::{Execution, Feedback, Finished, Progress};
use crate::documents::Hash;
use std::io;
use std::sync::Arc;

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
                // Over there it is over as well; or the server will never take it.
                Ok(()) | Err(ApiError::Gone(_) | ApiError::Status(_)) => {
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
            log(&format!("cannot write the status ({error})"));
        }
    }
}
