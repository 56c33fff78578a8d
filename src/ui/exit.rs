//! The exit codes of the commands. They are part of the interface, so they are typed, documented and
//! tested.

use mcp_transfer::protocol::event::{ReceiverOutcome, SenderOutcome};
use mcp_transfer::protocol::statistics::DeviceRow;
use mcp_transfer::wire::AbortCode;
use std::process::ExitCode;

/// The result of a command for the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: every expected device is complete, or all was sent one way, as told; `recv`: the file is verified and in place.
    Complete,
    /// 1: the environment (file, disk, network) failed, or a bug.
    Environment,
    /// 2: the command line is invalid.
    Usage,
    /// 3: some devices did not complete.
    Incomplete,
    /// 4: no device completed, or none joined.
    NoDevice,
    /// 5: `recv`: no sender in time.
    NoSender,
    /// 6: `recv`: the transfer broke off or was refused.
    BrokenOff,
    /// 7: `recv`: the file is in place, but the command of `--then` failed; or the command of `--pipe` did.
    HookFailed,
    /// 130: interrupted by Ctrl-C or SIGTERM.
    Interrupted,
}

impl Exit {
    /// The exit code of the process.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Environment => 1,
            Self::Usage => 2,
            Self::Incomplete => 3,
            Self::NoDevice => 4,
            Self::NoSender => 5,
            Self::BrokenOff => 6,
            Self::HookFailed => 7,
            Self::Interrupted => 130,
        }
    }

    /// The name of the exit code in events and reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Environment => "environment",
            Self::Usage => "usage",
            Self::Incomplete => "incomplete",
            Self::NoDevice => "no_device",
            Self::NoSender => "no_sender",
            Self::BrokenOff => "broken_off",
            Self::HookFailed => "hook_failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The exit of a sender's run, from its outcome, the final status table and the number of expected
    /// devices. Every device that joined is expected too: a failed device counts even if another one
    /// completed in its place.
    #[must_use]
    pub fn of_sender(outcome: &SenderOutcome, rows: &[DeviceRow], expected: Option<u32>) -> Self {
        match outcome {
            SenderOutcome::Interrupted => Self::Interrupted,
            SenderOutcome::SentOneWay(_) => Self::Complete,
            SenderOutcome::SourceFailed(_) | SenderOutcome::StoreFailed(_) | SenderOutcome::Internal(_) => {
                Self::Environment
            }
            SenderOutcome::Ended => {
                let complete = rows.iter().filter(|row| row.assignment.is_complete()).count();
                let wanted = rows.len().max(expected.map_or(0, |n| n as usize));
                match complete {
                    0 => Self::NoDevice,
                    n if n < wanted => Self::Incomplete,
                    _ => Self::Complete,
                }
            }
        }
    }

    /// The exit of a receiver's run.
    #[must_use]
    pub const fn of_receiver(outcome: &ReceiverOutcome) -> Self {
        match outcome {
            ReceiverOutcome::Complete { .. } | ReceiverOutcome::AlreadyComplete => Self::Complete,
            ReceiverOutcome::HookFailed { interrupted: true, .. } => Self::Interrupted,
            ReceiverOutcome::HookFailed { interrupted: false, .. }
            | ReceiverOutcome::Failed(AbortCode::Command, _) => Self::HookFailed,
            ReceiverOutcome::NoSender | ReceiverOutcome::SenderNeeds(_) => Self::NoSender,
            ReceiverOutcome::SenderSilent
            | ReceiverOutcome::Lacking { .. }
            | ReceiverOutcome::SenderAborted(..)
            | ReceiverOutcome::Refused
            | ReceiverOutcome::NotListed
            | ReceiverOutcome::Failed(AbortCode::Mismatch | AbortCode::Content, _) => Self::BrokenOff,
            ReceiverOutcome::Failed(AbortCode::Interrupted, _) | ReceiverOutcome::Interrupted => {
                Self::Interrupted
            }
            ReceiverOutcome::Failed(..) => Self::Environment,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::testing::row;
    use mcp_transfer::protocol::event::HookEnd;
    use mcp_transfer::protocol::need::Need;
    use mcp_transfer::task::State;

    fn rows(states: &[State]) -> Vec<DeviceRow> {
        states.iter().map(|s| row("d", s.clone())).collect()
    }

    #[test]
    fn sender_table() {
        use State::{Active, Complete, Failed, Lost, Pending};
        let ended = SenderOutcome::Ended;
        let table: &[(&SenderOutcome, Vec<State>, Option<u32>, Exit)] = &[
            (&ended, vec![Complete], None, Exit::Complete),
            (&ended, vec![Complete, Complete], Some(2), Exit::Complete),
            (&ended, vec![Complete, Complete], Some(1), Exit::Complete),
            (&ended, vec![Complete], Some(2), Exit::Incomplete),
            (&ended, vec![Complete, Lost], None, Exit::Incomplete),
            (&ended, vec![Complete, Lost], Some(1), Exit::Incomplete),
            (&ended, vec![Complete, Failed("disk".into())], None, Exit::Incomplete),
            (&ended, vec![Complete, Active], None, Exit::Incomplete),
            (&ended, vec![Complete, Active, Pending], None, Exit::Incomplete),
            (&ended, vec![], None, Exit::NoDevice),
            (&ended, vec![], Some(3), Exit::NoDevice),
            (&ended, vec![Lost, Failed("x".into())], None, Exit::NoDevice),
            (&SenderOutcome::Interrupted, vec![Complete], None, Exit::Interrupted),
            (&SenderOutcome::SentOneWay(2), vec![], None, Exit::Complete),
            (&SenderOutcome::SourceFailed("x".into()), vec![Complete], None, Exit::Environment),
            (&SenderOutcome::StoreFailed("x".into()), vec![Complete], None, Exit::Environment),
            (&SenderOutcome::Internal("x".into()), vec![Complete], None, Exit::Environment),
        ];
        for (outcome, statuses, expected, exit) in table {
            let got = Exit::of_sender(outcome, &rows(statuses), *expected);
            assert_eq!(got, *exit, "{outcome:?} {statuses:?} {expected:?}");
        }
    }

    #[test]
    fn receiver_table() {
        use ReceiverOutcome as O;
        let text = || "x".to_owned();
        let end = HookEnd::of_status(1);
        let failed = |interrupted| O::HookFailed { end: end.clone(), acknowledged: true, interrupted };
        let table = [
            (O::Complete { acknowledged: true }, Exit::Complete),
            (O::Complete { acknowledged: false }, Exit::Complete),
            (failed(false), Exit::HookFailed),
            (failed(true), Exit::Interrupted),
            (O::AlreadyComplete, Exit::Complete),
            (O::Failed(AbortCode::Command, String::new()), Exit::HookFailed),
            (O::NoSender, Exit::NoSender),
            (O::SenderNeeds(Need::Version(2)), Exit::NoSender),
            (O::SenderSilent, Exit::BrokenOff),
            (O::Lacking { blocks: 1, of: 2, end: None }, Exit::BrokenOff),
            (O::SenderAborted(AbortCode::Finished, text()), Exit::BrokenOff),
            (O::SenderAborted(AbortCode::Interrupted, text()), Exit::BrokenOff),
            (O::SenderAborted(AbortCode::Source, text()), Exit::BrokenOff),
            (O::Refused, Exit::BrokenOff),
            (O::NotListed, Exit::BrokenOff),
            (O::Failed(AbortCode::Disk, text()), Exit::Environment),
            (O::Failed(AbortCode::Name, text()), Exit::Environment),
            (O::Failed(AbortCode::Internal, text()), Exit::Environment),
            (O::Failed(AbortCode::Mismatch, text()), Exit::BrokenOff),
            (O::Failed(AbortCode::Content, text()), Exit::BrokenOff),
            (O::Failed(AbortCode::Interrupted, text()), Exit::Interrupted),
            (O::Interrupted, Exit::Interrupted),
        ];
        for (outcome, exit) in table {
            assert_eq!(Exit::of_receiver(&outcome), exit, "{outcome:?}");
        }
    }

    #[test]
    fn codes_are_the_documented_ones() {
        let all = [
            Exit::Complete,
            Exit::Environment,
            Exit::Usage,
            Exit::Incomplete,
            Exit::NoDevice,
            Exit::NoSender,
            Exit::BrokenOff,
            Exit::HookFailed,
            Exit::Interrupted,
        ];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 5, 6, 7, 130]);
    }
}
