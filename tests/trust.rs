//! Which machines can read a transfer, and which senders are accepted: group keys, pinned senders, senders with a
//! changed key. Real binary, real sockets on `lo`.

mod support;

use mcp::crypto::derive::Secret;
use mcp::crypto::group::GroupKey;
use mcp::crypto::sign::SigningKey;
use mcp::keyring::{Keyring, KnownSender};
use mcp::units::SenderKey;
use serde_json::Value;
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use support::files::{TempDir, assert_empty, assert_only_copy};
use support::mcp::{Network, SOON, is_event};
use support::process::Cmd;

const RATE: [&str; 2] = ["--rate", "200M"];
const MIB: u64 = 1 << 20;
/// How long a receiver looks for a sender that it will not take.
const BRIEF: Duration = Duration::from_secs(3);

/// The line of a group key, the same each time.
fn key(seed: u8) -> String {
    GroupKey::new("lab", Secret::new([seed; 32])).expect("a name").line().to_string()
}

trait Keyed {
    fn key(self, line: &str) -> Self;
    fn state(self, dir: &Path) -> Self;
}

impl Keyed for Cmd {
    fn key(self, line: &str) -> Self {
        self.env("MCP_KEY", line)
    }
    fn state(self, dir: &Path) -> Self {
        self.env("MCP_STATE_DIR", dir)
    }
}

/// A machine's state directory, and the public key that its senders show.
fn machine(tmp: &TempDir, name: &str) -> (PathBuf, String) {
    let state = tmp.join(name);
    let seed = Keyring::new(state.clone()).sender(&mut Vec::new()).expect("a key");
    let line = SigningKey::new(&seed).public().line();
    (state, line)
}

#[test]
fn members_read_and_others_do_not_even_see_the_name() {
    let tmp = TempDir::new();
    let source = tmp.file("secret-plans.bin", 3 * MIB + 11, 1);
    let network = Network::loopback();
    let (group, port) = (network.group.clone().unwrap().parse().unwrap(), network.port.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let listener = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || eavesdrop(group, port, &stop))
    };
    let (in_dir, out_dir, plain_dir) = (tmp.dir("member"), tmp.dir("other"), tmp.dir("plain"));
    let mut member = network.recv("member", &in_dir).key(&key(1)).spawn();
    let mut other = network.patient_recv("other", &out_dir, BRIEF).key(&key(2)).spawn();
    let mut plain = network.patient_recv("plain", &plain_dir, BRIEF).spawn();
    let mut sender = network.send(&source, 1).args(RATE).key(&key(1)).spawn();
    let sent = sender.expect(0, SOON);
    member.expect(0, SOON);
    assert_only_copy(&source, &in_dir);
    for (receiver, dir) in [(&mut other, &out_dir), (&mut plain, &plain_dir)] {
        let end = receiver.finish(SOON);
        assert_eq!(end.last_event()["outcome"], "no_sender", "{:?}", end.lines);
        assert_ne!(end.code, Some(0));
        assert_empty(dir);
    }
    assert_eq!(sent.last_event()["devices"], 1);
    stop.store(true, Ordering::Relaxed);
    let heard = listener.join().expect("listener");
    assert!(heard.len() > 3 * MIB as usize, "{} bytes heard", heard.len());
    let bytes = fs::read(&source).expect("source");
    for at in [0, 5_000, bytes.len() - 64] {
        let wanted = &bytes[at..at + 32];
        assert!(!heard.windows(32).any(|w| w == wanted), "the file's own bytes are on the wire");
    }
    assert!(!heard.windows(12).any(|w| w == b"secret-plans"), "its name is on the wire");
}

/// All that is said to a group until told to stop, one after the other.
fn eavesdrop(group: Ipv4Addr, port: u16, stop: &AtomicBool) -> Vec<u8> {
    let ear = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("socket");
    ear.set_reuse_address(true).expect("reuse");
    let _ = ear.set_recv_buffer_size(8 << 20);
    ear.bind(&SocketAddrV4::new(group, port).into()).expect("bind");
    ear.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(1)).expect("join on lo");
    ear.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
    let ear = UdpSocket::from(ear);
    let (mut heard, mut buffer) = (Vec::new(), vec![0; 10_000]);
    while !stop.load(Ordering::Relaxed) {
        if let Ok(n) = ear.recv(&mut buffer) {
            heard.extend_from_slice(&buffer[..n]);
        }
    }
    heard
}

#[test]
fn one_that_has_a_key_takes_nothing_plain_unless_told_to() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 2);
    let (network, out, bare) = (Network::loopback(), tmp.dir("out"), tmp.dir("bare"));
    let mut keyed = network.patient_recv("keyed", &out, BRIEF).key(&key(1)).spawn();
    let mut told = network.recv("told", &bare).key(&key(1)).args(["--key", "none"]).spawn();
    let mut sender = network.send(&source, 1).args(RATE).spawn();
    sender.expect(0, SOON);
    told.expect(0, SOON);
    assert_only_copy(&source, &bare);
    assert_eq!(keyed.finish(SOON).last_event()["outcome"], "no_sender");
    assert_empty(&out);
}

