//! L1: the wire format, one file for each message: checked decoding, encoding, golden bytes in both directions.
//!
//! `docs/protocol.md` is the specification. All integers are big-endian. Decoders check every field against its
//! range and the datagram's length before they allocate (I7). `protocol` checks whether a message fits its
//! session. The encoding is canonical: a decoded message encodes to the same bytes.

mod abort;
mod acknowledge;
mod admit;
mod announce;
mod arrivals;
mod complete;
mod extension;
mod hash_page;
mod header;
mod join;
mod nak;
mod negotiation;
mod object;
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
pub use announce::{Announce, Phase, TaskKind, signer};
pub use arrivals::Arrivals;
pub use complete::{Complete, SinkEnd};
pub use extension::{
    DeviceProof, OneWay, OriginProof, add_grease, grease_choice, grease_datagram, is_grease,
};
pub use hash_page::{BlockEntry, HashPage};
pub use header::{Head, Header, MessageKind, PacketNumber, Protection, head, peek};
pub use join::{Holdings, Join};
pub use nak::{Deficit, Nak, PageRange};
pub use negotiation::{Capabilities, Versions};
pub use object::{Object, ObjectKind, first_blocks};
pub use poll::{Invitation, Poll, RepairAdvertisement};
pub use progress::Progress;
pub use reader::DecodeError;
pub use retry::Retry;
pub use suspect::Suspect;
pub use symbol::{Symbol, symbol_head};
pub use symbol_digests::SymbolDigests;

use crate::limits::{HEADER_LEN, MAX_CONTROL, MAX_TRAILER, SYMBOL_HEADER_LEN};
use reader::Reader;
use writer::Writer;

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

impl Message<'_> {
    /// Takes an extension, if it belongs to this message.
    fn extension(&mut self, number: u16, value: &mut Reader<'_>) -> Result<bool, DecodeError> {
        match self {
            Self::Announce(announce) => announce.extension(number, value),
            Self::Join(join) => join.extension(number, value),
            Self::Admit(admit) => admit.extension(number, value),
            _ => Ok(false),
        }
    }
}

messages! {
    /// Sender to all: announces a session.
    Announce(Announce),
    /// Device to sender: asks to be served.
    Join(Join),
    /// Sender to device: answers a JOIN.
    Admit(Admit),
    /// Sender to all or one: one encoding symbol.
    Symbol(Symbol<'a>),
    /// Sender to all or one: chaining values of blocks.
    HashPage(HashPage),
    /// Sender to all or one: asks what devices lack.
    Poll(Poll),
    /// Device to sender: what it lacks.
    Nak(Nak),
    /// Device to sender: its progress, and a sign of life.
    Progress(Progress),
    /// Device to sender: the object is verified, synced and renamed.
    Complete(Complete),
    /// Sender to device: its COMPLETE or ABORT is recorded.
    Acknowledge(Acknowledge),
    /// Either side stops, with a reason.
    Abort(Abort),
    /// Sender to device: validates its address.
    Retry(Retry),
    /// Device to sender: blocks disagree with their chaining values.
    Suspect(Suspect),
    /// Sender to device or to all: digests of a block's source symbols.
    SymbolDigests(SymbolDigests),
}

/// Decodes the body of a message after its protection was removed. Allocates at most a few times its length,
/// and only after the lengths within agree with it.
///
/// # Errors
/// If it is not one whole, valid message. The error names the message and the field.
pub fn decode_body(kind: MessageKind, body: &[u8]) -> Result<Message<'_>, DecodeError> {
    let len = HEADER_LEN + body.len();
    if kind != MessageKind::Symbol && len > MAX_CONTROL {
        return Err(DecodeError::TooLarge { message: kind, len });
    }
    let mut reader = Reader::new(kind, body);
    let mut message = Message::decode(kind, &mut reader)?;
    extension::decode(kind, &mut reader, |number, value| message.extension(number, value))?;
    Ok(message)
}

/// Decodes an unprotected datagram.
///
/// # Errors
/// If it is protected, or as [`head`] and [`decode_body`].
pub fn decode_plain(bytes: &[u8]) -> Result<(Header, Message<'_>), DecodeError> {
    let head = head(bytes)?;
    if head.protection != Protection::Clear {
        return Err(DecodeError::Protected(head.kind));
    }
    Ok((head.header, decode_body(head.kind, &bytes[HEADER_LEN..])?))
}

/// Encodes a datagram without protection. Cuts labels and reasons that are too long at a character boundary,
/// and an invitation's window to the longest possible. Drops flow label and scope of an IPv6 address.
///
/// # Panics
/// In debug builds, if another value is out of its documented range or the message does not fit
/// [`MAX_CONTROL`]: no receiver would accept it.
#[must_use]
pub fn encode_plain(header: Header, message: &Message<'_>) -> Vec<u8> {
    let len = match message {
        Message::Symbol(symbol) => SYMBOL_HEADER_LEN + symbol.payload.len(),
        Message::HashPage(page) => HEADER_LEN + 5 + 35 * page.blocks.len(),
        Message::Nak(nak) => nak.encoded_len(),
        Message::Poll(poll) => poll.encoded_len(),
        Message::SymbolDigests(digests) => HEADER_LEN + 10 + 16 * digests.digests.len(),
        _ => MAX_CONTROL,
    };
    let mut writer = Writer::new(header, message.kind(), len + MAX_TRAILER);
    message.encode(&mut writer);
    let bytes = writer.into_bytes();
    debug_assert_eq!(decode_plain(&bytes).err(), None, "a message out of its range: {message:?}");
    bytes
}
