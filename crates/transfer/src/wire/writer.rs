//! The counterpart of the reader: appends fields to a datagram. It does not check ranges; [`super::encode_plain`]
//! asserts in debug builds that the result decodes.

use super::header::header_bytes;
use super::{Header, MessageKind};
use std::net::{IpAddr, SocketAddr};

/// A datagram that is being written.
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A datagram with its header, and room for `len` bytes in total.
    pub(super) fn new(header: Header, kind: MessageKind, len: usize) -> Self {
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&header_bytes(header, kind as u8));
        Self { bytes }
    }

    /// Bytes in the same encoding, without a datagram's header, and room for `len` of them.
    pub(super) fn bare(len: usize) -> Self {
        Self { bytes: Vec::with_capacity(len) }
    }

    /// The datagram.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// The lower 24 bits of `value`.
    pub(super) fn u24(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes()[1..]);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// A length byte and the text, cut at a character boundary to `max` bytes (at most 255).
    pub(super) fn text(&mut self, text: &str, max: usize) {
        let mut end = text.len().min(max);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.u8(end as u8);
        self.bytes(&text.as_bytes()[..end]);
    }

    /// A u16 count. More items than that never fit the message, as `encode_plain` asserts.
    pub(super) fn count(&mut self, count: usize) {
        self.u16(count.min(usize::from(u16::MAX)) as u16);
    }

    /// Reserves a length field that [`Writer::fill_len`] fills in.
    pub(super) fn reserve_u16(&mut self) -> usize {
        self.u16(0);
        self.bytes.len()
    }

    /// Writes the number of bytes that were added since [`Writer::reserve_u16`] returned `at`.
    pub(super) fn fill_len(&mut self, at: usize) {
        let len = (self.bytes.len() - at) as u16;
        self.bytes[at - 2..at].copy_from_slice(&len.to_be_bytes());
    }

    /// Family, address and port. Drops flow label and scope of an IPv6 address.
    pub(super) fn socket_addr(&mut self, addr: SocketAddr) {
        match addr.ip() {
            IpAddr::V4(ip) => {
                self.u8(4);
                self.bytes(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.u8(6);
                self.bytes(&ip.octets());
            }
        }
        self.u16(addr.port());
    }
}
