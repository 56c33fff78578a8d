//! Jobs for trees, and the manifest of a single file.

use super::Refusal;
use crate::content::{Entry, Extents, Manifest, Modified, TreeHead};
use crate::layout::Layout;
use crate::protocol::job::ReceiverDone;
use crate::ranges::BitSet;
use crate::storage::{Attributes, Part, Source, TreeShape};

/// The manifest of a source that is one file called `name`, as it is announced. Empty if the source has no
/// attributes, or the name is unusable.
#[must_use]
pub fn manifest_of(source: &dyn Source, name: &str) -> Vec<u8> {
    let Some(Attributes { mode, modified: (seconds, nanoseconds) }) = source.attributes() else {
        return Vec::new();
    };
    let modified = Modified { seconds, nanoseconds };
    let entry = Entry::file(name.as_bytes(), mode, modified, Extents::solid(source.extent().size));
    let manifest = entry.map_err(Into::into).and_then(|entry| Manifest::new(vec![entry]));
    manifest.map_or_else(|_| Vec::new(), |manifest| manifest.encoded().to_vec())
}

/// What the storage is told of an announced tree.
pub(super) const fn shape(layout: &Layout, head: TreeHead) -> TreeShape {
    TreeShape { size: layout.object_size(), block_log2: layout.block_log2(), head }
}

/// Lays out a tree whose manifest is verified.
pub(super) fn arrange(part: &dyn Part, layout: &Layout) -> Result<ReceiverDone, Refusal> {
    let mut there = BitSet::new(layout.block_count());
    for range in part.arrange()?.into_iter().filter(|range| range.start < range.end) {
        let last = (range.end - 1) >> layout.block_log2();
        let end = last.saturating_add(1).min(layout.block_count().into()) as u32;
        there.insert_range((range.start >> layout.block_log2()).min(end.into()) as u32..end);
    }
    Ok(ReceiverDone::Arranged { there })
}
