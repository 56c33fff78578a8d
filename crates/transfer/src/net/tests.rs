//! Real sockets on loopback. Every test has its own group and port, and waits for events only.

use super::*;
use crate::limits::MAX_DATAGRAM;
use crate::net::socket::Socket;
use crate::units::Via;
use mio::{Events, Poll};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const V4: Families = Families { v4: true, v6: false };

fn lo() -> Interface {
    Interface::list().unwrap().into_iter().find(|i| i.loopback).expect("loopback")
}

fn free_port() -> u16 {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port()
}

fn destination(ip: &str, port: u16) -> Destination {
    Destination::parse(ip, port).unwrap().on(&lo())
}

/// A [`UdpNet`] with a poll of its own.
struct Node {
    net: UdpNet,
    poll: Poll,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Datagram {
    from: SocketAddr,
    via: Via,
    bytes: Vec<u8>,
}

impl Node {
    fn new(mut net: UdpNet) -> Self {
        let poll = Poll::new().unwrap();
        net.register(poll.registry(), 10).unwrap();
        Self { net, poll }
    }

    fn sender(to: &Destination, features: Features) -> Self {
        Self::new(UdpNet::sender(&lo(), to, Marking::default(), Some(0), (features, None)).unwrap())
    }

    fn receiver(group: SocketAddr, features: Features) -> Self {
        let families = Families::of(&group);
        let mut node =
            Self::new(UdpNet::receiver(&[lo()], group.port(), families, (features, None)).unwrap());
        node.net.listen(group);
        assert!(node.net.send_errors().latest.is_none(), "{:?}", node.net.send_errors());
        node
    }

    fn own(&self, v6: bool) -> u16 {
        self.net.own_port(v6).unwrap()
    }

    fn drain(&mut self, into: &mut Vec<Datagram>) {
        while self
            .net
            .receive(&mut |arrival, bytes| {
                into.push(Datagram { from: arrival.from, via: arrival.via, bytes: bytes.into() });
            })
            .unwrap()
            > 0
        {}
    }

