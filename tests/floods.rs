//! Transfers under floods: junk, forgeries and replays by outsiders, and a member that never stops sending. Real
//! binary, real sockets on `lo`.
//!
//! `cargo test --release --test floods -- --ignored --nocapture --test-threads 1` measures how much longer a
//! transfer takes.

mod support;

use mcp::crypto::derive::Secret;
use mcp::crypto::group::GroupKey;
use mcp::crypto::primitives::REAL;
use mcp::limits::FeedbackBudget;
use mcp::protocol::packet_protection::{Found, ReceiverSide, find};
use mcp::units::{ChannelId, Cookie, DeviceId};
use mcp::wire::{
    self, Capabilities, Header, Holdings, Join, Message, MessageKind, Nak, PacketNumber, Versions,
};
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::files::{TempDir, assert_only_copy};
use support::mcp::{Network, SOON, is_event};

const MIB: u64 = 1 << 20;
/// Datagrams a second that a flood is to have.
const FLOOD: u64 = 100_000;
/// Own memory that neither side exceeds: buffers for blocks are the most of it.
const MEMORY: u64 = 160 << 20;

fn secret() -> Secret {
    Secret::new([9; 32])
}

fn key() -> String {
    GroupKey::new("lab", secret()).expect("a name").line().to_string()
}

/// What a run came to.
struct Run {
    time: f64,
    /// Datagrams of the flood a second.
    flooded: u64,
    /// Datagrams a second that answered them.
    answered: u64,
    /// Most datagrams a second that answer one address, where the flood looked.
    allowed: u64,
}

/// What a flood counts.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    answered: AtomicU64,
    allowed: AtomicU64,
}

/// Something that is done beside a transfer until it is told to stop.
type Flood = fn(SocketAddrV4, &AtomicBool, &Tally);

/// Sends `source` to one receiver beside a flood, and checks the copy, the exit codes and the memory.
fn transfer(tmp: &TempDir, source: &Path, name: &str, rate: &str, sealed: bool, flood: Option<Flood>) -> Run {
    let network = Network::loopback();
    let group = SocketAddrV4::new(network.group.clone().unwrap().parse().unwrap(), network.port.unwrap());
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
    let flooder = flood.map(|flood| {
        let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
        thread::spawn(move || flood(group, &stop, &count))
    });
    let out = tmp.dir(name);
    let with_key = |cmd: support::process::Cmd| if sealed { cmd.env("MCP_KEY", key()) } else { cmd };
    let mut receiver = with_key(network.recv("r", &out)).spawn();
    receiver.watch_memory();
    let mut sender = with_key(network.send(source, 1)).args(["--rate", rate]).spawn();
    sender.watch_memory();
    let began = Instant::now();
    sender.event("joined");
    let end = sender.expect(0, SOON);
    receiver.expect(0, SOON);
    stop.store(true, Ordering::Relaxed);
    if let Some(flooder) = flooder {
        flooder.join().expect("flood");
    }
    assert_only_copy(source, &out);
    for process in [&sender, &receiver] {
        assert!(process.memory().anonymous < MEMORY, "{:?}", process.memory());
    }
    let took = began.elapsed().as_secs_f64();
    let per_second = |count: &AtomicU64| (count.load(Ordering::Relaxed) as f64 / took) as u64;
    let time = end.last_event()["transfer_seconds"].as_f64().expect("seconds");
    Run {
        time,
        flooded: per_second(&count.sent),
        answered: per_second(&count.answered),
        allowed: count.allowed.load(Ordering::Relaxed),
    }
}

/// A socket that sends to groups on `lo`, and one that hears one.
fn mouth() -> UdpSocket {
    let mouth = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("socket");
    mouth.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into()).expect("bind");
    mouth.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("send on lo");
    mouth.set_nonblocking(true).expect("non-blocking");
    mouth.into()
}

fn ear(group: SocketAddrV4) -> UdpSocket {
    let ear = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("socket");
    ear.set_reuse_address(true).expect("reuse");
    ear.bind(&group.into()).expect("bind");
    ear.join_multicast_v4_n(group.ip(), &InterfaceIndexOrAddress::Index(1)).expect("join on lo");
    ear.set_nonblocking(true).expect("non-blocking");
    ear.into()
}

