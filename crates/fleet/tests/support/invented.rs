//! A server with a fleet that somebody made up: devices in all states, tasks in the middle. For pictures and tests of the page.

use data_encoding::BASE64;
use mcp_fleet::ddi;
use mcp_fleet::documents::{Hash, Kind, Object, SecretKey, Task, TaskKind};
use mcp_fleet::objects::ObjectHashes;
use mcp_fleet::server::{Running, ServeConfig, SessionView, clock, start, state_dir};
use mcp_fleet::store::{ActionState, DeviceState, NewTask, Report, Store, Terms};
use serde_json::json;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// The server.
pub struct Invented {
    pub running: Running,
    /// The task that is under way.
    pub task: i64,
    /// One that is given out in groups.
    pub rollout: i64,
    dir: tempfile::TempDir,
}

/// How a device takes the task that is under way.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Done,
    Works(u64),
    Fails,
    Waits,
    Silent,
}

/// Of every 50 devices, most are done.
fn fate(n: usize) -> Fate {
    match n % 50 {
        7 => Fate::Fails,
        13 | 38 => Fate::Silent,
        n if n % 6 == 2 => Fate::Works((n as u64 * 37) % 90 + 5),
        n if n % 7 == 3 => Fate::Waits,
        _ => Fate::Done,
    }
}

impl Invented {
    /// A server with so many devices.
    pub async fn new(devices: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let local = "127.0.0.1:0".parse().expect("an address");
        let running = start(ServeConfig::new(dir.path().join("serve"), local)).await.expect("started");
        let mut made = Self { running, task: 0, rollout: 0, dir };
        let store = made.running.store().clone();
        made.devices(&store, devices).await;
        let (iso, _) = made.task("image.iso", "copy", 4_700_000_000, Terms::default()).await;
        finish(&store, iso, devices, |_| Fate::Done).await;
        let (id, _) = made.task("firmware", "2.1", 268_435_456, Terms::default()).await;
        finish(&store, id, devices, fate).await;
        made.session(&store, id, devices as u64).await;
        made.task = id;
        let groups = ["tag:hall-1", "25%"].map(|group| group.parse().expect("a group")).to_vec();
        let few = "5%".parse().expect("a per cent");
        let terms = Terms { groups, failures: few, ..Terms::default() };
        (made.rollout, _) = made.task("editor", "7.4", 52_428_800, terms).await;
        finish(&store, made.rollout, devices, |n| if n == 13 { Fate::Fails } else { Fate::Done }).await;
        store.roll_out(clock::now()).await.expect("went on");
        finish(&store, made.rollout, devices, |n| if n % 7 == 3 { Fate::Fails } else { fate(n) }).await;
        store.roll_out(clock::now()).await.expect("paused");
        made
    }

