//! Whole agents against a server that is played by the test: an `mcp serve`, or a stock one.

mod hostile;
mod terms;
mod with_serve;

use super::state::StateDir;
use super::testing::{Request, Server, good, read, send};
use super::*;
use crate::documents::{
    Entry, Envelope, FleetId, Hash, JoinRequest, List, Object, Role, Root, SecretKey, Task, Trusted,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

const HOUR: u64 = 3600;

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn fleet() -> FleetId {
    FleetId([1; 16])
}

fn root() -> Envelope {
    let roles = [1, 2, 3].map(|n| Role::of(key(n).public()));
    Root::new((fleet(), 1), (clock() - 24 * HOUR, clock() + 1000 * HOUR), roles).sign(&[&key(1)]).unwrap()
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}

/// How a hostile server changes its list.
type Forge = Box<dyn Fn(&mut List) + Send>;

/// What the played server has and has heard.
#[derive(Default)]
struct World {
    /// Action and signed task, or an unsigned deployment.
    offer: Option<(String, Option<Envelope>)>,
    cancel: Option<String>,
    /// The action on offer waits for a confirmation.
    confirm: bool,
    /// The tasks on the list; `None`: as offered.
    listed: Option<Vec<Envelope>>,
    list_expired: bool,
    /// What is changed in a list, and whose key signs it then.
    forge: Option<(Forge, u8)>,
    /// Answers to paths with this in them never end.
    endless: Option<&'static str>,
    /// The files of a deployment, if not only `image.bin`.
    filenames: Vec<String>,
    /// Mirrors that are named to the device.
    mirrors: Option<String>,
    content: Arc<Vec<u8>>,
    /// Gives objects slowly.
    slow: bool,
    skip: bool,
    /// Nothing is to be installed now; with a window that is closed, or without one.
    skip_update: Option<bool>,
    /// The device has told as many attributes as it may.
    full: bool,
    /// The root after the first, and how often it was asked for.
    next_root: Option<Envelope>,
    roots: usize,
    feedback: Vec<(String, Value)>,
    attributes: Vec<Value>,
    polls: usize,
    objects: usize,
}

type Shared = Arc<Mutex<World>>;

/// What is answered: a head and a body, or the object, perhaps slowly.
enum Answer {
    Text(String, Vec<u8>),
    Object(Arc<Vec<u8>>, bool),
    Endless,
}

async fn answer(request: Request, stream: TcpStream, world: Shared) {
    match decide(&request, &world) {
        Answer::Text(head, body) => {
            send(stream, &format!("{head}\r\nContent-Length: {}", body.len()), &body).await;
        }
        Answer::Object(bytes, false) => good(request, stream, bytes).await,
        Answer::Object(bytes, true) => drip(request, stream, bytes).await,
        Answer::Endless => endless(stream).await,
    }
}

fn decide(request: &Request, world: &Shared) -> Answer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let ok = |value: &Value| {
        ("200 OK\r\nContent-Type: application/json".to_owned(), value.to_string().into_bytes())
    };
    let host = request.headers.get("host").cloned().unwrap_or_default();
    let base = format!("http://{host}/DEFAULT/controller/v1/desk-07");
    let (head, body) = {
        let mut world = world.lock().unwrap();
        if world.endless.is_some_and(|part| path.contains(part)) && request.method == "GET" {
            return Answer::Endless;
        }
        let segments: Vec<_> = path.split('/').skip(1).collect();
        match (&*request.method, &segments[..]) {
            ("GET", ["mcp", "v1", "roots", version]) => {
                world.roots += 1;
                match world.next_root.as_ref().filter(|_| *version == "2") {
                    Some(root) => ("200 OK".to_owned(), root.to_bytes()),
                    None => ("404 Not Found".to_owned(), Vec::new()),
                }
            }
            ("GET", ["mcp", "v1", "devices", "desk-07", "list"]) => {
                let offered = world.offer.iter().filter_map(|(_, task)| task.clone()).collect();
                let tasks: Vec<Envelope> = world.listed.clone().unwrap_or(offered);
                let times = if world.list_expired {
                    (clock() - HOUR, clock() - 1)
                } else {
                    (clock(), clock() + HOUR)
                };
                let version = 1 + world.polls as u64;
                let mut list = List::new(fleet(), "desk-07", version, times);
                list.nonce = query.strip_prefix("nonce=").map(str::to_owned);
                list.tasks = tasks
                    .iter()
                    .map(|task| {
                        let hash = task.hash();
                        let task = Task::parse(task.payload()).unwrap();
                        Entry { name: task.name, serial: task.serial, hash }
                    })
                    .collect();
                let signer = world.forge.as_ref().map_or(3, |(forge, signer)| {
                    forge(&mut list);
                    *signer
                });
                ("200 OK".to_owned(), list.sign(&key(signer)).unwrap().to_bytes())
            }
            ("GET", ["mcp", "v1", "objects", _, "hashes"]) => {
                ("200 OK".to_owned(), fetch_list(&world.content))
            }
            ("GET", ["mcp", "v1", "objects", _] | ["artifact"]) => {
                world.objects += 1;
                return Answer::Object(Arc::clone(&world.content), world.slow);
            }
            ("GET", ["DEFAULT", "controller", "v1", "desk-07"]) => {
                world.polls += 1;
                let mut links = json!({});
                if let Some(id) = &world.cancel {
                    links["cancelAction"] = json!({"href": format!("{base}/cancelAction/{id}")});
                } else if let Some((id, _)) = &world.offer {
                    let rel = if world.confirm { "confirmationBase" } else { "deploymentBase" };
                    links[rel] = json!({"href": format!("{base}/{rel}/{id}?c=1")});
                }
                ok(&json!({"config": {"polling": {"sleep": "00:00:01"}}, "_links": links}))
            }
            ("GET", [.., what @ ("deploymentBase" | "confirmationBase"), id]) => {
                let (_, task) = world.offer.clone().unwrap();
                let mut metadata = Vec::new();
                metadata.extend(task.map(|task| json!({"key": "mcp.task", "value": task.to_metadata()})));
                let mirrors = world.mirrors.as_ref();
                metadata.extend(mirrors.map(|urls| json!({"key": "mcp.mirrors", "value": urls})));
                let object = Hash::of(&world.content).to_string();
                metadata.extend(mirrors.map(|_| json!({"key": "mcp.object", "value": object})));
                let handling = if world.skip { "skip" } else { "forced" };
                let sha1 =
                    data_encoding::HEXLOWER.encode(&<sha1::Sha1 as sha1::Digest>::digest(&*world.content));
                let mut filenames = world.filenames.clone();
                if filenames.is_empty() {
                    filenames.push("image.bin".to_owned());
                }
                let artifacts: Vec<_> = filenames
                    .iter()
                    .map(|name| {
                        json!({"filename": name, "size": world.content.len(), "hashes": {"sha1": sha1},
                            "_links": {"download-http": {"href": format!("http://{host}/artifact")}}})
                    })
                    .collect();
                let terms = if *what == "deploymentBase" { "deployment" } else { "confirmation" };
                let mut deployment = json!({"download": handling, "update": handling, "chunks": [{
                    "part": "bApp", "name": "image", "version": "1.0", "metadata": metadata,
                    "artifacts": artifacts,
                }]});
                if let Some(closed) = world.skip_update {
                    deployment["update"] = json!("skip");
                    if closed {
                        deployment["maintenanceWindow"] = json!("unavailable");
                    }
                }
                ok(&json!({"id": id, terms: deployment}))
            }
            ("GET", [.., "cancelAction", id]) => ok(&json!({"id": id, "cancelAction": {"stopId": id}})),
            ("PUT", [.., "configData"]) => {
                world.attributes.push(serde_json::from_slice(&request.body).unwrap());
                (if world.full { "429 Too Many Requests" } else { "200 OK" }.to_owned(), Vec::new())
            }
            ("POST", [.., what, _, "feedback"]) => {
                let said: Value = serde_json::from_slice(&request.body).unwrap();
                let over = said["status"]["execution"] == "closed" && *what == "deploymentBase";
                world.confirm &= said["confirmation"] != "confirmed";
                world.feedback.push(((*what).to_owned(), said));
                if over {
                    world.offer = None;
                }
                if *what == "cancelAction" {
                    (world.cancel, world.offer) = (None, None);
                }
                ("200 OK".to_owned(), Vec::new())
            }
            _ => ("404 Not Found".to_owned(), Vec::new()),
        }
    };
    Answer::Text(head, body)
}

