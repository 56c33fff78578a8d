//! Signatures and agreements as a port: `protocol` is given what does them. The program has one, [`REAL`];
//! simulations, where thousands of devices verify and agree on one thread, bring a cheaper one.

use super::agree;
use super::derive::Secret;
use super::sign::{Purpose, SIGNATURE_LEN, digest, verify_digest};
use crate::units::{AgreementKey, SenderKey};
use std::fmt;

/// What checks signatures and agrees on secrets. Whoever signs brings the same ([`super::sign::Signer`]).
pub trait Primitives: fmt::Debug + Send + Sync {
    /// Whether `signature` is of this digest by the sender with this key. Call [`Self::verify`].
    fn verify_digest(&self, key: &SenderKey, digest: &[u8; 32], signature: &[u8; SIGNATURE_LEN]) -> bool;

    /// The public half of an agreement.
    fn agreement_key(&self, secret: &Secret) -> AgreementKey;

    /// The secret shared with `peer`. `None` for a key that would give the same secret to everybody.
    fn shared(&self, secret: &Secret, peer: &AgreementKey) -> Option<Secret>;

    /// Whether `signature` is of these `parts`, for this purpose, by the sender with this key.
    fn verify(
        &self,
        key: &SenderKey,
        purpose: Purpose,
        parts: &[&[u8]],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        self.verify_digest(key, &digest(purpose, parts), signature)
    }
}

/// Ed25519 (RFC 8032) and X25519 (RFC 7748).
pub const REAL: &dyn Primitives = &Real;

#[derive(Debug)]
struct Real;

impl Primitives for Real {
    fn verify_digest(&self, key: &SenderKey, digest: &[u8; 32], signature: &[u8; SIGNATURE_LEN]) -> bool {
        verify_digest(key, digest, signature)
    }
    fn agreement_key(&self, secret: &Secret) -> AgreementKey {
        agree::public(secret)
    }
    fn shared(&self, secret: &Secret, peer: &AgreementKey) -> Option<Secret> {
        agree::shared(secret, peer)
    }
}
