//! Prints every error as one line on stderr, `mcp: <one clause>`, and classifies errors by their cause.

use super::config::Surroundings;
use super::exit::Exit;
use crate::ui::{device_name, escape, wrapped};
use mcp_transfer::protocol::event::{ReceiverOutcome, SenderOutcome};
use mcp_transfer::protocol::need::Need;
use mcp_transfer::protocol::statistics::DeviceRow;
use mcp_transfer::task::State;
use mcp_transfer::text::bytes;
use mcp_transfer::wire::AbortCode;
use std::io::Write;
use std::net::IpAddr;

/// An error by its cause. The text is one lowercase clause that names the thing and the next step. It
/// may hold untrusted text, which [`Error::line`] escapes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The command line is invalid.
    #[error("{0}")]
    Usage(String),
    /// This machine failed: its files, disks or interfaces.
    #[error("{0}")]
    Environment(String),
    /// The other side failed, or the network between.
    #[error("{0}")]
    Peer(String),
    /// The command of `--then` or `--pipe` failed.
    #[error("{0}")]
    Hook(String),
    /// `mcp` itself failed.
    #[error("internal error: {0}; please report this as a bug in mcp")]
    Bug(String),
}

impl Error {
    /// Waiting for signals, events or the terminal has failed.
    pub(super) fn poll(error: std::io::Error) -> Self {
        Self::Environment(format!("waiting failed: {error}; this should not happen, please report it"))
    }

    /// The exit code of a command that ends with this error before its machine has run.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Environment(_) | Self::Bug(_) => Exit::Environment,
            Self::Peer(_) => Exit::BrokenOff,
            Self::Hook(_) => Exit::HookFailed,
        }
    }

    /// The line to print, escaped.
    #[must_use]
    pub fn line(&self) -> String {
        format!("mcp: {}", escape(&self.to_string()))
    }
}

/// Prints the error. If stderr is closed, only the exit code reports the error.
pub fn error(error: &Error) {
    tell(&error.line());
}

/// Prints a warning. For use before there is a view.
pub fn warning(text: &str) {
    tell(&format!("mcp: warning: {}", escape(text)));
}

/// Prints a sentence on stderr; on a terminal, broken between words. A closed stderr is no reason to fail.
pub fn tell(sentence: &str) {
    let terminal = Surroundings::detect().draws;
    let _ = writeln!(std::io::stderr(), "{}", wrapped(sentence, terminal));
}

/// The error to print after a sender's table; `None` on success.
#[must_use]
pub fn of_sender(outcome: &SenderOutcome, rows: &[DeviceRow], expected: Option<u32>) -> Option<Error> {
    match outcome {
        SenderOutcome::SentOneWay(_) => None,
        SenderOutcome::Interrupted if rows.iter().all(|row| row.assignment.is_complete()) => {
            let who =
                if rows.is_empty() { "no device had joined" } else { "every device that joined is complete" };
            Some(Error::Environment(format!("interrupted; {who}")))
        }
        SenderOutcome::Interrupted => {
            Some(Error::Environment("interrupted; devices that are not complete have been told".into()))
        }
        SenderOutcome::StoreFailed(why) => Some(Error::Environment(format!(
            "the task store failed: {why}; it has {} of {} as complete, and others may be so too: mend it and \
             send again",
            rows.iter().filter(|row| row.assignment.is_complete()).count(),
            devices(rows.len())
        ))),
        SenderOutcome::SourceFailed(why) => Some(Error::Environment(why.clone())),
        SenderOutcome::Internal(why) => Some(Error::Bug(why.clone())),
        SenderOutcome::Ended => match Exit::of_sender(outcome, rows, expected) {
            Exit::Complete => None,
            Exit::NoDevice if rows.iter().all(DeviceRow::is_missing) => {
                let missing = if rows.is_empty() { String::new() } else { format!(" ({})", named(rows)) };
                Some(Error::Peer(format!(
                    "no device joined{missing}; run 'mcp recv' on the devices, and check that the firewall and the \
                     network let multicast through"
                )))
            }
            Exit::NoDevice => Some(Error::Peer(format!(
                "none of {} completed ({}); fix that and send again",
                devices(rows.len()),
                named(rows)
            ))),
            _ => Some(incomplete(rows, expected)),
        },
    }
}

/// Names the first few devices that did not complete, and counts the expected devices that never joined.
fn incomplete(rows: &[DeviceRow], expected: Option<u32>) -> Error {
    let open = rows.iter().filter(|row| !row.assignment.is_complete()).count();
    let absent = (expected.unwrap_or(0) as usize).saturating_sub(rows.len());
    let mut parts = Vec::new();
    if open > 0 {
        parts.push(format!("{} did not complete ({})", devices(open), named(rows)));
    }
    if absent > 0 {
        parts.push(format!("{absent} of the expected devices never joined"));
    }
    Error::Peer(format!("{}; send again to complete them", parts.join(" and ")))
}

