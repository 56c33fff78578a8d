//! The commands of the standing half: arguments -> what they do -> exit code. The root's command line flattens
//! [`Command`] into its own.

mod agent;
mod device;
mod enrol;
mod hook;
mod mirror;
mod names;
mod operator;
mod output;
pub mod remote;
mod serve;
mod task;

pub use names::{Named, names};

use crate::log::LogFormat;
use clap::Subcommand;
use remote::{Remote, RemoteError};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A command of the standing half.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server that knows what each device should have
    Serve(Box<serve::ServeArgs>),
    /// Run the agent of this machine, join a fleet, or show what the agent does
    #[command(subcommand)]
    Agent(agent::Agent),
    /// Make, list and revoke enrolment lines
    #[command(subcommand)]
    Enrol(enrol::EnrolCommand),
    /// Add tasks, and see and change what becomes of them
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// See, accept, refuse, tag and forget devices
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Name operators, and say what they may do
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Send what happens to tasks to web hooks
    #[command(subcommand)]
    Hook(hook::HookCommand),
    /// Write files that any web server can serve to devices
    #[command(subcommand)]
    Mirror(mirror::MirrorCommand),
}

/// How a command ended. The numbers are those of the other commands of `mcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done; with `--wait`, by every device.
    Complete,
    /// 1: the environment failed: a file, the server, the network.
    Environment,
    /// 2: the command line is invalid.
    Usage,
    /// 3: with `--wait`: some devices did not complete.
    Incomplete,
    /// 4: with `--wait`: no device completed, or there is none.
    NoDevice,
    /// 130: interrupted.
    Interrupted,
}

impl Exit {
    /// The exit code of the process.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Environment => 1,
            Self::Usage => 2,
            Self::Incomplete => 3,
            Self::NoDevice => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command failed: a lowercase clause with the next step.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The arguments contradict each other or make no sense.
    #[error("{0}")]
    Usage(String),
    /// The environment failed.
    #[error("{0}")]
    Environment(String),
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The server does not start.
    #[error(transparent)]
    Serve(#[from] crate::server::ServeError),
    /// The agent cannot go on.
    #[error("{0}")]
    Agent(Box<dyn std::error::Error + Send + Sync>),
    /// A file of the server's.
    #[error(transparent)]
    State(#[from] crate::server::state_dir::StateError),
}

/// Options of every command that asks the server.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerOptions {
    /// How the server is reached and known: the file address.json of its state directory [default: this machine's]
    #[arg(long, value_name = "FILE", global = true)]
    pub server: Option<PathBuf>,
    /// Another URL of the same server
    #[arg(long, value_name = "URL", global = true)]
    pub url: Option<String>,
    /// The operator's key [default: operator.key beside address.json]
    #[arg(long, value_name = "FILE", global = true)]
    pub operator_key: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl ServerOptions {
    fn remote(&self, state: Option<&PathBuf>) -> Result<Remote, CommandError> {
        let dir = || state.map(|dir| serve::dir(dir)).ok_or_else(no_state);
        let address = match &self.server {
            Some(path) => path.clone(),
            None => dir()?.join("address.json"),
        };
        let key = match &self.operator_key {
            Some(path) => path.clone(),
            None => address.with_file_name("operator.key"),
        };
        Ok(Remote::new(&address, self.url.as_deref(), &key)?)
    }
}

fn no_state() -> CommandError {
    CommandError::Environment("there is nowhere to keep state: HOME is not set; set MCP_STATE_DIR".into())
}

impl Command {
    /// Runs the command. `state` is the state directory of `mcp`, if there is one.
    #[must_use]
    pub fn run(self, state: Option<PathBuf>) -> ExitCode {
        if matches!(self, Self::Agent(agent::Agent::ExecHandler { .. })) {
            // Before there is a second thread.
            return crate::handlers::exec_main();
        }
        match &self {
            Self::Serve(args) => args.log,
            Self::Agent(agent::Agent::Run(run)) => run.log,
            _ => LogFormat::Text,
        }
        .start();
        // An agent has little to do at a time, and all the time to do it.
        let mut builder = match self {
            Self::Agent(_) => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = match builder.enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("error: cannot start threads ({error}); check the limits of this machine");
                return Exit::Environment.into();
            }
        };
        let state = state.as_ref();
        let outcome = runtime.block_on(async {
            match self {
                Self::Serve(args) => serve::run(*args, state).await,
                Self::Agent(command) => agent::run(command, state).await,
                Self::Enrol(command) => enrol::run(command, state).await,
                Self::Task(command) => task::run(command, state).await,
                Self::Device(command) => device::run(command, state).await,
                Self::Operator(command) => operator::run(command, state).await,
                Self::Hook(command) => hook::run(command, state).await,
                Self::Mirror(command) => mirror::run(command, state).await,
            }
        });
        // A handler that runs gets a little time; after it, its step counts as interrupted.
        runtime.shutdown_timeout(Duration::from_secs(20));
        let exit = outcome.unwrap_or_else(|error| {
            eprintln!("error: {error}");
            if matches!(error, CommandError::Usage(_)) { Exit::Usage } else { Exit::Environment }
        });
        exit.into()
    }
}
