mod file;
mod hooks;
mod postgres;
mod rollouts;

use super::*;
use crate::ddi::{Execution, Feedback, Finished};
use crate::documents::{FleetId, Hash, Object, SecretKey, Task};
use crate::objects::ObjectHashes;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const NOW: u64 = 1_800_000_000;

struct Fixture {
    store: Store,
    database: Database,
    dir: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let database = Database::of_tests(dir.path()).await;
    let store = Store::open(&database).await.expect("opened");
    Fixture { store, database, dir }
}

fn object() -> ObjectHashes {
    let blake3 = blake3::hash(b"firmware");
    ObjectHashes { size: 8, blake3, sha256: "11".repeat(32), sha1: "22".repeat(20), md5: "33".repeat(16) }
}

fn task(name: &str, serial: u64, change: impl FnOnce(&mut Task)) -> NewTask {
    let mut task = Task::new(FleetId([1; 16]), name, serial, (NOW, NOW + 1000));
    let sha256 = Hash([0x11; 32]);
    let blake3 = Hash(*object().blake3.as_bytes());
    task.objects = vec![Object { filename: "f.swu".into(), size: 8, blake3, sha256 }];
    task.at = Some("/srv/".into());
    change(&mut task);
    let envelope = task.sign(&[&SecretKey::from_seed(&[7; 32])]).expect("signed");
    NewTask { task, envelope, terms: Terms::default(), rollback: None, by: "first".into() }
}

impl Fixture {
    async fn accept(&self, id: &str) {
        self.store.decide_device(id, DeviceState::Accepted, None, NOW).await.expect("accepted");
    }

    async fn add(&self, new: NewTask) -> i64 {
        self.store.add_object(&object(), NOW).await.expect("noted");
        self.store.add_task(new, NOW).await.expect("added")
    }

    async fn only_action(&self, device: &str) -> Action {
        let open = self.store.open_actions(device).await.expect("read");
        assert_eq!(open.len(), 1, "{open:?}");
        open[0].clone()
    }

    async fn say(&self, action: &Action, execution: Execution, finished: Finished) -> Answer {
        let feedback = Feedback::new(&action.id.to_string(), execution, finished, vec!["said so".into()]);
        let on = Report::Deployment { download_only: false };
        let answer = self.store.feedback(&action.device, action.id, on, feedback, NOW).await;
        answer.expect("taken").expect("known")
    }

    async fn ends(&self, device: &str, how: Finished) {
        let action = self.only_action(device).await;
        assert_eq!(self.store.begin(&action, None, NOW).await.expect("begun"), Begun::Running);
        self.say(&action, Execution::Closed, how).await;
    }
}

#[tokio::test]
async fn a_task_goes_through_its_states_and_can_be_tried_again() {
    let f = fixture().await;
    f.accept("a").await;
    let id = f.add(task("app", 1, |_| {})).await;
    let first = f.only_action("a").await;
    assert_eq!((first.state, first.task, first.attempt), (ActionState::Waiting, id, 1));
    assert_eq!(f.store.begin(&first, None, NOW).await.expect("begun"), Begun::Running);
    assert_eq!(f.store.begin(&first, None, NOW).await.expect("again"), Begun::Running);
    let failed = f.say(&first, Execution::Closed, Finished::Failure).await;
    assert_eq!(failed, Answer::Taken(ActionState::Failed));
    assert_eq!(f.say(&first, Execution::Closed, Finished::Failure).await, Answer::Gone);

    assert_eq!(f.store.retry(id, Some("b"), NOW).await.expect("none there"), 0);
    assert_eq!(f.store.retry(id, None, NOW).await.expect("retried"), 1);
    let second = f.only_action("a").await;
    assert!(second.id > first.id && second.attempt == 2);
    let done = f.say(&second, Execution::Closed, Finished::Success).await;
    assert_eq!(done, Answer::Taken(ActionState::Finished));
    let device = f.store.device("a").await.expect("read").expect("known");
    assert_eq!(device.installed, Some(second.id));
    assert_eq!(
        f.store.tasks(Some(id)).await.expect("read")[0].counts,
        Counts::from([("finished".into(), 1)])
    );
    let history = f.store.history(second.id, 100).await.expect("read");
    assert_eq!(history, ["said so", "closed, success"]);
    // Another device's action is not this one's.
    assert_eq!(f.store.action("b", second.id).await.expect("read"), None);
}

