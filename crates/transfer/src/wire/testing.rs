//! Shared by the tests of the message files: a fixed header, and checks of golden bytes and of refused values.

use super::{DecodeError, Header, Message, MessageKind, PacketNumber, decode_plain, encode_plain};
use crate::limits::HEADER_LEN;
use crate::units::{DeviceId, SessionId};

/// The header of all golden datagrams.
pub(super) const HEADER: Header =
    Header { session: SessionId(0x0102_0304_0506_0708), packet_number: PacketNumber(0x0009_0000_0000_000a) };

/// A device whose bytes are easy to write by hand.
pub(super) const DEVICE: DeviceId = DeviceId([
    0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
]);

/// A datagram: the header of all of them, written out, and the body.
pub(super) fn datagram(kind: u8, body: &[u8]) -> Vec<u8> {
    #[rustfmt::skip]
    let header = [
        b'm', b'c', 1, kind, 0,
        1, 2, 3, 4, 5, 6, 7, 8,
        0, 9, 0, 0, 0, 0, 0, 10,
    ];
    [&header[..], body].concat()
}

/// Checks that the message and the bytes (after the header) stand for one another, and that
/// every shorter and every longer datagram is refused.
pub(super) fn golden(message: impl Into<Message<'static>>, body: &[u8]) {
    let message = message.into();
    let kind = message.kind();
    let bytes = datagram(kind as u8, body);
    assert_eq!(encode_plain(HEADER, &message), bytes);
    assert_eq!(decode_plain(&bytes), Ok((HEADER, message)));
    if kind == MessageKind::Symbol {
        return;
    }
    for end in HEADER_LEN..bytes.len() {
        let error = decode_plain(&bytes[..end]).unwrap_err();
        assert!(matches!(error, DecodeError::Truncated { message, .. } if message == kind), "{end}: {error}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(decode_plain(&longer), Err(DecodeError::Truncated { message: kind, field: "extensions" }));
}

/// Checks that `body`, with `patch` laid over it at `at`, is taken.
pub(super) fn takes(kind: MessageKind, body: &[u8], at: usize, patch: &[u8]) {
    let mut body = body.to_vec();
    body[at..at + patch.len()].copy_from_slice(patch);
    let bytes = datagram(kind as u8, &body);
    let (header, message) = decode_plain(&bytes).unwrap();
    assert_eq!(encode_plain(header, &message), bytes);
}

/// Checks that `body`, with `patch` laid over it at `at`, is refused because of `field`.
pub(super) fn refuses(kind: MessageKind, body: &[u8], at: usize, patch: &[u8], field: &'static str) {
    let mut body = body.to_vec();
    body[at..at + patch.len()].copy_from_slice(patch);
    let bytes = datagram(kind as u8, &body);
    assert_eq!(decode_plain(&bytes), Err(DecodeError::OutOfRange { message: kind, field }));
}
