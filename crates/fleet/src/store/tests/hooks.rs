//! Events, and the web hooks that are told of them.

use super::*;
use crate::limits::{EVENT_VALIDITY, MAX_EVENTS, MAX_HOOKS};
use mcp_transfer::crypto::derive::Secret;
use serde_json::json;

fn hook(kinds: &[EventKind]) -> NewHook {
    NewHook {
        url: "https://example.net/x".into(),
        secret: Secret::new([7; 32]),
        kinds: kinds.to_vec(),
        by: "ann".into(),
    }
}

const fn claim(server: &str, until: u64) -> Claim<'_> {
    Claim { server, until }
}

impl Fixture {
    /// What happened after the event with this number, in a word each.
    async fn happened(&self, told: i64) -> Vec<String> {
        let events = self.store.events_after(told, 1000).await.expect("read");
        let word = |event: &Event| match &event.data {
            data if data["device"].is_string() => {
                format!("{} {} {}", event.kind.as_str(), data["task"]["id"], data["device"].as_str().unwrap())
            }
            data if data["task"].is_object() => format!("{} {}", event.kind.as_str(), data["task"]["id"]),
            _ => event.kind.as_str().to_owned(),
        };
        events.iter().map(word).collect()
    }

    async fn last(&self) -> i64 {
        self.store.events_after(0, 1000).await.expect("read").last().map_or(0, |event| event.id)
    }
}

#[tokio::test]
async fn what_happens_to_tasks_is_written_down_if_somebody_wants_to_know() {
    let f = fixture().await;
    for id in ["a", "b", "c"] {
        f.accept(id).await;
    }
    f.add(task("unheard", 1, |_| {})).await;
    assert_eq!(f.happened(0).await, [""; 0]);
    f.store.cancel_task(1, NOW).await.expect("cancelled");

    f.store.add_hook(hook(&[]), NOW).await.expect("added");
    let app = f.add(task("app", 1, |_| {})).await;
    f.ends("a", Finished::Success).await;
    f.ends("b", Finished::Failure).await;
    let c = f.only_action("c").await;
    f.store.settle(c.id, ActionState::Unneeded, "it has it", NOW).await.expect("settled");
    let wanted = [
        "hook.added",
        "task.added 2",
        "device.finished 2 a",
        "device.failed 2 b",
        "device.unneeded 2 c",
        "task.over 2",
    ];
    assert_eq!(f.happened(0).await, wanted);
    let events = f.store.events_after(0, 1000).await.expect("read");
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id) && events.iter().all(|e| e.at == NOW));
    let app_data = json!({ "id": app, "name": "app", "serial": 1, "version": "" });
    assert_eq!(
        events[1].data,
        json!({ "task": app_data, "by": "first", "why": "", "devices": { "waiting": 3 } })
    );
    let failed = json!({ "task": app_data, "device": "b", "attempt": 1, "message": "said so", "code": null });
    assert_eq!(events[3].data, failed);
    assert_eq!(events[5].data["devices"], json!({ "finished": 1, "failed": 1, "unneeded": 1 }));

    // What changes nothing is no event.
    let told = f.last().await;
    f.store.settle(c.id, ActionState::Failed, "too late", NOW).await.expect("no change");
    let ann = AuditEntry {
        at: NOW,
        who: "ann".into(),
        address: String::new(),
        what: "x".into(),
        subject: String::new(),
    };
    let store = f.store.audited(ann);
    for paused in [true, true, false, false] {
        store.pause_task(app, paused, NOW).await.expect("changed");
    }
    assert_eq!(f.store.retry(app, None, NOW).await.expect("retried"), 1);
    let b = f.only_action("b").await;
    f.store.begin(&b, None, NOW).await.expect("begun");
    f.say(&b, Execution::Proceeding, Finished::None).await;
    store.cancel_task(app, NOW).await.expect("cancelled");
    store.cancel_task(app, NOW).await.expect("again");
    let feedback = Feedback::new(&b.id.to_string(), Execution::Closed, Finished::Success, Vec::new());
    f.store.feedback("b", b.id, Report::Cancellation, feedback, NOW).await.expect("taken");
    let wanted =
        ["task.paused 2", "task.resumed 2", "task.cancelled 2", "device.cancelled 2 b", "task.over 2"];
    assert_eq!(f.happened(told).await, wanted);
    let events = f.store.events_after(told, 1).await.expect("read");
    assert_eq!(events[0].data["by"], "ann");
}

