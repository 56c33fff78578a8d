//! L1: pacing: the token bucket that every datagram of a sender is charged to.

mod bucket;

pub use bucket::TokenBucket;

/// Bytes that Ethernet adds around an IP packet on the wire: preamble and start delimiter 8,
/// header 14, check sequence 4, gap 12 (IEEE 802.3).
pub const ETHERNET_OVERHEAD: u64 = 38;
/// The part of it that network cards and captures count: the header.
pub const ETHERNET_HEADER: u64 = 14;
/// Bytes of an IPv4 header without options, and of UDP's.
pub const IPV4_UDP_OVERHEAD: u64 = 28;
/// Bytes of an IPv6 header, and of UDP's.
pub const IPV6_UDP_OVERHEAD: u64 = 48;
