//! The crate `hawkbit`, a client of the device interface that nobody here wrote, against a real `mcp serve`: a process, asked over
//! sockets. Needs the built program: `cargo build`, or the one that `MCP` names.

use futures::TryStreamExt as _;
use hawkbit::ddi::{Client, ClientAuthorization, Error, Execution, Finished, Type, Update};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SIZE: usize = 3_000_000;

/// A server, killed when dropped.
struct Server {
    dir: tempfile::TempDir,
    ports: [u16; 2],
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn mcp() -> Command {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/mcp");
    let program = std::env::var_os("MCP").map_or(built, PathBuf::from);
    assert!(program.exists(), "there is no {}; run 'cargo build'", program.display());
    Command::new(program)
}

/// Any bytes; each of their megabytes is another.
fn content() -> Vec<u8> {
    (0..SIZE as u32).map(|n| (n % 251 + n / 65_521) as u8).collect()
}

impl Server {
    fn start() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let (dir, ports) = (tempfile::tempdir().expect("a directory"), [free(), free()]);
        let child = Self::serve(dir.path(), ports, &[]);
        Self { dir, ports, child }
    }

    fn serve(dir: &Path, [tls, plain]: [u16; 2], more: &[&str]) -> Child {
        let (tls, plain) = (format!("127.0.0.1:{tls}"), format!("127.0.0.1:{plain}"));
        let mut command = mcp();
        command.args(["serve", "--poll", "2s", "--listen", &tls, "--listen-plain", &plain]).args(more);
        command.env("MCP_STATE_DIR", dir).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("started");
        // The enrolment line comes once it listens.
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.starts_with("mcp-enrol1-"), "{line}");
        child
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills the server, and starts it with these arguments more.
    fn restart(&mut self, more: &[&str]) {
        self.kill();
        self.child = Self::serve(self.dir.path(), self.ports, more);
    }