#[tokio::test]
async fn tasks_that_end_by_themselves_say_why() {
    let f = fixture().await;
    f.store.add_hook(hook(&[]), NOW).await.expect("added");
    f.accept("a").await;
    f.add(task("app", 1, |_| {})).await;
    let told = f.last().await;
    f.add(task("app", 2, |_| {})).await;
    assert_eq!(f.happened(told).await, ["task.cancelled 1", "task.over 1", "task.added 2"]);
    let cancelled = &f.store.events_after(told, 1).await.expect("read")[0];
    assert_eq!(cancelled.data["why"], "replaced by a newer task of this name");
    let told = f.last().await;
    assert_eq!(f.store.expire(NOW).await.expect("looked"), []);
    assert_eq!(f.happened(told).await, [""; 0]);
    f.store.expire(NOW + 1000).await.expect("expired");
    assert_eq!(f.happened(told).await, ["task.expired 2", "task.over 2"]);

    f.store.cancel_task(2, NOW).await.expect("cancelled");
    // Groups that have not got the task yet have it to do.
    let (told, terms) =
        (f.last().await, Terms { groups: vec!["1".parse().expect("a group")], ..Terms::default() });
    f.accept("b").await;
    f.accept("c").await;
    f.add(NewTask { terms, ..task("other", 1, |_| {}) }).await;
    let mut first = Vec::new();
    for id in ["a", "b", "c"] {
        first.extend(f.store.open_actions(id).await.expect("read").into_iter().map(|action| action.device));
    }
    assert_eq!(first.len(), 1);
    f.ends(&first[0], Finished::Failure).await;
    f.store.roll_out(NOW).await.expect("went on");
    let failed = format!("device.failed 3 {}", first[0]);
    assert_eq!(f.happened(told).await, ["task.added 3", &failed, "task.paused 3"]);
    let paused = f.store.events_after(told + 2, 1).await.expect("read").remove(0);
    assert_eq!(paused.data["by"], "server");
    assert_eq!(paused.data["why"], "1 of 1 devices of group 1 failed; at most 0% may");
    f.store.pause_task(3, false, NOW).await.expect("resumed");
    f.store.roll_out(NOW).await.expect("went on");
    assert_eq!(f.happened(told + 3).await, ["task.resumed 3", "task.group 3"]);
}

#[tokio::test]
async fn one_server_tells_a_hook_and_it_knows_how_far() {
    let f = fixture().await;
    let id = f.store.add_hook(hook(&[EventKind::TaskOver]), NOW).await.expect("added");
    let mut due = f.store.claim_hooks(claim("one", NOW + 60), NOW).await.expect("claimed");
    let [hook] = &mut due[..] else { panic!("{due:?}") };
    assert_eq!((hook.id, hook.url.as_str(), hook.told, hook.failures), (id, "https://example.net/x", 0, 0));
    assert_eq!(hook.secret.expose(), &[7; 32]);
    assert!(!format!("{hook:?}").contains("7, 7"), "{hook:?}");
    let events = f.store.events_after(0, 10).await.expect("read");
    assert!(hook.wants(&events[0]), "that it was added");
    assert!(!hook.wants(&Event { data: json!({ "hook": id + 1 }), ..events[0].clone() }));
    assert!(!hook.wants(&Event { kind: EventKind::TaskAdded, ..events[0].clone() }));
    assert!(hook.wants(&Event { kind: EventKind::TaskOver, ..events[0].clone() }));

    for server in ["one", "two"] {
        assert!(f.store.claim_hooks(claim(server, NOW + 60), NOW).await.expect("looked").is_empty());
    }
    // It fails, and is tried again by whoever comes first.
    hook.failures = 1;
    f.store.hook_failed(hook, ("it answers 500", NOW + 5), "one").await.expect("noted");
    let known = f.store.hooks().await.expect("read").remove(0);
    assert_eq!((known.waiting, known.failures, known.again), (1, 1, NOW + 5));
    assert_eq!(
        (known.error.as_str(), known.by.as_str(), known.kinds),
        ("it answers 500", "ann", vec![EventKind::TaskOver])
    );
    assert!(f.store.claim_hooks(claim("two", NOW + 60), NOW + 4).await.expect("looked").is_empty());
    let again = f.store.claim_hooks(claim("two", NOW + 65), NOW + 5).await.expect("claimed");
    assert_eq!(again[0].failures, 1);
    // The other one falls silent. The first one takes over, and what the other one says counts no more.
    let mut mine = f.store.claim_hooks(claim("one", NOW + 130), NOW + 65).await.expect("claimed").remove(0);
    assert!(!f.store.hook_told(&again[0], claim("two", NOW + 130)).await.expect("no change"));
    mine.told = events[0].id;
    assert!(f.store.hook_told(&mine, claim("one", NOW + 130)).await.expect("noted"));
    let known = f.store.hooks().await.expect("read").remove(0);
    assert_eq!((known.waiting, known.failures, known.error.as_str()), (0, 0, ""));
    f.accept("a").await;
    f.add(task("app", 1, |_| {})).await;
    assert!(f.store.claim_hooks(claim("two", NOW + 200), NOW + 70).await.expect("looked").is_empty());
    f.store.release_hooks("one").await.expect("released");
    assert_eq!(f.store.claim_hooks(claim("two", NOW + 200), NOW + 70).await.expect("claimed").len(), 1);

    f.store.remove_hook(id).await.expect("removed");
    assert!(matches!(f.store.remove_hook(id).await, Err(StoreError::Missing(_))));
    assert!(!f.store.hook_told(&mine, claim("two", 0)).await.expect("no change"));
    for _ in 0..MAX_HOOKS {
        f.store.add_hook(super::hooks::hook(&[]), NOW).await.expect("added");
    }
    let full = f.store.add_hook(super::hooks::hook(&[]), NOW).await.expect_err("full");
    assert!(full.to_string().contains("mcp hook remove"), "{full}");
}

