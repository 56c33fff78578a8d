//! Gets an object by multicast as far as the server offers that: says what is lacking, and takes part in the sessions that
//! it names, until it is told to load the rest by HTTP. Nothing here is trusted, and nothing is waited for without end.

use super::api::{ApiError, Said};
use super::core::Core;
use super::fetch::{self, Wanted};
use super::work::{File, Plan, Work};
use super::{at_least, jittered, performing, session};
use crate::ddi::{Session, SessionOffer};
use crate::documents::{Hash, Listing};
use crate::lacking::Lacking;
use crate::limits::{MAX_SESSION_QUEUE, MAX_SESSION_WAIT, MIN_SESSION_OBJECT, SESSION_PATIENCE};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// The first pause after the server gave no answer, and the longest.
const BACK_OFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// Sessions in a row that bring nothing until the rest is loaded by HTTP: the first may have lost its server.
const MAX_BARREN: u32 = 2;

/// Brings into the part file what comes by multicast. Returns clauses for people; `None` if there was no question of it.
///
/// # Errors
/// If the disk fails.
pub(super) async fn bring(
    core: &Arc<Core>,
    work: &Work,
    plan: &Plan,
    file: &File,
    wanted: &Wanted,
    part: std::fs::File,
) -> io::Result<Option<Vec<String>>> {
    if !core.settings.multicast || !file.digests.strong() {
        return Ok(None);
    }
    // It is of the first object.
    let told = core.lock().works.get(&work.id).and_then(|work| work.session.clone());
    let mut next = told.filter(|_| plan.files.first() == Some(file));
    let mut heard = next.is_some().then(Vec::new);
    let (mut barren, mut unreached) = (0, false);
    loop {
        let session = match next.take() {
            Some(session) => session,
            None => match ask(core, (work, plan, file), wanted, &part, unreached).await? {
                Some(session) => session,
                None => return Ok(heard),
            },
        };
        let brought = session::take_part(core, work.id, session, file, part.try_clone()?).await;
        if brought.disk_failed {
            return Err(io::Error::other(brought.clause));
        }
        unreached = brought.unreached;
        heard.get_or_insert_default().push(brought.clause);
        barren = if brought.bytes > 0 { 0 } else { barren + 1 };
        if brought.all || barren >= MAX_BARREN {
            return Ok(heard);
        }
    }
}

/// Asks the server whether there is a session for what is lacking, and waits until it says so. `unreached`: nobody was heard in
/// the last one. `None`: load it by HTTP.
async fn ask(
    core: &Arc<Core>,
    (work, plan, file): (&Work, &Plan, &File),
    wanted: &Wanted,
    part: &std::fs::File,
    unreached: bool,
) -> io::Result<Option<Session>> {
    let (Some(object), Listing::Required) = (file.digests.blake3, core.listing) else { return Ok(None) };
    if file.size < MIN_SESSION_OBJECT || plan.task.is_none() {
        return Ok(None);
    }
    // A server that is away may come back, and go on with its sessions. There is nobody else to load from, unless there are mirrors.
    let server = core.api.net.server().origin();
    let mirrors = wanted.sources.iter().any(|source| source.origin() != server);
    let (begun, [mut pause, longest]) = (Instant::now(), BACK_OFF);
    let mut lacks = None;
    loop {
        if lacks.is_none() {
            lacks = fetch::missing(&core.api.net, wanted, part.try_clone()?).await?;
        }
        let offer = match &lacks {
            Some(lacks) => {
                let serves = core.offering.as_ref().is_some_and(|offering| offering.wants(file.size));
                offer(core, work, Said { object, lacking: lacks, unreached, serves }).await
            }
            // Whoever gives no values is not there.
            None => Err(None),
        };
        let waited = begun.elapsed();
        let wait = match offer {
            Ok(SessionOffer { session: Some(session), .. }) => {
                return Ok(Some(session).filter(Session::is_usable));
            }
            Ok(SessionOffer { again: Some(again), .. }) if waited < MAX_SESSION_QUEUE => {
                core.phase(work.id, &format!("waits for its turn to get {} by multicast", file.filename));
                Duration::from_secs(again).clamp(BACK_OFF[0], MAX_SESSION_WAIT)
            }
            Ok(_) => return Ok(None),
            Err(_) if waited >= if mirrors { SESSION_PATIENCE } else { MAX_SESSION_QUEUE } => {
                return Ok(None);
            }
            Err(Some(ApiError::Later { after: Some(after), .. })) => at_least(after),
            Err(None | Some(ApiError::Net(_) | ApiError::Later { .. })) => {
                core.phase(work.id, "waits for the server");
                let wait = jittered(pause);
                pause = (pause * 2).min(longest);
                wait
            }
            // It knows nothing of sessions, or of this task.
            Err(Some(_)) => return Ok(None),
        };
        tokio::time::sleep(wait).await;
    }
}

/// Tells the server that nothing is lacking any more. It is a courtesy: a server that does not hear it waits a moment longer.
/// The server may ask this device to send the object to others of its segment; it does so while it goes on with the task.
pub(super) async fn has_it(core: &Arc<Core>, work: &Work, file: &File, part: &std::fs::File) {
    let Some(object) = file.digests.blake3.filter(|_| core.listing == Listing::Required) else { return };
    let serving = core.offering.clone().filter(|offering| offering.wants(file.size));
    let (Some(offering), Ok(part)) = (serving, part.try_clone()) else {
        let _ = nothing_lacks(core, work, object, false).await;
        return;
    };
    let (core, work, name, size) = (Arc::clone(core), work.clone(), file.filename.clone(), file.size);
    tokio::spawn(async move {
        // It may take minutes. Meanwhile the server hears that this device is there; once it says that it serves, others are
        // told to join.
        let copying = performing::copy(&offering, (object, size), part);
        tokio::pin!(copying);
        let (mut copy, mut begun) = (None, Instant::now());
        let perform = loop {
            let Ok(told) = nothing_lacks(&core, &work, object, copy.is_some()).await else { return };
            if let Some(perform) = told.perform {
                break perform;
            }
            let Some(again) = told.again.filter(|_| copy.is_none() || begun.elapsed() < SESSION_PATIENCE)
            else {
                return;
            };
            let wait = tokio::time::sleep(Duration::from_secs(again).clamp(BACK_OFF[0], BACK_OFF[1]));
            if copy.is_some() {
                wait.await;
                continue;
            }
            tokio::select! {
                done = &mut copying => (copy, begun) = (Some(done), Instant::now()),
                () = wait => {}
            }
        };
        let sent = match copy.unwrap_or_else(|| Err("there is no copy".into())) {
            Ok(path) => performing::perform(&core, &offering, &perform, (&path, &name)).await,
            Err(why) => Err(why),
        };
        match sent {
            Ok(said) => info!("{said}"),
            Err(why) => warn!("cannot send {name} to the devices of this segment ({why})"),
        }
        // Whether it went well or not: it is over.
        let _ = nothing_lacks(&core, &work, object, true).await;
    });
}

async fn nothing_lacks(
    core: &Arc<Core>,
    work: &Work,
    object: Hash,
    serves: bool,
) -> Result<SessionOffer, Option<ApiError>> {
    offer(core, work, Said { object, lacking: &Lacking::new(), unreached: false, serves }).await
}

async fn offer(core: &Arc<Core>, work: &Work, said: Said<'_>) -> Result<SessionOffer, Option<ApiError>> {
    // The number of an operator's further attempt is another one.
    let action =
        core.lock().works.get(&work.id).map_or_else(|| work.action.clone(), |work| work.action.clone());
    core.api.lacking(&action, &said).await.map_err(Some)
}
