//! ANNOUNCE: describes the session.

use super::extension::{ONE_WAY, ORIGIN, OneWay, OriginProof};
use super::object;
use super::reader::{Reader, Result};
use super::writer::Writer;
use super::{Capabilities, Invitation, Object, Versions};
use crate::limits::{MAX_CONTROL, MAX_MANIFEST, MAX_NAME, MAX_SYMBOL_SIZE, MIN_SYMBOL_SIZE, SYMBOL_ALIGN};
use crate::units::{AgreementKey, BlockIndex, Counter, Rate, SenderKey, Suite, TaskId};
use std::net::SocketAddr;

/// The phase of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for devices.
    Gathering = 0,
    /// Sending source symbols (repairs in between).
    Streaming = 1,
    /// All source symbols sent; repairing.
    Repairing = 2,
    /// The known devices are done; waiting for late ones.
    Lingering = 3,
}

impl Phase {
    const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Gathering,
            1 => Self::Streaming,
            2 => Self::Repairing,
            3 => Self::Lingering,
            _ => return None,
        })
    }
}

/// The kind of task, as a number; see `docs/protocol.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskKind(pub u16);

impl TaskKind {
    /// Copy it.
    pub const COPY: Self = Self(0);
    /// Install it.
    pub const INSTALL: Self = Self(1);
    /// Update something with it.
    pub const UPDATE: Self = Self(2);
    /// Feed it to a batch job.
    pub const BATCH: Self = Self(3);
}

/// Describes the session. Repeated as long as it lasts, so that devices can join at any time.
///
/// The algorithms are Ed25519 for signatures, X25519 for agreements, BLAKE3 for hashes and RaptorQ for
/// repair. They have numbers on the wire; a message with other numbers is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Versions that the sender speaks.
    pub versions: Versions,
    /// Capabilities that a device must have.
    pub required: Capabilities,
    /// Capabilities that a device may have.
    pub optional: Capabilities,
    /// The AEAD of all seals.
    pub suite: Suite,
    /// The sender's key, which signs the message.
    pub sender: SenderKey,
    /// The sender's agreement key, drawn for this session.
    pub agreement: AgreementKey,
    /// The session counter. It rises from session to session; with the two keys, it gives the session's
    /// identifier.
    pub counter: Counter,
    /// The task.
    pub task: TaskId,
    /// The kind of the task.
    pub task_kind: TaskKind,
    /// The phase.
    pub phase: Phase,
    /// Bytes of a symbol: a multiple of [`SYMBOL_ALIGN`] from [`MIN_SYMBOL_SIZE`] to
    /// [`MAX_SYMBOL_SIZE`].
    pub symbol_size: u16,
    /// The data address: a multicast group, a broadcast address or one host. Neither the address nor the port
    /// is 0.
    pub data: SocketAddr,
    /// Blocks below this have been streamed.
    pub position: BlockIndex,
    /// Selects which devices that are not admitted send a JOIN, and when.
    pub invitation: Invitation,
    /// The number of devices that the sender serves. Devices spread their unsolicited messages by it.
    pub gsize: u32,
    /// The sending rate at present.
    pub rate: Rate,
    /// Datagrams a second that all devices together may send.
    pub feedback_budget: u16,
    /// The objects, 1 to [`crate::limits::MAX_OBJECTS`], in the order of their block numbers.
    pub objects: Vec<Object>,
    /// The name of the object, 1 to 255 bytes of UTF-8 without NUL. Untrusted.
    pub name: String,
    /// The manifest, 0 to [`MAX_MANIFEST`] bytes; empty if it is an object, or there is none.
    pub manifest: Vec<u8>,
    /// If present, the session takes no feedback.
    pub one_way: Option<OneWay>,
    /// If present, proves who made the object.
    pub origin: Option<Box<OriginProof>>,
}

/// Numbers of the known algorithms.
const ED25519: u8 = 1;
/// See [`ED25519`].
const X25519: u8 = 1;
/// See [`ED25519`].
const BLAKE3: u8 = 1;
/// See [`ED25519`]: the FEC Encoding ID of RaptorQ (RFC 6330, section 5.1).
const RAPTORQ: u8 = 6;

/// Reads an algorithm's number, which must be `known`.
fn algorithm(r: &mut Reader<'_>, field: &'static str, known: u8) -> Result<()> {
    let number = r.u8(field)?;
    if number == known { Ok(()) } else { Err(r.not_supported(field, number.into())) }
}

