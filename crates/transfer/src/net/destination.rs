//! The GROUP argument: a multicast group, a broadcast address or the address of one machine, with an optional
//! port and, for link-local IPv6, an optional interface (`ff02::1%eth0`).

use super::interface::{Interface, needs_scope};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

/// The kind of a destination address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// A multicast group.
    Multicast,
    /// All machines of a subnet.
    Broadcast,
    /// One machine.
    Unicast,
}

/// The destination of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Address and port; with the scope of a link-local IPv6 address, if known.
    pub addr: SocketAddr,
    /// The kind of the address.
    pub kind: AddressKind,
    /// Whether the text contained the port.
    pub port_given: bool,
}

/// A group to listen to. With a source, only datagrams from that address arrive (source-specific multicast, RFC 4607).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// The group.
    pub group: IpAddr,
    /// The only source, of the same family.
    pub source: Option<IpAddr>,
}

/// Whether a group takes datagrams only from sources that its members name: 232/8 and ff3x::/32 (RFC 4607).
#[must_use]
pub const fn is_source_specific(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.octets()[0] == 232,
        IpAddr::V6(group) => matches!(group.segments(), [0xff30..=0xff3f, 0, ..]),
    }
}

/// How datagrams are marked for the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marking {
    /// Hops that a datagram to a group may take.
    pub ttl: u8,
    /// The differentiated services code point of all datagrams (RFC 2474), 0 to 63.
    pub dscp: u8,
}

impl Default for Marking {
    fn default() -> Self {
        Self { ttl: 1, dscp: 0 }
    }
}

/// Why a text is not a destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDestination(String);

impl Destination {
    /// Parses `239.1.1.1`, `ff15::1`, `ff02::1%eth0`, `10.0.0.7`, `239.1.1.1:7000` or `[ff15::1]:7000`. The
    /// port is `default_port` unless given. Reads the machine's interfaces to recognize broadcast addresses
    /// and to resolve named scopes.
    ///
    /// # Errors
    /// If the text is not an address, or one that nothing can be sent to.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, InvalidDestination> {
        // Without a list, broadcast addresses of subnets count as single machines. Choosing an interface then
        // fails with the reason.
        Self::parse_with(text, default_port, &Interface::list().unwrap_or_default())
    }

    /// The multicast group `group` at `port`.
    #[must_use]
    pub const fn group(group: IpAddr, port: u16) -> Self {
        Self { addr: SocketAddr::new(group, port), kind: AddressKind::Multicast, port_given: true }
    }

    /// [`Self::parse`] with a given list of interfaces.
    ///
    /// # Errors
    /// If the text is not an address, or one that nothing can be sent to.
    pub fn parse_with(
        text: &str,
        default_port: u16,
        interfaces: &[Interface],
    ) -> Result<Self, InvalidDestination> {
        let shown = text.escape_debug();
        let refuse = |why: &str| Err(InvalidDestination(format!("\"{shown}\" {why}")));
        let Some((address, port)) = split_port(text) else {
            return refuse(
                "is no address; give a group such as 239.1.1.1, 239.1.1.1:7417 or [ff15::1]:7417, or the address of \
                 one machine",
            );
        };
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port)) if port != 0 => Some(port),
            Some(_) => return refuse("has no valid port; give one from 1 to 65535"),
        };
        let (address, zone) = match address.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (address, None),
        };
        let Ok(ip) = address.parse::<IpAddr>() else {
            return refuse(
                "is no IP address; give a group such as 239.1.1.1 or ff15::1, or the address of one machine",
            );
        };
        if let Some(why) = unusable(ip) {
            return refuse(why);
        }
        let port_given = port.is_some();
        let port = port.unwrap_or(default_port);
        let addr = match (ip, zone) {
            (IpAddr::V4(_), Some(_)) => {
                return refuse("has a scope, which only IPv6 addresses have; use --interface");
            }
            (IpAddr::V4(ip), None) => SocketAddr::from((ip, port)),
            (IpAddr::V6(ip), None) => SocketAddrV6::new(ip, port, 0, 0).into(),
            (IpAddr::V6(ip), Some(_)) if !needs_scope(&ip) => {
                return refuse("has a scope, which only link-local addresses have; use --interface");
            }
            (IpAddr::V6(ip), Some(zone)) => match scope(zone, interfaces) {
                Some(scope) => SocketAddrV6::new(ip, port, 0, scope).into(),
                None => return refuse("names an interface that does not exist"),
            },
        };
        Ok(Self { addr, kind: kind_of(ip, interfaces), port_given })
    }

    /// The destination as reached by `interface`: with the interface's index as the scope, if the address
    /// needs one and has none.
    #[must_use]
    pub fn on(mut self, interface: &Interface) -> Self {
        if let SocketAddr::V6(v6) = &mut self.addr
            && needs_scope(v6.ip())
            && v6.scope_id() == 0
        {
            v6.set_scope_id(interface.index);
        }
        self
    }

    /// Whether it is an IPv6 address.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.addr.is_ipv6()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

/// Splits the port off. A bare IPv6 address has colons and no port; with a port it has brackets.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((address, Some(port))),
            None => rest.is_empty().then_some((address, None)),
        };
    }
    match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => Some((address, Some(port))),
        _ => Some((text, None)),
    }
}

fn scope(zone: &str, interfaces: &[Interface]) -> Option<u32> {
    let index = zone.parse().ok();
    interfaces.iter().find(|i| i.name == zone || Some(i.index) == index).map(|i| i.index)
}

