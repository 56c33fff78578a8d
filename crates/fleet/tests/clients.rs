//! Clients of the device interface that others wrote, against the server on this machine. A client that is not installed is skipped,
//! and said so.

use mcp_fleet::commands::remote::Remote;
use mcp_fleet::documents::{Hash, Object, Task};
use mcp_fleet::server::{
    AcceptRequest, ObjectView, Running, SerialView, ServeConfig, TaskRequest, TaskResponse, TaskView,
    TokenResponse, start,
};
use mcp_fleet::store::{ActionState, Terms};
use reqwest::Method;
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

struct Fleet {
    running: Running,
    remote: Remote,
    dir: tempfile::TempDir,
}

async fn fleet(http_rate: Option<u64>) -> Fleet {
    let dir = tempfile::tempdir().expect("a directory");
    serve(dir, "127.0.0.1:0".parse().expect("an address"), http_rate).await
}

/// Starts a server on the state in `dir`, which listens without TLS at `plain`.
async fn serve(dir: tempfile::TempDir, plain: SocketAddr, http_rate: Option<u64>) -> Fleet {
    let serve = dir.path().join("serve");
    let config = ServeConfig {
        listen_plain: Some(plain),
        poll: Duration::from_secs(1),
        http_rate,
        downloads: 8,
        stock_downloads: 8,
        ..ServeConfig::new(serve.clone(), "127.0.0.1:0".parse().expect("an address"))
    };
    let running = start(config).await.expect("started");
    let remote =
        Remote::new(&serve.join("address.json"), None, &serve.join("operator.key")).expect("a remote");
    Fleet { running, remote, dir }
}

impl Fleet {
    async fn accept(&self, device: &str) -> String {
        let path = format!("/devices/{device}/accept");
        let answer: TokenResponse =
            self.remote.send(Method::POST, &path, &AcceptRequest { token: true }).await.expect("accepted");
        answer.target_token.expect("a token")
    }

    async fn task(&self, name: &str, bytes: &[u8]) -> i64 {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let blake3 = Hash::of(bytes);
        let file = std::fs::File::open(&path).expect("opened");
        let view: ObjectView = self.remote.upload(blake3, file).await.expect("uploaded");
        let serial: SerialView = self.remote.get("/serials/app").await.expect("a serial");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let mut task = Task::new(self.remote.address.fleet, "app", serial.serial + 1, (now, now + 3600));
        task.at = Some("/srv/".into());
        task.version = "1.0".into();
        task.objects = vec![Object { filename: name.into(), size: view.size, blake3, sha256: view.sha256 }];
        let envelope = task.sign(&[&self.remote.key]).expect("signed").to_metadata();
        let asked = TaskRequest { envelope, terms: Terms::default(), rollback: None };
        let answer: TaskResponse = self.remote.send(Method::POST, "/tasks", &asked).await.expect("added");
        answer.id
    }

