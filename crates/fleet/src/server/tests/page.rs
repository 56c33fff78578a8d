//! The page, as browsers see it, and as others would like to use it.

use super::*;
use crate::limits::{MAX_VIEWERS, MAX_VIEWERS_OF_OPERATOR};
use crate::store::{DeviceState, OperatorRole};
use reqwest::header::{CONTENT_TYPE, COOKIE, LOCATION, ORIGIN, SET_COOKIE};

/// A browser without scripts.
pub(super) struct Browser {
    http: Client,
    origin: String,
    cookie: String,
}

impl Browser {
    fn new(f: &Fleet) -> Self {
        let tls = crate::pin::client_config(f.running.reach.pin).expect("a configuration");
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("a client");
        Self { http, origin: format!("https://{}", f.running.address), cookie: String::new() }
    }

    /// One that is logged in with a link of the first operator.
    pub(super) async fn of(f: &Fleet) -> Self {
        let link: LinkResponse = f.remote.send(Method::POST, "/links", &()).await.expect("a link");
        let mut browser = Self::new(f);
        assert_eq!(browser.log_in(&link.path).await.status(), 303);
        browser
    }

    async fn get(&self, path: &str) -> Response {
        let request = self.http.get(format!("{}{path}", self.origin)).header(COOKIE, &self.cookie);
        request.send().await.expect("an answer")
    }

    pub(super) async fn text(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.expect("a text")
    }

