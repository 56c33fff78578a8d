//! Agents against a real `mcp serve` in the same process: joining, and confirming.

mod neighbours;

use super::*;
use crate::commands::remote::Remote;
use crate::documents::{Audience, TaskKind, Window};
use crate::server::{
    EnrolmentRequest, EnrolmentResponse, ObjectView, Running, ServeConfig, TaskRequest, TaskResponse,
    TaskView, start, state_dir,
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
        Self::polling(Duration::from_secs(1)).await
    }

    async fn polling(poll: Duration) -> Self {
        Self::with(|config| config.poll = poll).await
    }

    async fn with(change: impl FnOnce(&mut ServeConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (serve, local) = (dir.path().join("serve"), "127.0.0.1:0".parse().unwrap());
        let mut config = ServeConfig::new(serve.clone(), local);
        change(&mut config);
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
        self.add(name, 1, Terms { confirm, ..Terms::default() }, |_| ()).await
    }

    /// Adds a copy of a file that has the same name as the task.
    async fn add(&self, name: &str, serial: u64, terms: Terms, change: impl FnOnce(&mut Task)) -> i64 {
        self.add_bytes(name, name.as_bytes(), serial, terms, change).await
    }

    async fn add_bytes(
        &self,
        name: &str,
        bytes: &[u8],
        serial: u64,
        terms: Terms,
        change: impl FnOnce(&mut Task),
    ) -> i64 {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        let blake3 = Hash::of(bytes);
        let view: ObjectView = self.remote.upload(blake3, std::fs::File::open(&path).unwrap()).await.unwrap();
        let mut task = Task::new(self.remote.address.fleet, name, serial, (clock(), clock() + HOUR));
        task.at = Some(format!("{}/", self.path("srv").display()));
        let filename = name.to_owned();
        task.objects = vec![Object { filename, size: view.size, blake3, sha256: view.sha256 }];
        change(&mut task);
        self.publish(&task, &self.remote.key, terms).await
    }

    async fn publish(&self, task: &Task, key: &SecretKey, terms: Terms) -> i64 {
        let envelope = task.sign(&[key]).unwrap().to_metadata();
        let asked = TaskRequest { envelope, terms, rollback: None };
        let answer: TaskResponse = self.remote.send(Method::POST, "/tasks", &asked).await.unwrap();
        answer.id
    }

    /// Names one more operator whose tasks devices take.
    async fn name_operator(&self, key: &SecretKey) {
        let newest = Envelope::parse(&self.remote.newest_root().await.unwrap()).unwrap();
        let mut root = Root::parse(newest.payload()).unwrap();
        root.version += 1;
        root.tasks.keys.insert(key.public());
        let root_key = state_dir::read_key(&self.path("serve/root.key")).unwrap().unwrap();
        let signed = root.sign(&[&root_key]).unwrap().to_bytes();
        self.remote.order(Method::POST, "/roots", signed).await.unwrap();
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

    /// Waits until the device has said this of the task last.
    async fn says(&self, task: i64, message: &str) {
        for _ in 0..600 {
            if self.action(task).await.2.starts_with(message) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{:?} says not '{message}'", self.action(task).await);
    }

    fn agent(&self, confirm: Confirm) -> Agent {
        self.agent_with(Settings { confirm, ..Settings::default() })
    }

    fn agent_with(&self, settings: Settings) -> Agent {
        let (stop, stopped) = oneshot::channel();
        let mut settings = Settings { destinations: vec![self.path("srv")], ..settings };
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
            if wanted(status.waiting().first()) {
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
    assert!(fleet.waits(|waiting| waiting.is_some()).await.waiting()[0].denied.is_some());

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

/// A window that is closed now, and for hours.
fn closed() -> Window {
    let now = jiff::Zoned::now();
    let minute = now.hour() as u16 * 60 + now.minute() as u16;
    Window::new((minute + 360) % 1440, (minute + 420) % 1440).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_window_is_loaded_and_holds_back_nothing_else() {
    let fleet = Fleet::new().await;
    std::fs::create_dir(fleet.path("srv")).unwrap();
    fleet.join("state", &fleet.line(1).await, "ring", false).await.unwrap();
    let night = fleet.add("night.bin", 1, Terms::default(), |task| task.window = Some(closed())).await;
    let later =
        fleet.add("later.bin", 1, Terms::default(), |task| task.start = Some(clock() + HOUR / 2)).await;
    let now = fleet.copy("now.bin", false).await;
    let agent = fleet.agent(Confirm::Ask);
    fleet.reaches(now, ActionState::Finished).await;
    fleet.says(night, "waits until").await;
    fleet.says(later, "waits until").await;
    let part = |name: &str| {
        let files = std::fs::read_dir(fleet.path("srv")).unwrap().flatten();
        files.map(|file| file.path()).find(|path| path.to_string_lossy().contains(&format!(".{name}.")))
    };
    assert_eq!(std::fs::read(part("night.bin").unwrap()).unwrap(), b"night.bin", "it is there for the night");
    // Both are ended together, at one poll.
    for task in [night, later] {
        fleet.remote.order(Method::POST, &format!("/tasks/{task}/cancel"), vec![]).await.unwrap();
    }
    for task in [night, later] {
        fleet.reaches(task, ActionState::Cancelled).await;
    }
    agent.stop().await;
    assert_eq!((part("night.bin"), part("later.bin")), (None, None));
    fleet.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_begins_after_the_newest_one_of_the_name_that_it_waits_for() {
    let fleet = Fleet::new().await;
    std::fs::create_dir(fleet.path("srv")).unwrap();
    fleet.join("state", &fleet.line(1).await, "ring", false).await.unwrap();
    let base = |serial, change: fn(&mut Task)| fleet.add("base.bin", serial, Terms::default(), change);
    let first = base(1, |_| ()).await;
    let agent = fleet.agent(Confirm::Ask);
    fleet.reaches(first, ActionState::Finished).await;
    // An earlier serial is done, and does not count.
    let second = base(2, |task| task.window = Some(closed())).await;
    let after = |name: &'static str| move |task: &mut Task| task.after = vec![name.to_owned()];
    let top = fleet.add("top.bin", 1, Terms::default(), after("base.bin")).await;
    let roof = fleet.add("roof.bin", 1, Terms::default(), after("top.bin")).await;
    fleet.says(top, "waits for task base.bin").await;
    fleet.says(roof, "waits for task top.bin").await;
    fleet.remote.order(Method::POST, &format!("/tasks/{second}/cancel"), vec![]).await.unwrap();
    fleet.reaches(second, ActionState::Cancelled).await;
    assert_eq!(fleet.action(top).await.1, ActionState::Running);
    assert!(!fleet.path("srv/top.bin").exists() && !fleet.path("srv/roof.bin").exists());
    base(3, |_| ()).await;
    fleet.reaches(roof, ActionState::Finished).await;
    assert_eq!(fleet.action(top).await.1, ActionState::Finished);
    agent.stop().await;
    fleet.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_not_needed_counts_as_completed_and_changes_no_version() {
    let fleet = Fleet::new().await;
    std::fs::create_dir(fleet.path("srv")).unwrap();
    fleet.join("state", &fleet.line(1).await, "ring", false).await.unwrap();
    let version = BTreeMap::from([("version".to_owned(), "3.0".to_owned())]);
    let agent = fleet.agent_with(Settings { attributes: version, ..Settings::default() });
    let when = |version: &'static str| {
        move |task: &mut Task| {
            task.version = version.to_owned();
            task.when = vec![format!("version < {version}").parse().unwrap()];
        }
    };
    let old = fleet.add("fw.bin", 1, Terms::default(), when("2.0")).await;
    let top = fleet.add("top.bin", 1, Terms::default(), |task| task.after = vec!["fw.bin".to_owned()]).await;
    fleet.reaches(top, ActionState::Finished).await;
    assert_eq!(fleet.action(old).await.1, ActionState::Unneeded);
    let old = fleet.add("fw.bin", 2, Terms::default(), when("2.5")).await;
    fleet.reaches(old, ActionState::Unneeded).await;
    assert!(!fleet.path("srv/fw.bin").exists());
    let new = fleet.add("fw.bin", 3, Terms::default(), when("3.1")).await;
    fleet.reaches(new, ActionState::Finished).await;
    agent.stop().await;
    fleet.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tasks_than_may_load_at_a_time_are_all_taken_before_the_next_poll_is_due() {
    let fleet = Fleet::polling(Duration::from_secs(3600)).await;
    std::fs::create_dir(fleet.path("srv")).unwrap();
    fleet.join("state", &fleet.line(1).await, "ring", false).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..5 {
        tasks.push(fleet.copy(&format!("{n}.bin"), false).await);
    }
    let agent = fleet.agent_with(Settings { jobs: 1, ..Settings::default() });
    for task in tasks {
        fleet.reaches(task, ActionState::Finished).await;
    }
    agent.stop().await;
    fleet.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_task_holds_back_no_other_that_is_to_be_confirmed() {
    let fleet = Fleet::new().await;
    std::fs::create_dir(fleet.path("srv")).unwrap();
    fleet.join("state", &fleet.line(1).await, "ring", false).await.unwrap();
    let (no, yes) = (fleet.copy("no.bin", true).await, fleet.copy("yes.bin", true).await);
    let agent = fleet.agent(Confirm::Ask);
    let (denied, confirmed) = (fleet.action(no).await.0.to_string(), fleet.action(yes).await.0.to_string());
    fleet.waits(|waiting| waiting.is_some()).await;
    assert!(confirm(&fleet.path("state"), &denied, false).await.unwrap());
    assert!(confirm(&fleet.path("state"), &confirmed, true).await.unwrap());
    fleet.reaches(yes, ActionState::Finished).await;
    let left = fleet.waits(|waiting| waiting.is_some_and(|waiting| waiting.denied.is_some())).await;
    let left: Vec<_> = left.waiting().iter().map(|waiting| waiting.action.clone()).collect();
    assert_eq!((left, fleet.action(no).await.1), (vec![denied], ActionState::Confirming));
    agent.stop().await;
    fleet.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_takes_the_tasks_of_an_operator_named_since() {
    let fleet = Fleet::new().await;
    std::fs::create_dir(fleet.path("srv")).unwrap();
    fleet.join("state", &fleet.line(1).await, "ring", false).await.unwrap();
    let before = fleet.copy("before.bin", false).await;
    let agent = fleet.agent(Confirm::Auto);
    fleet.reaches(before, ActionState::Finished).await;
    for (seed, confirm) in [(8, false), (9, true)] {
        let ann = key(seed);
        fleet.name_operator(&ann).await;
        let mut task = Task::new(fleet.remote.address.fleet, "hers", seed.into(), (clock(), clock() + HOUR));
        task.at = Some(format!("{}/hers-{seed}/", fleet.path("srv").display()));
        let bytes = std::fs::read(fleet.path("before.bin")).unwrap();
        task.objects = vec![Object {
            filename: "before.bin".to_owned(),
            size: bytes.len() as u64,
            blake3: Hash::of(&bytes),
            sha256: Hash(<sha2::Sha256 as sha2::Digest>::digest(&bytes).into()),
        }];
        let hers = fleet.publish(&task, &ann, Terms { confirm, ..Terms::default() }).await;
        fleet.reaches(hers, ActionState::Finished).await;
    }
    agent.stop().await;
    fleet.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_for_loading_only_ends_when_it_is_loaded() {
    let fleet = Fleet::new().await;
    std::fs::create_dir(fleet.path("srv")).unwrap();
    fleet.join("state", &fleet.line(1).await, "ring", false).await.unwrap();
    let terms = || Terms { download_only: true, ..Terms::default() };
    let only = fleet.add("only.bin", 1, terms(), |_| ()).await;
    // Nobody has the handler, so it would fail if it were run.
    let update = fleet
        .add("update.bin", 1, terms(), |task| {
            (task.kind, task.handler, task.at) = (TaskKind::Install, Some("deb".to_owned()), None);
        })
        .await;
    let agent = fleet.agent(Confirm::Ask);
    for task in [only, update] {
        fleet.reaches(task, ActionState::Finished).await;
        assert!(fleet.action(task).await.2.ends_with("is loaded and verified"));
    }
    assert!(!fleet.path("srv/only.bin").exists());
    agent.stop().await;
    let text = status(&fleet.path("state")).unwrap().text();
    assert!(text.contains("loaded"), "{text}");
    fleet.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_chosen_by_what_it_says_of_itself() {
    let fleet = Fleet::new().await;
    std::fs::create_dir(fleet.path("srv")).unwrap();
    fleet.join("state", &fleet.line(1).await, "ring", false).await.unwrap();
    let first = fleet.add("first.bin", 1, Terms::default(), |task| task.version = "1.5".to_owned()).await;
    let agent = fleet.agent(Confirm::Ask);
    fleet.reaches(first, ActionState::Finished).await;
    let to = |terms: [&str; 2]| Audience::Terms(terms.map(|term| term.parse().unwrap()).to_vec());
    let terms = ["mcp.version >= 0", "mcp.has.first.bin = 1.5"];
    // The attributes that follow an end come with the next poll.
    for _ in 0..600 {
        let known = fleet.running.store().device("desk-07").await.unwrap().unwrap();
        if known.attributes.contains_key("mcp.has.first.bin") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let chosen = fleet.add("chosen.bin", 1, Terms::default(), |task| task.to = to(terms)).await;
    fleet.reaches(chosen, ActionState::Finished).await;
    let not = fleet
        .add("not.bin", 1, Terms::default(), |task| task.when = vec!["mcp.version < 0".parse().unwrap()])
        .await;
    fleet.reaches(not, ActionState::Unneeded).await;
    agent.stop().await;
    fleet.running.shut_down().await;
}
