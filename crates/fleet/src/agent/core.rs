//! What the check-in loop and the runners share: the stored state, and what runs at the moment.

use super::api::Api;
use super::fetch::{Pace, blocking};
use super::offering::Offering;
use super::state::{Completed, Identity, StateDir};
use super::steps::Steps;
use super::work::{Ended, Work};
use super::{Settings, clock};
use crate::ddi::{ConfigData, Mode, UNNEEDED, is_attribute};
use crate::documents::{Hash, Listing, TaskKind, Trusted};
use crate::handlers::Canceller;
use crate::limits::{MAX_ATTRIBUTES, MAX_FEEDBACK_LINE, MAX_FEEDBACK_LINES, MAX_WORKS};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tracing::warn;

/// What runs for a task at the moment.
#[derive(Debug)]
pub(crate) struct Running {
    /// What it does, for people.
    pub phase: String,
    /// Bytes there, and bytes in all.
    pub bytes: (u64, u64),
    /// Whether the server was told of the phase.
    pub told: bool,
    /// Whether it loads its objects, or will soon.
    pub loading: bool,
    /// Whether it can still be cancelled.
    pub cancellable: bool,
    /// Cancels it.
    pub cancel: watch::Sender<bool>,
    /// Ends it where it is, when the agent ends.
    pub abort: Option<AbortHandle>,
    /// Ends the handler, if one runs and may be ended.
    pub canceller: Option<Arc<Canceller>>,
}

/// What changes.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub trusted: Option<Trusted>,
    pub works: BTreeMap<Hash, Work>,
    pub completed: BTreeMap<String, Completed>,
    pub running: BTreeMap<Hash, Running>,
}

impl Inner {
    /// The tasks that are completed as attributes, the newest first.
    fn newest(&self) -> impl Iterator<Item = (String, String)> {
        let mut completed: Vec<_> = self.completed.iter().collect();
        completed.sort_by_key(|(_, completed)| std::cmp::Reverse(completed.at));
        let said = completed.into_iter().map(|(name, completed)| (has(name), completed.version.clone()));
        said.filter(|(key, value)| is_attribute(key) && is_attribute(value))
    }
}

/// The attribute that says which version of a task the device has.
fn has(name: &str) -> String {
    format!("mcp.has.{name}")
}

/// What the agent's parts share.
#[derive(Debug)]
pub(crate) struct Core {
    pub api: Api,
    /// The name of this device.
    pub device: String,
    pub settings: Settings,
    pub listing: Listing,
    pub state: StateDir,
    pub pace: Pace,
    /// What this device gives to its neighbours.
    pub offering: Option<Arc<Offering>>,
    inner: Mutex<Inner>,
    /// Held while what is stored of tasks is read, changed and written: the loop and the runners do so.
    writing: tokio::sync::Mutex<()>,
    /// Something is to be told to the server.
    pub changed: Notify,
    /// What tasks wait for may have changed: the terms of one, how one ended, or what is trusted.
    pub news: watch::Sender<()>,
    /// How many tasks may load at a time.
    pub slots: Semaphore,
    /// One handler runs at a time: most of them change the same system.
    pub handlers: Arc<Semaphore>,
    /// What runs handlers.
    pub steps: Arc<Steps>,
}

