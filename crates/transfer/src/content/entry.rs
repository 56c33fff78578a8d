//! An entry of a manifest: a file, a directory, a link or a device node.

use super::extents::Extents;
use crate::limits::{MAX_NAME, MAX_OBJECT_SIZE, MAX_TREE_DEPTH};

/// Longest path of an entry and of a symbolic link's target, in bytes.
const MAX_PATH: usize = 4096;
/// Permission bits, set-id bits and the sticky bit.
const MODE_BITS: u16 = 0o7777;
/// Longest value of an extended attribute, in bytes: what Linux takes.
const MAX_XATTR_VALUE: usize = 64 << 10;
/// The optional field of a file that says how many bytes are stored of it: a u64, big-endian.
const STORED: u16 = 0;

/// When a file was last modified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modified {
    /// Seconds since 1970-01-01T00:00:00Z; negative before that.
    pub seconds: i64,
    /// Nanoseconds after that; below 10^9.
    pub nanoseconds: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file with these extents.
    File(Extents),
    /// A directory.
    Directory,
    /// A symbolic link to this target: 1 to 4096 bytes without NUL.
    Symlink(Vec<u8>),
    /// Another name of the regular file that is the entry of this number.
    HardLink(u32),
    /// A device node.
    Device {
        /// Whether it is a block device, and not a character device.
        block: bool,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
}

/// The owner of an entry, by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Its name; see [`Xattr::is_permitted`].
    pub name: Vec<u8>,
    /// Its value, at most 64 KiB.
    pub value: Vec<u8>,
}

impl Xattr {
    /// Whether a manifest may have an attribute of this name: of the classes `user`, `security` and `trusted`, or an
    /// access list.
    #[must_use]
    pub fn is_permitted(name: &[u8]) -> bool {
        let classes: [&[u8]; 3] = [b"user.", b"security.", b"trusted."];
        let lists: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
        let of_class = classes.iter().any(|class| name.starts_with(class) && name.len() > class.len());
        (of_class || lists.contains(&name)) && name.len() <= MAX_NAME && !name.contains(&0)
    }

    /// Whether it belongs to the user's data, and may be set without rights beyond writing.
    #[must_use]
    pub fn is_users(&self) -> bool {
        self.name.starts_with(b"user.")
    }
}

/// A field that later versions may add to an entry. A program that does not know it passes it on unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalField {
    /// Its number; the key in the encoding is -1 minus this.
    pub number: u16,
    /// Its value.
    pub value: Vec<u8>,
}

/// An entry of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    path: Vec<u8>,
    kind: EntryKind,
    mode: u16,
    modified: Modified,
    owner: Option<Owner>,
    xattrs: Vec<Xattr>,
    optional: Vec<OptionalField>,
}

/// Why an entry is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The path is empty, absolute, too long or too deep, has a NUL, or a component that is empty, `.`, `..` or too long.
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
    /// The target of a symbolic link is empty, too long, or has a NUL.
    #[error("manifest has a symbolic link without a usable target; get an undamaged one from the sender")]
    Target,
    /// Extended attributes are out of order, too long, or of a class that is not permitted.
    #[error("manifest has an extended attribute that is not permitted; send the tree without it")]
    Xattrs,
}

impl Entry {
    /// A file at `path` (components separated by `/`) with these permission bits and extents.
    ///
    /// # Errors
    /// If the path, the mode, the time or the size is out of range.
    pub fn file(path: &[u8], mode: u16, modified: Modified, extents: Extents) -> Result<Self, EntryError> {
        Self::new(path, EntryKind::File(extents), mode, modified)
    }

