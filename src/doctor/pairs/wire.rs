//! Datagrams of two doctors. They begin differently from those of transfers, so neither takes the other's.
//!
//! ```text
//! 0      magic "doc1"
//! 4      kind
//! 5      train, or the way of a hello
//! 6      two zeros
//! 8      run of the doctor that asks, 8 bytes
//! 16     cookie, 16 bytes
//! 32     sequence number, 4 bytes
//! 36     payload, then zeros
//! ```

use super::tally::{Tally, Told};

/// Begins each datagram.
const MAGIC: [u8; 4] = *b"doc1";
/// Bytes before the payload.
pub const HEADER: usize = 36;
/// Length of a hello, and of its answer.
pub const HELLO: usize = 64;
/// Length of a question for a report, and of the report.
pub const REPORT: usize = HEADER + Train::ALL.len() * Told::LEN;

/// Kinds of datagrams. The first three ask; a listener answers each with at most one datagram, which is not longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks who is there. Answered by [`Kind::Here`].
    Hello,
    /// Asks for the datagram to come back. Answered by [`Kind::Back`].
    Echo,
    /// Asks what arrived. Answered by [`Kind::Told`].
    Ask,
    /// Is counted, and not answered.
    Count,
    /// A listener, with the cookie that proves the address of who asks.
    Here,
    /// A datagram that comes back.
    Back,
    /// What arrived.
    Told,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Hello, Self::Echo, Self::Ask, Self::Count, Self::Here, Self::Back, Self::Told];
}

/// A run of numbered datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Train {
    /// Datagrams of several lengths, to the group.
    GroupSizes,
    /// Evenly spaced, to the group.
    GroupEven,
    /// At once, to the group.
    GroupBurst,
    /// Evenly spaced, to the listener and back.
    Even,
    /// At once, to the listener and back.
    Burst,
    /// One a second, to the group.
    Long,
}

impl Train {
    /// All trains, by their number on the wire.
    pub const ALL: [Self; 6] =
        [Self::GroupSizes, Self::GroupEven, Self::GroupBurst, Self::Even, Self::Burst, Self::Long];
}

/// The fields of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The kind.
    pub kind: Kind,
    /// The train's number; of a hello and its answer: 1 if it was sent to the group, otherwise 0.
    pub train: u8,
    /// The run of the doctor that asks.
    pub run: u64,
    /// The cookie; zeros in a hello.
    pub cookie: [u8; 16],
    /// The number in the train; of an answer to a hello: which listener it is.
    pub number: u32,
}

/// The bytes of a message, `length` long, at least [`HEADER`].
#[must_use]
pub fn encode(message: &Message, payload: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length.max(HEADER));
    bytes.extend(MAGIC);
    let kind = Kind::ALL.iter().position(|kind| *kind == message.kind).unwrap_or_default();
    bytes.extend([kind as u8, message.train, 0, 0]);
    bytes.extend(message.run.to_be_bytes());
    bytes.extend(message.cookie);
    bytes.extend(message.number.to_be_bytes());
    bytes.extend(payload);
    bytes.resize(length.max(HEADER), 0);
    bytes
}

/// Reads a datagram, with its payload and the zeros behind it; `None` if it is of something else.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(Message, &[u8])> {
    let (head, payload) = bytes.split_at_checked(HEADER)?;
    let kind = *Kind::ALL.get(usize::from(head[4]))?;
    let message = Message {
        kind,
        train: head[5],
        run: u64::from_be_bytes(head[8..16].try_into().ok()?),
        cookie: head[16..32].try_into().ok()?,
        number: u32::from_be_bytes(head[32..36].try_into().ok()?),
    };
    (head[..4] == MAGIC).then_some((message, payload))
}

/// The report of all trains.
#[must_use]
pub fn encode_report(tallies: &[Tally; Train::ALL.len()]) -> Vec<u8> {
    tallies.iter().flat_map(|tally| tally.told().encode()).collect()
}

/// Reads a report; `None` if it is too short.
#[must_use]
pub fn decode_report(payload: &[u8]) -> Option<[Told; Train::ALL.len()]> {
    let mut all = [Told::default(); Train::ALL.len()];
    for (told, bytes) in all.iter_mut().zip(payload.chunks_exact(Told::LEN)) {
        *told = Told::decode(bytes.try_into().ok()?);
    }
    (payload.len() >= Train::ALL.len() * Told::LEN).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn datagrams_are_read_as_they_were_written() {
        for kind in Kind::ALL {
            let message = Message { kind, train: 3, run: 77, cookie: [9; 16], number: 5 };
            let bytes = encode(&message, b"abc", HELLO);
            assert_eq!((bytes.len(), decode(&bytes)), (HELLO, Some((message, &bytes[HEADER..]))));
            assert!(mcp_transfer::wire::head(&bytes).is_err(), "it looks like a transfer's");
        }
        assert_eq!(decode(b"doc1"), None);
        assert_eq!(decode(&[0; 64]), None);
        let mut unknown =
            encode(&Message { kind: Kind::Hello, train: 0, run: 0, cookie: [0; 16], number: 0 }, &[], 0);
        unknown[4] = 7;
        assert_eq!(decode(&unknown), None);
    }

    #[test]
    fn a_report_fits_its_question() {
        let mut tallies: [Tally; Train::ALL.len()] = Default::default();
        let now = Instant::now();
        tallies[1].count(0, 100, now);
        tallies[1].count(1, 200, now + Duration::from_millis(1));
        let payload = encode_report(&tallies);
        assert_eq!(HEADER + payload.len(), REPORT);
        let told = decode_report(&payload).unwrap();
        assert_eq!((told[1].received, told[1].largest, told[1].rate), (2, 200, 1_600_000));
        assert_eq!(decode_report(&payload[1..]), None);
    }
}
