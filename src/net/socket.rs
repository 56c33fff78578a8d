//! One UDP socket with everything it should have: buffers, path MTU rules, GRO, the drop count,
//! memberships; and receiving a batch from it.

use super::destination::{AddressKind, Destination};
use super::features::Features;
use super::interface::Interface;
use super::{portable, routes};
use crate::units::{Arrival, Via};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

#[cfg(target_os = "linux")]
use super::sys;
#[cfg(target_os = "linux")]
use crate::limits::MAX_DATAGRAM;
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
#[cfg(target_os = "linux")]
use std::time::{Duration, Instant, SystemTime};

/// Socket buffers asked for, each way: a tenth of a second at 640 Mbit/s. The system may give less.
const BUFFER_BYTES: usize = 8 << 20;
/// Below this, a refused buffer size is not halved any more.
const LEAST_BUFFER_BYTES: usize = 64 << 10;

/// Room for one message that the kernel put together: an IP packet's most, and a little more, so
/// that the first lines of all messages do not compete for the same few places in the cache.
#[cfg(target_os = "linux")]
const COALESCED: usize = (64 << 10) + 23 * 64;
/// Room for one datagram, longer than any that is taken, so that longer ones show.
const SINGLE: usize = (16 << 10) + 23 * 64;
/// Bytes of the receive arena; those that no message needs are never touched.
#[cfg(target_os = "linux")]
const ARENA: usize = COALESCED * sys::MAX_RECEIVE;
#[cfg(not(target_os = "linux"))]
const ARENA: usize = SINGLE;
/// Bytes to be received at one go, about: what the processor's own cache holds until they are
/// handled.
#[cfg(target_os = "linux")]
const BATCH_BYTES: usize = 1 << 20;
/// Fewest messages asked for at one go.
#[cfg(target_os = "linux")]
const LEAST_RECEIVE: usize = 16;

/// The buffer that all sockets of an endpoint receive into.
pub(super) struct Arena {
    bytes: Vec<u8>,
    /// Length of the messages that came last, on the mean.
    #[cfg(target_os = "linux")]
    usual: usize,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; ARENA],
            #[cfg(target_os = "linux")]
            usual: COALESCED,
        }
    }
}

/// What one [`Socket::receive`] brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) datagrams: usize,
    /// As much as was asked for: more may be waiting.
    pub(super) full: bool,
}

/// What a [`Socket`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Shares a well-known port with other programs and joins groups.
    Group,
    /// Has a port of its own.
    Own,
}

/// A non-blocking UDP socket of one family.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) socket: UdpSocket,
    pub(super) via: Via,
    pub(super) v6: bool,
    /// The port that it is bound to.
    pub(super) port: u16,
    /// Bytes of buffer that the system gave.
    pub(super) receive_buffer: usize,
    pub(super) send_buffer: usize,
    /// Registered for writability as well, since a send would have blocked.
    pub(super) blocked: bool,
    /// Datagrams dropped by the kernel for want of room, about.
    pub(super) drops: u64,
    /// The kernel's own count, which wraps.
    #[cfg(target_os = "linux")]
    drops_seen: u32,
    /// When nothing was waiting, last.
    #[cfg(target_os = "linux")]
    emptied: Instant,
}