#[tokio::test]
async fn events_are_dropped_when_all_know_them_or_nobody_takes_them() {
    let f = fixture().await;
    let all = f.store.add_hook(hook(&[]), NOW).await.expect("added");
    let some = f.store.add_hook(hook(&[EventKind::TaskOver]), NOW).await.expect("added");
    f.accept("a").await;
    f.add(task("app", 1, |t| t.expires = NOW + 10 * EVENT_VALIDITY.as_secs())).await;
    f.ends("a", Finished::Success).await;
    assert_eq!(f.happened(0).await.len(), 5);
    let mut due = f.store.claim_hooks(claim("one", NOW + 60), NOW).await.expect("claimed");
    due[0].told = 3;
    f.store.hook_told(&due[0], claim("one", NOW + 60)).await.expect("noted");
    assert_eq!(f.store.expire(NOW + 1).await.expect("looked"), []);
    assert_eq!(f.happened(1).await.len(), 4, "the other one knows only what was before it");
    due[1].told = 2;
    f.store.hook_told(&due[1], claim("one", NOW + 60)).await.expect("noted");
    f.store.expire(NOW + 1).await.expect("looked");
    assert_eq!(f.happened(0).await, ["task.added 1", "device.finished 1 a", "task.over 1"]);
    // Too old: each hook missed what it was to be told.
    let missed = f.store.expire(NOW + EVENT_VALIDITY.as_secs()).await.expect("looked");
    assert_eq!(missed, [(all, 2), (some, 1)]);
    assert_eq!(f.happened(0).await, [""; 0]);
    let known = f.store.hooks().await.expect("read");
    assert_eq!(known.iter().map(|hook| (hook.missed, hook.waiting)).collect::<Vec<_>>(), [(2, 0), (1, 0)]);

    // Too many.
    let filled = f.store.write(|connection| {
        Box::pin(async move {
            let filled = sqlx::query(
                "INSERT INTO events (at, kind, data) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) \
                 SELECT $2, 'task.over', '{}' FROM n",
            )
            .bind(i64::from(MAX_EVENTS) + 7)
            .bind(sql(NOW))
            .execute(connection)
            .await?;
            Ok(filled.rows_affected())
        })
    });
    assert_eq!(filled.await.expect("filled"), u64::from(MAX_EVENTS) + 7);
    assert_eq!(f.store.expire(NOW).await.expect("looked"), [(all, 7), (some, 7)]);
    let kept = f.store.hooks().await.expect("read").iter().map(|hook| hook.waiting).collect::<Vec<_>>();
    assert_eq!(kept, [u64::from(MAX_EVENTS); 2]);
    // Nobody wants to know any more.
    f.store.remove_hook(all).await.expect("removed");
    f.store.remove_hook(some).await.expect("removed");
    assert_eq!(f.store.expire(NOW).await.expect("looked"), []);
    assert_eq!(f.happened(0).await, [""; 0]);
}
