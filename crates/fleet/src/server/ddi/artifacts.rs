//! The files of software modules. A module is a task.

use super::super::auth::Caller;
use super::super::download::{Kind, respond};
use super::super::error::{ApiError, ApiResult};
use super::deployments::artifacts;
use super::{App, document};
use crate::store::ActionState;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::IntoResponse;
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Module {
    module: String,
}

#[derive(Deserialize)]
pub(super) struct File {
    module: String,
    file: String,
}

pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<Module>,
    headers: HeaderMap,
) -> ApiResult {
    let module = super::number(&path.module)?;
    let assigned = app.store.action_for(&caller.device.id, module).await?;
    assigned.ok_or_else(|| ApiError::no_such("software module"))?;
    let task = app.store.document(module).await?;
    document(&headers, &artifacts(&caller, module, &task))
}

pub(super) async fn file(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<File>,
    method: Method,
    headers: HeaderMap,
) -> ApiResult {
    let module = super::number(&path.module).map_err(|_| ApiError::not_found())?;
    let action = app.store.action_for(&caller.device.id, module).await?.ok_or_else(ApiError::not_found)?;
    // Also while it waits: a client may have the link from before.
    if !matches!(action.state, ActionState::Waiting | ActionState::Running) {
        return Err(ApiError::not_found());
    }
    let task = app.store.document(module).await?;
    let named = |name: &str| task.objects.iter().find(|object| object.filename == name);
    if let Some(object) = named(&path.file) {
        let kind = Kind::Artifact { name: &object.filename, sha1: &object.hashes.sha1 };
        app.here_or_later(&object.hashes.blake3)?;
        let hashes = (object.hashes.blake3, object.hashes.size);
        return respond(&app.downloads, &method, &headers, hashes, kind).await;
    }
    let summed = path.file.strip_suffix(".MD5SUM").and_then(named).ok_or_else(ApiError::not_found)?;
    let text = format!("{}  {}", summed.hashes.md5, summed.filename);
    Ok(([(header::CONTENT_TYPE, "text/plain")], text).into_response())
}
