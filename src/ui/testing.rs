//! Rows and snapshots for the tests of the views.

use crate::ui::{ReceiverIntro, SenderIntro};
use mcp_transfer::protocol::event::{SenderOverview, SenderSnapshot};
use mcp_transfer::protocol::statistics::{DeviceRow, TransferStatistics};
use mcp_transfer::task::{Assignment, State, Summary};
use mcp_transfer::units::{DeviceId, Rate, SenderKey, SessionId, TaskId};
use mcp_transfer::wire::Phase;
use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

/// A row without losses; its identifier is made from the label.
pub fn row(label: &str, state: State) -> DeviceRow {
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(label.bytes()) {
        *to = from;
    }
    let mut assignment = Assignment::new(TaskId([1; 16]), DeviceId(id), label.to_owned());
    assignment.take_up();
    assignment.set(state).unwrap();
    DeviceRow {
        assignment,
        transfer: TransferStatistics {
            address: Some("10.0.0.7:40000".parse().unwrap()),
            elapsed: Duration::from_millis(12_300),
            ..TransferStatistics::default()
        },
    }
}

/// A snapshot half-way through 100 blocks of 1 MiB, without devices.
pub fn snapshot(phase: Phase) -> SenderSnapshot {
    let overview = SenderOverview {
        phase,
        blocks: 100,
        position: 50,
        object_size: 100 << 20,
        growing: false,
        streamed: 50 << 20,
        skipped: 0,
        rate: Rate(800_000_000),
        wire_bytes: 56 << 20,
        source_symbols: 37_300,
        repair_symbols: 480,
        unicast_symbols: 3,
        feedback: 17,
        ignored: 0,
        unknown_kinds: 0,
        not_understood: 0,
        suspects: 0,
        expected: None,
        devices: Summary::default(),
        missing: 0,
        passes: None,
    };
    SenderSnapshot { overview, devices: Vec::new() }
}

/// The introduction for a sender's view.
pub fn sender_intro() -> SenderIntro {
    SenderIntro {
        holes: Vec::new(),
        task: TaskId([1; 16]),
        session: SessionId(2),
        name: "image.iso".into(),
        size: Some(100 << 20),
        entries: None,
        group: "239.1.1.1".into(),
        enter_starts: true,
        sender: SenderKey([7; 32]),
        sealed_with: Some("lab".into()),
    }
}

/// The introduction for a receiver's view.
pub fn receiver_intro() -> ReceiverIntro {
    ReceiverIntro {
        device: DeviceId([3; 16]),
        label: "lab-07".into(),
        name: None,
        group: "239.1.1.1".into(),
        sealed_with: None,
    }
}

/// A writer whose contents the test can read.
#[derive(Clone, Default)]
pub struct Shared(Rc<RefCell<Vec<u8>>>);

impl Shared {
    /// The text written so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