#[tokio::test]
async fn numbers_of_actions_are_never_used_again() {
    let f = fixture().await;
    f.accept("a").await;
    f.add(task("app", 1, |_| {})).await;
    let first = f.only_action("a").await.id;
    assert!(f.store.forget_device("a").await.expect("forgotten"));
    assert!(!f.store.forget_device("a").await.expect("not known"));
    f.accept("a").await;
    assert!(f.only_action("a").await.id > first);
}

#[tokio::test]
async fn a_newer_task_of_a_name_replaces_the_older() {
    let f = fixture().await;
    f.accept("begun").await;
    f.accept("idle").await;
    let old = f.add(task("app", 1, |_| {})).await;
    let begun = f.only_action("begun").await;
    f.store.begin(&begun, None, NOW).await.expect("begun");
    let new = f.add(task("app", 2, |_| {})).await;
    let states: Vec<_> =
        f.store.open_actions("begun").await.expect("read").iter().map(|a| (a.task, a.state)).collect();
    assert_eq!(states, [(old, ActionState::Cancelling), (new, ActionState::Waiting)]);
    assert_eq!(f.only_action("idle").await.task, new);
    // The same task again is the same task; another one of an old serial is refused.
    assert_eq!(f.add(task("app", 2, |_| {})).await, new);
    let replay = f.store.add_task(task("app", 1, |t| t.version = "x".into()), NOW).await;
    assert!(matches!(replay, Err(StoreError::Conflict(_))), "{replay:?}");
    // Beyond the task's own words: what the object is.
    let wrong = f.store.add_task(task("other", 1, |t| t.objects[0].size = 9), NOW).await;
    assert!(matches!(wrong, Err(StoreError::Conflict(_))), "{wrong:?}");
    let missing = f.store.add_task(task("other", 1, |t| t.objects[0].blake3 = Hash([0; 32])), NOW).await;
    assert!(matches!(missing, Err(StoreError::Missing(_))), "{missing:?}");
    assert_eq!(f.store.serial("other").await.expect("read"), 0, "nothing is left of a refused task");
}

#[tokio::test]
async fn devices_get_the_tasks_that_are_meant_for_them_whenever_they_come() {
    let f = fixture().await;
    f.add(task("names", 1, |t| t.to = crate::documents::Audience::Devices(["bench-*".into()].into()))).await;
    f.add(task("terms", 1, |t| {
        t.to = crate::documents::Audience::Terms(vec!["hw = b".parse().expect("a term")])
    }))
    .await;
    f.store.register("bench-1", 10, NOW).await.expect("registered");
    assert!(f.store.open_actions("bench-1").await.expect("read").is_empty(), "nobody has accepted it");
    f.accept("bench-1").await;
    f.accept("shop-1").await;
    assert_eq!(f.store.open_actions("bench-1").await.expect("read").len(), 1);
    assert!(f.store.open_actions("shop-1").await.expect("read").is_empty());
    let attributes = BTreeMap::from([("hw".to_owned(), "b".to_owned())]);
    f.store.set_attributes("shop-1", &attributes, NOW).await.expect("set");
    f.store.set_attributes("shop-1", &attributes, NOW).await.expect("set again");
    assert_eq!(f.only_action("shop-1").await.attempt, 1);
    assert!(!f.store.device("shop-1").await.expect("read").expect("known").wants_attributes);
}

#[tokio::test]
async fn a_task_is_under_way_at_so_many_devices_at_once() {
    let f = fixture().await;
    for id in ["a", "b", "c"] {
        f.accept(id).await;
    }
    let id = f.add(task("app", 1, |_| {})).await;
    let mut begun = Vec::new();
    for device in ["a", "b", "c"] {
        let action = f.only_action(device).await;
        begun.push(f.store.begin(&action, Some(2), NOW).await.expect("asked"));
    }
    assert_eq!(begun, [Begun::Running, Begun::Running, Begun::No]);
    assert_eq!(f.store.under_way(id).await.expect("read"), 2);
    f.store.cancel_task(id, NOW).await.expect("cancelled");
    assert_eq!(f.only_action("a").await.state, ActionState::Cancelling);
    assert!(f.store.open_actions("c").await.expect("read").is_empty());
    assert!(matches!(f.store.retry(id, None, NOW).await, Err(StoreError::Conflict(_))));
    assert!(matches!(f.store.pause_task(id, true, NOW).await, Err(StoreError::Conflict(_))));
    assert!(matches!(f.store.cancel_task(99, NOW).await, Err(StoreError::Missing(_))));
}

