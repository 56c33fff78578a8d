//! The header that every datagram begins with: magic, version, kind, protection, session, packet number.

use super::DecodeError;
use crate::limits::{HEADER_LEN, WIRE_VERSION};
use crate::units::{ChannelId, SessionId, Suite};
use std::fmt;

/// The first two bytes of every datagram.
pub(super) const MAGIC: [u8; 2] = *b"mc";

/// Session and packet number of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The session identifier; not 0.
    pub session: SessionId,
    /// 16 bits of channel and 48 bits of counter. Devices measure loss by it, and it is the nonce of the
    /// seals.
    pub packet_number: PacketNumber,
}

/// Channel and counter of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketNumber(pub u64);

impl PacketNumber {
    /// The largest counter: 48 bits, almost nine years at a million datagrams a second.
    pub const MAX_COUNTER: u64 = (1 << 48) - 1;

    /// The packet number with this channel and counter; `counter` is at most [`Self::MAX_COUNTER`].
    #[must_use]
    pub const fn new(channel: ChannelId, counter: u64) -> Self {
        debug_assert!(counter <= Self::MAX_COUNTER);
        Self((channel.0 as u64) << 48 | counter & Self::MAX_COUNTER)
    }
    /// The channel; 0 is the group.
    #[must_use]
    pub const fn channel(self) -> ChannelId {
        ChannelId((self.0 >> 48) as u16)
    }
    /// The counter, from 0. It rises by one with each datagram of the channel.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 & Self::MAX_COUNTER
    }
}

/// The kinds of message, by their number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// [`super::Announce`].
    Announce = 1,
    /// [`super::Join`].
    Join = 2,
    /// [`super::Admit`].
    Admit = 3,
    /// [`super::Symbol`].
    Symbol = 4,
    /// [`super::HashPage`].
    HashPage = 5,
    /// [`super::Poll`].
    Poll = 6,
    /// [`super::Nak`].
    Nak = 7,
    /// [`super::Progress`].
    Progress = 8,
    /// [`super::Complete`].
    Complete = 9,
    /// [`super::Acknowledge`].
    Acknowledge = 10,
    /// [`super::Abort`].
    Abort = 11,
    /// [`super::Retry`].
    Retry = 12,
    /// [`super::Suspect`].
    Suspect = 13,
    /// [`super::SymbolDigests`].
    SymbolDigests = 14,
}

impl MessageKind {
    /// All kinds, in the order of their numbers from 1 on.
    pub const ALL: [Self; 14] = [
        Self::Announce,
        Self::Join,
        Self::Admit,
        Self::Symbol,
        Self::HashPage,
        Self::Poll,
        Self::Nak,
        Self::Progress,
        Self::Complete,
        Self::Acknowledge,
        Self::Abort,
        Self::Retry,
        Self::Suspect,
        Self::SymbolDigests,
    ];

    /// The name for errors and file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Join => "join",
            Self::Admit => "admit",
            Self::Symbol => "symbol",
            Self::HashPage => "hash_page",
            Self::Poll => "poll",
            Self::Nak => "nak",
            Self::Progress => "progress",
            Self::Complete => "complete",
            Self::Acknowledge => "acknowledge",
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::Suspect => "suspect",
            Self::SymbolDigests => "symbol_digests",
        }
    }

    pub(super) fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The protection of a datagram. On the wire it is one byte: the upper nibble is the kind of protection, the
/// lower one the AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// None: a symbol or a RETRY of a session without a group key.
    Clear,
    /// The sender's signature at the end.
    Signed,
    /// Sealed with the group key. Messages of signed kinds have their signature inside the seal.
    Group(Suite),
    /// Sealed between the sender and one device.
    Device(Suite),
    /// A JOIN: agreement key, cookie and proof in clear, the rest sealed for the sender.
    Join(Suite),
}

/// Offset of the protection byte.
const PROTECTION_AT: usize = 4;
const KIND_AT: usize = 3;

