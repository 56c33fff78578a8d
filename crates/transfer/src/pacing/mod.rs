//! L1: pacing. `bucket` is the token bucket that every datagram of a sender is charged to. `path`
//! evaluates one device's reports, and `controller` sets the rate from them. The sender's machine in
//! `protocol` uses all three.

mod bucket;
mod controller;
mod path;

pub use bucket::TokenBucket;
pub use controller::{RateController, RateMode, START};
pub use path::{Clear, Finding, Path, Sample, Trial};
use std::net::SocketAddr;

/// Bytes that Ethernet adds around an IP packet on the wire: preamble and start delimiter 8,
/// header 14, check sequence 4, gap 12 (IEEE 802.3).
pub const ETHERNET_OVERHEAD: u64 = 38;
/// The part of [`ETHERNET_OVERHEAD`] that network cards and captures count: the header.
pub const ETHERNET_HEADER: u64 = 14;
/// Bytes of an IPv4 header without options and a UDP header.
const IPV4_UDP_OVERHEAD: u64 = 28;
/// Bytes of an IPv6 header and a UDP header.
const IPV6_UDP_OVERHEAD: u64 = 48;

/// Bytes on the wire around a UDP payload to `to`.
#[must_use]
pub fn udp_overhead(to: SocketAddr) -> u64 {
    ETHERNET_OVERHEAD + if to.is_ipv4() { IPV4_UDP_OVERHEAD } else { IPV6_UDP_OVERHEAD }
}