fn fetch_list(bytes: &[u8]) -> Vec<u8> {
    fetch::list_of(bytes)
}

/// Blanks for ever.
async fn endless(mut stream: TcpStream) {
    let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    while sent.is_ok() {
        sent = stream.write_all(&[b' '; 1 << 14]).await;
    }
}

/// The first block and a half, and then nothing for a long time.
async fn drip(request: Request, mut stream: TcpStream, bytes: Arc<Vec<u8>>) {
    let (first, last) = request.range().unwrap_or((0, bytes.len() - 1));
    let status = if request.range().is_some() { "206 P" } else { "200 OK" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Range: bytes {first}-{last}/{}\r\nContent-Length: {}\r\n\r\n",
        bytes.len(),
        last + 1 - first
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let end = (first + (3 << 19)).min(last + 1);
    let _ = stream.write_all(&bytes[first..end]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// A device, and the server that it checks in with.
struct Bed {
    dir: tempfile::TempDir,
    world: Shared,
    server: Server,
}

struct Agent {
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<Result<(), String>>,
}

impl Agent {
    async fn stop(self) {
        let _ = self.stop.send(());
        self.done.await.unwrap().unwrap();
    }
}

impl Bed {
    /// A device that has joined.
    async fn new() -> Self {
        let world = Shared::default();
        world.lock().unwrap().content = Arc::new(content(7, (3 << 20) + 77));
        let shared = Arc::clone(&world);
        let server = Server::start(move |request, stream| answer(request, stream, Arc::clone(&shared))).await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("srv")).unwrap();
        std::fs::create_dir(dir.path().join("unsigned")).unwrap();
        let bed = Self { dir, world, server };
        let state = StateDir::open(&bed.state()).unwrap();
        let trusted = Trusted::begin(fleet(), "desk-07", root().hash(), &root()).unwrap();
        state.write("trusted.json", &trusted.to_bytes()).unwrap();
        let identity = Identity {
            server: bed.server.url.clone(),
            tenant: "DEFAULT".to_owned(),
            device: "desk-07".to_owned(),
            authorization: Some("TargetToken secret".to_owned()),
            pin: None,
            fleet: Some(fleet()),
        };
        state.put("identity.json", &identity).unwrap();
        bed
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn settings(&self) -> Settings {
        let mut settings =
            Settings { destinations: vec![self.dir.path().join("srv")], ..Settings::default() };
        settings.handlers.directory = self.dir.path().join("handlers.d");
        settings
    }

    fn stock(&self) -> Stock {
        Stock {
            server: self.server.url.clone(),
            tenant: "DEFAULT".to_owned(),
            device: "desk-07".to_owned(),
            authorization: None,
        }
    }

    fn start(&self, stock: Option<Stock>, settings: Settings) -> Agent {
        let (stop, stopped) = oneshot::channel();
        let dir = self.state();
        let done = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            run(&dir, stock, settings, stopped).await.map_err(|error| error.to_string())
        });
        Agent { stop, done }
    }

    fn task(&self, serial: u64) -> Task {
        let bytes = Arc::clone(&self.world().content);
        let mut task = Task::new(fleet(), "image", serial, (clock() - 5, clock() + HOUR));
        task.version = format!("{serial}.0");
        task.at = Some(format!("{}/images/", self.dir.path().join("srv").display()));
        task.objects = vec![Object {
            filename: "image.bin".to_owned(),
            size: bytes.len() as u64,
            blake3: Hash::of(&bytes),
            sha256: Hash(<sha2::Sha256 as sha2::Digest>::digest(&*bytes).into()),
        }];
        task
    }

    fn offer(&self, action: &str, task: Option<&Task>) {
        let task = task.map(|task| task.sign(&[&key(2)]).unwrap());
        self.world().offer = Some((action.to_owned(), task));
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn destination(&self) -> PathBuf {
        self.dir.path().join("srv/images/image.bin")
    }

    /// Waits until the server has heard feedback of this kind that satisfies `wanted`.
    async fn hears(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1500 {
            let found = {
                let world = self.world();
                let mut said = world.feedback.iter().filter(|(kind, _)| kind == what);
                said.find(|(_, said)| wanted(&said["status"])).map(|(_, said)| said["status"].clone())
            };
            if let Some(status) = found {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the server heard only {:?}", self.world().feedback);
    }

    async fn closed(&self) -> Value {
        self.hears("deploymentBase", |status| status["execution"] == "closed").await
    }
}

fn success(status: &Value) -> bool {
    status["execution"] == "closed" && status["result"]["finished"] == "success"
}

#[tokio::test]
async fn a_signed_copy_from_offer_to_receipt() {
    let bed = Bed::new().await;
    let task = bed.task(1);
    bed.offer("8", Some(&task));
    let mut settings = bed.settings();
    settings.key = Some("mcp-device1-x".to_owned());
    let agent = bed.start(None, settings);
    let status = bed.closed().await;
    assert!(success(&status), "{status}");
    assert_eq!(std::fs::read(bed.destination()).unwrap(), *bed.world().content);
    assert_eq!(
        std::fs::read_dir(bed.destination().parent().unwrap()).unwrap().count(),
        1,
        "no part file is left"
    );
    let attributes = bed.world().attributes[0].clone();
    assert_eq!(
        (&attributes["mode"], &attributes["data"]["mcp.key"]),
        (&json!("merge"), &json!("mcp-device1-x"))
    );
    assert!(
        bed.hears("deploymentBase", |status| status["execution"] == "proceeding").await["details"].is_array()
    );

    // The same once more, under another action: it is answered without loading anything.
    let objects = bed.world().objects;
    bed.world().feedback.clear();
    bed.offer("9", Some(&task));
    assert!(success(&bed.closed().await));
    assert_eq!(bed.world().objects, objects);
    assert_eq!(bed.world().feedback.iter().filter(|(_, said)| said["id"] == "9").count(), 1);

    // An older one is refused as a rollback, and the agent goes on.
    bed.world().feedback.clear();
    bed.offer("10", Some(&bed.task(2)));
    assert!(success(&bed.closed().await), "there already");
    bed.world().feedback.clear();
    bed.world().listed = Some(Vec::new());
    bed.offer("11", Some(&task));
    let refused = bed.closed().await;
    assert_eq!(
        (&refused["code"], &refused["result"]["finished"]),
        (&json!(4090), &json!("failure")),
        "{refused}"
    );
    agent.stop().await;

    let status = serde_json::to_value(status_of(&bed)).unwrap();
    assert_eq!(
        (&status["tasks"][0]["state"], &status["completed"]["image"]["serial"]),
        (&json!("done"), &json!(2))
    );
    for entry in walk(&bed.state()) {
        use std::os::unix::fs::PermissionsExt as _;
        let meta = std::fs::metadata(&entry).unwrap();
        let want = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(meta.permissions().mode() & 0o777, want, "{}", entry.display());
    }
}

fn status_of(bed: &Bed) -> Status {
    status(&bed.state()).unwrap()
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn the_loop_polls_while_a_download_hangs_and_a_cancel_ends_it() {
    let bed = Bed::new().await;
    bed.world().slow = true;
    bed.offer("8", Some(&bed.task(1)));
    let agent = bed.start(None, bed.settings());
    bed.hears("deploymentBase", |status| {
        status["details"][0].as_str().is_some_and(|text| text.starts_with("loads"))
    })
    .await;
    let before = bed.world().polls;
    while bed.world().polls < before + 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bed.world().cancel = Some("8".to_owned());
    let answer = bed.hears("cancelAction", |_| true).await;
    assert!(success(&answer), "{answer}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(std::fs::read_dir(bed.destination().parent().unwrap()).unwrap().count(), 0);
    let said_closed = bed
        .world()
        .feedback
        .iter()
        .any(|(what, said)| what == "deploymentBase" && said["status"]["execution"] == "closed");
    assert!(!said_closed, "a cancelled action is answered on cancelAction alone");
    agent.stop().await;
}

#[tokio::test]
async fn a_restart_goes_on_at_the_block_and_needs_no_new_offer() {
    let bed = Bed::new().await;
    bed.world().slow = true;
    bed.offer("8", Some(&bed.task(1)));
    let agent = bed.start(None, bed.settings());
    let part = bed.destination().with_file_name(format!(
        ".image.bin.{:.8}.mcp-part",
        bed.task(1).sign(&[]).unwrap().hash().to_string()
    ));
    let first = content(7, (3 << 20) + 77)[..1 << 20].to_vec();
    for _ in 0..500 {
        if std::fs::read(&part).is_ok_and(|bytes| bytes.starts_with(&first)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.done.abort();
    let _ = agent.done.await;
    {
        let mut world = bed.world();
        (world.slow, world.objects) = (false, 0);
        world.listed = world.offer.take().and_then(|(_, task)| task).map(|task| vec![task]);
    }
    // The task's time is in its signature, so the same document is still on its way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let agent = bed.start(None, bed.settings());
    assert!(success(&bed.closed().await));
    assert_eq!(std::fs::read(bed.destination()).unwrap(), *bed.world().content);
    let ranges: Vec<_> = bed.server.requests().iter().filter_map(Request::range).collect();
    assert!(ranges.contains(&(1 << 20, (3 << 20) + 76)), "{ranges:?}");
    agent.stop().await;
}

#[tokio::test]
async fn an_expired_list_holds_a_task_until_a_new_one_comes() {
    let bed = Bed::new().await;
    bed.world().list_expired = true;
    bed.offer("8", Some(&bed.task(1)));
    let agent = bed.start(None, bed.settings());
    let held = bed.hears("deploymentBase", |status| status["execution"] == "rejected").await;
    assert_eq!(held["code"], 4081, "{held}");
    assert!(!bed.destination().exists());
    bed.world().list_expired = false;
    assert!(success(&bed.closed().await));
    agent.stop().await;
}

#[tokio::test]
async fn what_this_device_does_not_allow() {
    let bed = Bed::new().await;
    let agent = bed.start(None, bed.settings());
    let mut outside = bed.task(1);
    outside.at = Some("/etc/".to_owned());
    let mut forged = bed.task(2);
    forged.version = "forged".to_owned();
    let mut handler = bed.task(3);
    (handler.kind, handler.handler, handler.at) =
        (crate::documents::TaskKind::Install, Some("deb".to_owned()), None);
    let mut other = bed.task(4);
    other.to = crate::documents::Audience::Devices(["desk-08".to_owned()].into());
    let cases = [(&outside, 2, 4033), (&forged, 9, 4010), (&handler, 2, 5001), (&other, 2, 4031)];
    for (n, (task, signer, code)) in cases.into_iter().enumerate() {
        bed.world().feedback.clear();
        bed.world().offer = Some((format!("2{n}"), Some(task.sign(&[&key(signer)]).unwrap())));
        let refused = bed.closed().await;
        assert_eq!(
            (&refused["code"], &refused["result"]["finished"]),
            (&json!(code), &json!("failure")),
            "{refused}"
        );
    }
    // And nobody's signature, with and without the policy.
    bed.world().feedback.clear();
    bed.offer("30", None);
    assert_eq!(bed.closed().await["code"], 4010);
    agent.stop().await;
    assert!(!bed.destination().exists());
}

#[tokio::test]
async fn an_unsigned_copy_from_a_stock_server_by_policy() {
    let bed = Bed::new().await;
    bed.offer("8", None);
    let unsigned = bed.dir.path().join("unsigned");
    let mut settings = bed.settings();
    settings.unsigned_copies = Some(unsigned.clone());
    // Without TLS the server could be anybody, so the policy must say so.
    let agent = bed.start(Some(bed.stock()), settings.clone());
    assert_eq!(bed.closed().await["code"], 4010);
    agent.stop().await;
    bed.world().feedback.clear();
    bed.offer("9", None);
    bed.world().skip = true;
    settings.plain = true;
    let agent = bed.start(Some(bed.stock()), settings);
    bed.hears("deploymentBase", |status| {
        status["details"][0].as_str().is_some_and(|text| text.contains("lets it load"))
    })
    .await;
    assert!(bed.world().objects == 0, "'skip' means less, and is no reason to close");
    bed.world().skip = false;
    assert!(success(&bed.hears("deploymentBase", success).await));
    assert_eq!(std::fs::read(unsigned.join("image.bin")).unwrap(), *bed.world().content);
    agent.stop().await;
}

/// A server with TLS that enrols whoever comes. Returns its port, the pin of its key, and the tokens that it was given.
async fn tls_server() -> (u16, Hash, Arc<Mutex<Vec<Value>>>) {
    let certified = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
    let pin = pin_of(&rcgen::PublicKeyData::subject_public_key_info(&certified.signing_key));
    let secret =
        tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der())
            .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], secret)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&tokens);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let Some(request) = read(&mut stream).await else { return };
                let (head, body) = match &*request.path {
                    "/mcp/v1/roots/1" => ("200 OK", root_1().to_bytes()),
                    "/mcp/v1/enrol" => {
                        let said: Value = serde_json::from_slice(&request.body).unwrap();
                        let known = said["token"] == "one-time";
                        seen.lock().unwrap().push(said);
                        let answer = br#"{"state":"accepted"}"#.to_vec();
                        if known { ("200 OK", answer) } else { ("401 Unauthorized", Vec::new()) }
                    }
                    _ => ("404 Not Found", Vec::new()),
                };
                send(stream, &format!("{head}\r\nContent-Length: {}", body.len()), &body).await;
            });
        }
    });
    (port, pin, tokens)
}

