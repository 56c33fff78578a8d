//! The rules of the table over the store in memory, and a store that fails.

use super::*;
use crate::limits::MAX_DEVICES;
use DeviceStatus::{Complete, Failed, Lost, Receiving, Repairing, Waiting};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const TASK: TaskId = TaskId([7; 16]);

fn id(n: usize) -> DeviceId {
    DeviceId((n as u128).to_be_bytes())
}

fn row(n: usize, status: DeviceStatus) -> DeviceRow {
    DeviceRow {
        device: id(n),
        label: format!("lab-{n}"),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 7417)),
        status,
        verified_blocks: 0,
        lost_datagrams: 0,
        kernel_drops: 0,
        overrun_drops: 0,
        cause: None,
        unicast_symbols: 0,
        elapsed: Duration::ZERO,
    }
}

fn all() -> [DeviceStatus; 6] {
    [Waiting, Receiving { deficit: 9 }, Repairing { deficit: 3 }, Complete, Failed("disk full".into()), Lost]
}

#[test]
fn rows_are_kept_by_device_and_in_order() {
    let mut table = TaskTable::new(TASK, MemoryStore::new());
    assert_eq!(table.look_up(id(1)), None);
    for n in [3, 1, 2] {
        table.record(row(n, Waiting)).unwrap();
    }
    let mut changed = row(2, Receiving { deficit: 5 });
    changed.verified_blocks = 4;
    table.record(changed.clone()).unwrap();
    assert_eq!(table.look_up(id(2)), Some(changed.clone()));
    assert_eq!(table.rows(), [row(1, Waiting), changed, row(3, Waiting)]);
}

#[test]
fn the_summary_follows_every_change() {
    let mut table = TaskTable::new(TASK, MemoryStore::new());
    assert_eq!(table.summary(), Summary::default());
    assert!(!table.summary().is_complete());
    for (n, status) in all().into_iter().enumerate() {
        table.record(row(n, status)).unwrap();
    }
    let each = Summary { waiting: 1, receiving: 1, repairing: 1, complete: 1, failed: 1, lost: 1 };
    assert_eq!((table.summary(), each.total(), each.active()), (each, 6, 3));
    for n in 0..6 {
        table.record(row(n, Complete)).unwrap();
        table.record(row(n, Complete)).unwrap();
    }
    assert_eq!(table.summary(), Summary { complete: 6, ..Summary::default() });
    assert!(table.summary().is_complete() && table.is_complete(id(0)));
    assert_eq!(table.count_complete(), 6);
}

#[test]
fn which_status_follows_which() {
    // Row: from; column: to; in the order of `all`.
    let allowed = [
        [true, true, true, true, true, true],
        [false, true, true, true, true, true],
        [false, true, true, true, true, true],
        [false, false, false, true, false, false],
        [true, true, true, true, true, false],
        [true, true, true, true, true, true],
    ];
    for (from, allowed) in all().into_iter().zip(allowed) {
        for (to, allowed) in all().into_iter().zip(allowed) {
            let mut table = TaskTable::new(TASK, MemoryStore::new());
            table.record(row(1, from.clone())).unwrap();
            let result = table.record(row(1, to.clone()));
            let now = table.look_up(id(1)).unwrap().status;
            assert_eq!(table.summary().total(), 1);
            if allowed {
                assert_eq!((result, now), (Ok(()), to));
            } else {
                let (a, b) = (from.word(), to.word());
                assert_eq!(result, Err(RecordError::Illegal { device: id(1), from: a, to: b }));
                assert_eq!(now, from);
            }
        }
    }
}

#[test]
fn a_task_takes_a_bounded_number_of_devices() {
    let mut table = TaskTable::new(TASK, MemoryStore::new());
    for n in 0..MAX_DEVICES {
        table.record(row(n, Waiting)).unwrap();
    }
    let full = RecordError::Store(StoreError::Full(MAX_DEVICES));
    assert_eq!(table.record(row(MAX_DEVICES, Waiting)), Err(full));
    assert_eq!(table.summary().total(), MAX_DEVICES);
    table.record(row(0, Complete)).unwrap();
    // Another task has room of its own.
    let mut other = TaskTable::new(TaskId([8; 16]), table.into_store());
    other.record(row(MAX_DEVICES, Waiting)).unwrap();
    assert_eq!(other.rows().len(), 1);
}

#[test]
fn a_table_starts_from_what_its_store_holds() {
    let mut first = TaskTable::new(TASK, MemoryStore::new());
    first.record(row(1, Complete)).unwrap();
    first.record(row(2, Lost)).unwrap();
    let mut again = TaskTable::new(TASK, first.into_store());
    assert_eq!(again.summary(), Summary { complete: 1, lost: 1, ..Summary::default() });
    assert!(again.record(row(1, Waiting)).is_err());
    assert_eq!(again.task(), TASK);
}

#[test]
fn a_store_that_fails_changes_nothing() {
    struct Broken(MemoryStore);
    impl StatusStore for Broken {
        fn get(&self, task: TaskId, device: DeviceId) -> Option<DeviceRow> {
            self.0.get(task, device)
        }
        fn put(&mut self, _: TaskId, _: DeviceRow) -> Result<(), StoreError> {
            Err(StoreError::Io("cannot write the table; check the disk".into()))
        }
        fn rows(&self, task: TaskId) -> Vec<DeviceRow> {
            self.0.rows(task)
        }
    }
    let mut good = TaskTable::new(TASK, MemoryStore::new());
    good.record(row(1, Waiting)).unwrap();
    let mut table = TaskTable::new(TASK, Broken(good.into_store()));
    let error = table.record(row(1, Complete)).unwrap_err();
    assert_eq!(error.to_string(), "cannot write the table; check the disk");
    assert_eq!(table.summary(), Summary { waiting: 1, ..Summary::default() });
}
