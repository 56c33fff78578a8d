//! Objects go to many devices at once: the first device that takes a task begins a multicast session, if others that were
//! heard of lately wait for the same task. It is told where the session is, and so are the others when they check in. The
//! session begins when all of them have joined, or after as long as a check-in takes. What a device has missed it loads by
//! HTTP, like a device that comes after the session.
//!
//! A session has keys of its own, which devices learn over their authenticated connection. It is sealed, so nobody else on
//! the network can read or join it.

use super::auth::Caller;
use super::{App, Shared, clock};
use crate::ddi::{Metadata, Session};
use crate::limits::{MAX_SESSION_WAIT, MIN_SESSION_OBJECT};
use crate::store::{Action, ActionState, Device, StoreError, TaskDocument};
use mcp_transfer::crypto::derive::Secret;
use mcp_transfer::crypto::group::GroupKey;
use mcp_transfer::crypto::sign::SigningKey;
use mcp_transfer::session::send::SETTLE;
use mcp_transfer::session::{EgressBudget, RateChoice, SendHandle, SendSession, Target};
use mcp_transfer::storage::FileSource;
use mcp_transfer::units::{Counter, Rate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Devices from which on a session pays: for one, HTTP is as good.
const LEAST: u64 = 2;
/// How long a session waits for devices that join late.
const LINGER: Duration = Duration::from_secs(5);
/// Beyond the time between two check-ins, how long the devices of a session have to join.
const MARGIN: Duration = Duration::from_secs(10);
/// How long the figures of a session are kept after its end.
const KEPT: Duration = Duration::from_secs(3600);
/// Name of the keys that sessions are sealed with.
const SEAL: &str = "session";

/// How objects are sent by multicast.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Multicast {
    /// Where to.
    pub target: Target,
    /// The interface, by its name or one of its addresses [default: chosen by routing].
    pub interface: Option<String>,
    /// Most bits per second of all sessions together [default: what the line carries].
    pub rate: Option<u64>,
}

/// The sessions of the server.
#[derive(Debug)]
pub(super) struct Campaigns {
    /// By object.
    campaigns: Mutex<BTreeMap<[u8; 32], Campaign>>,
    /// What all of them may send together, if the operator has said so.
    budget: Option<EgressBudget>,
}

/// A session for an object, and its invitation.
struct Campaign {
    handle: SendHandle,
    invitation: Session,
    /// When it begins at the latest.
    begins: Instant,
    /// When its end was told.
    told: Option<Instant>,
}

impl std::fmt::Debug for Campaign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Campaign").field("invitation", &self.invitation).finish_non_exhaustive()
    }
}

/// A session as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Devices that were expected.
    pub expected: u64,
    /// Devices that have the object by it.
    pub complete: u64,
    /// Bytes of the object that were streamed or not needed.
    pub streamed: u64,
    /// Bytes of the object.
    pub size: u64,
    /// Bytes sent on the wire.
    pub wire: u64,
    /// Whether it is over.
    pub over: bool,
}

impl Campaign {
    fn view(&self) -> Option<SessionView> {
        let overview = self.handle.overview()?;
        Some(SessionView {
            expected: overview.expected.unwrap_or_default().into(),
            complete: overview.devices.complete as u64,
            streamed: overview.streamed,
            size: overview.object_size,
            wire: overview.wire_bytes,
            over: self.handle.is_over(),
        })
    }

    /// The invitation as it is now: late devices wait only a moment for a session that has begun.
    fn invitation(&self) -> Session {
        let left = self.begins.saturating_duration_since(Instant::now()) + MARGIN;
        Session { wait: left.min(MAX_SESSION_WAIT).as_secs(), ..self.invitation.clone() }
    }
}