impl Socket {
    /// Opens a socket bound to `port` (0: any) of `address` (none: of all the machine's). Clears
    /// features that the kernel lacks.
    ///
    /// # Errors
    /// When the family is not available or the port is taken; see [`is_unavailable`].
    pub(super) fn open(
        v6: bool,
        address: Option<IpAddr>,
        port: u16,
        role: Role,
        features: &mut Features,
    ) -> io::Result<Self> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if v6 {
            socket.set_only_v6(true)?;
        }
        if role == Role::Group {
            share_port(&socket)?;
        }
        let receive_buffer = ask_receive_buffer(&socket);
        let send_buffer = ask_send_buffer(&socket);
        never_fragment(&socket, v6)?;
        tune(&socket, v6, role, features);
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let address = address.unwrap_or(any);
        socket.bind(&SocketAddr::from((address, port)).into()).map_err(|e| explain_bind(e, port))?;
        let socket = UdpSocket::from(socket);
        let port = socket.local_addr()?.port();
        let via = if role == Role::Group { Via::Group } else { Via::Unicast };
        Ok(Self {
            socket,
            via,
            v6,
            port,
            receive_buffer,
            send_buffer,
            blocked: false,
            drops: 0,
            #[cfg(target_os = "linux")]
            drops_seen: 0,
            #[cfg(target_os = "linux")]
            emptied: Instant::now(),
        })
    }

    /// Makes what is sent to `destination` leave by `interface`. `ttl` is for multicast; plain
    /// datagrams keep the system's, since repairs may go further than the group.
    ///
    /// # Errors
    /// When the interface has gone.
    pub(super) fn aim(&self, interface: &Interface, destination: &Destination, ttl: u8) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        match destination.kind {
            AddressKind::Multicast if self.v6 => {
                socket.set_multicast_if_v6(interface.index)?;
                socket.set_multicast_hops_v6(u32::from(ttl))?;
                // Receivers on this machine are receivers like others.
                socket.set_multicast_loop_v6(true)
            }
            AddressKind::Multicast => {
                self.multicast_by_v4(interface)?;
                socket.set_multicast_ttl_v4(u32::from(ttl))?;
                socket.set_multicast_loop_v4(true)
            }
            AddressKind::Broadcast => {
                self.socket.set_broadcast(true)?;
                self.unicast_by(interface)
            }
            // Only against the routes is the interface forced, because that holds for the answers
            // to devices elsewhere as well.
            AddressKind::Unicast if routed_by(interface, destination) => Ok(()),
            AddressKind::Unicast => self.unicast_by(interface),
        }
    }

    /// Leaves `group` on the interface if it was joined, and joins it, which makes the kernel
    /// report the membership (IGMP, MLD) once more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn join(&self, group: IpAddr, interface: &Interface) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        let joined = match group {
            IpAddr::V4(group) => {
                let by = InterfaceIndexOrAddress::Index(interface.index);
                // Not a member yet, most often.
                let _ = socket.leave_multicast_v4_n(&group, &by);
                socket.join_multicast_v4_n(&group, &by)
            }
            IpAddr::V6(group) => {
                let _ = socket.leave_multicast_v6(&group, interface.index);
                socket.join_multicast_v6(&group, interface.index)
            }
        };
        match joined {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(()), // a member already
            other => other,
        }
    }

    /// Leaves `group` on the interface, if it was joined.
    pub(super) fn leave(&self, group: IpAddr, interface: &Interface) {
        let socket = SockRef::from(&self.socket);
        // The interface has gone, most often, and with it what could be left there.
        let _ = match group {
            IpAddr::V4(group) => {
                socket.leave_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface.index))
            }
            IpAddr::V6(group) => socket.leave_multicast_v6(&group, interface.index),
        };
    }

    /// Receives a batch into `arena` and hands each datagram to `sink`; those longer than
    /// `MAX_DATAGRAM` are left out. Returns how many came, at least one, and whether more seem to
    /// be waiting.
    ///
    /// # Errors
    /// What the system says, `WouldBlock` when nothing is waiting.
    pub(super) fn receive(
        &mut self,
        arena: &mut Arena,
        features: Features,
        sink: &mut dyn FnMut(Arrival, &mut [u8]),
    ) -> io::Result<Batch> {
        #[cfg(target_os = "linux")]
        if features.mmsg || features.gro {
            return self.receive_batch(arena, features, sink);
        }
        let _ = features;
        let via = self.via;
        portable::receive(&self.socket, &mut arena.bytes[..SINGLE], &mut |from, bytes| {
            sink(Arrival::at_once(from, via), bytes);
        })
        .map(|count| Batch { datagrams: count, full: false })
    }

    #[cfg(target_os = "linux")]
    fn receive_batch(
        &mut self,
        arena: &mut Arena,
        features: Features,
        sink: &mut dyn FnMut(Arrival, &mut [u8]),
    ) -> io::Result<Batch> {
        let each = if features.gro { COALESCED } else { SINGLE };
        let most = (BATCH_BYTES / arena.usual.max(1)).clamp(LEAST_RECEIVE, sys::MAX_RECEIVE);
        let most = if features.mmsg { most } else { 1 };
        let mut messages = [sys::Received::default(); sys::MAX_RECEIVE];
        let asked = Instant::now();
        let received = sys::receive_many(self.socket.as_fd(), &mut arena.bytes, each, &mut messages[..most]);
        let longest = asked.saturating_duration_since(self.emptied);
        if received.as_ref().map_or(true, |&count| count < most) {
            self.emptied = asked;
        }
        let count = received?;
        let messages = &messages[..count];
        arena.usual = messages.iter().map(|m| m.len).sum::<usize>() / count.max(1);
        let (mut datagrams, mut now) = (0, None);
        for (message, room) in messages.iter().zip(arena.bytes.chunks_exact_mut(each)) {
            let bytes = &mut room[..message.len];
            let segment = if message.segment == 0 { bytes.len() } else { message.segment };
            if let Some(drops) = message.drops {
                // The kernel counts what it has put together as one: those dropped were much like this.
                let alike = bytes.len().div_ceil(segment.max(1)).max(1) as u64;
                self.drops += u64::from(drops.wrapping_sub(self.drops_seen)) * alike;
                self.drops_seen = drops;
            }
            let Some(from) = message.from.filter(|_| !message.truncated && segment <= MAX_DATAGRAM) else {
                datagrams += 1;
                continue;
            };
            let waited = message
                .arrived
                .map_or(Duration::ZERO, |at| waited(at, *now.get_or_insert_with(SystemTime::now), longest));
            let arrival = Arrival { from, via: self.via, waited };
            if bytes.is_empty() {
                datagrams += 1;
                sink(arrival, bytes);
            }
            for datagram in bytes.chunks_mut(segment.max(1)) {
                datagrams += 1;
                sink(arrival, datagram);
            }
        }
        Ok(Batch { datagrams, full: count == most })
    }

    #[cfg(target_os = "linux")]
    fn multicast_by_v4(&self, interface: &Interface) -> io::Result<()> {
        let source = interface.address_v4().unwrap_or(Ipv4Addr::UNSPECIFIED);
        sys::set_multicast_interface_v4(self.socket.as_fd(), interface.index, source)
    }

    #[cfg(not(target_os = "linux"))]
    fn multicast_by_v4(&self, interface: &Interface) -> io::Result<()> {
        let source = interface.address_v4().ok_or(io::ErrorKind::AddrNotAvailable)?;
        SockRef::from(&self.socket).set_multicast_if_v4(&source)
    }

    #[cfg(target_os = "linux")]
    fn unicast_by(&self, interface: &Interface) -> io::Result<()> {
        sys::set_unicast_interface(self.socket.as_fd(), self.v6, interface.index)
    }

    /// Elsewhere the routes decide.
    #[cfg(not(target_os = "linux"))]
    fn unicast_by(&self, _interface: &Interface) -> io::Result<()> {
        Ok(())
    }
}

