//! Chooses the interface. A named one is used if it is suitable. Otherwise the choice is the one that a person
//! would make, or an error that lists the candidates:
//!
//! - To send to a multicast group: the only interface that is up, supports multicast, is not loopback, and has an
//!   address of the family (a link-local one counts). Of several, the one with the default route of the family,
//!   because the other machines are most likely there. Failing that, an error.
//! - To send to a broadcast or unicast address: the one that the kernel's routing uses.
//! - To receive: every interface that could carry a group; loopback if there is none.

use super::destination::{AddressKind, Destination};
use super::interface::{Interface, needs_scope};
use super::routes;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Why no interface could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// No interface has that name or address.
    #[error("there is no interface {name}; name one that the machine has: {candidates}")]
    Unknown {
        /// The requested name, escaped.
        name: String,
        /// All interfaces.
        candidates: String,
    },
    /// The named interface is switched off.
    #[error("interface {name} is down; switch it on or name another with --interface")]
    Down {
        /// Its name.
        name: String,
    },
    /// The named interface has no address of the family needed.
    #[error("interface {name} has no {family} address; give it one or name another with --interface")]
    NoAddress {
        /// Its name.
        name: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// The destination's scope names another interface.
    #[error("{destination} is on interface {scope}, not on {name}; leave one of the two out")]
    OtherScope {
        /// The destination.
        destination: Destination,
        /// The interface in the scope.
        scope: String,
        /// The requested interface.
        name: String,
    },
    /// Several interfaces are suitable.
    #[error("several interfaces could carry {what}: {candidates}; name one with --interface")]
    Several {
        /// The destination.
        what: String,
        /// These interfaces.
        candidates: String,
    },
    /// No interface is suitable.
    #[error(
        "no interface is up with multicast and an {family} address, as {what} needs (the machine has {candidates}); \
         name one with --interface (loopback reaches this machine only)"
    )]
    Nothing {
        /// The destination, or receiving.
        what: String,
        /// `IPv4`, `IPv6` or `IP`.
        family: &'static str,
        /// All interfaces.
        candidates: String,
    },
    /// A link-local address is ambiguous without its interface.
    #[error(
        "{0} is link-local and needs its interface; name it with --interface or write it as ADDRESS%NAME"
    )]
    NeedsScope(Destination),
    /// The kernel has no route.
    #[error("no route to {destination} ({source}); check the network or name an interface with --interface")]
    NoRoute {
        /// The destination.
        destination: Destination,
        /// The kernel's error.
        source: io::Error,
    },
    /// The system does not list its interfaces.
    #[error("cannot list the network interfaces: {0}")]
    System(#[from] io::Error),
}

impl InterfaceError {
    /// Whether waiting may help, with the same command.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Down { .. } | Self::NoAddress { .. } | Self::Nothing { .. })
    }
}

/// Chooses the interface for sending to `destination`. `named` is the name or an address of an interface.
///
/// # Errors
/// If the named interface does not exist or is not suitable, or the choice is ambiguous; the text lists the
/// candidates.
pub fn choose(named: Option<&str>, destination: &Destination) -> Result<Interface, InterfaceError> {
    let all = Interface::list()?;
    let mut chosen = choose_from(&all, named, destination, &System)?.clone();
    // If the interface is named by one of its addresses, this address is the source address.
    let named = named.and_then(|name| name.parse::<IpAddr>().ok());
    chosen.addresses.sort_by_key(|address| Some(address.ip) != named);
    Ok(chosen)
}

/// Chooses the interfaces to receive on: the named one, or all that could carry a group (of the family of
/// `group`, if given), or loopback if there is none.
///
/// # Errors
/// If the named interface does not exist or is not suitable, or there is none at all.
pub fn choose_all_for_receive(
    named: Option<&str>,
    group: Option<&Destination>,
) -> Result<Vec<Interface>, InterfaceError> {
    let all = Interface::list()?;
    Ok(receivers_from(&all, named, group)?.into_iter().cloned().collect())
}

/// The choice of the interfaces to receive on. It is repeated when the network changes.
#[derive(Clone, Debug)]
pub struct ReceiveChoice {
    named: Option<String>,
    group: Option<Destination>,
}