    /// Receives until `want` datagrams are there.
    fn receive(&mut self, want: usize) -> Vec<Datagram> {
        let (mut events, mut got) = (Events::with_capacity(16), Vec::new());
        let end = Instant::now() + PATIENCE;
        loop {
            self.drain(&mut got);
            if got.len() >= want {
                return got;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of {want} datagrams came", got.len());
            self.poll.poll(&mut events, Some(left)).unwrap();
        }
    }

    fn send(&mut self, to: SocketAddr, datagrams: &[Vec<u8>]) {
        let segments: Vec<_> = datagrams.iter().map(|d| segment(d)).collect();
        assert_eq!(self.net.send(to, &segments).unwrap(), datagrams.len());
        assert_eq!(self.net.send_errors().datagrams, 0, "{:?}", self.net.send_errors());
    }
}

/// A datagram cut into a head of our own and a body for the kernel.
fn segment(datagram: &[u8]) -> Segment<'_> {
    let (head, body) = datagram.split_at(datagram.len().min(28));
    Segment { head, body: Body::Raw(RawBytes { address: body.as_ptr(), len: body.len() }) }
}

/// `count` datagrams of `len` bytes, but for the last of `last`, all different.
fn batch(count: usize, len: usize, last: usize) -> Vec<Vec<u8>> {
    let make = |i: usize| {
        let len = if i + 1 == count { last } else { len };
        (0..len).map(|at| (i * 31 + at) as u8).collect()
    };
    (0..count).map(make).collect()
}

fn bytes(datagrams: &[Datagram]) -> Vec<Vec<u8>> {
    datagrams.iter().map(|d| d.bytes.clone()).collect()
}

fn every_feature_set() -> impl Iterator<Item = Features> {
    (0..4).map(|n| Features { gso: n & 1 != 0, gro: n & 2 != 0 })
}

#[test]
fn every_way_of_sending_and_receiving_brings_the_same_datagrams() {
    let to = destination("239.255.74.1", free_port());
    for tx in every_feature_set() {
        for rx in [Features::NONE, Features::default(), tx] {
            let (mut sender, mut receiver) = (Node::sender(&to, tx), Node::receiver(to.addr, rx));
            for sent in [
                batch(MAX_BATCH, 1436, 100),
                batch(MAX_BATCH, 1436, 1436),
                batch(3, MAX_DATAGRAM, 1),
                batch(1, 20, 20),
            ] {
                sender.send(to.addr, &sent);
                let got = receiver.receive(sent.len());
                assert!(bytes(&got) == sent, "sent with {tx}, received with {rx}");
                let from = SocketAddr::from((Ipv4Addr::LOCALHOST, sender.own(false)));
                assert!(got.iter().all(|d| d.via == Via::Group && d.from == from));
            }
            assert_eq!(sender.net.features(), tx, "loopback refuses nothing");
            assert_eq!(receiver.net.kernel_drops(), 0);
        }
    }
}

#[test]
fn a_kernel_that_refuses_to_segment_is_sent_plain_datagrams() {
    use std::os::fd::AsFd;
    let to = destination("239.255.74.21", free_port());
    let (mut sender, mut receiver) =
        (Node::sender(&to, Features::default()), Node::receiver(to.addr, Features::default()));
    // Segmentation needs checksums; without them the kernel answers EINVAL.
    let socket = sender.net.sockets[0].socket.as_fd();
    sys::set_int(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let sent = batch(MAX_BATCH, 1436, 100);
    for _ in 0..2 {
        sender.send(to.addr, &sent);
        assert_eq!(bytes(&receiver.receive(sent.len())), sent);
        assert_eq!(sender.net.features(), Features { gso: false, ..Features::default() });
    }
}

#[test]
fn lengths_that_break_the_contract_are_still_sent_whole() {
    let to = destination("239.255.74.2", free_port());
    let (mut sender, mut receiver) =
        (Node::sender(&to, Features::default()), Node::receiver(to.addr, Features::default()));
    let sent: Vec<Vec<u8>> = [7, 7, 9, 3, 3, 0, 5].iter().map(|&n| vec![n as u8; n]).collect();
    sender.send(to.addr, &sent);
    assert_eq!(bytes(&receiver.receive(sent.len())), sent);
}

#[test]
fn several_receivers_on_one_machine_get_the_group_and_answers_of_their_own() {
    let to = destination("239.255.74.3", free_port());
    let mut sender = Node::sender(&to, Features::default());
    let mut receivers: Vec<_> = (0..4).map(|_| Node::receiver(to.addr, Features::default())).collect();
    let sent = batch(50, 1436, 700);
    sender.send(to.addr, &sent);
    for receiver in &mut receivers {
        let got = receiver.receive(50);
        assert_eq!(bytes(&got), sent);
        receiver.send(got[0].from, &[receiver.own(false).to_be_bytes().to_vec()]);
    }
    let joins = sender.receive(4);
    for join in &joins {
        assert_eq!(join.via, Via::Unicast);
        assert_eq!(join.bytes, join.from.port().to_be_bytes());
        sender.send(join.from, std::slice::from_ref(&join.bytes));
    }
    for receiver in &mut receivers {
        let got = receiver.receive(1);
        assert_eq!((got.len(), got[0].via), (1, Via::Unicast));
        assert_eq!(got[0].bytes, receiver.own(false).to_be_bytes());
    }
}

/// Whether loopback carries IPv6 multicast at all, by the standard library's means.
fn plain_ipv6_multicast() -> io::Result<()> {
    let (group, any) =
        (std::net::Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x4a, 3), std::net::Ipv6Addr::UNSPECIFIED);
    let (tx, rx) = (UdpSocket::bind((any, 0))?, UdpSocket::bind((any, 0))?);
    rx.join_multicast_v6(&group, lo().index)?;
    rx.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket2::SockRef::from(&tx).set_multicast_if_v6(lo().index)?;
    tx.send_to(b"?", (group, rx.local_addr()?.port()))?;
    rx.recv(&mut [0; 1]).map(|_| ())
}

#[test]
fn of_a_source_specific_group_only_the_source_is_heard() {
    let to = destination("232.74.1.4", free_port());
    assert!(is_source_specific(to.addr.ip()));
    let families = Families::of(&to.addr);
    let net = UdpNet::receiver(&[lo()], to.addr.port(), families, (Features::default(), None)).unwrap();
    let mut receiver = Node::new(net);
    receiver.net.only_from(to.addr.ip(), IpAddr::from([127, 0, 0, 2]));
    receiver.net.join(to.addr);
    // Again, as while nothing is heard.
    receiver.net.join(to.addr);
    assert!(receiver.net.send_errors().latest.is_none(), "{:?}", receiver.net.send_errors());
    for last in [1, 2] {
        let tx = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).unwrap();
        socket2::SockRef::from(&tx).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        tx.send_to(&[last; 40], to.addr).unwrap();
    }
    let got = receiver.receive(1);
    assert_eq!(bytes(&got), [[2; 40]]);
}

