//! Rounds of check-ins of many devices at once, over loopback: how many a second, how long one takes, how much memory server and
//! clients use together, and what a transfer by multicast beside them takes longer.
//! `cargo run --release -p mcp-fleet --example check_ins -- 10000`

use mcp_fleet::pin::client_config;
use mcp_fleet::server::{Running, ServeConfig, start};
use mcp_fleet::store::DeviceState;
use mcp_transfer::net::Destination;
use mcp_transfer::session::{Listen, RateChoice, ReceiveSession, SendSession, Target, Wanted};
use mcp_transfer::storage::{FileSink, FileSource};
use mcp_transfer::units::Rate;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn Error + Send + Sync>;

/// What is transferred beside check-ins, and the bits per second at which it is sent.
const SIZE: usize = 512 << 20;
const RATE: Rate = Rate(400_000_000);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let devices: usize = std::env::args().nth(1).map_or(Ok(10_000), |text| text.parse())?;
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    let dir = tempfile::tempdir()?;
    let local: SocketAddr = "127.0.0.1:0".parse()?;
    let config =
        ServeConfig { listen_plain: Some(local), ..ServeConfig::new(dir.path().join("serve"), local) };
    let running = start(config).await?;
    accept(&running, devices).await?;

    let plain = Way { address: running.plain.ok_or("it does not listen")?, tls: None };
    let tls = TlsConnector::from(Arc::new(client_config(running.reach.pin)?));
    let tls = Way { address: running.address, tls: Some(tls) };
    round("HTTP", &plain, devices).await?;
    round("HTTPS", &tls, devices).await?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("server and clients: {peak}");

    std::fs::write(dir.path().join("object"), vec![7; SIZE])?;
    let alone = transfer(dir.path(), "alone").await?;
    let place = dir.path().to_owned();
    let beside = tokio::spawn(async move { transfer(&place, "beside").await });
    let mut rounds = 0;
    while !beside.is_finished() {
        round("HTTPS, beside the transfer", &tls, devices).await?;
        rounds += 1;
    }
    let beside = beside.await??;
    println!(
        "a transfer of {} MiB at {} Mbit/s: {alone:.1?} alone, {beside:.1?} beside {rounds} rounds of check-ins",
        SIZE >> 20,
        RATE.0 / 1_000_000
    );
    running.shut_down().await;
    Ok(())
}

async fn accept(running: &Running, devices: usize) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut accepted = JoinSet::new();
    for n in 0..devices {
        let store = running.store().clone();
        accepted.spawn(async move {
            let token = blake3::hash(format!("token-{n}").as_bytes());
            store.decide_device(&format!("device-{n}"), DeviceState::Accepted, Some(token), 1).await
        });
        if accepted.len() >= 512 {
            accepted.join_next().await.ok_or("no task")???;
        }
    }
    while let Some(one) = accepted.join_next().await {
        one??;
    }
    println!("{devices} devices accepted in {:.1?}", begun.elapsed());
    Ok(())
}

/// How devices reach the server.
#[derive(Clone)]
struct Way {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

/// One check-in of each device.
async fn round(name: &str, way: &Way, devices: usize) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut polls = JoinSet::new();
    for n in 0..devices {
        polls.spawn(poll(way.clone(), n));
    }
    let (mut answers, mut times) = (BTreeMap::<String, usize>::new(), Vec::with_capacity(devices));
    while let Some(answer) = polls.join_next().await {
        let (status, took) = answer?;
        *answers.entry(status).or_default() += 1;
        times.push(took);
    }
    let took = begun.elapsed();
    times.sort();
    let at = |part: usize| times.get(times.len() * part / 100).or(times.last()).copied().unwrap_or_default();
    println!(
        "{name}: {devices} check-ins in {took:.1?}: {:.0} a second",
        devices as f64 / took.as_secs_f64()
    );
    println!("  half within {:.1?}, 99 % within {:.1?}, answers {answers:?}", at(50), at(99));
    Ok(())
}

/// One check-in; its status line, and how long it took from the connection on.
async fn poll(way: Way, n: usize) -> (String, Duration) {
    let begun = Instant::now();
    let exchange = async {
        let stream = TcpStream::connect(way.address).await?;
        match way.tls {
            None => ask(stream, n).await,
            Some(tls) => ask(tls.connect(way.address.ip().into(), stream).await?, n).await,
        }
    };
    let status = exchange.await.unwrap_or_else(|error| error.to_string());
    (status, begun.elapsed())
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, n: usize) -> std::io::Result<String> {
    let request = format!(
        "GET /DEFAULT/controller/v1/device-{n} HTTP/1.1\r\nHost: server\r\nAuthorization: TargetToken token-{n}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

/// Sends the object to one receiver, by multicast on the loopback interface.
async fn transfer(dir: &Path, name: &str) -> Result<Duration, Failure> {
    let (object, copy) = (dir.join("object"), dir.join(name));
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let port = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let group = Destination::parse("239.255.74.98", port)?;
        let receiver = ReceiveSession::builder(Wanted::First, FileSink::new(Some(copy), false))
            .listen(Listen { group: Some(group), interface: Some("lo".into()), ..Listen::default() })
            .start()?;
        SendSession::builder(FileSource::open(&object)?, Target::At(group))
            .interface(Some("lo".into()))
            .rate(RateChoice::Fixed(RATE))
            .expected(Some(1))
            .start()?
            .wait()?;
        receiver.wait()?;
        Ok(begun.elapsed())
    })
    .await?
}
