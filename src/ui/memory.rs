//! State that every view needs between events: phases, hashes, outcomes and the speed.

use super::text;
use mcp_transfer::limits::FeedbackBudget;
use mcp_transfer::protocol::event::{
    HookChange, ReceiverEvent, ReceiverOutcome, ReceiverSnapshot, SenderEvent, SenderOutcome, SenderOverview,
    SenderSnapshot,
};
use mcp_transfer::protocol::statistics::{Activity, DeviceRow};
use mcp_transfer::task::State;
use mcp_transfer::time::Time;
use mcp_transfer::units::{DeviceId, Digest, SenderKey};
use mcp_transfer::wire::Phase;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

/// A device that verifies no block for this time (and two reports) is shown as stalled.
const NO_HEADWAY: Duration = Duration::from_secs(3);

/// Most refused senders that are reported.
const MOST_REFUSALS: usize = 16;

/// The speed over the last few seconds, from a rising count of bytes.
#[derive(Debug, Default)]
pub struct Meter {
    samples: VecDeque<(Time, u64)>,
}

impl Meter {
    const WINDOW: Duration = Duration::from_secs(3);
    const SPACING: Duration = Duration::from_millis(200);

    /// Records the count at `now`. Ignores a sample within 200 ms of the last one.
    pub fn record(&mut self, now: Time, bytes: u64) {
        if self.samples.back().is_some_and(|(t, _)| now.since(*t) < Self::SPACING) {
            return;
        }
        self.samples.push_back((now, bytes));
        while self.samples.len() > 2 && now.since(self.samples[0].0) > Self::WINDOW {
            self.samples.pop_front();
        }
    }

    /// The speed in bits per second over the window; 0 until there are two samples.
    #[must_use]
    pub fn bits_per_second(&self) -> u64 {
        match (self.samples.front(), self.samples.back()) {
            (Some((t0, b0)), Some((t1, b1))) => text::bits_per_second(b1.saturating_sub(*b0), t1.since(*t0)),
            _ => 0,
        }
    }

    /// `24s left`: the time for `bytes` at this speed; empty if it is unknown.
    #[must_use]
    pub fn time_for(&self, bytes: u64) -> String {
        let speed = self.bits_per_second();
        if speed == 0 || bytes == 0 {
            return String::new();
        }
        let seconds = (bytes as f64 * 8.0 / speed as f64).ceil().min(1e9) as u64;
        format!("{} left", text::clock(seconds))
    }
}

/// The state of a sender's view.
#[derive(Debug, Default)]
pub struct SenderMemory {
    /// Root hash of the object, once known.
    pub root: Option<Digest>,
    /// The outcome of the run, once known.
    pub outcome: Option<SenderOutcome>,
    /// Speed on the wire.
    pub wire: Meter,
    streaming_since: Option<Time>,
    served_until: Option<Time>,
    late: HashSet<DeviceId>,
    /// Verified blocks of each device, and the time since when it has this number.
    headway: HashMap<DeviceId, (u32, Time)>,
}

impl SenderMemory {
    /// Records an event.
    pub fn event(&mut self, now: Time, event: &SenderEvent) {
        match event {
            SenderEvent::Phase(Phase::Streaming) => {
                // The quiet time before would reduce the measured speed.
                self.wire = Meter::default();
                self.streaming_since.get_or_insert(now);
                self.served_until = None;
            }
            SenderEvent::Phase(Phase::Repairing) => self.served_until = None,
            SenderEvent::Phase(Phase::Lingering) => self.served_until = Some(now),
            SenderEvent::Joined { device, late: true, .. } => {
                self.late.insert(*device);
            }
            SenderEvent::Device(row) if row.assignment.is_complete() => {
                // Late devices are served while lingering, too: the last receipt counts.
                self.served_until = Some(now);
            }
            SenderEvent::Hashed(root) => self.root = Some(*root),
            SenderEvent::Finished(outcome) => self.outcome = Some(outcome.clone()),
            SenderEvent::Phase(Phase::Gathering)
            | SenderEvent::Joined { .. }
            | SenderEvent::DuplicateId { .. }
            | SenderEvent::DeviceKeyChanged { .. }
            | SenderEvent::NotListed { .. }
            | SenderEvent::StoreFails(_)
            | SenderEvent::StoreAnswers
            | SenderEvent::Device(_) => {}
        }
    }

    /// Records the progress of the devices.
    pub fn watch(&mut self, now: Time, snapshot: &SenderSnapshot) {
        for row in snapshot.devices.iter().filter(|row| !row.assignment.state().is_final()) {
            let verified = row.transfer.verified_blocks;
            let (known, since) = self.headway.entry(row.assignment.device).or_insert((verified, now));
            if *known != verified || row.transfer.activity == Some(Activity::Waiting) {
                (*known, *since) = (verified, now);
            }
        }
    }