#[test]
fn groups_of_which_the_source_must_be_named() {
    for (group, specific) in [
        ("232.0.0.0", true),
        ("232.255.1.1", true),
        ("231.255.255.255", false),
        ("239.232.1.1", false),
        ("ff35::8000:1", true),
        ("ff3e::1", true),
        ("ff15::1", false),
        ("ff35:30:3fff::1", false),
    ] {
        assert_eq!(is_source_specific(group.parse().unwrap()), specific, "{group}");
    }
}

#[test]
fn ipv6_group_round_trip() {
    if let Err(e) = plain_ipv6_multicast() {
        eprintln!("SKIPPED: IPv6 multicast does not work on this machine's loopback: {e}");
        return;
    }
    let to = destination("ff15::4a:4", free_port());
    let (mut sender, mut receiver) =
        (Node::sender(&to, Features::default()), Node::receiver(to.addr, Features::default()));
    let sent = batch(MAX_BATCH, 1436, 9);
    sender.send(to.addr, &sent);
    let got = receiver.receive(sent.len());
    assert_eq!(bytes(&got), sent);
    receiver.send(got[0].from, &batch(1, 30, 30));
    assert_eq!(sender.receive(1)[0].via, Via::Unicast);
}

#[test]
fn ipv6_unicast_round_trip() {
    let to = destination("::1", free_port());
    if !lo().has_family(true) {
        eprintln!("SKIPPED: no IPv6 on this machine's loopback");
        return;
    }
    let receiver =
        UdpNet::receiver(&[lo()], to.addr.port(), Families::ANY, (Features::default(), None)).unwrap();
    let (mut receiver, mut sender) = (Node::new(receiver), Node::sender(&to, Features::default()));
    let sent = batch(MAX_BATCH, 1436, 9);
    sender.send(to.addr, &sent);
    let got = receiver.receive(sent.len());
    assert_eq!(bytes(&got), sent);
    assert!(got.iter().all(|d| d.via == Via::Group));
    receiver.send(got[0].from, &batch(1, 30, 30));
    assert_eq!(sender.receive(1)[0].from.port(), receiver.own(true));
}

#[test]
fn broadcast_and_plain_addresses_in_place_of_a_group() {
    for ip in ["127.255.255.255", "127.0.0.1"] {
        let to = destination(ip, free_port());
        let (mut sender, mut receiver) =
            (Node::sender(&to, Features::default()), Node::receiver(to.addr, Features::default()));
        let sent = batch(10, 500, 400);
        sender.send(to.addr, &sent);
        let got = receiver.receive(10);
        assert_eq!(bytes(&got), sent);
        assert!(got.iter().all(|d| d.via == Via::Group), "{ip}");
    }
    assert_eq!(destination("127.255.255.255", 1).kind, AddressKind::Broadcast);
}

#[test]
fn a_second_group_and_port_and_a_rejoin_while_polled() {
    let first = destination("239.255.74.5", free_port());
    let second = destination("239.255.74.6", free_port());
    let third = destination("239.255.74.7", first.addr.port());
    let mut receiver = Node::receiver(first.addr, Features::default());
    for to in [second, third, first, first] {
        receiver.net.listen(to.addr);
    }
    assert_eq!(receiver.net.send_errors().refusals, 0);
    for to in [first, second, third] {
        let sent = batch(5, 800, 10);
        Node::sender(&to, Features::default()).send(to.addr, &sent);
        assert_eq!(bytes(&receiver.receive(5)), sent, "{to}");
    }
}

#[test]
fn groups_that_were_not_joined_stay_out() {
    let ours = destination("239.255.74.8", free_port());
    let theirs = destination("239.255.74.9", ours.addr.port());
    let mut receiver = Node::receiver(ours.addr, Features::default());
    let _other = Node::receiver(theirs.addr, Features::default());
    Node::sender(&theirs, Features::default()).send(theirs.addr, &batch(2, 40, 40));
    let sent = batch(1, 30, 30);
    Node::sender(&ours, Features::default()).send(ours.addr, &sent);
    assert_eq!(bytes(&receiver.receive(1)), sent);
}

