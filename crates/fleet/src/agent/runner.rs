//! Carries out one task: waits for what must come before, loads the objects, waits for the window, and puts them in place.

use super::clock;
use super::core::{Core, Running};
use super::fetch::{self, FetchError, Wanted, blocking, is_object};
use super::multicast;
use super::place::{self, Place, PlaceError};
use super::schedule::opening;
use super::steps;
use super::work::{Ended, File, Plan, Work};
use crate::ddi::UNNEEDED;
use crate::documents::{Hash, Kind, Refusal, Task, TaskKind};
use crate::handlers::ObjectFile;
use jiff::tz::TimeZone;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// How often what a task waits for is looked at again, at the latest.
const LOOK: Duration = Duration::from_secs(30);

/// Why a task ends without success.
#[derive(Debug)]
pub(super) enum Stop {
    /// The server took it back.
    Canceled,
    /// It cannot be done.
    Failed(i32, Vec<String>),
}

impl Stop {
    pub(super) fn failed(code: i32, why: impl ToString) -> Self {
        Self::Failed(code, vec![why.to_string()])
    }
}

/// How a task ends with success.
struct Done {
    code: i32,
    /// For people.
    details: Vec<String>,
    /// It was only to be loaded, and is.
    downloaded: bool,
}

impl Done {
    const fn of(details: Vec<String>) -> Self {
        Self { code: 0, details, downloaded: false }
    }
}

/// Codes of failures, beside those of refusals.
pub(super) mod code {
    pub(in crate::agent) const DESTINATION: i32 = 4033;
    pub(in crate::agent) const NO_SOURCE: i32 = 4060;
    pub(in crate::agent) const REPLACED: i32 = 4090;
    pub(in crate::agent) const OBJECTS: i32 = 4041;
    pub(in crate::agent) const HANDLER: i32 = 5001;
    pub(in crate::agent) const INTERRUPTED: i32 = 5002;
    pub(in crate::agent) const DISK: i32 = 5007;
    pub(in crate::agent) const STORED: i32 = 5000;
}

/// Starts a task on the runtime, unless it runs.
pub(crate) fn spawn(core: &Arc<Core>, id: Hash) {
    let (cancel, canceled) = watch::channel(false);
    {
        let mut inner = core.lock();
        if inner.running.contains_key(&id) || !inner.works.get(&id).is_some_and(Work::is_open) {
            return;
        }
        let running = Running {
            phase: "accepted".to_owned(),
            bytes: (0, 0),
            told: false,
            loading: !core.steps.was_interrupted(id),
            cancellable: !core.steps.was_interrupted(id),
            cancel,
            abort: None,
            canceller: None,
        };
        inner.running.insert(id, running);
    }
    let runner = tokio::spawn(carry_out(Arc::clone(core), id, canceled));
    if let Some(running) = core.lock().running.get_mut(&id) {
        running.abort = Some(runner.abort_handle());
    }
}

async fn carry_out(core: Arc<Core>, id: Hash, canceled: watch::Receiver<bool>) {
    let ended = match perform(&core, id, canceled).await {
        Ok(Done { code, details, downloaded }) => {
            Ended { success: true, downloaded, code, details, ..Ended::default() }
        }
        Err(Stop::Canceled) => {
            Ended { canceled: true, details: vec!["canceled by the server".to_owned()], ..Ended::default() }
        }
        Err(Stop::Failed(code, details)) => Ended { code, details, ..Ended::default() },
    };
    if let Err(error) = core.end(id, Ended { at: clock(), ..ended }).await {
        // It is done again after a restart: a copy is put in place twice, which changes nothing.
        tracing::error!(%error, "cannot store how a task ended ({error})");
        core.lock().running.remove(&id);
    }
}