impl ReceiveChoice {
    /// A choice with the arguments of [`choose_all_for_receive`].
    #[must_use]
    pub const fn new(named: Option<String>, group: Option<Destination>) -> Self {
        Self { named, group }
    }

    /// The interfaces at present. An interface that was named by an address is known by its name from then
    /// on, because the address may change.
    ///
    /// # Errors
    /// As [`choose_all_for_receive`].
    pub fn choose(&mut self) -> Result<Vec<Interface>, InterfaceError> {
        let found = choose_all_for_receive(self.named.as_deref(), self.group.as_ref())?;
        if let (Some(named), [only]) = (&mut self.named, found.as_slice()) {
            named.clone_from(&only.name);
        }
        Ok(found)
    }
}

/// The questions that the choice asks the kernel.
trait Routing {
    fn default_route(&self, v6: bool) -> Option<String>;
    fn source_towards(&self, to: SocketAddr) -> io::Result<IpAddr>;
}

struct System;
impl Routing for System {
    fn default_route(&self, v6: bool) -> Option<String> {
        routes::default_route(v6)
    }
    fn source_towards(&self, to: SocketAddr) -> io::Result<IpAddr> {
        routes::source_towards(to)
    }
}

fn choose_from<'a>(
    all: &'a [Interface],
    named: Option<&str>,
    destination: &Destination,
    routing: &dyn Routing,
) -> Result<&'a Interface, InterfaceError> {
    let v6 = destination.is_v6();
    let scope = scope_of(destination).and_then(|index| all.iter().find(|i| i.index == index));
    if let Some(name) = named {
        let found = find_named(all, name)?;
        if let Some(scope) = scope.filter(|s| s.index != found.index) {
            return Err(InterfaceError::OtherScope {
                destination: *destination,
                scope: scope.name.clone(),
                name: found.name.clone(),
            });
        }
        return usable(found, v6);
    }
    if let Some(scope) = scope {
        return usable(scope, v6);
    }
    match destination.kind {
        AddressKind::Multicast => {
            let able: Vec<&Interface> =
                all.iter().filter(|i| carries_groups(i) && i.has_family(v6)).collect();
            match able[..] {
                [] => Err(nothing(all, destination.to_string(), family(v6))),
                [only] => Ok(only),
                _ => by_default_route(&able, v6, routing).ok_or_else(|| InterfaceError::Several {
                    what: destination.to_string(),
                    candidates: names(able.iter().copied()),
                }),
            }
        }
        AddressKind::Broadcast | AddressKind::Unicast => {
            if let SocketAddr::V6(a) = destination.addr
                && needs_scope(a.ip())
            {
                return Err(InterfaceError::NeedsScope(*destination));
            }
            // A subnet's broadcast address belongs to its interface, whatever the routes say.
            let owner = |i: &&Interface| {
                i.up && i.addresses.iter().any(|a| a.broadcast.map(IpAddr::V4) == Some(destination.addr.ip()))
            };
            if let Some(found) = all.iter().find(owner) {
                return Ok(found);
            }
            let no_route = |source| InterfaceError::NoRoute { destination: *destination, source };
            let source = routing.source_towards(destination.addr).map_err(no_route)?;
            all.iter()
                .find(|i| i.addresses.iter().any(|a| a.ip == source))
                .or_else(|| all.iter().find(|i| source.is_loopback() && i.loopback))
                .ok_or_else(|| no_route(io::ErrorKind::AddrNotAvailable.into()))
        }
    }
}

fn receivers_from<'a>(
    all: &'a [Interface],
    named: Option<&str>,
    group: Option<&Destination>,
) -> Result<Vec<&'a Interface>, InterfaceError> {
    let wanted = group.map(Destination::is_v6);
    let suits = |i: &Interface| match wanted {
        Some(v6) => i.has_family(v6),
        None => !i.addresses.is_empty(),
    };
    if let Some(name) = named {
        let found = find_named(all, name)?;
        return match wanted {
            Some(v6) => usable(found, v6).map(|i| vec![i]),
            None => usable(found, false).or_else(|_| usable(found, true)).map(|i| vec![i]),
        };
    }
    if let Some(index) = group.and_then(scope_of)
        && let Some(found) = all.iter().find(|i| i.index == index)
    {
        return usable(found, true).map(|i| vec![i]);
    }
    let mut able: Vec<&Interface> = all.iter().filter(|i| carries_groups(i) && suits(i)).collect();
    if able.is_empty() {
        able.extend(all.iter().filter(|i| i.up && i.loopback && suits(i)));
    }
    if able.is_empty() {
        return Err(nothing(all, "receiving".into(), wanted.map_or("IP", family)));
    }
    Ok(able)
}

