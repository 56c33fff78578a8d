//! The device interface: hawkBit's DDI, version 1.

mod about;
mod artifacts;
mod attributes;
mod confirming;
mod deployments;
mod polls;

use super::error::{ApiError, ApiResult};
use super::{App, auth};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The routes, from the root of the server.
pub(super) fn routes() -> Router<App> {
    let device = Router::new()
        .route("/", get(polls::poll))
        .route("/configData", put(attributes::put))
        .route("/deploymentBase/{action}", get(deployments::deployment))
        .route("/deploymentBase/{action}/feedback", post(deployments::feedback))
        .route("/cancelAction/{action}", get(deployments::cancel))
        .route("/cancelAction/{action}/feedback", post(deployments::cancel_feedback))
        .route("/installedBase", put(deployments::put_installed))
        .route("/installedBase/{action}", get(deployments::installed))
        .route("/confirmationBase", get(confirming::base))
        .route("/confirmationBase/activateAutoConfirm", post(confirming::activate))
        .route("/confirmationBase/deactivateAutoConfirm", post(confirming::deactivate))
        .route("/confirmationBase/{action}", get(confirming::waiting))
        .route("/confirmationBase/{action}/feedback", post(confirming::feedback))
        .route("/softwaremodules/{module}/artifacts", get(artifacts::list))
        .route("/softwaremodules/{module}/artifacts/{file}", get(artifacts::file));
    Router::new().nest("/{tenant}/controller/v1/{device}", device)
}

/// The success of a POST or a PUT: 200 without a body. Clients in use take no other.
pub(super) fn done() -> Response {
    StatusCode::OK.into_response()
}

/// A document, in the type that the client accepts, with an ETag.
fn document<T: Serialize>(headers: &HeaderMap, value: &T) -> ApiResult {
    let kind = accepted(headers).ok_or_else(|| ApiError::bare(StatusCode::NOT_ACCEPTABLE))?;
    let text = serde_json::to_vec(value).map_err(|_| ApiError::bare(StatusCode::INTERNAL_SERVER_ERROR))?;
    let etag = format!("\"{}\"", &blake3::hash(&text).to_hex()[..32]);
    let tag = HeaderValue::from_str(&etag).map_err(|_| ApiError::bare(StatusCode::INTERNAL_SERVER_ERROR))?;
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| matches!(one.trim(), "*") || one.trim() == etag))
    {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::ETAG, tag)], text).into_response())
}

/// The type of the answer: JSON if the client names it, else HAL.
fn accepted(headers: &HeaderMap) -> Option<&'static str> {
    const HAL: &str = "application/hal+json";
    const JSON: &str = "application/json";
    let mut any = false;
    for value in headers.get_all(header::ACCEPT) {
        for part in value.to_str().ok()?.split(',') {
            any = true;
            match part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                JSON => return Some(JSON),
                HAL | "*/*" | "application/*" => return Some(HAL),
                _ => {}
            }
        }
    }
    (!any).then_some(HAL)
}

/// Reads a JSON body. A content type is not asked for, but another than JSON is refused.
async fn body<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> ApiResult<T> {
    let bytes = auth::read_body(body, crate::limits::MAX_DDI_BODY).await?;
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase();
        if !kind.contains("json") {
            return Err(ApiError::bare(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
    }
    crate::ddi::parse(&bytes).map_err(ApiError::unreadable)
}

/// The number of an action or a module in a path.
fn number(text: &str) -> ApiResult<i64> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
        ApiError::coded(StatusCode::BAD_REQUEST, "rest.param.notReadable", "the identifier is no number")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_the_one_that_is_accepted() {
        for (accept, want) in [
            (None, Some("application/hal+json")),
            (Some("*/*"), Some("application/hal+json")),
            (Some("application/json"), Some("application/json")),
            (Some("application/json;charset=UTF-8"), Some("application/json")),
            (Some("text/html, application/hal+json;q=0.5"), Some("application/hal+json")),
            (Some("application/cbor"), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|text| (header::ACCEPT, HeaderValue::from_static(text))));
            assert_eq!(accepted(&headers), want, "{accept:?}");
        }
    }
}
