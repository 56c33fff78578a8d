//! Recordings of whole sessions, replayed to waiting receivers: they neither end a receiver nor hold it. Real
//! binary, real sockets on `lo`.

mod support;

use mcp::crypto::derive::Secret;
use mcp::crypto::group::GroupKey;
use mcp::wire::{self, MessageKind};
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use support::files::{TempDir, assert_empty, assert_only_copy};
use support::mcp::{Network, SOON, is_event};
use support::process::{Cmd, Proc};

const MIB: u64 = 1 << 20;
const RATE: [&str; 2] = ["--rate", "200M"];

/// A datagram that went to the group: when, from where, and what.
struct Heard {
    at: Duration,
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl Heard {
    fn is(&self, kind: MessageKind) -> bool {
        wire::head(&self.bytes).is_ok_and(|head| head.kind == kind)
    }
}

fn group(channel: &Network) -> SocketAddrV4 {
    SocketAddrV4::new(channel.group.clone().unwrap().parse().unwrap(), channel.port.unwrap())
}

/// Records all that goes to the group until told to stop.
fn record(group: SocketAddrV4, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Heard>> {
    let ear = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("socket");
    ear.set_reuse_address(true).expect("reuse");
    ear.bind(&group.into()).expect("bind");
    ear.join_multicast_v4_n(group.ip(), &InterfaceIndexOrAddress::Index(1)).expect("join on lo");
    ear.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
    let ear: UdpSocket = ear.into();
    thread::spawn(move || {
        let (began, mut heard, mut buffer) = (Instant::now(), Vec::new(), vec![0; 10_000]);
        while !stop.load(Ordering::Relaxed) {
            if let Ok((n, from)) = ear.recv_from(&mut buffer) {
                heard.push(Heard { at: began.elapsed(), from, bytes: buffer[..n].to_vec() });
            }
        }
        heard
    })
}

/// A socket that sends to the group from where the recorded sender was.
fn mouth(heard: &[Heard]) -> UdpSocket {
    let mouth = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("socket");
    let port = heard.first().expect("a recording").from.port();
    mouth.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into()).expect("the recorded sender's port");
    mouth.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("send on lo");
    mouth.into()
}

/// The lab of one test: a channel, a key or none, and a file.
struct Lab {
    tmp: TempDir,
    channel: Network,
    key: Option<String>,
}

impl Lab {
    fn new(sealed: bool) -> Self {
        let key = GroupKey::new("lab", Secret::new([9; 32])).expect("a name").line().to_string();
        Self { tmp: TempDir::new(), channel: Network::loopback(), key: sealed.then_some(key) }
    }
    fn keyed(&self, cmd: Cmd) -> Cmd {
        match &self.key {
            Some(key) => cmd.env("MCP_KEY", key),
            None => cmd,
        }
    }
    fn send(&self, source: &Path) -> Proc {
        self.keyed(self.channel.send(source, 1)).args(RATE).spawn()
    }
    fn recv(&self, id: &str, out: &Path) -> Proc {
        self.keyed(self.channel.recv(id, out)).spawn()
    }
    /// A whole session of `source`, to a receiver of its own.
    fn recording(&self, source: &Path) -> Vec<Heard> {
        let stop = Arc::new(AtomicBool::new(false));
        let recorder = record(group(&self.channel), Arc::clone(&stop));
        let mut receiver = self.recv("recorded", &self.tmp.dir("recorded"));
        let mut sender = self.send(source);
        sender.expect(0, SOON);
        receiver.expect(0, SOON);
        thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        let heard = recorder.join().expect("recorder");
        assert!(
            heard.iter().any(|h| h.is(MessageKind::Announce))
                && heard.iter().any(|h| h.is(MessageKind::Abort))
        );
        heard
    }
    /// The real sender comes, and the receiver completes with 0.
    fn completes(&self, mut receiver: Proc, source: &Path, out: &Path) {
        let mut sender = self.send(source);
        receiver.expect(0, SOON);
        sender.expect(0, SOON);
        assert_only_copy(source, out);
    }
}

/// A recorded announce, joined or not, and then the recorded abort.
fn an_abort_from_the_past_ends_nobody(sealed: bool) {
    let lab = Lab::new(sealed);
    let source = lab.tmp.file("image.bin", 2 * MIB, 1);
    let heard = lab.recording(&source);
    let out = lab.tmp.dir("out");
    let mut receiver = lab.recv("waiting", &out);
    let mouth = mouth(&heard);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        for past in heard.iter().filter(|h| h.is(MessageKind::Announce)) {
            mouth.send_to(&past.bytes, group(&lab.channel)).expect("send");
            thread::sleep(Duration::from_millis(20));
        }
        for past in heard.iter().filter(|h| h.is(MessageKind::Abort)) {
            mouth.send_to(&past.bytes, group(&lab.channel)).expect("send");
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert!(!receiver.has(|e| is_event(e, "finished")), "{}", receiver.transcript());
    assert_empty(&out);
    drop(mouth);
    lab.completes(receiver, &source, &out);
}

#[test]
fn an_abort_from_the_past_ends_no_receiver_in_the_clear() {
    an_abort_from_the_past_ends_nobody(false);
}

#[test]
fn an_abort_from_the_past_ends_no_receiver_with_a_key() {
    an_abort_from_the_past_ends_nobody(true);
}

/// Plays a recording back again and again, four times as fast as it was, until told to stop.
fn play(heard: Vec<Heard>, to: SocketAddrV4, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    let mouth = mouth(&heard);
    thread::spawn(move || {
        let mut played = 0;
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            for past in &heard {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                thread::sleep((past.at / 4).saturating_sub(began.elapsed()));
                played += u64::from(mouth.send_to(&past.bytes, to).is_ok());
            }
        }
        played
    })
}

/// All of a session from the past, without its abort: before the real sender comes, and all the time that it is there.
fn a_session_from_the_past_holds_nobody(sealed: bool) {
    let lab = Lab::new(sealed);
    let source = lab.tmp.file("image.bin", 4 * MIB, 1);
    let mut heard = lab.recording(&source);
    heard.retain(|h| !h.is(MessageKind::Abort));
    let out = lab.tmp.dir("out");
    let mut receiver = lab.recv("waiting", &out);
    let stop = Arc::new(AtomicBool::new(false));
    let player = play(heard, group(&lab.channel), Arc::clone(&stop));
    thread::sleep(Duration::from_secs(3));
    assert!(
        !receiver.has(|e| is_event(e, "finished") || is_event(e, "admitted")),
        "{}",
        receiver.transcript()
    );
    assert_empty(&out);
    let began = Instant::now();
    lab.completes(receiver, &source, &out);
    stop.store(true, Ordering::Relaxed);
    let played = player.join().expect("player");
    println!(
        "complete {:.1} s after the sender's start, beside {played} datagrams played",
        began.elapsed().as_secs_f64()
    );
    assert!(played > 100, "{played}");
}

#[test]
fn a_session_from_the_past_holds_no_receiver_in_the_clear() {
    a_session_from_the_past_holds_nobody(false);
}

#[test]
fn a_session_from_the_past_holds_no_receiver_with_a_key() {
    a_session_from_the_past_holds_nobody(true);
}

/// Whichever sender lets it in first is the one; the other one's receiver is another.
#[test]
fn of_two_senders_at_once_one_serves_each_receiver() {
    let lab = Lab::new(false);
    let (a, b) = (lab.tmp.file("a.bin", 2 * MIB, 1), lab.tmp.file("b.bin", 2 * MIB, 2));
    let (out_1, out_2) = (lab.tmp.dir("1"), lab.tmp.dir("2"));
    let mut first = lab.recv("one", &out_1);
    let mut senders = [lab.send(&a), lab.send(&b)];
    first.expect(0, SOON);
    let served = if out_1.join("a.bin").exists() { 0 } else { 1 };
    senders[served].expect(0, SOON);
    let mut second = lab.recv("two", &out_2);
    second.expect(0, SOON);
    senders[1 - served].expect(0, SOON);
    let (served, other) = if served == 0 { (&a, &b) } else { (&b, &a) };
    assert_only_copy(served, &out_1);
    assert_only_copy(other, &out_2);
}
