//! Web hooks: real receivers, good and bad.

use super::*;
use crate::agent::testing::{self, Server};
use crate::store::{EventKind, Hook};
use data_encoding::BASE64;
use ring::hmac;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Answers each event with a status.
async fn receiver(status: impl Fn(u64) -> &'static str + Send + Sync + 'static) -> Server {
    let seen = AtomicU64::new(0);
    Server::start(move |_, stream| {
        let head = format!("{}\r\nContent-Length: 2", status(seen.fetch_add(1, Ordering::Relaxed)));
        async move { testing::send(stream, &head, b"ok").await }
    })
    .await
}

impl Fleet {
    async fn hook(&self, url: &str, kinds: &[EventKind]) -> HookResponse {
        let asked = HookRequest { url: url.into(), kinds: kinds.to_vec() };
        self.remote.send(Method::POST, "/hooks", &asked).await.expect("added")
    }

    async fn hooks(&self) -> Vec<Hook> {
        self.remote.get("/hooks").await.expect("hooks")
    }

    /// A device does a task.
    async fn done(&self, device: &str, auth: &str, name: &str) -> i64 {
        let task = self.task(name, &bytes(300), Terms::default(), |_| {}).await;
        let link = self.poll(device, auth).await.links.get("deploymentBase").expect("offered").to_owned();
        assert_eq!(self.get(&link, auth).await.status(), 200);
        let feedback = link.split(['?', '#']).next().expect("a link").to_owned() + "/feedback";
        assert_eq!(self.say(&feedback, auth, "closed", "success").await, 200);
        task
    }
}

/// Waits until so many requests came.
async fn requests(server: &Server, count: usize) -> Vec<testing::Request> {
    let come = async {
        while server.requests().len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), come).await;
    waited.unwrap_or_else(|_| panic!("{} of {count} requests", server.requests().len()));
    server.requests()
}

