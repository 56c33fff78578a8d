//! The result of a sender's run is reported in five ways: the outcome, the exit code, the last error, the table and
//! the report. Checks that they agree, whatever has happened.

use super::super::actors::{SimActor, TASK, device_id};
use super::super::network::address;
use super::super::world::World;
use super::{Device, SENDER, Transfer};
use crate::cli::report;
use crate::engine::jobs::final_snapshot;
use crate::protocol::event::{SenderOutcome, SenderSnapshot};
use crate::protocol::statistics::DeviceRow;
use crate::task::State;
use crate::ui::report_file::Report;
use crate::ui::{Exit, SenderIntro, final_table};
use crate::units::{SenderKey, SessionId};
use serde_json::Value;
use std::time::{Duration, SystemTime};

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
        let about = format!("{outcome:?}, {exit:?}, expected {expected:?}, {rows:#?}");
        let report = self.report(&word, exit);
        let reported = report["devices"].as_array().expect("rows");
        assert_eq!(reported.len(), rows.len(), "{about}");
        let table = final_table(&word);
        let complete = reported.iter().filter(|row| row["status"] == "complete").count();
        for (row, reported) in rows.iter().zip(reported) {
            assert_eq!(reported["device"], row.assignment.device.to_string(), "{about}");
            assert_eq!(reported["status"], row.word(), "{about}");
            let reason = match row.assignment.state() {
                State::Failed(reason) => Value::from(reason.as_str()),
                _ => Value::Null,
            };
            assert_eq!(reported["reason"], reason, "{about}");
            let line = |line: &&str| {
                let address = row.transfer.address.map_or(String::new(), |address| address.to_string());
                line.contains(&address) && line.contains(row.word())
            };
            assert!(rows.len() > 50 || table.lines().any(|l| line(&l)), "{about}\n{table}");
        }
        let wanted = rows.len().max(expected.map_or(0, |n| n as usize));
        assert_eq!(report["counters"]["devices_complete"], complete, "{about}");
        assert_eq!(report["counters"]["devices"], rows.len(), "{about}");
        assert_eq!(report["wanted"], wanted, "{about}");
        assert_eq!(report["exit_code"], exit.code(), "{about}");
        let code = match outcome {
            SenderOutcome::Ended if complete == 0 => 4,
            SenderOutcome::Ended if complete < wanted => 3,
            SenderOutcome::Ended => 0,
            SenderOutcome::Interrupted => 130,
            SenderOutcome::SourceFailed(_) | SenderOutcome::StoreFailed(_) | SenderOutcome::Internal(_) => 1,
        };
        assert_eq!(exit.code(), code, "{about}");
        if self.scenario.listed {
            // Nobody can be added to the list, and nobody on it be spoken for.
            assert!(rows.len() <= self.devices.len(), "{about}");
            let has = |device: &Device| self.checker.has_object(&device.disk);
            assert!(code != 0 || self.devices.iter().all(has), "{about}");
        }
        let error = report::of_sender(outcome, rows, expected);
        assert_eq!(error.is_none(), code == 0, "{about}: {error:?}");
        if let (SenderOutcome::StoreFailed(why), Some(error)) = (outcome, error) {
            assert!(error.line().contains(why), "{error:?}");
        }
        if *outcome == SenderOutcome::Ended {
            // An end as planned leaves nothing that the store does not have.
            assert!(rows.iter().all(|row| row.transfer.activity.is_none()), "{about}");
            let open = |row: &DeviceRow| !row.assignment.state().is_final() && !row.is_missing();
            assert!(!rows.iter().any(open), "{about}");
        }
    }

    fn report(&self, snapshot: &SenderSnapshot, exit: Exit) -> Value {
        let intro = SenderIntro {
            task: TASK,
            session: SessionId(1),
            name: super::NAME.to_owned(),
            size: self.scenario.layout.object_size(),
            group: String::new(),
            enter_starts: false,
            sender: SenderKey([0; 32]),
            sealed_with: None,
        };
        let elapsed = Duration::from_secs(1);
        let started = SystemTime::UNIX_EPOCH;
        let report = Report { intro: &intro, snapshot, root: None, started, elapsed, exit };
        serde_json::from_str(&report.to_json()).expect("a report is JSON")
    }
}