impl Campaigns {
    /// No sessions yet.
    pub(super) fn new(multicast: Option<&Multicast>) -> Self {
        let rate = multicast.and_then(|multicast| multicast.rate);
        Self { campaigns: Mutex::default(), budget: rate.map(|rate| EgressBudget::new(Rate(rate))) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Campaign>> {
        self.campaigns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session for an object, while one runs.
    fn running(&self, object: &blake3::Hash) -> Option<Session> {
        let campaigns = self.lock();
        let campaign = campaigns.get(object.as_bytes()).filter(|campaign| !campaign.handle.is_over());
        campaign.map(Campaign::invitation)
    }

    /// The last session for an object.
    pub(super) fn view(&self, object: &blake3::Hash) -> Option<SessionView> {
        self.lock().get(object.as_bytes()).and_then(Campaign::view)
    }

    /// Says how sessions ended, and forgets them after a while.
    pub(super) fn tell(&self) {
        let mut campaigns = self.lock();
        campaigns.retain(|_, campaign| campaign.told.is_none_or(|at| at.elapsed() < KEPT));
        for campaign in campaigns.values_mut() {
            if campaign.told.is_none() && campaign.handle.is_over() {
                campaign.told = Some(Instant::now());
                if let Some(SessionView { expected, complete, wire, .. }) = campaign.view() {
                    let name = &campaign.handle.info().name;
                    eprintln!("{name}: {complete} of {expected} devices by multicast, {wire} bytes sent");
                }
            }
        }
    }

    /// Ends the session for an object, if there is one.
    pub(super) fn cancel(&self, object: &blake3::Hash) {
        if let Some(campaign) = self.lock().get(object.as_bytes()) {
            campaign.handle.stop();
        }
    }

    /// Ends all sessions.
    pub(super) fn stop(&self) {
        std::mem::take(&mut *self.lock()).into_values().for_each(|campaign| campaign.handle.stop());
    }
}

impl Shared {
    /// What a device is told of a session for the object of its task. `action` is as it was before the device took it: one
    /// that has begun joins a session that runs, but begins none. Keys are told over encrypted connections only.
    pub(super) async fn invite(
        self: &App,
        caller: &Caller,
        action: &Action,
        document: &TaskDocument,
    ) -> Vec<Metadata> {
        if !caller.secure {
            return Vec::new();
        }
        match self.session_for(&caller.device, action, document).await {
            Ok(session) => session.iter().flat_map(Session::to_metadata).collect(),
            Err(error) => {
                // The device loads the object by HTTP.
                eprintln!("warning: no multicast session ({error})");
                Vec::new()
            }
        }
    }

    async fn session_for(
        self: &App,
        device: &Device,
        action: &Action,
        document: &TaskDocument,
    ) -> Result<Option<Session>, Box<dyn std::error::Error + Send + Sync>> {
        let (Some(multicast), [object]) = (&self.config.multicast, &document.objects[..]) else {
            return Ok(None);
        };
        let small = object.hashes.size < MIN_SESSION_OBJECT;
        // The keys of senders that a task names are not this server's.
        if small || !device.attributes.contains_key("mcp.multicast") || !document.task.senders.is_empty() {
            return Ok(None);
        }
        if let Some(session) = self.campaigns.running(&object.hashes.blake3) {
            return Ok(Some(session));
        }
        if action.state != ActionState::Waiting {
            return Ok(None);
        }
        let expected = self.expected(action.task, document).await?;
        if expected < LEAST {
            return Ok(None);
        }
        let begins = self.config.poll.mul_f64(1.25) + MARGIN;
        let new = New {
            path: self.objects.path(&object.hashes.blake3),
            name: object.filename.clone(),
            multicast: multicast.clone(),
            budget: self.campaigns.budget.clone(),
            expected: u32::try_from(expected).unwrap_or(u32::MAX),
            gather: begins.min(MAX_SESSION_WAIT),
        };
        let (app, key) = (Arc::clone(self), *object.hashes.blake3.as_bytes());
        // Opening the object and the sockets waits for the disk and the system.
        tokio::task::spawn_blocking(move || {
            let mut campaigns = app.campaigns.lock();
            if let Some(campaign) = campaigns.get(&key).filter(|campaign| !campaign.handle.is_over()) {
                return Ok(Some(campaign.invitation()));
            }
            let campaign = new.start()?;
            let invitation = campaign.invitation();
            campaigns.insert(key, campaign);
            Ok(Some(invitation))
        })
        .await?
    }

    /// How many devices a session would be for: this one, and those that wait and were heard of lately.
    async fn expected(&self, task: i64, document: &TaskDocument) -> Result<u64, StoreError> {
        self.note_seen().await;
        let lately = clock::now().saturating_sub(self.config.poll.as_secs() * 2 + 30);
        let devices = 1 + self.store.could_join(task, lately).await?;
        let most = u64::from(document.terms.at_once);
        Ok(if most > 0 { devices.min(most) } else { devices })
    }
}

/// A session to be started.
struct New {
    path: PathBuf,
    name: String,
    multicast: Multicast,
    budget: Option<EgressBudget>,
    expected: u32,
    gather: Duration,
}

impl New {
    fn start(self) -> Result<Campaign, Box<dyn std::error::Error + Send + Sync>> {
        let secret = || -> Result<Secret, getrandom::Error> {
            let mut bytes = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *bytes)?;
            Ok(Secret::new(*bytes))
        };
        let seal = GroupKey::new(SEAL, secret()?)?;
        let source = FileSource::open_as(&self.path, Some(&self.name))?;
        let mut session = SendSession::builder(source, self.multicast.target)
            .interface(self.multicast.interface)
            .expected(Some(self.expected))
            .gather(self.gather, SETTLE)
            .linger(LINGER)
            .group_key(Some(seal.clone()))
            .signing_key(SigningKey::new(&secret()?), Counter(1));
        if let Some(budget) = self.budget {
            session = session.rate(RateChoice::Auto(Some(budget.rate()))).budget(budget);
        }
        let handle = session.start()?;
        let invitation = Session {
            group: handle.info().data,
            sender: handle.info().sender.line(),
            seal: seal.line().to_string(),
            wait: 0,
        };
        Ok(Campaign { handle, invitation, begins: Instant::now() + self.gather, told: None })
    }
}
