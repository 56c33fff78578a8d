//! What the device interface lacks: enrolment, roots, signed lists and tasks, objects by their hash.

use super::auth::{Caller, client, read_body};
use super::campaign::Said;
use super::download::{Kind, octets, respond};
use super::error::{ApiError, ApiResult};
use super::manage::audit;
use super::{App, clock, neighbours};
use crate::documents::{Entry, Envelope, Hash, JoinRequest, List, PublicKey, Refusal};
use crate::lacking::{Lacking, is_valid};
use crate::limits::{LIST_VALIDITY, MAX_CLOCK_DIFFERENCE, MAX_DDI_BODY, MAX_LISTED, MAX_NONCE, MAX_TOKEN};
use crate::store::{Device, DeviceState, Enrolled, EnrolmentUse, StoredObject};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/roots/{version}", get(root))
        .route("/enrol", post(enrol))
        .route("/devices/{device}/list", get(list))
        .route("/devices/{device}/tasks/{task}", get(task))
        .route("/devices/{device}/actions/{action}/lacking", post(lacking))
        .route("/objects/{hash}", get(object))
        .route("/objects/{hash}/hashes", get(hashes))
        .route("/devices/{device}/neighbour", put(neighbours::offer))
        .route("/devices/{device}/objects/{hash}/neighbours", get(neighbours::near))
}

