//! The page: the fleet, its tasks and its devices in a browser. Made here, whole: it needs no script to be read and no other
//! server. What it shows comes from the queries and views of the operators' interface (`manage`).
//!
//! | part | contents |
//! |---|---|
//! | `login` | links, sessions, and what keeps other sites from acting for an operator |
//! | `live` | what all viewers see, looked up once for all, and the news that it has changed |
//! | `html`, `details` | the page as text: the fleet; a task and a device |
//!
//! Names and messages of devices are strangers' words. The templates escape all text.

mod details;
mod html;
mod live;
mod login;

pub(super) use live::{Live, produce};

use super::error::ApiError;
use super::manage::{change_task, device_view, entry, task_view};
use super::{App, clock};
use crate::store::{ActionState, DeviceState, OperatorRole, Standing, Store};
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use login::Viewer;
use maud::Markup;
use serde::Deserialize;
use std::sync::Arc;

/// Devices of one page.
const PAGE: usize = 600;
/// Actions of a device whose history is shown.
const HISTORIES: usize = 10;
/// Messages of one history.
const MESSAGES: usize = 50;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = include_str!("icon.svg");

/// The scripts and styles are files of ours, and no other site may show the page in a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(fleet))
        .route("/login", get(login::form).post(login::enter))
        .route("/login/{token}", get(login::form_with))
        .route("/logout", post(login::leave))
        .route("/events", get(live::events))
        .route("/tasks/{task}", get(task))
        .route("/tasks/{task}/{change}", post(change))
        .route("/devices/{device}", get(device))
        .route("/devices/{device}/{change}", post(decide))
        .route("/assets/page.css", get(async || asset("text/css; charset=utf-8", STYLE)))
        .route("/assets/page.js", get(async || asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/assets/icon.svg", get(async || asset("image/svg+xml", ICON)))
        .layer(axum::middleware::map_response(protect))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    // Links to them name their version.
    let headers =
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, text).into_response()
}

/// Sets the headers that bound what a browser does with an answer.
async fn protect(mut response: Response) -> Response {
    let mut set = |name: HeaderName, value: &'static str| {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    // Not `no-referrer`: browsers would then hide from us where a form comes from.
    set(header::REFERRER_POLICY, "same-origin");
    set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    set(header::CACHE_CONTROL, "no-store");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    response
}

/// Why there is no page.
#[derive(Debug)]
enum Refusal {
    /// Nobody is logged in.
    Login,
    /// The request came over a connection that others can read.
    Plain,
    Error(ApiError),
}

impl<T: Into<ApiError>> From<T> for Refusal {
    fn from(error: T) -> Self {
        Self::Error(error.into())
    }
}

type PageResult<T = Response> = Result<T, Refusal>;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = match self {
            Self::Login => return Redirect::to("/login").into_response(),
            Self::Plain => ApiError::coded(
                StatusCode::FORBIDDEN,
                "mcp.page",
                "This page is shown over encrypted connections only. Open it with https.",
            ),
            Self::Error(error) => error,
        };
        let message = error.message().map(str::to_owned);
        let answer = error.into_response();
        let status = answer.status();
        let mut page = (status, html::refusal(status, message.as_deref())).into_response();
        if let Some(later) = answer.headers().get(header::RETRY_AFTER) {
            page.headers_mut().insert(header::RETRY_AFTER, later.clone());
        }
        page
    }
}

/// Which devices are shown.
#[derive(Clone, Debug, Default, Deserialize)]
struct Selection {
    /// In this state.
    #[serde(default)]
    show: String,
    /// With this in their names.
    #[serde(default)]
    find: String,
    /// The page, from 1.
    #[serde(default)]
    page: usize,
}

impl Selection {
    /// Reads the query; one that cannot be read selects all.
    fn of(uri: &Uri) -> Self {
        let mut read = Query::<Self>::try_from_uri(uri).map(|Query(read)| read).unwrap_or_default();
        read.find = read.find.trim().chars().take(128).collect();
        read
    }

    fn wants(&self, id: &str, state: &str, tags: Option<&std::collections::BTreeSet<String>>) -> bool {
        let find = self.find.to_lowercase();
        (self.show.is_empty() || self.show == state)
            && (find.is_empty()
                || id.to_lowercase().contains(&find)
                || tags.is_some_and(|tags| tags.iter().any(|tag| tag.to_lowercase() == find)))
    }

