//! The agent: checks in with a server, takes tasks, loads their objects, carries them out, and reports.
//!
//! | part | file |
//! |---|---|
//! | joining, what is stored, what `mcp agent status` shows | `join`, `state`, `work`, `status` |
//! | HTTP: clients with and without the token, the interfaces of a server | `net`, `api` |
//! | the loop of check-ins, confirmations | `checkin` |
//! | one task: its order, its objects, its window, its destination | `runner`, `session`, `fetch`, `schedule`, `place` |
//! | what it gives to neighbours | `offering`, `performing` |
//! | its handler, and the journal of its steps | `steps` |
//! | what loop and runners share | `core` |
//!
//! What a device believes is decided in `documents`, which the loop asks before it acts.

mod api;
mod checkin;
mod core;
mod fetch;
mod join;
mod multicast;
mod net;
mod offering;
mod performing;
mod place;
mod runner;
mod schedule;
mod session;
mod state;
mod status;
mod steps;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod work;

pub use join::{JoinError, pin_of};
pub use offering::SharePolicy;
pub use state::StateError;
pub use status::Status;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use work::{Work, unsigned};

use crate::ddi::Confirmation;
use crate::documents::{Enrolment, SecretKey};
use crate::handlers::Config as HandlerConfig;
use crate::limits::MAX_ATTRIBUTES;
use checkin::{CheckIn, PersonsAnswer};
use core::Core;
use fetch::Pace;
use offering::Offering;
use state::{Identity, StateDir};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// Who answers when an operator asks this device to confirm a task first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Confirm {
    /// A person, with 'mcp agent confirm' or 'mcp agent deny'
    #[default]
    Ask,
    /// The agent itself: it confirms all that it would take
    Auto,
}

/// What the administrator of the machine allows and sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directories below which signed copies may be put.
    pub destinations: Vec<PathBuf>,
    /// The directory for unsigned copies; `None`: only signed tasks are taken.
    pub unsigned_copies: Option<PathBuf>,
    /// Whether unsigned copies are also taken from a server without TLS.
    pub plain: bool,
    /// Who confirms what must be confirmed.
    pub confirm: Confirm,
    /// How many tasks may load at a time; at least 1.
    pub jobs: usize,
    /// What the device says of itself, and what tasks may be bound to.
    pub attributes: BTreeMap<String, String>,
    /// The public key of the device, as `mcp key device` prints it.
    pub key: Option<String>,
    /// Whether objects are taken from multicast sessions.
    pub multicast: bool,
    /// The interface of multicast sessions, by its name or one of its addresses [default: all that could carry a group].
    pub interface: Option<String>,
    /// The least speed of a source in bytes per second, before the next one is tried.
    pub least_speed: u64,
    /// What this device gives to its neighbours; `None`: nothing, and nothing listens.
    pub share: Option<SharePolicy>,
    /// Where handlers are described, and how they are run.
    pub handlers: HandlerConfig,
    /// The first pause before a handler runs that asked to be tried again later. Each is twice as long as the one before, up
    /// to 64 times this.
    pub retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            destinations: Vec::new(),
            unsigned_copies: None,
            plain: false,
            confirm: Confirm::default(),
            jobs: 2,
            attributes: BTreeMap::new(),
            key: None,
            multicast: true,
            interface: None,
            least_speed: Pace::default().least,
            share: None,
            handlers: HandlerConfig::default(),
            retry: Duration::from_secs(60),
        }
    }
}

/// A server that is not ours: where it is, and as whom the device comes.
#[derive(Clone, Debug)]
pub struct Stock {
    /// Its URL, without tenant.
    pub server: String,
    /// The tenant.
    pub tenant: String,
    /// The device's name.
    pub device: String,
    /// The value of `Authorization`, such as `TargetToken ...`.
    pub authorization: Option<String>,
}

/// Joins the fleet of `line`, and stores what follows in `dir`.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(
    dir: &Path,
    line: &Enrolment,
    device: &str,
    key: &SecretKey,
    again: bool,
) -> Result<(), JoinError> {
    join::join(&StateDir::open(dir)?, line, device, key, again).await
}