/// Whether an error of [`Socket::open`] says that the machine does not have the family.
pub(super) fn is_unavailable(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EPFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// How long a datagram has waited that the kernel took at `arrived`. The clock may have been set
/// meanwhile, to any time; but what waits came after the socket was last found empty, `longest` ago by
/// a clock that nobody sets.
#[cfg(target_os = "linux")]
fn waited(arrived: SystemTime, now: SystemTime, longest: Duration) -> Duration {
    now.duration_since(arrived).unwrap_or_default().min(longest)
}

fn explain_bind(e: io::Error, port: u16) -> io::Error {
    let text = match e.kind() {
        io::ErrorKind::AddrInUse => {
            format!("udp port {port} is taken by another program; choose another with --port")
        }
        io::ErrorKind::PermissionDenied => {
            format!("udp port {port} needs privileges; choose one above 1023 with --port")
        }
        _ => return e,
    };
    io::Error::new(e.kind(), text)
}

fn routed_by(interface: &Interface, destination: &Destination) -> bool {
    routes::source_towards(destination.on(interface).addr).is_ok_and(|source| {
        interface.addresses.iter().any(|a| a.ip == source) || (interface.loopback && source.is_loopback())
    })
}

/// Lets several programs have the port and all get the group's datagrams. On Linux that takes
/// SO_REUSEADDR; SO_REUSEPORT would deal them out instead.
fn share_port(socket: &socket2::Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    #[cfg(not(target_os = "linux"))]
    socket.set_reuse_port(true)?;
    Ok(())
}

fn ask_receive_buffer(socket: &socket2::Socket) -> usize {
    // Root may go over the system's limit.
    #[cfg(target_os = "linux")]
    let forced = sys::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_BYTES as i32);
    #[cfg(not(target_os = "linux"))]
    let forced: io::Result<()> = Err(io::ErrorKind::Unsupported.into());
    if forced.is_err() {
        ask(|size| socket.set_recv_buffer_size(size));
    }
    usable(socket.recv_buffer_size())
}

