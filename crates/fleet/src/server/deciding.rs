//! What a device is offered now. Other clients get at most one action: one that they have begun, else the first that may begin, else the
//! first that they are to confirm. Our agents get all that waits for them, up to a bound.

use super::error::ApiResult;
use super::{App, clock};
use crate::documents::{Comparison, Task, Window};
use crate::limits::MAX_OFFERED;
use crate::store::{Action, ActionState, Device, DeviceState, StoreError, TaskDocument, TaskState};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a device is offered.
#[derive(Debug)]
pub(super) enum Offer {
    /// To stop this action.
    Cancel(i64),
    /// To confirm this action.
    Confirm(i64, Arc<TaskDocument>),
    /// To do this one.
    Deploy(Action, Arc<TaskDocument>),
}

/// Whether an action that waits may begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Now,
    /// Not yet; perhaps known when.
    Later(Option<Duration>),
    /// Never: this ends it, with the reason.
    Over(ActionState, &'static str),
}

/// Chooses what `device` is offered, most urgent first. If that is nothing, also how long until something may begin, if that is known.
pub(super) async fn choose(app: &App, device: &Device) -> ApiResult<(Vec<Offer>, Option<Duration>)> {
    if device.state != DeviceState::Accepted {
        return Ok((Vec::new(), None));
    }
    let most = if device.is_ours() { MAX_OFFERED } else { 1 };
    let open = app.store.open_actions(&device.id).await?;
    let (mut begun, waiting): (Vec<_>, Vec<_>) =
        open.into_iter().partition(|action| action.state.has_begun());
    if !device.is_ours() {
        begun.truncate(1);
    }
    let (cancelling, begun): (Vec<_>, Vec<_>) =
        begun.into_iter().partition(|action| action.state == ActionState::Cancelling);
    let mut offers: Vec<_> = cancelling.iter().map(|action| Offer::Cancel(action.id)).collect();
    let (mut soonest, mut confirm) = (None::<Duration>, Vec::new());
    // Other clients end what they have begun before they hear of anything else.
    let idle = device.is_ours() || offers.is_empty() && begun.is_empty();
    for action in waiting.into_iter().filter(|_| idle) {
        if offers.len() >= most {
            break;
        }
        let document = app.store.document(action.task).await?;
        if let Some(why) = unfit(device, &document) {
            app.store.settle(action.id, ActionState::Failed, why, clock::now()).await?;
            continue;
        }
        if action.state == ActionState::Confirming && document.task.expires > clock::now() {
            confirm.push(Offer::Confirm(action.id, document));
            continue;
        }
        match verdict(app, device, &action, &document).await? {
            Verdict::Now => offers.push(Offer::Deploy(action, document)),
            Verdict::Later(when) => soonest = [soonest, when].into_iter().flatten().min(),
            Verdict::Over(state, why) => app.store.settle(action.id, state, why, clock::now()).await?,
        }
    }
    // Nobody may ever confirm, so what waits for that holds up nothing new. What has begun the device knows already, unless it lost its
    // state.
    offers.extend(confirm);
    for action in begun {
        let document = app.store.document(action.task).await?;
        offers.push(Offer::Deploy(action, document));
    }
    offers.truncate(most);
    Ok((offers, soonest))
}

/// Why the device can never carry out the task, if so.
fn unfit(device: &Device, document: &TaskDocument) -> Option<&'static str> {
    // They refuse more, or take any of them.
    let several = !device.is_ours() && document.objects.len() > 1;
    several.then_some("clients other than mcp agent take one file; add a task for each")
}

/// Whether `action`, which waits, may begin at `device`.
pub(super) async fn verdict(
    app: &App,
    device: &Device,
    action: &Action,
    document: &TaskDocument,
) -> Result<Verdict, StoreError> {
    let (task, now, ours) = (&document.task, clock::now(), device.is_ours());
    if task.expires <= now {
        return Ok(Verdict::Over(ActionState::Cancelled, "the task expired before it began"));
    }
    if let Some(why) = unfit(device, document) {
        return Ok(Verdict::Over(ActionState::Failed, why));
    }
    if action.task_state != TaskState::Running {
        return Ok(Verdict::Later(None));
    }
    for name in &task.after {
        let earlier = app.store.action_named(&device.id, name).await?;
        let done = |action: &Action| matches!(action.state, ActionState::Finished | ActionState::Unneeded);
        if !earlier.is_some_and(|action| done(&action) || ours && action.is_live()) {
            return Ok(Verdict::Later(None));
        }
    }
    // Our agent keeps to the order, the conditions and the times itself, in its own time zone.
    if !ours {
        match need(app, device, task).await? {
            Need::Yes => {}
            Need::Unknown => return Ok(Verdict::Later(None)),
            Need::No => return Ok(Verdict::Over(ActionState::Unneeded, "the device has it already")),
        }
    }
    // It may load before, unless the operator says otherwise.
    let opens = opens(task, now).filter(|_| !ours || document.terms.load_in_window);
    if opens.is_some() || !ours && app.downloads.stock.load(Ordering::Relaxed) >= app.config.stock_downloads {
        return Ok(Verdict::Later(opens));
    }
    if let Some(most) = app.store.most_at_once(action.task, document.terms.at_once).await?
        && app.store.under_way(action.task).await? >= most
    {
        return Ok(Verdict::Later(None));
    }
    Ok(Verdict::Now)
}

