//! Objects go to many devices at once: when the devices that wait for an object would together load more than a multicast
//! session sends, a session is called. Devices learn of it when they take the task, or when they say what they lack of the
//! object. What a session did not bring, they load by HTTP, or get in another session if that pays.
//!
//! The store knows each session, its keys while it is open, and what each device lacks. So a server that is started again
//! takes up the sessions that were under way: they begin anew with the same keys, and devices go over to them.
//!
//! | part | contents |
//! |---|---|
//! | `running` | the sessions that run |
//! | `others` | the sessions of other servers on the same database |
//! | `queue` | whose turn it is: one session at a time |
//! | `segments`, `out_of_reach` | devices that perform a session for their segment, where the server's multicast does not reach |
//!
//! A session has keys of its own, which devices learn over their authenticated connection. It is sealed, so nobody else on
//! the network can read or join it.

mod others;
mod out_of_reach;
mod queue;
mod running;
mod segments;

pub(super) use running::Campaigns;

use super::auth::Caller;
use super::state_dir::random;
use super::{App, Shared, clock};
use crate::ddi::{Metadata, Perform, Session, SessionOffer};
use crate::lacking::{Lacking, pays, whole};
use crate::limits::{MAX_SESSION_WAIT, MIN_SESSION_OBJECT};
use crate::store::{
    Action, ActionState, Candidate, Order, StoreError, StoredSession, TaskDocument, TaskState, Where,
};
use mcp_transfer::limits::SENDER_SILENCE;
use mcp_transfer::session::Target;
use queue::Place;
use running::New;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};
use zeroize::Zeroizing;

/// How long a session waits for devices that join late.
const LINGER: Duration = Duration::from_secs(5);
/// Beyond the time between two check-ins, how long the devices of a session have to join.
const MARGIN: Duration = Duration::from_secs(10);
/// How long devices take to notice that a session is over or its server gone, and to say what they lack.
const NOTICE: Duration = Duration::from_secs(SENDER_SILENCE.as_secs() + MARGIN.as_secs());
/// How long a device waits before it asks again whether there is a session for it.
const AGAIN: Duration = Duration::from_secs(5);
/// How long it stays decided that an object is not worth a session: many devices may ask at the same time.
const KEPT: Duration = Duration::from_secs(1);

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

/// A session as operators see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// The file that it sends.
    pub file: String,
    /// When it was called, in seconds since 1970.
    pub called: u64,
    /// How often it began: once, and once more for each time that the server was started in the middle of it.
    pub runs: u64,
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
    /// Symbols of the object sent once.
    #[serde(default)]
    pub symbols: u64,
    /// Symbols sent beyond that, to make up for losses.
    #[serde(default)]
    pub repairs: u64,
    /// Bits per second that it sends now.
    #[serde(default)]
    pub rate: u64,
    /// Whether it waits for its devices, and can be started.
    #[serde(default)]
    pub gathering: bool,
    /// Whether it is over.
    pub over: bool,
}

/// What a device is to do about an object that it lacks.
#[derive(Debug)]
enum Verdict {
    /// To join a session.
    Join(Session),
    /// To ask again after this time.
    Again(Duration),
    /// To load it by HTTP.
    Alone,
    /// To send it to others of its segment.
    Perform(Perform),
}

/// What a device says of an object of its task.
#[derive(Debug)]
pub(super) struct Said {
    /// Which of the task's objects.
    pub(super) position: usize,
    /// What it lacks of it.
    pub(super) lacking: Lacking,
    /// Whether it heard nobody in the session that it was told of last.
    pub(super) unreached: bool,
    /// Whether it would give the object to its neighbours.
    pub(super) serves: bool,
}

