//! L0: one type for each kind of number or identifier, so that they cannot be mixed up.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Index of a block within the object, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u32);

/// How long an object is, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the object; the bytes so far if it is not sealed.
    pub size: u64,
    /// Whether the size is final. An object that is not sealed has at least one byte more.
    pub sealed: bool,
}

impl Extent {
    /// An object of `size` bytes.
    #[must_use]
    pub const fn sealed(size: u64) -> Self {
        Self { size, sealed: true }
    }

    /// The size, once it is final.
    #[must_use]
    pub const fn total(self) -> Option<u64> {
        if self.sealed { Some(self.size) } else { None }
    }
}

/// Encoding symbol id within a block (RFC 6330, 5.1.2): below K a source symbol, from K on a
/// repair symbol. At most [`crate::limits::MAX_ESI`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Esi(pub u32);

/// Identifier of a session, which is one transfer of a sender. It follows from the sender's keys and a
/// counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Identifier of a task: the delivery of one object to many devices.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub [u8; 16]);

/// A device's stable identifier.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 16]);

/// Index of a device in a sender's device table, in the order of first admission. It is stable for the
/// session and below [`crate::limits::MAX_DEVICES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIndex(pub u16);

impl DeviceIndex {
    /// The position in the table.
    #[must_use]
    pub const fn position(self) -> usize {
        self.0 as usize
    }
}

/// A channel: a packet-number space within a session, numbered by the upper 16 bits of a packet number.
/// 0 is the group, 65535 is for replies to addresses without a channel, all others are single devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u16);

impl ChannelId {
    /// The group's channel. An ADMIT that assigns no channel carries it too.
    pub const GROUP: Self = Self(0);
    /// The channel of the sender's replies to addresses that have no channel of their own yet.
    pub const REPLIES: Self = Self(u16::MAX);

    /// The channel of one device.
    #[must_use]
    pub const fn of_device(index: DeviceIndex) -> Self {
        const { assert!(crate::limits::MAX_DEVICES < u16::MAX as usize) };
        Self(index.0 + 1)
    }

    /// The device with this channel; `None` for the group's. Does not check that the session has this device.
    #[must_use]
    pub const fn device(self) -> Option<DeviceIndex> {
        match self.0.checked_sub(1) {
            Some(index) => Some(DeviceIndex(index)),
            None => None,
        }
    }
}

/// A BLAKE3 output: an object's root hash or a block's chaining value.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// A sender's public key (Ed25519), which identifies the sender.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SenderKey(pub [u8; 32]);

/// A device's public key (Ed25519), which a device proves to have beside its identifier.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey(pub [u8; 32]);

/// A public key for one key agreement (X25519): of a sender's session, or of a device's run in a session.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgreementKey(pub [u8; 32]);

/// A value that an address returns to prove that it receives datagrams. Opaque to everyone but the sender.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Cookie(pub [u8; 16]);

/// A sender's session counter. It rises from session to session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter(pub u64);

/// A ticket that finds a device's row again when the device joins again. Opaque to everyone but the sender.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub [u8; 16]);

/// The AEAD of a session's seals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D).
    #[default]
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
}

impl Suite {
    /// Its number on the wire; 0 is none.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The suite with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// The first half of a source symbol's BLAKE3 hash: enough that nobody finds another symbol for it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SymbolDigest(pub [u8; 16]);

/// Bits per second, counted on the wire (Ethernet framing included).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// The socket that a datagram arrived on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A socket bound to the well-known port: a group, a broadcast or a plain address.
    Group,
    /// The machine's own unicast socket.
    Unicast,
}

/// How a datagram arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The datagram's source address.
    pub from: SocketAddr,
    /// The receiving socket.
    pub via: Via,
    /// Time that the datagram waited in the system's queue, as far as the system reports it; at most a
    /// second. Measurements of the path must exclude it.
    pub waited: Duration,
}

impl Arrival {
    /// An arrival without any waiting time.
    #[must_use]
    pub const fn at_once(from: SocketAddr, via: Via) -> Self {
        Self { from, via, waited: Duration::ZERO }
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

macro_rules! hex_display {
    ($($t:ty),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { hex(&self.0, f) }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { hex(&self.0, f) }
        }
    )*};
}
hex_display!(TaskId, DeviceId, Digest, SenderKey, DeviceKey, AgreementKey, Cookie, SymbolDigest, Ticket);

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
/// How a destination takes the blocks of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Intake {
    /// In any order, as a file does.
    #[default]
    AnyOrder,
    /// In order, as a pipe does. Blocks ahead of their turn wait in a bounded number of buffers.
    InOrder,
    /// In order. Blocks ahead of their turn wait in a file.
    Spooled,
}

impl Intake {
    /// Whether blocks are taken in order.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        !matches!(self, Self::AnyOrder)
    }
}
/// The form in which a block is cut into symbols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Coding {
    /// The block's bytes.
    #[default]
    Raw = 0,
    /// The block's bytes without the zeros at their end.
    Short = 1,
    /// Nothing: all bytes of the block are 0.
    Zero = 2,
    /// One Zstandard frame (RFC 8878) of the block's bytes, padded with zeros.
    Zstd = 3,
}

/// The coding of a block, and the number of its source symbols in it, K'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coded {
    /// The coding.
    pub coding: Coding,
    /// K': 0 for [`Coding::Zero`], K for [`Coding::Raw`], and less than K otherwise.
    pub k: u32,
}

impl Coded {
    /// The coding of a block of `k` source symbols that is sent as it is.
    #[must_use]
    pub const fn raw(k: u32) -> Self {
        Self { coding: Coding::Raw, k }
    }

    /// Whether a block of `plain` source symbols can be coded like this.
    #[must_use]
    pub const fn fits(self, plain: u32) -> bool {
        match self.coding {
            Coding::Raw => self.k == plain,
            Coding::Zero => self.k == 0,
            Coding::Short | Coding::Zstd => self.k > 0 && self.k < plain,
        }
    }
}
