//! L1: the contents of an object: the manifest that names them, and their extents.
//!
//! *Content* is a flat range of bytes, which `layout` cuts into blocks. It consists of *extents*: data, or a hole
//! that reads as zeros. A *manifest* lists the entries whose extents make up the content, in order. Its digest is
//! the BLAKE3 hash of its encoding, whether it is sent in the announcement or as an object of its own.
//!
//! - `entry`: one file: path, size, mode, modification time, extents. `extents`: runs of data and holes.
//! - `encoding`: deterministic CBOR (RFC 8949, section 4.2): a manifest has exactly one encoding.

mod encoding;
mod entry;
mod extents;

pub use entry::{Entry, EntryError, Modified, OptionalField};
pub use extents::{Extent, ExtentKind, Extents};

use crate::limits::MAX_MANIFEST_OBJECT;
use crate::units::Digest;

/// Version of the manifest's format.
pub const MANIFEST_VERSION: u8 = 1;

/// The entries of an object's content, in strictly ascending order of their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
    /// The canonical encoding, which is hashed and sent.
    encoded: Vec<u8>,
}

/// Why a manifest is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It has a version that this program does not know.
    #[error("manifest of version {0}, and this program knows version 1: update it")]
    Version(u64),
    /// Its encoding is too large.
    #[error("manifest of {0} bytes is too large: at most 65536 bytes are taken")]
    TooLarge(usize),
    /// It is not CBOR of the right structure, or not canonical.
    #[error("manifest is malformed: {0}; get an undamaged one from the sender")]
    Malformed(&'static str),
    /// The path of an entry is not above the one before it.
    #[error("manifest lists a path out of order or twice; get an undamaged one from the sender")]
    Order,
    /// An entry is invalid.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl Manifest {
    /// A manifest of these entries.
    ///
    /// # Errors
    /// If their paths do not ascend, their sizes add up to more than an object may have, or the encoding is
    /// too large.
    pub fn new(entries: Vec<Entry>) -> Result<Self, ManifestError> {
        if entries.windows(2).any(|pair| pair[0].path() >= pair[1].path()) {
            return Err(ManifestError::Order);
        }
        let sizes = entries.iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.size()));
        if sizes.is_none_or(|sum| sum > crate::limits::MAX_OBJECT_SIZE) {
            return Err(EntryError::Size.into());
        }
        let encoded = encoding::encode(&entries);
        if encoded.len() > MAX_MANIFEST_OBJECT {
            return Err(ManifestError::TooLarge(encoded.len()));
        }
        Ok(Self { entries, encoded })
    }

    /// Decodes a manifest.
    ///
    /// # Errors
    /// If `bytes` are not exactly the encoding that [`Manifest::encoded`] returns for it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_OBJECT {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let manifest = Self::new(encoding::decode(bytes)?)?;
        if manifest.encoded != bytes {
            return Err(ManifestError::Malformed("not in canonical form"));
        }
        Ok(manifest)
    }

    /// Its entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The only entry, if it describes a single file.
    #[must_use]
    pub fn single(&self) -> Option<&Entry> {
        match &self.entries[..] {
            [entry] if entry.is_plain_name() => Some(entry),
            _ => None,
        }
    }

    /// Bytes of the content of all entries.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        // `new` has checked that they fit.
        self.entries.iter().map(Entry::size).sum()
    }

    /// The canonical encoding.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// BLAKE3 of the encoding. An object with the encoding as its bytes has this root hash.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(*blake3::hash(&self.encoded).as_bytes())
    }
}

#[cfg(test)]
mod tests;