/// Why nothing can be sent to `ip`.
fn unusable(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [255, 255, 255, 255] => None,
            [0, ..] => Some("is no address to send to; give a group such as 239.1.1.1"),
            [240..=255, ..] => Some("is reserved (class E); give a group such as 239.1.1.1"),
            [224, 0, 0, 0] => Some("is reserved; give a group such as 239.1.1.1"),
            _ => None,
        },
        IpAddr::V6(ip) if ip.is_unspecified() => {
            Some("is no address to send to; give a group such as ff15::1")
        }
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            Some("is an IPv4 address in IPv6 clothes; write it as IPv4, such as 239.1.1.1")
        }
        // RFC 4291, section 2.7: scopes 0 and F are reserved.
        IpAddr::V6(ip) if ip.is_multicast() && matches!(ip.segments()[0] & 0xf, 0 | 0xf) => {
            Some("has a reserved scope; give a group such as ff15::1")
        }
        IpAddr::V6(_) => None,
    }
}

fn kind_of(ip: IpAddr, interfaces: &[Interface]) -> AddressKind {
    let broadcast = |ip: Ipv4Addr| {
        ip.is_broadcast()
            || interfaces.iter().flat_map(|i| &i.addresses).any(|a| a.broadcast == Some(ip) && a.ip != ip)
    };
    match ip {
        ip if ip.is_multicast() => AddressKind::Multicast,
        IpAddr::V4(ip) if broadcast(ip) => AddressKind::Broadcast,
        _ => AddressKind::Unicast,
    }
}

#[cfg(test)]
mod tests {
    use super::super::interface::tests::made_up;
    use super::*;

    fn parse(text: &str) -> Result<Destination, InvalidDestination> {
        let interfaces =
            [made_up(1, "lo", &["127.0.0.1", "::1"]), made_up(7, "eth0", &["10.0.0.5", "fe80::5"])];
        Destination::parse_with(text, 7417, &interfaces)
    }

    #[test]
    fn destinations() {
        use AddressKind::{Broadcast, Multicast, Unicast};
        for (text, addr, kind, port_given) in [
            ("239.1.1.1", "239.1.1.1:7417", Multicast, false),
            ("224.0.0.1", "224.0.0.1:7417", Multicast, false),
            ("239.1.1.1:7000", "239.1.1.1:7000", Multicast, true),
            ("ff15::1", "[ff15::1]:7417", Multicast, false),
            ("[ff15::1]", "[ff15::1]:7417", Multicast, false),
            ("[ff15::1]:7000", "[ff15::1]:7000", Multicast, true),
            ("ff02::1%eth0", "[ff02::1%7]:7417", Multicast, false),
            ("ff02::1%7", "[ff02::1%7]:7417", Multicast, false),
            ("[ff12::1%eth0]:9", "[ff12::1%7]:9", Multicast, true),
            ("ff02::1", "[ff02::1]:7417", Multicast, false),
            ("255.255.255.255", "255.255.255.255:7417", Broadcast, false),
            ("10.0.0.255", "10.0.0.255:7417", Broadcast, false),
            ("10.0.1.255", "10.0.1.255:7417", Unicast, false),
            ("10.0.0.9:65535", "10.0.0.9:65535", Unicast, true),
            ("127.0.0.1", "127.0.0.1:7417", Unicast, false),
            ("fe80::9%eth0", "[fe80::9%7]:7417", Unicast, false),
            ("2001:db8::9", "[2001:db8::9]:7417", Unicast, false),
        ] {
            let d = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((d.addr, d.kind, d.port_given), (addr.parse().unwrap(), kind, port_given), "{text}");
        }
    }

    #[test]
    fn refusals_name_the_text_and_the_way_out() {
        for (text, part) in [
            ("", "is no IP address"),
            ("lab", "is no IP address"),
            ("239.1.1", "is no IP address"),
            ("239.1.1.256", "is no IP address"),
            ("\u{1b}[2J", "\"\\u{1b}[2J\" is no IP address"),
            ("0.0.0.0", "no address to send to"),
            ("0.1.2.3", "no address to send to"),
            ("240.0.0.1", "class E"),
            ("255.255.255.254", "class E"),
            ("224.0.0.0", "reserved"),
            ("239.1.1.1:0", "port"),
            ("239.1.1.1:", "port"),
            ("239.1.1.1:65536", "port"),
            ("239.1.1.1:http", "port"),
            ("[ff15::1]:0", "port"),
            ("[ff15::1", "is no address"),
            ("[ff15::1]7000", "is no address"),
            ("::", "no address to send to"),
            ("::ffff:10.0.0.1", "write it as IPv4"),
            ("ff00::1", "reserved scope"),
            ("ff1f::1", "reserved scope"),
            ("239.1.1.1%eth0", "only IPv6"),
            ("ff15::1%eth0", "only link-local"),
            ("ff02::1%eth9", "interface that does not exist"),
        ] {
            let e = parse(text).expect_err(text).to_string();
            assert!(e.contains(part), "{text:?}: {e}");
        }
    }

    #[test]
    fn scope_comes_from_the_interface() {
        let eth0 = made_up(7, "eth0", &["fe80::5"]);
        let on = |text: &str| parse(text).unwrap().on(&eth0).to_string();
        assert_eq!(on("ff02::9"), "[ff02::9%7]:7417");
        assert_eq!(on("fe80::9"), "[fe80::9%7]:7417");
        assert_eq!(on("ff15::9"), "[ff15::9]:7417");
        assert_eq!(on("239.1.1.1"), "239.1.1.1:7417");
    }
}
