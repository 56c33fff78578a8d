//! Passing on the object of another origin.

use super::*;
use crate::crypto::origin::Origin;
use crate::protocol::provenance::Provenance;
use crate::sim::fakes::FakeSender;
use crate::units::Digest;
use crate::wire::OriginProof;

/// What an origin has signed: an object with this root.
fn signed(root: Digest) -> Provenance {
    let key = sham::signing_key(77);
    let (counter, manifest) = (Counter(100), vec![1, 2]);
    let origin = Origin { counter, block_log2: 10, size: 2 << 10, root, name: "f", manifest: &manifest };
    let proof = OriginProof { key: key.public(), counter, signature: origin.sign(&key) };
    Provenance { name: "f".into(), manifest, block_log2: 10, size: 2 << 10, root, proof }
}

fn relaying(root: Digest) -> Bench {
    Bench::new(2, |config| {
        config.manifest = vec![1, 2];
        config.relayed = Some(signed(root));
    })
}

/// The root of what the bench's workers hash.
fn root() -> Digest {
    Bench::new(2, |_| {}).sender.root.expect("hashed")
}

#[test]
fn it_is_announced_with_the_proof_of_its_origin() {
    let mut bench = relaying(root());
    bench.pass(Duration::from_secs(1));
    let announces: Vec<_> = bench
        .sent
        .iter()
        .filter_map(|transmit| match &transmit.payload {
            Payload::Message(bytes) => FakeSender::found(bytes),
            _ => None,
        })
        .collect();
    assert!(!announces.is_empty());
    for found in announces {
        assert_eq!(Provenance::of(&found.announce), Some(signed(root())));
        assert_eq!(found.announce.sender, sham::signing_key(1).public());
    }
    assert!(bench.outcome.is_none());
}

#[test]
fn nothing_is_announced_before_it_is_known_to_be_what_the_origin_signed() {
    let mut bench = Bench::idle(StoreIs::Sound, 2, |config| {
        config.manifest = vec![1, 2];
        config.relayed = Some(signed(root()));
    });
    // Its workers have much to do.
    for _ in 0..100 {
        bench.now = bench.now + Duration::from_millis(50);
        bench.sender.handle_timeout(bench.now);
        while let Some(out) = bench.sender.poll(bench.now) {
            assert!(matches!(out, Output::Job(_) | Output::Event(_)), "{out:?}");
        }
    }
    assert!(bench.sender.root.is_none() && bench.sender.phase == Phase::Gathering);
}

#[test]
fn what_is_not_as_the_origin_signed_it_is_not_sent() {
    let mut bench = relaying(Digest([9; 32]));
    bench.pass(Duration::from_secs(3));
    let Some(SenderOutcome::SourceFailed(why)) = &bench.outcome else { panic!("{:?}", bench.outcome) };
    assert_eq!(why, NOT_AS_SIGNED);
}
