//! Senders of later programs on `lo`: the real `mcp recv` says what they require, and goes on waiting for a sender that
//! it understands.

mod support;

use mcp::crypto::derive::Secret;
use mcp::crypto::sign::{Purpose, SigningKey};
use mcp::protocol::packet_protection::SenderSide;
use mcp::units::{ChannelId, Counter, Suite};
use mcp::wire::{Announce, Capabilities, Header, PacketNumber, Protection, Versions, encode_plain};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use support::files::TempDir;
use support::junk::{announce_of, mouth};
use support::mcp::{Network, SOON};
use support::process::End;

/// A program to come, announcing a session until it is told to stop.
struct Later {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the program to come has changed, in the announce and in its bytes before they are signed.
type Change = (fn(Announce) -> Announce, fn(&mut Vec<u8>));

impl Later {
    fn start(network: &Network, (change, damage): Change) -> Self {
        let group: Ipv4Addr = network.group.as_deref().expect("a group").parse().expect("IPv4");
        let port = network.port.expect("a port");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (key, mouth) = (SigningKey::new(&Secret::new([7; 32])), mouth());
            let side = SenderSide::new(Counter(1), key.clone(), [8; 32], Suite::Aes256Gcm, None);
            let announce = change(announce_of(&side, group, port, "later.bin"));
            for counter in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let packet_number = PacketNumber::new(ChannelId::GROUP, counter);
                let header = Header { session: side.session(), packet_number };
                let mut datagram = encode_plain(header, &announce.clone().into());
                Protection::Signed.mark(&mut datagram);
                damage(&mut datagram);
                let signature = key.sign(Purpose::Datagram, &[&datagram, &[0; 16]]);
                datagram.extend_from_slice(&signature);
                mouth.send_to(&datagram, SocketAddrV4::new(group, port)).expect("send");
                thread::sleep(Duration::from_millis(50));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the later program");
        }
    }
}

/// A receiver that finds nobody else, and how it ends.
fn alone(change: Change) -> End {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let later = Later::start(&network, change);
    let mut recv = network.patient_recv("lab-07", tmp.path(), Duration::from_secs(2)).spawn();
    recv.event("sender_needs");
    let end = recv.expect(5, SOON);
    drop(later);
    assert!(fs::read_dir(tmp.path()).expect("a directory").next().is_none(), "something was written");
    end
}

/// Event and error say this.
#[track_caller]
fn says(end: &End, need: &str) {
    let told: Vec<_> = end.events().into_iter().filter(|e| e["event"] == "sender_needs").collect();
    assert_eq!(told.len(), 1, "it is told once: {told:?}");
    assert!(told[0]["need"].as_str().is_some_and(|told| told.contains(need)), "{told:?}");
    assert!(end.stderr.contains(need) && end.stderr.contains("install"), "{}", end.stderr);
}

#[test]
fn a_sender_of_version_2_is_named_with_its_version() {
    says(&alone((|announce| announce, |bytes| bytes[2] = 2)), "wire version 2");
    // One that can still be read.
    let versions: fn(Announce) -> Announce =
        |announce| Announce { versions: Versions { min: 2, max: 3 }, ..announce };
    says(&alone((versions, |_| ())), "wire version 2");
}

#[test]
fn what_a_device_must_have_is_named() {
    let required: fn(Announce) -> Announce =
        |announce| Announce { required: Capabilities(1 << 31), ..announce };
    says(&alone((required, |_| ())), "capabilities 0x80000000");
    let critical = |bytes: &mut Vec<u8>| bytes.extend([0x83, 0x09, 0, 2, 1, 2]);
    says(&alone((|announce| announce, critical)), "extension 777 of announce");
}

#[test]
fn extensions_that_are_not_critical_are_passed_over() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let unknown = |bytes: &mut Vec<u8>| bytes.extend([0x03, 0x09, 0, 2, 1, 2, 0x7f, 0xfe, 0, 0]);
    let later = Later::start(&network, (|announce| announce, unknown));
    let mut recv = network.recv("lab-07", tmp.path()).spawn();
    assert_eq!(recv.event("found")["name"], "later.bin");
    recv.signal("INT");
    recv.finish(SOON);
    drop(later);
}

#[test]
fn a_sender_that_is_understood_is_waited_for() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let source = tmp.file("image.bin", 3 << 20, 5);
    let out = tmp.dir("out");
    let later = Later::start(&network, (|announce| announce, |bytes| bytes[2] = 2));
    let mut recv = network.recv("lab-07", &out).spawn();
    recv.event("sender_needs");
    let mut send = network.send(&source, 1).spawn();
    send.expect(0, SOON);
    recv.expect(0, SOON);
    drop(later);
    assert!(fs::read(out.join("image.bin")).expect("a copy") == fs::read(&source).expect("the file"));
}