/// The first few devices that did not complete, with their reasons. With `-q` there is no table.
fn named(rows: &[DeviceRow]) -> String {
    const MOST: usize = 5;
    let mut open: Vec<&DeviceRow> = rows.iter().filter(|row| !row.assignment.is_complete()).collect();
    open.sort_by_key(|row| &row.assignment.label);
    let mut names: Vec<String> = open.iter().take(MOST).map(|row| name_and_reason(row)).collect();
    if open.len() > MOST {
        names.push("...".to_owned());
    }
    names.join(", ")
}

fn name_and_reason(row: &DeviceRow) -> String {
    let name = device_name(&row.assignment.label, row.assignment.device);
    match row.assignment.state() {
        State::Failed(why) => format!("{name}: {}", why.split("; ").next().unwrap_or(why)),
        State::Lost => format!("{name}: lost"),
        State::Pending if row.is_missing() => format!("{name}: never joined"),
        _ => name,
    }
}

fn devices(n: usize) -> String {
    if n == 1 { "1 device".into() } else { format!("{n} devices") }
}

/// The error if every sender found was refused; `why` is the reason for the first one.
#[must_use]
pub fn none_trusted(why: &str) -> Error {
    Error::Peer(format!("no trusted sender was found in time; {why}"))
}

/// The error if no sender of the object to take was found, and `address` sends one called `name`.
#[must_use]
pub fn none_named(name: &str, address: IpAddr) -> Error {
    let name = escape(name);
    Error::Peer(format!(
        "no sender of a file with the name of --name was found in time, but {address} sent {name}; correct the name, or \
         leave it out"
    ))
}

