//! Tests of the header and of all messages together: round trips of random messages, and
//! mutations of valid datagrams.

use super::testing::{HEADER, datagram};
use super::*;
use crate::limits::{
    DIGESTS_PER_MESSAGE, HASHES_PER_PAGE, HEADER_LEN, MAX_BLOCK_LOG2, MAX_ESI, MAX_MANIFEST, MAX_OBJECTS,
    MAX_SOURCE_SYMBOLS, MAX_SUSPECTS, MAX_SYMBOL_SIZE, MIN_BLOCK_LOG2,
};
use crate::units::{
    AgreementKey, BlockIndex, ChannelId, Coding, Cookie, Counter, DeviceId, DeviceKey, Digest, Esi, Rate,
    SenderKey, SessionId, Suite, SymbolDigest, TaskId, Ticket,
};
use fastrand::Rng;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

#[test]
fn header_errors_name_what_is_wrong() {
    let good = datagram(10, &[]);
    assert!(decode_plain(&good).is_ok());
    for len in 0..HEADER_LEN {
        assert_eq!(decode_plain(&good[..len]), Err(DecodeError::TooShort(len)));
        assert_eq!(peek(&good[..len]), None);
    }
    let patched = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    assert_eq!(decode_plain(&patched(0, b'M')), Err(DecodeError::BadMagic));
    assert_eq!(decode_plain(&patched(1, b'd')), Err(DecodeError::BadMagic));
    for version in [0, 2, 255] {
        assert_eq!(decode_plain(&patched(2, version)), Err(DecodeError::UnsupportedVersion(version)));
    }
    for kind in [0, 15, 27, 255] {
        assert_eq!(decode_plain(&patched(3, kind)), Err(DecodeError::UnknownKind(kind)));
    }
    for protection in [1, 2, 0x11, 0x20, 0x13, 0x23, 0x40, 0x50, 0xff] {
        assert_eq!(decode_plain(&patched(4, protection)), Err(DecodeError::UnknownProtection(protection)));
    }
    let mut zero = good.clone();
    zero[5..13].fill(0);
    let error = DecodeError::OutOfRange { message: MessageKind::Acknowledge, field: "session" };
    assert_eq!(decode_plain(&zero), Err(error));
    assert_eq!(error.to_string(), "acknowledge: the session is out of range");
}

#[test]
fn a_later_version_is_known_by_its_first_three_bytes() {
    assert_eq!(decode_plain(b"mc\x02"), Err(DecodeError::UnsupportedVersion(2)));
    assert_eq!(decode_plain(b"XY"), Err(DecodeError::BadMagic));
    let text = DecodeError::UnsupportedVersion(2).to_string();
    assert!(text.contains("version 2") && text.contains("same release"), "{text}");
}

#[test]
fn peek_tells_header_and_kind() {
    assert_eq!(peek(&datagram(10, &[])), Some((HEADER, MessageKind::Acknowledge)));
    assert_eq!(peek(&datagram(15, &[])), None);
}

#[test]
fn kinds_are_numbered_from_1_in_order() {
    for (i, kind) in MessageKind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, i + 1);
        assert_eq!(MessageKind::from_wire(kind as u8), Some(kind));
    }
}

#[test]
fn packet_numbers_are_channel_and_counter() {
    let number = PacketNumber::new(ChannelId(0x1234), 0x5678_9abc_def0);
    assert_eq!(number, PacketNumber(0x1234_5678_9abc_def0));
    assert_eq!((number.channel(), number.counter()), (ChannelId(0x1234), 0x5678_9abc_def0));
    assert_eq!(PacketNumber::new(ChannelId::REPLIES, PacketNumber::MAX_COUNTER), PacketNumber(u64::MAX));
    assert_eq!(PacketNumber::default(), PacketNumber::new(ChannelId::GROUP, 0));
}