/// Random bytes, well-formed heads with any body, and replays, at the group and at the sender's own port.
fn junk(group: SocketAddrV4, stop: &AtomicBool, count: &Tally) {
    let (ear, mouth) = (ear(group), mouth());
    let mut rng = fastrand::Rng::with_seed(3);
    let mut heard: Vec<Vec<u8>> = Vec::new();
    let mut at_sender = None;
    let mut buffer = vec![0; 10_000];
    let began = Instant::now();
    let mut sent = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        while let Ok((n, from)) = ear.recv_from(&mut buffer) {
            if from.port() != mouth.local_addr().expect("address").port() && wire::head(&buffer[..n]).is_ok()
            {
                at_sender = Some(from);
                if heard.len() < 512 {
                    heard.push(buffer[..n].to_vec());
                } else {
                    let slot = rng.usize(..heard.len());
                    heard[slot] = buffer[..n].to_vec();
                }
            }
        }
        let due = (began.elapsed().as_secs_f64() * FLOOD as f64) as u64;
        let batch = due.saturating_sub(sent).min(512);
        for _ in 0..batch {
            let datagram = match (rng.u8(..4), heard.is_empty()) {
                (0, _) | (_, true) => {
                    let mut bytes = vec![0; rng.usize(0..1400)];
                    rng.fill(&mut bytes);
                    bytes
                }
                (1, _) => heard[rng.usize(..heard.len())].clone(),
                _ => {
                    // Of this session, of any kind, with a number that comes next.
                    let mut bytes = heard[rng.usize(..heard.len())].clone();
                    bytes[3] = rng.u8(1..=MessageKind::ALL.len() as u8);
                    bytes[15..21].copy_from_slice(&rng.u64(..).to_be_bytes()[2..]);
                    let len = bytes.len();
                    bytes[rng.usize(21..len)] ^= 1;
                    bytes
                }
            };
            let to = match at_sender {
                Some(sender) if rng.bool() => sender,
                _ => group.into(),
            };
            let _ = mouth.send_to(&datagram, to);
        }
        sent += batch;
        count.sent.store(sent, Ordering::Relaxed);
        thread::sleep(Duration::from_micros(500));
    }
}

/// One join, without a cookie, said again and again to the sender's own port.
fn joins(group: SocketAddrV4, stop: &AtomicBool, count: &Tally) {
    let (ear, mouth) = (ear(group), mouth());
    let mut buffer = vec![0; 10_000];
    let mut join: Option<(Vec<u8>, SocketAddr, Instant)> = None;
    let mut sent = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        if join.is_none()
            && let Ok((n, from)) = ear.recv_from(&mut buffer)
            && let Ok(head) = wire::head(&buffer[..n])
            && let Some(Found { announce, .. }) = find(REAL, &[], &head, &mut buffer[..n])
            && let Some(side) = ReceiverSide::new(REAL, head.header.session, &announce, None, [45; 32])
        {
            let number = PacketNumber::new(ChannelId::GROUP, 0);
            let header = Header { session: head.header.session, packet_number: number };
            let budget = FeedbackBudget::announced(announce.feedback_budget);
            count.allowed.store(u64::from(budget.agreements()) / 4, Ordering::Relaxed);
            join = Some((side.join(header, Cookie::default(), any_join("echo")), from, Instant::now()));
        }
        if let Some((join, at, began)) = &join {
            let due = (began.elapsed().as_secs_f64() * FLOOD as f64) as u64;
            let batch = due.saturating_sub(sent).min(512);
            (0..batch).for_each(|_| drop(mouth.send_to(join, at)));
            sent += batch;
            count.sent.store(sent, Ordering::Relaxed);
            while mouth.recv_from(&mut buffer).is_ok() {
                count.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
        thread::sleep(Duration::from_micros(500));
    }
}

fn any_join(label: &str) -> Join {
    Join {
        device: DeviceId([66; 16]),
        versions: Versions::OURS,
        supported: Capabilities::OURS,
        holdings: Holdings::Nothing,
        label: label.into(),
        ticket: None,
        proof: None,
    }
}

/// A member that joins as it should, and then lacks everything, a hundred thousand times a second.
fn naks(group: SocketAddrV4, stop: &AtomicBool, count: &Tally) {
    let (ear, mouth) = (ear(group), mouth());
    let mut buffer = vec![0; 10_000];
    let mut member: Option<(ReceiverSide, SocketAddr, Header)> = None;
    let (mut cookie, mut sent, mut flood) = (Cookie::default(), 0_u64, 0_u64);
    let mut last_join = Instant::now();
    let mut admitted: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        while let Ok((n, from)) = ear.recv_from(&mut buffer).or_else(|_| mouth.recv_from(&mut buffer)) {
            let bytes = &mut buffer[..n];
            let Ok(head) = wire::head(bytes) else { continue };
            match &mut member {
                None => {
                    if let Some(Found { announce, .. }) = find(REAL, &[secret()], &head, bytes) {
                        let session = head.header.session;
                        let side = ReceiverSide::new(REAL, session, &announce, Some(&secret()), [44; 32]);
                        member = side.map(|side| (side, from, head.header));
                    }
                }
                Some((side, _, _)) => {
                    let Some(opened) = side.open(&head, bytes, || true) else { continue };
                    match wire::decode_body(head.kind, opened.body) {
                        Ok(Message::Retry(retry)) => cookie = retry.cookie,
                        Ok(Message::Admit(admit)) if admitted.is_none() => {
                            side.admitted(admit.channel);
                            admitted = Some(Instant::now());
                        }
                        _ => {}
                    }
                }
            }
        }
        let Some((side, at, first)) = &member else { continue };
        let Some(since) = admitted else {
            if last_join.elapsed() > Duration::from_millis(20) {
                last_join = Instant::now();
                let header = Header {
                    session: first.session,
                    packet_number: PacketNumber::new(ChannelId::GROUP, sent),
                };
                let _ = mouth.send_to(&side.join(header, cookie, any_join("chatty")), at);
                sent += 1;
            }
            continue;
        };
        let due = (since.elapsed().as_secs_f64() * FLOOD as f64) as u64;
        let batch = due.saturating_sub(flood).min(512);
        for n in flood..flood + batch {
            let nak = Nak {
                round: (n % 64) as u32,
                largest_received: PacketNumber::new(ChannelId::GROUP, n),
                ack_delay_us: 0,
                incomplete: u32::MAX,
                pages: vec![wire::PageRange { first: 0, count: 1 << 20 }],
                deficits: vec![wire::Deficit::Whole { first: mcp::units::BlockIndex(0), count: 1 << 20 }],
            };
            let _ = mouth.send_to(&side.message(sent + n, &nak.into()), at);
        }
        flood += batch;
        count.sent.store(flood, Ordering::Relaxed);
        thread::sleep(Duration::from_micros(500));
    }
}

