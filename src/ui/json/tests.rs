use super::*;
use crate::ui::testing::{Shared, receiver_intro, row, sender_intro, snapshot};
use mcp_transfer::protocol::event::{HookChange, HookEnd, SenderOutcome};
use mcp_transfer::protocol::statistics::Activity;
use mcp_transfer::task::State;
use mcp_transfer::units::{DeviceKey, Digest, Extent, SenderKey, SessionId, TaskId};
use mcp_transfer::wire::{AbortCode, Phase};
use serde_json::Value;
use std::io::Write;
use std::time::Duration;

fn at(ms: u64) -> Time {
    Time::ZERO + Duration::from_millis(ms)
}

fn lines(out: &Shared) -> Vec<Value> {
    let lines: Vec<Value> = out.text().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for line in &lines {
        assert!(line["event"].is_string() && line["time"].is_f64(), "{line}");
        let flat = line.as_object().unwrap().values().all(|v| !v.is_object() && !v.is_array());
        assert!(flat, "{line}");
    }
    lines
}

fn names(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|l| l["event"].as_str().unwrap()).collect()
}

/// Checks that `docs/events.md` describes every event and field named here, and the reverse.
fn check_documented(lines: &[Value], command: &str) {
    let documentation = include_str!("../../../docs/events.md");
    for line in lines {
        let name = line["event"].as_str().unwrap();
        let example = documentation
            .lines()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok())
            .find(|v| {
                let ours = matches!(name, "start" | "progress" | "finished");
                v["event"] == name && (!ours || same_keys(v, line))
            })
            .unwrap_or_else(|| panic!("no example of {command} {line}"));
        assert!(same_keys(&example, line), "{example}\n{line}");
    }
}

fn same_keys(a: &Value, b: &Value) -> bool {
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
    keys(a) == keys(b)
}

#[test]
fn a_senders_events() {
    let out = Shared::default();
    let mut view = SenderJson::new(Stream::new(Lines::to(out.clone()), true), sender_intro());
    let mut s = snapshot(Phase::Streaming);
    view.note(at(1), "interface lo");
    view.warn(at(2), "small buffers");
    view.event(at(3), &SenderEvent::Phase(Phase::Streaming), &s.overview);
    let device = row("lab\x1b\"", State::Failed("disk\nfull".into()));
    let joined = SenderEvent::Joined {
        device: device.assignment.device,
        label: device.assignment.label.clone(),
        address: device.transfer.address.unwrap(),
        key: Some(DeviceKey([7; 32])),
        late: true,
    };
    view.event(at(4), &joined, &s.overview);
    let mut repaired = row("lab-2", State::Active);
    repaired.transfer.activity = Some(Activity::Repairing);
    repaired.transfer.deficit = Some(7);
    s = s.with_devices(vec![device.clone(), repaired]);
    view.event(at(5), &SenderEvent::Device(device), &s.overview);
    view.event(at(6), &SenderEvent::Hashed(Digest([1; 32])), &s.overview);
    view.event(at(7), &SenderEvent::StoreFails("the database is away".into()), &s.overview);
    view.event(at(8), &SenderEvent::StoreAnswers, &s.overview);
    view.tick(at(10), &s);
    view.tick(at(500), &s);
    s.overview.wire_bytes += 1_000_000;
    view.tick(at(1_010), &s);
    view.event(
        at(1_100),
        &SenderEvent::Finished(SenderOutcome::SourceFailed("it shrank".into())),
        &s.overview,
    );
    view.finish(at(1_234), &s, Exit::Environment);
    let lines = lines(&out);
    assert_eq!(
        names(&lines),
        [
            "start",
            "note",
            "warning",
            "phase",
            "joined",
            "status",
            "hashed",
            "store_fails",
            "store_answers",
            "progress",
            "progress",
            "device",
            "device",
            "finished"
        ]
    );
    assert_eq!(lines[0]["command"], "send");
    assert_eq!(lines[0]["key"], SenderKey([7; 32]).line());
    assert_eq!(lines[0]["sealed_with"], "lab");
    assert_eq!(lines[3]["phase"], "streaming");
    assert_eq!(lines[4]["label"], "lab\x1b\"");
    assert_eq!(lines[5]["reason"], "disk\nfull");
    assert_eq!((&lines[5]["attempts"], &lines[5]["activity"]), (&Value::from(1), &Value::Null));
    assert_eq!(lines[10]["bits_per_second"], 8_000_000);
    assert_eq!(lines[10]["devices_failed"], 1);
    assert_eq!(lines[12]["deficit_blocks"], 7);
    assert_eq!((&lines[12]["status"], &lines[12]["activity"]), (&"active".into(), &"repairing".into()));
    let last = &lines[13];
    assert_eq!(
        (last["outcome"].as_str(), last["reason"].as_str()),
        (Some("source_failed"), Some("it shrank"))
    );
    assert_eq!((last["exit"].as_str(), last["exit_code"].as_u64()), (Some("environment"), Some(1)));
    assert_eq!((last["time"].as_f64(), last["transfer_seconds"].as_f64()), (Some(1.234), Some(1.231)));
    assert_eq!(last["blake3"], "01".repeat(32));
    check_documented(&lines, "send");
}

