//! Which datagrams pass and which do not, with a group key and without.

use super::*;
use crate::crypto::primitives::REAL;
use crate::crypto::sign::{Purpose, SigningKey};
use crate::sim::fakes::{announce_of, any_join};
use crate::units::{BlockIndex, ChannelId, Cookie, DeviceId, Digest, Esi};
use crate::wire::{
    self, Abort, AbortCode, Acknowledge, Admit, AdmitVerdict, Capabilities, HashPage, Header, Holdings,
    Invitation, Message, PacketNumber, Poll, Retry, Symbol,
};
use std::time::Duration;

const COUNTER: Counter = Counter(0x5e55);

/// The session of all senders here: they differ in their group only.
fn session() -> SessionId {
    sender(None, Suite::Aes256Gcm).session()
}

fn group(seed: u8) -> Secret {
    Secret::new([seed; 32])
}

fn header(channel: u16, counter: u64) -> Header {
    Header { session: session(), packet_number: PacketNumber::new(ChannelId(channel), counter) }
}

fn sender(key: Option<&Secret>, suite: Suite) -> SenderSide {
    let mut side = SenderSide::new(COUNTER, SigningKey::new(&Secret::new([1; 32])), [2; 32], suite, key);
    side.announce(&announce_of(&side));
    side
}

fn receiver(sender: &SenderSide, key: Option<&Secret>) -> ReceiverSide {
    let mut side = ReceiverSide::new(REAL, session(), &announce_of(sender), key, [3; 32]).unwrap();
    side.admitted(ChannelId(1));
    side
}

/// What a receiver makes of a datagram: its body, if it takes it.
fn opened(side: &mut ReceiverSide, bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut bytes = bytes.to_vec();
    let head = wire::head(&bytes).ok()?;
    if head.header.session != session() {
        return None;
    }
    side.open(&head, &mut bytes, || true).map(|opened| (opened.body.to_vec(), opened.authentic))
}

fn messages() -> Vec<Message<'static>> {
    vec![
        HashPage::raw(BlockIndex(0), [(Digest([9; 32]), 1); 2]).into(),
        Poll {
            round: 1,
            position: BlockIndex(3),
            invitation: Invitation { probability: 7, window: Duration::ZERO },
            gsize: 2,
            want_esis: false,
            advertised: vec![],
        }
        .into(),
        Abort { code: AbortCode::Finished, reason: "done".into() }.into(),
    ]
}

/// The group's sessions there are: without a key, and with one by both suites.
fn sessions() -> [(Option<Secret>, Suite); 3] {
    [(None, Suite::Aes256Gcm), (Some(group(7)), Suite::Aes256Gcm), (Some(group(7)), Suite::ChaCha20Poly1305)]
}

#[test]
fn every_changed_bit_of_what_is_said_to_all_is_noticed() {
    for (key, suite) in sessions() {
        let from = sender(key.as_ref(), suite);
        for (n, message) in (0..).zip(messages()) {
            let sound = from.to_all(header(0, n), &message);
            let mut side = receiver(&from, key.as_ref());
            for bit in 0..sound.len() * 8 {
                let mut damaged = sound.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let taken = opened(&mut side, &damaged).is_some_and(|(_, authentic)| authentic);
                assert!(!taken, "{suite:?} {message:?}: bit {bit}");
            }
            for len in 0..sound.len() {
                assert!(opened(&mut side, &sound[..len]).is_none_or(|(_, authentic)| !authentic));
            }
            // None of them has moved the window.
            let plain = encode(header(0, n), &message);
            assert_eq!(opened(&mut side, &sound), Some((plain[HEADER_LEN..].to_vec(), true)));
            assert_eq!(opened(&mut side, &sound), None, "a replay");
        }
    }
}

#[test]
fn every_changed_bit_of_what_is_said_to_one_is_noticed() {
    for (key, suite) in sessions() {
        let from = sender(key.as_ref(), suite);
        let mut side = receiver(&from, key.as_ref());
        let keys = from.agree(&side.agreement()).unwrap();
        let admit = Admit {
            verdict: AdmitVerdict::Admitted,
            channel: ChannelId(1),
            version: 1,
            capabilities: Capabilities::default(),
            ticket: Some(from.ticket(&side.agreement())),
        };
        let said = [(u16::MAX, 5, admit.into()), (1, 5, Acknowledge.into()), (1, 6, messages().remove(1))];
        for (channel, counter, message) in said {
            let sound = from.to_one(&keys, header(channel, counter), &message);
            for bit in 0..sound.len() * 8 {
                let mut damaged = sound.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(opened(&mut side, &damaged), None, "{message:?}: bit {bit}");
            }
            let plain = encode(header(channel, counter), &message);
            assert_eq!(opened(&mut side, &sound), Some((plain[HEADER_LEN..].to_vec(), true)));
        }
        // It is for this device alone.
        let mut other =
            ReceiverSide::new(REAL, session(), &announce_of(&from), key.as_ref(), [4; 32]).unwrap();
        other.admitted(ChannelId(1));
        assert_eq!(opened(&mut other, &from.to_one(&keys, header(1, 9), &Acknowledge.into())), None);
    }
}

