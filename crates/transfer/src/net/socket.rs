//! One UDP socket with all its options: buffers, path MTU discovery, GRO, the drop counter, memberships. Receives
//! batches from it.

use super::destination::{AddressKind, Destination, Marking, Membership};
use super::features::Features;
use super::inbound::{Arena, Batch, Inner};
use super::interface::Interface;
use super::routes;
use super::share::Member;
use super::sys;
use crate::units::{Arrival, Via};
use socket2::{Domain, Protocol, SockRef, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Requested socket buffers in each direction: a tenth of a second at 640 Mbit/s. The system may grant less.
pub(super) const BUFFER_BYTES: usize = 8 << 20;

/// The purpose of a [`Socket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Shares a well-known port with other programs and joins groups.
    Group,
    /// Has a port of its own.
    Own,
    /// Shares a port with other sockets of this process.
    Beside,
}

/// A session's view of a non-blocking UDP socket of one family.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) inner: Arc<Inner>,
    /// Whether it is registered for writability too, because a send would have blocked.
    pub(super) blocked: bool,
    /// Whether the session's poll reports it.
    pub(super) registered: bool,
    /// Drops before the session had it.
    drops_before: u64,
    /// The session's membership of a shared port.
    pub(super) share: Option<Member>,
}

impl Deref for Socket {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Other sessions may keep the socket open. Leave the groups that none of them wants.
        for (group, index) in self.share.iter().flat_map(Member::forget) {
            self.leave_by(group, index);
        }
    }
}

impl Socket {
    /// The view of a session that starts to use the socket.
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let drops_before = inner.drops();
        Self { inner, blocked: false, registered: false, drops_before, share: None }
    }

    /// Approximate number of datagrams that the kernel dropped for lack of room since the session uses the
    /// socket.
    pub(super) fn drops(&self) -> u64 {
        self.inner.drops() - self.drops_before
    }

    /// Whether this session receives from it.
    pub(super) fn receives(&self) -> bool {
        self.share.as_ref().is_none_or(Member::receives)
    }

    /// The time since the last datagram; `Duration::MAX` if none has arrived.
    pub(super) fn silent_for(&self) -> Duration {
        self.inner.silent_for()
    }

    /// Opens a socket bound to `port` (0: any) of `address` (`None`: of every address). Clears features that
    /// the kernel lacks.
    ///
    /// # Errors
    /// If the family is not available or the port is taken; see [`is_unavailable`].
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
        if role != Role::Own {
            // With SO_REUSEADDR, every program that shares the port receives all datagrams of the group.
            // SO_REUSEPORT would distribute them among the programs.
            socket.set_reuse_address(true)?;
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
        Ok(Self::new(Arc::new(Inner::new(socket, (via, v6, port), [receive_buffer, send_buffer]))))
    }

    /// Directs datagrams for `destination` through `interface`. The number of hops applies to multicast. Unicast
    /// datagrams keep the system's value, because repairs may have to go further than the group.
    ///
    /// # Errors
    /// If the interface is gone.
    pub(super) fn aim(
        &self,
        interface: &Interface,
        destination: &Destination,
        Marking { ttl, dscp }: Marking,
    ) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        self.mark(dscp)?;
        match destination.kind {
            AddressKind::Multicast if self.v6 => {
                socket.set_multicast_if_v6(interface.index)?;
                socket.set_multicast_hops_v6(u32::from(ttl))?;
                // Receivers on this machine count like others.
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
            // The interface is forced only if the routes choose another one, because the option then
            // applies to answers to other devices too.
            AddressKind::Unicast if routed_by(interface, destination) => Ok(()),
            AddressKind::Unicast => self.unicast_by(interface),
        }
    }

    /// Sets the differentiated services code point of all datagrams.
    fn mark(&self, dscp: u8) -> io::Result<()> {
        let (level, name) =
            if self.v6 { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
        // The lower two bits are for explicit congestion notification.
        sys::set_int(self.socket.as_fd(), level, name, i32::from(dscp) << 2)
    }

    /// Leaves the group on the interface if it was joined, and joins it, so that the kernel reports the
    /// membership (IGMP, MLD) again.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn join(&self, wanted: Membership, interface: &Interface) -> io::Result<()> {
        if self.share.as_ref().is_some_and(|share| !share.wants(wanted, interface, self)) {
            return Ok(());
        }
        // Usually fails, because the socket is not a member yet.
        let _ = sys::leave(self.socket.as_fd(), wanted, interface.index);
        match sys::join(self.socket.as_fd(), wanted, interface.index) {
            // It is a member already.
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(()),
            Err(e) if wanted.source.is_some() && e.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
            other => other,
        }
    }

    /// Leaves the group on the interface, if it was joined.
    pub(super) fn leave(&self, group: Membership, interface: &Interface) {
        if self.share.as_ref().is_none_or(|share| share.unwants(group, interface)) {
            self.leave_by(group, interface.index);
        }
    }

    fn leave_by(&self, group: Membership, index: u32) {
        // Usually fails, because the interface is gone and the membership with it.
        let _ = sys::leave(self.socket.as_fd(), group, index);
    }

    /// Receives a batch into `arena`, and passes each datagram to `sink`, except those longer than
    /// `MAX_DATAGRAM`. Returns how many arrived, at least one, and whether more may be waiting.
    ///
    /// # Errors
    /// The system's error; `WouldBlock` if nothing is waiting.
    pub(super) fn receive(
        &self,
        arena: &mut Arena,
        features: Features,
        sink: &mut dyn FnMut(Arrival, &mut [u8]),
    ) -> io::Result<Batch> {
        match &self.share {
            None => self.inner.receive(arena, features, sink),
            Some(share) => {
                share.exchange().deal(share.id(), sink, |sink| self.inner.receive(arena, features, sink))
            }
        }
    }

    fn multicast_by_v4(&self, interface: &Interface) -> io::Result<()> {
        let source = interface.address_v4().unwrap_or(Ipv4Addr::UNSPECIFIED);
        sys::set_multicast_interface_v4(self.socket.as_fd(), interface.index, source)
    }

    fn unicast_by(&self, interface: &Interface) -> io::Result<()> {
        sys::set_unicast_interface(self.socket.as_fd(), self.v6, interface.index)
    }
}