    /// An operator's command that must succeed; what it prints.
    #[track_caller]
    fn operate(&self, words: &[&str]) -> String {
        let output = mcp().args(words).env("MCP_STATE_DIR", self.dir.path()).output().expect("started");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Accepts `dev-1`, and returns it as a client.
    fn accept(&self) -> Client {
        let line = self.operate(&["device", "accept", "dev-1", "--token"]);
        let token = line.trim().strip_prefix("dev-1 ").expect("a token").to_owned();
        // `reqwest` asks for one, with and without TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (url, timeout) = (format!("http://127.0.0.1:{}", self.ports[1]), Duration::from_secs(20));
        let authorization = ClientAuthorization::TargetToken(token);
        Client::new(&url, "DEFAULT", "dev-1", authorization, None, None, Some(timeout)).expect("a client")
    }

    /// Adds a task that brings `app.bin`; its number.
    fn add(&self, more: &[&str]) -> String {
        let file = self.dir.path().join("app.bin");
        fs::write(&file, content()).expect("written");
        let file = file.to_str().expect("UTF-8");
        let words = ["task", "add", "copy", file, "--to", "dev-1", "--at", "/srv/", "--version", "1.2"];
        let line = self.operate(&[&words, more].concat());
        line.trim().strip_prefix("task ").expect("a number").to_owned()
    }

    /// What became of a task at the device.
    #[track_caller]
    fn state(&self, task: &str) -> String {
        let view: Value =
            serde_json::from_str(&self.operate(&["task", "show", task, "--json"])).expect("JSON");
        view["actions"][0]["state"].as_str().expect("a state").to_owned()
    }
}

/// The update that is offered.
async fn offered(client: &Client) -> Update {
    let poll = client.poll().await.expect("a poll");
    poll.update().expect("an offer").fetch().await.expect("a deployment")
}

/// The status that the server refused with.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> u16 {
    match result {
        Err(Error::ReqwestError(error)) => error.status().expect("a status").as_u16(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_cycle() {
    let server = Server::start();
    let client = server.accept();
    let poll = client.poll().await.expect("a poll");
    let sleep = poll.polling_sleep().expect("a sleep").as_secs();
    assert!((1..=3).contains(&sleep), "{sleep}");
    assert!(poll.update().is_none() && poll.cancel_action().is_none() && poll.confirmation_base().is_none());
    let wanted = poll.config_data_request().expect("attributes are wanted");
    // It writes `"mode": null`, and a status that nobody needs.
    let attributes = json!({"hw_revision": "b", "spare": 7});
    wanted.upload(Execution::Closed, Finished::Success, None, attributes, vec![]).await.expect("taken");
    assert!(client.poll().await.expect("a poll").config_data_request().is_none());
    let device = server.operate(&["device", "show", "dev-1", "--json"]);
    let device: Value = serde_json::from_str(&device).expect("JSON");
    assert_eq!(device["attributes"], json!({"hw_revision": "b", "spare": "7"}));

    let task = server.add(&[]);
    let update = offered(&client).await;
    assert_eq!(server.state(&task), "running");
    assert_eq!((update.download_type(), update.update_type()), (Type::Forced, Type::Forced));
    assert!(update.maintenance_window().is_none());
    let chunks: Vec<_> = update.chunks().collect();
    let [chunk] = &chunks[..] else { panic!("not one chunk: {chunks:?}") };
    assert_eq!((chunk.part(), chunk.name(), chunk.version()), ("bApp", "app", "1.2"));
    let artifacts: Vec<_> = chunk.artifacts().collect();
    let [artifact] = &artifacts[..] else { panic!("not one artifact: {artifacts:?}") };
    assert_eq!((artifact.filename(), artifact.size() as usize), ("app.bin", SIZE));

    let progress = json!({"cnt": 1, "of": 4});
    let loads = vec!["loads \"it\"\nnow"];
    let said = update.send_feedback_with_progress(Execution::Download, Finished::None, progress, loads);
    said.await.expect("taken");
    let into = tempfile::tempdir().expect("a directory");
    let files = update.download(into.path()).await.expect("loaded");
    files[0].check_md5().await.expect("the right MD5");
    files[0].check_sha1().await.expect("the right SHA-1");
    files[0].check_sha256().await.expect("the right SHA-256");
    assert!(fs::read(files[0].file()).expect("a file") == content());
    let stream = artifact.download_stream_with_sha256_check().await.expect("a stream");
    let streamed: Vec<_> = stream.try_collect().await.expect("the right bytes");
    assert!(streamed.concat() == content());

    update.send_feedback(Execution::Proceeding, Finished::None, vec!["installs"]).await.expect("taken");
    assert_eq!(server.state(&task), "running");
    update.send_feedback(Execution::Closed, Finished::Success, vec!["done"]).await.expect("taken");
    assert_eq!(server.state(&task), "finished");
    let late = update.send_feedback(Execution::Closed, Finished::Success, vec![]).await;
    assert_eq!(refused(late), 410);
    assert_eq!(refused(artifact.download_stream().await.map(drop)), 404);
    assert!(client.poll().await.expect("a poll").update().is_none());

    // One that has to be confirmed, and fails.
    let task = server.add(&["--confirm"]);
    let poll = client.poll().await.expect("a poll");
    assert!(poll.update().is_none());
    poll.confirmation_base().expect("a question").decline().await.expect("taken");
    let question = client.poll().await.expect("a poll").confirmation_base().expect("the question once more");
    let id = question.update_info().await.expect("a deployment").action_id().to_owned();
    question.confirm().await.expect("taken");
    let update = offered(&client).await;
    assert_eq!(update.action_id(), id);
    update.send_feedback(Execution::Closed, Finished::Failure, vec!["no room"]).await.expect("taken");
    assert_eq!(server.state(&task), "failed");
}

/// A server that is killed in the middle of a download, twice; the client goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download() {
    let mut server = Server::start();
    let client = server.accept();
    let task = server.add(&[]);
    server.restart(&["--http-rate", "300k"]);
    let update = offered(&client).await;
    let into = tempfile::tempdir().expect("a directory");
    let part = into.path().join("app/app.bin.part");
    let len = || fs::metadata(&part).map_or(0, |meta| meta.len());
    let mut before = 0;
    for _ in 0..2 {
        let began = Instant::now();
        let result = tokio::select! {
            result = update.download(into.path()) => result,
            () = async {
                while len() < before + 200_000 {
                    assert!(began.elapsed() < Duration::from_secs(30), "{} bytes", len());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                server.kill();
                std::future::pending().await
            } => unreachable!(),
        };
        assert!(result.is_err(), "it broke off");
        before = len();
        assert!(before > 0 && before < SIZE as u64, "{before}");
        server.restart(&["--http-rate", "300k"]);
    }
    server.restart(&[]);
    // A mark in what is there: it is still there at the end if the rest alone was loaded.
    let mut there = fs::read(&part).expect("a part");
    there[0] ^= 1;
    fs::write(&part, &there).expect("written");
    let again = offered(&client).await;
    assert_eq!(again.action_id(), update.action_id(), "the same attempt");
    let files = again.download(into.path()).await.expect("loaded");
    assert!(matches!(files[0].check_sha256().await, Err(Error::ChecksumError(_))), "it began anew");
    let loaded = fs::read(files[0].file()).expect("a file");
    assert!(loaded[1..] == content()[1..], "the rest fits what was there");
    // A wrong file is loaded anew, whole.
    let files = again.download(into.path()).await.expect("loaded");
    files[0].check_sha256().await.expect("the right bytes");
    again.send_feedback(Execution::Closed, Finished::Success, vec![]).await.expect("taken");
    assert_eq!(server.state(&task), "finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel() {
    let server = Server::start();
    let client = server.accept();
    let task = server.add(&[]);
    let update = offered(&client).await;
    server.operate(&["task", "cancel", &task]);
    assert_eq!(server.state(&task), "cancelling");
    let poll = client.poll().await.expect("a poll");
    assert!(poll.update().is_none(), "never both");
    let cancel = poll.cancel_action().expect("a cancellation");
    assert_eq!(cancel.id().await.expect("a document"), update.action_id());
    // Past the point of no return: it goes on, and can be asked again.
    cancel.send_feedback(Execution::Rejected, Finished::None, vec!["too late"]).await.expect("taken");
    assert_eq!(server.state(&task), "running");
    assert_eq!(offered(&client).await.action_id(), update.action_id());
    server.operate(&["task", "cancel", &task]);
    let cancel = client.poll().await.expect("a poll").cancel_action().expect("a cancellation");
    cancel.send_feedback(Execution::Closed, Finished::Success, vec![]).await.expect("taken");
    assert_eq!(server.state(&task), "cancelled");
    let poll = client.poll().await.expect("a poll");
    assert!(poll.update().is_none() && poll.cancel_action().is_none());
}
