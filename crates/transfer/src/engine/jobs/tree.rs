//! Jobs for trees.

use super::Refusal;
use crate::content::TreeHead;
use crate::layout::Layout;
use crate::protocol::job::ReceiverDone;
use crate::ranges::BitSet;
use crate::storage::{Part, TreeShape};

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
