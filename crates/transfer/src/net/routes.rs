//! Reads the kernel's routing: the interface with the default route, and the source address for a destination.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Route flag of the kernel's tables: usable.
const RTF_UP: u32 = 0x1;
/// Route flag of the kernel's tables: rejects on purpose.
const RTF_REJECT: u32 = 0x200;

/// Name of the interface of the default route with the lowest metric, from `/proc/net`. `None` if there is no
/// such route or no such file.
#[must_use]
pub fn default_route(v6: bool) -> Option<String> {
    if v6 {
        default_of_v6(&std::fs::read_to_string("/proc/net/ipv6_route").ok()?)
    } else {
        default_of_v4(&std::fs::read_to_string("/proc/net/route").ok()?)
    }
}

/// Columns: Iface Destination Gateway Flags RefCnt Use Metric Mask ... Numbers are hexadecimal, except for
/// the counters and the metric.
fn default_of_v4(text: &str) -> Option<String> {
    let route = |line: &str| {
        let c: Vec<&str> = line.split_ascii_whitespace().collect();
        let flags = u32::from_str_radix(c.get(3)?, 16).ok()?;
        let usable = flags & RTF_UP != 0 && flags & RTF_REJECT == 0;
        let default = *c.get(1)? == "00000000" && *c.get(7)? == "00000000";
        let metric: u32 = c.get(6)?.parse().ok()?;
        (usable && default).then(|| (metric, c[0].to_owned()))
    };
    text.lines().skip(1).filter_map(route).min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

/// Columns: destination, its prefix length, source, its prefix length, gateway, metric, references, uses,
/// flags, interface. Numbers are hexadecimal.
fn default_of_v6(text: &str) -> Option<String> {
    let route = |line: &str| {
        let c: Vec<&str> = line.split_ascii_whitespace().collect();
        let flags = u32::from_str_radix(c.get(8)?, 16).ok()?;
        let usable = flags & RTF_UP != 0 && flags & RTF_REJECT == 0;
        let default = c[0].bytes().all(|b| b == b'0') && c[1] == "00" && c[3] == "00";
        let metric = u32::from_str_radix(c[5], 16).ok()?;
        (usable && default).then(|| c.get(9).map(|name| (metric, (*name).to_owned())))?
    };
    text.lines().filter_map(route).min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

/// The source address that datagrams to `to` would have. Sends nothing.
///
/// # Errors
/// If there is no route.
pub fn source_towards(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_broadcast(true)?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_route_of_v4_is_the_one_with_the_lowest_metric() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth1\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
            lo\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_of_v4(text).as_deref(), Some("eth1"));
        assert_eq!(default_of_v4("Iface\tDestination\n"), None);
        assert_eq!(default_of_v4("x\ngarbage line\n\n"), None);
    }

    #[test]
    fn default_route_of_v6_leaves_out_reject_routes() {
        let zero = "00000000000000000000000000000000";
        let text = format!(
            "{zero} 00 {zero} 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
             {zero} 00 {zero} 00 fd000000000000000000000000000001 00000200 00000001 00000000 00000003 eth1\n\
             fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth2\n\
             {zero} 00 {zero} 00 {zero} 00000000 00000001 00000000 00200200 lo\n"
        );
        assert_eq!(default_of_v6(&text).as_deref(), Some("eth1"));
        assert_eq!(default_of_v6("short line\n"), None);
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        let to = SocketAddr::from(([127, 0, 0, 9], 9));
        assert!(source_towards(to).unwrap().is_loopback());
    }
}
