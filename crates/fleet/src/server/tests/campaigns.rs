//! What the server says of multicast sessions, and whom. They are sent over loopback, to nobody.

use super::*;
use crate::ddi::{Session, SessionOffer};
use crate::lacking::Lacking;
use mcp_transfer::crypto::group::GroupKeys;
use mcp_transfer::net::Destination;
use mcp_transfer::protocol::trust::Trust;
use mcp_transfer::session::{Listen, ReceiveHandle, ReceiveSession, Target, Wanted};
use mcp_transfer::storage::FileSink;

pub(super) const SIZE: u64 = 3_000_000;
/// The proxy of these tests says that a device came over TLS.
const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

pub(super) fn by_multicast(config: &mut ServeConfig) {
    config.multicast = Some(Multicast { interface: Some("lo".into()), ..Multicast::default() });
    config.trusted_proxies = vec![PROXY];
}

/// A device that asks over TLS, as the proxy says, or not.
pub(super) struct Agent {
    name: &'static str,
    auth: String,
    proto: &'static str,
    /// Whether it would give objects to its neighbours.
    serves: bool,
}

impl Fleet {
    pub(super) async fn agent(&self, name: &'static str) -> Agent {
        let agent = Agent { name, auth: self.accept(name).await, proto: "https", serves: false };
        let body = json!({"mode": "merge", "data": {"mcp.version": "1", "mcp.multicast": "1"}});
        let url = self.ddi(name, "/configData");
        assert_eq!(self.send(Method::PUT, &url, &agent.auth, body.to_string()).await.status(), 200);
        self.poll(name, &agent.auth).await;
        agent
    }

    pub(super) async fn action(&self, task: i64, device: &str) -> i64 {
        let view: TaskView = self.remote.get(&format!("/tasks/{task}")).await.expect("a task");
        let actions = view.actions.expect("actions");
        actions.iter().find(|action| action.device == device).expect("an action").id
    }

    /// Takes the task, and returns the session that the deployment names.
    pub(super) async fn takes(&self, agent: &Agent, task: i64) -> Option<Session> {
        let action = self.action(task, agent.name).await;
        let url = self.ddi(agent.name, &format!("/deploymentBase/{action}"));
        let request = self.http.get(url).header("Authorization", &agent.auth);
        let answer = request.header("X-Forwarded-Proto", agent.proto).send().await.expect("an answer");
        let base: DeploymentBase = ddi::parse(&answer.bytes().await.expect("a body")).expect("a deployment");
        Session::from_metadata(&base.deployment.expect("something to do").chunks[0].metadata)
    }

    async fn lacks(&self, agent: &Agent, action: i64, body: Value) -> Response {
        let url = self.url(&format!("/mcp/v1/devices/{}/actions/{action}/lacking", agent.name));
        let request = self.http.post(url).header("Authorization", &agent.auth);
        let request = request.header("X-Forwarded-Proto", agent.proto);
        request.body(body.to_string()).send().await.expect("an answer")
    }

    pub(super) async fn offer(&self, agent: &Agent, task: i64, lacking: Lacking) -> SessionOffer {
        let action = self.action(task, agent.name).await;
        let object = Hash::of(&bytes(SIZE as usize));
        let body = json!({"object": object, "lacking": lacking, "serves": agent.serves});
        let answer = self.lacks(agent, action, body).await;
        assert_eq!(answer.status(), 200);
        ddi::parse(&answer.bytes().await.expect("a body")).expect("an offer")
    }

    pub(super) async fn sessions(&self, task: i64) -> Vec<SessionView> {
        let view: TaskView = self.remote.get(&format!("/tasks/{task}")).await.expect("a task");
        view.sessions
    }
}

/// A group and a port of a test's own: other tests send to the default ones.
pub(super) fn own_group() -> Destination {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    Destination::parse("239.255.74.98", socket.expect("a port").port()).expect("a group")
}

