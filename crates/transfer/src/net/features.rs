//! Optional features of the kernel for speed, and what to use without them.

use super::sys;
use std::fmt;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

/// The optional features in use. Start with [`Features::default`]: each feature is switched off at run time
/// when the kernel refuses it. Tests start with fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `UDP_SEGMENT`: one system call and one pass through the network stack for a batch (Linux 4.18).
    pub gso: bool,
    /// `UDP_GRO`: the kernel delivers several datagrams as one message (Linux 5.0).
    pub gro: bool,
}

impl Features {
    /// No optional feature: `sendmmsg` and `recvmmsg`, with one message for each datagram.
    pub const NONE: Self = Self { gso: false, gro: false };

    /// The features that this kernel has, as a socket of its own tells that sends nothing. A network card or its driver
    /// may still refuse. None, if there is no such socket.
    #[must_use]
    pub fn of_kernel() -> Self {
        let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) else { return Self::NONE };
        let takes = |name, value| sys::set_int(socket.as_fd(), libc::SOL_UDP, name, value).is_ok();
        Self { gso: takes(libc::UDP_SEGMENT, 1200), gro: takes(libc::UDP_GRO, 1) }
    }
}

/// All features that the kernel may have.
impl Default for Features {
    fn default() -> Self {
        Self { gso: true, gro: true }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on: bool| if on { "on" } else { "off" };
        write!(f, "gso {}, gro {}", on(self.gso), on(self.gro))
    }
}