#[test]
fn control_messages_beyond_the_largest_are_refused() {
    for kind in MessageKind::ALL.into_iter().filter(|&kind| kind != MessageKind::Symbol) {
        let bytes = datagram(kind as u8, &[0; MAX_CONTROL - HEADER_LEN + 1]);
        assert_eq!(decode_plain(&bytes), Err(DecodeError::TooLarge { message: kind, len: MAX_CONTROL + 1 }));
    }
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "out of its range")]
fn encoding_a_value_out_of_range_is_a_bug() {
    let page = HashPage::raw(BlockIndex(1), [(Digest::default(), 1)]);
    let _ = encode_plain(HEADER, &page.into());
}

fn bytes<const N: usize>(rng: &mut Rng) -> [u8; N] {
    std::array::from_fn(|_| rng.u8(..))
}

fn text(rng: &mut Rng, min: usize, max: usize) -> String {
    let len = rng.usize(min..=max);
    let mut text = String::new();
    while text.len() < len {
        let next = if rng.bool() { rng.char('\u{1}'..='\u{7f}') } else { rng.char('\u{1}'..) };
        if text.len() + next.len_utf8() <= len {
            text.push(next);
        }
    }
    text
}

/// Often at an end of the range, where mistakes are.
fn number(rng: &mut Rng, min: u64, max: u64) -> u64 {
    match rng.u8(..6) {
        0 => min,
        1 => max,
        2 => rng.u64(min..=max.min(min.saturating_add(300))),
        _ => rng.u64(min..=max),
    }
}

fn block(rng: &mut Rng) -> BlockIndex {
    BlockIndex(number(rng, 0, u64::from(u32::MAX) - 1) as u32)
}

fn invitation(rng: &mut Rng) -> Invitation {
    Invitation { probability: rng.u16(..), window: Duration::from_millis(rng.u16(..).into()) }
}

fn versions(rng: &mut Rng) -> Versions {
    let min = rng.u8(1..);
    Versions { min, max: rng.u8(min..) }
}

/// One that leaves numbers for the blocks of others.
fn object(rng: &mut Rng, i: usize, count: usize) -> Object {
    use ObjectKind::{Device, File, Manifest, Stream, Tree};
    let kinds = [File, Tree, Device, Stream, Manifest];
    let block_log2 = rng.u8(MIN_BLOCK_LOG2..=MAX_BLOCK_LOG2);
    let most = if count == 1 { u64::from(u32::MAX) } else { 1 << 29 };
    let kind = kinds[rng.usize(..if i == 0 { 5 } else { 4 })];
    let sealed = i + 1 < count || kind != Stream || rng.bool();
    let size = number(rng, 0, most << block_log2);
    Object {
        kind,
        block_log2,
        size: if sealed { size } else { size >> block_log2 << block_log2 },
        sealed,
        root: (sealed && rng.bool()).then(|| Digest(bytes(rng))),
    }
}

fn random_announce(rng: &mut Rng) -> Announce {
    let ip: IpAddr = if rng.bool() { IpAddr::from(bytes::<4>(rng)) } else { IpAddr::from(bytes::<16>(rng)) };
    let ip = if ip.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { ip };
    let required = Capabilities(rng.u32(..));
    let count = rng.usize(1..=MAX_OBJECTS);
    let name = text(rng, 1, 255);
    // What is longer is for object 0.
    let most = 1152 - 171 - count * 44 - 1 - name.len() - 2 - 110;
    Announce {
        versions: versions(rng),
        required,
        optional: Capabilities(rng.u32(..)).without(required),
        sender: SenderKey(bytes(rng)),
        agreement: AgreementKey(bytes(rng)),
        counter: Counter(rng.u64(..)),
        suite: if rng.bool() { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 },
        task: TaskId(bytes(rng)),
        task_kind: TaskKind(rng.u16(..)),
        phase: rng.choice([Phase::Gathering, Phase::Streaming, Phase::Repairing, Phase::Lingering]).unwrap(),
        symbol_size: 64 * rng.u16(1..=MAX_SYMBOL_SIZE / 64),
        data: SocketAddr::new(ip, rng.u16(1..)),
        position: BlockIndex(rng.u32(..)),
        invitation: invitation(rng),
        gsize: rng.u32(..),
        rate: Rate(rng.u64(..)),
        feedback_budget: rng.u16(..),
        objects: (0..count).map(|i| object(rng, i, count)).collect(),
        name,
        manifest: vec![rng.u8(..); rng.usize(..=most.min(MAX_MANIFEST))],
        one_way: rng.bool().then(|| OneWay { pass: rng.u32(..), overhead_per_mille: rng.u16(..) }),
        origin: rng.bool().then(|| {
            Box::new(OriginProof {
                key: SenderKey(bytes(rng)),
                counter: Counter(rng.u64(..)),
                signature: bytes(rng),
            })
        }),
    }
}