    /// How long a device has verified no block, if longer than the reports take; otherwise `None`.
    fn stands_still(&self, row: &DeviceRow, snapshot: &SenderSnapshot, now: Time) -> Option<Duration> {
        let devices = u32::try_from(snapshot.devices.len()).unwrap_or(u32::MAX);
        let patience = NO_HEADWAY + 2 * FeedbackBudget::default().report_interval(devices);
        let (_, since) = self.headway.get(&row.assignment.device)?;
        Some(now.since(*since)).filter(|still| *still > patience)
    }

    /// Time of the transfer itself, without gathering, and without lingering after the last device.
    #[must_use]
    pub fn transfer_time(&self, now: Time) -> Duration {
        self.streaming_since.map_or(Duration::ZERO, |t| self.served_until.unwrap_or(now).since(t))
    }

    /// The reason why a device is slow, in a few words; empty if it is not.
    #[must_use]
    pub fn hold(&self, row: &DeviceRow, snapshot: &SenderSnapshot, now: Time) -> String {
        let group = snapshot.overview.source_symbols + snapshot.overview.repair_symbols;
        // Kernel drops are also missing on the channel; only the rest was lost on the way.
        let lost = row.transfer.lost_datagrams.saturating_sub(row.transfer.kernel_drops);
        let mut parts = Vec::new();
        if let Some(still) = self.stands_still(row, snapshot, now) {
            parts.push(format!("nothing new for {}", text::clock(still.as_secs())));
        }
        if text::percent(lost, group) >= 0.05 {
            parts.push(format!("loss {}", text::share(lost, group)));
        }
        parts.push(self.hold_but_loss(row));
        parts.retain(|part| !part.is_empty());
        parts.join(", ")
    }

    /// The same, for a table with a separate column for the loss.
    #[must_use]
    pub fn hold_but_loss(&self, row: &DeviceRow) -> String {
        let mut parts = Vec::new();
        let transfer = &row.transfer;
        if self.late.contains(&row.assignment.device) {
            parts.push("late".to_owned());
        }
        if let Some(cause) = transfer.cause {
            parts.push(format!("slow by its {}", cause.word()));
        }
        if transfer.kernel_drops > 0 {
            parts.push(format!("kernel dropped {}", text::count(transfer.kernel_drops)));
        }
        if transfer.overrun_drops > 0 {
            parts.push(format!("disk behind (dropped {})", text::count(transfer.overrun_drops)));
        }
        if transfer.activity == Some(Activity::Recording) {
            parts.push("ended, not recorded".to_owned());
        }
        if *row.assignment.state() == State::Lost {
            parts.push("silent".to_owned());
        }
        parts.join(", ")
    }

    /// At most `most` devices that are furthest behind the stream, each with the number of blocks.
    #[must_use]
    pub fn furthest_behind(snapshot: &SenderSnapshot, most: usize) -> Vec<(&DeviceRow, u32)> {
        let overview = &snapshot.overview;
        // Reports are a moment old: what went out in the last seconds is no reason to name a device.
        let block = (overview.object_size / u64::from(overview.blocks.max(1))).max(1);
        let recent = (overview.rate.0 / 8 * 3 / block).clamp(16, 1 << 31) as u32;
        let slack = if overview.phase == Phase::Streaming { recent } else { 0 };
        let served = |row: &&DeviceRow| {
            matches!(row.transfer.activity, Some(Activity::Receiving | Activity::Repairing))
        };
        let mut rows: Vec<_> = (snapshot.devices.iter().filter(served))
            .map(|row| (row, overview.position.saturating_sub(row.transfer.verified_blocks)))
            .filter(|(_, behind)| *behind > slack)
            .collect();
        rows.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.assignment.label.cmp(&b.assignment.label)));
        rows.truncate(most);
        rows
    }

    /// The state of gathering: the devices ready and expected, and the devices that cannot take part.
    #[must_use]
    pub fn gathered(overview: &SenderOverview) -> String {
        let ready = overview.present();
        let gone = match overview.devices.total() - overview.devices.open() {
            0 => String::new(),
            n => format!(", {n} failed"),
        };
        match overview.expected {
            Some(expected) => format!("waiting for devices: {ready} of {expected}{gone}"),
            None => format!("waiting for devices: {ready} ready{gone}"),
        }
    }

    /// Share of the work done in `[0, 1]`: streamed bytes first, then blocks verified by the
    /// devices that are still being served.
    #[must_use]
    pub fn fraction(snapshot: &SenderSnapshot) -> f64 {
        let overview = &snapshot.overview;
        if overview.phase != Phase::Repairing {
            return text::percent(overview.streamed, overview.object_size.max(1)) / 100.0;
        }
        let (mut verified, mut whole) = (0, 0);
        for row in snapshot.devices.iter() {
            verified += match row.assignment.state() {
                State::Failed(_) | State::Lost => continue,
                State::Complete => u64::from(overview.blocks),
                State::Pending if row.is_missing() => continue,
                State::Pending | State::Active => u64::from(row.transfer.verified_blocks),
            };
            whole += u64::from(overview.blocks);
        }
        text::percent(verified, whole.max(1)) / 100.0
    }
}

