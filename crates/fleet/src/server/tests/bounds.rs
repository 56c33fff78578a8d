//! Who gets what when, and what holds when there is too much, or the database is away.

use super::*;
use crate::limits::MAX_DETAILS;

/// Holds the database of a fleet for itself: nobody else writes.
pub(super) struct Locked {
    connection: sqlx::pool::PoolConnection<sqlx::Sqlite>,
}

impl Locked {
    pub(super) async fn of(f: &Fleet) -> Self {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(f.dir.path().join("serve/fleet.db"));
        let other = sqlx::sqlite::SqlitePool::connect_with(options).await.expect("opened");
        let mut connection = other.acquire().await.expect("a connection");
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut *connection).await.expect("locked");
        Self { connection }
    }

    pub(super) async fn release(mut self) {
        sqlx::query("ROLLBACK").execute(&mut *self.connection).await.expect("unlocked");
    }
}

impl Fleet {
    /// The link of the deployment that a device is offered.
    pub(super) async fn offered(&self, device: &str, auth: &str) -> Option<String> {
        self.poll(device, auth).await.links.get("deploymentBase").map(str::to_owned)
    }

    /// The name of the task that a device is offered, which begins it.
    async fn begins(&self, device: &str, auth: &str) -> String {
        let link = self.offered(device, auth).await.expect("an offer");
        let begun: DeploymentBase = self.read(&link, auth).await;
        begun.deployment.expect("a deployment").chunks[0].name.clone()
    }

    /// Ends what a device was offered.
    async fn ends(&self, link: &str, auth: &str) {
        assert_eq!(self.say(&feedback(link), auth, "closed", "success").await, 200);
    }

    /// Says of a device that it runs our agent.
    async fn is_ours(&self, device: &str, auth: &str) {
        let attributes = json!({"data": {"mcp.version": "0.1.0"}}).to_string();
        let told = self.send(Method::PUT, &self.ddi(device, "/configData"), auth, attributes).await;
        assert_eq!(told.status(), 200);
    }
}

