//! A tree as an object: what the announcement says of it, and where in the object the bytes of each file are.
//!
//! ```text
//! | manifest | zeros | file of a block or more | zeros | another | zeros | small file | small file | ...
//! 0                  ^ a block                         ^ a block         ^ a block
//! ```
//!
//! A file's bytes in the object are its data without its holes. Those of a block or more come first, in the order of the
//! manifest, and each begins at a block. The others follow in the same order, packed without gaps. So a device that
//! has the manifest knows the rest.

use super::{Entry, Extents, MANIFEST_VERSION, Manifest, ManifestError, encoding};
use crate::limits::{MAX_MANIFEST_OBJECT, MAX_OBJECT_SIZE, MAX_TREE_ENTRIES};
use minicbor::decode::Decoder;
use minicbor::encode::{self, Encoder};
use std::convert::Infallible;
use std::ops::Range;

/// What the announcement says of a tree, in place of its manifest:
/// `[version: 1, bytes of the manifest, entries, entries at the top, bytes of the files, archive: 0 or 1]` as
/// deterministic CBOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Bytes of the manifest, with which the object begins; at most [`MAX_MANIFEST_OBJECT`].
    pub manifest: u32,
    /// Its entries; at most [`MAX_TREE_ENTRIES`].
    pub entries: u32,
    /// Its entries at the top: 1 for a directory with all in it, more for several files.
    pub tops: u32,
    /// Bytes of all its files, holes included.
    pub bytes: u64,
    /// Whether it has owners, and the attributes that only root may set.
    pub archive: bool,
}

impl TreeHead {
    /// The head of the tree that `manifest` describes.
    #[must_use]
    pub fn of(manifest: &Manifest, archive: bool) -> Self {
        let entries = manifest.entries();
        Self {
            // The manifest and its entries are bounded.
            manifest: manifest.encoded().len() as u32,
            entries: entries.len() as u32,
            tops: entries.iter().filter(|entry| entry.is_plain_name()).count() as u32,
            bytes: manifest.content_size(),
            archive,
        }
    }

    /// Its encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::new(Vec::new());
        // Writing to memory cannot fail.
        let _ = self.encode_to(&mut to);
        to.into_writer()
    }

    fn encode_to(&self, to: &mut Encoder<Vec<u8>>) -> Result<(), encode::Error<Infallible>> {
        to.array(6)?.u8(MANIFEST_VERSION)?.u32(self.manifest)?.u32(self.entries)?.u32(self.tops)?;
        to.u64(self.bytes)?.u8(self.archive.into())?;
        Ok(())
    }

    /// Decodes a head.
    ///
    /// # Errors
    /// If `bytes` are not exactly what [`TreeHead::encode`] returns for it, or a number is out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        const FORM: ManifestError = ManifestError::Malformed("not what is said of a tree");
        let mut from = Decoder::new(bytes);
        if from.array().map_err(encoding::malformed)? != Some(6) {
            return Err(FORM);
        }
        let mut number = || from.u64().map_err(encoding::malformed);
        match number()? {
            version if version == u64::from(MANIFEST_VERSION) => {}
            version => return Err(ManifestError::Version(version)),
        }
        let mut fields = [0; 5];
        for field in &mut fields {
            *field = number()?;
        }
        let [manifest, entries, tops, bytes_of_files, archive] = fields;
        let sound = (1..=MAX_MANIFEST_OBJECT as u64).contains(&manifest)
            && (1..=MAX_TREE_ENTRIES as u64).contains(&entries)
            && (1..=entries).contains(&tops)
            && bytes_of_files <= MAX_OBJECT_SIZE;
        let head = Self {
            manifest: manifest as u32,
            entries: entries as u32,
            tops: tops as u32,
            bytes: bytes_of_files,
            archive: archive == 1,
        };
        if sound && head.encode() == bytes { Ok(head) } else { Err(FORM) }
    }
}

/// The place of a file's bytes in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedFile {
    /// Offset of the first byte.
    pub start: u64,
    /// Bytes, at least 1: the data of the file without its holes.
    pub len: u64,
    /// Number of the file's entry.
    pub entry: u32,
}

/// A part of an object's range of bytes that belongs to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilePiece {
    /// Number of the file's entry.
    pub entry: u32,
    /// Offset of the piece in the object.
    pub object: u64,
    /// Offset of the piece in the file's data without its holes.
    pub data: u64,
    /// Bytes, at least 1.
    pub len: u64,
}

/// Where in the object the bytes of each file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// In the order of their offsets.
    files: Vec<PlacedFile>,
    payload: u64,
    packed: u64,
    size: u64,
}

impl Placement {
    /// The places of the manifest's files in an object with blocks of `2^block_log2` bytes.
    ///
    /// # Errors
    /// If the object would be too large.
    pub fn new(manifest: &Manifest, block_log2: u8) -> Result<Self, ManifestError> {
        const TOO_LARGE: ManifestError = ManifestError::Entry(super::EntryError::Size);
        let block = 1_u64 << block_log2;
        let data = |entry: &Entry| entry.extents().map_or(0, Extents::data_len);
        let numbered = || (0_u32..).zip(manifest.entries()).map(|(n, entry)| (n, data(entry)));
        let aligned = |offset: u64| offset.checked_next_multiple_of(block).ok_or(TOO_LARGE);
        let manifest_len = manifest.encoded().len() as u64;
        let payload = aligned(manifest_len)?;
        let (mut files, mut end) = (Vec::new(), payload);
        for (entry, len) in numbered().filter(|&(_, len)| len >= block) {
            let start = aligned(end)?;
            files.push(PlacedFile { start, len, entry });
            end = start.checked_add(len).ok_or(TOO_LARGE)?;
        }
        let packed = aligned(end)?;
        let mut next = packed;
        for (entry, len) in numbered().filter(|&(_, len)| (1..block).contains(&len)) {
            files.push(PlacedFile { start: next, len, entry });
            next = next.checked_add(len).ok_or(TOO_LARGE)?;
            end = next;
        }
        let size = if files.is_empty() { manifest_len } else { end };
        if size > MAX_OBJECT_SIZE {
            return Err(TOO_LARGE);
        }
        Ok(Self { files, payload, packed, size })
    }

    /// Bytes of the object.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }
    /// Offset of the first file's bytes, a multiple of the block size; more than the object's size if there are none.
    #[must_use]
    pub const fn payload(&self) -> u64 {
        self.payload
    }
    /// Offset from which on small files are packed.
    #[must_use]
    pub const fn packed(&self) -> u64 {
        self.packed
    }
    /// The files that have data, in the order of their offsets.
    #[must_use]
    pub fn files(&self) -> &[PlacedFile] {
        &self.files
    }

    /// The pieces of files in this range of the object, in order. What is between them are zeros.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = FilePiece> + '_ {
        let first = self.files.partition_point(|file| file.start + file.len <= range.start);
        let files = self.files[first..].iter().take_while(move |file| file.start < range.end);
        files.map(move |file| {
            let object = file.start.max(range.start);
            let end = (file.start + file.len).min(range.end);
            FilePiece { entry: file.entry, object, data: object - file.start, len: end - object }
        })
    }
}

#[cfg(test)]
mod tests;
