//! Tasks and objects.

use super::super::error::{ApiError, ApiResult};
use super::super::{App, auth, clock};
use super::views::{ChangeResponse, ObjectView, SerialView, TaskRequest, TaskResponse, TaskView};
use super::{authorise, body_of, done, entry, json, signed};
use crate::documents::{Envelope, Hash, Kind, Root, Task};
use crate::limits::{MAX_MANAGE_BODY, MAX_METADATA_VALUE, MAX_NAME};
use crate::objects::{ObjectError, ObjectHashes};
use crate::store::{NewTask, OperatorRole, Store, StoredTask};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use http_body::Body as _;
use serde::Deserialize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

impl From<StoredTask> for TaskView {
    fn from(stored: StoredTask) -> Self {
        Self {
            id: stored.id,
            state: stored.state,
            created: stored.created,
            by: stored.by,
            task: stored.document.task.clone(),
            terms: stored.document.terms.clone(),
            counts: stored.counts,
            rollout: stored.rollout,
            rollback: stored.rollback,
            sessions: Vec::new(),
            actions: None,
        }
    }
}

pub(super) async fn list(State(app): State<App>, request: Request) -> ApiResult {
    signed(&app, request, OperatorRole::Read).await?;
    let tasks: Vec<TaskView> = app.store.tasks(None).await?.into_iter().map(TaskView::from).collect();
    json(&tasks)
}

pub(super) async fn show(State(app): State<App>, Path(id): Path<i64>, request: Request) -> ApiResult {
    signed(&app, request, OperatorRole::Read).await?;
    json(&task_view(&app, id).await?)
}

/// A task with its sessions and actions.
pub(in crate::server) async fn task_view(app: &App, id: i64) -> ApiResult<TaskView> {
    let stored = app.store.tasks(Some(id)).await?.pop();
    let stored = stored.ok_or_else(|| ApiError::no_such("task"))?;
    let mut view = TaskView::from(stored);
    view.sessions = app.sessions(id).await?;
    view.actions = Some(app.store.actions_of_task(id).await?);
    Ok(view)
}

/// Where the session of a task is that runs now, with its keys: who has them can read the object on its way.
pub(super) async fn session(State(app): State<App>, Path(id): Path<i64>, request: Request) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Operate).await?;
    let session =
        app.session_of(&*app.store.document(id).await?).ok_or_else(|| ApiError::no_such("session"))?;
    signed.audit(&app, "read session keys of task", &id.to_string()).await?;
    json(&session)
}

pub(super) async fn serial(State(app): State<App>, Path(name): Path<String>, request: Request) -> ApiResult {
    signed(&app, request, OperatorRole::Read).await?;
    json(&SerialView { serial: app.store.serial(&name).await? })
}

pub(super) async fn add(State(app): State<App>, request: Request) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Operate).await?;
    let TaskRequest { envelope, terms, rollback } = signed.json()?;
    if let Some(why) = terms.wrong() {
        return Err(bad(why));
    }
    let (task, envelope) = read_task(&app, &envelope).await?;
    let rollback = match rollback {
        None => None,
        Some(text) => {
            let (back, envelope) = read_task(&app, &text).await?;
            if back.name != task.name || back.serial <= task.serial {
                return Err(bad("a rollback has the name of its task and a higher serial"));
            }
            for object in &back.objects {
                let known = app.store.object(&blake3::Hash::from_bytes(object.blake3.0)).await?;
                known
                    .ok_or_else(|| bad(format!("the rollback needs {}; upload it first", object.filename)))?;
            }
            Some(envelope)
        }
    };
    let name = format!("{} {}", task.name, task.serial);
    let new = NewTask { task, envelope, terms, rollback, by: signed.operator.name.clone() };
    let id = signed.store(&app, "add task", &name).add_task(new, clock::now()).await?;
    json(&TaskResponse { id })
}

fn bad(why: impl Into<String>) -> ApiError {
    ApiError::coded(StatusCode::BAD_REQUEST, "mcp.task", why.into())
}

/// A signed task in base64url. What devices would refuse is refused here, where somebody reads why.
async fn read_task(app: &App, text: &str) -> ApiResult<(Task, Envelope)> {
    let envelope = Envelope::from_metadata(text).map_err(|why| bad(why.to_string()))?;
    let task = Task::parse(envelope.payload()).map_err(|why| bad(why.to_string()))?;
    if task.fleet != app.fleet {
        return Err(bad("the task is for another fleet"));
    }
    if task.expires <= clock::now() {
        return Err(bad("the task has expired; sign it again"));
    }
    let newest = app.store.newest_root().await?;
    let root = app.store.root(newest).await?.ok_or_else(|| ApiError::no_such("root"))?;
    let root = Envelope::parse(&root).and_then(|root| Root::parse(root.payload()));
    let role = root.map_err(|why| bad(why.to_string()))?.tasks;
    let signers = envelope.signers(Kind::Task).intersection(&role.keys).count();
    if signers < role.threshold {
        return Err(bad(format!(
            "{signers} of {} signatures are by keys that root {newest} lists for tasks",
            role.threshold
        )));
    }
    Ok((task, envelope))
}

#[derive(Deserialize)]
pub(super) struct Change {
    task: i64,
    change: String,
}

#[derive(Default, Deserialize)]
struct RetryRequest {
    /// The device; absent: all where it failed or was cancelled.
    device: Option<String>,
}