fn random_deficit(rng: &mut Rng, room: usize) -> Deficit {
    if rng.u8(..3) == 0 {
        let first = block(rng);
        return Deficit::Whole { first, count: number(rng, 1, u64::from(u32::MAX - first.0)) as u32 };
    }
    let most = room.saturating_sub(Deficit::MIN_LEN + Deficit::RUNS_LEN) / Deficit::RUN_LEN;
    let runs = if rng.bool() { 0 } else { rng.usize(..=most.min(300)) };
    let mut missing = Vec::new();
    let mut from = rng.u32(..100);
    for _ in 0..runs {
        if from >= MAX_SOURCE_SYMBOLS {
            break;
        }
        let count = number(rng, 1, u64::from(MAX_SOURCE_SYMBOLS - from).min(200)) as u32;
        missing.push((from as u16, count as u16));
        from += count + rng.u32(1..300);
    }
    if !missing.is_empty() && rng.bool() {
        return Deficit::Sources { block: block(rng), missing };
    }
    Deficit::Symbols { block: block(rng), symbols: rng.u16(1..), missing }
}

fn random_nak(rng: &mut Rng, size: usize) -> Nak {
    let mut nak = Nak {
        round: rng.u32(..),
        largest_received: PacketNumber(rng.u64(..)),
        ack_delay_us: rng.u32(..),
        incomplete: rng.u32(..),
        pages: Vec::new(),
        deficits: Vec::new(),
    };
    for _ in 0..rng.usize(..=4.min(size)) {
        let first = rng.u32(..1 << 27);
        nak.pages.push(PageRange { first, count: number(rng, 1, (1 << 27) - u64::from(first)) as u32 });
    }
    for _ in 0..size {
        let room = MAX_CONTROL - nak.encoded_len();
        let deficit = random_deficit(rng, room);
        if deficit.encoded_len() <= room {
            nak.deficits.push(deficit);
        }
    }
    nak
}

fn random_poll(rng: &mut Rng) -> Poll {
    let most = (MAX_CONTROL - Poll::FIXED_LEN) / RepairAdvertisement::LEN;
    let advertised = number(rng, 0, most as u64);
    Poll {
        round: rng.u32(..),
        position: BlockIndex(rng.u32(..)),
        invitation: invitation(rng),
        gsize: rng.u32(..),
        want_esis: rng.bool(),
        advertised: (0..advertised)
            .map(|_| RepairAdvertisement { block: block(rng), symbols: rng.u16(..) })
            .collect(),
    }
}

fn random_abort(rng: &mut Rng) -> Abort {
    use AbortCode::*;
    let codes = [Finished, Interrupted, Source, Disk, Name, Mismatch, Internal];
    Abort { code: rng.choice(codes).unwrap(), reason: text(rng, 0, 200) }
}

