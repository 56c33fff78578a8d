//! The system calls of the network: gathering sends with `UDP_SEGMENT` or `sendmmsg`, `recvmmsg` with `UDP_GRO`,
//! and the socket options that `socket2` does not have. All `unsafe` code of `net` is here, and nothing else: the
//! callers decide what to send and what an error means.
//!
//! Every function is safe to call with any arguments: for a wrong argument the kernel returns an error. Bytes of
//! the mapped source ([`Body::Raw`]) appear only in an `iovec`, and only the kernel reads them.
#![allow(unsafe_code)]

use super::destination::Membership;
use super::{Body, MAX_BATCH, Segment};
use libc::{c_int, c_void};
use socket2::{SockAddr, SockAddrStorage};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::{Duration, SystemTime};

const NO_IOVEC: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// The body of a segment as an iovec.
fn body_iovec(body: &Body<'_>) -> libc::iovec {
    match body {
        Body::None => NO_IOVEC,
        Body::Bytes(bytes) => iovec(bytes),
        Body::Raw(raw) => libc::iovec { iov_base: raw.address.cast_mut().cast::<c_void>(), iov_len: raw.len },
    }
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(), iov_len: bytes.len() }
}

fn empty_message() -> libc::msghdr {
    // SAFETY: a msghdr is integers and pointers, for which all zeros (null) is a valid value.
    unsafe { mem::zeroed() }
}

/// A message to `to` that gathers `iovecs`. Its pointers are valid as long as both live.
fn message_to(to: &SockAddr, iovecs: &mut [libc::iovec]) -> libc::msghdr {
    let mut message = empty_message();
    // The kernel only reads the address. The field is mutable because recvmsg(2) uses the same struct.
    message.msg_name = to.as_ptr().cast_mut().cast::<c_void>();
    message.msg_namelen = to.len();
    message.msg_iov = iovecs.as_mut_ptr();
    // The type is usize or int, depending on the C library. Both can hold the number of iovecs.
    message.msg_iovlen = iovecs.len() as _;
    message
}

fn send_message(fd: BorrowedFd<'_>, message: &libc::msghdr) -> io::Result<()> {
    loop {
        // SAFETY: the message came from `message_to` (and perhaps got a control buffer) in a
        // caller whose address, iovecs and buffers are still alive. The iovecs name slices that
        // are borrowed for the call, or raw bytes of a mapping: if those are gone, the kernel
        // returns EFAULT. It never writes to any of them.
        let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), message, 0) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Sets a socket option that is an int.
///
/// # Errors
/// The error of setsockopt(2).
pub fn set_int(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set(fd, level, name, &value)
}

