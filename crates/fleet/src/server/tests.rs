//! The server over real sockets of this machine, as its clients see it.

mod bounds;
mod campaigns;
mod documented;
mod hooks;
mod hostile;
mod metrics;
mod neighbours;
mod openapi;
mod page;
mod rollouts;
mod several;

use super::*;
use crate::commands::remote::{Remote, RemoteError};
use crate::ddi::{self, ControllerBase, DeploymentBase};
use crate::documents::{Audience, JoinRequest, Kind, List, Object, Task, Trusted, Window};
use crate::limits::{MAX_DDI_BODY, MAX_OFFERED};
use crate::store::{ActionState, Amount, Database, Terms};
use mcp_transfer::crypto::digest;
use mcp_transfer::units::{Digest, Extent};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

struct Fleet {
    running: Running,
    dir: tempfile::TempDir,
    http: Client,
    remote: Remote,
}

async fn fleet() -> Fleet {
    fleet_with(|_| {}).await
}

async fn fleet_with(change: impl FnOnce(&mut ServeConfig)) -> Fleet {
    let dir = tempfile::tempdir().expect("a directory");
    let local = "127.0.0.1:0".parse().expect("an address");
    let mut config =
        ServeConfig { listen_plain: Some(local), ..ServeConfig::new(dir.path().join("serve"), local) };
    config.database = Database::of_tests(&config.dir).await;
    change(&mut config);
    let serve = config.dir.clone();
    let running = start(config).await.expect("started");
    let remote =
        Remote::new(&serve.join("address.json"), None, &serve.join("operator.key")).expect("a remote");
    let http = Client::builder().no_proxy().build().expect("a client");
    Fleet { running, dir, http, remote }
}

impl Fleet {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.plain.expect("it listens"))
    }

    fn ddi(&self, device: &str, path: &str) -> String {
        self.url(&format!("/default/controller/v1/{device}{path}"))
    }

    /// Accepts a device; returns its Authorization header.
    async fn accept(&self, device: &str) -> String {
        let asked = AcceptRequest { token: true };
        let path = format!("/devices/{device}/accept");
        let answer: TokenResponse = self.remote.send(Method::POST, &path, &asked).await.expect("accepted");
        format!("TargetToken {}", answer.target_token.expect("a token"))
    }

    async fn task(&self, name: &str, bytes: &[u8], terms: Terms, change: impl FnOnce(&mut Task)) -> i64 {
        let path = self.dir.path().join(format!("{name}.swu"));
        std::fs::write(&path, bytes).expect("written");
        let blake3 = Hash::of(bytes);
        let file = std::fs::File::open(&path).expect("opened");
        let view: ObjectView = self.remote.upload(blake3, file).await.expect("uploaded");
        let serial: SerialView = self.remote.get(&format!("/serials/{name}")).await.expect("a serial");
        let now = clock::now();
        let mut task = Task::new(self.remote.address.fleet, name, serial.serial + 1, (now, now + 3600));
        task.at = Some("/srv/".into());
        task.objects =
            vec![Object { filename: format!("{name}.swu"), size: view.size, blake3, sha256: view.sha256 }];
        change(&mut task);
        let envelope = task.sign(&[&self.remote.key]).expect("signed").to_metadata();
        let asked = TaskRequest { envelope, terms, rollback: None };
        let answer: TaskResponse = self.remote.send(Method::POST, "/tasks", &asked).await.expect("added");
        answer.id
    }

    async fn get(&self, url: &str, auth: &str) -> Response {
        self.http.get(url).header("Authorization", auth).send().await.expect("an answer")
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, url: &str, auth: &str) -> T {
        let answer = self.get(url, auth).await;
        assert_eq!(answer.status(), 200, "{url}");
        ddi::parse(&answer.bytes().await.expect("a body")).expect("readable")
    }

    async fn poll(&self, device: &str, auth: &str) -> ControllerBase {
        self.read(&self.ddi(device, ""), auth).await
    }

    async fn send(&self, method: Method, url: &str, auth: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.http.request(method, url).header("Authorization", auth);
        request.header("Content-Type", "application/json").body(body).send().await.expect("an answer")
    }

    async fn say(&self, url: &str, auth: &str, execution: &str, finished: &str) -> StatusCode {
        let body =
            json!({"status": {"execution": execution, "result": {"finished": finished}, "details": ["x"]}});
        let answer = self.send(Method::POST, url, auth, body.to_string()).await;
        let status = answer.status();
        if status == 200 {
            assert!(answer.bytes().await.expect("a body").is_empty(), "success has no body");
        }
        status
    }

    async fn state(&self, task: i64, device: &str) -> ActionState {
        let view: TaskView = self.remote.get(&format!("/tasks/{task}")).await.expect("a task");
        let actions = view.actions.expect("actions");
        actions.iter().find(|action| action.device == device).expect("an action").state
    }
}

fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_client_goes_through_a_whole_cycle() {
    let f = fleet().await;
    let base = f.ddi("dev-1", "");
    assert_eq!(f.get(&base, "TargetToken nonsense").await.status(), 401, "unknown, and no hint");
    let auth = f.accept("dev-1").await;
    assert_eq!(f.get(&base, "TargetToken nonsense").await.status(), 401);
    assert_eq!(f.get(&f.ddi("dev-2", ""), &auth).await.status(), 401, "the token of another device");
    assert_eq!(f.get(&base, &auth.replace("TargetToken", "targettoken")).await.status(), 200);

    let poll = f.poll("dev-1", &auth).await;
    let sleep = poll.config.polling.sleep.expect("a sleep").get().as_secs();
    assert!((270..=330).contains(&sleep), "{sleep}");
    assert_eq!(poll.links.get("deploymentBase"), None);
    let config = poll.links.get("configData").expect("wanted").to_owned();
    assert!(config.starts_with(&f.url("/")), "links are built from Host: {config}");
    let body = json!({"mode": null, "data": {"hw": "b"}}).to_string();
    assert_eq!(f.send(Method::PUT, &config, &auth, body).await.status(), 200);
    assert_eq!(f.poll("dev-1", &auth).await.links.get("configData"), None);

    let content = bytes(3_000_000);
    let task = f.task("app", &content, Terms::default(), |t| t.version = "1.2".into()).await;
    let link = f.poll("dev-1", &auth).await.links.get("deploymentBase").expect("offered").to_owned();
    assert!(link.contains("?c="), "{link}");
    assert_eq!(f.state(task, "dev-1").await, ActionState::Waiting);
    let deployment: DeploymentBase = f.read(&link, &auth).await;
    assert_eq!(f.state(task, "dev-1").await, ActionState::Running);
    let what = deployment.deployment.expect("a deployment");
    let chunk = &what.chunks[0];
    assert_eq!((chunk.part.as_str(), chunk.name.as_str(), chunk.version.as_str()), ("bApp", "app", "1.2"));
    assert!(chunk.metadata.is_empty(), "a stock client gets nothing of ours");
    let artifact = &chunk.artifacts[0];
    assert_eq!(artifact.size, 3_000_000);
    assert_eq!(artifact.hashes.blake3.as_deref(), Some(&*Hash::of(&content).to_string()));
    let url = artifact.links.get("download-http").expect("plain").to_owned();

    let whole = f.get(&url, &auth).await;
    assert_eq!(whole.headers()["content-length"], "3000000");
    assert_eq!(whole.headers()["etag"], format!("\"{}\"", artifact.hashes.sha1.as_deref().expect("sha1")));
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert!(whole.bytes().await.expect("a body") == content);
    let ranged = async |range: &str| {
        let request = f.http.get(&url).header("Authorization", &auth).header("Range", range);
        request.send().await.expect("an answer")
    };
    let part = ranged("bytes=2999990-").await;
    assert_eq!(
        (part.status().as_u16(), &part.headers()["content-range"]),
        (206, &"bytes 2999990-2999999/3000000".parse().expect("a value"))
    );
    assert!(part.bytes().await.expect("a body") == content[2_999_990..]);
    let beyond = ranged("bytes=3000000-").await;
    assert_eq!(
        (beyond.status().as_u16(), &beyond.headers()["content-range"]),
        (416, &"bytes */3000000".parse().expect("a value"))
    );
    let head = f.http.head(&url).header("Authorization", &auth).send().await.expect("an answer");
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        (200, &"3000000".parse().expect("a value"))
    );
    let sum = f.get(artifact.links.get("md5sum-http").expect("a sum"), &auth).await;
    let sum = sum.text().await.expect("a text");
    assert_eq!(sum, format!("{}  app.swu", artifact.hashes.md5.as_deref().expect("md5")));
    assert_eq!(f.get(&url, "TargetToken nonsense").await.status(), 401, "downloads need the same");
    assert_eq!(f.get(&url.replace("app.swu", "..%2Ffleet.db"), &auth).await.status(), 404);

    let feedback = f.ddi("dev-1", &format!("/deploymentBase/{}/feedback", deployment.id));
    // A bare newline in a string, as swupdate sends it.
    let raw = "{\"id\":1,\"status\":{\"execution\":\"proceeding\",\"result\":{\"finished\":\"none\",\"progress\":{}},\"details\":[\"half\n\"]}}";
    assert_eq!(f.send(Method::POST, &feedback, &auth, raw).await.status(), 200);
    assert_eq!(f.say(&feedback, &auth, "closed", "success").await, 200);
    assert_eq!(f.say(&feedback, &auth, "closed", "success").await, 410);
    assert_eq!(f.state(task, "dev-1").await, ActionState::Finished);
    assert_eq!(f.get(&url, &auth).await.status(), 404, "the action is over");
    let poll = f.poll("dev-1", &auth).await;
    assert_eq!(poll.links.get("deploymentBase"), None);
    assert!(poll.links.get("configData").is_some(), "attributes are asked for again");
    let installed = poll.links.get("installedBase").expect("installed").to_owned();
    let installed: DeploymentBase = f.read(&format!("{installed}?actionHistory=-1"), &auth).await;
    let history = installed.action_history.expect("a history");
    assert_eq!(history.status, "FINISHED");
    assert!(history.messages.contains(&"half".to_owned()), "{history:?}");
    f.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_action_is_the_devices_to_end() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let task = f.task("app", b"x", Terms::default(), |_| {}).await;
    let link = f.poll("d", &auth).await.links.get("deploymentBase").expect("offered").to_owned();
    let _: DeploymentBase = f.read(&link, &auth).await;
    f.remote.order(Method::POST, &format!("/tasks/{task}/cancel"), vec![]).await.expect("cancelled");
    let poll = f.poll("d", &auth).await;
    assert_eq!(poll.links.get("deploymentBase"), None, "never two");
    let cancel = poll.links.get("cancelAction").expect("to cancel").to_owned();
    assert!(!cancel.contains('?'), "{cancel}");
    assert_eq!(f.get(&link, &auth).await.status(), 404);
    let asked: ddi::Cancel = f.read(&cancel, &auth).await;
    let feedback = format!("{cancel}/feedback");
    assert_eq!(f.say(&feedback, &auth, "canceled", "success").await, 200, "a common mistake changes nothing");
    assert_eq!(f.state(task, "d").await, ActionState::Cancelling);
    assert_eq!(f.say(&feedback, &auth, "rejected", "none").await, 200);
    assert!(f.poll("d", &auth).await.links.get("deploymentBase").is_some(), "it goes on");
    let late = f
        .send(
            Method::POST,
            &feedback,
            &auth,
            json!({"status": {"execution": "closed", "result": {"finished": "success"}}}).to_string(),
        )
        .await;
    assert_eq!(late.status(), 405);
    let error: ddi::ErrorBody = late.json_body().await;
    assert_eq!(error.error_code, "hawkbit.server.error.action.notCancelable");
    assert_eq!(
        f.say(
            &link.split('?').next().map(|l| format!("{l}/feedback")).expect("a link"),
            &auth,
            "closed",
            "success"
        )
        .await,
        200
    );
    assert_eq!(f.state(task, "d").await, ActionState::Finished, "what the device did counts");
    assert_eq!(asked.id, asked.cancel_action.stop_id);
}

