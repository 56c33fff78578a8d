//! What every store promises, tested on the one in memory.

use super::*;
use crate::limits::MAX_DEVICES;
use crate::task::State::{self, Active, Complete, Failed, Lost, Pending};

const TASK: TaskId = TaskId([7; 16]);

fn id(n: usize) -> DeviceId {
    DeviceId((n as u128).to_be_bytes())
}

fn assigned(n: usize, attempts: u32, state: State) -> Assignment {
    let mut assignment = Assignment::new(TASK, id(n), format!("lab-{n}"));
    (0..attempts).for_each(|_| assignment.take_up());
    assignment.set(state).unwrap();
    assignment
}

#[test]
fn assignments_are_kept_by_device_and_in_order() {
    let mut store = MemoryStore::new();
    assert_eq!(store.look_up(TASK, &[id(1)]), Ok(vec![None]));
    assert_eq!(store.assignments(TASK), Ok(vec![]));
    let batch = [3, 1, 2].map(|n| assigned(n, 1, Pending));
    assert_eq!(store.record(&batch), Ok(batch.to_vec()));
    let changed = assigned(2, 1, Active);
    store.record(std::slice::from_ref(&changed)).unwrap();
    assert_eq!(store.look_up(TASK, &[id(2), id(9)]), Ok(vec![Some(changed.clone()), None]));
    let all = vec![assigned(1, 1, Pending), changed, assigned(3, 1, Pending)];
    assert_eq!(store.assignments(TASK), Ok(all));
    assert_eq!(store.assignments(TaskId([8; 16])), Ok(vec![]));
}

#[test]
fn what_may_not_follow_is_passed_over_and_the_rest_is_kept() {
    let mut store = MemoryStore::new();
    let (done, failed) = (assigned(1, 1, Complete), assigned(2, 2, Failed("disk full".into())));
    store.record(&[done.clone(), failed.clone()]).unwrap();
    let late = [assigned(1, 2, Lost), assigned(2, 2, Lost), assigned(3, 1, Active)];
    assert_eq!(store.record(&late), Ok(vec![done.clone(), failed.clone(), late[2].clone()]));
    // What comes late of an earlier attempt, and the same once more.
    assert_eq!(store.record(&[assigned(2, 1, Complete)]), Ok(vec![failed.clone()]));
    assert_eq!(store.record(std::slice::from_ref(&done)), Ok(vec![done]));
    let again = assigned(2, 3, Pending);
    assert_eq!(store.record(std::slice::from_ref(&again)), Ok(vec![again]));
}

#[test]
fn a_task_has_a_bounded_number_of_devices_and_a_batch_is_kept_whole_or_not() {
    let mut store = MemoryStore::new();
    for n in 1..MAX_DEVICES {
        store.record(&[assigned(n, 1, Pending)]).unwrap();
    }
    let two = [MAX_DEVICES, MAX_DEVICES + 1].map(|n| assigned(n, 1, Pending));
    assert_eq!(store.record(&two), Err(StoreError::Full(MAX_DEVICES - 1)));
    assert_eq!(store.assignments(TASK).unwrap().len(), MAX_DEVICES - 1);
    store.record(&two[..1]).unwrap();
    assert!(store.record(&two[1..]).is_err());
    // Those that are in go on.
    store.record(&[assigned(1, 1, Complete)]).unwrap();
    let mut other = two[1].clone();
    other.task = TaskId([8; 16]);
    store.record(&[other]).unwrap();
}

#[test]
fn a_shared_store_is_one_store() {
    let shared = SharedStore::default();
    let other = shared.clone();
    shared.with(|store| store.record(&[assigned(1, 1, Complete)])).unwrap();
    let kept = other.with(|store| store.look_up(TASK, &[id(1)])).unwrap();
    assert!(kept[0].as_ref().is_some_and(Assignment::is_complete));
}
