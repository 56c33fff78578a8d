//! The result of a sender's run is reported in six ways: the outcome, the exit code, the last error, the table, the
//! report and the events of `--json`; that of a device's run in four. Checks that they agree, whatever has happened.

use super::super::actors::{SimActor, TASK, device_id, device_label};
use super::super::network::address;
use super::super::world::World;
use super::{Device, SENDER, Transfer};
use crate::cli::report;
use crate::engine::jobs::final_snapshot;
use crate::protocol::event::{ReceiverOutcome, SenderOutcome, SenderSnapshot};
use crate::protocol::statistics::DeviceRow;
use crate::task::State;
use crate::ui::report_file::Report;
use crate::ui::{
    Exit, ReceiverIntro, ReceiverView, SenderIntro, SenderView, final_table, json_receiver_view,
    json_sender_view,
};
use crate::units::{SenderKey, SessionId};
use serde::Deserialize;
use serde_json::Value;
use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// What a view has printed.
#[derive(Clone, Default)]
struct Printed(Rc<RefCell<Vec<u8>>>);

/// An event, by its name.
#[derive(Deserialize)]
struct Named<'a> {
    event: &'a str,
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Printed {
    /// All lines are events. Only rows and the last one are taken apart further.
    fn events(&self) -> Vec<Value> {
        let bytes = self.0.borrow();
        let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).peekable();
        let mut events = Vec::new();
        while let Some(line) = lines.next() {
            let named: Named<'_> = serde_json::from_slice(line).expect("an event is JSON");
            if named.event == "device" || lines.peek().is_none() {
                events.push(serde_json::from_slice(line).expect("it is JSON"));
            }
        }
        events
    }
}

impl Transfer<'_, '_> {
    /// The sender's last word, if it has come to its end.
    pub(super) fn last_word(&self, world: &World<SimActor>) -> Option<SenderSnapshot> {
        let Some(SimActor::Sender(node)) = world.actor(SENDER) else { return None };
        let (store, clock) = &self.store;
        clock.set(world.now());
        Some(final_snapshot(node.engine.machine(), TASK, store, world.now()))
    }

    /// The rows that are left: of a sender that lost power, what its store has.
    pub(super) fn last_rows(&self, world: &World<SimActor>) -> Vec<DeviceRow> {
        let (store, clock) = &self.store;
        clock.set(world.now());
        let rows = || store.with(|store| store.assignments(TASK)).unwrap_or_default();
        self.last_word(world).map_or_else(|| DeviceRow::join(rows(), Vec::new()), |word| word.devices)
    }

    /// How far a device is, as the rows have it. Where another one came with its identifier first, its runs have
    /// other rows, and are known by their address. Where a host on the path repeated its join, its row may have
    /// that host's address, and is known by the identifier.
    pub(super) fn state_of(&self, rows: &[DeviceRow], index: u32) -> Option<State> {
        let at = address(index + 1);
        let mut own: Vec<_> = rows
            .iter()
            .filter(|row| match row.transfer.address {
                Some(address) => address == at,
                None => row.assignment.device == device_id(index),
            })
            .collect();
        if own.is_empty() {
            own = rows.iter().filter(|row| row.assignment.device == device_id(index)).collect();
        }
        own.sort_by_key(|row| (!row.assignment.is_complete(), row.assignment.device != device_id(index)));
        own.first().map(|row| row.assignment.state().clone())
    }

    /// Whether everything says the same of the sender's run.
    pub(super) fn check_agreement(&self, world: &World<SimActor>) {
        let (Some(word), Some(outcome)) = (self.last_word(world), &self.sender_outcome) else { return };
        let (rows, expected) = (&word.devices, self.scenario.expected);
        let exit = Exit::of_sender(outcome, rows, expected);
        let about = || format!("{outcome:?}, {exit:?}, expected {expected:?}, {rows:#?}");
        let report = self.report(&word, exit);
        let reported = report["devices"].as_array().expect("rows");
        assert_eq!(reported.len(), rows.len(), "{}", about());
        let table = final_table(&word);
        let complete = reported.iter().filter(|row| row["status"] == "complete").count();
        for (row, reported) in rows.iter().zip(reported) {
            assert_eq!(reported["device"], row.assignment.device.to_string(), "{}", about());
            assert_eq!(reported["status"], row.word(), "{}", about());
            let reason = match row.assignment.state() {
                State::Failed(reason) => Value::from(reason.as_str()),
                _ => Value::Null,
            };
            assert_eq!(reported["reason"], reason, "{}", about());
            let line = |line: &&str| {
                let address = row.transfer.address.map_or(String::new(), |address| address.to_string());
                line.contains(&address) && line.contains(row.word())
            };
            assert!(rows.len() > 50 || table.lines().any(|l| line(&l)), "{}\n{table}", about());
        }
        let wanted = rows.len().max(expected.map_or(0, |n| n as usize));
        assert_eq!(report["counters"]["devices_complete"], complete, "{}", about());
        assert_eq!(report["counters"]["devices"], rows.len(), "{}", about());
        assert_eq!(report["wanted"], wanted, "{}", about());
        assert_eq!(report["exit_code"], exit.code(), "{}", about());
        let code = match outcome {
            SenderOutcome::Ended if complete == 0 => 4,
            SenderOutcome::Ended if complete < wanted => 3,
            SenderOutcome::Ended | SenderOutcome::SentOneWay(_) => 0,
            SenderOutcome::Interrupted => 130,
            SenderOutcome::SourceFailed(_) | SenderOutcome::StoreFailed(_) | SenderOutcome::Internal(_) => 1,
        };
        assert_eq!(exit.code(), code, "{}", about());
        self.check_events(world, &word, exit, &report);
        if self.scenario.listed {
            // Nobody can be added to the list, and nobody on it be spoken for.
            assert!(rows.len() <= self.devices.len(), "{}", about());
            let has = |device: &Device| device.has_object(&self.checker);
            assert!(code != 0 || self.devices.iter().all(has), "{}", about());
        }
        let error = report::of_sender(outcome, rows, expected);
        assert_eq!(error.is_none(), code == 0, "{}: {error:?}", about());
        if let (SenderOutcome::StoreFailed(why), Some(error)) = (outcome, error) {
            assert!(error.line().contains(why), "{error:?}");
        }
        if *outcome == SenderOutcome::Ended {
            // An end as planned leaves nothing that the store does not have.
            assert!(rows.iter().all(|row| row.transfer.activity.is_none()), "{}", about());
            let open = |row: &DeviceRow| !row.assignment.state().is_final() && !row.is_missing();
            assert!(!rows.iter().any(open), "{}", about());
        }
    }

