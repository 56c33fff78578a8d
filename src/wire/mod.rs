//! L1: the wire format, one file per message: checked decode, encode, golden bytes both ways.
//!
//! `docs/protocol.md` is the specification. All integers are big-endian. Decoders check every
//! field against its range and the datagram's length before anything is allocated (I7); whether
//! a message fits its session is the protocol's business. The encoding is canonical: what decodes
//! encodes to the same bytes again.

mod abort;
mod acknowledge;
mod admit;
mod announce;
mod arrivals;
mod complete;
mod hash_page;
mod join;
mod nak;
mod poll;
mod progress;
mod reader;
mod retry;
mod suspect;
mod symbol;
mod symbol_digests;
mod writer;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use abort::{Abort, AbortCode};
pub use acknowledge::Acknowledge;
pub use admit::{Admit, AdmitVerdict};
pub use announce::{Announce, Phase};
pub use arrivals::Arrivals;
pub use complete::Complete;
pub use hash_page::HashPage;
pub use join::Join;
pub use nak::{Deficit, Nak, PageRange};
pub use poll::{Invitation, Poll, RepairAdvertisement};
pub use progress::Progress;
pub use reader::DecodeError;
pub use retry::Retry;
pub use suspect::Suspect;
pub use symbol::{Symbol, symbol_head};
pub use symbol_digests::SymbolDigests;

use crate::limits::{HEADER_LEN, MAX_CONTROL, MAX_TRAILER, SYMBOL_HEADER_LEN, WIRE_VERSION};
use crate::units::{ChannelId, SessionId, Suite};
use reader::Reader;
use std::fmt;
use writer::Writer;

/// The first two bytes of every datagram.
const MAGIC: [u8; 2] = *b"mc";

/// What every datagram begins with: magic, version, kind, session, packet number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The session it belongs to; not 0.
    pub session: SessionId,
    /// 16 bits of channel (0 = the group; each unicast channel and each device has its own) and
    /// 48 bits of counter from 0: the measure of loss, and the nonce of the seals.
    pub packet_number: PacketNumber,
}

/// Channel and counter of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketNumber(pub u64);

impl PacketNumber {
    /// The largest counter: 48 bits, almost nine years at a million datagrams a second.
    pub const MAX_COUNTER: u64 = (1 << 48) - 1;

    /// The number of a channel's datagram; `counter` is at most [`Self::MAX_COUNTER`].
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
    /// The counter, from 0, by one for each datagram of the channel.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 & Self::MAX_COUNTER
    }
}

/// The kinds of message, by their number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// [`Announce`].
    Announce = 1,
    /// [`Join`].
    Join = 2,
    /// [`Admit`].
    Admit = 3,
    /// [`Symbol`].
    Symbol = 4,
    /// [`HashPage`].
    HashPage = 5,
    /// [`Poll`].
    Poll = 6,
    /// [`Nak`].
    Nak = 7,
    /// [`Progress`].
    Progress = 8,
    /// [`Complete`].
    Complete = 9,
    /// [`Acknowledge`].
    Acknowledge = 10,
    /// [`Abort`].
    Abort = 11,
    /// [`Retry`].
    Retry = 12,
    /// [`Suspect`].
    Suspect = 13,
    /// [`SymbolDigests`].
    SymbolDigests = 14,
}

impl MessageKind {
    /// All of them, in the order of their numbers from 1 on.
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

    /// The word for it, in errors and file names.
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

    fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Defines [`Message`] with its conversions and the two tables that lead from it to the files.
macro_rules! messages {
    ($($(#[$doc:meta])* $kind:ident($body:ty),)*) => {
        /// A decoded datagram, borrowing a symbol's payload from it.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Message<'a> {
            $($(#[$doc])* $kind($body),)*
        }

        impl<'a> Message<'a> {
            /// Its kind.
            #[must_use]
            pub const fn kind(&self) -> MessageKind {
                match self { $(Self::$kind(_) => MessageKind::$kind,)* }
            }
            fn decode(kind: MessageKind, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                match kind { $(MessageKind::$kind => <$body>::decode(reader).map(Self::$kind),)* }
            }
            fn encode(&self, writer: &mut Writer) {
                match self { $(Self::$kind(body) => body.encode(writer),)* }
            }
        }

        $(impl<'a> From<$body> for Message<'a> {
            fn from(body: $body) -> Self {
                Self::$kind(body)
            }
        })*
    };
}

messages! {
    /// Sender to all: here is a session.
    Announce(Announce),
    /// Device to sender: let me in.
    Join(Join),
    /// Sender to device: the answer to a join, from the status table.
    Admit(Admit),
    /// Sender to all or one: one encoding symbol.
    Symbol(Symbol<'a>),
    /// Sender to all or one: chaining values of blocks.
    HashPage(HashPage),
    /// Sender to all or one: say what you lack.
    Poll(Poll),
    /// Device to sender: what I lack.
    Nak(Nak),
    /// Device to sender: how I am doing (and that I live).
    Progress(Progress),
    /// Device to sender: verified, synced, renamed.
    Complete(Complete),
    /// Sender to device: your completion or abort is noted.
    Acknowledge(Acknowledge),
    /// Either way: I stop, and why.
    Abort(Abort),
    /// Sender to device: show that you can be reached.
    Retry(Retry),
    /// Device to sender: a block disagrees with its hash.
    Suspect(Suspect),
    /// Sender to device or to all: what a block's source symbols are.
    SymbolDigests(SymbolDigests),
}

/// How a datagram is protected, beside its signature: told by the upper bits of its kind's byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seals {
    /// Sealed under the group's key; in a join, the proof of it is there.
    pub group: bool,
    /// Sealed between the sender and one device.
    pub device: bool,
    /// With what, if sealed.
    pub suite: Suite,
}

const SEALED_FOR_GROUP: u8 = 0x80;
const WITH_CHACHA: u8 = 0x40;
const SEALED_FOR_DEVICE: u8 = 0x20;
const KIND_BITS: u8 = 0x1f;
/// Where in a datagram its kind and seals are.
const KIND_AT: usize = 3;

impl Seals {
    fn from_wire(bits: u8) -> Self {
        let suite = if bits & WITH_CHACHA == 0 { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 };
        Self { group: bits & SEALED_FOR_GROUP != 0, device: bits & SEALED_FOR_DEVICE != 0, suite }
    }

    fn bits(self) -> u8 {
        let suite = match self.suite {
            Suite::Aes256Gcm => 0,
            Suite::ChaCha20Poly1305 => WITH_CHACHA,
        };
        let group = if self.group { SEALED_FOR_GROUP } else { 0 };
        let device = if self.device { SEALED_FOR_DEVICE } else { 0 };
        group | device | suite
    }

    /// Writes the seals into a datagram that has none so far.
    ///
    /// # Panics
    /// When it is shorter than a header.
    pub fn mark(self, datagram: &mut [u8]) {
        datagram[KIND_AT] = (datagram[KIND_AT] & KIND_BITS) | self.bits();
    }
}

/// All that a datagram shows in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Session and packet number.
    pub header: Header,
    /// What it is.
    pub kind: MessageKind,
    /// What stands between it and its reader.
    pub seals: Seals,
}

/// Reads what a datagram shows in clear. Magic and version come first, and for good: a datagram of a
/// later version is known for one even if its header is another.
///
/// # Errors
/// When it is too short, not one of ours, of another version, or of no known kind.
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
    let (&bits, rest) = rest.split_first().ok_or(short)?;
    let (session, rest) = rest.split_first_chunk().ok_or(short)?;
    let (packet_number, _) = rest.split_first_chunk().ok_or(short)?;
    let kind = MessageKind::from_wire(bits & KIND_BITS).ok_or(DecodeError::UnknownKind(bits & KIND_BITS))?;
    let seals = Seals::from_wire(bits);
    let session = SessionId(u64::from_be_bytes(*session));
    if session.0 == 0 {
        return Err(DecodeError::OutOfRange { message: kind, field: "session" });
    }
    let packet_number = PacketNumber(u64::from_be_bytes(*packet_number));
    Ok(Head { header: Header { session, packet_number }, kind, seals })
}

/// The header and kind of a datagram, if they are valid; says nothing about the rest.
#[must_use]
pub fn peek(bytes: &[u8]) -> Option<(Header, MessageKind)> {
    head(bytes).ok().map(|head| (head.header, head.kind))
}

/// Decodes what follows the header, once whatever protects it has been taken off. It allocates no more
/// than a few times the length, and only after the lengths within agree with it.
///
/// # Errors
/// When it is not one whole, valid message; the error names the message and the field.
pub fn decode_body(kind: MessageKind, body: &[u8]) -> Result<Message<'_>, DecodeError> {
    let len = HEADER_LEN + body.len();
    if kind != MessageKind::Symbol && len > MAX_CONTROL {
        return Err(DecodeError::TooLarge { message: kind, len });
    }
    let mut reader = Reader::new(kind, body);
    let message = Message::decode(kind, &mut reader)?;
    reader.finish()?;
    Ok(message)
}

/// Decodes a datagram that nothing protects.
///
/// # Errors
/// When it is sealed, or as [`head`] and [`decode_body`].
pub fn decode_plain(bytes: &[u8]) -> Result<(Header, Message<'_>), DecodeError> {
    let head = head(bytes)?;
    if head.seals != Seals::default() {
        return Err(DecodeError::Sealed(head.kind));
    }
    Ok((head.header, decode_body(head.kind, &bytes[HEADER_LEN..])?))
}

/// Encodes a datagram that nothing protects yet. Labels and reasons that are too long are cut at a character
/// boundary, an invitation's window to the longest there is, and an IPv6 address loses flow label and scope.
///
/// # Panics
/// In debug builds, when another value is out of its documented range or the message does not fit
/// [`MAX_CONTROL`]: no receiver would take it.
#[must_use]
pub fn encode_plain(header: Header, message: &Message<'_>) -> Vec<u8> {
    let len = match message {
        Message::Symbol(symbol) => SYMBOL_HEADER_LEN + symbol.payload.len(),
        Message::HashPage(page) => HEADER_LEN + 5 + 32 * page.values.len(),
        Message::Nak(nak) => nak.encoded_len(),
        Message::Poll(poll) => poll.encoded_len(),
        Message::SymbolDigests(digests) => HEADER_LEN + 10 + 16 * digests.digests.len(),
        // Longer than any other without its texts.
        _ => 512,
    };
    let mut writer = Writer::new(header, message.kind(), len + MAX_TRAILER);
    message.encode(&mut writer);
    let bytes = writer.into_bytes();
    debug_assert_eq!(decode_plain(&bytes).err(), None, "a message out of its range: {message:?}");
    bytes
}

/// The body of the fuzz target `datagram`, here so that the tests replay its corpus.
///
/// # Panics
/// When `bytes` decode to a message that does not encode to the same bytes.
#[doc(hidden)]
pub fn fuzz_datagram(bytes: &[u8]) {
    let Ok((header, message)) = decode_plain(bytes) else { return };
    assert_eq!(encode_plain(header, &message), bytes, "not canonical: {message:?}");
    assert_eq!(peek(bytes), Some((header, message.kind())));
}
