//! What strangers, devices and operators without the right try.

use super::*;
use crate::limits::FAILURE_RATE;
use crate::server::listen::Bounds;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

impl Fleet {
    async fn line(&self, uses: Option<u64>) -> Enrolment {
        let asked = EnrolmentRequest {
            kind: crate::store::LineKind::Line,
            label: String::new(),
            uses,
            valid: 3600,
            tags: vec![],
            accepts: true,
        };
        let line: EnrolmentResponse =
            self.remote.send(Method::POST, "/enrolments", &asked).await.expect("a line");
        line.line.parse().expect("a line")
    }

    async fn enrol(&self, token: &str, envelope: &Envelope) -> Response {
        let body = json!({"token": token, "envelope": envelope.to_metadata()}).to_string();
        self.send(Method::POST, &self.url("/mcp/v1/enrol"), "", body).await
    }

    /// Whether the target token lets in a device of this name.
    async fn lets_in(&self, device: &str, token: &str) -> bool {
        self.get(&self.ddi(device, ""), &format!("TargetToken {token}")).await.status() == 200
    }

    /// A client at another address of this machine.
    fn elsewhere(host: u8) -> Client {
        let address = Ipv4Addr::new(127, 0, 0, host);
        Client::builder().no_proxy().local_address(std::net::IpAddr::V4(address)).build().expect("a client")
    }
}

