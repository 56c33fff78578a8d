//! Agents against a real `mcp serve` in the same process: joining, and confirming.

use super::*;
use crate::commands::remote::Remote;
use crate::server::{
    EnrolmentRequest, EnrolmentResponse, ObjectView, Running, ServeConfig, TaskRequest, TaskResponse,
    TaskView, start,
};
use crate::store::{ActionState, LineKind, Terms};
use mcp_transfer::crypto::sign::SigningKey;
use mcp_transfer::keyring::Keyring;
use mcp_transfer::units::DeviceKey;
use reqwest::Method;

struct Fleet {
    dir: tempfile::TempDir,
    running: Running,
    remote: Remote,
}

impl Fleet {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (serve, local) = (dir.path().join("serve"), "127.0.0.1:0".parse().unwrap());
        let config = ServeConfig { poll: Duration::from_secs(1), ..ServeConfig::new(serve.clone(), local) };
        let running = start(config).await.unwrap();
        let remote = Remote::new(&serve.join("address.json"), None, &serve.join("operator.key")).unwrap();
        Self { dir, running, remote }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn line(&self, uses: u64) -> Enrolment {
        let asked = EnrolmentRequest {
            kind: LineKind::Line,
            label: String::new(),
            uses: Some(uses),
            valid: 3600,
            tags: vec![],
            accepts: true,
        };
        let line: EnrolmentResponse = self.remote.send(Method::POST, "/enrolments", &asked).await.unwrap();
        line.line.parse().unwrap()
    }

    /// Joins with the keyring in `ring`.
    async fn join(&self, state: &str, line: &Enrolment, ring: &str, again: bool) -> Result<(), JoinError> {
        let key = device_key(&self.path(ring)).unwrap();
        join(&self.path(state), line, "desk-07", &key, again).await
    }

    async fn copy(&self, name: &str, confirm: bool) -> i64 {
        let (path, bytes) = (self.path(name), name.as_bytes());
        std::fs::write(&path, bytes).unwrap();
        let blake3 = Hash::of(bytes);
        let view: ObjectView = self.remote.upload(blake3, std::fs::File::open(&path).unwrap()).await.unwrap();
        let mut task = Task::new(self.remote.address.fleet, name, 1, (clock(), clock() + HOUR));
        task.at = Some(format!("{}/", self.path("srv").display()));
        let filename = name.to_owned();
        task.objects = vec![Object { filename, size: view.size, blake3, sha256: view.sha256 }];
        let envelope = task.sign(&[&self.remote.key]).unwrap().to_metadata();
        let asked = TaskRequest { envelope, terms: Terms { confirm, ..Terms::default() } };
        let answer: TaskResponse = self.remote.send(Method::POST, "/tasks", &asked).await.unwrap();
        answer.id
    }

    async fn action(&self, task: i64) -> (i64, ActionState, String) {
        let view: TaskView = self.remote.get(&format!("/tasks/{task}")).await.unwrap();
        let action = view.actions.unwrap().remove(0);
        (action.id, action.state, action.message)
    }

