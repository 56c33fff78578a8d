//! All hashes of an object in one pass, and the chaining values of its blocks.

use blake3::hazmat::HasherExt;
use mcp_transfer::crypto::digest::root;
use mcp_transfer::units::Digest as Value;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Length of a block whose chaining value is kept, in bytes. The last block of an object may be shorter.
pub const BLOCK: u64 = 1 << 20;

/// Size and hashes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHashes {
    /// The size in bytes.
    pub size: u64,
    /// The hash that names the object; the one that `b3sum` prints.
    pub blake3: blake3::Hash,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// SHA-1, in hexadecimal. For clients of the device interface that want it; trusted for nothing.
    pub sha1: String,
    /// MD5, likewise.
    pub md5: String,
}

/// Hashing under way.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    size: u64,
    /// The block under way.
    block: blake3::Hasher,
    values: Vec<Value>,
    sha256: Sha256,
    sha1: Sha1,
    md5: Md5,
}

impl Hashing {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.sha256.update(bytes);
        self.sha1.update(bytes);
        self.md5.update(bytes);
        while !bytes.is_empty() {
            // A full block is closed only when a byte follows: if it is the whole object, it is the root.
            let within = self.size % BLOCK;
            if within == 0 && self.size > 0 {
                self.values.push(Value(self.block.finalize_non_root()));
                self.block = blake3::Hasher::new();
                self.block.set_input_offset(self.size);
            }
            let room = usize::try_from(BLOCK - within).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.block.update(now);
            self.size += now.len() as u64;
            bytes = later;
        }
    }

    /// The hashes, and the chaining values one after the other.
    pub(super) fn finish(mut self) -> (ObjectHashes, Vec<u8>) {
        let last = match (self.size, self.values.len()) {
            (0, _) => None,
            (_, 0) => Some(Value(*self.block.finalize().as_bytes())),
            _ => Some(Value(self.block.finalize_non_root())),
        };
        self.values.extend(last);
        let hex = |digest: &[u8]| data_encoding::HEXLOWER.encode(digest);
        let hashes = ObjectHashes {
            size: self.size,
            blake3: blake3::Hash::from_bytes(root(&self.values).0),
            sha256: hex(&self.sha256.finalize()),
            sha1: hex(&self.sha1.finalize()),
            md5: hex(&self.md5.finalize()),
        };
        (hashes, self.values.iter().flat_map(|value| value.0).collect())
    }
}