#[test]
fn a_vanished_page_is_efault_and_nothing_else() {
    let to = destination("239.255.74.10", free_port());
    for features in every_feature_set() {
        let mut sender = Node::sender(&to, features);
        let gone = RawBytes { address: std::ptr::without_provenance(8), len: 1408 };
        let bad = Segment { head: &[1; 28], body: Body::Raw(gone) };
        for segments in [vec![bad], vec![bad; 5], vec![segment(&[2; 1436]), bad, bad]] {
            let e = sender.net.send(to.addr, &segments).unwrap_err();
            assert_eq!(e.raw_os_error(), Some(libc::EFAULT), "{features}");
        }
        assert_eq!((sender.net.features(), sender.net.send_errors().datagrams), (features, 0));
    }
}

#[test]
fn nothing_waiting_is_zero() {
    let to = destination("239.255.74.11", free_port());
    for features in every_feature_set() {
        let mut receiver = Node::receiver(to.addr, features);
        assert_eq!(receiver.net.receive(&mut |_, _| panic!("nothing was sent")).unwrap(), 0);
    }
}

#[test]
fn too_long_datagrams_are_left_out_and_too_long_ones_of_ours_named() {
    let to = destination("239.255.74.12", free_port());
    for features in every_feature_set() {
        let (mut sender, mut receiver) = (Node::sender(&to, features), Node::receiver(to.addr, features));
        sender.send(to.addr, &batch(3, MAX_DATAGRAM + 1, MAX_DATAGRAM + 1));
        sender.send(to.addr, &batch(1, 60_000, 60_000));
        let sent = batch(1, 30, 30);
        sender.send(to.addr, &sent);
        assert_eq!(bytes(&receiver.receive(1)), sent, "{features}");
        let huge = vec![0; 65_530];
        let e = sender.net.send(to.addr, &[segment(&huge)]).unwrap_err().to_string();
        assert!(e.contains("65530 bytes does not fit") && e.contains("--symbol-size"), "{e}");
        // To anyone else it is a datagram lost.
        let other = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        assert_eq!(sender.net.send(other, &[segment(&huge)]).unwrap(), 1);
        assert_eq!(sender.net.send_errors().datagrams, 1);
    }
}

#[test]
fn senseless_addresses_cost_a_datagram_and_no_feature() {
    let to = destination("239.255.74.13", free_port());
    let mut sender = Node::sender(&to, Features::default());
    let sent = batch(3, 100, 100);
    let segments: Vec<_> = sent.iter().map(|d| segment(d)).collect();
    let addresses = ["127.0.0.1:0", "0.0.0.0:9", "[::1]:9", "127.255.255.255:9"];
    for (n, address) in addresses.iter().enumerate() {
        assert_eq!(sender.net.send(address.parse().unwrap(), &segments).unwrap(), 3, "{address}");
        assert_eq!(sender.net.send_errors().datagrams, 3 * (n as u64 + 1), "{address}");
    }
    assert_eq!(sender.net.features(), Features::default());
    let latest = sender.net.send_errors().latest.as_ref().unwrap().to_string();
    assert!(latest.starts_with("cannot send to 127.255.255.255:9: "), "{latest}");
}

#[test]
fn drops_for_want_of_room_are_counted() {
    let to = destination("239.255.74.14", free_port());
    let (mut sender, mut receiver) =
        (Node::sender(&to, Features::NONE), Node::receiver(to.addr, Features::default()));
    let room = receiver.net.describe().join("\n");
    let sent = batch(MAX_BATCH, 8000, 8000);
    for _ in 0..64 {
        sender.send(to.addr, &sent); // 32 MiB, four times what is asked for
    }
    let mut got = Vec::new();
    receiver.drain(&mut got);
    // The count comes along with a datagram received after the drops.
    sender.send(to.addr, &batch(1, 9, 9));
    let last = receiver.receive(1);
    assert_eq!(got.len() + last.len() + receiver.net.kernel_drops() as usize, 64 * MAX_BATCH + 1, "{room}");
    assert!(receiver.net.kernel_drops() > 0, "{room}");
}