#[test]
fn a_receivers_events() {
    let out = Shared::default();
    let mut view = ReceiverJson::new(Stream::new(Lines::to(out.clone()), false), receiver_intro());
    let (known, stranger) = (SenderKey([7; 32]), SenderKey([8; 32]));
    let s = ReceiverSnapshot {
        object_size: 5,
        received: 3,
        trusted: Some((known, TrustDecision::Known)),
        ..ReceiverSnapshot::default()
    };
    view.note(at(1), "not shown without -v");
    let address = "10.0.0.1:7418".parse().unwrap();
    let decision = TrustDecision::Changed { expected: known };
    // Reported once, however often the sender announces itself.
    for _ in 0..3 {
        view.event(at(1), &ReceiverEvent::SenderRefused { key: stranger, address, decision }, &s);
    }
    let decision = TrustDecision::Known;
    view.event(at(2), &ReceiverEvent::SenderTrusted { key: known, address, decision, relayed: false }, &s);
    let found = ReceiverEvent::Found {
        session: SessionId(1),
        task: TaskId([0; 16]),
        sender: "[fe80::1]:7417".parse().unwrap(),
        name: "größe".into(),
        entries: None,
        extent: Extent::sealed(5),
    };
    view.event(at(2), &found, &s);
    view.event(at(3), &ReceiverEvent::Admitted, &s);
    view.event(at(4), &ReceiverEvent::Receiving, &s);
    view.event(at(4), &ReceiverEvent::Resumed { bytes: 3 }, &s);
    view.event(at(5), &ReceiverEvent::BlockRejected(9), &s);
    view.event(at(5), &ReceiverEvent::ForgedSymbols { block: 9, symbols: 2 }, &s);
    view.tick(at(6), &s);
    view.event(at(7), &ReceiverEvent::Committing, &s);
    view.event(at(8), &ReceiverEvent::Committed { path: "/srv/größe".into(), root: Digest([1; 32]) }, &s);
    view.event(at(8), &ReceiverEvent::Hook(HookChange::Started), &s);
    let end = HookEnd::of_status(3);
    view.event(at(9), &ReceiverEvent::Hook(HookChange::Ended(end.clone())), &s);
    let outcome = ReceiverOutcome::HookFailed { end, acknowledged: true, interrupted: false };
    view.event(at(9), &ReceiverEvent::Finished(outcome), &s);
    view.finish(at(9), &s, Exit::HookFailed);
    let lines = lines(&out);
    assert_eq!(
        names(&lines),
        [
            "start",
            "sender_refused",
            "sender_trusted",
            "found",
            "admitted",
            "receiving",
            "resumed",
            "block_rejected",
            "forged_symbols",
            "progress",
            "committing",
            "committed",
            "hook",
            "hook",
            "finished"
        ]
    );
    assert_eq!(lines[0]["label"], "lab-07");
    assert_eq!(lines[1]["expected"], known.line());
    assert_eq!(lines[1]["decision"], "changed");
    assert_eq!(lines[2]["fingerprint"], known.fingerprint());
    assert_eq!(lines[3]["sender"], "[fe80::1]:7417");
    assert_eq!((&lines[6]["bytes"], &lines[6]["percent"]), (&3.into(), &60.0.into()));
    assert_eq!(lines[11]["path"], "/srv/größe");
    assert_eq!((&lines[12]["state"], &lines[12]["status"]), (&"started".into(), &Value::Null));
    assert_eq!((&lines[13]["state"], &lines[13]["status"]), (&"ended".into(), &3.into()));
    let last = &lines[14];
    assert_eq!((&last["outcome"], &last["exit_code"]), (&"hook_failed".into(), &7.into()));
    assert_eq!(last["reason"], "its --then command exited with 3");
    assert_eq!((&last["acknowledged"], &last["hook"]), (&true.into(), &3.into()));
    assert_eq!(last["received_datagrams"], 3);
    assert_eq!(last["sender_key"], known.line());
    assert_eq!(last["sender_trust"], "known");
    check_documented(&lines, "recv");
}

#[test]
fn a_receivers_failure_has_its_reason() {
    let out = Shared::default();
    let mut view = ReceiverJson::new(Stream::new(Lines::to(out.clone()), false), receiver_intro());
    let s = ReceiverSnapshot::default();
    let outcome = ReceiverOutcome::SenderAborted(AbortCode::Source, "the file shrank".into());
    view.event(at(1), &ReceiverEvent::Finished(outcome), &s);
    view.finish(at(1), &s, Exit::BrokenOff);
    let lines = lines(&out);
    assert_eq!(lines[1]["outcome"], "sender_aborted");
    assert_eq!(lines[1]["reason"], "source: the file shrank");
    assert_eq!(lines[1]["exit_code"], 6);
}

#[test]
fn a_reader_is_told_how_much_it_has_missed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let file = crate::ui::EventFile::open(&path).unwrap();
    let mut view = ReceiverJson::new(Stream::new(file.lines(), false), receiver_intro());
    let large = "x".repeat(mcp_transfer::limits::MAX_EVENT_BACKLOG / 2 - 1000);
    for at_ms in 0..5 {
        view.warn(at(at_ms), &large);
    }
    let reader = std::thread::spawn(move || std::fs::read_to_string(path).unwrap());
    view.finish(at(9), &ReceiverSnapshot::default(), Exit::Interrupted);
    drop(file);
    let out = Shared::default();
    out.clone().write_all(reader.join().unwrap().as_bytes()).unwrap();
    let lines = lines(&out);
    assert_eq!(names(&lines), ["start", "warning", "warning", "missed", "finished"]);
    assert_eq!((&lines[3]["events"], &lines[4]["exit_code"]), (&3.into(), &130.into()));
    check_documented(&lines[3..], "recv");
}
