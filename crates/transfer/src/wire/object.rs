//! The objects of a session, as ANNOUNCE describes them, and the number of each one's first block.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::{HASHES_PER_PAGE, MAX_BLOCK_LOG2, MAX_OBJECT_SIZE, MAX_OBJECTS, MIN_BLOCK_LOG2};
use crate::units::{BlockIndex, Digest, Extent};

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// The manifest of the other objects; always the first object.
    Manifest = 0,
    /// A file.
    File = 1,
    /// The bytes of a tree of files.
    Tree = 2,
    /// A block device.
    Device = 3,
    /// A stream, whose length is known when it ends.
    Stream = 4,
}

impl ObjectKind {
    const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Manifest,
            1 => Self::File,
            2 => Self::Tree,
            3 => Self::Device,
            4 => Self::Stream,
            _ => return None,
        })
    }
}

/// An object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// The kind.
    pub kind: ObjectKind,
    /// log2 of the block size in bytes, from [`MIN_BLOCK_LOG2`] to [`MAX_BLOCK_LOG2`].
    pub block_log2: u8,
    /// Bytes, at most [`MAX_OBJECT_SIZE`]; the size so far if it is not sealed.
    pub size: u64,
    /// Whether its size is final. Only a stream that is the last object may still grow, by whole blocks.
    pub sealed: bool,
    /// Root hash, once the sender knows it; of a sealed object only.
    pub root: Option<Digest>,
}

impl Object {
    /// A sealed file with an unknown root.
    #[must_use]
    pub const fn file(size: u64, block_log2: u8) -> Self {
        Self { kind: ObjectKind::File, block_log2, size, sealed: true, root: None }
    }

    /// How long it is, as far as that is known.
    #[must_use]
    pub const fn extent(&self) -> Extent {
        Extent { size: self.size, sealed: self.sealed }
    }

    /// What does not change during a session: everything but the root, and of a stream but the size and the state.
    pub(super) fn constant(&self) -> Self {
        let object = Self { root: None, ..*self };
        if self.kind == ObjectKind::Stream { Self { size: 0, sealed: false, ..object } } else { object }
    }

    /// The number of blocks, which may exceed what the wire can number.
    const fn blocks(&self) -> u64 {
        self.size.div_ceil(1 << self.block_log2)
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let kind = r.u8("object kind")?;
        let kind = ObjectKind::from_wire(kind).ok_or(r.not_supported("object kind", kind.into()))?;
        let block_log2 = r.u8("block size")?;
        r.check((MIN_BLOCK_LOG2..=MAX_BLOCK_LOG2).contains(&block_log2), "block size")?;
        let size = r.u64("object size")?;
        r.check(size <= MAX_OBJECT_SIZE, "object size")?;
        let sealed = r.flag("object state")?;
        let may_grow = kind == ObjectKind::Stream && size.is_multiple_of(1 << block_log2);
        r.check(sealed || may_grow, "object state")?;
        let root = if r.flag("root")? { Some(r.digest("root")?) } else { None };
        r.check(sealed || root.is_none(), "root")?;
        Ok(Self { kind, block_log2, size, sealed, root })
    }

    fn encode(&self, w: &mut Writer) {
        w.u8(self.kind as u8);
        w.u8(self.block_log2);
        w.u64(self.size);
        w.u8(self.sealed.into());
        w.u8(self.root.is_some().into());
        if let Some(root) = self.root {
            w.bytes(&root.0);
        }
    }
}

/// Reads the objects of a session, 1 to [`MAX_OBJECTS`]. Only the first may be a manifest, only the last may
/// grow.
pub(super) fn decode(r: &mut Reader<'_>) -> Result<Vec<Object>> {
    let count = usize::from(r.u8("object count")?);
    r.check((1..=MAX_OBJECTS).contains(&count), "object count")?;
    let mut objects = Vec::with_capacity(count);
    for i in 0..count {
        let object = Object::decode(r)?;
        r.check(i == 0 || object.kind != ObjectKind::Manifest, "object kind")?;
        r.check(i + 1 == count || object.sealed, "object state")?;
        objects.push(object);
    }
    r.check(first_blocks(&objects).is_some(), "object size")?;
    Ok(objects)
}

/// See [`decode`].
pub(super) fn encode(objects: &[Object], w: &mut Writer) {
    w.u8(objects.len().min(usize::from(u8::MAX)) as u8);
    objects.iter().for_each(|object| object.encode(w));
}

/// The first block of each object. Blocks are numbered through the session, and each object begins with a
/// page of its own. `None` if there are more blocks than numbers.
#[must_use]
pub fn first_blocks(objects: &[Object]) -> Option<Vec<BlockIndex>> {
    let (mut next, page) = (0_u64, u64::from(HASHES_PER_PAGE));
    let mut first = Vec::with_capacity(objects.len());
    for object in objects {
        let start = next.next_multiple_of(page);
        next = start + object.blocks();
        // The end of every range of blocks is a u32.
        if next > u64::from(u32::MAX) {
            return None;
        }
        first.push(BlockIndex(start as u32));
    }
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_begins_at_a_page_of_its_own() {
        let firsts = |sizes: &[u64]| {
            let objects: Vec<Object> = sizes.iter().map(|&size| Object::file(size << 20, 20)).collect();
            first_blocks(&objects).map(|firsts| firsts.iter().map(|block| block.0).collect::<Vec<_>>())
        };
        assert_eq!(firsts(&[5]), Some(vec![0]));
        assert_eq!(firsts(&[5, 1, 32, 33, 1]), Some(vec![0, 32, 64, 96, 160]));
        // One of no blocks takes no numbers.
        assert_eq!(firsts(&[0, 3]), Some(vec![0, 0]));
        assert_eq!(firsts(&[3, 0, 4]), Some(vec![0, 32, 32]));
        assert_eq!(firsts(&[u64::from(u32::MAX)]), Some(vec![0]));
        assert_eq!(firsts(&[u64::from(u32::MAX) + 1]), None);
        assert_eq!(firsts(&[u64::from(u32::MAX) - 40, 41]), None);
        assert_eq!(firsts(&[u64::from(u32::MAX) - 31, 31]).map(|f| f[1]), Some(u32::MAX - 31));
    }

    #[test]
    fn blocks_have_the_size_of_their_object() {
        let objects = [Object::file(100 << 10, 10), Object::file(100 << 20, 20), Object::file(1, 28)];
        let firsts = first_blocks(&objects).unwrap();
        assert_eq!(firsts, [BlockIndex(0), BlockIndex(128), BlockIndex(256)]);
    }
}
