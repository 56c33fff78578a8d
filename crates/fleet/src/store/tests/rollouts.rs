//! Tasks that are given out in groups, and the way back.

use super::*;
use crate::documents::Envelope;

fn in_groups(groups: &[&str], success: Option<&str>, failures: &str) -> Terms {
    Terms {
        groups: groups.iter().map(|text| text.parse().expect("a group")).collect(),
        success: success.map(|text| text.parse().expect("a per cent")),
        failures: failures.parse().expect("a per cent"),
        ..Terms::default()
    }
}

impl Fixture {
    async fn roll_out(&self) -> Rollout {
        self.store.roll_out(NOW).await.expect("went on");
        self.stored(1).await.rollout.expect("in groups")
    }

    async fn stored(&self, task: i64) -> StoredTask {
        self.store.tasks(Some(task)).await.expect("read").pop().expect("known")
    }

    /// The devices that have something to do.
    async fn with_work(&self, devices: &[String]) -> Vec<String> {
        let mut found = Vec::new();
        for id in devices {
            if !self.store.open_actions(id).await.expect("read").is_empty() {
                found.push(id.clone());
            }
        }
        found
    }
}

/// Ten devices; `d3` is the canary.
async fn ten() -> (Fixture, Vec<String>) {
    let f = fixture().await;
    let devices: Vec<_> = (0..10).map(|n| format!("d{n}")).collect();
    for id in &devices {
        f.accept(id).await;
    }
    f.store.tag_device("d3", vec!["canary".into()], Vec::new()).await.expect("tagged");
    (f, devices)
}

#[tokio::test]
async fn groups_get_a_task_one_after_the_other() {
    let (f, devices) = ten().await;
    let terms = in_groups(&["tag:canary", "30%"], Some("60%"), "50%");
    f.add(NewTask { terms, ..task("app", 1, |_| {}) }).await;
    assert_eq!(f.with_work(&devices).await, ["d3"]);
    let stored = f.stored(1).await;
    assert_eq!(stored.counts, Counts::from([("waiting".into(), 1), (LATER.into(), 9)]));
    let sizes = |rollout: &Rollout| rollout.groups.iter().map(|group| group.devices).collect::<Vec<_>>();
    let rollout = f.roll_out().await;
    assert_eq!((rollout.open, sizes(&rollout), rollout.held.clone()), (0, vec![1, 3, 6], None));
    assert_eq!([0, 1].map(|at| rollout.state(at)), ["open", LATER]);

    f.ends("d3", Finished::Success).await;
    let rollout = f.roll_out().await;
    assert_eq!((rollout.open, rollout.groups[0].done, rollout.state(0)), (1, 1, "done"));
    let second = f.with_work(&devices).await;
    assert_eq!(second.len(), 3);
    f.ends(&second[0], Finished::Success).await;
    assert_eq!(f.roll_out().await.open, 1, "one of three is less than 60 %");
    f.ends(&second[1], Finished::Success).await;
    assert_eq!(f.roll_out().await.open, 2);
    assert_eq!(f.with_work(&devices).await.len(), 7, "one is left of the second group");
    assert!(!f.stored(1).await.counts.contains_key(LATER));
    // Nothing comes after the last one.
    for id in f.with_work(&devices).await {
        f.ends(&id, Finished::Success).await;
    }
    assert_eq!(f.roll_out().await.open, 2);
    let trail = f.store.audit_trail(10).await.expect("read");
    let said: Vec<_> = trail.iter().map(|e| (e.who.as_str(), e.what.as_str(), e.subject.as_str())).collect();
    assert_eq!(said, [("server", "open group", "1: 3 of 3"), ("server", "open group", "1: 2 of 3")]);
}