#[tokio::test]
async fn a_session_is_for_agents_that_wait_and_were_heard_of() {
    let f = fixture().await;
    let able = BTreeMap::from([("mcp.multicast".to_owned(), "1".to_owned())]);
    for id in ["a", "b", "silent", "other"] {
        f.accept(id).await;
        if id != "other" {
            f.store.set_attributes(id, &able, NOW).await.expect("set");
        }
    }
    let heard = ["a", "b", "other"].map(|id| (id.to_owned(), NOW, "10.0.0.1".to_owned()));
    f.store.seen(heard.to_vec()).await.expect("noted");
    let id = f.add(task("app", 1, |_| {})).await;
    let at = Where { task: id, position: 0, heard: NOW, ended: 0 };
    let waiting = |device: &str| Candidate { device: device.into(), waits: true, lacks: None };
    assert_eq!(f.store.candidates(at).await.expect("read"), [waiting("a"), waiting("b")]);
    let one_waits = [waiting("b")];
    let later = Where { heard: NOW + 1, ..at };
    assert_eq!(f.store.candidates(later).await.expect("read"), [], "not lately");
    let action = f.only_action("a").await;
    f.store.begin(&action, None, NOW).await.expect("begun");
    let taken = Candidate { waits: false, ..waiting("a") };
    assert_eq!(f.store.candidates(at).await.expect("read"), [taken, waiting("b")], "it has just taken it");
    f.store.lacks(action.id, None, NOW).await.expect("noted");
    assert_eq!(f.store.candidates(at).await.expect("read"), one_waits, "one loads by itself");
    // It says what it lacks: of this object, and all of the next one.
    f.store.lacks(action.id, Some((0, vec![[3, 7]])), NOW).await.expect("noted");
    let lacks = Candidate { waits: false, lacks: Some(vec![[3, 7]]), ..waiting("a") };
    assert_eq!(f.store.candidates(at).await.expect("read"), [lacks.clone(), waiting("b")]);
    let next = Where { position: 1, ..at };
    let all = Candidate { waits: false, ..waiting("a") };
    assert_eq!(f.store.candidates(next).await.expect("read"), [all, waiting("b")]);
    // After a session, only who asks again counts.
    let after = Where { ended: NOW + 5, ..at };
    assert_eq!(f.store.candidates(after).await.expect("read"), one_waits);
    assert_eq!(f.store.unheard(after).await.expect("read"), 1);
    f.store.give_up_unheard(after).await.expect("noted");
    assert_eq!(f.store.unheard(after).await.expect("read"), 0);
    f.store.lacks(action.id, Some((0, vec![[3, 7]])), NOW + 5).await.expect("noted");
    assert_eq!(f.store.candidates(after).await.expect("read"), [lacks, waiting("b")]);
    f.store.give_up_unheard(after).await.expect("noted");
    assert_eq!(f.store.candidates(after).await.expect("read").len(), 2, "it was heard");
    // It has all, or loads the rest by itself.
    f.store.lacks(action.id, None, NOW).await.expect("noted");
    assert_eq!(f.store.candidates(at).await.expect("read"), one_waits);
}