impl Protection {
    /// All protections.
    pub const ALL: [Self; 8] = [
        Self::Clear,
        Self::Signed,
        Self::Group(Suite::Aes256Gcm),
        Self::Group(Suite::ChaCha20Poly1305),
        Self::Device(Suite::Aes256Gcm),
        Self::Device(Suite::ChaCha20Poly1305),
        Self::Join(Suite::Aes256Gcm),
        Self::Join(Suite::ChaCha20Poly1305),
    ];

    /// Its byte on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Clear => 0,
            Self::Signed => 0x10,
            Self::Group(suite) => 0x20 | suite.number(),
            Self::Device(suite) => 0x30 | suite.number(),
            Self::Join(suite) => 0x40 | suite.number(),
        }
    }

    fn from_wire(number: u8) -> Option<Self> {
        Some(match (number >> 4, Suite::from_number(number & 0x0f)) {
            (0, None) if number == 0 => Self::Clear,
            (1, None) if number == 0x10 => Self::Signed,
            (2, Some(suite)) => Self::Group(suite),
            (3, Some(suite)) => Self::Device(suite),
            (4, Some(suite)) => Self::Join(suite),
            _ => return None,
        })
    }

    /// Whether it is sealed for the group.
    #[must_use]
    pub const fn is_group(self) -> bool {
        matches!(self, Self::Group(_))
    }

    /// Whether it is sealed between the sender and one device.
    #[must_use]
    pub const fn is_device(self) -> bool {
        matches!(self, Self::Device(_))
    }

    /// Writes the protection byte into a datagram.
    ///
    /// # Panics
    /// If the datagram is shorter than a header.
    pub fn mark(self, datagram: &mut [u8]) {
        datagram[PROTECTION_AT] = self.number();
    }
}

/// The clear part of every datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Session and packet number.
    pub header: Header,
    /// The kind of the message.
    pub kind: MessageKind,
    /// The protection.
    pub protection: Protection,
}

/// Reads the clear part of a datagram. Magic and version keep their place, so a datagram of a later version
/// is recognized even if its header has another layout.
///
/// # Errors
/// If it is too short, of another protocol, of another version, or of an unknown kind or protection.
pub fn head(bytes: &[u8]) -> Result<Head, DecodeError> {
    let short = DecodeError::TooShort(bytes.len());
    let (magic, rest) = bytes.split_first_chunk().ok_or(short)?;
    if *magic != MAGIC {
        return Err(DecodeError::BadMagic);
    }
    let (&version, rest) = rest.split_first().ok_or(short)?;
    if version != WIRE_VERSION {
        return Err(DecodeError::UnsupportedVersion(version));
    }
    let ([kind, protection], rest) = rest.split_first_chunk().ok_or(short)?;
    let (session, rest) = rest.split_first_chunk().ok_or(short)?;
    let (packet_number, _) = rest.split_first_chunk().ok_or(short)?;
    let kind = MessageKind::from_wire(*kind).ok_or(DecodeError::UnknownKind(*kind))?;
    let protection = Protection::from_wire(*protection).ok_or(DecodeError::UnknownProtection(*protection))?;
    let session = SessionId(u64::from_be_bytes(*session));
    if session.0 == 0 {
        return Err(DecodeError::OutOfRange { message: kind, field: "session" });
    }
    let packet_number = PacketNumber(u64::from_be_bytes(*packet_number));
    Ok(Head { header: Header { session, packet_number }, kind, protection })
}

/// The header and kind of a datagram, if they are valid; says nothing about the rest.
#[must_use]
pub fn peek(bytes: &[u8]) -> Option<(Header, MessageKind)> {
    head(bytes).ok().map(|head| (head.header, head.kind))
}

/// The header of an unprotected datagram.
pub(super) fn header_bytes(header: Header, kind: u8) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..2].copy_from_slice(&MAGIC);
    bytes[2] = WIRE_VERSION;
    bytes[KIND_AT] = kind;
    bytes[PROTECTION_AT] = Protection::Clear.number();
    bytes[5..13].copy_from_slice(&header.session.0.to_be_bytes());
    bytes[13..].copy_from_slice(&header.packet_number.0.to_be_bytes());
    bytes
}
