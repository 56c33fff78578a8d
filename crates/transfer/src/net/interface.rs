//! The machine's interfaces at present: index, name, flags, addresses, MTU and link speed, and the defaults that
//! follow from them (rate, symbol size). `choice` chooses among them.

use super::sys;
use crate::limits::{MAX_SYMBOL_SIZE, MIN_SYMBOL_SIZE, SYMBOL_ALIGN, SYMBOL_HEADER_LEN, TAG_RESERVE};
use crate::units::Rate;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the IPv4 and UDP headers.
const V4_OVERHEAD: usize = 20 + 8;
/// Bytes of the IPv6 and UDP headers.
const V6_OVERHEAD: usize = 40 + 8;
/// The MTU assumed for an interface that does not report one: Ethernet's.
const USUAL_MTU: u32 = 1500;

/// One address of an [`Interface`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address itself.
    pub ip: IpAddr,
    /// The broadcast address of its subnet, for IPv4 subnets that have one (RFC 919).
    pub broadcast: Option<Ipv4Addr>,
}

/// A network interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index, never 0.
    pub index: u32,
    /// The name, such as `eth0`.
    pub name: String,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it reports multicast. Loopback usually does not, although it supports it.
    pub multicast: bool,
    /// Whether it leads back to this machine.
    pub loopback: bool,
    /// Whether it leads to exactly one other machine.
    pub point_to_point: bool,
    /// Its addresses of both families, in the kernel's order.
    pub addresses: Vec<InterfaceAddress>,
    /// Longest IP packet, in bytes.
    pub mtu: u32,
    /// Speed of the link in Mbit/s, if the driver reports it.
    pub speed: Option<u32>,
}

impl Interface {
    /// All interfaces, in the kernel's order.
    ///
    /// # Errors
    /// When the system does not list them.
    pub fn list() -> io::Result<Vec<Self>> {
        let mut found: Vec<Self> = Vec::new();
        for entry in getifaddrs()? {
            let at = match found.iter().position(|i| i.name == entry.interface_name) {
                Some(at) => at,
                None => {
                    // An interface may disappear between the two system calls; then it is no candidate.
                    let Ok(index) = if_nametoindex(entry.interface_name.as_str()) else { continue };
                    found.push(Self::without_addresses(entry.interface_name.clone(), index, entry.flags));
                    found.len() - 1
                }
            };
            let ip = |s: &Option<SockaddrStorage>| s.as_ref().and_then(ip_of);
            if let Some(address) = ip(&entry.address) {
                let plain = !entry.flags.contains(InterfaceFlags::IFF_POINTOPOINT);
                let broadcast = match (address, ip(&entry.netmask)) {
                    (IpAddr::V4(a), Some(IpAddr::V4(m))) if plain => subnet_broadcast(a, m),
                    _ => None,
                };
                found[at].addresses.push(InterfaceAddress { ip: address, broadcast });
            }
        }
        Ok(found)
    }

    fn without_addresses(name: String, index: u32, flags: InterfaceFlags) -> Self {
        Self {
            index,
            up: flags.contains(InterfaceFlags::IFF_UP),
            multicast: flags.contains(InterfaceFlags::IFF_MULTICAST),
            loopback: flags.contains(InterfaceFlags::IFF_LOOPBACK),
            point_to_point: flags.contains(InterfaceFlags::IFF_POINTOPOINT),
            addresses: Vec::new(),
            mtu: sys::interface_mtu(&name).unwrap_or(USUAL_MTU),
            speed: link_speed(&name),
            name,
        }
    }

    /// Whether it has an address of the family.
    #[must_use]
    pub fn has_family(&self, v6: bool) -> bool {
        self.address(v6).is_some()
    }

    /// Its first address of the family.
    #[must_use]
    pub fn address(&self, v6: bool) -> Option<IpAddr> {
        self.addresses.iter().map(|a| a.ip).find(|ip| ip.is_ipv6() == v6)
    }

    /// Its first IPv4 address.
    #[must_use]
    pub fn address_v4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|a| match a.ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    }

    /// The speed of its link, if the driver reports it (virtual and wireless ones often do not).
    #[must_use]
    pub fn link_rate(&self) -> Option<Rate> {
        self.speed.map(|mbits| Rate(u64::from(mbits) * 1_000_000))
    }

    /// The largest symbol that fits the MTU with all its headers and the reserve for a tag: a
    /// multiple of [`SYMBOL_ALIGN`] in [`MIN_SYMBOL_SIZE`]`..=`[`MAX_SYMBOL_SIZE`].
    #[must_use]
    pub fn symbol_size(&self, v6: bool) -> u16 {
        let overhead = SYMBOL_HEADER_LEN + TAG_RESERVE + if v6 { V6_OVERHEAD } else { V4_OVERHEAD };
        let room = (self.mtu as usize).saturating_sub(overhead).min(usize::from(MAX_SYMBOL_SIZE));
        let room = u16::try_from(room).unwrap_or(MAX_SYMBOL_SIZE);
        (room - room % SYMBOL_ALIGN).max(MIN_SYMBOL_SIZE)
    }
}

