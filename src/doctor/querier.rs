//! Group membership: the version of IGMP, whether a querier is on the network, and bridges of this machine that
//! snoop.
//!
//! A switch with snooping forgets members unless a querier asks for them, usually after 260 seconds (RFC 3376,
//! section 8.4). A querier asks every 125 seconds by default.

use super::{Finding, fact, quoted};
use mcp_transfer::net::Interface;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// The interval of queries, and a little more.
const INTERVAL: &str = "130s";
/// The type of an IGMP membership query (RFC 3376).
const IGMP_QUERY: u8 = 0x11;
/// The type of an MLD query (RFC 3810).
const MLD_QUERY: u8 = 130;
/// Longest query that is looked at.
const MAX_QUERY: usize = 2048;
/// Most queriers that are named.
const MAX_QUERIERS: usize = 8;

/// Looks at the interfaces, and listens for queries for some time.
pub fn check(interfaces: &[Interface], listen_for: Duration) -> Vec<Finding> {
    let mut findings: Vec<Finding> = interfaces.iter().filter_map(version).collect();
    let heard = if listen_for.is_zero() { None } else { Some(queries(interfaces, listen_for)) };
    let mut queried = false;
    match heard {
        None => findings.push(
            Finding::ok("querier", "whether a querier is on the network was not looked at")
                .mend(format!("mcp doctor --listen-for {INTERVAL}")),
        ),
        Some(Err(e)) if e.kind() == io::ErrorKind::PermissionDenied => {
            findings.push(Finding::warning("querier", "cannot tell: not root").mend("sudo mcp doctor"));
        }
        Some(Err(e)) => findings.push(Finding::warning("querier", format!("cannot tell: {e}"))),
        Some(Ok(from)) if from.is_empty() => findings.push(Finding::warning(
            "querier",
            "nobody asked for members of groups; a switch that snoops may forget them after some minutes",
        )),
        Some(Ok(from)) => {
            queried = true;
            let from: Vec<String> = from.into_iter().collect();
            findings.push(Finding::ok("querier", format!("{} asks for members of groups", from.join(", "))));
        }
    }
    findings.extend(bridges(queried));
    findings
}

/// The version of IGMP that this machine speaks. The kernel falls back to that of an older querier.
fn version(interface: &Interface) -> Option<Finding> {
    let version = igmp_version(&fact("/proc/net/igmp")?, &interface.name)?;
    let name = &interface.name;
    let key = format!("net.ipv4.conf.{name}.force_igmp_version");
    let forced =
        fact(&format!("/proc/sys/net/ipv4/conf/{name}/force_igmp_version")).is_some_and(|v| v != "0");
    Some(match version {
        3 => Finding::ok("igmp", format!("{name} speaks IGMPv3")),
        old if forced => Finding::warning(
            "igmp",
            format!("{name} is forced to IGMPv{old}; groups of one source need IGMPv3"),
        )
        .mend(format!("sysctl -w {key}=0")),
        old => Finding::warning(
            "igmp",
            format!("{name} speaks IGMPv{old}, as the querier does; groups of one source need IGMPv3"),
        ),
    })
}

/// Finds an interface's line: `2 eth0 : 1 V3`.
fn igmp_version(table: &str, name: &str) -> Option<u8> {
    table.lines().find_map(|line| {
        let (head, tail) = line.split_once(':')?;
        let named = head.split_ascii_whitespace().nth(1)? == name;
        named.then(|| tail.split_ascii_whitespace().nth(1)?.strip_prefix('V')?.parse().ok())?
    })
}

/// Bridges of this machine that learn members without asking for them.
fn bridges(queried: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let setting = |what: &str| fact(&format!("/sys/class/net/{name}/bridge/multicast_{what}"));
        let Some(snooping) = setting("snooping") else { continue };
        let asks = setting("querier").is_some_and(|on| on == "1");
        findings.push(match snooping.as_str() {
            "0" => Finding::ok("snooping", format!("the bridge {name} passes all groups on to all ports")),
            _ if asks => Finding::ok("snooping", format!("the bridge {name} learns members of groups, and asks for them")),
            _ if queried => Finding::ok("snooping", format!("the bridge {name} learns members of groups, and a querier asks")),
            _ => Finding::warning(
                "snooping",
                format!("the bridge {name} learns members of groups, but does not ask for them: it needs a querier"),
            )
            .mend(format!("ip link set {} type bridge mcast_querier 1", quoted(&name))),
        });
    }
    findings
}

/// The addresses that queries came from, until each interface has heard one, or the time is over.
fn queries(interfaces: &[Interface], listen_for: Duration) -> io::Result<BTreeSet<String>> {
    let mut poll = Poll::new()?;
    let mut sockets = Vec::new();
    for i in interfaces {
        for v6 in [false, true].into_iter().filter(|v6| i.has_family(*v6)) {
            let (domain, protocol) = if v6 {
                (Domain::IPV6, Protocol::ICMPV6)
            } else {
                (Domain::IPV4, Protocol::from(libc::IPPROTO_IGMP))
            };
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.bind_device(Some(i.name.as_bytes()))?;
            socket.set_nonblocking(true)?;
            let mut socket = UdpSocket::from_std(socket.into());
            poll.registry().register(&mut socket, Token(sockets.len()), Interest::READABLE)?;
            sockets.push((socket, v6, i.index));
        }
    }
    let until = Instant::now().checked_add(listen_for);
    let (mut from, mut heard) = (BTreeSet::new(), BTreeSet::new());
    let (mut events, mut packet) = (Events::with_capacity(64), [0; MAX_QUERY]);
    while heard.len() < interfaces.len() {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        match poll.poll(&mut events, left) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for (socket, v6, index) in &sockets {
            while let Ok((len, peer)) = socket.recv_from(&mut packet) {
                if is_query(&packet[..len], *v6) {
                    heard.insert(*index);
                    // Every machine may send queries; a few names are enough.
                    if from.len() < MAX_QUERIERS {
                        from.insert(peer.ip().to_string());
                    }
                }
            }
        }
    }
    Ok(from)
}

/// Whether a packet is a membership query. IPv4 packets come with their header.
fn is_query(packet: &[u8], v6: bool) -> bool {
    let header = if v6 { 0 } else { packet.first().map_or(0, |first| usize::from(first & 15) * 4) };
    packet.get(header) == Some(&if v6 { MLD_QUERY } else { IGMP_QUERY })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let table = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                     1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
                     2\teth0      :     2      V2\n";
        assert_eq!((igmp_version(table, "eth0"), igmp_version(table, "lo")), (Some(2), Some(3)));
        assert_eq!((igmp_version(table, "eth1"), igmp_version("a : b", "a")), (None, None));
    }

    #[test]
    fn queries_of_both_families() {
        let mut v4 = [0; 32];
        (v4[0], v4[24]) = (0x46, IGMP_QUERY);
        assert!(is_query(&v4, false) && is_query(&[MLD_QUERY, 0], true));
        assert!(
            !is_query(&v4[..24], false)
                && !is_query(&[], false)
                && !is_query(&[], true)
                && !is_query(&v4, true)
        );
    }
}