#[tokio::test]
async fn a_session_is_taken_up_until_it_is_over_and_then_its_keys_are_gone() {
    let f = fixture().await;
    let id = f.add(task("app", 1, |_| {})).await;
    let secret = Zeroizing::new(b"the secret of session one, 32 bytes.".to_vec());
    let called = f.store.call_session((id, 1), 4, secret.clone(), ("a", NOW)).await.expect("noted");
    let called = called.expect("no other is open");
    assert_eq!((called.task, called.position, called.expected, called.runs), (id, 1, 4, 1));
    assert_eq!(f.store.last_session(id, 1).await.expect("read"), None);
    let second = f.store.call_session((id, 0), 4, secret.clone(), ("b", NOW)).await.expect("asked");
    assert_eq!(second, None, "one at a time, whichever server calls it");
    let destination = "239.255.74.1:7418".parse().expect("an address");
    f.store.session_starts(&called, destination, NOW + 5).await.expect("noted");
    assert_eq!(f.store.beat(&called, "so far".into()).await.expect("noted"), Order::GoOn);
    let open = f.store.open_sessions().await.expect("read");
    let told = StoredSession { beat: 1, destination: Some(destination), begins: NOW + 5, ..called.clone() };
    assert_eq!(open, [StoredSession { figures: "so far".into(), ..told }]);
    f.store.begin_sessions(id).await.expect("noted");
    assert_eq!(f.store.beat(&called, "so far".into()).await.expect("noted"), Order::Begin);
    f.store.release_sessions("another").await.expect("none");
    assert_eq!(f.store.open_sessions().await.expect("read")[0].server.as_deref(), Some("a"));
    f.store.release_sessions("a").await.expect("noted");
    assert_eq!(f.store.open_sessions().await.expect("read")[0].server, None);
    // Each server that takes it up counts on, so that its announcements are newer. One does it.
    let again = f.store.take_up_session(&called, "b").await.expect("read").expect("it is open");
    assert_eq!((again.runs, again.server.as_deref(), again.destination), (2, Some("b"), None));
    assert_eq!(again.secret.as_ref(), Some(&secret));
    assert_eq!(f.store.take_up_session(&called, "c").await.expect("read"), None);
    assert_eq!(f.store.beat(&called, "late".into()).await.expect("noted"), Order::End, "it is another's");
    f.store.end_session(&called, "late".into(), NOW + 8).await.expect("no error");
    assert_eq!(f.store.beat(&again, "so far".into()).await.expect("noted"), Order::GoOn);
    f.store.session_starts(&called, destination, NOW).await.expect("no error");
    assert_eq!(f.store.open_sessions().await.expect("read")[0].destination, None);
    let backup = f.dir.path().join("backup.db");
    if let Database::File(path) = &f.database {
        Store::backup(path, &backup).await.expect("copied");
    }
    f.store.end_session(&again, "{}".into(), NOW + 9).await.expect("noted");
    f.store.end_session(&again, "later".into(), NOW + 10).await.expect("noted");
    assert_eq!(f.store.open_sessions().await.expect("read"), []);
    assert_eq!(f.store.last_session(id, 1).await.expect("read"), Some((NOW, NOW + 9)));
    assert_eq!(f.store.last_session(id, 0).await.expect("read"), None);
    let ended = f.store.sessions_of_task(id).await.expect("read");
    assert_eq!((ended.len(), ended[0].ended, ended[0].secret.clone()), (1, Some(NOW + 9), None));
    assert_eq!(ended[0].figures, "{}");
    // A cancelled task ends its sessions.
    let called = f.store.call_session((id, 0), 4, secret.clone(), ("b", NOW)).await.expect("noted");
    let called = called.expect("no other is open");
    f.store.cancel_task(id, NOW).await.expect("cancelled");
    assert_eq!(f.store.beat(&called, String::new()).await.expect("noted"), Order::End);
    f.store.end_session(&called, String::new(), NOW).await.expect("noted");
    f.store.close().await;
    if let Database::File(path) = &f.database {
        for file in [path, &backup] {
            let bytes = std::fs::read(file).expect("read");
            assert!(!bytes.windows(secret.len()).any(|window| window == &secret[..]), "{}", file.display());
        }
    }
}

#[tokio::test]
async fn what_expired_before_it_began_is_over() {
    let f = fixture().await;
    f.accept("a").await;
    f.accept("b").await;
    f.add(task("app", 1, |_| {})).await;
    f.store.begin(&f.only_action("a").await, None, NOW).await.expect("begun");
    f.store.expire(NOW + 999).await.expect("looked");
    assert_eq!(f.only_action("b").await.state, ActionState::Waiting);
    f.store.expire(NOW + 1000).await.expect("looked");
    assert!(f.store.open_actions("b").await.expect("read").is_empty());
    assert_eq!(f.only_action("a").await.state, ActionState::Running, "what began goes on");
}