/// The same root at every time of this run.
fn root_1() -> Envelope {
    static ROOT: std::sync::OnceLock<Envelope> = std::sync::OnceLock::new();
    ROOT.get_or_init(root).clone()
}

#[tokio::test]
async fn joining_takes_the_pinned_server_with_the_pinned_root_and_no_other() {
    let (port, pin, tokens) = tls_server().await;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("agent");
    let line = Enrolment {
        fleet: fleet(),
        pin,
        root: root_1().hash(),
        token: "one-time".to_owned().into(),
        url: format!("https://127.0.0.1:{port}"),
    };
    let wrong = [
        (Enrolment { pin: Hash([0; 32]), ..line.clone() }, "TLS failed"),
        (Enrolment { root: Hash([0; 32]), ..line.clone() }, "not the one of the enrolment line"),
        (Enrolment { fleet: FleetId([2; 16]), ..line.clone() }, "another fleet"),
    ];
    for (line, why) in wrong {
        let error = join(&state, &line, "desk-07", &key(7), false).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(tokens.lock().unwrap().is_empty(), "the token stays here until the server is known");
    }
    let used = Enrolment { token: "used".to_owned().into(), ..line.clone() };
    let error = join(&state, &used, "desk-07", &key(7), false).await.unwrap_err().to_string();
    assert!(error.contains("used up"), "{error}");
    let error = join(&state, &line, "desk 07", &key(7), false).await.unwrap_err().to_string();
    assert!(error.contains("--id"), "{error}");
    assert!(!state.join("identity.json").exists());

    // A line goes through text.
    let line: Enrolment = line.line().unwrap().parse().unwrap();
    let key = device_key(&state).unwrap();
    assert_eq!(device_key(&state).unwrap().public(), key.public());
    join(&state, &line, "desk-07", &key, false).await.unwrap();
    let said = tokens.lock().unwrap().last().unwrap().clone();
    assert_eq!((said.as_object().unwrap().len(), &said["token"]), (2, &json!("one-time")));
    let request = Envelope::from_metadata(said["envelope"].as_str().unwrap()).unwrap();
    let request = JoinRequest::open(&request).unwrap();
    assert_eq!((request.key, request.device.as_str()), (key.public(), "desk-07"));
    assert_eq!((request.fleet, request.line), (fleet(), Hash::of(b"one-time")));
    let stored = StateDir::open(&state).unwrap();
    let identity: Identity = stored.read("identity.json").unwrap().unwrap();
    let authorization = identity.authorization.unwrap();
    let target = authorization.strip_prefix("TargetToken ").unwrap();
    assert_eq!(request.target, Hash::of(target.as_bytes()), "the token itself stays here");
    assert_eq!(stored.trusted().unwrap().unwrap().root().version, 1);
    drop(stored);
    let error = join(&state, &line, "desk-07", &key, false).await.unwrap_err().to_string();
    assert!(error.contains("--again"), "{error}");
}

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_wants_to_be() {
    let bed = Bed::new().await;
    let times = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&times);
    let busy = Server::start(move |_, stream| {
        log.lock().unwrap().push(std::time::Instant::now());
        async move { send(stream, "503 Busy\r\nRetry-After: 2\r\nContent-Length: 0", b"").await }
    })
    .await;
    let agent = bed.start(Some(Stock { server: busy.url.clone(), ..bed.stock() }), bed.settings());
    tokio::time::sleep(Duration::from_millis(4500)).await;
    agent.stop().await;
    let times = times.lock().unwrap();
    assert!((2..=4).contains(&times.len()), "{times:?}");
    assert!(times[1] - times[0] >= Duration::from_millis(1500), "{times:?}");
    let status = serde_json::to_value(status_of(&bed)).unwrap();
    assert!(status["error"].as_str().is_some_and(|error| error.contains("busy")), "{status}");
}

#[tokio::test]
async fn what_this_device_would_refuse_is_denied_once_with_the_reason() {
    let bed = Bed::new().await;
    bed.world().confirm = true;
    bed.offer("8", None);
    let mut settings = bed.settings();
    settings.confirm = Confirm::Auto;
    let agent = bed.start(None, settings);
    while bed.world().polls < 4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let said: Vec<_> = bed.world().feedback.iter().map(|(_, said)| said.clone()).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((&said[0]["confirmation"], &said[0]["code"]), (&json!("denied"), &json!(4010)));
    assert!(said[0]["details"][0].as_str().is_some_and(|why| why.contains("signed tasks only")), "{said:?}");
    // Signed, but by nobody whom the device knows; and then by the operator.
    let task = bed.task(1);
    bed.world().offer = Some(("9".to_owned(), Some(task.sign(&[&key(9)]).unwrap())));
    while bed.world().feedback.len() < 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bed.world().feedback[1].1["confirmation"], "denied");
    bed.offer("10", Some(&task));
    assert!(success(&bed.closed().await));
    agent.stop().await;
}
