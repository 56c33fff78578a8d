//! The counterpart of the reader: appends fields to a datagram. It does not check ranges;
//! [`super::encode`] asserts that what was written decodes.

use super::Header;
use super::MessageKind;
use crate::limits::{HEADER_LEN, WIRE_VERSION};
use std::net::{IpAddr, SocketAddr};

/// A datagram on its way out.
pub(super) struct Writer {
    bytes: Vec<u8>,
}

/// The common header.
pub(super) fn header_bytes(header: Header, kind: MessageKind) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..2].copy_from_slice(&super::MAGIC);
    bytes[2] = WIRE_VERSION;
    bytes[3] = kind as u8;
    bytes[4..12].copy_from_slice(&header.session.0.to_be_bytes());
    bytes[12..].copy_from_slice(&header.packet_number.0.to_be_bytes());
    bytes
}

impl Writer {
    /// A datagram that has its header and room for `len` bytes in all.
    pub(super) fn new(header: Header, kind: MessageKind, len: usize) -> Self {
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&header_bytes(header, kind));
        Self { bytes }
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

    /// A u16 count. More items than that never fit the message, which `encode` asserts.
    pub(super) fn count(&mut self, count: usize) {
        self.u16(count.min(usize::from(u16::MAX)) as u16);
    }

    /// Family, address and port; an IPv6 address loses its flow label and scope.
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