#[tokio::test]
async fn a_line_enrols_as_many_devices_as_it_says() {
    let f = fixture().await;
    let token = blake3::hash(b"token");
    let line = NewLine {
        kind: LineKind::Line,
        label: String::new(),
        token,
        uses: Some(1),
        expires: NOW + 10,
        tags: vec!["lab3".into()],
        accepts: true,
        by: "first".into(),
    };
    let id = f.store.add_line(line, NOW).await.expect("added");
    let using = |device: &str, key: &str| EnrolmentUse {
        token,
        device: device.into(),
        public_key: key.into(),
        target: blake3::hash(device.as_bytes()),
        time: NOW,
    };
    let enrol =
        async |device: &str, key: &str, now| f.store.enrol(using(device, key), now).await.expect("asked");
    assert_eq!(enrol("a", "key a", NOW + 10).await, Enrolled::NoLine, "expired");
    assert_eq!(enrol("a", "key a", NOW).await, Enrolled::As(DeviceState::Accepted));
    assert_eq!(enrol("a", "key a", NOW).await, Enrolled::As(DeviceState::Accepted), "the answer was lost");
    assert_eq!(enrol("a", "key b", NOW).await, Enrolled::Taken);
    assert_eq!(enrol("b", "key b", NOW).await, Enrolled::NoLine, "used up");
    assert_eq!(f.store.tags(Some("a")).await.expect("read")["a"], ["lab3".to_owned()].into());
    let found = f.store.device_of_token(&blake3::hash(b"a")).await.expect("read").expect("known");
    assert_eq!((found.id.as_str(), found.public_key.as_deref()), ("a", Some("key a")));
    f.store.decide_device("a", DeviceState::Refused, None, NOW).await.expect("refused");
    assert_eq!(enrol("a", "key a", NOW).await, Enrolled::Refused);
    f.store.revoke_line(id).await.expect("revoked");
    assert_eq!(enrol("a", "key a", NOW).await, Enrolled::NoLine);
    assert!(matches!(f.store.revoke_line(99).await, Err(StoreError::Missing(_))));
    // A line's token is not a gateway's.
    assert_eq!(f.store.gateway(&token, NOW).await.expect("asked"), None);
}

#[tokio::test]
async fn an_admin_is_always_left() {
    let f = fixture().await;
    let operator =
        |name: &str, role| Operator { name: name.into(), public_key: name.into(), role, created: NOW };
    f.store.put_operator(operator("a", OperatorRole::Admin)).await.expect("put");
    f.store.put_operator(operator("b", OperatorRole::Read)).await.expect("put");
    assert!(f.store.remove_operator("a").await.is_err());
    assert!(f.store.put_operator(operator("a", OperatorRole::Operate)).await.is_err());
    assert_eq!(f.store.operator("a").await.expect("read").expect("there").role, OperatorRole::Admin);
    let other = Operator { name: "c".into(), ..operator("a", OperatorRole::Read) };
    assert!(
        matches!(f.store.put_operator(other).await, Err(StoreError::Conflict(_))),
        "one key, one operator"
    );
    f.store.remove_operator("b").await.expect("removed");
}