#[test]
fn announces_are_found_by_members_and_believed_only_as_they_were_signed() {
    let announce = |side: &SenderSide| side.to_all(header(0, 0), &announce_of(side).into());
    let found = |groups: &[Secret], bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let head = wire::head(&bytes).ok()?;
        find(REAL, groups, &head, &mut bytes).map(|found| found.group_key)
    };
    let plain = announce(&sender(None, Suite::Aes256Gcm));
    assert_eq!(found(&[], &plain), Some(None));
    assert_eq!(found(&[group(1)], &plain), None, "one with keys takes sealed ones only");
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let sealed = announce(&sender(Some(&group(7)), suite));
        assert_eq!(found(&[group(1), group(7)], &sealed), Some(Some(1)));
        assert_eq!(found(&[group(1)], &sealed), None);
        assert_eq!(found(&[], &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(found(&[group(7)], &damaged), None, "bit {bit}");
        }
    }
    for bit in 0..plain.len() * 8 {
        let mut damaged = plain.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(found(&[], &damaged), None, "bit {bit}");
    }
}

#[test]
fn a_member_cannot_pass_for_the_sender() {
    let key = group(7);
    let from = sender(Some(&key), Suite::Aes256Gcm);
    let mut side = receiver(&from, Some(&key));
    // It has all the keys of the group, and signs with an signing_key of its own.
    let membership = Membership::new(Some(&key), Suite::Aes256Gcm, session(), &from.key());
    let seals = membership.seals.as_ref().unwrap();
    let signing_key = SigningKey::new(&Secret::new([66; 32]));
    let forge = |number: Header, message: &Message<'_>| {
        let mut datagram = wire::encode_plain(number, message);
        Protection::Group(Suite::Aes256Gcm).mark(&mut datagram);
        if message.kind() != MessageKind::Symbol {
            let signature = signing_key.sign(Purpose::Datagram, &[&datagram, &membership.identity]);
            datagram.extend_from_slice(&signature);
        }
        seal(&seals.stream, number.packet_number.0, HEADER_LEN, &mut datagram);
        datagram
    };
    for (n, message) in (0..).zip(messages()) {
        assert_eq!(opened(&mut side, &forge(header(0, n), &message)), None, "{message:?}");
    }
    // Symbols it can forge: they count for nothing until their block agrees with its value.
    let symbol = Symbol { block: BlockIndex(0), esi: Esi(0), payload: b"forged" };
    assert!(opened(&mut side, &forge(header(0, 99), &symbol.into())).is_some());
}

#[test]
fn symbols_are_sealed_for_the_group_or_vouched_for_by_nobody() {
    let symbol = Message::from(Symbol { block: BlockIndex(2), esi: Esi(3), payload: b"some bytes" });
    for (key, suite) in sessions() {
        let from = sender(key.as_ref(), suite);
        let mut side = receiver(&from, key.as_ref());
        let bytes = from.to_all(header(0, 4), &symbol);
        let clear = bytes.windows(10).any(|w| w == b"some bytes");
        assert_eq!(clear, key.is_none());
        let plain = encode(header(0, 4), &symbol);
        assert_eq!(opened(&mut side, &bytes), Some((plain[HEADER_LEN..].to_vec(), key.is_some())));
        // It moves no window: any member of the group can forge it. So it may come again, but not for long.
        assert!(opened(&mut side, &bytes).is_some());
        assert!(opened(&mut side, &from.to_all(header(0, 5), &announce_of(&from).into())).is_some());
        assert!(opened(&mut side, &bytes).is_some());
        assert_eq!(opened(&mut side, &bytes).is_some(), key.is_none());
        if key.is_some() {
            assert_eq!(opened(&mut side, &plain), None, "a plain symbol in a sealed session");
        }
    }
}