    /// An entry of any kind. The mode of links, and the time of a hard link, mean nothing and are 0.
    ///
    /// # Errors
    /// If something is out of range.
    pub fn new(path: &[u8], kind: EntryKind, mode: u16, modified: Modified) -> Result<Self, EntryError> {
        if !is_sound_path(path) {
            return Err(EntryError::Path);
        }
        if mode & !MODE_BITS != 0 {
            return Err(EntryError::Mode);
        }
        if modified.nanoseconds >= 1_000_000_000 {
            return Err(EntryError::Time);
        }
        match &kind {
            EntryKind::File(extents) if extents.size() > MAX_OBJECT_SIZE => return Err(EntryError::Size),
            EntryKind::Symlink(target)
                if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) =>
            {
                return Err(EntryError::Target);
            }
            _ => {}
        }
        let (owner, xattrs, optional) = (None, Vec::new(), Vec::new());
        Ok(Self { path: path.to_owned(), kind, mode, modified, owner, xattrs, optional })
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

    /// Says how many bytes are stored of a file at the sender, if its extents do not tell all of its holes.
    #[must_use]
    pub fn with_stored(mut self, bytes: u64) -> Self {
        self.optional.retain(|field| field.number != STORED);
        if bytes < self.data_len() {
            self.optional.insert(0, OptionalField { number: STORED, value: bytes.to_be_bytes().to_vec() });
        }
        self
    }

    fn data_len(&self) -> u64 {
        self.extents().map_or(0, Extents::data_len)
    }

    /// Bytes that are stored of a file at the sender, as it says. An estimate of what it takes here.
    #[must_use]
    pub fn stored(&self) -> u64 {
        let told = self.optional.iter().find(|field| field.number == STORED);
        let told = told.and_then(|field| Some(u64::from_be_bytes(field.value.as_slice().try_into().ok()?)));
        told.unwrap_or(u64::MAX).min(self.data_len())
    }

    /// Gives it an owner. A hard link has none of its own.
    #[must_use]
    pub fn with_owner(mut self, owner: Option<Owner>) -> Self {
        self.owner = owner.filter(|_| !self.is_hard_link());
        self
    }

    /// Adds extended attributes, in strictly ascending order of their names. A hard link has none of its own.
    ///
    /// # Errors
    /// If they are in another order, too long, or not permitted.
    pub fn with_xattrs(mut self, xattrs: Vec<Xattr>) -> Result<Self, EntryError> {
        let sound = |x: &Xattr| Xattr::is_permitted(&x.name) && x.value.len() <= MAX_XATTR_VALUE;
        let ascending = xattrs.windows(2).all(|pair| pair[0].name < pair[1].name);
        if !ascending || !xattrs.iter().all(sound) || (self.is_hard_link() && !xattrs.is_empty()) {
            return Err(EntryError::Xattrs);
        }
        self.xattrs = xattrs;
        Ok(self)
    }

    /// Its path: bytes, components separated by `/`.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }
    /// The path of the directory that it is in; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<&[u8]> {
        self.path.iter().rposition(|&byte| byte == b'/').map(|at| &self.path[..at])
    }
    /// Whether its path is a name without directories.
    #[must_use]
    pub fn is_plain_name(&self) -> bool {
        !self.path.contains(&b'/')
    }
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> &EntryKind {
        &self.kind
    }
    /// The data and holes of a regular file.
    #[must_use]
    pub const fn extents(&self) -> Option<&Extents> {
        match &self.kind {
            EntryKind::File(extents) => Some(extents),
            _ => None,
        }
    }
    const fn is_hard_link(&self) -> bool {
        matches!(self.kind, EntryKind::HardLink(_))
    }
    /// Bytes of a regular file, holes included; 0 for all others.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.extents().map_or(0, Extents::size)
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
    /// Its owner, if the manifest has it.
    #[must_use]
    pub const fn owner(&self) -> Option<Owner> {
        self.owner
    }
    /// Its extended attributes.
    #[must_use]
    pub fn xattrs(&self) -> &[Xattr] {
        &self.xattrs
    }
    /// Fields that a device need not know.
    #[must_use]
    pub fn optional(&self) -> &[OptionalField] {
        &self.optional
    }
}

fn is_sound_path(path: &[u8]) -> bool {
    let sound = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && part.len() <= MAX_NAME;
    let mut parts = path.split(|&byte| byte == b'/');
    path.len() <= MAX_PATH
        && !path.contains(&0)
        && parts.by_ref().take(MAX_TREE_DEPTH).all(sound)
        && parts.next().is_none()
}