/// From this number of wrong symbols in a run on, damage is no explanation.
const SURELY_FORGED: u64 = 16;
/// The warning in this case.
pub const FORGERY: &str =
    "somebody on the network forges data; it costs time, and what is saved is right all the same";

/// The state of a receiver's view.
#[derive(Debug, Default)]
pub struct ReceiverMemory {
    /// Path and hash of the file, once committed.
    pub committed: Option<(PathBuf, Digest)>,
    /// The outcome of the run, once known.
    pub outcome: Option<ReceiverOutcome>,
    /// Exit status of the hook, once it has ended.
    pub hook: Option<i32>,
    /// The present stage.
    pub stage: Stage,
    /// Speed of object data.
    pub data: Meter,
    began: Option<Time>,
    ended: Option<Time>,
    refused: Vec<SenderKey>,
    told_forgery: bool,
}

/// The stage of a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for a sender.
    #[default]
    Searching,
    /// Waiting to be admitted, or for the stream.
    Waiting,
    /// Receiving the stream.
    Receiving,
    /// The object is complete; syncing and renaming.
    Committing,
    /// The file is in place, and the hook runs.
    Hooking,
    /// The file is in place; sending the receipt.
    Telling,
}

impl ReceiverMemory {
    /// Records an event.
    pub fn event(&mut self, now: Time, event: &ReceiverEvent) {
        match event {
            ReceiverEvent::Found { .. } => self.stage = Stage::Waiting,
            ReceiverEvent::Admitted
            | ReceiverEvent::Resumed { .. }
            | ReceiverEvent::BlockRejected(_)
            | ReceiverEvent::ForgedSymbols { .. }
            | ReceiverEvent::SenderTrusted { .. }
            | ReceiverEvent::SenderRefused { .. }
            | ReceiverEvent::SenderNeeds { .. }
            | ReceiverEvent::OldSession { .. }
            | ReceiverEvent::OtherName { .. } => {}
            ReceiverEvent::Receiving => {
                self.stage = Stage::Receiving;
                self.data = Meter::default();
                self.began.get_or_insert(now);
            }
            ReceiverEvent::Committing => self.stage = Stage::Committing,
            ReceiverEvent::Committed { path, root } => {
                self.stage = Stage::Telling;
                self.ended = Some(now);
                self.committed = Some((path.clone(), *root));
            }
            ReceiverEvent::Hook(HookChange::Started) => self.stage = Stage::Hooking,
            ReceiverEvent::Hook(HookChange::Ended(end)) => {
                self.stage = Stage::Telling;
                self.hook = Some(end.status);
            }
            ReceiverEvent::Hook(HookChange::Skipped) => {}
            ReceiverEvent::Finished(outcome) => self.outcome = Some(outcome.clone()),
        }
    }

    /// Whether to report that this sender was refused: once for each sender, and only for a limited
    /// number, so that nobody can fill a log.
    pub fn tells_refusal(&mut self, key: &SenderKey) -> bool {
        let tells = self.refused.len() < MOST_REFUSALS && !self.refused.contains(key);
        if tells {
            self.refused.push(*key);
        }
        tells
    }

    /// Whether to report that someone forges data: once, after more wrong symbols than damage explains.
    pub fn tells_forgery(&mut self, symbols: u64) -> bool {
        symbols >= SURELY_FORGED && !std::mem::replace(&mut self.told_forgery, true)
    }

    /// Time from the first symbol to the committed file, or to `now`.
    #[must_use]
    pub fn transfer_time(&self, now: Time) -> Duration {
        self.began.map_or(Duration::ZERO, |t| self.ended.unwrap_or(now).since(t))
    }

    /// Bytes of the object that the device has: received, or held already.
    #[must_use]
    pub fn here(snapshot: &ReceiverSnapshot) -> u64 {
        (snapshot.received_bytes + snapshot.resumed_bytes).min(snapshot.object_size)
    }

    /// Time left at the present speed; empty if it is unknown.
    #[must_use]
    pub fn time_left(&self, snapshot: &ReceiverSnapshot) -> String {
        let left = snapshot.total().map(|total| total.saturating_sub(Self::here(snapshot)));
        left.map_or_else(String::new, |left| self.data.time_for(left))
    }

