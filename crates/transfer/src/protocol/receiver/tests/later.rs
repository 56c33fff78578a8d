//! Senders of later programs: what the receiver skips, what it does not understand, and what it tells the user.

use super::*;
use crate::content::TreeHead;
use crate::crypto::origin::Origin;
use crate::protocol::need::Need;
use crate::units::{Counter, Digest, SymbolDigest};
use crate::wire::{
    Abort, AbortCode, Acknowledge, Capabilities, DecodeError, HashPage, MessageKind, ObjectKind, OriginProof,
    Poll, SymbolDigests, Versions,
};

/// An extension that nobody knows, and the same if its reader must know it.
const UNKNOWN: [u8; 6] = [0x03, 0x09, 0, 2, 1, 2];
const CRITICAL: [u8; 6] = [0x83, 0x09, 0, 2, 1, 2];

fn needs(bench: &Bench) -> Vec<Need> {
    bench.receiver.needs.iter().map(|(_, need)| *need).collect()
}

/// Whether the receiver has taken a session into consideration, or takes part in one.
fn takes_part(bench: &Bench) -> bool {
    bench.receiver.session.is_some() || bench.receiver.provisional.current().is_some()
}

/// A receiver that has heard an announce, and not taken part.
fn refuses(announce: impl FnOnce(Announce) -> Announce) -> Bench {
    let mut bench = Bench::new(small_blocks(4));
    let announced = announce(bench.announce_now());
    for _ in 0..3 {
        bench.hear(&Message::Announce(announced.clone()));
    }
    assert!(!takes_part(&bench));
    bench
}

#[test]
fn a_sender_of_another_version_is_told_of_once_and_others_are_waited_for() {
    let mut bench = Bench::new(small_blocks(4));
    let later = |bench: &mut Bench, from: &str| {
        let announce = bench.announce_now();
        let mut bytes = bench.sender.to_all(ChannelId::GROUP, &announce.into(), |_| ());
        bytes[2] = 2;
        // Its header is not ours.
        bytes.truncate(9);
        bench.take(from.parse().unwrap(), bytes);
    };
    for _ in 0..5 {
        later(&mut bench, "10.0.0.1:7418");
    }
    assert_eq!(needs(&bench), [Need::Version(2)]);
    assert_eq!(bench.receiver.snapshot().not_understood, 5);
    // Anybody can claim to be one, from many addresses: what is kept of it is bounded.
    for n in 2..200 {
        later(&mut bench, &format!("10.0.0.{n}:7418"));
    }
    assert_eq!(needs(&bench).len(), 16);
    bench.announce();
    assert!(takes_part(&bench));
    let mut bench = Bench::new(small_blocks(4));
    later(&mut bench, "10.0.0.1:7418");
    bench.pass(Duration::from_secs(61));
    assert_eq!(bench.outcome, Some(ReceiverOutcome::SenderNeeds(Need::Version(2))));
}

#[test]
fn what_an_announce_asks_for_is_told() {
    let versions = Versions { min: 2, max: 9 };
    let bench = refuses(|announce| Announce { versions, ..announce });
    assert_eq!(needs(&bench), [Need::Version(2)]);
    let required = Capabilities(0x11);
    let bench = refuses(|announce| Announce { required, ..announce });
    // Coded blocks are known.
    assert_eq!(needs(&bench), [Need::Capabilities(Capabilities(0x10))]);
    let objects = |objects: Vec<Object>| {
        let bench = refuses(|announce| Announce { objects, ..announce });
        assert!(matches!(needs(&bench)[..], [Need::Feature(_)]), "{:?}", needs(&bench));
    };
    let file = Object::file(9000, 10);
    objects(vec![file; 2]);
    objects(vec![Object { kind: ObjectKind::Tree, ..file }]);
    let head = |manifest| TreeHead { manifest, entries: 7, tops: 1, bytes: 8000, archive: false }.encode();
    let tree = |manifest| {
        let objects = vec![Object { kind: ObjectKind::Tree, ..file }];
        refuses(|announce| Announce { objects, manifest: head(manifest), ..announce })
    };
    assert!(
        matches!(needs(&tree(9001))[..], [Need::Feature("trees of another form")]),
        "longer than the object"
    );
    // What may be used with others is no need.
    let mut bench = Bench::new(small_blocks(4));
    let optional = Capabilities(u32::MAX);
    let announce = Announce { optional, versions: Versions { min: 1, max: 9 }, ..bench.announce_now() };
    bench.hear(&Message::Announce(announce));
    assert!(takes_part(&bench) && needs(&bench).is_empty());
}

#[test]
fn a_forged_announce_does_not_tell_what_a_sender_needs() {
    let mut bench = Bench::new(small_blocks(4));
    let announce = bench.announce_now();
    let mut bytes = bench.sender.to_all(ChannelId::GROUP, &announce.into(), |_| ());
    // The hash algorithm.
    bytes[crate::limits::HEADER_LEN + 12] = 2;
    bench.take(SENDER, bytes);
    assert!(needs(&bench).is_empty() && !takes_part(&bench));
}

#[test]
fn unknown_extensions_of_an_announce_are_passed_over_unless_they_are_critical() {
    let hear = |extension: [u8; 6]| {
        let mut bench = Bench::new(small_blocks(4));
        let announce = bench.announce_now();
        let add = |plain: &mut Vec<u8>| plain.extend(extension);
        let bytes = bench.sender.to_all(ChannelId::GROUP, &announce.into(), add);
        bench.take(SENDER, bytes);
        bench
    };
    assert!(takes_part(&hear(UNKNOWN)));
    let bench = hear(CRITICAL);
    assert!(!takes_part(&bench));
    let error = DecodeError::UnknownCritical { message: MessageKind::Announce, number: 0x309 };
    assert_eq!(needs(&bench), [Need::Announce(error)]);
    assert_eq!(needs(&bench)[0].to_string(), "extension 777 of announce");
}

