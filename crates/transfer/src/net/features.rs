//! Optional features of the kernel for speed, and what to use without them.

use std::fmt;

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
