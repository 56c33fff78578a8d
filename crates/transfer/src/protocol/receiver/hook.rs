//! The hook: a command of the user that runs once the object is in place. Its end is the device's.

use super::{Receiver, State};
use crate::protocol::event::{HookChange, HookEnd, ReceiverEvent, ReceiverOutcome};
use crate::protocol::job::{InPlace, ReceiverJob};
use crate::time::Time;
use std::path::PathBuf;

/// Status of a hook that the user interrupted before it began: that of SIGINT.
const INTERRUPTED: i32 = -2;

/// The hook of a run.
#[derive(Debug, Default)]
pub(super) struct Hook {
    /// Whether the object was in place before the run.
    adopted: bool,
    /// Whether the user has interrupted the run since the object was complete.
    interrupted: bool,
    end: Option<HookEnd>,
}

impl Hook {
    /// Notes that the object is in place already.
    pub fn adopted(&mut self) {
        self.adopted = true;
    }
    /// Its exit status, once it has ended.
    pub fn status(&self) -> Option<i32> {
        self.end.as_ref().map(|end| end.status)
    }
    /// The outcome of a run whose object is in place.
    pub fn outcome(&self, acknowledged: bool) -> ReceiverOutcome {
        match &self.end {
            Some(end) if end.failure.is_some() => {
                ReceiverOutcome::HookFailed { end: end.clone(), acknowledged, interrupted: self.interrupted }
            }
            _ => ReceiverOutcome::Complete { acknowledged },
        }
    }
}

impl Receiver {
    /// The object is in place: runs the hook, if there is one, and then confirms.
    pub(super) fn in_place(&mut self, path: PathBuf, now: Time) {
        let Some(root) = self.session.as_ref().and_then(|session| session.root) else { return };
        self.committed = Some(path.clone());
        self.event(ReceiverEvent::Committed { path: path.clone(), root });
        let leaving = matches!(self.state, State::Leaving(_));
        match &self.config.hook {
            None => {}
            Some(rule) if self.hook.adopted && !rule.owed.contains(&root) => {
                self.event(ReceiverEvent::Hook(HookChange::Skipped));
            }
            Some(_) if leaving => {
                self.hook.interrupted = true;
                self.hook.end = Some(HookEnd::of_status(INTERRUPTED));
            }
            Some(_) => return self.run_hook(path),
        }
        self.confirm(now, leaving);
    }

    fn run_hook(&mut self, path: PathBuf) {
        let Some(session) = &self.session else { return };
        let Some(root) = session.root else { return };
        let job = InPlace {
            path,
            name: session.name.clone(),
            root,
            size: session.layout.object_size(),
            sender: session.sender.ip(),
            key: session.trusted(),
        };
        self.state = State::Hooking;
        self.event(ReceiverEvent::Hook(HookChange::Started));
        self.job(ReceiverJob::Hook(job));
    }

    /// Takes the end of the hook.
    pub(super) fn hook_ended(&mut self, end: Result<i32, String>, now: Time) {
        let end = end.map_or_else(HookEnd::cannot_run, HookEnd::of_status);
        self.event(ReceiverEvent::Hook(HookChange::Ended(end.clone())));
        self.hook.end = Some(end);
        self.confirm(now, self.hook.interrupted);
    }

    /// Notes that the user does not want to wait. Whoever runs the hook ends it.
    pub(super) const fn interrupt_hook(&mut self) {
        self.hook.interrupted = true;
    }
}