    /// Waits until the only action of a task is in this state; says what it was told last.
    async fn until(&self, task: i64, state: ActionState, client: &mut Client) -> String {
        let begun = Instant::now();
        loop {
            let view: TaskView = self.remote.get(&format!("/tasks/{task}")).await.expect("a task");
            let action = view.actions.expect("actions").remove(0);
            if action.state == state {
                return action.message;
            }
            let output = || std::fs::read_to_string(&client.log).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "{action:?}\n{}", output());
            let ended = client.child.try_wait().expect("a child");
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", output());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A client's process; ended when dropped.
struct Client {
    child: Child,
    log: std::path::PathBuf,
}

impl Client {
    fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::create(log).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .spawn()
            .expect("started");
        Self { child, log: log.to_owned() }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It forks; its children end with it.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// An archive as `cpio -H newc` writes it.
fn cpio(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (n, (name, bytes)) in files.iter().chain([&("TRAILER!!!", &b""[..])]).enumerate() {
        let mode = if *name == "TRAILER!!!" { 0 } else { 0o100_644 };
        let size = bytes.len();
        let fields = [n + 1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend(b"070701");
        archive.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        archive.extend(name.as_bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(*bytes);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive
}

/// Signs `bytes` with a new certificate, `cert.pem` in `dir`. Debian's SWUpdate takes signed images only.
fn cms(dir: &Path, bytes: &[u8]) -> Vec<u8> {
    let openssl = |arguments: &str| {
        let status = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(dir)
            .stderr(Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "openssl {arguments}");
    };
    std::fs::write(dir.join("signed"), bytes).expect("written");
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=test \
         -addext extendedKeyUsage=emailProtection -addext keyUsage=digitalSignature",
    );
    openssl(
        "cms -sign -in signed -out signature -signer cert.pem -inkey key.pem -outform DER -nosmimecap -binary",
    );
    std::fs::read(dir.join("signature")).expect("a signature")
}

/// Starts SWUpdate as device `dev-1`.
fn swupdate(f: &Fleet, token: &str, more: &str) -> Client {
    let plain = f.running.plain.expect("it listens");
    let arguments = format!("-t DEFAULT -u http://{plain} -i dev-1 -k {token} -p 1{more}");
    let mut command = Command::new("swupdate");
    command
        .args(["-v", "-m", "-M", "-k"])
        .arg(f.dir.path().join("cert.pem"))
        .args(["-H", "test:1.0", "-u", &arguments])
        .env("TMPDIR", f.dir.path());
    Client::start(&mut command, &f.dir.path().join("swupdate.log"))
}

/// An update that puts `content` into the file `target`.
fn update(f: &Fleet, target: &Path, content: &[u8]) -> Vec<u8> {
    let description = format!(
        "software = {{ version = \"1.0\"; hardware-compatibility: [ \"1.0\" ]; \
         files: ( {{ filename = \"hello.txt\"; path = \"{}\"; sha256 = \"{}\"; }} ); }};",
        target.display(),
        data_encoding::HEXLOWER.encode(&Sha256::digest(content)),
    );
    let signature = cms(f.dir.path(), description.as_bytes());
    cpio(&[
        ("sw-description", description.as_bytes()),
        ("sw-description.sig", &signature),
        ("hello.txt", content),
    ])
}

fn tools_are_there() -> bool {
    let missing =
        ["swupdate", "openssl"].into_iter().find(|tool| Command::new(tool).arg("version").output().is_err());
    if let Some(tool) = missing {
        assert!(
            std::env::var_os("MCP_TESTS_MUST_RUN").is_none(),
            "would be skipped: {tool} is not installed"
        );
        eprintln!("skipped: {tool} is not installed");
    }
    missing.is_none()
}

/// SWUpdate installs in one run and says so in the next.
#[tokio::test(flavor = "multi_thread")]
async fn swupdate_installs_and_reports() {
    if !tools_are_there() {
        return;
    }
    let f = fleet(None).await;
    let token = f.accept("dev-1").await;
    let target = f.dir.path().join("installed.txt");
    let content = vec![b'h'; 300_000];
    let task = f.task("app.swu", &update(&f, &target, &content)).await;
    let mut client = swupdate(&f, &token, "");
    f.until(task, ActionState::Running, &mut client).await;
    let begun = Instant::now();
    while std::fs::read(&target).ok().as_deref() != Some(&content) {
        let log = std::fs::read_to_string(&client.log).unwrap_or_default();
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing was installed\n{log}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(client);
    let mut client = swupdate(&f, &token, " -c 2");
    f.until(task, ActionState::Finished, &mut client).await;
}

/// SWUpdate hears of a cancellation in the middle of a download, and ends it.
#[tokio::test(flavor = "multi_thread")]
async fn swupdate_stops_a_download_that_is_cancelled() {
    if !tools_are_there() {
        return;
    }
    let f = fleet(Some(200_000)).await;
    let token = f.accept("dev-1").await;
    let target = f.dir.path().join("installed.txt");
    let task = f.task("app.swu", &update(&f, &target, &vec![b'h'; 20_000_000])).await;
    let mut client = swupdate(&f, &token, "");
    f.until(task, ActionState::Running, &mut client).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    f.remote.order(Method::POST, &format!("/tasks/{task}/cancel"), vec![]).await.expect("cancelled");
    f.until(task, ActionState::Cancelled, &mut client).await;
    assert!(!target.exists());
}

/// A download that breaks off because the server is stopped goes on where it was, once the server is back.
#[tokio::test(flavor = "multi_thread")]
async fn swupdate_resumes_a_download() {
    if !tools_are_there() {
        return;
    }
    let f = fleet(Some(200_000)).await;
    let token = f.accept("dev-1").await;
    let target = f.dir.path().join("installed.txt");
    let content: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let task = f.task("app.swu", &update(&f, &target, &content)).await;
    let mut client = swupdate(&f, &token, " -r 30 -w 1");
    f.until(task, ActionState::Running, &mut client).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let Fleet { running, dir, .. } = f;
    let plain = running.plain.expect("it listens");
    running.shut_down().await;
    let f = serve(dir, plain, None).await;
    let begun = Instant::now();
    while std::fs::read(&target).ok().as_ref() != Some(&content) {
        let log = std::fs::read_to_string(&client.log).unwrap_or_default();
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was installed\n{log}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let log = std::fs::read_to_string(&client.log).expect("a log");
    // It broke off, and SWUpdate installs a stream: beginning anew would have failed.
    assert!(log.contains("Channel sleeps for"), "it did not break off\n{log}");
    assert_eq!(f.running.store().open_actions("dev-1").await.expect("read")[0].attempt, 1);
}
