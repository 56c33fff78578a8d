//! `mcp recv --loop`: receives one file after the other. Remembers what is over, so that a sender that lingers is not
//! joined again and again.

use super::config::RecvConfig;
use super::console::Console;
use super::exit::Exit;
use super::identity::DeviceIdentity;
use super::recv::{self, End};
use super::report::{self, Error};
use crate::ui::EventFile;
use mcp_transfer::limits::{MAX_OWED_HOOKS, MAX_PAST_SESSIONS};
use mcp_transfer::protocol::event::ReceiverOutcome;
use mcp_transfer::protocol::receiver::HookRule;
use mcp_transfer::units::{Digest, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// First and longest time in which the loop leaves a session alone that it has failed in.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// A session that is over for this device.
#[derive(Debug)]
struct Session {
    id: SessionId,
    /// When it may be tried again; `None` if it was completed.
    again: Option<Instant>,
    failures: u32,
}

/// What the earlier rounds of the loop have left.
#[derive(Debug, Default)]
pub struct Past {
    /// The latest sessions, in the order of their ends.
    sessions: Vec<Session>,
    /// Objects that are in place, and whose hook has failed.
    owed: BTreeSet<Digest>,
    /// Warnings that the user was shown.
    told: BTreeSet<String>,
}

impl Past {
    /// Sessions in which to take no part, and for how long from now.
    #[must_use]
    pub fn ignored(&self, now: Instant) -> BTreeMap<SessionId, Duration> {
        let left =
            |again: Option<Instant>| again.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
        self.sessions.iter().map(|session| (session.id, left(session.again))).collect()
    }

    /// When the hook runs.
    #[must_use]
    pub fn hook_rule(&self) -> HookRule {
        HookRule { owed: self.owed.clone() }
    }

    /// Whether the user was not shown this warning before.
    pub fn is_news(&mut self, warning: &str) -> bool {
        self.told.insert(warning.to_owned())
    }

    /// Notes how a session ended, and for which object.
    fn note(
        &mut self,
        session: Option<SessionId>,
        root: Option<Digest>,
        outcome: &ReceiverOutcome,
        now: Instant,
    ) {
        let failed = matches!(outcome, ReceiverOutcome::HookFailed { .. });
        let done =
            failed || matches!(outcome, ReceiverOutcome::Complete { .. } | ReceiverOutcome::AlreadyComplete);
        if let Some(root) = root.filter(|_| done) {
            self.owed.remove(&root);
            if failed && self.owed.len() < MAX_OWED_HOOKS {
                self.owed.insert(root);
            }
        }
        let Some(id) = session else { return };
        let before = self.sessions.iter().position(|session| session.id == id);
        let failures = before.map_or(0, |at| self.sessions.remove(at).failures);
        let pause = PAUSES.0.saturating_mul(1 << failures.min(16)).min(PAUSES.1);
        let again = (!done).then(|| now + pause);
        if self.sessions.len() >= MAX_PAST_SESSIONS {
            self.sessions.remove(0);
        }
        self.sessions.push(Session { id, again, failures: failures + 1 });
    }
}

/// Receives files until the user stops it, or no sender comes in time.
///
/// # Errors
/// If the first round cannot begin.
pub fn run(
    config: &RecvConfig,
    identity: &DeviceIdentity,
    console: &mut Console,
    events: Option<&EventFile>,
) -> Result<Exit, Error> {
    let mut past = Past::default();
    let mut begun = false;
    loop {
        match recv::once(config, identity, console, &mut past, events) {
            Ok(End { stopped: true, .. }) => return Ok(Exit::Interrupted),
            Ok(end) if end.exit == Exit::NoSender && end.elapsed >= config.timeout => return Ok(end.exit),
            Ok(end) => past.note(end.session, end.root, &end.outcome, Instant::now()),
            Err(error) if begun => {
                report::error(&error);
                if console.pause(PAUSES.0).map_err(Error::poll)? {
                    return Ok(Exit::Interrupted);
                }
            }
            Err(error) => return Err(error),
        }
        begun = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcp_transfer::protocol::event::HookEnd;

    const DONE: ReceiverOutcome = ReceiverOutcome::Complete { acknowledged: true };
    const ROOT: Option<Digest> = Some(Digest([1; 32]));

    fn hook_failed() -> ReceiverOutcome {
        ReceiverOutcome::HookFailed { end: HookEnd::of_status(1), acknowledged: true, interrupted: false }
    }

    #[test]
    fn what_is_done_is_left_alone_and_what_failed_is_tried_again_later() {
        let (mut past, now) = (Past::default(), Instant::now());
        let (a, b, c) = (SessionId(1), SessionId(2), SessionId(3));
        past.note(Some(a), ROOT, &DONE, now);
        past.note(Some(b), None, &ReceiverOutcome::SenderSilent, now);
        past.note(Some(c), ROOT, &hook_failed(), now);
        past.note(None, None, &ReceiverOutcome::NoSender, now);
        let left = |past: &Past, after| past.ignored(now + Duration::from_secs(after));
        let seconds = Duration::from_secs;
        let want = BTreeMap::from([(a, Duration::MAX), (b, seconds(4)), (c, Duration::MAX)]);
        assert_eq!(left(&past, 1), want);
        assert_eq!(left(&past, 9)[&b], Duration::ZERO);
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            past.note(Some(b), None, &ReceiverOutcome::SenderSilent, now);
            assert_eq!(left(&past, 0)[&b], seconds(pause));
        }
        past.note(Some(b), ROOT, &DONE, now);
        assert_eq!(left(&past, 0)[&b], Duration::MAX);
        // The memory is bounded, and forgets the oldest.
        for id in 10..10 + MAX_PAST_SESSIONS as u64 {
            past.note(Some(SessionId(id)), ROOT, &DONE, now);
        }
        assert_eq!(past.sessions.len(), MAX_PAST_SESSIONS);
        assert!(!left(&past, 0).contains_key(&a));
    }

    #[test]
    fn a_failed_hook_is_owed_until_it_succeeds() {
        let (mut past, now) = (Past::default(), Instant::now());
        past.note(Some(SessionId(1)), ROOT, &hook_failed(), now);
        assert_eq!(past.hook_rule().owed, BTreeSet::from(ROOT.map(|root| [root]).unwrap()));
        past.note(Some(SessionId(2)), ROOT, &ReceiverOutcome::SenderSilent, now);
        assert_eq!(past.hook_rule().owed.len(), 1);
        past.note(Some(SessionId(3)), ROOT, &DONE, now);
        assert_eq!(past.hook_rule(), HookRule::default());
        for n in 0..200 {
            past.note(None, Some(Digest([n; 32])), &hook_failed(), now);
        }
        assert_eq!(past.hook_rule().owed.len(), MAX_OWED_HOOKS);
    }

    #[test]
    fn a_warning_is_shown_once() {
        let mut past = Past::default();
        assert_eq!([past.is_news("a"), past.is_news("a"), past.is_news("b")], [true, false, true]);
    }
}
