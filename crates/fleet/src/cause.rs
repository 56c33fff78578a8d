//! Why a request failed, for people.

/// The innermost cause. The library's own text repeats the URL, which may hold a secret.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
