//! Signatures of senders and devices: Ed25519 (RFC 8032) over a BLAKE3 hash with a context of its own.

use super::derive::Secret;
use super::primitives::{Primitives, REAL};
use crate::units::SenderKey;
use ed25519_dalek::{Signature, Signer as _, SigningKey as Ed25519Key, VerifyingKey};
use std::fmt;
use std::sync::Arc;

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// What a signature is for. Each purpose has a context of its own, so that none passes for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A datagram and the identity of the group that it is for.
    Datagram,
    /// An object and its manifest, independent of the session (`origin`).
    Origin,
    /// A device's identifier in one session (`device`).
    Device,
}

impl Purpose {
    const fn context(self) -> &'static str {
        match self {
            Self::Datagram => "mcp 2026-11-21 datagram signed by its sender v1",
            Self::Origin => "mcp 2026-11-21 object signed by its origin v1",
            Self::Device => "mcp 2026-11-21 join signed by its device v1",
        }
    }
}

/// What signs as one sender, and what belongs to it.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The public key, which identifies the sender.
    fn public(&self) -> SenderKey;

    /// Signs a digest that [`SigningKey::sign`] made.
    fn sign_digest(&self, digest: &[u8; 32]) -> [u8; SIGNATURE_LEN];

    /// What its signatures are checked by, and its keys agreed on.
    fn primitives(&self) -> &'static dyn Primitives;
}

/// A sender's secret half.
#[derive(Clone)]
pub struct SigningKey(Arc<dyn Signer>);

impl SigningKey {
    /// The Ed25519 key with these 32 secret bytes.
    #[must_use]
    pub fn new(seed: &Secret) -> Self {
        Self::of(Arc::new(Ed25519(Ed25519Key::from_bytes(seed.expose()))))
    }

    /// The key of something else that signs.
    #[must_use]
    pub fn of(signer: Arc<dyn Signer>) -> Self {
        Self(signer)
    }

    /// The public key, which identifies the sender.
    #[must_use]
    pub fn public(&self) -> SenderKey {
        self.0.public()
    }

    /// Signs `parts`, one after the other.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; SIGNATURE_LEN] {
        self.0.sign_digest(&digest(purpose, parts))
    }

    /// What its signatures are checked by, and its keys agreed on.
    #[must_use]
    pub fn primitives(&self) -> &'static dyn Primitives {
        self.0.primitives()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

struct Ed25519(Ed25519Key);

impl Signer for Ed25519 {
    fn public(&self) -> SenderKey {
        SenderKey(self.0.verifying_key().to_bytes())
    }
    fn sign_digest(&self, digest: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(digest).to_bytes()
    }
    fn primitives(&self) -> &'static dyn Primitives {
        REAL
    }
}

impl fmt::Debug for Ed25519 {
    /// Shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519({})", self.public())
    }
}

/// Whether `signature` is of this digest by the sender with this key. Keys and signatures that are not in
/// the one proper form are refused.
pub(super) fn verify_digest(key: &SenderKey, digest: &[u8; 32], signature: &[u8; SIGNATURE_LEN]) -> bool {
    VerifyingKey::from_bytes(&key.0)
        .is_ok_and(|key| key.verify_strict(digest, &Signature::from_bytes(signature)).is_ok())
}

/// What is signed for `purpose`: a hash of `parts`, one after the other.
pub(super) fn digest(purpose: Purpose, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(purpose.context());
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    /// RFC 8032, section 7.1, test 1: the key pair, and the crate's signature of the empty message.
    #[test]
    fn known_answer() {
        let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let key = Ed25519Key::from_bytes(&seed.clone().try_into().unwrap());
        let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(key.verifying_key().to_bytes().to_vec(), public);
        let signature = hex(concat!(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555",
            "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ));
        assert_eq!(key.sign(b"").to_bytes().to_vec(), signature);
        let ours = SigningKey::new(&Secret::new(seed.try_into().unwrap()));
        assert_eq!(ours.public().0.to_vec(), public);
    }

    #[test]
    fn every_bit_counts() {
        let signing_key = SigningKey::new(&Secret::new([5; 32]));
        let bytes = b"an announce, say".to_vec();
        let signature = signing_key.sign(Purpose::Datagram, &[&bytes]);
        assert!(REAL.verify(&signing_key.public(), Purpose::Datagram, &[&bytes], &signature));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !REAL.verify(&signing_key.public(), Purpose::Datagram, &[&bytes], &signature),
                "bit {bit} of the message"
            );
        }
        for bit in 0..SIGNATURE_LEN * 8 {
            let mut signature = signature;
            signature[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !REAL.verify(&signing_key.public(), Purpose::Datagram, &[&bytes], &signature),
                "bit {bit} of the signature"
            );
        }
        for bit in 0..256 {
            let mut key = signing_key.public();
            key.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!REAL.verify(&key, Purpose::Datagram, &[&bytes], &signature), "bit {bit} of the key");
        }
    }

    #[test]
    fn a_signature_for_another_use_does_not_count() {
        let seed = Secret::new([5; 32]);
        let raw = Ed25519Key::from_bytes(seed.expose()).sign(b"bytes").to_bytes();
        let key = SigningKey::new(&seed);
        let takes = |purpose, signature: &_| REAL.verify(&key.public(), purpose, &[b"bytes"], signature);
        assert!(!takes(Purpose::Datagram, &raw));
        let datagram = key.sign(Purpose::Datagram, &[b"bytes"]);
        let others = [Purpose::Origin, Purpose::Device];
        assert!(takes(Purpose::Datagram, &datagram) && !others.iter().any(|&other| takes(other, &datagram)));
    }
}
