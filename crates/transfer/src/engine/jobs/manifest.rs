//! The manifest of a source.

use crate::content::{Entry, Extents, Manifest, Modified};
use crate::storage::{Attributes, Source};
use std::ops::Range;

/// The manifest of a source that is one file called `name`, as it is announced. Empty if the source has no
/// attributes, or the name is unusable.
#[must_use]
pub fn manifest_of(source: &dyn Source, name: &str) -> Vec<u8> {
    let Some(Attributes { mode, modified: (seconds, nanoseconds) }) = source.attributes() else {
        return Vec::new();
    };
    let modified = Modified { seconds, nanoseconds };
    let (size, (holes, all)) = (source.extent().size, source.holes());
    let extents = Extents::from_lengths(lengths(&holes, size)).unwrap_or_else(|_| Extents::solid(size));
    let entry = Entry::file(name.as_bytes(), mode, modified, extents);
    let entry = entry.map(|entry| entry.with_stored(size.saturating_sub(all)));
    let manifest = entry.map_err(Into::into).and_then(|entry| Manifest::new(vec![entry]));
    manifest.map_or_else(|_| Vec::new(), |manifest| manifest.encoded().to_vec())
}

/// Lengths of data, hole, data and so on, of a file of `size` bytes with these holes.
fn lengths(holes: &[Range<u64>], size: u64) -> Vec<u64> {
    let mut ends = vec![0];
    ends.extend(holes.iter().flat_map(|hole| [hole.start, hole.end]));
    ends.extend(Some(size).filter(|size| ends.last() != Some(size)));
    ends.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_holes_alternate() {
        let holes = [0..4, 6..9];
        assert_eq!(lengths(&[], 0), [] as [u64; 0]);
        assert_eq!(lengths(&[], 9), [9]);
        assert_eq!(lengths(&holes[..1], 9), [0, 4, 5]);
        assert_eq!(lengths(&holes[1..], 9), [6, 3]);
        assert_eq!(lengths(&holes, 12), [0, 4, 2, 3, 3]);
        assert_eq!(lengths(&holes[..1], 4), [0, 4]);
    }
}
