//! Output without a terminal, for logs: a plain line at each change and every five seconds (every minute
//! while waiting).

use super::memory::{FORGERY, ReceiverMemory, SenderMemory, Stage};
use super::{Exit, Notes, ReceiverIntro, ReceiverView, SenderIntro, SenderView, one_way, table, text, trust};
use mcp_transfer::protocol::event::{
    ReceiverEvent, ReceiverSnapshot, SenderEvent, SenderOverview, SenderSnapshot,
};
use mcp_transfer::protocol::statistics::DeviceRow;
use mcp_transfer::task::State;
use mcp_transfer::time::Time;
use mcp_transfer::units::DeviceId;
use mcp_transfer::wire::Phase;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// Time between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(5);
/// Time between two lines while waiting.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// The output for lines. Ignores errors: a log that cannot be written does not stop a transfer.
pub struct Lines {
    out: Box<dyn Write>,
    verbose: bool,
    last: Option<Time>,
}

impl Lines {
    /// Prints lines to `out`, with notes if `verbose`.
    pub fn new(out: impl Write + 'static, verbose: bool) -> Self {
        Self { out: Box::new(out), verbose, last: None }
    }

    fn line(&mut self, now: Time, line: &str) {
        let _ = writeln!(self.out, "{line}");
        self.last = Some(now);
    }

    /// Whether no line was printed for `interval`.
    fn due(&mut self, now: Time, interval: Duration) -> bool {
        now.since(*self.last.get_or_insert(now)) >= interval
    }

    fn note(&mut self, now: Time, note: &str) {
        if self.verbose {
            self.line(now, &text::escape(note));
        }
    }
}

/// The line for a changed row; `None` for routine changes.
pub fn status_line(row: &DeviceRow) -> Option<String> {
    let label = text::device_name(&row.assignment.label, row.assignment.device);
    match row.assignment.state() {
        State::Complete => {
            Some(format!("{label} is complete after {}", text::duration(row.transfer.elapsed)))
        }
        State::Failed(reason) => Some(format!("{label} failed: {}", text::escape(reason))),
        State::Lost => Some(format!("{label} is lost: nothing was heard from it for a while")),
        State::Pending | State::Active => None,
    }
}

/// Says that the store fails.
pub fn store_fails(why: &str) -> String {
    let why = text::escape(why);
    format!(
        "the task store fails: {why}; the transfer goes on, and devices wait for the answer to their receipts"
    )
}
/// And that it answers again.
pub const STORE_ANSWERS: &str = "the task store answers again";

/// Says that two devices have one identifier, and what to do about it.
pub fn duplicate_id(device: DeviceId, label: &str, addresses: &[SocketAddr; 2]) -> String {
    let [first, second] = addresses.map(|address| address.ip());
    let name = text::device_name(label, device);
    format!(
        "{first} and {second} both say that they are {name}; both are served, but give one another --id, or \
         remove its device-id file"
    )
}

/// A sender's plain lines.
pub struct SenderPlain {
    lines: Lines,
    intro: SenderIntro,
    memory: SenderMemory,
}

impl SenderPlain {
    /// A view that prints to `lines`.
    pub fn new(lines: Lines, intro: SenderIntro) -> Self {
        Self { lines, intro, memory: SenderMemory::default() }
    }

    fn progress(&self, s: &SenderSnapshot) -> String {
        let overview = &s.overview;
        if let Some(progress) = one_way::progress(overview) {
            return format!("{progress}, {}", text::rate(self.memory.wire.bits_per_second()));
        }
        match overview.phase {
            Phase::Gathering => SenderMemory::gathered(overview),
            Phase::Streaming | Phase::Repairing => format!(
                "{}: {}, {}, repair {}, {} of {} devices complete",
                if overview.phase == Phase::Streaming { "sending" } else { "finishing" },
                done(overview.total(), overview.streamed, SenderMemory::fraction(s) * 100.0),
                text::rate(self.memory.wire.bits_per_second()),
                text::share(overview.repair_symbols + overview.unicast_symbols, overview.source_symbols),
                overview.devices.complete,
                overview.wanted(),
            ),
            Phase::Lingering => lingering(overview),
        }
    }
}

