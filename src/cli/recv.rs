//! `mcp recv`: the configuration made into a running receiver.

use super::config::RecvConfig;
use super::exit::Exit;
use super::report::{self, Error};

/// Receives one file and says how it ended.
#[must_use]
pub fn run(config: RecvConfig) -> Exit {
    let output = config.output.to_string_lossy().into_owned();
    report::error(&Error::Environment(format!("cannot receive into {output}: this build has no engine")));
    Exit::Environment
}
