//! A round of check-ins of many devices at once, over loopback: how many a second, how long one takes, and how much memory server and
//! clients use together. `cargo run --release -p mcp-fleet --example check_ins -- 10000`

use mcp_fleet::server::{ServeConfig, start};
use mcp_fleet::store::DeviceState;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let devices: usize = std::env::args().nth(1).map_or(Ok(10_000), |text| text.parse())?;
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    let dir = tempfile::tempdir()?;
    let local: SocketAddr = "127.0.0.1:0".parse()?;
    let config =
        ServeConfig { listen_plain: Some(local), ..ServeConfig::new(dir.path().join("serve"), local) };
    let running = start(config).await?;
    let address = running.plain.ok_or("it does not listen")?;
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

    let begun = Instant::now();
    let mut polls = JoinSet::new();
    for n in 0..devices {
        polls.spawn(poll(address, n));
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
    println!("{devices} check-ins in {took:.1?}: {:.0} a second", devices as f64 / took.as_secs_f64());
    println!("half within {:.0?}, 99 % within {:.0?}, answers {answers:?}", at(50), at(99));
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("server and clients: {peak}");
    running.shut_down().await;
    Ok(())
}

/// One check-in; its status line, and how long it took from the connection on.
async fn poll(address: SocketAddr, n: usize) -> (String, Duration) {
    let begun = Instant::now();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET /DEFAULT/controller/v1/device-{n} HTTP/1.1\r\nHost: server\r\nAuthorization: TargetToken token-{n}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(
            String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned(),
        )
    };
    let status = exchange.await.unwrap_or_else(|error| error.to_string());
    (status, begun.elapsed())
}
