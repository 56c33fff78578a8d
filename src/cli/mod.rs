//! L5: the command line: arguments as typed -> resolved configuration -> command -> exit code.
//!
//! ```text
//!   args.rs --> config.rs --> send.rs / recv.rs --> session --> ui
//!        \                      |  |  |  |-- again.rs (recv --loop), relay.rs (recv, then send)
//!         |                     |  |  |  `-- console.rs (signals, Enter, time to draw)
//!         `--> key.rs           |  |  report.rs (every error and warning)
//!                |              |  trust.rs (which keys)
//!             keyring         identity.rs (which device, and where state is kept)
//! ```
//!
//! The commands of the standing half come from the crate `mcp_fleet`, with arguments of their own.

pub mod again;
pub mod args;
mod book;
mod completing;
pub mod compression;
pub mod config;
pub mod console;
pub mod devices;
mod doctor;
mod hardware;
pub mod identity;
pub mod key;
pub mod objects;
mod one_way;
mod output;
pub mod recv;
mod relay;
pub mod report;
pub mod send;
mod stream;
pub mod trust;
mod version;

pub use crate::ui::exit;

use crate::ui::EventFile;
use args::{Cli, Command};
use clap::Parser;
use clap::error::ErrorKind;
use config::Surroundings;
use exit::Exit;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Runs the program with the arguments and the terminal of this process.
#[must_use]
pub fn main() -> ExitCode {
    if completing::answered() {
        return Exit::Complete.into();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, but not to a shell. A closed terminal cannot be told
            // anything.
            let _ = error.print();
            if error.kind() == ErrorKind::DisplayVersion && version::is_verbose(std::env::args_os()) {
                let _ = io::stdout().write_all(version::details().as_bytes());
            }
            return if error.use_stderr() { Exit::Usage } else { Exit::Complete }.into();
        }
    };
    let exit = match cli.command {
        Command::Send(args) => send::run(config::SendConfig::new(args, Surroundings::detect())),
        Command::Recv(args) => recv::run(config::RecvConfig::new(args, Surroundings::detect())),
        Command::Relay(args) => relay::run(args, Surroundings::detect()),
        Command::Key(args) => key::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Book(command) => book::run(command),
        #[cfg(feature = "fleet")]
        Command::Fleet(command) => return command.run(identity::state_dir()),
    };
    exit.into()
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
