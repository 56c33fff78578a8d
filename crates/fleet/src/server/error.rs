//! Errors as answers. A device gets what the device interface says; nobody gets a secret or a path of this machine.

use crate::ddi::ErrorBody;
use crate::store::StoreError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::time::Duration;
use tracing::error;

/// An answer that is no success.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Option<ErrorBody>,
    /// Seconds.
    retry_after: Option<u64>,
}

/// What a handler returns.
pub type ApiResult<T = Response> = Result<T, ApiError>;

impl ApiError {
    /// A status without a body: 401, 404 of plain look-ups, 410, 415, 429.
    #[must_use]
    pub const fn bare(status: StatusCode) -> Self {
        Self { status, body: None, retry_after: None }
    }

    /// A status with hawkBit's body; `code` follows `hawkbit.server.error.`.
    #[must_use]
    pub fn coded(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let exception_class = format!("mcp.{}", code.rsplit('.').next().unwrap_or(code));
        let error_code = format!("hawkbit.server.error.{code}");
        Self {
            status,
            body: Some(ErrorBody { exception_class, error_code, message: message.into() }),
            retry_after: None,
        }
    }

    /// 503: come again. The time is spread, so that a fleet does not come back all at once.
    #[must_use]
    pub fn later(seconds: u64) -> Self {
        let spread = fastrand::u64(0..=seconds / 2);
        Self { status: StatusCode::SERVICE_UNAVAILABLE, body: None, retry_after: Some(seconds + spread) }
    }

    /// Whether it says that credentials were refused.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// What it says to people, if it says something.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.body.as_ref().map(|body| body.message.as_str())
    }

    /// The same as 429: too much of this came from one address. Come again after `wait`.
    #[must_use]
    pub fn slowed(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        Self { status: StatusCode::TOO_MANY_REQUESTS, retry_after: Some(seconds), ..self }
    }

    /// 404 without a body.
    #[must_use]
    pub const fn not_found() -> Self {
        Self::bare(StatusCode::NOT_FOUND)
    }

    /// 404 with hawkBit's body.
    #[must_use]
    pub fn no_such(what: &str) -> Self {
        Self::coded(StatusCode::NOT_FOUND, "repo.entityNotFound", format!("no such {what}"))
    }

    /// 400: the body cannot be read.
    #[must_use]
    pub fn unreadable(why: impl std::fmt::Display) -> Self {
        Self::coded(StatusCode::BAD_REQUEST, "rest.body.notReadable", why.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            // Said in the log by whoever watches the database; the device only needs to come again.
            StoreError::Away(_) => Self::later(30),
            StoreError::Missing(_) => {
                Self::coded(StatusCode::NOT_FOUND, "repo.entityNotFound", error.to_string())
            }
            StoreError::Conflict(_) => {
                Self::coded(StatusCode::CONFLICT, "repo.constraintViolation", error.to_string())
            }
            StoreError::Damaged(_) | StoreError::Newer { .. } => {
                error!(%error, "{error}");
                Self::coded(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "the server has a fault of its own",
                )
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            None => self.status.into_response(),
            Some(body) => {
                let text = serde_json::to_vec(&body).unwrap_or_default();
                (self.status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
            }
        };
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