fn ask_send_buffer(socket: &socket2::Socket) -> usize {
    #[cfg(target_os = "linux")]
    let forced = sys::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER_BYTES as i32);
    #[cfg(not(target_os = "linux"))]
    let forced: io::Result<()> = Err(io::ErrorKind::Unsupported.into());
    if forced.is_err() {
        ask(|size| socket.set_send_buffer_size(size));
    }
    usable(socket.send_buffer_size())
}

/// Linux gives what it can; others refuse what is too much.
fn ask(set: impl Fn(usize) -> io::Result<()>) {
    let mut size = BUFFER_BYTES;
    while set(size).is_err() && size > LEAST_BUFFER_BYTES {
        size /= 2;
    }
}

/// Linux doubles the figure for its own book-keeping, and tells the double.
fn usable(told: io::Result<usize>) -> usize {
    told.unwrap_or(0) / if cfg!(target_os = "linux") { 2 } else { 1 }
}

/// Sets "don't fragment" and takes the interface's MTU for the limit. What routers say of the path
/// is ignored on purpose (PROBE): one path with a small MTU, or a forged ICMP message, must not
/// stop the others.
#[cfg(target_os = "linux")]
fn never_fragment(socket: &socket2::Socket, v6: bool) -> io::Result<()> {
    let fd = socket.as_fd();
    if v6 {
        sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)
    } else {
        sys::set_int(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    }
}

#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
fn never_fragment(socket: &socket2::Socket, v6: bool) -> io::Result<()> {
    use std::os::fd::AsFd;
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG) } else { (libc::IPPROTO_IP, libc::IP_DONTFRAG) };
    super::sys::set_int(socket.as_fd(), level, name, 1)
}

/// No such option; symbols are chosen to fit the MTU.
#[cfg(not(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd")))]
fn never_fragment(_socket: &socket2::Socket, _v6: bool) -> io::Result<()> {
    Ok(())
}

/// What makes it better and may be lacking: only joined groups, GRO, the count of drops, times of arrival.
#[cfg(target_os = "linux")]
fn tune(socket: &socket2::Socket, v6: bool, role: Role, features: &mut Features) {
    let fd = socket.as_fd();
    if role == Role::Group {
        // Otherwise groups that other programs joined come in as well. Older kernels lack it for
        // IPv6 (before 4.20); what comes in then is dropped as foreign, later.
        let _ = if v6 { socket.set_multicast_all_v6(false) } else { socket.set_multicast_all_v4(false) };
    }
    if features.gro && sys::set_int(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_err() {
        features.gro = false;
    }
    // Without these, drops are not counted, and what waits for us is taken to be on its way.
    let _ = sys::set_int(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    let _ = sys::set_int(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
}

#[cfg(not(target_os = "linux"))]
fn tune(_socket: &socket2::Socket, _v6: bool, _role: Role, _features: &mut Features) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_costs_no_more_than_the_time_since_the_socket_was_empty() {
        let (now, ms) = (SystemTime::now(), Duration::from_millis);
        let hours = Duration::from_secs(7 * 3600);
        assert_eq!(waited(now, now + ms(3), ms(40)), ms(3));
        assert_eq!(waited(now, now + hours, ms(40)), ms(40), "set forward");
        assert_eq!(waited(now, now - hours, ms(40)), Duration::ZERO, "set back");
        // A process that was stopped believes a long wait.
        assert_eq!(waited(now, now + ms(8000), ms(8020)), ms(8000));
    }
}
