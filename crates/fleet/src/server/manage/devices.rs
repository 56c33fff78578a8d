//! Devices.

use super::super::error::{ApiError, ApiResult};
use super::super::{App, clock, state_dir};
use super::views::{AcceptRequest, DeviceView, TagRequest, TokenResponse};
use super::{done, json, signed};
use crate::limits::MAX_CONTROLLER_ID;
use crate::store::{Device, DeviceState, OperatorRole, is_tag};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use std::collections::BTreeSet;

/// Devices of one answer.
const PAGE: u32 = 1000;

fn view(device: Device, tags: Option<BTreeSet<String>>) -> DeviceView {
    DeviceView {
        id: device.id,
        state: device.state,
        key: device.public_key,
        attributes: device.attributes,
        tags: tags.unwrap_or_default(),
        created: device.created,
        last_seen: device.last_seen,
        last_address: device.last_address,
        actions: None,
    }
}

/// At most 1000 devices, those after `?after=NAME`.
pub(super) async fn list(State(app): State<App>, request: Request) -> ApiResult {
    let query = request.uri().query().unwrap_or_default();
    let after = query.strip_prefix("after=").unwrap_or_default();
    let after = percent_encoding::percent_decode_str(after).decode_utf8_lossy().into_owned();
    signed(&app, request, OperatorRole::Read).await?;
    let mut tags = app.store.tags(None).await?;
    let devices = app.store.devices(&after, PAGE).await?;
    let views: Vec<_> = devices
        .into_iter()
        .map(|device| {
            let tags = tags.remove(&device.id);
            view(device, tags)
        })
        .collect();
    json(&views)
}

pub(super) async fn show(State(app): State<App>, Path(id): Path<String>, request: Request) -> ApiResult {
    signed(&app, request, OperatorRole::Read).await?;
    json(&device_view(&app, &id).await?)
}

/// A device with its tags and actions.
pub(in crate::server) async fn device_view(app: &App, id: &str) -> ApiResult<DeviceView> {
    let device = app.store.device(id).await?.ok_or_else(|| ApiError::no_such("device"))?;
    let tags = app.store.tags(Some(id)).await?.remove(id);
    let mut view = view(device, tags);
    view.actions = Some(app.store.actions_of_device(id, PAGE).await?);
    Ok(view)
}

#[derive(Deserialize)]
pub(super) struct Change {
    device: String,
    change: String,
}

pub(super) async fn change(State(app): State<App>, Path(path): Path<Change>, request: Request) -> ApiResult {
    let signed = signed(&app, request, OperatorRole::Operate).await?;
    let (id, now) = (path.device, clock::now());
    let blank = |c: char| c.is_whitespace() || c.is_control();
    if id.is_empty() || id.chars().count() > MAX_CONTROLLER_ID || id.contains(blank) {
        return Err(ApiError::unreadable("a device's name has 1 to 256 characters without blanks"));
    }
    let store = signed.store(&app, &format!("{} device", path.change), &id);
    match path.change.as_str() {
        "accept" => {
            let asked: AcceptRequest =
                if signed.body.is_empty() { AcceptRequest::default() } else { signed.json()? };
            let token = match asked.token {
                true => Some(state_dir::new_token().map_err(|_| ApiError::later(30))?),
                false => None,
            };
            let hash = token.as_ref().map(|token| blake3::hash(token.as_bytes()));
            store.decide_device(&id, DeviceState::Accepted, hash, now).await?;
            json(&TokenResponse { target_token: token.map(|token| token.to_string()) })
        }
        "refuse" => {
            store.decide_device(&id, DeviceState::Refused, None, now).await?;
            done()
        }
        "tag" => {
            let TagRequest { add, remove } = signed.json()?;
            if add.len() > 100 || !add.iter().all(|tag| is_tag(tag)) {
                return Err(ApiError::unreadable("a tag has 1 to 128 characters without blanks"));
            }
            store.tag_device(&id, add, remove).await?;
            done()
        }
        "forget" => {
            if store.forget_device(&id).await? {
                done()
            } else {
                Err(ApiError::no_such("device"))
            }
        }
        _ => Err(ApiError::bare(StatusCode::NOT_FOUND)),
    }
}
