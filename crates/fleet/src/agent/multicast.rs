//! Gets an object by multicast as far as the server offers that: says what is lacking, and takes part in the sessions that
//! it names, until it is told to load the rest by HTTP. Nothing here is trusted, and nothing is waited for without end.

use super::api::{ApiError, Said};
use super::core::Core;
use super::fetch::{self, Wanted};
use super::work::{File, Plan, Work};
use super::{at_least, jittered, log, performing, session};
use crate::ddi::{Session, SessionOffer};
use crate::documents::{Hash, Listing};
use crate::lacking::Lacking;
use crate::limits::{MAX_SESSION_QUEUE, MAX_SESSION_WAIT, MIN_SESSION_OBJECT, SESSION_PATIENCE};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
            Some(lacks) => offer(core, work, (object, file.size), (lacks, unreached)).await,
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

async fn offer(
    core: &Arc<Core>,
    work: &Work,
    (object, size): (Hash, u64),
    (lacking, unreached): (&Lacking, bool),
) -> Result<SessionOffer, Option<ApiError>> {
    // The number of an operator's further attempt is another one.
    let action =
        core.lock().works.get(&work.id).map_or_else(|| work.action.clone(), |work| work.action.clone());
    let serves = core.offering.as_ref().is_some_and(|offering| offering.wants(size));
    core.api.lacking(&action, &Said { object, lacking, unreached, serves }).await.map_err(Some)
}

/// Tells the server that nothing is lacking any more. It is a courtesy: a server that does not hear it waits a moment longer.
/// The server may ask this device to send the object to others of its segment; it does so while it goes on with the task.
pub(super) async fn has_it(core: &Arc<Core>, work: &Work, file: &File, part: &std::fs::File) {
    let Some(object) = file.digests.blake3.filter(|_| core.listing == Listing::Required) else { return };
    let (which, nothing) = ((object, file.size), Lacking::new());
    let serving = core.offering.clone().filter(|offering| offering.wants(file.size));
    let (Some(offering), Ok(part)) = (serving, part.try_clone()) else {
        let _ = offer(core, work, which, (&nothing, false)).await;
        return;
    };
    let (core, work, name) = (Arc::clone(core), work.clone(), file.filename.clone());
    tokio::spawn(async move {
        // First, because it may take minutes: others of the segment are told to join as soon as this device says that it has
        // the object.
        let copy = performing::copy(&offering, which, part).await;
        let Ok(mut told) = offer(&core, &work, which, (&nothing, false)).await else { return };
        let begun = Instant::now();
        while let Some(again) = told.again.filter(|_| begun.elapsed() < SESSION_PATIENCE) {
            tokio::time::sleep(Duration::from_secs(again).clamp(BACK_OFF[0], BACK_OFF[1])).await;
            let Ok(next) = offer(&core, &work, which, (&nothing, false)).await else { return };
            told = next;
        }
        let Some(perform) = told.perform else { return };
        let sent = match copy {
            Ok(path) => performing::perform(&core, &offering, &perform, (&path, &name)).await,
            Err(why) => Err(why),
        };
        match sent {
            Ok(said) => log(&said),
            Err(why) => log(&format!("cannot send {name} to the devices of this segment ({why})")),
        }
        // Whether it went well or not: it is over.
        let _ = offer(&core, &work, which, (&nothing, false)).await;
    });
}