#[test]
fn a_key_that_was_rotated_still_opens_what_it_sealed() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 3);
    let (sender_state, receiver_state) = (tmp.join("s"), tmp.join("r"));
    let (old, ring) = (Keyring::new(sender_state.clone()), Keyring::new(receiver_state.clone()));
    old.create("lab").expect("a key");
    let line = old.keys("lab", &mut Vec::new()).expect("keys").text();
    let keys = mcp::crypto::group::GroupKeys::parse(line.as_bytes()).expect("keys");
    ring.add(keys, &mut Vec::new()).expect("added");
    ring.rotate("lab", &mut Vec::new()).expect("rotated");
    let (network, out) = (Network::loopback(), tmp.dir("out"));
    let mut receiver = network.recv("r", &out).state(&receiver_state).spawn();
    let mut sender = network.send(&source, 1).args(RATE).state(&sender_state).spawn();
    sender.expect(0, SOON);
    receiver.expect(0, SOON);
    assert_only_copy(&source, &out);
}

#[test]
fn only_senders_that_were_named_are_taken() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 4);
    let (state, line) = machine(&tmp, "sender");
    let (_, stranger) = machine(&tmp, "stranger");
    let network = Network::loopback();
    let (right, wrong) = (tmp.dir("right"), tmp.dir("wrong"));
    let mut takes = network.recv("takes", &right).args(["--sender", &stranger, "--sender", &line]).spawn();
    let mut refuses = network.patient_recv("refuses", &wrong, BRIEF).args(["--sender", &stranger]).spawn();
    let mut sender = network.send(&source, 1).args(RATE).state(&state).spawn();
    let sent = sender.expect(0, SOON);
    assert_eq!(sent.last_event()["devices"], 1, "one that refuses reports nothing");
    let trusted = takes.expect(0, SOON).events().into_iter().find(|e| is_event(e, "sender_trusted"));
    assert_eq!(trusted.expect("trusted")["decision"], "pinned");
    assert_only_copy(&source, &right);
    let end = refuses.finish(SOON);
    assert!(end.events().iter().any(|e| is_event(e, "sender_refused") && e["decision"] == "stranger"));
    assert!(end.stderr.contains("no trusted sender"), "{}", end.stderr);
    assert_empty(&wrong);
}

#[test]
fn where_nobody_watches_a_stranger_is_said_to_be_unverified_or_refused() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 5);
    let network = Network::loopback();
    let (out, strict) = (tmp.dir("out"), tmp.dir("strict"));
    let mut receiver = network.recv("r", &out).state(&tmp.join("r")).spawn();
    let mut careful = network.patient_recv("c", &strict, BRIEF).arg("--require-signed").spawn();
    let mut sender = network.send(&source, 1).args(RATE).spawn();
    sender.expect(0, SOON);
    let end = receiver.expect(0, SOON);
    assert_eq!(end.last_event()["sender_trust"], "unverified");
    assert_only_copy(&source, &out);
    let end = careful.finish(SOON);
    assert_eq!(end.last_event()["outcome"], "no_sender");
    assert!(end.stderr.contains("refused the sender"), "{}", end.stderr);
    assert_empty(&strict);
}

#[test]
fn a_sender_that_shows_another_key_than_before_is_refused_with_an_explanation() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 6);
    let (first, line) = machine(&tmp, "first");
    let (second, _) = machine(&tmp, "second");
    let ours = tmp.join("ours");
    fs::create_dir_all(&ours).expect("state");
    remember(&ours, &line);
    let run = |state: &Path, code: i32, name: &str| -> Vec<Value> {
        let (network, out) = (Network::loopback(), tmp.dir(name));
        let mut receiver = network.patient_recv("r", &out, BRIEF).state(&ours).spawn();
        let mut sender = network.send(&source, 1).args(RATE).args(["--wait", "2s"]).state(state).spawn();
        let end = receiver.finish(SOON);
        assert_eq!(end.code == Some(0), code == 0, "{}", receiver.transcript());
        sender.finish(SOON);
        if code == 0 {
            assert_only_copy(&source, &out);
        } else {
            assert!(end.stderr.contains("mcp key forget 127.0.0.1"), "{}", end.stderr);
            assert_empty(&out);
        }
        end.events()
    };
    let events = run(&first, 0, "known");
    assert!(events.iter().any(|e| is_event(e, "sender_trusted") && e["decision"] == "known"), "{events:?}");
    let events = run(&second, 1, "changed");
    let refused = events.iter().find(|e| is_event(e, "sender_refused")).expect("refused");
    assert_eq!((&refused["decision"], &refused["expected"]), (&"changed".into(), &line.as_str().into()));
}

/// Has the machine know a sender at 127.0.0.1, as a terminal user's first `mcp recv` would.
fn remember(state: &Path, line: &str) {
    let key = SenderKey::from_line(line).expect("a key");
    let sender = KnownSender { address: Ipv4Addr::LOCALHOST.into(), key, label: "before".into() };
    Keyring::new(state.to_owned()).remember(sender, &mut Vec::new()).expect("remembered");
}
