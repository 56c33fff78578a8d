//! The agent at a server that nobody here wrote: PyPI's goosebit, run on this machine. Set MCP_GOOSEBIT_PYTHON to the Python of an
//! environment in which `goosebit.txt` is installed; without it, the test is skipped.

use super::Lab;
use super::testing::{Request, Server};
use mcp_fleet::agent::{Settings, Stock, run, status};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Makes the database, one software that is assigned to one device, and serves.
const SCRIPT: &str = r#"
import asyncio, sys, uvicorn
from tortoise import Tortoise
from goosebit import app
from goosebit.db.config import TORTOISE_CONF
from goosebit.db.models import Device, Hardware, Software, UpdateModeEnum

async def main(port, uri, size, sha1):
    await Tortoise.init(config=TORTOISE_CONF)
    await Tortoise.generate_schemas()
    hardware, _ = await Hardware.get_or_create(model="default", revision="default")
    software = await Software.create(uri=uri, size=int(size), hash=sha1, version="1.2.3")
    await software.compatibility.add(hardware)
    await Device.create(id="desk-07", hardware=hardware, update_mode=UpdateModeEnum.ASSIGNED, assigned_software=software)
    await Tortoise.close_connections()
    await uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=int(port), log_level="warning")).serve()

asyncio.run(main(*sys.argv[1:]))
"#;

struct Goosebit(Child);

impl Drop for Goosebit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_copy_from_goosebit_over_broken_downloads() {
    let Some(python) = std::env::var_os("MCP_GOOSEBIT_PYTHON") else {
        assert!(
            std::env::var_os("MCP_TESTS_MUST_RUN").is_none(),
            "would be skipped: needs MCP_GOOSEBIT_PYTHON"
        );
        eprintln!("skipped: needs MCP_GOOSEBIT_PYTHON, a Python with goosebit");
        return;
    };
    let Some(lab) = Lab::new().await else { return };
    let mut bytes = vec![0; 2_500_000];
    fastrand::Rng::with_seed(3).fill(&mut bytes);
    let content = bytes.clone();
    // Each answer breaks off after 800,000 bytes.
    let files = Server::start(move |request: Request, mut stream: TcpStream| {
        let bytes = content.clone();
        async move {
            let first = request.range().map_or(0, |range| range.0);
            let (len, size) = (bytes.len() - first, bytes.len());
            let head = match request.range() {
                None => format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"),
                Some(_) => format!(
                    "HTTP/1.1 206 P\r\nContent-Length: {len}\r\nContent-Range: bytes {first}-{}/{size}\r\n\r\n",
                    size - 1
                ),
            };
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&bytes[first..(first + 800_000).min(size)]).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let sha1 = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &bytes);
    let sha1 = sha1.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let port = free_port();
    let script = lab.path("server.py");
    fs::write(&script, SCRIPT).unwrap();
    let child = Command::new(python)
        .arg(&script)
        .args([port.to_string(), format!("{}/image.swu", files.url), bytes.len().to_string(), sha1])
        .env("GOOSEBIT_DB_URI", format!("sqlite://{}", lab.path("goosebit.sqlite3").display()))
        .env("GOOSEBIT_POLL_TIME", "00:00:01")
        .current_dir(lab.path("out"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut goosebit = Goosebit(child);
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(goosebit.0.try_wait().unwrap().is_none(), "goosebit ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let unsigned = lab.path("unsigned");
    fs::create_dir(&unsigned).unwrap();
    let settings = Settings { unsigned_copies: Some(unsigned.clone()), plain: true, ..Settings::default() };
    let stock = Stock {
        server: format!("http://127.0.0.1:{port}"),
        tenant: "DEFAULT".to_owned(),
        device: "desk-07".to_owned(),
        authorization: None,
    };
    let state = lab.path("stock");
    let start = || {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (dir, stock, settings) = (state.clone(), stock.clone(), settings.clone());
        let stopped = async { drop(stopped.await) };
        (stop, tokio::spawn(async move { run(&dir, Some(stock), settings, stopped).await.unwrap() }))
    };
    let (stop, agent) = start();
    let done = || {
        let status = serde_json::to_value(status(&state).unwrap()).unwrap();
        status["tasks"][0]["state"] == "done" && status["tasks"][0]["reported"] == true
    };
    let mut waited = 0;
    while !done() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        waited += 1;
        assert!(waited < 900, "{}", status(&state).unwrap().text());
    }
    assert!(fs::read(unsigned.join("image.swu")).unwrap() == bytes);
    let starts: Vec<_> =
        files.requests().iter().map(|request| request.range().map_or(0, |range| range.0)).collect();
    assert_eq!(starts, [0, 800_000, 1_600_000, 2_400_000], "it goes on where it broke off");
    let _ = stop.send(());
    agent.await.unwrap();

    // For goosebit, the device has it now. It forgets that when somebody else tells attributes without `sw_version`, and offers it again.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let base = format!("http://127.0.0.1:{port}/DEFAULT/controller/v1/desk-07");
    let offers = async || {
        let answer = http.get(&base).send().await.unwrap().text().await.unwrap();
        answer.contains("deploymentBase")
    };
    assert!(!offers().await);
    let attributes = http.put(format!("{base}/configData")).header("Content-Type", "application/json");
    assert!(attributes.body(r#"{"data":{"a":"b"}}"#).send().await.unwrap().status().is_success());
    assert!(offers().await);
    let (stop, agent) = start();
    while offers().await {
        tokio::time::sleep(Duration::from_millis(100)).await;
        waited += 1;
        assert!(waited < 900, "{}", status(&state).unwrap().text());
    }
    assert_eq!(files.requests().len(), starts.len(), "it is there, so nothing is loaded");
    let _ = stop.send(());
    agent.await.unwrap();
}