    /// Sends a form as this page would, but for these headers.
    async fn post_with(
        &self,
        path: &str,
        form: &[(&str, &str)],
        headers: &[(&'static str, &str)],
    ) -> Response {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request =
            self.http.post(format!("{}{path}", self.origin)).body(body).header(COOKIE, &self.cookie);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        request.send().await.expect("an answer")
    }

    pub(super) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Response {
        let headers = [(ORIGIN.as_str(), self.origin.as_str()), ("sec-fetch-site", "same-origin")];
        self.post_with(path, form, &headers).await
    }

    pub(super) async fn log_in(&mut self, link: &str) -> Response {
        let answer = self.post("/login", &[("token", link)]).await;
        if let Some(cookie) = answer.headers().get(SET_COOKIE) {
            self.cookie = cookie.to_str().expect("text").split(';').next().expect("a pair").to_owned();
        }
        answer
    }

    /// What this session's forms say.
    pub(super) async fn word(&self) -> String {
        let page = self.text("/").await;
        let at = page.split("name=\"word\" value=\"").nth(1).expect("a form");
        at.split('"').next().expect("a value").to_owned()
    }
}

pub(super) fn went(answer: &Response) -> (u16, &str) {
    let to = answer.headers().get(LOCATION).map_or("", |to| to.to_str().expect("text"));
    (answer.status().as_u16(), to)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_logs_in_once_and_logging_out_ends_it() {
    let f = fleet().await;
    let mut browser = Browser::new(&f);
    for path in ["/", "/tasks/1", "/devices/d", "/events"] {
        assert_eq!(went(&browser.get(path).await), (303, "/login"), "{path}");
    }
    assert!(browser.text("/login").await.contains("mcp operator link"));
    assert_eq!(browser.log_in("nonsense").await.status(), 401);
    let link: LinkResponse = f.remote.send(Method::POST, "/links", &()).await.expect("a link");
    // Looked at by a program that fetches links: still good.
    assert!(browser.text(&link.path).await.contains("Log in"));
    let answer = browser.log_in(&format!("{}{}", browser.origin.clone(), link.path)).await;
    assert_eq!(went(&answer), (303, "/"));
    let cookie = answer.headers()[SET_COOKIE].to_str().expect("text").to_owned();
    assert!(cookie.starts_with("__Host-mcp="), "{cookie}");
    for word in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
        assert!(cookie.contains(word), "{word} in {cookie}");
    }
    assert!(!cookie.contains("Domain"));
    assert_eq!(Browser::new(&f).log_in(&link.path).await.status(), 401, "once");

    let page = browser.get("/").await;
    let headers = page.headers().clone();
    let policy = headers["content-security-policy"].to_str().expect("text");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("strict-transport-security", "max-age=31536000"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(headers[name], value);
    }
    let page = page.text().await.expect("a text");
    assert!(!page.contains(" style=") && !page.contains(" onclick"), "nothing inline");
    assert!(page.contains("first") && page.contains("admin"));
    // All that it needs is here.
    for part in page.split(['"']).filter(|part| part.starts_with("/assets/")) {
        assert!(
            browser.get(part).await.headers()["cache-control"].to_str().expect("text").contains("immutable")
        );
    }
    assert_eq!(f.http.get(f.url("/")).send().await.expect("an answer").status(), 403, "not in the clear");
    assert_eq!(f.http.get(f.url("/login")).send().await.expect("an answer").status(), 403);

    let word = browser.word().await;
    assert_eq!(went(&browser.post("/logout", &[("word", &word)]).await), (303, "/login"));
    assert_eq!(went(&browser.get("/").await), (303, "/login"), "the old cookie is of no use");
    let trail = f.running.store().audit_trail(10).await.expect("a trail");
    let done: Vec<_> = trail.iter().map(|entry| entry.what.as_str()).collect();
    assert_eq!(done, ["log out", "log in", "make link of operator"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_expire_and_end_with_the_operator() {
    let f = fleet().await;
    let (store, now) = (f.running.store(), clock::now());
    let key = store.operators().await.expect("operators").remove(0).public_key;
    let hash = |token: &str| blake3::hash(token.as_bytes());
    store.add_link(hash("late"), &key, now).await.expect("added");
    let mut browser = Browser::new(&f);
    assert_eq!(browser.log_in("late").await.status(), 401, "an expired link");
    store.add_link(hash("link"), &key, now + 60).await.expect("added");
    store.log_in(hash("link"), hash("session"), (now, now)).await.expect("read").expect("an operator");
    browser.cookie = "__Host-mcp=session".into();
    assert_eq!(went(&browser.get("/").await), (303, "/login"), "an expired session");
    // A link is no session, and a session no link.
    store.add_link(hash("link"), &key, now + 60).await.expect("added");
    browser.cookie = "__Host-mcp=link".into();
    assert_eq!(went(&browser.get("/").await), (303, "/login"));
    let browser = Browser::of(&f).await;
    let token = browser.cookie.trim_start_matches("__Host-mcp=").to_owned();
    assert_eq!(Browser::new(&f).log_in(&token).await.status(), 401);
    // Another key from now on: whoever had the old one is out.
    let ann =
        Operator { name: "ann".into(), public_key: "a".repeat(64), role: OperatorRole::Admin, created: now };
    store.put_operator(ann).await.expect("added");
    assert_eq!(browser.get("/").await.status(), 200);
    store.remove_operator("first").await.expect("removed");
    assert_eq!(went(&browser.get("/").await), (303, "/login"));
    // Guessing is bounded like all other credentials.
    let mut guesser = Browser::new(&f);
    let mut last = 0;
    for _ in 0..30 {
        last = guesser.log_in("guess").await.status().as_u16();
    }
    assert_eq!(last, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_cannot_act_and_neither_can_readers() {
    let f = fleet().await;
    f.accept("d").await;
    let task = f.task("app", b"x", Terms::default(), |_| {}).await;
    let browser = Browser::of(&f).await;
    let (word, path, own) = (browser.word().await, format!("/tasks/{task}/pause"), browser.origin.clone());
    let good = [("word", word.as_str())];
    let same = ("sec-fetch-site", "same-origin");
    for (form, headers) in [
        (&good[..], &[("origin", "https://evil.example"), same][..]),
        (&good, &[("origin", "null"), same]),
        (&good, &[("origin", own.as_str()), ("sec-fetch-site", "cross-site")]),
        (&good, &[("origin", own.as_str()), ("sec-fetch-site", "same-site")]),
        (&good, &[("sec-fetch-site", "none")]),
        (&good, &[]),
        (&[], &[("origin", own.as_str()), same]),
        (&[("word", "0000")], &[("origin", own.as_str()), same]),
    ] {
        assert_eq!(browser.post_with(&path, form, headers).await.status(), 403, "{form:?} {headers:?}");
    }
    let forged = [("origin", "https://evil.example")];
    assert_eq!(browser.post_with("/login", &[("token", "x")], &forged).await.status(), 403);
    assert_eq!(browser.post_with("/logout", &good, &forged).await.status(), 403);
    let other = Browser::of(&f).await;
    assert_eq!(other.post(&path, &good).await.status(), 403, "the word of another session");
    assert_eq!(browser.get(&path).await.status(), 405, "links change nothing");
    let state =
        async || f.remote.get::<TaskView>(&format!("/tasks/{task}")).await.expect("a task").state.as_str();
    assert_eq!(state().await, "running");

    assert_eq!(went(&browser.post(&path, &good).await), (303, &*format!("/tasks/{task}")));
    assert_eq!(state().await, "paused");
    assert!(browser.text(&format!("/tasks/{task}")).await.contains("Resume"), "at once");
    assert_eq!(browser.post(&format!("/tasks/{task}/resume"), &good).await.status(), 303);
    assert_eq!(browser.post(&format!("/tasks/{task}/cancel"), &good).await.status(), 303);
    assert_eq!(state().await, "cancelled");
    let retry = browser.post(&format!("/tasks/{task}/retry"), &good).await;
    assert_eq!(retry.status(), 409, "it is over");
    assert_eq!(browser.post(&format!("/tasks/{task}/explode"), &good).await.status(), 404);
    f.running.store().register("new", 10, clock::now()).await.expect("registered");
    assert_eq!(went(&browser.post("/devices/new/accept", &good).await), (303, "/devices/new"));
    let view: DeviceView = f.remote.get("/devices/new").await.expect("a device");
    assert_eq!(view.state, DeviceState::Accepted);
    assert_eq!(browser.post("/devices/nobody/accept", &good).await.status(), 404);
    let large = "x".repeat(crate::limits::MAX_FORM);
    assert_eq!(browser.post(&path, &[("word", &large)]).await.status(), 413);

    // The rights of now count.
    let again = f.task("again", b"y", Terms::default(), |_| {}).await;
    let store = f.running.store();
    let mut first = store.operators().await.expect("operators").remove(0);
    let spare = Operator { name: "spare".into(), public_key: "b".repeat(64), ..first.clone() };
    store.put_operator(spare).await.expect("added");
    first.role = OperatorRole::Read;
    store.put_operator(first).await.expect("changed");
    let page = browser.text(&format!("/tasks/{again}")).await;
    assert!(!page.contains("/pause") && !page.contains("/cancel"), "no buttons");
    assert_eq!(browser.post(&format!("/tasks/{again}/pause"), &good).await.status(), 403);
    assert_eq!(browser.post("/devices/new/refuse", &good).await.status(), 403);
    assert_eq!(store.tasks(Some(again)).await.expect("read")[0].state.as_str(), "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_say_is_only_text() {
    let f = fleet().await;
    let name = "<script>alert(1)</script>";
    let store = f.running.store();
    store.decide_device(name, DeviceState::Accepted, None, clock::now()).await.expect("accepted");
    let attributes = [("a".to_owned(), "\"><img/src=x/onerror=alert(2)>".to_owned())].into();
    store.set_attributes(name, &attributes, clock::now()).await.expect("noted");
    let task = f.task("app", b"x", Terms::default(), |_| {}).await;
    let action = store.action_for(name, task).await.expect("read").expect("an action");
    store.settle(action.id, ActionState::Cancelled, "<b>bold</b>", clock::now()).await.expect("settled");
    let browser = Browser::of(&f).await;
    let device = "/devices/%3Cscript%3Ealert%281%29%3C%2Fscript%3E";
    for path in ["/", &format!("/tasks/{task}"), device, "/?find=%3Cscript%3E", "/?show=%22%3E%3Cscript%3E"] {
        let page = browser.text(path).await;
        assert!(
            !page.contains("<script>") && !page.contains("<img/src") && !page.contains("<b>bold"),
            "{path}"
        );
    }
    assert!(browser.text("/").await.contains(&format!("href=\"{device}\"")), "and can be followed");
    assert!(browser.text(device).await.contains("&lt;b&gt;bold"));
    assert_eq!(browser.get("/devices/nobody").await.status(), 404);
    assert_eq!(browser.get("/tasks/99").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_are_told_of_changes_and_are_few() {
    let f = fleet().await;
    let browser = Browser::of(&f).await;
    let mut events = browser.get("/events").await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let first = events.chunk().await.expect("readable").expect("a line");
    assert!(first.starts_with(b"retry: ") && first.ends_with(b"\n\n"), "{first:?}");
    // The fleet as it is, and then another device in it.
    let before = events.chunk().await.expect("readable").expect("a line");
    f.accept("secret-name").await;
    let after = loop {
        let line = events.chunk().await.expect("readable").expect("a line");
        if line.starts_with(b"data: ") {
            break line;
        }
    };
    assert_ne!(before, after);
    assert!(!String::from_utf8_lossy(&after).contains("secret"), "a number says enough");
    assert!(browser.text("/").await.contains("secret-name"));

    let mut open = vec![events];
    for _ in 1..MAX_VIEWERS_OF_OPERATOR {
        let more = browser.get("/events").await;
        assert_eq!(more.status(), 200);
        open.push(more);
    }
    let refused = browser.get("/events").await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(browser.get("/").await.status(), 200, "the page goes on");
    // Others still have room, until all of it is taken.
    let store = f.running.store();
    let others = (0..=MAX_VIEWERS / MAX_VIEWERS_OF_OPERATOR).map(|n| n.to_string().repeat(64));
    let mut refused = 0;
    for key in others {
        let (name, now) = (format!("op-{key:.1}"), clock::now());
        let operator = Operator { name, public_key: key.clone(), role: OperatorRole::Read, created: now };
        store.put_operator(operator).await.expect("added");
        store.add_link(blake3::hash(key.as_bytes()), &key, now + 60).await.expect("added");
        let mut browser = Browser::new(&f);
        assert_eq!(browser.log_in(&key).await.status(), 303);
        for _ in 0..MAX_VIEWERS_OF_OPERATOR {
            let answer = browser.get("/events").await;
            if answer.status() == 200 { open.push(answer) } else { refused += 1 }
        }
    }
    assert_eq!((open.len(), refused), (MAX_VIEWERS, 2 * MAX_VIEWERS_OF_OPERATOR));
    f.running.shut_down().await;
    for mut viewer in open {
        while let Ok(Some(_)) = viewer.chunk().await {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_devices_are_shown_in_pages() {
    let f = fleet().await;
    let store = f.running.store();
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..5000 {
        let store = store.clone();
        waiting.spawn(async move {
            let id = format!("pc-{n:04}");
            store.decide_device(&id, DeviceState::Accepted, None, clock::now()).await.expect("accepted");
        });
    }
    while let Some(made) = waiting.join_next().await {
        made.expect("made");
    }
    store.tag_device("pc-4321", vec!["Lab".into()], vec![]).await.expect("tagged");
    let browser = Browser::of(&f).await;
    let page = browser.text("/").await;
    assert!(page.contains("5,000") && page.contains("Page 1 of 9") && page.contains("pc-0599"));
    assert!(!page.contains("pc-0600") && page.len() < 100_000, "{} bytes", page.len());
    let last = browser.text("/?page=9").await;
    assert!(last.contains("pc-4999") && !last.contains("pc-0000"));
    assert!(browser.text("/?page=99999999").await.contains("Page 9 of 9"));
    for found in ["/?find=lab", "/?find=C-4321&show=silent"] {
        let page = browser.text(found).await;
        assert!(page.contains("/devices/pc-4321") && !page.contains("/devices/pc-4320"), "{found}");
    }
    assert!(browser.text("/?show=failed").await.contains("No device matches"));
    assert_eq!(browser.get("/?page=-1").await.status(), 200, "nonsense selects all");
}
