//! Where an object comes from: what its origin has signed, with the proof. Whoever has it can pass the object on, and nobody
//! can change it.

use crate::crypto::origin::{Origin, OriginName};
use crate::crypto::primitives::Primitives;
use crate::units::Digest;
use crate::wire::{Announce, OriginProof};

/// An object as its origin has signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The object's name, as announced.
    pub name: String,
    /// Its manifest, as announced.
    pub manifest: Vec<u8>,
    /// log2 of the block size.
    pub block_log2: u8,
    /// Bytes of the object.
    pub size: u64,
    /// Its root hash.
    pub root: Digest,
    /// The origin's key, the counter of its session, and its signature.
    pub proof: OriginProof,
}

impl Provenance {
    /// What an announcement says of its object's origin. It is not verified. `None` if it has no proof, or no root.
    #[must_use]
    pub fn of(announce: &Announce) -> Option<Self> {
        let proof = **announce.origin.as_ref()?;
        let [object] = announce.objects[..] else { return None };
        let (name, manifest) = (announce.name.clone(), announce.manifest.clone());
        Some(Self {
            name,
            manifest,
            block_log2: object.block_log2,
            size: object.size,
            root: object.root?,
            proof,
        })
    }

    /// Its name, of its origin.
    #[must_use]
    pub fn origin_name(&self) -> OriginName {
        OriginName::new(self.proof.key, &self.name)
    }

    /// Whether the origin has signed it.
    #[must_use]
    pub fn holds(&self, primitives: &dyn Primitives) -> bool {
        let origin = Origin {
            counter: self.proof.counter,
            block_log2: self.block_log2,
            size: self.size,
            root: self.root,
            name: &self.name,
            manifest: &self.manifest,
        };
        origin.verify(primitives, &self.proof.key, &self.proof.signature)
    }
}
