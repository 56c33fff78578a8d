//! Cheap stand-ins for signatures and key agreement, so that thousands of simulated devices can verify and agree on
//! one thread. The inputs are checked as in the real ones. But anybody can forge such a signature, and anybody who
//! hears such an agreement can compute its secret. The first bytes of a key mark it as a stand-in.

use crate::crypto::derive::Secret;
use crate::crypto::primitives::Primitives;
use crate::crypto::sign::{SIGNATURE_LEN, Signer, SigningKey};
use crate::units::{AgreementKey, SenderKey};
use std::sync::Arc;

/// Accepts stand-ins only.
pub const SHAM: &dyn Primitives = &Sham;

const SENDER: &[u8; 8] = b"sham key";
const AGREEMENT: &[u8; 8] = b"sham agr";

#[derive(Debug)]
struct Sham;

#[derive(Debug)]
struct ShamKey(SenderKey);

/// The signing key of the sender with this number.
#[must_use]
pub fn signing_key(number: u64) -> SigningKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(SENDER);
    key[8..16].copy_from_slice(&number.to_be_bytes());
    SigningKey::of(Arc::new(ShamKey(SenderKey(key))))
}

fn sign(key: &SenderKey, digest: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
    let mut signature = [0; SIGNATURE_LEN];
    signature[..32].copy_from_slice(blake3::keyed_hash(&key.0, digest).as_bytes());
    signature
}

impl Signer for ShamKey {
    fn public(&self) -> SenderKey {
        self.0
    }
    fn sign_digest(&self, digest: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
        sign(&self.0, digest)
    }
    fn primitives(&self) -> &'static dyn Primitives {
        SHAM
    }
}

impl Primitives for Sham {
    fn verify_digest(&self, key: &SenderKey, digest: &[u8; 32], signature: &[u8; SIGNATURE_LEN]) -> bool {
        key.0.starts_with(SENDER) && sign(key, digest) == *signature
    }
    fn agreement_key(&self, secret: &Secret) -> AgreementKey {
        let mut key = *blake3::hash(secret.expose()).as_bytes();
        key[..8].copy_from_slice(AGREEMENT);
        AgreementKey(key)
    }
    /// Computes the same secret on both sides.
    fn shared(&self, secret: &Secret, peer: &AgreementKey) -> Option<Secret> {
        let mut both = [self.agreement_key(secret).0, peer.0];
        both.sort_unstable();
        let shared = || Secret::new(*blake3::hash(both.as_flattened()).as_bytes());
        peer.0.starts_with(AGREEMENT).then(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::agree::Agreement;
    use crate::crypto::primitives::REAL;
    use crate::crypto::sign::Purpose;

    #[test]
    fn halves_agree_with_each_other_only() {
        let side = |primitives, secret| Agreement::new(primitives, Secret::new([secret; 32]));
        let (sender, device, other) = (side(SHAM, 1), side(SHAM, 9), side(SHAM, 8));
        let secret = |one: &Agreement, two: &Agreement| *one.shared(&two.public()).unwrap().expose();
        assert_eq!(secret(&sender, &device), secret(&device, &sender));
        assert_ne!(secret(&sender, &device), secret(&sender, &other));
        assert!(sender.shared(&side(REAL, 9).public()).is_none());
    }

    #[test]
    fn neither_takes_what_the_other_has_signed() {
        let (sham, real) = (signing_key(1), SigningKey::new(&Secret::new([1; 32])));
        for (key, whose) in [(sham, SHAM), (real, REAL)] {
            let signature = key.sign(Purpose::Datagram, &[b"bytes"]);
            let takes = |primitives: &dyn Primitives, bytes: &[u8]| {
                primitives.verify(&key.public(), Purpose::Datagram, &[bytes], &signature)
            };
            assert!(takes(whose, b"bytes") && !takes(whose, b"other"));
            assert_ne!(takes(SHAM, b"bytes"), takes(REAL, b"bytes"));
        }
    }
}
