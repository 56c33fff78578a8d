//! Objects that others than their origin send.

use super::*;
use crate::crypto::origin::{Origin, OriginName};
use crate::crypto::sign::SigningKey;
use crate::protocol::trust::{Strangers, Trust, TrustDecision};
use crate::units::{Counter, SenderKey};
use crate::wire::{AbortCode, HashPage, OneWay, OriginProof};
use std::collections::BTreeMap;

const FIRST: Counter = Counter(100);

fn origin() -> SigningKey {
    sham::signing_key(77)
}

/// One that takes what the origin has signed from anybody.
fn bench() -> Bench {
    bench_after(BTreeMap::new())
}

/// The same, which has completed these.
fn bench_after(completed: BTreeMap<OriginName, Counter>) -> Bench {
    let mut bench = Bench::new(small_blocks(2));
    bench.receiver.config.relayed = Some(completed);
    bench.receiver.config.trust =
        Trust { pinned: vec![origin().public()], strangers: Strangers::Refuse, ..Trust::default() };
    // What the values of its two blocks give.
    bench.root = Some(crate::crypto::digest::root(&[Digest([0; 32]), Digest([1; 32])]));
    bench
}

/// The announcement of the bench's session, with the proof of the origin with this key.
fn relayed(bench: &Bench, key: &SigningKey, counter: Counter) -> Announce {
    let mut announce = bench.announce_now();
    let object = announce.objects[0];
    let signed = Origin {
        counter,
        block_log2: object.block_log2,
        size: object.size,
        root: object.root.unwrap(),
        name: &announce.name,
        manifest: &announce.manifest,
    };
    announce.origin = Some(Box::new(OriginProof { key: key.public(), counter, signature: signed.sign(key) }));
    announce
}

/// One that takes part in the session of a relay.
fn admitted() -> Bench {
    let mut bench = bench();
    let announce = relayed(&bench, &origin(), FIRST);
    bench.hear(&Message::Announce(announce.clone()));
    bench.probed(Holdings::Nothing);
    while bench.sent.is_empty() {
        bench.hear(&Message::Announce(announce.clone()));
        bench.pass(Duration::from_millis(50));
    }
    bench.hear_alone(&Message::Admit(ADMITTED));
    bench
}

fn considers(bench: &Bench) -> bool {
    bench.receiver.provisional.current().is_some()
}

/// Whether a device that hears this announcement three times considers its session.
fn takes(mut bench: Bench, change: impl FnOnce(&mut Announce)) -> bool {
    let mut announce = relayed(&bench, &origin(), FIRST);
    change(&mut announce);
    (0..3).for_each(|_| bench.hear(&Message::Announce(announce.clone())));
    let refused = bench.told.iter().filter(|e| matches!(e, ReceiverEvent::SenderRefused { .. })).count();
    assert_eq!(refused, usize::from(!considers(&bench)), "{:?}", bench.told);
    considers(&bench)
}

#[test]
fn what_a_trusted_origin_has_signed_is_taken_from_anybody_and_nothing_else_is() {
    assert!(takes(bench(), |_| ()));
    assert!(!takes(bench(), |announce| announce.origin = None));
    assert!(!takes(bench(), |announce| announce.name = "g".into()), "another name");
    assert!(!takes(bench(), |announce| announce.objects[0].root = Some(Digest([3; 32]))), "another object");
    assert!(!takes(bench(), |announce| announce.objects[0].root = None), "nothing is vouched for yet");
    assert!(!takes(bench(), |announce| announce.objects[0].kind = ObjectKind::Tree));
    let one_way = OneWay { pass: 0, overhead_per_mille: 0 };
    assert!(!takes(bench(), |announce| announce.one_way = Some(one_way)));
    // It is not told to take relayed objects, or does not trust this origin.
    let mut plain = bench();
    plain.receiver.config.relayed = None;
    assert!(!takes(plain, |_| ()));
    let mut others = bench();
    others.receiver.config.trust.pinned = vec![SenderKey([8; 32])];
    assert!(!takes(others, |_| ()));
}