trait JsonBody {
    async fn json_body<T: serde::de::DeserializeOwned>(self) -> T;
}

impl JsonBody for Response {
    async fn json_body<T: serde::de::DeserializeOwned>(self) -> T {
        serde_json::from_slice(&self.bytes().await.expect("a body")).expect("JSON")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_as_hawkbit_says_it() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let other = f.accept("other").await;
    let task = f.task("app", b"x", Terms::default(), |t| t.to = Audience::Devices(["d".into()].into())).await;
    let id = f.running.store().open_actions("d").await.expect("read")[0].id;
    let put = f.ddi("d", "/configData");
    let feedback = f.ddi("d", &format!("/deploymentBase/{id}/feedback"));
    let code = async |answer: Response| {
        let status = answer.status().as_u16();
        let body = answer.bytes().await.expect("a body");
        let error: ddi::ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
        (status, error.error_code.replace("hawkbit.server.error.", ""))
    };
    let expect = |status: u16, code: &str| (status, code.to_owned());
    let bad = f.send(Method::POST, &feedback, &auth, "{").await;
    assert_eq!(code(bad).await, expect(400, "rest.body.notReadable"));
    let bad = f.send(Method::PUT, &put, &auth, r#"{"data":{}}"#).await;
    assert_eq!(code(bad).await, expect(400, "repo.invalidTargetAttributes"));
    for data in
        [json!({"k".repeat(129): "v"}), json!({"k": "v".repeat(129)}), json!({"k`": "v"}), json!({"k": "ä"})]
    {
        let bad = f.send(Method::PUT, &put, &auth, json!({ "data": data }).to_string()).await;
        assert_eq!(code(bad).await, expect(400, "repo.invalidTargetAttributes"), "{data}");
    }
    let many: Value =
        (0..101).map(|n| (format!("k{n}"), Value::from("v"))).collect::<serde_json::Map<_, _>>().into();
    let bad = f.send(Method::PUT, &put, &auth, json!({ "data": many }).to_string()).await;
    assert_eq!(code(bad).await, expect(429, "quota.tooManyEntries"));
    let large = f.send(Method::PUT, &put, &auth, vec![b' '; MAX_DDI_BODY + 1]).await;
    assert_eq!(large.status(), 413);
    let form =
        f.http.put(&put).header("Authorization", &auth).header("Content-Type", "application/cbor").body("x");
    assert_eq!(form.send().await.expect("an answer").status(), 415);
    let cbor = f.http.get(f.ddi("d", "")).header("Authorization", &auth).header("Accept", "application/cbor");
    assert_eq!(cbor.send().await.expect("an answer").status(), 406);
    assert_eq!(f.send(Method::DELETE, &put, &auth, "").await.status(), 405);
    assert_eq!(code(f.get(&f.ddi("d", "/deploymentBase/x"), &auth).await).await.0, 400);
    assert_eq!(
        code(f.get(&f.ddi("d", "/deploymentBase/99"), &auth).await).await,
        expect(404, "repo.entityNotFound")
    );
    // Feedback and files of another device.
    let forged = f.ddi("other", &format!("/deploymentBase/{id}/feedback"));
    assert_eq!(f.say(&forged, &other, "closed", "success").await, 404);
    assert_eq!(
        f.get(&f.ddi("other", &format!("/softwaremodules/{task}/artifacts/app.swu")), &other).await.status(),
        404
    );
    assert_eq!(f.state(task, "d").await, ActionState::Waiting);
    // A document that did not change.
    let list = f.ddi("d", &format!("/softwaremodules/{task}/artifacts"));
    let tag = f.get(&list, &auth).await.headers()["etag"].clone();
    let same = f.http.get(&list).header("Authorization", &auth).header("If-None-Match", tag);
    assert_eq!(same.send().await.expect("an answer").status(), 304);

    f.remote.order(Method::POST, "/devices/d/refuse", vec![]).await.expect("refused");
    assert_eq!(f.get(&f.ddi("d", ""), &auth).await.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_brings_devices_that_wait_to_be_accepted() {
    let f = fleet().await;
    let asked = EnrolmentRequest {
        kind: crate::store::LineKind::Gateway,
        label: "hall 3".into(),
        uses: None,
        valid: 3600,
        tags: vec![],
        accepts: false,
    };
    let line: EnrolmentResponse = f.remote.send(Method::POST, "/enrolments", &asked).await.expect("a token");
    let auth = format!("GatewayToken {}", line.line);
    f.task("app", b"x", Terms::default(), |_| {}).await;
    let poll = f.poll("new-device", &auth).await;
    assert!(poll.links.get("deploymentBase").is_none() && poll.links.get("configData").is_some());
    let device: DeviceView = f.remote.get("/devices/new-device").await.expect("known");
    assert_eq!(device.state, crate::store::DeviceState::Pending);
    f.accept("new-device").await;
    assert!(f.poll("new-device", &auth).await.links.get("deploymentBase").is_some());
    assert_eq!(f.get(&f.ddi("a%20b", ""), &auth).await.status(), 401, "no blanks in a name");
    f.remote.order(Method::POST, &format!("/enrolments/{}/revoke", line.id), vec![]).await.expect("revoked");
    assert_eq!(f.get(&f.ddi("new-device", ""), &auth).await.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_believed_only_if_it_is_trusted() {
    let ask = async |f: &Fleet, id: &str, issuer: &str| {
        let request =
            f.http.get(f.ddi("cert-1", "")).header("X-Controller-Id", id).header("X-Authority", issuer);
        request
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "updates.example")
            .send()
            .await
            .expect("an answer")
    };
    let f = fleet().await;
    assert_eq!(ask(&f, "cert-1", "abc").await.status(), 401);
    let f = fleet_with(|config| {
        config.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
        config.authorities = vec!["abc".into()];
    })
    .await;
    assert_eq!(ask(&f, "cert-2", "abc").await.status(), 401, "another device's certificate");
    assert_eq!(ask(&f, "cert-1", "abd").await.status(), 401, "another issuer");
    let answer = ask(&f, "cert-1", "zzz, abc").await;
    assert_eq!(answer.status(), 200);
    let poll: ControllerBase = answer.json_body().await;
    let link = poll.links.get("configData").expect("wanted").to_owned();
    assert_eq!(link, "https://updates.example/default/controller/v1/cert-1/configData");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_has_it_is_not_offered_it() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let when = |t: &mut Task| t.when = vec!["version < 2.1".parse().expect("a term")];
    let task = f.task("fw", b"x", Terms::default(), when).await;
    assert!(f.poll("d", &auth).await.links.get("deploymentBase").is_none(), "nothing is known of it yet");
    let tell = async |version: &str| {
        let body = json!({"data": {"version": version}}).to_string();
        assert_eq!(f.send(Method::PUT, &f.ddi("d", "/configData"), &auth, body).await.status(), 200);
        f.poll("d", &auth).await.links.get("deploymentBase").map(str::to_owned)
    };
    assert_eq!(tell("2.10").await, None);
    assert_eq!(f.state(task, "d").await, ActionState::Unneeded);
    assert!(tell("2.0").await.is_some(), "it was set back");
    // What it says that it runs already.
    let other = f.task("other", b"y", Terms::default(), |t| t.version = "7".into()).await;
    let installed = async |version: &str| {
        let body = json!({"name": "other", "version": version}).to_string();
        f.send(Method::PUT, &f.ddi("d", "/installedBase"), &auth, body).await.status().as_u16()
    };
    assert_eq!((installed("8").await, installed("7").await), (404, 200));
    assert_eq!(f.state(other, "d").await, ActionState::Unneeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_wait_for_their_time_and_their_order() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    f.task("later", b"x", Terms::default(), |t| t.start = Some(clock::now() + 90)).await;
    let poll = f.poll("d", &auth).await;
    assert!(poll.links.get("deploymentBase").is_none());
    let sleep = poll.config.polling.sleep.expect("a sleep").get().as_secs();
    assert!((29..=30).contains(&sleep), "{sleep}");
    let second = f.task("second", b"y", Terms::default(), |t| t.after = vec!["first".into()]).await;
    assert!(f.poll("d", &auth).await.links.get("deploymentBase").is_none());
    let heavy = Terms { weight: 2000, ..Terms::default() };
    f.task("first", b"z", heavy, |_| {}).await;
    let link = f.poll("d", &auth).await.links.get("deploymentBase").expect("the first").to_owned();
    let first: DeploymentBase = f.read(&link, &auth).await;
    assert_eq!(first.deployment.expect("a deployment").chunks[0].name, "first");
    let feedback = format!("{}/feedback", link.split('?').next().expect("a link"));
    assert_eq!(f.say(&feedback, &auth, "closed", "success").await, 200);
    f.remote.order(Method::POST, &format!("/tasks/{second}/pause"), vec![]).await.expect("paused");
    assert!(f.poll("d", &auth).await.links.get("deploymentBase").is_none(), "paused");
    f.remote.order(Method::POST, &format!("/tasks/{second}/resume"), vec![]).await.expect("resumed");
    let link = f.poll("d", &auth).await.links.get("deploymentBase").expect("the second").to_owned();
    let next: DeploymentBase = f.read(&link, &auth).await;
    assert_eq!(next.deployment.expect("a deployment").chunks[0].name, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_clients_get_one_action_at_a_time_and_our_agents_all_that_wait() {
    let f = fleet().await;
    let (stock, ours) = (f.accept("stock").await, f.accept("ours").await);
    let attributes = json!({"data": {"mcp.version": "1"}}).to_string();
    let told = f.send(Method::PUT, &f.ddi("ours", "/configData"), &ours, attributes).await;
    assert_eq!(told.status(), 200);
    let night = |t: &mut Task| {
        let minute = clock::minute_of_day(clock::now()).0;
        t.window = Window::new((minute + 360) % 1440, (minute + 420) % 1440);
    };
    let night = f.task("night", b"n", Terms::default(), night).await;
    let confirm = Terms { confirm: true, ..Terms::default() };
    let asked = f.task("asked", b"a", confirm, |_| {}).await;
    let first = f.task("first", b"f", Terms::default(), |_| {}).await;
    let second = f.task("second", b"s", Terms::default(), |t| t.after = vec!["first".into()]).await;
    let lost = f.task("lost", b"l", Terms::default(), |t| t.after = vec!["asked".into()]).await;
    let offers = async |device: &str, auth: &str| -> Vec<(String, i64)> {
        let poll = f.poll(device, auth).await;
        let all = if poll.offers.is_empty() { vec![poll.links] } else { poll.offers };
        let mut named = Vec::new();
        for (rel, href) in all.iter().flat_map(crate::ddi::Links::iter) {
            if matches!(rel, "deploymentBase" | "confirmationBase" | "cancelAction") {
                let id = href.rsplit('/').next().and_then(|id| id.split('?').next()).expect("a number");
                let action = f.running.store().action(device, id.parse().expect("a number")).await;
                named.push((rel.to_owned(), action.expect("a store").expect("an action").task));
            }
        }
        named
    };
    let offer = |rel: &str, task: i64| (rel.to_owned(), task);
    // The window of the first one is closed, which holds back nothing.
    assert_eq!(offers("stock", &stock).await, [offer("deploymentBase", first)]);
    let mut all = vec![
        offer("deploymentBase", night),
        offer("deploymentBase", first),
        offer("deploymentBase", second),
        offer("confirmationBase", asked),
    ];
    assert_eq!(offers("ours", &ours).await, all, "nothing that waits for {lost} is live");
    // What has begun comes last, and is offered again: the agent may have lost its state.
    let link = f.poll("ours", &ours).await.links.get("deploymentBase").expect("a link").to_owned();
    let _: DeploymentBase = f.read(&link, &ours).await;
    all.rotate_left(1);
    assert_eq!(offers("ours", &ours).await, all);
    f.remote.order(Method::POST, &format!("/tasks/{night}/cancel"), vec![]).await.expect("cancelled");
    all.rotate_right(1);
    all[0].0 = "cancelAction".into();
    assert_eq!(offers("ours", &ours).await, all);
    // One that has what the task brings says so by a code.
    let action = f.running.store().action_for("ours", first).await.expect("a store").expect("an action");
    let has = json!({"status": {"execution": "closed", "result": {"finished": "success"}, "code": 2080}});
    let url = f.ddi("ours", &format!("/deploymentBase/{}/feedback", action.id));
    assert_eq!(f.send(Method::POST, &url, &ours, has.to_string()).await.status(), 200);
    assert_eq!(f.state(first, "ours").await, ActionState::Unneeded);
    for n in 0..20 {
        f.task(&format!("more-{n}"), b"m", Terms::default(), |_| {}).await;
    }
    assert_eq!(offers("ours", &ours).await.len(), MAX_OFFERED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_confirms_by_hand_or_by_rule() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let confirm = Terms { confirm: true, ..Terms::default() };
    let task = f.task("app", b"x", confirm.clone(), |_| {}).await;
    let poll = f.poll("d", &auth).await;
    assert!(poll.links.get("deploymentBase").is_none());
    let link = poll.links.get("confirmationBase").expect("to confirm").to_owned();
    let asked: DeploymentBase = f.read(&link, &auth).await;
    assert!(asked.deployment.is_none() && asked.confirmation.is_some());
    let deployment = f.ddi("d", &format!("/deploymentBase/{}", asked.id));
    assert_eq!(f.get(&deployment, &auth).await.status(), 404);
    assert_eq!(f.say(&format!("{deployment}/feedback"), &auth, "closed", "success").await, 404);
    let answer = f.ddi("d", &format!("/confirmationBase/{}/feedback", asked.id));
    let reply = async |word: &str| {
        f.send(Method::POST, &answer, &auth, json!({"confirmation": word}).to_string())
            .await
            .status()
            .as_u16()
    };
    assert_eq!(reply("denied").await, 200);
    assert_eq!(f.state(task, "d").await, ActionState::Confirming);
    assert_eq!(reply("confirmed").await, 200);
    assert_eq!(reply("confirmed").await, 404);
    assert!(f.poll("d", &auth).await.links.get("deploymentBase").is_some());

    f.task("next", b"y", confirm, |_| {}).await;
    let activate = f.ddi("d", "/confirmationBase/activateAutoConfirm");
    assert_eq!(f.send(Method::POST, &activate, &auth, r#"{"initiator":"me"}"#).await.status(), 200);
    assert_eq!(f.send(Method::POST, &activate, &auth, "").await.status(), 409);
    let base: ddi::ConfirmationBase = f.read(&f.ddi("d", "/confirmationBase"), &auth).await;
    assert!(base.auto_confirm.active && base.links.get("deactivateAutoConfirm").is_some());
    assert!(base.links.get("confirmationBase").is_none(), "nothing waits any more");
    assert_eq!(
        f.send(Method::POST, &f.ddi("d", "/confirmationBase/deactivateAutoConfirm"), &auth, "")
            .await
            .status(),
        200
    );
}

/// An agent of ours, as far as the server sees it.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_enrols_and_can_check_what_it_gets() {
    let f = fleet_with(|config| {
        config.downloads = 1;
        config.mirrors = vec!["https://cdn.example/mcp/".into()];
    })
    .await;
    let asked = EnrolmentRequest {
        kind: crate::store::LineKind::Line,
        label: String::new(),
        uses: Some(1),
        valid: 3600,
        tags: vec!["lab3".into()],
        accepts: true,
    };
    let line: EnrolmentResponse = f.remote.send(Method::POST, "/enrolments", &asked).await.expect("a line");
    let line: Enrolment = line.line.parse().expect("a line");
    assert_eq!((&line.url, line.pin), (&f.running.reach.url, f.running.reach.pin));
    let own = SecretKey::from_seed(&[7; 32]);
    let enrol = async |token: &str, device: &str| {
        let request = JoinRequest::new(line.fleet, device, own.public(), (token, "secret"), clock::now());
        let mut envelope = Envelope::unsigned(serde_json::to_vec(&request).expect("JSON"));
        envelope.sign(Kind::Join, &own);
        let body = json!({"token": token, "envelope": envelope.to_metadata()}).to_string();
        f.send(Method::POST, &f.url("/mcp/v1/enrol"), "", body).await
    };
    assert_eq!(enrol("nonsense", "agent-1").await.status(), 401);
    assert_eq!(enrol(&line.token, "not a name").await.status(), 400);
    assert_eq!(enrol(&line.token, "agent-1").await.status(), 200);
    let auth = "TargetToken secret".to_owned();
    assert_eq!(enrol(&line.token, "agent-2").await.status(), 401, "one device only");

    let body = json!({"data": {"mcp.version": "0.1.0"}}).to_string();
    assert_eq!(f.send(Method::PUT, &f.ddi("agent-1", "/configData"), &auth, body).await.status(), 200);
    let content = bytes(2_500_000);
    let object = f.url(&format!("/mcp/v1/objects/{}", Hash::of(&content)));
    assert_eq!(f.get(&object, &auth).await.status(), 404, "it has no task with it");
    // A window that is closed now: an agent keeps to it by itself, and may load.
    let (minute, _) = clock::minute_of_day(clock::now());
    let window = crate::documents::Window::new((minute + 600) % 1440, (minute + 601) % 1440);
    f.task("app", &content, Terms::default(), |t| t.window = window).await;

    let root = f.http.get(f.url("/mcp/v1/roots/1")).send().await.expect("an answer");
    let root = Envelope::parse(&root.bytes().await.expect("a body")).expect("an envelope");
    assert_eq!(f.get(&f.url("/mcp/v1/roots/2"), "").await.status(), 404);
    let trusted = Trusted::begin(line.fleet, "agent-1", line.root, &root).expect("the pinned root");
    let poll = f.poll("agent-1", &auth).await;
    let list = format!("{}?nonce=00ff", poll.links.get("mcp-list").expect("a list"));
    let list =
        Envelope::parse(&f.get(&list, &auth).await.bytes().await.expect("a body")).expect("an envelope");
    let now = clock::now();
    let trusted = trusted.take_list(&list, Some("00ff"), now).expect("a valid list");
    let again =
        f.get(poll.links.get("mcp-list").expect("a list"), &auth).await.bytes().await.expect("a body");
    let versions = [&list, &Envelope::parse(&again).expect("an envelope")]
        .map(|list| List::parse(list.payload()).expect("a list").version);
    assert_eq!(versions[0], versions[1], "the same tasks");

    let link = poll.links.get("deploymentBase").expect("offered").to_owned();
    let deployment: DeploymentBase = f.read(&link, &auth).await;
    let chunk = deployment.deployment.expect("a deployment").chunks.remove(0);
    let mirrors = chunk.metadata.iter().find(|entry| entry.key == "mcp.mirrors").expect("mirrors");
    assert_eq!(mirrors.value, "https://cdn.example/mcp/");
    let carried = ddi::task_from_metadata(&chunk.metadata).expect("a signed task");
    let carried = Envelope::from_metadata(&carried).expect("an envelope");
    let attributes = std::collections::BTreeMap::new();
    let listing = crate::documents::Listing::Required;
    let (_, task) = trusted.take_task(&carried, &attributes, listing, now).expect("a valid task");
    assert_eq!(task.name, "app");
    let linked =
        f.get(deployment.links.get("mcp-task").expect("a link"), &auth).await.bytes().await.expect("a body");
    assert_eq!(Envelope::parse(&linked).expect("an envelope"), carried);

    let values = f.get(&format!("{object}/hashes"), &auth).await.bytes().await.expect("a body");
    let values: Vec<Digest> = values.as_chunks().0.iter().copied().map(Digest).collect();
    assert_eq!(digest::root(&values).0, task.objects[0].blake3.0);
    let part = f.http.get(&object).header("Authorization", &auth).header("Range", "bytes=1048576-2097151");
    let part =
        part.header("If-Range", format!("\"{}\"", Hash::of(&content))).send().await.expect("an answer");
    assert_eq!(part.status(), 206);
    let part = part.bytes().await.expect("a body");
    assert_eq!(digest::chaining_value(1 << 20, &part, Extent::sealed(content.len() as u64)), values[1]);
    assert_eq!(f.get(&object, "").await.status(), 401);

    // One download at a time: the next is told to come later. The first one's bytes are not taken from the socket.
    let held = f.running.app.downloads.slots.clone().acquire_owned().await.expect("a slot");
    let later = f.get(&object, &auth).await;
    assert_eq!(later.status(), 503);
    let wait: u64 = later.headers()["retry-after"].to_str().expect("a text").parse().expect("seconds");
    assert!((10..=15).contains(&wait), "{wait}");
    drop(held);
    assert_eq!(f.get(&object, &auth).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_may_do_what_their_role_says_and_nothing_is_taken_twice() {
    let f = fleet().await;
    let serve = f.dir.path().join("serve");
    let key_file = f.dir.path().join("reader.key");
    let reader = state_dir::own_key(&key_file).expect("a key");
    let other = Remote::new(&serve.join("address.json"), None, &key_file).expect("a remote");
    let refused = |outcome: Result<Vec<TaskView>, RemoteError>| match outcome {
        Err(RemoteError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(other.get("/tasks").await).contains("no operator"));
    let asked = OperatorRequest { key: reader.public().to_string(), role: OperatorRole::Read };
    let body = serde_json::to_vec(&asked).expect("JSON");
    f.remote.order(Method::PUT, "/operators/reader", body.clone()).await.expect("named");
    assert!(other.get::<Vec<TaskView>>("/tasks").await.expect("may look").is_empty());
    for (method, path) in
        [(Method::POST, "/devices/d/accept"), (Method::PUT, "/operators/me"), (Method::POST, "/roots")]
    {
        let denied = other.order(method, path, body.clone()).await;
        assert!(
            matches!(&denied, Err(RemoteError::Refused(why)) if why.contains("may only read")),
            "{path} {denied:?}"
        );
    }
    // Said also to who sends a file meanwhile.
    let file = f.dir.path().join("file");
    std::fs::write(&file, bytes(200_000)).expect("written");
    let hash = Hash::of(&bytes(200_000));
    for _ in 0..20 {
        let opened = std::fs::File::open(&file).expect("opened");
        let denied = other.upload::<ObjectView>(hash, opened).await;
        assert!(
            matches!(&denied, Err(RemoteError::Refused(why)) if why.contains("may only read")),
            "{denied:?}"
        );
    }
    assert!(other.get::<Vec<crate::store::EnrolmentLine>>("/enrolments").await.is_err());
    assert!(f.running.store().device("d").await.expect("read").is_none());

    // By hand: a request that is signed, and everything about it that may be changed.
    let now = clock::now();
    let payload = RequestPayload {
        fleet: f.remote.address.fleet,
        method: "GET".into(),
        path: "/mcp/v1/manage/tasks".into(),
        body: Hash::of(b""),
        time: now,
        nonce: "1".into(),
    };
    let send = async |method: Method, payload: &RequestPayload, url: &str| {
        let mut envelope = Envelope::unsigned(serde_json::to_vec(payload).expect("JSON"));
        envelope.sign(Kind::Request, &f.remote.key);
        let auth = format!("McpRequest {}", envelope.to_metadata());
        f.http
            .request(method, f.url(url))
            .header("Authorization", auth)
            .send()
            .await
            .expect("an answer")
            .status()
    };
    let ask = async |payload: &RequestPayload, url: &str| send(Method::GET, payload, url).await;
    assert_eq!(ask(&payload, "/mcp/v1/manage/tasks").await, 200);
    assert_eq!(ask(&payload, "/mcp/v1/manage/tasks").await, 200, "it changes nothing");
    let pause = "/mcp/v1/manage/tasks/7/pause";
    let change = RequestPayload { method: "POST".into(), path: pause.into(), ..payload.clone() };
    assert_eq!(send(Method::POST, &change, pause).await, 404, "there is no such task");
    assert_eq!(send(Method::POST, &change, pause).await, 401, "sent before");
    let other = |change: fn(&mut RequestPayload)| {
        let mut payload = RequestPayload { nonce: "2".into(), ..payload.clone() };
        change(&mut payload);
        payload
    };
    assert_eq!(ask(&other(|_| {}), "/mcp/v1/manage/devices").await, 401, "another path");
    assert_eq!(ask(&other(|p| p.method = "POST".into()), "/mcp/v1/manage/tasks").await, 401);
    assert_eq!(ask(&other(|p| p.body = Hash::of(b"x")), "/mcp/v1/manage/tasks").await, 401);
    assert_eq!(ask(&other(|p| p.time -= 400), "/mcp/v1/manage/tasks").await, 401);
    assert_eq!(ask(&other(|p| p.time += 400), "/mcp/v1/manage/tasks").await, 401);
    assert_eq!(ask(&other(|p| p.fleet = FleetId([9; 16])), "/mcp/v1/manage/tasks").await, 401);
    assert_eq!(ask(&other(|_| {}), "/mcp/v1/manage/tasks").await, 200);
    assert_eq!(f.get(&f.url("/mcp/v1/manage/tasks"), "").await.status(), 401);

    let trail: Vec<crate::store::AuditEntry> = f.remote.get("/audit").await.expect("a trail");
    assert_eq!(
        (trail[0].who.as_str(), trail[0].what.as_str(), trail[0].subject.as_str()),
        ("first", "name operator", "reader (read)")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_devices_would_refuse_is_refused_here() {
    let f = fleet().await;
    let add = async |task: &Task, key: &SecretKey| {
        let envelope = task.sign(&[key]).expect("signed").to_metadata();
        let asked = TaskRequest { envelope, terms: Terms::default(), rollback: None };
        f.remote.send::<TaskResponse>(Method::POST, "/tasks", &asked).await
    };
    let now = clock::now();
    let fleet = f.remote.address.fleet;
    let mut task = Task::new(fleet, "t", 1, (now, now + 100));
    (task.kind, task.handler) = (crate::documents::TaskKind::Batch, Some("h".into()));
    let stranger = SecretKey::from_seed(&[3; 32]);
    assert!(matches!(add(&task, &stranger).await, Err(RemoteError::Refused(why)) if why.contains("root 1")));
    let but = |change: fn(&mut Task)| {
        let mut task = task.clone();
        change(&mut task);
        task
    };
    let expired = but(|t| (t.issued, t.expires) = (t.issued - 10, t.issued - 1));
    assert!(
        matches!(add(&expired, &f.remote.key).await, Err(RemoteError::Refused(why)) if why.contains("expired"))
    );
    let foreign = but(|t| t.fleet = FleetId([9; 16]));
    assert!(
        matches!(add(&foreign, &f.remote.key).await, Err(RemoteError::Refused(why)) if why.contains("fleet"))
    );
    add(&task, &f.remote.key).await.expect("added");
    let replayed = but(|t| t.version = "0".into());
    assert!(
        matches!(add(&replayed, &f.remote.key).await, Err(RemoteError::Refused(why)) if why.contains("serial"))
    );

    // The next root, with one key more: signed by the key of roots, or not.
    let root = Root::parse(
        Envelope::parse(&f.remote.newest_root().await.expect("a root")).expect("an envelope").payload(),
    );
    let mut root = root.expect("a root");
    root.version = 2;
    root.tasks.keys.insert(stranger.public());
    let forged = root.sign(&[&f.remote.key]).expect("signed").to_bytes();
    assert!(f.remote.order(Method::POST, "/roots", forged).await.is_err());
    let root_key = state_dir::read_key(&f.dir.path().join("serve/root.key")).expect("read").expect("there");
    let signed = root.sign(&[&root_key]).expect("signed").to_bytes();
    f.remote.order(Method::POST, "/roots", signed).await.expect("published");
    let later = but(|t| t.serial = 2);
    add(&later, &stranger).await.expect("added");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_the_announced_ones_are_not_kept() {
    let f = fleet().await;
    let path = f.dir.path().join("x");
    std::fs::write(&path, b"other").expect("written");
    let hash = Hash::of(b"announced");
    let sent: Result<ObjectView, _> =
        f.remote.upload(hash, std::fs::File::open(&path).expect("opened")).await;
    assert!(matches!(sent, Err(RemoteError::Refused(_))), "{sent:?}");
    assert!(f.remote.get::<ObjectView>(&format!("/objects/{hash}")).await.is_err());
    assert!(Objects::listed(&f.dir.path().join("serve/objects")).expect("listed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_means_later_and_claims_nothing() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    f.task("app", b"x", Terms::default(), |_| {}).await;
    let link = f.poll("d", &auth).await.links.get("deploymentBase").expect("offered").to_owned();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(f.dir.path().join("serve/fleet.db"));
    let other = sqlx::sqlite::SqlitePool::connect_with(options).await.expect("opened");
    let mut lock = other.acquire().await.expect("a connection");
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut *lock).await.expect("locked");
    let later = f.get(&link, &auth).await;
    assert_eq!(later.status(), 503);
    assert!(later.headers().contains_key("retry-after"));
    sqlx::query("ROLLBACK").execute(&mut *lock).await.expect("unlocked");
    let deployment: DeploymentBase = f.read(&link, &auth).await;
    assert_eq!(deployment.id, f.running.store().open_actions("d").await.expect("read")[0].id.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_device_that_asks_without_end_is_slowed_down_alone() {
    let f = fleet().await;
    let (busy, calm) = (f.accept("busy").await, f.accept("calm").await);
    let (url, mut asked) = (f.ddi("busy", ""), tokio::task::JoinSet::new());
    for _ in 0..800 {
        let request = f.http.get(&url).header("Authorization", &busy);
        asked.spawn(async move { request.send().await.expect("an answer").status().as_u16() });
    }
    let answers = asked.join_all().await;
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    assert!(
        count(200) >= 100 && count(429) >= 1 && count(200) + count(429) == 800,
        "{} {}",
        count(200),
        count(429)
    );
    assert_eq!(f.get(&f.ddi("calm", ""), &calm).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_keeps_its_state_and_its_directory_to_itself() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let task = f.task("app", b"x", Terms::default(), |_| {}).await;
    let config = f.running.app.config.clone();
    assert!(matches!(start(config.clone()).await, Err(ServeError::Busy(_))));
    let reach = f.running.reach.clone();
    f.running.shut_down().await;
    let running = start(config).await.expect("started again");
    assert_eq!((running.reach.pin, running.reach.fleet), (reach.pin, reach.fleet));
    let device = running.store().device("d").await.expect("read").expect("known");
    let token = auth.strip_prefix("TargetToken ").expect("a token");
    assert_eq!(device.token, Some(blake3::hash(token.as_bytes())), "only its hash is kept");
    assert_eq!(running.store().open_actions("d").await.expect("read")[0].task, task);
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_are_paced_over_all() {
    let f = fleet_with(|config| config.http_rate = Some(2_000_000)).await;
    let auth = f.accept("d").await;
    let task = f.task("app", &bytes(1_000_000), Terms::default(), |_| {}).await;
    let url = f.ddi("d", &format!("/softwaremodules/{task}/artifacts/app.swu"));
    let begun = std::time::Instant::now();
    let (a, b) = tokio::join!(f.get(&url, &auth), f.get(&url, &auth));
    let (a, b) = tokio::join!(a.bytes(), b.bytes());
    assert_eq!((a.expect("a body").len(), b.expect("a body").len()), (1_000_000, 1_000_000));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(800), "2 MB at 2 MB/s took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_agents_see_a_task_of_several_files() {
    let f = fleet().await;
    let stock = f.accept("stock").await;
    let ours = f.accept("ours").await;
    let attributes = json!({"data": {"mcp.version": "0.1.0"}}).to_string();
    assert_eq!(f.send(Method::PUT, &f.ddi("ours", "/configData"), &ours, attributes).await.status(), 200);
    for confirm in [false, true] {
        let two = |task: &mut Task| {
            let mut more = task.objects[0].clone();
            more.filename = "more.swu".to_owned();
            task.objects.push(more);
        };
        let name = if confirm { "asked" } else { "app" };
        let task = f.task(name, b"x", Terms { confirm, ..Terms::default() }, two).await;
        let links = f.poll("stock", &stock).await.links;
        assert!(links.get("deploymentBase").is_none() && links.get("confirmationBase").is_none());
        assert_eq!(f.state(task, "stock").await, ActionState::Failed);
        let view: TaskView = f.remote.get(&format!("/tasks/{task}")).await.expect("a task");
        let actions = view.actions.expect("actions");
        let action = actions.iter().find(|action| action.device == "stock").expect("its action");
        assert_eq!(action.message, "clients other than mcp agent take one file; add a task for each");
        if !confirm {
            let link = f.poll("ours", &ours).await.links.get("deploymentBase").expect("a link").to_owned();
            let answer: ddi::DeploymentBase = f.get(&link, &ours).await.json_body().await;
            assert_eq!(answer.deployment.expect("a deployment").chunks[0].artifacts.len(), 2);
        }
    }
}
