//! Signatures and key agreement behind a trait, so that `protocol` does not choose the implementation. The program
//! uses [`REAL`]. Simulations verify and agree for thousands of devices on one thread and use a cheaper one.

use super::agree;
use super::derive::Secret;
use super::sign::{Purpose, SIGNATURE_LEN, digest, verify_digest};
use crate::units::{AgreementKey, SenderKey};
use std::fmt;

/// Checks signatures and agrees on secrets. Signatures come from the matching [`super::sign::Signer`].
pub trait Primitives: fmt::Debug + Send + Sync {
    /// Whether `signature` is valid for this digest under this sender's key. Callers use [`Self::verify`].
    fn verify_digest(&self, key: &SenderKey, digest: &[u8; 32], signature: &[u8; SIGNATURE_LEN]) -> bool;

    /// The public half of an agreement.
    fn agreement_key(&self, secret: &Secret) -> AgreementKey;

    /// The secret shared with `peer`. `None` for a key that gives every peer the same secret (low order).
    fn shared(&self, secret: &Secret, peer: &AgreementKey) -> Option<Secret>;

    /// Whether `signature` is valid for these `parts` and this purpose under this sender's key.
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