#[test]
fn would_block_is_fewer_and_reports_when_writable() {
    let to = destination("239.255.74.15", free_port());
    let mut sender = Node::sender(&to, Features::default());
    let mut events = Events::with_capacity(4);
    sender.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty(), "writable is not reported unasked");
    for _ in 0..2 {
        let blocked = Some(io::ErrorKind::WouldBlock.into());
        assert_eq!(sender.net.settle(0, to.addr, (3, 8), 100, blocked).unwrap(), 3);
        sender.poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(events.iter().any(|e| e.token().0 == 10 && e.is_writable()));
    }
    sender.send(to.addr, &batch(5, 10, 10));
    sender.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty(), "nor after it went through");
}

#[test]
fn passing_send_errors_are_counted_and_others_are_errors() {
    let to = destination("239.255.74.16", free_port());
    let mut sender = Node::sender(&to, Features::default());
    let refusal = |errno| Some(io::Error::from_raw_os_error(errno));
    for errno in [libc::ENOBUFS, libc::EHOSTUNREACH, libc::ECONNREFUSED, libc::EPERM] {
        assert_eq!(sender.net.settle(0, to.addr, (3, 8), 100, refusal(errno)).unwrap(), 8);
    }
    assert_eq!(sender.net.send_errors().datagrams, 20);
    let e = sender.net.settle(0, to.addr, (3, 8), 100, refusal(libc::EIO)).unwrap_err().to_string();
    assert!(e.contains("cannot send to 239.255.74.16") && e.contains("--interface"), "{e}");
}

#[test]
fn a_missing_interface_is_waited_for_and_concerns_the_task_only() {
    let to = destination("239.255.74.21", free_port());
    let mut sender = Node::sender(&to, Features::default());
    let refusal = |errno| Some(io::Error::from_raw_os_error(errno));
    let device = "127.0.0.1:9".parse().unwrap();
    assert_eq!(sender.net.settle(0, device, (0, 2), 100, refusal(libc::ENETUNREACH)).unwrap(), 2);
    assert_eq!((sender.net.send_errors().datagrams, sender.net.outage.is_none()), (2, true));
    for errno in [libc::ENETDOWN, libc::ENETUNREACH, libc::EADDRNOTAVAIL, libc::ENODEV] {
        assert_eq!(sender.net.settle(0, to.addr, (3, 8), 100, refusal(errno)).unwrap(), 3, "{errno}");
        let sent = batch(1, 40, 40);
        assert_eq!(sender.net.send(to.addr, &[segment(&sent[0])]).unwrap(), 0, "too soon to try again");
        let deadline = Instant::now() + PATIENCE;
        while sender.net.send(to.addr, &[segment(&sent[0])]).unwrap() == 0 {
            assert!(Instant::now() < deadline, "{errno}");
            std::thread::yield_now();
        }
        assert!(sender.net.outage.is_none());
    }
    assert_eq!(sender.net.send_errors().datagrams, 2, "nothing of the task's is given up");
    assert!(sender.net.tend().is_empty(), "nothing worth saying: it was there at the next look");
}