#[tokio::test]
async fn too_many_failures_pause_a_task_until_somebody_lets_it_go_on() {
    let (f, devices) = ten().await;
    let terms = in_groups(&["4"], None, "25%");
    let id = f.add(NewTask { terms, ..task("app", 1, |_| {}) }).await;
    let first = f.with_work(&devices).await;
    assert_eq!(first.len(), 4);
    f.ends(&first[0], Finished::Failure).await;
    assert_eq!(f.roll_out().await.held, None, "a quarter may");
    f.ends(&first[1], Finished::Failure).await;
    let why = "2 of 4 devices of group 1 failed; at most 25% may";
    assert_eq!(f.roll_out().await.held.as_deref(), Some(why));
    assert_eq!(f.stored(id).await.state, TaskState::Paused);
    let trail = f.store.audit_trail(1).await.expect("read");
    assert_eq!((trail[0].what.as_str(), trail[0].subject.as_str()), ("pause task", &*format!("{id}: {why}")));
    assert!(!f.only_action(&first[2]).await.is_live());

    // It goes on in spite of those two, and of no further one.
    f.store.pause_task(id, false, NOW).await.expect("resumed");
    let rollout = f.roll_out().await;
    assert_eq!((rollout.held, rollout.groups[0].failed, rollout.groups[0].excused), (None, 2, 2));
    f.ends(&first[2], Finished::Failure).await;
    assert_eq!(f.roll_out().await.held.as_deref(), Some("1 of 2 devices of group 1 failed; at most 25% may"));
    // Where it is tried again, it counts again.
    assert_eq!(f.store.retry(id, None, NOW).await.expect("retried"), 3);
    f.store.pause_task(id, false, NOW).await.expect("resumed");
    assert_eq!(f.roll_out().await.groups[0], GroupCounts { devices: 4, ..GroupCounts::default() });
    for device in &first[..3] {
        f.ends(device, Finished::Success).await;
    }
    assert_eq!(f.roll_out().await.open, 1, "three of four are enough if a quarter may fail");
    f.ends(&first[3], Finished::Failure).await;
    assert_eq!(f.roll_out().await.held, None);
}

#[tokio::test]
async fn devices_that_left_hold_up_nobody_and_those_that_come_late_are_last() {
    let (f, mut devices) = ten().await;
    let terms = in_groups(&["tag:canary", "2"], None, "0%");
    f.add(NewTask { terms, ..task("app", 1, |_| {}) }).await;
    for id in ["late", "canary"] {
        devices.push(id.into());
        f.store.register(id, 10, NOW).await.expect("registered");
    }
    f.store.tag_device("canary", vec!["canary".into()], Vec::new()).await.expect("tagged");
    f.accept("canary").await;
    f.accept("late").await;
    assert_eq!(f.with_work(&devices).await, ["d3", "canary"]);
    assert!(f.store.forget_device("canary").await.expect("forgotten"));
    f.store.decide_device("d3", DeviceState::Refused, None, NOW).await.expect("refused");
    let rollout = f.roll_out().await;
    assert_eq!((rollout.open, rollout.groups[0].devices, rollout.groups[2].devices), (1, 0, 8));
    for id in f.with_work(&devices).await.iter().filter(|id| *id != "d3") {
        f.ends(id, Finished::Success).await;
    }
    assert_eq!(f.roll_out().await.open, 2);
    assert_eq!(f.only_action("late").await.state, ActionState::Waiting);
}

#[tokio::test]
async fn what_has_not_begun_ends_with_its_task() {
    for ends in ["cancelled", "expired"] {
        let (f, devices) = ten().await;
        let id = f.add(NewTask { terms: in_groups(&["1"], None, "0%"), ..task("app", 1, |_| {}) }).await;
        assert_eq!(f.stored(id).await.counts[LATER], 9);
        match ends {
            "cancelled" => f.store.cancel_task(id, NOW).await.expect("cancelled"),
            _ => drop(f.store.expire(NOW + 1000).await.expect("looked")),
        }
        f.store.roll_out(NOW + 1000).await.expect("looked");
        assert_eq!(f.stored(id).await.counts, Counts::from([("cancelled".into(), 1)]), "{ends}");
        assert_eq!(f.with_work(&devices).await, <[String; 0]>::default());
    }
}

#[tokio::test]
async fn devices_that_are_heard_of_come_first() {
    let (f, devices) = ten().await;
    let heard = ["d1", "d8"].map(|id| (id.to_owned(), NOW - 60, "10.0.0.1".to_owned()));
    f.store.seen(heard.to_vec()).await.expect("noted");
    let mut groups = BTreeMap::new();
    for serial in 1..=20 {
        let terms = in_groups(&["2", "1"], None, "0%");
        f.add(NewTask { terms, ..task("app", serial, |_| {}) }).await;
        assert_eq!(f.with_work(&devices).await, ["d1", "d8"]);
        let row: (String,) =
            sqlx::query_as("SELECT device FROM grouped WHERE position = 1 ORDER BY task DESC LIMIT 1")
                .fetch_one(&f.store.readers)
                .await
                .expect("read");
        *groups.entry(row.0).or_insert(0) += 1;
    }
    assert!(groups.len() > 2, "not always the same device is next: {groups:?}");
}

