//! Which state follows which, within an attempt and from one attempt to the next.

use super::*;
use crate::units::{DeviceId, DeviceKey};
use State::{Active, Complete, Failed, Lost, Pending};

fn assignment() -> Assignment {
    Assignment::new(TaskId([7; 16]), DeviceId([1; 16]), "lab-1".into())
}

fn all() -> [State; 5] {
    [Pending, Active, Complete, Failed("disk full".into()), Lost]
}

/// An assignment in its first attempt, in this state.
fn in_state(state: &State) -> Assignment {
    let mut assignment = assignment();
    assignment.take_up();
    assignment.set(state.clone()).unwrap();
    assignment
}

#[test]
fn within_an_attempt_a_state_moves_to_the_right() {
    // Row: from; column: to; in the order of `all`.
    let allowed = [
        [true, true, true, true, true],
        [false, true, true, true, true],
        [false, false, true, false, false],
        [false, false, false, true, false],
        [false, false, false, false, true],
    ];
    for (from, allowed) in all().iter().zip(allowed) {
        for (to, allowed) in all().iter().zip(allowed) {
            let mut now = in_state(from);
            let result = now.set(to.clone());
            assert_eq!(in_state(from).may_be_replaced_by(&in_state(to)), allowed, "{from:?} {to:?}");
            if allowed {
                assert_eq!((result, now.state()), (Ok(from != to), to));
            } else {
                let (from_word, to_word) = (from.word(), to.word());
                assert_eq!(result, Err(Illegal { device: DeviceId([1; 16]), from: from_word, to: to_word }));
                assert_eq!(now.state(), from);
            }
        }
    }
}

#[test]
fn a_later_attempt_begins_anew_but_what_is_complete_stays_so() {
    for from in all() {
        let first = in_state(&from);
        let mut again = first.clone();
        again.take_up();
        let complete = from == Complete;
        assert_eq!(again.attempts, if complete { 1 } else { 2 });
        assert_eq!(*again.state(), if complete { Complete } else { Pending });
        assert!(first.may_be_replaced_by(&again));
        assert_eq!(again.may_be_replaced_by(&first), complete, "no record of an earlier attempt: {from:?}");
        for to in all() {
            let mut later = assignment();
            (0..2).for_each(|_| later.take_up());
            later.set(to.clone()).unwrap();
            // Also if the states in between were not recorded.
            assert_eq!(first.may_be_replaced_by(&later), !complete || to == Complete, "{from:?} {to:?}");
        }
    }
    let mut other = in_state(&Active);
    other.device = DeviceId([2; 16]);
    assert!(!in_state(&Pending).may_be_replaced_by(&other));
}

#[test]
fn steps_are_those_of_the_attempt() {
    let mut assignment = in_state(&Failed("no room".into()));
    assert!(assignment.end(vec![Step::Transfer]).is_err());
    assert_eq!(assignment.steps(), []);
    assignment.take_up();
    assert_eq!(assignment.end(vec![Step::Transfer, Step::Hook(0)]), Ok(true));
    // A repeated or later receipt changes nothing.
    assert_eq!(assignment.end(vec![Step::Command(0)]), Ok(false));
    assert!(assignment.end(vec![Step::Hook(1)]).is_err());
    assert_eq!(assignment.steps(), [Step::Transfer, Step::Hook(0)]);
    assert_eq!((assignment.attempts, assignment.is_complete()), (2, true));
}

#[test]
fn a_step_that_fails_makes_the_device_fail() {
    for (step, why) in [
        (Step::Hook(3), "its --then command exited with 3"),
        (Step::Hook(-15), "its --then command was ended by signal 15"),
        (Step::Hook(i32::MIN), "its --then command was ended by signal 2147483648"),
        (Step::Command(1), "its command exited with 1"),
    ] {
        let (mut assignment, steps) = (in_state(&Active), vec![Step::Transfer, step]);
        assert_eq!(assignment.end(steps.clone()), Ok(true));
        assert_eq!((assignment.state(), assignment.steps()), (&Failed(why.into()), &steps[..]));
        assert_eq!(assignment.end(steps), Ok(false), "the receipt may be repeated");
    }
}

#[test]
fn the_summary_counts_states() {
    let states = [Pending, Active, Active, Complete, Failed("a".into()), Failed("b".into()), Lost];
    let summary = Summary::of(&states);
    assert_eq!(summary, Summary { pending: 1, active: 2, complete: 1, failed: 2, lost: 1 });
    assert_eq!((summary.total(), summary.open()), (7, 3));
    assert_eq!(all().map(|s| s.is_final()), [false, false, true, true, true]);
    assert_eq!(all().map(|s| s.word()), ["pending", "active", "complete", "failed", "lost"]);
}

#[test]
fn kinds_have_their_numbers() {
    for code in 0..100 {
        assert_eq!(TaskKind::from_code(code).is_some(), code < 4);
        assert!(TaskKind::from_code(code).is_none_or(|kind| kind.code() == code));
    }
    let mut task = Task::copy(TaskId([1; 16]), "image.iso");
    assert_eq!((task.kind.word(), task.wanted(3)), ("copy", 3));
    task.options.expected = Some(5);
    assert_eq!([3, 5, 9].map(|n| task.wanted(n)), [5, 5, 9]);
}

#[test]
fn a_list_finds_a_device_by_its_key_or_else_by_its_name() {
    let listed = |n: u8, name: &str, key: Option<u8>| Listed {
        device: DeviceId([n; 16]),
        name: name.into(),
        key: key.map(|key| DeviceKey([key; 32])),
    };
    let mut list = DeviceList::default();
    for entry in [listed(1, "lab-1", Some(1)), listed(2, "lab-2", None)] {
        list.add(entry).unwrap();
    }
    assert_eq!(list.add(listed(3, "lab-2", Some(3))), Err(ListError::Name("lab-2".into())));
    assert_eq!(list.add(listed(3, "lab-3", Some(1))), Err(ListError::Key("lab-1".into())));
    let found = |label, key: Option<u8>| {
        let key = key.map(|key| DeviceKey([key; 32]));
        list.find(label, key.as_ref()).map(|listed| listed.name.as_str())
    };
    assert_eq!(found("lab-1", Some(1)), Some("lab-1"));
    // The key decides, even if the device uses the name of an entry without a key.
    assert_eq!(found("lab-2", Some(1)), Some("lab-1"));
    assert_eq!(found("lab-1", Some(9)), None, "another key than the enrolled one");
    assert_eq!(found("lab-1", None), None, "no key");
    assert_eq!((found("lab-2", None), found("lab-2", Some(9))), (Some("lab-2"), Some("lab-2")));
    assert_eq!(found("lab-3", None), None);

    let rows = list.assignments(TaskId([7; 16]));
    assert!(rows.len() == 2 && rows.iter().all(|row| row.attempts == 0 && *row.state() == Pending));
    assert_eq!((rows[1].device, rows[1].label.as_str()), (DeviceId([2; 16]), "lab-2"));
    let task = Task { options: TaskOptions { expected: None, devices: Some(list) }, ..Task::default() };
    assert_eq!((task.options.expected(), task.wanted(1)), (Some(2), 2));
}
