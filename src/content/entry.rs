//! An entry of a manifest: one regular file.

use super::extents::Extents;
use crate::limits::{MAX_NAME, MAX_OBJECT_SIZE};

/// Longest path of an entry, in bytes.
const MAX_PATH: usize = 4096;
/// Permission bits, set-id bits and the sticky bit.
const MODE_BITS: u16 = 0o7777;

/// When a file was last modified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modified {
    /// Seconds since 1970-01-01T00:00:00Z; negative before that.
    pub seconds: i64,
    /// Nanoseconds after that; below 10^9.
    pub nanoseconds: u32,
}

/// A field that later versions may add to an entry. A program that does not know it passes it on unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalField {
    /// Its number; the key in the encoding is -1 minus this.
    pub number: u16,
    /// Its value.
    pub value: Vec<u8>,
}

/// One regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    path: Vec<u8>,
    mode: u16,
    modified: Modified,
    extents: Extents,
    optional: Vec<OptionalField>,
}

/// Why an entry is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The path is empty, absolute or too long, has a NUL, or a component that is empty, `.`, `..` or too long.
    #[error("manifest has an unusable path; rename the file at the sender")]
    Path,
    /// The mode has bits beyond 07777.
    #[error("manifest has a mode beyond 07777; get an undamaged one from the sender")]
    Mode,
    /// The modification time has a second or more of nanoseconds.
    #[error("manifest has an impossible time; get an undamaged one from the sender")]
    Time,
    /// The size is more than an object may have.
    #[error("manifest describes more bytes than an object can have; send it in parts")]
    Size,
    /// An extent has no bytes.
    #[error("manifest has an empty extent; get an undamaged one from the sender")]
    Extents,
    /// Optional fields are out of order.
    #[error("manifest has a field out of order or twice; get an undamaged one from the sender")]
    Fields,
}

impl Entry {
    /// A file at `path` (components separated by `/`) with these permission bits and extents.
    ///
    /// # Errors
    /// If the path, the mode, the time or the size is out of range.
    pub fn file(path: &[u8], mode: u16, modified: Modified, extents: Extents) -> Result<Self, EntryError> {
        if !is_sound_path(path) {
            return Err(EntryError::Path);
        }
        if mode & !MODE_BITS != 0 {
            return Err(EntryError::Mode);
        }
        if modified.nanoseconds >= 1_000_000_000 {
            return Err(EntryError::Time);
        }
        if extents.size() > MAX_OBJECT_SIZE {
            return Err(EntryError::Size);
        }
        Ok(Self { path: path.to_owned(), mode, modified, extents, optional: Vec::new() })
    }

    /// Adds optional fields, in strictly ascending order of their numbers.
    ///
    /// # Errors
    /// If they are in another order.
    pub fn with_optional(mut self, fields: Vec<OptionalField>) -> Result<Self, EntryError> {
        if fields.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err(EntryError::Fields);
        }
        self.optional = fields;
        Ok(self)
    }

    /// Its path: bytes, components separated by `/`.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }
    /// Whether its path is a name without directories.
    #[must_use]
    pub fn is_plain_name(&self) -> bool {
        !self.path.contains(&b'/')
    }
    /// Its bytes, holes included.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.extents.size()
    }
    /// Its permission bits, set-id bits and sticky bit.
    #[must_use]
    pub const fn mode(&self) -> u16 {
        self.mode
    }
    /// When it was last modified.
    #[must_use]
    pub const fn modified(&self) -> Modified {
        self.modified
    }
    /// Its data and holes.
    #[must_use]
    pub const fn extents(&self) -> &Extents {
        &self.extents
    }
    /// Fields that this version does not know.
    #[must_use]
    pub fn optional(&self) -> &[OptionalField] {
        &self.optional
    }
}

fn is_sound_path(path: &[u8]) -> bool {
    let sound = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && part.len() <= MAX_NAME;
    path.len() <= MAX_PATH && !path.contains(&0) && path.split(|&byte| byte == b'/').all(sound)
}