#[test]
fn a_port_kept_by_another_program_is_named() {
    let kept = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = kept.local_addr().unwrap().port();
    let Err(e) = UdpNet::receiver(&[lo()], port, V4, (Features::default(), None)) else {
        panic!("port {port} is taken")
    };
    assert!(e.to_string().contains(&format!("udp port {port} is taken")), "{e}");
    let to = destination("239.255.74.17", port);
    let Err(e) = UdpNet::sender(&lo(), &to, Marking::default(), Some(port), (Features::default(), None))
    else {
        panic!("so it is")
    };
    assert_eq!(e.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn the_usual_feedback_port_is_left_to_the_first_sender() {
    let to = destination("239.255.74.18", free_port());
    let open = || UdpNet::sender(&lo(), &to, Marking::default(), None, (Features::default(), None)).unwrap();
    let (first, second) = (open(), open());
    assert_ne!(first.own_port(false), second.own_port(false));
    assert_ne!(second.own_port(false), Some(0));
}

#[test]
fn listening_is_bounded_and_refusals_are_kept() {
    let group = destination("239.255.74.19", free_port());
    let mut receiver = Node::receiver(group.addr, Features::default());
    receiver.net.listen("[ff15::1]:9999".parse().unwrap()); // family not opened at the start: still heard
    let before = receiver.net.send_errors().refusals;
    for _ in 0..UdpNet::MAX_SOCKETS + 2 {
        receiver.net.listen(SocketAddr::from(([239, 255, 74, 19], free_port())));
    }
    assert!(receiver.net.send_errors().refusals > before);
    assert!(receiver.net.send_errors().latest.as_ref().unwrap().to_string().contains("too many ports"));
}

#[test]
fn described_with_buffers_and_features() {
    let to = destination("239.255.74.20", free_port());
    let text = Node::receiver(to.addr, Features::NONE).net.describe().join("\n");
    for part in ["lo (127.0.0.1", "MTU ", "own), buffers: ", "shared), ", "gso off, gro off"] {
        assert!(text.contains(part), "{text}");
    }
}

/// The first byte is the session; 0 is for all.
fn label(bytes: &[u8]) -> Option<Label> {
    let &first = bytes.first()?;
    Some(Label { session: SessionId(u64::from(first)), for_all: first == 0 })
}

fn shared_sender(to: &Destination, port: u16, session: u64) -> io::Result<Node> {
    let features = (Features::default(), Some(label as ReadLabel));
    let mut node = Node::new(UdpNet::sender(&lo(), to, Marking::default(), Some(port), features)?);
    node.net.attend(&[SessionId(session)]);
    Ok(node)
}

fn shared_receiver(group: SocketAddr, sessions: &[u64]) -> Node {
    let features = (Features::default(), Some(label as ReadLabel));
    let net = UdpNet::receiver(&[lo()], group.port(), Families::of(&group), features).unwrap();
    let mut node = Node::new(net);
    node.net.listen(group);
    node.net.attend(&sessions.iter().map(|&n| SessionId(n)).collect::<Vec<_>>());
    node
}

/// Has all of them receive until each has as many as it wants, and a little longer; what each got, sorted.
fn receive_all<const N: usize>(nodes: [&mut Node; N], want: [usize; N]) -> [Vec<Vec<u8>>; N] {
    let mut got: [Vec<Datagram>; N] = std::array::from_fn(|_| Vec::new());
    let end = Instant::now() + PATIENCE;
    let mut enough = None;
    let mut nodes = nodes;
    while enough.is_none_or(|at: Instant| at.elapsed() < Duration::from_millis(20)) {
        assert!(Instant::now() < end, "{got:?}");
        nodes.iter_mut().zip(&mut got).for_each(|(node, got)| node.drain(got));
        if enough.is_none() && got.iter().zip(want).all(|(got, want)| got.len() >= want) {
            enough = Some(Instant::now());
        }
    }
    got.map(|datagrams| {
        let mut all = bytes(&datagrams);
        all.sort();
        all
    })
}

#[test]
fn senders_of_all_kinds_share_the_port_and_other_processes_are_kept_out() {
    let port = free_port();
    let at = free_port();
    let [group, everybody, host] =
        ["239.255.74.22", "127.255.255.255", "127.0.0.1"].map(|ip| destination(ip, at));
    let mut a = shared_sender(&group, port, 1).unwrap();
    let mut b = shared_sender(&group, port, 2).unwrap();
    let mut c = shared_sender(&host, port, 3).unwrap();
    let mut d = shared_sender(&everybody, port, 4).unwrap();
    assert_eq!([&a, &b, &c, &d].map(|node| node.own(false)), [port; 4]);
    for shared in [false, true] {
        let stranger = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        stranger.set_reuse_address(shared).unwrap();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(stranger.bind(&at.into()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
    // Each sends from it, and whatever socket an answer comes in by, it gets to its session.
    let mut receiver = Node::receiver(group.addr, Features::default());
    for node in [&mut a, &mut c, &mut d] {
        let to = node.net.destination.unwrap();
        node.send(to, &batch(1, 30, 30));
        assert_eq!(receiver.receive(1)[0].from.port(), port, "{to}");
    }
    let answer = |device: &mut Node| {
        for n in 1..=4 {
            device.send(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &[vec![n; 40]]);
        }
    };
    answer(&mut receiver);
    let got = receive_all([&mut a, &mut b, &mut c, &mut d], [1; 4]);
    assert_eq!(got, [1, 2, 3, 4].map(|n| vec![vec![n; 40]]));
    drop((b, d));
    answer(&mut receiver);
    let got = receive_all([&mut a, &mut c], [1; 2]).map(|all| all.iter().any(|d| d[0] == 1));
    assert_eq!(got, [true, false], "what is left goes on");
}

#[test]
fn receivers_of_a_process_share_the_group_and_get_what_is_theirs() {
    let to = destination("239.255.74.23", free_port());
    let mut sender = Node::sender(&to, Features::default());
    let mut a = shared_receiver(to.addr, &[1]);
    let mut b = shared_receiver(to.addr, &[2, 3]);
    let other = destination("239.255.74.24", to.addr.port());
    let mut c = shared_receiver(to.addr, &[3]);
    c.net.listen(other.addr);
    let all: Vec<Vec<u8>> = [1, 2, 3, 0, 9].map(|n| vec![n; 50]).into();
    sender.send(to.addr, &all);
    let got = receive_all([&mut a, &mut b, &mut c], [2, 3, 2]);
    let firsts = got.map(|all| all.iter().map(|d| d[0]).collect::<Vec<_>>());
    // What is nobody's is left to the one who leads.
    assert_eq!(firsts, [vec![0, 1, 9], vec![0, 2, 3], vec![0, 3]]);
    // Sent to this machine alone, where the kernel would give it to one socket.
    sender.send(SocketAddr::from((Ipv4Addr::LOCALHOST, to.addr.port())), &all);
    let got = receive_all([&mut a, &mut b, &mut c], [2, 3, 2]).map(|all| all.len());
    assert_eq!(got, [3, 3, 2]);
    // The one who led ends; a group of its own goes with the last who wanted it.
    drop(a);
    let mut second = Node::sender(&other, Features::default());
    second.send(other.addr, &[vec![3; 60]]);
    assert_eq!(receive_all([&mut b, &mut c], [1, 1]), [vec![vec![3; 60]], vec![vec![3; 60]]]);
    drop(c);
    second.send(other.addr, &[vec![2; 70]]);
    sender.send(to.addr, &[vec![2; 80]]);
    assert_eq!(receive_all([&mut b], [1]), [vec![vec![2; 80]]]);
    assert_eq!(b.net.kernel_drops(), 0);
}

#[test]
fn the_one_that_most_is_for_receives() {
    let to = destination("239.255.74.25", free_port());
    let mut sender = Node::sender(&to, Features::default());
    let mut a = shared_receiver(to.addr, &[1]);
    let mut b = shared_receiver(to.addr, &[2]);
    let leads = |node: &Node| node.net.sockets.iter().all(Socket::receives);
    assert!(leads(&a) && !leads(&b));
    for _ in 0..2 {
        sender.send(to.addr, &vec![vec![2; 1000]; 20]);
        receive_all([&mut a, &mut b], [0, 20]);
        a.net.tend();
        b.net.tend();
        assert!(!leads(&a) && leads(&b));
    }
    // It waits for the socket by itself now.
    let mut events = Events::with_capacity(16);
    b.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
    sender.send(to.addr, &[vec![2; 10]]);
    b.poll.poll(&mut events, Some(PATIENCE)).unwrap();
    assert!(!events.is_empty());
}

#[test]
fn a_group_that_others_hear_is_not_joined_anew_for_one_more() {
    let to = destination("239.255.74.26", free_port());
    let mut a = shared_receiver(to.addr, &[1]);
    let mut b = shared_receiver(to.addr, &[2]);
    let joins = |node: &Node, ip: &str| {
        let socket = node.net.sockets.iter().find(|s| s.via == Via::Group).unwrap();
        let share = socket.share.as_ref().unwrap();
        share.wants(Membership { group: ip.parse().unwrap(), source: None }, &lo(), socket)
    };
    assert!(joins(&b, "239.255.74.26"), "asked again, and nothing has been heard yet");
    Node::sender(&to, Features::default()).send(to.addr, &[vec![1; 50], vec![2; 50]]);
    receive_all([&mut a, &mut b], [1, 1]);
    assert!(!joins(&a, "239.255.74.26") && !joins(&b, "239.255.74.26"), "it would be a gap for the other");
    assert!(joins(&b, "239.255.74.27") && joins(&b, "239.255.74.27"), "nobody else's");
    assert!(!joins(&a, "239.255.74.27"), "joined already");
    let groups: std::collections::BTreeSet<_> =
        b.net.sockets.iter().flat_map(|s| s.share.iter()).flat_map(|s| s.forget()).collect();
    assert!(groups.is_empty(), "all are the other's too: {groups:?}");
    let left: Vec<_> = a.net.sockets.iter().flat_map(|s| s.share.iter()).flat_map(|s| s.forget()).collect();
    assert_eq!(left.len(), 2);
}
