//! `mcp send`: the configuration made into a running sender.

use super::config::SendConfig;
use super::exit::Exit;
use super::report::{self, Error};

/// Sends the file and says how it ended.
#[must_use]
pub fn run(config: SendConfig) -> Exit {
    let file = config.file.to_string_lossy().into_owned();
    report::error(&Error::Environment(format!("cannot send {file}: this build has no engine")));
    Exit::Environment
}