/// Sets a socket option. `T` is a plain C struct or integer. The kernel ignores its padding, if it has any.
fn set<T: Copy>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which outlives the call and is only read.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast::<c_void>(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Joins a group on the interface with this index (RFC 3678).
///
/// # Errors
/// The error of setsockopt(2).
pub fn join(fd: BorrowedFd<'_>, group: Membership, index: u32) -> io::Result<()> {
    change_membership(fd, group, index, (libc::MCAST_JOIN_GROUP, libc::MCAST_JOIN_SOURCE_GROUP))
}

/// Leaves a group on the interface with this index.
///
/// # Errors
/// The error of setsockopt(2).
pub fn leave(fd: BorrowedFd<'_>, group: Membership, index: u32) -> io::Result<()> {
    change_membership(fd, group, index, (libc::MCAST_LEAVE_GROUP, libc::MCAST_LEAVE_SOURCE_GROUP))
}

fn change_membership(
    fd: BorrowedFd<'_>,
    Membership { group, source }: Membership,
    index: u32,
    (any, from_one): (c_int, c_int),
) -> io::Result<()> {
    let level = if group.is_ipv6() { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
    match source {
        None => set(fd, level, any, &libc::group_req { gr_interface: index, gr_group: storage(group) }),
        Some(source) => {
            let request = libc::group_source_req {
                gsr_interface: index,
                gsr_group: storage(group),
                gsr_source: storage(source),
            };
            set(fd, level, from_one, &request)
        }
    }
}

/// An address as the kernel takes it.
fn storage(address: IpAddr) -> libc::sockaddr_storage {
    let address = SockAddr::from(SocketAddr::new(address, 0));
    // SAFETY: a sockaddr_storage is integers, for which all zeros is a valid value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    // SAFETY: `address.len()` bytes are valid at `as_ptr`, and no address is longer than the storage; the two do not
    // overlap.
    unsafe {
        ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            ptr::from_mut(&mut storage).cast::<u8>(),
            address.len() as usize,
        );
    }
    storage
}

/// Most messages that one [`receive_many`] takes.
pub const MAX_RECEIVE: usize = 64;

/// Room for control messages, with the alignment that the kernel requires: UDP_GRO and SO_RXQ_OVFL take 24 bytes
/// each on 64-bit machines, a time stamp 32.
const CONTROL_WORDS: usize = 12;
type Control = [u64; CONTROL_WORDS];

/// The iovecs of a batch, two for each segment.
type Gathered = [libc::iovec; 2 * MAX_BATCH];

fn gather(segments: &[Segment<'_>]) -> Gathered {
    let mut iovecs = [NO_IOVEC; 2 * MAX_BATCH];
    for (pair, segment) in iovecs.chunks_exact_mut(2).zip(segments) {
        pair[0] = iovec(segment.head);
        pair[1] = body_iovec(&segment.body);
    }
    iovecs
}

/// Sends the segments (at most [`MAX_BATCH`]; the rest is left out) with one sendmsg(2). The kernel or the network
/// card cuts them into datagrams of `size` bytes.
///
/// # Errors
/// The kernel's error; then nothing was sent.
pub fn send_segmented(
    fd: BorrowedFd<'_>,
    to: &SockAddr,
    segments: &[Segment<'_>],
    size: u16,
) -> io::Result<()> {
    let count = segments.len().min(MAX_BATCH);
    let mut iovecs = gather(segments);
    let mut message = message_to(to, &mut iovecs[..2 * count]);
    let mut control: Control = [0; CONTROL_WORDS];
    message.msg_control = control.as_mut_ptr().cast::<c_void>();
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute. The control buffer is larger than the
    // space of one u16, so CMSG_FIRSTHDR points into it, aligned for a cmsghdr, with room for
    // the u16 behind the header.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(mem::size_of::<u16>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        (*header).cmsg_len = libc::CMSG_LEN(mem::size_of::<u16>() as u32) as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast::<u16>(), size);
    }
    send_message(fd, &message)
}

/// Sends the segments, at most [`MAX_BATCH`], one datagram each, with one sendmmsg(2). Returns how many were sent,
/// at least one.
///
/// # Errors
/// The kernel's error for the first segment.
pub fn send_many(fd: BorrowedFd<'_>, to: &SockAddr, segments: &[Segment<'_>]) -> io::Result<usize> {
    let count = segments.len().min(MAX_BATCH);
    let mut iovecs = gather(segments);
    let mut messages = [libc::mmsghdr { msg_hdr: empty_message(), msg_len: 0 }; MAX_BATCH];
    for (message, pair) in messages.iter_mut().zip(iovecs.chunks_exact_mut(2)).take(count) {
        message.msg_hdr = message_to(to, pair);
    }
    loop {
        // SAFETY: the first `count` messages came from `message_to` over `to` and `iovecs`,
        // which are alive; see `send_message` for what the iovecs name.
        let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count as libc::c_uint, 0) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// One message of [`receive_many`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Received {
    /// Its sender; `None` if the kernel gave no IP address.
    pub from: Option<SocketAddr>,
    /// Bytes in its buffer.
    pub len: usize,
    /// Length of the datagrams that the kernel coalesced in it (the last one may be shorter); 0 if it is one
    /// datagram.
    pub segment: usize,
    /// Whether it was longer than its buffer.
    pub truncated: bool,
    /// The socket's counter of datagrams dropped for lack of room, if the kernel gave it.
    pub drops: Option<u32>,
    /// When the kernel received it (the first one, if coalesced) from the network, if it reported that.
    pub arrived: Option<SystemTime>,
}

/// Receives waiting messages, at most `out.len()` and [`MAX_RECEIVE`], with one recvmmsg(2). Message i is in
/// `buffer` from `i * each` on. Returns how many there were.
///
/// # Errors
/// The kernel's error; `WouldBlock` if none is waiting.
pub fn receive_many(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    each: usize,
    out: &mut [Received],
) -> io::Result<usize> {
    let mut names: [SockAddrStorage; MAX_RECEIVE] = std::array::from_fn(|_| SockAddrStorage::zeroed());
    let mut controls: [Control; MAX_RECEIVE] = [[0; CONTROL_WORDS]; MAX_RECEIVE];
    let mut iovecs = [NO_IOVEC; MAX_RECEIVE];
    let mut messages = [libc::mmsghdr { msg_hdr: empty_message(), msg_len: 0 }; MAX_RECEIVE];
    let mut count: libc::c_uint = 0;
    for ((((message, room), name), control), iov) in messages
        .iter_mut()
        .zip(buffer.chunks_exact_mut(each))
        .zip(&mut names)
        .zip(&mut controls)
        .zip(&mut iovecs)
        .take(out.len())
    {
        iov.iov_base = room.as_mut_ptr().cast::<c_void>();
        iov.iov_len = room.len();
        let header = &mut message.msg_hdr;
        header.msg_name = ptr::from_mut(name).cast::<c_void>();
        header.msg_namelen = name.size_of();
        header.msg_iov = ptr::from_mut(iov);
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast::<c_void>();
        header.msg_controllen = mem::size_of::<Control>() as _;
        count += 1;
    }
    let received = loop {
        // SAFETY: each of the first `count` messages points to a name, an iovec and a control
        // buffer of its own with their true sizes, and its iovec to a part of `buffer` of its
        // own; all are alive and borrowed mutably until the kernel has returned.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if let Ok(received) = usize::try_from(received) {
            break received;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    for ((out, message), name) in out.iter_mut().zip(&messages).zip(names).take(received) {
        let header = &message.msg_hdr;
        // SAFETY: the kernel has written an address of this length into the storage, which
        // was all zeros. It never reports a length greater than the storage's.
        let from = unsafe { SockAddr::new(name, header.msg_namelen) }.as_socket();
        *out = Received {
            from,
            len: (message.msg_len as usize).min(each),
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
            ..Received::default()
        };
        read_control(header, out);
    }
    Ok(received)
}

/// Reads the control messages that the kernel has written into the message's control buffer, which is still alive.
fn read_control(header: &libc::msghdr, out: &mut Received) {
    // SAFETY: msg_control and msg_controllen describe what the kernel has written, and the
    // CMSG macros stay within it: every header that they return lies wholly in it. The length
    // checks ensure the same for the data that is read.
    unsafe {
        let wanted = libc::CMSG_LEN(4) as usize;
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if (*control).cmsg_len as usize >= wanted {
                let data = libc::CMSG_DATA(control);
                match ((*control).cmsg_level, (*control).cmsg_type) {
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        let size = ptr::read_unaligned(data.cast::<c_int>());
                        out.segment = usize::try_from(size).unwrap_or(0);
                    }
                    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                        out.drops = Some(ptr::read_unaligned(data.cast::<u32>()));
                    }
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)
                        if (*control).cmsg_len as usize
                            >= libc::CMSG_LEN(mem::size_of::<libc::timespec>() as u32) as usize =>
                    {
                        let at = ptr::read_unaligned(data.cast::<libc::timespec>());
                        out.arrived = system_time(&at);
                    }
                    _ => {}
                }
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
}

/// Converts the kernel's real time; `None` if it is before 1970 or invalid.
fn system_time(at: &libc::timespec) -> Option<SystemTime> {
    let (secs, nanos) = (u64::try_from(at.tv_sec).ok()?, u32::try_from(at.tv_nsec).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs) + Duration::from_nanos(nanos.into()))
}