    /// The summary line of the run; `None` without a file.
    #[must_use]
    pub fn summary(&self, now: Time, snapshot: &ReceiverSnapshot) -> Option<String> {
        if self.outcome == Some(ReceiverOutcome::AlreadyComplete) {
            return Some("the sender's table says this device has the file; nothing was written".to_owned());
        }
        self.committed.as_ref()?;
        let time = self.transfer_time(now);
        let held = snapshot.resumed_bytes;
        let came = snapshot.object_size.saturating_sub(held);
        let of = if held > 0 { format!(" of {}", text::bytes(snapshot.object_size)) } else { String::new() };
        let mut line = format!(
            "received {}{of} in {}: {}, loss {}",
            text::bytes(came),
            text::duration(time),
            text::rate(text::bits_per_second(came, time)),
            text::share(snapshot.lost, snapshot.lost + snapshot.received),
        );
        if held > 0 {
            line.push_str(&format!("; {}", text::held(held, snapshot.total())));
        }
        if let (Some(ReceiverOutcome::Complete { acknowledged: false }), None) =
            (&self.outcome, snapshot.one_way)
        {
            line.push_str("; the sender did not confirm that it knows");
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::testing::{row, snapshot};

    #[test]
    fn the_meter_forgets_old_samples() {
        let mut meter = Meter::default();
        assert_eq!(meter.bits_per_second(), 0);
        let at = |ms: u64| Time::ZERO + Duration::from_millis(ms);
        meter.record(at(0), 0);
        meter.record(at(100), 1_000_000);
        assert_eq!(meter.bits_per_second(), 0);
        meter.record(at(1000), 1000);
        assert_eq!(meter.bits_per_second(), 8000);
        for s in 2..20 {
            meter.record(at(s * 1000), 1000);
        }
        assert_eq!(meter.bits_per_second(), 0);
    }

    #[test]
    fn names_the_furthest_behind_and_why() {
        let mut s = snapshot(Phase::Repairing);
        s.overview.position = 100;
        s.overview.source_symbols = 1000;
        s.overview.repair_symbols = 0;
        let mut slow = row("slow", State::Active);
        slow.transfer.activity = Some(Activity::Receiving);
        slow.transfer.verified_blocks = 40;
        slow.transfer.lost_datagrams = 150;
        slow.transfer.kernel_drops = 100;
        let mut worse = row("worse", State::Active);
        worse.transfer.activity = Some(Activity::Repairing);
        worse.transfer.overrun_drops = 2_000;
        let mut done = row("done", State::Complete);
        done.transfer.verified_blocks = 100;
        s.devices = vec![done, slow.clone(), worse.clone(), row("gone", State::Lost)];
        let behind: Vec<_> = SenderMemory::furthest_behind(&s, 4)
            .into_iter()
            .map(|(r, n)| (r.assignment.label.clone(), n))
            .collect();
        assert_eq!(behind, [("worse".to_owned(), 100), ("slow".to_owned(), 60)]);
        let mut memory = SenderMemory::default();
        assert_eq!(memory.hold(&slow, &s, Time::ZERO), "loss 5.0 %, kernel dropped 100");
        memory.event(
            Time::ZERO,
            &SenderEvent::Joined {
                device: worse.assignment.device,
                label: "worse".into(),
                address: worse.transfer.address.unwrap(),
                key: None,
                late: true,
            },
        );
        assert_eq!(memory.hold(&worse, &s, Time::ZERO), "late, disk behind (dropped 2k)");
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        memory.watch(at(1), &s);
        s.devices[1].transfer.verified_blocks += 1;
        memory.watch(at(20), &s);
        assert_eq!(memory.hold(&slow, &s, at(21)), "loss 5.0 %, kernel dropped 100");
        assert_eq!(memory.hold(&worse, &s, at(21)), "nothing new for 20s, late, disk behind (dropped 2k)");
    }

    #[test]
    fn a_device_that_has_the_file_is_told_so() {
        let mut memory = ReceiverMemory::default();
        let s = ReceiverSnapshot::default();
        assert_eq!(memory.summary(Time::ZERO, &s), None);
        memory.event(Time::ZERO, &ReceiverEvent::Finished(ReceiverOutcome::AlreadyComplete));
        assert!(memory.summary(Time::ZERO, &s).unwrap().contains("nothing was written"));
    }

    #[test]
    fn transfer_time_leaves_gathering_and_idle_linger_out() {
        let mut memory = SenderMemory::default();
        let at = |s: u64| Time::ZERO + Duration::from_secs(s);
        assert_eq!(memory.transfer_time(at(9)), Duration::ZERO);
        memory.event(at(10), &SenderEvent::Phase(Phase::Streaming));
        memory.event(at(20), &SenderEvent::Phase(Phase::Repairing));
        assert_eq!(memory.transfer_time(at(22)), Duration::from_secs(12));
        memory.event(at(25), &SenderEvent::Phase(Phase::Lingering));
        assert_eq!(memory.transfer_time(at(99)), Duration::from_secs(15));
    }
}
