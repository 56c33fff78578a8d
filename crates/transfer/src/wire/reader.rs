//! A cursor over a datagram that cannot read past its end, and its errors. Every read names its field, so that an
//! error says which field of which message was wrong.

use super::MessageKind;
use crate::limits::{MAX_CONTROL, WIRE_VERSION};
use crate::units::{BlockIndex, DeviceId, Digest};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why a datagram is not a message. The datagram is at fault, so the caller counts it and continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than the common header.
    #[error("a datagram of {0} bytes is too short for the header")]
    TooShort(usize),
    /// Does not begin with `mc`: another protocol.
    #[error("the datagram does not begin with the magic bytes")]
    BadMagic,
    /// Another version of the wire format.
    #[error(
        "the other side speaks wire version {0}, this program {WIRE_VERSION}: install the same release on both"
    )]
    UnsupportedVersion(u8),
    /// A message kind that this version does not have.
    #[error("there is no message of kind {0}")]
    UnknownKind(u8),
    /// A protection that this version does not have.
    #[error("there is no protection {0:#04x}")]
    UnknownProtection(u8),
    /// Still protected.
    #[error("{0}: its protection has not been taken off")]
    Protected(MessageKind),
    /// A control message longer than [`MAX_CONTROL`].
    #[error("{message}: {len} bytes are more than the {MAX_CONTROL} of a control message")]
    TooLarge {
        /// The message.
        message: MessageKind,
        /// Length of the datagram in bytes.
        len: usize,
    },
    /// The datagram ends before the field does.
    #[error("{message}: the datagram ends within the {field}")]
    Truncated {
        /// The message.
        message: MessageKind,
        /// The field.
        field: &'static str,
    },
    /// The field has an invalid value.
    #[error("{message}: the {field} is out of range")]
    OutOfRange {
        /// The message.
        message: MessageKind,
        /// The field.
        field: &'static str,
    },
    /// The message has a critical extension that this program does not know.
    #[error("{message}: it needs extension {number}, which this program does not have")]
    UnknownCritical {
        /// The message.
        message: MessageKind,
        /// The extension's number, without its critical bit.
        number: u16,
    },
    /// The field has a value that only a later program may know: an algorithm, a kind of object.
    #[error("{message}: it needs {field} {number}, which this program does not have")]
    NotSupported {
        /// The message.
        message: MessageKind,
        /// The field.
        field: &'static str,
        /// Its value.
        number: u32,
    },
}

impl DecodeError {
    /// Whether a later program may understand the datagram, so that it is not damaged.
    #[must_use]
    pub const fn is_not_understood(&self) -> bool {
        matches!(
            self,
            Self::UnsupportedVersion(_)
                | Self::UnknownKind(_)
                | Self::UnknownProtection(_)
                | Self::UnknownCritical { .. }
                | Self::NotSupported { .. }
        )
    }
}

/// The result of every read.
pub(super) type Result<T> = std::result::Result<T, DecodeError>;

/// The cursor.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    message: MessageKind,
}

impl<'a> Reader<'a> {
    /// A cursor at the beginning of the body of `message`.
    pub(super) const fn new(message: MessageKind, body: &'a [u8]) -> Self {
        Self { rest: body, message }
    }

    /// The error for a field with an invalid value.
    pub(super) const fn out_of_range(&self, field: &'static str) -> DecodeError {
        DecodeError::OutOfRange { message: self.message, field }
    }

    /// `Ok` if `valid`, otherwise the error of [`Reader::out_of_range`].
    pub(super) fn check(&self, valid: bool, field: &'static str) -> Result<()> {
        if valid { Ok(()) } else { Err(self.out_of_range(field)) }
    }

    const fn truncated(&self, field: &'static str) -> DecodeError {
        DecodeError::Truncated { message: self.message, field }
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(self.truncated(field))?;
        self.rest = rest;
        Ok(*head)
    }

    fn slice(&mut self, len: usize, field: &'static str) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(self.truncated(field))?;
        self.rest = rest;
        Ok(head)
    }

    /// The remaining bytes.
    pub(super) const fn remainder(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u24(&mut self, field: &'static str) -> Result<u32> {
        self.array(field).map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.out_of_range(field)),
        }
    }

    /// A block number. `u32::MAX` is invalid, so that the end of every range of blocks is a u32.
    pub(super) fn block(&mut self, field: &'static str) -> Result<BlockIndex> {
        let index = self.u32(field)?;
        self.check(index != u32::MAX, field)?;
        Ok(BlockIndex(index))
    }

    pub(super) fn device(&mut self) -> Result<DeviceId> {
        self.array("device").map(DeviceId)
    }

    pub(super) fn digest(&mut self, field: &'static str) -> Result<Digest> {
        self.array(field).map(Digest)
    }

    /// A length byte and as many bytes of UTF-8, at most `max`.
    pub(super) fn text(&mut self, max: usize, field: &'static str) -> Result<&'a str> {
        let len = usize::from(self.u8(field)?);
        self.check(len <= max, field)?;
        let bytes = self.slice(len, field)?;
        std::str::from_utf8(bytes).map_err(|_| self.out_of_range(field))
    }

    /// A u16 count of items of at least `item_len` bytes each. The rest of the datagram has room for them, so
    /// it is safe to allocate that many.
    pub(super) fn count(&mut self, item_len: usize, field: &'static str) -> Result<usize> {
        let count = usize::from(self.u16(field)?);
        if count * item_len > self.rest.len() { Err(self.truncated(field)) } else { Ok(count) }
    }

    /// Family (4 or 6), address and port, which is not 0.
    pub(super) fn socket_addr(&mut self, field: &'static str) -> Result<SocketAddr> {
        let ip: IpAddr = match self.u8(field)? {
            4 => Ipv4Addr::from(self.array::<4>(field)?).into(),
            6 => Ipv6Addr::from(self.array::<16>(field)?).into(),
            _ => return Err(self.out_of_range(field)),
        };
        let port = self.u16(field)?;
        self.check(port != 0 && !ip.is_unspecified(), field)?;
        Ok(SocketAddr::new(ip, port))
    }

    /// A reader of the next `len` bytes only.
    pub(super) fn part(&mut self, len: usize, field: &'static str) -> Result<Self> {
        Ok(Self { rest: self.slice(len, field)?, message: self.message })
    }

    /// A u16 length, at most `max`, and as many bytes.
    pub(super) fn bytes(&mut self, max: usize, field: &'static str) -> Result<&'a [u8]> {
        let len = usize::from(self.u16(field)?);
        self.check(len <= max, field)?;
        self.slice(len, field)
    }

    /// Whether no bytes are left.
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The error for a value that only a later program may know.
    pub(super) const fn not_supported(&self, field: &'static str, number: u32) -> DecodeError {
        DecodeError::NotSupported { message: self.message, field, number }
    }
}