fn carries_groups(i: &Interface) -> bool {
    i.up && i.multicast && !i.loopback
}

fn scope_of(destination: &Destination) -> Option<u32> {
    match destination.addr {
        SocketAddr::V6(a) if a.scope_id() != 0 => Some(a.scope_id()),
        _ => None,
    }
}

fn find_named<'a>(all: &'a [Interface], name: &str) -> Result<&'a Interface, InterfaceError> {
    let ip: Option<IpAddr> = name.split('%').next().and_then(|a| a.parse().ok());
    all.iter()
        .find(|i| i.name == name)
        .or_else(|| all.iter().find(|i| i.addresses.iter().any(|a| Some(a.ip) == ip)))
        .ok_or_else(|| InterfaceError::Unknown {
            name: name.escape_debug().to_string(),
            candidates: names(all),
        })
}

fn usable(i: &Interface, v6: bool) -> Result<&Interface, InterfaceError> {
    if !i.up {
        return Err(InterfaceError::Down { name: i.name.clone() });
    }
    if !i.has_family(v6) {
        return Err(InterfaceError::NoAddress { name: i.name.clone(), family: family(v6) });
    }
    Ok(i)
}

fn by_default_route<'a>(able: &[&'a Interface], v6: bool, routing: &dyn Routing) -> Option<&'a Interface> {
    let name = routing.default_route(v6)?;
    able.iter().copied().find(|i| i.name == name)
}

fn nothing(all: &[Interface], what: String, family: &'static str) -> InterfaceError {
    InterfaceError::Nothing { what, family, candidates: names(all) }
}

const fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

