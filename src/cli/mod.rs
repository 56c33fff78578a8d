//! L5: the command line: arguments as typed -> resolved configuration -> command -> exit code.
//!
//! ```text
//!   args.rs --> config.rs --> send.rs / recv.rs --> session --> ui
//!        \                      |  |  |  |-- again.rs (recv --loop)
//!         |                     |  |  |  `-- console.rs (signals, Enter, time to draw)
//!         `--> key.rs           |  |  report.rs (every error and warning)
//!                |              |  trust.rs (which keys)
//!             keyring         identity.rs (which device, and where state is kept)
//! ```

pub mod again;
pub mod args;
pub mod compression;
pub mod config;
pub mod console;
pub mod devices;
mod hardware;
pub mod identity;
pub mod key;
pub mod objects;
mod one_way;
mod output;
pub mod recv;
pub mod report;
pub mod send;
mod stream;
pub mod trust;

pub use crate::ui::exit;

use crate::ui::EventFile;
use args::{Cli, Command};
use clap::Parser;
use config::Surroundings;
use exit::Exit;
use std::path::Path;
use zeroize::Zeroizing;

/// Runs the program with the arguments and the terminal of this process.
#[must_use]
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, but not to a shell. A closed terminal cannot be told
            // anything.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Complete };
        }
    };
    let surroundings = Surroundings::detect();
    match cli.command {
        Command::Send(args) => send::run(config::SendConfig::new(args, surroundings)),
        Command::Recv(args) => recv::run(config::RecvConfig::new(args, surroundings)),
        Command::Key(args) => key::run(args),
    }
}

/// The file of `--json=FILE`, opened before anything takes long.
fn event_file(path: &Path) -> Result<EventFile, report::Error> {
    EventFile::open(path).map_err(|e| {
        report::Error::Environment(format!("cannot write events to {} ({e}); check --json", path.display()))
    })
}

/// Unpredictable bytes, for a key.
fn random_bytes() -> Result<Zeroizing<[u8; 32]>, report::Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes)
        .map_err(|e| report::Error::Environment(format!("no randomness from the system: {e}")))?;
    Ok(bytes)
}
