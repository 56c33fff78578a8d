//! The sessions that run: how they start, where they are, how they ended.

use super::others::Others;
use super::queue::Queue;
use super::segments::Segments;
use super::{LINGER, MARGIN, Multicast, SessionView};
use crate::ddi::{Session, SessionKeys};
use crate::server::clock;
use crate::store::StoredSession;
use mcp_transfer::crypto::derive::Secret;
use mcp_transfer::session::send::SETTLE;
use mcp_transfer::session::{EgressBudget, RateChoice, SendHandle, SendSession};
use mcp_transfer::storage::FileSource;
use mcp_transfer::units::{Counter, Rate};
use mcp_transfer::wire::Phase;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The sessions of the server.
#[derive(Debug)]
pub(in crate::server) struct Campaigns {
    /// By object.
    running: Mutex<HashMap<blake3::Hash, Campaign>>,
    /// What all of them may send together, if the operator has said so.
    budget: Option<EgressBudget>,
    /// Held while it is decided whether a session is called, and until it has begun.
    pub(super) deciding: tokio::sync::Mutex<Deciding>,
    /// Who is out of reach, and who performs sessions there.
    segments: Mutex<Segments>,
    /// Those of other servers.
    others: Mutex<Others>,
}

/// What is remembered from one decision to the next.
#[derive(Debug, Default)]
pub(super) struct Deciding {
    pub(super) queue: Queue,
    /// When an object of a task was first asked for after its last session.
    pub(super) asked: BTreeMap<(i64, usize), Instant>,
    /// Objects of tasks that are not worth a session for now, and until when.
    pub(super) alone: BTreeMap<(i64, usize), Instant>,
}

/// A session that runs, or has ended and is not yet noted as such.
pub(super) struct Campaign {
    handle: SendHandle,
    pub(super) stored: StoredSession,
    keys: SessionKeys,
    /// When it begins at the latest.
    begins: Instant,
}

impl std::fmt::Debug for Campaign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Campaign").field("stored", &self.stored).finish_non_exhaustive()
    }
}

impl Campaign {
    /// The session as operators see it; `None` if its thread has panicked.
    pub(super) fn view(&self) -> Option<SessionView> {
        let overview = self.handle.overview()?;
        Some(SessionView {
            file: self.handle.info().name.clone(),
            called: self.stored.called,
            runs: self.stored.runs,
            expected: overview.expected.unwrap_or_default().into(),
            complete: overview.devices.complete as u64,
            streamed: overview.streamed,
            size: overview.object_size,
            wire: overview.wire_bytes,
            symbols: overview.source_symbols,
            repairs: overview.repair_symbols + overview.unicast_symbols,
            rate: overview.rate.0,
            gathering: overview.phase == Phase::Gathering && !self.handle.is_over(),
            over: self.handle.is_over(),
        })
    }

    /// The invitation as it is now: late devices wait only a moment for a session that has begun.
    fn invitation(&self) -> Session {
        self.keys.session(self.handle.info().data, self.left() + MARGIN)
    }

    /// How long until it begins at the latest.
    fn left(&self) -> Duration {
        self.begins.saturating_duration_since(Instant::now())
    }
}

impl Campaigns {
    /// No sessions yet.
    pub(in crate::server) fn new(multicast: Option<&Multicast>) -> Self {
        let rate = multicast.and_then(|multicast| multicast.rate);
        Self {
            running: Mutex::default(),
            budget: rate.map(|rate| EgressBudget::new(Rate(rate))),
            deciding: tokio::sync::Mutex::default(),
            segments: Mutex::default(),
            others: Mutex::default(),
        }
    }

    pub(super) fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<blake3::Hash, Campaign>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session for an object, while one runs, here or at another server.
    pub(super) fn invitation(&self, object: &blake3::Hash) -> Option<Session> {
        let here = {
            let running = self.lock();
            running.get(object).filter(|campaign| !campaign.handle.is_over()).map(Campaign::invitation)
        };
        here.or_else(|| self.others().invitation(object, clock::now()))
    }

