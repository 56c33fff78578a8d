//! Origin proofs: a signature over an object and its manifest that shows who made the object, whoever sends it.
//!
//! The signature belongs to no session and no group, so a mirror or a relay can pass it on with the object. It covers
//! everything that describes the object, so it is valid for nothing else. Its counter tells an older object of the same
//! name from a newer one. The chaining values of the blocks follow
//! from the root: a reader that has them all merges them and compares. The codings of blocks, and objects that
//! still grow, are covered by the session's own signatures.

use super::derive::bind;
use super::primitives::Primitives;
use super::sign::{Purpose, SIGNATURE_LEN, SigningKey};
use crate::units::{Counter, Digest, SenderKey};

/// Version of what is signed.
const VERSION: u8 = 1;
/// BLAKE3, as in the ANNOUNCE.
const HASH: u8 = 1;
/// Context of the digest of name and manifest.
const CONTEXT: &str = "mcp 2026-11-21 name and manifest of an object v1";

/// Context of the digest of a name.
const NAME: &str = "mcp 2026-11-23 name of an object of an origin v1";

/// A name under which an origin sends objects, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OriginName {
    /// The origin's key.
    pub key: SenderKey,
    /// The first bytes of a digest of the name.
    pub name: [u8; 16],
}

impl OriginName {
    /// The name `name` of the origin with this key.
    #[must_use]
    pub fn new(key: SenderKey, name: &str) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&bind(NAME, &[name.as_bytes()])[..16]);
        Self { key, name: digest }
    }
}

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The counter of the session for which the origin signed it. An object that is sent again later has a higher one.
    pub counter: Counter,
    /// log2 of the block size, which the chaining values depend on.
    pub block_log2: u8,
    /// Bytes of the object.
    pub size: u64,
    /// Its root hash.
    pub root: Digest,
    /// Its name, as announced.
    pub name: &'a str,
    /// Its manifest; empty if there is none.
    pub manifest: &'a [u8],
}

impl Origin<'_> {
    /// Version, hash algorithm, log2 of the block size, counter, size, root, digest of name and manifest.
    fn signed<T>(&self, with: impl FnOnce(&[&[u8]]) -> T) -> T {
        let described = bind(CONTEXT, &[self.name.as_bytes(), self.manifest]);
        let head = [VERSION, HASH, self.block_log2];
        with(&[&head, &self.counter.0.to_be_bytes(), &self.size.to_be_bytes(), &self.root.0, &described])
    }

    /// Signs it as the origin with this key.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> [u8; SIGNATURE_LEN] {
        self.signed(|parts| key.sign(Purpose::Origin, parts))
    }

    /// Whether the origin with this key has signed it.
    #[must_use]
    pub fn verify(
        &self,
        primitives: &dyn Primitives,
        key: &SenderKey,
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        self.signed(|parts| primitives.verify(key, Purpose::Origin, parts, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::derive::Secret;
    use crate::crypto::primitives::REAL;

    #[test]
    fn every_field_counts() {
        let key = SigningKey::new(&Secret::new([5; 32]));
        let origin = Origin {
            counter: Counter(9),
            block_log2: 20,
            size: 77,
            root: Digest([1; 32]),
            name: "image",
            manifest: b"m",
        };
        let signature = origin.sign(&key);
        assert!(origin.verify(REAL, &key.public(), &signature));
        let others = [
            Origin { counter: Counter(10), ..origin },
            Origin { block_log2: 21, ..origin },
            Origin { size: 78, ..origin },
            Origin { root: Digest([2; 32]), ..origin },
            Origin { name: "imag", ..origin },
            Origin { manifest: b"", ..origin },
            Origin { name: "imagem", manifest: b"", ..origin },
            Origin { name: "", manifest: b"imagem", ..origin },
        ];
        for other in others {
            assert!(!other.verify(REAL, &key.public(), &signature), "{other:?}");
        }
        let another = SigningKey::new(&Secret::new([6; 32]));
        assert!(!origin.verify(REAL, &another.public(), &signature));
        for bit in 0..signature.len() * 8 {
            let mut damaged = signature;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!origin.verify(REAL, &key.public(), &damaged), "bit {bit}");
        }
    }
}