#[tokio::test]
async fn a_share_of_the_devices_is_under_way_at_once() {
    let (f, _) = ten().await;
    let share = |text: &str| text.parse::<Amount>().expect("an amount");
    let id = f.add(NewTask { terms: in_groups(&["4"], None, "0%"), ..task("app", 1, |_| {}) }).await;
    for (text, want) in [("0", None), ("3", Some(3)), ("29%", Some(2)), ("100%", Some(10)), ("1%", Some(1))] {
        assert_eq!(f.store.most_at_once(id, share(text)).await.expect("read"), want, "{text}");
    }
}

fn undo(serial: u64) -> Envelope {
    task("app", serial, |t| t.version = "1".into()).envelope
}

#[tokio::test]
async fn a_task_is_undone_where_it_has_begun() {
    let (f, devices) = ten().await;
    let terms = in_groups(&["tag:canary", "3"], Some("0%"), "100%");
    let new = task("app", 1, |t| t.version = "2".into());
    let id = f.add(NewTask { terms, rollback: Some(undo(2)), ..new }).await;
    assert!(f.stored(id).await.rollback);
    f.ends("d3", Finished::Success).await;
    assert_eq!(f.roll_out().await.open, 2, "of no group anything is needed");
    let rest: Vec<_> = devices.iter().filter(|id| *id != "d3").cloned().collect();
    f.ends(&rest[0], Finished::Failure).await;
    let running = f.only_action(&rest[1]).await;
    f.store.begin(&running, None, NOW).await.expect("begun");

    let (back, count) = f.store.roll_back(id, "ann", NOW).await.expect("rolled back");
    assert_eq!(count, 3);
    let stored = f.stored(back).await;
    assert_eq!((stored.by.as_str(), stored.rollout, stored.rollback), ("ann", None, false));
    assert_eq!(stored.document.task.version, "1");
    for device in ["d3", &rest[0]] {
        assert_eq!(f.only_action(device).await.task, back);
    }
    let states = f.store.open_actions(&rest[1]).await.expect("read");
    let states: Vec<_> = states.iter().map(|a| (a.task, a.state)).collect();
    assert_eq!(states, [(id, ActionState::Cancelling), (back, ActionState::Waiting)]);
    assert_eq!(f.stored(id).await.state, TaskState::Cancelled);
    // Who has not begun has nothing to undo, whenever it comes.
    f.accept("late").await;
    f.accept(&rest[2]).await;
    assert!(f.with_work(&["late".to_owned(), rest[2].clone()]).await.is_empty());
    f.store.roll_out(NOW).await.expect("nothing to be done");
    assert_eq!(f.stored(back).await.state, TaskState::Running);
    // Asked again, it is the same task.
    assert_eq!(f.store.roll_back(id, "ann", NOW).await.expect("known"), (back, 3));
}

#[tokio::test]
async fn a_task_without_a_way_back_says_so() {
    let (f, _) = ten().await;
    let plain = f.add(task("plain", 1, |_| {})).await;
    let id = f.add(NewTask { rollback: Some(undo(2)), ..task("app", 1, |_| {}) }).await;
    for (task, at, why) in [(plain, NOW, "has no task to roll back to"), (id, NOW + 1000, "has expired")] {
        match f.store.roll_back(task, "ann", at).await {
            Err(StoreError::Conflict(said)) => assert!(said.contains(why), "{said}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(f.stored(task).await.state, TaskState::Running, "nothing was changed");
    }
    assert!(matches!(f.store.roll_back(99, "ann", NOW).await, Err(StoreError::Missing(_))));
    f.add(task("app", 3, |_| {})).await;
    let replaced = f.store.roll_back(id, "ann", NOW).await;
    assert!(
        matches!(&replaced, Err(StoreError::Conflict(why)) if why.contains("has serial 3")),
        "{replaced:?}"
    );
}
