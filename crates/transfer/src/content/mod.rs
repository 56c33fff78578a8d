//! L1: the contents of an object: the manifest that names them, and their extents.
//!
//! *Content* is a flat range of bytes, which `layout` cuts into blocks. It consists of *extents*: data, or a hole
//! that reads as zeros. A *manifest* lists the entries whose extents make up the content, in order. Its digest is
//! the BLAKE3 hash of its encoding, whether it is sent in the announcement or as an object of its own.
//!
//! - `entry`: a file, directory, link or device node, with its attributes. `extents`: runs of data and holes.
//! - `tree`: a tree as one object: the manifest, and behind it the bytes of the files.
//! - `encoding`: deterministic CBOR (RFC 8949, section 4.2): a manifest has exactly one encoding.

mod encoding;
mod entry;
mod extents;
mod tree;

pub use entry::{Entry, EntryError, EntryKind, Modified, OptionalField, Owner, Xattr};
pub use extents::{Extent, ExtentKind, Extents};
pub use tree::{FilePiece, PlacedFile, Placement, TreeHead};

use crate::limits::{MAX_MANIFEST_OBJECT, MAX_TREE_ENTRIES};
use crate::units::Digest;

/// Version of the manifest's format.
pub const MANIFEST_VERSION: u8 = 1;

/// The entries of an object's content, in strictly ascending order of their paths, compared component by component: each
/// directory is followed by what is in it.
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
    #[error(
        "manifest of {0} bytes is too large: at most {MAX_MANIFEST_OBJECT} bytes are taken; send the tree in parts"
    )]
    TooLarge(usize),
    /// It has too many entries.
    #[error("manifest has more than {MAX_TREE_ENTRIES} entries; send the tree in parts")]
    TooMany,
    /// It is not CBOR of the right structure, or not canonical.
    #[error("manifest is malformed: {0}; get an undamaged one from the sender")]
    Malformed(&'static str),
    /// The path of an entry is not above the one before it.
    #[error("manifest lists a path out of order or twice; get an undamaged one from the sender")]
    Order,
    /// The entry before it in the path is missing, or no directory.
    #[error("manifest lists something in what is no directory; get an undamaged one from the sender")]
    Parent,
    /// A hard link to what is not an earlier regular file.
    #[error("manifest has a hard link to what is not an earlier file; get an undamaged one from the sender")]
    Link,
    /// An entry is invalid.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl Manifest {
    /// A manifest of these entries.
    ///
    /// # Errors
    /// If their paths do not ascend, something is in what is no directory, a hard link leads to what is not an earlier
    /// file, their sizes add up to more than an object may have, or the encoding is too large.
    pub fn new(entries: Vec<Entry>) -> Result<Self, ManifestError> {
        if entries.len() > MAX_TREE_ENTRIES {
            return Err(ManifestError::TooMany);
        }
        if entries.windows(2).any(|pair| parts(pair[0].path()).ge(parts(pair[1].path()))) {
            return Err(ManifestError::Order);
        }
        require_parents(&entries)?;
        for (at, entry) in entries.iter().enumerate() {
            if let EntryKind::HardLink(number) = *entry.kind()
                && (number as usize >= at || entries[number as usize].extents().is_none())
            {
                return Err(ManifestError::Link);
            }
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
            [entry] if entry.is_plain_name() && entry.extents().is_some() => Some(entry),
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

/// The components of a path.
fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
}

/// Checks that everything is at the top or in a directory. The entries are in order, so the directories that an entry
/// is in are the last ones that are not over.
fn require_parents(entries: &[Entry]) -> Result<(), ManifestError> {
    let mut open: Vec<&[u8]> = Vec::new();
    for entry in entries {
        if let Some(parent) = entry.parent() {
            while open.last().is_some_and(|&last| last != parent) {
                open.pop();
            }
            if open.is_empty() {
                return Err(ManifestError::Parent);
            }
        } else {
            open.clear();
        }
        if matches!(entry.kind(), EntryKind::Directory) {
            open.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
