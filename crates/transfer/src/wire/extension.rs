//! Extensions, which may follow the fixed fields of every message but SYMBOL.
//!
//! ```text
//!  type u16 (bit 15: critical, 15 bits: number) | length u16 | value     to the end of the message
//! ```
//!
//! Numbers ascend, and none appears twice. A known extension has one encoding. A reader skips an unknown one; if it
//! is critical, the reader does not understand the message.

use super::header::header_bytes;
use super::reader::{Reader, Result};
use super::writer::Writer;
use super::{DecodeError, Header, MessageKind};
use crate::limits::{HEADER_LEN, MAX_CONTROL};
use crate::units::{Counter, DeviceKey, SenderKey, Ticket};

/// The bit of an extension's type that makes it critical.
const CRITICAL: u16 = 1 << 15;
/// Bytes before an extension's value.
const HEAD_LEN: usize = 4;

/// ANNOUNCE: the session takes no feedback. Critical.
pub(super) const ONE_WAY: u16 = 1;
/// ANNOUNCE: who made the object, independent of the session.
pub(super) const ORIGIN: u16 = 2;
/// JOIN and ADMIT: the ticket of a device.
pub(super) const TICKET: u16 = 3;
/// JOIN: the device's own key, and its signature.
pub(super) const DEVICE_KEY: u16 = 4;
// Reserved: 6 a fragment of a larger key.

/// Whether a reader must know the extension with this number.
const fn is_critical(number: u16) -> bool {
    number == ONE_WAY
}

/// Whether a number is grease. Extensions and kinds with such numbers never mean anything. They are sent
/// occasionally, so that every reader is used to unknown numbers (RFC 8701 does the same for TLS).
#[must_use]
pub const fn is_grease(number: u16) -> bool {
    number % 31 == 27
}

/// A session without feedback: the sender repeats the objects, with a share of repair symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneWay {
    /// The number of earlier repetitions.
    pub pass: u32,
    /// Repair symbols for each thousand source symbols.
    pub overhead_per_mille: u16,
}

/// Proves who made the object, whoever sends it; see `crypto::origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginProof {
    /// The key of the origin.
    pub key: SenderKey,
    /// The counter of the origin's session.
    pub counter: Counter,
    /// Its signature.
    pub signature: [u8; 64],
}

/// Who a device is: see `crypto::device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceProof {
    /// The device's key.
    pub key: DeviceKey,
    /// Its signature for this session and this run.
    pub signature: [u8; 64],
}

impl DeviceProof {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { key: DeviceKey(r.array("device key")?), signature: r.array("device signature")? })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        write(w, DEVICE_KEY, |w| {
            w.bytes(&self.key.0);
            w.bytes(&self.signature);
        });
    }
}

impl OneWay {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { pass: r.u32("pass")?, overhead_per_mille: r.u16("overhead")? })
    }

    pub(super) fn encode(self, w: &mut Writer) {
        write(w, ONE_WAY, |w| {
            w.u32(self.pass);
            w.u16(self.overhead_per_mille);
        });
    }
}

impl OriginProof {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            key: SenderKey(r.array("origin key")?),
            counter: Counter(r.u64("origin counter")?),
            signature: r.array("origin signature")?,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        write(w, ORIGIN, |w| {
            w.bytes(&self.key.0);
            w.u64(self.counter.0);
            w.bytes(&self.signature);
        });
    }
}

pub(super) fn decode_ticket(r: &mut Reader<'_>) -> Result<Ticket> {
    r.array("ticket").map(Ticket)
}

pub(super) fn encode_ticket(ticket: Ticket, w: &mut Writer) {
    write(w, TICKET, |w| w.bytes(&ticket.0));
}

fn write(w: &mut Writer, number: u16, value: impl FnOnce(&mut Writer)) {
    w.u16(number | if is_critical(number) { CRITICAL } else { 0 });
    let at = w.reserve_u16();
    value(w);
    w.fill_len(at);
}

/// Reads the extensions at the end of a message. Calls `known` for each one with its number and a reader of
/// its value; it returns whether the message has this extension.
pub(super) fn decode<'a>(
    message: MessageKind,
    r: &mut Reader<'a>,
    mut known: impl FnMut(u16, &mut Reader<'a>) -> Result<bool>,
) -> Result<()> {
    let mut last = None;
    while !r.is_empty() {
        let kind = r.u16("extensions")?;
        let (number, critical) = (kind & !CRITICAL, kind & CRITICAL != 0);
        let len = usize::from(r.u16("extensions")?);
        let mut value = r.part(len, "extensions")?;
        r.check(last.is_none_or(|last| last < number), "extensions")?;
        last = Some(number);
        if known(number, &mut value)? {
            r.check(critical == is_critical(number) && value.is_empty(), "extensions")?;
        } else if critical {
            return Err(DecodeError::UnknownCritical { message, number });
        }
    }
    Ok(())
}

