//! What `mcp send` reads of a stream: standard input (`-`), or the output of a command (`--pipe`).

use super::config::SendConfig;
use super::report::Error;
use crate::command::Producer;
use crate::session::StandardInput;
use crate::storage::{Input, Spool, sendable_name};
use crate::text::escape;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The FILE that stands for standard input.
pub(super) const STANDARD_INPUT: &str = "-";

/// Whether the configuration sends a stream.
pub(super) fn is_wanted(config: &SendConfig) -> bool {
    config.pipe.is_some() || config.file == Path::new(STANDARD_INPUT)
}

/// The stream of the configuration, and its name: that of `--name`, of FILE, or `stdin`. The command is started.
pub(super) fn open(config: &SendConfig) -> Result<(Spool, String), Error> {
    let environment = |e: &dyn std::fmt::Display| Error::Environment(e.to_string());
    let from_file = config.file != Path::new(STANDARD_INPUT);
    let name = if from_file { config.file.as_path() } else { Path::new("stdin") };
    let name = sendable_name(name, config.name.as_deref()).map_err(|e| environment(&e))?;
    let input: Box<dyn Input> = match &config.pipe {
        None => Box::new(StandardInput),
        Some(command) => {
            let stdin = if from_file { file(&config.file)? } else { Stdio::inherit() };
            let started = Producer::start(command, stdin);
            Box::new(
                started.map_err(|e| Error::Environment(format!("the --pipe command did not start: {e}")))?,
            )
        }
    };
    let dir = config.spool.clone().unwrap_or_else(|| {
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