async fn perform(core: &Arc<Core>, id: Hash, mut canceled: watch::Receiver<bool>) -> Result<Done, Stop> {
    let work = core.lock().works.get(&id).cloned().ok_or(Stop::Canceled)?;
    let plan = work.plan().map_err(|why| Stop::failed(code::STORED, why))?;
    let until_canceled = async {
        // A sender that is gone means that the task is over anyway.
        let _ = canceled.wait_for(|canceled| *canceled).await;
    };
    let result = tokio::select! {
        biased;
        () = until_canceled => Err(Stop::Canceled),
        result = run(core, &work, &plan) => result,
    };
    if result.is_err() && plan.kind() == TaskKind::Copy {
        discard(core, id, &plan).await;
    }
    result
}

async fn run(core: &Arc<Core>, work: &Work, plan: &Plan) -> Result<Done, Stop> {
    let id = work.id;
    let handled = plan.task.as_ref().filter(|task| task.kind != TaskKind::Copy);
    if let Some(task) = handled
        && steps::settled(core, work).await
    {
        // Its conditions held when it began.
        core.loaded(id);
        return Ok(Done::of(steps::handle(core, work, plan, task, None).await?));
    }
    if let Some(why) = unneeded(core, plan) {
        core.loaded(id);
        let mut news = core.news.subscribe();
        // What comes after it comes after all that is before it.
        while let Some(name) = earlier(core, plan) {
            core.phase(id, &format!("waits for task {name}"));
            hear(&mut news, LOOK).await;
            allowed(core, id, plan)?;
        }
        return Ok(Done { code: UNNEEDED, ..Done::of(vec![why]) });
    }
    match handled {
        Some(task) => run_handler(core, work, plan, task).await,
        None => copy(core, work, plan).await,
    }
}

/// Notes that the files of a task are there. Whether no more than that is asked for.
fn has_loaded(core: &Core, id: Hash) -> bool {
    core.loaded(id);
    core.lock().works.get(&id).is_some_and(|work| work.only_load)
}

/// Tasks of this name that are loaded, and of which no more was asked for. What they have loaded serves this one.
fn loaded_before(core: &Core, plan: &Plan, id: Hash) -> Vec<Hash> {
    let inner = core.lock();
    let loaded = inner.works.values().filter(|work| work.id != id && work.is_downloaded());
    let named = loaded.filter(|work| work.plan().is_ok_and(|other| other.name == plan.name));
    named.map(|work| work.id).collect()
}

/// Why the device has what the task brings, if one of its conditions says so.
fn unneeded(core: &Core, plan: &Plan) -> Option<String> {
    let mut attributes = core.attributes();
    let version = core.lock().completed.get(&plan.name).map(|completed| completed.version.clone());
    let version = version.filter(|version| !version.is_empty());
    attributes.extend(version.map(|version| ("version".to_owned(), version)));
    let term = plan.task.as_ref()?.when.iter().find(|term| !term.holds(&attributes))?;
    Some(format!("not needed: '{term}' does not hold here"))
}

/// Loads the files, and puts them in place.
async fn copy(core: &Arc<Core>, work: &Work, plan: &Plan) -> Result<Done, Stop> {
    let id = work.id;
    let (mut details, mut loaded) = (Vec::new(), Vec::new());
    let before = loaded_before(core, plan, id);
    let mut ready = Vec::new();
    for file in &plan.files {
        let place = open_place(core, plan, file).await?;
        if has(&place, file).await? {
            details.push(format!("{} is there already", place.path.display()));
        } else {
            before.iter().for_each(|earlier| place.take_over(*earlier, id));
            let part = place.part(id).map_err(|error| Stop::failed(code::DISK, error))?;
            loaded.extend(load(core, work, plan, file, part, place.existing()).await?);
            ready.push(place);
        }
    }
    if has_loaded(core, id) {
        details.extend(loaded);
        return Ok(Done { downloaded: true, ..Done::of(details) });
    }
    may_begin(core, id, plan).await?;
    // From here on it is a matter of milliseconds, and a canceled copy must not be half in place.
    if let Some(running) = core.lock().running.get_mut(&id) {
        if *running.cancel.borrow() {
            return Err(Stop::Canceled);
        }
        running.cancellable = false;
    }
    for place in ready {
        let path = place.path.display().to_string();
        let put = blocking(move || place.put(id)).await;
        put.map_err(|error| Stop::failed(code::DISK, format!("cannot put {path} in place ({error})")))?;
        details.push(format!("{path} is in place"));
    }
    // The last one stands in the server's table: where the bytes came from.
    details.extend(loaded);
    Ok(Done::of(details))
}

