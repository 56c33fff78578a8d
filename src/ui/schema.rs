//! The parts of the JSON schema (`docs/events.md`) that events and reports share.

use mcp_transfer::protocol::event::{ReceiverSnapshot, SenderOutcome, SenderOverview};
use mcp_transfer::protocol::statistics::{Activity, Cause, DeviceRow};
use mcp_transfer::task::{State, Step};
use mcp_transfer::wire::{AbortCode, Phase};
use serde::Serialize;
use std::time::Duration;

/// Seconds, rounded to three decimal places.
#[must_use]
pub fn seconds(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e3).round() / 1e3
}

/// The name of a phase.
#[must_use]
pub const fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Gathering => "gathering",
        Phase::Streaming => "streaming",
        Phase::Repairing => "repairing",
        Phase::Lingering => "lingering",
    }
}

/// The name of a sender's outcome, and the reason of a failure.
#[must_use]
pub fn sender_outcome(outcome: Option<SenderOutcome>) -> (&'static str, Option<String>) {
    match outcome {
        Some(SenderOutcome::Ended) => ("ended", None),
        Some(SenderOutcome::SentOneWay(_)) => ("sent_one_way", None),
        Some(SenderOutcome::Interrupted) => ("interrupted", None),
        Some(SenderOutcome::SourceFailed(reason)) => ("source_failed", Some(reason)),
        Some(SenderOutcome::StoreFailed(reason)) => ("store_failed", Some(reason)),
        Some(SenderOutcome::Internal(reason)) => ("internal", Some(reason)),
        None => ("internal", Some("the run ended without an outcome".to_owned())),
    }
}

/// The reason why one side aborted: its name, and what was told beside it.
#[must_use]
pub fn told(code: AbortCode, reason: &str) -> Option<String> {
    let word = abort_word(code);
    Some(if reason.is_empty() { word.to_owned() } else { format!("{word}: {reason}") })
}

/// The name of the reason why one side aborted.
#[must_use]
pub const fn abort_word(code: AbortCode) -> &'static str {
    match code {
        AbortCode::Finished => "finished",
        AbortCode::Interrupted => "interrupted",
        AbortCode::Source => "source",
        AbortCode::Disk => "disk",
        AbortCode::Name => "name",
        AbortCode::Mismatch => "mismatch",
        AbortCode::Internal => "internal",
        AbortCode::Command => "command",
        AbortCode::Content => "content",
        AbortCode::Behind => "behind",
    }
}

/// A row of the status table, in events and reports.
#[derive(Serialize)]
pub struct Row<'a> {
    device: String,
    label: &'a str,
    address: Option<String>,
    status: &'static str,
    reason: Option<&'a str>,
    hook: Option<i32>,
    attempts: u32,
    activity: Option<&'static str>,
    deficit_blocks: Option<u32>,
    verified_blocks: u32,
    lost_datagrams: u64,
    kernel_drops: u64,
    overrun_drops: u64,
    slow_by: Option<&'static str>,
    unicast_symbols: u64,
    seconds: f64,
}

impl<'a> From<&'a DeviceRow> for Row<'a> {
    fn from(row: &'a DeviceRow) -> Self {
        let DeviceRow { assignment, transfer } = row;
        let reason = match assignment.state() {
            State::Failed(reason) => Some(reason.as_str()),
            State::Pending | State::Active | State::Complete | State::Lost => None,
        };
        let hook = assignment.steps().iter().find_map(|step| match step {
            Step::Hook(status) => Some(*status),
            Step::Transfer | Step::Command(_) => None,
        });
        Self {
            device: assignment.device.to_string(),
            label: &assignment.label,
            address: transfer.address.map(|address| address.to_string()),
            status: row.word(),
            reason,
            hook,
            attempts: assignment.attempts,
            activity: transfer.activity.map(Activity::word),
            deficit_blocks: transfer.deficit,
            verified_blocks: transfer.verified_blocks,
            lost_datagrams: transfer.lost_datagrams,
            kernel_drops: transfer.kernel_drops,
            overrun_drops: transfer.overrun_drops,
            slow_by: transfer.cause.map(Cause::word),
            unicast_symbols: transfer.unicast_symbols,
            seconds: seconds(transfer.elapsed),
        }
    }
}

/// The sender's counters, in events and reports.
#[derive(Serialize)]
pub struct Counters {
    size: Option<u64>,
    blocks: u32,
    streamed_blocks: u32,
    streamed_bytes: u64,
    skipped_bytes: u64,
    wire_bytes: u64,
    source_symbols: u64,
    repair_symbols: u64,
    unicast_symbols: u64,
    feedback_datagrams: u64,
    ignored_datagrams: u64,
    suspect_blocks: u64,
    devices: usize,
    devices_complete: usize,
    devices_failed: usize,
    devices_lost: usize,
    devices_missing: usize,
}

impl From<&SenderOverview> for Counters {
    fn from(s: &SenderOverview) -> Self {
        Self {
            size: s.total(),
            blocks: s.blocks,
            streamed_blocks: s.position,
            streamed_bytes: s.streamed,
            skipped_bytes: s.skipped,
            wire_bytes: s.wire_bytes,
            source_symbols: s.source_symbols,
            repair_symbols: s.repair_symbols,
            unicast_symbols: s.unicast_symbols,
            feedback_datagrams: s.feedback,
            ignored_datagrams: s.ignored,
            suspect_blocks: s.suspects,
            devices: s.devices.total(),
            devices_complete: s.devices.complete,
            devices_failed: s.devices.failed,
            devices_lost: s.devices.lost,
            devices_missing: s.missing,
        }
    }
}

/// The receiver's counters, in events.
#[derive(Serialize)]
pub struct ReceiverCounters {
    size: Option<u64>,
    verified_bytes: u64,
    received_bytes: u64,
    resumed_bytes: u64,
    kept_bytes: u64,
    blocks: u32,
    verified_blocks: u32,
    received_datagrams: u64,
    lost_datagrams: u64,
    kernel_drops: u64,
    overrun_drops: u64,
    ignored_datagrams: u64,
    forged_symbols: u64,
    buffered_bytes: usize,
}

impl From<&ReceiverSnapshot> for ReceiverCounters {
    fn from(s: &ReceiverSnapshot) -> Self {
        Self {
            size: s.total(),
            verified_bytes: s.verified_bytes,
            received_bytes: s.received_bytes,
            resumed_bytes: s.resumed_bytes,
            kept_bytes: s.kept_bytes,
            blocks: s.blocks,
            verified_blocks: s.verified,
            received_datagrams: s.received,
            lost_datagrams: s.lost,
            kernel_drops: s.kernel_drops,
            overrun_drops: s.overrun_drops,
            ignored_datagrams: s.ignored,
            forged_symbols: s.forged_symbols,
            buffered_bytes: s.buffered,
        }
    }
}