    /// Whether the sender's last events for `--json` say what the report says.
    fn check_events(&self, world: &World<SimActor>, word: &SenderSnapshot, exit: Exit, report: &Value) {
        let Some(SimActor::Sender(node)) = world.actor(SENDER) else { return };
        let printed = Printed::default();
        let mut view = json_sender_view(printed.clone(), false, self.intro());
        node.log.iter().for_each(|(at, event)| view.event(*at, event, &word.overview));
        view.finish(world.now(), word, exit);
        let events = printed.events();
        let last = events.last().expect("a last event");
        assert_eq!((&last["event"], &last["exit"]), (&Value::from("finished"), &report["exit"]), "{last}");
        assert_eq!(last["exit_code"], report["exit_code"], "{last}");
        for (name, value) in report["counters"].as_object().expect("counters") {
            assert_eq!(last[name], *value, "{name}: {last}");
        }
        let rows: Vec<&Value> = events.iter().filter(|event| event["event"] == "device").collect();
        let reported = report["devices"].as_array().expect("rows");
        assert_eq!(rows.len(), reported.len(), "{report:#}");
        for (row, reported) in rows.iter().zip(reported) {
            for name in ["device", "status", "reason"] {
                assert_eq!(row[name], reported[name], "{row}");
            }
        }
    }

    /// Whether everything says the same of a device's last run.
    pub(super) fn check_device_agreement(&self, world: &World<SimActor>, index: u32) {
        let Some(SimActor::Receiver(node)) = world.actor(index + 1) else { return };
        let Some(outcome) = &self.devices[index as usize].outcome else { return };
        let (exit, snapshot) = (Exit::of_receiver(outcome), node.engine.machine().snapshot());
        let printed = Printed::default();
        let intro = ReceiverIntro {
            device: device_id(index),
            label: device_label(index),
            name: None,
            group: String::new(),
            sealed_with: None,
        };
        let mut view = json_receiver_view(printed.clone(), false, intro);
        node.log.iter().for_each(|(at, event)| view.event(*at, event, &snapshot));
        view.finish(world.now(), &snapshot, exit);
        let events = printed.events();
        let last = events.last().expect("a last event");
        assert_eq!((last["event"].as_str(), last["exit"].as_str()), (Some("finished"), Some(exit.word())));
        assert_eq!(last["exit_code"], exit.code(), "{outcome:?}: {last}");
        let word = match outcome {
            ReceiverOutcome::Complete { .. } => "complete",
            ReceiverOutcome::AlreadyComplete => "already_complete",
            _ => "",
        };
        let complete = [last["outcome"].as_str() == Some(word), exit.code() == 0];
        assert_eq!(complete, [!word.is_empty(); 2], "{outcome:?}: {last}");
        assert_eq!(report::of_receiver(outcome, 0).is_none(), exit.code() == 0, "{outcome:?}");
    }

    fn intro(&self) -> SenderIntro {
        SenderIntro {
            holes: Vec::new(),
            task: TASK,
            session: SessionId(1),
            name: super::NAME.to_owned(),
            size: Some(self.scenario.layout.object_size()),
            entries: None,
            group: String::new(),
            enter_starts: false,
            sender: SenderKey([0; 32]),
            sealed_with: None,
        }
    }

    fn report(&self, snapshot: &SenderSnapshot, exit: Exit) -> Value {
        let intro = self.intro();
        let elapsed = Duration::from_secs(1);
        let started = SystemTime::UNIX_EPOCH;
        let report = Report { intro: &intro, snapshot, root: None, started, elapsed, exit };
        serde_json::from_str(&report.to_json()).expect("a report is JSON")
    }
}