fn joining(line: &Enrolment, device: &str, key: &SecretKey, target: &str, time: u64) -> JoinRequest {
    JoinRequest::new(line.fleet, device, key.public(), (&line.token, target), time)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_belongs_to_whoever_has_its_key() {
    let f = fleet().await;
    let (line, own, now) = (f.line(None).await, key(7), clock::now());
    let request = joining(&line, "agent-1", &own, "first", now);
    let status = async |envelope: &Envelope| f.enrol(&line.token, envelope).await.status().as_u16();

    // Not signed at all, as it once was; signed by nobody, by another key, by two; as another kind of document.
    let public = own.public().as_device().line();
    let bare = json!({"token": line.token.as_str(), "device": "agent-1", "key": public}).to_string();
    let bare = f.send(Method::POST, &f.url("/mcp/v1/enrol"), "", bare).await;
    assert_eq!(bare.status(), 400);
    let signed = request.sign(&own).expect("signed");
    assert_eq!(status(&Envelope::unsigned(signed.payload().to_vec())).await, 401);
    assert_eq!(status(&request.sign(&key(8)).expect("signed")).await, 401, "the public key is no secret");
    let mut two = signed.clone();
    two.sign(Kind::Join, &key(8));
    assert_eq!(status(&two).await, 401);
    let mut other_kind = Envelope::unsigned(signed.payload().to_vec());
    other_kind.sign(Kind::Request, &own);
    assert_eq!(status(&other_kind).await, 401);
    for change in [
        |value: &mut Value| value["device"] = "agent-2".into(),
        |value: &mut Value| value["target"] = Hash::of(b"stolen").to_string().into(),
        |value: &mut Value| value["time"] = (clock::now() + 1).into(),
    ] {
        let mut value: Value = serde_json::from_slice(signed.payload()).expect("JSON");
        change(&mut value);
        let mut text: Value = serde_json::from_slice(&signed.to_bytes()).expect("JSON");
        text["payload"] = data_encoding::BASE64.encode(value.to_string().as_bytes()).into();
        let forged = Envelope::parse(text.to_string().as_bytes()).expect("an envelope");
        assert_eq!(status(&forged).await, 401, "{value}");
    }
    // Signed, and for something else.
    let mut elsewhere = request.clone();
    elsewhere.fleet = FleetId([9; 16]);
    assert_eq!(status(&elsewhere.sign(&own).expect("signed")).await, 400);
    let another = f.line(None).await;
    assert_eq!(f.enrol(&another.token, &signed).await.status(), 400, "for another line");
    for time in [now - 400, now + 400] {
        let late = joining(&line, "agent-1", &own, "first", time).sign(&own).expect("signed");
        assert_eq!(status(&late).await, 400);
    }
    assert!(f.running.store().device("agent-1").await.expect("read").is_none(), "nothing was changed");

    let answer = f.enrol(&line.token, &signed).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json_body::<Value>().await, json!({"state": "accepted"}), "no secret goes back");
    assert!(f.lets_in("agent-1", "first").await);
    let view: DeviceView = f.remote.get("/devices/agent-1").await.expect("a device");
    assert_eq!(view.key, Some(public), "as 'mcp key device' prints it");

    // Somebody with the same group line, who has recorded the request: gains nothing and spoils nothing.
    assert_eq!(status(&signed).await, 200);
    assert!(f.lets_in("agent-1", "first").await);
    let thief = joining(&line, "agent-1", &key(8), "thief", now + 1).sign(&key(8)).expect("signed");
    assert_eq!(status(&thief).await, 409);
    assert!(f.lets_in("agent-1", "first").await && !f.lets_in("agent-1", "thief").await);
    // The device joins again, also by another line; what it asked before counts no more.
    let again = joining(&another, "agent-1", &own, "second", now + 2).sign(&own).expect("signed");
    assert_eq!(f.enrol(&another.token, &again).await.status(), 200);
    assert_eq!(status(&signed).await, 409);
    assert!(f.lets_in("agent-1", "second").await && !f.lets_in("agent-1", "first").await);

    // A line for one device is not used up by one that asks again.
    let single = f.line(Some(1)).await;
    let ask = async |device: &str, own: &SecretKey, target: &str| {
        let request = joining(&single, device, own, target, now).sign(own).expect("signed");
        f.enrol(&single.token, &request).await.status().as_u16()
    };
    assert_eq!([ask("b", &key(9), "x").await, ask("b", &key(9), "y").await], [200, 200]);
    assert_eq!(ask("c", &key(10), "z").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_an_address_are_slowed_down_and_nobody_else_is() {
    let f = fleet().await;
    let (auth, object) = (f.accept("d").await, f.url(&format!("/mcp/v1/objects/{}", Hash::of(b"x"))));
    let line = f.line(None).await;
    let join = |token: &str, claimed: &SecretKey| {
        let request = joining(&line, "new", claimed, "t", clock::now()).sign(&key(7));
        json!({"token": token, "envelope": request.expect("signed").to_metadata()}).to_string()
    };
    let mut stranger = Envelope::unsigned(b"{}".to_vec());
    stranger.sign(Kind::Request, &key(3));
    let request = format!("McpRequest {}", stranger.to_metadata());
    let (poll, tasks, enrol) = (f.ddi("d", ""), f.url("/mcp/v1/manage/tasks"), f.url("/mcp/v1/enrol"));
    let get = |client: &Client, url: &str, auth: &str| client.get(url).header("Authorization", auth);
    let post = |client: &Client, body: String| client.post(&enrol).body(body);
    // Every path that checks a secret, each from an address of its own.
    type Ask<'a> = &'a dyn Fn(&Client) -> reqwest::RequestBuilder;
    let kinds: [(&str, Ask<'_>); 7] = [
        ("target token", &|c| get(c, &poll, "TargetToken nonsense")),
        ("gateway token", &|c| get(c, &poll, "GatewayToken nonsense")),
        ("unknown device", &|c| get(c, &f.ddi("nobody", ""), &auth)),
        ("object", &|c| get(c, &object, "TargetToken nonsense")),
        ("operator", &|c| get(c, &tasks, &request)),
        ("line", &|c| post(c, join("nonsense", &key(7)))),
        ("device's key", &|c| post(c, join(&line.token, &key(8)))),
    ];
    for (n, (kind, ask)) in (2..).zip(kinds) {
        let client = Fleet::elsewhere(n);
        let mut answers = Vec::new();
        for _ in 0..FAILURE_RATE.1 as usize + 5 {
            let answer = ask(&client).send().await.expect("an answer");
            if answer.status() == 429 {
                let wait = answer.headers()["retry-after"].to_str().expect("a text").parse::<u64>();
                assert!((1..=31).contains(&wait.expect("seconds")), "{kind}");
            }
            answers.push(answer.status().as_u16());
        }
        let refused = answers.iter().filter(|status| **status == 401).count();
        assert!((20..=22).contains(&refused), "{kind} {answers:?}");
        assert!(answers.is_sorted() && answers.ends_with(&[429, 429, 429]), "{kind} {answers:?}");
        // Right credentials from the same address: a fleet behind one router.
        let right = get(&client, &poll, &auth).send().await.expect("an answer");
        assert_eq!(right.status(), 200, "{kind}");
        let joined = join(&line.token, &key(7));
        assert_eq!(post(&client, joined).send().await.expect("an answer").status(), 200, "{kind}");
    }
    // Another address: neither slowed nor refused.
    assert_eq!(f.get(&poll, "TargetToken nonsense").await.status(), 401);
    assert_eq!(f.get(&poll, &auth).await.status(), 200);
    assert!(f.remote.get::<Vec<TaskView>>("/tasks").await.expect("may look").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_may_operate_administers_nothing() {
    let f = fleet().await;
    let key_file = f.dir.path().join("operate.key");
    let own = state_dir::own_key(&key_file).expect("a key");
    let asked = |role| {
        let asked = OperatorRequest { key: own.public().to_string(), role };
        serde_json::to_vec(&asked).expect("JSON")
    };
    f.remote.order(Method::PUT, "/operators/o", asked(OperatorRole::Operate)).await.expect("named");
    let address = f.dir.path().join("serve/address.json");
    let other = Remote::new(&address, None, &key_file).expect("a remote");
    other.order(Method::POST, "/devices/d/accept", vec![]).await.expect("may operate");
    let line = EnrolmentRequest {
        kind: crate::store::LineKind::Line,
        label: String::new(),
        uses: None,
        valid: 3600,
        tags: vec![],
        accepts: true,
    };
    for (method, path, body) in [
        (Method::PUT, "/operators/o", asked(OperatorRole::Admin)),
        (Method::DELETE, "/operators/first", vec![]),
        (Method::POST, "/enrolments", serde_json::to_vec(&line).expect("JSON")),
        (Method::POST, "/enrolments/1/revoke", vec![]),
        (Method::POST, "/roots", vec![]),
    ] {
        let denied = other.order(method, path, body).await;
        let said = matches!(&denied, Err(RemoteError::Refused(why)) if why.contains("may only operate"));
        assert!(said, "{path} {denied:?}");
    }
    // And one who may only look adds no task, however well it is signed.
    f.remote.order(Method::PUT, "/operators/o", asked(OperatorRole::Read)).await.expect("named");
    let now = clock::now();
    let mut task = Task::new(f.remote.address.fleet, "t", 1, (now, now + 100));
    (task.kind, task.handler) = (crate::documents::TaskKind::Batch, Some("h".into()));
    let envelope = task.sign(&[&f.remote.key]).expect("signed").to_metadata();
    let added = TaskRequest { envelope, terms: Terms::default(), rollback: None };
    let denied = other.send::<TaskResponse>(Method::POST, "/tasks", &added).await;
    assert!(matches!(&denied, Err(RemoteError::Refused(why)) if why.contains("may only read")), "{denied:?}");
    assert!(f.remote.get::<Vec<TaskView>>("/tasks").await.expect("may look").is_empty());
    let operators = f.running.store().operators().await.expect("read");
    assert_eq!(operators.iter().filter(|operator| operator.role == OperatorRole::Admin).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_gets_and_says_nothing_of_anothers_tasks() {
    let f = fleet().await;
    let (own, other) = (f.accept("d").await, f.accept("other").await);
    let content = bytes(100_000);
    let only = |t: &mut Task| t.to = Audience::Devices(["d".into()].into());
    let task = f.task("app", &content, Terms::default(), only).await;
    let confirm = Terms { confirm: true, ..Terms::default() };
    let asking = f.task("asking", &content, confirm, only).await;
    let actions = f.running.store().open_actions("d").await.expect("read");
    let of = |task| actions.iter().find(|action| action.task == task).expect("an action").id;
    let ours = |device: &str, rest: &str| f.url(&format!("/mcp/v1/devices/{device}/{rest}"));
    let object = f.url(&format!("/mcp/v1/objects/{}", Hash::of(&content)));
    for (url, auth, want) in [
        (ours("d", "list"), &other, 401),
        (ours("d", &format!("tasks/{task}")), &other, 401),
        (ours("other", &format!("tasks/{task}")), &other, 404),
        (object.clone(), &other, 404),
        (format!("{object}/hashes"), &other, 404),
        (f.ddi("other", &format!("/confirmationBase/{}", of(asking))), &other, 404),
        (f.ddi("other", &format!("/installedBase/{}", of(task))), &other, 404),
        (ours("d", &format!("tasks/{task}")), &own, 200),
        (object.clone(), &own, 200),
    ] {
        assert_eq!(f.get(&url, auth).await.status(), want, "{url}");
    }
    let confirmation = f.ddi("other", &format!("/confirmationBase/{}/feedback", of(asking)));
    let said = f.send(Method::POST, &confirmation, &other, json!({"confirmation": "confirmed"}).to_string());
    assert_eq!(said.await.status(), 404);
    for (what, id) in [("cancelAction", of(task)), ("deploymentBase", of(asking))] {
        let url = f.ddi("other", &format!("/{what}/{id}/feedback"));
        assert_eq!(f.say(&url, &other, "closed", "success").await, 404, "{what}");
    }
    assert_eq!(f.state(task, "d").await, ActionState::Waiting);
    assert_eq!(f.state(asking, "d").await, ActionState::Confirming);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_confirmation_holds_up_nothing_else() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let heavy = Terms { confirm: true, weight: 2000, ..Terms::default() };
    f.task("asking", b"x", heavy, |_| {}).await;
    let other = f.task("other", b"y", Terms::default(), |_| {}).await;
    let link = f.poll("d", &auth).await.links.get("deploymentBase").expect("the other").to_owned();
    let _: DeploymentBase = f.read(&link, &auth).await;
    let feedback = format!("{}/feedback", link.split('?').next().expect("a link"));
    assert_eq!(f.say(&feedback, &auth, "closed", "success").await, 200);
    assert_eq!(f.state(other, "d").await, ActionState::Finished);
    assert!(f.poll("d", &auth).await.links.get("confirmationBase").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_too_much_are_refused() {
    let f = fleet().await;
    let auth = f.accept("d").await;
    let put = f.ddi("d", "/configData");
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(f.send(Method::PUT, &put, &auth, deep.clone()).await.status(), 400);
    assert_eq!(f.send(Method::POST, &f.url("/mcp/v1/enrol"), "", deep).await.status(), 400);
    let many = format!("{{\"data\":{{{}\"k\":\"v\"}}}}", "\"k\":\"v\",".repeat(7000));
    assert_eq!(
        f.send(Method::PUT, &put, &auth, many).await.status(),
        200,
        "one key, whatever is said before"
    );

    // A body without a length and without an end.
    let mut stream = TcpStream::connect(f.running.plain.expect("it listens")).await.expect("connected");
    let head = format!(
        "PUT /default/controller/v1/d/configData HTTP/1.1\r\nHost: x\r\nAuthorization: {auth}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    let (mut sent, mut answer) = (0_usize, [0; 12]);
    // The answer, or the end of the connection, which may take the answer with it.
    while sent < 64 << 20 && stream.try_read(&mut answer).is_err() {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
        sent += 0x1000;
    }
    assert!(sent < 64 << 20, "it is refused on the way");
    assert!(matches!(&answer, b"HTTP/1.1 413" | [0, ..]), "{}", String::from_utf8_lossy(&answer));
    // A head without an end.
    let mut stream = TcpStream::connect(f.running.plain.expect("it listens")).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.expect("written");
    let line = format!("X-Y: {}\r\n", "z".repeat(1000));
    let mut lines = 0;
    while lines < 1000 && stream.write_all(line.as_bytes()).await.is_ok() {
        lines += 1;
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(lines < 1000 || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(f.get(&f.ddi("d", ""), &auth).await.status(), 200, "the others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_dawdle_are_cut_off_and_hold_up_nobody() {
    let bounds = Bounds { header: Duration::from_millis(400), connections: 6, of_address: 4 };
    let listener = listen::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let address = listener.local_addr().expect("bound");
    let router = axum::Router::new().route("/", axum::routing::get(async || "here"));
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(listen::serve(listener, None, router, bounds, stopped));

    // As many as one address may have, each with a byte of its head now and then.
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        slow.spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nHost: a.very.long.name.that.takes.its.time.to.be.written\r\n" {
                if stream.write_all(&[*byte]).await.is_err() {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            true
        });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ask = async |host: u8| {
        let asked = Fleet::elsewhere(host).get(format!("http://{address}/")).send().await;
        asked.is_ok_and(|answer| answer.status() == 200)
    };
    assert!(!ask(1).await, "the fifth of that address");
    assert!(ask(2).await, "another address");
    assert_eq!(slow.join_all().await, [false; 4], "none comes to the end of its head");
    assert!(ask(1).await, "there is room again");
    let _ = stop.send(true);
    served.await.expect("ended");
}