#[test]
fn junk_does_not_stop_a_transfer_in_the_clear() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 24 * MIB, 1);
    let run = transfer(&tmp, &source, "out", "200M", false, Some(junk));
    assert!(run.flooded > 1_000, "{} a second", run.flooded);
}

#[test]
fn junk_does_not_stop_a_sealed_transfer() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 24 * MIB, 2);
    let run = transfer(&tmp, &source, "out", "200M", true, Some(junk));
    assert!(run.flooded > 1_000, "{} a second", run.flooded);
}

#[test]
fn a_join_said_again_and_again_is_seldom_answered() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 24 * MIB, 5);
    let run = transfer(&tmp, &source, "out", "200M", false, Some(joins));
    // And a burst of a tenth of that.
    let most = run.allowed + run.allowed / 10;
    let Run { answered, flooded, .. } = run;
    assert!((1..=most).contains(&answered), "{answered} answers a second of {most} to {flooded}");
    assert!(flooded > 2 * answered, "{answered} answers a second to {flooded}");
}

#[test]
fn a_member_that_never_stops_asking_does_not_stop_the_others() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 24 * MIB, 3);
    let network = Network::loopback();
    let group = SocketAddrV4::new(network.group.clone().unwrap().parse().unwrap(), network.port.unwrap());
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
    let flooder = {
        let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
        thread::spawn(move || naks(group, &stop, &count))
    };
    let out = tmp.dir("out");
    let mut receiver = network.recv("honest", &out).env("MCP_KEY", key()).spawn();
    // It goes on to serve the chatty one, for it seems to lack everything: the honest one is not kept by that.
    let mut sender = network.send(&source, 2).env("MCP_KEY", key()).args(["--rate", "200M"]).spawn();
    receiver.expect(0, SOON);
    assert_only_copy(&source, &out);
    assert!(count.sent.load(Ordering::Relaxed) > 1_000);
    let complete = |e: &serde_json::Value| is_event(e, "status") && e["status"] == "complete";
    sender.until("complete", SOON, complete);
    stop.store(true, Ordering::Relaxed);
    flooder.join().expect("flood");
    sender.signal("INT");
    sender.finish(SOON);
}

#[test]
#[ignore = "measures: pairs of transfers without and with a flood"]
fn how_much_longer_it_takes() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 96 * MIB, 4);
    for (name, sealed) in [("in the clear", false), ("sealed", true)] {
        for rate in ["auto", "400M"] {
            compare(&tmp, &source, name, rate, sealed, ("junk", junk));
        }
    }
}

#[test]
#[ignore = "measures: pairs of transfers without and with a flood"]
fn how_much_longer_it_takes_beside_one_join_said_again_and_again() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 96 * MIB, 4);
    for rate in ["20M", "auto", "400M"] {
        compare(&tmp, &source, "in the clear", rate, false, ("the same join", joins));
    }
}

/// Prints how long five transfers took without a flood, and five with it, taking turns.
fn compare(tmp: &TempDir, source: &Path, name: &str, rate: &str, sealed: bool, flood: (&str, Flood)) {
    let small = tmp.file("small.bin", 24 * MIB, 6);
    let source = if rate == "20M" { &small } else { source };
    let mut ratios = Vec::new();
    for n in 0..5 {
        let out = |what| format!("{sealed}{rate}{what}{n}{}", flood.0);
        let calm = transfer(tmp, source, &out("calm"), rate, sealed, None);
        let flooded = transfer(tmp, source, &out("flood"), rate, sealed, Some(flood.1));
        println!(
            "{name}, rate {rate}: {:.2} s calm, {:.2} s with {} a second of {}, {} of them answered",
            calm.time, flooded.time, flooded.flooded, flood.0, flooded.answered
        );
        ratios.push(flooded.time / calm.time);
    }
    ratios.sort_by(f64::total_cmp);
    println!("{name}, rate {rate}, {}: median ratio {:.2}", flood.0, ratios[2]);
}