#[derive(Debug, PartialEq, Eq)]
enum Need {
    Yes,
    No,
    Unknown,
}

/// Whether the device needs the task, by its attributes and by what the table says it completed.
async fn need(app: &App, device: &Device, task: &Task) -> Result<Need, StoreError> {
    if task.when.is_empty() {
        return Ok(Need::Yes);
    }
    let mut attributes = device.attributes.clone();
    if let Some(version) = app.store.completed_version(&device.id, &task.name).await? {
        attributes.insert("version".into(), version);
    }
    Ok(needs(task, &attributes))
}

fn needs(task: &Task, attributes: &BTreeMap<String, String>) -> Need {
    let unknown = |attribute: &str| !attributes.contains_key(attribute);
    let decided =
        |term: &&crate::documents::Term| term.is == Comparison::NotEqual || !unknown(&term.attribute);
    if task.when.iter().filter(decided).any(|term| !term.holds(attributes)) {
        Need::No
    } else if task.when.iter().all(|term| decided(&term)) {
        Need::Yes
    } else {
        Need::Unknown
    }
}

/// How long until the task may begin by its earliest start and its window, in the server's time zone; `None`: it may.
fn opens(task: &Task, now: u64) -> Option<Duration> {
    let start = task.start.filter(|start| *start > now).map(|start| Duration::from_secs(start - now));
    start.or_else(|| {
        let (minute, second) = clock::minute_of_day(now);
        task.window.and_then(|window| until(window, minute, second))
    })
}

fn until(window: Window, minute: u16, second: u64) -> Option<Duration> {
    if window.contains(minute) {
        return None;
    }
    let minutes = (window.from() + 1440 - minute) % 1440;
    Some(Duration::from_secs((u64::from(minutes) * 60).saturating_sub(second).max(1)))
}

/// The time until the next poll: the configured one, spread by 10 %; before something begins, so short that about three
/// polls fall before it, and never below 30 seconds.
pub(super) fn sleep(poll: Duration, begins_in: Option<Duration>, spread: f64) -> Duration {
    let time = poll.mul_f64(0.9 + 0.2 * spread);
    match begins_in {
        Some(wait) => time.min((wait / 3).max(Duration::from_secs(30))),
        None => time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::FleetId;

    fn task(when: &[&str]) -> Task {
        let mut task = Task::new(FleetId([0; 16]), "firmware", 1, (0, 1000));
        task.when = when.iter().map(|term| term.parse().expect("a term")).collect();
        task
    }

    fn attributes(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_device_that_has_it_does_not_need_it() {
        for (when, known, want) in [
            (&[][..], &[][..], Need::Yes),
            (&["version < 2.1"], &[("version", "2.0")], Need::Yes),
            (&["version < 2.1"], &[("version", "2.1")], Need::No),
            (&["version < 2.1"], &[("version", "10.0")], Need::No),
            (&["version < 2.1"], &[], Need::Unknown),
            (&["version < 2.1", "hw = b"], &[("hw", "a")], Need::No),
            (&["version < 2.1", "hw = b"], &[("hw", "b")], Need::Unknown),
            (&["hw != a"], &[], Need::Yes),
        ] {
            assert_eq!(needs(&task(when), &attributes(known)), want, "{when:?} {known:?}");
        }
    }

    #[test]
    fn windows_open_in_time() {
        let window: Window = "22:00-05:00".parse().expect("a window");
        assert_eq!(until(window, 23 * 60, 0), None);
        assert_eq!(until(window, 4 * 60 + 59, 59), None);
        assert_eq!(until(window, 21 * 60 + 59, 30), Some(Duration::from_secs(30)));
        assert_eq!(until(window, 5 * 60, 0), Some(Duration::from_secs(17 * 3600)));
        let mut later = task(&[]);
        later.start = Some(100);
        assert_eq!(opens(&later, 40), Some(Duration::from_secs(60)));
        assert_eq!(opens(&later, 100), None);
    }

    #[test]
    fn polls_are_spread_and_come_sooner_before_a_window() {
        let five = Duration::from_secs(300);
        assert_eq!(sleep(five, None, 0.0), Duration::from_secs(270));
        assert_eq!(sleep(five, None, 1.0), Duration::from_secs(330));
        assert_eq!(sleep(five, Some(Duration::from_secs(150)), 0.5), Duration::from_secs(50));
        assert_eq!(sleep(five, Some(Duration::from_secs(10)), 0.5), Duration::from_secs(30));
        assert_eq!(sleep(Duration::from_secs(5), Some(Duration::from_secs(10)), 0.5), Duration::from_secs(5));
    }
}