    /// The number of the page of `len` things, from 0, and how many pages there are.
    fn place(&self, len: usize) -> (usize, usize) {
        let pages = len.div_ceil(PAGE).max(1);
        (self.page.clamp(1, pages) - 1, pages)
    }

    /// The query of another page.
    fn query(&self, page: usize) -> String {
        form_urlencoded::Serializer::new(String::from("?"))
            .append_pair("show", &self.show)
            .append_pair("find", &self.find)
            .append_pair("page", &page.to_string())
            .finish()
    }
}

async fn fleet(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult<Markup> {
    let snapshot = app.snapshot().await?;
    let selection = Selection::of(&uri);
    let tags = if selection.find.is_empty() { Default::default() } else { app.store.tags(None).await? };
    let wanted: Vec<_> = snapshot
        .devices
        .iter()
        .filter(|device| selection.wants(&device.id, device.standing.as_str(), tags.get(&device.id)))
        .collect();
    let count = |standing| snapshot.devices.iter().filter(|device| device.standing == standing).count();
    let counts = Standing::ALL.map(|standing| (standing, count(standing)));
    let body = html::fleet(&snapshot.tasks, &counts, &wanted, &selection);
    Ok(html::page(Some(&viewer), "Fleet", &body))
}

async fn task(State(app): State<App>, viewer: Viewer, Path(id): Path<i64>, uri: Uri) -> PageResult<Markup> {
    let snapshot = app.snapshot().await?;
    let view = match snapshot.detail(id) {
        Some(view) => view,
        None => snapshot.keep(id, Arc::new(task_view(&app, id).await?)),
    };
    let body = details::task(&view, &viewer, &Selection::of(&uri));
    Ok(html::page(Some(&viewer), &view.task.name, &body))
}

async fn device(State(app): State<App>, viewer: Viewer, Path(id): Path<String>) -> PageResult<Markup> {
    let view = device_view(&app, &id).await?;
    let snapshot = app.snapshot().await?;
    let summary = snapshot.devices.iter().find(|device| device.id == id);
    let mut stories = Vec::new();
    for action in view.actions.iter().flatten().take(HISTORIES) {
        stories.push(app.store.history(action.id, MESSAGES).await?);
    }
    let names = snapshot.tasks.iter().map(|task| (task.id, task.task.name.as_str())).collect();
    let body = details::device(&view, summary.map(|device| device.standing), &stories, &names, &viewer);
    Ok(html::page(Some(&viewer), &id, &body))
}

#[derive(Deserialize)]
struct Change<T> {
    #[serde(alias = "task", alias = "device")]
    of: T,
    change: String,
}

/// The store, for a change by whoever is logged in.
fn audited(app: &App, viewer: &Viewer, what: &str, subject: &str) -> Store {
    app.store.audited(entry(&viewer.operator.name, viewer.address, what, subject))
}

async fn change(State(app): State<App>, Path(path): Path<Change<i64>>, request: Request) -> PageResult {
    let (viewer, form) = login::acting(&app, request, OperatorRole::Operate).await?;
    let device = form.get("device").map(String::as_str);
    let store = audited(&app, &viewer, &format!("{} task", path.change), &path.of.to_string());
    let by = (&store, viewer.operator.name.as_str());
    let changed = change_task(&app, by, path.of, &path.change, device).await?;
    app.forget_snapshot().await;
    let back = match device {
        Some(device) => html::device_path(device),
        None => format!("/tasks/{}", changed.and_then(|changed| changed.task).unwrap_or(path.of)),
    };
    Ok(Redirect::to(&back).into_response())
}

async fn decide(State(app): State<App>, Path(path): Path<Change<String>>, request: Request) -> PageResult {
    let (viewer, _) = login::acting(&app, request, OperatorRole::Operate).await?;
    let state = match path.change.as_str() {
        "accept" => DeviceState::Accepted,
        "refuse" => DeviceState::Refused,
        _ => return Err(ApiError::not_found().into()),
    };
    app.store.device(&path.of).await?.ok_or_else(|| ApiError::no_such("device"))?;
    let store = audited(&app, &viewer, &format!("{} device", path.change), &path.of);
    store.decide_device(&path.of, state, None, clock::now()).await?;
    app.forget_snapshot().await;
    Ok(Redirect::to(&html::device_path(&path.of)).into_response())
}

/// Whether a retry would reach an action in this state.
const fn can_retry(state: ActionState) -> bool {
    matches!(state, ActionState::Failed | ActionState::Cancelled)
}