    /// The key's hash as Chromium wants it.
    pub fn pin(&self) -> String {
        BASE64.encode(&self.running.reach.pin.0)
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.running.address)
    }

    /// A link that logs the first operator in.
    pub async fn link(&self) -> String {
        let token = state_dir::new_token().expect("a token");
        let operators = self.running.store().operators().await.expect("operators");
        let hash = blake3::hash(token.as_bytes());
        let until = clock::now() + 300;
        self.running.store().add_link(hash, &operators[0].public_key, until).await.expect("added");
        format!("{}/login/{}", self.url(), *token)
    }

    async fn devices(&self, store: &Store, devices: usize) {
        let mut waiting = JoinSet::new();
        for n in 0..devices {
            let (store, now) = (store.clone(), clock::now());
            waiting.spawn(async move {
                let id = name(n);
                store.decide_device(&id, DeviceState::Accepted, None, now - 86_400).await.expect("accepted");
                let attributes = [("hw", "b"), ("mcp.version", "1.0.0"), ("segment", "hall-1")];
                let attributes: BTreeMap<_, _> =
                    attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect();
                store.set_attributes(&id, &attributes, now - 86_400).await.expect("noted");
                store
                    .tag_device(&id, vec![format!("hall-{}", n / 24 + 1)], Vec::new())
                    .await
                    .expect("tagged");
            });
        }
        while let Some(done) = waiting.join_next().await {
            done.expect("made");
        }
        if devices > 4 {
            store.register("new-tablet", 10, clock::now()).await.expect("registered");
        }
        let now = clock::now();
        let seen = |n| if fate(n) == Fate::Silent { now - 7200 } else { now - n as u64 % 280 };
        let address = |n: usize| format!("10.1.{}.{}", n / 200, n % 200 + 10);
        store.seen((0..devices).map(|n| (name(n), seen(n), address(n))).collect()).await.expect("seen");
    }

    async fn task(&self, name: &str, version: &str, size: u64, terms: Terms) -> (i64, SecretKey) {
        let key =
            state_dir::read_key(&self.dir.path().join("serve/operator.key")).expect("a key").expect("one");
        let store = self.running.store();
        let (blake3, sha256) = (blake3::hash(name.as_bytes()), Hash::of(version.as_bytes()));
        let hashes = ObjectHashes {
            size,
            blake3,
            sha256: sha256.to_string(),
            sha1: "0".repeat(40),
            md5: "0".repeat(32),
        };
        store.add_object(&hashes, clock::now()).await.expect("added");
        let now = clock::now();
        let mut task = Task::new(self.running.reach.fleet, name, 1, (now, now + 86_400));
        if version == "copy" {
            task.at = Some("/srv/images/".into());
        } else {
            (task.kind, task.version, task.handler) = (TaskKind::Install, version.into(), Some("fw".into()));
        }
        let object =
            Object { filename: format!("{name}.bin"), size, blake3: Hash(*blake3.as_bytes()), sha256 };
        task.objects = vec![object];
        let envelope = task.sign(&[&key]).expect("signed");
        assert!(envelope.signers(Kind::Task).contains(&key.public()));
        let mut back = task.clone();
        back.serial += 1;
        let rollback = (!terms.groups.is_empty()).then(|| back.sign(&[&key]).expect("signed"));
        let new = NewTask { task, envelope, terms, rollback, by: "first".into() };
        (store.add_task(new, now - 1800).await.expect("added"), key)
    }

    async fn session(&self, store: &Store, task: i64, devices: u64) {
        let by = ("lab", clock::now() - 1500);
        let called = store.call_session((task, 0), devices, vec![0; 32].into(), by).await.expect("called");
        let view = SessionView {
            file: "firmware.bin".into(),
            called: clock::now() - 1500,
            runs: 1,
            expected: devices,
            complete: devices * 7 / 10,
            streamed: 268_435_456,
            size: 268_435_456,
            wire: 291_203_884,
            symbols: 190_720,
            repairs: 6_103,
            over: true,
            ..SessionView::default()
        };
        let figures = serde_json::to_string(&view).expect("JSON");
        let called = called.expect("no other is open");
        store.end_session(&called, figures, clock::now() - 1400).await.expect("ended");
    }
}

/// The name of a device.
pub fn name(n: usize) -> String {
    format!("bench-{:04}", n + 1)
}

/// Lets devices report.
async fn finish(store: &Store, task: i64, devices: usize, fate: fn(usize) -> Fate) {
    let mut waiting = JoinSet::new();
    for n in 0..devices {
        let store = store.clone();
        waiting.spawn(async move {
            let (id, now) = (name(n), clock::now());
            let Some(action) = store.action_for(&id, task).await.expect("read") else { return };
            let (execution, finished, said, progress) = match fate(n) {
                Fate::Waits | Fate::Silent => return,
                Fate::Done => ("closed", "success", "268435456 bytes by multicast, all of it".into(), (1, 1)),
                Fate::Works(part) => ("proceeding", "none", format!("loading: {part} % verified"), (part, 100)),
                Fate::Fails => {
                    ("closed", "failure", "the disk is full: 268435456 bytes needed, 91226112 free in /srv".into(), (0, 1))
                }
            };
            store.begin(&action, None, now - 900).await.expect("begun");
            let body = json!({"status": {"execution": execution,
                "result": {"finished": finished, "progress": {"cnt": progress.0, "of": progress.1}}, "details": [said]}});
            let feedback = ddi::parse(body.to_string().as_bytes()).expect("feedback");
            let report = Report::Deployment { download_only: false };
            store.feedback(&id, action.id, report, feedback, now - n as u64 % 900).await.expect("taken");
        });
    }
    while let Some(done) = waiting.join_next().await {
        done.expect("reported");
    }
    let counts = store.tasks(Some(task)).await.expect("read").pop().expect("a task").counts;
    assert_eq!(counts.values().sum::<u64>(), devices as u64, "{}", ActionState::Finished.as_str());
}
