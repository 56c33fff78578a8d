//! Bodies of the fuzz targets of the standing half: what comes from the network or from an administrator's file, and is text.
//!
//! The bodies live here rather than in `fuzz/`, so that `cargo test` replays the committed corpus. Inputs are text, so that a person can
//! read and write them.

mod ddi;
mod documents;
#[cfg(test)]
mod tests;

pub use crate::handlers::fuzzing::fuzz_handler_manifest;
pub use ddi::fuzz_ddi;
pub use documents::fuzz_documents;

/// An error that people read, and that logs keep: one line that no input makes long.
pub(crate) fn quiet(error: &str) {
    assert!(error.chars().count() < 400 && !error.chars().any(char::is_control), "{error:?}");
}
