//! What `mcp send` reads of a stream: standard input (`-`), or the output of a command (`--pipe`).

use super::config::SendConfig;
use super::report::Error;
use mcp_transfer::command::Producer;
use mcp_transfer::session::StandardInput;
use mcp_transfer::storage::{Input, Spool, sendable_name};
use mcp_transfer::text::escape;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The FILE that stands for standard input.
pub(super) const STANDARD_INPUT: &str = "-";

/// Whether the configuration sends a stream.
pub(super) fn is_wanted(config: &SendConfig) -> bool {
    config.stream.pipe.is_some() || config.files.first().is_some_and(|file| file == Path::new(STANDARD_INPUT))
}

/// The stream of the configuration, and its name: that of `--name`, of FILE, or `stdin`. The command is started.
pub(super) fn open(config: &SendConfig) -> Result<(Spool, String), Error> {
    let environment = |e: &dyn std::fmt::Display| Error::Environment(e.to_string());
    let path = config.files.first().map(PathBuf::as_path);
    let from_file = path.filter(|path| *path != Path::new(STANDARD_INPUT));
    let name = sendable_name(from_file.unwrap_or(Path::new("stdin")), config.name.as_deref());
    let name = name.map_err(|e| environment(&e))?;
    let input: Box<dyn Input> = match &config.stream.pipe {
        None => Box::new(StandardInput),
        Some(command) => {
            let stdin = match (from_file, path) {
                (Some(path), _) => file(path)?,
                (None, Some(_)) => Stdio::inherit(),
                (None, None) => Stdio::null(),
            };
            let started = Producer::start(command, stdin);
            Box::new(
                started.map_err(|e| Error::Environment(format!("the --pipe command did not start: {e}")))?,
            )
        }
    };
    if let Some(window) = config.stream.window {
        return Ok((Spool::in_memory(input, window).map_err(|e| environment(&e))?, name));
    }
    let dir = config.stream.spool.clone().unwrap_or_else(|| {
        std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map_or_else(|| "/tmp".into(), PathBuf::from)
    });
    Ok((Spool::new(input, &dir).map_err(|e| environment(&e))?, name))
}

/// The file that a command reads, which may be a device.
fn file(path: &Path) -> Result<Stdio, Error> {
    File::open(path).map(Stdio::from).map_err(|e| {
        let shown = escape(&path.to_string_lossy());
        Error::Environment(format!("cannot open {shown} for the --pipe command ({e}); check the path"))
    })
}