#[test]
fn every_message_may_have_extensions() {
    let invitation = Invitation { probability: u16::MAX, window: Duration::ZERO };
    let poll = Poll {
        round: 1,
        position: BlockIndex(1),
        invitation,
        gsize: 1,
        want_esis: false,
        advertised: vec![],
    };
    let digests =
        SymbolDigests { block: BlockIndex(0), first_esi: Esi(0), digests: vec![SymbolDigest::default()] };
    let page = HashPage::raw(BlockIndex(0), [(Digest::default(), 1)]);
    let abort = Abort { code: AbortCode::Finished, reason: String::new() };
    let to_all = [page.into(), poll.clone().into(), digests.into(), abort.clone().into()];
    let alone = [any_admit(ChannelId(1)).into(), poll.into(), Acknowledge.into(), abort.into()];
    let cases = to_all.map(|message| (message, false)).into_iter();
    for (message, alone) in cases.chain(alone.map(|message| (message, true))) {
        for extension in [UNKNOWN, CRITICAL] {
            let mut bench = Bench::joined(small_blocks(1), true);
            for bytes in &bench.sent {
                bench.sender.hear(OWN, bytes);
            }
            let add = |plain: &mut Vec<u8>| plain.extend(extension);
            let bytes = if alone {
                bench.sender.to_one(ChannelId(1), &message, add).expect("it has joined")
            } else {
                bench.sender.to_all(ChannelId::GROUP, &message, add)
            };
            let before = bench.receiver.snapshot();
            bench.take(SENDER, bytes);
            let after = bench.receiver.snapshot();
            let critical = u64::from(extension == CRITICAL);
            assert_eq!(after.not_understood - before.not_understood, critical, "{message:?}");
            assert_eq!(after.ignored - before.ignored, critical, "{message:?}");
        }
    }
}

#[test]
fn unknown_kinds_are_ignored_and_counted() {
    let mut bench = Bench::joined(small_blocks(4), true);
    let session = bench.sender.session();
    for (n, kind) in [15, 27, 200, 255].into_iter().enumerate() {
        let packet_number = PacketNumber::new(ChannelId::REPLIES, n as u64);
        let mut bytes = wire::encode_plain(Header { session, packet_number }, &Acknowledge.into());
        bytes[3] = kind;
        bench.take(SENDER, bytes);
        assert_eq!(bench.receiver.snapshot().unknown_kinds, n as u64 + 1);
    }
    assert_eq!(bench.outcome, None);
}

#[test]
fn nothing_is_chosen_that_was_not_offered() {
    let others = [
        Admit { version: 2, ..any_admit(ChannelId(1)) },
        Admit { capabilities: Capabilities(1), ..any_admit(ChannelId(1)) },
    ];
    for admit in others {
        let mut bench = Bench::joined(small_blocks(4), false);
        bench.hear_alone(&Message::Admit(admit));
        assert!(!bench.receiver.admitted);
        bench.hear_alone(&Message::Admit(ADMITTED));
        assert!(bench.receiver.admitted);
    }
    let mut bench = Bench::joined(small_blocks(4), false);
    bench.hear_alone(&Message::Admit(Admit::turned_away(wire::AdmitVerdict::Unsupported)));
    bench.done(ReceiverDone::Discarded);
    assert!(matches!(bench.outcome, Some(ReceiverOutcome::SenderNeeds(_))), "{:?}", bench.outcome);
}

#[test]
fn an_announce_with_a_false_proof_of_its_origin_is_refused() {
    let key = sham::signing_key(9);
    let hear = |change: fn(&mut Announce)| {
        let mut bench = Bench::new(small_blocks(4));
        let mut announce = bench.announce_now();
        let object = announce.objects[0];
        let origin = Origin {
            counter: Counter(7),
            block_log2: object.block_log2,
            size: object.size,
            root: object.root.unwrap(),
            name: &announce.name,
            manifest: &announce.manifest,
        };
        announce.origin = Some(Box::new(OriginProof {
            key: key.public(),
            counter: Counter(7),
            signature: origin.sign(&key),
        }));
        change(&mut announce);
        bench.hear(&Message::Announce(announce));
        takes_part(&bench)
    };
    assert!(hear(|_| ()));
    assert!(!hear(|announce| announce.name = "g".into()));
    assert!(!hear(|announce| announce.manifest = vec![1]));
    assert!(!hear(|announce| announce.objects[0].root = None));
    assert!(!hear(|announce| announce.objects[0].root = Some(Digest([1; 32]))));
    assert!(!hear(|announce| announce.objects[0].size -= 1));
    assert!(!hear(|announce| announce.objects[0].block_log2 += 1));
    assert!(!hear(|announce| announce.origin.as_mut().unwrap().signature[3] ^= 1));
    assert!(!hear(|announce| announce.origin.as_mut().unwrap().counter = Counter(8)));
    assert!(!hear(|announce| announce.origin.as_mut().unwrap().key = SenderKey([3; 32])));
}

/// The identifier follows from the keys and the counter: nobody else's will do.
#[test]
fn a_session_has_its_own_identifier_or_is_none() {
    let mut bench = Bench::new(small_blocks(4));
    let announce = Announce { counter: Counter(COUNTER + 1), ..bench.announce_now() };
    bench.hear(&Message::Announce(announce));
    assert!(!takes_part(&bench));
}
