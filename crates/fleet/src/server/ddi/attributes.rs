//! What a device says of itself.

use super::super::auth::Caller;
use super::super::clock;
use super::super::error::{ApiError, ApiResult};
use super::{App, body, done};
use crate::ddi::{ConfigData, is_plain};
use crate::limits::{MAX_ATTRIBUTES, MAX_NAME};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    request: Body,
) -> ApiResult {
    let change: ConfigData = body(&headers, request).await?;
    let invalid = |why: &str| {
        let text = "invalid attributes: ".to_owned() + why;
        Err(ApiError::coded(StatusCode::BAD_REQUEST, "repo.invalidTargetAttributes", text))
    };
    if change.data.is_empty() {
        return invalid("there are none");
    }
    for (key, value) in &change.data {
        let length = |text: &str| text.chars().count() <= MAX_NAME;
        if key.is_empty() || !length(key) || !value.as_deref().is_none_or(length) {
            return invalid("names and values have at most 128 characters");
        }
        if !is_plain(key) || !value.as_deref().is_none_or(is_plain) {
            return invalid("only letters, digits, blanks and common punctuation");
        }
    }
    let mut attributes = caller.device.attributes;
    change.apply(&mut attributes);
    if attributes.len() > MAX_ATTRIBUTES {
        let text = "a device has at most 100 attributes";
        return Err(ApiError::coded(StatusCode::TOO_MANY_REQUESTS, "quota.tooManyEntries", text));
    }
    app.store.set_attributes(&caller.device.id, &attributes, clock::now()).await?;
    Ok(done())
}