/// How far an object is: in percent, or for a stream in bytes.
fn done(total: Option<u64>, bytes: u64, percent: f64) -> String {
    total.map_or_else(|| text::bytes(bytes), |_| format!("{:.0} %", percent.floor()))
}

fn lingering(overview: &SenderOverview) -> String {
    let (complete, wanted) = (overview.devices.complete, overview.wanted());
    format!("staying for late devices: {complete} of {wanted} devices complete")
}

impl Notes for SenderPlain {
    fn note(&mut self, now: Time, text: &str) {
        self.lines.note(now, text);
    }
    fn warn(&mut self, now: Time, text: &str) {
        self.lines.line(now, &format!("warning: {}", text::escape(text)));
    }
}

impl SenderView for SenderPlain {
    fn event(&mut self, now: Time, event: &SenderEvent, s: &SenderOverview) {
        self.memory.event(now, event);
        let size = text::object(self.intro.size, self.intro.entries);
        let name = text::escape(&self.intro.name);
        match event {
            SenderEvent::Phase(phase) if s.passes.is_some() => {
                let what = format!("{name} ({size})");
                if let Some(line) = one_way::phase(*phase, &what, &self.intro.group, s) {
                    self.lines.line(now, &line);
                }
                if *phase == Phase::Gathering {
                    let sealed_with = self.intro.sealed_with.as_deref();
                    self.lines.line(now, &trust::introduction(&self.intro.sender, sealed_with));
                }
            }
            SenderEvent::Phase(Phase::Gathering) => {
                let group = &self.intro.group;
                self.lines.line(now, &format!("waiting for devices on {group} to send {name} ({size})"));
                let sealed_with = self.intro.sealed_with.as_deref();
                self.lines.line(now, &trust::introduction(&self.intro.sender, sealed_with));
            }
            SenderEvent::Phase(Phase::Streaming) => {
                let ready = s.present();
                let devices = if ready == 1 { "device" } else { "devices" };
                self.lines.line(now, &format!("sending {name} ({size}) to {ready} {devices}"));
            }
            SenderEvent::Phase(Phase::Repairing) => {
                let (devices, complete) = (s.wanted(), s.devices.complete);
                let time = text::duration(self.memory.transfer_time(now));
                let line = format!("all sent after {time}, {complete} of {devices} devices complete so far");
                self.lines.line(now, &line);
            }
            SenderEvent::Phase(Phase::Lingering) => {
                self.lines.line(now, &lingering(s));
            }
            SenderEvent::Joined { device, label, address, late, .. } => {
                let late = if *late { " late" } else { "" };
                self.lines
                    .line(now, &format!("{} joined{late} from {address}", text::device_name(label, *device)));
            }
            SenderEvent::DuplicateId { device, label, addresses } => {
                self.lines.line(now, &format!("warning: {}", duplicate_id(*device, label, addresses)));
            }
            SenderEvent::DeviceKeyChanged { device, label, key, before } => {
                self.warn(now, &trust::device_key_changed(*device, label, key.as_ref(), before));
            }
            SenderEvent::NotListed { label, address, key, named } => {
                self.warn(now, &trust::not_listed(label, address.ip(), key.as_ref(), *named));
            }
            SenderEvent::Device(row) => {
                if let Some(line) = status_line(row) {
                    self.lines.line(now, &line);
                }
            }
            SenderEvent::StoreFails(why) => {
                self.lines.line(now, &format!("warning: {}", store_fails(why)));
            }
            SenderEvent::StoreAnswers => self.lines.line(now, STORE_ANSWERS),
            SenderEvent::Hashed(_) | SenderEvent::Finished(_) => {}
        }
    }

    fn tick(&mut self, now: Time, s: &SenderSnapshot) {
        self.memory.wire.record(now, s.overview.wire_bytes);
        let idle = matches!(s.overview.phase, Phase::Gathering | Phase::Lingering);
        if self.lines.due(now, if idle { IDLE_INTERVAL } else { INTERVAL }) {
            let progress = self.progress(s);
            self.lines.line(now, &progress);
        }
    }

