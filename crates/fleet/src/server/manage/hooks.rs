//! Web hooks, by administrators alone: a URL may hold a secret.

use super::super::error::{ApiError, ApiResult};
use super::super::hooks::secret_text;
use super::super::{App, clock, state_dir};
use super::views::{HookRequest, HookResponse};
use super::{done, json, signed};
use crate::limits::MAX_URL;
use crate::store::{EventKind, NewHook, OperatorRole};
use axum::extract::{Path, Request, State};
use mcp_transfer::crypto::derive::Secret;
use reqwest::Url;

pub(super) async fn list(State(app): State<App>, request: Request) -> ApiResult {
    signed(&app, request, OperatorRole::Admin).await?;
    json(&app.store.hooks().await?)
}

pub(super) async fn add(State(app): State<App>, request: Request) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Admin).await?;
    let HookRequest { url, mut kinds } = signed.json()?;
    let web = url.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = web.filter(|web| web.as_str().len() <= MAX_URL).ok_or_else(|| {
        ApiError::unreadable(format!("a web hook is http(s)://HOST/PATH of at most {MAX_URL} bytes"))
    })?;
    kinds.sort_unstable();
    kinds.dedup();
    kinds.retain(|kind| *kind != EventKind::HookAdded);
    let secret = Secret::new(*state_dir::random::<32>().map_err(|_| ApiError::later(30))?);
    let text = secret_text(&secret);
    let place = url.origin().ascii_serialization();
    let new = NewHook { url: url.into(), secret, kinds, by: signed.operator.name.clone() };
    let id = signed.store(&app, "add web hook", &place).add_hook(new, clock::now()).await?;
    json(&HookResponse { id, secret: text })
}

pub(super) async fn remove(State(app): State<App>, Path(id): Path<i64>, request: Request) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Admin).await?;
    signed.store(&app, "remove web hook", &id.to_string()).remove_hook(id).await?;
    done()
}