    /// Whether a session runs, here or at another server.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().values().any(|campaign| !campaign.handle.is_over()) || !self.others().is_empty()
    }

    /// The session of this number as it is now, while one runs.
    pub(super) fn view(&self, id: i64) -> Option<SessionView> {
        self.lock().values().find(|campaign| campaign.stored.id == id).and_then(Campaign::view)
    }

    /// The sessions that run here, with the number of their task.
    pub(in crate::server) fn views(&self) -> Vec<(i64, SessionView)> {
        let running = self.lock();
        let views = running.values().filter_map(|campaign| Some((campaign.stored.task, campaign.view()?)));
        views.filter(|(_, view)| !view.over).collect()
    }

    /// The sessions that run here or at other servers, with the number of their task.
    pub(in crate::server) fn all_views(&self) -> Vec<(i64, SessionView)> {
        let mut views = self.views();
        views.extend(self.others().views());
        views
    }

    /// The sessions that are here, and how they stand.
    pub(super) fn stored(&self) -> Vec<(blake3::Hash, StoredSession, SessionView)> {
        let running = self.lock();
        let all = running.iter().filter(|(_, campaign)| !campaign.handle.is_over());
        all.filter_map(|(object, campaign)| Some((*object, campaign.stored.clone(), campaign.view()?)))
            .collect()
    }

    /// Starts a session. Waits for the disk and the system. Returns what devices are told, and how long it is until it
    /// begins at the latest.
    pub(super) fn start(
        &self,
        new: New,
    ) -> Result<(Session, Duration), Box<dyn std::error::Error + Send + Sync>> {
        let object = new.object;
        let campaign = new.start(self.budget.clone())?;
        let told = (campaign.invitation(), campaign.left());
        self.lock().insert(object, campaign);
        Ok(told)
    }

    /// Takes the sessions that have ended.
    pub(super) fn ended(&self) -> Vec<(blake3::Hash, Campaign)> {
        self.lock().extract_if(|_, campaign| campaign.handle.is_over()).collect()
    }

    /// Puts one back whose end could not be noted.
    pub(super) fn put_back(&self, object: blake3::Hash, campaign: Campaign) {
        self.lock().entry(object).or_insert(campaign);
    }

    /// The sessions that wait for devices, and how many have come.
    pub(super) fn gathering(&self) -> Vec<(blake3::Hash, StoredSession, u64)> {
        let running = self.lock();
        let gathering = running.iter().filter_map(|(object, campaign)| {
            let overview = campaign.handle.overview()?;
            let joined = overview.devices.total() as u64;
            (overview.phase == Phase::Gathering).then(|| (*object, campaign.stored.clone(), joined))
        });
        gathering.collect()
    }

    /// Lets the session for an object begin with the devices that are there.
    pub(in crate::server) fn begin(&self, object: &blake3::Hash) {
        if let Some(campaign) = self.lock().get(object) {
            campaign.handle.start_now();
        }
    }

    /// Ends the session for an object, if there is one.
    pub(in crate::server) fn cancel(&self, object: &blake3::Hash) {
        if let Some(campaign) = self.lock().get(object) {
            campaign.handle.stop();
        }
    }

    /// Ends all sessions. They stay open in the store, so the next server takes them up.
    pub(in crate::server) fn stop(&self) {
        std::mem::take(&mut *self.lock()).into_values().for_each(|campaign| campaign.handle.stop());
    }
}

/// A session to be started.
pub(super) struct New {
    pub(super) object: blake3::Hash,
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) multicast: Multicast,
    pub(super) stored: StoredSession,
    pub(super) expected: u64,
    pub(super) gather: Duration,
}

impl New {
    fn start(
        self,
        budget: Option<EgressBudget>,
    ) -> Result<Campaign, Box<dyn std::error::Error + Send + Sync>> {
        let secret = self.stored.secret.as_ref().and_then(|bytes| <[u8; 32]>::try_from(&bytes[..]).ok());
        let secret = Secret::new(secret.ok_or("the session has no keys")?);
        let keys = SessionKeys::of(&secret)?;
        let source = FileSource::open_as(&self.path, Some(&self.name))?;
        let mut session = SendSession::builder(source, self.multicast.target)
            .interface(self.multicast.interface)
            .expected(Some(u32::try_from(self.expected).unwrap_or(u32::MAX)))
            .gather(self.gather, SETTLE)
            .linger(LINGER)
            .group_key(Some(keys.seal.clone()))
            .signing_key(keys.sender.clone(), Counter(self.stored.runs));
        if let Some(budget) = budget {
            session = session.rate(RateChoice::Auto(Some(budget.rate()))).budget(budget);
        }
        let handle = session.start()?;
        Ok(Campaign { handle, stored: self.stored, keys, begins: Instant::now() + self.gather })
    }
}