fn random_message<'a>(rng: &mut Rng, kind: MessageKind, payload: &'a [u8]) -> Message<'a> {
    match kind {
        MessageKind::Announce => random_announce(rng).into(),
        MessageKind::Join => {
            let holdings = match rng.u8(..3) {
                0 => Holdings::Nothing,
                1 => Holdings::Some,
                _ => Holdings::All(Digest(bytes(rng))),
            };
            Join {
                device: DeviceId(bytes(rng)),
                versions: versions(rng),
                supported: Capabilities(rng.u32(..)),
                holdings,
                label: text(rng, 0, 64),
                ticket: rng.bool().then(|| Ticket(bytes(rng))),
                proof: rng.bool().then(|| DeviceProof { key: DeviceKey(bytes(rng)), signature: bytes(rng) }),
            }
            .into()
        }
        MessageKind::Admit => {
            use AdmitVerdict::{Admitted, AlreadyComplete, Full, NotListed, TooLate, Unsupported};
            let verdict = rng
                .choice([Admitted, Admitted, AlreadyComplete, Full, Unsupported, NotListed, TooLate])
                .unwrap();
            if verdict != Admitted {
                return Admit::turned_away(verdict).into();
            }
            Admit {
                verdict,
                channel: ChannelId(rng.u16(1..)),
                version: rng.u8(1..),
                capabilities: Capabilities(rng.u32(..)),
                ticket: rng.bool().then(|| Ticket(bytes(rng))),
            }
            .into()
        }
        MessageKind::Symbol => {
            let id = Esi(number(rng, 0, MAX_ESI.into()) as u32);
            let len = number(rng, 1, payload.len() as u64) as usize;
            Symbol { block: block(rng), esi: id, payload: &payload[..len] }.into()
        }
        MessageKind::HashPage => {
            let first = BlockIndex(rng.u32(..u32::MAX / HASHES_PER_PAGE) * HASHES_PER_PAGE);
            let count = rng.u32(1..=HASHES_PER_PAGE);
            let entry = |rng: &mut Rng| {
                let coding = rng.choice([Coding::Raw, Coding::Short, Coding::Zero, Coding::Zstd]).unwrap();
                let k = number(rng, 1, u64::from(MAX_SOURCE_SYMBOLS)) as u16;
                let coded_k = if coding == Coding::Zero { 0 } else { k };
                BlockEntry { value: Digest(bytes(rng)), coding, coded_k }
            };
            HashPage { first, blocks: (0..count).map(|_| entry(rng)).collect() }.into()
        }
        MessageKind::Poll => random_poll(rng).into(),
        MessageKind::Nak => {
            let size = rng.usize(..200);
            random_nak(rng, size).into()
        }
        MessageKind::Progress => Progress {
            verified: rng.u32(..),
            received: rng.u64(..),
            lost: rng.u64(..),
            kernel_drops: rng.u64(..),
            overrun_drops: rng.u64(..),
            storage_delay_us: rng.u32(..),
            room: BlockIndex(rng.u32(..)),
            below: BlockIndex(rng.u32(..)),
            ticket_kept: rng.bool(),
            arrivals: None,
        }
        .into(),
        MessageKind::Complete => Complete {
            root: Digest(bytes(rng)),
            sink: rng.choice([SinkEnd::Named, SinkEnd::InPlace, SinkEnd::Piped]).unwrap(),
            command: rng.bool().then(|| rng.i32(..)),
            hook: rng.bool().then(|| rng.i32(..)),
            received: rng.u64(..),
            lost: rng.u64(..),
        }
        .into(),
        MessageKind::Acknowledge => Acknowledge.into(),
        MessageKind::Abort => random_abort(rng).into(),
        MessageKind::Retry => {
            Retry { agreement: AgreementKey(bytes(rng)), cookie: Cookie(bytes(rng)) }.into()
        }
        MessageKind::Suspect => {
            let mut blocks: Vec<BlockIndex> = (0..rng.usize(1..=MAX_SUSPECTS)).map(|_| block(rng)).collect();
            blocks.sort_unstable();
            blocks.dedup();
            Suspect { blocks }.into()
        }
        MessageKind::SymbolDigests => {
            let digests: Vec<SymbolDigest> =
                (0..rng.usize(1..=DIGESTS_PER_MESSAGE)).map(|_| SymbolDigest(bytes(rng))).collect();
            let first = number(rng, 0, u64::from(MAX_SOURCE_SYMBOLS) - digests.len() as u64) as u32;
            SymbolDigests { block: block(rng), first_esi: Esi(first), digests }.into()
        }
    }
}

