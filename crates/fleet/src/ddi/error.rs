//! The body of an error.

use super::lenient::null_is_default;
use serde::{Deserialize, Serialize};

/// The body of an error, as `application/json`. Errors 401, 404 of plain look-ups, 410, 415 and 429 have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The name of an exception, for people.
    #[serde(rename = "exceptionClass", default, deserialize_with = "null_is_default")]
    pub exception_class: String,
    /// The code that clients may test: `hawkbit.server.error....`.
    #[serde(rename = "errorCode", default, deserialize_with = "null_is_default")]
    pub error_code: String,
    /// What went wrong.
    #[serde(default, deserialize_with = "null_is_default")]
    pub message: String,
}