/// Sets the interface (and the source address) of IPv4 multicast by its index.
///
/// # Errors
/// If there is no such interface.
pub fn set_multicast_interface_v4(fd: BorrowedFd<'_>, index: u32, source: Ipv4Addr) -> io::Result<()> {
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr { s_addr: u32::from(source).to_be() },
        imr_ifindex: c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?,
    };
    set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)
}

/// Sets the interface of unicast and broadcast datagrams.
///
/// # Errors
/// If there is no such interface.
pub fn set_unicast_interface(fd: BorrowedFd<'_>, v6: bool, index: u32) -> io::Result<()> {
    let index = c_int::from_ne_bytes(index.to_be_bytes());
    if v6 {
        set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_IF, index)
    } else {
        set_int(fd, libc::IPPROTO_IP, libc::IP_UNICAST_IF, index)
    }
}

/// The MTU of the interface called `name`, in bytes; `None` if it cannot be determined.
pub fn interface_mtu(name: &str) -> Option<u32> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| UdpSocket::bind((std::net::Ipv6Addr::LOCALHOST, 0)))
        .ok()?;
    // SAFETY: an ifreq is a name and a union of plain C types, valid when all zeros.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The name must be shorter than the field, so that the zero at its end remains.
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // SAFETY: SIOCGIFMTU reads the zero-terminated name of the ifreq, which is alive, and
    // writes the int `ifru_mtu`, which is read only after the call has succeeded.
    let mtu = unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) != 0 {
            return None;
        }
        request.ifr_ifru.ifru_mtu
    };
    u32::try_from(mtu).ok().filter(|&mtu| mtu > 0)
}