    fn finish(&mut self, now: Time, s: &SenderSnapshot, _: Exit) {
        for line in table::table(&self.memory, s, 0, false).lines() {
            self.lines.line(now, line);
        }
        let summary = table::summary(&self.memory, s, now);
        for line in summary.into_iter().chain(table::sum(&self.memory, &self.intro)) {
            self.lines.line(now, &line);
        }
    }
}

/// A receiver's plain lines, and its `b3sum` line on another stream.
pub struct ReceiverPlain {
    lines: Lines,
    sums: Box<dyn Write>,
    intro: ReceiverIntro,
    memory: ReceiverMemory,
}

impl ReceiverPlain {
    /// A view that prints to `lines`, and prints the hash of the file to `sums`.
    pub fn new(mut lines: Lines, sums: Box<dyn Write>, intro: ReceiverIntro) -> Self {
        let label = text::escape(&intro.label);
        let sealed =
            intro.sealed_with.as_ref().map_or(String::new(), |names| format!(", sealed with {names}"));
        lines.line(
            Time::ZERO,
            &format!("{} as {label}{sealed}", text::waiting(intro.name.as_deref(), &intro.group)),
        );
        Self { lines, sums, intro, memory: ReceiverMemory::default() }
    }

    fn progress(&self, now: Time, s: &ReceiverSnapshot) -> String {
        match self.memory.stage {
            Stage::Searching => {
                let waited = text::clock(now.since(Time::ZERO).as_secs());
                let waiting = text::waiting(self.intro.name.as_deref(), &self.intro.group);
                format!("still {waiting}, {waited} so far")
            }
            Stage::Waiting => "waiting for the sender to start".to_owned(),
            Stage::Receiving => {
                let here = ReceiverMemory::here(s);
                let parts = [
                    done(s.total(), here, text::percent(here, s.object_size.max(1))),
                    text::rate(self.memory.data.bits_per_second()),
                    format!("loss {}", text::share(s.lost, s.lost + s.received)),
                    self.memory.time_left(s),
                ];
                let told: Vec<&str> = parts.iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
                format!("receiving: {}", told.join(", "))
            }
            Stage::Committing => "syncing to disk".to_owned(),
            Stage::Hooking => "the --then command runs".to_owned(),
            Stage::Telling => "telling the sender".to_owned(),
        }
    }
}

impl Notes for ReceiverPlain {
    fn note(&mut self, now: Time, text: &str) {
        self.lines.note(now, text);
    }
    fn warn(&mut self, now: Time, text: &str) {
        self.lines.line(now, &format!("warning: {}", text::escape(text)));
    }
}

impl ReceiverView for ReceiverPlain {
    fn event(&mut self, now: Time, event: &ReceiverEvent, s: &ReceiverSnapshot) {
        self.memory.event(now, event);
        match event {
            ReceiverEvent::Found { sender, name, extent, entries, .. } => {
                let (name, size) = (text::escape(name), text::object(extent.total(), *entries));
                self.lines.line(now, &format!("found {name} ({size}) from {sender}"));
            }
            // The speed is not known yet.
            ReceiverEvent::Receiving => self.lines.line(now, "receiving"),
            ReceiverEvent::Resumed { bytes } => self.lines.line(now, &text::held(*bytes, s.total())),
            ReceiverEvent::Committing => self.lines.line(now, "all verified, syncing to disk"),
            ReceiverEvent::ForgedSymbols { .. } => {
                if self.memory.tells_forgery(s.forged_symbols) {
                    self.warn(now, FORGERY);
                }
            }
            ReceiverEvent::BlockRejected(block) => {
                self.lines
                    .note(now, &format!("block {block} is not what the sender hashed; fetching it again"));
            }
            ReceiverEvent::Committed { path, .. } => {
                self.lines.line(now, &format!("saved {}", text::escape(&path.to_string_lossy())));
            }
            ReceiverEvent::SenderTrusted { key, address, decision, relayed } => {
                self.lines.line(now, &trust::trusted(key, address.ip(), *decision, *relayed));
            }
            ReceiverEvent::SenderRefused { key, address, decision } => {
                if self.memory.tells_refusal(key) {
                    self.warn(now, &trust::refused(key, address.ip(), *decision));
                }
            }
            ReceiverEvent::SenderNeeds { need, address } => {
                self.warn(now, &trust::needs(need, address.ip()));
            }
            ReceiverEvent::OtherName { name, address } => {
                self.lines.line(now, &text::other_name(name, address.ip()));
            }
            ReceiverEvent::OldSession { key, address } => {
                self.warn(now, &trust::old_session(key, address.ip()));
            }
            ReceiverEvent::Hook(change) => self.lines.line(now, &text::hook(change)),
            ReceiverEvent::Admitted | ReceiverEvent::Finished(_) => {}
        }
    }