impl Core {
    /// Reads what is stored.
    pub(crate) fn new(
        state: StateDir,
        identity: &Identity,
        settings: Settings,
        offering: Option<Arc<Offering>>,
    ) -> Result<Arc<Self>, Box<dyn std::error::Error + Send + Sync>> {
        let inner = Inner {
            trusted: state.trusted()?,
            works: state.works()?,
            completed: state.read("completed.json")?.unwrap_or_default(),
            running: BTreeMap::new(),
        };
        let known = inner.works.keys().copied().collect();
        let (steps, damage) = Steps::open(&state.path("journal"), settings.handlers.clone(), &known)?;
        if let Some(damage) = damage {
            warn!("the journal was damaged: {damage}");
        }
        let listing = if identity.fleet.is_some() { Listing::Required } else { Listing::Absent };
        Ok(Arc::new(Self {
            api: Api::new(identity)?,
            device: identity.device.clone(),
            listing,
            pace: Pace { least: settings.least_speed, ..Pace::default() },
            news: watch::channel(()).0,
            slots: Semaphore::new(settings.jobs),
            handlers: Arc::new(Semaphore::new(1)),
            steps: Arc::new(steps),
            settings,
            offering,
            state,
            inner: Mutex::new(inner),
            writing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// The changing part. Never held across a wait.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores what is trusted, and then trusts it.
    pub(crate) async fn trust(self: &Arc<Self>, next: Trusted) -> io::Result<()> {
        if self.lock().trusted.as_ref() == Some(&next) {
            return Ok(());
        }
        let (core, bytes) = (Arc::clone(self), next.to_bytes());
        blocking(move || core.state.write("trusted.json", &bytes).map_err(io::Error::other)).await?;
        self.lock().trusted = Some(next);
        self.news.send_replace(());
        Ok(())
    }

    /// What the device says of itself, and by what it checks whether a task is meant for it and needed. Of what it has
    /// completed, the newest for which there is room.
    pub(crate) fn attributes(&self) -> BTreeMap<String, String> {
        let settings = &self.settings;
        let mut data = settings.attributes.clone();
        data.insert("mcp.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        data.extend(settings.multicast.then(|| ("mcp.multicast".to_owned(), "1".to_owned())));
        data.extend(settings.key.clone().map(|key| ("mcp.key".to_owned(), key)));
        let inner = self.lock();
        // Newer than what the administrator has said.
        let completed = inner.completed.values().filter(|completed| completed.software);
        if let Some(newest) = completed.max_by_key(|completed| completed.at) {
            data.insert("sw_version".to_owned(), newest.version.clone());
        }
        data.retain(|key, value| is_attribute(key) && is_attribute(value));
        for (key, value) in inner.newest() {
            if data.len() >= MAX_ATTRIBUTES {
                break;
            }
            data.insert(key, value);
        }
        data
    }

    /// The change to what the server knows, so that it knows `attributes`: those of completed tasks for which there is no room
    /// any more are taken back, so that there is room at the server too.
    pub(crate) fn attributes_change(&self, attributes: &BTreeMap<String, String>) -> ConfigData {
        let inner = self.lock();
        let older = inner.newest().map(|(key, _)| key).filter(|key| !attributes.contains_key(key));
        // No more than the server may know.
        let older = older.take(MAX_ATTRIBUTES).map(|key| (key, None)).collect::<BTreeMap<_, _>>();
        let said = attributes.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        ConfigData { mode: Mode::Merge, data: said.chain(older).collect() }
    }

    /// Whether the newest task of this name, as far as the device knows, is completed here.
    pub(crate) fn has_completed(&self, name: &str) -> bool {
        let inner = self.lock();
        let newest = inner.trusted.as_ref().and_then(|trusted| trusted.newest_serial(name));
        inner.completed.get(name).is_some_and(|completed| Some(completed.serial) >= newest)
    }

    /// Whether as many tasks load, or wait for it, as may load at a time.
    pub(crate) fn is_loading_enough(&self) -> bool {
        self.lock().running.values().filter(|running| running.loading).count() >= self.settings.jobs
    }

    /// Notes that a task has its objects, or may not load them yet.
    pub(crate) fn loaded(&self, id: Hash) {
        if let Some(running) = self.lock().running.get_mut(&id) {
            running.loading = false;
        }
        self.changed.notify_one();
    }

    /// Stores a task as `change` makes it of what is known, and then has it, and returns it. Most offers are the same as at the last poll, and
    /// need no write.
    pub(crate) async fn update(
        self: &Arc<Self>,
        id: Hash,
        change: impl FnOnce(Option<Work>) -> Work,
    ) -> io::Result<Work> {
        let _writing = self.writing.lock().await;
        let known = self.lock().works.get(&id).cloned();
        let work = change(known.clone());
        if known.as_ref() != Some(&work) {
            self.store(work.clone()).await?;
            self.news.send_replace(());
        }
        Ok(work)
    }

    /// Makes room by forgetting the oldest that are over.
    async fn store(self: &Arc<Self>, work: Work) -> io::Result<()> {
        let core = Arc::clone(self);
        let kept = work.clone();
        blocking(move || core.state.put_work(&kept).map_err(io::Error::other)).await?;
        let surplus: Vec<_> = {
            let mut inner = self.lock();
            inner.works.insert(work.id, work);
            let mut over: Vec<_> = inner.works.values().filter(|work| work.reported).collect();
            over.sort_by_key(|work| work.ended.as_ref().map_or(0, |ended| ended.at));
            let surplus = inner.works.len().saturating_sub(MAX_WORKS);
            let surplus: Vec<_> = over.into_iter().take(surplus).map(|work| work.id).collect();
            surplus.iter().for_each(|id| drop(inner.works.remove(id)));
            surplus
        };
        let core = Arc::clone(self);
        blocking(move || {
            surplus.into_iter().for_each(|id| core.state.forget_work(id));
            Ok(())
        })
        .await
    }

    /// Changes a task that is stored, and stores it again.
    pub(crate) async fn change(self: &Arc<Self>, id: Hash, change: impl FnOnce(&mut Work)) -> io::Result<()> {
        let _writing = self.writing.lock().await;
        let work = self.lock().works.get(&id).cloned();
        let Some(mut work) = work else { return Ok(()) };
        let before = work.clone();
        change(&mut work);
        if work == before { Ok(()) } else { self.store(work).await }
    }

    /// Notes how a task ended, for good.
    pub(crate) async fn end(self: &Arc<Self>, id: Hash, mut ended: Ended) -> io::Result<()> {
        bound(&mut ended.details);
        let plan = self.lock().works.get(&id).map(Work::plan);
        if let Some(Ok(plan)) = &plan {
            ended.log(&plan.name);
        }
        if let Some(Ok(plan)) = plan.filter(|_| ended.success && !ended.downloaded) {
            let _writing = self.writing.lock().await;
            let completed = {
                let mut inner = self.lock();
                let before = inner.completed.get(&plan.name).map(|completed| completed.version.clone());
                // What was not needed has not changed the version.
                let version = if ended.code == UNNEEDED { before.unwrap_or_default() } else { plan.version };
                let update = plan.task.as_ref().is_none_or(|task| task.kind == TaskKind::Update);
                let software = update && !version.is_empty();
                let entry = Completed { version, serial: plan.serial, at: clock(), software };
                inner.completed.insert(plan.name, entry);
                inner.completed.clone()
            };
            let core = Arc::clone(self);
            blocking(move || core.state.put("completed.json", &completed).map_err(io::Error::other)).await?;
        }
        let kept = ended.downloaded;
        self.change(id, |work| work.ended = Some(ended)).await?;
        if !kept {
            let parts = self.state.path(&format!("parts/{id}"));
            // What stays behind goes with the task.
            let _ = blocking(move || std::fs::remove_dir_all(parts)).await;
        }
        self.lock().running.remove(&id);
        self.news.send_replace(());
        self.changed.notify_one();
        Ok(())
    }

    /// Says what a task does now.
    pub(crate) fn phase(&self, id: Hash, phase: &str) {
        if let Some(running) = self.lock().running.get_mut(&id) {
            if running.phase == phase {
                return;
            }
            (running.phase, running.told, running.bytes) = (phase.to_owned(), false, (0, 0));
        }
        self.changed.notify_one();
    }
}

/// Cuts details to what a feedback may have.
pub(crate) fn bound(details: &mut Vec<String>) {
    details.truncate(MAX_FEEDBACK_LINES);
    for line in details {
        let mut end = line.len().min(MAX_FEEDBACK_LINE);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
    }
}

#[cfg(test)]
impl Core {
    /// One that keeps its state below `dir`, and whose server does not answer.
    pub(crate) fn alone(dir: &std::path::Path) -> Arc<Self> {
        let identity = Identity {
            server: "http://127.0.0.1:1".into(),
            tenant: "DEFAULT".into(),
            device: "d".into(),
            authorization: None,
            pin: None,
            fleet: None,
        };
        let state = StateDir::open(&dir.join("agent")).unwrap();
        Self::new(state, &identity, Settings::default(), None).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::work::Content;

    #[tokio::test]
    async fn changes_at_the_same_time_are_all_stored() {
        let dir = tempfile::tempdir().unwrap();
        let core = Core::alone(dir.path());
        let id = Hash([7; 32]);
        let content = Content::Unsigned { name: "n".into(), version: String::new(), files: Vec::new() };
        let work = Work::new(id, "1", content);
        core.update(id, |_| work).await.unwrap();
        // A poll changes the terms of a task that ends.
        let ended = Ended { success: true, at: 1, ..Ended::default() };
        let (offered, over) = tokio::join!(
            core.update(id, |known| Work { hold_update: true, ..known.unwrap() }),
            core.end(id, ended)
        );
        offered.unwrap();
        over.unwrap();
        let stored = core.state.works().unwrap().remove(&id).unwrap();
        assert!(stored.hold_update && stored.ended.is_some(), "{stored:?}");
        assert_eq!(core.lock().works.get(&id), Some(&stored));
    }
    #[tokio::test]
    async fn a_device_that_has_completed_much_says_the_newest_and_takes_the_oldest_back() {
        let dir = tempfile::tempdir().unwrap();
        let core = Core::alone(dir.path());
        let mut known = BTreeMap::new();
        for n in 0..250_u64 {
            let version = n.to_string();
            let completed = Completed { version, serial: 1, at: 1_000 + n, software: false };
            core.lock().completed.insert(format!("task-{}", 999 - n), completed);
            let said = core.attributes();
            core.attributes_change(&said).apply(&mut known);
            assert_eq!(known, said, "after {n} tasks");
            assert!(known.len() <= MAX_ATTRIBUTES);
            assert_eq!(known.get(&has(&format!("task-{}", 999 - n))), Some(&n.to_string()), "the newest");
        }
        assert_eq!(known.len(), MAX_ATTRIBUTES);
        assert!(known.contains_key("mcp.version") && !known.contains_key(&has("task-999")), "{known:?}");
        // What no server takes would keep it from all the others.
        let odd = Completed { version: "1".into(), serial: 1, at: 9_000, software: false };
        core.lock().completed.insert("Größe".into(), odd);
        assert_eq!(core.attributes(), known);
    }
}