fn names<'a>(interfaces: impl IntoIterator<Item = &'a Interface>) -> String {
    let mut text = String::new();
    for i in interfaces {
        let _ = write!(text, "{}{i}", if text.is_empty() { "" } else { ", " });
    }
    if text.is_empty() { "none".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::interface::tests::made_up;
    use super::*;

    #[derive(Default)]
    struct Fake {
        default: Option<&'static str>,
        source: Option<IpAddr>,
    }
    impl Routing for Fake {
        fn default_route(&self, _: bool) -> Option<String> {
            self.default.map(Into::into)
        }
        fn source_towards(&self, _: SocketAddr) -> io::Result<IpAddr> {
            self.source.ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
        }
    }

    fn world() -> Vec<Interface> {
        let mut down = made_up(5, "eth9", &["10.9.0.1"]);
        down.up = false;
        vec![
            made_up(1, "lo", &["127.0.0.1", "::1"]),
            made_up(2, "eth0", &["10.0.0.5", "fe80::5"]),
            made_up(3, "eth1", &["10.1.0.5"]),
            made_up(4, "bare", &[]),
            down,
        ]
    }

    fn pick(all: &[Interface], named: Option<&str>, to: &str, fake: &Fake) -> Result<String, String> {
        let to = Destination::parse_with(to, 7417, all).unwrap();
        choose_from(all, named, &to, fake).map(|i| i.name.clone()).map_err(|e| e.to_string())
    }

    #[test]
    fn named_by_name_or_address() {
        let (all, fake) = (world(), Fake::default());
        let ok = |named, to: &str, want: &str| assert_eq!(pick(&all, Some(named), to, &fake).unwrap(), want);
        ok("eth1", "239.1.1.1", "eth1");
        ok("10.1.0.5", "239.1.1.1", "eth1");
        ok("lo", "239.1.1.1", "lo");
        ok("fe80::5", "ff15::1", "eth0");
        ok("eth1", "10.0.0.9", "eth1");
        ok("eth0", "ff02::1%eth0", "eth0");
        let no = |named, to: &str, part: &str| {
            let e = pick(&all, Some(named), to, &fake).unwrap_err();
            assert!(e.contains(part), "{e}");
        };
        no(
            "eth7",
            "239.1.1.1",
            "there is no interface eth7; name one that the machine has: lo (127.0.0.1, ::1), eth0 (",
        );
        no("10.5.5.5", "239.1.1.1", "there is no interface 10.5.5.5");
        no("eth9", "239.1.1.1", "is down");
        no("eth1", "ff15::1", "eth1 has no IPv6 address");
        no("eth1", "ff02::1%eth0", "on interface eth0, not on eth1");
    }

    #[test]
    fn multicast_not_named() {
        let all = world();
        let default = |name| Fake { default: Some(name), ..Fake::default() };
        assert_eq!(pick(&all, None, "239.1.1.1", &default("eth1")).unwrap(), "eth1");
        assert_eq!(pick(&all, None, "ff15::1", &Fake::default()).unwrap(), "eth0");
        assert_eq!(pick(&all[..2], None, "239.1.1.1", &Fake::default()).unwrap(), "eth0");
        assert_eq!(pick(&all, None, "ff02::1%lo", &Fake::default()).unwrap(), "lo");
        let e = pick(&all, None, "239.1.1.1", &Fake::default()).unwrap_err();
        assert_eq!(
            e,
            "several interfaces could carry 239.1.1.1:7417: eth0 (10.0.0.5, fe80::5), eth1 (10.1.0.5); \
             name one with --interface"
        );
        assert!(pick(&all, None, "239.1.1.1", &default("ppp0")).unwrap_err().contains("several"));
        let e = pick(&all[..1], None, "239.1.1.1", &default("lo")).unwrap_err();
        assert!(e.contains("no interface is up with multicast and an IPv4 address"), "{e}");
        assert!(e.contains("lo (127.0.0.1, ::1)"), "{e}");
    }

    #[test]
    fn unicast_and_broadcast_go_by_the_routes() {
        let all = world();
        let source = |ip: &str| Fake { source: Some(ip.parse().unwrap()), ..Fake::default() };
        assert_eq!(pick(&all, None, "10.7.7.7", &source("10.1.0.5")).unwrap(), "eth1");
        assert_eq!(pick(&all, None, "127.3.3.3", &source("127.3.3.3")).unwrap(), "lo");
        assert_eq!(pick(&all, None, "255.255.255.255", &source("10.0.0.5")).unwrap(), "eth0");
        assert_eq!(pick(&all, None, "10.1.0.255", &Fake::default()).unwrap(), "eth1");
        assert!(
            pick(&all, None, "10.7.7.7", &Fake::default()).unwrap_err().contains("no route to 10.7.7.7:7417")
        );
        assert!(pick(&all, None, "fe80::9", &Fake::default()).unwrap_err().contains("link-local"));
        assert_eq!(pick(&all, None, "fe80::9%eth0", &Fake::default()).unwrap(), "eth0");
    }

    #[test]
    fn receiving() {
        let all = world();
        let pick = |all: &[Interface], named, group: Option<&str>| {
            let group = group.map(|g| Destination::parse_with(g, 7417, all).unwrap());
            receivers_from(all, named, group.as_ref())
                .map(|v| v.iter().map(|i| i.name.clone()).collect::<Vec<_>>().join(" "))
                .map_err(|e| e.to_string())
        };
        assert_eq!(pick(&all, None, None).unwrap(), "eth0 eth1");
        assert_eq!(pick(&all, None, Some("ff15::1")).unwrap(), "eth0");
        assert_eq!(pick(&all, None, Some("ff02::1%lo")).unwrap(), "lo");
        assert_eq!(pick(&all[..1], None, None).unwrap(), "lo");
        assert_eq!(pick(&all, Some("lo"), None).unwrap(), "lo");
        assert!(pick(&all, Some("bare"), None).unwrap_err().contains("bare has no"));
        assert!(pick(&all, Some("eth1"), Some("ff15::1")).unwrap_err().contains("no IPv6 address"));
        assert!(pick(&all[3..], None, None).unwrap_err().contains("an IP address"));
    }

    #[test]
    fn the_real_machine_reaches_itself_by_loopback() {
        let to = Destination::parse("127.0.0.1", 7417).unwrap();
        assert!(choose(None, &to).unwrap().loopback);
    }
}
