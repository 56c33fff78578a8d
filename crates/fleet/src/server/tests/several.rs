//! Several servers with one database and one bucket.

use super::campaigns::{SIZE, by_multicast, own_group, receiver};
use super::*;
use crate::store::postgres::Postgres;
use mcp_transfer::session::Target;

/// Two servers of a fleet.
async fn two(postgres: &Postgres, change: impl Fn(&mut ServeConfig)) -> [Fleet; 2] {
    let database = postgres.database("fleet").await;
    let shared = tempfile::tempdir().expect("a directory").keep();
    let change = |config: &mut ServeConfig| {
        config.database = database.clone();
        config.bucket = Some(format!("file://{}", shared.display()).parse().expect("a URL"));
        change(config);
    };
    let one = fleet_with(change).await;
    // One that is not of the fleet is told so, before any device hears it.
    let dir = tempfile::tempdir().expect("a directory");
    let local = "127.0.0.1:0".parse().expect("an address");
    let mut config =
        ServeConfig { listen_plain: Some(local), ..ServeConfig::new(dir.path().join("serve"), local) };
    change(&mut config);
    let stranger = start(config.clone()).await.expect_err("it has other keys");
    assert!(stranger.to_string().contains("is not the key of the fleet"), "{stranger}");
    for name in ["lists.key", "operator.key", "tls.key", "tls.crt"] {
        let from = one.dir.path().join("serve").join(name);
        std::fs::copy(from, dir.path().join("serve").join(name)).expect("copied");
    }
    let running = start(config).await.expect("started");
    let serve = dir.path().join("serve");
    let remote =
        Remote::new(&serve.join("address.json"), None, &serve.join("operator.key")).expect("a remote");
    assert_eq!(remote.address.pin, one.remote.address.pin, "devices know both");
    let http = Client::builder().no_proxy().build().expect("a client");
    [one, Fleet { running, dir, http, remote }]
}