/// Loads the object of a task into the state directory, and gives it to the handler.
async fn run_handler(core: &Arc<Core>, work: &Work, plan: &Plan, task: &Task) -> Result<Done, Stop> {
    let done = core.lock().completed.get(&plan.name).is_some_and(|completed| completed.serial == plan.serial);
    if done {
        return Ok(Done::of(vec!["completed before".to_owned()]));
    }
    let mut details = Vec::new();
    let object = match (&plan.files[..], &task.objects[..]) {
        ([], _) => None,
        ([file], [object]) => {
            let name = format!("parts/{}", work.id);
            let (path, dir) = (core.state.path(&format!("{name}/object")), core.state.path(&name));
            let made = path.clone();
            let before = loaded_before(core, plan, work.id);
            let before: Vec<_> =
                before.iter().map(|id| core.state.path(&format!("parts/{id}/object"))).collect();
            let part = blocking(move || {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
                // Whether there is one shows below.
                before.iter().for_each(|earlier| drop(std::fs::rename(earlier, &made)));
                let options = &mut std::fs::OpenOptions::new();
                options.read(true).write(true).create(true).truncate(false).mode(0o600).open(made)
            });
            let part = part.await.map_err(|error| Stop::failed(code::DISK, error))?;
            details.extend(load(core, work, plan, file, part, None).await?);
            Some(ObjectFile {
                path,
                name: object.filename.clone(),
                size: object.size,
                blake3: object.blake3.0,
            })
        }
        _ => return Err(Stop::failed(code::OBJECTS, "a handler takes one object; make a task for each")),
    };
    if has_loaded(core, work.id) {
        return Ok(Done { downloaded: true, ..Done::of(details) });
    }
    details.extend(steps::handle(core, work, plan, task, object).await?);
    Ok(Done::of(details))
}

async fn open_place(core: &Arc<Core>, plan: &Plan, file: &File) -> Result<Place, Stop> {
    let unsigned = || {
        let dir = core.settings.unsigned_copies.as_ref()?;
        Some((vec![dir.clone()], format!("{}/", dir.display())))
    };
    let (allowed, at) = match &plan.task {
        Some(task) => (core.settings.destinations.clone(), task.at.clone().unwrap_or_default()),
        None => unsigned()
            .ok_or_else(|| Stop::failed(code::DESTINATION, "unsigned copies are not allowed here"))?,
    };
    let name = file.filename.clone();
    let opened = blocking(move || Ok(Place::open(&allowed, &at, &name))).await;
    opened.map_err(|error| Stop::failed(code::DISK, error))?.map_err(|error| match &error {
        PlaceError::Forbidden(_) => Stop::failed(code::DESTINATION, error),
        PlaceError::File { .. } => Stop::failed(code::DISK, error),
    })
}

/// Whether the destination already has the file.
async fn has(place: &Place, file: &File) -> Result<bool, Stop> {
    let Some(existing) = place.existing() else { return Ok(false) };
    let (size, digests) = (file.size, file.digests.clone());
    let read = blocking(move || is_object(&existing, size, &digests)).await;
    read.map_err(|error| Stop::failed(code::DISK, error))
}

