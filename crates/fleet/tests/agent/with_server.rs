//! A real `mcp serve` and a real agent in one process: enrolment, signed tasks and lists, objects by TLS, feedback.

use super::{Lab, key_word, now};
use mcp_fleet::agent::{Settings, device_key, join, run};
use mcp_fleet::commands::remote::Remote;
use mcp_fleet::documents::{Argument, Enrolment, Hash, Object, Task, TaskKind};
use mcp_fleet::handlers::{Config, Helper};
use mcp_fleet::server::{
    EnrolmentRequest, EnrolmentResponse, ObjectView, Running, ServeConfig, TaskRequest, TaskResponse,
    TaskView, start,
};
use mcp_fleet::store::{ActionState, LineKind, Terms};
use reqwest::Method;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

struct Served<'a> {
    lab: &'a Lab,
    remote: Remote,
}

async fn serve(lab: &Lab, listen: SocketAddr) -> Running {
    let config = ServeConfig { poll: Duration::from_secs(1), ..ServeConfig::new(lab.path("serve"), listen) };
    start(config).await.unwrap()
}

impl Served<'_> {
    async fn add(&self, name: &str, bytes: &[u8], change: impl FnOnce(&mut Task)) -> i64 {
        let path = self.lab.path(name);
        fs::write(&path, bytes).unwrap();
        let blake3 = Hash::of(bytes);
        let view: ObjectView = self.remote.upload(blake3, fs::File::open(&path).unwrap()).await.unwrap();
        let mut task = Task::new(self.remote.address.fleet, name, 1, (now(), now() + 3600));
        task.objects =
            vec![Object { filename: name.to_owned(), size: view.size, blake3, sha256: view.sha256 }];
        change(&mut task);
        let envelope = task.sign(&[&self.remote.key]).unwrap().to_metadata();
        let asked = TaskRequest { envelope, terms: Terms::default(), rollback: None };
        let answer: TaskResponse = self.remote.send(Method::POST, "/tasks", &asked).await.unwrap();
        answer.id
    }

    async fn ends(&self, task: i64) -> ActionState {
        for _ in 0..600 {
            let view: TaskView = self.remote.get(&format!("/tasks/{task}")).await.unwrap();
            let actions = view.actions.unwrap_or_default();
            if let Some(action) = actions.iter().find(|action| action.device == "desk-07")
                && matches!(
                    action.state,
                    ActionState::Finished | ActionState::Failed | ActionState::Cancelled
                )
            {
                return action.state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the task does not end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_and_installs_from_a_real_server_on_line_and_off() {
    let Some(lab) = Lab::new().await else { return };
    let server = serve(&lab, "127.0.0.1:0".parse().unwrap()).await;
    let dir = lab.path("serve");
    let remote = Remote::new(&dir.join("address.json"), None, &dir.join("operator.key")).unwrap();
    let asked = EnrolmentRequest {
        kind: LineKind::Line,
        label: String::new(),
        uses: Some(1),
        valid: 3600,
        tags: vec![],
        accepts: true,
    };
    let line: EnrolmentResponse = remote.send(Method::POST, "/enrolments", &asked).await.unwrap();
    let line: Enrolment = line.line.parse().unwrap();
    let state = lab.path("joined");
    join(&state, &line, "desk-07", &device_key(&state).unwrap(), false).await.unwrap();
    let served = Served { lab: &lab, remote };
    fs::create_dir(lab.path("srv")).unwrap();
    lab.handler("fw", "echo $WORD >> $OUT/runs", "interrupted = \"report\"");
    let settings = || Settings {
        destinations: vec![lab.path("srv")],
        handlers: Config {
            directory: lab.path("handlers.d"),
            helper: Helper { program: env!("CARGO_BIN_EXE_mcp-exec-handler").into(), args: Vec::new() },
            cgroups: None,
        },
        ..Settings::default()
    };
    let agent = |stop: tokio::sync::oneshot::Receiver<()>| {
        let (state, settings) = (state.clone(), settings());
        tokio::spawn(async move { run(&state, None, settings, async { drop(stop.await) }).await.unwrap() })
    };

    // The first task while the device is off: it is completed when it comes.
    let mut bytes = vec![0; (3 << 20) + 17];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    let at = format!("{}/", lab.path("srv/images").display());
    let copy = served.add("image.bin", &bytes, |task| task.at = Some(at.clone())).await;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let running = agent(stopped);
    assert_eq!(served.ends(copy).await, ActionState::Finished);
    assert!(fs::read(lab.path("srv/images/image.bin")).unwrap() == bytes);

    let install = served
        .add("fw.bin", b"firmware", |task| {
            (task.kind, task.handler) = (TaskKind::Install, Some("fw".to_owned()));
            task.arguments = key_word("word", Argument::Text("abc".to_owned()));
        })
        .await;
    assert_eq!(served.ends(install).await, ActionState::Finished);
    assert_eq!(lab.out("runs"), "abc\n");

    // A copy to where this device allows none fails, and says so.
    let outside = served.add("outside.bin", b"x", |task| task.at = Some("/etc/".to_owned())).await;
    assert_eq!(served.ends(outside).await, ActionState::Failed);

    // The server goes away and comes back at the same address; the device comes back too.
    let address = server.address;
    server.shut_down().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let server = serve(&lab, address).await;
    let again = served.add("again.bin", b"again", |task| task.at = Some(at.clone())).await;
    assert_eq!(served.ends(again).await, ActionState::Finished);

    // Tasks go on side by side, and their handlers one after the other.
    lab.handler(
        "slow",
        "echo begins >>$OUT/turns; sleep 0.5; echo ends >>$OUT/turns",
        "interrupted = \"report\"",
    );
    let mut installs = Vec::new();
    for name in ["a", "b", "c"] {
        let install = served.add(name, name.as_bytes(), |task| {
            (task.kind, task.handler) = (TaskKind::Install, Some("slow".to_owned()));
            task.arguments = key_word("word", Argument::Text("abc".to_owned()));
        });
        installs.push(install.await);
    }
    for install in installs {
        assert_eq!(served.ends(install).await, ActionState::Finished);
    }
    assert_eq!(lab.out("turns"), "begins\nends\n".repeat(3));
    let _ = stop.send(());
    running.await.unwrap();
    assert_eq!(lab.out("runs"), "abc\n");
    server.shut_down().await;
}