pub(super) async fn change(State(app): State<App>, Path(path): Path<Change>, request: Request) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Operate).await?;
    let asked: RetryRequest = if signed.body.is_empty() { RetryRequest::default() } else { signed.json()? };
    let store = signed.store(&app, &format!("{} task", path.change), &path.task.to_string());
    let by = (&store, signed.operator.name.as_str());
    match change_task(&app, by, path.task, &path.change, asked.device.as_deref()).await? {
        Some(changed) => json(&changed),
        None => done(),
    }
}

/// Changes a task for an operator, through a store that names the operator in the audit trail. Returns at how many devices
/// it is tried again or undone, if that is the change.
pub(in crate::server) async fn change_task(
    app: &App,
    (store, operator): (&Store, &str),
    id: i64,
    change: &str,
    device: Option<&str>,
) -> ApiResult<Option<ChangeResponse>> {
    match change {
        "pause" => store.pause_task(id, true, clock::now()).await?,
        "resume" => store.pause_task(id, false, clock::now()).await?,
        "cancel" => {
            store.cancel_task(id, clock::now()).await?;
            end_sessions(app, id).await?;
        }
        "rollback" => {
            let (task, devices) = store.roll_back(id, operator, clock::now()).await?;
            end_sessions(app, id).await?;
            return Ok(Some(ChangeResponse { task: Some(task), devices }));
        }
        "start" => {
            let document = app.store.document(id).await?;
            store.begin_sessions(id).await?;
            document.objects.iter().for_each(|object| app.campaigns.begin(&object.hashes.blake3));
        }
        "retry" => {
            let devices = store.retry(id, device, clock::now()).await?;
            return Ok(Some(ChangeResponse { task: None, devices }));
        }
        _ => return Err(ApiError::not_found()),
    }
    Ok(None)
}

/// Ends the sessions of a task that is over.
async fn end_sessions(app: &App, id: i64) -> ApiResult<()> {
    let document = app.store.document(id).await?;
    document.objects.iter().for_each(|object| app.campaigns.cancel(&object.hashes.blake3));
    Ok(())
}

fn view(hashes: &ObjectHashes) -> ApiResult<ObjectView> {
    let sha256 = hashes.sha256.parse().map_err(|_| ApiError::bare(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(ObjectView { size: hashes.size, blake3: Hash(*hashes.blake3.as_bytes()), sha256 })
}

pub(super) async fn object(State(app): State<App>, Path(hash): Path<Hash>, request: Request) -> ApiResult {
    signed(&app, request, OperatorRole::Read).await?;
    let hash = blake3::Hash::from_bytes(hash.0);
    let known =
        app.store.object(&hash).await?.filter(|_| app.objects.contains(&hash) || app.is_under_way(&hash));
    json(&view(&known.ok_or_else(|| ApiError::no_such("object"))?)?)
}

/// Takes an object. The signature is for the hash in the path, so the bytes are checked against it as they come.
pub(super) async fn upload(State(app): State<App>, Path(hash): Path<Hash>, request: Request) -> ApiResult {
    let (parts, body) = body_of(request);
    let operator = match authorise(&app, &parts, hash, OperatorRole::Operate).await {
        Ok(operator) => operator,
        Err(why) => {
            // Whoever still sends when the connection ends never reads why.
            let _ = auth::read_body(body, MAX_MANAGE_BODY).await;
            return Err(why);
        }
    };
    let address = auth::client(&app, &parts)?;
    let (pieces, mut queue) = mpsc::channel::<Bytes>(4);
    let objects = Arc::clone(&app.objects);
    let expected = blake3::Hash::from_bytes(hash.0);
    let import = tokio::task::spawn_blocking(move || {
        let mut import = objects.import()?;
        while let Some(piece) = queue.blocking_recv() {
            import.write(&piece)?;
        }
        import.finish(Some(expected))
    });
    // A body that breaks off has another hash, so nothing of it is kept.
    let read = feed(body, pieces).await;
    let imported = import.await.map_err(|_| ApiError::later(30))?;
    let hashes = match (imported, read) {
        (Ok(hashes), _) => hashes,
        (Err(error @ ObjectError::Full(_)), _) => {
            return Err(ApiError::coded(StatusCode::INSUFFICIENT_STORAGE, "mcp.objects", error.to_string()));
        }
        (_, Err(error)) => return Err(error),
        (Err(error), _) => {
            return Err(ApiError::coded(StatusCode::BAD_REQUEST, "mcp.objects", error.to_string()));
        }
    };
    if let Some(bucket) = &app.bucket {
        // The database knows it once every server can have it.
        bucket
            .put(&app.objects, hashes.blake3)
            .await
            .map_err(|error| ApiError::coded(StatusCode::BAD_GATEWAY, "mcp.objects", error.to_string()))?;
    }
    let entry = entry(&operator.name, address, "upload object", &hashes.blake3.to_string());
    app.store.audited(entry).add_object(&hashes, clock::now()).await?;
    json(&view(&hashes)?)
}

/// Hands a body on, piece by piece. Each must come within a minute.
async fn feed(body: Body, to: mpsc::Sender<Bytes>) -> ApiResult<()> {
    let mut body = body;
    loop {
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        match tokio::time::timeout(Duration::from_secs(60), next).await {
            Err(_) => return Err(ApiError::bare(StatusCode::REQUEST_TIMEOUT)),
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(ApiError::unreadable(error)),
            Ok(Some(Ok(frame))) => {
                if let Ok(piece) = frame.into_data()
                    && to.send(piece).await.is_err()
                {
                    // The import failed, and says why.
                    return Ok(());
                }
            }
        }
    }
}

const _: () = assert!(MAX_NAME < MAX_METADATA_VALUE);