/// Loads a file into its part file.
async fn load(
    core: &Arc<Core>,
    work: &Work,
    plan: &Plan,
    file: &File,
    part: std::fs::File,
    earlier: Option<std::fs::File>,
) -> Result<Vec<String>, Stop> {
    let id = work.id;
    let mut news = core.news.subscribe();
    while core.lock().works.get(&id).is_some_and(|work| work.hold_download) {
        // Others may load meanwhile.
        core.loaded(id);
        core.phase(id, "waits until the server lets it load");
        hear(&mut news, LOOK).await;
        allowed(core, id, plan)?;
    }
    let _slot = turn(core, id, &core.slots).await?;
    let mut hints = work.sources.get(&file.filename).cloned().unwrap_or_default();
    // Where neither a hash nor TLS vouches for the bytes, the policy of this device must.
    hints.retain(|url| file.digests.strong() || core.settings.plain || url.starts_with("https:"));
    let mut wanted = Wanted {
        size: file.size,
        digests: file.digests.clone(),
        sources: hints.iter().filter_map(|url| url.parse().ok()).collect(),
        values: Vec::new(),
        near: None,
        pace: core.pace,
    };
    if let Some(hash) = file.digests.blake3 {
        // A mirror has the list of values beside the object.
        let hex = hash.to_string();
        let lists = hints.iter().filter(|url| url.ends_with(&hex)).map(|url| format!("{url}.hashes"));
        wanted.values.extend(lists.filter_map(|url| url.parse().ok()));
        let [object, values] = core.api.object(hash);
        if plan.task.is_some() && core.listing == crate::documents::Listing::Required {
            wanted.sources.push(object);
            wanted.values.push(values);
            wanted.near = Some(core.api.clone());
        }
    }
    // What it brings counts once it is hashed again, like a part file from before.
    let copy = || part.try_clone().map_err(|error| Stop::failed(code::DISK, error));
    let (own, shared, reserved) = (copy()?, copy()?, copy()?);
    let size = file.size;
    let room = blocking(move || place::reserve(&reserved, size)).await;
    room.map_err(|error| Stop::failed(code::DISK, FetchError::Disk(error)))?;
    let bringing = multicast::bring(core, work, plan, file, &wanted, own);
    let heard = while_allowed(core, id, plan, bringing)
        .await?
        .map_err(|error| Stop::failed(code::DISK, FetchError::Disk(error)))?;
    core.phase(id, &format!("loads {}", file.filename));
    let disk = |error: io::Error| Stop::failed(code::DISK, FetchError::Disk(error));
    let total = file.size;
    let progress = |bytes| {
        if let Some(running) = core.lock().running.get_mut(&id) {
            running.bytes = (bytes, total);
        }
    };
    let loading = fetch::fetch(&core.api.net, &wanted, part, earlier, progress);
    match while_allowed(core, id, plan, loading).await? {
        Ok(report) => {
            if let (Some(_), Some(hash)) = (&wanted.near, file.digests.blake3) {
                core.share(hash, file.size, &shared);
            }
            let mut details = vec![format!("{} is loaded and verified", file.filename)];
            details.extend(report.details());
            if heard.is_some() || core.offering.is_some() {
                multicast::has_it(core, work, file, &shared).await;
            }
            details.extend(heard.into_iter().flatten());
            Ok(details)
        }
        Err(FetchError::Disk(error)) => Err(disk(error)),
        Err(error @ FetchError::NoSource(_)) => {
            let mut details = vec![error.to_string()];
            if let FetchError::NoSource(report) = &error {
                details.extend(report.details());
            }
            Err(Stop::Failed(code::NO_SOURCE, details))
        }
    }
}

/// Does `work`, which may take days, and gives it up when the task ends.
async fn while_allowed<T>(
    core: &Arc<Core>,
    id: Hash,
    plan: &Plan,
    work: impl Future<Output = T>,
) -> Result<T, Stop> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(LOOK) => { allowed(core, id, plan)?; }
        }
    }
}

/// Waits until the step may begin: the task is still wanted, what comes before it is completed, and the window is open.
pub(super) async fn may_begin(core: &Arc<Core>, id: Hash, plan: &Plan) -> Result<(), Stop> {
    let mut news = core.news.subscribe();
    while let Some((why, time)) = held(core, id, plan)? {
        core.phase(id, &why);
        hear(&mut news, time).await;
    }
    Ok(())
}