/// Asks until the answer is there; the servers look every second.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap_or_else(|_| panic!("no {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_known_to_all_servers_and_goes_on_at_another_one() {
    let Some(postgres) = Postgres::start() else { return };
    let [one, two] = two(&postgres, by_multicast).await;
    let agents = [one.agent("a").await, one.agent("b").await];
    let [a, b] = &agents;
    let task = one.task("image", &bytes(SIZE as usize), Terms::default(), |_| {}).await;
    let called = one.takes(a, task).await.expect("two devices wait for it");
    let told = until("invitation", async || two.takes(b, task).await).await;
    assert_eq!((&told.sender, &told.seal, told.group), (&called.sender, &called.seal, called.group));
    let shown = |view: &SessionView| (view.expected, view.runs, view.gathering, view.over);
    let [view] =
        &until("view", async || Some(two.sessions(task).await).filter(|all| !all.is_empty())).await[..]
    else {
        panic!("one session")
    };
    assert_eq!(shown(view), (2, 1, true, false));
    // The second one has the object by itself, and goes on when the first one ends.
    let hash = blake3::Hash::from(Hash::of(&bytes(SIZE as usize)).0);
    until("object", async || two.running.app.objects.contains(&hash).then_some(())).await;
    one.running.shut_down().await;
    let again =
        until("second run", async || Some(two.sessions(task).await).filter(|all| all[0].runs == 2)).await;
    assert_eq!((again.len(), again[0].over), (1, false));
    let offer = two.offer(b, task, vec![[0, 1 << 20]]).await.session.expect("it runs");
    assert_eq!((&offer.sender, &offer.seal), (&called.sender, &called.seal));
    two.remote.order(Method::POST, &format!("/tasks/{task}/cancel"), Vec::new()).await.expect("cancelled");
    until("end", async || Some(two.sessions(task).await).filter(|all| all[0].over)).await;
    two.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_one_server_is_begun_and_ended_at_another_one() {
    let Some(postgres) = Postgres::start() else { return };
    let group = own_group();
    let multicast = |config: &mut ServeConfig| {
        by_multicast(config);
        config.multicast.as_mut().expect("multicast").target = Target::At(group);
    };
    let [one, two] = two(&postgres, multicast).await;
    let (a, _b) = (one.agent("a").await, one.agent("b").await);
    let task = one.task("first", &bytes(SIZE as usize), Terms::default(), |_| {}).await;
    let session = one.takes(&a, task).await.expect("two devices wait for it");
    let receiver = receiver(&session, group, one.dir.path().join("copy"));
    two.remote.order(Method::POST, &format!("/tasks/{task}/start"), Vec::new()).await.expect("taken");
    // It does not wait for the second device any more.
    tokio::task::spawn_blocking(|| receiver.wait()).await.expect("a thread").expect("it ended");
    until("end", async || Some(one.sessions(task).await).filter(|all| all[0].over)).await;
    two.remote.order(Method::POST, &format!("/tasks/{task}/cancel"), Vec::new()).await.expect("cancelled");
    let task = one.task("second", &bytes(SIZE as usize), Terms::default(), |_| {}).await;
    one.takes(&a, task).await;
    until("session", async || one.offer(&a, task, vec![[0, SIZE]]).await.session).await;
    assert!(one.sessions(task).await[0].gathering);
    two.remote.order(Method::POST, &format!("/tasks/{task}/cancel"), Vec::new()).await.expect("cancelled");
    until("end of it", async || Some(one.sessions(task).await).filter(|all| all[0].over)).await;
    one.running.shut_down().await;
    two.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_one_server_took_is_not_taken_by_another_one() {
    let Some(postgres) = Postgres::start() else { return };
    let [one, two] = two(&postgres, |_| {}).await;
    let path = "/mcp/v1/manage/devices/d/accept";
    let body = b"{}";
    let payload = RequestPayload {
        fleet: one.remote.address.fleet,
        method: "POST".into(),
        path: path.into(),
        body: Hash::of(body),
        time: clock::now(),
        nonce: "1".into(),
    };
    let mut envelope = Envelope::unsigned(serde_json::to_vec(&payload).expect("JSON"));
    envelope.sign(Kind::Request, &one.remote.key);
    let auth = format!("McpRequest {}", envelope.to_metadata());
    let ask = async |server: &Fleet| {
        server.send(Method::POST, &server.url(path), &auth, body.to_vec()).await.status().as_u16()
    };
    assert_eq!([ask(&one).await, ask(&two).await, ask(&one).await], [200, 401, 401]);
    // A token of one is a token of the other.
    let token = one.accept("e").await;
    two.poll("e", &token).await;
    one.running.shut_down().await;
    two.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_a_server_has_yet_to_fetch_comes_later() {
    let Some(postgres) = Postgres::start() else { return };
    let [one, two] = two(&postgres, |_| {}).await;
    let token = one.accept("a").await;
    let task = one.task("image", &bytes(SIZE as usize), Terms::default(), |_| {}).await;
    let hash = blake3::Hash::from(Hash::of(&bytes(SIZE as usize)).0);
    until("object", async || two.running.app.objects.contains(&hash).then_some(())).await;
    // It is lost, and the bucket is not there.
    let Some(bucket) = two.running.app.config.bucket.clone() else { panic!("a bucket") };
    let shared = PathBuf::from(format!("{bucket:?}").trim_start_matches("file://"));
    std::fs::rename(&shared, shared.with_extension("away")).expect("renamed");
    two.running.app.objects.remove(&hash).expect("removed");
    let action = two.action(task, "a").await;
    two.read::<DeploymentBase>(&two.ddi("a", &format!("/deploymentBase/{action}")), &token).await;
    let file = two.ddi("a", &format!("/softwaremodules/{task}/artifacts/image.swu"));
    let answer = two.get(&file, &token).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    // A task cannot be added with an object that no other server could have.
    let path = two.dir.path().join("new");
    std::fs::write(&path, b"new").expect("written");
    let upload = async || {
        let opened = std::fs::File::open(&path).expect("opened");
        two.remote.upload::<ObjectView>(Hash::of(b"new"), opened).await
    };
    std::fs::write(&shared, b"no directory").expect("written");
    let refused = upload().await.expect_err("the bucket is away");
    assert!(refused.to_string().contains("check the bucket"), "{refused}");
    std::fs::remove_file(&shared).expect("removed");
    std::fs::rename(shared.with_extension("away"), &shared).expect("renamed");
    upload().await.expect("uploaded");
    let answer =
        until("answer", async || Some(two.get(&file, &token).await).filter(|answer| answer.status() == 200))
            .await;
    assert!(answer.bytes().await.expect("a body") == bytes(SIZE as usize));
    one.running.shut_down().await;
    two.running.shut_down().await;
}