/// Where feedback on a link goes.
pub(super) fn feedback(link: &str) -> String {
    format!("{}/feedback", link.split('?').next().expect("a link"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_loaded_goes_on_while_the_database_is_away() {
    const SIZE: usize = 24_000_000;
    let f = fleet().await;
    let (auth, big) = (f.accept("d").await, bytes(SIZE));
    let task = f.task("app", &big, Terms::default(), |_| {}).await;
    let link = f.offered("d", &auth).await.expect("an offer");
    let _: DeploymentBase = f.read(&link, &auth).await;
    let url = f.ddi("d", &format!("/softwaremodules/{task}/artifacts/app.swu"));
    let begun = f.get(&url, &auth).await;
    let locked = Locked::of(&f).await;
    // What had begun, and what begins meanwhile: neither writes.
    assert!(begun.bytes().await.expect("a body") == big, "all of it");
    assert!(f.get(&url, &auth).await.bytes().await.expect("a body") == big, "all of it");
    // What the device says is not lost: it is told to say it again.
    let body = json!({"status": {"execution": "closed", "result": {"finished": "success"}}}).to_string();
    let later = f.send(Method::POST, &feedback(&link), &auth, body).await;
    assert_eq!(later.status(), 503);
    assert!(later.headers().contains_key("retry-after"));
    locked.release().await;
    assert_eq!(f.state(task, "d").await, ActionState::Running, "nothing was claimed");
    f.ends(&link, &auth).await;
    assert_eq!(f.state(task, "d").await, ActionState::Finished);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_is_waited_for() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let task = f.task("app", b"x", Terms::default(), |_| {}).await;
    let link = f.offered("d", &auth).await.expect("an offer");
    let locked = Locked::of(&f).await;
    let (answer, ()) = tokio::join!(f.get(&link, &auth), async {
        // A reader is not held up by it.
        assert!(f.offered("d", &auth).await.is_some());
        locked.release().await;
    });
    assert_eq!(answer.status(), 200);
    assert_eq!(f.state(task, "d").await, ActionState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_says_how_it_is_to_be_handled() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let handled = async |name: &str, terms: Terms| {
        let task = f.task(name, name.as_bytes(), terms, |_| {}).await;
        let link = f.offered("d", &auth).await.expect("an offer");
        let answer: Value = f.get(&link, &auth).await.json_body().await;
        let how = ["download", "update"].map(|what| answer["deployment"][what].clone());
        (task, link, how)
    };
    let (_, link, how) = handled("forced", Terms::default()).await;
    assert_eq!(how, ["forced", "forced"]);
    f.ends(&link, &auth).await;
    let soft = Terms { update: ddi::Handling::Attempt, ..Terms::default() };
    let (_, link, how) = handled("soft", soft).await;
    assert_eq!(how, ["attempt", "attempt"]);
    f.ends(&link, &auth).await;
    let load = Terms { download_only: true, ..Terms::default() };
    let (task, link, how) = handled("load", load).await;
    assert_eq!(how, ["forced", "skip"]);
    assert_eq!(f.say(&feedback(&link), &auth, "downloaded", "none").await, 200);
    assert_eq!(f.state(task, "d").await, ActionState::Finished, "loading was all");
    assert_eq!(f.offered("d", &auth).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heaviest_task_comes_first_and_then_the_oldest() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    for (name, weight) in [("old", 1000), ("light", 10), ("heavy", 2000), ("new", 1000), ("heavier", 2001)] {
        f.task(name, name.as_bytes(), Terms { weight, ..Terms::default() }, |_| {}).await;
    }
    for expected in ["heavier", "heavy", "old", "new", "light"] {
        let link = f.offered("d", &auth).await.expect("an offer");
        assert_eq!(f.begins("d", &auth).await, expected);
        f.ends(&link, &auth).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_clients_are_told_later_while_enough_of_them_load() {
    let f = fleet_with(|config| (config.stock_downloads, config.http_rate) = (1, Some(1_000_000))).await;
    let (first, second, ours) = (f.accept("first").await, f.accept("second").await, f.accept("ours").await);
    f.is_ours("ours", &ours).await;
    let task = f.task("app", &bytes(24_000_000), Terms::default(), |_| {}).await;
    let link = f.offered("first", &first).await.expect("an offer");
    let _: DeploymentBase = f.read(&link, &first).await;
    let kept = f.offered("second", &second).await.expect("an offer");
    let url = f.ddi("first", &format!("/softwaremodules/{task}/artifacts/app.swu"));
    let loading = f.get(&url, &first).await;
    assert_eq!(loading.status(), 200);
    // They would fail on a refusal. They get no offer, and a time to come again.
    let poll = f.poll("second", &second).await;
    assert!(poll.links.get("deploymentBase").is_none() && poll.config.polling.sleep.is_some());
    assert_eq!(f.get(&kept, &second).await.status(), 404, "offered before");
    assert!(f.offered("ours", &ours).await.is_some(), "it is told by a status");
    assert!(f.offered("first", &first).await.is_some(), "it has begun");
    drop(loading);
    while f.offered("second", &second).await.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(f.begins("second", &second).await, "app");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_at_no_more_devices_at_once_than_it_says() {
    let f = fleet().await;
    let mut devices = Vec::new();
    for name in ["a", "b", "c"] {
        devices.push((name, f.accept(name).await));
    }
    f.task("app", b"x", Terms { at_once: super::Amount::Devices(2), ..Terms::default() }, |_| {}).await;
    let mut links = Vec::new();
    for (name, auth) in &devices {
        links.push(f.offered(name, auth).await.expect("none has begun"));
    }
    for n in 0..2 {
        let _: DeploymentBase = f.read(&links[n], &devices[n].1).await;
    }
    // Whether it was offered before or not.
    let (name, auth) = &devices[2];
    assert_eq!(f.get(&links[2], auth).await.status(), 404);
    assert_eq!(f.offered(name, auth).await, None);
    f.ends(&links[0], &devices[0].1).await;
    assert_eq!(f.begins(name, auth).await, "app");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_says_too_much_is_heard_and_not_written_down() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let task = f.task("app", b"x", Terms::default(), |_| {}).await;
    let link = f.offered("d", &auth).await.expect("an offer");
    let details = vec!["again and again"; MAX_DETAILS * 2];
    let said =
        json!({"status": {"execution": "proceeding", "result": {"finished": "none"}, "details": details}});
    let rows = async || {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(f.dir.path().join("serve/fleet.db"));
        let pool = sqlx::sqlite::SqlitePool::connect_with(options).await.expect("opened");
        let (rows,): (i64,) =
            sqlx::query_as("SELECT COUNT(*) FROM messages").fetch_one(&pool).await.expect("counted");
        usize::try_from(rows).expect("a count")
    };
    for n in 0..30 {
        let answer = f.send(Method::POST, &feedback(&link), &auth, said.to_string()).await;
        assert_eq!(answer.status(), 200, "{n}");
        // What it says, and what is kept of it at each time.
        assert!(rows().await <= ((n + 1) * (MAX_DETAILS + 1) + 1).min(1000), "{n}");
    }
    assert_eq!(rows().await, 1000);
    f.ends(&link, &auth).await;
    assert_eq!((f.state(task, "d").await, rows().await), (ActionState::Finished, 1000), "it counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_completed_is_known_by_the_table() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let firmware = async |version: &str, when: &str| {
        let change = |task: &mut Task| {
            task.version = version.to_owned();
            task.when = when.parse().into_iter().collect();
        };
        f.task("fw", version.as_bytes(), Terms::default(), change).await
    };
    firmware("2.1", "").await;
    let link = f.offered("d", &auth).await.expect("an offer");
    f.ends(&link, &auth).await;
    // It has never said its version itself.
    let (older, newer) = ("version < 2.1", "version < 2.2");
    let unneeded = firmware("2.1.1", older).await;
    assert_eq!(f.offered("d", &auth).await, None);
    assert_eq!(f.state(unneeded, "d").await, ActionState::Unneeded);
    firmware("2.2", newer).await;
    assert_eq!(f.begins("d", &auth).await, "fw");
}