fn random_header(rng: &mut Rng) -> Header {
    Header { session: SessionId(rng.u64(1..)), packet_number: PacketNumber(rng.u64(..)) }
}

#[test]
fn random_messages_come_back_as_they_were() {
    let mut rng = Rng::with_seed(0x6d63);
    let mut payload = vec![0; MAX_SYMBOL_SIZE.into()];
    rng.fill(&mut payload);
    for kind in MessageKind::ALL {
        for _ in 0..400 {
            let header = random_header(&mut rng);
            let message = random_message(&mut rng, kind, &payload);
            let bytes = encode_plain(header, &message);
            assert!(kind == MessageKind::Symbol || bytes.len() <= MAX_CONTROL);
            match &message {
                Message::Nak(nak) => assert_eq!(nak.encoded_len(), bytes.len()),
                Message::Poll(poll) => assert_eq!(poll.encoded_len(), bytes.len()),
                Message::Symbol(s) => assert!(bytes.starts_with(&symbol_head(header, s.block, s.esi))),
                _ => {}
            }
            assert_eq!(decode_plain(&bytes), Ok((header, message)));
        }
    }
}

#[test]
fn mutated_datagrams_never_panic_and_stay_canonical() {
    let mut rng = Rng::with_seed(0x6d64);
    let payload = [0x5a; 300];
    let valid: Vec<Vec<u8>> = MessageKind::ALL
        .into_iter()
        .flat_map(|kind| [kind; 20])
        .map(|kind| {
            let header = random_header(&mut rng);
            encode_plain(header, &random_message(&mut rng, kind, &payload))
        })
        .collect();
    let mut taken = 0;
    for _ in 0..100_000 {
        let mut bytes = rng.choice(&valid).unwrap().clone();
        for _ in 0..rng.usize(1..4) {
            // Mostly behind the header, and mostly near the front: lists would take most hits.
            let end = if rng.bool() { bytes.len().min(90) } else { bytes.len() };
            let at = if end > HEADER_LEN && rng.u8(..8) != 0 {
                rng.usize(HEADER_LEN..end)
            } else {
                rng.usize(..end.max(1))
            };
            match rng.u8(..8) {
                0 => bytes.truncate(at),
                1 => bytes.extend((0..rng.usize(1..20)).map(|_| rng.u8(..))),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 if at <= bytes.len() => bytes.insert(at, rng.u8(..)),
                4 if at < bytes.len() => bytes[at] = rng.choice([0, 1, 2, 0x7f, 0x80, 0xfe, 0xff]).unwrap(),
                _ if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
                _ => {}
            }
        }
        crate::fuzzing::fuzz_datagram(&bytes);
        taken += usize::from(decode_plain(&bytes).is_ok());
    }
    assert!((10_000..90_000).contains(&taken), "{taken} taken: the mutations miss either side");
}

#[test]
fn the_protection_has_a_byte_of_its_own() {
    let bytes = [0, 0x10, 0x21, 0x22, 0x31, 0x32, 0x41, 0x42];
    assert_eq!(Protection::ALL.map(Protection::number), bytes);
    for protection in Protection::ALL {
        let mut bytes = datagram(6, &[]);
        protection.mark(&mut bytes);
        assert_eq!(bytes[3..5], [6, protection.number()]);
        assert_eq!(head(&bytes), Ok(Head { header: HEADER, kind: MessageKind::Poll, protection }));
        if protection != Protection::Clear {
            assert_eq!(decode_plain(&bytes), Err(DecodeError::Protected(MessageKind::Poll)));
        }
    }
}
