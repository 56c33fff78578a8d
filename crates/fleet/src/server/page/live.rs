//! What all viewers see, looked up once for all of them, and the news that it has changed.
//!
//! A snapshot serves every page for a second, longer where it took long to make. While somebody watches, it is made again and
//! again; each viewer is told only that there is another one, and its browser asks for its page again. So a viewer costs no
//! query, and one who reads slowly holds up nothing: there is no queue, and it is dropped.

use super::super::error::ApiError;
use super::super::{App, Shared, clock, listen};
use super::login::Viewer;
use super::{PageResult, Refusal};
use crate::limits::{MAX_VIEWERS, MAX_VIEWERS_OF_OPERATOR};
use crate::server::rate::{Counted, Counts};
use crate::server::{SessionView, TaskView};
use crate::store::{DeviceSummary, StoreError};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// How long a snapshot counts at least.
const FRESH: Duration = Duration::from_secs(1);
/// It counts this many times the time that it took to make, so that watching takes a tenth of a reader at most.
const SHARE: u32 = 10;
/// How often a viewer is looked after: whether it is still there, and still logged in.
const LOOK: Duration = Duration::from_secs(15);
/// How long a viewer may take for a line.
const PATIENCE: Duration = Duration::from_secs(10);

/// The fleet at a moment.
#[derive(Debug)]
pub(in crate::server) struct Snapshot {
    /// All devices, by name.
    pub(in crate::server) devices: Vec<DeviceSummary>,
    /// All tasks, the newest first, each with the sessions that run.
    pub(in crate::server) tasks: Vec<TaskView>,
    /// Tasks that somebody looked at.
    details: Mutex<BTreeMap<i64, Arc<TaskView>>>,
    /// Of all that somebody could see change.
    digest: blake3::Hash,
    until: Instant,
}

impl Snapshot {
    /// A task with its actions, if somebody looked at it before.
    pub(super) fn detail(&self, id: i64) -> Option<Arc<TaskView>> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Keeps a task for the next viewer.
    pub(super) fn keep(&self, id: i64, view: Arc<TaskView>) -> Arc<TaskView> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&view));
        view
    }
}

/// What viewers share.
#[derive(Debug)]
pub(in crate::server) struct Live {
    latest: tokio::sync::Mutex<Option<Arc<Snapshot>>>,
    /// The number of the newest snapshot that differs from the one before.
    changes: watch::Sender<u64>,
    came: Notify,
    room: Arc<Semaphore>,
    of_operator: Arc<Counts<String>>,
    stop: watch::Receiver<bool>,
}

impl Live {
    /// Nobody watches yet.
    pub(in crate::server) fn new(stop: watch::Receiver<bool>) -> Self {
        Self {
            latest: tokio::sync::Mutex::default(),
            changes: watch::channel(0).0,
            came: Notify::new(),
            room: Arc::new(Semaphore::new(MAX_VIEWERS)),
            of_operator: Counts::new(MAX_VIEWERS_OF_OPERATOR),
            stop,
        }
    }

    /// How many viewers there are.
    pub(in crate::server) fn viewers(&self) -> usize {
        self.changes.receiver_count()
    }
}

impl Shared {
    /// The fleet, as it was at most a moment ago.
    pub(in crate::server) async fn snapshot(&self) -> Result<Arc<Snapshot>, StoreError> {
        // Whoever comes meanwhile waits for the same one.
        let mut latest = self.live.latest.lock().await;
        if let Some(known) = latest.as_ref().filter(|known| Instant::now() < known.until) {
            return Ok(Arc::clone(known));
        }
        let began = Instant::now();
        let heard = self.silent_before();
        self.note_seen().await;
        let devices = self.store.summaries(heard).await?;
        let mut tasks: Vec<TaskView> =
            self.store.tasks(None).await?.into_iter().map(TaskView::from).collect();
        let mut running = BTreeMap::<i64, Vec<SessionView>>::new();
        self.campaigns
            .all_views()
            .into_iter()
            .for_each(|(task, view)| running.entry(task).or_default().push(view));
        for task in &mut tasks {
            task.sessions = running.remove(&task.id).unwrap_or_default();
        }
        let digest = digest(&devices, &tasks);
        let until = Instant::now() + FRESH.max(began.elapsed() * SHARE);
        if latest.as_ref().is_none_or(|known| known.digest != digest) {
            self.live.changes.send_modify(|number| *number += 1);
        }
        let snapshot = Arc::new(Snapshot { devices, tasks, details: Mutex::default(), digest, until });
        *latest = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// After a change by a viewer, who wants to see it.
    pub(in crate::server) async fn forget_snapshot(&self) {
        *self.live.latest.lock().await = None;
    }
}

/// Of what is shown and changes. Check-ins that bring nothing new are left out: with many devices they never end.
fn digest(devices: &[DeviceSummary], tasks: &[TaskView]) -> blake3::Hash {
    let devices: Vec<_> =
        devices.iter().map(|d| (&d.id, d.standing, &d.task, &d.message, d.progress)).collect();
    let tasks: Vec<_> = tasks.iter().map(|t| (t.id, t.state, &t.counts, &t.sessions)).collect();
    blake3::hash(&serde_json::to_vec(&(devices, tasks)).unwrap_or_default())
}

/// Makes snapshots while somebody watches.
pub(in crate::server) async fn produce(app: App) {
    let mut stop = app.live.stop.clone();
    loop {
        let came = app.live.came.notified();
        if app.live.viewers() == 0 {
            tokio::select! {
                () = listen::stopped(&mut stop) => return,
                () = came => {}
            }
        }
        // If the database is away, viewers are told nothing, and see so when they ask for a page.
        let _ = app.snapshot().await;
        tokio::select! {
            () = listen::stopped(&mut stop) => return,
            () = tokio::time::sleep(FRESH) => {}
        }
    }
}

/// One viewer's lines: server-sent events, each with the number of a snapshot.
pub(super) async fn events(State(app): State<App>, viewer: Viewer) -> PageResult {
    let full = || Refusal::from(ApiError::later(60));
    let permit = Arc::clone(&app.live.room).try_acquire_owned().map_err(|_| full())?;
    let counted = app.live.of_operator.one(viewer.operator.public_key.clone()).ok_or_else(full)?;
    let (lines, body) = mpsc::channel(1);
    tokio::spawn(tell(app, viewer.session, lines, (permit, counted)));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    let response: Response = (headers, Body::from_stream(Lines(body))).into_response();
    Ok(response)
}

async fn tell(
    app: App,
    session: blake3::Hash,
    lines: mpsc::Sender<io::Result<Bytes>>,
    _held: (OwnedSemaphorePermit, Counted<String>),
) {
    let (mut changes, mut stop) = (app.live.changes.subscribe(), app.live.stop.clone());
    app.live.came.notify_one();
    let mut line = format!("retry: 3000\ndata: {}\n\n", *changes.borrow_and_update());
    loop {
        let sent = tokio::time::timeout(PATIENCE, lines.send(Ok(line.into()))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
        line = tokio::select! {
            () = listen::stopped(&mut stop) => return,
            () = lines.closed() => return,
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                format!("data: {}\n\n", *changes.borrow_and_update())
            }
            () = tokio::time::sleep(LOOK) => {
                // Logged out, expired, or no operator any more.
                if matches!(app.store.logged_in(session, clock::now()).await, Ok(None)) {
                    return;
                }
                ": still there\n\n".to_owned()
            }
        };
    }
}

struct Lines(mpsc::Receiver<io::Result<Bytes>>);

impl Stream for Lines {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
