//! Tasks in groups, as operators, devices and browsers see them.

use super::bounds::feedback;
use super::page::{Browser, went};
use super::*;

fn in_groups(groups: &[&str]) -> Terms {
    Terms { groups: groups.iter().map(|text| text.parse().expect("a group")).collect(), ..Terms::default() }
}

impl Fleet {
    async fn view(&self, task: i64) -> TaskView {
        self.remote.get(&format!("/tasks/{task}")).await.expect("a task")
    }

    /// Waits until the task is as is said here.
    async fn until(&self, task: i64, so: impl Fn(&TaskView) -> bool) -> TaskView {
        for _ in 0..1000 {
            let view = self.view(task).await;
            if so(&view) {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it did not come to that: {:?}", self.view(task).await)
    }

    /// Takes what the device is offered, and ends it so.
    async fn does(&self, device: &str, auth: &str, how: &str) {
        let link = self.offered(device, auth).await.expect("an offer");
        let _: DeploymentBase = self.read(&link, auth).await;
        assert_eq!(self.say(&feedback(&link), auth, "closed", how).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_paused_goes_on_and_is_undone() {
    let f = fleet().await;
    let mut auth = Vec::new();
    for device in ["a", "b", "c"] {
        auth.push(f.accept(device).await);
    }
    let tag = TagRequest { add: vec!["canary".into()], remove: Vec::new() };
    let body = serde_json::to_vec(&tag).expect("JSON");
    f.remote.order(Method::POST, "/devices/b/tag", body).await.expect("tagged");
    let old = f.task("fw", b"old", Terms::default(), |t| t.version = "1".into()).await;
    let sign = |task: &Task| task.sign(&[&f.remote.key]).expect("signed").to_metadata();
    let mut new = f.view(old).await.task;
    (new.serial, new.version) = (2, "2".into());
    let mut back = new.clone();
    (back.serial, back.version) = (3, "1".into());

    let add = async |terms: Terms, rollback: Option<String>| {
        let asked = TaskRequest { envelope: sign(&new), terms, rollback };
        f.remote.send::<TaskResponse>(Method::POST, "/tasks", &asked).await
    };
    let refused = async |terms: Terms, rollback: Option<String>, why: &str| match add(terms, rollback).await {
        Err(RemoteError::Refused(said)) => assert!(said.contains(why), "{said}"),
        other => panic!("{other:?}"),
    };
    let groups = || in_groups(&["tag:canary"]);
    let share = "5%".parse().expect("a per cent");
    refused(Terms { failures: share, ..Terms::default() }, None, "tasks with groups only").await;
    refused(Terms { groups: vec![groups().groups[0].clone(); 33], ..groups() }, None, "at most 32 groups")
        .await;
    refused(groups(), Some(sign(&new)), "a higher serial").await;
    let but = |change: fn(&mut Task)| {
        let mut task = back.clone();
        change(&mut task);
        task
    };
    refused(groups(), Some(sign(&but(|t| t.name = "x".into()))), "the name of its task").await;
    refused(groups(), Some(sign(&but(|t| t.objects[0].blake3 = Hash([0; 32])))), "upload it first").await;
    let stranger = back.sign(&[&SecretKey::from_seed(&[3; 32])]).expect("signed").to_metadata();
    refused(groups(), Some(stranger), "root 1").await;

    let id = add(groups(), Some(sign(&back))).await.expect("added").id;
    assert_eq!(f.offered("a", &auth[0]).await, None);
    f.does("b", &auth[1], "failure").await;
    let view = f.until(id, |view| view.state.as_str() == "paused").await;
    let rollout = view.rollout.expect("in groups");
    let why = "1 of 1 devices of group 1 failed; at most 0% may";
    assert_eq!((rollout.open, rollout.held.as_deref(), view.rollback), (0, Some(why), true));

    let browser = Browser::of(&f).await;
    let path = format!("/tasks/{id}");
    let page = browser.text(&path).await;
    for text in [why, "tag:canary", "all others", "Resume", "Roll back"] {
        assert!(page.contains(text), "{text} in {page}");
    }
    f.remote.order(Method::POST, &format!("{path}/resume"), Vec::new()).await.expect("resumed");
    f.until(id, |view| view.rollout.as_ref().is_some_and(|rollout| rollout.open == 1)).await;
    f.does("a", &auth[0], "success").await;

    let word = browser.word().await;
    let answer = browser.post(&format!("{path}/rollback"), &[("word", &word)]).await;
    let undo = id + 1;
    assert_eq!(went(&answer), (303, &*format!("/tasks/{undo}")));
    assert_eq!(f.view(id).await.state.as_str(), "cancelled");
    let view = f.view(undo).await;
    assert_eq!((view.task.version.as_str(), view.actions.map(|actions| actions.len())), ("1", Some(2)));
    f.does("a", &auth[0], "success").await;
    f.does("b", &auth[1], "success").await;
    assert_eq!(f.offered("c", &auth[2]).await, None);
    assert_eq!(f.poll("c", &auth[2]).await.links.get("cancelAction"), None);

    let asked: ChangeResponse =
        f.remote.send(Method::POST, &format!("{path}/rollback"), &json!({})).await.expect("known");
    assert_eq!(asked, ChangeResponse { task: Some(undo), devices: 2 });
    let none =
        f.remote.send::<ChangeResponse>(Method::POST, &format!("/tasks/{old}/rollback"), &json!({})).await;
    assert!(matches!(none, Err(RemoteError::Refused(why)) if why.contains("no task to roll back to")));
    let trail: Vec<crate::store::AuditEntry> = f.remote.get("/audit").await.expect("a trail");
    let said = |who: &str, what: &str| trail.iter().any(|entry| entry.who == who && entry.what == what);
    assert!(said("server", "pause task") && said("server", "open group") && said("first", "rollback task"));
}