/// Whether an error of [`Socket::open`] says that the machine does not have the family.
pub(super) fn is_unavailable(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EPFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn explain_bind(e: io::Error, port: u16) -> io::Error {
    let text = match e.kind() {
        io::ErrorKind::AddrInUse => {
            format!("udp port {port} is taken by another program; choose another on both sides with --port")
        }
        io::ErrorKind::PermissionDenied => {
            format!("udp port {port} needs privileges; choose one above 1023 on both sides with --port")
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

/// Requests the receive buffer, and returns how many bytes the kernel granted.
fn ask_receive_buffer(socket: &socket2::Socket) -> usize {
    // Root may exceed the system's limit. Other users get at most the limit.
    if sys::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_BYTES as i32).is_err() {
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    }
    usable(socket.recv_buffer_size())
}

/// Requests the send buffer, and returns how many bytes the kernel granted.
fn ask_send_buffer(socket: &socket2::Socket) -> usize {
    if sys::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER_BYTES as i32).is_err() {
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    }
    usable(socket.send_buffer_size())
}

/// The usable part of a reported buffer size. The kernel doubles the requested size for its own bookkeeping, and
/// reports the doubled size.
fn usable(told: io::Result<usize>) -> usize {
    told.unwrap_or(0) / 2
}

/// Sets "don't fragment", with the interface's MTU as the limit. The kernel is told to ignore what routers report
/// about the path (PROBE): one path with a small MTU, or a forged ICMP message, must not affect the other paths.
fn never_fragment(socket: &socket2::Socket, v6: bool) -> io::Result<()> {
    let fd = socket.as_fd();
    if v6 {
        sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)
    } else {
        sys::set_int(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    }
}

/// Sets options that the kernel may lack: delivery from joined groups only, GRO, the drop counter, arrival times.
/// Clears `features.gro` if the kernel lacks GRO.
fn tune(socket: &socket2::Socket, v6: bool, role: Role, features: &mut Features) {
    let fd = socket.as_fd();
    if role == Role::Group {
        // Otherwise the socket also receives datagrams of groups that other programs have joined. Kernels
        // before 4.20 lack the option for IPv6. There, the protocol discards such datagrams.
        let _ = if v6 { socket.set_multicast_all_v6(false) } else { socket.set_multicast_all_v4(false) };
    }
    if features.gro && sys::set_int(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_err() {
        features.gro = false;
    }
    // Without SO_RXQ_OVFL, drops are not counted. Without SO_TIMESTAMPNS, the time that a datagram waits in the
    // socket counts as time on the network.
    let _ = sys::set_int(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    let _ = sys::set_int(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
}
