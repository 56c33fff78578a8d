//! The agent with real handlers, against a server that is played by the test. Needs root, as handlers do.

mod goosebit;
#[path = "../support/place.rs"]
mod place;
#[path = "../../src/agent/testing.rs"]
mod testing;
mod with_server;

use mcp_fleet::agent::{Settings, Stock, run, status};
use mcp_fleet::documents::{
    Argument, Envelope, FleetId, Hash, Kind, Object, Role, Root, SecretKey, Task, TaskKind, Trusted,
};
use mcp_fleet::handlers::{Config, Helper};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use testing::{Request, Server, good, send};
use tokio::sync::oneshot;

const OBJECT: &[u8] = b"the object of the task";

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

#[derive(Default)]
struct World {
    offer: Option<(String, String)>,
    cancel: Option<String>,
    feedback: Vec<(String, Value)>,
    polls: usize,
}

struct Lab {
    dir: tempfile::TempDir,
    world: Arc<Mutex<World>>,
    server: Server,
}

struct Agent {
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn stop(self) {
        let _ = self.stop.send(());
        self.done.await.unwrap();
    }
}

impl Lab {
    /// `None` if handlers cannot run here.
    async fn new() -> Option<Self> {
        if !fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t") {
            assert!(std::env::var_os("MCP_TESTS_MUST_RUN").is_none(), "would be skipped: needs root");
            eprintln!("skipped: needs root");
            return None;
        }
        let dir = place::of_root();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for sub in ["handlers.d", "bin", "out"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        fs::set_permissions(dir.path().join("out"), Permissions::from_mode(0o777)).unwrap();
        let world = Arc::new(Mutex::new(World::default()));
        let shared = Arc::clone(&world);
        let server = Server::start(move |request, stream| {
            let answer = decide(&request, &shared);
            async move {
                match answer {
                    Some((head, body)) => {
                        send(stream, &format!("{head}\r\nContent-Length: {}", body.len()), &body).await;
                    }
                    None => good(request, stream, Arc::new(OBJECT.to_vec())).await,
                }
            }
        })
        .await;
        let fleet = FleetId([1; 16]);
        let roles = [1, 2, 3].map(|n| Role::of(key(n).public()));
        let root = Root::new((fleet, 1), (now() - 3600, now() + 3_600_000), roles).sign(&[&key(1)]).unwrap();
        let trusted = Trusted::begin(fleet, "desk-07", root.hash(), &root).unwrap();
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
        fs::write(state.join("trusted.json"), trusted.to_bytes()).unwrap();
        Some(Self { dir, world, server })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn handler(&self, name: &str, script: &str, top: &str) {
        let exec = self.path(&format!("bin/{name}"));
        fs::write(&exec, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&exec, Permissions::from_mode(0o755)).unwrap();
        let out = self.path("out");
        let text = format!(
            "description = \"{name}\"\nkill-after = \"1s\"\nobject = \"required\"\n{top}\n\
             [arguments.word]\ntype = \"string\"\npattern = \"[a-z]+\"\n\
             [environment]\nPATH = \"/usr/bin:/bin\"\nOUT = {out:?}\nWORD = \"{{arg.word}}\"\n\
             [sandbox]\nwrite = [{out:?}]\n[run]\nexec = {exec:?}\ntimeout = \"30s\"\n"
        );
        let manifest = self.path(&format!("handlers.d/{name}.toml"));
        fs::write(&manifest, text).unwrap();
        fs::set_permissions(&manifest, Permissions::from_mode(0o644)).unwrap();
    }

    fn task(&self, name: &str, word: &str) -> Task {
        let mut task = Task::new(FleetId([1; 16]), name, 1, (now() - 5, now() + 3600));
        (task.kind, task.handler, task.version) =
            (TaskKind::Install, Some(name.to_owned()), "1.0".to_owned());
        task.arguments.insert("word".to_owned(), Argument::Text(word.to_owned()));
        let sha256 = Hash([0; 32]);
        let object = Object {
            filename: "a.bin".to_owned(),
            size: OBJECT.len() as u64,
            blake3: Hash::of(OBJECT),
            sha256,
        };
        task.objects.push(Object { sha256: sha256_of(OBJECT), ..object });
        task
    }

    fn offer(&self, action: &str, task: &Envelope) {
        self.world().offer = Some((action.to_owned(), task.to_metadata()));
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn start(&self) -> Agent {
        let (stop, stopped) = oneshot::channel::<()>();
        let helper = Helper { program: env!("CARGO_BIN_EXE_mcp-exec-handler").into(), args: Vec::new() };
        let settings = Settings {
            handlers: Config { directory: self.path("handlers.d"), helper, cgroups: None },
            retry: Duration::from_millis(2),
            ..Settings::default()
        };
        let stock = Stock {
            server: self.server.url.clone(),
            tenant: "DEFAULT".to_owned(),
            device: "desk-07".to_owned(),
            authorization: None,
        };
        let dir = self.path("state");
        let done = tokio::spawn(async move {
            run(&dir, Some(stock), settings, async { drop(stopped.await) }).await.unwrap();
        });
        Agent { stop, done }
    }

    async fn hears(&self, wanted: impl Fn(&str, &Value) -> bool) -> Value {
        for _ in 0..1500 {
            let found =
                self.world().feedback.iter().find(|(what, said)| wanted(what, &said["status"])).cloned();
            if let Some((_, said)) = found {
                return said["status"].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the server heard only {:?}", self.world().feedback);
    }

    async fn closed(&self) -> Value {
        self.hears(|what, status| what == "deploymentBase" && status["execution"] == "closed").await
    }

    fn out(&self, name: &str) -> String {
        fs::read_to_string(self.path("out").join(name)).unwrap_or_default()
    }

    async fn appears(&self, name: &str) {
        for _ in 0..500 {
            if self.path("out").join(name).exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no {name}: {:?}", self.world().feedback);
    }
}

fn sha256_of(bytes: &[u8]) -> Hash {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    Hash(digest.as_ref().try_into().unwrap())
}

fn decide(request: &Request, world: &Mutex<World>) -> Option<(&'static str, Vec<u8>)> {
    let path = request.path.split('?').next().unwrap();
    let base = "/DEFAULT/controller/v1/desk-07";
    let mut world = world.lock().unwrap();
    let json = |value: Value| Some(("200 OK", value.to_string().into_bytes()));
    match (&*request.method, path.strip_prefix(base)) {
        ("GET", Some("")) => {
            world.polls += 1;
            let mut links = json!({});
            if let Some(id) = &world.cancel {
                links["cancelAction"] = json!({"href": format!("{base}/cancelAction/{id}")});
            } else if let Some((id, _)) = &world.offer {
                links["deploymentBase"] = json!({"href": format!("{base}/deploymentBase/{id}")});
            }
            json(json!({"config": {"polling": {"sleep": "00:00:01"}}, "_links": links}))
        }
        ("GET", Some(rest)) if rest.starts_with("/deploymentBase/") => {
            let (id, task) = world.offer.clone()?;
            json(json!({"id": id, "deployment": {"download": "forced", "update": "forced", "chunks": [{
                "part": "bApp", "name": "a", "version": "1", "metadata": [{"key": "mcp.task", "value": task}],
                "artifacts": [{"filename": "a.bin", "size": OBJECT.len(),
                    "hashes": {"blake3": Hash::of(OBJECT)}, "_links": {"download-http":
                        {"href": format!("http://{}/artifact", request.headers["host"])}}}],
            }]}}))
        }
        ("GET", Some(rest)) => {
            let id = rest.rsplit('/').next()?;
            json(json!({"id": id, "cancelAction": {"stopId": id}}))
        }
        ("POST", Some(rest)) => {
            let what = rest.split('/').nth(1)?.to_owned();
            let said: Value = serde_json::from_slice(&request.body).unwrap();
            if said["status"]["execution"] == "closed" {
                world.offer = None;
            }
            if what == "cancelAction" {
                world.cancel = None;
            }
            world.feedback.push((what, said));
            Some(("200 OK", Vec::new()))
        }
        ("PUT", _) => Some(("200 OK", Vec::new())),
        _ => None,
    }
}

fn success(status: &Value) -> bool {
    status["execution"] == "closed" && status["result"]["finished"] == "success"
}

#[tokio::test]
async fn an_install_runs_once_whatever_is_offered_again() {
    let Some(lab) = Lab::new().await else { return };
    lab.handler(
        "fw",
        "cat \"$MCP_OBJECT\" > $OUT/object; echo $WORD >> $OUT/runs; echo said; exit 0",
        "interrupted = \"report\"",
    );
    let task = lab.task("fw", "abc").sign(&[&key(2)]).unwrap();
    lab.offer("1", &task);
    let agent = lab.start();
    let status = lab.closed().await;
    assert!(success(&status), "{status}");
    assert!(status["details"].as_array().unwrap().iter().any(|line| line == "said"), "{status}");
    assert_eq!((lab.out("object").as_bytes(), &*lab.out("runs")), (OBJECT, "abc\n"));
    agent.stop().await;

    // After a restart, and under another action, it is done already.
    lab.world().feedback.clear();
    lab.offer("2", &task);
    let agent = lab.start();
    assert!(success(&lab.closed().await));
    // And with a state that forgot the task, the serial is known.
    agent.stop().await;
    let tasks = lab.path("state/tasks");
    fs::read_dir(&tasks).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
    lab.world().feedback.clear();
    lab.offer("3", &task);
    let agent = lab.start();
    assert!(success(&lab.closed().await));
    agent.stop().await;
    assert_eq!(lab.out("runs"), "abc\n");
}

#[tokio::test]
async fn refusals_failures_and_the_operators_retry() {
    let Some(lab) = Lab::new().await else { return };
    lab.handler("flaky", "echo x >> $OUT/runs; test -e $OUT/well", "interrupted = \"report\"");
    let agent = lab.start();
    let mut injected = lab.task("flaky", "a;reboot");
    let words = ["a;reboot", "--yes", "a\nb", "$(id)", "../a"];
    let tasks = words.iter().zip(1..).map(|(word, serial)| {
        let mut task = lab.task("flaky", word);
        task.serial = serial;
        task
    });
    let absent = (lab.task("absent", "a"), 5001, "has no handler");
    let refused = tasks.map(|task| (task, 5001, "its argument word "));
    for (n, (task, code, why)) in std::iter::once(absent).chain(refused).enumerate() {
        lab.world().feedback.clear();
        lab.offer(&format!("2{n}"), &task.sign(&[&key(2)]).unwrap());
        let said = lab.closed().await;
        assert_eq!(said["code"], code, "{said}");
        assert!(said["details"][0].as_str().is_some_and(|said| said.contains(why)), "{said}");
    }
    // A zero byte does not even get as far as the manifest.
    let mut payload = serde_json::to_value(lab.task("flaky", "a")).unwrap();
    payload["arguments"]["word"] = "a\0b".into();
    let mut zero = Envelope::unsigned(serde_json::to_vec(&payload).unwrap());
    zero.sign(Kind::Task, &key(2));
    lab.world().feedback.clear();
    lab.offer("3", &zero);
    assert_eq!(lab.closed().await["code"], 4001);
    assert_eq!(lab.out("runs"), "", "an argument that the manifest does not allow runs nothing");
    (injected.serial, injected.arguments) = (6, lab.task("flaky", "abc").arguments);
    let task = injected.sign(&[&key(2)]).unwrap();
    for (action, well, runs) in [("4", false, "x\n"), ("5", true, "x\nx\n")] {
        if well {
            fs::write(lab.path("out/well"), "").unwrap();
        }
        lab.world().feedback.clear();
        lab.offer(action, &task);
        assert_eq!((success(&lab.closed().await), &*lab.out("runs")), (well, runs), "{action}");
    }
    agent.stop().await;
    let status = serde_json::to_value(status(&lab.path("state")).unwrap()).unwrap();
    assert_eq!(status["completed"]["flaky"]["serial"], 6);
}

#[tokio::test]
async fn a_cancel_ends_a_handler_that_allows_it_and_is_rejected_by_one_that_does_not() {
    let Some(lab) = Lab::new().await else { return };
    let script = "echo x > $OUT/$WORD; sleep 5; echo x > $OUT/end-$WORD";
    lab.handler("soft", script, "interrupted = \"report\"\ncancel = \"any-time\"");
    lab.handler("hard", script, "interrupted = \"report\"\ncancel = \"before-start\"");
    let agent = lab.start();
    for (action, name, answer) in [("1", "soft", "closed"), ("2", "hard", "rejected")] {
        lab.world().feedback.clear();
        lab.offer(action, &lab.task(name, name).sign(&[&key(2)]).unwrap());
        lab.appears(name).await;
        let polls = lab.world().polls;
        lab.world().cancel = Some(action.to_owned());
        let said = lab.hears(|what, _| what == "cancelAction").await;
        assert_eq!(said["execution"], answer);
        assert!(lab.world().polls > polls, "the loop polls while a handler runs");
        if answer == "closed" {
            lab.world().offer = None;
        }
    }
    assert!(success(&lab.closed().await), "the second one ends by itself");
    assert_eq!((&*lab.out("end-soft"), &*lab.out("end-hard")), ("", "x\n"));
    agent.stop().await;
}

#[tokio::test]
async fn a_handler_is_run_again_later_as_often_as_it_may_ask() {
    let Some(lab) = Lab::new().await else { return };
    // Ready at its third run.
    lab.handler(
        "busy",
        "echo x >> $OUT/runs; test $(wc -l <$OUT/runs) = 3 || exit 75",
        "interrupted = \"report\"",
    );
    lab.handler("never", "echo x >> $OUT/vain; echo still busy; exit 75", "interrupted = \"report\"");
    let agent = lab.start();
    lab.offer("1", &lab.task("busy", "abc").sign(&[&key(2)]).unwrap());
    let said = lab.closed().await;
    assert!(success(&said), "{said}");
    assert_eq!(lab.out("runs"), "x\n".repeat(3));
    let waited = lab
        .hears(|_, status| status["details"][0].as_str().is_some_and(|d| d.contains("tried again later")))
        .await;
    assert_eq!(waited["execution"], "proceeding");

    lab.world().feedback.clear();
    lab.offer("2", &lab.task("never", "abc").sign(&[&key(2)]).unwrap());
    let said = lab.closed().await;
    assert_eq!(
        (success(&said), &said["details"][0]),
        (false, &"it asked too often to be tried again later".into())
    );
    assert_eq!(lab.out("vain"), "x\n".repeat(10));
    agent.stop().await;
    // An agent that starts again knows that it is over.
    lab.world().feedback.clear();
    lab.offer("2", &lab.task("never", "abc").sign(&[&key(2)]).unwrap());
    let agent = lab.start();
    assert!(!success(&lab.closed().await));
    agent.stop().await;
    assert_eq!(lab.out("vain"), "x\n".repeat(10));
}

/// One argument.
fn key_word(name: &str, value: Argument) -> std::collections::BTreeMap<String, Argument> {
    std::collections::BTreeMap::from([(name.to_owned(), value)])
}