/// `eth0 (10.0.0.5, fe80::1)`.
impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.name.escape_debug())?;
        if self.addresses.is_empty() {
            f.write_str("no address")?;
        }
        for (i, a) in self.addresses.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, a.ip)?;
        }
        f.write_str(")")
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

/// The highest address of the subnet; `None` for /31 (RFC 3021) and /32, which have no broadcast address.
fn subnet_broadcast(ip: Ipv4Addr, mask: Ipv4Addr) -> Option<Ipv4Addr> {
    let host = !u32::from(mask);
    (host > 1).then(|| Ipv4Addr::from(u32::from(ip) | host))
}

/// The speed in Mbit/s from sysfs. Drivers without a value report -1, 0 or 4294967295, or cannot be read.
fn link_speed(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/speed")).ok()?;
    parse_speed(&text)
}

fn parse_speed(text: &str) -> Option<u32> {
    text.trim().parse::<u32>().ok().filter(|&mbits| mbits > 0 && mbits < u32::MAX)
}

/// Whether `ip` is link-local or interface-local, and so ambiguous without an interface.
#[must_use]
pub(super) fn needs_scope(ip: &Ipv6Addr) -> bool {
    let first = ip.segments()[0];
    if ip.is_multicast() { matches!(first & 0xf, 1 | 2) } else { first & 0xffc0 == 0xfe80 }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An interface that is up, for tests of the choice.
    pub(in crate::net) fn made_up(index: u32, name: &str, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|a| {
            let ip: IpAddr = a.parse().unwrap();
            let broadcast = match ip {
                IpAddr::V4(ip) => subnet_broadcast(ip, Ipv4Addr::new(255, 255, 255, 0)),
                IpAddr::V6(_) => None,
            };
            InterfaceAddress { ip, broadcast }
        });
        let loopback = name == "lo";
        Interface {
            index,
            name: name.into(),
            up: true,
            multicast: !loopback,
            loopback,
            point_to_point: false,
            addresses: addresses.collect(),
            mtu: if loopback { 65_536 } else { 1500 },
            speed: None,
        }
    }

    #[test]
    fn loopback_is_listed() {
        let all = Interface::list().unwrap();
        let lo = all.iter().find(|i| i.loopback).expect("a loopback interface");
        assert!(lo.up && lo.index > 0);
        assert_eq!(lo.address_v4(), Some(Ipv4Addr::LOCALHOST));
        assert!(lo.mtu >= 16_384, "mtu {}", lo.mtu);
        assert_eq!(lo.link_rate(), None);
        assert_eq!(lo.addresses[0].broadcast, Some(Ipv4Addr::new(127, 255, 255, 255)));
    }

    #[test]
    fn symbol_sizes_follow_the_mtu() {
        let mut i = made_up(1, "eth0", &["10.0.0.1"]);
        for (mtu, v4, v6) in [
            (1500, 1408, 1408),
            (1499, 1408, 1344),
            (9000, 8896, 8896),
            (1280, 1152, 1152),
            (1400, 1280, 1280),
            (65_536, 8896, 8896),
            (u32::MAX, 8896, 8896),
            (0, 64, 64),
            (100, 64, 64),
        ] {
            i.mtu = mtu;
            assert_eq!((i.symbol_size(false), i.symbol_size(true)), (v4, v6), "mtu {mtu}");
        }
    }

    #[test]
    fn speeds() {
        for (text, want) in
            [("1000\n", Some(1000)), ("-1\n", None), ("0", None), ("4294967295", None), ("", None)]
        {
            assert_eq!(parse_speed(text), want, "{text:?}");
        }
        let mut i = made_up(1, "eth0", &[]);
        i.speed = Some(2500);
        assert_eq!(i.link_rate(), Some(Rate(2_500_000_000)));
    }

    #[test]
    fn broadcast_of_a_subnet() {
        let b = |ip: &str, mask: &str| subnet_broadcast(ip.parse().unwrap(), mask.parse().unwrap());
        assert_eq!(b("10.1.2.3", "255.255.255.0"), Some(Ipv4Addr::new(10, 1, 2, 255)));
        assert_eq!(b("10.1.2.3", "255.255.255.252"), Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(b("10.1.2.3", "255.255.255.254"), None);
        assert_eq!(b("10.1.2.3", "255.255.255.255"), None);
    }

    #[test]
    fn printed_with_its_addresses() {
        assert_eq!(made_up(1, "eth0", &["10.0.0.5", "fe80::1"]).to_string(), "eth0 (10.0.0.5, fe80::1)");
        assert_eq!(made_up(1, "eth0", &[]).to_string(), "eth0 (no address)");
    }
}
