//! Sends noise and damaged datagrams to every port of running processes, and forged announces.

use mcp::crypto::derive::Secret;
use mcp::crypto::primitives::REAL;
use mcp::crypto::seal::SealKey;
use mcp::crypto::sign::SigningKey;
use mcp::limits::WIRE_VERSION;
use mcp::protocol::packet_protection::{Found, ReceiverSide, SenderSide, find};
use mcp::units::{BlockIndex, ChannelId, Counter, Digest, Rate, Suite, TaskId};
use mcp::wire::{
    self, Acknowledge, Admit, AdmitVerdict, Announce, Capabilities, Header, Invitation, MessageKind, Object,
    PacketNumber, Phase, TaskKind, Versions, encode_plain,
};
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The open UDP ports of a process, from the kernel's tables.
fn udp_ports(pid: u32) -> Vec<u16> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets: Vec<String> = links
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter_map(|l| Some(l.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string("/proc/net/udp").unwrap_or_default()
        + &fs::read_to_string("/proc/net/udp6").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let inode = *words.get(9)?;
            let port = u16::from_str_radix(words.get(1)?.rsplit(':').next()?, 16).ok()?;
            sockets.iter().any(|s| s == inode).then_some(port)
        })
        .collect()
}

/// A socket that sends to groups on `lo`.
pub fn mouth() -> UdpSocket {
    let mouth = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("socket");
    mouth.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into()).expect("bind");
    mouth.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("send on lo");
    mouth.into()
}

/// A socket that receives the group on `lo`, beside other sockets.
fn ear(group: Ipv4Addr, port: u16) -> UdpSocket {
    let ear = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("socket");
    ear.set_reuse_address(true).expect("reuse");
    ear.bind(&SocketAddrV4::new(group, port).into()).expect("bind");
    ear.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(1)).expect("join on lo");
    ear.set_read_timeout(Some(Duration::from_millis(5))).expect("timeout");
    ear.into()
}

/// What the key of the group's datagrams is derived for (docs/protocol.md).
const STREAM: &str = "mcp 2026-11-21 datagrams to the group v1";

/// A member of the group that forges symbols until told to stop. It listens like a receiver. For each
/// symbol that it hears, it sends copies with a flipped bit, as that symbol and as a symbol of a later
/// block. Returns the number of copies.
pub fn forge_symbols(group: Ipv4Addr, port: u16, key: &Secret, stop: &AtomicBool) -> u64 {
    let (ear, mouth) = (ear(group, port), mouth());
    let groups = [Secret::new(*key.expose())];
    let mut member: Option<(ReceiverSide, SealKey)> = None;
    let mut heard = vec![0; 9000];
    let mut forged = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(n) = ear.recv(&mut heard) else { continue };
        let datagram = &mut heard[..n];
        let Ok(head) = wire::head(datagram) else { continue };
        let Some((side, seal)) = &mut member else {
            if let Some(Found { announce, group_key: Some(at) }) = find(REAL, &groups, &head, datagram) {
                let (session, group) = (head.header.session, &groups[at]);
                let parts: [&[u8]; 2] = [&session.0.to_be_bytes(), &announce.sender.0];
                let seal = SealKey::new(announce.suite, &group.derive(STREAM, &parts));
                let side = ReceiverSide::new(REAL, session, &announce, Some(group), [3; 32]);
                member = side.map(|side| (side, seal));
            }
            continue;
        };
        let Some(opened) = side.open(&head, datagram, || true) else { continue };
        if head.kind != MessageKind::Symbol {
            continue;
        }
        for ahead in [0, 3] {
            let mut body = opened.body.to_vec();
            body[3] = body[3].wrapping_add(ahead);
            *body.last_mut().expect("a payload") ^= 4;
            let number = PacketNumber(head.header.packet_number.0 + 10_000 * (1 + u64::from(ahead)));
            let mut copy = encode_plain(Header { packet_number: number, ..head.header }, &Acknowledge.into());
            copy[3] = MessageKind::Symbol as u8;
            head.protection.mark(&mut copy);
            let tag = seal.seal(number.0, &copy, &mut body);
            copy.extend_from_slice(&body);
            copy.extend_from_slice(&tag);
            forged += u64::from(mouth.send_to(&copy, SocketAddrV4::new(group, port)).is_ok());
        }
    }
    forged
}

/// A socket whose datagrams can have any source port. Needs root's rights.
fn raw_mouth() -> Socket {
    const UDP: i32 = 17;
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(UDP.into())).expect("a raw socket");
    raw.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into()).expect("bind");
    raw.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("send on lo");
    raw
}

/// Sends a datagram to the group from this source port.
fn say_as(raw: &Socket, from: u16, (group, port): (Ipv4Addr, u16), bytes: &[u8]) {
    let len = u16::try_from(8 + bytes.len()).expect("a datagram");
    let mut udp = Vec::from(from.to_be_bytes());
    udp.extend(port.to_be_bytes());
    udp.extend(len.to_be_bytes());
    // Without a checksum.
    udp.extend([0, 0]);
    udp.extend(bytes);
    raw.send_to(&udp, &SocketAddrV4::new(group, port).into()).expect("send");
}

/// Waits for the first hundred symbols in the clear, then sends one of them again in the sender's name, as if so many
/// datagrams had been sent meanwhile. Returns whether it did. Needs root's rights.
pub fn forge_number(group: Ipv4Addr, port: u16, ahead: u64, stop: &AtomicBool) -> bool {
    let (ear, raw) = (ear(group, port), raw_mouth());
    let (mut heard, mut symbols) = (vec![0; 9000], 0);
    while !stop.load(Ordering::Relaxed) {
        let Ok((n, from)) = ear.recv_from(&mut heard) else { continue };
        let Ok(head) = wire::head(&heard[..n]) else { continue };
        symbols += u32::from(head.kind == MessageKind::Symbol);
        if symbols < 100 || head.kind != MessageKind::Symbol {
            continue;
        }
        let number = PacketNumber(head.header.packet_number.0 + ahead);
        heard[13..21].copy_from_slice(&number.0.to_be_bytes());
        say_as(&raw, from.port(), (group, port), &heard[..n]);
        return true;
    }
    false
}