fn kinds(requests: &[testing::Request]) -> Vec<String> {
    let kind = |request: &testing::Request| {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        body["type"].as_str().expect("a type").to_owned()
    };
    requests.iter().map(kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_gets_what_happens_signed_and_in_order() {
    let f = fleet().await;
    let auth = f.accept("dev-1").await;
    let (server, chosen) = (receiver(|_| "204 None").await, receiver(|_| "200 OK").await);
    let made = f.hook(&format!("{}/in?x=1", server.url), &[]).await;
    f.hook(&chosen.url, &[EventKind::TaskOver]).await;
    let task = f.done("dev-1", &auth, "app").await;
    let got = requests(&server, 4).await;
    assert_eq!(kinds(&got), ["hook.added", "task.added", "device.finished", "task.over"]);
    assert_eq!(kinds(&requests(&chosen, 2).await), ["hook.added", "task.over"]);
    let key = made.secret.strip_prefix("whsec_").expect("a secret");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(key.as_bytes()).expect("base64"));
    let mut ids = Vec::new();
    for request in &got {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/in?x=1"));
        assert_eq!(request.headers["content-type"], "application/json");
        assert!(request.headers["user-agent"].starts_with("mcp/"));
        let (id, at) = (&request.headers["webhook-id"], &request.headers["webhook-timestamp"]);
        let signed = [format!("{id}.{at}.").as_bytes(), &request.body].concat();
        let signature = request.headers["webhook-signature"].strip_prefix("v1,").expect("version 1");
        let signature = BASE64.decode(signature.as_bytes()).expect("base64");
        hmac::verify(&key, &signed, &signature).expect("signed");
        assert!(at.parse::<u64>().expect("a time").abs_diff(clock::now()) < 100);
        ids.push(id.clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let body: Value = serde_json::from_slice(&got[2].body).expect("JSON");
    assert_eq!(body["fleet"], serde_json::to_value(f.remote.address.fleet).expect("JSON"));
    assert_eq!((&body["data"]["task"]["id"], &body["data"]["device"]), (&json!(task), &json!("dev-1")));
    got.iter().for_each(|request| {
        super::openapi::check("Event", &serde_json::from_slice(&request.body).expect("JSON"))
    });
    assert!(body["timestamp"].as_str().is_some_and(|at| at.len() == 20 && at.ends_with('Z')), "{body}");
    // What was taken is not sent again, and removed hooks hear nothing.
    f.remote.order(Method::DELETE, &format!("/hooks/{}", made.id), Vec::new()).await.expect("removed");
    f.done("dev-1", &auth, "other").await;
    requests(&chosen, 3).await;
    assert_eq!(server.requests().len(), 4);
    let [left] = &f.hooks().await[..] else { panic!("one is left") };
    assert_eq!((left.url.as_str(), left.failures, left.missed), (&*format!("{}/", chosen.url), 0, 0));
    f.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_gets_the_same_event_again() {
    let f = fleet_with(|config| config.listen_metrics = "127.0.0.1:0".parse().ok()).await;
    // A redirect is a refusal too: the secret's owner is at the URL that was given.
    let server =
        receiver(|n| if n == 0 { "307 Gone\r\nLocation: http://127.0.0.1:1/" } else { "200 OK" }).await;
    f.hook(&server.url, &[]).await;
    let first = requests(&server, 1).await.remove(0);
    let shown = async {
        loop {
            let hook = f.hooks().await.remove(0);
            if hook.failures > 0 {
                return hook;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let hook = tokio::time::timeout(Duration::from_secs(60), shown).await.expect("it failed");
    assert_eq!((hook.waiting, hook.failures), (1, 1));
    assert!(hook.error.contains("307") && hook.again >= clock::now(), "{hook:?}");
    let again = requests(&server, 2).await.remove(1);
    assert_eq!((&again.headers["webhook-id"], &again.body), (&first.headers["webhook-id"], &first.body));
    let taken = async {
        while f.hooks().await[0].failures > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taken).await.expect("it was taken");
    let counts = f.counts().await;
    for line in ["mcp_hook_tries_total{outcome=\"taken\"} 1", "mcp_hook_tries_total{outcome=\"failed\"} 1"] {
        assert!(counts.contains(line), "{counts}");
    }
    f.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_holds_up_nobody_and_another_start_tells_the_rest() {
    let hangs = Arc::new(AtomicBool::new(true));
    let (seen, wait) = (Arc::clone(&hangs), Arc::new(tokio::sync::Notify::new()));
    let held = Arc::clone(&wait);
    let slow = Server::start(move |_, stream| {
        let (seen, held) = (Arc::clone(&seen), Arc::clone(&held));
        async move {
            if seen.load(Ordering::Relaxed) {
                held.notified().await;
            }
            testing::send(stream, "200 OK", b"").await;
        }
    })
    .await;
    let f = fleet().await;
    let config = f.running.app.config.clone();
    f.hook(&slow.url, &[]).await;
    let good = receiver(|_| "200 OK").await;
    f.hook(&good.url, &[]).await;
    requests(&slow, 1).await;
    let auth = f.accept("dev-1").await;
    f.done("dev-1", &auth, "app").await;
    assert_eq!(requests(&good, 4).await.len(), 4);
    assert_eq!(slow.requests().len(), 1, "one at a time");
    // The server ends beside it; what was not taken is told by the next one, from the beginning.
    f.running.shut_down().await;
    hangs.store(false, Ordering::Relaxed);
    wait.notify_waiters();
    let running = start(config).await.expect("started");
    let got = requests(&slow, 5).await;
    assert_eq!(kinds(&got[1..]), ["hook.added", "task.added", "device.finished", "task.over"]);
    assert_eq!(got[0].body, got[1].body);
    assert_eq!(good.requests().len(), 4);
    running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_for_administrators_and_for_the_web() {
    let f = fleet().await;
    for url in ["", "example.net/x", "ftp://example.net/", "file:///etc/passwd", "http://"] {
        let asked = HookRequest { url: url.into(), kinds: Vec::new() };
        let refused: Result<HookResponse, _> = f.remote.send(Method::POST, "/hooks", &asked).await;
        let why = refused.expect_err("refused").to_string();
        assert!(why.contains("http(s)://HOST/PATH"), "{url}: {why}");
    }
    let asked = json!({ "url": "http://127.0.0.1:1/", "kinds": ["task.nothing"] });
    let refused: Result<HookResponse, _> = f.remote.send(Method::POST, "/hooks", &asked).await;
    refused.expect_err("no such kind");
    let gone = f.remote.order(Method::DELETE, "/hooks/7", Vec::new()).await.expect_err("not there");
    assert!(gone.to_string().contains("mcp hook list"), "{gone}");
    assert!(f.hooks().await.is_empty());

    let path = f.dir.path().join("reader.key");
    let key = state_dir::own_key(&path).expect("a key");
    let asked = OperatorRequest { key: key.public().to_string(), role: OperatorRole::Operate };
    let body = serde_json::to_vec(&asked).expect("JSON");
    f.remote.order(Method::PUT, "/operators/reader", body).await.expect("named");
    let other = Remote::new(&f.dir.path().join("serve/address.json"), None, &path).expect("a remote");
    let refused = other.get::<Vec<Hook>>("/hooks").await.expect_err("refused");
    assert!(refused.to_string().contains("needs admin"), "{refused}");
    f.running.shut_down().await;
}