pub(super) fn json<T: Serialize>(value: &T) -> ApiResult {
    let text = serde_json::to_vec(value).map_err(|_| ApiError::bare(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

fn envelope(bytes: Vec<u8>) -> axum::response::Response {
    ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

/// What this interface and that of operators are, for programs. `docs/http-api.md` tells people.
pub(super) const OPENAPI: &str = include_str!("../../openapi.json");

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn root(State(app): State<App>, Path(version): Path<u64>) -> ApiResult {
    let bytes = app.store.root(version).await?.ok_or_else(ApiError::not_found)?;
    Ok(envelope(bytes))
}

/// The body of `POST /mcp/v1/enrol`.
#[derive(Deserialize)]
struct EnrolBody {
    /// Of the enrolment line.
    token: String,
    /// The device's signed request, in base64url.
    envelope: String,
}

async fn enrol(State(app): State<App>, parts: Parts, body: Body) -> ApiResult {
    let address = client(&app, &parts)?;
    let asked: EnrolBody =
        serde_json::from_slice(&read_body(body, MAX_DDI_BODY).await?).map_err(ApiError::unreadable)?;
    let bad = |why: String| ApiError::coded(StatusCode::BAD_REQUEST, "repo.constraintViolation", why);
    let envelope = Envelope::from_metadata(&asked.envelope).map_err(|why| bad(why.to_string()))?;
    if asked.token.is_empty() || asked.token.len() > MAX_TOKEN {
        return Err(bad("a token has at most 128 characters".into()));
    }
    let used = app.counted(address, joining(&app, &asked.token, &envelope).await)?;
    let device = used.device.clone();
    let refuse = |status, why: &str| Err(ApiError::coded(status, "mcp.enrolment", why));
    match app.store.enrol(used, clock::now()).await? {
        Enrolled::As(state) => {
            audit(&app, &format!("device {device}"), address, "enrol", state.as_str()).await?;
            json(&BTreeMap::from([("state", state.as_str())]))
        }
        Enrolled::NoLine => app.counted(address, Err(no_line())),
        Enrolled::Taken => refuse(
            StatusCode::CONFLICT,
            "another device has this name; choose another, or run 'mcp device forget' on the server",
        ),
        Enrolled::Older => refuse(
            StatusCode::CONFLICT,
            "the device has sent a newer request; this one is of no use any more",
        ),
        Enrolled::Refused => refuse(StatusCode::FORBIDDEN, "the operator refused this device"),
    }
}

fn no_line() -> ApiError {
    let why = "this enrolment line is used up, expired or revoked; ask for a new one";
    ApiError::coded(StatusCode::UNAUTHORIZED, "mcp.enrolment", why)
}

/// Checks a device's request to join. The line's token first: it costs a look into the database, and a signature costs more.
async fn joining(app: &App, token: &str, envelope: &Envelope) -> ApiResult<EnrolmentUse> {
    let bad = |why: &str| ApiError::coded(StatusCode::BAD_REQUEST, "repo.constraintViolation", why);
    let (line, now) = (blake3::hash(token.as_bytes()), clock::now());
    if !app.store.line_is_valid(&line, now).await? {
        return Err(no_line());
    }
    let request = JoinRequest::open(envelope).map_err(|why| match why {
        Refusal::Signatures { .. } => {
            let why = "the request is not signed by the key that it names";
            ApiError::coded(StatusCode::UNAUTHORIZED, "mcp.enrolment", why)
        }
        why => bad(&why.to_string()),
    })?;
    if request.fleet != app.fleet || request.line.0 != *line.as_bytes() {
        return Err(bad("the request is for another fleet, or for another enrolment line"));
    }
    if request.time.abs_diff(now) > MAX_CLOCK_DIFFERENCE.as_secs() {
        return Err(bad("the request's time and the server's differ by more than five minutes"));
    }
    Ok(EnrolmentUse {
        token: line,
        device: request.device,
        public_key: request.key.as_device().line(),
        target: blake3::Hash::from_bytes(request.target.0),
        time: request.time,
    })
}

#[derive(Deserialize)]
struct ListQuery {
    nonce: Option<String>,
}

/// The signed list of what is live for the device.
async fn list(State(app): State<App>, caller: Caller, Query(query): Query<ListQuery>) -> ApiResult {
    if query.nonce.as_ref().is_some_and(|nonce| nonce.len() > 2 * MAX_NONCE) {
        return Err(ApiError::unreadable("the nonce is too long"));
    }
    let mut live = BTreeMap::<String, Entry>::new();
    if caller.device.state == DeviceState::Accepted {
        for action in app.store.open_actions(&caller.device.id).await? {
            if !action.is_live() {
                continue;
            }
            let document = app.store.document(action.task).await?;
            let entry = Entry {
                name: document.task.name.clone(),
                serial: document.task.serial,
                hash: document.envelope.hash(),
            };
            let kept = live.entry(entry.name.clone()).or_insert_with(|| entry.clone());
            if kept.serial < entry.serial {
                *kept = entry;
            }
        }
    }
    let mut hasher = blake3::Hasher::new();
    let tasks: Vec<Entry> = live.into_values().take(MAX_LISTED).collect();
    for entry in &tasks {
        hasher
            .update(&entry.serial.to_be_bytes())
            .update(&entry.hash.0)
            .update(entry.name.as_bytes())
            .update(&[0]);
    }
    let now = clock::now();
    let version = app.store.list_version(&caller.device.id, hasher.finalize(), now).await?;
    let mut list = List::new(app.fleet, &caller.device.id, version, (now, now + LIST_VALIDITY.as_secs()));
    list.nonce = query.nonce;
    list.tasks = tasks;
    let signed = list.sign(&app.lists).map_err(ApiError::unreadable)?;
    Ok(envelope(signed.to_bytes()))
}

#[derive(Deserialize)]
struct TaskPath {
    task: i64,
}

/// The signed task of one of the device's actions.
async fn task(State(app): State<App>, caller: Caller, Path(path): Path<TaskPath>) -> ApiResult {
    app.store.action_for(&caller.device.id, path.task).await?.ok_or_else(ApiError::not_found)?;
    Ok(envelope(app.store.document(path.task).await?.envelope.to_bytes()))
}

#[derive(Deserialize)]
struct ActionPath {
    action: i64,
}

/// The body of `POST /devices/{device}/actions/{action}/lacking`.
#[derive(Deserialize)]
struct LackingBody {
    object: Hash,
    lacking: Lacking,
    #[serde(default)]
    unreached: bool,
    #[serde(default)]
    serves: bool,
}

/// A device says what it lacks of an object of its task, and is told how to get it.
async fn lacking(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<ActionPath>,
    body: Body,
) -> ApiResult {
    let said: LackingBody =
        serde_json::from_slice(&read_body(body, MAX_DDI_BODY).await?).map_err(ApiError::unreadable)?;
    let action = app.store.action(&caller.device.id, path.action).await?.ok_or_else(ApiError::not_found)?;
    let document = app.store.document(action.task).await?;
    let same = |object: &StoredObject| object.hashes.blake3.as_bytes() == &said.object.0;
    let position = document.objects.iter().position(same).ok_or_else(ApiError::not_found)?;
    if !is_valid(&said.lacking, document.objects[position].hashes.size) {
        return Err(ApiError::unreadable("what is lacking are at most 1024 ascending ranges of the object"));
    }
    let LackingBody { lacking, unreached, serves, .. } = said;
    let said = Said { position, lacking, unreached, serves };
    json(&app.offer(&caller, &action, &document, said).await?)
}

/// A device known by its target token alone, which may load an object.
struct Loader {
    hash: blake3::Hash,
}

impl FromRequestParts<App> for Loader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let Path(path) = Path::<BTreeMap<String, String>>::from_request_parts(parts, app)
            .await
            .map_err(|_| ApiError::not_found())?;
        let device = app.counted(client(app, parts)?, device_of_token(app, &parts.headers).await)?;
        if device.state == DeviceState::Refused {
            return Err(ApiError::bare(StatusCode::FORBIDDEN));
        }
        if app.requests.take(device.id.clone(), Instant::now()).is_err() {
            return Err(ApiError::bare(StatusCode::TOO_MANY_REQUESTS));
        }
        let named = path.get("hash").map(String::as_str).unwrap_or_default();
        let hash: Hash = named.parse().map_err(|_| ApiError::not_found())?;
        let hash = blake3::Hash::from_bytes(hash.0);
        if device.state != DeviceState::Accepted || !app.store.may_load(&device.id, &hash).await? {
            return Err(ApiError::not_found());
        }
        Ok(Self { hash })
    }
}

/// The device that a request's target token belongs to.
async fn device_of_token(app: &App, headers: &HeaderMap) -> ApiResult<Device> {
    let no = || ApiError::bare(StatusCode::UNAUTHORIZED);
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(no)?;
    let (scheme, token) = value.trim().split_once(' ').ok_or_else(no)?;
    if !scheme.eq_ignore_ascii_case("TargetToken") || token.len() > MAX_TOKEN {
        return Err(no());
    }
    app.store.device_of_token(&blake3::hash(token.trim().as_bytes())).await?.ok_or_else(no)
}

async fn object(State(app): State<App>, loader: Loader, method: Method, headers: HeaderMap) -> ApiResult {
    app.here_or_later(&loader.hash)?;
    let hashes = app.store.object(&loader.hash).await?.ok_or_else(ApiError::not_found)?;
    respond(&app.downloads, &method, &headers, (hashes.blake3, hashes.size), Kind::Object).await
}

/// The chaining values of the object's blocks, 32 bytes each.
async fn hashes(State(app): State<App>, loader: Loader) -> ApiResult {
    app.here_or_later(&loader.hash)?;
    let (objects, hash) = (std::sync::Arc::clone(&app.objects), loader.hash);
    match tokio::task::spawn_blocking(move || objects.block_values(&hash)).await {
        Ok(Ok(values)) => Ok(octets(values)),
        _ => Err(ApiError::not_found()),
    }
}

/// The key in a text, if it is one.
pub(super) fn public_key(text: &str) -> ApiResult<PublicKey> {
    text.parse().map_err(|why: &str| ApiError::unreadable(format!("key: {why}")))
}
