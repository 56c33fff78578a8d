//! The threads of a send session.

use super::{StartError, worker_count};
use crate::engine::jobs::{run_sender_job, run_store_job};
use crate::engine::workers::{FailureResults, Runner, Workers};
use crate::fec::PlanCache;
use crate::protocol::job::{SenderDone, SenderJob};
use crate::storage::Source;
use crate::store::SharedStore;
use crate::units::TaskId;
use std::sync::Arc;

/// Worker threads for hashing and encoding, one for the store, and one that waits for the input of a stream.
pub(super) fn sender_workers(
    wake: impl Fn() + Send + Sync + 'static,
    source: &Arc<dyn Source>,
    (task, store): (TaskId, &SharedStore),
) -> Result<Workers<SenderJob, SenderDone>, StartError> {
    let failures =
        FailureResults { worker_died: SenderDone::WorkerDied, source_unreadable: SenderDone::SourceFailed };
    let plans = Arc::new(PlanCache::default());
    let (source, store) = (Arc::clone(source), store.clone());
    let grows = !source.extent().sealed;
    let runner = move || -> Runner<SenderJob, SenderDone> {
        let (source, plans, mut buffer) = (Arc::clone(&source), Arc::clone(&plans), Vec::new());
        Box::new(move |job| run_sender_job(job, &*source, &plans, &mut buffer))
    };
    let workers = Workers::start(worker_count(), failures, wake, runner.clone());
    let workers = match workers {
        Ok(workers) if grows => workers.with_lane("input", SenderJob::is_for_input, runner),
        started => started,
    };
    workers
        .and_then(|workers| {
            workers.with_lane("store", SenderJob::is_for_store, move || {
                let store = store.clone();
                Box::new(move |job| run_store_job(job, task, &store))
            })
        })
        .map_err(StartError::no_thread)
}