/// This machine's key as a device, in the keyring at `dir`: the one of `mcp recv` and `mcp key device`. It is made on first use.
///
/// # Errors
/// If the directory cannot be used, or the system gives no randomness.
pub fn device_key(dir: &Path) -> Result<SecretKey, JoinError> {
    join::device_key(dir)
}

/// Runs the agent with the state in `dir` until `stop`. Without `stock`, it checks in with the server that the device has joined.
///
/// # Errors
/// If the state cannot be used, or the device has not joined.
pub async fn run(
    dir: &Path,
    stock: Option<Stock>,
    mut settings: Settings,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let state = StateDir::open(dir)?;
    let identity = match stock {
        Some(Stock { server, tenant, device, authorization }) => {
            Identity { server, tenant, device, authorization, pin: None, fleet: None }
        }
        None => state
            .read("identity.json")?
            .ok_or("this device has not joined a fleet; run 'mcp agent join LINE'")?,
    };
    settings.jobs = settings.jobs.max(1);
    if settings.attributes.len() > MAX_ATTRIBUTES - OWN_ATTRIBUTES {
        return Err(format!("at most {} --attribute", MAX_ATTRIBUTES - OWN_ATTRIBUTES).into());
    }
    let kept = state.path("offered");
    let offered = match settings.share {
        // Only a server of ours names neighbours.
        Some(policy) if identity.fleet.is_some() => Some(Offering::open(&kept, policy)?),
        _ => {
            offering::remove(&kept);
            None
        }
    };
    let (offering, listening) = offered.map(|(offering, listener, tls)| (offering, (listener, tls))).unzip();
    let core = Core::new(state, &identity, settings, offering.clone())?;
    let (device, server) = (&identity.device, &identity.server);
    info!(device, server, "device {device} checks in with {server}");
    core.steps.shortfalls().iter().for_each(|text| warn!("{text}"));
    let (_over, is_over) = watch::channel(false);
    let serving = offering.zip(listening).map(|(offering, listening)| {
        info!(address = %offering.address, "gives to neighbours on {}", offering.address);
        tokio::spawn(offering.serve(listening, is_over))
    });
    CheckIn::new(core).run(stop).await;
    // Neighbours that load go on elsewhere.
    serving.inspect(JoinHandle::abort);
    Ok(())
}

/// Leaves a person's answer to an action that waits for a confirmation, and waits a little for the agent to take it to the server.
/// Returns whether it did.
///
/// # Errors
/// If the state cannot be used, or no such action waits.
pub async fn confirm(
    dir: &Path,
    action: &str,
    confirmed: bool,
) -> Result<bool, Box<dyn Error + Send + Sync>> {
    const LOOKS: u32 = 50;
    let state = StateDir::read_only(dir);
    if !Status::read(&state)?.waiting().iter().any(|waiting| waiting.action == action) {
        return Err(format!(
            "action {action} does not wait for a confirmation; 'mcp agent status' shows what does"
        )
        .into());
    }
    let confirmation = if confirmed { Confirmation::Confirmed } else { Confirmation::Denied };
    PersonsAnswer::leave(&state, action, confirmation)?;
    for _ in 0..LOOKS {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if PersonsAnswer::left(&state).is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads the status of the agent with the state in `dir`.
///
/// # Errors
/// If the state cannot be read.
pub fn status(dir: &Path) -> Result<Status, StateError> {
    Status::read(&StateDir::read_only(dir))
}

/// Attributes that the agent says by itself.
const OWN_ATTRIBUTES: usize = 4;

/// `time`, changed at random by at most a fifth, so that devices that were told the same do not come together.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// `time`, made longer at random by at most a quarter: for what a server asked for, which is a lower bound.
fn at_least(time: Duration) -> Duration {
    time.mul_f64(1.0 + 0.25 * fastrand::f64())
}

/// The device's clock, in seconds since 1970; 0 if it says an earlier time.
fn clock() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A time in seconds since 1970, for people, in the device's time zone.
fn time_text(at: u64) -> String {
    let time = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    time.map_or_else(
        || "never".to_owned(),
        |time| time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}
