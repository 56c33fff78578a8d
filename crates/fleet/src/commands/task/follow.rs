//! Following a task until no device is at it any more.

use super::super::output::{json, line};
use super::super::remote::{Remote, RemoteError};
use super::{CommandError, Exit};
use crate::server::TaskView;
use crate::store::{ActionState, Counts, LATER, Rollout, Terms};
use mcp_transfer::text::escape;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the server is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long the server may be away meanwhile.
const AWAY: Duration = Duration::from_secs(120);

/// Devices in this state.
fn count(counts: &Counts, state: ActionState) -> u64 {
    counts.get(state.as_str()).copied().unwrap_or(0)
}

/// Devices whose group does not have the task yet.
fn later(counts: &Counts) -> u64 {
    counts.get(LATER).copied().unwrap_or(0)
}

/// `12 of 30 done, 3 running`.
pub(super) fn summary(counts: &Counts) -> String {
    use ActionState as S;
    let all: u64 = counts.values().sum();
    let done = count(counts, S::Finished) + count(counts, S::Unneeded);
    let mut text = format!("{done} of {all} done");
    for state in [S::Running, S::Cancelling, S::Confirming, S::Failed, S::Cancelled] {
        let n = count(counts, state);
        if n > 0 {
            text += &format!(", {n} {}", state.as_str());
        }
    }
    let later = later(counts);
    if later > 0 {
        text += &format!(", {later} {LATER}");
    }
    text
}

/// How a task ended by its counts; `None` while a device is at it.
fn ended(counts: &Counts) -> Option<Exit> {
    use ActionState as S;
    let all: u64 = counts.values().sum();
    let done = count(counts, S::Finished) + count(counts, S::Unneeded);
    let open: u64 =
        [S::Waiting, S::Confirming, S::Running, S::Cancelling].iter().map(|s| count(counts, *s)).sum();
    if open + later(counts) > 0 {
        return None;
    }
    Some(if all > 0 && done == all {
        Exit::Complete
    } else if done == 0 {
        Exit::NoDevice
    } else {
        Exit::Incomplete
    })
}

/// Prints what changes, until no device is at the task any more; at most for `wait`.
pub(super) async fn until_done(
    remote: &Remote,
    id: i64,
    wait: Option<Duration>,
    as_json: bool,
) -> Result<Exit, CommandError> {
    let (begun, mut heard) = (Instant::now(), Instant::now());
    let (mut known, mut stands) = (BTreeMap::new(), String::new());
    let live = std::io::stderr().is_terminal() && !as_json;
    loop {
        match remote.get::<TaskView>(&format!("/tasks/{id}")).await {
            Ok(view) => {
                heard = Instant::now();
                for action in view.actions.iter().flatten() {
                    let now = (action.state, action.attempt);
                    if known.insert(action.device.clone(), now) != Some(now) {
                        if as_json {
                            json(action);
                        } else if action.state != ActionState::Waiting {
                            let text =
                                format!("{}: {} {}", action.device, action.state.as_str(), action.message);
                            clear(live);
                            line(&escape(text.trim_end()));
                        }
                    }
                }
                let now =
                    view.rollout.as_ref().map(|rollout| standing(rollout, &view.terms)).unwrap_or_default();
                if now != stands && !as_json {
                    clear(live);
                    line(&escape(&now));
                }
                stands = now;
                if live {
                    eprint!("\r\x1b[K{}", bar(&view.counts, columns()));
                    let _ = std::io::stderr().flush();
                }
                let over = wait.is_some_and(|wait| begun.elapsed() >= wait);
                if let Some(exit) = ended(&view.counts).or(over.then_some(Exit::Incomplete)) {
                    clear(live);
                    if !as_json {
                        line(&format!("task {id}: {}", summary(&view.counts)));
                    }
                    return Ok(exit);
                }
            }
            // The server may be started anew meanwhile.
            Err(RemoteError::Unreachable { .. }) if heard.elapsed() < AWAY && !known.is_empty() => {}
            Err(error) => {
                clear(live);
                return Err(error.into());
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// `group 2 of 3 (10%); paused: 1 of 4 devices of group 2 failed...`.
pub(super) fn standing(rollout: &Rollout, terms: &Terms) -> String {
    let (open, all) = (rollout.open, rollout.groups.len());
    let name = terms.names().nth(open).unwrap_or_default();
    let held = rollout.held.as_ref().map(|why| format!("; paused: {why}")).unwrap_or_default();
    format!("group {} of {all} ({name}){held}", open + 1)
}

fn clear(live: bool) {
    if live {
        eprint!("\r\x1b[K");
    }
}

/// How wide the terminal is.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.ok().map_or(80, |size| usize::from(size.ws_col)).max(1)
}

/// A bar of the devices that are done, with the counts, in one line of a terminal: what is drawn over it would leave the
/// rest of a second line.
fn bar(counts: &Counts, columns: usize) -> String {
    // Some terminals begin a new line after the last column.
    let (text, room) = (summary(counts), columns - 1);
    let width = room.saturating_sub("[] ".len() + text.len()).min(30);
    if width < 5 {
        return text.chars().take(room).collect();
    }
    let all = counts.values().sum::<u64>().max(1);
    let done = count(counts, ActionState::Finished) + count(counts, ActionState::Unneeded);
    let full = usize::try_from(width as u64 * done / all).unwrap_or(0);
    format!("[{:<width$}] {text}", "#".repeat(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> Counts {
        of.iter().map(|(state, n)| ((*state).to_owned(), *n)).collect()
    }

    #[test]
    fn the_exit_code_is_that_of_a_transfer() {
        for (of, want) in [
            (&[("finished", 3), ("unneeded", 1)][..], Some(Exit::Complete)),
            (&[("finished", 3), ("waiting", 1)], None),
            (&[("finished", 3), ("cancelling", 1)], None),
            (&[("finished", 3), ("failed", 1)], Some(Exit::Incomplete)),
            (&[("finished", 3), ("later", 1)], None),
            (&[("failed", 1), ("cancelled", 1)], Some(Exit::NoDevice)),
            (&[], Some(Exit::NoDevice)),
        ] {
            assert_eq!(ended(&counts(of)), want, "{of:?}");
        }
        let text = summary(&counts(&[("finished", 2), ("running", 1), ("failed", 1)]));
        assert_eq!(text, "2 of 4 done, 1 running, 1 failed");
        assert_eq!(summary(&counts(&[("finished", 1), ("later", 9)])), "1 of 10 done, 9 later");
    }

    #[test]
    fn a_bar_has_one_line_on_any_terminal() {
        assert_eq!(bar(&counts(&[]), 80), format!("[{:30}] 0 of 0 done", ""));
        let some = counts(&[("finished", 1), ("unneeded", 1), ("waiting", 2)]);
        assert_eq!(bar(&some, 80), format!("[{:<30}] 2 of 4 done", "#".repeat(15)));
        assert_eq!(bar(&some, 30), "[#######        ] 2 of 4 done");
        assert_eq!(bar(&some, 19), "2 of 4 done");
        assert_eq!(bar(&some, 8), "2 of 4 ");
        assert_eq!(bar(&some, 1), "");
    }
}
