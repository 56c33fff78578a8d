//! Deployments, their cancellation, and what is installed.

use super::super::auth::{Caller, SEGMENT};
use super::super::clock;
use super::super::deciding::{Verdict, verdict};
use super::super::error::{ApiError, ApiResult};
use super::about::{About, Said, taken};
use super::{App, body, document, done};
use crate::ddi::{
    Artifact, Cancel, Chunk, Deployment, Feedback, Handling, Hashes, Installed, Links, Metadata,
    task_to_metadata,
};
use crate::store::{Action, ActionState, Answer, Begun, Report, TaskDocument};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use percent_encoding::utf8_percent_encode;
use tracing::debug;

pub(super) async fn deployment(about: About) -> ApiResult {
    let About { app, caller, action, .. } = &about;
    let task = about.task().await?;
    match action.state {
        ActionState::Confirming | ActionState::Cancelling | ActionState::Cancelled => {
            return Err(ApiError::no_such("deployment"));
        }
        ActionState::Waiting => {
            let may = verdict(app, &caller.device, action, &task).await? == Verdict::Now;
            let most = app.store.most_at_once(action.task, task.terms.at_once).await?;
            if !may || app.store.begin(action, most, clock::now()).await? == Begun::No {
                return Err(ApiError::no_such("deployment"));
            }
        }
        _ => {}
    }
    let mut deployment = what(app, caller, action, &task);
    if let Some(chunk) = deployment.chunks.first_mut() {
        chunk.metadata.extend(app.invite(caller, action, &task).await);
    }
    about.answer(Some(deployment), None, our_links(caller, action)).await
}

/// What a device is to do.
pub(super) fn what(app: &App, caller: &Caller, action: &Action, task: &TaskDocument) -> Deployment {
    let update = if task.terms.download_only { Handling::Skip } else { task.terms.update };
    let download = if task.terms.download_only { Handling::Forced } else { task.terms.update };
    Deployment {
        download,
        update,
        maintenance_window: None,
        chunks: vec![chunk(app, caller, action.task, task)],
    }
}

fn chunk(app: &App, caller: &Caller, module: i64, document: &TaskDocument) -> Chunk {
    let task = &document.task;
    let version = if task.version.is_empty() { task.serial.to_string() } else { task.version.clone() };
    let mut metadata = Vec::new();
    // Other clients have no use for it, and some only little room.
    if caller.device.is_ours() {
        metadata = task_to_metadata(&document.envelope.to_metadata());
        let mirrors = &app.config.mirrors;
        if !mirrors.is_empty() {
            metadata.push(Metadata { key: "mcp.mirrors".into(), value: mirrors.join(" ") });
        }
    }
    Chunk {
        part: document.terms.part.clone(),
        version,
        name: task.name.clone(),
        encrypted: None,
        artifacts: artifacts(caller, module, document),
        metadata,
    }
}

/// The files of a task, with their links.
pub(super) fn artifacts(caller: &Caller, module: i64, document: &TaskDocument) -> Vec<Artifact> {
    let artifact = |object: &crate::store::StoredObject| {
        let name = utf8_percent_encode(&object.filename, SEGMENT);
        let url = format!("{}/softwaremodules/{module}/artifacts/{name}", caller.base);
        let sum = format!("{url}.MD5SUM");
        let links = if caller.secure {
            Links::from([("download", url), ("md5sum", sum)])
        } else {
            Links::from([("download-http", url), ("md5sum-http", sum)])
        };
        let hashes = Hashes {
            sha1: Some(object.hashes.sha1.clone()),
            md5: Some(object.hashes.md5.clone()),
            sha256: Some(object.hashes.sha256.clone()),
            blake3: Some(object.hashes.blake3.to_string()),
        };
        Artifact { filename: object.filename.clone(), hashes, size: object.hashes.size, links }
    };
    document.objects.iter().map(artifact).collect()
}

fn our_links(caller: &Caller, action: &Action) -> Links {
    if !caller.device.is_ours() {
        return Links::default();
    }
    let device = utf8_percent_encode(&caller.device.id, SEGMENT);
    let base = format!("{}/mcp/v1/devices/{device}", caller.origin);
    Links::from([("mcp-list", format!("{base}/list")), ("mcp-task", format!("{base}/tasks/{}", action.task))])
}

pub(super) async fn feedback(said: Said<Feedback>) -> ApiResult {
    let download_only = said.app.store.document(said.action().await?.task).await?.terms.download_only;
    report(said, Report::Deployment { download_only }).await
}

pub(super) async fn cancel(about: About) -> ApiResult {
    if about.action.state != ActionState::Cancelling {
        return Err(ApiError::no_such("cancellation"));
    }
    document(&about.headers, &Cancel::new(&about.action.id.to_string()))
}

pub(super) async fn cancel_feedback(said: Said<Feedback>) -> ApiResult {
    report(said, Report::Cancellation).await
}

async fn report(Said { app, caller, action, said }: Said<Feedback>, on: Report) -> ApiResult {
    let answer = app.store.feedback(&caller.device.id, action, on, said, clock::now()).await?;
    if let Some(Answer::Taken(state)) = answer
        && !state.is_open()
    {
        let (device, state) = (&caller.device.id, state.as_str());
        debug!(action, state, "{device} ended action {action}: {state}");
    }
    taken(answer, "deployment")
}

pub(super) async fn installed(about: About) -> ApiResult {
    let About { app, caller, action, .. } = &about;
    if action.state.is_open() || action.state == ActionState::Cancelled {
        return Err(ApiError::no_such("installation"));
    }
    let task = about.task().await?;
    about.answer(Some(what(app, caller, action, &task)), None, Links::default()).await
}

/// A device says what it runs already. Its action for that task ends as one that it does not need.
pub(super) async fn put_installed(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    request: Body,
) -> ApiResult {
    let Installed { name, version } = body(&headers, request).await?;
    let open = app.store.open_actions(&caller.device.id).await?;
    for action in open.into_iter().filter(|action| !action.state.has_begun()) {
        let task = app.store.document(action.task).await?;
        if task.task.name == name && task.task.version == version {
            let why = "the device says that it runs this version";
            app.store.settle(action.id, ActionState::Unneeded, why, clock::now()).await?;
            return Ok(done());
        }
    }
    let known = app.store.completed_version(&caller.device.id, &name).await?;
    if known.as_deref() == Some(&*version) { Ok(done()) } else { Err(ApiError::no_such("software")) }
}
