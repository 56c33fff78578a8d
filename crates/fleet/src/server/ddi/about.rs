//! Requests about one action of a device: what they ask, and how they are answered.

use super::super::auth::Caller;
use super::super::error::{ApiError, ApiResult};
use super::{App, body, document, done};
use crate::ddi::{ActionHistory, Deployment, DeploymentBase, Links};
use crate::limits::MAX_HISTORY;
use crate::store::{Action, Answer, TaskDocument};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A device asks for something of one of its actions.
pub(super) struct About {
    pub app: App,
    pub caller: Caller,
    pub action: Action,
    pub headers: HeaderMap,
    messages: i64,
}

#[derive(Deserialize)]
struct HistoryQuery {
    #[serde(rename = "actionHistory", default)]
    messages: i64,
}

impl FromRequestParts<App> for About {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let query = Query::<HistoryQuery>::from_request_parts(parts, app).await;
        let Query(HistoryQuery { messages }) = query.map_err(ApiError::unreadable)?;
        let action = action_of(app, &caller, number(parts, app).await?).await?;
        Ok(Self { app: app.clone(), caller, action, headers: parts.headers.clone(), messages })
    }
}

impl About {
    /// The task of the action.
    pub async fn task(&self) -> ApiResult<Arc<TaskDocument>> {
        Ok(self.app.store.document(self.action.task).await?)
    }

    /// Answers with what the device is to do, or to confirm.
    pub async fn answer(
        &self,
        deployment: Option<Deployment>,
        confirmation: Option<Deployment>,
        links: Links,
    ) -> ApiResult {
        let id = self.action.id.to_string();
        let action_history = self.history().await?;
        document(&self.headers, &DeploymentBase { id, deployment, confirmation, action_history, links })
    }

    /// The history that was asked for: none at 0, the newest at n, as many as there may be below 0.
    async fn history(&self) -> ApiResult<Option<ActionHistory>> {
        let most = match self.messages {
            0 => return Ok(None),
            n if n < 0 => MAX_HISTORY,
            n => usize::try_from(n).unwrap_or(MAX_HISTORY),
        };
        let messages = self.app.store.history(self.action.id, most).await?;
        Ok(Some(ActionHistory { status: self.action.state.in_hawkbit().into(), messages }))
    }
}

/// A device says something of one of its actions.
pub(super) struct Said<T> {
    pub app: App,
    pub caller: Caller,
    /// The number of the action, which may be another device's.
    pub action: i64,
    pub said: T,
}

impl<T: DeserializeOwned + Send> FromRequest<App> for Said<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> ApiResult<Self> {
        let (mut parts, content) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        let said = body(&parts.headers, content).await?;
        let action = number(&mut parts, app).await?;
        Ok(Self { app: app.clone(), caller, action, said })
    }
}

impl<T> Said<T> {
    /// The action, which is this device's.
    pub async fn action(&self) -> ApiResult<Action> {
        action_of(&self.app, &self.caller, self.action).await
    }
}

/// Answers what the device said. `what` is what it spoke of.
pub(super) fn taken(answer: Option<Answer>, what: &str) -> ApiResult {
    match answer.ok_or_else(|| ApiError::no_such("action"))? {
        Answer::Taken(_) => Ok(done()),
        Answer::Gone => Err(ApiError::bare(StatusCode::GONE)),
        Answer::Hidden => Err(ApiError::no_such(what)),
        Answer::NotCancelling => {
            let text = "nobody asked to cancel this action";
            Err(ApiError::coded(StatusCode::METHOD_NOT_ALLOWED, "action.notCancelable", text))
        }
    }
}

/// The number of the action in the path.
async fn number(parts: &mut Parts, app: &App) -> ApiResult<i64> {
    let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, app).await;
    let Path(path) = path.map_err(|_| ApiError::not_found())?;
    super::number(path.get("action").map_or("", String::as_str))
}

async fn action_of(app: &App, caller: &Caller, action: i64) -> ApiResult<Action> {
    app.store.action(&caller.device.id, action).await?.ok_or_else(|| ApiError::no_such("action"))
}