impl Announce {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let versions = Versions::decode(r)?;
        let required = Capabilities::decode(r, "required capabilities")?;
        let optional = Capabilities::decode(r, "optional capabilities")?;
        r.check(required.and(optional).is_empty(), "optional capabilities")?;
        algorithm(r, "signature algorithm", ED25519)?;
        algorithm(r, "agreement algorithm", X25519)?;
        algorithm(r, "hash algorithm", BLAKE3)?;
        algorithm(r, "FEC encoding", RAPTORQ)?;
        let suite = r.u8("suite")?;
        let suite = Suite::from_number(suite).ok_or(r.not_supported("suite", suite.into()))?;
        let sender = SenderKey(r.array("sender")?);
        let agreement = AgreementKey(r.array("agreement")?);
        let counter = Counter(r.u64("counter")?);
        let task = TaskId(r.array("task")?);
        let task_kind = TaskKind(r.u16("task kind")?);
        let phase = r.u8("phase")?;
        let phase = Phase::from_wire(phase).ok_or(r.out_of_range("phase"))?;
        let symbol_size = r.u16("symbol size")?;
        let in_range = (MIN_SYMBOL_SIZE..=MAX_SYMBOL_SIZE).contains(&symbol_size);
        r.check(in_range && symbol_size.is_multiple_of(SYMBOL_ALIGN), "symbol size")?;
        let data = r.socket_addr("data address")?;
        let position = BlockIndex(r.u32("position")?);
        let invitation = Invitation::decode(r)?;
        let gsize = r.u32("group size")?;
        let rate = Rate(r.u64("rate")?);
        let feedback_budget = r.u16("feedback budget")?;
        let objects = object::decode(r)?;
        let name = r.text(MAX_NAME, "name")?;
        r.check(!name.is_empty() && !name.contains('\0'), "name")?;
        let name = name.to_owned();
        let manifest = r.bytes(MAX_MANIFEST, "manifest")?.to_vec();
        Ok(Self {
            versions,
            required,
            optional,
            suite,
            sender,
            agreement,
            counter,
            task,
            task_kind,
            phase,
            symbol_size,
            data,
            position,
            invitation,
            gsize,
            rate,
            feedback_budget,
            objects,
            name,
            manifest,
            one_way: None,
            origin: None,
        })
    }

    /// Takes an extension, if it belongs to this message.
    pub(super) fn extension(&mut self, number: u16, r: &mut Reader<'_>) -> Result<bool> {
        match number {
            ONE_WAY => self.one_way = Some(OneWay::decode(r)?),
            ORIGIN => self.origin = Some(Box::new(OriginProof::decode(r)?)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        self.versions.encode(w);
        self.required.encode(w);
        self.optional.encode(w);
        w.bytes(&[ED25519, X25519, BLAKE3, RAPTORQ, self.suite.number()]);
        w.bytes(&self.sender.0);
        w.bytes(&self.agreement.0);
        w.u64(self.counter.0);
        w.bytes(&self.task.0);
        w.u16(self.task_kind.0);
        w.u8(self.phase as u8);
        w.u16(self.symbol_size);
        w.socket_addr(self.data);
        w.u32(self.position.0);
        self.invitation.encode(w);
        w.u32(self.gsize);
        w.u64(self.rate.0);
        w.u16(self.feedback_budget);
        object::encode(&self.objects, w);
        debug_assert!(self.name.len() <= MAX_NAME);
        w.text(&self.name, MAX_NAME);
        w.u16(self.manifest.len().min(usize::from(u16::MAX)) as u16);
        w.bytes(&self.manifest);
        if let Some(one_way) = self.one_way {
            one_way.encode(w);
        }
        if let Some(origin) = &self.origin {
            origin.encode(w);
        }
    }

    /// The fields that do not change during a session, encoded. The keys between the sender and each device
    /// depend on them, so nobody can change them on the way. The other fields are zero: phase, position,
    /// invitation, gsize, rate, feedback budget, size and state of a stream, root hashes, and the extensions.
    #[must_use]
    pub fn constants(&self) -> Vec<u8> {
        let objects = self.objects.iter().map(Object::constant);
        let constant = Self {
            phase: Phase::Gathering,
            position: BlockIndex(0),
            invitation: Invitation { probability: 0, window: std::time::Duration::ZERO },
            gsize: 0,
            rate: Rate(0),
            feedback_budget: 0,
            objects: objects.collect(),
            one_way: None,
            origin: None,
            ..self.clone()
        };
        let mut w = Writer::bare(MAX_CONTROL);
        constant.encode(&mut w);
        w.into_bytes()
    }
}

/// The sender's key in an ANNOUNCE that is not understood as a whole, if its signature algorithm is known.
#[must_use]
pub fn signer(body: &[u8]) -> Option<SenderKey> {
    /// Bytes before it: versions and capabilities.
    const ALGORITHM_AT: usize = 2 + 4 + 4;
    const KEY_AT: usize = ALGORITHM_AT + 5;
    let algorithm = *body.get(ALGORITHM_AT)?;
    let key = body.get(KEY_AT..KEY_AT + 32)?;
    (algorithm == ED25519).then_some(SenderKey(key.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{HEADER_LEN, MAX_BLOCK_LOG2, MAX_OBJECT_SIZE};
    use crate::units::Digest;
    use crate::wire::testing::{HEADER, datagram, golden, refuses, takes};
    use crate::wire::{DecodeError, MessageKind, ObjectKind, decode_plain, encode_plain};
    use std::time::Duration;

    #[rustfmt::skip]
    const FIRST: [u8; 15] = [
        1, 1,                                           //  0 versions
        0, 0, 0, 0,                                     //  2 required
        0, 0, 0, 1,                                     //  6 optional
        1, 1, 1, 6,                                     // 10 Ed25519, X25519, BLAKE3, RaptorQ
        1,                                              // 14 AES-256-GCM
    ];
    #[rustfmt::skip]
    const V4: [u8; 90] = [
        0, 0, 0, 0, 0, 0, 1, 0,                         // 79 counter
        0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
        0, 0,                                           // 103 copy
        1,                                              // 105 streaming
        0x05, 0x80,                                     // 106 symbol size 1408
        4, 239, 255, 74, 17, 0x1c, 0xf9,                // 108 data, port 7417
        0, 0, 2, 1,                                     // 115 position
        0x80, 0, 0x03, 0xe8,                            // 119 invitation
        0, 0, 0, 30,                                    // 123 group size
        0, 0, 0, 0, 0x3b, 0x9a, 0xca, 0,                // 127 rate 1e9
        0x03, 0xe8,                                     // 135 feedback budget
        1,                                              // 137 objects:
        1, 20, 0, 0, 0, 1, 0x80, 0, 0, 0, 1, 0,         // 138 a file, sealed, no root
        9, b'i', b'm', b'a', b'g', b'e', b'.', b'i', b's', b'o', // 150
        0, 5, 1, 2, 3, 4, 5,                            // 160 manifest
        0, 0,                                           // 167 no extension
    ];
    const KEYS: usize = 15;
    const REST: usize = KEYS + 64;

    fn body() -> Vec<u8> {
        [&FIRST[..], &[0x51; 32], &[0x52; 32], &V4[..V4.len() - 2]].concat()
    }

    fn v4() -> Announce {
        Announce {
            versions: Versions::OURS,
            required: Capabilities::default(),
            optional: Capabilities::CODED_BLOCKS,
            suite: Suite::Aes256Gcm,
            sender: SenderKey([0x51; 32]),
            agreement: AgreementKey([0x52; 32]),
            counter: Counter(256),
            task: TaskId(std::array::from_fn(|i| 0xa0 + i as u8)),
            task_kind: TaskKind::COPY,
            phase: Phase::Streaming,
            symbol_size: 1408,
            data: "239.255.74.17:7417".parse().unwrap(),
            position: BlockIndex(0x201),
            invitation: Invitation { probability: 0x8000, window: Duration::from_secs(1) },
            gsize: 30,
            rate: Rate(1_000_000_000),
            feedback_budget: 1000,
            objects: vec![Object::file(0x1_8000_0000, 20)],
            name: "image.iso".into(),
            manifest: vec![1, 2, 3, 4, 5],
            one_way: None,
            origin: None,
        }
    }

    /// A manifest of one block and a stream so far, over IPv6, one way, with an origin.
    fn v6() -> (Announce, Vec<u8>) {
        let root = Digest(std::array::from_fn(|i| i as u8 + 1));
        let announce = Announce {
            versions: Versions { min: 1, max: 7 },
            required: Capabilities(1 << 31),
            suite: Suite::ChaCha20Poly1305,
            task_kind: TaskKind(0x0203),
            phase: Phase::Lingering,
            symbol_size: 8896,
            data: "[ff15::4d43:7417]:7417".parse().unwrap(),
            position: BlockIndex(u32::MAX),
            objects: vec![
                Object {
                    kind: ObjectKind::Manifest,
                    block_log2: 10,
                    size: 900,
                    sealed: true,
                    root: Some(root),
                },
                Object { kind: ObjectKind::Stream, block_log2: 20, size: 1 << 20, sealed: false, root: None },
            ],
            name: "\u{20ac}".into(),
            manifest: Vec::new(),
            one_way: Some(OneWay { pass: 2, overhead_per_mille: 150 }),
            origin: Some(Box::new(OriginProof {
                key: SenderKey([0x53; 32]),
                counter: Counter(0x55),
                signature: [0x54; 64],
            })),
            ..v4()
        };
        let mut body = body()[..REST + 24].to_vec();
        body[1] = 7;
        body[2] = 0x80;
        body[14] = 2;
        body.extend([2, 3, 3, 0x22, 0xc0]);
        body.extend([6, 0xff, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x4d, 0x43, 0x74, 0x17, 0x1c, 0xf9]);
        body.extend([0xff, 0xff, 0xff, 0xff]);
        body.extend(&V4[40..58]);
        body.extend([2, 0, 10, 0, 0, 0, 0, 0, 0, 0x03, 0x84, 1, 1]);
        body.extend(root.0);
        body.extend([4, 20, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0]);
        body.extend([3, 0xe2, 0x82, 0xac, 0, 0]);
        body.extend([0x80, 1, 0, 6, 0, 0, 0, 2, 0, 150]);
        body.extend([0, 2, 0, 104]);
        body.extend([0x53; 32]);
        body.extend([0, 0, 0, 0, 0, 0, 0, 0x55]);
        body.extend([0x54; 64]);
        (announce, body)
    }

    #[test]
    fn golden_bytes() {
        golden(v4(), &body());
        let (announce, body) = v6();
        let bytes = datagram(MessageKind::Announce as u8, &body);
        assert_eq!(encode_plain(HEADER, &announce.clone().into()), bytes);
        assert_eq!(decode_plain(&bytes), Ok((HEADER, announce.into())));
    }

    #[test]
    fn each_bad_field_is_named() {
        let body = body();
        let no = |at, patch: &[u8], field| refuses(MessageKind::Announce, &body, at, patch, field);
        let yes = |at, patch: &[u8]| takes(MessageKind::Announce, &body, at, patch);
        no(0, &[0], "lowest version");
        yes(0, &[1, 255]);
        no(0, &[2, 1], "highest version");
        no(2, &[0, 0, 0, 1], "optional capabilities");
        yes(103, &[0xff, 0xff]);
        yes(105, &[3]);
        no(105, &[4], "phase");
        yes(106, &[0, 64]);
        no(106, &[0, 0], "symbol size");
        no(106, &[0, 63], "symbol size");
        no(106, &[0x05, 0x81], "symbol size");
        no(106, &[0x23, 0x00], "symbol size");
        no(108, &[5], "data address");
        no(109, &[0, 0, 0, 0], "data address");
        no(113, &[0, 0], "data address");
        no(137, &[0], "object count");
        no(137, &[5], "object count");
        yes(138, &[0]);
        yes(139, &[MAX_BLOCK_LOG2]);
        no(139, &[9], "block size");
        no(139, &[MAX_BLOCK_LOG2 + 1], "block size");
        yes(139, &[28, 0, 0x10, 0, 0, 0, 0, 0, 0]);
        // More blocks than have a number; more bytes than there may be.
        no(140, &[0, 0x10, 0, 0, 0, 0, 0, 0], "object size");
        no(139, &[28, 0x80, 0, 0, 0, 0, 0, 0, 1], "object size");
        assert_eq!(MAX_OBJECT_SIZE, 1 << 63);
        no(148, &[2], "object state");
        // A stream alone may grow, by whole blocks.
        no(148, &[0], "object state");
        yes(138, &[4, 20, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0]);
        no(138, &[4, 20, 0, 0, 0, 1, 0x80, 0, 0, 1, 0, 0], "object state");
        no(149, &[2], "root");
        no(152, b"a\0b", "name");
        no(152, &[0xff], "name");
        no(160, &[2, 1], "manifest");
        refuses(MessageKind::Announce, &body[..152], 150, &[0], "name");
        let (_, body) = v6();
        let first = REST + 24 + 5 + 19 + 4 + 18;
        let no = |at: usize, patch: &[u8], field| refuses(MessageKind::Announce, &body, at, patch, field);
        // The last object alone may grow, and has no root then; the first alone may be a manifest.
        no(first + 11, &[0], "object state");
        let sealed = |kind| [kind, 20, 0, 0, 0, 0, 0, 0x10, 0, 0, 1];
        no(first + 45, &[2], "object state");
        no(first + 45, &sealed(0), "object kind");
        takes(MessageKind::Announce, &body, first + 45, &sealed(2));
        no(body.len() - 118, &[0], "extensions");
        no(body.len() - 108, &[0x80], "extensions");
    }

    #[test]
    fn what_a_later_program_may_know_is_not_understood() {
        let body = body();
        let cases = [
            (10, "signature algorithm"),
            (11, "agreement algorithm"),
            (12, "hash algorithm"),
            (13, "FEC encoding"),
            (14, "suite"),
            (138, "object kind"),
        ];
        for (at, field) in cases {
            let mut body = body.clone();
            body[at] = 77;
            let error = decode_plain(&datagram(MessageKind::Announce as u8, &body)).unwrap_err();
            assert_eq!(
                error,
                DecodeError::NotSupported { message: MessageKind::Announce, field, number: 77 }
            );
            assert!(error.is_not_understood() && error.to_string().contains("77"), "{error}");
            assert_eq!(signer(&body), (at != 10).then_some(SenderKey([0x51; 32])));
        }
    }

    #[test]
    fn the_longest_announcement_fits() {
        let full = Announce {
            data: "[ff15::4d43:7417]:7417".parse().unwrap(),
            objects: vec![Object { root: Some(Digest([1; 32])), ..Object::file(1, 20) }],
            name: "n".repeat(255),
            manifest: vec![0; MAX_MANIFEST],
            one_way: Some(OneWay { pass: 0, overhead_per_mille: 0 }),
            origin: Some(Box::new(OriginProof {
                key: SenderKey([0x53; 32]),
                counter: Counter(0x55),
                signature: [0x54; 64],
            })),
            ..v4()
        };
        let bytes = encode_plain(HEADER, &full.into());
        assert!(bytes.len() <= MAX_CONTROL && bytes.len() > MAX_CONTROL - 100, "{}", bytes.len());
        assert!(bytes.len() > HEADER_LEN);
    }

    #[test]
    fn the_constants_are_what_does_not_change() {
        let announce = v4();
        let same = Announce {
            phase: Phase::Repairing,
            position: BlockIndex(9),
            invitation: Invitation { probability: 3, window: Duration::ZERO },
            gsize: 7,
            rate: Rate(8),
            feedback_budget: 100,
            objects: vec![Object { root: Some(Digest([1; 32])), ..announce.objects[0] }],
            one_way: Some(OneWay { pass: 1, overhead_per_mille: 2 }),
            ..announce.clone()
        };
        assert_eq!(announce.constants(), same.constants());
        let others = [
            Announce { versions: Versions { min: 1, max: 2 }, ..v4() },
            Announce { required: Capabilities(2), ..v4() },
            Announce { optional: Capabilities(0), ..v4() },
            Announce { suite: Suite::ChaCha20Poly1305, ..v4() },
            Announce { sender: SenderKey([1; 32]), ..v4() },
            Announce { agreement: AgreementKey([1; 32]), ..v4() },
            Announce { counter: Counter(1), ..v4() },
            Announce { task: TaskId([1; 16]), ..v4() },
            Announce { task_kind: TaskKind::UPDATE, ..v4() },
            Announce { symbol_size: 64, ..v4() },
            Announce { data: "239.255.74.17:7418".parse().unwrap(), ..v4() },
            Announce { objects: vec![Object::file(1, 20)], ..v4() },
            Announce { objects: vec![Object::file(0x1_8000_0000, 21)], ..v4() },
            Announce { objects: vec![v4().objects[0]; 2], ..v4() },
            Announce { name: "x".into(), ..v4() },
            Announce { manifest: vec![], ..v4() },
        ];
        for other in others {
            assert_ne!(announce.constants(), other.constants(), "{other:?}");
        }
        let (growing, _) = v6();
        let mut grown = growing.clone();
        grown.objects[1].size = 9 << 20;
        assert_eq!(growing.constants(), grown.constants());
    }
}