/// Sends a copy with a flipped bit, in the sender's name, for each symbol in the clear, until told to stop. Returns the
/// number of copies. Needs root's rights.
pub fn forge_clear_symbols(group: Ipv4Addr, port: u16, stop: &AtomicBool) -> u64 {
    let (ear, raw) = (ear(group, port), raw_mouth());
    let (mut heard, mut forged) = (vec![0; 9000], 0);
    while !stop.load(Ordering::Relaxed) {
        let Ok((n, from)) = ear.recv_from(&mut heard) else { continue };
        // Its own copies have an odd number.
        if !wire::head(&heard[..n]).is_ok_and(|head| head.kind == MessageKind::Symbol) || heard[20] % 8 != 0 {
            continue;
        }
        heard[n - 1] ^= 4;
        // A symbol of a block that comes later, and another number.
        heard[20] |= 1;
        heard[27] = heard[27].wrapping_add(40);
        say_as(&raw, from.port(), (group, port), &heard[..n]);
        forged += 1;
    }
    forged
}

/// Listens to the group like a receiver. Sends noise, and damaged copies of the datagrams that it hears,
/// to the group and to every port of the processes, until told to stop. Returns the number of datagrams.
pub fn throw_junk(group: Ipv4Addr, port: u16, pids: &[u32], stop: &AtomicBool) -> u64 {
    let (ear, mouth) = (ear(group, port), mouth());

    let mut rng = fastrand::Rng::with_seed(19);
    let mut heard = vec![0; 9000];
    let mut thrown = 0;
    while !stop.load(Ordering::Relaxed) {
        let n = ear.recv(&mut heard).unwrap_or(0);
        let mut junk = heard[..n].to_vec();
        match rng.u8(..4) {
            0 => {
                junk = vec![0; rng.usize(..1500)];
                rng.fill(&mut junk);
            }
            1 => junk.truncate(rng.usize(..=n)),
            2 => junk.resize(rng.usize(n..9000), rng.u8(..)),
            _ => {}
        }
        for _ in 0..rng.usize(1..8) {
            if !junk.is_empty() {
                let at = rng.usize(..junk.len());
                junk[at] = rng.u8(..);
            }
        }
        let mut to = vec![SocketAddrV4::new(group, port), SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)];
        let ports = pids.iter().flat_map(|pid| udp_ports(*pid));
        to.extend(ports.map(|p| SocketAddrV4::new(Ipv4Addr::LOCALHOST, p)));
        for to in to {
            thrown += u64::from(mouth.send_to(&junk, to).is_ok());
        }
    }
    thrown
}

/// The announce of an empty file, by a sender that is gathering.
pub fn announce_of(side: &SenderSide, group: Ipv4Addr, port: u16, name: &str) -> Announce {
    let root = Some(Digest(*blake3::hash(b"").as_bytes()));
    Announce {
        versions: Versions::OURS,
        required: Capabilities::default(),
        optional: Capabilities::default(),
        sender: side.key(),
        agreement: side.agreement(),
        counter: side.counter(),
        suite: side.suite(),
        task: TaskId([7; 16]),
        task_kind: TaskKind::COPY,
        phase: Phase::Gathering,
        symbol_size: 1408,
        data: SocketAddrV4::new(group, port).into(),
        position: BlockIndex(0),
        invitation: Invitation { probability: u16::MAX, window: Duration::ZERO },
        gsize: 1,
        rate: Rate(1_000_000),
        feedback_budget: 1000,
        objects: vec![Object { root, ..Object::file(0, 20) }],
        name: name.into(),
        manifest: Vec::new(),
        one_way: None,
        origin: None,
    }
}

/// Announces a session and admits devices as a sender would, with a name no real sender lets out, until told to stop.
/// Returns whether anybody answered.
pub fn announce_forged(group: Ipv4Addr, port: u16, name: &str, stop: &AtomicBool) -> bool {
    let mouth = mouth();
    mouth.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
    let signing_key = SigningKey::new(&Secret::new([7; 32]));
    let mut side = SenderSide::new(Counter(u64::from(port)), signing_key, [8; 32], Suite::Aes256Gcm, None);
    let session = side.session();
    let mut answer = [0; 2048];
    let mut answered = false;
    for counter in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let header = Header { session, packet_number: PacketNumber::new(ChannelId::GROUP, counter) };
        let announce = announce_of(&side, group, port, name);
        side.announce(&announce);
        let datagram = side.to_all(header, &announce.into());
        mouth.send_to(&datagram, SocketAddrV4::new(group, port)).expect("send");
        let Ok((n, from)) = mouth.recv_from(&mut answer) else { continue };
        answered = true;
        // Whoever wants to join is admitted.
        if let Some(keys) = side.join_clear(from, &answer[..n]).and_then(|clear| side.agree(&clear.agreement))
        {
            let header = Header { session, packet_number: PacketNumber::new(ChannelId::REPLIES, counter) };
            let (verdict, channel) = (AdmitVerdict::Admitted, ChannelId(1));
            let (version, capabilities) = (WIRE_VERSION, Capabilities::default());
            let admit = Admit { verdict, channel, version, capabilities, ticket: None };
            mouth.send_to(&side.to_one(&keys, header, &admit.into()), from).expect("send");
        }
    }
    answered
}