#[test]
fn who_is_trusted_is_the_origin_and_a_stranger_stays_one() {
    let bench = admitted();
    let key = origin().public();
    let trusted =
        ReceiverEvent::SenderTrusted { key, address: SENDER, decision: TrustDecision::Pinned, relayed: true };
    assert!(bench.told.contains(&trusted), "{:?}", bench.told);
    assert_eq!(bench.receiver.snapshot().trusted, Some((key, TrustDecision::Pinned)));
    assert!(matches!(bench.jobs[..], [ReceiverJob::Open { .. }]), "{:?}", bench.jobs);
    assert_eq!(bench.receiver.provenance(), None, "nothing is in place yet");
}

/// One that takes part in the session of a relay, and has been told these values of its two blocks.
fn receiving(values: [Digest; 2]) -> Bench {
    let mut bench = admitted();
    bench.done(opened());
    bench.hear(&Message::HashPage(HashPage::raw(BlockIndex(0), values.map(|value| (value, 1)))));
    for (block, value) in (0..).zip(values) {
        whole_block(&mut bench, block);
        bench.done(ReceiverDone::Stored {
            block: BlockIndex(block),
            value,
            buffer: crate::fec::Buffer::default(),
        });
    }
    bench
}

#[test]
fn an_object_whose_blocks_give_another_root_gets_no_name() {
    let mut bench = receiving([Digest([0; 32]), Digest([1; 32])]);
    assert!(matches!(bench.jobs[..], [ReceiverJob::Commit { .. }]), "{:?}", bench.jobs);
    bench.done(ReceiverDone::Committed("f".into()));
    let provenance = bench.receiver.provenance().expect("it can be passed on");
    assert!(provenance.holds(SHAM) && provenance.proof.counter == FIRST);

    // The relay lies: the blocks are what it says, but not what the origin has signed.
    let mut bench = receiving([Digest([0; 32]), Digest([2; 32])]);
    assert!(!bench.jobs.iter().any(|job| matches!(job, ReceiverJob::Commit { .. })), "{:?}", bench.jobs);
    bench.done(ReceiverDone::Kept);
    bench.pass(Duration::from_secs(30));
    let outcome = bench.outcome.expect("it has ended");
    assert!(matches!(outcome, ReceiverOutcome::Failed(AbortCode::Mismatch, _)), "{outcome:?}");
}

#[test]
fn an_older_object_of_the_same_name_is_told_of_once_and_does_not_count() {
    let name = OriginName::new(origin().public(), "f");
    let other = OriginName::new(origin().public(), "g");
    let cases = [(name, 99, true), (name, 100, true), (name, 101, false), (other, 101, true)];
    for (completed, last, taken) in cases {
        let mut bench = bench_after([(completed, Counter(last))].into());
        let announce = relayed(&bench, &origin(), FIRST);
        (0..5).for_each(|_| bench.hear(&Message::Announce(announce.clone())));
        assert_eq!(considers(&bench), taken, "{last}");
        let told = bench.told.iter().filter(|e| matches!(e, ReceiverEvent::OldSession { .. })).count();
        assert_eq!(told, usize::from(!taken), "{:?}", bench.told);
    }
}

#[test]
fn another_relay_of_the_same_object_takes_over_and_one_of_another_object_does_not() {
    let mut bench = admitted();
    bench.done(opened());
    // It falls silent.
    bench.pass(Duration::from_secs(5));
    let goes_over = |bench: &mut Bench, counter: u64, root: Option<Digest>| {
        let before = std::mem::replace(
            &mut bench.sender,
            FakeSender::of(counter, sham::signing_key(counter), [5; 32], None),
        );
        let known = std::mem::replace(&mut bench.root, root);
        let announce = relayed(bench, &origin(), Counter(FIRST.0 + counter));
        bench.hear(&Message::Announce(announce));
        let position = bench.receiver.provisional.position(bench.sender.session());
        (bench.sender, bench.root) = (before, known);
        position.is_some()
    };
    let same = bench.root;
    assert!(!goes_over(&mut bench, 20, Some(Digest([9; 32]))));
    assert!(goes_over(&mut bench, 21, same));
}