#[tokio::test]
async fn a_list_has_a_version_that_only_grows() {
    let f = fixture().await;
    f.accept("a").await;
    let version = async |tasks: &[u8], now| {
        f.store.list_version("a", blake3::hash(tasks), now).await.expect("a version")
    };
    let first = version(b"1", NOW).await;
    assert_eq!(first, NOW);
    assert_eq!(version(b"1", NOW + 5).await, first, "the same tasks");
    assert_eq!(version(b"2", NOW - 50).await, first + 1, "the clock went back");
    assert_eq!(version(b"1", NOW + 100).await, NOW + 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_time_are_all_kept_and_a_bad_one_undoes_only_itself() {
    let f = fixture().await;
    let mut changes = tokio::task::JoinSet::new();
    for n in 0..300 {
        let store = f.store.clone();
        changes.spawn(async move {
            if n % 3 == 0 {
                store.tag_device(&format!("nobody-{n}"), vec!["x".into()], vec![]).await.is_err()
            } else {
                store.decide_device(&format!("d-{n}"), DeviceState::Accepted, None, NOW).await.is_ok()
            }
        });
    }
    while let Some(change) = changes.join_next().await {
        assert!(change.expect("no panic"));
    }
    assert_eq!(f.store.devices("", 1000).await.expect("read").len(), 200);
}

#[tokio::test]
async fn the_heaviest_task_comes_first_and_then_the_oldest() {
    let f = fixture().await;
    f.accept("a").await;
    let mut ids = Vec::new();
    for (name, weight) in [("light", 1), ("usual", 1000), ("heavy", 1001), ("late", 1000)] {
        let new = task(name, 1, |_| {});
        ids.push(f.add(NewTask { terms: Terms { weight, ..Terms::default() }, ..new }).await);
    }
    let order: Vec<_> =
        f.store.open_actions("a").await.expect("read").iter().map(|action| action.task).collect();
    assert_eq!(order, [2, 1, 3, 0].map(|n| ids[n]));
}

#[tokio::test]
async fn messages_beyond_the_quota_are_dropped_and_the_feedback_is_taken() {
    let f = fixture().await;
    f.accept("a").await;
    f.add(task("app", 1, |_| {})).await;
    let action = f.only_action("a").await;
    f.store.begin(&action, None, NOW).await.expect("begun");
    let on = Report::Deployment { download_only: false };
    let say = async |execution, finished, details: Vec<String>| {
        let feedback = Feedback::new(&action.id.to_string(), execution, finished, details);
        f.store.feedback("a", action.id, on, feedback, NOW).await.expect("taken").expect("known")
    };
    // More lines than one feedback may have.
    for _ in 0..30 {
        let many = (0..200).map(|n| format!("line {n}")).collect();
        assert_eq!(
            say(Execution::Proceeding, Finished::None, many).await,
            Answer::Taken(ActionState::Running)
        );
    }
    let kept = f.store.history(action.id, usize::MAX >> 1).await.expect("read");
    assert!(!kept.contains(&"line 199".to_owned()), "{kept:?}");
    let end = say(Execution::Closed, Finished::Success, vec!["the end".into()]).await;
    assert_eq!(end, Answer::Taken(ActionState::Finished));
    assert_eq!(f.store.history(action.id, usize::MAX >> 1).await.expect("read"), kept);
}

#[tokio::test]
async fn what_a_device_has_only_loaded_is_not_its_version() {
    let f = fixture().await;
    f.accept("a").await;
    for (serial, download_only) in [(1, false), (2, true)] {
        let new = task("app", serial, |task| task.version = format!("{serial}.0"));
        f.add(NewTask { terms: Terms { download_only, ..Terms::default() }, ..new }).await;
        let action = f.only_action("a").await;
        let feedback =
            Feedback::new(&action.id.to_string(), Execution::Downloaded, Finished::Success, vec![]);
        if download_only {
            let on = Report::Deployment { download_only };
            let answer = f.store.feedback("a", action.id, on, feedback, NOW).await.expect("taken");
            assert_eq!(answer, Some(Answer::Taken(ActionState::Finished)));
        } else {
            f.say(&action, Execution::Closed, Finished::Success).await;
        }
    }
    assert_eq!(f.store.completed_version("a", "app").await.expect("read").as_deref(), Some("1.0"));
}

#[tokio::test]
async fn changes_that_cannot_wait_are_refused_and_the_others_are_done() {
    const CHANGES: usize = 1400;
    let f = fixture().await;
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    let store = f.store.clone();
    let slow = tokio::spawn(async move {
        // Whoever holds it up lets it go.
        store.write(|_| Box::pin(async { Ok(held.await.is_ok()) })).await
    });
    let mut changes = tokio::task::JoinSet::new();
    for n in 0..CHANGES {
        let store = f.store.clone();
        let entry = AuditEntry {
            at: NOW,
            who: "first".into(),
            address: String::new(),
            what: "change".into(),
            subject: n.to_string(),
        };
        changes.spawn(async move { (n, store.audit(entry).await) });
    }
    let mut done = std::collections::BTreeSet::new();
    let mut refused = 0;
    let mut release = Some(release);
    while let Some(change) = changes.join_next().await {
        match change.expect("a task") {
            (n, Ok(())) => drop(done.insert(n.to_string())),
            (_, Err(StoreError::Away(why))) => {
                assert_eq!(&*why, "too many changes wait");
                refused += 1;
                // The writer goes on once the first was refused.
                release.take().map(|release| release.send(()));
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    assert!(slow.await.expect("a task").expect("done"));
    assert!(refused > 0 && done.len() > 500, "{refused} {}", done.len());
    // What was answered is there, and nothing else.
    let trail = f.store.audit_trail(u32::MAX).await.expect("read");
    let written: std::collections::BTreeSet<_> = trail.into_iter().map(|entry| entry.subject).collect();
    assert_eq!(written, done);
}
