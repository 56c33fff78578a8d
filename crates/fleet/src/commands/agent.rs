//! `mcp agent`: join a fleet, run, show the status.

use super::serve::bytes;
use super::{CommandError, Exit};
use crate::agent::{self, Confirm, Settings, SharePolicy, Stock};
use crate::ddi::is_attribute;
use crate::documents::Enrolment;
use crate::handlers::{self, Config as HandlerConfig};
use crate::limits::MIN_NEIGHBOUR_RATE;
use crate::log::LogFormat;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// What `mcp agent` does.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Agent {
    /// Join the fleet of an enrolment line, which 'mcp enrol' on the server prints
    Join(Join),
    /// Check in with the server, and carry out what it offers, until it is stopped
    Run(Box<Run>),
    /// Show what the agent does, why, and when next
    Status(Show),
    /// Let a task begin that waits for a confirmation of this device
    Confirm(Answer),
    /// Do not let it begin; it can still be confirmed later
    Deny(Answer),
    /// For the agent itself: the helper process of a handler
    #[command(hide = true)]
    ExecHandler {
        /// Inside the namespaces
        #[arg(long)]
        inner: bool,
    },
}

/// Where the state is.
#[derive(Clone, Debug, clap::Args)]
struct State {
    /// Directory of the agent's state, with a device key of its own [default: 'agent' in the state directory of mcp, with the key of
    /// 'mcp key device']
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// `mcp agent join`.
#[derive(Clone, Debug, clap::Args)]
pub struct Join {
    /// The line. Other users of this machine can see it here, and it holds a token; without it, the line is read from standard input
    line: Option<String>,
    /// Name of this device in the fleet [default: the host name]
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// Join although this device has joined before
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    state: State,
}

/// `mcp agent run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Run {
    /// Check in with this DDI server (hawkBit or another) instead of the one that the device has joined
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Tenant at --server
    #[arg(long, value_name = "NAME", default_value = "DEFAULT", requires = "server")]
    tenant: String,
    /// Name of this device at --server [default: the host name]
    #[arg(long, value_name = "NAME", requires = "server")]
    id: Option<String>,
    /// File with the device's token for --server, in one line
    #[arg(long, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
    /// The token is the tenant's gateway token
    #[arg(long, requires = "token_file")]
    gateway_token: bool,
    /// Allow signed copies below this directory; may be repeated
    #[arg(long, value_name = "DIR", default_value = "/srv")]
    destination: Vec<PathBuf>,
    /// Also take files that nobody signed, and put them into this directory; never installs them
    #[arg(long, value_name = "DIR")]
    unsigned_copies: Option<PathBuf>,
    /// Take unsigned files also from a server without TLS: anybody on the way can change them
    #[arg(long, requires = "unsigned_copies")]
    plain: bool,
    /// Who answers when an operator asks this device to confirm a task first
    #[arg(long, value_name = "WHO", value_enum, default_value_t)]
    confirm: Confirm,
    /// Load the files of at most this many tasks at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Say this of the device, for conditions of tasks; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attribute: Vec<(String, String)>,
    /// Take objects by HTTP only, never from a multicast session
    #[arg(long)]
    no_multicast: bool,
    /// Interface for multicast, by its name or one of its addresses [default: all that could carry a group]
    #[arg(long, value_name = "IF", conflicts_with = "no_multicast")]
    interface: Option<String>,
    /// Bytes per second below which a source is left for the next one
    #[arg(long, value_name = "BYTES", default_value_t = Settings::default().least_speed)]
    least_speed: u64,
    /// Give loaded files to neighbours that the server sends here: listen on this address and port, with TLS
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "server")]
    serve_neighbours: Option<SocketAddr>,
    /// Give neighbours at most this many bytes a second; at least 1M
    #[arg(long, value_name = "BYTES", default_value = "10M", value_parser = neighbour_rate, requires = "serve_neighbours")]
    neighbour_rate: u64,
    /// Keep copies of at most this many bytes for neighbours
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = bytes, requires = "serve_neighbours")]
    neighbour_space: u64,
    /// Keep each copy this long
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = humantime::parse_duration, requires = "serve_neighbours")]
    neighbour_keep: Duration,
    /// Directory with the manifests of the handlers that tasks may run
    #[arg(long, value_name = "DIR", default_value = handlers::DIRECTORY)]
    handlers: PathBuf,
    /// How to log
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) log: LogFormat,
    #[command(flatten)]
    state: State,
}

/// `mcp agent confirm` and `mcp agent deny`.
#[derive(Clone, Debug, clap::Args)]
pub struct Answer {
    /// The action, as 'mcp agent status' shows it
    action: String,
    #[command(flatten)]
    state: State,
}