/// The error to print at the end of a receiver that left `kept` bytes in the part file; `None` on
/// success.
#[must_use]
pub fn of_receiver(outcome: &ReceiverOutcome, kept: u64) -> Option<Error> {
    let saved = match kept {
        0 => "nothing was saved".to_owned(),
        kept => format!("{} are kept and the next 'mcp recv' resumes from them", bytes(kept)),
    };
    let told = |why: &str| if why.is_empty() { String::new() } else { format!(": {why}") };
    match outcome {
        ReceiverOutcome::Complete { .. } | ReceiverOutcome::AlreadyComplete => None,
        ReceiverOutcome::HookFailed { end, .. } => Some(Error::Hook(format!(
            "the file is saved, but {}; run the command again by hand",
            end.failure.as_deref().unwrap_or("the --then command failed")
        ))),
        ReceiverOutcome::NoSender => Some(Error::Peer(
            "no sender was found in time; start 'mcp send', or check the group, the interface and the firewall"
                .into(),
        )),
        ReceiverOutcome::SenderNeeds(Need::Answers) => Some(Error::Peer(
            "no sender without feedback was found in time, but one that waits for answers; leave out --one-way to \
             receive from it"
                .into(),
        )),
        ReceiverOutcome::SenderNeeds(need) => Some(Error::Peer(format!(
            "no sender that this mcp understands was found in time, but one that needs {need}; install the \
             release of mcp that it runs"
        ))),
        ReceiverOutcome::SenderSilent => {
            Some(Error::Peer(format!("the sender fell silent, {saved}; receive again when the sender is back")))
        }
        ReceiverOutcome::Lacking { blocks, of, end } => {
            let how = match end {
                None => "fell silent",
                Some(AbortCode::Interrupted) => "was interrupted",
                Some(AbortCode::Source) => "failed to read its file",
                Some(_) => "has sent all that it had to send",
            };
            let of = if *of == 1 { "the only block".to_owned() } else { format!("{blocks} of {of} blocks") };
            Some(Error::Peer(format!(
                "the sender {how}, and this device lacks {of}; {saved}; receive again when it is sent again"
            )))
        }
        ReceiverOutcome::SenderAborted(code, why) => Some(Error::Peer(match code {
            AbortCode::Finished => {
                format!("the sender ended before this device was complete{}, {saved}; send again", told(why))
            }
            AbortCode::Interrupted => format!("the sender was interrupted, {saved}; send again"),
            AbortCode::Source => format!("the sender's file failed{}; {saved}, send again", told(why)),
            AbortCode::Behind => format!(
                "the sender keeps only a part of its stream (--window), and this device {why}; {saved}, receive again when \
                 it is sent again"
            ),
            _ => format!("the sender gave up{}; {saved}, send again", told(why)),
        })),
        ReceiverOutcome::Refused => {
            Some(Error::Peer(
                "the sender already serves its maximum number of devices; receive again when it has finished".into(),
            ))
        }
        ReceiverOutcome::NotListed => Some(Error::Peer(
            "the sender serves only the devices of its list, and this device is not one of them, or has another key \
             there; have the line that 'mcp key device' prints added to the list"
                .into(),
        )),
        ReceiverOutcome::Failed(AbortCode::Internal, why) => Some(Error::Bug(why.clone())),
        ReceiverOutcome::Failed(AbortCode::Mismatch, why) => Some(Error::Peer(format!(
            "the received bytes disagree with the sender's hash{}; nothing was saved, receive again",
            told(why)
        ))),
        ReceiverOutcome::Failed(AbortCode::Content, why) => {
            Some(Error::Peer(format!("{why}; nothing was saved")))
        }
        ReceiverOutcome::Failed(AbortCode::Command, why) => Some(Error::Hook(format!(
            "{why}; nothing that it has written is whole, receive again"
        ))),
        ReceiverOutcome::Failed(_, why) => Some(Error::Environment(why.clone())),
        ReceiverOutcome::Interrupted => Some(Error::Environment(format!("interrupted, {saved}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::testing::row;
    use mcp_transfer::protocol::event::HookEnd;

    #[test]
    fn lines() {
        assert_eq!(Error::Usage("no\x1b group".into()).line(), "mcp: no\\u{1b} group");
        let bug = Error::Bug("worker died".into()).line();
        assert_eq!(bug, "mcp: internal error: worker died; please report this as a bug in mcp");
        let exits =
            [Error::Usage, Error::Environment, Error::Peer, Error::Bug].map(|e| e(String::new()).exit());
        assert_eq!(exits, [Exit::Usage, Exit::Environment, Exit::BrokenOff, Exit::Environment]);
    }

    #[test]
    fn senders() {
        let ended = SenderOutcome::Ended;
        let done = row("lab-1", State::Complete);
        assert_eq!(of_sender(&ended, std::slice::from_ref(&done), Some(1)), None);
        let rows = [done, row("lab-2", State::Lost)];
        assert_eq!(
            of_sender(&ended, &rows, Some(4)).unwrap().line(),
            "mcp: 1 device did not complete (lab-2: lost) and 2 of the expected devices never joined; send again to \
             complete them"
        );
        assert!(
            of_sender(&ended, &[], None).unwrap().line().starts_with("mcp: no device joined; run 'mcp recv'")
        );
        assert!(of_sender(&ended, &rows[1..], None).unwrap().line().contains("none of 1 device completed"));
        let absent = |name: &str| {
            let mut row = row(name, State::Pending);
            row.transfer.address = None;
            row.assignment =
                mcp_transfer::task::Assignment::new(row.assignment.task, row.assignment.device, name.into());
            row
        };
        let listed = [rows[0].clone(), absent("lab-5")];
        let line = of_sender(&ended, &listed, Some(2)).unwrap().line();
        assert_eq!(line, "mcp: 1 device did not complete (lab-5: never joined); send again to complete them");
        let line = of_sender(&ended, &listed[1..], Some(1)).unwrap().line();
        assert!(line.starts_with("mcp: no device joined (lab-5: never joined); run 'mcp recv'"), "{line}");
        let many: Vec<_> = (0..9).map(|n| row(&format!("d{n}"), State::Lost)).chain(rows).collect();
        let line = of_sender(&ended, &many, None).unwrap().line();
        assert!(
            line.contains(
                "10 devices did not complete (d0: lost, d1: lost, d2: lost, d3: lost, d4: lost, ...);"
            ),
            "{line}"
        );
        let gone = SenderOutcome::StoreFailed("it does not answer".into());
        let line = of_sender(&gone, &many, None).unwrap().line();
        let expected = "mcp: the task store failed: it does not answer; it has 1 of 11 devices as complete,";
        assert!(line.starts_with(expected), "{line}");
        let failed = SenderOutcome::SourceFailed("it shrank".into());
        assert_eq!(of_sender(&failed, &many, None), Some(Error::Environment("it shrank".into())));
    }

    #[test]
    fn every_receivers_failure_has_a_line() {
        use ReceiverOutcome as O;
        assert_eq!(of_receiver(&O::Complete { acknowledged: true }, 0), None);
        assert_eq!(of_receiver(&O::AlreadyComplete, 0), None);
        let aborted = O::SenderAborted(AbortCode::Source, "it\x07 shrank".into());
        assert_eq!(
            of_receiver(&aborted, 0).unwrap().line(),
            "mcp: the sender's file failed: it\\u{7} shrank; nothing was saved, send again"
        );
        assert_eq!(
            of_receiver(&O::SenderSilent, 37 << 20).unwrap().line(),
            "mcp: the sender fell silent, 37.00 MiB are kept and the next 'mcp recv' resumes from them; \
             receive again when the sender is back"
        );
        let outcomes = [
            O::NoSender,
            O::SenderNeeds(Need::Version(2)),
            O::SenderSilent,
            O::Lacking { blocks: 12, of: 4000, end: Some(AbortCode::Finished) },
            O::SenderAborted(AbortCode::Finished, String::new()),
            O::SenderAborted(AbortCode::Interrupted, String::new()),
            O::Refused,
            O::NotListed,
            O::HookFailed { end: HookEnd::of_status(3), acknowledged: true, interrupted: false },
            O::Failed(AbortCode::Disk, "disk full".into()),
            O::Failed(AbortCode::Internal, "worker died".into()),
            O::Failed(AbortCode::Mismatch, String::new()),
            O::Interrupted,
        ];
        for outcome in outcomes {
            let error = of_receiver(&outcome, 0).unwrap();
            let agrees = error.exit() == Exit::of_receiver(&outcome)
                || matches!(outcome, O::NoSender | O::SenderNeeds(_) | O::Interrupted);
            assert!(agrees && error.line().len() > 10, "{outcome:?}: {error:?}");
        }
    }
}