impl StoredSession {
    /// The session at its end; `None` for one that did not start.
    fn view(&self) -> Option<SessionView> {
        serde_json::from_str(&self.figures).ok()
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Shared {
    /// What a device is told of a session when it fetches its deployment. `action` is as it was before the device took it:
    /// one that takes its task may call a session, and one that has begun is told of a session that runs. Keys are told over
    /// encrypted connections only.
    pub(super) async fn invite(
        self: &App,
        caller: &Caller,
        action: &Action,
        document: &TaskDocument,
    ) -> Vec<Metadata> {
        let Some(object) = document.objects.first().filter(|_| caller.secure) else { return Vec::new() };
        if self.segment_of(caller, false).is_some() {
            return Vec::new();
        }
        let session = if action.state == ActionState::Waiting {
            let lacking = whole(object.hashes.size);
            let said = Said { position: 0, lacking, unreached: false, serves: false };
            match self.decide(caller, action, document, said).await {
                Ok(Verdict::Join(session)) => Some(session),
                Ok(_) => None,
                Err(error) => {
                    // The device asks again, or loads the object by HTTP.
                    warn!(%error, "no multicast session ({error})");
                    None
                }
            }
        } else {
            self.campaigns.invitation(&object.hashes.blake3)
        };
        session.iter().flat_map(Session::to_metadata).collect()
    }

    /// What a device is told that says what it lacks of an object of its task. With nothing lacking it has the object.
    pub(super) async fn offer(
        self: &App,
        caller: &Caller,
        action: &Action,
        document: &TaskDocument,
        said: Said,
    ) -> Result<SessionOffer, StoreError> {
        let verdict = match self.decide(caller, action, document, said).await {
            Ok(verdict) => verdict,
            Err(error) => match error.downcast::<StoreError>() {
                Ok(error) => return Err(*error),
                Err(error) => {
                    warn!(%error, "no multicast session ({error})");
                    Verdict::Alone
                }
            },
        };
        Ok(match verdict {
            Verdict::Join(session) => SessionOffer { session: Some(session), ..SessionOffer::default() },
            Verdict::Again(time) => SessionOffer { again: Some(time.as_secs()), ..SessionOffer::default() },
            Verdict::Perform(perform) => SessionOffer { perform: Some(perform), ..SessionOffer::default() },
            Verdict::Alone => SessionOffer::default(),
        })
    }

    async fn decide(
        self: &App,
        caller: &Caller,
        action: &Action,
        document: &TaskDocument,
        Said { position, lacking, unreached, serves }: Said,
    ) -> Result<Verdict, Failure> {
        let (Some(multicast), Some(object)) = (&self.config.multicast, document.objects.get(position)) else {
            return Ok(Verdict::Alone);
        };
        let small = object.hashes.size < MIN_SESSION_OBJECT;
        let able = caller.secure && caller.device.attributes.contains_key("mcp.multicast");
        let live = matches!(action.state, ActionState::Waiting | ActionState::Running);
        let live = live && action.task_state == TaskState::Running;
        let segment = self.segment_of(caller, unreached);
        // A device that sends to its segment may be done with the task itself.
        if let (true, Some(segment)) = (lacking.is_empty(), &segment) {
            self.store.lacks(action.id, None, clock::now()).await?;
            return self.has_it((caller, serves), (action.task, position), document, segment.clone()).await;
        }
        // The keys of senders that a task names are not this server's.
        if small || !able || !live || !document.task.senders.is_empty() {
            return Ok(Verdict::Alone);
        }
        if lacking.is_empty() {
            self.store.lacks(action.id, None, clock::now()).await?;
            return Ok(Verdict::Alone);
        }
        let lacks = Some((position, lacking));
        if let Some(segment) = segment {
            let verdict = self.ask_segment((caller, serves), object, segment).await?;
            let lacks = lacks.filter(|_| !matches!(verdict, Verdict::Alone));
            self.store.lacks(action.id, lacks, clock::now()).await?;
            return Ok(verdict);
        }
        if let Some(session) = self.campaigns.invitation(&object.hashes.blake3) {
            self.store.lacks(action.id, lacks, clock::now()).await?;
            return Ok(Verdict::Join(session));
        }
        let mut deciding = self.campaigns.deciding.lock().await;
        // First, so that what is said now counts as said after the last session.
        self.note_ends().await?;
        self.store.lacks(action.id, lacks, clock::now()).await?;
        if let Some(session) = self.campaigns.invitation(&object.hashes.blake3) {
            return Ok(Verdict::Join(session));
        }
        if self.is_under_way(&object.hashes.blake3) {
            return Ok(Verdict::Again(AGAIN));
        }
        let place = Place::new(document.terms.weight, action.task, position);
        let first = deciding.queue.is_first(place, Instant::now());
        if !first || self.campaigns.is_busy() {
            return Ok(Verdict::Again(AGAIN));
        }
        deciding.alone.retain(|_, until| *until > Instant::now());
        let key = (action.task, position);
        let candidates = if deciding.alone.contains_key(&key) {
            Vec::new()
        } else {
            let mut at = self.lately(key).await;
            if let Some((called, ended)) = self.store.last_session(action.task, position).await? {
                at.ended = ended;
                // Others that were in that session may say in a while what they lack.
                deciding.asked.retain(|_, at| at.elapsed() < NOTICE * 2);
                let first = *deciding.asked.entry(key).or_insert_with(Instant::now);
                let others = Where { heard: called, ..at };
                if first.elapsed() < NOTICE && self.store.unheard(others).await? > 0 {
                    return Ok(Verdict::Again(AGAIN));
                }
                deciding.asked.remove(&key);
                self.store.give_up_unheard(at).await?;
            }
            self.reached(at).await?
        };
        deciding.queue.leave(place);
        let all = whole(object.hashes.size);
        if !pays(candidates.iter().map(|candidate| candidate.lacks.as_ref().unwrap_or(&all).as_slice())) {
            deciding.alone.insert(key, Instant::now() + KEPT);
            self.store.lacks(action.id, None, clock::now()).await?;
            return Ok(Verdict::Alone);
        }
        let session = self.call(multicast, key, document, &candidates).await?;
        Ok(session.map_or(Verdict::Again(AGAIN), Verdict::Join))
    }

    /// Calls a session for these devices. `None`: another server was faster.
    async fn call(
        self: &App,
        multicast: &Multicast,
        (task, position): (i64, usize),
        document: &TaskDocument,
        candidates: &[Candidate],
    ) -> Result<Option<Session>, Failure> {
        let most = self.store.most_at_once(task, document.terms.at_once).await?;
        let expected = most.unwrap_or(u64::MAX).min(candidates.len() as u64);
        let gather = match candidates.iter().any(|candidate| candidate.waits) {
            true => (self.config.poll.mul_f64(1.25) + MARGIN).min(MAX_SESSION_WAIT),
            false => MARGIN,
        };
        let secret = Zeroizing::new(random::<32>()?.to_vec());
        let by = (self.name.as_str(), clock::now());
        let Some(stored) = self.store.call_session((task, position), expected, secret, by).await? else {
            return Ok(None);
        };
        let started = self.start_session(multicast, stored.clone(), document, (expected, gather)).await;
        if started.is_err() {
            self.store.end_session(&stored, String::new(), clock::now()).await?;
        }
        started.map(Some)
    }

    /// Starts a session that is noted in the store.
    async fn start_session(
        self: &App,
        multicast: &Multicast,
        stored: StoredSession,
        document: &TaskDocument,
        (expected, gather): (u64, Duration),
    ) -> Result<Session, Failure> {
        let object = document.objects.get(stored.position).ok_or("the task has no such object")?;
        let new = New {
            object: object.hashes.blake3,
            path: self.objects.path(&object.hashes.blake3),
            name: object.filename.clone(),
            multicast: multicast.clone(),
            stored: stored.clone(),
            expected,
            gather,
        };
        let app = Arc::clone(self);
        // Opening the object and the sockets waits for the disk and the system.
        let (session, left) = tokio::task::spawn_blocking(move || app.campaigns.start(new)).await??;
        // Devices that ask here are told at once. If the database is away, the next server that looks knows of no group yet.
        let _ = self.store.session_starts(&stored, session.group, clock::now() + left.as_secs()).await;
        Ok(session)
    }

    /// Who was heard of lately.
    async fn lately(&self, (task, position): (i64, usize)) -> Where {
        self.note_seen().await;
        let heard = self.silent_before();
        Where { task, position, heard, ended: 0 }
    }

    /// The devices that could take part in a session of this server.
    async fn reached(&self, at: Where) -> Result<Vec<Candidate>, StoreError> {
        let mut candidates = self.store.candidates(at).await?;
        let (segments, now) = (self.campaigns.segments(), Instant::now());
        candidates.retain(|candidate| segments.away(&candidate.device, now).is_none());
        Ok(candidates)
    }

    /// Begins the sessions anew that this server left open, if they still pay.
    pub(super) async fn take_up_own_sessions(self: &App) -> Result<(), StoreError> {
        let mut open = self.store.open_sessions().await?;
        open.retain(|stored| stored.server.as_ref().is_none_or(|server| *server == self.name));
        self.take_up_sessions(open).await
    }

    async fn take_up_sessions(self: &App, open: Vec<StoredSession>) -> Result<(), StoreError> {
        for stored in open {
            let Some(stored) = self.store.take_up_session(&stored, &self.name).await? else { continue };
            if let Err(error) = self.take_up(stored.clone()).await {
                warn!(session = stored.id, %error, "session {} is not taken up ({error})", stored.id);
            }
            if self.campaigns.view(stored.id).is_none() {
                self.store.end_session(&stored, String::new(), clock::now()).await?;
            }
        }
        Ok(())
    }

    /// Tells other servers that the sessions of this one go on, does what operators want of them, and takes up the sessions
    /// of servers that are gone.
    pub(super) async fn watch_sessions(self: &App) -> Result<(), StoreError> {
        let here = self.campaigns.stored();
        for (object, stored, view) in &here {
            let figures = serde_json::to_string(view).unwrap_or_default();
            match self.store.beat(stored, figures).await? {
                Order::GoOn => {}
                Order::Begin => self.campaigns.begin(object),
                Order::End => self.campaigns.cancel(object),
            }
        }
        let mut others = Vec::new();
        for stored in self.store.open_sessions().await? {
            if stored.server.as_ref() != Some(&self.name) {
                let document = self.store.document(stored.task).await?;
                others.extend(
                    document.objects.get(stored.position).map(|object| (object.hashes.blake3, stored)),
                );
            }
        }
        let gone = self.campaigns.others().note(others, Instant::now());
        if gone.is_empty() {
            return Ok(());
        }
        let _deciding = self.campaigns.deciding.lock().await;
        self.take_up_sessions(gone).await
    }

    async fn take_up(self: &App, stored: StoredSession) -> Result<(), Failure> {
        let document = self.store.document(stored.task).await?;
        let (Some(multicast), Some(object)) = (&self.config.multicast, document.objects.get(stored.position))
        else {
            return Ok(());
        };
        // However long ago: nobody could be heard of meanwhile.
        let at = Where { task: stored.task, position: stored.position, heard: 0, ended: 0 };
        let mut devices = self.store.candidates(at).await?;
        devices.retain(|device| !device.waits);
        let all = whole(object.hashes.size);
        if pays(devices.iter().map(|device| device.lacks.as_ref().unwrap_or(&all).as_slice())) {
            let (file, expected) = (object.filename.as_str(), devices.len());
            info!(
                task = stored.task,
                session = stored.id,
                file,
                expected,
                "{file}: the session for {expected} devices is taken up again"
            );
            self.start_session(multicast, stored, &document, (devices.len() as u64, NOTICE)).await?;
        }
        Ok(())
    }

    /// Notes which sessions are over, and lets those begin whose devices have all come.
    pub(super) async fn look_after_sessions(self: &App) -> Result<(), StoreError> {
        let _deciding = self.campaigns.deciding.lock().await;
        self.note_ends().await?;
        for (object, stored, joined) in self.campaigns.gathering() {
            let at = self.lately((stored.task, stored.position)).await;
            let wanted = self.reached(at).await?.len() as u64;
            if joined > 0 && joined >= wanted {
                self.campaigns.begin(&object);
            }
        }
        Ok(())
    }

    async fn note_ends(&self) -> Result<(), StoreError> {
        for (object, campaign) in self.campaigns.ended() {
            let view = campaign.view().unwrap_or_default();
            let figures = serde_json::to_string(&view).unwrap_or_default();
            if let Err(error) = self.store.end_session(&campaign.stored, figures, clock::now()).await {
                self.campaigns.put_back(object, campaign);
                return Err(error);
            }
            self.metrics.session_over(&view);
            let SessionView { file, expected, complete, size, wire, symbols, repairs, .. } = view;
            let StoredSession { id: session, task, .. } = campaign.stored;
            info!(
                task,
                session,
                file,
                expected,
                complete,
                size,
                wire,
                symbols,
                repairs,
                "{file}: {complete} of {expected} devices by multicast, {wire} bytes sent"
            );
        }
        Ok(())
    }

    /// The sessions of a task, as they are now.
    pub(super) async fn sessions(&self, task: i64) -> Result<Vec<SessionView>, StoreError> {
        let sessions = self.store.sessions_of_task(task).await?.into_iter();
        Ok(sessions.filter_map(|stored| self.campaigns.view(stored.id).or_else(|| stored.view())).collect())
    }

    /// The session of a task that runs now, with its keys.
    pub(super) fn session_of(&self, document: &TaskDocument) -> Option<Session> {
        document.objects.iter().find_map(|object| self.campaigns.invitation(&object.hashes.blake3))
    }
}