    /// Waits for this state.
    async fn reaches(&self, task: i64, state: ActionState) {
        for _ in 0..600 {
            if self.action(task).await.1 == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("task {task} is {:?}, not {state:?}", self.action(task).await);
    }

    fn agent(&self, confirm: Confirm) -> Agent {
        let (stop, stopped) = oneshot::channel();
        let mut settings = Settings { destinations: vec![self.path("srv")], confirm, ..Settings::default() };
        settings.handlers.directory = self.path("handlers.d");
        let dir = self.path("state");
        let done = tokio::spawn(async move {
            run(&dir, None, settings, async { drop(stopped.await) }).await.map_err(|error| error.to_string())
        });
        Agent { stop, done }
    }

    /// What waits for a confirmation, once `wanted` holds for it.
    async fn waits(&self, wanted: impl Fn(Option<&checkin::Waiting>) -> bool) -> Status {
        for _ in 0..600 {
            let status = status(&self.path("state")).unwrap();
            if wanted(status.waiting()) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{}", status(&self.path("state")).unwrap().text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_joins_with_the_key_of_mcp_key_device() {
    let fleet = Fleet::new().await;
    let line = fleet.line(1).await;
    fleet.join("state", &line, "ring", false).await.unwrap();
    let shown =
        DeviceKey::of(&SigningKey::new(&Keyring::new(fleet.path("ring")).device(1, &mut vec![]).unwrap()));
    let known = fleet.running.store().device("desk-07").await.unwrap().unwrap();
    assert_eq!(known.public_key, Some(shown.line()));

    // Somebody else with another line and the same name; and the device itself, with the same line, after it lost its state.
    let other = fleet.line(1).await;
    let refused = fleet.join("thief", &other, "other-ring", false).await.unwrap_err().to_string();
    assert!(refused.contains("another device is named 'desk-07'"), "{refused}");
    let again = fleet.join("state", &line, "ring", false).await.unwrap_err();
    assert!(matches!(again, JoinError::Joined { .. }));
    fleet.join("lost", &line, "ring", false).await.unwrap();
    let token = fleet.running.store().device("desk-07").await.unwrap().unwrap().token;
    assert!(token.is_some() && token != known.token);
    // A used-up line, for another device.
    let key = device_key(&fleet.path("other-ring")).unwrap();
    let refused = join(&fleet.path("new"), &line, "desk-08", &key, false).await.unwrap_err().to_string();
    assert!(refused.contains("used up"), "{refused}");
    fleet.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_confirms_and_denies() {
    let fleet = Fleet::new().await;
    std::fs::create_dir(fleet.path("srv")).unwrap();
    fleet.join("state", &fleet.line(1).await, "ring", false).await.unwrap();
    let dir = fleet.path("state");
    assert!(confirm(&dir, "1", true).await.is_err(), "nothing waits");
    let asking = fleet.copy("asking.bin", true).await;
    let agent = fleet.agent(Confirm::Ask);
    let (action, ..) = fleet.action(asking).await;
    let action = action.to_string();
    let status = fleet.waits(|waiting| waiting.is_some_and(|waiting| waiting.action == action)).await;
    let text = status.text();
    let srv = fleet.path("srv").display().to_string();
    assert!(
        text.contains(&format!(
            "confirm    asking.bin: copy to {srv}/: asking.bin; run 'mcp agent confirm {action}'"
        )),
        "{text}"
    );
    // It holds up nothing else.
    let other = fleet.copy("other.bin", false).await;
    fleet.reaches(other, ActionState::Finished).await;
    assert_eq!(fleet.action(asking).await.1, ActionState::Confirming);

    let error = confirm(&dir, "4711", true).await.unwrap_err().to_string();
    assert!(error.contains("action 4711 does not wait"), "{error}");
    assert!(confirm(&dir, &action, false).await.unwrap(), "the agent took it to the server");
    let status = fleet.waits(|waiting| waiting.is_some_and(|waiting| waiting.denied.is_some())).await;
    assert!(status.text().contains(&format!("(action {action}): by hand")), "{}", status.text());
    let (_, state, message) = fleet.action(asking).await;
    assert_eq!((state, message.as_str()), (ActionState::Confirming, "denied by the device"));
    // Also after a restart.
    agent.stop().await;
    let agent = fleet.agent(Confirm::Ask);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(fleet.waits(|waiting| waiting.is_some()).await.waiting().unwrap().denied.is_some());

    assert!(confirm(&dir, &action, true).await.unwrap());
    fleet.reaches(asking, ActionState::Finished).await;
    assert_eq!(std::fs::read(fleet.path("srv/asking.bin")).unwrap(), b"asking.bin");
    fleet.waits(|waiting| waiting.is_none()).await;
    agent.stop().await;

    // An answer while the agent is off waits for it.
    let late = fleet.copy("late.bin", true).await;
    let agent = fleet.agent(Confirm::Ask);
    let action = fleet.action(late).await.0.to_string();
    fleet.waits(|waiting| waiting.is_some_and(|waiting| waiting.action == action)).await;
    agent.stop().await;
    assert!(!confirm(&dir, &action, true).await.unwrap());
    let agent = fleet.agent(Confirm::Ask);
    fleet.reaches(late, ActionState::Finished).await;
    agent.stop().await;
    fleet.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_people_confirms_by_itself() {
    let fleet = Fleet::new().await;
    std::fs::create_dir(fleet.path("srv")).unwrap();
    fleet.join("state", &fleet.line(1).await, "ring", false).await.unwrap();
    let agent = fleet.agent(Confirm::Auto);
    let task = fleet.copy("a.bin", true).await;
    fleet.reaches(task, ActionState::Finished).await;
    let history = fleet.running.store().history(fleet.action(task).await.0, 100).await.unwrap();
    assert!(history.iter().any(|text| text == "by this device's policy"), "{history:?}");
    agent.stop().await;
    fleet.running.shut_down().await;
}
