//! The operators' interface. Every request is signed with the operator's Ed25519 key: an envelope in the header
//! `Authorization: McpRequest BASE64URL` over fleet, method, path, BLAKE3 of the body, time and a nonce. Each is taken
//! once. What changed is in the audit trail.

mod devices;
mod hooks;
mod people;
mod tasks;
mod views;

pub use views::{
    AcceptRequest, ChangeResponse, DeviceView, EnrolmentRequest, EnrolmentResponse, HookRequest,
    HookResponse, LinkResponse, ObjectView, OperatorRequest, RequestPayload, SerialView, TagRequest,
    TaskRequest, TaskResponse, TaskView, TokenResponse,
};

pub(super) use devices::device_view;
pub(super) use tasks::{change_task, task_view};

use super::auth::{client, read_body};
use super::error::{ApiError, ApiResult};
use super::{App, clock, requests};
use crate::documents::{Envelope, Hash, Kind};
use crate::limits::{MAX_CLOCK_DIFFERENCE, MAX_MANAGE_BODY};
use crate::store::{AuditEntry, Operator, OperatorRole, Store};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::IpAddr;

/// The scheme of the Authorization header.
pub const SCHEME: &str = "McpRequest";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/tasks", get(tasks::list).post(tasks::add))
        .route("/tasks/{task}", get(tasks::show))
        .route("/tasks/{task}/session", get(tasks::session))
        .route("/tasks/{task}/{change}", post(tasks::change))
        .route("/serials/{name}", get(tasks::serial))
        .route("/objects/{hash}", get(tasks::object).put(tasks::upload))
        .route("/devices", get(devices::list))
        .route("/devices/{device}", get(devices::show))
        .route("/devices/{device}/{change}", post(devices::change))
        .route("/enrolments", get(people::lines).post(people::new_line))
        .route("/enrolments/{line}/revoke", post(people::revoke))
        .route("/operators", get(people::operators))
        .route("/operators/{name}", put(people::put_operator).delete(people::remove_operator))
        .route("/hooks", get(hooks::list).post(hooks::add))
        .route("/hooks/{hook}", delete(hooks::remove))
        .route("/links", post(people::new_link))
        .route("/roots", get(people::newest_root).post(people::add_root))
        .route("/audit", get(people::trail))
}

/// A request whose signature was checked.
struct Signed {
    operator: Operator,
    address: IpAddr,
    body: Bytes,
}

/// Checks who signed a request and whether that operator may do it; reads its body.
async fn signed(app: &App, request: Request, role: OperatorRole) -> ApiResult<Signed> {
    let (parts, body) = request.into_parts();
    // Read first, so that the connection stays usable.
    let body = read_body(body, MAX_MANAGE_BODY).await?;
    let operator = authorise(app, &parts, Hash::of(&body), role).await?;
    Ok(Signed { operator, address: client(app, &parts)?, body })
}

/// Checks who signed a request with a body of this hash, and whether that operator may do it.
async fn authorise(app: &App, parts: &Parts, body: Hash, role: OperatorRole) -> ApiResult<Operator> {
    app.counted(client(app, parts)?, operator_of(app, parts, body, role).await)
}

async fn operator_of(app: &App, parts: &Parts, body: Hash, role: OperatorRole) -> ApiResult<Operator> {
    let no = |why: &str| ApiError::coded(StatusCode::UNAUTHORIZED, "mcp.request", why);
    let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let text = value
        .and_then(|value| value.trim().strip_prefix(SCHEME))
        .ok_or_else(|| no("requests are signed with an operator's key"))?;
    let envelope = Envelope::from_metadata(text.trim()).map_err(|_| no("the signature cannot be read"))?;
    let payload: RequestPayload =
        serde_json::from_slice(envelope.payload()).map_err(|_| no("the signature cannot be read"))?;
    let path =
        parts.extensions.get::<axum::extract::OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let path = path.path_and_query().map_or("/", |path| path.as_str());
    if payload.fleet != app.fleet {
        return Err(no("the request is for another fleet"));
    }
    if payload.method != parts.method.as_str() || payload.path != path || payload.body != body {
        return Err(no("the signature is for another request"));
    }
    let now = clock::now();
    if payload.time.abs_diff(now) > MAX_CLOCK_DIFFERENCE.as_secs() {
        return Err(no(
            "the clocks of this machine and of the server differ by more than five minutes; set them",
        ));
    }
    let key = envelope.sole_signer(Kind::Request).ok_or_else(|| no("the signature is wrong"))?;
    let operator =
        app.store.operator(&key.to_string()).await?.ok_or_else(|| no("the key is no operator's"))?;
    requests::by_operator(&operator.name);
    if operator.role < role {
        let why = format!(
            "operator {} may only {}; this needs {}",
            operator.name,
            operator.role.as_str(),
            role.as_str()
        );
        return Err(ApiError::coded(StatusCode::FORBIDDEN, "mcp.role", why));
    }
    // What is only read may be read again.
    if parts.method != Method::GET {
        // From the request's own time: until then it could be sent again.
        let until = payload.time.saturating_add(MAX_CLOCK_DIFFERENCE.as_secs() + 1);
        if !app.store.take_request(envelope.hash(), until).await? {
            return Err(no("the request was sent before"));
        }
    }
    Ok(operator)
}

impl Signed {
    fn json<T: DeserializeOwned>(&self) -> ApiResult<T> {
        serde_json::from_slice(&self.body).map_err(ApiError::unreadable)
    }

    /// The store, for a change by this operator, who is named in the audit trail with it.
    fn store(&self, app: &App, what: &str, subject: &str) -> Store {
        app.store.audited(entry(&self.operator.name, self.address, what, subject))
    }

    async fn audit(&self, app: &App, what: &str, subject: &str) -> ApiResult<()> {
        audit(app, &self.operator.name, self.address, what, subject).await
    }
}

pub(super) fn entry(who: &str, address: IpAddr, what: &str, subject: &str) -> AuditEntry {
    AuditEntry {
        at: clock::now(),
        who: who.into(),
        address: address.to_string(),
        what: what.into(),
        subject: subject.into(),
    }
}

/// Adds an entry to the audit trail.
pub(super) async fn audit(app: &App, who: &str, address: IpAddr, what: &str, subject: &str) -> ApiResult<()> {
    Ok(app.store.audit(entry(who, address, what, subject)).await?)
}

fn json<T: Serialize>(value: &T) -> ApiResult {
    let text = serde_json::to_vec(value).map_err(|_| ApiError::bare(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

fn done() -> ApiResult {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A body that is taken piece by piece.
fn body_of(request: Request) -> (Parts, Body) {
    request.into_parts()
}
