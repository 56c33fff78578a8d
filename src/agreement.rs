//! The result of a sender's run is reported in six ways: the outcome, the exit code, the last error, the table, the
//! report and the events of `--json`; that of a device's run in four. Checks that they agree at the end of every
//! simulated run, whatever has happened.

use crate::cli::report;
use crate::ui::report_file::Report;
use crate::ui::{
    Exit, ReceiverIntro, ReceiverView, SenderIntro, SenderView, final_table, json_receiver_view,
    json_sender_view,
};
use mcp_transfer::protocol::event::{ReceiverOutcome, SenderOutcome};
use mcp_transfer::sim::actors::{NAME, TASK};
use mcp_transfer::sim::surface::{DeviceEnd, SenderEnd, Surface};
use mcp_transfer::task::State;
use mcp_transfer::units::{SenderKey, SessionId};
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

/// Checks that everything says the same of each end.
#[derive(Clone, Copy, Debug)]
pub struct Agreement;

impl Surface for Agreement {
    fn sender_ended(&self, end: &SenderEnd<'_>) {
        let SenderEnd { outcome, expected, .. } = *end;
        let rows = &end.snapshot.devices;
        let exit = Exit::of_sender(outcome, rows, expected);
        let about = || format!("{outcome:?}, {exit:?}, expected {expected:?}, {rows:#?}");
        let report = report_of(end, exit);
        let reported = report["devices"].as_array().expect("rows");
        assert_eq!(reported.len(), rows.len(), "{}", about());
        let table = final_table(end.snapshot);
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
        check_events(end, exit, &report);
        let error = report::of_sender(outcome, rows, expected);
        assert_eq!(error.is_none(), code == 0, "{}: {error:?}", about());
        if let (SenderOutcome::StoreFailed(why), Some(error)) = (outcome, error) {
            assert!(error.line().contains(why), "{error:?}");
        }
    }

    fn device_ended(&self, end: &DeviceEnd<'_>) {
        let DeviceEnd { outcome, snapshot, .. } = *end;
        let exit = Exit::of_receiver(outcome);
        let printed = Printed::default();
        let intro = ReceiverIntro {
            device: end.device,
            label: end.label.clone(),
            name: None,
            group: String::new(),
            sealed_with: None,
        };
        let mut view = json_receiver_view(printed.clone(), false, intro);
        end.log.iter().for_each(|(at, event)| view.event(*at, event, snapshot));
        view.finish(end.now, snapshot, exit);
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
}

/// Whether the sender's last events for `--json` say what the report says.
fn check_events(end: &SenderEnd<'_>, exit: Exit, report: &Value) {
    let printed = Printed::default();
    let mut view = json_sender_view(printed.clone(), false, intro(end));
    end.log.iter().for_each(|(at, event)| view.event(*at, event, &end.snapshot.overview));
    view.finish(end.now, end.snapshot, exit);
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

fn intro(end: &SenderEnd<'_>) -> SenderIntro {
    SenderIntro {
        holes: Vec::new(),
        task: TASK,
        session: SessionId(1),
        name: NAME.to_owned(),
        size: Some(end.size),
        entries: None,
        group: String::new(),
        enter_starts: false,
        sender: SenderKey([0; 32]),
        sealed_with: None,
    }
}

fn report_of(end: &SenderEnd<'_>, exit: Exit) -> Value {
    let intro = intro(end);
    let elapsed = Duration::from_secs(1);
    let started = SystemTime::UNIX_EPOCH;
    let report = Report { intro: &intro, snapshot: end.snapshot, root: None, started, elapsed, exit };
    serde_json::from_str(&report.to_json()).expect("a report is JSON")
}
#[cfg(test)]
mod tests {
    use super::*;
    use mcp_transfer::sim::runner::{Runs, run_seeds};

    /// A small sample of the seeds that `examples/simulate.rs` runs.
    #[test]
    fn everything_says_the_same_of_seeds_of_mixed_faults() {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let failures = run_seeds(0..100, threads, Runs::Mixed, &Agreement, |_, _| {}).failures;
        assert!(failures.is_empty(), "{failures:#?}");
    }
}
