//! Block numbers of a session that has several objects.
//!
//! Blocks are numbered through the whole session. Object 0 begins at block 0, each further object at the next
//! multiple of [`HASHES_PER_PAGE`] after the end of the one before, so that a page of hashes belongs to one object.
//! Numbers between two objects are unused. The size of a block belongs to its object, the size of a symbol to
//! the session. Only the last object may grow.

use super::{Layout, LayoutError};
use crate::limits::{HASHES_PER_PAGE, MAX_OBJECTS};
use crate::units::BlockIndex;

/// The layouts of a session's objects, and the first block of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLayout {
    /// One to [`MAX_OBJECTS`], all with the same symbol size.
    objects: Vec<Layout>,
    firsts: Vec<BlockIndex>,
}

/// Why a session's layout is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionLayoutError {
    /// It has no object, or too many.
    #[error("session of {0} objects: it must have 1 to 4")]
    Count(usize),
    /// An object does not fit its blocks or symbols.
    #[error(transparent)]
    Object(#[from] LayoutError),
    /// The objects together have more blocks than can be numbered.
    #[error("the session's objects have too many blocks: send fewer at a time")]
    TooManyBlocks,
    /// A growing object has become smaller.
    #[error("the object has shrunk from {0} to {1} bytes: send it again")]
    Shrunk(u64, u64),
}

impl SessionLayout {
    /// Objects of these sizes in bytes, each with the log2 of its block size, cut into symbols of `symbol_size`
    /// bytes.
    ///
    /// # Errors
    /// When they are too many, one of them has no valid layout, or their blocks cannot be numbered.
    pub fn new(objects: &[(u64, u8)], symbol_size: u16) -> Result<Self, SessionLayoutError> {
        if !(1..=MAX_OBJECTS).contains(&objects.len()) {
            return Err(SessionLayoutError::Count(objects.len()));
        }
        let mut session = Self { objects: Vec::new(), firsts: Vec::new() };
        for &(size, block_log2) in objects {
            session.push(Layout::new(size, block_log2, symbol_size)?)?;
        }
        Ok(session)
    }

    fn push(&mut self, layout: Layout) -> Result<(), SessionLayoutError> {
        let too_many = SessionLayoutError::TooManyBlocks;
        let first = self.end().0.checked_next_multiple_of(HASHES_PER_PAGE).ok_or(too_many)?;
        first.checked_add(layout.block_count()).ok_or(too_many)?;
        self.objects.push(layout);
        self.firsts.push(BlockIndex(first));
        Ok(())
    }

    /// The objects, in order.
    #[must_use]
    pub fn objects(&self) -> &[Layout] {
        &self.objects
    }

    /// First block of an object, if there is such an object. (An empty one has none of its own.)
    #[must_use]
    pub fn first_block(&self, object: usize) -> Option<BlockIndex> {
        self.firsts.get(object).copied()
    }

    /// The number behind the last block of the session.
    #[must_use]
    pub fn end(&self) -> BlockIndex {
        let last = self.firsts.last().zip(self.objects.last());
        // `push` has checked that they fit.
        BlockIndex(last.map_or(0, |(first, layout)| first.0 + layout.block_count()))
    }

    /// The object that a block of the session belongs to, and its number there; `None` for numbers between two
    /// objects or behind the last.
    #[must_use]
    pub fn locate(&self, block: BlockIndex) -> Option<(usize, BlockIndex)> {
        // Of objects that begin alike, all but the last are empty.
        let object = self.firsts.partition_point(|first| *first <= block).checked_sub(1)?;
        let own = block.0 - self.firsts[object].0;
        (own < self.objects[object].block_count()).then_some((object, BlockIndex(own)))
    }

    /// The session's number of a block of an object, if there is one.
    #[must_use]
    pub fn number(&self, object: usize, block: BlockIndex) -> Option<BlockIndex> {
        let (first, layout) = (self.firsts.get(object)?, self.objects.get(object)?);
        (block.0 < layout.block_count()).then(|| BlockIndex(first.0 + block.0))
    }