#[test]
fn what_is_not_for_one_to_say_is_not_heard() {
    let from = sender(None, Suite::Aes256Gcm);
    let mut side = receiver(&from, None);
    // Unsigned and unsealed, whatever it is.
    for message in messages().into_iter().chain([Acknowledge.into()]) {
        let plain = encode(header(0, 1), &message);
        assert_eq!(opened(&mut side, &plain), None, "{message:?}");
        for protection in Protection::ALL {
            let mut marked = plain.clone();
            protection.mark(&mut marked);
            assert_eq!(opened(&mut side, &marked), None, "{message:?} {protection:?}");
        }
    }
    // A retry is anybody's to say, and proves nothing.
    let retry = Retry { agreement: side.agreement(), cookie: Cookie([1; 16]) };
    let (_, authentic) = opened(&mut side, &from.to_all(header(u16::MAX, 0), &retry.into())).unwrap();
    assert!(!authentic);
    // On a channel that is not ours.
    assert_eq!(opened(&mut side, &from.to_all(header(2, 1), &messages()[0])), None);
}

#[test]
fn signatures_are_checked_as_often_as_allowed_sealed_or_not() {
    for key in [None, Some(group(7))] {
        let from = sender(key.as_ref(), Suite::Aes256Gcm);
        let mut side = receiver(&from, key.as_ref());
        let bytes = from.to_all(header(0, 1), &messages()[0]);
        let head = wire::head(&bytes).unwrap();
        assert!(side.open(&head, &mut bytes.clone(), || false).is_none());
        assert!(side.open(&head, &mut bytes.clone(), || true).is_some());
    }
}

#[test]
fn joins_prove_membership_before_anything_costly_is_done() {
    let key = group(7);
    let from = sender(Some(&key), Suite::Aes256Gcm);
    let at = "10.0.0.9:4000".parse().unwrap();
    let join = any_join(DeviceId([5; 16]), Holdings::Some);
    let member = receiver(&from, Some(&key));
    let mut bytes = member.join(header(0, 0), Cookie::default(), join.clone());
    let clear = from.join_clear(at, &bytes).unwrap();
    assert!(!clear.reachable && clear.agreement == member.agreement());
    for stranger in [receiver(&from, None), receiver(&from, Some(&group(8)))] {
        let bytes = stranger.join(header(0, 0), Cookie::default(), join.clone());
        assert!(from.join_clear(at, &bytes).is_none());
    }
    let cookie = from.cookie(at, &member.agreement());
    bytes = member.join(header(0, 1), cookie, join);
    assert!(from.join_clear(at, &bytes).unwrap().reachable);
    for elsewhere in ["10.0.0.9:4001", "10.0.0.8:4000", "[::1]:4000"] {
        assert!(!from.join_clear(elsewhere.parse().unwrap(), &bytes).unwrap().reachable);
    }
    let keys = from.agree(&member.agreement()).unwrap();
    let head = wire::head(&bytes).unwrap();
    assert!(SenderSide::from_one(&keys, &head, &mut bytes.clone()).is_some());
    assert!(from.agree(&AgreementKey([0; 32])).is_none(), "a key that is everybody's");
}

/// A holder of the group key hears a session that has none, of the same sender: it may not make the group
/// believe that it is theirs, nor the other way round.
#[test]
fn what_is_signed_for_nobody_or_another_group_cannot_be_made_this_groups() {
    let (ours, theirs) = (group(7), group(8));
    let number = PacketNumber::new(ChannelId::GROUP, 3);
    for (of, made_for) in [(None, Some(&ours)), (Some(&theirs), Some(&ours)), (Some(&ours), None)] {
        let from = sender(of, Suite::Aes256Gcm);
        let header = header(0, 3);
        let announce = announce_of(&from);
        for message in messages().into_iter().chain([announce.clone().into()]) {
            let mut signed = from.to_all(header, &message);
            if let Some(seals) = &from.membership.seals {
                let key =
                    if message.kind() == MessageKind::Announce { &seals.announce } else { &*seals.stream };
                let len = open(key, number.0, HEADER_LEN, &mut signed).unwrap().len();
                signed.truncate(HEADER_LEN + len);
            }
            // With the mark that its readers expect, and with the one that was signed.
            for mark in [true, false] {
                let mut forged = signed.clone();
                if mark {
                    to_all(message.kind(), made_for.map(|_| Suite::Aes256Gcm)).mark(&mut forged);
                }
                let member = Membership::new(made_for, Suite::Aes256Gcm, from.session(), &from.key());
                if let Some(seals) = &member.seals {
                    let key = if message.kind() == MessageKind::Announce {
                        &seals.announce
                    } else {
                        &*seals.stream
                    };
                    seal(key, number.0, HEADER_LEN, &mut forged);
                }
                let mut side = ReceiverSide::new(REAL, session(), &announce, made_for, [3; 32]).unwrap();
                assert_eq!(opened(&mut side, &forged), None, "{of:?} {made_for:?} {mark} {message:?}");
                let head = wire::head(&forged).unwrap();
                let groups: Vec<Secret> = made_for.cloned().into_iter().collect();
                assert!(find(REAL, &groups, &head, &mut forged).is_none());
            }
        }
    }
}