    fn tick(&mut self, now: Time, s: &ReceiverSnapshot) {
        self.memory.data.record(now, s.carried_bytes);
        let idle = matches!(self.memory.stage, Stage::Searching | Stage::Waiting);
        if self.lines.due(now, if idle { IDLE_INTERVAL } else { INTERVAL }) {
            let progress = self.progress(now, s);
            self.lines.line(now, &progress);
        }
    }

    fn finish(&mut self, now: Time, s: &ReceiverSnapshot, _: Exit) {
        if let Some(summary) = self.memory.summary(now, s) {
            self.lines.line(now, &summary);
        }
        // No program prints the hash of a tree.
        if let Some((path, root)) = self.memory.committed.as_ref().filter(|(path, _)| !path.is_dir()) {
            let _ = writeln!(self.sums, "{}", text::b3sum_line(root, path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::testing::{Shared, receiver_intro, row, sender_intro, snapshot};
    use mcp_transfer::protocol::event::{ReceiverOutcome, SenderOutcome};
    use mcp_transfer::protocol::trust::TrustDecision;
    use mcp_transfer::units::{Digest, Extent, SenderKey, SessionId, TaskId};

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_senders_log() {
        let out = Shared::default();
        let mut view = SenderPlain::new(Lines::new(out.clone(), false), sender_intro());
        let mut s = snapshot(Phase::Gathering);
        s.overview.expected = Some(2);
        view.event(at(0), &SenderEvent::Phase(Phase::Gathering), &s.overview);
        view.note(at(0), "not shown");
        view.tick(at(1), &s);
        view.tick(at(60), &s);
        let device = row("lab\x07", State::Pending);
        let joined = SenderEvent::Joined {
            device: device.assignment.device,
            label: device.assignment.label.clone(),
            address: device.transfer.address.unwrap(),
            key: None,
            late: false,
        };
        s = s.with_devices(vec![device, row("lab-2", State::Pending)]);
        view.event(at(61), &joined, &s.overview);
        s.overview.phase = Phase::Streaming;
        view.event(at(62), &SenderEvent::Phase(Phase::Streaming), &s.overview);
        view.tick(at(63), &s);
        s.overview.wire_bytes += 500_000_000;
        view.tick(at(67), &s);
        s.overview.phase = Phase::Repairing;
        view.event(at(68), &SenderEvent::Phase(Phase::Repairing), &s.overview);
        view.event(at(68), &SenderEvent::StoreFails("disk\x07 full".into()), &s.overview);
        view.event(at(69), &SenderEvent::StoreAnswers, &s.overview);
        let failed = row("lab-2", State::Failed("disk full".into()));
        s = s.with_devices(vec![row("lab\x07", State::Complete), failed]);
        view.event(at(69), &SenderEvent::Device(s.devices[1].clone()), &s.overview);
        view.event(at(69), &SenderEvent::Hashed(Digest([1; 32])), &s.overview);
        view.event(at(72), &SenderEvent::Finished(SenderOutcome::Ended), &s.overview);
        view.finish(at(72), &s, Exit::Incomplete);
        assert_eq!(
            out.text(),
            format!(
                "\
waiting for devices on 239.1.1.1 to send image.iso (100.00 MiB)
this sender is ma3i-cc7u-6r2h-7k5c, sealed with key lab
waiting for devices: 0 of 2
lab\\u{{7}} joined from 10.0.0.7:40000
sending image.iso (100.00 MiB) to 2 devices
sending: 50 %, 1.00 Gbit/s, repair 1.3 %, 0 of 2 devices complete
all sent after 6.0s, 0 of 2 devices complete so far
warning: the task store fails: disk\\u{{7}} full; the transfer goes on, and devices wait for the answer to their receipts
the task store answers again
lab-2 failed: disk full
DEVICE    ADDRESS         STATUS    TIME  LOSS  REASON
lab-2     10.0.0.7:40000  failed     12s   0 %  disk full
lab\\u{{7}}  10.0.0.7:40000  complete   12s   0 %
1 of 2 devices complete in 10s
100.00 MiB, 83.9 Mbit/s goodput, 5.328 bytes on the wire per byte
{}  image.iso
",
                "01".repeat(32)
            )
        );
    }

    #[test]
    fn a_receivers_log() {
        let (out, sums) = (Shared::default(), Shared::default());
        let lines = Lines::new(out.clone(), true);
        let intro = ReceiverIntro { sealed_with: Some("lab, attic".into()), ..receiver_intro() };
        let mut view = ReceiverPlain::new(lines, Box::new(sums.clone()), intro);
        let mut s = ReceiverSnapshot::default();
        view.note(at(0), "listening on lo");
        view.tick(at(59), &s);
        view.tick(at(60), &s);
        let found = ReceiverEvent::Found {
            session: SessionId(1),
            task: TaskId([0; 16]),
            sender: "10.0.0.1:7418".parse().unwrap(),
            name: "a\nb".into(),
            extent: Extent::sealed(1 << 20),
            entries: Some(7),
        };
        let address = "10.0.0.1:7418".parse().unwrap();
        let (key, decision) = (SenderKey([8; 32]), TrustDecision::Stranger);
        for _ in 0..3 {
            view.event(at(66), &ReceiverEvent::SenderRefused { key, address, decision }, &s);
        }
        let (key, decision) = (SenderKey([7; 32]), TrustDecision::Unverified);
        view.event(at(67), &ReceiverEvent::SenderTrusted { key, address, decision, relayed: false }, &s);
        view.event(at(67), &found, &s);
        s.object_size = 1 << 20;
        view.event(at(68), &ReceiverEvent::Receiving, &s);
        view.tick(at(68), &s);
        (s.received, s.lost, s.received_bytes) = (99, 1, 1 << 19);
        s.carried_bytes = s.received_bytes;
        view.tick(at(73), &s);
        view.event(at(74), &ReceiverEvent::BlockRejected(7), &s);
        view.event(at(75), &ReceiverEvent::Committing, &s);
        view.event(at(76), &ReceiverEvent::Committed { path: "/srv/x".into(), root: Digest([2; 32]) }, &s);
        view.event(at(77), &ReceiverEvent::Finished(ReceiverOutcome::Complete { acknowledged: false }), &s);
        view.finish(at(77), &s, Exit::Complete);
        assert_eq!(
            out.text(),
            format!(
                "\
waiting for a sender on 239.1.1.1 as lab-07, sealed with lab, attic
listening on lo
still waiting for a sender on 239.1.1.1, 1m so far
warning: {}
sender unverified: ma3i-cc7u-6r2h-7k5c at 10.0.0.1; name the sender with --sender to be sure
found a\\u{{a}}b (7 entries, 1.00 MiB) from 10.0.0.1:7418
receiving
receiving: 50 %, 839 kbit/s, loss 1.0 %, 6s left
block 7 is not what the sender hashed; fetching it again
all verified, syncing to disk
saved /srv/x
received 1.00 MiB in 8.0s: 1.05 Mbit/s, loss 1.0 %; the sender did not confirm that it knows
",
                trust::refused(&SenderKey([8; 32]), address.ip(), TrustDecision::Stranger)
            )
        );
        assert_eq!(sums.text(), format!("{}  /srv/x\n", "02".repeat(32)));
    }
}