    /// The same session after its last object has grown to `size` bytes.
    ///
    /// # Errors
    /// When that is less than it had, or gets too large for its blocks.
    pub fn grown(&self, size: u64) -> Result<Self, SessionLayoutError> {
        let mut session = self.clone();
        let Some(last) = session.objects.pop() else { return Err(SessionLayoutError::Count(0)) };
        session.firsts.pop();
        if size < last.object_size() {
            return Err(SessionLayoutError::Shrunk(last.object_size(), size));
        }
        session.push(Layout::new(size, last.block_log2(), last.symbol_size())?)?;
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: u64 = 1 << 20;

    fn firsts(session: &SessionLayout) -> Vec<u32> {
        (0..session.objects().len()).map(|object| session.first_block(object).unwrap().0).collect()
    }

    #[test]
    fn objects_begin_at_pages_of_their_own() {
        let session = SessionLayout::new(&[(100, 10), (33 * B, 20), (32 << 22, 22), (1, 16)], 1408).unwrap();
        assert_eq!(firsts(&session), [0, 32, 96, 128]);
        assert_eq!(session.end(), BlockIndex(129));
        assert_eq!(session.first_block(4), None);
        for (number, place) in [
            (0, Some((0, 0))),
            (1, None),
            (31, None),
            (32, Some((1, 0))),
            (64, Some((1, 32))),
            (65, None),
            (96, Some((2, 0))),
            (127, Some((2, 31))),
            (128, Some((3, 0))),
            (129, None),
            (u32::MAX, None),
        ] {
            let place = place.map(|(object, block)| (object, BlockIndex(block)));
            assert_eq!(session.locate(BlockIndex(number)), place, "{number}");
            if let Some((object, block)) = place {
                assert_eq!(session.number(object, block), Some(BlockIndex(number)));
            }
        }
        assert_eq!(session.number(1, BlockIndex(33)), None);
        assert_eq!(session.number(4, BlockIndex(0)), None);
    }

    #[test]
    fn one_object_has_the_numbers_of_its_own_blocks() {
        let session = SessionLayout::new(&[(5 * B, 20)], 1408).unwrap();
        assert!((0..5).all(|b| session.locate(BlockIndex(b)) == Some((0, BlockIndex(b)))));
        assert_eq!(session.locate(BlockIndex(5)), None);
    }

    #[test]
    fn empty_objects_have_no_blocks() {
        let session = SessionLayout::new(&[(0, 20), (0, 20), (B, 20), (0, 20)], 1408).unwrap();
        assert_eq!(firsts(&session), [0, 0, 0, 32]);
        assert_eq!(session.locate(BlockIndex(0)), Some((2, BlockIndex(0))));
        assert_eq!(session.number(0, BlockIndex(0)), None);
        assert_eq!(session.locate(BlockIndex(32)), None);
        let empty = SessionLayout::new(&[(0, 20)], 1408).unwrap();
        assert_eq!((empty.end(), empty.locate(BlockIndex(0))), (BlockIndex(0), None));
    }

    #[test]
    fn the_last_object_grows_and_no_number_changes() {
        let session = SessionLayout::new(&[(33 * B, 20), (0, 20)], 1408).unwrap();
        let grown = session.grown(10 * B + 1).unwrap();
        assert_eq!(firsts(&grown), [0, 64]);
        assert_eq!(grown.end(), BlockIndex(75));
        assert_eq!(grown.objects()[0], session.objects()[0]);
        assert_eq!(grown.grown(10 * B), Err(SessionLayoutError::Shrunk(10 * B + 1, 10 * B)));
        assert_eq!(grown.grown(10 * B + 1), Ok(grown.clone()));
    }

    #[test]
    fn parameters_from_the_network_are_checked() {
        let new = |objects: &[(u64, u8)]| SessionLayout::new(objects, 1408);
        assert_eq!(new(&[]), Err(SessionLayoutError::Count(0)));
        assert_eq!(new(&[(1, 20); 5]), Err(SessionLayoutError::Count(5)));
        assert_eq!(new(&[(1, 20), (1, 9)]), Err(SessionLayoutError::Object(LayoutError::BlockSize(9))));
        let most = u64::from(u32::MAX) << 10;
        assert!(new(&[(most, 10)]).is_ok());
        assert_eq!(new(&[(most, 10), (1, 10)]), Err(SessionLayoutError::TooManyBlocks));
        assert_eq!(new(&[(1, 10), (most, 10)]), Err(SessionLayoutError::TooManyBlocks));
        assert_eq!(
            new(&[(most, 10)]).unwrap().grown(most + 1),
            Err(SessionLayoutError::Object(LayoutError::BlockSize(10)))
        );
    }
}