/// Waits until the task's handler may run: as [`may_begin`], and no other handler runs.
pub(super) async fn may_run<'a>(
    core: &'a Arc<Core>,
    id: Hash,
    plan: &Plan,
) -> Result<SemaphorePermit<'a>, Stop> {
    loop {
        may_begin(core, id, plan).await?;
        let turn = turn(core, id, &core.handlers).await?;
        // The window may have closed meanwhile.
        if held(core, id, plan)?.is_none() {
            return Ok(turn);
        }
    }
}

/// What keeps a step of the task from beginning, for people, and when to look again at the latest. Fails if it never will begin.
fn held(core: &Arc<Core>, id: Hash, plan: &Plan) -> Result<Option<(String, Duration)>, Stop> {
    let refusal = allowed(core, id, plan)?;
    let now = clock();
    let (start, window) = plan.task.as_ref().map_or((None, None), |task| (task.start, task.window));
    let opens = opening(start, window, now, &TimeZone::system());
    let asked = core.lock().works.get(&id).is_some_and(|work| work.hold_update);
    let why = match (refusal, earlier(core, plan)) {
        (Some(refusal), _) => format!("holds: {refusal}"),
        (None, Some(name)) => format!("waits for task {name}"),
        (None, None) if asked => "waits until the server lets it install".to_owned(),
        (None, None) if opens > now => format!("waits until {}", super::time_text(opens)),
        (None, None) => return Ok(None),
    };
    let wait = if opens > now { LOOK.min(Duration::from_secs(opens - now)) } else { LOOK };
    Ok(Some((why, wait)))
}

/// A task that must be completed before, and is not.
fn earlier<'a>(core: &Core, plan: &'a Plan) -> Option<&'a String> {
    plan.task.iter().flat_map(|task| &task.after).find(|name| !core.has_completed(name))
}

/// Waits for its turn at something that only so many tasks may do at a time.
async fn turn<'a>(core: &Core, id: Hash, slots: &'a Semaphore) -> Result<SemaphorePermit<'a>, Stop> {
    if let Ok(slot) = slots.try_acquire() {
        return Ok(slot);
    }
    core.phase(id, "waits for its turn");
    slots.acquire().await.map_err(|_| Stop::Canceled)
}

/// Waits for news, at most so long.
async fn hear(news: &mut watch::Receiver<()>, time: Duration) {
    // Their sender lives as long as any runner.
    let _ = tokio::time::timeout(time, news.changed()).await;
}

/// Waits, and then fails if the task may not go on.
pub(super) async fn wait(core: &Arc<Core>, id: Hash, plan: &Plan, time: Duration) -> Result<(), Stop> {
    tokio::time::sleep(time).await;
    allowed(core, id, plan).map(drop)
}

/// Whether the task is still wanted: fails if it never will be again, and returns what holds it for now.
fn allowed(core: &Arc<Core>, id: Hash, plan: &Plan) -> Result<Option<Refusal>, Stop> {
    let Some(task) = &plan.task else { return Ok(None) };
    let inner = core.lock();
    let Some(trusted) = &inner.trusted else { return Ok(Some(Refusal::NoList)) };
    match trusted.may_begin(task, id, core.listing, clock()) {
        Ok(()) => Ok(None),
        Err(refusal @ (Refusal::Rollback { .. } | Refusal::Changed { .. })) => {
            Err(Stop::Failed(code::REPLACED, vec![format!("replaced by a newer task ({refusal})")]))
        }
        Err(refusal @ Refusal::Expired { kind: Kind::Task, .. }) => {
            Err(Stop::failed(refusal.code(), refusal))
        }
        Err(refusal) => Ok(Some(refusal)),
    }
}

/// Removes the part files of a copy that has ended.
async fn discard(core: &Arc<Core>, id: Hash, plan: &Plan) {
    for file in &plan.files {
        if let Ok(place) = open_place(core, plan, file).await {
            let removed = blocking(move || {
                place.discard(id);
                Ok(())
            });
            let _ = removed.await;
        }
    }
}
