//! On which terms an agent takes a task: whose key has signed it, and what the server lets it do now.

use super::*;

/// The second root: with one more key for tasks.
fn next_root(more: u8) -> Envelope {
    let mut next = Root::parse(root().payload()).unwrap();
    (next.version, next.issued, next.expires) = (2, clock(), clock() + 1000 * HOUR);
    next.tasks.keys.insert(key(more).public());
    next.sign(&[&key(1)]).unwrap()
}

fn offer_by(bed: &Bed, action: &str, task: &Task, signer: u8) {
    bed.world().offer = Some((action.to_owned(), Some(task.sign(&[&key(signer)]).unwrap())));
}

async fn refused(bed: &Bed) {
    let refused = bed.closed().await;
    assert_eq!((&refused["code"], &refused["result"]["finished"]), (&json!(4010), &json!("failure")));
    bed.world().feedback.clear();
}

#[tokio::test]
async fn a_strangers_task_makes_an_agent_ask_for_roots_once() {
    let bed = Bed::new().await;
    let agent = bed.start(None, bed.settings());
    let task = bed.task(1);
    offer_by(&bed, "1", &task, 9);
    refused(&bed).await;
    assert_eq!(bed.world().roots, 2, "at the start, and because of the task");
    for action in ["2", "3", "4"] {
        offer_by(&bed, action, &task, 9);
        refused(&bed).await;
    }
    assert_eq!(bed.world().roots, 2, "not at each poll");
    // Another task of the same key is taken once a newer root names it.
    bed.world().next_root = Some(next_root(9));
    offer_by(&bed, "5", &bed.task(2), 9);
    assert!(success(&bed.closed().await));
    agent.stop().await;
}

#[tokio::test]
async fn an_expired_root_holds_a_task_until_there_is_a_newer_one() {
    let bed = Bed::new().await;
    let roles = [1, 2, 3].map(|n| Role::of(key(n).public()));
    let old = Root::new((fleet(), 1), (clock() - 24 * HOUR, clock() - HOUR), roles).sign(&[&key(1)]).unwrap();
    let trusted = Trusted::begin(fleet(), "desk-07", old.hash(), &old).unwrap();
    StateDir::open(&bed.state()).unwrap().write("trusted.json", &trusted.to_bytes()).unwrap();
    bed.offer("1", Some(&bed.task(1)));
    let agent = bed.start(None, bed.settings());
    let held = bed.hears("deploymentBase", |status| status["code"] == 4080).await;
    assert_eq!((&held["execution"], &held["result"]["finished"]), (&json!("rejected"), &json!("none")));
    assert!(!bed.destination().exists());
    bed.world().next_root = Some(next_root(9));
    assert!(success(&bed.closed().await));
    agent.stop().await;
}

#[tokio::test]
async fn what_is_only_to_be_loaded_is_put_in_place_once_the_server_lets_it() {
    let bed = Bed::new().await;
    bed.world().skip_update = Some(false);
    bed.offer("1", Some(&bed.task(1)));
    let agent = bed.start(None, bed.settings());
    let said = bed.hears("deploymentBase", |status| status["execution"] == "downloaded").await;
    assert_eq!(said["result"]["finished"], "success", "{said}");
    assert!(!bed.destination().exists());
    let objects = bed.world().objects;
    // A restart changes nothing.
    agent.stop().await;
    let status = serde_json::to_value(status_of(&bed)).unwrap();
    assert_eq!((&status["tasks"][0]["state"], &status["completed"]), (&json!("loaded"), &json!({})));
    let agent = bed.start(None, bed.settings());
    bed.world().skip_update = None;
    assert!(success(&bed.closed().await));
    assert_eq!(std::fs::read(bed.destination()).unwrap(), *bed.world().content);
    assert_eq!(bed.world().objects, objects, "nothing is loaded twice");
    agent.stop().await;
}

#[tokio::test]
async fn a_closed_window_of_the_server_is_waited_for() {
    let bed = Bed::new().await;
    bed.world().skip_update = Some(true);
    bed.offer("1", Some(&bed.task(1)));
    let agent = bed.start(None, bed.settings());
    bed.hears("deploymentBase", |status| status["details"][0] == "waits until the server lets it install")
        .await;
    assert!(!bed.destination().exists());
    bed.world().skip_update = None;
    assert!(success(&bed.closed().await));
    let downloaded = |(_, said): &(String, Value)| said["status"]["execution"] == "downloaded";
    assert!(!bed.world().feedback.iter().any(downloaded), "it was not the end of it");
    agent.stop().await;
}

#[tokio::test]
async fn the_version_that_a_device_tells_follows_what_it_has_taken() {
    let bed = Bed::new().await;
    bed.offer("1", None);
    let unsigned = Some(bed.dir.path().join("unsigned"));
    let attributes = BTreeMap::from([("sw_version".to_owned(), "0.9".to_owned())]);
    let settings = Settings { unsigned_copies: unsigned, plain: true, attributes, ..bed.settings() };
    let agent = bed.start(Some(bed.stock()), settings);
    assert!(success(&bed.closed().await));
    let told = || -> Vec<Value> {
        bed.world().attributes.iter().map(|sent| sent["data"]["sw_version"].clone()).collect()
    };
    while told().len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(told(), [json!("0.9"), json!("1.0")], "once each");
    agent.stop().await;
}

#[tokio::test]
async fn what_was_only_loaded_serves_the_next_task_of_the_name() {
    let bed = Bed::new().await;
    bed.world().skip_update = Some(false);
    bed.offer("1", Some(&bed.task(1)));
    let agent = bed.start(None, bed.settings());
    bed.hears("deploymentBase", |status| status["execution"] == "downloaded").await;
    let objects = bed.world().objects;
    bed.world().skip_update = None;
    bed.offer("2", Some(&bed.task(2)));
    assert!(success(&bed.closed().await));
    assert_eq!(bed.world().objects, objects, "nothing is loaded twice");
    assert_eq!(std::fs::read_dir(bed.destination().parent().unwrap()).unwrap().count(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_device_with_too_many_attributes_goes_on_working() {
    let bed = Bed::new().await;
    bed.world().full = true;
    bed.offer("1", Some(&bed.task(1)));
    let agent = bed.start(None, bed.settings());
    assert!(success(&bed.closed().await));
    agent.stop().await;
}
