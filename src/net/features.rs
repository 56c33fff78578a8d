//! What the kernel can do for speed, and what is done without it.

use std::fmt;

/// The faster ways of the kernel that are in use. Start with [`Features::default`]; each is
/// switched off at run time when the kernel refuses it. Tests start with fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `UDP_SEGMENT`: one system call and one walk down the network stack for a batch (Linux 4.18).
    pub gso: bool,
    /// `UDP_GRO`: datagrams come up put together (Linux 5.0).
    pub gro: bool,
}

impl Features {
    /// Neither: several datagrams a system call, each by itself.
    pub const NONE: Self = Self { gso: false, gro: false };
}

/// All that the kernel may have.
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