/// Chooses the grease of the message with this header, if it has any. The same header gives the same choice,
/// so that a run can be repeated. About one message in 16 has some.
#[must_use]
pub const fn grease_choice(header: Header) -> Option<u64> {
    // The finalizer of SplitMix64.
    let mut hash = header.session.0 ^ header.packet_number.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    if hash.is_multiple_of(16) { Some(hash >> 4) } else { None }
}

/// An unprotected datagram of a grease kind.
#[must_use]
pub fn grease_datagram(header: Header, choice: u64) -> Vec<u8> {
    let kind = 27 + 31 * (choice % 7) as u8;
    let mut datagram = header_bytes(header, kind).to_vec();
    datagram.extend_from_slice(&choice.to_le_bytes());
    datagram
}

/// Adds a grease extension to an encoded, unprotected message, if it has room. `choice` selects which one.
pub fn add_grease(datagram: &mut Vec<u8>, choice: u64) {
    const NUMBERS: u64 = (1 << 15) / 31 - 1;
    let number = 27 + 31 * (choice % NUMBERS) as u16;
    let len = (choice >> 56) as usize % 9;
    if datagram.len() < HEADER_LEN || datagram.len() + HEAD_LEN + len > MAX_CONTROL {
        return;
    }
    datagram.extend_from_slice(&number.to_be_bytes());
    datagram.extend_from_slice(&(len as u16).to_be_bytes());
    datagram.extend_from_slice(&choice.to_le_bytes()[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::datagram;
    use crate::wire::{Acknowledge, Message, decode_plain};

    /// An ACKNOWLEDGE with these bytes behind it.
    fn with(extensions: &[u8]) -> Result<Message<'static>> {
        decode_plain(&datagram(MessageKind::Acknowledge as u8, extensions)).map(
            |(_, message)| match message {
                Message::Acknowledge(_) => Message::Acknowledge(Acknowledge),
                other => panic!("{other:?}"),
            },
        )
    }

    fn out_of_range() -> Result<Message<'static>> {
        Err(DecodeError::OutOfRange { message: MessageKind::Acknowledge, field: "extensions" })
    }

    #[test]
    fn unknown_ones_are_passed_over_unless_they_are_critical() {
        let sound = Ok(Message::Acknowledge(Acknowledge));
        assert_eq!(with(&[]), sound);
        assert_eq!(with(&[0, 9, 0, 2, 1, 2]), sound);
        assert_eq!(with(&[0, 9, 0, 0, 0x7f, 0xff, 0, 1, 7]), sound);
        let critical = DecodeError::UnknownCritical { message: MessageKind::Acknowledge, number: 9 };
        assert_eq!(with(&[0x80, 9, 0, 2, 1, 2]), Err(critical));
        assert_eq!(with(&[0, 8, 0, 0, 0x80, 9, 0, 0]), Err(critical));
    }

    #[test]
    fn numbers_ascend_and_lengths_are_within_the_message() {
        assert_eq!(with(&[0, 9, 0, 0, 0, 9, 0, 0]), out_of_range());
        assert_eq!(with(&[0, 9, 0, 0, 0, 8, 0, 0]), out_of_range());
        // The critical bit is no part of the number.
        assert_eq!(with(&[0x80, 9, 0, 0, 0, 9, 0, 0]).err().map(|e| e.is_not_understood()), Some(true));
        assert_eq!(with(&[0, 9, 0, 0, 0x80, 9, 0, 0]), out_of_range());
        let truncated = DecodeError::Truncated { message: MessageKind::Acknowledge, field: "extensions" };
        for bytes in [&[0][..], &[0, 9], &[0, 9, 0], &[0, 9, 0, 1], &[0, 9, 0xff, 0xff, 1]] {
            assert_eq!(with(bytes), Err(truncated));
        }
    }

    #[test]
    fn grease_is_passed_over_and_never_critical() {
        for choice in (0..10_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let mut bytes = datagram(MessageKind::Acknowledge as u8, &[]);
            add_grease(&mut bytes, choice);
            let number = u16::from_be_bytes([bytes[HEADER_LEN], bytes[HEADER_LEN + 1]]);
            assert!(is_grease(number) && number < CRITICAL, "{number}");
            assert_eq!(with(&bytes[HEADER_LEN..]), Ok(Message::Acknowledge(Acknowledge)));
        }
        // No number that is in use, or kind.
        for number in (0..=6).chain(MessageKind::ALL.map(|kind| kind as u16)) {
            assert!(!is_grease(number));
        }
        let mut full = vec![0; MAX_CONTROL - 3];
        add_grease(&mut full, 0);
        assert_eq!(full.len(), MAX_CONTROL - 3, "there is no room for it");
    }
}