/// `mcp agent status`.
#[derive(Clone, Debug, clap::Args)]
pub struct Show {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: State,
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Runs a command. `state` is the state directory of `mcp`, if there is one.
pub(super) async fn run(command: Agent, state: Option<&PathBuf>) -> Result<Exit, CommandError> {
    let outcome = match command {
        Agent::Join(join) => join.run(state).await,
        Agent::Run(run) => run.run(state).await,
        Agent::Status(show) => show.run(state),
        Agent::Confirm(answer) => answer.run(true, state).await,
        Agent::Deny(answer) => answer.run(false, state).await,
        Agent::ExecHandler { .. } => {
            Err("this command is for the agent itself; see 'mcp agent --help'".into())
        }
    };
    outcome.map(|()| Exit::Complete).map_err(CommandError::Agent)
}

impl Join {
    async fn run(self, state: Option<&PathBuf>) -> Outcome {
        let line = match self.line.filter(|line| line != "-") {
            Some(line) => Zeroizing::new(line),
            None => {
                let mut line = Zeroizing::new(String::new());
                std::io::stdin().take(8192).read_to_string(&mut line)?;
                line
            }
        };
        let line: Enrolment = line.parse()?;
        let device = self.id.map_or_else(host_name, Ok)?;
        let dir = self.state.dir(state)?;
        let key = agent::device_key(&self.state.ring(state)?)?;
        agent::join(&dir, &line, &device, &key, self.again).await?;
        println!("joined as {device}; now run 'mcp agent run', or 'systemctl enable --now mcp-agent'");
        Ok(())
    }
}

impl Run {
    async fn run(self, state: Option<&PathBuf>) -> Outcome {
        let dir = self.state.dir(state)?;
        let stock = match self.server {
            None => None,
            Some(server) => {
                let scheme = if self.gateway_token { "GatewayToken" } else { "TargetToken" };
                let token = self.token_file.map(std::fs::read_to_string).transpose()?;
                let authorization = token.map(|token| format!("{scheme} {}", token.trim()));
                let device = self.id.map_or_else(host_name, Ok)?;
                Some(Stock { server, tenant: self.tenant, device, authorization })
            }
        };
        let settings = Settings {
            destinations: self.destination,
            unsigned_copies: self.unsigned_copies,
            plain: self.plain,
            confirm: self.confirm,
            jobs: self.jobs,
            attributes: BTreeMap::from_iter(self.attribute),
            key: Some(agent::device_key(&self.state.ring(state)?)?.public().as_device().line()),
            multicast: !self.no_multicast,
            interface: self.interface,
            least_speed: self.least_speed,
            share: self.serve_neighbours.map(|listen| SharePolicy {
                listen,
                rate: self.neighbour_rate,
                space: self.neighbour_space,
                keep: self.neighbour_keep,
            }),
            handlers: HandlerConfig { directory: self.handlers, ..HandlerConfig::default() },
            ..Settings::default()
        };
        agent::run(&dir, stock, settings, stopped()).await
    }
}

impl Answer {
    async fn run(self, confirm: bool, state: Option<&PathBuf>) -> Outcome {
        if agent::confirm(&self.state.dir(state)?, &self.action, confirm).await? {
            println!("the server knows; 'mcp agent status' shows what follows");
        } else {
            println!("noted; the agent tells the server when it runs and reaches it");
        }
        Ok(())
    }
}

impl Show {
    fn run(self, state: Option<&PathBuf>) -> Outcome {
        let status = agent::status(&self.state.dir(state)?)?;
        if self.json {
            println!("{}", serde_json::to_string(&status)?);
        } else {
            print!("{}", status.text());
        }
        Ok(())
    }
}

const NOWHERE: &str = "there is nowhere to keep state: HOME is not set; give --state DIR";

impl State {
    fn dir(&self, state: Option<&PathBuf>) -> Result<PathBuf, &'static str> {
        let default = || state.map(|dir| dir.join("agent"));
        self.state.clone().or_else(default).ok_or(NOWHERE)
    }

    /// Where the device's key is. An agent with a directory of its own is a device of its own.
    fn ring(&self, state: Option<&PathBuf>) -> Result<PathBuf, &'static str> {
        self.state.clone().or_else(|| state.cloned()).ok_or(NOWHERE)
    }
}

/// Ends with SIGINT or SIGTERM.
async fn stopped() {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        // Without a handler the signal ends the process as it is; the state is stored at every step.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn host_name() -> Result<String, &'static str> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if crate::documents::is_name(&name) {
        Ok(name)
    } else {
        Err("the host name is no name for a device; give --id NAME")
    }
}

/// Below this, neighbours would leave the device as too slow.
fn neighbour_rate(text: &str) -> Result<u64, String> {
    let rate = bytes(text)?;
    if rate >= MIN_NEIGHBOUR_RATE { Ok(rate) } else { Err("expected at least 1M".into()) }
}

fn attribute(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() || !is_attribute(name) || !is_attribute(value) {
        return Err("names and values have at most 128 letters, digits, blanks and common punctuation");
    }
    Ok((name.to_owned(), value.to_owned()))
}