/// A receiver of a session, as an agent has it.
pub(super) fn receiver(session: &Session, group: Destination, path: PathBuf) -> ReceiveHandle {
    let (sender, seal) = session.keys().expect("keys");
    let listen = Listen {
        group: Some(group),
        interface: Some("lo".into()),
        group_keys: vec![GroupKeys::new(seal)],
        trust: Trust { pinned: vec![sender], ..Trust::default() },
        ..Listen::default()
    };
    let builder = ReceiveSession::builder(Wanted::First, FileSink::new(Some(path), false)).listen(listen);
    builder.timeout(session.patience()).start().expect("a receiver")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_called_when_it_pays_and_the_next_server_goes_on_with_it() {
    let mut config = None;
    let mut f = fleet_with(|serve| {
        by_multicast(serve);
        config = Some(serve.clone());
    })
    .await;
    let (a, b) = (f.agent("a").await, f.agent("b").await);
    let task = f.task("image", &bytes(SIZE as usize), Terms::default(), |_| {}).await;
    let called = f.takes(&a, task).await.expect("two devices wait for it");
    let told = f.takes(&b, task).await.expect("it gathers");
    assert_eq!((&told.sender, &told.seal, told.group), (&called.sender, &called.seal, called.group));
    let [session] = &f.sessions(task).await[..] else { panic!("one session") };
    assert_eq!((session.expected, session.runs, session.over), (2, 1, false));

    // The server ends and is started again: the same session, with newer announcements.
    f.running.shut_down().await;
    f.running = start(config.expect("set")).await.expect("started");
    f.remote =
        Remote::new(&f.dir.path().join("serve/address.json"), None, &f.dir.path().join("serve/operator.key"))
            .expect("a remote");
    let [session] = &f.sessions(task).await[..] else { panic!("one session") };
    assert_eq!((session.expected, session.runs, session.over), (2, 2, false));
    let offer = f.offer(&b, task, vec![[0, 1 << 20]]).await;
    let again = offer.session.expect("it runs");
    assert_eq!((&again.sender, &again.seal), (&called.sender, &called.seal));

    // Operators may read its keys, if they may change tasks.
    let keys: Session = f.remote.get(&format!("/tasks/{task}/session")).await.expect("it runs");
    assert_eq!((&keys.sender, &keys.seal), (&called.sender, &called.seal));
    f.remote.order(Method::POST, &format!("/tasks/{task}/cancel"), Vec::new()).await.expect("cancelled");
    assert_eq!(f.offer(&b, task, vec![[0, SIZE]]).await, SessionOffer::default(), "it is cancelled");
    f.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_alone_or_lacks_little_loads_by_itself() {
    let f = fleet_with(by_multicast).await;
    let (a, b) = (f.agent("a").await, f.agent("b").await);
    let (content, only) = (bytes(SIZE as usize), Audience::Devices(["a".to_owned()].into()));
    let task = f.task("image", &content, Terms::default(), |task| task.to = only).await;
    assert_eq!(f.takes(&a, task).await, None, "nobody else waits for it");
    assert_eq!(f.offer(&a, task, vec![[0, SIZE]]).await, SessionOffer::default());
    // Without encryption, nobody is told keys, and nobody is counted.
    let both = f.task("both", &bytes(SIZE as usize), Terms::default(), |_| {}).await;
    let bare = Agent { proto: "http", auth: b.auth.clone(), ..b };
    assert_eq!(f.takes(&bare, both).await, None);
    assert_eq!(f.offer(&bare, both, vec![[0, SIZE]]).await, SessionOffer::default());
    let missing = f.remote.get::<Session>(&format!("/tasks/{both}/session")).await;
    assert!(matches!(missing, Err(RemoteError::Refused(_))), "{missing:?}");
    f.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_at_a_time_in_the_order_of_the_tasks() {
    let f = fleet_with(by_multicast).await;
    let (a, b) = (f.agent("a").await, f.agent("b").await);
    let one = |name: &'static str, last: u8| {
        let mut content = bytes(SIZE as usize);
        content.push(last);
        (name, content)
    };
    let (name, content) = one("first", 1);
    let first = f.task(name, &content, Terms::default(), |_| {}).await;
    let (name, content) = one("second", 2);
    let second = f.task(name, &content, Terms::default(), |_| {}).await;
    assert!(f.takes(&a, second).await.is_some(), "nobody has asked for the first one");
    assert_eq!(f.takes(&b, first).await, None, "one at a time");
    let action = f.action(first, "b").await;
    let object = Hash::of(&one("first", 1).1);
    let asked = json!({"object": object, "lacking": [[0, SIZE + 1]]});
    let answer = f.lacks(&b, action, asked).await.bytes().await.expect("a body");
    let offer: SessionOffer = ddi::parse(&answer).expect("an offer");
    assert!(offer.session.is_none() && offer.again.is_some(), "{offer:?}");
    f.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_says_it_lacks_is_checked() {
    let f = fleet_with(by_multicast).await;
    let (a, b) = (f.agent("a").await, f.agent("b").await);
    let task = f.task("image", &bytes(SIZE as usize), Terms::default(), |_| {}).await;
    let (mine, object) = (f.action(task, "a").await, Hash::of(&bytes(SIZE as usize)));
    let other = f.action(task, "b").await;
    let many: Lacking = (0..2000).map(|n| [2 * n, 2 * n + 1]).collect();
    for (action, body, want) in [
        (mine, json!({"object": object, "lacking": [[0, SIZE + 1]]}), 400),
        (mine, json!({"object": object, "lacking": [[5, 4]]}), 400),
        (mine, json!({"object": object, "lacking": [[0, 5], [3, 9]]}), 400),
        (mine, json!({"object": object, "lacking": [[-1, 5]]}), 400),
        (mine, json!({"object": object, "lacking": many}), 400),
        (mine, json!({"object": "x", "lacking": []}), 400),
        (mine, json!({"lacking": []}), 400),
        (mine, json!({"object": Hash([1; 32]), "lacking": []}), 404),
        (other, json!({"object": object, "lacking": []}), 404),
        (99, json!({"object": object, "lacking": []}), 404),
        (mine, json!({"object": object, "lacking": [], "more": "x".repeat(MAX_DDI_BODY)}), 413),
        (mine, json!({"object": object, "lacking": []}), 200),
    ] {
        let text: String = body.to_string().chars().take(80).collect();
        assert_eq!(f.lacks(&a, action, body).await.status(), want, "{text}");
    }
    let stranger = Agent { auth: "TargetToken nonsense".into(), ..b };
    assert_eq!(f.lacks(&stranger, other, json!({})).await.status(), 401);
    assert!(f.sessions(task).await.is_empty());
    f.running.shut_down().await;
}

impl Fleet {
    /// Says more of a device.
    async fn describes(&self, agent: &Agent, data: Value) {
        let body = json!({"mode": "merge", "data": data});
        let url = self.ddi(agent.name, "/configData");
        assert_eq!(self.send(Method::PUT, &url, &agent.auth, body.to_string()).await.status(), 200);
    }

    /// The device has carried out its task.
    async fn finishes(&self, agent: &Agent, task: i64) {
        let action = self.action(task, agent.name).await;
        let body = json!({"status": {"execution": "closed", "result": {"finished": "success"}}});
        let url = self.ddi(agent.name, &format!("/deploymentBase/{action}/feedback"));
        assert_eq!(self.send(Method::POST, &url, &agent.auth, body.to_string()).await.status(), 200);
    }

    /// What a device is told that heard nobody in the session that it was told of.
    async fn unreached(&self, agent: &Agent, task: i64, lacking: Lacking) -> SessionOffer {
        let action = self.action(task, agent.name).await;
        let object = Hash::of(&bytes(SIZE as usize));
        let body = json!({"object": object, "lacking": lacking, "unreached": true, "serves": agent.serves});
        let answer = self.lacks(agent, action, body).await;
        assert_eq!(answer.status(), 200);
        ddi::parse(&answer.bytes().await.expect("a body")).expect("an offer")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_out_of_reach_get_an_object_from_one_of_their_segment() {
    let f = fleet_with(|config| {
        by_multicast(config);
        config.neighbours = true;
    })
    .await;
    let (near, mut handler) = (f.agent("near").await, f.agent("handler").await);
    handler.serves = true;
    let (a, b) = (f.agent("a").await, f.agent("b").await);
    for agent in [&handler, &a, &b] {
        f.describes(agent, json!({"segment": "far"})).await;
    }
    let task = f.task("image", &bytes(SIZE as usize), Terms::default(), |_| {}).await;
    for agent in [&near, &handler, &a, &b] {
        assert!(f.takes(agent, task).await.is_some());
    }
    let all = || vec![[0, SIZE]];
    let again = SessionOffer { again: Some(5), ..SessionOffer::default() };
    assert_eq!(f.unreached(&a, task, all()).await, again, "another one may load it");
    assert_eq!(f.unreached(&handler, task, all()).await, SessionOffer::default(), "it is the one");
    assert_eq!(f.unreached(&b, task, all()).await, again);
    assert!(f.offer(&near, task, all()).await.session.is_some(), "it is in reach");
    // It has loaded the object, and is done with the task. It is told to send it.
    f.finishes(&handler, task).await;
    let offer = f.offer(&handler, task, vec![]).await;
    let perform = offer.perform.expect("two wait for it");
    assert_eq!(perform.devices, 2);
    let keys = crate::ddi::SessionKeys::of(&perform.secret().expect("a secret")).expect("keys");
    for agent in [&a, &b] {
        let session = f.offer(agent, task, all()).await.session.expect("it is performed");
        assert_eq!((session.group, session.sender.clone()), (perform.group, keys.sender.public().line()));
        assert!(session.is_usable());
    }
    // It is over, and the next task goes to the segment without asking whether they hear the server.
    assert_eq!(f.offer(&handler, task, vec![]).await, SessionOffer::default());
    let only = Audience::Devices(["a".to_owned(), "handler".to_owned()].into());
    let next = f.task("next", &bytes(SIZE as usize), Terms::default(), |task| task.to = only).await;
    assert_eq!(f.takes(&a, next).await, None);
    assert_eq!(f.offer(&a, next, all()).await, again);
    assert_eq!(f.offer(&handler, next, all()).await, SessionOffer::default());
    // It is not worth it for one, but others may find out that they hear nobody.
    assert_eq!(f.offer(&handler, next, vec![]).await, again);
    f.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_operators_leave_no_device_sends_to_its_segment() {
    let f = fleet_with(by_multicast).await;
    let (mut a, b) = (f.agent("a").await, f.agent("b").await);
    a.serves = true;
    let task = f.task("image", &bytes(SIZE as usize), Terms::default(), |_| {}).await;
    assert!(f.takes(&a, task).await.is_some() && f.takes(&b, task).await.is_some());
    assert!(f.unreached(&a, task, vec![[0, SIZE]]).await.session.is_some(), "it is told of the server's");
    assert_eq!(f.offer(&a, task, vec![]).await, SessionOffer::default());
    f.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_while_the_database_is_locked() {
    let group = own_group();
    let f = fleet_with(|config| {
        by_multicast(config);
        if let Some(multicast) = &mut config.multicast {
            multicast.target = Target::At(group);
        }
    })
    .await;
    let (a, b) = (f.agent("a").await, f.agent("b").await);
    let task = f.task("image", &bytes(SIZE as usize), Terms::default(), |_| {}).await;
    let session = f.takes(&a, task).await.expect("two devices wait for it");
    assert!(f.takes(&b, task).await.is_some());
    let locked = super::bounds::Locked::of(&f).await;
    let receivers = ["copy-a", "copy-b"].map(|name| {
        let path = f.dir.path().join(name);
        (path.clone(), receiver(&session, group, path))
    });
    for (path, handle) in receivers {
        tokio::task::spawn_blocking(|| handle.wait()).await.expect("a thread").expect("it ended");
        assert!(std::fs::read(path).expect("a copy") == bytes(SIZE as usize));
    }
    locked.release().await;
    assert_eq!(f.sessions(task).await[0].complete, 2);
    f.running.shut_down().await;
}
