//! `--json`: one event a line on stdout or to a file, for programs. `docs/events.md` is the schema; every object is
//! flat. Text from the network is escaped for JSON, not for a terminal.

use super::memory::{ReceiverMemory, SenderMemory};
use super::schema::{Counters, ReceiverCounters, Row, phase_word, seconds, sender_outcome, told};
use super::{Exit, Notes, ReceiverIntro, ReceiverView, SenderIntro, SenderView, text};
use mcp_transfer::protocol::event::{
    HookChange, ReceiverEvent, ReceiverOutcome, ReceiverSnapshot, SenderEvent, SenderOverview, SenderSnapshot,
};
use mcp_transfer::protocol::trust::TrustDecision;
use mcp_transfer::time::Time;
use serde::Serialize;
pub use stream::{Lines, Stream};

mod stream;

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers {
    Sender(Counters),
    Receiver(ReceiverCounters),
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Start {
        command: &'static str,
        version: &'static str,
        group: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        task: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        entries: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        label: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
        sealed_with: Option<&'a str>,
    },
    Note {
        text: &'a str,
    },
    Warning {
        text: &'a str,
    },
    Phase {
        phase: &'static str,
    },
    Joined {
        device: String,
        label: &'a str,
        address: String,
        device_key: Option<String>,
        late: bool,
    },
    DeviceKeyChanged {
        device: String,
        label: &'a str,
        device_key: Option<String>,
        expected: String,
    },
    NotListed {
        label: &'a str,
        address: String,
        device_key: Option<String>,
        named: bool,
    },
    DuplicateId {
        device: String,
        label: &'a str,
        addresses: [String; 2],
    },
    Status(Row<'a>),
    StoreFails {
        reason: &'a str,
    },
    StoreAnswers,
    Hashed {
        blake3: String,
    },
    Found {
        session: String,
        task: String,
        sender: String,
        name: &'a str,
        size: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        entries: Option<u32>,
    },
    SenderTrusted {
        key: String,
        fingerprint: String,
        address: String,
        decision: &'static str,
        /// Whether the key is the origin's, and another machine at the address sends the object.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        relayed: bool,
    },
    SenderRefused {
        key: String,
        fingerprint: String,
        address: String,
        decision: &'static str,
        expected: Option<String>,
    },
    SenderNeeds {
        address: String,
        need: String,
    },
    OldSession {
        address: String,
        key: String,
    },
    OtherName {
        address: String,
        name: &'a str,
    },
    Admitted,
    Receiving,
    Resumed {
        bytes: u64,
        percent: Option<f64>,
    },
    BlockRejected {
        block: u32,
    },
    ForgedSymbols {
        block: u32,
        symbols: u32,
    },
    Committing,
    Committed {
        path: String,
        blake3: String,
    },
    Hook {
        state: &'static str,
        status: Option<i32>,
    },
    Progress {
        phase: Option<&'static str>,
        bits_per_second: u64,
        #[serde(flatten)]
        counters: Numbers,
    },
    Device(Row<'a>),
    Missed {
        events: u64,
    },
    Finished {
        outcome: &'static str,
        reason: Option<String>,
        exit: &'static str,
        exit_code: u8,
        transfer_seconds: f64,
        bits_per_second: u64,
        blake3: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<Option<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        acknowledged: Option<Option<bool>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hook: Option<Option<i32>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sender_key: Option<Option<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sender_trust: Option<Option<&'static str>>,
        #[serde(flatten)]
        counters: Numbers,
    },
}

/// A sender's events.
pub struct SenderJson {
    stream: Stream,
    memory: SenderMemory,
}

impl SenderJson {
    /// A view that writes to `stream`. Writes its `start` event at once.
    pub fn new(mut stream: Stream, intro: SenderIntro) -> Self {
        let start = Event::Start {
            command: "send",
            version: env!("CARGO_PKG_VERSION"),
            group: &intro.group,
            task: Some(intro.task.to_string()),
            session: Some(intro.session.to_string()),
            name: Some(&intro.name),
            size: intro.size,
            entries: intro.entries,
            device: None,
            label: None,
            key: Some(intro.sender.line()),
            fingerprint: Some(intro.sender.fingerprint()),
            sealed_with: intro.sealed_with.as_deref(),
        };
        stream.emit(Time::ZERO, start);
        Self { stream, memory: SenderMemory::default() }
    }
}

impl Notes for SenderJson {
    fn note(&mut self, now: Time, text: &str) {
        self.stream.note(now, text);
    }
    fn warn(&mut self, now: Time, text: &str) {
        self.stream.emit(now, Event::Warning { text });
    }
}

impl SenderView for SenderJson {
    fn event(&mut self, now: Time, event: &SenderEvent, _: &SenderOverview) {
        self.memory.event(now, event);
        let event = match event {
            SenderEvent::Phase(phase) => Event::Phase { phase: phase_word(*phase) },
            SenderEvent::Joined { device, label, address, key, late } => Event::Joined {
                device: device.to_string(),
                label,
                address: address.to_string(),
                device_key: key.map(|key| key.line()),
                late: *late,
            },
            SenderEvent::DeviceKeyChanged { device, label, key, before } => Event::DeviceKeyChanged {
                device: device.to_string(),
                label,
                device_key: key.map(|key| key.line()),
                expected: before.line(),
            },
            SenderEvent::NotListed { label, address, key, named } => Event::NotListed {
                label,
                address: address.to_string(),
                device_key: key.map(|key| key.line()),
                named: *named,
            },
            SenderEvent::DuplicateId { device, label, addresses } => Event::DuplicateId {
                device: device.to_string(),
                label,
                addresses: addresses.map(|address| address.to_string()),
            },
            SenderEvent::Device(row) => Event::Status(row.into()),
            SenderEvent::StoreFails(reason) => Event::StoreFails { reason },
            SenderEvent::StoreAnswers => Event::StoreAnswers,
            SenderEvent::Hashed(root) => Event::Hashed { blake3: root.to_string() },
            // `finish` reports it, with the final counters.
            SenderEvent::Finished(_) => return,
        };
        self.stream.emit(now, event);
    }

    fn tick(&mut self, now: Time, s: &SenderSnapshot) {
        self.memory.wire.record(now, s.overview.wire_bytes);
        if self.stream.due(now) {
            let event = Event::Progress {
                phase: Some(phase_word(s.overview.phase)),
                bits_per_second: self.memory.wire.bits_per_second(),
                counters: Numbers::Sender((&s.overview).into()),
            };
            self.stream.emit(now, event);
        }
    }

    fn finish(&mut self, now: Time, s: &SenderSnapshot, exit: Exit) {
        for row in &s.devices {
            self.stream.emit(now, Event::Device(row.into()));
        }
        let time = self.memory.transfer_time(now);
        let (outcome, reason) = sender_outcome(self.memory.outcome.take());
        let event = Event::Finished {
            outcome,
            reason,
            exit: exit.word(),
            exit_code: exit.code(),
            transfer_seconds: seconds(time),
            bits_per_second: text::bits_per_second(s.overview.wire_bytes, time),
            blake3: self.memory.root.map(|root| root.to_string()),
            path: None,
            acknowledged: None,
            hook: None,
            sender_key: None,
            sender_trust: None,
            counters: Numbers::Sender((&s.overview).into()),
        };
        self.stream.emit(now, event);
    }
}

/// A receiver's events.
pub struct ReceiverJson {
    stream: Stream,
    memory: ReceiverMemory,
}

impl ReceiverJson {
    /// A view that writes to `stream`. Writes its `start` event at once.
    pub fn new(mut stream: Stream, intro: ReceiverIntro) -> Self {
        let start = Event::Start {
            command: "recv",
            version: env!("CARGO_PKG_VERSION"),
            group: &intro.group,
            task: None,
            session: None,
            name: intro.name.as_deref(),
            size: None,
            entries: None,
            device: Some(intro.device.to_string()),
            label: Some(&intro.label),
            key: None,
            fingerprint: None,
            sealed_with: intro.sealed_with.as_deref(),
        };
        stream.emit(Time::ZERO, start);
        Self { stream, memory: ReceiverMemory::default() }
    }
}

impl Notes for ReceiverJson {
    fn note(&mut self, now: Time, text: &str) {
        self.stream.note(now, text);
    }
    fn warn(&mut self, now: Time, text: &str) {
        self.stream.emit(now, Event::Warning { text });
    }
}

impl ReceiverView for ReceiverJson {
    fn event(&mut self, now: Time, event: &ReceiverEvent, s: &ReceiverSnapshot) {
        self.memory.event(now, event);
        let event = match event {
            ReceiverEvent::Found { session, task, sender, name, extent, entries } => Event::Found {
                session: session.to_string(),
                task: task.to_string(),
                sender: sender.to_string(),
                name,
                size: extent.total(),
                entries: *entries,
            },
            ReceiverEvent::Admitted => Event::Admitted,
            ReceiverEvent::Receiving => Event::Receiving,
            ReceiverEvent::Resumed { bytes } => {
                let percent = s.total().map(|total| text::percent(*bytes, total.max(1)));
                let percent = percent.map(|percent| (percent * 10.0).round() / 10.0);
                Event::Resumed { bytes: *bytes, percent }
            }
            ReceiverEvent::BlockRejected(block) => Event::BlockRejected { block: *block },
            ReceiverEvent::ForgedSymbols { block, symbols } => {
                Event::ForgedSymbols { block: *block, symbols: *symbols }
            }
            ReceiverEvent::Committing => Event::Committing,
            ReceiverEvent::Committed { path, root } => {
                Event::Committed { path: path.to_string_lossy().into_owned(), blake3: root.to_string() }
            }
            ReceiverEvent::SenderTrusted { key, address, decision, relayed } => Event::SenderTrusted {
                key: key.line(),
                fingerprint: key.fingerprint(),
                address: address.to_string(),
                decision: decision.word(),
                relayed: *relayed,
            },
            ReceiverEvent::SenderRefused { key, address, decision } => {
                if !self.memory.tells_refusal(key) {
                    return;
                }
                Event::SenderRefused {
                    key: key.line(),
                    fingerprint: key.fingerprint(),
                    address: address.to_string(),
                    decision: decision.word(),
                    expected: match decision {
                        TrustDecision::Changed { expected } => Some(expected.line()),
                        _ => None,
                    },
                }
            }
            ReceiverEvent::SenderNeeds { need, address } => {
                Event::SenderNeeds { address: address.to_string(), need: need.to_string() }
            }
            ReceiverEvent::OtherName { name, address } => {
                Event::OtherName { address: address.to_string(), name }
            }
            ReceiverEvent::OldSession { key, address } => {
                Event::OldSession { address: address.to_string(), key: key.line() }
            }
            ReceiverEvent::Hook(change) => match change {
                HookChange::Started => Event::Hook { state: "started", status: None },
                HookChange::Skipped => Event::Hook { state: "skipped", status: None },
                HookChange::Ended(end) => Event::Hook { state: "ended", status: Some(end.status) },
            },
            // `finish` tells it, with the final counters.
            ReceiverEvent::Finished(_) => return,
        };
        self.stream.emit(now, event);
    }

    fn tick(&mut self, now: Time, s: &ReceiverSnapshot) {
        self.memory.data.record(now, s.carried_bytes);
        if self.stream.due(now) {
            let event = Event::Progress {
                phase: s.phase.map(phase_word),
                bits_per_second: self.memory.data.bits_per_second(),
                counters: Numbers::Receiver(s.into()),
            };
            self.stream.emit(now, event);
        }
    }

    fn finish(&mut self, now: Time, s: &ReceiverSnapshot, exit: Exit) {
        let time = self.memory.transfer_time(now);
        let mut acknowledged = None;
        let (outcome, reason) = match self.memory.outcome.take() {
            Some(ReceiverOutcome::Complete { acknowledged: known }) => {
                acknowledged = Some(known);
                ("complete", None)
            }
            Some(ReceiverOutcome::HookFailed { end, acknowledged: known, .. }) => {
                acknowledged = Some(known);
                ("hook_failed", end.failure)
            }
            Some(ReceiverOutcome::AlreadyComplete) => ("already_complete", None),
            Some(ReceiverOutcome::NoSender) => ("no_sender", None),
            Some(ReceiverOutcome::SenderNeeds(need)) => ("no_sender", Some(format!("a sender needs {need}"))),
            Some(ReceiverOutcome::SenderSilent) => ("sender_silent", None),
            Some(ReceiverOutcome::Lacking { blocks, of, .. }) => {
                ("lacking", Some(format!("lacks {blocks} of {of} blocks")))
            }
            Some(ReceiverOutcome::SenderAborted(code, reason)) => ("sender_aborted", told(code, &reason)),
            Some(ReceiverOutcome::Refused) => ("refused", None),
            Some(ReceiverOutcome::NotListed) => ("not_listed", None),
            Some(ReceiverOutcome::Failed(code, reason)) => ("failed", told(code, &reason)),
            Some(ReceiverOutcome::Interrupted) => ("interrupted", None),
            None => ("failed", Some("the run ended without an outcome".to_owned())),
        };
        let event = Event::Finished {
            outcome,
            reason,
            exit: exit.word(),
            exit_code: exit.code(),
            transfer_seconds: seconds(time),
            bits_per_second: text::bits_per_second(s.carried_bytes, time),
            blake3: self.memory.committed.as_ref().map(|(_, root)| root.to_string()),
            path: Some(self.memory.committed.as_ref().map(|(path, _)| path.to_string_lossy().into_owned())),
            acknowledged: Some(acknowledged),
            hook: Some(self.memory.hook),
            sender_key: Some(s.trusted.map(|(key, _)| key.line())),
            sender_trust: Some(s.trusted.map(|(_, decision)| decision.word())),
            counters: Numbers::Receiver(s.into()),
        };
        self.stream.emit(now, event);
    }
}

#[cfg(test)]
mod tests;
